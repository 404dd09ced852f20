/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file norm_apply_body.h
 * The elementwise passes of batch normalisation over a rows x channels matrix, on vec.h: normalise (+ add, clamp) and
 * the gradient, through the clamp and of what was added. Two rows at a time share the loads of a channel's constants;
 * they lie far from each other (norm_apart), and each is written in order. Cost: one pass over each stream.
 */
#ifndef LAMINA_SHARED_NORM_APPLY_BODY_H
#define LAMINA_SHARED_NORM_APPLY_BODY_H

#include "kernels.h"
#include "norm_period.h"
#include "norm_reduce_body.h" /* norm_pass */
#include "vec_inline.h"

/* Rows that go together, and channels whose constants stay in L1 beside the streams. */
enum { APPLY_ROWS = 2, APPLY_CHANNELS = 1024 };

typedef enum apply_kind {
  APPLY_NORMALIZE,     /* clamp((x - mean) * scale + offset) */
  APPLY_NORMALIZE_ADD, /* clamp((x - mean) * scale + offset + other) */
  APPLY_BACKWARD,      /* a * other + (b * (x - mean) + d) */
  APPLY_BACKWARD_Z,    /* the same with what a clamp of (x - mean) * scale + offset lets through of other */
  APPLY_BACKWARD_L,    /* the same where hi is infinite: a ReLU */
  APPLY_BACKWARD_Y     /* the same with what the clamp of out lets through */
} apply_kind;

/* Constants of a channel, and the streams. */
typedef struct application {
  const float *mean, *scale, *offset, *a, *b, *d;
  float lo, hi;
  const float *x, *other, *out; /* other: what is added, or dy; out: the layer's output */
  float *y, *d_add;             /* y or dx; d_add: APPLY_BACKWARD_Y, or NULL */
  int64_t x_ld, other_ld, out_ld, y_ld, d_add_ld;
  int accumulate, accumulate_add;
  int stream, stream_add; /* whether y and d_add are written past the caches */
} application;

VEC_INLINE vf apply_load(int masked, const float *p, int tail) { return masked ? vf_load_n(p, tail) : vf_load(p); }
VEC_INLINE void apply_store(int masked, int stream, float *p, vf v, int tail) {
  if (masked) vf_store_n(p, v, tail);
  else if (stream) vf_stream(p, v);
  else vf_store(p, v);
}
/* Whether every vector of a matrix lies on its boundary. */
VEC_INLINE int apply_can_stream(const float *p, int64_t ld) {
  return (uintptr_t)p % (VF_LEN * sizeof(float)) == 0 && ld % VF_LEN == 0;
}
VEC_INLINE int applies_backward(apply_kind kind) { return kind >= APPLY_BACKWARD; }

/* One vector of channels of `rows` rows, 1 or 2, `apart` from each other. Everything is read before anything is written. */
VEC_INLINE void apply_vector(apply_kind kind, int rows, int masked, int tail, const application *k, int64_t row,
                             int64_t apart, int64_t c) {
  const vf lo = vf_set1(k->lo), hi = vf_set1(k->hi), mean = apply_load(masked, k->mean + c, tail);
  const int z = !applies_backward(kind) || kind == APPLY_BACKWARD_Z || kind == APPLY_BACKWARD_L;
  const vf scale = z ? apply_load(masked, k->scale + c, tail) : mean, offset = z ? apply_load(masked, k->offset + c, tail) : mean;
  const vf a = applies_backward(kind) ? apply_load(masked, k->a + c, tail) : mean;
  const vf b = applies_backward(kind) ? apply_load(masked, k->b + c, tail) : mean;
  const vf d = applies_backward(kind) ? apply_load(masked, k->d + c, tail) : mean;
  vf result[APPLY_ROWS], through[APPLY_ROWS];
#pragma GCC unroll 2
  for (int i = 0; i < rows; i++) {
    const int64_t r = row + i * apart;
    const vf centred = vf_sub(apply_load(masked, k->x + r * k->x_ld + c, tail), mean);
    const vf other = kind == APPLY_NORMALIZE ? centred : apply_load(masked, k->other + r * k->other_ld + c, tail);
    vf v = z ? vf_fma(centred, scale, offset) : centred;
    if (!applies_backward(kind)) {
      if (kind == APPLY_NORMALIZE_ADD) v = vf_add(v, other);
      result[i] = vf_min(hi, vf_max(lo, v));
      continue;
    }
    if (kind == APPLY_BACKWARD_Y) v = apply_load(masked, k->out + r * k->out_ld + c, tail);
    through[i] = kind == APPLY_BACKWARD ? other : norm_pass(kind != APPLY_BACKWARD_L, v, other, lo, hi);
    result[i] = vf_fma(a, through[i], vf_fma(b, centred, d));
    if (k->accumulate) result[i] = vf_add(apply_load(masked, k->y + r * k->y_ld + c, tail), result[i]);
    if (kind == APPLY_BACKWARD_Y && k->d_add && k->accumulate_add)
      through[i] = vf_add(apply_load(masked, k->d_add + r * k->d_add_ld + c, tail), through[i]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < rows; i++) {
    if (kind != APPLY_BACKWARD_Y || k->y) apply_store(masked, k->stream, k->y + (row + i * apart) * k->y_ld + c, result[i], tail);
    if (kind == APPLY_BACKWARD_Y && k->d_add)
      apply_store(masked, k->stream_add, k->d_add + (row + i * apart) * k->d_add_ld + c, through[i], tail);
  }
}

VEC_INLINE void apply_row(apply_kind kind, int rows, const application *k, int64_t row, int64_t apart, int64_t c,
                          int64_t end) {
  for (; c + VF_LEN <= end; c += VF_LEN) apply_vector(kind, rows, 0, VF_LEN, k, row, apart, c);
  if (c < end) apply_vector(kind, rows, 1, (int)(end - c), k, row, apart, c);
}

VEC_INLINE void apply_rows_of(apply_kind kind, int64_t rows, int64_t channels, const application *from) {
  application k = *from; /* a copy that nothing points at: its fields stay in registers */
  k.stream = k.stream && apply_can_stream(k.y, k.y_ld);
  k.stream_add = k.stream_add && apply_can_stream(k.d_add, k.d_add_ld);
  const int past = k.stream || k.stream_add; /* such stores go best strictly in order */
  for (int64_t c = 0; c < channels; c += APPLY_CHANNELS) {
    const int64_t end = channels - c < APPLY_CHANNELS ? channels : c + APPLY_CHANNELS;
    int64_t row = 0;
    while (!past && row + APPLY_ROWS <= rows) {
      const int64_t apart = norm_apart(rows - row, APPLY_ROWS, k.x_ld);
      for (int64_t i = 0; i < apart; i++) apply_row(kind, APPLY_ROWS, &k, row + i, apart, c, end);
      row += APPLY_ROWS * apart;
    }
    for (; row < rows; row++) apply_row(kind, 1, &k, row, 0, c, end);
  }
  if (past) vf_stream_end();
}

/* A function for each kind, as in norm_reduce_body.h. */
#define APPLY_ROWS_OF(name, kind)                                                                        \
  static __attribute__((noinline)) void name(int64_t rows, int64_t channels, const application *k) {     \
    apply_rows_of(kind, rows, channels, k);                                                              \
  }
APPLY_ROWS_OF(apply_rows_normalize, APPLY_NORMALIZE)
APPLY_ROWS_OF(apply_rows_normalize_add, APPLY_NORMALIZE_ADD)
APPLY_ROWS_OF(apply_rows_backward, APPLY_BACKWARD)
APPLY_ROWS_OF(apply_rows_backward_z, APPLY_BACKWARD_Z)
APPLY_ROWS_OF(apply_rows_backward_l, APPLY_BACKWARD_L)
APPLY_ROWS_OF(apply_rows_backward_y, APPLY_BACKWARD_Y)

static void apply_rows(apply_kind kind, int64_t rows, int64_t channels, const application *k) {
  static void (*const of[])(int64_t, int64_t, const application *) = {
      [APPLY_NORMALIZE] = apply_rows_normalize,   [APPLY_NORMALIZE_ADD] = apply_rows_normalize_add,
      [APPLY_BACKWARD] = apply_rows_backward,     [APPLY_BACKWARD_Z] = apply_rows_backward_z,
      [APPLY_BACKWARD_L] = apply_rows_backward_l, [APPLY_BACKWARD_Y] = apply_rows_backward_y};
  of[kind](rows, channels, k);
}

/* A dense matrix as virtual rows, then the rows left over. */
static void apply_dense(apply_kind kind, int64_t rows, int64_t channels, int64_t period, const application *k) {
  float constants[6][NORM_MAX_PERIOD];
  const int64_t factor = period / channels, virtual_rows = rows / factor, done = virtual_rows * factor;
  const float *const from[6] = {k->mean, k->scale, k->offset, k->a, k->b, k->d};
  application whole = *k, rest = *k;
  for (int i = 0; i < 6; i++)
    if (from[i]) norm_expand(period, channels, from[i], constants[i]);
  whole.mean = constants[0];
  whole.scale = constants[1];
  whole.offset = constants[2];
  whole.a = constants[3];
  whole.b = constants[4];
  whole.d = constants[5];
  whole.x_ld = whole.other_ld = whole.out_ld = whole.y_ld = whole.d_add_ld = period;
  rest.x += done * channels;
  if (k->other) rest.other += done * channels;
  if (k->out) rest.out += done * channels;
  if (k->y) rest.y += done * channels;
  if (k->d_add) rest.d_add += done * channels;
  apply_rows(kind, virtual_rows, period, &whole);
  apply_rows(kind, rows - done, channels, &rest);
}

static void apply(apply_kind kind, int64_t rows, int64_t channels, const application *k) {
  const int dense = k->x_ld == channels && (!k->y || k->y_ld == channels) && (!k->other || k->other_ld == channels) &&
                    (!k->out || k->out_ld == channels) && (!k->d_add || k->d_add_ld == channels);
  const int64_t period = dense ? norm_period(rows, channels) : 0;
  if (period)
    apply_dense(kind, rows, channels, period, k);
  else
    apply_rows(kind, rows, channels, k);
}

static void norm_normalize(int64_t rows, int64_t channels, const float *x, int64_t x_ld, const float *mean,
                           const float *scale, const float *offset, const float *add, int64_t add_ld, float lo,
                           float hi, int stream, float *y, int64_t y_ld) {
  const application k = {.x = x,
                         .other = add,
                         .y = y,
                         .x_ld = x_ld,
                         .other_ld = add_ld,
                         .y_ld = y_ld,
                         .mean = mean,
                         .scale = scale,
                         .offset = offset,
                         .lo = lo,
                         .hi = hi,
                         .stream = stream};
  if (add)
    apply(APPLY_NORMALIZE_ADD, rows, channels, &k);
  else
    apply(APPLY_NORMALIZE, rows, channels, &k);
}

static void norm_backward_apply(const lamina_norm_backward *b) {
  const application k = {.mean = b->mean,
                         .scale = b->scale,
                         .offset = b->offset,
                         .a = b->a,
                         .b = b->b,
                         .d = b->d,
                         .lo = b->lo,
                         .hi = b->hi,
                         .x = b->x,
                         .other = b->dy,
                         .out = b->y,
                         .y = b->dx,
                         .d_add = b->d_add,
                         .x_ld = b->x_ld,
                         .other_ld = b->dy_ld,
                         .out_ld = b->y_ld,
                         .y_ld = b->dx_ld,
                         .d_add_ld = b->d_add_ld,
                         .accumulate = b->accumulate,
                         .accumulate_add = b->accumulate_add,
                         .stream = b->stream,
                         .stream_add = b->stream_add};
  if (b->y)
    apply(APPLY_BACKWARD_Y, b->rows, b->channels, &k);
  else if (b->scale && !(b->hi < INFINITY))
    apply(APPLY_BACKWARD_L, b->rows, b->channels, &k);
  else if (b->scale)
    apply(APPLY_BACKWARD_Z, b->rows, b->channels, &k);
  else
    apply(APPLY_BACKWARD, b->rows, b->channels, &k);
}

#endif
