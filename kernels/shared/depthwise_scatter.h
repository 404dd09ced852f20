/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file depthwise_scatter.h
 * A part of depthwise_body.h, which includes it: the gradient of x where both strides are 2, for kernels 3 or 5 wide.
 *
 * A strip is up to 2 * DW_SCATTER_WIDTH neighbouring outputs of one row, for one vector of channels, which are summed
 * in registers: each vector of the gradient of y goes to all of them that it reaches, as many as a row of the kernel is
 * wide. By phases, each with the taps that hit it, a vector would be loaded for every product. Outputs are four times
 * as many as inputs, and what they take is to write them: so a strip walks through all channels, and memory is written
 * in order.
 */
#ifndef LAMINA_SHARED_DEPTHWISE_SCATTER_H
#define LAMINA_SHARED_DEPTHWISE_SCATTER_H

/* Pairs of outputs in a strip; 16 registers are accumulators, weights of a row of the kernel and an input. */
enum { DW_SCATTER_WIDTH = VF_REGISTERS >= 32 ? 7 : 4, DW_SCATTER_OUTPUTS = 2 * DW_SCATTER_WIDTH };

/* A row of a strip. Columns of x are counted from the first that reaches one of its outputs, and may be outside. */
typedef struct depthwise_scatter_strip {
  const float *x,
      *weights; /* of the first row of x that reaches the row, in the strip's first column, and of its taps */
  ptrdiff_t x_row, x_pixel; /* x_row: to the next one, upwards */
  int rows, first, last;    /* rows of x; columns of x that are inside */
  const float *add;         /* or NULL */
  ptrdiff_t add_pixel;
  float *y;
  ptrdiff_t y_pixel;
  int count; /* outputs */
  int lanes;
} depthwise_scatter_strip;

/* Output t is `odd` + t columns behind the one that tap 0 reaches from column taps / 2 - odd of x. */
VEC_INLINE void depthwise_scatter_row(int taps, int odd, int border, int masked, const depthwise_scatter_strip *s) {
  vf acc[DW_SCATTER_OUTPUTS];
  const int lanes = s->lanes, first = s->first, last = s->last, columns = DW_SCATTER_WIDTH + taps / 2;
#pragma GCC unroll 16
  for (int t = 0; t < DW_SCATTER_OUTPUTS; t++) acc[t] = vf_zero();
  const float *x = s->x, *weights = s->weights;
  for (int i = s->rows; i > 0; i--) {
    vf w[5];
#pragma GCC unroll 16
    for (int k = 0; k < taps; k++) w[k] = vf_pin(vf_load(weights + k * LAMINA_DEPTHWISE_BLOCK));
    const float *p = x;
#pragma GCC unroll 16
    for (int j = 0; j < columns; j++, p += s->x_pixel)
      if (!border || (j >= first && j < last)) {
        const vf xv = vf_pin(depthwise_load(masked, p, lanes));
#pragma GCC unroll 16
        for (int k = 0; k < taps; k++) {
          const int t = 2 * (j - taps / 2 + odd) + k - odd;
          if (t >= 0 && t < DW_SCATTER_OUTPUTS) acc[t] = vf_fma(xv, w[k], acc[t]);
        }
      }
    x -= s->x_row;
    weights += 2 * taps * LAMINA_DEPTHWISE_BLOCK;
  }
  float *y = s->y;
  const float *add = s->add;
#pragma GCC unroll 16
  for (int t = 0; t < DW_SCATTER_OUTPUTS; t++, y += s->y_pixel) {
    if (border && t >= s->count) break;
    if (add) acc[t] = vf_add(acc[t], depthwise_load(masked, add + t * s->add_pixel, lanes));
    if (masked)
      vf_store_n(y, acc[t], lanes);
    else
      vf_store(y, acc[t]);
  }
}

typedef void depthwise_scatter_kind(const depthwise_scatter_strip *s);
#define DEPTHWISE_SCATTER_KIND(NAME, TAPS, ODD, BORDER, MASKED)                                                        \
  static __attribute__((noinline)) void NAME(const depthwise_scatter_strip *s) {                                       \
    depthwise_scatter_row(TAPS, ODD, BORDER, MASKED, s);                                                               \
  }
#define DEPTHWISE_SCATTER(TAPS, ODD)                                                                                   \
  DEPTHWISE_SCATTER_KIND(depthwise_scatter_##TAPS##_##ODD##_inside, TAPS, ODD, 0, 0)                                   \
  DEPTHWISE_SCATTER_KIND(depthwise_scatter_##TAPS##_##ODD##_border, TAPS, ODD, 1, 0)                                   \
  DEPTHWISE_SCATTER_KIND(depthwise_scatter_##TAPS##_##ODD##_masked, TAPS, ODD, 1, 1)
#define DEPTHWISE_SCATTER_NAMES(TAPS, ODD)                                                                             \
  {                                                                                                                    \
    depthwise_scatter_##TAPS##_##ODD##_inside, depthwise_scatter_##TAPS##_##ODD##_border,                              \
        depthwise_scatter_##TAPS##_##ODD##_masked                                                                      \
  }
DEPTHWISE_SCATTER(3, 0)
DEPTHWISE_SCATTER(3, 1)
DEPTHWISE_SCATTER(5, 0)
DEPTHWISE_SCATTER(5, 1)

static int64_t depthwise_half(int64_t n) { return (n - (n & 1)) / 2; } /* rounded down */
static int64_t depthwise_at_most(int64_t n, int64_t most) { return n < most ? n : most; }

/* What row `row` of y is reached from; x in column 0, channel 0. */
static void depthwise_scatter_rows(const lamina_depthwise *d, int64_t row, depthwise_scatter_strip *s) {
  const int64_t at = row - d->h.first; /* at = 2 * row of x + tap */
  const int64_t below = depthwise_half(at), bottom = depthwise_at_most(below, d->h.in - 1);
  int64_t top = depthwise_half(at - d->h.taps + 2);
  if (top < 0) top = 0;
  s->rows = bottom >= top ? (int)(bottom - top + 1) : 0;
  s->x = d->x + (s->rows ? bottom * d->x_row : 0);
  s->weights = d->weights + (s->rows ? (at - 2 * bottom) * d->w.taps * LAMINA_DEPTHWISE_BLOCK : 0);
}

/* All channels of the strip of a row whose first output is q. */
static void depthwise_scatter_channels(const lamina_depthwise *d, depthwise_scatter_strip s, int64_t row, int64_t q,
                                       int count, depthwise_scatter_kind *const kinds[3]) {
  const int64_t columns = DW_SCATTER_WIDTH + d->w.taps / 2, odd = (q - d->w.first) & 1;
  const int64_t column = (q - d->w.first - odd) / 2 - d->w.taps / 2 + odd, inside = d->w.in - column;
  s.first = (int)depthwise_at_most(column < 0 ? -column : 0, columns);
  s.last = (int)depthwise_at_most(inside, depthwise_half(count - 1 + odd) + d->w.taps / 2 - odd + 1);
  s.count = count;
  const int border = s.first > 0 || s.last < columns || count < DW_SCATTER_OUTPUTS;
  const int64_t block_weights = d->h.taps * d->w.taps * LAMINA_DEPTHWISE_BLOCK;
  const float *x = s.x + column * d->x_pixel, *weights = s.weights;
  const float *add = d->add ? d->add + row * d->add_row + q * d->add_pixel : NULL;
  float *y = d->y + row * d->y_row + q * d->y_pixel;
  for (int64_t c = 0; c < d->channels; c += VF_LEN) {
    s.lanes = (int)depthwise_at_most(d->channels - c, VF_LEN);
    s.x = x + c;
    s.weights = weights + c / LAMINA_DEPTHWISE_BLOCK * block_weights + c % LAMINA_DEPTHWISE_BLOCK;
    s.add = add ? add + c : NULL;
    s.y = y + c;
    kinds[s.lanes < VF_LEN ? 2 : border](&s);
  }
}

static int depthwise_scatters(const lamina_depthwise *d) {
  const lamina_depthwise_axis *h = &d->h, *w = &d->w;
  return h->stride == 2 && w->stride == 2 && h->step == 1 && w->step == 1 && (w->taps == 3 || w->taps == 5);
}

static void depthwise_backward_data(const lamina_depthwise *d, int64_t row0, int64_t row1) {
  static depthwise_scatter_kind *const kinds[2][2][3] = {
      {DEPTHWISE_SCATTER_NAMES(3, 0), DEPTHWISE_SCATTER_NAMES(3, 1)},
      {DEPTHWISE_SCATTER_NAMES(5, 0), DEPTHWISE_SCATTER_NAMES(5, 1)}};
  depthwise_scatter_strip s = {
      .x_row = d->x_row, .x_pixel = d->x_pixel, .add_pixel = d->add_pixel, .y_pixel = d->y_pixel};
  for (int64_t row = row0; row < row1; row++) {
    depthwise_scatter_rows(d, row, &s);
    for (int64_t q = 0; q < d->columns; q += DW_SCATTER_OUTPUTS) {
      const int count = (int)depthwise_at_most(d->columns - q, DW_SCATTER_OUTPUTS);
      depthwise_scatter_channels(d, s, row, q, count, kinds[d->w.taps == 5][(q - d->w.first) & 1]);
    }
  }
}

#endif
