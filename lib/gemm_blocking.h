/* SPDX-License-Identifier: Apache-2.0 */
/* How a matrix product is cut up: which tiles, how deep, how many tasks. A function of its shape and the caches alone. */
#ifndef LAMINA_GEMM_BLOCKING_H
#define LAMINA_GEMM_BLOCKING_H

#include "core.h"

typedef struct lamina_gemm_blocking {
  const lamina_gemm_shape *shape; /* of the tiles */
  int64_t tiles, row_blocks;      /* tiles of rows in C; blocks that they are spread over */
  int64_t panels;                 /* of nr columns */
  int64_t groups, column_blocks;  /* of panels that a tile reads side by side; blocks that they are spread over */
  bool along_rows;                /* of blocks: all columns of some rows follow each other, not all rows of a column */
  int64_t chunks;                 /* of depth */
  int64_t max_rows, max_depth;    /* of a block, of a chunk */
  bool pack_a, pack_b;
  bool fetch_c; /* C comes from memory */
  bool stream;  /* C is written past the caches */
  bool b_in_l3; /* it is larger than L2, and may well be in L3 */
} lamina_gemm_blocking;

static inline int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0); }

/* Start of part i of n even parts of `total`. */
static inline int64_t lamina_part(int64_t total, int64_t n, int64_t i) {
  const int64_t rest = total % n;
  return total / n * i + (i < rest ? i : rest);
}

lamina_gemm_blocking lamina_gemm_cut(const lamina_context *context, const lamina_gemm *g);
/* Floats of a thread's copies of A and B, whatever the strides; both 0 when there are never any. */
size_t lamina_gemm_a_floats(const lamina_context *context, const lamina_gemm *g);
size_t lamina_gemm_b_floats(const lamina_context *context, const lamina_gemm *g);
/* Row stride of packed A: whole lines, an odd number of them. */
int64_t lamina_gemm_a_stride(int64_t n);

#endif
