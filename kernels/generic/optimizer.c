/* SPDX-License-Identifier: Apache-2.0 */
/* One optimizer step on n parameters, in PyTorch's order of operations: the specification of the optimizer group. */
#include "generic.h"

#include <math.h>

static void sgd(int64_t n, const lamina_sgd_step *step, const float *g, float *momentum, float *w) {
  const float lr = (float)step->lr, decay = (float)step->weight_decay, mu = (float)step->momentum;
  const float gain = (float)(1.0 - step->dampening);
  for (int64_t i = 0; i < n; i++) {
    float d = g[i];
    if (decay != 0.0f) d += decay * w[i];
    if (momentum) {
      momentum[i] = step->first ? d : mu * momentum[i] + gain * d;
      d = step->nesterov ? d + mu * momentum[i] : momentum[i];
    }
    w[i] -= lr * d;
  }
}

/* Kingma and Ba 2015, algorithm 1; decoupled: Loshchilov and Hutter 2019, algorithm 2. */
static void adam(int64_t n, const lamina_adam_step *step, const float *g, float *m, float *v, float *w) {
  const float beta1 = (float)step->beta1, beta2 = (float)step->beta2, eps = (float)step->eps;
  const float gain1 = (float)(1.0 - step->beta1), gain2 = (float)(1.0 - step->beta2);
  const float decay = step->decoupled ? 0.0f : (float)step->weight_decay;
  const float shrink = step->decoupled ? (float)(1.0 - step->lr * step->weight_decay) : 1.0f;
  const float step_size = (float)(step->lr / step->bias1), root2 = (float)step->sqrt_bias2;
  for (int64_t i = 0; i < n; i++) {
    w[i] *= shrink;
    float d = g[i];
    if (decay != 0.0f) d += decay * w[i];
    m[i] = beta1 * m[i] + gain1 * d;
    v[i] = beta2 * v[i] + gain2 * d * d;
    w[i] -= step_size * m[i] / (sqrtf(v[i]) / root2 + eps);
  }
}

static double sum_squares(int64_t n, const float *x) {
  double sum = 0.0;
  for (int64_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
  return sum;
}

const lamina_optimizer_kernels lamina_generic_optimizer = {.sgd = sgd, .adam = adam, .sum_squares = sum_squares};
