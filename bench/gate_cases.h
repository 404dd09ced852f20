/* SPDX-License-Identifier: Apache-2.0 */
/** @file gate_cases.h What the gate compares: its own short list, or any suite's shapes. */
#ifndef LAMINA_BENCH_GATE_CASES_H
#define LAMINA_BENCH_GATE_CASES_H

#include "shape.h"

namespace bench {

/** The name of the gate's own suite. */
extern const char *const kGateSuite;

struct CaseChoice {
  std::string suite = kGateSuite;
  std::string pass;   ///< a pass's name; "": those that matter most
  std::string filter; ///< a part of the case's name; "": all
  int64_t batch = 1;  ///< the gate's own suite has batches of its own
  int threads = 1;
};

/** Throws GateError when the suite or the pass is not known, or nothing is left. */
std::vector<Case> choose_cases(const CaseChoice &choice);

} // namespace bench

#endif
