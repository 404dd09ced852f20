/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file depthwise_winograd.h
 * A part of depthwise_body.h, which includes it: 3x3 kernels of groups of several channels by Winograd's F(4, 3) along the
 * height; along the width they stay a direct sum. Points and transforms are those of winograd_body.h along one axis.
 *
 * A tile is 4 rows (or 3, without the point of infinity) of a strip of one vector of channels:
 *   1. its 6 rows of x become 6 points, in a buffer;
 *   2. for each point, or pair of points, the strip's sums over taps and channels of the group stay in registers, as in
 *      depthwise_ring.h: a value of x, given to every lane of its group, goes to three outputs;
 *   3. six sums become four outputs.
 * In between, the G groups of a vector are interleaved, lane o * G + g being channel o of group g: so channel k of all of
 * them is G neighbours in memory, which a load repeats for all lanes, and no port but those of loads is busy.
 *
 * So a column of 4 outputs and a group of K channels takes 18 K multiply-adds instead of 36 K, 6 K loads of x (9 / 7 of
 * that with the strip's ends) and some 34 operations for the transforms. In two dimensions each product would need a load
 * of its own, so that F(2x2, 3x3) with its 16 K is no faster; F(4x4) is not accurate enough for so few channels.
 */
#ifndef LAMINA_SHARED_DEPTHWISE_WINOGRAD_H
#define LAMINA_SHARED_DEPTHWISE_WINOGRAD_H

enum {
  DW_TILE = 4,   /* rows of y */
  DW_POINTS = 6, /* in the order 0, infinity, 1 / sqrt(2), -1 / sqrt(2), sqrt(2), -sqrt(2) */
  DW_TILE_TAPS = LAMINA_DEPTHWISE_TILE_TAPS,
  DW_AT_ONCE = VF_REGISTERS >= 32 ? 2 : 1, /* points whose sums are in registers */
  DW_COLUMNS = DW_WIDTH + 2                /* of x */
};

/* A tile of a strip: points of x, and sums for each point. */
typedef struct depthwise_tile {
  _Alignas(64) float points[DW_POINTS][DW_COLUMNS][VF_LEN];
  _Alignas(64) float sums[DW_POINTS][DW_WIDTH][VF_LEN];
} depthwise_tile;

/* The points of a column of x, whose rows are d; without infinity if d[5] is not to be used. */
VEC_INLINE void depthwise_tile_points(const vf d[6], depthwise_tile *tile, int64_t column) {
  const vf a = vf_set1(0.70710678118654752f), b = vf_set1(1.41421356237309505f);
  const vf two = vf_set1(2.0f), half = vf_set1(0.5f), scale = vf_set1(2.5f);
  const vf even_a = vf_fnma(two, d[2], d[4]), odd_a = vf_fnma(two, d[1], d[3]);
  const vf even_b = vf_fnma(half, d[2], d[4]), odd_b = vf_fnma(half, d[1], d[3]);
  vf_store(tile->points[0][column], vf_fnma(scale, d[2], vf_add(d[0], d[4])));
  vf_store(tile->points[1][column], vf_fnma(scale, d[3], vf_add(d[1], d[5])));
  vf_store(tile->points[2][column], vf_fma(a, odd_a, even_a));
  vf_store(tile->points[3][column], vf_fnma(a, odd_a, even_a));
  vf_store(tile->points[4][column], vf_fma(b, odd_b, even_b));
  vf_store(tile->points[5][column], vf_fnma(b, odd_b, even_b));
}

/* The points of the first `columns` columns, from row `top` of x on, of which `rows` are used. */
VEC_INLINE void depthwise_tile_input(int groups, const depthwise_strip *s, int64_t top, int rows, int64_t columns,
                                     depthwise_tile *tile) {
  const lamina_depthwise *d = s->d;
  const ptrdiff_t row = d->x_row;
  const int whole = s->lanes == VF_LEN && top >= 0 && top + 6 <= d->h.in;
  const int64_t ahead = top + 10 <= d->h.in ? row : 0;
  const float *x = s->x + top * row;
  for (int64_t j = 0; j < columns; j++, x += d->x_pixel) {
    vf v[6];
    if (s->column + j < 0 || s->column + j >= d->w.in) {
#pragma GCC unroll 6
      for (int i = 0; i < 6; i++) v[i] = vf_zero();
    } else if (whole) {
#pragma GCC unroll 6
      for (int i = 0; i < 6; i++) v[i] = vf_load(x + i * row);
#pragma GCC unroll 6
      for (int i = 6; i < 10; i++) vf_prefetch_l2(x + i * ahead);
    } else {
#pragma GCC unroll 6
      for (int i = 0; i < 6; i++)
        v[i] = i < rows && top + i >= 0 && top + i < d->h.in
                   ? depthwise_load(s->lanes < VF_LEN, x + i * row, s->lanes)
                   : vf_zero();
    }
#pragma GCC unroll 6
    for (int i = 0; i < 6 && groups > 1; i++) v[i] = vf_pick(v[i], s->picks);
    depthwise_tile_points(v, tile, j);
  }
}

/* Where the weights of a point begin: pairs of points follow each other, so that each is read in one run. */
static inline int64_t depthwise_tile_weights(int point, int64_t group) {
  return (point / 2 * group * 2 + point % 2) * 3 * LAMINA_DEPTHWISE_BLOCK;
}

/* The sums for `count` points from `point` on, with `groups` in a vector. `whole`: the strip is as wide as can be. */
VEC_INLINE void depthwise_tile_sums(int groups, int whole, int count, int point, const depthwise_strip *s,
                                    depthwise_tile *tile) {
  vf acc[DW_AT_ONCE][DW_WIDTH];
#pragma GCC unroll 16
  for (int i = 0; i < count * DW_WIDTH; i++) acc[i / DW_WIDTH][i % DW_WIDTH] = vf_zero();
  const float *u = s->weights + depthwise_tile_weights(point, s->d->group);
  const int columns = s->count + 2;
  for (int k = 0; k < VF_LEN / groups; k++, u += 6 * LAMINA_DEPTHWISE_BLOCK) {
    vf w[DW_AT_ONCE][3];
#pragma GCC unroll 16
    for (int i = 0; i < count * 3; i++) w[i / 3][i % 3] = vf_pin(vf_load(u + i * LAMINA_DEPTHWISE_BLOCK));
    const float *p = tile->points[point][0] + k * groups;
#pragma GCC unroll 16
    for (int j = 0; j < DW_COLUMNS; j++) {
      if (!whole && j >= columns) break;
#pragma GCC unroll 16
      for (int h = 0; h < count; h++) {
        __asm__ volatile("" : "+r"(p)); /* else the compiler moves loads until registers spill */
        const vf x = vf_pin(vf_repeat(p + (h * DW_COLUMNS + j) * VF_LEN, groups));
#pragma GCC unroll 16
        for (int t = 0; t < 3; t++)
          if (j >= t && j - t < DW_WIDTH) acc[h][j - t] = vf_fma(x, w[h][t], acc[h][j - t]);
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < count * DW_WIDTH; i++)
    vf_store(tile->sums[point + i / DW_WIDTH][i % DW_WIDTH], acc[i / DW_WIDTH][i % DW_WIDTH]);
}

/* Column c of y from row `row` on, `rows` of it. */
VEC_INLINE void depthwise_tile_output(int groups, const depthwise_strip *s, int64_t row, int rows, int c, vf bias,
                                      const depthwise_tile *tile) {
  const lamina_depthwise *d = s->d;
  const vf lo = vf_set1(d->lo), hi = vf_set1(d->hi);
  const float a = 0.70710678118654752f, b = 1.41421356237309505f;
  vf m[DW_POINTS], y[DW_TILE];
#pragma GCC unroll 6
  for (int i = 0; i < DW_POINTS; i++) m[i] = vf_load(tile->sums[i][c]);
  const vf even_a = vf_add(m[2], m[3]), odd_a = vf_sub(m[2], m[3]);
  const vf even_b = vf_add(m[4], m[5]), odd_b = vf_sub(m[4], m[5]);
  y[0] = vf_add(m[0], vf_add(even_a, even_b));
  y[1] = vf_mul(vf_set1(a), vf_add(odd_a, vf_add(odd_b, odd_b)));
  y[2] = vf_fma(vf_set1(0.5f), even_a, vf_add(even_b, even_b));
  y[3] = vf_fma(vf_set1(a / 2), odd_a, vf_fma(vf_set1(2 * b), odd_b, m[1]));
  const int masked = s->lanes < VF_LEN;
  const float *add = s->add ? s->add + row * d->add_row + c * d->add_pixel : NULL;
  float *to = s->y + row * d->y_row + c * d->y_pixel;
#pragma GCC unroll 4
  for (int r = 0; r < DW_TILE; r++) {
    if (r >= rows) break;
    vf v = vf_add(groups > 1 ? vf_pick(y[r], s->picks + VF_LEN) : y[r], bias);
    if (add) v = vf_add(v, depthwise_load(masked, add + r * d->add_row, s->lanes));
    v = vf_min(hi, vf_max(lo, v));
    if (masked)
      vf_store_n(to + r * d->y_row, v, s->lanes);
    else
      vf_store(to + r * d->y_row, v);
  }
}

/* Down the rows: tiles of four first, then of three, the last of which may hang over. */
VEC_INLINE void depthwise_tiles(int groups, int whole, const depthwise_strip *s, int64_t row0, int64_t row1) {
  const vf bias = vf_load(s->bias);
  const int64_t tiles = (row1 - row0 + DW_TILE - 1) / DW_TILE;
  int64_t fours = row1 - row0 - tiles * (DW_TILE - 1), rows = DW_TILE;
  depthwise_tile tile;
#pragma GCC unroll 16
  for (int i = 0; i < DW_WIDTH; i++) vf_store(tile.sums[1][i], vf_zero());
  for (int64_t row = row0; row < row1; row += rows) {
    rows = fours-- > 0 ? DW_TILE : DW_TILE - 1;
    depthwise_tile_input(groups, s, row + s->d->h.first, (int)rows + 2, s->count + 2, &tile);
    if (DW_AT_ONCE == 2 && rows == DW_TILE)
      depthwise_tile_sums(groups, whole, DW_AT_ONCE, 0, s, &tile);
    else
      for (int p = 0; p < (rows == DW_TILE ? 2 : 1); p++) depthwise_tile_sums(groups, whole, 1, p, s, &tile);
    for (int p = 2; p < DW_POINTS; p += DW_AT_ONCE) depthwise_tile_sums(groups, whole, DW_AT_ONCE, p, s, &tile);
    const int last = (int)(row1 - row < rows ? row1 - row : rows);
    for (int c = 0; c < s->count; c++) depthwise_tile_output(groups, s, row, last, c, bias, &tile);
  }
}

#define DEPTHWISE_TILES(GROUPS)                                                                                        \
  static __attribute__((noinline)) void depthwise_tiles_whole##GROUPS(const depthwise_strip *s, int64_t row0,          \
                                                                      int64_t row1) {                                  \
    depthwise_tiles(GROUPS, 1, s, row0, row1);                                                                         \
  }                                                                                                                    \
  static __attribute__((noinline)) void depthwise_tiles_short##GROUPS(const depthwise_strip *s, int64_t row0,          \
                                                                      int64_t row1) {                                  \
    depthwise_tiles(GROUPS, 0, s, row0, row1);                                                                         \
  }
#define DEPTHWISE_TILES_ROW(GROUPS) {depthwise_tiles_short##GROUPS, depthwise_tiles_whole##GROUPS}
typedef void depthwise_tiles_down(const depthwise_strip *s, int64_t row0, int64_t row1);

DEPTHWISE_TILES(1)
DEPTHWISE_TILES(2)
#if VF_LEN >= 8
DEPTHWISE_TILES(4)
#endif
#if VF_LEN >= 16
DEPTHWISE_TILES(8)
#endif

static void depthwise_winograd(const lamina_depthwise *d, int64_t row0, int64_t row1) {
  static depthwise_tiles_down *const downs[][2] = {DEPTHWISE_TILES_ROW(1), DEPTHWISE_TILES_ROW(2),
#if VF_LEN >= 8
                                                   DEPTHWISE_TILES_ROW(4),
#endif
#if VF_LEN >= 16
                                                   DEPTHWISE_TILES_ROW(8)
#endif
  };
  const depthwise_order order = depthwise_interleave((int)d->group);
  const int kind = depthwise_groups_kind(d->group);
  const int64_t strips = (d->columns + DW_WIDTH - 1) / DW_WIDTH;
  int64_t q = 0;
  for (int64_t strip = 0; strip < strips; strip++) {
    const int count = (int)((d->columns - q + strips - strip - 1) / (strips - strip));
    for (int64_t c = 0; c < d->channels; c += LAMINA_DEPTHWISE_BLOCK) {
      depthwise_strip s[DW_LINE_VECTORS];
      int used;
      depthwise_line(d, c, q, count, DW_TILE_TAPS, order.in, s, &used);
      for (int v = 0; v < used; v++) downs[kind][count == DW_WIDTH](s + v, row0, row1);
    }
    q += count;
  }
}

static void depthwise_winograd_weights(int64_t group, const float *taps, float *u) {
  static const float points[DW_POINTS][3] = {{1, 0, 0},
                                             {0, 0, 1},
                                             {-0.66666666666666667f, -0.47140452079103168f, -0.33333333333333333f},
                                             {-0.66666666666666667f, 0.47140452079103168f, -0.33333333333333333f},
                                             {0.16666666666666667f, 0.23570226039551584f, 0.33333333333333333f},
                                             {0.16666666666666667f, -0.23570226039551584f, 0.33333333333333333f}};
  const depthwise_order order = depthwise_interleave((int)group);
  for (int64_t k = 0; k < group; k++, taps += 9 * LAMINA_DEPTHWISE_BLOCK)
    for (int i = 0; i < DW_POINTS; i++) {
      float *to = u + depthwise_tile_weights(i, group) + k * 6 * LAMINA_DEPTHWISE_BLOCK;
      for (int t = 0; t < 3 * LAMINA_DEPTHWISE_BLOCK; t += VF_LEN) {
        vf sum = vf_mul(vf_set1(points[i][2]), vf_load(taps + 6 * LAMINA_DEPTHWISE_BLOCK + t));
        sum = vf_fma(vf_set1(points[i][1]), vf_load(taps + 3 * LAMINA_DEPTHWISE_BLOCK + t), sum);
        sum = vf_fma(vf_set1(points[i][0]), vf_load(taps + t), sum);
        vf_store(to + t, vf_pick(sum, order.in));
      }
    }
}

#endif
