/* SPDX-License-Identifier: Apache-2.0 */
/* Activations and arithmetic on n floats: the specification of the eltwise group. */
#include "generic.h"

#include <math.h>

static void relu(int64_t n, const float *parameters, const float *x, float *y) {
  for (int64_t i = 0; i < n; i++) y[i] = x[i] <= 0.0f ? 0.0f : x[i]; /* NaN stays */
}

static void leaky_relu(int64_t n, const float *parameters, const float *x, float *y) {
  const float slope = parameters[0];
  for (int64_t i = 0; i < n; i++) y[i] = x[i] > 0.0f ? x[i] : slope * x[i];
}

/* Through exp(-|x|), which never overflows. */
static float sigmoid_one(float x) {
  float e = expf(-fabsf(x)), r = 1.0f / (1.0f + e);
  return x < 0.0f ? e * r : r;
}

static void sigmoid(int64_t n, const float *parameters, const float *x, float *y) {
  for (int64_t i = 0; i < n; i++) y[i] = sigmoid_one(x[i]);
}

static void tangent(int64_t n, const float *parameters, const float *x, float *y) {
  for (int64_t i = 0; i < n; i++) y[i] = tanhf(x[i]);
}

static float clamp_one(float v, float lo, float hi) {
  if (v < lo) return lo;
  return v > hi ? hi : v; /* both comparisons are false for NaN, which stays */
}

static void clip(int64_t n, const float *parameters, const float *x, float *y) {
  for (int64_t i = 0; i < n; i++) y[i] = clamp_one(x[i], parameters[0], parameters[1]);
}

static float hard_gate(float x) { return clamp_one(x + 3.0f, 0.0f, 6.0f) * (1.0f / 6.0f); }

static void hard_sigmoid(int64_t n, const float *parameters, const float *x, float *y) {
  for (int64_t i = 0; i < n; i++) y[i] = hard_gate(x[i]);
}

static void silu(int64_t n, const float *parameters, const float *x, float *y) {
  for (int64_t i = 0; i < n; i++) y[i] = x[i] * sigmoid_one(x[i]);
}

/* x times the gate, so that nothing overflows before its result does. */
static void hard_swish(int64_t n, const float *parameters, const float *x, float *y) {
  for (int64_t i = 0; i < n; i++) y[i] = x[i] * hard_gate(x[i]);
}

/* As in PyTorch, the gradient passes where y is NaN. */
static void relu_backward(int64_t n, const float *parameters, const float *y, const float *dy, int accumulate,
                          float *dx) {
  for (int64_t i = 0; i < n; i++) {
    float g = y[i] <= 0.0f ? 0.0f : dy[i];
    dx[i] = accumulate ? dx[i] + g : g;
  }
}

static void leaky_relu_backward(int64_t n, const float *parameters, const float *y, const float *dy, int accumulate,
                                float *dx) {
  const float slope = parameters[0];
  for (int64_t i = 0; i < n; i++) {
    float g = y[i] > 0.0f ? dy[i] : slope * dy[i];
    dx[i] = accumulate ? dx[i] + g : g;
  }
}

static void sigmoid_backward(int64_t n, const float *parameters, const float *y, const float *dy, int accumulate,
                             float *dx) {
  for (int64_t i = 0; i < n; i++) {
    float g = dy[i] * (1.0f - y[i]) * y[i];
    dx[i] = accumulate ? dx[i] + g : g;
  }
}

static void tangent_backward(int64_t n, const float *parameters, const float *y, const float *dy, int accumulate,
                             float *dx) {
  for (int64_t i = 0; i < n; i++) {
    float g = dy[i] * ((1.0f - y[i]) * (1.0f + y[i])); /* 1 - y^2 without its cancellation */
    dx[i] = accumulate ? dx[i] + g : g;
  }
}

static void clip_backward(int64_t n, const float *parameters, const float *y, const float *dy, int accumulate,
                          float *dx) {
  for (int64_t i = 0; i < n; i++) {
    float g = y[i] <= parameters[0] || y[i] >= parameters[1] ? 0.0f : dy[i];
    dx[i] = accumulate ? dx[i] + g : g;
  }
}

static void hard_sigmoid_backward(int64_t n, const float *parameters, const float *y, const float *dy, int accumulate,
                                  float *dx) {
  for (int64_t i = 0; i < n; i++) {
    float g = y[i] <= 0.0f || y[i] >= 1.0f ? 0.0f : dy[i] * (1.0f / 6.0f);
    dx[i] = accumulate ? dx[i] + g : g;
  }
}

static void silu_backward(int64_t n, const float *parameters, const float *x, const float *dy, int accumulate,
                          float *dx) {
  for (int64_t i = 0; i < n; i++) {
    float s = sigmoid_one(x[i]), g = dy[i] * (s * (1.0f + x[i] * (1.0f - s)));
    dx[i] = accumulate ? dx[i] + g : g;
  }
}

static void hard_swish_backward(int64_t n, const float *parameters, const float *x, const float *dy, int accumulate,
                                float *dx) {
  for (int64_t i = 0; i < n; i++) {
    float g = dy[i] * (x[i] * (1.0f / 3.0f) + 0.5f);
    if (x[i] <= -3.0f) g = 0.0f;
    if (x[i] >= 3.0f) g = dy[i];
    dx[i] = accumulate ? dx[i] + g : g;
  }
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

static void stream_zero(int64_t rows, int64_t n, int64_t ld, float *y) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = 0; i < n; i++) y[r * ld + i] = 0.0f;
}

const lamina_eltwise_kernels lamina_generic_eltwise = {
    .activation = {relu, leaky_relu, sigmoid, tangent, clip, hard_sigmoid, silu, hard_swish},
    .activation_backward = {relu_backward, leaky_relu_backward, sigmoid_backward, tangent_backward, clip_backward,
                            hard_sigmoid_backward, silu_backward, hard_swish_backward},
    .add = add,
    .add_scaled = add_scaled,
    .multiply = multiply,
    .clamp = clamp,
    .all_finite = all_finite,
    .stream_zero = stream_zero,
};
