/* SPDX-License-Identifier: Apache-2.0 */
/* Activations and arithmetic on n floats: the specification of the eltwise group. */
#include "generic.h"

#include <math.h>

static void relu(int64_t n, float parameter, const float *x, float *y) {
  for (int64_t i = 0; i < n; i++) y[i] = x[i] <= 0.0f ? 0.0f : x[i]; /* NaN stays */
}

static void leaky_relu(int64_t n, float slope, const float *x, float *y) {
  for (int64_t i = 0; i < n; i++) y[i] = x[i] > 0.0f ? x[i] : slope * x[i];
}

/* Through exp(-|x|), which never overflows. */
static void sigmoid(int64_t n, float parameter, const float *x, float *y) {
  for (int64_t i = 0; i < n; i++) {
    float e = expf(-fabsf(x[i])), r = 1.0f / (1.0f + e);
    y[i] = x[i] < 0.0f ? e * r : r;
  }
}

static void tangent(int64_t n, float parameter, const float *x, float *y) {
  for (int64_t i = 0; i < n; i++) y[i] = tanhf(x[i]);
}

/* As in PyTorch, the gradient passes where y is NaN. */
static void relu_backward(int64_t n, float parameter, const float *y, const float *dy, int accumulate, float *dx) {
  for (int64_t i = 0; i < n; i++) {
    float g = y[i] <= 0.0f ? 0.0f : dy[i];
    dx[i] = accumulate ? dx[i] + g : g;
  }
}

static void leaky_relu_backward(int64_t n, float slope, const float *y, const float *dy, int accumulate, float *dx) {
  for (int64_t i = 0; i < n; i++) {
    float g = y[i] > 0.0f ? dy[i] : slope * dy[i];
    dx[i] = accumulate ? dx[i] + g : g;
  }
}

static void sigmoid_backward(int64_t n, float parameter, const float *y, const float *dy, int accumulate, float *dx) {
  for (int64_t i = 0; i < n; i++) {
    float g = dy[i] * (1.0f - y[i]) * y[i];
    dx[i] = accumulate ? dx[i] + g : g;
  }
}

static void tangent_backward(int64_t n, float parameter, const float *y, const float *dy, int accumulate, float *dx) {
  for (int64_t i = 0; i < n; i++) {
    float g = dy[i] * ((1.0f - y[i]) * (1.0f + y[i])); /* 1 - y^2 without its cancellation */
    dx[i] = accumulate ? dx[i] + g : g;
  }
}

static float clamp_one(float v, float lo, float hi) {
  if (v < lo) return lo;
  return v > hi ? hi : v; /* both comparisons are false for NaN, which stays */
}

static void add(int64_t n, const float *a, const float *b, float lo, float hi, float *y) {
  for (int64_t i = 0; i < n; i++) y[i] = clamp_one(a[i] + b[i], lo, hi);
}

static void add_scaled(int64_t n, float scale, const float *x, float *y) {
  for (int64_t i = 0; i < n; i++) y[i] += scale * x[i];
}

static void multiply(int64_t n, const float *a, const float *b, int accumulate, float *y) {
  for (int64_t i = 0; i < n; i++) y[i] = accumulate ? y[i] + a[i] * b[i] : a[i] * b[i];
}

static void clamp(int64_t n, float lo, float hi, const float *x, float *y) {
  for (int64_t i = 0; i < n; i++) y[i] = clamp_one(x[i], lo, hi);
}

static int all_finite(int64_t n, const float *x) {
  float zero = 0.0f; /* 0 * x is NaN for an infinity and for NaN */
  for (int64_t i = 0; i < n; i++) zero += 0.0f * x[i];
  return zero == 0.0f;
}

const lamina_eltwise_kernels lamina_generic_eltwise = {
    .activation = {relu, leaky_relu, sigmoid, tangent},
    .activation_backward = {relu_backward, leaky_relu_backward, sigmoid_backward, tangent_backward},
    .add = add,
    .add_scaled = add_scaled,
    .multiply = multiply,
    .clamp = clamp,
    .all_finite = all_finite,
};
