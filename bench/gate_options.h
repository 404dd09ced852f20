/* SPDX-License-Identifier: Apache-2.0 */
/** @file gate_options.h The command line of lamina-gate. */
#ifndef LAMINA_BENCH_GATE_OPTIONS_H
#define LAMINA_BENCH_GATE_OPTIONS_H

#include "gate_cases.h"
#include "gate_judge.h"

namespace bench {

struct GateOptions {
  enum Action { Compare, CompareResults, Draw, List, Help, Version } action = Compare;
  std::string base, candidate;
  CaseChoice choice;
  EngineOptions engine;
  Limits limits;
  int rounds = 12;
  int cpu = -1; ///< the core to stay on; -1: the last one allowed
  uint64_t seed = 1;
  bool seed_given = false;
  std::string append, plot, json;
};

/** Throws GateError for wrong usage. */
GateOptions parse_gate_options(int argc, char **argv);
extern const char *const kGateUsage;

} // namespace bench

#endif
