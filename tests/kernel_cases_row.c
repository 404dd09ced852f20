/* SPDX-License-Identifier: Apache-2.0 */
/* Softmax and the optimizers: functions of one row of n floats. */
#include "kernel_cases.h"

static const int64_t lengths[] = {1,  2,  3,  4,  5,  7,  8,  9,  10,  15,  16,  17,  31,  32,  33,
                                  40, 47, 48, 63, 64, 65, 70, 96, 100, 127, 128, 129, 200, 1000};
enum { N_LENGTHS = sizeof lengths / sizeof lengths[0] };

START_TEST(softmax_of_every_length) {
  const lamina_kernels *kernels = kernel_tables[_i];
  test_random r = test_random_for("softmax");
  for (int s = 0; s < 4 * N_LENGTHS; s++) {
    const int64_t n = lengths[s / 4];
    const float offset = s / 2 % 2 ? -3000.0f : 0.0f; /* all far below zero: nothing may underflow */
    matrix x = matrix_random(&r, 1, n, 0, s % 2, offset - 10, offset + 10), y = matrix_new(1, n, 0, s % 2);
    const float log_sum = kernels->softmax->forward(n, x.data, y.data);
    double max = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) max = fmax(max, (double)x.data[i]);
    for (int64_t i = 0; i < n; i++) sum += exp((double)x.data[i] - max);
    for (int64_t i = 0; i < n; i++) {
      const double distance = max - (double)x.data[i], want = exp(-distance) / sum;
      assert_close(y.data[i], want, ROUNDING * want * (distance + (double)n / 2 + 8), "softmax %lld of %lld",
                   (long long)i, (long long)n);
    }
    assert_close(log_sum, max + log(sum), ROUNDING * (fabs(max) + (double)n / 2 + 8), "log of the sum of %lld",
                 (long long)n);
    matrix powers = matrix_new(1, n, 0, s % 2);
    assert_close(kernels->softmax->unscaled(n, x.data, powers.data), sum, ROUNDING * sum * (30 + (double)n / 2),
                 "sum of %lld", (long long)n);
    for (int64_t i = 0; i < n; i++) {
      const double distance = max - (double)x.data[i];
      assert_close(powers.data[i], exp(-distance), ROUNDING * exp(-distance) * (distance + 4), "power %lld of %lld",
                   (long long)i, (long long)n);
    }
    matrix_free(&powers, "powers");
    kernels->softmax->forward(n, x.data, x.data);
    test_that(same_bits(x.data, y.data, n), "%s: softmax in place", kernels->isa);
    matrix_free(&x, "x");
    matrix_free(&y, "y");
  }
}
END_TEST

START_TEST(softmax_at_extremes) {
  const lamina_kernels *kernels = kernel_tables[_i];
  enum { N = 37 };
  float x[N], y[N];
  for (int i = 0; i < N; i++) x[i] = i == 20 ? 3e38f : -3e38f;
  assert_close(kernels->softmax->forward(N, x, y), 3e38, 1e32, "log of the sum, %s", "one huge");
  for (int i = 0; i < N; i++) test_that(y[i] == (i == 20 ? 1.0f : 0.0f), "%s: element %d", kernels->isa, i);
  for (int i = 0; i < N; i++) x[i] = i % 2 ? -INFINITY : 2.0f;
  kernels->softmax->forward(N, x, y);
  for (int i = 0; i < N; i++)
    assert_close(y[i], i % 2 ? 0.0 : 1.0 / 19, 1e-7, "half of them %s, element %d", "-inf", i);
  for (int bad = 0; bad < N; bad++) {
    for (int i = 0; i < N; i++) x[i] = i == bad ? NAN : (float)i;
    test_that(isnan(kernels->softmax->forward(N, x, y)), "%s: NaN at %d is lost", kernels->isa, bad);
    for (int i = 0; i < N; i++) test_that(isnan(y[i]), "%s: NaN at %d, element %d", kernels->isa, bad, i);
    test_that(isnan(kernels->softmax->unscaled(N, x, y)), "%s: NaN at %d is lost, unscaled", kernels->isa, bad);
  }
}
END_TEST

START_TEST(softmax_gradient_of_every_length) {
  const lamina_kernels *kernels = kernel_tables[_i];
  test_random r = test_random_for("softmax backward");
  for (int s = 0; s < 4 * N_LENGTHS; s++) {
    const int64_t n = lengths[s / 4];
    const int accumulate = s / 2 % 2;
    matrix y = matrix_random(&r, 1, n, 0, s % 2, 0, 1), dy = matrix_random(&r, 1, n, 0, s % 2, -2, 2);
    matrix dx = matrix_random(&r, 1, n, 0, s % 2, -1, 1), old = matrix_copy(&dx, s % 2);
    double dot = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
      dot += (double)y.data[i] * (double)dy.data[i];
      size += fabs((double)y.data[i] * (double)dy.data[i]);
    }
    kernels->softmax->backward(n, y.data, dy.data, accumulate, dx.data);
    for (int64_t i = 0; i < n; i++) {
      const double want = (double)y.data[i] * ((double)dy.data[i] - dot) + (accumulate ? (double)old.data[i] : 0.0);
      assert_close(dx.data[i], want, ROUNDING * ((double)n + 4) * (size + 3), "softmax gradient %lld of %lld",
                   (long long)i, (long long)n);
    }
    if (!accumulate) {
      kernels->softmax->backward(n, y.data, dy.data, 0, dy.data);
      test_that(same_bits(dx.data, dy.data, n), "%s: softmax gradient in place", kernels->isa);
    }
    matrix *all[] = {&y, &dy, &dx, &old};
    for (int i = 0; i < 4; i++) matrix_free(all[i], "softmax backward");
  }
}
END_TEST

/* torch.optim.SGD, one step. */
static void check_sgd(const lamina_kernels *kernels, test_random *r, int64_t n, guard_side side, int way) {
  const lamina_sgd_step step = {.lr = 0.1,
                                .momentum = way & 1 ? 0.9 : 0,
                                .dampening = way & 2 && !(way & 4) ? 0.3 : 0,
                                .weight_decay = way & 8 ? 0.01 : 0,
                                .nesterov = (way & 4) != 0,
                                .first = (way & 16) != 0};
  matrix g = matrix_random(r, 1, n, 0, side, -1, 1), m = matrix_random(r, 1, n, 0, side, -1, 1);
  matrix w = matrix_random(r, 1, n, 0, side, -1, 1), old_m = matrix_copy(&m, side), old_w = matrix_copy(&w, side);
  if (step.first)
    for (int64_t i = 0; i < n; i++) m.data[i] = NAN; /* what was there is not read */
  kernels->optimizer->sgd(n, &step, g.data, way & 1 ? m.data : NULL, w.data);
  for (int64_t i = 0; i < n; i++) {
    double d = (double)g.data[i] + step.weight_decay * (double)old_w.data[i];
    if (way & 1) {
      const double buffer = step.first ? d : step.momentum * (double)old_m.data[i] + (1 - step.dampening) * d;
      assert_close(m.data[i], buffer, 4 * ROUNDING * 3, "momentum, way %d, %lld of %lld", way, (long long)i,
                   (long long)n);
      d = step.nesterov ? d + step.momentum * buffer : buffer;
    }
    assert_close(w.data[i], (double)old_w.data[i] - step.lr * d, 4 * ROUNDING * 2, "sgd, way %d, %lld of %lld", way,
                 (long long)i, (long long)n);
  }
  matrix *all[] = {&g, &m, &w, &old_m, &old_w};
  for (int i = 0; i < 5; i++) matrix_free(all[i], "sgd");
}

/* torch.optim.Adam and AdamW, one step. */
static void check_adam(const lamina_kernels *kernels, test_random *r, int64_t n, guard_side side, int way) {
  const double t = way & 1 ? 1 : 7;
  const lamina_adam_step step = {.lr = 0.01,
                                 .beta1 = 0.9,
                                 .beta2 = 0.999,
                                 .eps = 1e-8,
                                 .weight_decay = way & 2 ? 0.05 : 0,
                                 .decoupled = (way & 4) != 0,
                                 .bias1 = 1 - pow(0.9, t),
                                 .sqrt_bias2 = sqrt(1 - pow(0.999, t))};
  matrix g = matrix_random(r, 1, n, 0, side, -1, 1), m = matrix_random(r, 1, n, 0, side, -1, 1);
  matrix v = matrix_random(r, 1, n, 0, side, 0.01f, 1), w = matrix_random(r, 1, n, 0, side, -1, 1);
  matrix old[] = {matrix_copy(&m, side), matrix_copy(&v, side), matrix_copy(&w, side)};
  kernels->optimizer->adam(n, &step, g.data, m.data, v.data, w.data);
  for (int64_t i = 0; i < n; i++) {
    double weight = (double)old[2].data[i], d = (double)g.data[i];
    if (step.decoupled)
      weight *= 1 - step.lr * step.weight_decay;
    else
      d += step.weight_decay * weight;
    const double first = step.beta1 * (double)old[0].data[i] + (1 - step.beta1) * d;
    const double second = step.beta2 * (double)old[1].data[i] + (1 - step.beta2) * d * d;
    const double delta = step.lr / step.bias1 * first / (sqrt(second) / step.sqrt_bias2 + step.eps);
    assert_close(m.data[i], first, 4 * ROUNDING, "adam m, way %d, %lld of %lld", way, (long long)i, (long long)n);
    assert_close(v.data[i], second, 4 * ROUNDING * second, "adam v, way %d, %lld of %lld", way, (long long)i,
                 (long long)n);
    assert_close(w.data[i], weight - delta, ROUNDING * (2 + 12 * fabs(delta) + 0.1), "adam, way %d, %lld of %lld", way,
                 (long long)i, (long long)n);
  }
  matrix *all[] = {&g, &m, &v, &w, &old[0], &old[1], &old[2]};
  for (int i = 0; i < 7; i++) matrix_free(all[i], "adam");
}

START_TEST(sgd_steps_as_pytorch_does) {
  test_random r = test_random_for("sgd");
  for (int s = 0; s < 2 * N_LENGTHS; s++)
    for (int way = 0; way < 32; way++) check_sgd(kernel_tables[_i], &r, lengths[s / 2], (guard_side)(s % 2), way);
}
END_TEST

START_TEST(adam_steps_as_pytorch_does) {
  test_random r = test_random_for("adam");
  for (int s = 0; s < 2 * N_LENGTHS; s++)
    for (int way = 0; way < 8; way++) check_adam(kernel_tables[_i], &r, lengths[s / 2], (guard_side)(s % 2), way);
}
END_TEST

/* A fresh state and a zero gradient must not divide by zero. */
START_TEST(adam_from_zero) {
  const lamina_kernels *kernels = kernel_tables[_i];
  const lamina_adam_step step = {
      .lr = 0.1, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .bias1 = 1 - 0.9, .sqrt_bias2 = sqrt(1 - 0.999)};
  float g[19] = {0}, m[19] = {0}, v[19] = {0}, w[19];
  for (int i = 0; i < 19; i++) w[i] = (float)i;
  g[18] = 1e-3f; /* the first step has length lr, whatever the gradient */
  kernels->optimizer->adam(19, &step, g, m, v, w);
  for (int i = 0; i < 19; i++)
    assert_close(w[i], i == 18 ? 17.9 : (double)i, i == 18 ? 1e-5 : 0.0, "%s %d", "weight", i);
}
END_TEST

START_TEST(squares_are_summed_in_double) {
  const lamina_kernels *kernels = kernel_tables[_i];
  test_random r = test_random_for("sum_squares");
  for (int s = 0; s < 2 * N_LENGTHS; s++) {
    const int64_t n = lengths[s / 2];
    matrix x = matrix_random(&r, 1, n, 0, s % 2, -1e20f, 1e20f); /* squares beyond the range of float */
    double want = 0;
    for (int64_t i = 0; i < n; i++) want += (double)x.data[i] * (double)x.data[i];
    const double got = kernels->optimizer->sum_squares(n, x.data);
    test_that(fabs(got - want) <= 1e-13 * want, "%s: %.17g instead of %.17g, %lld", kernels->isa, got, want,
                  (long long)n);
    matrix_free(&x, "x");
  }
  ck_assert(kernels->optimizer->sum_squares(0, NULL) == 0.0);
}
END_TEST

void add_row_tests(TCase *tcase) {
  tcase_add_loop_test(tcase, softmax_of_every_length, 0, kernel_table_count);
  tcase_add_loop_test(tcase, softmax_at_extremes, 0, kernel_table_count);
  tcase_add_loop_test(tcase, softmax_gradient_of_every_length, 0, kernel_table_count);
  tcase_add_loop_test(tcase, sgd_steps_as_pytorch_does, 0, kernel_table_count);
  tcase_add_loop_test(tcase, adam_steps_as_pytorch_does, 0, kernel_table_count);
  tcase_add_loop_test(tcase, adam_from_zero, 0, kernel_table_count);
  tcase_add_loop_test(tcase, squares_are_summed_in_double, 0, kernel_table_count);
}
