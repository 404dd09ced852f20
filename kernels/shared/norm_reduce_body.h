/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file norm_reduce_body.h
 * Sums over the rows of a rows x channels matrix, on vec.h: of x - shift and its square, of dy and dy * (x - mean), of
 * x.
 *
 * The matrix is walked in blocks of NORM_ROWS rows; in a block, NORM_VECTORS vectors of channels at a time have their
 * sums in registers, in two chains each (even and odd rows). Sums of a block start at zero and are then added to those
 * in memory, which keeps the rounding error small. Cost: one load an element; all streams are read once.
 */
#ifndef LAMINA_SHARED_NORM_REDUCE_BODY_H
#define LAMINA_SHARED_NORM_REDUCE_BODY_H

#include "kernels.h"
#include "norm_period.h"
#include "vec_inline.h"

enum { NORM_VECTORS = VF_REGISTERS / 8, NORM_CHAINS = 2, NORM_ROWS = 32 };

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

/* Adds the sums of these rows, for `vectors` vectors from channel c (or one with `tail` lanes), to first and second. */
VEC_INLINE void reduce_block(reduce_kind kind, int vectors, int masked, int tail, const reduction *r, int64_t row,
                             int64_t rows, int64_t c) {
  vf first[NORM_CHAINS][NORM_VECTORS], second[NORM_CHAINS][NORM_VECTORS], shift[NORM_VECTORS];
  const float *x = r->x + row * r->x_ld + c, *dy = kind == REDUCE_BACKWARD ? r->dy + row * r->dy_ld + c : x;
  const int64_t x_ld = r->x_ld, dy_ld = kind == REDUCE_BACKWARD ? r->dy_ld : x_ld;
  for (int v = 0; v < vectors; v++) {
    shift[v] = kind == REDUCE_SUM ? vf_zero() : reduce_load(masked, r->shift + c + v * VF_LEN, tail);
    for (int i = 0; i < NORM_CHAINS; i++) first[i][v] = second[i][v] = vf_zero();
  }
  int64_t m = 0;
  for (; m + NORM_CHAINS <= rows; m += NORM_CHAINS) {
    for (int i = 0; i < NORM_CHAINS; i++)
      for (int v = 0; v < vectors; v++)
        reduce_vector(kind, reduce_load(masked, x + i * x_ld + v * VF_LEN, tail),
                      reduce_load(masked, dy + i * dy_ld + v * VF_LEN, tail), shift[v], &first[i][v], &second[i][v]);
    x += NORM_CHAINS * x_ld;
    dy += NORM_CHAINS * dy_ld;
  }
  if (m < rows)
    for (int v = 0; v < vectors; v++)
      reduce_vector(kind, reduce_load(masked, x + v * VF_LEN, tail), reduce_load(masked, dy + v * VF_LEN, tail),
                    shift[v], &first[0][v], &second[0][v]);
  for (int v = 0; v < vectors; v++) {
    float *p = r->first + c + v * VF_LEN, *q = kind == REDUCE_SUM ? NULL : r->second + c + v * VF_LEN;
    const int lanes = masked ? tail : VF_LEN;
    vf_store_n(p, vf_add(vf_load_n(p, lanes), vf_add(first[0][v], first[1][v])), lanes);
    if (q) vf_store_n(q, vf_add(vf_load_n(q, lanes), vf_add(second[0][v], second[1][v])), lanes);
  }
}

/* Overwrites first and second with the sums over all rows. */
VEC_INLINE void reduce_rows(reduce_kind kind, int64_t rows, int64_t channels, const reduction *r) {
  for (int64_t c = 0; c < channels; c++) {
    r->first[c] = 0.0f;
    if (kind != REDUCE_SUM) r->second[c] = 0.0f;
  }
  /* One column of vectors is read linearly as it is. */
  const int64_t step = channels <= NORM_VECTORS * VF_LEN ? 8 * NORM_ROWS : NORM_ROWS;
  for (int64_t row = 0; row < rows; row += step) {
    const int64_t count = rows - row < step ? rows - row : step;
    int64_t c = 0;
    for (; c + NORM_VECTORS * VF_LEN <= channels; c += NORM_VECTORS * VF_LEN)
      reduce_block(kind, NORM_VECTORS, 0, VF_LEN, r, row, count, c);
    for (; c + VF_LEN <= channels; c += VF_LEN) reduce_block(kind, 1, 0, VF_LEN, r, row, count, c);
    if (c < channels) reduce_block(kind, 1, 1, (int)(channels - c), r, row, count, c);
  }
}

/* sum[c] = the sum over the period's rows of virtual[... + c], plus what the rows left over came to. */
VEC_INLINE void reduce_fold(int64_t period, int64_t channels, const float *virtual_sum, float *sum) {
  for (int64_t from = 0; from < period; from += channels)
    for (int64_t c = 0; c < channels; c++) sum[c] += virtual_sum[from + c];
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
