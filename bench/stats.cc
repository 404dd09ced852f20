/* SPDX-License-Identifier: Apache-2.0 */
#include "stats.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace bench {

static const double kNaN = std::numeric_limits<double>::quiet_NaN();

uint64_t Random::next() {
  state_ += 0x9e3779b97f4a7c15u;
  uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

uint64_t Random::below(uint64_t n) {
  // Numbers past the last multiple of n would favour the small remainders.
  const uint64_t limit = UINT64_MAX - UINT64_MAX % n;
  uint64_t x = next();
  while (x >= limit) x = next();
  return x % n;
}

double Random::uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

double Random::normal() {
  const double u = 1.0 - uniform(), v = uniform();
  return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v);
}

double quantile(std::vector<double> v, double p) {
  if (v.empty()) return kNaN;
  const double at = p * static_cast<double>(v.size() - 1);
  const size_t i = static_cast<size_t>(at);
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(i), v.end());
  const double low = v[i];
  if (i + 1 >= v.size()) return low;
  const double high = *std::min_element(v.begin() + static_cast<std::ptrdiff_t>(i) + 1, v.end());
  return low + (high - low) * (at - static_cast<double>(i));
}

double median(std::vector<double> v) { return quantile(std::move(v), 0.5); }

double mean(const std::vector<double> &v) {
  return v.empty() ? kNaN : std::accumulate(v.begin(), v.end(), 0.0) / static_cast<double>(v.size());
}

double robust_deviation(const std::vector<double> &v) {
  const double m = median(v);
  std::vector<double> d;
  for (double x : v) d.push_back(std::fabs(x - m));
  return 1.4826 * median(d);
}

double geomean(const std::vector<double> &v) {
  if (v.empty()) return kNaN;
  double sum = 0;
  for (double x : v) sum += std::log(x);
  return std::exp(sum / static_cast<double>(v.size()));
}

double weighted_ratio(const std::vector<double> &weight, const std::vector<double> &numerator,
                      const std::vector<double> &denominator) {
  double n = 0, d = 0;
  for (size_t i = 0; i < weight.size(); i++) {
    n += weight[i] * numerator[i];
    d += weight[i] * denominator[i];
  }
  return d > 0 ? n / d : kNaN;
}

std::vector<double> log_ratios(const std::vector<double> &numerator, const std::vector<double> &denominator) {
  std::vector<double> logs;
  for (size_t i = 0; i < std::min(numerator.size(), denominator.size()); i++)
    logs.push_back(std::log(numerator[i] / denominator[i]));
  return logs;
}

static std::vector<double> bootstrap_medians(const std::vector<double> &logs, uint64_t seed, int rounds) {
  Random random(seed);
  std::vector<double> medians, draw(logs.size());
  for (int r = 0; r < rounds; r++) {
    for (double &x : draw) x = logs[random.below(logs.size())];
    medians.push_back(median(draw));
  }
  return medians;
}

Interval bootstrap_interval(const std::vector<double> &logs, uint64_t seed, double level, int rounds) {
  if (logs.empty()) return {kNaN, kNaN};
  const std::vector<double> medians = bootstrap_medians(logs, seed, rounds);
  return {quantile(medians, (1 - level) / 2), quantile(medians, (1 + level) / 2)};
}

Interval bootstrap_unpaired(const std::vector<double> &numerator, const std::vector<double> &denominator, uint64_t seed,
                            double level, int rounds) {
  if (numerator.empty() || denominator.empty()) return {kNaN, kNaN};
  const std::vector<double> n = bootstrap_medians(numerator, seed, rounds);
  const std::vector<double> logs = log_ratios(n, bootstrap_medians(denominator, seed + 1, rounds));
  return {quantile(logs, (1 - level) / 2), quantile(logs, (1 + level) / 2)};
}

double bootstrap_p_value(const std::vector<double> &logs, double bound, uint64_t seed, int rounds) {
  if (logs.empty()) return 1;
  int below = 0;
  for (double m : bootstrap_medians(logs, seed, rounds)) below += m <= bound;
  return (below + 1.0) / (rounds + 1.0);
}

std::vector<bool> benjamini_hochberg(const std::vector<double> &p, double q) {
  std::vector<size_t> order(p.size());
  std::iota(order.begin(), order.end(), size_t(0));
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] < p[b]; });
  std::vector<bool> rejected(p.size(), false);
  size_t count = 0;
  for (size_t i = 0; i < order.size(); i++)
    if (p[order[i]] <= q * static_cast<double>(i + 1) / static_cast<double>(p.size())) count = i + 1;
  for (size_t i = 0; i < count; i++) rejected[order[i]] = true;
  return rejected;
}

} // namespace bench
