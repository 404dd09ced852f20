/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: the GEMM tile of TILE_ROWS rows and TILE_VECTORS vectors of columns; included once for each such pair.
 *
 *   C(m, j) = epilogue( sum over i < batch, p < k of a[i][m * a_row + p * a_k] * b[i * b_batch + p * b_k + j] )
 *
 * Every accumulator stays in a register over the whole depth, which needs constant trip counts and full unrolling: one
 * that goes through memory costs half the speed (tests/check_codegen.sh watches). A step in depth costs
 * TILE_ROWS * TILE_VECTORS FMAs, TILE_ROWS scalar loads and TILE_VECTORS vector loads. Five rows share a base pointer
 * (1, 2 and 4 times a_row are scaled indices, 3 times is a second index), since a pointer for each row would not fit
 * into the general registers.
 *
 * The includer, gemm_tiles.h, defines TILE_ROWS, TILE_VECTORS and TILE_NAME.
 */

#define TILE_BASES ((TILE_ROWS + 4) / 5)

static __attribute__((noinline)) void TILE_NAME(TILE_ROWS, TILE_VECTORS)(const lamina_tile *t) {
  vf acc[TILE_ROWS][TILE_VECTORS];
#pragma GCC unroll 16
  for (int m = 0; m < TILE_ROWS; m++)
#pragma GCC unroll 16
    for (int v = 0; v < TILE_VECTORS; v++) acc[m][v] = vf_zero();

  const ptrdiff_t a_k = t->a_k, b_k = t->b_k, row = t->a_row;
  ptrdiff_t row3 = 3 * row;
  __asm__("" : "+r"(row3));
  /* One line of the next panel for each step in depth; without one, the line that B starts with, again and again. */
  const char *prefetch = t->prefetch ? (const char *)t->prefetch : (const char *)t->b;
  const ptrdiff_t prefetch_step = t->prefetch ? TILE_LINE : 0;
  for (int64_t i = 0; i < t->batch; i++) {
    /* Read again for each i: kept from before, these fields would only go from one place in memory to another. */
    const lamina_tile *now = tile_hidden(t);
    const float *b = now->b + i * now->b_batch;
    const float *a[TILE_BASES];
    a[0] = now->a[i];
#pragma GCC unroll 16
    for (int s = 1; s < TILE_BASES; s++) a[s] = (const float *)tile_hidden(a[s - 1] + row3) + 2 * row;
    for (int64_t p = now->k; p > 0; p--) {
      vf bv[TILE_VECTORS];
#pragma GCC unroll 16
      for (int v = 0; v < TILE_VECTORS; v++) bv[v] = vf_load(b + v * VF_LEN);
#pragma GCC unroll 16
      for (int m = 0; m < TILE_ROWS; m++) {
        const float *am = a[m / 5] + (m % 5 == 3 ? row3 : m % 5 * row);
#pragma GCC unroll 16
        for (int v = 0; v < TILE_VECTORS; v++) acc[m][v] = tile_fma(am, bv[v], acc[m][v]);
      }
      vf_prefetch_l2(prefetch);
      prefetch += prefetch_step;
      b += b_k;
#pragma GCC unroll 16
      for (int s = 0; s < TILE_BASES; s++) a[s] += a_k;
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
