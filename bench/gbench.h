/* SPDX-License-Identifier: Apache-2.0 */
/** @file gbench.h The cases as Google Benchmark's, one for each side. */
#ifndef LAMINA_BENCH_GBENCH_H
#define LAMINA_BENCH_GBENCH_H

#include "options.h"

namespace bench {

/** Registers "pass/network/shape/bN/tN/side" for every case and side, then runs what the flags ask for. */
int run_google_benchmark(const Options &o, int argc, char **argv);

} // namespace bench

#endif
