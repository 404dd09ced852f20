/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file eltwise_body.h
 * Activations and arithmetic on n floats, on vec.h: one loop (`map`) for every operation, four vectors at a time where
 * the operation is short. Cost: one pass; bandwidth, but for sigmoid, tanh and silu (see math_body.h). All inputs of a
 * step are loaded before its results are stored, so that an output may be an input.
 */
#ifndef LAMINA_SHARED_ELTWISE_BODY_H
#define LAMINA_SHARED_ELTWISE_BODY_H

#include "kernels.h"
#include "math_body.h"
#include "vec_inline.h"

typedef enum map_kind {
  MAP_RELU,
  MAP_LEAKY_RELU,
  MAP_SIGMOID,
  MAP_TANH,
  MAP_CLAMP,
  MAP_HARD_SIGMOID,
  MAP_SILU,
  MAP_HARD_SWISH,
  MAP_ADD, /* from here on with a second input b */
  MAP_MULTIPLY,
  MAP_RELU_BACKWARD, /* a is y, b is dy */
  MAP_LEAKY_RELU_BACKWARD,
  MAP_SIGMOID_BACKWARD,
  MAP_TANH_BACKWARD,
  MAP_CLIP_BACKWARD,
  MAP_HARD_SIGMOID_BACKWARD,
  MAP_SILU_BACKWARD, /* a is x, b is dy */
  MAP_HARD_SWISH_BACKWARD
} map_kind;

typedef struct map_constants {
  vf parameter, lo, hi;
} map_constants;

/* clamp(x + 3, 0, 6) / 6, by a product: 6 * (1 / 6) rounds to 1. */
VEC_INLINE vf hard_gate(vf x) {
  const vf three = vf_set1(3.0f), six = vf_set1(6.0f);
  return vf_mul(vf_min(six, vf_max(vf_zero(), vf_add(x, three))), vf_set1(1.0f / 6.0f));
}

/* b where lo < a < hi or a is NaN, else zero. */
VEC_INLINE vf keep_inside(vf a, vf lo, vf hi, vf b) {
  return vf_select(vm_or(vf_le(a, lo), vf_le(hi, a)), vf_zero(), b);
}

VEC_INLINE vf silu_slope(vf x) {
  const vf one = vf_set1(1.0f), s = vf_sigmoid(x);
  return vf_mul(s, vf_fma(x, vf_sub(one, s), one));
}

VEC_INLINE vf map_op(map_kind kind, const map_constants *k, vf a, vf b) {
  const vf zero = vf_zero(), one = vf_set1(1.0f);
  switch (kind) {
  case MAP_RELU:
    return vf_max(zero, a);
  case MAP_LEAKY_RELU:
    return vf_select(vf_lt(zero, a), a, vf_mul(k->parameter, a));
  case MAP_SIGMOID:
    return vf_sigmoid(a);
  case MAP_TANH:
    return vf_tanh(a);
  case MAP_CLAMP:
    return vf_min(k->hi, vf_max(k->lo, a));
  case MAP_HARD_SIGMOID:
    return hard_gate(a);
  case MAP_SILU:
    return vf_mul(a, vf_sigmoid(a));
  case MAP_HARD_SWISH:
    return vf_mul(a, hard_gate(a));
  case MAP_ADD:
    return vf_min(k->hi, vf_max(k->lo, vf_add(a, b)));
  case MAP_MULTIPLY:
    return vf_mul(a, b);
  case MAP_RELU_BACKWARD:
    return vf_select(vf_le(a, zero), zero, b);
  case MAP_LEAKY_RELU_BACKWARD:
    return vf_select(vf_lt(zero, a), b, vf_mul(k->parameter, b));
  case MAP_SIGMOID_BACKWARD:
    return vf_mul(vf_mul(b, vf_sub(one, a)), a);
  case MAP_TANH_BACKWARD:
    return vf_mul(b, vf_mul(vf_sub(one, a), vf_add(one, a)));
  case MAP_CLIP_BACKWARD:
    return keep_inside(a, k->lo, k->hi, b);
  case MAP_HARD_SIGMOID_BACKWARD:
    return keep_inside(a, zero, one, vf_mul(b, vf_set1(1.0f / 6.0f)));
  case MAP_SILU_BACKWARD:
    return vf_mul(b, silu_slope(a));
  case MAP_HARD_SWISH_BACKWARD: {
    const vf slope = vf_fma(a, vf_set1(1.0f / 3.0f), vf_set1(0.5f)), three = vf_set1(3.0f);
    return vf_select(vf_le(a, vf_set1(-3.0f)), zero, vf_select(vf_le(three, a), b, vf_mul(b, slope)));
  }
  }
  return a;
}

/* y (+)= op(a, b). */
VEC_INLINE void map(map_kind kind, int accumulate, int64_t n, const map_constants *constants, const float *a,
                    const float *b, float *y) {
  enum { STEP = 4 };
  const map_constants k = *constants;
  const int two = kind >= MAP_ADD;
  const int is_long = kind == MAP_SIGMOID || kind == MAP_TANH || kind == MAP_SILU || kind == MAP_SILU_BACKWARD;
  int64_t i = 0;
  for (; !is_long && i + STEP * VF_LEN <= n; i += STEP * VF_LEN) {
    vf v[STEP];
    for (int u = 0; u < STEP; u++) {
      v[u] = map_op(kind, &k, vf_load(a + i + u * VF_LEN), two ? vf_load(b + i + u * VF_LEN) : vf_zero());
      if (accumulate) v[u] = vf_add(vf_load(y + i + u * VF_LEN), v[u]);
    }
    for (int u = 0; u < STEP; u++) vf_store(y + i + u * VF_LEN, v[u]);
  }
  for (; i + VF_LEN <= n; i += VF_LEN) {
    vf v = map_op(kind, &k, vf_load(a + i), two ? vf_load(b + i) : vf_zero());
    vf_store(y + i, accumulate ? vf_add(vf_load(y + i), v) : v);
  }
  if (i < n) {
    const int tail = (int)(n - i);
    vf v = map_op(kind, &k, vf_load_n(a + i, tail), two ? vf_load_n(b + i, tail) : vf_zero());
    vf_store_n(y + i, accumulate ? vf_add(vf_load_n(y + i, tail), v) : v, tail);
  }
}

/* The constants of an activation with `count` parameters. */
VEC_INLINE map_constants map_parameters(int count, const float *parameters) {
  const vf first = count > 0 ? vf_set1(parameters[0]) : vf_zero();
  return (map_constants){.parameter = first, .lo = first, .hi = count > 1 ? vf_set1(parameters[1]) : vf_zero()};
}

VEC_INLINE void map_forward(map_kind kind, int count, int64_t n, const float *parameters, const float *x, float *y) {
  const map_constants k = map_parameters(count, parameters);
  map(kind, 0, n, &k, x, NULL, y);
}

VEC_INLINE void map_backward(map_kind kind, int count, int64_t n, const float *parameters, const float *a,
                             const float *dy, int accumulate, float *dx) {
  const map_constants k = map_parameters(count, parameters);
  if (accumulate)
    map(kind, 1, n, &k, a, dy, dx);
  else
    map(kind, 0, n, &k, a, dy, dx);
}

static void eltwise_relu(int64_t n, const float *parameters, const float *x, float *y) {
  map_forward(MAP_RELU, 0, n, parameters, x, y);
}

static void eltwise_leaky_relu(int64_t n, const float *parameters, const float *x, float *y) {
  map_forward(MAP_LEAKY_RELU, 1, n, parameters, x, y);
}

static void eltwise_sigmoid(int64_t n, const float *parameters, const float *x, float *y) {
  map_forward(MAP_SIGMOID, 0, n, parameters, x, y);
}

static void eltwise_tanh(int64_t n, const float *parameters, const float *x, float *y) {
  map_forward(MAP_TANH, 0, n, parameters, x, y);
}

static void eltwise_clip(int64_t n, const float *parameters, const float *x, float *y) {
  map_forward(MAP_CLAMP, 2, n, parameters, x, y);
}

static void eltwise_hard_sigmoid(int64_t n, const float *parameters, const float *x, float *y) {
  map_forward(MAP_HARD_SIGMOID, 0, n, parameters, x, y);
}

static void eltwise_silu(int64_t n, const float *parameters, const float *x, float *y) {
  map_forward(MAP_SILU, 0, n, parameters, x, y);
}

static void eltwise_hard_swish(int64_t n, const float *parameters, const float *x, float *y) {
  map_forward(MAP_HARD_SWISH, 0, n, parameters, x, y);
}

static void eltwise_relu_backward(int64_t n, const float *parameters, const float *y, const float *dy, int accumulate,
                                  float *dx) {
  map_backward(MAP_RELU_BACKWARD, 0, n, parameters, y, dy, accumulate, dx);
}

static void eltwise_leaky_relu_backward(int64_t n, const float *parameters, const float *y, const float *dy,
                                        int accumulate, float *dx) {
  map_backward(MAP_LEAKY_RELU_BACKWARD, 1, n, parameters, y, dy, accumulate, dx);
}

static void eltwise_sigmoid_backward(int64_t n, const float *parameters, const float *y, const float *dy,
                                     int accumulate, float *dx) {
  map_backward(MAP_SIGMOID_BACKWARD, 0, n, parameters, y, dy, accumulate, dx);
}

static void eltwise_tanh_backward(int64_t n, const float *parameters, const float *y, const float *dy, int accumulate,
                                  float *dx) {
  map_backward(MAP_TANH_BACKWARD, 0, n, parameters, y, dy, accumulate, dx);
}

static void eltwise_clip_backward(int64_t n, const float *parameters, const float *y, const float *dy, int accumulate,
                                  float *dx) {
  map_backward(MAP_CLIP_BACKWARD, 2, n, parameters, y, dy, accumulate, dx);
}

static void eltwise_hard_sigmoid_backward(int64_t n, const float *parameters, const float *y, const float *dy,
                                          int accumulate, float *dx) {
  map_backward(MAP_HARD_SIGMOID_BACKWARD, 0, n, parameters, y, dy, accumulate, dx);
}

static void eltwise_silu_backward(int64_t n, const float *parameters, const float *x, const float *dy, int accumulate,
                                  float *dx) {
  map_backward(MAP_SILU_BACKWARD, 0, n, parameters, x, dy, accumulate, dx);
}

static void eltwise_hard_swish_backward(int64_t n, const float *parameters, const float *x, const float *dy,
                                        int accumulate, float *dx) {
  map_backward(MAP_HARD_SWISH_BACKWARD, 0, n, parameters, x, dy, accumulate, dx);
}

static void eltwise_add(int64_t n, const float *a, const float *b, float lo, float hi, float *y) {
  const map_constants k = {.parameter = vf_zero(), .lo = vf_set1(lo), .hi = vf_set1(hi)};
  map(MAP_ADD, 0, n, &k, a, b, y);
}

static void eltwise_clamp(int64_t n, float lo, float hi, const float *x, float *y) {
  const map_constants k = {.parameter = vf_zero(), .lo = vf_set1(lo), .hi = vf_set1(hi)};
  map(MAP_CLAMP, 0, n, &k, x, NULL, y);
}

static void eltwise_multiply(int64_t n, const float *a, const float *b, int accumulate, float *y) {
  map_backward(MAP_MULTIPLY, 0, n, NULL, a, b, accumulate, y);
}

/* y += scale * x, rounded once. */
static void eltwise_add_scaled(int64_t n, float scale, const float *x, float *y) {
  const vf s = vf_set1(scale);
  int64_t i = 0;
  for (; i + VF_LEN <= n; i += VF_LEN) vf_store(y + i, vf_fma(s, vf_load(x + i), vf_load(y + i)));
  if (i < n) {
    const int tail = (int)(n - i);
    vf_store_n(y + i, vf_fma(s, vf_load_n(x + i, tail), vf_load_n(y + i, tail)), tail);
  }
}

/* Sums 0 * x: an infinity or a NaN makes it NaN, which nothing undoes. */
static int eltwise_all_finite(int64_t n, const float *x) {
  enum { STEP = 8 };
  vf zero[STEP];
  for (int u = 0; u < STEP; u++) zero[u] = vf_zero();
  int64_t i = 0;
  for (; i + STEP * VF_LEN <= n; i += STEP * VF_LEN)
    for (int u = 0; u < STEP; u++) zero[u] = vf_fma(vf_zero(), vf_load(x + i + u * VF_LEN), zero[u]);
  for (; i < n; i += VF_LEN) {
    const int count = n - i < VF_LEN ? (int)(n - i) : VF_LEN;
    zero[0] = vf_fma(vf_zero(), vf_load_n(x + i, count), zero[0]);
  }
  for (int u = 1; u < STEP; u++) zero[0] = vf_add(zero[0], zero[u]);
  return vf_sum(zero[0]) == 0.0f;
}

#endif

/* Lines are written whole, each row from its first aligned vector on; one fence for all. */
static void eltwise_stream_zero(int64_t rows, int64_t n, int64_t ld, float *y) {
  for (int64_t r = 0; r < rows; r++) {
    float *to = y + r * ld;
    const int64_t past = (int64_t)((uintptr_t)to % (VF_LEN * sizeof(float)) / sizeof(float));
    int64_t i = past > 0 ? VF_LEN - past : 0;
    if (i > n) i = n;
    if (i > 0) vf_store_n(to, vf_zero(), (int)i);
    for (; i + VF_LEN <= n; i += VF_LEN) vf_stream(to + i, vf_zero());
    if (i < n) vf_store_n(to + i, vf_zero(), (int)(n - i));
  }
  vf_stream_end();
}
