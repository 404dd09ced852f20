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
  test_that(same_bits(again.data, sum.data, n), "%s: moments, called twice", c->kernels->isa);
  c->kernels->norm->column_sum(c->rows, n, x.data, x.ld, plain.data);
  check_sums(c, "column sum", plain.data, plain_want, plain_size);
  matrix *all[] = {&x, &shift, &sum, &square, &again, &plain};
  for (int i = 0; i < 6; i++) matrix_free(all[i], "moments");
}

/* A case of the gradient: by which value the clamp is told, and what dz ought to be. */
typedef enum clamp_by { CLAMP_NONE, CLAMP_BY_Z, CLAMP_BY_Z_BELOW, CLAMP_BY_Y, CLAMP_WAYS } clamp_by;

typedef struct backward_case {
  matrix x, dy, y, mean, scale, offset;
  lamina_norm_backward k;
} backward_case;

static backward_case backward_new(test_random *r, const norm_case *c, clamp_by by) {
  backward_case b = {.x = values(r, c, -2, 2), .dy = values(r, c, -1, 1), .y = values(r, c, -1, 2)};
  b.mean = constants(r, c, -0.5f, 0.5f);
  b.scale = constants(r, c, 0.5f, 2);
  b.offset = constants(r, c, -1, 1);
  for (int64_t i = 0; i < c->rows; i += 3) b.y.data[i * b.y.ld] = i % 2 ? 0.0f : 1.0f; /* on the bounds */
  b.k = (lamina_norm_backward){.rows = c->rows,
                               .channels = c->channels,
                               .x = b.x.data,
                               .dy = b.dy.data,
                               .x_ld = b.x.ld,
                               .dy_ld = b.dy.ld,
                               .mean = b.mean.data,
                               .y = by == CLAMP_BY_Y ? b.y.data : NULL,
                               .y_ld = b.y.ld,
                               .scale = by == CLAMP_BY_Z || by == CLAMP_BY_Z_BELOW ? b.scale.data : NULL,
                               .offset = b.offset.data,
                               .lo = 0,
                               .hi = by == CLAMP_BY_Z_BELOW ? INFINITY : 1};
  return b;
}

static void backward_free(backward_case *b) {
  matrix *all[] = {&b->x, &b->dy, &b->y, &b->mean, &b->scale, &b->offset};
  for (int i = 0; i < 6; i++) matrix_free(all[i], "backward");
}

/* z may lie so near to a bound that its rounding decides: then *unsure. */
static double dz_of(const backward_case *b, int64_t i, int64_t k, int *unsure) {
  const double dy = (double)b->dy.data[i * b->dy.ld + k];
  *unsure = 0;
  if (!b->k.y && !b->k.scale) return dy;
  const double centred = (double)b->x.data[i * b->x.ld + k] - (double)b->mean.data[k];
  const double z = b->k.y ? (double)b->y.data[i * b->y.ld + k]
                          : centred * (double)b->scale.data[k] + (double)b->offset.data[k];
  *unsure = !b->k.y && fmin(fabs(z), fabs(z - 1)) < 1e-5;
  return z <= 0 || z >= (double)b->k.hi ? 0 : dy;
}

static void check_backward_reduce(test_random *r, const norm_case *c, clamp_by by) {
  backward_case b = backward_new(r, c, by);
  matrix sum = constants(r, c, 0, 1), product = constants(r, c, 0, 1);
  double want[4][512] = {{0}};
  for (int64_t i = 0; i < c->rows; i++)
    for (int64_t k = 0; k < c->channels; k++) {
      int unsure;
      if (dz_of(&b, i, k, &unsure), unsure) b.dy.data[i * b.dy.ld + k] = 0;
      const double g = dz_of(&b, i, k, &unsure), d = (double)b.x.data[i * b.x.ld + k] - (double)b.mean.data[k];
      add_term(&want[0][k], &want[1][k], g, fabs(g));
      add_term(&want[2][k], &want[3][k], g * d, fabs(g * d));
    }
  b.k.sum_dz = sum.data;
  b.k.sum_dz_xc = product.data;
  c->kernels->norm->backward_reduce(&b.k);
  check_sums(c, "sum of dz", sum.data, want[0], want[1]);
  check_sums(c, "sum of dz * (x - mean)", product.data, want[2], want[3]);
  backward_free(&b);
  matrix_free(&sum, "backward_reduce");
  matrix_free(&product, "backward_reduce");
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
  kernels->norm->normalize(c->rows, n, x.data, x.ld, mean.data, scale.data, offset.data, add, other.ld, lo, hi,
                           c->rows % 2, y.data, y.ld);
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
  kernels->norm->normalize(c->rows, n, x.data, x.ld, mean.data, scale.data, offset.data, add, other.ld, lo, hi, 0,
                           in_place->data, in_place->ld);
  for (int64_t i = 0; i < c->rows; i++)
    for (int64_t k = 0; k < n; k++) {
      const float got = in_place->data[i * y.ld + k], want = y.data[i * y.ld + k];
      test_that(got == want || (isnan(got) && isnan(want)), "%s: normalize in place (%s)", kernels->isa, text);
    }
  matrix *all[] = {&x, &other, &y, &mean, &scale, &offset};
  for (int i = 0; i < 6; i++) matrix_free(all[i], "normalize");
}

static void check_backward_apply(test_random *r, const norm_case *c, clamp_by by, int accumulate, int with_add) {
  const lamina_kernels *kernels = c->kernels;
  const int64_t n = c->channels;
  backward_case t = backward_new(r, c, by);
  matrix dx = values(r, c, -1, 1), old = matrix_copy(&dx, c->side), d_add = values(r, c, -1, 1);
  matrix old_add = matrix_copy(&d_add, c->side), a = constants(r, c, 0, 2), b = constants(r, c, -1, 1),
         d = constants(r, c, -1, 1);
  char text[96];
  describe(c, text);
  t.k.a = a.data;
  t.k.b = b.data;
  t.k.d = d.data;
  t.k.accumulate = t.k.accumulate_add = accumulate;
  t.k.dx = dx.data;
  t.k.d_add = by == CLAMP_BY_Y && with_add ? d_add.data : NULL;
  t.k.dx_ld = dx.ld;
  t.k.d_add_ld = d_add.ld;
  t.k.stream = t.k.stream_add = !accumulate && c->rows % 2;
  kernels->norm->backward_apply(&t.k);
  for (int64_t i = 0; i < c->rows; i++)
    for (int64_t k = 0; k < n; k++) {
      int unsure;
      const double centred = (double)t.x.data[i * t.x.ld + k] - (double)t.mean.data[k], dz = dz_of(&t, i, k, &unsure);
      const double first = (double)a.data[k] * dz, second = (double)b.data[k] * centred;
      const double want = first + second + (double)d.data[k] + (accumulate ? (double)old.data[i * old.ld + k] : 0.0);
      if (!unsure)
        assert_close(dx.data[i * dx.ld + k], want, 5 * ROUNDING * (fabs(first) + fabs(second) + 3),
                     "backward_apply %lld, %lld (%s)", (long long)i, (long long)k, text);
      const float was = old_add.data[i * old_add.ld + k];
      const double want_add = !t.k.d_add ? (double)was : accumulate ? (double)was + dz : dz;
      assert_close(d_add.data[i * d_add.ld + k], want_add, 2 * ROUNDING, "d_add %lld, %lld (%s)", (long long)i,
                   (long long)k, text);
    }
  if (!accumulate) {
    t.k.dx = t.dy.data;
    t.k.d_add = NULL;
    t.k.stream = t.k.stream_add = 0;
    kernels->norm->backward_apply(&t.k);
    for (int64_t i = 0; i < c->rows; i++)
      test_that(same_bits(t.dy.data + i * t.dy.ld, dx.data + i * dx.ld, n), "%s: backward_apply in place (%s)",
                    kernels->isa, text);
  }
  backward_free(&t);
  matrix *all[] = {&dx, &old, &d_add, &old_add, &a, &b, &d};
  for (int i = 0; i < 7; i++) matrix_free(all[i], "backward_apply");
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

static void check_backward_reduce_all(test_random *r, const norm_case *c) {
  check_backward_reduce(r, c, (clamp_by)test_random_below(r, CLAMP_WAYS));
}

static void check_backward_apply_all(test_random *r, const norm_case *c) {
  const int64_t way = test_random_below(r, 4);
  check_backward_apply(r, c, (clamp_by)test_random_below(r, CLAMP_WAYS), way & 1, way >> 1);
}

/* What is done once for each channel, against the same formulae; any channel count. */
static void check_channels(test_random *r, const norm_case *c) {
  const lamina_kernels *kernels = c->kernels;
  const int64_t n = c->channels;
  double mean[512], m2[512], mean_b[512], m2_b[512];
  matrix sum = constants(r, c, -5, 5), square = constants(r, c, 20, 30), shift = constants(r, c, 90, 110);
  matrix weight = constants(r, c, -2, 2), bias = constants(r, c, -1, 1), out[5];
  const double rows = 1 + (double)test_random_below(r, 100), rows_b = 1 + (double)test_random_below(r, 100);
  for (int64_t i = 0; i < n; i++) {
    mean[i] = mean_b[i] = 100 + (double)test_random_float(r, -9, 9);
    m2[i] = m2_b[i] = (double)test_random_float(r, 1, 50);
  }
  matrix before = matrix_copy(&shift, c->side);
  kernels->norm->merge_moments(n, rows, rows_b, sum.data, square.data, shift.data, mean, m2);
  for (int64_t i = 0; i < n; i++) {
    const double offset = (double)sum.data[i] / rows_b, block = (double)before.data[i] + offset, delta = block - mean_b[i];
    const double all = rows + rows_b, spread = fmax((double)square.data[i] - (double)sum.data[i] * offset, 0);
    assert_close(shift.data[i], block, 1e-5, "merge_moments, shift %lld", (long long)i);
    ck_assert(fabs(mean[i] - (mean_b[i] + delta * rows_b / all)) < 1e-10);
    ck_assert(fabs(m2[i] - (m2_b[i] + spread + delta * delta * rows * rows_b / all)) < 1e-9 * (1 + m2[i]));
  }
  for (int64_t i = 0; i < n; i++) { /* a merge with itself: the mean stays, the deviations double */
    mean_b[i] = mean[i];
    m2_b[i] = m2[i];
  }
  kernels->norm->merge(n, rows, rows_b, mean_b, m2_b, mean, m2);
  for (int64_t i = 0; i < n; i++)
    test_that(mean[i] == mean_b[i] && fabs(m2[i] - 2 * m2_b[i]) < 1e-10 * m2[i], "channel %lld", (long long)i);
  for (int i = 0; i < 5; i++) out[i] = matrix_new(1, n, 0, c->side);
  const int plain = (int)test_random_below(r, 2);
  const lamina_norm_channels k = {.channels = n, .rows = rows, .eps = 1e-3, .mean = mean, .m2 = m2,
                                  .weight = plain ? NULL : weight.data, .bias = plain ? NULL : bias.data,
                                  .hi = out[0].data, .lo = out[1].data, .invstd = out[2].data, .scale = out[3].data,
                                  .offset = out[4].data};
  kernels->norm->finish(&k);
  for (int64_t i = 0; i < n; i++) {
    const double invstd = 1 / sqrt(m2[i] / rows + 1e-3), scale = invstd * (plain ? 1 : (double)weight.data[i]);
    test_that(fabs((double)out[0].data[i] + (double)out[1].data[i] - mean[i]) < 1e-12 * fabs(mean[i]), "channel %lld", (long long)i);
    assert_close(out[2].data[i], invstd, ROUNDING * invstd, "invstd %lld", (long long)i);
    assert_close(out[3].data[i], scale, ROUNDING * fabs(scale), "scale %lld", (long long)i);
    assert_close(out[4].data[i], (plain ? 0 : (double)bias.data[i]) - (double)out[1].data[i] * scale, 1e-7, "offset %lld",
                 (long long)i);
  }
  matrix *all[] = {&sum, &square, &shift, &before, &weight, &bias, &out[0], &out[1], &out[2], &out[3], &out[4]};
  for (int i = 0; i < 11; i++) matrix_free(all[i], "channels");
}

START_TEST(moments_and_column_sums_of_every_shape) { for_each_shape(_i, "moments", check_moments); }
END_TEST

START_TEST(backward_sums_of_every_shape) { for_each_shape(_i, "backward_reduce", check_backward_reduce_all); }
END_TEST

START_TEST(channels_of_every_count) { for_each_shape(_i, "channels", check_channels); }
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
    test_that(isnan(sum[c]) == (c == 5) && isinf(sum[c]) == (c == 20), "%s: channel %d: %g", kernels->isa, c,
                  (double)sum[c]);
    test_that(isnan(square[c]) == (c == 5) && isinf(square[c]) == (c == 20), "%s: channel %d", kernels->isa, c);
  }
}
END_TEST

void add_norm_tests(TCase *tcase) {
  tcase_add_loop_test(tcase, moments_and_column_sums_of_every_shape, 0, kernel_table_count);
  tcase_add_loop_test(tcase, backward_sums_of_every_shape, 0, kernel_table_count);
  tcase_add_loop_test(tcase, channels_of_every_count, 0, kernel_table_count);
  tcase_add_loop_test(tcase, normalize_of_every_shape, 0, kernel_table_count);
  tcase_add_loop_test(tcase, backward_apply_of_every_shape, 0, kernel_table_count);
  tcase_add_loop_test(tcase, a_nan_stays_in_its_channel, 0, kernel_table_count);
}
