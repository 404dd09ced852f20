/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file gate_results.h
 * Judges results that another program measured: `lamina plugin bench --json` or `lamina-bench --json`, whose objects have
 * the same form. The n-th object of either file is one round: the caller lets both builds take turns, so that what the
 * machine does to one it does to the other.
 */
#ifndef LAMINA_BENCH_GATE_RESULTS_H
#define LAMINA_BENCH_GATE_RESULTS_H

#include "gate_options.h"

namespace bench {

/** Whether a file is results, by its first character, and no library. False for one that cannot be read. */
bool is_results(const std::string &path);
/** The gate's exit status. Throws GateError for damaged files, other machines, or too few rounds. */
int compare_results(const GateOptions &o);

} // namespace bench

#endif
