/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file stats.h
 * The statistics of timings, shared by lamina-bench and lamina-gate. Timings are skewed and have outliers, so that centres
 * are medians, comparisons are ratios in logarithms, and intervals are bootstrapped instead of assumed normal.
 */
#ifndef LAMINA_BENCH_STATS_H
#define LAMINA_BENCH_STATS_H

#include <cstddef>
#include <cstdint>
#include <vector>

namespace bench {

/** A counter of 64 bits through a mixing function (Steele, Lea, Flood 2014): the same numbers on every machine. */
class Random {
public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next();
  /** Uniform below n (n > 0). */
  uint64_t below(uint64_t n);
  /** Uniform in [0, 1). */
  double uniform();
  /** Standard normal. */
  double normal();

private:
  uint64_t state_;
};

/** Puts the elements in random order (Fisher-Yates). */
template <typename T> void shuffle(std::vector<T> &v, Random &random) {
  for (size_t i = v.size(); i > 1; i--) std::swap(v[i - 1], v[random.below(i)]);
}

/** Of no values: NaN, in every function below. */
double median(std::vector<double> v);
double mean(const std::vector<double> &v);
/** The p-quantile (0 <= p <= 1), linear between neighbours. */
double quantile(std::vector<double> v, double p);
/** Median distance from the median, times 1.4826: the standard deviation if the values were normal. */
double robust_deviation(const std::vector<double> &v);
/** All values must be above 0. */
double geomean(const std::vector<double> &v);
/** sum(weight * numerator) / sum(weight * denominator): the ratio of the total times. */
double weighted_ratio(const std::vector<double> &weight, const std::vector<double> &numerator,
                      const std::vector<double> &denominator);

struct Interval {
  double low, high;
};

/** log(numerator[i] / denominator[i]) of samples taken in pairs. */
std::vector<double> log_ratios(const std::vector<double> &numerator, const std::vector<double> &denominator);

/** Percentile bootstrap of the median of log ratios: the interval that holds the true one at `level` (0.95), in logarithms.
    The same seed gives the same interval. */
Interval bootstrap_interval(const std::vector<double> &logs, uint64_t seed, double level, int rounds = 2000);

/** The same for the ratio of the medians of samples that are not paired, in logarithms. */
Interval bootstrap_unpaired(const std::vector<double> &numerator, const std::vector<double> &denominator, uint64_t seed,
                            double level, int rounds = 2000);

/** The share of bootstrap medians at or below `bound`: small when the median log ratio is surely above it. Never 0: at
    least 1 / (rounds + 1). */
double bootstrap_p_value(const std::vector<double> &logs, double bound, uint64_t seed, int rounds = 2000);

/** Which of the hypotheses are rejected when the false discovery rate is held to q (Benjamini and Hochberg 1995). */
std::vector<bool> benjamini_hochberg(const std::vector<double> &p, double q);

} // namespace bench

#endif
