/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel_cases.h"

/* Sizes around every vector length and around four vectors of each. */
static const int64_t sizes[] = {0,  1,  2,  3,  4,  5,  7,  8,  9,  12, 15, 16,  17,  18,  24,  31,  32,
                                33, 47, 48, 49, 63, 64, 65, 79, 80, 95, 96, 127, 128, 129, 191, 300, 1000};
enum { N_SIZES = sizeof sizes / sizeof sizes[0] };

/* What leaky relu and clip take; for all others it is ignored. */
static const float leaky_parameters[] = {0.01f}, clip_parameters[] = {-0.5f, 0.75f};

static const float *parameters_of(lamina_activation a) {
  return a == LAMINA_ACTIVATION_LEAKY_RELU ? leaky_parameters : a == LAMINA_ACTIVATION_CLIP ? clip_parameters : NULL;
}

static double gate(double x) { return x <= -3 ? 0 : x >= 3 ? 1 : x / 6 + 0.5; }
static double sigmoid(double x) { return x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x)); }

static double activation(lamina_activation a, double x) {
  switch (a) {
  case LAMINA_ACTIVATION_RELU:
    return x <= 0 ? 0 : x;
  case LAMINA_ACTIVATION_LEAKY_RELU:
    return x > 0 ? x : (double)leaky_parameters[0] * x;
  case LAMINA_ACTIVATION_SIGMOID:
    return sigmoid(x);
  case LAMINA_ACTIVATION_TANH:
    return tanh(x);
  case LAMINA_ACTIVATION_CLIP:
    return x < (double)clip_parameters[0]   ? (double)clip_parameters[0]
           : x > (double)clip_parameters[1] ? (double)clip_parameters[1]
                                            : x;
  case LAMINA_ACTIVATION_HARD_SIGMOID:
    return gate(x);
  case LAMINA_ACTIVATION_SILU:
    return x * sigmoid(x);
  case LAMINA_ACTIVATION_HARD_SWISH:
    return x * gate(x);
  default:
    return NAN;
  }
}

/* By y, or for silu and hard swish by x. */
static double activation_slope(lamina_activation a, double y) {
  switch (a) {
  case LAMINA_ACTIVATION_RELU:
    return y <= 0 ? 0 : 1;
  case LAMINA_ACTIVATION_LEAKY_RELU:
    return y > 0 ? 1 : (double)leaky_parameters[0];
  case LAMINA_ACTIVATION_SIGMOID:
    return y * (1 - y);
  case LAMINA_ACTIVATION_TANH:
    return 1 - y * y;
  case LAMINA_ACTIVATION_CLIP:
    return y <= (double)clip_parameters[0] || y >= (double)clip_parameters[1] ? 0 : 1;
  case LAMINA_ACTIVATION_HARD_SIGMOID:
    return y <= 0 || y >= 1 ? 0 : 1.0 / 6;
  case LAMINA_ACTIVATION_SILU:
    return sigmoid(y) * (1 + y * (1 - sigmoid(y)));
  case LAMINA_ACTIVATION_HARD_SWISH:
    return y <= -3 ? 0 : y >= 3 ? 1 : y / 3 + 0.5;
  default:
    return NAN;
  }
}

static double activation_bound(lamina_activation a, double want) {
  if (a == LAMINA_ACTIVATION_RELU || a == LAMINA_ACTIVATION_CLIP) return 0;
  if (a == LAMINA_ACTIVATION_LEAKY_RELU) return fabs(want) * ROUNDING;
  return fmax(4e-7 * fabs(want), 1e-37);
}

START_TEST(activations_are_exact_at_every_size) {
  const lamina_kernels *kernels = kernel_tables[_i];
  test_random r = test_random_for("activation");
  for (int a = 0; a < LAMINA_ACTIVATION_COUNT; a++)
    for (int s = 0; s < 2 * N_SIZES; s++) {
      const int64_t n = sizes[s / 2];
      matrix x = matrix_random(&r, 1, n, 0, s % 2, -9, 9), y = matrix_new(1, n, 0, s % 2);
      kernels->eltwise->activation[a](n, parameters_of(a), x.data, y.data);
      for (int64_t i = 0; i < n; i++) {
        const double want = activation(a, x.data[i]);
        assert_close(y.data[i], want, activation_bound(a, want), "activation %d of %.9g, %lld of %lld", a,
                     (double)x.data[i], (long long)i, (long long)n);
      }
      kernels->eltwise->activation[a](n, parameters_of(a), x.data, x.data);
      test_that(same_bits(x.data, y.data, n), "%s: activation %d in place", kernels->isa, a);
      matrix_free(&x, "activation x");
      matrix_free(&y, "activation y");
    }
}
END_TEST

/* Every 4099th float: all exponents and signs, subnormals, infinities and NaN. */
START_TEST(activations_keep_their_error_bound_over_all_floats) {
  enum { BLOCK = 1 << 12 };
  const lamina_kernels *kernels = kernel_tables[_i];
  static float x[BLOCK], y[BLOCK];
  uint64_t bits = test_seed() % 4099;
  while (bits < (UINT64_C(1) << 32)) {
    int n = 0;
    for (; n < BLOCK && bits < (UINT64_C(1) << 32); bits += 4099, n++) {
      const uint32_t pattern = (uint32_t)bits;
      memcpy(&x[n], &pattern, sizeof pattern);
    }
    for (int a = 0; a < LAMINA_ACTIVATION_COUNT; a++) {
      kernels->eltwise->activation[a](n, parameters_of(a), x, y);
      for (int i = 0; i < n; i++) {
        const double want = activation(a, x[i]), bound = fmax(activation_bound(a, want), 1e-45);
        if (!close_to(y[i], want, bound)) assert_close(y[i], want, bound, "activation %d of %a", a, (double)x[i]);
      }
    }
  }
}
END_TEST

START_TEST(activations_hold_at_extremes) {
  const lamina_kernels *kernels = kernel_tables[_i];
  const float extremes[] = {0.0f,    -0.0f,    INFINITY, -INFINITY, NAN,         FLT_MAX, -FLT_MAX,
                            FLT_MIN, -FLT_MIN, 1e-45f,   -1e-45f,   1e-6f,       -1e-6f,  88.0f,
                            -88.0f,  89.0f,    -104.0f,  -104.5f,   0.17328680f, 9.02f};
  enum { N = sizeof extremes / sizeof extremes[0] };
  float y[N];
  for (int a = 0; a < LAMINA_ACTIVATION_COUNT; a++) {
    kernels->eltwise->activation[a](N, parameters_of(a), extremes, y);
    for (int i = 0; i < N; i++) {
      const double want = activation(a, extremes[i]);
      assert_close(y[i], want, fmax(activation_bound(a, want), 1e-45), "activation %d of %.9g", a, (double)extremes[i]);
    }
  }
  kernels->eltwise->activation[LAMINA_ACTIVATION_TANH](N, NULL, extremes, y);
  test_that(signbit(y[1]) && !signbit(y[0]), "%s: tanh keeps the sign of zero", kernels->isa);
  test_that(y[9] == 1e-45f && y[10] == -1e-45f, "%s: tanh of the smallest float is itself", kernels->isa);
}
END_TEST

/* Where a gradient begins or ends. */
static const float edges[] = {0.0f, 1.0f, -0.5f, 0.75f, -3.0f, 3.0f};
enum { N_EDGES = sizeof edges / sizeof edges[0] };

START_TEST(activation_gradients_follow_from_y_or_x) {
  const lamina_kernels *kernels = kernel_tables[_i];
  test_random r = test_random_for("activation backward");
  for (int a = 0; a < LAMINA_ACTIVATION_COUNT; a++)
    for (int s = 0; s < 4 * N_SIZES; s++) {
      const int64_t n = sizes[s / 4];
      const int accumulate = s / 2 % 2;
      const int from_x = a >= LAMINA_ACTIVATION_SILU;
      const float low = from_x                                                                  ? -5.0f
                        : a == LAMINA_ACTIVATION_SIGMOID || a == LAMINA_ACTIVATION_HARD_SIGMOID ? 0.0f
                                                                                                : -1.0f;
      matrix y = matrix_random(&r, 1, n, 0, s % 2, low, from_x ? 5.0f : 1.0f);
      matrix dy = matrix_random(&r, 1, n, 0, s % 2, -3, 3);
      matrix dx = matrix_random(&r, 1, n, 0, s % 2, -2, 2), old = matrix_copy(&dx, s % 2);
      for (int64_t i = 1; i < n && i <= N_EDGES; i++) y.data[i] = edges[i - 1];
      kernels->eltwise->activation_backward[a](n, parameters_of(a), y.data, dy.data, accumulate, dx.data);
      for (int64_t i = 0; i < n; i++) {
        const double step = (double)dy.data[i] * activation_slope(a, y.data[i]);
        const double want = (accumulate ? (double)old.data[i] : 0.0) + step;
        /* A slope from x is a sum that may cancel. */
        const double size =
            fabs(step) + fabs(want) + (from_x ? fabs((double)dy.data[i]) * (1 + fabs((double)y.data[i])) : 0);
        assert_close(dx.data[i], want, 4 * ROUNDING * size, "gradient of activation %d, %lld of %lld", a, (long long)i,
                     (long long)n);
      }
      if (!accumulate) {
        kernels->eltwise->activation_backward[a](n, parameters_of(a), y.data, dy.data, 0, dy.data);
        test_that(same_bits(dx.data, dy.data, n), "%s: gradient of activation %d in place", kernels->isa, a);
      }
      matrix_free(&y, "y");
      matrix_free(&dy, "dy");
      matrix_free(&dx, "dx");
      matrix_free(&old, "old");
    }
}
END_TEST

/* As in PyTorch: zero where relu or clip was off, whatever dy is; dy where y is NaN. */
START_TEST(gradient_of_nan_and_infinity) {
  const lamina_kernels *kernels = kernel_tables[_i];
  const lamina_activation tested[] = {LAMINA_ACTIVATION_RELU, LAMINA_ACTIVATION_CLIP};
  const float none[] = {0.0f, INFINITY};
  float y[20], dy[20], dx[20];
  for (int i = 0; i < 20; i++) {
    y[i] = i % 2 ? 0.0f : NAN;
    dy[i] = i % 2 ? INFINITY : 5.0f;
  }
  for (int a = 0; a < 2; a++) {
    kernels->eltwise->activation_backward[tested[a]](20, none, y, dy, 0, dx);
    for (int i = 0; i < 20; i++)
      test_that(dx[i] == (i % 2 ? 0.0f : 5.0f), "%s: activation %d, element %d", kernels->isa, tested[a], i);
  }
}
END_TEST

typedef struct operands {
  matrix a, b, y, old;
} operands;

static operands operands_new(test_random *r, int64_t n, guard_side side) {
  operands o;
  o.a = matrix_random(r, 1, n, 0, side, -4, 4);
  o.b = matrix_random(r, 1, n, 0, side, -4, 4);
  o.y = matrix_random(r, 1, n, 0, side, -4, 4);
  o.old = matrix_copy(&o.y, side);
  return o;
}

static void operands_free(operands *o) {
  matrix_free(&o->a, "a");
  matrix_free(&o->b, "b");
  matrix_free(&o->y, "y");
  matrix_free(&o->old, "old");
}

static double clamped(double v, double lo, double hi) { return v < lo ? lo : v > hi ? hi : v; }

START_TEST(add_and_clamp_at_every_size) {
  const lamina_kernels *kernels = kernel_tables[_i];
  const lamina_eltwise_kernels *eltwise = kernels->eltwise;
  test_random r = test_random_for("add");
  for (int s = 0; s < 4 * N_SIZES; s++) {
    const int64_t n = sizes[s / 4];
    const float lo = s / 2 % 2 ? 0.0f : -INFINITY, hi = s / 2 % 2 ? 6.0f : INFINITY;
    operands o = operands_new(&r, n, s % 2);
    if (n > 0) o.a.data[n - 1] = NAN;
    eltwise->add(n, o.a.data, o.b.data, lo, hi, o.y.data);
    for (int64_t i = 0; i < n; i++) {
      const double want = clamped((double)o.a.data[i] + (double)o.b.data[i], lo, hi);
      assert_close(o.y.data[i], want, ROUNDING * fabs(want), "add, %lld of %lld", (long long)i, (long long)n);
    }
    matrix in_place = matrix_copy(&o.b, s % 2);
    eltwise->add(n, o.a.data, in_place.data, lo, hi, in_place.data);
    test_that(same_bits(in_place.data, o.y.data, n), "%s: add onto b", kernels->isa);
    matrix_free(&in_place, "in place");
    in_place = matrix_copy(&o.a, s % 2);
    eltwise->add(n, in_place.data, o.b.data, lo, hi, in_place.data);
    test_that(same_bits(in_place.data, o.y.data, n), "%s: add onto a", kernels->isa);
    matrix_free(&in_place, "in place");
    eltwise->clamp(n, -1.0f, 2.0f, o.a.data, o.y.data);
    for (int64_t i = 0; i < n; i++)
      assert_close(o.y.data[i], clamped((double)o.a.data[i], -1, 2), 0, "clamp, %lld of %lld", (long long)i,
                   (long long)n);
    eltwise->clamp(n, -1.0f, 2.0f, o.a.data, o.a.data);
    for (int64_t i = 0; i + 1 < n; i++) test_that(o.a.data[i] == o.y.data[i], "in place differs at %lld", (long long)i);
    operands_free(&o);
  }
}
END_TEST

START_TEST(multiply_and_add_scaled_at_every_size) {
  const lamina_kernels *kernels = kernel_tables[_i];
  test_random r = test_random_for("multiply");
  for (int s = 0; s < 4 * N_SIZES; s++) {
    const int64_t n = sizes[s / 4];
    const int accumulate = s / 2 % 2;
    const float scale = test_random_float(&r, -2, 2);
    operands o = operands_new(&r, n, s % 2);
    kernels->eltwise->multiply(n, o.a.data, o.b.data, accumulate, o.y.data);
    for (int64_t i = 0; i < n; i++) {
      const double step = (double)o.a.data[i] * (double)o.b.data[i];
      const double want = step + (accumulate ? (double)o.old.data[i] : 0.0);
      assert_close(o.y.data[i], want, ROUNDING * (fabs(step) + fabs(want)), "multiply, %lld of %lld", (long long)i,
                   (long long)n);
    }
    if (n > 0) memcpy(o.y.data, o.old.data, (size_t)n * sizeof(float));
    kernels->eltwise->add_scaled(n, scale, o.a.data, o.y.data);
    for (int64_t i = 0; i < n; i++) {
      const double step = (double)scale * (double)o.a.data[i], want = (double)o.old.data[i] + step;
      assert_close(o.y.data[i], want, ROUNDING * (fabs(step) + fabs(want)), "add_scaled, %lld of %lld", (long long)i,
                   (long long)n);
    }
    operands_free(&o);
  }
}
END_TEST

START_TEST(zeros_are_written_at_every_size_and_nothing_else) {
  const lamina_kernels *kernels = kernel_tables[_i];
  test_random r = test_random_for("stream_zero");
  for (int s = 0; s < 4 * N_SIZES; s++) {
    const int64_t rows = s % 2 ? 3 : 1, n = sizes[s / 4], gap = s / 2 % 2 ? 5 : 0, ld = n + gap;
    matrix y = matrix_random(&r, 1, rows * ld - gap, 0, s % 2, 1, 2);
    kernels->eltwise->stream_zero(rows, n, ld, y.data);
    for (int64_t i = 0; i < rows * ld - gap; i++)
      test_that((y.data[i] == 0.0f) == (i % ld < n), "%s: number %lld of rows of %lld, %lld apart", kernels->isa,
                (long long)i, (long long)n, (long long)ld);
    matrix_free(&y, "y");
  }
}
END_TEST

START_TEST(one_value_that_is_not_finite_is_found_anywhere) {
  const lamina_kernels *kernels = kernel_tables[_i];
  const float bad[] = {NAN, INFINITY, -INFINITY};
  test_random r = test_random_for("finite");
  for (int s = 0; s < 2 * N_SIZES; s++) {
    const int64_t n = sizes[s / 2];
    matrix x = matrix_random(&r, 1, n, 0, s % 2, -FLT_MAX / 4, FLT_MAX / 4);
    test_that(kernels->eltwise->all_finite(n, x.data), "%s: %lld finite values", kernels->isa, (long long)n);
    for (int64_t i = 0; i < n; i++) {
      const float kept = x.data[i];
      x.data[i] = bad[i % 3];
      test_that(!kernels->eltwise->all_finite(n, x.data), "%s: %lld of %lld", kernels->isa, (long long)i,
                    (long long)n);
      x.data[i] = kept;
    }
    matrix_free(&x, "x");
  }
}
END_TEST

void add_eltwise_tests(TCase *tcase) {
  tcase_add_loop_test(tcase, activations_are_exact_at_every_size, 0, kernel_table_count);
  tcase_add_loop_test(tcase, activations_keep_their_error_bound_over_all_floats, 0, kernel_table_count);
  tcase_add_loop_test(tcase, activations_hold_at_extremes, 0, kernel_table_count);
  tcase_add_loop_test(tcase, activation_gradients_follow_from_y_or_x, 0, kernel_table_count);
  tcase_add_loop_test(tcase, gradient_of_nan_and_infinity, 0, kernel_table_count);
  tcase_add_loop_test(tcase, add_and_clamp_at_every_size, 0, kernel_table_count);
  tcase_add_loop_test(tcase, multiply_and_add_scaled_at_every_size, 0, kernel_table_count);
  tcase_add_loop_test(tcase, zeros_are_written_at_every_size_and_nothing_else, 0, kernel_table_count);
  tcase_add_loop_test(tcase, one_value_that_is_not_finite_is_found_anywhere, 0, kernel_table_count);
}
