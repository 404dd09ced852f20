/* SPDX-License-Identifier: Apache-2.0 */
/* Copies of input rows with their padding, so that no tile meets an edge. Cost: every float of the region is written
 * once. */
#include "conv2d.h"

#include <string.h>

static int64_t steps(int64_t from, int64_t to, int64_t step) { return (to - from + step - 1) / step; }

int64_t lamina_conv_region_floats(const conv_region *r) {
  return (r->n1 - r->n0) * steps(r->r0, r->r1, r->row_step) * steps(r->c0, r->c1, r->column_step) * r->pixel;
}

/* One row: zeros, what lies inside, zeros. */
static void copy_row(const float *from, int64_t from_pixel, const conv_region *r, float *to) {
  const int64_t step = r->column_step, columns = steps(r->c0, r->c1, step);
  const int64_t left = r->c0 < 0 ? layer_min((-r->c0 + step - 1) / step, columns) : 0;
  const int64_t end = r->w > r->c0 ? layer_max(layer_min(steps(r->c0, r->w, step), columns), left) : left;
  memset(to, 0, (size_t)(left * r->pixel) * sizeof(float));
  memset(to + end * r->pixel, 0, (size_t)((columns - end) * r->pixel) * sizeof(float));
  if (left >= end) return;
  to += left * r->pixel;
  from += (r->c0 + left * step) * from_pixel;
  if (from_pixel == r->count && r->pixel == r->count && step == 1) {
    memcpy(to, from, (size_t)((end - left) * r->count) * sizeof(float));
    return;
  }
  for (int64_t i = left; i < end; i++, to += r->pixel, from += step * from_pixel)
    memcpy(to, from, (size_t)r->count * sizeof(float));
}

conv_window lamina_conv_copy(const conv_image *from, const conv_region *r, float *to) {
  conv_window window = {.data = to, .pixel = r->pixel, .r0 = r->r0, .c0 = r->c0};
  window.row = steps(r->c0, r->c1, r->column_step) * r->pixel;
  window.image = steps(r->r0, r->r1, r->row_step) * window.row;
  for (int64_t n = r->n0; n < r->n1; n++)
    for (int64_t row = r->r0; row < r->r1; row += r->row_step, to += window.row) {
      if (row < 0 || row >= r->h)
        memset(to, 0, (size_t)window.row * sizeof(float));
      else
        copy_row(from->data + n * from->image + row * from->row + r->channel, from->pixel, r, to);
    }
  return window;
}
