/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tiles of one ISA: gemm_tile.h for 1 to GEMM_ROWS rows, and the arrays that the table points to.
 *
 * The includer defines GEMM_ROWS and GEMM_VECTORS (2 or 3) for one panel, GEMM_WIDE_ROWS for two panels side by side,
 * GEMM_THIN_ROWS for four, includes its vec.h, and gives
 *   vf tile_fma(const float *a, vf b, vf c)    *a * b + c, by whatever the ISA has for a scalar from memory
 * With GEMM_SHORT, tiles of (about) GEMM_ROWS rows stagger their ends where sums are short (gemm_short.h). With
 * GEMM_MASKS, few lanes are loaded and stored without branches. With GEMM_PAIRS, for tiles of up
 * to 6 rows, those of one vector run two by two. With GEMM_HALF, for processors that do half a
 * vector in half the time, also the type tile_half and tile_half_zero, tile_half_load, tile_half_fma as for vf;
 * tile_half_widen, to a vf whose upper half is zero
 */
#include "kernels.h"

#include <math.h>
#include <stddef.h>

#if GEMM_ROWS > LAMINA_GEMM_MAX_MR
#error "more rows than LAMINA_GEMM_MAX_MR"
#endif

#define TILE_MOST 24                                           /* accumulators of a tile */
#define TILE_LINE 64                                           /* bytes of a cache line */
#define TILE_TWO_LINES (GEMM_VECTORS * VF_LEN * 4 > TILE_LINE) /* in a row of a panel */
#define TILE_TAIL 4                                            /* last steps in depth of the tiles for short sums, */
#define TILE_SHORT 128                                         /* which are those up to such a depth */
#define TILE_AHEAD 16                                          /* steps in depth that the wide tiles fetch ahead */
#define TILE_PASTE(rows, vectors, half) gemm_tile_##rows##x##vectors##_##half
#define TILE_NAME(rows, vectors, half) TILE_PASTE(rows, vectors, half)
#define TILE_SHORT_PASTE(rows, vectors) gemm_short_##rows##x##vectors
#define TILE_SHORT_NAME(rows, vectors) TILE_SHORT_PASTE(rows, vectors)
#define TILE_ROWS_PASTE(prefix, rows) prefix##rows
#define TILE_ROWS_NAME(prefix, rows) TILE_ROWS_PASTE(prefix, rows)
#define TILE_ALL (TILE_VECTORS + TILE_HALF)
/* Where vector v begins, from the first panel's row: panels 1, 2 and 3 are indices as they are, or scaled. */
#define TILE_PANEL(v) ((v) / GEMM_VECTORS == 3 ? panel3 : (v) / GEMM_VECTORS * panel)

/* The same pointer, of which the compiler no longer knows where it came from: it cannot derive it anew in the loop. */
static inline void *tile_hidden(const void *p) {
  __asm__("" : "+r"(p));
  return (void *)(uintptr_t)p;
}

#if !GEMM_MASKS
/* The epilogue of a tile with n < vectors * VF_LEN: `sum` is rows x vectors, dense. */
static void tile_edge(const lamina_tile *t, float *to, const float *add, int rows, int vectors, const float *sum) {
  const vf lo = vf_set1(t->lo), hi = vf_set1(t->hi);
  for (int m = 0; m < rows; m++)
    for (int v = 0, left = t->n; v < vectors && left > 0; v++, left -= VF_LEN) {
      const int n = left < VF_LEN ? left : VF_LEN;
      float *c = to + m * t->c_row + v * VF_LEN;
      vf x = vf_load(sum + (m * vectors + v) * VF_LEN);
      if (t->accumulate) x = vf_add(x, vf_load_n(c, n));
      if (t->bias) x = vf_add(x, vf_load_n(t->bias + v * VF_LEN, n));
      if (add) x = vf_add(x, vf_load_n(add + m * t->add_row + v * VF_LEN, n));
      vf_store_n(c, vf_min(hi, vf_max(lo, x)), n);
    }
}
#endif

#ifndef TILE_STORE_N
#define TILE_STORE_N vf_store_n
#endif
/* The n first lanes at an edge, else all. */
static inline vf tile_load(const float *p, int edge, int n) { return edge ? vf_load_n(p, n) : vf_load(p); }
static inline void tile_store(float *p, vf x, int edge, int n) {
  if (edge)
    TILE_STORE_N(p, x, n);
  else
    vf_store(p, x);
}

/* The epilogue of a tile whose last vector, at an edge, is not all written. `rows`, `vectors`, `edge` and `streams`,
   whether C may be written past the caches, are constants. */
static inline __attribute__((always_inline)) void tile_finish(const lamina_tile *t, float *c, const float *add,
                                                              const int rows, const int vectors, const int edge,
                                                              const int streams, vf *acc) {
#if !GEMM_MASKS
  if (edge) { /* vf_load_n branches on the number of lanes: once, not in each unrolled row */
    float sum[TILE_MOST * VF_LEN];
#pragma GCC unroll 24
    for (int i = 0; i < rows * vectors; i++) vf_store(sum + i * VF_LEN, acc[i]);
    tile_edge(t, c, add, rows, vectors, sum);
    return;
  }
#endif
  const int left = t->n - (vectors - 1) * VF_LEN; /* lanes of the last vector */
  /* Pointers that go from row to row: the compiler would keep those of all rows, in mask registers, from which they
     come back only after the FMAs that wait before them. */
  const ptrdiff_t c_row = t->c_row;
  if (t->accumulate) {
    const float *old = c;
#pragma GCC unroll 16
    for (int m = 0; m < rows; m++, old = tile_hidden(old + c_row))
#pragma GCC unroll 16
      for (int v = 0; v < vectors; v++)
        acc[m * vectors + v] =
            vf_add(acc[m * vectors + v], tile_load(old + v * VF_LEN, edge && v == vectors - 1, left));
  }
  if (t->bias) {
#pragma GCC unroll 16
    for (int v = 0; v < vectors; v++) {
      const vf bias = tile_load(t->bias + v * VF_LEN, edge && v == vectors - 1, left);
#pragma GCC unroll 16
      for (int m = 0; m < rows; m++) acc[m * vectors + v] = vf_add(acc[m * vectors + v], bias);
    }
  }
  if (add) {
    const ptrdiff_t add_row = t->add_row;
#pragma GCC unroll 16
    for (int m = 0; m < rows; m++, add = tile_hidden(add + add_row))
#pragma GCC unroll 16
      for (int v = 0; v < vectors; v++)
        acc[m * vectors + v] =
            vf_add(acc[m * vectors + v], tile_load(add + v * VF_LEN, edge && v == vectors - 1, left));
  }
  if (t->lo > -INFINITY || t->hi < INFINITY) {
    const vf lo = vf_set1(t->lo), hi = vf_set1(t->hi);
#pragma GCC unroll 16
    for (int m = 0; m < rows; m++)
#pragma GCC unroll 16
      for (int v = 0; v < vectors; v++) acc[m * vectors + v] = vf_min(hi, vf_max(lo, acc[m * vectors + v]));
  }
  if (streams && t->stream) {
#pragma GCC unroll 16
    for (int m = 0; m < rows; m++, c = tile_hidden(c + c_row))
#pragma GCC unroll 16
      for (int v = 0; v < vectors; v++) vf_stream(c + v * VF_LEN, acc[m * vectors + v]);
    return;
  }
#pragma GCC unroll 16
  for (int m = 0; m < rows; m++, c = tile_hidden(c + c_row))
#pragma GCC unroll 16
    for (int v = 0; v < vectors; v++) tile_store(c + v * VF_LEN, acc[m * vectors + v], edge && v == vectors - 1, left);
}

#if GEMM_PAIRS
#define TILE_HALF 0
#define TILE_VECTORS 1
#define TILE_ROWS 8
#include "gemm_tile.h"
#undef TILE_ROWS
#define TILE_ROWS 10
#include "gemm_tile.h"
#undef TILE_ROWS
#define TILE_ROWS 12
#include "gemm_tile.h"
#undef TILE_ROWS
#undef TILE_VECTORS
#undef TILE_HALF

/* Tiles of one vector two by two, since one alone has fewer chains than the FMA units can work on; what is left alone.
 */
static void tile_pairs(const lamina_tile *t, int rows, void (*two)(const lamina_tile *),
                       void (*one)(const lamina_tile *)) {
  lamina_tile part = *t;
  const int64_t tiles = t->more + 1, first = tiles / 2 * 2 * rows;
  part.more = tiles / 2 - 1;
  two(&part);
  if (tiles % 2 == 0) return;
  const float *a = t->a[0] + first * t->a_row;
  part.more = 0;
  part.a = &a;
  part.c += first * t->c_row;
  if (part.add) part.add += first * t->add_row;
  part.prefetch = NULL;
  one(&part);
}
#endif

#define TILE_ROWS 1
#include "gemm_rows.h"
#define TILE_ROWS 2
#include "gemm_rows.h"
#define TILE_ROWS 3
#include "gemm_rows.h"
#define TILE_ROWS 4
#include "gemm_rows.h"
#define TILE_ROWS 5
#include "gemm_rows.h"
#define TILE_ROWS 6
#include "gemm_rows.h"
#if GEMM_ROWS >= 7
#define TILE_ROWS 7
#include "gemm_rows.h"
#endif
#if GEMM_ROWS >= 8
#define TILE_ROWS 8
#include "gemm_rows.h"
#endif
#if GEMM_ROWS >= 9
#define TILE_ROWS 9
#include "gemm_rows.h"
#endif
#if GEMM_ROWS >= 10
#define TILE_ROWS 10
#include "gemm_rows.h"
#endif
#if GEMM_ROWS >= 11
#define TILE_ROWS 11
#include "gemm_rows.h"
#endif
#if GEMM_ROWS >= 12
#define TILE_ROWS 12
#include "gemm_rows.h"
#endif
#if GEMM_ROWS >= 13
#define TILE_ROWS 13
#include "gemm_rows.h"
#endif
#if GEMM_ROWS >= 14
#define TILE_ROWS 14
#include "gemm_rows.h"
#endif
#if GEMM_ROWS >= 15
#define TILE_ROWS 15
#include "gemm_rows.h"
#endif
#if GEMM_ROWS >= 16
#define TILE_ROWS 16
#include "gemm_rows.h"
#endif

static void stream_end(void) { vf_stream_end(); }

static void (*const gemm_tiles[GEMM_ROWS + 1])(const lamina_tile *) = {
    NULL,         gemm_tile_1, gemm_tile_2, gemm_tile_3, gemm_tile_4, gemm_tile_5, gemm_tile_6,
#if GEMM_ROWS >= 7
    gemm_tile_7,
#endif
#if GEMM_ROWS >= 8
    gemm_tile_8,
#endif
#if GEMM_ROWS >= 9
    gemm_tile_9,
#endif
#if GEMM_ROWS >= 10
    gemm_tile_10,
#endif
#if GEMM_ROWS >= 11
    gemm_tile_11,
#endif
#if GEMM_ROWS >= 12
    gemm_tile_12,
#endif
#if GEMM_ROWS >= 13
    gemm_tile_13,
#endif
#if GEMM_ROWS >= 14
    gemm_tile_14,
#endif
#if GEMM_ROWS >= 15
    gemm_tile_15,
#endif
#if GEMM_ROWS >= 16
    gemm_tile_16,
#endif
};

static void (*const gemm_wide_tiles[GEMM_WIDE_ROWS + 1])(const lamina_tile *) = {
    NULL,        gemm_wide_1, gemm_wide_2, gemm_wide_3,
#if GEMM_WIDE_ROWS >= 4
    gemm_wide_4,
#endif
#if GEMM_WIDE_ROWS >= 5
    gemm_wide_5,
#endif
#if GEMM_WIDE_ROWS >= 6
    gemm_wide_6,
#endif
};

static void (*const gemm_thin_tiles[GEMM_THIN_ROWS + 1])(const lamina_tile *) = {
    NULL,        gemm_thin_1,
#if GEMM_THIN_ROWS >= 2
    gemm_thin_2,
#endif
#if GEMM_THIN_ROWS >= 3
    gemm_thin_3,
#endif
#if GEMM_THIN_ROWS >= 4
    gemm_thin_4,
#endif
#if GEMM_THIN_ROWS >= 5
    gemm_thin_5,
#endif
#if GEMM_THIN_ROWS >= 6
    gemm_thin_6,
#endif
};

static const lamina_gemm_shape gemm_shapes[] = {
    {GEMM_ROWS, 1, gemm_tiles}, {GEMM_WIDE_ROWS, 2, gemm_wide_tiles}, {GEMM_THIN_ROWS, 4, gemm_thin_tiles}};
