/* SPDX-License-Identifier: Apache-2.0 */
/* One output pixel of a pooling window, all channels: the specification of the pool group. */
#include "generic.h"

#include <math.h>

static void max(int64_t taps, const float *const *x, int64_t channels, float *y) {
  for (int64_t c = 0; c < channels; c++) {
    float best = -INFINITY;
    for (int64_t t = 0; t < taps; t++)
      if (x[t][c] > best || isnan(x[t][c])) best = x[t][c]; /* once NaN, no comparison replaces it */
    y[c] = best;
  }
}

static void max_backward(int64_t taps, const float *const *x, float *const *dx, int64_t channels, const float *y,
                         const float *dy) {
  for (int64_t c = 0; c < channels; c++) {
    int64_t t = 0;
    while (t < taps && x[t][c] != y[c]) t++;
    if (t < taps) dx[t][c] += dy[c];
  }
}

static void average(int64_t taps, const float *const *x, float scale, int64_t channels, float *y) {
  for (int64_t c = 0; c < channels; c++) {
    float sum = 0.0f;
    for (int64_t t = 0; t < taps; t++) sum += x[t][c];
    y[c] = scale * sum;
  }
}

static void average_backward(int64_t taps, float *const *dx, float scale, int64_t channels, const float *dy) {
  for (int64_t t = 0; t < taps; t++)
    for (int64_t c = 0; c < channels; c++) dx[t][c] += scale * dy[c];
}

const lamina_pool_kernels lamina_generic_pool = {
    .max = max,
    .max_backward = max_backward,
    .average = average,
    .average_backward = average_backward,
};
