/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file norm_reduce_body.h
 * Sums over the rows of a rows x channels matrix, on vec.h: of x - shift and its square, of dy and dy * (x - mean), of
 * x.
 *
 * Up to NORM_VECTORS vectors of channels have their sums in registers, in two chains (even and odd rows), over blocks
 * of NORM_ROWS rows. Wider matrices go in bands of a few rows, read as that many linear streams (a narrow column of
 * many rows would stop the prefetchers); a band's sums are then added to those in memory. Every block's sums start at
 * zero, which keeps the rounding error small. Cost: one load an element; all inputs are read once, at the bandwidth of
 * L3.
 */
#ifndef LAMINA_SHARED_NORM_REDUCE_BODY_H
#define LAMINA_SHARED_NORM_REDUCE_BODY_H

#include "kernels.h"
#include "norm_period.h"
#include "vec_inline.h"

/* Rows of a band with one and with two inputs: few enough for the prefetchers and the sets of L1, enough to pay for the
   sums' way through memory. The sums and shifts of NORM_CHANNELS channels stay in L1. */
enum {
  NORM_VECTORS = VF_REGISTERS / 8,
  NORM_CHAINS = 2,
  NORM_ROWS = 256,
  NORM_BAND = 8,
  NORM_BAND_TWO = 4,
  NORM_CHANNELS = 1024
};

typedef enum reduce_kind {
  REDUCE_MOMENTS,  /* first += x - shift, second += (x - shift)^2 */
  REDUCE_BACKWARD, /* first += dy, second += dy * (x - shift) */
  REDUCE_SUM       /* first += x */
} reduce_kind;

typedef struct reduction {
  const float *x, *dy; /* dy: REDUCE_BACKWARD */
  int64_t x_ld, dy_ld;
  const float *shift;
  float *first, *second;
} reduction;

VEC_INLINE void reduce_vector(reduce_kind kind, vf x, vf dy, vf shift, vf *first, vf *second) {
  if (kind == REDUCE_SUM) {
    *first = vf_add(*first, x);
    return;
  }
  vf centred = vf_sub(x, shift), other = kind == REDUCE_MOMENTS ? centred : dy;
  *first = vf_add(*first, other);
  *second = vf_fma(other, centred, *second);
}

VEC_INLINE vf reduce_load(int masked, const float *p, int tail) { return masked ? vf_load_n(p, tail) : vf_load(p); }

/* The sums of two chains, added to those in memory. */
VEC_INLINE void reduce_store(reduce_kind kind, int masked, int tail, const reduction *r, int64_t c, const vf *first,
                             const vf *second) {
  const vf one = vf_add(first[0], first[1]), two = vf_add(second[0], second[1]);
  float *p = r->first + c, *q = kind == REDUCE_SUM ? NULL : r->second + c;
  if (masked) {
    vf_store_n(p, vf_add(vf_load_n(p, tail), one), tail);
    if (q) vf_store_n(q, vf_add(vf_load_n(q, tail), two), tail);
  } else {
    vf_store(p, vf_add(vf_load(p), one));
    if (q) vf_store(q, vf_add(vf_load(q), two));
  }
}

/* `vectors` vectors of channels from c (or one of `tail` lanes) over any number of rows, in registers. */
VEC_INLINE void reduce_column(reduce_kind kind, int vectors, int masked, int tail, const reduction *r, int64_t row,
                              int64_t rows, int64_t c) {
  vf first[NORM_VECTORS][NORM_CHAINS], second[NORM_VECTORS][NORM_CHAINS], shift[NORM_VECTORS];
  const int64_t x_ld = r->x_ld, dy_ld = kind == REDUCE_BACKWARD ? r->dy_ld : x_ld;
  const float *x = r->x + row * x_ld + c, *dy = kind == REDUCE_BACKWARD ? r->dy + row * dy_ld + c : x;
  for (int v = 0; v < vectors; v++) {
    shift[v] = kind == REDUCE_SUM ? vf_zero() : reduce_load(masked, r->shift + c + v * VF_LEN, tail);
    for (int i = 0; i < NORM_CHAINS; i++) first[v][i] = second[v][i] = vf_zero();
  }
  int64_t m = 0;
  for (; m + NORM_CHAINS <= rows; m += NORM_CHAINS) {
    for (int i = 0; i < NORM_CHAINS; i++)
      for (int v = 0; v < vectors; v++)
        reduce_vector(kind, reduce_load(masked, x + i * x_ld + v * VF_LEN, tail),
                      reduce_load(masked, dy + i * dy_ld + v * VF_LEN, tail), shift[v], &first[v][i], &second[v][i]);
    x += NORM_CHAINS * x_ld;
    dy += NORM_CHAINS * dy_ld;
  }
  if (m < rows)
    for (int v = 0; v < vectors; v++)
      reduce_vector(kind, reduce_load(masked, x + v * VF_LEN, tail), reduce_load(masked, dy + v * VF_LEN, tail),
                    shift[v], &first[v][0], &second[v][0]);
  for (int v = 0; v < vectors; v++) reduce_store(kind, masked, tail, r, c + v * VF_LEN, first[v], second[v]);
}

VEC_INLINE void reduce_band_vector(reduce_kind kind, int rows, int masked, int tail, const reduction *r, const float *x,
                                   const float *dy, int64_t c) {
  const int64_t x_ld = r->x_ld, dy_ld = kind == REDUCE_BACKWARD ? r->dy_ld : x_ld;
  const vf shift = kind == REDUCE_SUM ? vf_zero() : reduce_load(masked, r->shift + c, tail);
  vf first[NORM_CHAINS] = {vf_zero(), vf_zero()}, second[NORM_CHAINS] = {vf_zero(), vf_zero()};
#pragma GCC unroll 8
  for (int i = 0; i < rows; i++)
    reduce_vector(kind, reduce_load(masked, x + i * x_ld + c, tail), reduce_load(masked, dy + i * dy_ld + c, tail),
                  shift, &first[i % NORM_CHAINS], &second[i % NORM_CHAINS]);
  reduce_store(kind, masked, tail, r, c, first, second);
}

/* `rows` rows, a constant, along channels c to end: as many linear streams, with the sums in memory. */
VEC_INLINE void reduce_band(reduce_kind kind, int rows, const reduction *r, int64_t row, int64_t c, int64_t end) {
  const float *x = r->x + row * r->x_ld, *dy = kind == REDUCE_BACKWARD ? r->dy + row * r->dy_ld : x;
  for (; c + VF_LEN <= end; c += VF_LEN) reduce_band_vector(kind, rows, 0, VF_LEN, r, x, dy, c);
  if (c < end) reduce_band_vector(kind, rows, 1, (int)(end - c), r, x, dy, c);
}

/* Channels c to end of some rows, four vectors at a time, in registers. */
VEC_INLINE void reduce_columns(reduce_kind kind, const reduction *r, int64_t row, int64_t rows, int64_t c,
                               int64_t end) {
  for (; c + NORM_VECTORS * VF_LEN <= end; c += NORM_VECTORS * VF_LEN)
    reduce_column(kind, NORM_VECTORS, 0, VF_LEN, r, row, rows, c);
  for (; c + VF_LEN <= end; c += VF_LEN) reduce_column(kind, 1, 0, VF_LEN, r, row, rows, c);
  if (c < end) reduce_column(kind, 1, 1, (int)(end - c), r, row, rows, c);
}

/* Overwrites first and second with the sums over all rows. Few channels are read linearly as they are. */
VEC_INLINE void reduce_rows(reduce_kind kind, int64_t rows, int64_t channels, const reduction *r) {
  const int band = kind == REDUCE_BACKWARD ? NORM_BAND_TWO : NORM_BAND;
  for (int64_t c = 0; c < channels; c++) {
    r->first[c] = 0.0f;
    if (kind != REDUCE_SUM) r->second[c] = 0.0f;
  }
  if (channels <= NORM_VECTORS * VF_LEN) {
    for (int64_t row = 0; row < rows; row += NORM_ROWS)
      reduce_columns(kind, r, row, rows - row < NORM_ROWS ? rows - row : NORM_ROWS, 0, channels);
    return;
  }
  for (int64_t c = 0; c < channels; c += NORM_CHANNELS) {
    const int64_t end = channels - c < NORM_CHANNELS ? channels : c + NORM_CHANNELS;
    int64_t row = 0;
    for (; row + band <= rows; row += band) reduce_band(kind, band, r, row, c, end);
    if (row < rows) reduce_columns(kind, r, row, rows - row, c, end);
  }
}

/* Adds the virtual row's channels to sum. The period is channels * 2^k: halves are added until one row is left. */
VEC_INLINE void reduce_fold(int64_t period, int64_t channels, float *virtual_sum, float *sum) {
  for (int64_t half = period / 2; half >= channels; half /= 2)
    for (int64_t i = 0; i < half; i++) virtual_sum[i] += virtual_sum[half + i];
  for (int64_t c = 0; c < channels; c++) sum[c] += virtual_sum[c];
}

/* A dense matrix as virtual rows of a whole number of vectors: the rows left over first, then the others folded in. */
static void reduce_dense(reduce_kind kind, int64_t rows, int64_t channels, int64_t period, const reduction *r) {
  float shift[NORM_MAX_PERIOD], first[NORM_MAX_PERIOD], second[NORM_MAX_PERIOD];
  const int64_t factor = period / channels, virtual_rows = rows / factor, done = virtual_rows * factor;
  reduction rest = *r, whole = *r;
  rest.x += done * channels;
  if (kind == REDUCE_BACKWARD) rest.dy += done * channels;
  whole.x_ld = whole.dy_ld = period;
  whole.first = first;
  whole.second = second;
  if (kind != REDUCE_SUM) {
    norm_expand(period, channels, r->shift, shift);
    whole.shift = shift;
  }
  if (kind == REDUCE_MOMENTS) {
    reduce_rows(REDUCE_MOMENTS, rows - done, channels, &rest);
    reduce_rows(REDUCE_MOMENTS, virtual_rows, period, &whole);
  } else if (kind == REDUCE_BACKWARD) {
    reduce_rows(REDUCE_BACKWARD, rows - done, channels, &rest);
    reduce_rows(REDUCE_BACKWARD, virtual_rows, period, &whole);
  } else {
    reduce_rows(REDUCE_SUM, rows - done, channels, &rest);
    reduce_rows(REDUCE_SUM, virtual_rows, period, &whole);
  }
  reduce_fold(period, channels, first, r->first);
  if (kind != REDUCE_SUM) reduce_fold(period, channels, second, r->second);
}

VEC_INLINE void reduce(reduce_kind kind, int64_t rows, int64_t channels, const reduction *r) {
  const int dense = r->x_ld == channels && (kind != REDUCE_BACKWARD || r->dy_ld == channels);
  const int64_t period = dense ? norm_period(rows, channels) : 0;
  if (period)
    reduce_dense(kind, rows, channels, period, r);
  else
    reduce_rows(kind, rows, channels, r);
}

static void norm_moments(int64_t rows, int64_t channels, const float *x, int64_t ld, const float *shift, float *sum,
                         float *sum_sq) {
  const reduction r = {.x = x, .x_ld = ld, .shift = shift, .first = sum, .second = sum_sq};
  reduce(REDUCE_MOMENTS, rows, channels, &r);
}

static void norm_backward_reduce(int64_t rows, int64_t channels, const float *x, int64_t x_ld, const float *dy,
                                 int64_t dy_ld, const float *mean, float *sum_dy, float *sum_dy_xc) {
  const reduction r = {
      .x = x, .dy = dy, .x_ld = x_ld, .dy_ld = dy_ld, .shift = mean, .first = sum_dy, .second = sum_dy_xc};
  reduce(REDUCE_BACKWARD, rows, channels, &r);
}

static void norm_column_sum(int64_t rows, int64_t channels, const float *x, int64_t ld, float *sum) {
  const reduction r = {.x = x, .x_ld = ld, .first = sum};
  reduce(REDUCE_SUM, rows, channels, &r);
}

#endif
