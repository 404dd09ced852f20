/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file depthwise_weights_body.h
 * The gradient of depthwise weights, on vec.h: a strip of neighbouring pixels of dy's row, for one vector of channels,
 * is held in registers, and each vector of x in the strip, loaded once, goes to the sums of all taps that it meets. So
 * a row of K taps with a stride of S costs (width - 1) * S + K loads for K * width FMAs. Where kernels are 3x3 the sums
 * of all nine taps are in registers; of others those of one row of taps. Other widths and dilation take one load for
 * each FMA. With 32 registers 3x3 keeps three rows of dy too (stride 2: two), so that a row of a strip costs 10 loads
 * for 36 FMAs, each of memory that no other row reads.
 *
 * A strip goes down a few rows, which stay in L1 for the next row of taps, and is then added to dw.
 *
 * Padding is left out as in depthwise_body.h.
 */
#ifndef LAMINA_SHARED_DEPTHWISE_WEIGHTS_BODY_H
#define LAMINA_SHARED_DEPTHWISE_WEIGHTS_BODY_H

#include "kernels.h"
#include "vec_inline.h"

enum {
  DW_SUM_WIDTH = 7,
  DW_SUM_WIDTH_3 = VF_REGISTERS >= 32 ? 7 : 5, /* of 3x3: with nine sums */
  DW_SUM_ROWS = 8,
  DW_SUM_TAPS = 4,     /* summed at once of a kernel of any width */
  DW_SUM_AHEAD = 32,   /* floats: the channels after the next, which a strip will read in the same pixels */
  DW_RING_COLUMNS = 4, /* with three rows of dy in registers: more spill */
  DW_RING_ROWS = 16
};

/* `count` pixels of dy from a column on, and a vector of channels with `lanes` of them in use. */
typedef struct depthwise_sum {
  const lamina_depthwise_weights *d;
  const float *x; /* the vector of channels in row 0, in the column of tap 0 of the first pixel (perhaps outside) */
  const float *dy;
  float *dw;
  int64_t column; /* of x, as above */
  int count, lanes;
} depthwise_sum;

VEC_INLINE vf depthwise_sum_load(int masked, const float *p, int lanes) {
  return masked ? vf_load_n(p, lanes) : vf_load(p);
}

VEC_INLINE void depthwise_sum_add(float *dw, vf sum) { vf_store(dw, vf_add(vf_load(dw), sum)); }

/* The rows i .. i + high of taps, each `taps` wide with a step of 1. `border`: columns may be outside; `masked`: and
   the strip may be shorter than `width`, or lanes out of use. */
VEC_INLINE void depthwise_sum_taps(int taps, int stride, int high, int width, int border, int masked,
                                   const depthwise_sum *s, int64_t i, int64_t row0, int64_t row1) {
  const lamina_depthwise_weights *d = s->d;
  const int lanes = s->lanes, count = s->count;
  const int64_t end = (count - 1) * stride + taps, inside = d->w.in - s->column;
  const int64_t first = s->column < 0 ? -s->column : 0, last = end < inside ? end : inside;
  const ptrdiff_t x_pixel = d->x_pixel, dy_pixel = d->dy_pixel;
  vf sum[3][DW_SUM_WIDTH];
#pragma GCC unroll 16
  for (int t = 0; t < high; t++)
#pragma GCC unroll 16
    for (int k = 0; k < taps; k++) sum[t][k] = vf_zero();
  for (int64_t row = row0; row < row1; row++) {
    vf dy[DW_SUM_WIDTH];
    const float *q = s->dy + row * d->dy_row;
#pragma GCC unroll 16
    for (int c = 0; c < width; c++, q += dy_pixel)
      dy[c] = !masked || c < count ? vf_pin(depthwise_sum_load(masked, q, lanes)) : vf_zero();
#pragma GCC unroll 16
    for (int t = 0; t < high; t++) {
      const int64_t in = row * d->h.stride + d->h.first + (i + t) * d->h.step;
      if (in < 0 || in >= d->h.in) continue;
      const float *p = s->x + in * d->x_row;
#pragma GCC unroll 32
      for (int j = 0; j < (width - 1) * stride + taps; j++, p += x_pixel) {
        if (border && (j < first || j >= last)) continue;
        const vf x = vf_pin(depthwise_sum_load(masked, p, lanes));
#pragma GCC unroll 16
        for (int k = 0; k < taps; k++) {
          const int c = (j - k) / stride;
          if (j >= k && (j - k) % stride == 0 && c < width && (!masked || c < count))
            sum[t][k] = vf_fma(x, dy[c], sum[t][k]);
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int t = 0; t < high; t++)
#pragma GCC unroll 16
    for (int k = 0; k < taps; k++) depthwise_sum_add(s->dw + ((i + t) * taps + k) * LAMINA_DEPTHWISE_BLOCK, sum[t][k]);
}

#if VF_REGISTERS >= 32
/* One row of x: its products with those rows of dy in flight that `met` has bits for, where dy[i] meets the taps of row
   i of the kernel. */
VEC_INLINE void depthwise_sum_step(int stride, int width, int border, int masked, const depthwise_sum *s,
                                   const float *p, int64_t first, int64_t last, unsigned met, vf dy[3][DW_RING_COLUMNS],
                                   vf sum[3][3]) {
  const ptrdiff_t pixel = s->d->x_pixel;
  const int lanes = s->lanes, count = s->count;
#pragma GCC unroll 32
  for (int j = 0; j < (width - 1) * stride + 3; j++, p += pixel) {
    if (border && (j < first || j >= last)) continue;
    const vf x = vf_pin(depthwise_sum_load(masked, p, lanes));
    vf_prefetch_l2(p + DW_SUM_AHEAD);
#pragma GCC unroll 16
    for (int k = 0; k < 3; k++) {
      const int c = (j - k) / stride;
#pragma GCC unroll 16
      for (int i = 0; i < 3; i++)
        if ((met >> i & 1) && j >= k && (j - k) % stride == 0 && c < width && (!masked || c < count))
          sum[i][k] = vf_fma(x, dy[stride == 1 ? i : i / 2][c], sum[i][k]);
    }
  }
}

/* The next row of dy enters, those in flight move on to the next rows of taps. */
VEC_INLINE void depthwise_sum_turn(int stride, int width, int masked, const depthwise_sum *s, int64_t row,
                                   vf dy[3][DW_RING_COLUMNS]) {
  const float *q = s->dy + row * s->d->dy_row;
  const ptrdiff_t pixel = s->d->dy_pixel;
#pragma GCC unroll 16
  for (int c = 0; c < width; c++, q += pixel) {
    if (stride == 1) dy[2][c] = dy[1][c];
    dy[1][c] = dy[0][c];
    vf_prefetch_l2(q + DW_SUM_AHEAD);
    if (!masked || c < s->count) dy[0][c] = vf_pin(depthwise_sum_load(masked, q, s->lanes));
  }
}

/* Kernels of 3x3 with steps of 1: all rows of dy that a row of x meets are in registers, as are the nine sums, so that
   each vector of x and dy is loaded once. At least two rows. */
VEC_INLINE void depthwise_sum_ring(int stride, int width, int border, int masked, const depthwise_sum *s, int64_t row0,
                                   int64_t row1) {
  const lamina_depthwise_weights *d = s->d;
  const int64_t end = (s->count - 1) * stride + 3, inside = d->w.in - s->column;
  const int64_t first = s->column < 0 ? -s->column : 0, last = end < inside ? end : inside;
  vf sum[3][3], dy[3][DW_RING_COLUMNS];
#pragma GCC unroll 16
  for (int t = 0; t < 9; t++) sum[t / 3][t % 3] = vf_zero();
#pragma GCC unroll 32
  for (int t = 0; t < 3 * width; t++) dy[t / width][t % width] = vf_zero();
  int64_t in = row0 * stride + d->h.first;
  const float *x = s->x + in * d->x_row;
#define DEPTHWISE_SUM_STEP(MET)                                                                                        \
  do {                                                                                                                 \
    if (in >= 0 && in < d->h.in) depthwise_sum_step(stride, width, border, masked, s, x, first, last, MET, dy, sum);   \
    in++;                                                                                                              \
    x += d->x_row;                                                                                                     \
  } while (0)
  depthwise_sum_turn(stride, width, masked, s, row0, dy);
  DEPTHWISE_SUM_STEP(1);
  if (stride == 1) {
    depthwise_sum_turn(stride, width, masked, s, row0 + 1, dy);
    DEPTHWISE_SUM_STEP(3);
  } else {
    DEPTHWISE_SUM_STEP(2);
  }
  for (int64_t row = row0 + (stride == 1 ? 2 : 1); row < row1; row++) {
    depthwise_sum_turn(stride, width, masked, s, row, dy);
    DEPTHWISE_SUM_STEP(stride == 1 ? 7 : 5);
    if (stride == 2) DEPTHWISE_SUM_STEP(2);
  }
#pragma GCC unroll 16
  for (int c = 0; c < width; c++) {
    if (stride == 1) dy[2][c] = dy[1][c];
    dy[1][c] = dy[0][c];
  }
  if (stride == 1) {
    DEPTHWISE_SUM_STEP(6);
#pragma GCC unroll 16
    for (int c = 0; c < width; c++) dy[2][c] = dy[1][c];
  }
  DEPTHWISE_SUM_STEP(4);
#undef DEPTHWISE_SUM_STEP
#pragma GCC unroll 16
  for (int t = 0; t < 9; t++) depthwise_sum_add(s->dw + t * LAMINA_DEPTHWISE_BLOCK, sum[t / 3][t % 3]);
}
#endif

/* The `n` taps k .. k + n of row i, of any width, stride and step of the kernel. */
VEC_INLINE void depthwise_sum_some(int border, int masked, const depthwise_sum *s, int64_t i, int64_t k, int n,
                                   int64_t row0, int64_t row1) {
  const lamina_depthwise_weights *d = s->d;
  const int64_t stride = d->w.stride, step = d->w.step, column = s->column + k * step, x_in = d->w.in;
  const ptrdiff_t x_pixel = stride * d->x_pixel, x_tap = step * d->x_pixel, dy_pixel = d->dy_pixel;
  const int lanes = s->lanes, count = s->count;
  vf sum[DW_SUM_TAPS];
#pragma GCC unroll 16
  for (int t = 0; t < DW_SUM_TAPS; t++) sum[t] = vf_zero();
  for (int64_t row = row0; row < row1; row++) {
    const int64_t in = row * d->h.stride + d->h.first + i * d->h.step;
    if (in < 0 || in >= d->h.in) continue;
    const float *x = s->x + in * d->x_row + k * x_tap, *q = s->dy + row * d->dy_row;
    vf dy[DW_SUM_WIDTH];
#pragma GCC unroll 16
    for (int c = 0; c < DW_SUM_WIDTH; c++, q += dy_pixel)
      dy[c] = !border || c < count ? vf_pin(depthwise_sum_load(masked, q, lanes)) : vf_zero();
#pragma GCC unroll 16
    for (int t = 0; t < DW_SUM_TAPS; t++, x += x_tap) {
      const float *p = x;
      int64_t at = column + t * step;
      if (t >= n) break;
#pragma GCC unroll 16
      for (int c = 0; c < DW_SUM_WIDTH; c++, p += x_pixel, at += stride)
        if (!border || (c < count && at >= 0 && at < x_in))
          sum[t] = vf_fma(depthwise_sum_load(masked, p, lanes), dy[c], sum[t]);
    }
  }
  float *dw = s->dw + (i * d->w.taps + k) * LAMINA_DEPTHWISE_BLOCK;
#pragma GCC unroll 16
  for (int t = 0; t < DW_SUM_TAPS; t++)
    if (t < n) depthwise_sum_add(dw + t * LAMINA_DEPTHWISE_BLOCK, sum[t]);
}

/* Away from the borders, at one, with some lanes or columns only. */
typedef void depthwise_sum_strip(const depthwise_sum *s, int64_t row0, int64_t row1);
typedef struct depthwise_sums {
  int width, rows;                                                               /* at most */
  depthwise_sum_strip *inside, *border, *masked, *narrow_inside, *narrow_border; /* narrow: one column less, or NULL */
} depthwise_sums;

#define DEPTHWISE_SUM_KIND(NAME, TAPS, STRIDE, HIGH, WIDTH, BORDER, MASKED)                                            \
  static __attribute__((noinline)) void NAME(const depthwise_sum *s, int64_t row0, int64_t row1) {                     \
    for (int64_t i = 0; i < s->d->h.taps; i += HIGH)                                                                   \
      depthwise_sum_taps(TAPS, STRIDE, HIGH, WIDTH, BORDER, MASKED, s, i, row0, row1);                                 \
  }
#define DEPTHWISE_SUM(NAME, TAPS, STRIDE, HIGH, WIDTH)                                                                 \
  DEPTHWISE_SUM_KIND(NAME##_inside, TAPS, STRIDE, HIGH, WIDTH, 0, 0)                                                   \
  DEPTHWISE_SUM_KIND(NAME##_border, TAPS, STRIDE, HIGH, WIDTH, 1, 0)                                                   \
  DEPTHWISE_SUM_KIND(NAME##_masked, TAPS, STRIDE, HIGH, WIDTH, 1, 1)
#define DEPTHWISE_SUM_ANY(NAME, BORDER, MASKED)                                                                        \
  static __attribute__((noinline)) void NAME(const depthwise_sum *s, int64_t row0, int64_t row1) {                     \
    const int64_t taps = s->d->w.taps;                                                                                 \
    for (int64_t i = 0; i < s->d->h.taps; i++)                                                                         \
      for (int64_t k = 0; k < taps; k += DW_SUM_TAPS)                                                                  \
        depthwise_sum_some(BORDER, MASKED, s, i, k, (int)(taps - k < DW_SUM_TAPS ? taps - k : DW_SUM_TAPS), row0,      \
                           row1);                                                                                      \
  }

#if VF_REGISTERS >= 32
#define DEPTHWISE_SUM_RING_KIND(NAME, STRIDE, WIDTH, BORDER, MASKED)                                                   \
  static __attribute__((noinline)) void NAME(const depthwise_sum *s, int64_t row0, int64_t row1) {                     \
    depthwise_sum_ring(STRIDE, WIDTH, BORDER, MASKED, s, row0, row1);                                                  \
  }
#define DEPTHWISE_SUM_RING(NAME, STRIDE)                                                                               \
  DEPTHWISE_SUM_RING_KIND(NAME##_inside, STRIDE, DW_RING_COLUMNS, 0, 0)                                                \
  DEPTHWISE_SUM_RING_KIND(NAME##_border, STRIDE, DW_RING_COLUMNS, 1, 0)                                                \
  DEPTHWISE_SUM_RING_KIND(NAME##_masked, STRIDE, DW_RING_COLUMNS, 1, 1)                                                \
  DEPTHWISE_SUM_RING_KIND(NAME##_narrow_inside, STRIDE, DW_RING_COLUMNS - 1, 0, 0)                                     \
  DEPTHWISE_SUM_RING_KIND(NAME##_narrow_border, STRIDE, DW_RING_COLUMNS - 1, 1, 0)
DEPTHWISE_SUM_RING(depthwise_sum_ring_s1, 1)
DEPTHWISE_SUM_RING(depthwise_sum_ring_s2, 2)
#endif
DEPTHWISE_SUM(depthwise_sum_3x3s1, 3, 1, 3, DW_SUM_WIDTH_3)
DEPTHWISE_SUM(depthwise_sum_3x3s2, 3, 2, 3, DW_SUM_WIDTH_3)
DEPTHWISE_SUM(depthwise_sum_5s1, 5, 1, 1, DW_SUM_WIDTH)
DEPTHWISE_SUM(depthwise_sum_5s2, 5, 2, 1, DW_SUM_WIDTH)
DEPTHWISE_SUM(depthwise_sum_7s1, 7, 1, 1, DW_SUM_WIDTH)
DEPTHWISE_SUM(depthwise_sum_7s2, 7, 2, 1, DW_SUM_WIDTH)
DEPTHWISE_SUM_ANY(depthwise_sum_any_inside, 0, 0)
DEPTHWISE_SUM_ANY(depthwise_sum_any_border, 1, 0)
DEPTHWISE_SUM_ANY(depthwise_sum_any_masked, 1, 1)

#define DEPTHWISE_SUM_ROW(NAME, WIDTH, ROWS)                                                                           \
  { WIDTH, ROWS, NAME##_inside, NAME##_border, NAME##_masked, NULL, NULL }
#define DEPTHWISE_SUM_RING_ROW(NAME)                                                                                   \
  {                                                                                                                    \
    DW_RING_COLUMNS, DW_RING_ROWS, NAME##_inside, NAME##_border, NAME##_masked, NAME##_narrow_inside,                  \
        NAME##_narrow_border                                                                                           \
  }

static const depthwise_sums *depthwise_sum_choose(const lamina_depthwise_weights *d, int64_t rows) {
  static const depthwise_sums fixed[3][2] = {{DEPTHWISE_SUM_ROW(depthwise_sum_3x3s1, DW_SUM_WIDTH_3, DW_SUM_ROWS),
                                              DEPTHWISE_SUM_ROW(depthwise_sum_3x3s2, DW_SUM_WIDTH_3, DW_SUM_ROWS)},
                                             {DEPTHWISE_SUM_ROW(depthwise_sum_5s1, DW_SUM_WIDTH, DW_SUM_ROWS),
                                              DEPTHWISE_SUM_ROW(depthwise_sum_5s2, DW_SUM_WIDTH, DW_SUM_ROWS)},
                                             {DEPTHWISE_SUM_ROW(depthwise_sum_7s1, DW_SUM_WIDTH, DW_SUM_ROWS),
                                              DEPTHWISE_SUM_ROW(depthwise_sum_7s2, DW_SUM_WIDTH, DW_SUM_ROWS)}};
  static const depthwise_sums any = DEPTHWISE_SUM_ROW(depthwise_sum_any, DW_SUM_WIDTH, DW_SUM_ROWS);
  const int64_t taps = d->w.taps;
#if VF_REGISTERS >= 32
  static const depthwise_sums ring[2] = {DEPTHWISE_SUM_RING_ROW(depthwise_sum_ring_s1),
                                         DEPTHWISE_SUM_RING_ROW(depthwise_sum_ring_s2)};
  const int same = d->h.taps == 3 && d->h.step == 1 && d->h.stride == d->w.stride;
  if (rows >= 2 && taps == 3 && d->w.step == 1 && d->w.stride <= 2 && same) return &ring[d->w.stride - 1];
#endif
  (void)rows;
  const int known = d->w.step == 1 && d->w.stride <= 2 && ((taps == 3 && d->h.taps == 3) || taps == 5 || taps == 7);
  return known ? &fixed[taps / 2 - 1][d->w.stride - 1] : &any;
}

/* The channels of a strip of `count` columns from q on, side by side as they lie in memory. */
static void depthwise_sum_columns(const lamina_depthwise_weights *d, const depthwise_sums *sums, int64_t q, int count,
                                  int64_t row0, int64_t row1) {
  const int64_t taps = d->h.taps * d->w.taps, column = q * d->w.stride + d->w.first;
  const int64_t last = column + (count - 1) * d->w.stride + (d->w.taps - 1) * d->w.step;
  const int inside = column >= 0 && last < d->w.in;
  depthwise_sum_strip *full = count == sums->width ? inside ? sums->inside : sums->border
                              : count + 1 == sums->width && sums->narrow_inside
                                  ? inside ? sums->narrow_inside : sums->narrow_border
                                  : sums->masked;
  for (int64_t c = 0; c < d->channels; c += VF_LEN) {
    const int64_t block = c / LAMINA_DEPTHWISE_BLOCK * LAMINA_DEPTHWISE_BLOCK;
    const depthwise_sum s = {.d = d,
                             .x = d->x + column * d->x_pixel + c,
                             .dy = d->dy + q * d->dy_pixel + c,
                             .dw = d->dw + block * taps + (c - block),
                             .column = column,
                             .count = count,
                             .lanes = (int)(d->channels - c < VF_LEN ? d->channels - c : VF_LEN)};
    (s.lanes == VF_LEN ? full : sums->masked)(&s, row0, row1);
  }
}

/* Columns of the next strip of the `left` ones: full strips first, then narrow ones, if these make up for the rest. */
static int depthwise_sum_count(const depthwise_sums *sums, int64_t left) {
  const int width = sums->width, missing = (int)((width - left % width) % width);
  if (left < width) return (int)left;
  return sums->narrow_inside && left <= (int64_t)missing * (width - 1) ? width - 1 : width;
}

static void depthwise_backward_weights(const lamina_depthwise_weights *d, int64_t row0, int64_t row1) {
  const int64_t rows = row1 - row0;
  const depthwise_sums *sums = depthwise_sum_choose(d, rows);
  const int64_t blocks = (rows + sums->rows - 1) / sums->rows;
  for (int64_t i = 0; i < blocks; i++) {
    const int64_t row = row0 + rows * i / blocks, end = row0 + rows * (i + 1) / blocks;
    for (int64_t q = 0; q < d->columns;) {
      const int count = depthwise_sum_count(sums, d->columns - q);
      depthwise_sum_columns(d, sums, q, count, row, end);
      q += count;
    }
  }
}

#endif
