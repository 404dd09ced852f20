/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The convolution tiles of one ISA: conv_tile.h for 1 to CONV_ROWS rows, and the array that the table points to.
 *
 * The includer defines CONV_ROWS, CONV_VECTORS (2 or 3: the vectors of a panel of weights) and CONV_WIDE_ROWS (with 2:
 * the rows up to which a tile of two panels has enough registers), includes its vec.h, and gives vf tile_fma(const
 * float *a, vf b, vf c)    *a * b + c, by whatever the ISA has for a scalar from memory
 */
#include "kernels.h"

#include <math.h>
#include <stddef.h>

#if CONV_ROWS > 14 || CONV_WIDE_ROWS > CONV_ROWS || CONV_ROWS < 6
#error "CONV_ROWS or CONV_WIDE_ROWS is not in its range"
#endif

#define TILE_LINE 64 /* bytes of a cache line */
#define TILE_PASTE(rows, vectors) conv_tile_##rows##x##vectors
#define TILE_NAME(rows, vectors) TILE_PASTE(rows, vectors)
#define TILE_ONE_PASTE(rows, vectors) conv_one_##rows##x##vectors
#define TILE_ONE(rows, vectors) TILE_ONE_PASTE(rows, vectors)
#define TILE_ROWS_PASTE(rows) conv_tiles_##rows
#define TILE_ROWS_NAME(rows) TILE_ROWS_PASTE(rows)

/* The same pointer, of which the compiler no longer knows where it came from: it neither derives it anew
   in a loop nor keeps many such for later. */
static inline void *tile_hidden(const void *p) {
  __asm__("" : "+r"(p));
  return (void *)(uintptr_t)p;
}

/* The epilogue of a tile with n < vectors * VF_LEN: `sum` is rows x vectors, dense. */
static void tile_edge(const lamina_conv_tile *t, int rows, int vectors, const float *sum) {
  const vf lo = vf_set1(t->lo), hi = vf_set1(t->hi);
  for (int m = 0; m < rows; m++)
    for (int v = 0, left = t->n; v < vectors && left > 0; v++, left -= VF_LEN) {
      const int n = left < VF_LEN ? left : VF_LEN;
      float *c = t->c + m * t->c_row + v * VF_LEN;
      vf x = vf_load(sum + (m * vectors + v) * VF_LEN);
      if (t->accumulate) x = vf_add(x, vf_load_n(c, n));
      if (t->bias) x = vf_add(x, vf_load_n(t->bias + v * VF_LEN, n));
      if (t->add) x = vf_add(x, vf_load_n(t->add + m * t->add_row + v * VF_LEN, n));
      vf_store_n(c, vf_min(hi, vf_max(lo, x)), n);
    }
}

#define TILE_ROWS 1
#include "conv_rows.h"
#define TILE_ROWS 2
#include "conv_rows.h"
#define TILE_ROWS 3
#include "conv_rows.h"
#define TILE_ROWS 4
#include "conv_rows.h"
#define TILE_ROWS 5
#include "conv_rows.h"
#define TILE_ROWS 6
#include "conv_rows.h"
#if CONV_ROWS >= 7
#define TILE_ROWS 7
#include "conv_rows.h"
#endif
#if CONV_ROWS >= 8
#define TILE_ROWS 8
#include "conv_rows.h"
#endif
#if CONV_ROWS >= 9
#define TILE_ROWS 9
#include "conv_rows.h"
#endif
#if CONV_ROWS >= 10
#define TILE_ROWS 10
#include "conv_rows.h"
#endif
#if CONV_ROWS >= 11
#define TILE_ROWS 11
#include "conv_rows.h"
#endif
#if CONV_ROWS >= 12
#define TILE_ROWS 12
#include "conv_rows.h"
#endif
#if CONV_ROWS >= 13
#define TILE_ROWS 13
#include "conv_rows.h"
#endif
#if CONV_ROWS >= 14
#define TILE_ROWS 14
#include "conv_rows.h"
#endif

/* By the number of rows. */
static void (*const *const conv_tiles[CONV_ROWS + 1])(lamina_conv_tile *) = {
    NULL,          conv_tiles_1, conv_tiles_2, conv_tiles_3, conv_tiles_4, conv_tiles_5, conv_tiles_6,
#if CONV_ROWS >= 7
    conv_tiles_7,
#endif
#if CONV_ROWS >= 8
    conv_tiles_8,
#endif
#if CONV_ROWS >= 9
    conv_tiles_9,
#endif
#if CONV_ROWS >= 10
    conv_tiles_10,
#endif
#if CONV_ROWS >= 11
    conv_tiles_11,
#endif
#if CONV_ROWS >= 12
    conv_tiles_12,
#endif
#if CONV_ROWS >= 13
    conv_tiles_13,
#endif
#if CONV_ROWS >= 14
    conv_tiles_14,
#endif
};
