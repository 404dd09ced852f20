/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file gate_judge.h
 * From timings to verdicts. A case is suspect when the median of its log ratios is above the threshold, the lower end of
 * the bootstrap interval is above the floor, and the hypothesis "no slower than the floor" is rejected with the false
 * discovery rate over all cases held to 5% (Benjamini and Hochberg). It is noisy when a change of the threshold's size would
 * not be told from the floor: the interval reaches further below the median than the two are apart.
 *
 * A run of less than a microsecond takes some tens of nanoseconds more or less when code elsewhere in the library has moved
 * its own to other addresses, and does so each time: a difference that small is never a regression.
 */
#ifndef LAMINA_BENCH_GATE_JUDGE_H
#define LAMINA_BENCH_GATE_JUDGE_H

#include "gate_measure.h"

namespace bench {

struct Limits {
  double threshold = 0.05, floor = 0.02; ///< slower by this share
  double seconds = 50e-9;                ///< and by this much a run
};

struct Verdict {
  double ratio = 1, low = 1, high = 1; ///< candidate's time / base's: median and its 95% interval
  double p = 1;                        ///< of "no slower than the floor"
  bool suspect = false, noisy = false;
};

/** One for each of the timings. Those with nothing measured are neither suspect nor noisy. */
std::vector<Verdict> judge(const std::vector<Timings> &timings, const Limits &limits, uint64_t seed);

} // namespace bench

#endif
