/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: the GEMM tile of TILE_ROWS rows and TILE_VECTORS vectors of columns, and half a vector more if TILE_HALF;
 * included once for each such combination. B's columns lie in panels of GEMM_VECTORS vectors; a tile that is wider than
 * one reads several panels side by side, each a stream of its own.
 *
 *   C(m, j) = epilogue( sum over i < batch, p < k of a[i][m * a_row + p * a_k] * B(i, p, j) )
 *   B(i, p, j) = b[i * b_batch + j / nr * b_panel + p * b_k + j % nr]
 *
 * Every accumulator stays in a register over the whole depth, which needs constant trip counts and full unrolling: one
 * that goes through memory costs half the speed (tests/check_codegen.sh watches). A step in depth costs
 * TILE_ROWS * TILE_VECTORS FMAs, TILE_ROWS scalar loads and TILE_VECTORS vector loads. Five rows share a base pointer
 * (1, 2 and 4 times a_row are scaled indices, 3 times is a second index), since a pointer for each row would not fit
 * into the general registers; panels do the same.
 *
 * Tiles of one panel fetch what comes next, a line or two a step. With t->prefetch, wider ones fetch all their lines
 * some steps ahead, and at the end those of the panels at t->prefetch; without it, nothing.
 *
 * The includer, gemm_tiles.h, defines TILE_ROWS, TILE_VECTORS, TILE_HALF, TILE_NAME and TILE_ALL (half included).
 */

#define TILE_BASES ((TILE_ROWS + 4) / 5)
#define TILE_WIDE (TILE_VECTORS > GEMM_VECTORS)
/* A large C has tiles of about the most rows. */
#define TILE_STREAMS (TILE_ROWS + 1 >= (TILE_WIDE ? GEMM_WIDE_ROWS : GEMM_ROWS) && TILE_VECTORS <= 2 * GEMM_VECTORS)

static __attribute__((noinline)) void TILE_NAME(TILE_ROWS, TILE_VECTORS, TILE_HALF)(const lamina_tile *t) {
  const ptrdiff_t a_k = t->a_k, b_k = t->b_k, row = t->a_row;
  ptrdiff_t row3 = 3 * row;
  __asm__("" : "+r"(row3));
#if TILE_WIDE
  const ptrdiff_t panel = t->b_panel;
  ptrdiff_t panel3 = 3 * panel;
  __asm__("" : "+r"(panel3));
#else
  /* One or two lines of what comes next for each step in depth. */
  const char *prefetch = (const char *)t->prefetch;
  const ptrdiff_t prefetch_other = TILE_TWO_LINES && t->prefetch_two ? TILE_LINE : 0;
  const ptrdiff_t prefetch_step = t->prefetch_step ? t->prefetch_step * 4 : TILE_LINE + prefetch_other;
#endif
  float *c = t->c;
  const float *add = t->add;
  ptrdiff_t a_first = 0;
  for (int64_t more = t->more; more >= 0; more--) {
    vf acc[TILE_ROWS][TILE_VECTORS > 0 ? TILE_VECTORS : 1];
#pragma GCC unroll 16
    for (int m = 0; m < TILE_ROWS; m++)
#pragma GCC unroll 16
      for (int v = 0; v < TILE_VECTORS; v++) acc[m][v] = vf_zero();
#if TILE_HALF
    tile_half half[TILE_ROWS];
#pragma GCC unroll 16
    for (int m = 0; m < TILE_ROWS; m++) half[m] = tile_half_zero();
#endif
    for (int64_t i = 0; i < t->batch; i++) {
      /* Read again for each i: kept from before, these fields would only go from one place in memory to another. */
      const lamina_tile *now = tile_hidden(t);
      const float *b = now->b + i * now->b_batch;
      const float *a[TILE_BASES];
      a[0] = now->a[i] + a_first;
#pragma GCC unroll 16
      for (int s = 1; s < TILE_BASES; s++) a[s] = (const float *)tile_hidden(a[s - 1] + row3) + 2 * row;
#if TILE_WIDE
      /* Two parts of the depth: the last steps fetch the first lines of the next panels. */
      const int64_t near = now->k < TILE_AHEAD ? now->k : TILE_AHEAD;
      const ptrdiff_t fetch_step = now->prefetch ? b_k : 0;
      const float *fetch = b + near * fetch_step;
      int64_t steps = now->k - near;
      for (int part = 0; part < 2; part++, steps = near, fetch = now->prefetch ? now->prefetch : b)
        for (int64_t p = steps; p > 0; p--) {
#pragma GCC unroll 16
          for (int v = 0; v < TILE_VECTORS; v++) {
            const ptrdiff_t at = TILE_PANEL(v) + v % GEMM_VECTORS * VF_LEN;
            const vf bv = vf_load(b + at);
            if (v * VF_LEN * 4 % TILE_LINE == 0) vf_prefetch_l1(fetch + at);
#pragma GCC unroll 16
            for (int m = 0; m < TILE_ROWS; m++)
              acc[m][v] = tile_fma(a[m / 5] + (m % 5 == 3 ? row3 : m % 5 * row), bv, acc[m][v]);
          }
          fetch += fetch_step;
          b += b_k;
#pragma GCC unroll 16
          for (int s = 0; s < TILE_BASES; s++) a[s] += a_k;
        }
#else
      if (prefetch)
        for (int64_t p = now->k; p > 0; p--) {
          vf_prefetch_l2(prefetch);
          if (TILE_TWO_LINES) vf_prefetch_l2(prefetch + prefetch_other);
          prefetch += prefetch_step;
#include "gemm_step.h"
        }
      else
        for (int64_t p = now->k; p > 0; p--) {
#include "gemm_step.h"
        }
#endif
    }

    /* A copy, since clang keeps an array in memory whose address is taken. */
    vf whole[TILE_ROWS][TILE_ALL];
#pragma GCC unroll 16
    for (int m = 0; m < TILE_ROWS; m++) {
#pragma GCC unroll 16
      for (int v = 0; v < TILE_VECTORS; v++) whole[m][v] = acc[m][v];
#if TILE_HALF
      whole[m][TILE_VECTORS] = tile_half_widen(half[m]);
#endif
    }
    if (TILE_HALF || t->n < TILE_VECTORS * VF_LEN)
      tile_finish(t, c, add, TILE_ROWS, TILE_ALL, 1, 0, &whole[0][0]);
    else
      tile_finish(t, c, add, TILE_ROWS, TILE_ALL, 0, TILE_STREAMS, &whole[0][0]);
    a_first += TILE_ROWS * row;
    c += TILE_ROWS * t->c_row;
    if (add) add += TILE_ROWS * t->add_row;
  }
}

#undef TILE_BASES
#undef TILE_WIDE
#undef TILE_STREAMS
