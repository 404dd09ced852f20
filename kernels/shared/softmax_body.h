/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file softmax_body.h
 * Softmax of one row of n floats, on vec.h: the maximum, exp(x - maximum) with its sum, the scaling. Cost: three passes
 * over a row that stays in cache; sums have four chains of vectors, folded in a fixed tree.
 */
#ifndef LAMINA_SHARED_SOFTMAX_BODY_H
#define LAMINA_SHARED_SOFTMAX_BODY_H

#include "kernels.h"
#include "math_body.h"
#include "vec_inline.h"

#include <math.h>

enum { SOFTMAX_CHAINS = 4, SOFTMAX_STEP = SOFTMAX_CHAINS * VF_LEN };

VEC_INLINE int softmax_count(int64_t left) { return left < VF_LEN ? (int)left : VF_LEN; }

VEC_INLINE float softmax_fold(const vf *r) { return vf_sum(vf_add(vf_add(r[0], r[1]), vf_add(r[2], r[3]))); }

/* A NaN may be lost here: it comes back as exp(NaN), and a row of NaN as exp(NaN - -infinity). */
static float softmax_largest(int64_t n, const float *x) {
  vf r[SOFTMAX_CHAINS];
  int64_t i = 0;
  for (int u = 0; u < SOFTMAX_CHAINS; u++) r[u] = vf_set1(-INFINITY);
  for (; i + SOFTMAX_STEP <= n; i += SOFTMAX_STEP)
    for (int u = 0; u < SOFTMAX_CHAINS; u++) r[u] = vf_max(r[u], vf_load(x + i + u * VF_LEN));
  for (; i < n; i += VF_LEN) {
    const int count = softmax_count(n - i);
    r[0] = vf_max(r[0], vf_select(vm_first(count), vf_load_n(x + i, count), vf_set1(-INFINITY)));
  }
  return vf_largest(vf_max(vf_max(r[0], r[1]), vf_max(r[2], r[3])));
}

/* y = exp(x - largest); returns the sum. */
VEC_INLINE float softmax_powers(int64_t n, const float *x, float largest, float *y) {
  const vf shift = vf_set1(largest);
  vf r[SOFTMAX_CHAINS];
  int64_t i = 0;
  for (int u = 0; u < SOFTMAX_CHAINS; u++) r[u] = vf_zero();
  for (; i + SOFTMAX_STEP <= n; i += SOFTMAX_STEP)
    for (int u = 0; u < SOFTMAX_CHAINS; u++) {
      vf e = vf_exp(vf_sub(vf_load(x + i + u * VF_LEN), shift));
      vf_store(y + i + u * VF_LEN, e);
      r[u] = vf_add(r[u], e);
    }
  for (; i < n; i += VF_LEN) {
    const int count = softmax_count(n - i);
    vf e = vf_exp(vf_sub(vf_load_n(x + i, count), shift));
    vf_store_n(y + i, e, count);
    r[0] = vf_add(r[0], vf_keep(vm_first(count), e));
  }
  return softmax_fold(r);
}

static float softmax_unscaled(int64_t n, const float *x, float *y) {
  return softmax_powers(n, x, softmax_largest(n, x), y);
}

static float softmax_forward(int64_t n, const float *x, float *y) {
  const float largest = softmax_largest(n, x), sum = softmax_powers(n, x, largest, y);
  const vf scale = vf_set1(1.0f / sum);
  int64_t i;
  for (i = 0; i + VF_LEN <= n; i += VF_LEN) vf_store(y + i, vf_mul(vf_load(y + i), scale));
  if (i < n) vf_store_n(y + i, vf_mul(vf_load_n(y + i, (int)(n - i)), scale), (int)(n - i));
  return largest + logf(sum);
}

static void softmax_backward(int64_t n, const float *y, const float *dy, int accumulate, float *dx) {
  vf r[SOFTMAX_CHAINS];
  int64_t i = 0;
  for (int u = 0; u < SOFTMAX_CHAINS; u++) r[u] = vf_zero();
  for (; i + SOFTMAX_STEP <= n; i += SOFTMAX_STEP)
    for (int u = 0; u < SOFTMAX_CHAINS; u++)
      r[u] = vf_fma(vf_load(y + i + u * VF_LEN), vf_load(dy + i + u * VF_LEN), r[u]);
  for (; i < n; i += VF_LEN) {
    const int count = softmax_count(n - i);
    r[0] = vf_fma(vf_load_n(y + i, count), vf_load_n(dy + i, count), r[0]);
  }
  const vf dot = vf_set1(softmax_fold(r));
  for (i = 0; i < n; i += VF_LEN) {
    const int count = softmax_count(n - i);
    vf g = vf_mul(vf_load_n(y + i, count), vf_sub(vf_load_n(dy + i, count), dot));
    vf_store_n(dx + i, accumulate ? vf_add(vf_load_n(dx + i, count), g) : g, count);
  }
}

#endif
