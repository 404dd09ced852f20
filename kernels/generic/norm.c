/* SPDX-License-Identifier: Apache-2.0 */
/* Per-channel statistics and normalisation of a rows x channels matrix: the specification of the norm group. */
#include "generic.h"

#include "shared/norm_merge_body.h" /* plain C */

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
                      int stream, float *y, int64_t y_ld) {
  (void)stream;
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t c = 0; c < channels; c++) {
      float v = (x[r * x_ld + c] - mean[c]) * scale[c] + offset[c];
      if (add) v += add[r * add_ld + c];
      y[r * y_ld + c] = clamp(v, lo, hi);
    }
  }
}

/* What the clamp lets through of dy at row r and channel c. */
static float through(const lamina_norm_backward *b, int64_t r, int64_t c) {
  const float dy = b->dy[r * b->dy_ld + c];
  if (!b->y && !b->scale) return dy;
  const float z =
      b->y ? b->y[r * b->y_ld + c] : (b->x[r * b->x_ld + c] - b->mean[c]) * b->scale[c] + b->offset[c]; /* as normalize */
  return z <= b->lo || z >= b->hi ? 0.0f : dy;
}

static void backward_reduce(const lamina_norm_backward *b) {
  for (int64_t c = 0; c < b->channels; c++) b->sum_dz[c] = b->sum_dz_xc[c] = 0.0f;
  for (int64_t r = 0; r < b->rows; r++)
    for (int64_t c = 0; c < b->channels; c++) {
      const float dz = through(b, r, c);
      b->sum_dz[c] += dz;
      b->sum_dz_xc[c] += dz * (b->x[r * b->x_ld + c] - b->mean[c]);
    }
}

static void backward_apply(const lamina_norm_backward *b) {
  for (int64_t r = 0; r < b->rows; r++)
    for (int64_t c = 0; c < b->channels; c++) {
      const float dz = through(b, r, c);
      const float v = b->a[c] * dz + (b->b[c] * (b->x[r * b->x_ld + c] - b->mean[c]) + b->d[c]);
      float *dx = b->dx ? b->dx + r * b->dx_ld + c : NULL, *d_add = b->y && b->d_add ? b->d_add + r * b->d_add_ld + c : NULL;
      if (dx) *dx = b->accumulate ? *dx + v : v;
      if (d_add) *d_add = b->accumulate_add ? *d_add + dz : dz;
    }
}

static void column_sum(int64_t rows, int64_t channels, const float *x, int64_t ld, float *sum) {
  for (int64_t c = 0; c < channels; c++) sum[c] = 0.0f;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < channels; c++) sum[c] += x[r * ld + c];
}

const lamina_norm_kernels lamina_generic_norm = {
    .moments = moments,
    .merge = norm_merge,
    .merge_moments = norm_merge_moments,
    .finish = norm_finish,
    .normalize = normalize,
    .backward_reduce = backward_reduce,
    .backward_apply = backward_apply,
    .column_sum = column_sum,
};
