/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file norm_apply_body.h
 * The elementwise passes of batch normalisation over a rows x channels matrix, on vec.h: normalise (+ add, clamp) and
 * the gradient. Rows are written strictly in order (interleaved rows would halve the bandwidth of stores); the
 * constants of a channel come from L1. Cost: one pass over each stream.
 */
#ifndef LAMINA_SHARED_NORM_APPLY_BODY_H
#define LAMINA_SHARED_NORM_APPLY_BODY_H

#include "kernels.h"
#include "norm_period.h"
#include "vec_inline.h"

typedef enum apply_kind {
  APPLY_NORMALIZE,           /* clamp((x - mean) * scale + offset) */
  APPLY_NORMALIZE_ADD,       /* clamp((x - mean) * scale + offset + other) */
  APPLY_BACKWARD,            /* scale * other + (slope * (x - mean) + offset) */
  APPLY_BACKWARD_ACCUMULATE, /* y + that */
} apply_kind;

typedef struct application {
  const float *x, *other; /* other: what is added, or dy */
  float *y;
  int64_t x_ld, other_ld, y_ld;
  const float *mean, *scale, *offset, *slope;
  float lo, hi;
} application;

VEC_INLINE vf apply_load(int masked, const float *p, int tail) { return masked ? vf_load_n(p, tail) : vf_load(p); }

/* One vector, at p floats into the constants and x, other, y. */
VEC_INLINE vf apply_vector(apply_kind kind, int masked, int tail, const application *a, int64_t c, const float *x,
                           const float *other, const float *y, vf lo, vf hi) {
  const int backward = kind == APPLY_BACKWARD || kind == APPLY_BACKWARD_ACCUMULATE;
  vf centred = vf_sub(apply_load(masked, x, tail), apply_load(masked, a->mean + c, tail));
  vf scale = apply_load(masked, a->scale + c, tail), offset = apply_load(masked, a->offset + c, tail);
  if (backward) {
    vf inner = vf_fma(apply_load(masked, a->slope + c, tail), centred, offset);
    vf v = vf_fma(scale, apply_load(masked, other, tail), inner);
    return kind == APPLY_BACKWARD ? v : vf_add(apply_load(masked, y, tail), v);
  }
  vf v = vf_fma(centred, scale, offset);
  if (kind == APPLY_NORMALIZE_ADD) v = vf_add(v, apply_load(masked, other, tail));
  return vf_min(hi, vf_max(lo, v));
}

VEC_INLINE void apply_rows(apply_kind kind, int64_t rows, int64_t channels, const application *a) {
  enum { STEP = 2 };
  const int two = kind != APPLY_NORMALIZE;
  const vf lo = vf_set1(a->lo), hi = vf_set1(a->hi);
  const application k = *a;
  for (int64_t row = 0; row < rows; row++) {
    const float *x = k.x + row * k.x_ld, *other = two ? k.other + row * k.other_ld : x;
    float *y = k.y + row * k.y_ld;
    int64_t c = 0;
    for (; c + STEP * VF_LEN <= channels; c += STEP * VF_LEN) {
      vf v[STEP];
      for (int u = 0; u < STEP; u++) {
        const int64_t at = c + u * VF_LEN;
        v[u] = apply_vector(kind, 0, VF_LEN, &k, at, x + at, other + at, y + at, lo, hi);
      }
      for (int u = 0; u < STEP; u++) vf_store(y + c + u * VF_LEN, v[u]);
    }
    for (; c + VF_LEN <= channels; c += VF_LEN)
      vf_store(y + c, apply_vector(kind, 0, VF_LEN, &k, c, x + c, other + c, y + c, lo, hi));
    if (c < channels) {
      const int tail = (int)(channels - c);
      vf_store_n(y + c, apply_vector(kind, 1, tail, &k, c, x + c, other + c, y + c, lo, hi), tail);
    }
  }
}

/* A dense matrix as virtual rows, then the rows left over. */
VEC_INLINE void apply_dense(apply_kind kind, int64_t rows, int64_t channels, int64_t period, const application *a) {
  float mean[NORM_MAX_PERIOD], scale[NORM_MAX_PERIOD], offset[NORM_MAX_PERIOD], slope[NORM_MAX_PERIOD];
  const int64_t factor = period / channels, virtual_rows = rows / factor, done = virtual_rows * factor;
  application whole = *a, rest = *a;
  norm_expand(period, channels, a->mean, mean);
  norm_expand(period, channels, a->scale, scale);
  norm_expand(period, channels, a->offset, offset);
  if (a->slope) norm_expand(period, channels, a->slope, slope);
  whole.mean = mean;
  whole.scale = scale;
  whole.offset = offset;
  whole.slope = slope;
  whole.x_ld = whole.other_ld = whole.y_ld = period;
  rest.x += done * channels;
  if (a->other) rest.other += done * channels;
  rest.y += done * channels;
  apply_rows(kind, virtual_rows, period, &whole);
  apply_rows(kind, rows - done, channels, &rest);
}

VEC_INLINE void apply(apply_kind kind, int64_t rows, int64_t channels, const application *a) {
  const int dense = a->x_ld == channels && a->y_ld == channels && (!a->other || a->other_ld == channels);
  const int64_t period = dense ? norm_period(rows, channels) : 0;
  if (period)
    apply_dense(kind, rows, channels, period, a);
  else
    apply_rows(kind, rows, channels, a);
}

static void norm_normalize(int64_t rows, int64_t channels, const float *x, int64_t x_ld, const float *mean,
                           const float *scale, const float *offset, const float *add, int64_t add_ld, float lo,
                           float hi, float *y, int64_t y_ld) {
  const application a = {.x = x,
                         .other = add,
                         .y = y,
                         .x_ld = x_ld,
                         .other_ld = add_ld,
                         .y_ld = y_ld,
                         .mean = mean,
                         .scale = scale,
                         .offset = offset,
                         .lo = lo,
                         .hi = hi};
  if (add)
    apply(APPLY_NORMALIZE_ADD, rows, channels, &a);
  else
    apply(APPLY_NORMALIZE, rows, channels, &a);
}

static void norm_backward_apply(int64_t rows, int64_t channels, const float *x, int64_t x_ld, const float *dy,
                                int64_t dy_ld, const float *mean, const float *a, const float *b, const float *d,
                                int accumulate, float *dx, int64_t dx_ld) {
  const application k = {.x = x,
                         .other = dy,
                         .y = dx,
                         .x_ld = x_ld,
                         .other_ld = dy_ld,
                         .y_ld = dx_ld,
                         .mean = mean,
                         .scale = a,
                         .slope = b,
                         .offset = d};
  if (accumulate)
    apply(APPLY_BACKWARD_ACCUMULATE, rows, channels, &k);
  else
    apply(APPLY_BACKWARD, rows, channels, &k);
}

#endif
