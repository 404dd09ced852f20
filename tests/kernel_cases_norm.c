/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel_cases.h"

typedef struct norm_case {
  const lamina_kernels *kernels;
  int64_t rows, channels, pad;
  guard_side side;
} norm_case;

static void describe(const norm_case *c, char text[96]) {
  snprintf(text, 96, "%lld rows, %lld channels, pad %lld", (long long)c->rows, (long long)c->channels,
           (long long)c->pad);
}

/* Per-channel constants: one guarded row. */
static matrix constants(test_random *r, const norm_case *c, float lo, float hi) {
  return matrix_random(r, 1, c->channels, 0, c->side, lo, hi);
}

static matrix values(test_random *r, const norm_case *c, float lo, float hi) {
  return matrix_random(r, c->rows, c->channels, c->pad, c->side, lo, hi);
}

/* A sum of n rounded terms may be off by n roundings of the sum of magnitudes; each term by two more. */
static void check_sums(const norm_case *c, const char *what, const float *got, const double *want, const double *size) {
  const lamina_kernels *kernels = c->kernels;
  char text[96];
  describe(c, text);
  for (int64_t i = 0; i < c->channels; i++)
    assert_close(got[i], want[i], ROUNDING * (double)(c->rows + 4) * size[i], "%s of channel %lld (%s)", what,
                 (long long)i, text);
}

static void add_term(double *sum, double *size, double term, double magnitude) {
  *sum += term;
  *size += magnitude;
}

static void check_moments(test_random *r, const norm_case *c) {
  const int64_t n = c->channels;
  matrix x = values(r, c, 2, 5), shift = constants(r, c, 3, 4), sum = constants(r, c, 0, 1),
         square = constants(r, c, 0, 1);
  matrix again = matrix_new(1, n, 0, c->side), plain = matrix_new(1, n, 0, c->side);
  double want[4][512] = {{0}}, plain_want[512] = {0}, plain_size[512] = {0};
  for (int64_t i = 0; i < c->rows; i++)
    for (int64_t k = 0; k < n; k++) {
      const double v = (double)x.data[i * x.ld + k], d = v - (double)shift.data[k];
      add_term(&want[0][k], &want[1][k], d, fabs(d) + fabs(v));
      add_term(&want[2][k], &want[3][k], d * d, 2 * d * d);
      add_term(&plain_want[k], &plain_size[k], v, fabs(v));
    }
  c->kernels->norm->moments(c->rows, n, x.data, x.ld, shift.data, sum.data, square.data);
  check_sums(c, "sum", sum.data, want[0], want[1]);
  check_sums(c, "sum of squares", square.data, want[2], want[3]);
  c->kernels->norm->moments(c->rows, n, x.data, x.ld, shift.data, again.data, square.data);
  ck_assert_msg(same_bits(again.data, sum.data, n), "%s: moments, called twice", c->kernels->isa);
  c->kernels->norm->column_sum(c->rows, n, x.data, x.ld, plain.data);
  check_sums(c, "column sum", plain.data, plain_want, plain_size);
  matrix *all[] = {&x, &shift, &sum, &square, &again, &plain};
  for (int i = 0; i < 6; i++) matrix_free(all[i], "moments");
}

static void check_backward_reduce(test_random *r, const norm_case *c) {
  const int64_t n = c->channels;
  matrix x = values(r, c, -2, 2), dy = values(r, c, -1, 1), mean = constants(r, c, -0.5f, 0.5f);
  matrix sum = constants(r, c, 0, 1), product = constants(r, c, 0, 1);
  double want[4][512] = {{0}};
  for (int64_t i = 0; i < c->rows; i++)
    for (int64_t k = 0; k < n; k++) {
      const double g = (double)dy.data[i * dy.ld + k], d = (double)x.data[i * x.ld + k] - (double)mean.data[k];
      add_term(&want[0][k], &want[1][k], g, fabs(g));
      add_term(&want[2][k], &want[3][k], g * d, fabs(g * d));
    }
  c->kernels->norm->backward_reduce(c->rows, n, x.data, x.ld, dy.data, dy.ld, mean.data, sum.data, product.data);
  check_sums(c, "sum of dy", sum.data, want[0], want[1]);
  check_sums(c, "sum of dy * (x - mean)", product.data, want[2], want[3]);
  matrix *all[] = {&x, &dy, &mean, &sum, &product};
  for (int i = 0; i < 5; i++) matrix_free(all[i], "backward_reduce");
}

static void check_normalize(test_random *r, const norm_case *c, int with_add, int with_clamp) {
  const lamina_kernels *kernels = c->kernels;
  const int64_t n = c->channels;
  const float lo = with_clamp ? 0.0f : -INFINITY, hi = with_clamp ? 1.5f : INFINITY;
  matrix x = values(r, c, 2, 5), other = values(r, c, -1, 1), y = matrix_new(c->rows, n, c->pad, c->side);
  matrix mean = constants(r, c, 3, 4), scale = constants(r, c, 0.5f, 2), offset = constants(r, c, -1, 1);
  char text[96];
  describe(c, text);
  if (c->rows > 0) x.data[(c->rows - 1) * x.ld] = NAN;
  const float *add = with_add ? other.data : NULL;
  kernels->norm->normalize(c->rows, n, x.data, x.ld, mean.data, scale.data, offset.data, add, other.ld, lo, hi, y.data,
                           y.ld);
  for (int64_t i = 0; i < c->rows; i++)
    for (int64_t k = 0; k < n; k++) {
      const double centred = (double)x.data[i * x.ld + k] - (double)mean.data[k];
      double want = centred * (double)scale.data[k] + (double)offset.data[k];
      const double size = fabs(centred * (double)scale.data[k]) + fabs((double)offset.data[k]) + 1;
      if (with_add) want += (double)other.data[i * other.ld + k];
      want = want < (double)lo ? (double)lo : want > (double)hi ? (double)hi : want;
      assert_close(y.data[i * y.ld + k], want, 4 * ROUNDING * size, "normalize %lld, %lld (%s)", (long long)i,
                   (long long)k, text);
    }
  matrix *in_place = with_add ? &other : &x;
  kernels->norm->normalize(c->rows, n, x.data, x.ld, mean.data, scale.data, offset.data, add, other.ld, lo, hi,
                           in_place->data, in_place->ld);
  for (int64_t i = 0; i < c->rows; i++)
    for (int64_t k = 0; k < n; k++) {
      const float got = in_place->data[i * y.ld + k], want = y.data[i * y.ld + k];
      ck_assert_msg(got == want || (isnan(got) && isnan(want)), "%s: normalize in place (%s)", kernels->isa, text);
    }
  matrix *all[] = {&x, &other, &y, &mean, &scale, &offset};
  for (int i = 0; i < 6; i++) matrix_free(all[i], "normalize");
}

static void check_backward_apply(test_random *r, const norm_case *c, int accumulate) {
  const lamina_kernels *kernels = c->kernels;
  const int64_t n = c->channels;
  matrix x = values(r, c, -2, 2), dy = values(r, c, -1, 1), dx = values(r, c, -1, 1), old = matrix_copy(&dx, c->side);
  matrix mean = constants(r, c, -1, 1), a = constants(r, c, 0, 2), b = constants(r, c, -1, 1),
         d = constants(r, c, -1, 1);
  char text[96];
  describe(c, text);
  kernels->norm->backward_apply(c->rows, n, x.data, x.ld, dy.data, dy.ld, mean.data, a.data, b.data, d.data, accumulate,
                                dx.data, dx.ld);
  for (int64_t i = 0; i < c->rows; i++)
    for (int64_t k = 0; k < n; k++) {
      const double centred = (double)x.data[i * x.ld + k] - (double)mean.data[k];
      const double first = (double)a.data[k] * (double)dy.data[i * dy.ld + k], second = (double)b.data[k] * centred;
      const double want = first + second + (double)d.data[k] + (accumulate ? (double)old.data[i * old.ld + k] : 0.0);
      assert_close(dx.data[i * dx.ld + k], want, 5 * ROUNDING * (fabs(first) + fabs(second) + 3),
                   "backward_apply %lld, %lld (%s)", (long long)i, (long long)k, text);
    }
  if (!accumulate) {
    kernels->norm->backward_apply(c->rows, n, x.data, x.ld, dy.data, dy.ld, mean.data, a.data, b.data, d.data, 0,
                                  dy.data, dy.ld);
    for (int64_t i = 0; i < c->rows; i++)
      ck_assert_msg(same_bits(dy.data + i * dy.ld, dx.data + i * dx.ld, n), "%s: backward_apply in place (%s)",
                    kernels->isa, text);
  }
  matrix *all[] = {&x, &dy, &dx, &old, &mean, &a, &b, &d};
  for (int i = 0; i < 8; i++) matrix_free(all[i], "backward_apply");
}

/* Calls `check` for channels 1..70 and some wide ones, rows from none to many, dense and padded, guarded on either
 * side. */
static void for_each_shape(int table, const char *name, void (*check)(test_random *, const norm_case *)) {
  static const int64_t wide[] = {96, 100, 127, 128, 129, 192, 255, 320, 511}, rows[] = {0, 1, 2, 3, 8, 33, 70};
  test_random r = test_random_for(name);
  norm_case c = {.kernels = kernel_tables[table]};
  for (int k = 1; k <= 79; k++) {
    c.channels = k <= 70 ? k : wide[k - 71];
    for (int i = 0; i < 7; i++) {
      c.rows = rows[i];
      c.side = (guard_side)test_random_below(&r, 2);
      c.pad = i % 3 == 2 ? 1 + test_random_below(&r, 20) : 0;
      check(&r, &c);
      if (c.pad == 0) continue;
      c.side = (guard_side)!c.side;
      c.pad = 0;
      check(&r, &c);
    }
    c.rows = 200 + test_random_below(&r, 200); /* enough for virtual rows and several blocks */
    if (k % 3 == 0 || k < 20) check(&r, &c);
  }
}

static void check_normalize_all(test_random *r, const norm_case *c) {
  const int64_t way = test_random_below(r, 4);
  check_normalize(r, c, way & 1, way >> 1);
}

static void check_backward_apply_all(test_random *r, const norm_case *c) {
  check_backward_apply(r, c, (int)test_random_below(r, 2));
}

START_TEST(moments_and_column_sums_of_every_shape) { for_each_shape(_i, "moments", check_moments); }
END_TEST

START_TEST(backward_sums_of_every_shape) { for_each_shape(_i, "backward_reduce", check_backward_reduce); }
END_TEST

START_TEST(normalize_of_every_shape) { for_each_shape(_i, "normalize", check_normalize_all); }
END_TEST

START_TEST(backward_apply_of_every_shape) { for_each_shape(_i, "backward_apply", check_backward_apply_all); }
END_TEST

START_TEST(a_nan_stays_in_its_channel) {
  const lamina_kernels *kernels = kernel_tables[_i];
  enum { ROWS = 300, CHANNELS = 21 };
  static float x[ROWS * CHANNELS];
  float zero[CHANNELS] = {0}, sum[CHANNELS], square[CHANNELS];
  x[123 * CHANNELS + 5] = NAN;
  x[299 * CHANNELS + 20] = INFINITY;
  kernels->norm->moments(ROWS, CHANNELS, x, CHANNELS, zero, sum, square);
  for (int c = 0; c < CHANNELS; c++) {
    ck_assert_msg(isnan(sum[c]) == (c == 5) && isinf(sum[c]) == (c == 20), "%s: channel %d: %g", kernels->isa, c,
                  (double)sum[c]);
    ck_assert_msg(isnan(square[c]) == (c == 5) && isinf(square[c]) == (c == 20), "%s: channel %d", kernels->isa, c);
  }
}
END_TEST

void add_norm_tests(TCase *tcase) {
  tcase_add_loop_test(tcase, moments_and_column_sums_of_every_shape, 0, kernel_table_count);
  tcase_add_loop_test(tcase, backward_sums_of_every_shape, 0, kernel_table_count);
  tcase_add_loop_test(tcase, normalize_of_every_shape, 0, kernel_table_count);
  tcase_add_loop_test(tcase, backward_apply_of_every_shape, 0, kernel_table_count);
  tcase_add_loop_test(tcase, a_nan_stays_in_its_channel, 0, kernel_table_count);
}
