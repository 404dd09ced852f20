/* SPDX-License-Identifier: Apache-2.0 */
/* Per-channel statistics and normalisation of a rows x channels matrix: the specification of the norm group. */
#include "generic.h"

static float clamp(float v, float lo, float hi) {
  if (v < lo) return lo;
  return v > hi ? hi : v; /* both comparisons are false for NaN, which stays */
}

static void moments(int64_t rows, int64_t channels, const float *x, int64_t ld, const float *shift, float *sum,
                    float *sum_sq) {
  for (int64_t c = 0; c < channels; c++) sum[c] = sum_sq[c] = 0.0f;
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t c = 0; c < channels; c++) {
      float d = x[r * ld + c] - shift[c];
      sum[c] += d;
      sum_sq[c] += d * d;
    }
  }
}

static void normalize(int64_t rows, int64_t channels, const float *x, int64_t x_ld, const float *mean,
                      const float *scale, const float *offset, const float *add, int64_t add_ld, float lo, float hi,
                      float *y, int64_t y_ld) {
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t c = 0; c < channels; c++) {
      float v = (x[r * x_ld + c] - mean[c]) * scale[c] + offset[c];
      if (add) v += add[r * add_ld + c];
      y[r * y_ld + c] = clamp(v, lo, hi);
    }
  }
}

static void backward_reduce(int64_t rows, int64_t channels, const float *x, int64_t x_ld, const float *dy,
                            int64_t dy_ld, const float *mean, float *sum_dy, float *sum_dy_xc) {
  for (int64_t c = 0; c < channels; c++) sum_dy[c] = sum_dy_xc[c] = 0.0f;
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t c = 0; c < channels; c++) {
      float g = dy[r * dy_ld + c];
      sum_dy[c] += g;
      sum_dy_xc[c] += g * (x[r * x_ld + c] - mean[c]);
    }
  }
}

static void backward_apply(int64_t rows, int64_t channels, const float *x, int64_t x_ld, const float *dy, int64_t dy_ld,
                           const float *mean, const float *a, const float *b, const float *d, int accumulate, float *dx,
                           int64_t dx_ld) {
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t c = 0; c < channels; c++) {
      float v = a[c] * dy[r * dy_ld + c] + (b[c] * (x[r * x_ld + c] - mean[c]) + d[c]);
      dx[r * dx_ld + c] = accumulate ? dx[r * dx_ld + c] + v : v;
    }
  }
}

static void column_sum(int64_t rows, int64_t channels, const float *x, int64_t ld, float *sum) {
  for (int64_t c = 0; c < channels; c++) sum[c] = 0.0f;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < channels; c++) sum[c] += x[r * ld + c];
}

const lamina_norm_kernels lamina_generic_norm = {
    .moments = moments,
    .normalize = normalize,
    .backward_reduce = backward_reduce,
    .backward_apply = backward_apply,
    .column_sum = column_sum,
};
