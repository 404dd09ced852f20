/* SPDX-License-Identifier: Apache-2.0 */
/* Normalisations: what their files share. */
#ifndef LAMINA_NORMS_H
#define LAMINA_NORMS_H

#include "../module.h"

extern const lamina_layer norms_group_norm, norms_instance_norm, norms_layer_norm, norms_rms_norm, norms_batch_renorm;

enum { NORM_LANES = 16 /* sums of a row go side by side in so many accumulators, in a fixed order */ };

/* Rows whose gradients of weight and bias are summed in one task, before the tasks' sums are added in order. */
enum { NORM_BLOCK_ROWS = 64 };

/* sums[c] over `rows` rows of n columns: of a; of (a - shift)^2; or of (a - shift) * b. In blocks of rows, merged in double. */
enum { NORM_PLAIN, NORM_SQUARES, NORM_PRODUCTS };
enum { NORM_SPAN = 64 /* columns at a time */, NORM_SUM_ROWS = 64 /* rows summed in float */ };

MODULE_INLINE void norms_column_sums(int form, int64_t rows, int64_t n, const float *a, int64_t lda, const float *b,
                                     int64_t ldb, const float *shift, double *sums) {
  float part[NORM_SPAN];
  for (int64_t c0 = 0; c0 < n; c0 += NORM_SPAN) {
    const int64_t width = module_min(NORM_SPAN, n - c0);
    for (int64_t c = 0; c < width; c++) sums[c0 + c] = 0;
    for (int64_t r0 = 0; r0 < rows; r0 += NORM_SUM_ROWS) {
      for (int64_t c = 0; c < width; c++) part[c] = 0;
      for (int64_t r = r0; r < module_min(r0 + NORM_SUM_ROWS, rows); r++) {
        const float *u = a + r * lda + c0, *v = b + r * ldb + c0, *s = shift + c0;
        if (form == NORM_PLAIN)
          for (int64_t c = 0; c < width; c++) part[c] += u[c];
        else if (form == NORM_SQUARES)
          for (int64_t c = 0; c < width; c++) part[c] += (u[c] - s[c]) * (u[c] - s[c]);
        else
          for (int64_t c = 0; c < width; c++) part[c] += (u[c] - s[c]) * v[c];
      }
      for (int64_t c = 0; c < width; c++) sums[c0 + c] += part[c];
    }
  }
}

/* Adds `blocks` partial sums of n floats, `stride` floats apart, in double and in order; to = or += the result. */
static inline void norms_add_blocks(const float *from, int64_t blocks, int64_t stride, int64_t n, int add, float *to) {
  for (int64_t c = 0; c < n; c++) {
    double sum = 0;
    for (int64_t b = 0; b < blocks; b++) sum += from[b * stride + c];
    to[c] = (float)(add ? to[c] + sum : sum);
  }
}

#endif
