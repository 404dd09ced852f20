/* SPDX-License-Identifier: Apache-2.0 */
#include "gate_judge.h"

#include <algorithm>
#include <cmath>

namespace bench {

static constexpr double kLevel = 0.95, kDiscoveryRate = 0.05;
static constexpr int kLeastBootstraps = 2000;

std::vector<Verdict> judge(const std::vector<Timings> &timings, const Limits &limits, uint64_t seed) {
  const double threshold = std::log1p(limits.threshold), floor = std::log1p(limits.floor);
  std::vector<Verdict> verdicts(timings.size());
  std::vector<size_t> measured;
  std::vector<double> p;
  for (size_t i = 0; i < timings.size(); i++)
    if (!timings[i].logs.empty()) measured.push_back(i);
  /* The smallest p-value is one over the number of bootstraps: it must stay below the strictest step of the procedure. */
  const int bootstraps = std::max(kLeastBootstraps, static_cast<int>(measured.size()) * 40);
  for (size_t i : measured) {
    const std::vector<double> &logs = timings[i].logs;
    const double centre = median(logs);
    const Interval interval = bootstrap_interval(logs, seed + i, kLevel, bootstraps);
    Verdict &v = verdicts[i];
    v.ratio = std::exp(centre);
    v.low = std::exp(interval.low);
    v.high = std::exp(interval.high);
    v.p = bootstrap_p_value(logs, floor, seed + i, bootstraps);
    const bool seen = median(timings[i].base) * std::expm1(centre) > limits.seconds;
    v.suspect = seen && centre > threshold && interval.low > floor;
    v.noisy = !v.suspect && centre - interval.low > threshold - floor;
    p.push_back(v.p);
  }
  const std::vector<bool> rejected = benjamini_hochberg(p, kDiscoveryRate);
  for (size_t k = 0; k < measured.size(); k++)
    if (!rejected[k]) verdicts[measured[k]].suspect = false;
  return verdicts;
}

} // namespace bench
