/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file measure.h
 * Interleaved timing of the sides of a case, and what is known of a case afterwards.
 */
#ifndef LAMINA_BENCH_MEASURE_H
#define LAMINA_BENCH_MEASURE_H

#include "peak.h"
#include "side.h"
#include "stats.h"

#include <functional>

namespace bench {

struct Options;

struct SideResult {
  SideKind kind;
  std::string error;  ///< why it did not run; then nothing below holds
  std::string detail; ///< algorithm or implementation
  double seconds = 0; ///< median of the undisturbed samples
  double deviation = 0; ///< robust deviation of them, relative
  double numeric_error = 0; ///< NaN: not measured
  double create_ms = 0, scratch = 0;
  std::vector<double> samples; ///< of all rounds, disturbed or not
  std::vector<bool> disturbed;
  std::vector<double> norm_samples; ///< of each sample, the batch norm's part
  double norm_seconds = 0;          ///< their median; 0 where there is none

  std::vector<double> clean() const; ///< the undisturbed samples
};

struct CaseResult {
  Case c;
  double flops = 0, bytes = 0;
  double peak_gflops = 0; ///< of all threads, while this case was measured
  std::vector<SideResult> sides;
  size_t rounds = 0, dropped = 0; ///< samples of all sides; those disturbed
  bool noisy = false;             ///< hardly a sample was undisturbed: medians are over the fastest quarter

  /** NULL if it was not asked for or could not run. */
  const SideResult *side(SideKind kind) const;
  /** oneDNN's fastest, or NULL. */
  const SideResult *best_onednn() const;
};

/** Lamina against oneDNN's best on one case. */
struct Comparison {
  double ratio; ///< oneDNN's time over Lamina's: above 1, Lamina is faster
  Interval interval; ///< of the ratio, at 95%
};
/** NaN where one of the two is missing. */
Comparison compare(const CaseResult &result, SideKind lamina);

/** As the ratio, of the batch norm's part alone; NaN where there is none. */
double norm_ratio(const CaseResult &result, SideKind lamina);

/** Times the sides on one case for about options.seconds each, in random order, a canary beside each sample. The peak is the
    whole run's, kept where the case cannot tell its own. */
CaseResult measure(const Case &c, const std::vector<SideKind> &sides, const Options &options, Machine &machine,
                   double peak_gflops);

} // namespace bench

#endif
