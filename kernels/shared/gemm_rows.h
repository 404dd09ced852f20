/* SPDX-License-Identifier: Apache-2.0 */
/* Template: the tiles of TILE_ROWS rows for every number of vectors, so that few columns do not cost as many as all. */

#define TILE_HALF 0
#define TILE_VECTORS 1
#include "gemm_tile.h"
#undef TILE_VECTORS
#define TILE_VECTORS 2
#include "gemm_tile.h"
#undef TILE_VECTORS
#if GEMM_VECTORS > 2 || TILE_ROWS <= GEMM_WIDE_ROWS
#define TILE_VECTORS 3
#include "gemm_tile.h"
#undef TILE_VECTORS
#endif
#if TILE_ROWS <= GEMM_WIDE_ROWS
#define TILE_VECTORS 4
#include "gemm_tile.h"
#undef TILE_VECTORS
#endif
#if (GEMM_VECTORS > 2 && TILE_ROWS <= GEMM_WIDE_ROWS) || TILE_ROWS <= GEMM_THIN_ROWS
#define TILE_VECTORS 5
#include "gemm_tile.h"
#undef TILE_VECTORS
#define TILE_VECTORS 6
#include "gemm_tile.h"
#undef TILE_VECTORS
#endif
#if TILE_ROWS <= GEMM_THIN_ROWS
#define TILE_VECTORS 7
#include "gemm_tile.h"
#undef TILE_VECTORS
#define TILE_VECTORS 8
#include "gemm_tile.h"
#undef TILE_VECTORS
#if GEMM_VECTORS > 2
#define TILE_VECTORS 9
#include "gemm_tile.h"
#undef TILE_VECTORS
#define TILE_VECTORS 10
#include "gemm_tile.h"
#undef TILE_VECTORS
#define TILE_VECTORS 11
#include "gemm_tile.h"
#undef TILE_VECTORS
#define TILE_VECTORS 12
#include "gemm_tile.h"
#undef TILE_VECTORS
#endif
#endif
#undef TILE_HALF
#if GEMM_HALF
#define TILE_HALF 1
#define TILE_VECTORS 0
#include "gemm_tile.h"
#undef TILE_VECTORS
#define TILE_VECTORS 1
#include "gemm_tile.h"
#undef TILE_VECTORS
#undef TILE_HALF
#endif

#if GEMM_SHORT && TILE_ROWS + 1 >= GEMM_ROWS
#define TILE_VECTORS GEMM_VECTORS
#define TILE_HALF 0
#include "gemm_short.h"
#undef TILE_HALF
#undef TILE_VECTORS
#endif

#if GEMM_PAIRS && TILE_ROWS == 4
#define TILE_TWICE gemm_tile_8x1_0
#elif GEMM_PAIRS && TILE_ROWS == 5
#define TILE_TWICE gemm_tile_10x1_0
#elif GEMM_PAIRS && TILE_ROWS == 6
#define TILE_TWICE gemm_tile_12x1_0
#endif

static void TILE_ROWS_NAME(gemm_tile_, TILE_ROWS)(const lamina_tile *t) {
#ifdef TILE_TWICE
  if (t->n <= VF_LEN && t->more > 0 && t->batch == 1) {
    tile_pairs(t, TILE_ROWS, TILE_TWICE, TILE_NAME(TILE_ROWS, 1, 0));
    return;
  }
#undef TILE_TWICE
#endif
#if GEMM_HALF
  if (t->n <= VF_LEN / 2) TILE_NAME(TILE_ROWS, 0, 1)(t);
  else if (t->n > VF_LEN && t->n <= VF_LEN + VF_LEN / 2) TILE_NAME(TILE_ROWS, 1, 1)(t);
  else
#endif
  if (t->n <= VF_LEN) TILE_NAME(TILE_ROWS, 1, 0)(t);
#if GEMM_VECTORS > 2
  else if (t->n > 2 * VF_LEN) TILE_NAME(TILE_ROWS, 3, 0)(t);
#endif
#if GEMM_SHORT && TILE_ROWS + 1 >= GEMM_ROWS
  else if (t->k <= TILE_SHORT && t->k >= TILE_TAIL && t->batch == 1) TILE_SHORT_NAME(TILE_ROWS, GEMM_VECTORS)(t);
#endif
  else TILE_NAME(TILE_ROWS, 2, 0)(t);
}

#if TILE_ROWS <= GEMM_WIDE_ROWS
static void TILE_ROWS_NAME(gemm_wide_, TILE_ROWS)(const lamina_tile *t) {
#if GEMM_VECTORS > 2
  if (t->n > 5 * VF_LEN) TILE_NAME(TILE_ROWS, 6, 0)(t);
  else if (t->n > 4 * VF_LEN) TILE_NAME(TILE_ROWS, 5, 0)(t);
  else if (t->n > 3 * VF_LEN) TILE_NAME(TILE_ROWS, 4, 0)(t);
#else
  if (t->n > 3 * VF_LEN) TILE_NAME(TILE_ROWS, 4, 0)(t);
  else if (t->n > 2 * VF_LEN) TILE_NAME(TILE_ROWS, 3, 0)(t);
#endif
  else TILE_ROWS_NAME(gemm_tile_, TILE_ROWS)(t);
}
#endif

#if TILE_ROWS <= GEMM_THIN_ROWS
static void TILE_ROWS_NAME(gemm_thin_, TILE_ROWS)(const lamina_tile *t) {
#if GEMM_VECTORS > 2
  if (t->n > 11 * VF_LEN) TILE_NAME(TILE_ROWS, 12, 0)(t);
  else if (t->n > 10 * VF_LEN) TILE_NAME(TILE_ROWS, 11, 0)(t);
  else if (t->n > 9 * VF_LEN) TILE_NAME(TILE_ROWS, 10, 0)(t);
  else if (t->n > 8 * VF_LEN) TILE_NAME(TILE_ROWS, 9, 0)(t);
  else
#endif
  if (t->n > 7 * VF_LEN) TILE_NAME(TILE_ROWS, 8, 0)(t);
  else if (t->n > 6 * VF_LEN) TILE_NAME(TILE_ROWS, 7, 0)(t);
#if GEMM_VECTORS == 2
  else if (t->n > 5 * VF_LEN) TILE_NAME(TILE_ROWS, 6, 0)(t);
  else if (t->n > 4 * VF_LEN) TILE_NAME(TILE_ROWS, 5, 0)(t);
#endif
  else TILE_ROWS_NAME(gemm_wide_, TILE_ROWS)(t);
}
#endif

#undef TILE_ROWS
