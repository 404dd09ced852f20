/* SPDX-License-Identifier: Apache-2.0 */
#include "gate_report.h"

#include "gate_library.h"
#include "stats.h"

#include <cstdio>
#include <ctime>

namespace bench {

const char *const kRegressionOutcome = "REGRESSION";

void Judged::keep(const Timings &t, const Verdict &v, const Limits &limits) {
  const double floor = 1 + limits.floor;
  verdict = v;
  rounds = t.logs.size();
  base = median(t.base);
  candidate = median(t.candidate);
  outcome = v.noisy ? "noisy" : v.low > floor ? "slower" : v.high < 1 / floor ? "faster" : "same";
}

std::string time_now() {
  char text[32];
  const std::time_t now = std::time(nullptr);
  std::tm utc = {};
  gmtime_r(&now, &utc);
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

static size_t count(const std::vector<Judged> &judged, const std::string &outcome) {
  size_t n = 0;
  for (const Judged &j : judged) n += j.outcome == outcome;
  return n;
}

static int print(const GateOptions &o, Record &record, const std::vector<Judged> &judged,
                 const std::vector<std::string> &notes) {
  std::printf("\n%-58s %10s %10s %7s  %-16s %s\n", "case", "base ms", "cand. ms", "ratio", "95% interval", "");
  for (const Judged &j : judged) {
    if (j.outcome == "missing") continue;
    std::printf("%-58s %10.4f %10.4f %7.3f  %.3f to %.3f   %s\n", j.name.c_str(), 1e3 * j.base, 1e3 * j.candidate,
                j.verdict.ratio, j.verdict.low, j.verdict.high, j.outcome.c_str());
    record.cases.push_back({j.name, j.outcome, 1e3 * j.base, 1e3 * j.candidate, j.verdict.ratio, j.verdict.low, j.verdict.high,
                            static_cast<int64_t>(j.rounds)});
  }
  for (const std::string &note : notes) std::printf("%s\n", note.c_str());
  const size_t regressions = count(judged, kRegressionOutcome), noisy = count(judged, "noisy"), all = record.cases.size();
  const int status = regressions ? kRegression : noisy || !all ? kInconclusive : kPass;
  record.verdict = status == kRegression ? "regression" : status == kInconclusive ? "inconclusive" : "pass";
  std::printf("\n%s: %zu cases, geometric mean of the ratios %.4f; %zu slower by more than %g%%, %zu too noisy to tell\n",
              record.verdict.c_str(), all, record.mean_ratio(), regressions, 100 * o.limits.threshold, noisy);
  if (status == kInconclusive)
    std::printf("A change of %g%% would not be seen in the noisy cases. Something else uses this machine, or its clock "
                "changes: try again when it is quiet, with another --cpu, or with more --rounds.\n",
                100 * o.limits.threshold);
  if (std::fflush(stdout) != 0) throw GateError("standard output cannot be written");
  return status;
}

int conclude(const GateOptions &o, Record record, const std::vector<Judged> &judged, const std::vector<std::string> &notes,
             std::vector<Record> history) {
  const int status = print(o, record, judged, notes);
  if (!o.json.empty()) write_record(o.json, record);
  if (!o.append.empty()) append_history(o.append, record);
  history.push_back(record);
  if (!o.plot.empty()) write_text(o.plot, history_page(history));
  return status;
}

} // namespace bench
