/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: the convolution tile of TILE_ROWS output pixels and TILE_VECTORS vectors of output channels; included once
 * for each such pair by conv_tiles.h.
 *
 *   C(m, j) = epilogue( sum over runs r with first <= m < last, p < k of
 *                       a[r.a + m * a_row + p] * b[r.b + p * nr + j] )
 *
 * Every accumulator stays in a register over all runs. A run that all rows take part in is a loop of constant shape;
 * one that the first or the last rows have no part in (their pixels lie beside the image) enters the same sequence of
 * rows by a jump, always the same one for the whole run. A step in depth costs rows x vectors FMAs, rows scalar loads
 * and TILE_VECTORS vector loads. Five rows share a base pointer, as in gemm_tile.h.
 */

#define TILE_BASES ((TILE_ROWS + 4) / 5)

/* A step in depth for one row; rows that the tile does not have vanish. */
#define TILE_ROW(m)                                                                                                    \
  if ((m) < TILE_ROWS) {                                                                                               \
    const float *am = a[(m) / 5] + ((m) % 5 == 3 ? row3 : (m) % 5 * row);                                              \
    _Pragma("GCC unroll 16") for (int v = 0; v < TILE_VECTORS; v++) acc[(m) < TILE_ROWS ? (m) : 0][v] =                \
        tile_fma(am, bv[v], acc[(m) < TILE_ROWS ? (m) : 0][v]);                                                        \
  }
#define TILE_CASE(m)                                                                                                   \
  case (m):                                                                                                            \
    TILE_ROW(m)                                                                                                        \
    __attribute__((fallthrough));

#define TILE_LOAD                                                                                                      \
  vf bv[TILE_VECTORS];                                                                                                 \
  _Pragma("GCC unroll 16") for (int v = 0; v < TILE_VECTORS; v++) bv[v] =                                              \
      vf_load((v < CONV_VECTORS ? b : b2) + v % CONV_VECTORS * VF_LEN);
#define TILE_ADVANCE                                                                                                   \
  vf_prefetch_l2(prefetch);                                                                                            \
  prefetch += prefetch_step;                                                                                           \
  b += CONV_VECTORS * VF_LEN;                                                                                          \
  if (TILE_VECTORS > CONV_VECTORS) b2 += CONV_VECTORS * VF_LEN;                                                        \
  _Pragma("GCC unroll 16") for (int s = 0; s < TILE_BASES; s++) a[s] += 1;

#define TILE_LOOP(from, to)                                                                                            \
  for (; p > 0; p--) {                                                                                                 \
    TILE_LOAD                                                                                                          \
    _Pragma("GCC unroll 16") for (int m = (from); m < (to); m++) TILE_ROW(m) TILE_ADVANCE                              \
  }
/* gcc would make a loop of its own for each row. clang does not, and 14 takes the hidden value from a wrong register. */
#ifdef __clang__
#define TILE_HIDE(value)
#else
#define TILE_HIDE(value) __asm__("" : "+r"(value));
#endif
#define TILE_LOOP_JUMP(row, cases)                                                                                     \
  for (int to = (row); p > 0; p--) {                                                                                   \
    TILE_LOAD                                                                                                          \
    TILE_HIDE(to)                                                                                                      \
    switch (to) {                                                                                                      \
      cases case 15 : break; /* no row */                                                                              \
    default:                                                                                                           \
      __builtin_unreachable();                                                                                         \
    }                                                                                                                  \
    TILE_ADVANCE                                                                                                       \
  }

static inline __attribute__((always_inline)) void TILE_ONE(TILE_ROWS, TILE_VECTORS)(const lamina_conv_tile *t) {
  vf acc[TILE_ROWS][TILE_VECTORS];
#pragma GCC unroll 16
  for (int m = 0; m < TILE_ROWS; m++)
#pragma GCC unroll 16
    for (int v = 0; v < TILE_VECTORS; v++) acc[m][v] = vf_zero();

  /* The stores at the end would wait for their lines one after the other. */
  const float *line = t->c;
#pragma GCC unroll 16
  for (int m = 0; m < TILE_ROWS; m++, line = tile_hidden(line + t->c_row))
#pragma GCC unroll 16
    for (int v = 0; v < TILE_VECTORS; v++) vf_prefetch_l1(line + v * VF_LEN);
  const ptrdiff_t row = t->a_row;
  ptrdiff_t row3 = 3 * row;
  __asm__("" : "+r"(row3));
  const char *prefetch = t->prefetch ? (const char *)t->prefetch : (const char *)t->b;
  const ptrdiff_t prefetch_step = t->prefetch ? TILE_LINE : 0;
  for (int64_t i = 0; i < t->runs; i++) {
    /* Read again for each run: kept from before, these fields would only go from one place in memory to another. */
    const lamina_conv_tile *now = tile_hidden(t);
    const lamina_conv_taps *run = now->run + i;
    const float *b = now->b + run->b;
    const float *b2 = b;
    if (TILE_VECTORS > CONV_VECTORS) b2 = b + now->b_panel;
    const float *a[TILE_BASES];
    a[0] = now->a + run->a;
#pragma GCC unroll 16
    for (int s = 1; s < TILE_BASES; s++) a[s] = (const float *)tile_hidden(a[s - 1] + row3) + 2 * row;
    int64_t p = run->k;
    const int first = run->first, last = run->last;
    if (first == 0 && last == TILE_ROWS) {
      TILE_LOOP(0, TILE_ROWS)
    } else if (first > 0) {
      if (first == 1) {
        TILE_LOOP(1, TILE_ROWS)
      } else if (first == 2) {
        TILE_LOOP(2, TILE_ROWS)
      } else if (first == 3) {
        TILE_LOOP(3, TILE_ROWS)
      } else {
        TILE_LOOP_JUMP(first, TILE_CASE(4) TILE_CASE(5) TILE_CASE(6) TILE_CASE(7) TILE_CASE(8) TILE_CASE(9)
                                  TILE_CASE(10) TILE_CASE(11) TILE_CASE(12) TILE_CASE(13))
      }
    } else if (last == TILE_ROWS - 1) {
      TILE_LOOP(0, TILE_ROWS - 1)
    } else if (last == TILE_ROWS - 2) {
      TILE_LOOP(0, TILE_ROWS - 2)
    } else if (last == TILE_ROWS - 3) {
      TILE_LOOP(0, TILE_ROWS - 3)
    } else {
      TILE_LOOP_JUMP(last - 1, TILE_CASE(9) TILE_CASE(8) TILE_CASE(7) TILE_CASE(6) TILE_CASE(5) TILE_CASE(4)
                                   TILE_CASE(3) TILE_CASE(2) TILE_CASE(1) TILE_CASE(0))
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
    const float *c = t->c;
#pragma GCC unroll 16
    for (int m = 0; m < TILE_ROWS; m++, c = tile_hidden(c + t->c_row))
#pragma GCC unroll 16
      for (int v = 0; v < TILE_VECTORS; v++) acc[m][v] = vf_add(acc[m][v], vf_load(c + v * VF_LEN));
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
    const float *add = t->add;
#pragma GCC unroll 16
    for (int m = 0; m < TILE_ROWS; m++, add = tile_hidden(add + t->add_row))
#pragma GCC unroll 16
      for (int v = 0; v < TILE_VECTORS; v++) acc[m][v] = vf_add(acc[m][v], vf_load(add + v * VF_LEN));
  }
  if (t->lo > -INFINITY || t->hi < INFINITY) {
    const vf lo = vf_set1(t->lo), hi = vf_set1(t->hi);
#pragma GCC unroll 16
    for (int m = 0; m < TILE_ROWS; m++)
#pragma GCC unroll 16
      for (int v = 0; v < TILE_VECTORS; v++) acc[m][v] = vf_min(hi, vf_max(lo, acc[m][v]));
  }
  float *c = t->c;
  const ptrdiff_t c_row = t->c_row; /* the stores might change it for all that the compiler knows */
#pragma GCC unroll 16
  for (int m = 0; m < TILE_ROWS; m++, c = tile_hidden(c + c_row))
#pragma GCC unroll 16
    for (int v = 0; v < TILE_VECTORS; v++) vf_store(c + v * VF_LEN, acc[m][v]);
}

static __attribute__((noinline)) void TILE_NAME(TILE_ROWS, TILE_VECTORS)(lamina_conv_tile *t) {
  do {
    TILE_ONE(TILE_ROWS, TILE_VECTORS)(t);
    const ptrdiff_t c_step = TILE_ROWS * t->c_row;
    t->a += TILE_ROWS * t->a_row;
    t->c += c_step;
    if (t->add) t->add += TILE_ROWS * t->add_row;
    if (t->prefetch) t->prefetch += c_step;
  } while (--t->repeat > 0);
}

#undef TILE_BASES
#undef TILE_ROW
#undef TILE_CASE
#undef TILE_LOAD
#undef TILE_ADVANCE
#undef TILE_LOOP
#undef TILE_HIDE
#undef TILE_LOOP_JUMP
