/* SPDX-License-Identifier: Apache-2.0 */
/* Template, a part of gemm_tile.h: one step in depth of a tile of one panel. */

vf bv[TILE_VECTORS > 0 ? TILE_VECTORS : 1];
#pragma GCC unroll 16
for (int v = 0; v < TILE_VECTORS; v++) bv[v] = vf_load(b + v * VF_LEN);
#if TILE_HALF
const tile_half bh = tile_half_load(b + TILE_VECTORS * VF_LEN);
#endif
#pragma GCC unroll 16
for (int m = 0; m < TILE_ROWS; m++) {
  const float *am = a[m / 5] + (m % 5 == 3 ? row3 : m % 5 * row);
#pragma GCC unroll 16
  for (int v = 0; v < TILE_VECTORS; v++) acc[m][v] = tile_fma(am, bv[v], acc[m][v]);
#if TILE_HALF
  half[m] = tile_half_fma(am, bh, half[m]);
#endif
}
b += b_k;
#pragma GCC unroll 16
for (int s = 0; s < TILE_BASES; s++) a[s] += a_k;
