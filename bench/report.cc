/* SPDX-License-Identifier: Apache-2.0 */
#include "table.h"
namespace bench {
void write_report(const std::string &, const std::vector<CaseResult> &, const Options &, const Environment &) {}
}
