/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file depthwise_winograd.h
 * A part of depthwise_body.h, which includes it: 3x3 kernels of groups of several channels by Winograd's F(2x2, 3x3).
 *
 * A step takes DW_TILES neighbouring tiles of 2x2 outputs of one vector of channels through all of it in registers, one
 * row of points after the other: the row of B^T x B, its products, of which each takes a permutation that gives every
 * lane one channel of its group, and what the row adds to A^T M A. For each tile and a group of K channels that is 16 K
 * multiply-adds and as many permutations, which go to other ports, 28 additions for the input and 24 for the output, where
 * the direct sum takes 36 K multiply-adds.
 */
#ifndef LAMINA_SHARED_DEPTHWISE_WINOGRAD_H
#define LAMINA_SHARED_DEPTHWISE_WINOGRAD_H

enum {
  DW_TILES = VF_REGISTERS >= 32 ? 2 : 1,
  DW_POINTS = 16,                                /* of a tile */
  DW_TILE_COLUMNS = 2 * DW_TILES + 2,            /* of x */
  DW_TILE_FLOATS = DW_TILE_COLUMNS * VF_LEN
};

/* Tiles of one row, one vector of channels. */
typedef struct depthwise_tiles {
  const depthwise_strip *s;
  const float *x; /* row and column 0 of the first tile's input */
  ptrdiff_t x_row, x_pixel;
  int64_t row, rows; /* of y; at most two */
} depthwise_tiles;

/* Row i of the points, before the columns. */
VEC_INLINE vf depthwise_winograd_rows(int i, const float *x, ptrdiff_t row) {
  if (i == 0) return vf_sub(vf_load(x), vf_load(x + 2 * row));
  if (i == 1) return vf_add(vf_load(x + row), vf_load(x + 2 * row));
  if (i == 2) return vf_sub(vf_load(x + 2 * row), vf_load(x + row));
  return vf_sub(vf_load(x + 3 * row), vf_load(x + row));
}

VEC_INLINE void depthwise_winograd_columns(const vf *t, vf v[4]) {
  v[0] = vf_sub(t[0], t[2]);
  v[1] = vf_add(t[1], t[2]);
  v[2] = vf_sub(t[2], t[1]);
  v[3] = vf_sub(t[3], t[1]);
}

/* Adds what row i of the products gives to a tile's outputs y[row][column]. */
VEC_INLINE void depthwise_winograd_add(int i, const vf m[4], vf bias, vf y[2][2]) {
  const vf even = vf_add(m[1], m[2]), odd = vf_sub(m[1], m[2]);
  const vf sum[2] = {vf_add(m[0], even), vf_add(odd, m[3])};
#pragma GCC unroll 2
  for (int c = 0; c < 2; c++) {
    if (i < 3) y[0][c] = vf_add(i == 0 ? bias : y[0][c], sum[c]);
    if (i == 1) y[1][c] = vf_add(bias, sum[c]);
    if (i == 2) y[1][c] = vf_sub(y[1][c], sum[c]);
    if (i == 3) y[1][c] = vf_add(y[1][c], sum[c]);
  }
}

VEC_INLINE void depthwise_winograd_tiles(int tiles, const depthwise_tiles *at) {
  const depthwise_strip *s = at->s;
  const lamina_depthwise *d = s->d;
  const vf bias = vf_load(s->bias);
  vf y[DW_TILES][2][2];
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    vf t[DW_TILE_COLUMNS], v[DW_TILES][4], m[DW_TILES][4];
#pragma GCC unroll 16
    for (int j = 0; j < 2 * tiles + 2; j++) t[j] = depthwise_winograd_rows(i, at->x + j * at->x_pixel, at->x_row);
#pragma GCC unroll 4
    for (int a = 0; a < tiles; a++) depthwise_winograd_columns(t + 2 * a, v[a]);
#pragma GCC unroll 16
    for (int p = 0; p < 4 * tiles; p++) m[p / 4][p % 4] = vf_zero();
    const float *u = s->weights + i * 4 * LAMINA_DEPTHWISE_BLOCK;
    const int32_t *picks = s->picks, *end = picks + d->group * VF_LEN;
    for (; picks < end; picks += VF_LEN, u += DW_POINTS * LAMINA_DEPTHWISE_BLOCK) {
#pragma GCC unroll 4
      for (int j = 0; j < 4; j++) {
        const vf uv = vf_load(u + j * LAMINA_DEPTHWISE_BLOCK);
#pragma GCC unroll 4
        for (int a = 0; a < tiles; a++) m[a][j] = vf_fma(vf_pick(v[a][j], picks), uv, m[a][j]);
      }
    }
#pragma GCC unroll 4
    for (int a = 0; a < tiles; a++) depthwise_winograd_add(i, m[a], bias, y[a]);
  }
  depthwise_strip out = *s;
#pragma GCC unroll 2
  for (int r = 0; r < 2; r++) {
    if (r >= at->rows) break;
    vf acc[2 * DW_TILES];
#pragma GCC unroll 4
    for (int a = 0; a < tiles; a++) acc[2 * a] = y[a][r][0], acc[2 * a + 1] = y[a][r][1];
    depthwise_store(s->lanes < VF_LEN, 2 * tiles, &out, at->row + r, acc);
  }
}

/* The input of tiles that are not wholly inside of the image, or of some lanes only: zeros outside. */
static void depthwise_winograd_copy(const depthwise_tiles *at, int64_t row, int columns, float *copy) {
  const depthwise_strip *s = at->s;
  const lamina_depthwise *d = s->d;
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < columns; j++) {
      const int64_t column = s->column + j;
      const int inside = row + i >= 0 && row + i < d->h.in && column >= 0 && column < d->w.in;
      float *to = copy + i * DW_TILE_FLOATS + j * VF_LEN;
      if (!inside) vf_store(to, vf_zero());
      else vf_store(to, depthwise_load(s->lanes < VF_LEN, at->x + i * at->x_row + j * at->x_pixel, s->lanes));
    }
}

/* Down the rows. */
VEC_INLINE void depthwise_winograd_strip(int tiles, const depthwise_strip *s, int64_t row0, int64_t row1) {
  const lamina_depthwise *d = s->d;
  const int columns = 2 * tiles + 2;
  const int whole = s->lanes == VF_LEN && s->column >= 0 && s->column + columns <= d->w.in;
  _Alignas(64) float copy[4 * DW_TILE_FLOATS];
  for (int64_t row = row0; row < row1; row += 2) {
    const int64_t top = row + d->h.first;
    depthwise_tiles at = {.s = s, .x = s->x + top * d->x_row, .x_row = d->x_row, .x_pixel = d->x_pixel, .row = row};
    at.rows = row1 - row < 2 ? 1 : 2;
    if (whole && top >= 0 && top + 6 <= d->h.in)
      for (int j = 0; j < columns; j++) {
        vf_prefetch_l1(at.x + 4 * d->x_row + j * d->x_pixel);
        vf_prefetch_l1(at.x + 5 * d->x_row + j * d->x_pixel);
      }
    if (!whole || top < 0 || top + 4 > d->h.in) {
      depthwise_winograd_copy(&at, top, columns, copy);
      at.x = copy;
      at.x_row = DW_TILE_FLOATS;
      at.x_pixel = VF_LEN;
    }
    depthwise_winograd_tiles(tiles, &at);
  }
}

static __attribute__((noinline)) void depthwise_winograd_wide(const depthwise_strip *s, int64_t row0, int64_t row1) {
  depthwise_winograd_strip(DW_TILES, s, row0, row1);
}
static __attribute__((noinline)) void depthwise_winograd_narrow(const depthwise_strip *s, int64_t row0, int64_t row1) {
  depthwise_winograd_strip(1, s, row0, row1);
}

static void depthwise_winograd(const lamina_depthwise *d, int64_t row0, int64_t row1) {
  int32_t picks[LAMINA_DEPTHWISE_BLOCK * LAMINA_DEPTHWISE_BLOCK];
  depthwise_picks(d, picks);
  for (int64_t q = 0; q < d->columns;) {
    const int64_t left = d->columns - q;
    const int count = (int)(left < 2 * DW_TILES ? left : 2 * DW_TILES);
    for (int64_t c = 0; c < d->channels; c += LAMINA_DEPTHWISE_BLOCK) {
      depthwise_strip s[DW_LINE_VECTORS];
      int used;
      depthwise_line(d, c, q, count, DW_POINTS, picks, s, &used);
      for (int v = 0; v < used; v++)
        if (count <= 2) depthwise_winograd_narrow(s + v, row0, row1);
        else depthwise_winograd_wide(s + v, row0, row1);
    }
    q += count;
  }
}

#endif
