/* SPDX-License-Identifier: Apache-2.0 */
/* lamina-bench: Lamina's layers timed, alone or against oneDNN. */
#include "gbench.h"
#include "table.h"

#include <sys/utsname.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>

namespace bench {

static Environment environment(const Options &o, Machine *machine) {
  Environment e = {};
  e.machine = machine_info(o.isa);
  e.onednn = onednn_version();
  e.threads = o.threads;
  utsname name;
  if (uname(&name) == 0) e.kernel = std::string(name.sysname) + " " + name.release;
  char date[32];
  const std::time_t t = std::time(nullptr);
  std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&t));
  e.date = date;
  if (machine) {
    e.peak_gflops = machine->peak_gflops();
    e.l2_gb = machine->bandwidth_gb(static_cast<size_t>(e.machine.l2 / 2));
    e.memory_gb = machine->bandwidth_gb(size_t(256) << 20);
  }
  return e;
}

static int list(const Options &o) {
  std::printf("suites:\n");
  for (const Suite &s : suites()) std::printf("  %-20s %s\n", s.name, s.doc);
  std::printf("passes:\n");
  for (const PassInfo &p : passes()) std::printf("  %-30s %s\n", p.name, p.doc);
  std::printf("cases (suite, pass and filter narrow them):\n");
  for (const Case &c : o.cases()) std::printf("  %s\n", c.name().c_str());
  return 0;
}

/* Errors of every side within their bounds; prints those that are not. */
static bool in_bounds(const CaseResult &r, const Options &o) {
  bool good = true;
  for (const SideResult &s : r.sides) {
    const double bound = error_bound(r.c, s.kind != SideKind::LaminaDefault);
    const bool failed = !s.error.empty() && is_lamina(s.kind), wrong = s.error.empty() && s.numeric_error > bound;
    if (failed) std::printf("FAILED %s/%s: %s\n", r.c.name().c_str(), side_name(s.kind), s.error.c_str());
    if (wrong) std::printf("WRONG %s/%s: error %.2e, bound %.2e\n", r.c.name().c_str(), side_name(s.kind), s.numeric_error, bound);
    good &= !failed && !wrong;
  }
  if (good && o.check_only) {
    std::printf("%-62s", r.c.name().c_str());
    for (const SideResult &s : r.sides) std::printf(" %8.1e", s.error.empty() ? s.numeric_error : NAN);
    std::printf("\n");
  }
  return good;
}

static int run_comparison(const Options &o) {
  const MachineInfo info = machine_info(o.isa);
  Machine machine(info.isa, o.threads);
  const std::vector<Case> cases = o.cases();
  if (cases.empty()) throw std::invalid_argument("no case fits: the suites have no such pass (--list shows them)");
  const Environment e = environment(o, o.check_only ? nullptr : &machine);
  print_environment(e, o);
  if (!o.check_only) print_header(o);
  std::vector<CaseResult> results;
  bool good = true;
  for (const Case &c : cases) {
    CaseResult r = measure(c, o.sides(), o, machine, e.peak_gflops);
    good &= in_bounds(r, o);
    if (!o.check_only) print_case(r, o, e);
    results.push_back(std::move(r));
  }
  if (o.check_only)
    std::printf("%zu cases, %s\n", results.size(), good ? "all errors in bounds" : "some FAILED or WRONG");
  else
    print_summary(results, o);
  if (!o.json.empty()) write_json(o.json, results, o, e);
  if (!o.report.empty()) write_report(o.report, results, o, e);
  return good ? 0 : 1;
}

static int run(int argc, char **argv) {
  Options o = parse_options(&argc, argv);
  if (o.action == Options::Help) return std::fputs(kUsage, stdout) < 0;
  if (o.action == Options::Version)
    return std::printf("lamina-bench %s, oneDNN %s\n", machine_info("").version.c_str(),
                       onednn_version().empty() ? "not built in" : onednn_version().c_str()) < 0;
  if (o.action == Options::List) return list(o);
  if (o.model_path.empty()) {
    const char *path = std::getenv("LAMINA_MODEL_PATH");
    o.model_path = path ? path : BENCH_MODELS;
  }
  const MachineInfo info = machine_info(o.isa); // refuses an ISA that is not there
  if (o.threads > info.cores)
    throw Unsupported("--threads " + std::to_string(o.threads) + ": this process may use " + std::to_string(info.cores) +
                      " cores");
  if (o.onednn) onednn_limit_isa(o.isa);
  return o.action == Options::Compare ? run_comparison(o) : run_google_benchmark(o, argc, argv);
}

} // namespace bench

int main(int argc, char **argv) {
  try {
    return bench::run(argc, argv);
  } catch (const std::invalid_argument &e) {
    std::fprintf(stderr, "lamina-bench: %s\n", e.what());
    return 2;
  } catch (const bench::Unsupported &e) {
    std::fprintf(stderr, "lamina-bench: %s\n", e.what());
    return 2;
  } catch (const std::exception &e) {
    std::fprintf(stderr, "lamina-bench: %s\n", e.what());
    return 1;
  }
}
