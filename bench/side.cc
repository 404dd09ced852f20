/* SPDX-License-Identifier: Apache-2.0 */
#include "side.h"

namespace bench {

const char *side_name(SideKind kind) {
  static const char *const names[] = {"lamina-strict", "lamina-default", "onednn-any", "onednn-nhwc"};
  return names[static_cast<int>(kind)];
}

std::unique_ptr<Side> make_side(SideKind kind, const Case &c, const Data &data, const SideOptions &options) {
  if (is_lamina(kind)) return make_lamina_side(kind == SideKind::LaminaStrict, c, data, options);
  return make_onednn_side(kind == SideKind::OneDnnNhwc, c, data, options);
}

} // namespace bench
