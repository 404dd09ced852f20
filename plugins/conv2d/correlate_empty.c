/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Phases of the gradient of x that no tap meets (1x1 with stride 2 has three of four): zeros, written whole pixels and
 * rows at a time, where the tiles of a sum of nothing would write a panel's part of each. Bound by memory: every line
 * is written once, and not read before where dx is larger than what the caches keep for its reader.
 */
#include "correlate.h"

#include <math.h>
#include <string.h>

int lamina_conv_phase_empty(const correlation *c, const conv_axis *h, const conv_axis *w) {
  return (h->taps == 0 || w->taps == 0) && !c->bias && !c->add.data && c->lo == -INFINITY && c->hi == INFINITY;
}

void lamina_conv_fill_empty(const correlation *c, const conv_region *r) {
  const conv_shape *s = c->shape;
  const double bytes = (double)(s->images * s->h.in * s->w.in) * (double)(s->groups * c->out) * sizeof(float);
  const int stream = layer_streams(s->host, bytes);
  for (int64_t phase = 0; phase < c->phases_h * c->phases_w; phase++) {
    const conv_axis h = lamina_conv_axis(&s->h, c->backward, phase / c->phases_w);
    const conv_axis w = lamina_conv_axis(&s->w, c->backward, phase % c->phases_w);
    if (!lamina_conv_phase_empty(c, &h, &w)) continue;
    const int whole =
        h.taps == 0 && r->count == c->y.pixel; /* rows in which every phase is empty: all with the first */
    if (whole && phase % c->phases_w > 0) continue;
    const int64_t runs = whole ? 1 : w.count, n = whole ? s->w.in * r->count : r->count;
    const int64_t first = whole ? 0 : w.out_first, step = w.out_step * c->y.pixel;
    for (int64_t i = r->n0; i < r->n1; i++)
      for (int64_t t = r->r0; t < layer_min(r->r1, h.count); t++) {
        float *y =
            c->y.data + i * c->y.image + (h.out_first + t * h.out_step) * c->y.row + first * c->y.pixel + r->channel;
        if (stream)
          s->kernels->eltwise->stream_zero(runs, n, step, y);
        else
          for (int64_t run = 0; run < runs; run++) memset(y + run * step, 0, (size_t)n * sizeof *y);
      }
  }
}
