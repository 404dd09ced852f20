/* SPDX-License-Identifier: Apache-2.0 */
#include "gate_measure.h"

#include <algorithm>
#include <cmath>
#include <sys/resource.h>

namespace bench {

/* Long enough for the clock and for caches to settle, short enough to fall between two interruptions mostly. */
static constexpr double kBlockSeconds = 0.8e-3;
static constexpr double kSlowSeconds = 4e-3; // a run so long needs no warming up and fewer repetitions
static constexpr int kMostRuns = 2000, kMostRepeats = 6;
static constexpr size_t kQuads = 3;

Look::Look(const LibraryFile &base, const LibraryFile &candidate, const EngineOptions &options, uint64_t seed)
    : files_{&base, &candidate}, options_(options), random_(seed) {
  load();
  info_ = engines_[0]->info();
  cpu_ = info_.cpu;
  isa_ = info_.isa;
  info_.cpu = cpu_.c_str();
  info_.isa = isa_.c_str();
  info_.isas = nullptr;
  for (size_t side : {0, 1}) versions_[side] = engines_[side]->api().version();
}

void Look::load() {
  const size_t first = random_.below(2);
  for (auto &engine : engines_) engine.reset();
  for (size_t side : {first, 1 - first})
    engines_[side] = std::make_unique<Engine>(*files_[side], side == 0, options_, arenas_);
}

/* How often something else was given this thread's core (this process's, when it has several). */
int64_t Look::preemptions() const {
  rusage usage = {};
  getrusage(options_.threads == 1 ? RUSAGE_THREAD : RUSAGE_SELF, &usage);
  return usage.ru_nivcsw;
}

void Look::round(const std::vector<Case> &cases, const std::vector<size_t> &which, std::vector<Timings> &timings,
                 const std::function<void()> &progress) {
  load();
  std::vector<size_t> order = which;
  shuffle(order, random_);
  for (size_t i : order) {
    if (timings[i].missing.empty()) measure(cases[i], timings[i]);
    progress();
  }
}

void Look::measure(const Case &c, Timings &t) {
  const uint64_t layout = random_.next();
  const bool exchanged = random_.below(2);
  std::vector<double> seconds[2];
  try {
    const double first = half(c, exchanged, layout, t, seconds);
    const double second = half(c, !exchanged, layout, t, seconds);
    t.logs.push_back((first + second) / 2);
    t.base.push_back(median(seconds[0]));
    t.candidate.push_back(median(seconds[1]));
  } catch (const NotInBase &e) {
    t.missing = e.what();
  }
}

/* Seconds of the slower side. Both have run once in building, so that their pages are there. */
static double time_one_run(Subject *sides[2]) {
  double seconds = 0;
  for (int i = 0; i < 2; i++) {
    sides[i]->run(1);
    seconds = std::max(seconds, std::min(sides[i]->run(1), sides[i]->run(1)));
  }
  return seconds;
}

double Look::half(const Case &c, bool exchanged, uint64_t layout, Timings &t, std::vector<double> seconds[2]) {
  std::unique_ptr<Subject> built[2];
  const size_t first = random_.below(2);
  for (size_t side : {first, 1 - first}) {
    Arena &arena = arenas_[exchanged ? 1 - side : side];
    arena.start(layout);
    built[side] = std::make_unique<Subject>(*engines_[side], c, arena);
  }
  Subject *sides[2] = {built[0].get(), built[1].get()};
  if (!t.runs) {
    const double one = time_one_run(sides);
    t.runs = std::clamp(static_cast<int>(std::ceil(kBlockSeconds / std::max(one, 1e-9))), 1, kMostRuns);
    t.slow = one > kSlowSeconds;
  }

  std::vector<double> logs;
  for (size_t quads = t.slow ? 1 : kQuads; logs.size() < quads;) logs.push_back(quad(sides, t, seconds));
  return median(logs);
}

/* Seconds of one run. A block in which the core was taken away is timed again: what follows is mostly a whole time slice. */
double Look::block(Subject &side, Timings &t) {
  for (int again = 0;; again++) {
    if (!t.slow) side.run(1); // the other side has had the caches
    const int64_t before = preemptions();
    const double seconds = side.run(t.runs) / t.runs;
    if (preemptions() == before || again == kMostRepeats) return seconds;
    t.disturbed++;
  }
}

double Look::quad(Subject *sides[2], Timings &t, std::vector<double> seconds[2]) {
  const size_t outer = random_.below(2);
  double taken[2] = {0, 0}, logs[2] = {0, 0};
  for (size_t side : {outer, 1 - outer, 1 - outer, outer}) {
    const double s = block(*sides[side], t);
    taken[side] += s / 2;
    logs[side] += std::log(s) / 2;
  }
  for (int i = 0; i < 2; i++) seconds[i].push_back(taken[i]);
  return logs[1] - logs[0];
}

} // namespace bench
