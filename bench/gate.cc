/* SPDX-License-Identifier: Apache-2.0 */
/* lamina-gate: whether one build of liblamina is slower than another. */
#include "gate_report.h"
#include "gate_results.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

using namespace bench;

namespace {

constexpr int kMostExtensions = 4; // a noisy case is measured for so many times the rounds more

/* On a terminal, what is being done and how long it may still take. */
class Progress {
public:
  void begin(const char *what, size_t steps) {
    what_ = what;
    steps_ = steps;
    done_ = 0;
    start_ = gate_clock();
  }
  void step() {
    done_++;
    if (!terminal_ || gate_clock() - shown_ < 0.5) return;
    shown_ = gate_clock();
    const double left = (shown_ - start_) / static_cast<double>(done_) * static_cast<double>(steps_ - done_);
    std::fprintf(stderr, "\r%s: %zu of %zu, %.0f s left \033[K", what_, done_, steps_, left);
  }
  void end() const {
    if (terminal_) std::fprintf(stderr, "\r\033[K");
  }

private:
  const bool terminal_ = isatty(STDERR_FILENO);
  const char *what_ = "";
  size_t steps_ = 0, done_ = 0;
  double start_ = 0, shown_ = 0;
};

void stay_on_core(int wanted) {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  int cpu = wanted;
  for (int i = 0; wanted < 0 && i < CPU_SETSIZE; i++)
    if (CPU_ISSET(i, &allowed)) cpu = i;
  if (cpu < 0 || cpu >= CPU_SETSIZE || !CPU_ISSET(cpu, &allowed))
    throw GateError("--cpu: this process may not run on core " + std::to_string(wanted));
  CPU_ZERO(&allowed);
  CPU_SET(cpu, &allowed);
  if (sched_setaffinity(0, sizeof allowed, &allowed) != 0)
    throw GateError("core " + std::to_string(cpu) + " cannot be used: " + std::strerror(errno));
}

class Gate {
public:
  explicit Gate(const GateOptions &o) : o_(o), base_(read_library(o.base)), candidate_(read_library(o.candidate)) {}

  int run() {
    if (!o_.append.empty()) history_ = read_history(o_.append); // a damaged one is better known before than after
    cases_ = choose_cases(o_.choice);
    for (const Case &c : cases_) judged_.emplace_back(c.name());
    start();
    const std::vector<size_t> suspects = first_look();
    if (!suspects.empty()) second_look(suspects);
    return conclude(o_, record_, judged_, notes_, history_);
  }

private:
  const GateOptions &o_;
  const LibraryFile base_, candidate_;
  std::vector<Case> cases_;
  std::vector<Judged> judged_;
  std::vector<Record> history_;
  Record record_;
  Progress progress_;
  std::vector<std::string> notes_;

  void start() {
    utsname system = {};
    uname(&system);
    record_.machine.kernel = system.release;
    record_.time = time_now();
    record_.suite = o_.choice.suite;
    record_.math = o_.engine.strict_math ? "strict" : "default";
    record_.threshold = o_.limits.threshold;
    record_.seed = static_cast<int64_t>(o_.seed);
    record_.machine.cores = sysconf(_SC_NPROCESSORS_ONLN);
    record_.machine.threads = o_.engine.threads;
    if (o_.engine.threads == 1) stay_on_core(o_.cpu);
  }

  void describe(const Look &look) {
    const lamina_context_info &info = look.info();
    Fingerprint &m = record_.machine;
    m.cpu = info.cpu;
    m.isa = info.isa;
    m.l1 = static_cast<int64_t>(info.l1);
    m.l2 = static_cast<int64_t>(info.l2);
    m.l3 = static_cast<int64_t>(info.l3);
    record_.base = {base_.path, look.version(0), base_.build_id};
    record_.candidate = {candidate_.path, look.version(1), candidate_.build_id};
    if (o_.engine.threads > info.cores)
      throw GateError("--threads " + std::to_string(o_.engine.threads) + ": this process may use " +
                      std::to_string(info.cores) + " cores");
    std::printf("%s, kernel %s\n", m.text().c_str(), m.kernel.c_str());
    std::printf("base      %s, %s, build %.16s\n", base_.path.c_str(), record_.base.version.c_str(), base_.build_id.c_str());
    std::printf("candidate %s, %s, build %.16s\n", candidate_.path.c_str(), record_.candidate.version.c_str(),
                candidate_.build_id.c_str());
    std::printf("%zu cases of suite %s, threshold %g%%, floor %g%%, seed %llu\n", cases_.size(), o_.choice.suite.c_str(),
                100 * o_.limits.threshold, 100 * o_.limits.floor, static_cast<unsigned long long>(o_.seed));
    std::fflush(stdout);
  }

  /* Measures these cases, the noisy ones for longer, and judges them. */
  std::vector<Verdict> look_at(Look &look, const char *what, std::vector<size_t> which, int rounds,
                               std::vector<Timings> &timings) {
    std::vector<Verdict> verdicts;
    for (int extension = 0; extension <= kMostExtensions && !which.empty(); extension++) {
      progress_.begin(extension ? "noisy cases again" : what, which.size() * static_cast<size_t>(rounds));
      for (int r = 0; r < rounds; r++) look.round(cases_, which, timings, [this] { progress_.step(); });
      progress_.end();
      verdicts = judge(timings, o_.limits, o_.seed);
      which.clear();
      for (size_t i = 0; i < verdicts.size(); i++)
        if (verdicts[i].noisy) which.push_back(i);
    }
    return verdicts;
  }

  std::vector<size_t> first_look() {
    Look look(base_, candidate_, o_.engine, o_.seed);
    describe(look);
    std::vector<Timings> timings(cases_.size());
    std::vector<size_t> all, suspects;
    for (size_t i = 0; i < cases_.size(); i++) all.push_back(i);
    const std::vector<Verdict> verdicts = look_at(look, "first look", all, o_.rounds, timings);
    for (size_t i = 0; i < cases_.size(); i++) {
      Judged &j = judged_[i];
      if (!timings[i].missing.empty()) {
        j.outcome = "missing";
        notes_.push_back(cases_[i].name() + " was left out, since the base cannot run it: " + timings[i].missing);
        continue;
      }
      j.keep(timings[i], verdicts[i], o_.limits);
      if (verdicts[i].suspect) suspects.push_back(i);
    }
    return suspects;
  }

  /* Memory is fresh, and nothing of the first look counts. */
  void second_look(const std::vector<size_t> &suspects) {
    Look look(base_, candidate_, o_.engine, Random(o_.seed + 1).next());
    std::vector<Timings> timings(cases_.size());
    const std::vector<Verdict> verdicts = look_at(look, "second look", suspects, 2 * o_.rounds, timings);
    for (size_t i : suspects) {
      char text[200];
      std::snprintf(text, sizeof text, "%s: first look %+.1f%%, second look %+.1f%%", cases_[i].name().c_str(),
                    100 * (judged_[i].verdict.ratio - 1), 100 * (verdicts[i].ratio - 1));
      notes_.push_back(text);
      judged_[i].keep(timings[i], verdicts[i], o_.limits);
      if (verdicts[i].suspect) judged_[i].outcome = kRegressionOutcome;
    }
  }
};

int list_cases(const GateOptions &o) {
  for (const Case &c : choose_cases(o.choice)) std::printf("%s\n", c.name().c_str());
  return kPass;
}

int draw(const GateOptions &o) {
  const std::vector<Record> history = read_history(o.append);
  if (history.empty()) throw GateError(o.append + ": there is no history to draw");
  write_text(o.plot, history_page(history));
  return kPass;
}

int run(int argc, char **argv) {
  GateOptions o = parse_gate_options(argc, argv);
  if (!o.seed_given) o.seed = static_cast<uint64_t>(std::time(nullptr)) * 1000003u % 1000000007u;
  switch (o.action) {
  case GateOptions::Help: return std::fputs(kGateUsage, stdout) < 0 ? kUsage : kPass;
  case GateOptions::Version: return std::printf("lamina-gate %s, ABI %d\n", LAMINA_VERSION, LAMINA_SOVERSION) < 0;
  case GateOptions::List: return list_cases(o);
  case GateOptions::Draw: return draw(o);
  case GateOptions::Compare: return Gate(o).run();
  case GateOptions::CompareResults: return compare_results(o);
  }
  return kUsage;
}

} // namespace

int main(int argc, char **argv) {
  try {
    return run(argc, argv);
  } catch (const NotInBase &e) {
    std::fprintf(stderr, "lamina-gate: the base cannot be used: %s\n", e.what());
  } catch (const std::exception &e) {
    std::fprintf(stderr, "lamina-gate: %s\n", e.what());
  }
  return kUsage;
}
