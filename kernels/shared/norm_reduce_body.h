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

#include <math.h>

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
  REDUCE_MOMENTS,    /* first += x - shift, second += (x - shift)^2 */
  REDUCE_BACKWARD,   /* first += dy, second += dy * (x - shift) */
  REDUCE_BACKWARD_Z, /* the same where lo < (x - shift) * scale + offset < hi */
  REDUCE_BACKWARD_L, /* the same where hi is infinite: a ReLU */
  REDUCE_BACKWARD_Y, /* the same where lo < y < hi */
  REDUCE_SUM         /* first += x */
} reduce_kind;

typedef struct reduction {
  const float *x, *dy, *y; /* dy: REDUCE_BACKWARD and on; y: REDUCE_BACKWARD_Y */
  int64_t x_ld, dy_ld, y_ld;
  const float *shift;
  const float *scale, *offset; /* REDUCE_BACKWARD_Z and _L */
  float lo, hi;
  float *first, *second;
} reduction;

VEC_INLINE int reduces_backward(reduce_kind kind) {
  return kind >= REDUCE_BACKWARD && kind <= REDUCE_BACKWARD_Y;
}

/* What a clamp of y lets through of dy; NaN passes. Without `two` there is no upper bound. */
VEC_INLINE vf norm_pass(int two, vf y, vf dy, vf lo, vf hi) {
  return vf_select(two ? vm_or(vf_le(y, lo), vf_le(hi, y)) : vf_le(y, lo), vf_zero(), dy);
}

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

/* dz of one vector, at row i of the pointers. */
VEC_INLINE vf reduce_dz(reduce_kind kind, int masked, int tail, const reduction *r, vf x, vf shift, const float *dy,
                        const float *y, int64_t c) {
  const vf g = reduce_load(masked, dy, tail);
  if (kind == REDUCE_BACKWARD_Y) return norm_pass(1, reduce_load(masked, y, tail), g, vf_set1(r->lo), vf_set1(r->hi));
  if (kind == REDUCE_BACKWARD_Z || kind == REDUCE_BACKWARD_L) {
    const vf scale = reduce_load(masked, r->scale + c, tail), offset = reduce_load(masked, r->offset + c, tail);
    return norm_pass(kind == REDUCE_BACKWARD_Z, vf_fma(vf_sub(x, shift), scale, offset), g, vf_set1(r->lo), vf_set1(r->hi));
  }
  return g;
}

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

/* The streams of a reduction from one row on; those that the kind has not are x. */
typedef struct reduce_rows_at {
  const float *x, *dy, *y;
  int64_t x_ld, dy_ld, y_ld;
} reduce_rows_at;

VEC_INLINE reduce_rows_at reduce_at(reduce_kind kind, const reduction *r, int64_t row, int64_t c) {
  const float *x = r->x + row * r->x_ld + c;
  reduce_rows_at at = {x, x, x, r->x_ld, r->x_ld, r->x_ld};
  if (reduces_backward(kind)) {
    at.dy = r->dy + row * r->dy_ld + c;
    at.dy_ld = r->dy_ld;
  }
  if (kind == REDUCE_BACKWARD_Y) {
    at.y = r->y + row * r->y_ld + c;
    at.y_ld = r->y_ld;
  }
  return at;
}

/* Vector v of row i. */
VEC_INLINE void reduce_row_vector(reduce_kind kind, int masked, int tail, const reduction *r, const reduce_rows_at *at,
                                  int64_t i, int64_t v, int64_t c, vf shift, vf *first, vf *second) {
  const vf x = reduce_load(masked, at->x + i * at->x_ld + v, tail);
  const vf dz = reduces_backward(kind) ? reduce_dz(kind, masked, tail, r, x, shift, at->dy + i * at->dy_ld + v,
                                                   at->y + i * at->y_ld + v, c + v)
                                       : x;
  reduce_vector(kind, x, dz, shift, first, second);
}

/* `vectors` vectors of channels from c (or one of `tail` lanes) over any number of rows, in registers. */
VEC_INLINE void reduce_column(reduce_kind kind, int vectors, int masked, int tail, const reduction *r, int64_t row,
                              int64_t rows, int64_t c) {
  vf first[NORM_VECTORS][NORM_CHAINS], second[NORM_VECTORS][NORM_CHAINS], shift[NORM_VECTORS];
  reduce_rows_at at = reduce_at(kind, r, row, c);
  for (int v = 0; v < vectors; v++) {
    shift[v] = kind == REDUCE_SUM ? vf_zero() : reduce_load(masked, r->shift + c + v * VF_LEN, tail);
    for (int i = 0; i < NORM_CHAINS; i++) first[v][i] = second[v][i] = vf_zero();
  }
  int64_t m = 0;
  for (; m + NORM_CHAINS <= rows; m += NORM_CHAINS) {
    for (int i = 0; i < NORM_CHAINS; i++)
      for (int v = 0; v < vectors; v++)
        reduce_row_vector(kind, masked, tail, r, &at, i, v * VF_LEN, c, shift[v], &first[v][i], &second[v][i]);
    at.x += NORM_CHAINS * at.x_ld;
    at.dy += NORM_CHAINS * at.dy_ld;
    at.y += NORM_CHAINS * at.y_ld;
  }
  if (m < rows)
    for (int v = 0; v < vectors; v++)
      reduce_row_vector(kind, masked, tail, r, &at, 0, v * VF_LEN, c, shift[v], &first[v][0], &second[v][0]);
  for (int v = 0; v < vectors; v++) reduce_store(kind, masked, tail, r, c + v * VF_LEN, first[v], second[v]);
}

VEC_INLINE void reduce_band_vector(reduce_kind kind, int rows, int masked, int tail, const reduction *r,
                                   const reduce_rows_at *at, int64_t c) {
  const vf shift = kind == REDUCE_SUM ? vf_zero() : reduce_load(masked, r->shift + c, tail);
  vf first[NORM_CHAINS] = {vf_zero(), vf_zero()}, second[NORM_CHAINS] = {vf_zero(), vf_zero()};
#pragma GCC unroll 8
  for (int i = 0; i < rows; i++)
    reduce_row_vector(kind, masked, tail, r, at, i, c, 0, shift, &first[i % NORM_CHAINS], &second[i % NORM_CHAINS]);
  reduce_store(kind, masked, tail, r, c, first, second);
}

/* `rows` rows, a constant, `apart` rows from one to the next, along channels c to end: as many linear streams, with the
   sums in memory. */
VEC_INLINE void reduce_band(reduce_kind kind, int rows, const reduction *r, int64_t row, int64_t apart, int64_t c,
                            int64_t end) {
  reduce_rows_at at = reduce_at(kind, r, row, 0);
  at.x_ld *= apart;
  at.dy_ld *= apart;
  at.y_ld *= apart;
  for (; c + VF_LEN <= end; c += VF_LEN) reduce_band_vector(kind, rows, 0, VF_LEN, r, &at, c);
  if (c < end) reduce_band_vector(kind, rows, 1, (int)(end - c), r, &at, c);
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
VEC_INLINE void reduce_rows_of(reduce_kind kind, int64_t rows, int64_t channels, const reduction *r) {
  const int band = reduces_backward(kind) ? NORM_BAND_TWO : NORM_BAND;
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
    while (row + band <= rows) {
      const int64_t apart = norm_apart(rows - row, band, r->x_ld);
      for (int64_t i = 0; i < apart; i++) reduce_band(kind, band, r, row + i, apart, c, end);
      row += band * apart;
    }
    if (row < rows) reduce_columns(kind, r, row, rows - row, c, end);
  }
}

/* A function for each kind, which is called three times: inlined they would be a twentieth of the library. */
#define REDUCE_ROWS(name, kind)                                                                          \
  static __attribute__((noinline)) void name(int64_t rows, int64_t channels, const reduction *r) {       \
    reduce_rows_of(kind, rows, channels, r);                                                             \
  }
REDUCE_ROWS(reduce_rows_moments, REDUCE_MOMENTS)
REDUCE_ROWS(reduce_rows_backward, REDUCE_BACKWARD)
REDUCE_ROWS(reduce_rows_backward_z, REDUCE_BACKWARD_Z)
REDUCE_ROWS(reduce_rows_backward_l, REDUCE_BACKWARD_L)
REDUCE_ROWS(reduce_rows_backward_y, REDUCE_BACKWARD_Y)
REDUCE_ROWS(reduce_rows_sum, REDUCE_SUM)

static void reduce_rows(reduce_kind kind, int64_t rows, int64_t channels, const reduction *r) {
  static void (*const of[])(int64_t, int64_t, const reduction *) = {
      [REDUCE_MOMENTS] = reduce_rows_moments,       [REDUCE_BACKWARD] = reduce_rows_backward,
      [REDUCE_BACKWARD_Z] = reduce_rows_backward_z, [REDUCE_BACKWARD_L] = reduce_rows_backward_l,
      [REDUCE_BACKWARD_Y] = reduce_rows_backward_y, [REDUCE_SUM] = reduce_rows_sum};
  of[kind](rows, channels, r);
}

/* Adds the virtual row's channels to sum. The period is channels * 2^k: halves are added until one row is left. */
VEC_INLINE void reduce_fold(int64_t period, int64_t channels, float *virtual_sum, float *sum) {
  for (int64_t half = period / 2; half >= channels; half /= 2)
    for (int64_t i = 0; i < half; i++) virtual_sum[i] += virtual_sum[half + i];
  for (int64_t c = 0; c < channels; c++) sum[c] += virtual_sum[c];
}

/* A dense matrix as virtual rows of a whole number of vectors: the rows left over first, then the others folded in. */
static void reduce_dense(reduce_kind kind, int64_t rows, int64_t channels, int64_t period, const reduction *r) {
  float shift[NORM_MAX_PERIOD], scale[NORM_MAX_PERIOD], offset[NORM_MAX_PERIOD];
  float first[NORM_MAX_PERIOD], second[NORM_MAX_PERIOD];
  const int64_t factor = period / channels, virtual_rows = rows / factor, done = virtual_rows * factor;
  reduction rest = *r, whole = *r;
  rest.x += done * channels;
  if (reduces_backward(kind)) rest.dy += done * channels;
  if (kind == REDUCE_BACKWARD_Y) rest.y += done * channels;
  whole.x_ld = whole.dy_ld = whole.y_ld = period;
  whole.first = first;
  whole.second = second;
  if (kind != REDUCE_SUM) {
    norm_expand(period, channels, r->shift, shift);
    whole.shift = shift;
  }
  if (kind == REDUCE_BACKWARD_Z || kind == REDUCE_BACKWARD_L) {
    norm_expand(period, channels, r->scale, scale);
    norm_expand(period, channels, r->offset, offset);
    whole.scale = scale;
    whole.offset = offset;
  }
  reduce_rows(kind, rows - done, channels, &rest);
  reduce_rows(kind, virtual_rows, period, &whole);
  reduce_fold(period, channels, first, r->first);
  if (kind != REDUCE_SUM) reduce_fold(period, channels, second, r->second);
}

static void reduce(reduce_kind kind, int64_t rows, int64_t channels, const reduction *r) {
  const int dense = r->x_ld == channels && (!reduces_backward(kind) || r->dy_ld == channels) &&
                    (kind != REDUCE_BACKWARD_Y || r->y_ld == channels);
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

static void norm_backward_reduce(const lamina_norm_backward *b) {
  const reduction r = {.x = b->x,
                       .dy = b->dy,
                       .y = b->y,
                       .x_ld = b->x_ld,
                       .dy_ld = b->dy_ld,
                       .y_ld = b->y_ld,
                       .shift = b->mean,
                       .scale = b->scale,
                       .offset = b->offset,
                       .lo = b->lo,
                       .hi = b->hi,
                       .first = b->sum_dz,
                       .second = b->sum_dz_xc};
  if (b->y)
    reduce(REDUCE_BACKWARD_Y, b->rows, b->channels, &r);
  else if (b->scale && !(b->hi < INFINITY))
    reduce(REDUCE_BACKWARD_L, b->rows, b->channels, &r);
  else if (b->scale)
    reduce(REDUCE_BACKWARD_Z, b->rows, b->channels, &r);
  else
    reduce(REDUCE_BACKWARD, b->rows, b->channels, &r);
}

static void norm_column_sum(int64_t rows, int64_t channels, const float *x, int64_t ld, float *sum) {
  const reduction r = {.x = x, .x_ld = ld, .first = sum};
  reduce(REDUCE_SUM, rows, channels, &r);
}

#endif
