/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: the convolution tile of TILE_ROWS output pixels and TILE_VECTORS vectors of output channels; included once
 * for each such pair by conv_tiles.h.
 *
 *   C(m, j) = epilogue( sum over runs r with first <= m < last, p < k of
 *                       a[r.a + m * a_row + p] * b[r.b + p * nr + j] )
 *
 * Every accumulator stays in a register over all runs. A run that all rows take part in is a loop of constant shape; one
 * that the first or the last rows have no part in (their pixels lie beside the image) enters the same sequence of rows
 * by a jump, always the same one for the whole run. A step in depth costs rows x vectors FMAs, rows scalar loads and
 * TILE_VECTORS vector loads. Five rows share a base pointer, as in gemm_tile.h.
 */

#define TILE_BASES ((TILE_ROWS + 4) / 5)

/* One row's FMAs; rows that the tile does not have vanish. */
#define TILE_ROW(m)                                                                                                 \
  if ((m) < TILE_ROWS) {                                                                                            \
    enum { row_ = (m) < TILE_ROWS ? (m) : 0 };                                                                      \
    const float *am_ = a[row_ / 5] + (row_ % 5 == 3 ? row3 : row_ % 5 * row);                                       \
    _Pragma("GCC unroll 16") for (int v = 0; v < TILE_VECTORS; v++) acc[row_][v] = tile_fma(am_, bv[v], acc[row_][v]); \
  }
#define TILE_CASE(m)   \
  case (m):            \
    TILE_ROW(m)        \
    __attribute__((fallthrough));

#define TILE_STEP_BEGIN                       \
  vf bv[TILE_VECTORS];                        \
  _Pragma("GCC unroll 16") for (int v = 0; v < TILE_VECTORS; v++) bv[v] = \
      vf_load((v < CONV_VECTORS ? b : b2) + v % CONV_VECTORS * VF_LEN);
#define TILE_STEP_END                                                      \
  vf_prefetch_l2(prefetch);                                                \
  prefetch += prefetch_step;                                               \
  b += CONV_VECTORS * VF_LEN;                                              \
  if (TILE_VECTORS > CONV_VECTORS) b2 += CONV_VECTORS * VF_LEN;            \
  _Pragma("GCC unroll 16") for (int s = 0; s < TILE_BASES; s++) a[s] += 1;

static __attribute__((noinline)) void TILE_NAME(TILE_ROWS, TILE_VECTORS)(const lamina_conv_tile *t) {
  vf acc[TILE_ROWS][TILE_VECTORS];
#pragma GCC unroll 16
  for (int m = 0; m < TILE_ROWS; m++)
#pragma GCC unroll 16
    for (int v = 0; v < TILE_VECTORS; v++) acc[m][v] = vf_zero();

  const ptrdiff_t row = t->a_row;
  ptrdiff_t row3 = 3 * row;
  __asm__("" : "+r"(row3));
  const char *prefetch = t->prefetch ? (const char *)t->prefetch : (const char *)t->b;
  const ptrdiff_t prefetch_step = t->prefetch ? TILE_LINE : 0;
  for (int64_t i = 0; i < t->runs; i++) {
    /* Read again for each run: kept from before, these fields would only go from one place in memory to another. */
    const lamina_conv_tile *now = tile_hidden(t);
    const lamina_conv_run *run = now->run + i;
    const float *b = now->b + run->b;
    const float *b2 = b;
    if (TILE_VECTORS > CONV_VECTORS) b2 = b + now->b_panel;
    const float *a[TILE_BASES];
    a[0] = now->a + run->a;
#pragma GCC unroll 16
    for (int s = 1; s < TILE_BASES; s++) a[s] = (const float *)tile_hidden(a[s - 1] + row3) + 2 * row;
    int64_t p = run->k;
    if (run->first > 0) {
      int first = run->first;
      for (; p > 0; p--) {
        TILE_STEP_BEGIN
        __asm__("" : "+r"(first));
        switch (first) {
          TILE_CASE(1) TILE_CASE(2) TILE_CASE(3) TILE_CASE(4) TILE_CASE(5) TILE_CASE(6) TILE_CASE(7) TILE_CASE(8)
          TILE_CASE(9) TILE_CASE(10) TILE_CASE(11) TILE_CASE(12) TILE_CASE(13) TILE_CASE(14)
        case 15: break; /* no row */
        default: __builtin_unreachable();
        }
        TILE_STEP_END
      }
    } else if (run->last < TILE_ROWS) {
      int last = run->last;
      for (; p > 0; p--) {
        TILE_STEP_BEGIN
        __asm__("" : "+r"(last));
        switch (last - 1) {
          TILE_CASE(14) TILE_CASE(13) TILE_CASE(12) TILE_CASE(11) TILE_CASE(10) TILE_CASE(9) TILE_CASE(8) TILE_CASE(7)
          TILE_CASE(6) TILE_CASE(5) TILE_CASE(4) TILE_CASE(3) TILE_CASE(2) TILE_CASE(1) TILE_CASE(0)
        case 15: break; /* no row */
        default: __builtin_unreachable();
        }
        TILE_STEP_END
      }
    } else {
      for (; p > 0; p--) {
        TILE_STEP_BEGIN
        TILE_ROW(0) TILE_ROW(1) TILE_ROW(2) TILE_ROW(3) TILE_ROW(4) TILE_ROW(5) TILE_ROW(6) TILE_ROW(7)
        TILE_ROW(8) TILE_ROW(9) TILE_ROW(10) TILE_ROW(11) TILE_ROW(12) TILE_ROW(13) TILE_ROW(14) TILE_ROW(15)
        TILE_STEP_END
      }
    }
  }

  if (t->n < TILE_VECTORS * VF_LEN) {
    float sum[TILE_ROWS * TILE_VECTORS * VF_LEN];
#pragma GCC unroll 16
    for (int m = 0; m < TILE_ROWS; m++)
#pragma GCC unroll 16
      for (int v = 0; v < TILE_VECTORS; v++) vf_store(sum + (m * TILE_VECTORS + v) * VF_LEN, acc[m][v]);
    tile_edge(t, TILE_ROWS, TILE_VECTORS, sum);
    return;
  }
  if (t->accumulate) {
#pragma GCC unroll 16
    for (int m = 0; m < TILE_ROWS; m++)
#pragma GCC unroll 16
      for (int v = 0; v < TILE_VECTORS; v++)
        acc[m][v] = vf_add(acc[m][v], vf_load(t->c + m * t->c_row + v * VF_LEN));
  }
  if (t->bias) {
#pragma GCC unroll 16
    for (int v = 0; v < TILE_VECTORS; v++) {
      const vf bias = vf_load(t->bias + v * VF_LEN);
#pragma GCC unroll 16
      for (int m = 0; m < TILE_ROWS; m++) acc[m][v] = vf_add(acc[m][v], bias);
    }
  }
  if (t->add) {
#pragma GCC unroll 16
    for (int m = 0; m < TILE_ROWS; m++)
#pragma GCC unroll 16
      for (int v = 0; v < TILE_VECTORS; v++)
        acc[m][v] = vf_add(acc[m][v], vf_load(t->add + m * t->add_row + v * VF_LEN));
  }
  if (t->lo > -INFINITY || t->hi < INFINITY) {
    const vf lo = vf_set1(t->lo), hi = vf_set1(t->hi);
#pragma GCC unroll 16
    for (int m = 0; m < TILE_ROWS; m++)
#pragma GCC unroll 16
      for (int v = 0; v < TILE_VECTORS; v++) acc[m][v] = vf_min(hi, vf_max(lo, acc[m][v]));
  }
#pragma GCC unroll 16
  for (int m = 0; m < TILE_ROWS; m++)
#pragma GCC unroll 16
    for (int v = 0; v < TILE_VECTORS; v++) vf_store(t->c + m * t->c_row + v * VF_LEN, acc[m][v]);
}

#undef TILE_BASES
#undef TILE_ROW
#undef TILE_CASE
#undef TILE_STEP_BEGIN
#undef TILE_STEP_END
