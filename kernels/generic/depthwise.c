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

static void forward(const lamina_depthwise *d, int64_t row0, int64_t row1) {
  for (int64_t row = row0; row < row1; row++)
    for (int64_t column = 0; column < d->columns; column++) pixel(d, row, column);
}

/* x of channel c in row and column, zero outside of the image. */
static float value(const lamina_depthwise *d, int64_t row, int64_t column, int64_t c) {
  if (row < 0 || row >= d->h.in || column < 0 || column >= d->w.in) return 0;
  return d->x[row * d->x_row + column * d->x_pixel + c];
}

/* B^T of F(2x2, 3x3) along one axis, whose values are `step` apart. */
static void input_points(float *v, int step) {
  const float d0 = v[0], d1 = v[step], d2 = v[2 * step], d3 = v[3 * step];
  v[0] = d0 - d2;
  v[step] = d1 + d2;
  v[2 * step] = d2 - d1;
  v[3 * step] = d3 - d1;
}

/* The sums of channel c at the 16 points of the tile whose first output is (row, column). */
static void tile_products(const lamina_depthwise *d, int64_t row, int64_t column, int64_t c, float m[16]) {
  const int64_t block = c / LAMINA_DEPTHWISE_BLOCK;
  for (int p = 0; p < 16; p++) m[p] = 0;
  for (int64_t k = 0; k < d->group; k++) {
    const float *u = d->weights + (block * d->group + k) * 16 * LAMINA_DEPTHWISE_BLOCK + c % LAMINA_DEPTHWISE_BLOCK;
    float v[16];
    for (int p = 0; p < 16; p++)
      v[p] = value(d, row + d->h.first + p / 4, column + d->w.first + p % 4, c / d->group * d->group + k);
    for (int i = 0; i < 4; i++) input_points(v + i, 4);
    for (int i = 0; i < 4; i++) input_points(v + 4 * i, 1);
    for (int p = 0; p < 16; p++) m[p] += v[p] * u[p * LAMINA_DEPTHWISE_BLOCK];
  }
}

static void winograd(const lamina_depthwise *d, int64_t row0, int64_t row1) {
  for (int64_t row = row0; row < row1; row += 2)
    for (int64_t column = 0; column < d->columns; column += 2)
      for (int64_t c = 0; c < d->channels; c++) {
        float m[16], a[2][4]; /* A^T M */
        tile_products(d, row, column, c, m);
        for (int j = 0; j < 4; j++) {
          a[0][j] = m[j] + m[4 + j] + m[8 + j];
          a[1][j] = m[4 + j] - m[8 + j] + m[12 + j];
        }
        for (int64_t r = 0; r < 2 && row + r < row1; r++)
          for (int64_t s = 0; s < 2 && column + s < d->columns; s++) {
            float y = s ? a[r][1] - a[r][2] + a[r][3] : a[r][0] + a[r][1] + a[r][2];
            if (d->bias) y += d->bias[c];
            if (d->add) y += d->add[(row + r) * d->add_row + (column + s) * d->add_pixel + c];
            d->y[(row + r) * d->y_row + (column + s) * d->y_pixel + c] = clamp(y, d->lo, d->hi);
          }
      }
}

const lamina_depthwise_kernels lamina_generic_depthwise = {
    .forward = forward,
    .grouped = grouped,
    .winograd = winograd,
};
