/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file optimizer_body.h
 * One optimizer step on n parameters, on vec.h, in PyTorch's order of operations. Cost: one pass over weights, gradient
 * and state; bandwidth. What is derived from the scalars is computed in double and rounded once.
 */
#ifndef LAMINA_SHARED_OPTIMIZER_BODY_H
#define LAMINA_SHARED_OPTIMIZER_BODY_H

#include "kernels.h"
#include "vec_inline.h"

typedef struct sgd_constants {
  vf minus_lr, decay, momentum, gain; /* gain: 1 - dampening */
} sgd_constants;

/* The momentum buffer (untouched if there is none) and the weights of one vector. */
VEC_INLINE void sgd_vector(const sgd_constants *k, int has_momentum, int first, int nesterov, vf g, vf *m, vf *w) {
  vf d = vf_fma(k->decay, *w, g);
  if (has_momentum) {
    *m = first ? d : vf_fma(k->gain, d, vf_mul(k->momentum, *m));
    d = nesterov ? vf_fma(k->momentum, *m, d) : *m;
  }
  *w = vf_fma(k->minus_lr, d, *w);
}

VEC_INLINE void sgd_loop(const sgd_constants *constants, int has_momentum, int first, int nesterov, int64_t n,
                         const float *g, float *momentum, float *w) {
  const sgd_constants k = *constants;
  int64_t i = 0;
  for (; i + VF_LEN <= n; i += VF_LEN) {
    vf m = has_momentum && !first ? vf_load(momentum + i) : vf_zero(), weight = vf_load(w + i);
    sgd_vector(&k, has_momentum, first, nesterov, vf_load(g + i), &m, &weight);
    if (has_momentum) vf_store(momentum + i, m);
    vf_store(w + i, weight);
  }
  if (i < n) {
    const int tail = (int)(n - i);
    vf m = has_momentum && !first ? vf_load_n(momentum + i, tail) : vf_zero(), weight = vf_load_n(w + i, tail);
    sgd_vector(&k, has_momentum, first, nesterov, vf_load_n(g + i, tail), &m, &weight);
    if (has_momentum) vf_store_n(momentum + i, m, tail);
    vf_store_n(w + i, weight, tail);
  }
}

static void optimizer_sgd(int64_t n, const lamina_sgd_step *step, const float *g, float *momentum, float *w) {
  const sgd_constants k = {.minus_lr = vf_set1((float)-step->lr),
                           .decay = vf_set1((float)step->weight_decay),
                           .momentum = vf_set1((float)step->momentum),
                           .gain = vf_set1((float)(1.0 - step->dampening))};
  if (!momentum)
    sgd_loop(&k, 0, 0, 0, n, g, momentum, w);
  else if (step->first)
    sgd_loop(&k, 1, 1, step->nesterov, n, g, momentum, w);
  else if (step->nesterov)
    sgd_loop(&k, 1, 0, 1, n, g, momentum, w);
  else
    sgd_loop(&k, 1, 0, 0, n, g, momentum, w);
}

typedef struct adam_constants {
  vf decay, shrink; /* decay is added to the gradient (0 if decoupled); shrink multiplies the weights (1 if not) */
  vf beta1, gain1, beta2, gain2, root2, eps, minus_step;
} adam_constants;

/* Kingma and Ba 2015, algorithm 1; decoupled: Loshchilov and Hutter 2019, algorithm 2. */
VEC_INLINE void adam_vector(const adam_constants *k, vf g, vf *m, vf *v, vf *w) {
  vf weight = vf_mul(*w, k->shrink);
  vf d = vf_fma(k->decay, weight, g);
  *m = vf_fma(k->gain1, d, vf_mul(*m, k->beta1));
  *v = vf_fma(vf_mul(k->gain2, d), d, vf_mul(*v, k->beta2));
  vf denominator = vf_add(vf_div(vf_sqrt(*v), k->root2), k->eps);
  *w = vf_add(weight, vf_div(vf_mul(k->minus_step, *m), denominator));
}

static void optimizer_adam(int64_t n, const lamina_adam_step *step, const float *g, float *m, float *v, float *w) {
  const double shrink = step->decoupled ? 1.0 - step->lr * step->weight_decay : 1.0;
  const adam_constants k = {.decay = vf_set1(step->decoupled ? 0.0f : (float)step->weight_decay),
                            .shrink = vf_set1((float)shrink),
                            .beta1 = vf_set1((float)step->beta1),
                            .gain1 = vf_set1((float)(1.0 - step->beta1)),
                            .beta2 = vf_set1((float)step->beta2),
                            .gain2 = vf_set1((float)(1.0 - step->beta2)),
                            .root2 = vf_set1((float)step->sqrt_bias2),
                            .eps = vf_set1((float)step->eps),
                            .minus_step = vf_set1((float)(-step->lr / step->bias1))};
  for (int64_t i = 0; i < n; i += VF_LEN) {
    const int count = n - i < VF_LEN ? (int)(n - i) : VF_LEN;
    vf first = vf_load_n(m + i, count), second = vf_load_n(v + i, count), weight = vf_load_n(w + i, count);
    adam_vector(&k, vf_load_n(g + i, count), &first, &second, &weight);
    vf_store_n(m + i, first, count);
    vf_store_n(v + i, second, count);
    vf_store_n(w + i, weight, count);
  }
}

/* Eight chains of doubles, folded in a fixed tree. */
static double optimizer_sum_squares(int64_t n, const float *x) {
  enum { STEP = 4 };
  vd r[2 * STEP];
  int64_t i = 0;
  for (int u = 0; u < 2 * STEP; u++) r[u] = vd_zero();
  for (; i + STEP * VF_LEN <= n; i += STEP * VF_LEN)
    for (int u = 0; u < STEP; u++) {
      const vf v = vf_load(x + i + u * VF_LEN);
      r[2 * u] = vd_fma(vd_low(v), vd_low(v), r[2 * u]);
      r[2 * u + 1] = vd_fma(vd_high(v), vd_high(v), r[2 * u + 1]);
    }
  for (; i < n; i += VF_LEN) {
    const vf v = vf_load_n(x + i, n - i < VF_LEN ? (int)(n - i) : VF_LEN);
    r[0] = vd_fma(vd_low(v), vd_low(v), r[0]);
    r[1] = vd_fma(vd_high(v), vd_high(v), r[1]);
  }
  for (int half = STEP; half > 0; half /= 2)
    for (int u = 0; u < half; u++) r[u] = vd_add(r[u], r[u + half]);
  return vd_sum(r[0]);
}

#endif
