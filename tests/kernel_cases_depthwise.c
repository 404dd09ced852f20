/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel_cases.h"

/* A call with its memory: x, y and add are columns of pixels, `gap` floats of NaN between them, so that row strides
   differ from what the width would give. */
typedef struct depthwise_case {
  lamina_depthwise d;
  int64_t rows, row0, row1;
  matrix x, y, add;
  guarded weights, bias;
} depthwise_case;

static int64_t between(test_random *r, int64_t lo, int64_t hi) { return lo + test_random_below(r, hi - lo + 1); }

/* All widths with a kernel of their own, others, and taps that lie in the padding. */
static lamina_depthwise_axis random_axis(test_random *r, int64_t *outputs) {
  static const int64_t sizes[] = {3, 5, 7, 3, 5, 7, 1, 2, 4, 9};
  lamina_depthwise_axis axis = {.in = between(r, 1, 33), .taps = sizes[test_random_below(r, 10)]};
  axis.stride = test_random_below(r, 4) ? between(r, 1, 2) : between(r, 1, 4);
  axis.step = test_random_below(r, 4) ? 1 : between(r, 1, 3);
  axis.first = test_random_below(r, 8) ? -between(r, 0, axis.taps / 2) : between(r, -9, 5);
  if (test_random_below(r, 12) == 0) axis.taps = 0; /* a phase of a gradient that no tap reaches */
  *outputs = test_random_below(r, 4) ? (axis.in + axis.stride - 1) / axis.stride : between(r, 1, 20);
  return axis;
}

/* Makes groups of several channels where the kernels have them. */
static void random_group(const lamina_kernels *kernels, test_random *r, lamina_depthwise *d) {
  const int64_t group = 1 << between(r, 1, 4);
  if (test_random_below(r, 2)) { /* what all have */
    d->h.taps = d->w.taps = 3;
    d->h.step = d->w.step = 1;
    d->h.stride = d->w.stride = between(r, 1, 2);
  }
  d->group = group;
  if (d->channels < group || !kernels->depthwise->grouped(d)) d->group = 1;
  d->channels = d->channels / d->group * d->group;
}

static void depthwise_new(const lamina_kernels *kernels, depthwise_case *k, test_random *r, guard_side side) {
  static const int64_t channels[] = {1, 3, 4, 7, 8, 9, 15, 16, 17, 20, 24, 31, 32, 33, 40, 48, 50};
  lamina_depthwise *d = &k->d;
  *d = (lamina_depthwise){.group = 1, .channels = channels[test_random_below(r, 17)], .lo = -INFINITY, .hi = INFINITY};
  d->h = random_axis(r, &k->rows);
  d->w = random_axis(r, &d->columns);
  random_group(kernels, r, d);
  k->row0 = between(r, 0, k->rows - 1);
  k->row1 = test_random_below(r, 2) ? k->rows : between(r, k->row0, k->rows);
  if (test_random_below(r, 2)) k->row0 = 0;
  const int64_t gap = test_random_below(r, 2) ? 0 : between(r, 1, 9), floats = (d->channels + 15) / 16 * 16;
  k->x = matrix_random(r, d->h.in * d->w.in, d->channels, gap, side, -1, 1);
  k->y = matrix_random(r, k->rows * d->columns, d->channels, gap, side, -1, 1);
  k->add = matrix_random(r, k->rows * d->columns, d->channels, gap, side, -1, 1);
  k->weights = guarded_new(floats * d->group * d->h.taps * d->w.taps, side);
  k->bias = guarded_new(floats, side);
  test_random_fill(r, k->weights.data, floats * d->group * d->h.taps * d->w.taps, -1, 1);
  test_random_fill(r, k->bias.data, floats, -1, 1);
  d->x = k->x.data;
  d->x_pixel = k->x.ld;
  d->x_row = d->w.in * k->x.ld;
  d->y = k->y.data;
  d->y_pixel = d->add_pixel = k->y.ld;
  d->y_row = d->add_row = d->columns * k->y.ld;
  d->weights = k->weights.data;
  if (test_random_below(r, 2)) d->bias = k->bias.data;
  if (test_random_below(r, 2)) d->add = test_random_below(r, 2) ? k->add.data : d->y;
  if (test_random_below(r, 2)) d->lo = -0.25f, d->hi = 0.75f;
  d->far = (int)test_random_below(r, 2);
}

static void depthwise_free(depthwise_case *k) {
  matrix_free(&k->x, "x");
  matrix_free(&k->y, "y");
  matrix_free(&k->add, "add");
  test_that(guarded_free(&k->weights) && guarded_free(&k->bias), "wrote to the weights' surroundings");
}

/* The sum in double and, in *size, of the magnitudes. */
static double reference(const lamina_depthwise *d, int64_t row, int64_t column, int64_t c, double *size) {
  double sum = d->bias ? (double)d->bias[c] : 0.0;
  *size = fabs(sum);
  const int64_t taps = d->h.taps * d->w.taps;
  for (int64_t i = 0; i < taps * d->group; i++) {
    const int64_t t = i % taps, k = i / taps;
    const int64_t ih = row * d->h.stride + d->h.first + t / d->w.taps * d->h.step;
    const int64_t iw = column * d->w.stride + d->w.first + t % d->w.taps * d->w.step;
    if (ih < 0 || ih >= d->h.in || iw < 0 || iw >= d->w.in) continue;
    const double product = (double)d->x[ih * d->x_row + iw * d->x_pixel + c / d->group * d->group + k] *
                           (double)d->weights[((c / 16 * d->group + k) * taps + t) * 16 + c % 16];
    sum += product;
    *size += fabs(product);
  }
  return sum;
}

/* y against the sum in double; errors are measured by `scale`, or by the magnitudes of what is added up if that is 0. */
static void check_outputs(const lamina_kernels *kernels, const depthwise_case *k, const matrix *before, double scale,
                          int number) {
  const lamina_depthwise *d = &k->d;
  for (int64_t row = 0; row < k->rows; row++)
    for (int64_t column = 0; column < d->columns; column++)
      for (int64_t c = 0; c < d->channels; c++) {
        const int64_t at = (row * d->columns + column) * k->y.ld + c;
        double size = 0, want = (double)before->data[at];
        if (row >= k->row0 && row < k->row1) {
          want = reference(d, row, column, c, &size);
          const double add = d->add == d->y ? (double)before->data[at] : (double)k->add.data[at];
          if (d->add) want += add, size += fabs(add);
          want = fmin(fmax(want, (double)d->lo), (double)d->hi);
          if (scale > 0) size = scale;
        }
        const int64_t terms = d->group * d->h.taps * d->w.taps + 3;
        assert_close(d->y[at], want, (double)terms * ROUNDING * size,
                     "depthwise case %d, %lldx%lld taps, row %lld, column %lld, channel %lld of %lld", number,
                     (long long)d->h.taps, (long long)d->w.taps, (long long)row, (long long)column, (long long)c,
                     (long long)d->channels);
      }
}

static void check_depthwise(const lamina_kernels *kernels, depthwise_case *k, int number) {
  matrix before = matrix_copy(&k->y, GUARD_END);
  const int64_t floats = (k->d.channels + 15) / 16 * 16 * k->d.group * k->d.h.taps * k->d.w.taps;
  const float *weights = k->d.weights;
  guarded ordered = guarded_new(floats, GUARD_END);
  if (k->d.group > 1) {
    memcpy(ordered.data, weights, (size_t)floats * sizeof(float));
    kernels->depthwise->group_weights(k->d.group, floats, ordered.data);
    k->d.weights = ordered.data;
  }
  kernels->depthwise->forward(&k->d, k->row0, k->row1);
  k->d.weights = weights;
  test_that(guarded_free(&ordered), "wrote to the ordered weights' surroundings");
  check_outputs(kernels, k, &before, 0, number);
  matrix_free(&before, "a copy");
}

START_TEST(depthwise_of_every_kind_equals_double) {
  test_random r = test_random_for("depthwise");
  for (int i = 0; i < 1500; i++) {
    depthwise_case k;
    depthwise_new(kernel_tables[_i], &k, &r, i % 2 ? GUARD_START : GUARD_END);
    check_depthwise(kernel_tables[_i], &k, i);
    depthwise_free(&k);
  }
}
END_TEST

/* Groups by Winograd's algorithm, in tiles from row0 on. All numbers of a tile are rounded together, those that an output
   does not depend on too, so that errors are measured by sums of a whole tile: 9 * group products below 1. */
START_TEST(groups_by_winograd_equal_double) {
  const lamina_kernels *kernels = kernel_tables[_i];
  test_random r = test_random_for("depthwise winograd");
  for (int i = 0, done = 0; done < 150 && i < 5000; i++) {
    depthwise_case k;
    const guard_side side = i % 2 ? GUARD_START : GUARD_END;
    depthwise_new(kernels, &k, &r, side);
    lamina_depthwise *d = &k.d;
    const int taps = d->h.taps == 3 && d->w.taps == 3 && d->h.step == 1 && d->w.step == 1;
    if (d->group > 1 && taps && d->h.stride == 1 && d->w.stride == 1) {
      const int64_t block = d->group * 9 * 16, transformed = d->group * 18 * 16, blocks = (d->channels + 15) / 16;
      guarded u = guarded_new(blocks * transformed, side);
      for (int64_t b = 0; b < blocks; b++)
        kernels->depthwise->winograd_weights(d->group, d->weights + b * block, u.data + b * transformed);
      matrix before = matrix_copy(&k.y, GUARD_END);
      const float *weights = d->weights;
      d->weights = u.data;
      kernels->depthwise->winograd(d, k.row0, k.row1);
      d->weights = weights;
      check_outputs(kernels, &k, &before, 9.0 * (double)d->group * 8, i);
      matrix_free(&before, "a copy");
      test_that(guarded_free(&u), "wrote to the transformed weights' surroundings");
      done++;
    }
    depthwise_free(&k);
  }
}
END_TEST

/* Pixels a page apart, y like x or a line behind: the outputs of some channels wait while others are computed. */
START_TEST(depthwise_equals_double_where_x_and_y_share_cache_sets) {
  enum { PIXEL = 1024, SIDE = 11 };
  test_random r = test_random_for("depthwise sets");
  for (int i = 0; i < 40; i++) {
    const int taps = i % 4 == 3 ? 5 : 3, stride = 1 + i % 2, out = (SIDE - 1) / stride + 1;
    depthwise_case k = {.rows = out, .row1 = i % 5 ? out : out - 2};
    const lamina_depthwise_axis axis = {.in = SIDE, .taps = taps, .stride = stride, .first = -(i % 3), .step = 1};
    lamina_depthwise *d = &k.d;
    *d = (lamina_depthwise){
        .group = 1, .channels = between(&r, 1, 120), .columns = out, .h = axis, .w = axis, .lo = -2, .hi = 3};
    k.x = matrix_random(&r, 2 * SIDE * SIDE, d->channels, PIXEL - d->channels, GUARD_END, -1, 1);
    k.weights = guarded_new((d->channels + 15) / 16 * 16 * taps * taps, GUARD_END);
    test_random_fill(&r, k.weights.data, (d->channels + 15) / 16 * 16 * taps * taps, -1, 1);
    d->x = k.x.data;
    d->y = k.x.data + SIDE * SIDE * PIXEL;
    d->x_pixel = d->y_pixel = d->add_pixel = PIXEL;
    d->x_row = SIDE * PIXEL;
    d->y_row = d->add_row = out * PIXEL;
    d->weights = k.weights.data;
    if (i % 3 == 0) d->add = d->y;
    k.y = (matrix){.data = d->y, .rows = out * out, .channels = d->channels, .ld = PIXEL};
    k.y.memory.bytes = (size_t)((out * out - 1) * PIXEL + d->channels) * sizeof(float);
    k.add = k.y;
    check_depthwise(kernel_tables[_i], &k, i);
    matrix_free(&k.x, "x");
    ck_assert(guarded_free(&k.weights));
  }
}
END_TEST

/* What lies outside of the image is left out, not multiplied by zero; what is inside and not a number shows. */
START_TEST(depthwise_keeps_nan_where_it_belongs) {
  const lamina_kernels *kernels = kernel_tables[_i];
  float x[9 * 16], y[9 * 16], weights[9 * 16];
  for (int i = 0; i < 9 * 16; i++) x[i] = 1, weights[i] = i < 16 ? INFINITY : 1;
  x[8 * 16 + 3] = NAN;
  const lamina_depthwise_axis axis = {.in = 3, .taps = 3, .stride = 1, .first = -1, .step = 1};
  const lamina_depthwise d = {.group = 1,
                              .channels = 16,
                              .columns = 3,
                              .h = axis,
                              .w = axis,
                              .x = x,
                              .x_row = 48,
                              .x_pixel = 16,
                              .weights = weights,
                              .y = y,
                              .y_row = 48,
                              .y_pixel = 16,
                              .lo = 0,
                              .hi = 100};
  kernels->depthwise->forward(&d, 0, 3);
  test_that(y[3] == 4 && y[16 + 3] == 6 && y[48 + 3] == 6, "padding was multiplied");
  test_that(isnan(y[8 * 16 + 3]) && isnan(y[4 * 16 + 3]) && !isnan(y[4 * 16 + 2]), "NaN was lost or spread");
}
END_TEST

/* The gradient of the input in double and, in *size, of the magnitudes. */
static double input_reference(const lamina_depthwise *d, int64_t row, int64_t column, int64_t c, double *size) {
  const int64_t taps = d->h.taps * d->w.taps;
  double sum = 0;
  *size = 0;
  for (int64_t o = 0; o < d->h.in; o++)
    for (int64_t p = 0; p < d->w.in; p++)
      for (int64_t t = 0; t < taps; t++) {
        if (o * d->h.stride + d->h.first + t / d->w.taps * d->h.step != row) continue;
        if (p * d->w.stride + d->w.first + t % d->w.taps * d->w.step != column) continue;
        const double product = (double)d->x[o * d->x_row + p * d->x_pixel + c] *
                               (double)d->weights[(c / 16 * taps + t) * 16 + c % 16];
        sum += product;
        *size += fabs(product);
      }
  return sum;
}

/* The forward case, whose y is the gradient here, of any size beside x's. */
static void check_input(const lamina_kernels *kernels, const depthwise_case *k, int number) {
  const lamina_depthwise *d = &k->d;
  matrix before = matrix_copy(&k->y, GUARD_END);
  kernels->depthwise->backward_data(d, k->row0, k->row1);
  for (int64_t row = 0; row < k->rows; row++)
    for (int64_t column = 0; column < d->columns; column++)
      for (int64_t c = 0; c < d->channels; c += c % 3 + 1) {
        const int64_t at = (row * d->columns + column) * k->y.ld + c;
        double size = 0, want = (double)before.data[at];
        if (row >= k->row0 && row < k->row1) {
          const double add = d->add == d->y ? want : (double)k->add.data[at];
          want = input_reference(d, row, column, c, &size);
          if (d->add) want += add, size += fabs(add);
        }
        assert_close(d->y[at], want, (double)(d->h.taps * d->w.taps + 2) * ROUNDING * size,
                     "gradient of x, case %d, %lldx%lld taps, row %lld, column %lld, channel %lld of %lld", number,
                     (long long)d->h.taps, (long long)d->w.taps, (long long)row, (long long)column, (long long)c,
                     (long long)d->channels);
      }
  matrix_free(&before, "a copy");
}

START_TEST(depthwise_input_gradients_equal_double) {
  test_random r = test_random_for("depthwise input");
  for (int i = 0, done = 0; done < 120 && i < 20000; i++) {
    depthwise_case k;
    depthwise_new(kernel_tables[_i], &k, &r, i % 2 ? GUARD_START : GUARD_END);
    if (k.d.group == 1 && k.d.h.in < 16 && kernel_tables[_i]->depthwise->scatters(&k.d)) {
      check_input(kernel_tables[_i], &k, i);
      done++;
    }
    depthwise_free(&k);
  }
}
END_TEST

/* The gradient of one weight in double and, in *size, of the magnitudes; *terms counts them. */
static double weight_reference(const lamina_depthwise_weights *d, int64_t row0, int64_t row1, int64_t tap, int64_t c,
                               double *size, int64_t *terms) {
  double sum = 0;
  *size = 0;
  *terms = 0;
  for (int64_t row = row0; row < row1; row++)
    for (int64_t column = 0; column < d->columns; column++) {
      const int64_t ih = row * d->h.stride + d->h.first + tap / d->w.taps * d->h.step;
      const int64_t iw = column * d->w.stride + d->w.first + tap % d->w.taps * d->w.step;
      if (ih < 0 || ih >= d->h.in || iw < 0 || iw >= d->w.in) continue;
      const double product = (double)d->x[ih * d->x_row + iw * d->x_pixel + c] *
                             (double)d->dy[row * d->dy_row + column * d->dy_pixel + c];
      sum += product;
      *size += fabs(product);
      ++*terms;
    }
  return sum;
}

/* The forward case with y in dy's place and the weights in dw's. */
static void check_weights(const lamina_kernels *kernels, depthwise_case *k, int number) {
  const int64_t taps = k->d.h.taps * k->d.w.taps, floats = (k->d.channels + 15) / 16 * 16 * taps;
  const lamina_depthwise_weights d = {.channels = k->d.channels,
                                      .columns = k->d.columns,
                                      .h = k->d.h,
                                      .w = k->d.w,
                                      .x = k->d.x,
                                      .x_row = k->d.x_row,
                                      .x_pixel = k->d.x_pixel,
                                      .dy = k->d.y,
                                      .dy_row = k->d.y_row,
                                      .dy_pixel = k->d.y_pixel,
                                      .dw = k->weights.data};
  guarded before = guarded_new(floats, GUARD_END);
  if (floats > 0) memcpy(before.data, d.dw, (size_t)floats * sizeof(float));
  kernels->depthwise->backward_weights(&d, k->row0, k->row1);
  for (int64_t i = 0; i < floats; i++) {
    const int64_t tap = i / 16 % taps, c = i / 16 / taps * 16 + i % 16;
    double size = 0, want = 0;
    int64_t terms = 0;
    if (c < d.channels) want = weight_reference(&d, k->row0, k->row1, tap, c, &size, &terms);
    want += (double)before.data[i];
    size += fabs((double)before.data[i]);
    assert_close(d.dw[i], want, (double)(terms + 2) * ROUNDING * size,
                 "gradient of weights, case %d, %lldx%lld taps, tap %lld, channel %lld of %lld", number,
                 (long long)d.h.taps, (long long)d.w.taps, (long long)tap, (long long)c, (long long)d.channels);
  }
  guarded_free(&before);
}

START_TEST(depthwise_weights_of_every_kind_equal_double) {
  test_random r = test_random_for("depthwise weights");
  for (int i = 0; i < 500; i++) {
    depthwise_case k;
    depthwise_new(kernel_tables[_i], &k, &r, i % 2 ? GUARD_START : GUARD_END);
    if (k.d.group == 1) check_weights(kernel_tables[_i], &k, i);
    depthwise_free(&k);
  }
}
END_TEST

/* What lies outside of the image meets no tap, even where dy is no number; nor do columns beside a short strip. */
START_TEST(depthwise_weights_keep_nan_where_it_belongs) {
  const lamina_kernels *kernels = kernel_tables[_i];
  float x[9 * 16], dy[9 * 16], dw[9 * 16] = {0};
  for (int i = 0; i < 9 * 16; i++) x[i] = dy[i] = 1;
  dy[3] = NAN;      /* pixel (0, 0): meets taps (1..2, 1..2) */
  x[4] = INFINITY;  /* and so does x there taps (0..1, 0..1) */
  const lamina_depthwise_axis axis = {.in = 3, .taps = 3, .stride = 1, .first = -1, .step = 1};
  const lamina_depthwise_weights d = {.channels = 16,
                                      .columns = 3,
                                      .h = axis,
                                      .w = axis,
                                      .x = x,
                                      .x_row = 48,
                                      .x_pixel = 16,
                                      .dy = dy,
                                      .dy_row = 48,
                                      .dy_pixel = 16,
                                      .dw = dw};
  kernels->depthwise->backward_weights(&d, 0, 3);
  for (int t = 0; t < 9; t++) {
    const int count = (t / 3 == 1 ? 3 : 2) * (t % 3 == 1 ? 3 : 2);
    test_that(dw[t * 16] == (float)count, "tap %d: %g instead of %d", t, (double)dw[t * 16], count);
    test_that(!isnan(dw[t * 16 + 3]) == (t / 3 == 0 || t % 3 == 0), "tap %d: NaN was lost or spread", t);
    test_that(!isnan(dw[t * 16 + 4]) && !isinf(dw[t * 16 + 4]) == (t / 3 == 2 || t % 3 == 2), "tap %d: infinity", t);
  }
}
END_TEST

void add_depthwise_tests(TCase *tcase) {
  tcase_add_loop_test(tcase, depthwise_of_every_kind_equals_double, 0, kernel_table_count);
  tcase_add_loop_test(tcase, groups_by_winograd_equal_double, 0, kernel_table_count);
  tcase_add_loop_test(tcase, depthwise_equals_double_where_x_and_y_share_cache_sets, 0, kernel_table_count);
  tcase_add_loop_test(tcase, depthwise_keeps_nan_where_it_belongs, 0, kernel_table_count);
  tcase_add_loop_test(tcase, depthwise_input_gradients_equal_double, 0, kernel_table_count);
  tcase_add_loop_test(tcase, depthwise_weights_of_every_kind_equal_double, 0, kernel_table_count);
  tcase_add_loop_test(tcase, depthwise_weights_keep_nan_where_it_belongs, 0, kernel_table_count);
}
