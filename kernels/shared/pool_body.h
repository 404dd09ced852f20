/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file pool_body.h
 * One output pixel of a pooling window, on vec.h. x[t] is a run of `channels` floats; four vectors of channels are kept
 * in registers while the taps pass. Cost: one load for each tap and channel.
 */
#ifndef LAMINA_SHARED_POOL_BODY_H
#define LAMINA_SHARED_POOL_BODY_H

#include "kernels.h"
#include "vec_inline.h"

#include <math.h>

enum { POOL_VECTORS = 4 };

/* The larger one; NaN if either is. */
VEC_INLINE vf pool_larger(vf best, vf x) { return vf_select(vf_isnan(best), best, vf_max(best, x)); }

VEC_INLINE void pool_reduce_block(int is_max, int vectors, int64_t taps, const float *const *x, float scale, int64_t c,
                                  float *y) {
  vf r[POOL_VECTORS];
  for (int v = 0; v < vectors; v++) r[v] = is_max ? vf_set1(-INFINITY) : vf_zero();
  for (int64_t t = 0; t < taps; t++) {
    const float *p = x[t] + c;
    for (int v = 0; v < vectors; v++) {
      vf next = vf_load(p + v * VF_LEN);
      r[v] = is_max ? pool_larger(r[v], next) : vf_add(r[v], next);
    }
  }
  for (int v = 0; v < vectors; v++) vf_store(y + c + v * VF_LEN, is_max ? r[v] : vf_mul(vf_set1(scale), r[v]));
}

VEC_INLINE void pool_reduce(int is_max, int64_t taps, const float *const *x, float scale, int64_t channels, float *y) {
  int64_t c = 0;
  for (; c + POOL_VECTORS * VF_LEN <= channels; c += POOL_VECTORS * VF_LEN)
    pool_reduce_block(is_max, POOL_VECTORS, taps, x, scale, c, y);
  for (; c + VF_LEN <= channels; c += VF_LEN) pool_reduce_block(is_max, 1, taps, x, scale, c, y);
  if (c < channels) {
    const int tail = (int)(channels - c);
    vf r = is_max ? vf_set1(-INFINITY) : vf_zero();
    for (int64_t t = 0; t < taps; t++) {
      vf next = vf_load_n(x[t] + c, tail);
      r = is_max ? pool_larger(r, next) : vf_add(r, next);
    }
    vf_store_n(y + c, is_max ? r : vf_mul(vf_set1(scale), r), tail);
  }
}

static void pool_max(int64_t taps, const float *const *x, int64_t channels, float *y) {
  pool_reduce(1, taps, x, 1.0f, channels, y);
}

static void pool_average(int64_t taps, const float *const *x, float scale, int64_t channels, float *y) {
  pool_reduce(0, taps, x, scale, channels, y);
}

/* `open` are the channels whose tap has not been found yet. */
static void pool_max_backward(int64_t taps, const float *const *x, float *const *dx, int64_t channels, const float *y,
                              const float *dy) {
  int64_t c = 0;
  for (; c + VF_LEN <= channels; c += VF_LEN) {
    const vf best = vf_load(y + c), gradient = vf_load(dy + c);
    vm open = vm_first(VF_LEN);
    for (int64_t t = 0; t < taps; t++) {
      vm hit = vm_and(open, vf_eq(vf_load(x[t] + c), best));
      vf_store(dx[t] + c, vf_add(vf_load(dx[t] + c), vf_keep(hit, gradient)));
      open = vm_andnot(hit, open);
    }
  }
  if (c < channels) {
    const int tail = (int)(channels - c);
    const vf best = vf_load_n(y + c, tail), gradient = vf_load_n(dy + c, tail);
    vm open = vm_first(tail);
    for (int64_t t = 0; t < taps; t++) {
      vm hit = vm_and(open, vf_eq(vf_load_n(x[t] + c, tail), best));
      vf_store_n(dx[t] + c, vf_add(vf_load_n(dx[t] + c, tail), vf_keep(hit, gradient)), tail);
      open = vm_andnot(hit, open);
    }
  }
}

static void pool_average_backward(int64_t taps, float *const *dx, float scale, int64_t channels, const float *dy) {
  const vf s = vf_set1(scale);
  for (int64_t t = 0; t < taps; t++) {
    float *p = dx[t];
    int64_t c = 0;
    for (; c + VF_LEN <= channels; c += VF_LEN) vf_store(p + c, vf_fma(s, vf_load(dy + c), vf_load(p + c)));
    if (c < channels) {
      const int tail = (int)(channels - c);
      vf_store_n(p + c, vf_fma(s, vf_load_n(dy + c, tail), vf_load_n(p + c, tail)), tail);
    }
  }
}

#endif
