/* SPDX-License-Identifier: Apache-2.0 */
/* Template: the convolution tiles of TILE_ROWS rows, for the vectors of one panel and, if CONV_WIDE_ROWS allows, of
 * two. */

#define TILE_VECTORS 1
#include "conv_tile.h"
#undef TILE_VECTORS
#define TILE_VECTORS 2
#include "conv_tile.h"
#undef TILE_VECTORS
#if CONV_VECTORS == 3
#define TILE_VECTORS 3
#include "conv_tile.h"
#undef TILE_VECTORS
#elif TILE_ROWS <= CONV_WIDE_ROWS
#define TILE_VECTORS 4
#include "conv_tile.h"
#undef TILE_VECTORS
#endif

/* By the number of vectors. */
static void (*const TILE_ROWS_NAME(TILE_ROWS)[])(lamina_conv_tile *) = {
    NULL,
    TILE_NAME(TILE_ROWS, 1),
    TILE_NAME(TILE_ROWS, 2),
#if CONV_VECTORS == 3
    TILE_NAME(TILE_ROWS, 3),
#else
    NULL,
#if TILE_ROWS <= CONV_WIDE_ROWS
    TILE_NAME(TILE_ROWS, 4),
#endif
#endif
};

#undef TILE_ROWS
