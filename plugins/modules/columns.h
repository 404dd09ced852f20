/* SPDX-License-Identifier: Apache-2.0 */
/* Sums over the rows of a matrix, for each of its columns. */
#ifndef LAMINA_MODULE_COLUMNS_H
#define LAMINA_MODULE_COLUMNS_H

#include "module.h"

/* sums[c] over `rows` rows of n columns: of a; of (a - shift)^2; of (a - shift) * b; or of a * b. In blocks of rows, merged in double. */
enum { COLUMN_PLAIN, COLUMN_SQUARES, COLUMN_PRODUCTS, COLUMN_DOT };
enum { COLUMN_SPAN = 64 /* columns at a time */, COLUMN_ROWS = 64 /* rows summed in float */ };

MODULE_INLINE void module_column_sums(int form, int64_t rows, int64_t n, const float *a, int64_t lda, const float *b,
                                     int64_t ldb, const float *shift, double *sums) {
  float part[COLUMN_SPAN];
  for (int64_t c0 = 0; c0 < n; c0 += COLUMN_SPAN) {
    const int64_t width = module_min(COLUMN_SPAN, n - c0);
    for (int64_t c = 0; c < width; c++) sums[c0 + c] = 0;
    for (int64_t r0 = 0; r0 < rows; r0 += COLUMN_ROWS) {
      for (int64_t c = 0; c < width; c++) part[c] = 0;
      for (int64_t r = r0; r < module_min(r0 + COLUMN_ROWS, rows); r++) {
        const float *u = a + r * lda + c0, *v = b ? b + r * ldb + c0 : NULL, *s = shift ? shift + c0 : NULL;
        if (form == COLUMN_PLAIN)
          for (int64_t c = 0; c < width; c++) part[c] += u[c];
        else if (form == COLUMN_SQUARES)
          for (int64_t c = 0; c < width; c++) part[c] += (u[c] - s[c]) * (u[c] - s[c]);
        else if (form == COLUMN_PRODUCTS)
          for (int64_t c = 0; c < width; c++) part[c] += (u[c] - s[c]) * v[c];
        else
          for (int64_t c = 0; c < width; c++) part[c] += u[c] * v[c];
      }
      for (int64_t c = 0; c < width; c++) sums[c0 + c] += part[c];
    }
  }
}

#endif
