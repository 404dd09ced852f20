/* SPDX-License-Identifier: Apache-2.0 */
/* Rounds: in each, every side gives one sample, in random order; a sample is the mean of as many runs as fill a few
   milliseconds, after one run that brings caches back, between two canaries. Samples of a round are compared with each
   other alone, so that what changes slowly (clock frequency, neighbours) cancels. */
#include "measure.h"
#include "options.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unistd.h>

namespace bench {

namespace {

/* Short samples are rarely cut by the scheduler, whose slices are some milliseconds. */
constexpr double kSampleSeconds = 1.5e-3, kTolerance = 0.05;
constexpr size_t kLeastRounds = 9, kMostRounds = 400, kLeastClean = 7;
/* On a busy machine a case takes this many times its budget to find undisturbed samples. */
constexpr double kPatience = 4;

struct Runner {
  std::unique_ptr<Side> side;
  int runs = 1;
  std::vector<Machine::Canary> before, after;
  std::vector<bool> cut; ///< by the scheduler
};

/* Runs for a sample, after warming up. */
int calibrate(Side &side) {
  side.run(1);
  const double once = std::max(side.run(1), 1e-7);
  const int few = static_cast<int>(std::clamp(kSampleSeconds / 4 / once, 1.0, 10000.0));
  const double seconds = std::max(side.run(few) / few, 1e-7);
  return static_cast<int>(std::clamp(kSampleSeconds / seconds, 1.0, 100000.0));
}

/* False if the scheduler cut it. */
bool sample(Runner &r, SideResult &result, Machine &machine) {
  r.before.push_back(machine.canary());
  r.side->run(1);
  const Stolen stolen;
  result.samples.push_back(r.side->run(r.runs) / r.runs);
  result.norm_samples.push_back(r.side->norm_seconds);
  r.cut.push_back(stolen.much());
  r.after.push_back(machine.canary());
  return !r.cut.back();
}

/* Threads of a pool that spin for the next task would take a core from the other side. */
void let_pools_sleep(int threads) {
  if (threads > 1) usleep(3000);
}

void interleave(std::vector<Runner> &runners, CaseResult &result, const Options &options, Machine &machine) {
  std::vector<size_t> order;
  for (size_t i = 0; i < runners.size(); i++)
    if (runners[i].side) order.push_back(i);
  if (order.empty()) return;
  Random random(options.seed);
  const double start = now(), budget = options.seconds * static_cast<double>(order.size());
  size_t clean = 0;
  for (double spent = 0; result.rounds < kMostRounds; spent = now() - start) {
    const bool enough = result.rounds >= kLeastRounds && clean >= kLeastClean;
    if (spent > budget && (enough || spent > kPatience * budget) && result.rounds >= 3) break;
    shuffle(order, random);
    bool on_core = true;
    for (size_t i : order) {
      let_pools_sleep(result.c.threads);
      on_core &= sample(runners[i], result.sides[i], machine);
    }
    clean += on_core;
    result.rounds++;
  }
}

/* The undisturbed of a side's samples; of a noisy case the fastest quarter. */
std::vector<double> trusted(const SideResult &s, const std::vector<double> &samples, bool noisy) {
  std::vector<double> kept;
  for (size_t i = 0; i < samples.size(); i++)
    if (noisy || !s.disturbed[i]) kept.push_back(samples[i]);
  if (!noisy) return kept;
  std::sort(kept.begin(), kept.end());
  kept.resize((kept.size() + 3) / 4);
  return kept;
}

/* Canaries of all sides are judged together: they are the same work. */
void judge(std::vector<Runner> &runners, CaseResult &result, const Machine &machine) {
  std::vector<Machine::Canary> before, after;
  std::vector<bool> cut;
  for (const Runner &r : runners) {
    before.insert(before.end(), r.before.begin(), r.before.end());
    after.insert(after.end(), r.after.begin(), r.after.end());
    cut.insert(cut.end(), r.cut.begin(), r.cut.end());
  }
  std::vector<bool> bad = disturbed(before, after, kTolerance);
  std::vector<double> pace;
  for (size_t i = 0; i < bad.size(); i++) {
    if (!bad[i]) pace.push_back(machine.gflops_of(before[i]));
    bad[i] = bad[i] || cut[i];
  }
  // Several threads may run at another clock than the one that the canary sees.
  if (result.c.threads == 1 && !pace.empty()) result.peak_gflops = median(pace);
  result.dropped = static_cast<size_t>(std::count(bad.begin(), bad.end(), true));
  size_t at = 0;
  for (SideResult &s : result.sides) {
    s.disturbed.assign(bad.begin() + static_cast<std::ptrdiff_t>(at),
                       bad.begin() + static_cast<std::ptrdiff_t>(at + s.samples.size()));
    at += s.samples.size();
    const size_t good = static_cast<size_t>(std::count(s.disturbed.begin(), s.disturbed.end(), false));
    if (!s.samples.empty() && good < 3) result.noisy = true;
  }
  for (SideResult &s : result.sides) {
    const std::vector<double> kept = trusted(s, s.samples, result.noisy);
    s.seconds = median(kept);
    s.norm_seconds = median(trusted(s, s.norm_samples, result.noisy));
    s.deviation = robust_deviation(kept) / s.seconds;
  }
}

/* No double stands behind a whole network: its measure is Lamina's plain C, the specification of the kernels. */
Results network_results(const Case &c, SideOptions options) {
  if (c.shape.kind != Kind::Net || result_names(c).empty()) return {};
  options.isa = "generic";
  const Data none;
  return make_lamina_side(true, c, none, options)->results();
}

/* As error_of(), over all elements. */
double difference(const Results &results, const Results &expected) {
  double errors = 0, squares = 0;
  for (size_t r = 0; r < expected.size(); r++) {
    if (results[r].size() != expected[r].size()) return HUGE_VAL;
    for (size_t i = 0; i < expected[r].size(); i++) {
      errors += std::pow(results[r][i] - expected[r][i], 2);
      squares += std::pow(expected[r][i], 2);
    }
  }
  const double relative = std::sqrt(errors / squares);
  return std::isfinite(relative) ? relative : HUGE_VAL;
}

} // namespace

std::vector<double> SideResult::clean() const { return trusted(*this, samples, false); }

const SideResult *CaseResult::side(SideKind kind) const {
  for (const SideResult &s : sides)
    if (s.kind == kind && s.error.empty()) return &s;
  return nullptr;
}

const SideResult *CaseResult::best_onednn() const {
  const SideResult *best = nullptr;
  for (const SideResult &s : sides)
    if (!is_lamina(s.kind) && s.error.empty() && (!best || s.seconds < best->seconds)) best = &s;
  return best;
}

Comparison compare(const CaseResult &result, SideKind lamina) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const SideResult *l = result.side(lamina), *o = result.best_onednn();
  if (!l || !o) return {nan, {nan, nan}};
  const double ratio = o->seconds / l->seconds;
  if (result.noisy) return {ratio, {nan, nan}};
  std::vector<double> logs;
  for (size_t i = 0; i < result.rounds; i++)
    if (!l->disturbed[i] && !o->disturbed[i]) logs.push_back(std::log(o->samples[i] / l->samples[i]));
  const bool paired = logs.size() >= 5; // else hardly a round has both undisturbed
  const Interval i = paired ? bootstrap_interval(logs, 1, 0.95) : bootstrap_unpaired(o->clean(), l->clean(), 1, 0.95);
  return {paired ? std::exp(median(logs)) : ratio, {std::exp(i.low), std::exp(i.high)}};
}

double norm_ratio(const CaseResult &result, SideKind lamina) {
  const SideResult *l = result.side(lamina), *o = result.best_onednn();
  if (!l || !o || !is_conv_norm(result.c.pass)) return std::numeric_limits<double>::quiet_NaN();
  return o->norm_seconds / l->norm_seconds;
}

CaseResult measure(const Case &c, const std::vector<SideKind> &sides, const Options &options, Machine &machine,
                   double peak_gflops) {
  CaseResult result;
  result.peak_gflops = peak_gflops;
  result.c = c;
  result.flops = c.flops();
  result.bytes = c.bytes();
  const Data data = make_data(c);
  const SideOptions side_options = {options.isa, options.model_path};
  const Results expected = network_results(c, side_options);
  std::vector<Runner> runners;
  for (SideKind kind : sides) {
    SideResult s = {};
    s.kind = kind;
    Runner r;
    try {
      r.side = make_side(kind, c, data, side_options);
      s.numeric_error = c.shape.kind != Kind::Net   ? error_of(c, data, r.side->results())
                        : result_names(c).empty() ? std::nan("")
                                                  : difference(r.side->results(), expected);
      s.detail = r.side->detail;
      s.create_ms = r.side->create_ms;
      s.scratch = r.side->scratch;
      if (r.side->flops > 0) result.flops = r.side->flops;
      r.runs = options.check_only ? 1 : calibrate(*r.side);
    } catch (const Unsupported &e) {
      s.error = e.what();
      r.side.reset();
    } catch (const std::runtime_error &e) { // the other cases may still run
      s.error = e.what();
      r.side.reset();
    }
    result.sides.push_back(s);
    runners.push_back(std::move(r));
  }
  if (options.check_only) return result;
  interleave(runners, result, options, machine);
  judge(runners, result, machine);
  return result;
}

} // namespace bench
