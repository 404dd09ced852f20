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

const lamina_depthwise_kernels lamina_generic_depthwise = {
    .forward = forward,
    .grouped = grouped,
    .backward_weights = backward_weights,
};
