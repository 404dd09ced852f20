/* SPDX-License-Identifier: Apache-2.0 */
#include "conv2d.h"

void lamina_conv_activate(const correlation *c, int64_t n, int64_t r0, int64_t r1, int64_t channel, int64_t count) {
  if (!c->epilogue) return;
  const int64_t columns = c->backward ? c->shape->w.in : c->shape->w.out;
  for (int64_t r = r0; r < r1; r++)
    layer_activate(c->epilogue, columns, count, c->y.data + n * c->y.image + r * c->y.row + channel, c->y.pixel);
}
