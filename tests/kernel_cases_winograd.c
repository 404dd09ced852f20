/* SPDX-License-Identifier: Apache-2.0 */
/* Winograd's three transforms against the products with their matrices in double, derived here from the points alone, for
   whole and narrow tiles; and that together they are a 3x3 correlation. */
#include "kernel_cases.h"

enum { MAX_POINTS = 6, MAX_OUTPUTS = 4, MAX_PIXELS = MAX_POINTS * MAX_POINTS };

/* Points in the kernels' order, infinity last. */
static const double points2[] = {0, 1, -1}, points4[] = {0, M_SQRT1_2, -M_SQRT1_2, M_SQRT2, -M_SQRT2};

typedef struct matrices {
  int outputs, points;
  double input[MAX_POINTS][MAX_POINTS], weights[MAX_POINTS][3], output[MAX_OUTPUTS][MAX_POINTS];
} matrices;

/* Coefficients of the product of (x - p_j) over the finite points but `without` (-1: all). */
static void polynomial(const double *p, int finite, int without, double *coefficients) {
  memset(coefficients, 0, MAX_POINTS * sizeof *coefficients);
  coefficients[0] = 1;
  for (int j = 0; j < finite; j++) {
    if (j == without) continue;
    for (int d = MAX_POINTS - 1; d >= 0; d--)
      coefficients[d] = (d > 0 ? coefficients[d - 1] : 0) - p[j] * coefficients[d];
  }
}

/* Toom and Cook's construction; the scale that each point may have between its rows of B^T and G is F(2x2)'s for 0, where
   the kernels have both with the other sign. */
static matrices derive(int outputs) {
  matrices m = {.outputs = outputs, .points = outputs + 2};
  const double *p = outputs == 2 ? points2 : points4;
  const int finite = outputs + 1;
  for (int i = 0; i < finite; i++) {
    const double sign = outputs == 2 && i == 0 ? -1 : 1;
    double product = 1;
    polynomial(p, finite, i, m.input[i]);
    for (int j = 0; j < finite; j++)
      if (j != i) product *= p[i] - p[j];
    for (int d = 0; d < MAX_POINTS; d++) m.input[i][d] *= sign;
    for (int r = 0; r < 3; r++) m.weights[i][r] = sign * pow(p[i], r) / product;
    for (int r = 0; r < outputs; r++) m.output[r][i] = pow(p[i], r);
  }
  polynomial(p, finite, -1, m.input[finite]);
  m.weights[finite][2] = m.output[outputs - 1][finite] = 1;
  return m;
}

static const lamina_winograd_form *form_of(const lamina_kernels *kernels, int outputs) {
  return outputs == 2 ? &kernels->winograd->f2 : &kernels->winograd->f4;
}

static const int64_t channel_counts[] = {1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 31, 32, 33, 40, 48, 65};
enum { CHANNEL_COUNTS = sizeof channel_counts / sizeof *channel_counts };

static void check_input(const lamina_kernels *kernels, const matrices *m, test_random *r, int64_t channels, int rows,
                        int columns, guard_side side) {
  const int n = m->points;
  matrix x[MAX_PIXELS];
  const float *pixel[MAX_PIXELS];
  for (int i = 0; i < n * n; i++) {
    x[i] = matrix_random(r, 1, channels, 0, side, -1, 1);
    pixel[i] = x[i].data;
  }
  const int64_t lanes = kernels->vector_floats, whole = (channels + lanes - 1) / lanes * lanes;
  guarded v = guarded_new(n * n * whole, side);
  form_of(kernels, m->outputs)->input(channels, pixel, rows, columns, v.data, whole);
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < columns; j++)
      for (int64_t c = 0; c < channels; c++) {
        double want = 0, size = 0;
        for (int p = 0; p < n * n; p++) {
          const double term = m->input[i][p / n] * m->input[j][p % n] * (double)x[p].data[c];
          want += term;
          size += fabs(term);
        }
        assert_close(v.data[(i * n + j) * whole + c], want, 16 * ROUNDING * size, "input, point %d,%d, channel %lld of %lld",
                     i, j, (long long)c, (long long)channels);
      }
  for (int i = 0; i < n * n; i++) {
    const int absent = i / n >= rows || i % n >= columns;
    for (int64_t c = 0; absent && c < channels; c++)
      test_that(isnan(v.data[i * whole + c]), "%s: wrote a point that a narrow tile has not", kernels->isa);
  }
  test_that(guarded_free(&v), "%s: input wrote outside", kernels->isa);
  for (int i = 0; i < n * n; i++) matrix_free(&x[i], "x");
}

START_TEST(input_equals_double) {
  const lamina_kernels *kernels = kernel_tables[_i];
  test_random r = test_random_for("winograd input");
  for (int outputs = 2; outputs <= 4; outputs += 2) {
    const matrices m = derive(outputs);
    for (int i = 0; i < CHANNEL_COUNTS; i++)
      for (int kind = 0; kind < 4; kind++)
        check_input(kernels, &m, &r, channel_counts[i], m.points - kind / 2, m.points - kind % 2, (guard_side)(i % 2));
  }
}
END_TEST

static void check_output(const lamina_kernels *kernels, const matrices *f, test_random *r, int64_t channels, int rows,
                         int columns, guard_side side) {
  const int n = f->points, outputs = f->outputs;
  const int64_t lanes = kernels->vector_floats, whole = (channels + lanes - 1) / lanes * lanes;
  matrix m = matrix_random(r, n * n, whole, 0, side, -1, 1), bias = matrix_random(r, 1, channels, 0, side, -1, 1);
  matrix y[MAX_PIXELS], add[MAX_PIXELS];
  float *y_pixel[MAX_PIXELS];
  const float *add_pixel[MAX_PIXELS];
  const int missing = (int)test_random_below(r, outputs * outputs), epilogue = (int)test_random_below(r, 8);
  for (int i = 0; i < n * n; i++) /* what a narrow tile has not is never read */
    for (int64_t c = 0; (i / n >= rows || i % n >= columns) && c < whole; c++) m.data[i * whole + c] = NAN;
  for (int i = 0; i < outputs * outputs; i++) {
    y[i] = matrix_new(1, channels, 0, side);
    add[i] = matrix_random(r, 1, channels, 0, side, -1, 1);
    const int wanted = i != missing && (i / outputs < outputs - (rows < n)) && (i % outputs < outputs - (columns < n));
    y_pixel[i] = wanted ? y[i].data : NULL;
    add_pixel[i] = wanted ? add[i].data : NULL;
  }
  const lamina_winograd_output o = {.channels = channels,
                                    .m = m.data,
                                    .m_point = whole,
                                    .rows = rows,
                                    .columns = columns,
                                    .bias = epilogue & 1 ? bias.data : NULL,
                                    .add = epilogue & 2 ? add_pixel : NULL,
                                    .y = y_pixel,
                                    .lo = epilogue & 4 ? -0.5f : -INFINITY,
                                    .hi = epilogue & 4 ? 0.75f : INFINITY};
  form_of(kernels, outputs)->output(&o);
  for (int i = 0; i < outputs * outputs; i++)
    for (int64_t c = 0; y_pixel[i] && c < channels; c++) {
      double want = 0, size = 2;
      for (int p = 0; p < n * n; p++) {
        if (p / n >= rows || p % n >= columns) continue;
        const double term = f->output[i / outputs][p / n] * f->output[i % outputs][p % n] * (double)m.data[p * whole + c];
        want += term;
        size += fabs(term);
      }
      if (epilogue & 1) want += (double)bias.data[c];
      if (epilogue & 2) want += (double)add[i].data[c];
      want = fmin(fmax(want, (double)o.lo), (double)o.hi);
      assert_close(y[i].data[c], want, 16 * ROUNDING * size, "output, pixel %d, channel %lld of %lld", i, (long long)c,
                   (long long)channels);
    }
  for (int i = 0; i < outputs * outputs; i++) {
    for (int64_t c = 0; !y_pixel[i] && c < channels; c++) test_that(isnan(y[i].data[c]), "written outside at %lld", (long long)c);
    matrix_free(&y[i], "y");
    matrix_free(&add[i], "add");
  }
  matrix_free(&m, "m");
  matrix_free(&bias, "bias");
}

START_TEST(output_equals_double) {
  const lamina_kernels *kernels = kernel_tables[_i];
  test_random r = test_random_for("winograd output");
  for (int outputs = 2; outputs <= 4; outputs += 2) {
    const matrices m = derive(outputs);
    for (int i = 0; i < CHANNEL_COUNTS; i++)
      for (int kind = 0; kind < 8; kind++)
        check_output(kernels, &m, &r, channel_counts[i], m.points - kind / 2 % 2, m.points - kind % 2, (guard_side)(i % 2));
  }
}
END_TEST

START_TEST(weights_equal_double) {
  const lamina_kernels *kernels = kernel_tables[_i];
  test_random r = test_random_for("winograd weights");
  for (int outputs = 2; outputs <= 4; outputs += 2) {
    const matrices f = derive(outputs);
    const int n = f.points;
    for (int i = 0; i < 2 * CHANNEL_COUNTS; i++) {
      const int64_t count = channel_counts[i / 2];
      const int stream = i % 2; /* with rows on lines */
      const guard_side side = stream ? GUARD_START : GUARD_END;
      matrix g = matrix_random(&r, 9, count, 3, side, -1, 1), u = matrix_new(n * n, count, stream ? 64 - count % 64 : 5, side);
      form_of(kernels, outputs)->weights(count, g.data, g.ld, u.data, u.ld, stream);
      for (int p = 0; p < n * n; p++)
        for (int64_t c = 0; c < count; c++) {
          double want = 0, size = 0;
          for (int t = 0; t < 9; t++) {
            const double term = f.weights[p / n][t / 3] * f.weights[p % n][t % 3] * (double)g.data[t * g.ld + c];
            want += term;
            size += fabs(term);
          }
          assert_close(u.data[p * u.ld + c], want, 16 * ROUNDING * size, "weights, point %d, number %lld of %lld", p,
                       (long long)c, (long long)count);
        }
      matrix_free(&g, "g");
      matrix_free(&u, "u");
    }
  }
}
END_TEST

static void check_output_transposed(const lamina_kernels *kernels, const matrices *f, test_random *r, int64_t channels,
                                    int rows, int columns, guard_side side) {
  const int n = f->points, outputs = f->outputs;
  const int64_t lanes = kernels->vector_floats, whole = (channels + lanes - 1) / lanes * lanes;
  matrix dy[MAX_PIXELS];
  const float *pixel[MAX_PIXELS];
  for (int i = 0; i < outputs * outputs; i++) {
    dy[i] = matrix_random(r, 1, channels, 0, side, -1, 1);
    pixel[i] = dy[i].data;
    const int absent = (rows < n && i / outputs == outputs - 1) || (columns < n && i % outputs == outputs - 1);
    if (absent) memset(dy[i].data, 0, (size_t)channels * sizeof(float));
  }
  guarded m = guarded_new(n * n * whole, side);
  form_of(kernels, outputs)->output_transposed(channels, pixel, rows, columns, m.data, whole);
  for (int i = 0; i < n * n; i++)
    for (int64_t c = 0; c < channels; c++) {
      const float got = m.data[i * whole + c];
      if (i / n >= rows || i % n >= columns) {
        test_that(isnan(got), "%s: wrote a point that a narrow tile has not", kernels->isa);
        continue;
      }
      double want = 0, size = 0;
      for (int p = 0; p < outputs * outputs; p++) {
        const double term = f->output[p / outputs][i / n] * f->output[p % outputs][i % n] * (double)dy[p].data[c];
        want += term;
        size += fabs(term);
      }
      assert_close(got, want, 16 * ROUNDING * size, "output_transposed, point %d, channel %lld", i, (long long)c);
    }
  test_that(guarded_free(&m), "%s: output_transposed wrote outside", kernels->isa);
  for (int i = 0; i < outputs * outputs; i++) matrix_free(&dy[i], "dy");
}

START_TEST(output_transposed_equals_double) {
  const lamina_kernels *kernels = kernel_tables[_i];
  test_random r = test_random_for("winograd output transposed");
  for (int outputs = 2; outputs <= 4; outputs += 2) {
    const matrices m = derive(outputs);
    for (int i = 0; i < CHANNEL_COUNTS; i++)
      for (int kind = 0; kind < 4; kind++)
        check_output_transposed(kernels, &m, &r, channel_counts[i], m.points - kind / 2, m.points - kind % 2,
                                (guard_side)(i % 2));
  }
}
END_TEST

START_TEST(weights_transposed_equal_double) {
  const lamina_kernels *kernels = kernel_tables[_i];
  test_random r = test_random_for("winograd weights transposed");
  for (int outputs = 2; outputs <= 4; outputs += 2) {
    const matrices f = derive(outputs);
    const int n = f.points;
    for (int i = 0; i < CHANNEL_COUNTS; i++) {
      const int64_t count = channel_counts[i];
      matrix u = matrix_random(&r, n * n, count, 3, (guard_side)(i % 2), -1, 1), g = matrix_new(9, count, 5, (guard_side)(i % 2));
      form_of(kernels, outputs)->weights_transposed(count, u.data, u.ld, g.data, g.ld);
      for (int t = 0; t < 9; t++)
        for (int64_t c = 0; c < count; c++) {
          double want = 0, size = 0;
          for (int p = 0; p < n * n; p++) {
            const double term = f.weights[p / n][t / 3] * f.weights[p % n][t % 3] * (double)u.data[p * u.ld + c];
            want += term;
            size += fabs(term);
          }
          assert_close(g.data[t * g.ld + c], want, 16 * ROUNDING * size, "weights_transposed, tap %d, number %lld of %lld", t,
                       (long long)c, (long long)count);
        }
      matrix_free(&u, "u");
      matrix_free(&g, "g");
    }
  }
}
END_TEST

/* The matrices above would be of no use if they were not a correlation's: one channel, in double. */
START_TEST(matrices_make_a_correlation) {
  test_random r = test_random_for("winograd matrices");
  for (int outputs = 2; outputs <= 4; outputs += 2)
    for (int narrow = 0; narrow < 2; narrow++) {
      const matrices f = derive(outputs);
      double x[MAX_POINTS], g[3], y[MAX_OUTPUTS] = {0};
      for (int i = 0; i < MAX_POINTS; i++) x[i] = (double)test_random_float(&r, -1, 1);
      for (int i = 0; i < 3; i++) g[i] = (double)test_random_float(&r, -1, 1);
      for (int p = 0; p < f.points - narrow; p++) {
        double v = 0, u = 0;
        for (int i = 0; i < f.points; i++) v += f.input[p][i] * x[i];
        for (int i = 0; i < 3; i++) u += f.weights[p][i] * g[i];
        for (int i = 0; i < outputs; i++) y[i] += f.output[i][p] * u * v;
      }
      for (int i = 0; i < outputs - narrow; i++) {
        const double want = g[0] * x[i] + g[1] * x[i + 1] + g[2] * x[i + 2];
        test_that(fabs(y[i] - want) < 1e-13, "output %d of F(%d, 3): %.17g instead of %.17g", i, outputs, y[i], want);
      }
    }
}
END_TEST

void add_winograd_tests(TCase *tcase) {
  tcase_add_test(tcase, matrices_make_a_correlation);
  tcase_add_loop_test(tcase, input_equals_double, 0, kernel_table_count);
  tcase_add_loop_test(tcase, output_equals_double, 0, kernel_table_count);
  tcase_add_loop_test(tcase, weights_equal_double, 0, kernel_table_count);
  tcase_add_loop_test(tcase, output_transposed_equals_double, 0, kernel_table_count);
  tcase_add_loop_test(tcase, weights_transposed_equal_double, 0, kernel_table_count);
}
