/* SPDX-License-Identifier: Apache-2.0 */
/* Softmax of one row: the specification of the softmax group. */
#include "generic.h"

#include <math.h>

/* exp of how far each number is below the largest; gives their sum, and the largest number in *max. */
static float powers(int64_t n, const float *x, float *y, float *max) {
  float sum = 0.0f;
  *max = -INFINITY;
  for (int64_t i = 0; i < n; i++)
    if (x[i] > *max) *max = x[i];
  for (int64_t i = 0; i < n; i++) {
    y[i] = expf(x[i] - *max);
    sum += y[i];
  }
  return sum;
}

static float forward(int64_t n, const float *x, float *y) {
  float max;
  const float sum = powers(n, x, y, &max), scale = 1.0f / sum;
  for (int64_t i = 0; i < n; i++) y[i] *= scale;
  return max + logf(sum);
}

static float unscaled(int64_t n, const float *x, float *y) {
  float max;
  return powers(n, x, y, &max);
}

static void backward(int64_t n, const float *y, const float *dy, int accumulate, float *dx) {
  float dot = 0.0f;
  for (int64_t i = 0; i < n; i++) dot += y[i] * dy[i];
  for (int64_t i = 0; i < n; i++) {
    float g = y[i] * (dy[i] - dot);
    dx[i] = accumulate ? dx[i] + g : g;
  }
}

const lamina_softmax_kernels lamina_generic_softmax = {.forward = forward, .backward = backward, .unscaled = unscaled};
