/* SPDX-License-Identifier: Apache-2.0 */
/** @file options.h The command line of lamina-bench. */
#ifndef LAMINA_BENCH_OPTIONS_H
#define LAMINA_BENCH_OPTIONS_H

#include "side.h"

#include <string>
#include <vector>

namespace bench {

struct Options {
  enum Action { Google, Compare, List, Help, Version } action = Google;
  std::vector<const Suite *> suites;
  std::vector<Pass> passes;
  std::vector<int64_t> batches; ///< empty: each pass's usual ones
  int threads = 1;
  bool strict = false, by_default = true; ///< which of Lamina's math modes
  bool onednn = true;
  std::string isa, json, report, model_path;
  std::string filter;    ///< only cases whose name contains this
  double seconds = 0.5;  ///< for each side of a case
  uint64_t seed = 1;
  bool check_only = false; ///< --quick: run everything once, assert errors, time nothing

  std::vector<SideKind> sides() const;
  /** All cases of the chosen suites, passes and batches. */
  std::vector<Case> cases() const;
};

/** Reads the command line, leaving Google Benchmark's own flags (--benchmark_...) in argv. Throws std::invalid_argument with a
    message for wrong usage. */
Options parse_options(int *argc, char **argv);
extern const char *const kUsage;

} // namespace bench

#endif
