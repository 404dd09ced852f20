/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of test_kernels share: the tables found, buffers and comparisons. */
#ifndef LAMINA_KERNEL_CASES_H
#define LAMINA_KERNEL_CASES_H

#include "kernel_test.h"

#include <check.h>
#include <float.h>

/* The rounding error of one fp32 operation, relative. */
#define ROUNDING 0x1p-24

extern const lamina_kernels *kernel_tables[TEST_MAX_TABLES];
extern int kernel_table_count;

/* Each adds its tests, looped over the tables found (a test's _i picks one). */
void add_eltwise_tests(TCase *tcase);
void add_norm_tests(TCase *tcase);
void add_pool_tests(TCase *tcase);
void add_row_tests(TCase *tcase); /* softmax and optimizer */
void add_depthwise_tests(TCase *tcase);
void add_winograd_tests(TCase *tcase);

/* A rows x channels matrix in guarded memory, `pad` floats of NaN between its rows. */
typedef struct matrix {
  guarded memory;
  float *data;
  int64_t rows, channels, ld;
} matrix;

static inline matrix matrix_new(int64_t rows, int64_t channels, int64_t pad, guard_side side) {
  matrix m = {.rows = rows, .channels = channels, .ld = channels + pad};
  m.memory = guarded_new(rows > 0 ? (rows - 1) * m.ld + channels : 0, side);
  m.data = m.memory.data;
  return m;
}

static inline matrix matrix_random(test_random *r, int64_t rows, int64_t channels, int64_t pad, guard_side side,
                                   float lo, float hi) {
  matrix m = matrix_new(rows, channels, pad, side);
  for (int64_t i = 0; i < rows; i++) test_random_fill(r, m.data + i * m.ld, channels, lo, hi);
  return m;
}

static inline matrix matrix_copy(const matrix *from, guard_side side) {
  matrix m = matrix_new(from->rows, from->channels, from->ld - from->channels, side);
  if (from->memory.bytes > 0) memcpy(m.data, from->data, from->memory.bytes);
  return m;
}

/* Frees; nothing outside and nothing between the rows may have been written. */
static inline void matrix_free(matrix *m, const char *what) {
  for (int64_t i = 0; i + 1 < m->rows; i++)
    for (int64_t c = m->channels; c < m->ld; c++)
      test_that(isnan(m->data[i * m->ld + c]), "%s: wrote between rows %lld and the next", what, (long long)i);
  test_that(guarded_free(&m->memory), "%s: wrote outside", what);
}

static inline int same_bits(const float *a, const float *b, int64_t n) {
  return n == 0 || memcmp(a, b, (size_t)n * sizeof(float)) == 0;
}

/* NaN for NaN, infinity for infinity, else |got - want| <= bound. */
static inline int close_to(float got, double want, double bound) {
  if (isnan(want)) return isnan(got);
  if (isinf(want)) return (double)got == want;
  return fabs((double)got - want) <= bound;
}

#define assert_close(got, want, bound, format, ...)                                                                    \
  test_that(close_to(got, want, bound), "%s: " format ": %.9g instead of %.9g (bound %.3g)", kernels->isa,         \
                __VA_ARGS__, (double)(got), (double)(want), (double)(bound))

#endif
