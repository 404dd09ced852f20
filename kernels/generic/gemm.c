/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The GEMM group in plain C: the specification of the group, and what runs where no other ISA does. Tiles of 4 x 8, so
 * that a compiler that vectorizes for four floats finds registers for the accumulators.
 */
#include <math.h>

#include "generic.h"

#define ROWS 4
#define COLUMNS 8

/* NaN stays: both comparisons are false for it. */
static inline float clamp(float x, float lo, float hi) {
  x = x < lo ? lo : x;
  return x > hi ? hi : x;
}

/* `rows` is a constant in every caller. */
static inline __attribute__((always_inline)) void tile_rows(const lamina_tile *t, const int rows) {
  float sum[ROWS][COLUMNS] = {{0.0f}};
  for (int64_t i = 0; i < t->batch; i++) {
    const float *a = t->a[i], *b = t->b + i * t->b_batch;
    for (int64_t p = 0; p < t->k; p++, a += t->a_k, b += t->b_k) {
#pragma GCC unroll 4
      for (int m = 0; m < rows; m++) {
        const float am = a[m * t->a_row];
#pragma GCC unroll 8
        for (int j = 0; j < COLUMNS; j++) sum[m][j] += am * b[j];
      }
    }
  }
  for (int m = 0; m < rows; m++) {
    float *c = t->c + m * t->c_row;
    for (int j = 0; j < t->n; j++) {
      float x = sum[m][j];
      if (t->accumulate) x += c[j];
      if (t->bias) x += t->bias[j];
      if (t->add) x += t->add[m * t->add_row + j];
      c[j] = clamp(x, t->lo, t->hi);
    }
  }
}

static void tile_1(const lamina_tile *t) { tile_rows(t, 1); }
static void tile_2(const lamina_tile *t) { tile_rows(t, 2); }
static void tile_3(const lamina_tile *t) { tile_rows(t, 3); }
static void tile_4(const lamina_tile *t) { tile_rows(t, 4); }

static void (*const tiles[ROWS + 1])(const lamina_tile *) = {NULL, tile_1, tile_2, tile_3, tile_4};

static void pack_b(int64_t k, int64_t n, const float *b, int64_t b_k, int64_t b_n, const float *scale, float *dst) {
  for (int64_t j0 = 0; j0 < n; j0 += COLUMNS)
    for (int64_t p = 0; p < k; p++)
      for (int64_t j = j0; j < j0 + COLUMNS; j++) {
        float x = j < n ? b[p * b_k + j * b_n] : 0.0f;
        if (scale && j < n) x *= scale[j];
        *dst++ = x;
      }
}

static void transpose(int64_t rows, int64_t cols, const float *src, int64_t src_ld, float *dst, int64_t dst_ld) {
  for (int64_t c = 0; c < cols; c++)
    for (int64_t r = 0; r < rows; r++) dst[c * dst_ld + r] = src[r * src_ld + c];
}

const lamina_gemm_kernels lamina_generic_gemm = {
    .mr = ROWS, .nr = COLUMNS, .tile = tiles, .pack_b = pack_b, .transpose = transpose};
