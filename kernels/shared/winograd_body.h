/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file winograd_body.h
 * Winograd's transforms on vec.h, VF_LEN channels at a time (matrices: kernels/generic/winograd.c).
 *
 * Points come in pairs, (0, infinity) and (p, -p), whose rows share their even and odd parts. A transform takes a pair of
 * rows at a time through both axes, so that no more than two rows of values are in registers: rows are loaded again for
 * each pair (84 loads for F(4x4)'s input instead of 36), which costs less than a detour through memory. F(4x4), for each
 * vector: input 144 additions and multiply-adds, output 130, weights 162.
 */
#ifndef LAMINA_SHARED_WINOGRAD_BODY_H
#define LAMINA_SHARED_WINOGRAD_BODY_H

#include "kernels.h"
#include "vec_inline.h"

#define WINOGRAD_POINTS 6 /* at most, along an axis */

static const float winograd_a = 0.70710678118654752f, winograd_b = 1.41421356237309505f; /* 1 / sqrt(2), sqrt(2) */

/* Loads or stores of a whole vector, or of the n channels that are left. */
VEC_INLINE vf winograd_load(const float *p, int n) { return n == VF_LEN ? vf_load(p) : vf_load_n(p, n); }
VEC_INLINE void winograd_store(float *p, vf v, int n) {
  if (n == VF_LEN) vf_store(p, v);
  else vf_store_n(p, v, n);
}

/* Points `pair` of B^T d along one axis: first and last (0 and infinity) for pair 0, else 2 pair - 1 and 2 pair. */
VEC_INLINE void winograd_input_pair(int outputs, int pair, const vf *d, vf *p, vf *q) {
  if (outputs == 2) {
    *p = pair ? vf_add(d[2], d[1]) : vf_sub(d[0], d[2]);
    *q = pair ? vf_sub(d[2], d[1]) : vf_sub(d[3], d[1]);
  } else if (pair == 0) {
    const vf scale = vf_set1(2.5f);
    *p = vf_fnma(scale, d[2], vf_add(d[0], d[4]));
    *q = vf_fnma(scale, d[3], vf_add(d[1], d[5]));
  } else {
    const vf scale = vf_set1(pair == 1 ? 2.0f : 0.5f), point = vf_set1(pair == 1 ? winograd_a : winograd_b);
    const vf even = vf_fnma(scale, d[2], d[4]), odd = vf_fnma(scale, d[1], d[3]);
    *p = vf_fma(point, odd, even);
    *q = vf_fnma(point, odd, even);
  }
}

/* Whether that pair needs value i. */
VEC_INLINE int winograd_input_needs(int outputs, int pair, int i) { return pair == 0 || (i > 0 && i <= outputs); }

VEC_INLINE int winograd_first(int outputs, int pair) { (void)outputs; return pair == 0 ? 0 : 2 * pair - 1; }
VEC_INLINE int winograd_second(int outputs, int pair) { return pair == 0 ? outputs + 1 : 2 * pair; }

/* One row of points: along the second axis, and to memory. */
VEC_INLINE void winograd_input_row(int outputs, const vf *d, int columns, float *v, int64_t v_point) {
#pragma GCC unroll 16
  for (int pair = 0; pair <= outputs / 2; pair++) {
    vf p, q;
    winograd_input_pair(outputs, pair, d, &p, &q);
    vf_store(v + winograd_first(outputs, pair) * v_point, p);
    if (pair > 0 || columns == outputs + 2) vf_store(v + winograd_second(outputs, pair) * v_point, q);
  }
}

VEC_INLINE void winograd_input_vector(int outputs, const float *const *x, int64_t c, int n, int rows, int columns,
                                      float *v, int64_t v_point) {
  const int points = outputs + 2;
#pragma GCC unroll 16
  for (int pair = 0; pair <= outputs / 2; pair++) {
    vf p[WINOGRAD_POINTS], q[WINOGRAD_POINTS];
#pragma GCC unroll 16
    for (int j = 0; j < points; j++) {
      vf d[WINOGRAD_POINTS];
#pragma GCC unroll 16
      for (int i = 0; i < points; i++)
        d[i] = winograd_input_needs(outputs, pair, i) ? winograd_load(x[i * points + j] + c, n) : vf_zero();
      winograd_input_pair(outputs, pair, d, &p[j], &q[j]);
    }
    const int first = winograd_first(outputs, pair), second = winograd_second(outputs, pair);
    winograd_input_row(outputs, p, columns, v + first * points * v_point + c, v_point);
    if (pair > 0 || rows == points) winograd_input_row(outputs, q, columns, v + second * points * v_point + c, v_point);
  }
}

VEC_INLINE void winograd_input(int outputs, int64_t channels, const float *const *x, int rows, int columns, float *v,
                               int64_t v_point) {
  int64_t c = 0;
  for (; c + VF_LEN <= channels; c += VF_LEN)
    winograd_input_vector(outputs, x, c, VF_LEN, rows, columns, v, v_point);
  if (c < channels) winograd_input_vector(outputs, x, c, (int)(channels - c), rows, columns, v, v_point);
}

/* Outputs of one parity along an axis, from a column or row of points: y[parity] and, for F(4x4), y[parity + 2]. */
VEC_INLINE void winograd_output_pair(int outputs, int parity, const vf *m, vf *p, vf *q) {
  if (outputs == 2) {
    *p = parity ? vf_add(vf_sub(m[1], m[2]), m[3]) : vf_add(m[0], vf_add(m[1], m[2]));
    *q = *p;
  } else if (parity == 0) {
    const vf a = vf_add(m[1], m[2]), b = vf_add(m[3], m[4]);
    *p = vf_add(m[0], vf_add(a, b));
    *q = vf_fma(vf_set1(0.5f), a, vf_add(b, b));
  } else {
    const vf a = vf_sub(m[1], m[2]), b = vf_sub(m[3], m[4]);
    *p = vf_mul(vf_set1(winograd_a), vf_add(a, vf_add(b, b)));
    *q = vf_fma(vf_set1(winograd_a / 2), a, vf_fma(vf_set1(2 * winograd_b), b, m[5]));
  }
}

VEC_INLINE int winograd_output_needs(int outputs, int parity, int i) { return parity == 0 ? i <= outputs : i > 0; }

/* One row of outputs: along the second axis, the epilogue, and to memory. */
VEC_INLINE void winograd_output_row(int outputs, const lamina_winograd_output *o, int row, const vf *m, int64_t c,
                                    int n) {
  const vf lo = vf_set1(o->lo), hi = vf_set1(o->hi);
#pragma GCC unroll 16
  for (int parity = 0; parity < 2; parity++) {
    vf y[2];
    winograd_output_pair(outputs, parity, m, &y[0], &y[1]);
#pragma GCC unroll 16
    for (int i = 0; i < outputs / 2; i++) {
      const int pixel = row * outputs + parity + 2 * i;
      if (!o->y[pixel]) continue;
      if (o->bias) y[i] = vf_add(y[i], winograd_load(o->bias + c, n));
      if (o->add) y[i] = vf_add(y[i], winograd_load(o->add[pixel] + c, n));
      winograd_store(o->y[pixel] + c, vf_min(hi, vf_max(lo, y[i])), n);
    }
  }
}

VEC_INLINE void winograd_output_vector(int outputs, const lamina_winograd_output *o, int64_t c, int n) {
  const int points = outputs + 2;
#pragma GCC unroll 16
  for (int parity = 0; parity < 2; parity++) {
    vf p[WINOGRAD_POINTS], q[WINOGRAD_POINTS];
#pragma GCC unroll 16
    for (int j = 0; j < points; j++) {
      vf m[WINOGRAD_POINTS];
#pragma GCC unroll 16
      for (int i = 0; i < points; i++)
        m[i] = winograd_output_needs(outputs, parity, i) && (i < outputs + 1 || o->rows == points) &&
                       (j < outputs + 1 || o->columns == points)
                   ? vf_load(o->m + (i * points + j) * o->m_point + c)
                   : vf_zero();
      winograd_output_pair(outputs, parity, m, &p[j], &q[j]);
    }
    winograd_output_row(outputs, o, parity, p, c, n);
    if (outputs == 4) winograd_output_row(outputs, o, parity + 2, q, c, n);
  }
}

VEC_INLINE void winograd_output(int outputs, const lamina_winograd_output *o) {
  int64_t c = 0;
  for (; c + VF_LEN <= o->channels; c += VF_LEN) winograd_output_vector(outputs, o, c, VF_LEN);
  if (c < o->channels) winograd_output_vector(outputs, o, c, (int)(o->channels - c));
}

static const float winograd_g2[4][3] = {{1, 0, 0}, {0.5f, 0.5f, 0.5f}, {0.5f, -0.5f, 0.5f}, {0, 0, 1}};
static const float winograd_g4[6][3] = {{1, 0, 0},
                                        {-0.66666666666666667f, -0.47140452079103168f, -0.33333333333333333f},
                                        {-0.66666666666666667f, 0.47140452079103168f, -0.33333333333333333f},
                                        {0.16666666666666667f, 0.23570226039551584f, 0.33333333333333333f},
                                        {0.16666666666666667f, -0.23570226039551584f, 0.33333333333333333f},
                                        {0, 0, 1}};

VEC_INLINE vf winograd_weights_point(int outputs, int i, const vf *g) {
  const float *row = outputs == 2 ? winograd_g2[i] : winograd_g4[i];
  if (i == 0) return g[0];
  if (i == outputs + 1) return g[2];
  return vf_fma(vf_set1(row[0]), g[0], vf_fma(vf_set1(row[1]), g[1], vf_mul(vf_set1(row[2]), g[2])));
}

VEC_INLINE void winograd_weights_vector(int outputs, int n, const float *g, int64_t g_tap, float *u, int64_t u_point,
                                        int stream) {
  const int points = outputs + 2;
#pragma GCC unroll 16
  for (int i = 0; i < points; i++) {
    vf row[3];
#pragma GCC unroll 16
    for (int s = 0; s < 3; s++) {
      vf column[3];
#pragma GCC unroll 16
      for (int r = 0; r < 3; r++) column[r] = winograd_load(g + (r * 3 + s) * g_tap, n);
      row[s] = winograd_weights_point(outputs, i, column);
    }
#pragma GCC unroll 16
    for (int j = 0; j < points; j++) {
      const vf point = winograd_weights_point(outputs, j, row);
      if (stream) vf_stream(u + (i * points + j) * u_point, point);
      else winograd_store(u + (i * points + j) * u_point, point, n);
    }
  }
}

/* Past the caches only where a vector is a whole line: there are more points than lines that are being put together. */
VEC_INLINE void winograd_weights(int outputs, int64_t n, const float *g, int64_t g_tap, float *u, int64_t u_point,
                                 int stream) {
  enum { LINE = 64 };
  int64_t i = 0;
  if (stream && VF_LEN * sizeof(float) == LINE && (uintptr_t)u % LINE == 0 && u_point % VF_LEN == 0) {
    for (; i + VF_LEN <= n; i += VF_LEN) winograd_weights_vector(outputs, VF_LEN, g + i, g_tap, u + i, u_point, 1);
    vf_stream_end();
  }
  for (; i + VF_LEN <= n; i += VF_LEN) winograd_weights_vector(outputs, VF_LEN, g + i, g_tap, u + i, u_point, 0);
  if (i < n) winograd_weights_vector(outputs, (int)(n - i), g + i, g_tap, u + i, u_point, 0);
}

/* Points `pair` of A y along one axis. */
VEC_INLINE void winograd_output_transposed_pair(int outputs, int pair, const vf *y, vf *p, vf *q) {
  if (pair == 0) {
    *p = y[0];
    *q = y[outputs - 1];
  } else if (outputs == 2) {
    *p = vf_add(y[0], y[1]);
    *q = vf_sub(y[0], y[1]);
  } else {
    const vf scale = vf_set1(pair == 1 ? 0.5f : 2.0f), point = vf_set1(pair == 1 ? winograd_a : winograd_b);
    const vf even = vf_fma(scale, y[2], y[0]), odd = vf_fma(scale, y[3], y[1]);
    *p = vf_fma(point, odd, even);
    *q = vf_fnma(point, odd, even);
  }
}

VEC_INLINE void winograd_output_transposed_row(int outputs, const vf *y, int columns, float *m, int64_t m_point) {
#pragma GCC unroll 16
  for (int pair = 0; pair <= outputs / 2; pair++) {
    vf p, q;
    winograd_output_transposed_pair(outputs, pair, y, &p, &q);
    vf_store(m + winograd_first(outputs, pair) * m_point, p);
    if (pair > 0 || columns == outputs + 2) vf_store(m + winograd_second(outputs, pair) * m_point, q);
  }
}

VEC_INLINE void winograd_output_transposed_vector(int outputs, const float *const *dy, int64_t c, int n, int rows,
                                                  int columns, float *m, int64_t m_point) {
  const int points = outputs + 2;
#pragma GCC unroll 16
  for (int pair = 0; pair <= outputs / 2; pair++) {
    vf p[WINOGRAD_POINTS], q[WINOGRAD_POINTS];
#pragma GCC unroll 16
    for (int j = 0; j < outputs; j++) {
      vf y[WINOGRAD_POINTS];
#pragma GCC unroll 16
      for (int i = 0; i < outputs; i++) y[i] = winograd_load(dy[i * outputs + j] + c, n);
      winograd_output_transposed_pair(outputs, pair, y, &p[j], &q[j]);
    }
    const int first = winograd_first(outputs, pair), second = winograd_second(outputs, pair);
    winograd_output_transposed_row(outputs, p, columns, m + first * points * m_point + c, m_point);
    if (pair > 0 || rows == points)
      winograd_output_transposed_row(outputs, q, columns, m + second * points * m_point + c, m_point);
  }
}

VEC_INLINE void winograd_output_transposed(int outputs, int64_t channels, const float *const *dy, int rows, int columns,
                                           float *m, int64_t m_point) {
  int64_t c = 0;
  for (; c + VF_LEN <= channels; c += VF_LEN)
    winograd_output_transposed_vector(outputs, dy, c, VF_LEN, rows, columns, m, m_point);
  if (c < channels) winograd_output_transposed_vector(outputs, dy, c, (int)(channels - c), rows, columns, m, m_point);
}

/* G^T u along one axis: three values from a column or row of points. */
VEC_INLINE void winograd_weights_transposed_three(int outputs, const vf *u, vf g[3]) {
  if (outputs == 2) {
    const vf half = vf_set1(0.5f), even = vf_mul(half, vf_add(u[1], u[2]));
    g[0] = vf_add(u[0], even);
    g[1] = vf_mul(half, vf_sub(u[1], u[2]));
    g[2] = vf_add(even, u[3]);
  } else {
    const vf even_a = vf_add(u[1], u[2]), odd_a = vf_sub(u[1], u[2]), even_b = vf_add(u[3], u[4]), odd_b = vf_sub(u[3], u[4]);
    g[0] = vf_fma(vf_set1(winograd_g4[1][0]), even_a, vf_fma(vf_set1(winograd_g4[3][0]), even_b, u[0]));
    g[1] = vf_fma(vf_set1(winograd_g4[1][1]), odd_a, vf_mul(vf_set1(winograd_g4[3][1]), odd_b));
    g[2] = vf_fma(vf_set1(winograd_g4[1][2]), even_a, vf_fma(vf_set1(winograd_g4[3][2]), even_b, u[5]));
  }
}

VEC_INLINE void winograd_weights_transposed_vector(int outputs, int n, const float *u, int64_t u_point, float *g,
                                                   int64_t g_tap) {
  const int points = outputs + 2;
  vf rows[3][WINOGRAD_POINTS];
#pragma GCC unroll 16
  for (int j = 0; j < points; j++) {
    vf column[WINOGRAD_POINTS], three[3];
#pragma GCC unroll 16
    for (int i = 0; i < points; i++) column[i] = winograd_load(u + (i * points + j) * u_point, n);
    winograd_weights_transposed_three(outputs, column, three);
#pragma GCC unroll 16
    for (int r = 0; r < 3; r++) rows[r][j] = three[r];
  }
#pragma GCC unroll 16
  for (int r = 0; r < 3; r++) {
    vf three[3];
    winograd_weights_transposed_three(outputs, rows[r], three);
#pragma GCC unroll 16
    for (int s = 0; s < 3; s++) winograd_store(g + (r * 3 + s) * g_tap, three[s], n);
  }
}

VEC_INLINE void winograd_weights_transposed(int outputs, int64_t n, const float *u, int64_t u_point, float *g,
                                            int64_t g_tap) {
  int64_t i = 0;
  for (; i + VF_LEN <= n; i += VF_LEN) winograd_weights_transposed_vector(outputs, VF_LEN, u + i, u_point, g + i, g_tap);
  if (i < n) winograd_weights_transposed_vector(outputs, (int)(n - i), u + i, u_point, g + i, g_tap);
}

static void winograd_input2(int64_t channels, const float *const *x, int rows, int columns, float *v, int64_t v_point) {
  winograd_input(2, channels, x, rows, columns, v, v_point);
}
static void winograd_input4(int64_t channels, const float *const *x, int rows, int columns, float *v, int64_t v_point) {
  winograd_input(4, channels, x, rows, columns, v, v_point);
}
static void winograd_output2(const lamina_winograd_output *o) { winograd_output(2, o); }
static void winograd_output4(const lamina_winograd_output *o) { winograd_output(4, o); }
static void winograd_weights2(int64_t n, const float *g, int64_t g_tap, float *u, int64_t u_point, int stream) {
  winograd_weights(2, n, g, g_tap, u, u_point, stream);
}
static void winograd_weights4(int64_t n, const float *g, int64_t g_tap, float *u, int64_t u_point, int stream) {
  winograd_weights(4, n, g, g_tap, u, u_point, stream);
}
static void winograd_output_transposed2(int64_t channels, const float *const *dy, int rows, int columns, float *m,
                                        int64_t m_point) {
  winograd_output_transposed(2, channels, dy, rows, columns, m, m_point);
}
static void winograd_output_transposed4(int64_t channels, const float *const *dy, int rows, int columns, float *m,
                                        int64_t m_point) {
  winograd_output_transposed(4, channels, dy, rows, columns, m, m_point);
}
static void winograd_weights_transposed2(int64_t n, const float *u, int64_t u_point, float *g, int64_t g_tap) {
  winograd_weights_transposed(2, n, u, u_point, g, g_tap);
}
static void winograd_weights_transposed4(int64_t n, const float *u, int64_t u_point, float *g, int64_t g_tap) {
  winograd_weights_transposed(4, n, u, u_point, g, g_tap);
}

/* The group, for the table of the ISA whose vec.h this is. */
#define WINOGRAD_FORMS                                                                                                 \
  {                                                                                                                    \
      .f2 = {.outputs = 2,                                                                                             \
             .points = 4,                                                                                              \
             .input = winograd_input2,                                                                                 \
             .output = winograd_output2,                                                                               \
             .weights = winograd_weights2,                                                                             \
             .output_transposed = winograd_output_transposed2,                                                         \
             .weights_transposed = winograd_weights_transposed2},                                                      \
      .f4 = {.outputs = 4,                                                                                             \
             .points = 6,                                                                                              \
             .input = winograd_input4,                                                                                 \
             .output = winograd_output4,                                                                               \
             .weights = winograd_weights4,                                                                             \
             .output_transposed = winograd_output_transposed4,                                                         \
             .weights_transposed = winograd_weights_transposed4},                                                      \
  }

#endif
