/* SPDX-License-Identifier: Apache-2.0 */
/** @file gate_report.h What became of each case: printed, recorded, and turned into an exit status. */
#ifndef LAMINA_BENCH_GATE_REPORT_H
#define LAMINA_BENCH_GATE_REPORT_H

#include "gate_history.h"
#include "gate_options.h"

namespace bench {

enum Exit { kPass = 0, kRegression = 1, kUsage = 2, kInconclusive = 3 };

extern const char *const kRegressionOutcome;

struct Judged {
  explicit Judged(const std::string &case_name) : name(case_name) {}
  /** Takes over what was measured; the outcome becomes "noisy", "slower", "faster" or "same". */
  void keep(const Timings &t, const Verdict &v, const Limits &limits);

  std::string name, outcome; ///< outcome: one of keep's, kRegressionOutcome, or "missing"
  Verdict verdict;
  size_t rounds = 0;
  double base = 0, candidate = 0; ///< seconds
};

/** UTC, as records have it. */
std::string time_now();

/** Prints the table and the verdict, writes the files that the options name, and returns the exit status. */
int conclude(const GateOptions &o, Record record, const std::vector<Judged> &judged, const std::vector<std::string> &notes,
             std::vector<Record> history);

} // namespace bench

#endif
