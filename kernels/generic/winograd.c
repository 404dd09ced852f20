/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Winograd's transforms as products with their matrices: the specification of the winograd group.
 *
 * F(2x2, 3x3) has the points 0, 1, -1 and infinity; F(4x4, 3x3) has 0, +-1/sqrt(2), +-sqrt(2) and infinity, whose error is
 * about half of that of 0, +-1, +-2. Row i of B^T holds the coefficients of the product of (x - p_j) over the other finite
 * points (infinity: over all of them), row i of G is (1, p, p^2) over that product at x = p_i, and A^T's columns are powers
 * of p_i. Rows of B^T and G may be scaled against each other.
 */
#include "generic.h"

#define MAX_POINTS 6
#define MAX_OUTPUTS 4

#define A 0.70710678118654752 /* 1 / sqrt(2) */
#define B 1.41421356237309505 /* sqrt(2) */

typedef struct matrices {
  int outputs, points;
  double input[MAX_POINTS][MAX_POINTS], weights[MAX_POINTS][3], output[MAX_OUTPUTS][MAX_POINTS];
} matrices;

static const matrices f2 = {
    2,
    4,
    {{1, 0, -1, 0}, {0, 1, 1, 0}, {0, -1, 1, 0}, {0, -1, 0, 1}},
    {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}},
    {{1, 1, 1, 0}, {0, 1, -1, 1}},
};

static const matrices f4 = {
    4,
    6,
    {{1, 0, -2.5, 0, 1, 0},
     {0, -2 * A, -2, A, 1, 0},
     {0, 2 * A, -2, -A, 1, 0},
     {0, -B / 2, -0.5, B, 1, 0},
     {0, B / 2, -0.5, -B, 1, 0},
     {0, 1, 0, -2.5, 0, 1}},
    {{1, 0, 0},
     {-2.0 / 3, -2.0 / 3 * A, -1.0 / 3},
     {-2.0 / 3, 2.0 / 3 * A, -1.0 / 3},
     {1.0 / 6, B / 6, 1.0 / 3},
     {1.0 / 6, -B / 6, 1.0 / 3},
     {0, 0, 1}},
    {{1, 1, 1, 1, 1, 0}, {0, A, -A, B, -B, 0}, {0, 0.5, 0.5, 2, 2, 0}, {0, A / 2, -A / 2, 2 * B, -2 * B, 1}},
};

static void input(const matrices *f, int64_t channels, const float *const *x, int rows, int columns, float *v,
                  int64_t v_point) {
  const int n = f->points;
  for (int64_t c = 0; c < channels; c++)
    for (int i = 0; i < rows; i++)
      for (int j = 0; j < columns; j++) {
        double sum = 0;
        for (int r = 0; r < n; r++)
          for (int s = 0; s < n; s++) {
            const double factor = f->input[i][r] * f->input[j][s];
            if (factor != 0) sum += factor * (double)x[r * n + s][c]; /* a narrow tile never sees the last ones */
          }
        v[(i * n + j) * v_point + c] = (float)sum;
      }
}

static void output(const matrices *f, const lamina_winograd_output *o) {
  const int n = f->points;
  for (int i = 0; i < f->outputs; i++)
    for (int j = 0; j < f->outputs; j++) {
      const int pixel = i * f->outputs + j;
      for (int64_t c = 0; o->y[pixel] && c < o->channels; c++) {
        double sum = 0;
        for (int r = 0; r < o->rows; r++)
          for (int s = 0; s < o->columns; s++)
            sum += f->output[i][r] * f->output[j][s] * (double)o->m[(r * n + s) * o->m_point + c];
        float y = (float)sum;
        if (o->bias) y += o->bias[c];
        if (o->add) y += o->add[pixel][c];
        y = y < o->lo ? o->lo : y;
        o->y[pixel][c] = y > o->hi ? o->hi : y;
      }
    }
}

static void weights(const matrices *f, int64_t n, const float *g, int64_t g_tap, float *u, int64_t u_point) {
  for (int i = 0; i < f->points; i++)
    for (int j = 0; j < f->points; j++)
      for (int64_t at = 0; at < n; at++) {
        double sum = 0;
        for (int r = 0; r < 3; r++)
          for (int s = 0; s < 3; s++) sum += f->weights[i][r] * f->weights[j][s] * (double)g[(r * 3 + s) * g_tap + at];
        u[(i * f->points + j) * u_point + at] = (float)sum;
      }
}

static void output_transposed(const matrices *f, int64_t channels, const float *const *dy, int rows, int columns, float *m,
                              int64_t m_point) {
  const int n = f->outputs;
  for (int64_t c = 0; c < channels; c++)
    for (int i = 0; i < rows; i++)
      for (int j = 0; j < columns; j++) {
        double sum = 0;
        for (int r = 0; r < n; r++)
          for (int s = 0; s < n; s++) sum += f->output[r][i] * f->output[s][j] * (double)dy[r * n + s][c];
        m[(i * f->points + j) * m_point + c] = (float)sum;
      }
}

static void weights_transposed(const matrices *f, int64_t n, const float *u, int64_t u_point, float *g, int64_t g_tap) {
  for (int r = 0; r < 3; r++)
    for (int s = 0; s < 3; s++)
      for (int64_t at = 0; at < n; at++) {
        double sum = 0;
        for (int i = 0; i < f->points; i++)
          for (int j = 0; j < f->points; j++)
            sum += f->weights[i][r] * f->weights[j][s] * (double)u[(i * f->points + j) * u_point + at];
        g[(r * 3 + s) * g_tap + at] = (float)sum;
      }
}

static void input2(int64_t channels, const float *const *x, int rows, int columns, float *v, int64_t v_point) {
  input(&f2, channels, x, rows, columns, v, v_point);
}
static void input4(int64_t channels, const float *const *x, int rows, int columns, float *v, int64_t v_point) {
  input(&f4, channels, x, rows, columns, v, v_point);
}
static void output2(const lamina_winograd_output *o) { output(&f2, o); }
static void output4(const lamina_winograd_output *o) { output(&f4, o); }
static void weights2(int64_t n, const float *g, int64_t g_tap, float *u, int64_t u_point, int stream) {
  (void)stream;
  weights(&f2, n, g, g_tap, u, u_point);
}
static void weights4(int64_t n, const float *g, int64_t g_tap, float *u, int64_t u_point, int stream) {
  (void)stream;
  weights(&f4, n, g, g_tap, u, u_point);
}

static void output_transposed2(int64_t channels, const float *const *dy, int rows, int columns, float *m, int64_t m_point) {
  output_transposed(&f2, channels, dy, rows, columns, m, m_point);
}
static void output_transposed4(int64_t channels, const float *const *dy, int rows, int columns, float *m, int64_t m_point) {
  output_transposed(&f4, channels, dy, rows, columns, m, m_point);
}
static void weights_transposed2(int64_t n, const float *u, int64_t u_point, float *g, int64_t g_tap) {
  weights_transposed(&f2, n, u, u_point, g, g_tap);
}
static void weights_transposed4(int64_t n, const float *u, int64_t u_point, float *g, int64_t g_tap) {
  weights_transposed(&f4, n, u, u_point, g, g_tap);
}

const lamina_winograd_kernels lamina_generic_winograd = {
    .f2 = {.outputs = 2,
           .points = 4,
           .input = input2,
           .output = output2,
           .weights = weights2,
           .output_transposed = output_transposed2,
           .weights_transposed = weights_transposed2},
    .f4 = {.outputs = 4,
           .points = 6,
           .input = input4,
           .output = output4,
           .weights = weights4,
           .output_transposed = output_transposed4,
           .weights_transposed = weights_transposed4},
};
