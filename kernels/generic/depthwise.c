/* SPDX-License-Identifier: Apache-2.0 */
/* Depthwise convolution, one number after the other: the specification of the depthwise group. */
#include "generic.h"

static float clamp(float x, float lo, float hi) { return x < lo ? lo : x > hi ? hi : x; }

/* The products of channel c with channel k of its group. */
static float sum_taps(const lamina_depthwise *d, int64_t row, int64_t column, int64_t c, int64_t k, float sum) {
  const int64_t taps = d->h.taps * d->w.taps, block = c / LAMINA_DEPTHWISE_BLOCK;
  const float *w = d->weights + (block * d->group + k) * taps * LAMINA_DEPTHWISE_BLOCK + c % LAMINA_DEPTHWISE_BLOCK;
  const float *x = d->x + c / d->group * d->group + k;
  for (int64_t i = 0; i < d->h.taps; i++) {
    const int64_t ih = row * d->h.stride + d->h.first + i * d->h.step;
    if (ih < 0 || ih >= d->h.in) continue;
    for (int64_t j = 0; j < d->w.taps; j++) {
      const int64_t iw = column * d->w.stride + d->w.first + j * d->w.step;
      if (iw < 0 || iw >= d->w.in) continue;
      sum += x[ih * d->x_row + iw * d->x_pixel] * w[(i * d->w.taps + j) * LAMINA_DEPTHWISE_BLOCK];
    }
  }
  return sum;
}

static void pixel(const lamina_depthwise *d, int64_t row, int64_t column) {
  for (int64_t c = 0; c < d->channels; c++) {
    float sum = d->bias ? d->bias[c] : 0.0f;
    for (int64_t k = 0; k < d->group; k++) sum = sum_taps(d, row, column, c, k, sum);
    if (d->add) sum += d->add[row * d->add_row + column * d->add_pixel + c];
    d->y[row * d->y_row + column * d->y_pixel + c] = clamp(sum, d->lo, d->hi);
  }
}

static int grouped(const lamina_depthwise *d) { return d->group > 1 && LAMINA_DEPTHWISE_BLOCK % d->group == 0; }

/* They stay as they are. */
static void group_weights(int64_t group, int64_t n, float *weights) {
  (void)group;
  (void)n;
  (void)weights;
}

static void forward(const lamina_depthwise *d, int64_t row0, int64_t row1) {
  for (int64_t row = row0; row < row1; row++)
    for (int64_t column = 0; column < d->columns; column++) pixel(d, row, column);
}

/* One tap of one channel; each row is summed apart. */
static float tap_gradient(const lamina_depthwise_weights *d, int64_t row0, int64_t row1, int64_t i, int64_t j,
                          int64_t c) {
  float sum = 0.0f;
  for (int64_t row = row0; row < row1; row++) {
    const int64_t ih = row * d->h.stride + d->h.first + i * d->h.step;
    if (ih < 0 || ih >= d->h.in) continue;
    float row_sum = 0.0f;
    for (int64_t column = 0; column < d->columns; column++) {
      const int64_t iw = column * d->w.stride + d->w.first + j * d->w.step;
      if (iw < 0 || iw >= d->w.in) continue;
      row_sum += d->x[ih * d->x_row + iw * d->x_pixel + c] * d->dy[row * d->dy_row + column * d->dy_pixel + c];
    }
    sum += row_sum;
  }
  return sum;
}

static void backward_weights(const lamina_depthwise_weights *d, int64_t row0, int64_t row1) {
  const int64_t taps = d->h.taps * d->w.taps;
  for (int64_t c = 0; c < d->channels; c++)
    for (int64_t t = 0; t < taps; t++) {
      const int64_t at = (c / LAMINA_DEPTHWISE_BLOCK * taps + t) * LAMINA_DEPTHWISE_BLOCK + c % LAMINA_DEPTHWISE_BLOCK;
      d->dw[at] += tap_gradient(d, row0, row1, t / d->w.taps, t % d->w.taps, c);
    }
}

/* x of channel c in row and column, zero outside of the image. */
static float value(const lamina_depthwise *d, int64_t row, int64_t column, int64_t c) {
  if (row < 0 || row >= d->h.in || column < 0 || column >= d->w.in) return 0;
  return d->x[row * d->x_row + column * d->x_pixel + c];
}

/* Points of F(4, 3) in the order 0, infinity, 1 / sqrt(2), -1 / sqrt(2), sqrt(2), -sqrt(2). */
static const float tile_g[6][3] = {{1, 0, 0},
                                   {0, 0, 1},
                                   {-0.66666666666666667f, -0.47140452079103168f, -0.33333333333333333f},
                                   {-0.66666666666666667f, 0.47140452079103168f, -0.33333333333333333f},
                                   {0.16666666666666667f, 0.23570226039551584f, 0.33333333333333333f},
                                   {0.16666666666666667f, -0.23570226039551584f, 0.33333333333333333f}};
static const float tile_bt[6][6] = {{1, 0, -2.5f, 0, 1, 0},
                                    {0, 1, 0, -2.5f, 0, 1},
                                    {0, -1.41421356237309505f, -2, 0.70710678118654752f, 1, 0},
                                    {0, 1.41421356237309505f, -2, -0.70710678118654752f, 1, 0},
                                    {0, -0.70710678118654752f, -0.5f, 1.41421356237309505f, 1, 0},
                                    {0, 0.70710678118654752f, -0.5f, -1.41421356237309505f, 1, 0}};
static const float tile_at[4][6] = {
    {1, 0, 1, 1, 1, 1},
    {0, 0, 0.70710678118654752f, -0.70710678118654752f, 1.41421356237309505f, -1.41421356237309505f},
    {0, 0, 0.5f, 0.5f, 2, 2},
    {0, 1, 0.35355339059327376f, -0.35355339059327376f, 2.8284271247461901f, -2.8284271247461901f}};

/* The sums of channel c at the six points of the tile of rows from `row` on. */
static void tile_sums(const lamina_depthwise *d, int64_t row, int64_t column, int64_t c, float m[6]) {
  const int64_t block = c / LAMINA_DEPTHWISE_BLOCK;
  for (int p = 0; p < 6; p++) m[p] = 0;
  for (int64_t k = 0; k < d->group; k++)
    for (int t = 0; t < 3; t++) {
      const int64_t at = (block * d->group + k) * LAMINA_DEPTHWISE_TILE_TAPS;
      const float *u = d->weights + (at + t) * LAMINA_DEPTHWISE_BLOCK + c % LAMINA_DEPTHWISE_BLOCK;
      for (int p = 0; p < 6; p++) {
        float v = 0;
        for (int i = 0; i < 6; i++)
          v += tile_bt[p][i] * value(d, row + d->h.first + i, column + d->w.first + t, c / d->group * d->group + k);
        m[p] += v * u[p * 3 * LAMINA_DEPTHWISE_BLOCK];
      }
    }
}

/* All tiles are of four rows, and the last may hang over. */
static void winograd(const lamina_depthwise *d, int64_t row0, int64_t row1) {
  for (int64_t row = row0; row < row1; row += 4)
    for (int64_t column = 0; column < d->columns; column++)
      for (int64_t c = 0; c < d->channels; c++) {
        float m[6];
        tile_sums(d, row, column, c, m);
        for (int64_t r = 0; r < 4 && row + r < row1; r++) {
          float y = d->bias ? d->bias[c] : 0.0f;
          for (int p = 0; p < 6; p++) y += tile_at[r][p] * m[p];
          if (d->add) y += d->add[(row + r) * d->add_row + column * d->add_pixel + c];
          d->y[(row + r) * d->y_row + column * d->y_pixel + c] = clamp(y, d->lo, d->hi);
        }
      }
}

static void winograd_weights(int64_t group, const float *taps, float *u) {
  for (int64_t k = 0; k < group; k++, taps += 9 * LAMINA_DEPTHWISE_BLOCK)
    for (int i = 0; i < 6; i++)
      for (int t = 0; t < 3 * LAMINA_DEPTHWISE_BLOCK; t++)
        *u++ = tile_g[i][0] * taps[t] + tile_g[i][1] * taps[3 * LAMINA_DEPTHWISE_BLOCK + t] +
               tile_g[i][2] * taps[6 * LAMINA_DEPTHWISE_BLOCK + t];
}

static int scatters(const lamina_depthwise *d) {
  (void)d;
  return 1;
}

/* The row or column of x from which tap i reaches `at`, or -1. */
static int64_t source(const lamina_depthwise_axis *axis, int64_t at, int64_t i) {
  const int64_t from = at - axis->first - i * axis->step;
  return from >= 0 && from % axis->stride == 0 && from / axis->stride < axis->in ? from / axis->stride : -1;
}

static float input_gradient(const lamina_depthwise *d, int64_t row, int64_t column, int64_t c) {
  const int64_t taps = d->h.taps * d->w.taps;
  const float *w = d->weights + c / LAMINA_DEPTHWISE_BLOCK * taps * LAMINA_DEPTHWISE_BLOCK + c % LAMINA_DEPTHWISE_BLOCK;
  float sum = 0.0f;
  for (int64_t t = 0; t < taps; t++) {
    const int64_t o = source(&d->h, row, t / d->w.taps), p = source(&d->w, column, t % d->w.taps);
    if (o >= 0 && p >= 0) sum += d->x[o * d->x_row + p * d->x_pixel + c] * w[t * LAMINA_DEPTHWISE_BLOCK];
  }
  return sum;
}

static void backward_data(const lamina_depthwise *d, int64_t row0, int64_t row1) {
  for (int64_t row = row0; row < row1; row++)
    for (int64_t column = 0; column < d->columns; column++)
      for (int64_t c = 0; c < d->channels; c++) {
        const float sum = input_gradient(d, row, column, c);
        const float add = d->add ? d->add[row * d->add_row + column * d->add_pixel + c] : 0.0f;
        d->y[row * d->y_row + column * d->y_pixel + c] = sum + add;
      }
}

const lamina_depthwise_kernels lamina_generic_depthwise = {
    .forward = forward,
    .grouped = grouped,
    .group_weights = group_weights,
    .backward_weights = backward_weights,
    .winograd = winograd,
    .winograd_weights = winograd_weights,
    .scatters = scatters,
    .backward_data = backward_data,
};
