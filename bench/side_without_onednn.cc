/* SPDX-License-Identifier: Apache-2.0 */
/* Stands for oneDNN's sides where the library is not there. */
#include "side.h"

namespace bench {

std::string onednn_version() { return ""; }

void onednn_limit_isa(const std::string &) {}

std::unique_ptr<Side> make_onednn_side(bool, const Case &, const Data &, const SideOptions &) {
  throw Unsupported("built without oneDNN");
}

} // namespace bench
