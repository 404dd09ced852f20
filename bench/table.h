/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file table.h
 * Results as text, as JSON and as a page; the summary that all three show.
 */
#ifndef LAMINA_BENCH_TABLE_H
#define LAMINA_BENCH_TABLE_H

#include "measure.h"
#include "options.h"

namespace bench {

/** What this run measured of the machine itself. */
struct Environment {
  MachineInfo machine;
  std::string onednn, kernel, date;
  int threads = 1;
  double peak_gflops = 0; ///< of all threads
  double l2_gb = 0, memory_gb = 0; ///< reading, of all threads
};

/** Lamina in one math mode against oneDNN's best, over the cases that both ran. */
struct Summary {
  SideKind lamina;
  size_t cases = 0, below_one = 0, noisy = 0;
  double geomean = 0, weighted = 0, worst = 0;
  std::string worst_name;
  double lamina_seconds = 0, onednn_seconds = 0; ///< weighted by the layers' counts
  double norm_geomean = 0; ///< of the batch norm's part alone; NaN where there is none
  double lamina_percent = 0, onednn_percent = 0; ///< of the FMA peak at the time, time-weighted
};
Summary summarize(const std::vector<CaseResult> &results, SideKind lamina);

/** The Lamina sides among those that were run. */
std::vector<SideKind> lamina_sides(const Options &o);

void print_environment(const Environment &e, const Options &o);
void print_header(const Options &o);
void print_case(const CaseResult &r, const Options &o, const Environment &e);
void print_summary(const std::vector<CaseResult> &results, const Options &o);

/** Throws std::runtime_error when the file cannot be written. */
void write_json(const std::string &path, const std::vector<CaseResult> &results, const Options &o, const Environment &e);
void write_report(const std::string &path, const std::vector<CaseResult> &results, const Options &o, const Environment &e);

} // namespace bench

#endif
