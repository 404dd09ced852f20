/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file gate_measure.h
 * Timing two libraries against each other. A round of a case is: build it on both sides, in random order, base in one
 * arena and candidate in the other; time short blocks in the order ABBA or BAAB, by lot; then build it again with the
 * arenas exchanged and time as much. A block that was preempted is repeated. The round gives one
 * log ratio: the mean of both halves, each the median of its quads. Rounds are independent: the libraries are loaded anew,
 * which puts their code on other pages (that alone moves a case by up to 6% in one load out of ten), other gaps in memory,
 * another order of cases, another moment. Their medians and intervals are the gate's evidence.
 */
#ifndef LAMINA_BENCH_GATE_MEASURE_H
#define LAMINA_BENCH_GATE_MEASURE_H

#include "gate_subject.h"

#include <functional>

namespace bench {

/** What was measured of one case. */
struct Timings {
  std::vector<double> logs;              ///< of candidate / base, one for each round
  std::vector<double> base, candidate;   ///< seconds of one run, the median of each round
  int runs = 0;                          ///< in a block
  bool slow = false;                     ///< one run is a block
  int disturbed = 0;                     ///< blocks that were thrown away
  std::string missing;                   ///< why the base cannot run it; nothing was measured then
};

/** Two libraries with fresh memory, and what is measured with them. */
class Look {
public:
  Look(const LibraryFile &base, const LibraryFile &candidate, const EngineOptions &options, uint64_t seed);

  /** One more round of these cases, in random order. */
  void round(const std::vector<Case> &cases, const std::vector<size_t> &which, std::vector<Timings> &timings,
             const std::function<void()> &progress);
  /** Of the first load; its strings live as long as the look. */
  const lamina_context_info &info() const { return info_; }
  const std::string &version(size_t side) const { return versions_[side]; }

private:
  const LibraryFile *files_[2];
  const EngineOptions options_;
  Random random_;
  Arena arenas_[2];
  std::unique_ptr<Engine> engines_[2]; ///< base, candidate
  lamina_context_info info_ = {};
  std::string versions_[2], cpu_, isa_;

  void load();

  void measure(const Case &c, Timings &t);
  double half(const Case &c, bool exchanged, uint64_t layout, Timings &t, std::vector<double> seconds[2]);
  double quad(Subject *sides[2], Timings &t, std::vector<double> seconds[2]);
  double block(Subject &side, Timings &t);
  int64_t preemptions() const;
};

} // namespace bench

#endif
