/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: the GEMM tile of TILE_ROWS rows and the vectors of one panel for short sums, as gemm_tile.h for batch = 1
 * and k >= TILE_TAIL; included by gemm_rows.h.
 *
 * The last TILE_TAIL steps in depth are done for five rows after the other, each time followed by the epilogue and the
 * stores of these rows. All stores in a row would fill the queues that the next tile's sums need: 28 stores of 64 bytes
 * take 48 cycles (Zen 4), in thirds none. What is lost: B's last rows are read once for each five rows.
 */

#define TILE_BASES ((TILE_ROWS + 4) / 5)

static __attribute__((noinline)) void TILE_SHORT_NAME(TILE_ROWS, GEMM_VECTORS)(const lamina_tile *t) {
  const ptrdiff_t a_k = t->a_k, b_k = t->b_k, row = t->a_row, c_row = t->c_row;
  ptrdiff_t row3 = 3 * row;
  __asm__("" : "+r"(row3));
  const char *prefetch = (const char *)(t->prefetch ? t->prefetch : t->b);
  const ptrdiff_t prefetch_step = t->prefetch ? TILE_LINE : 0;
  const int whole = t->n == GEMM_VECTORS * VF_LEN;
  float *c = t->c;
  const float *add = t->add, *first = t->a[0];
  for (int64_t more = t->more; more >= 0; more--, first = tile_hidden(first + TILE_ROWS * row)) {
    vf acc[TILE_ROWS][GEMM_VECTORS];
#pragma GCC unroll 16
    for (int m = 0; m < TILE_ROWS; m++)
#pragma GCC unroll 16
      for (int v = 0; v < GEMM_VECTORS; v++) acc[m][v] = vf_zero();
    const float *b = t->b, *a[TILE_BASES];
    a[0] = first;
#pragma GCC unroll 16
    for (int s = 1; s < TILE_BASES; s++) a[s] = (const float *)tile_hidden(a[s - 1] + row3) + 2 * row;
    for (int64_t p = t->k - TILE_TAIL; p > 0; p--) {
      vf_prefetch_l2(prefetch);
      prefetch += prefetch_step;
#include "gemm_step.h"
    }
#pragma GCC unroll 16
    for (int s = 0; s < TILE_BASES; s++) {
      const int rows = TILE_ROWS - 5 * s < 5 ? TILE_ROWS - 5 * s : 5;
      const float *bs = b;
#pragma GCC unroll 1
      for (int p = 0; p < TILE_TAIL; p++, bs += b_k, a[s] += a_k) {
        vf bv[GEMM_VECTORS];
#pragma GCC unroll 16
        for (int v = 0; v < GEMM_VECTORS; v++) bv[v] = vf_load(bs + v * VF_LEN);
#pragma GCC unroll 16
        for (int m = 0; m < rows; m++)
#pragma GCC unroll 16
          for (int v = 0; v < GEMM_VECTORS; v++)
            acc[5 * s + m][v] = tile_fma(a[s] + (m == 3 ? row3 : m * row), bv[v], acc[5 * s + m][v]);
      }
      vf some[5 * GEMM_VECTORS]; /* a copy, since clang keeps an array in memory whose address is taken */
#pragma GCC unroll 16
      for (int m = 0; m < rows; m++)
#pragma GCC unroll 16
        for (int v = 0; v < GEMM_VECTORS; v++) some[m * GEMM_VECTORS + v] = acc[5 * s + m][v];
      if (whole)
        tile_finish(t, c, add, rows, GEMM_VECTORS, 0, 1, some);
      else
        tile_finish(t, c, add, rows, GEMM_VECTORS, 1, 0, some);
      c += rows * c_row;
      if (add) add += rows * t->add_row;
    }
  }
}

#undef TILE_BASES
