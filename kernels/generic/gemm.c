/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The GEMM group in C without intrinsics: the specification of the group, and what runs where no other ISA does. Tiles
 * of 4 x 8, whose accumulators fit into any machine's registers. They have the compilers' own vector type, since left to
 * vectorize loops over floats, gcc and clang reach a quarter of the speed.
 */
#include <string.h>

#include "generic.h"

#define ROWS 4
#define COLUMNS 8
#define BLOCK 16 /* floats of a cache line */

typedef float quad __attribute__((vector_size(16)));

/* NaN stays: both comparisons are false for it. */
static inline float clamp(float x, float lo, float hi) {
  x = x < lo ? lo : x;
  return x > hi ? hi : x;
}

/* `rows` is a constant in every caller. */
static inline __attribute__((always_inline)) void tile_once(const lamina_tile *t, int64_t row, const int rows) {
  quad acc[ROWS][COLUMNS / 4] = {{{0.0f}}};
  for (int64_t i = 0; i < t->batch; i++) {
    const float *a = t->a[i] + row * t->a_row, *b = t->b + i * t->b_batch;
    for (int64_t p = 0; p < t->k; p++, a += t->a_k, b += t->b_k) {
      quad bp[COLUMNS / 4];
      memcpy(bp, b, sizeof bp);
#pragma GCC unroll 4
      for (int m = 0; m < rows; m++) {
#pragma GCC unroll 2
        for (int v = 0; v < COLUMNS / 4; v++) acc[m][v] += a[m * t->a_row] * bp[v];
      }
    }
  }
  float sum[ROWS][COLUMNS];
  memcpy(sum, acc, sizeof sum);
  for (int m = 0; m < rows; m++) {
    float *c = t->c + (row + m) * t->c_row;
    for (int j = 0; j < t->n; j++) {
      float x = sum[m][j];
      if (t->accumulate) x += c[j];
      if (t->bias) x += t->bias[j];
      if (t->add) x += t->add[(row + m) * t->add_row + j];
      c[j] = clamp(x, t->lo, t->hi);
    }
  }
}

static inline __attribute__((always_inline)) void tile_rows(const lamina_tile *t, const int rows) {
  for (int64_t i = 0; i <= t->more; i++) tile_once(t, i * rows, rows);
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

/* By blocks, so that the lines of both sides stay in the cache until they are used up. */
static void transpose(int64_t rows, int64_t cols, const float *src, int64_t src_ld, float *dst, int64_t dst_ld) {
  for (int64_t c0 = 0; c0 < cols; c0 += BLOCK)
    for (int64_t r0 = 0; r0 < rows; r0 += BLOCK)
      for (int64_t c = c0; c < cols && c < c0 + BLOCK; c++)
        for (int64_t r = r0; r < rows && r < r0 + BLOCK; r++) dst[c * dst_ld + r] = src[r * src_ld + c];
}

static const lamina_gemm_shape shapes[] = {{ROWS, 1, tiles}};

static void stream_end(void) {}

const lamina_gemm_kernels lamina_generic_gemm = {.mr = ROWS,
                                                 .nr = COLUMNS,
                                                 .tile = tiles,
                                                 .stream_end = stream_end,
                                                 .pack_b = pack_b,
                                                 .stream_b = pack_b,
                                                 .transpose = transpose,
                                                 .shapes = 1,
                                                 .shape = shapes};
