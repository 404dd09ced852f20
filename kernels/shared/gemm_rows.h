/* SPDX-License-Identifier: Apache-2.0 */
/* Template: the tiles of TILE_ROWS rows for 1 to GEMM_VECTORS vectors, so that few columns do not cost as many as nr. */

#define TILE_VECTORS 1
#include "gemm_tile.h"
#undef TILE_VECTORS
#define TILE_VECTORS 2
#include "gemm_tile.h"
#undef TILE_VECTORS
#if GEMM_VECTORS > 2
#define TILE_VECTORS 3
#include "gemm_tile.h"
#undef TILE_VECTORS
#endif

static void TILE_ROWS_NAME(TILE_ROWS)(const lamina_tile *t) {
  if (t->n <= VF_LEN) TILE_NAME(TILE_ROWS, 1)(t);
#if GEMM_VECTORS > 2
  else if (t->n > 2 * VF_LEN) TILE_NAME(TILE_ROWS, 3)(t);
#endif
  else TILE_NAME(TILE_ROWS, 2)(t);
}

#undef TILE_ROWS
