/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The convolution group in C without intrinsics: the specification of the group, and what runs where no other ISA does.
 * Tiles of 4 x 8, and of 2 x 16 over two panels.
 */
#include "generic.h"

#include <string.h>

#define ROWS 4
#define COLUMNS 8
#define WIDE_ROWS 2

typedef float quad __attribute__((vector_size(16)));

/* NaN stays: both comparisons are false for it. */
static inline float clamp(float x, float lo, float hi) {
  x = x < lo ? lo : x;
  return x > hi ? hi : x;
}

/* `rows` and `panels` are constants in every caller. */
static inline __attribute__((always_inline)) void tile_one(const lamina_conv_tile *t, const int rows,
                                                           const int panels) {
  quad acc[ROWS][2 * COLUMNS / 4] = {{{0.0f}}};
  for (int64_t i = 0; i < t->runs; i++) {
    const lamina_conv_taps *run = &t->run[i];
    const float *a = t->a + run->a, *b = t->b + run->b;
    for (int64_t p = 0; p < run->k; p++, a++, b += COLUMNS) {
      quad bp[2][COLUMNS / 4];
      memcpy(bp[0], b, sizeof bp[0]);
      if (panels > 1) memcpy(bp[1], b + t->b_panel, sizeof bp[1]);
#pragma GCC unroll 4
      for (int m = 0; m < rows; m++) {
        if (m < run->first || m >= run->last) continue;
#pragma GCC unroll 4
        for (int v = 0; v < panels * COLUMNS / 4; v++)
          acc[m][v] += a[m * t->a_row] * bp[v / (COLUMNS / 4)][v % (COLUMNS / 4)];
      }
    }
  }
  float sum[ROWS][2 * COLUMNS];
  memcpy(sum, acc, sizeof sum);
  for (int m = 0; m < rows; m++) {
    float *c = t->c + m * t->c_row;
    for (int j = 0; j < t->n; j++) {
      float x = sum[m][j];
      if (t->accumulate) x += c[j];
      if (t->bias) x += t->bias[j];
      if (t->add) x += t->add[m * t->add_row + j];
      c[j] = clamp(x, t->lo, t->hi);
    }
  }
}

static inline __attribute__((always_inline)) void tile_body(lamina_conv_tile *t, const int rows, const int panels) {
  do {
    tile_one(t, rows, panels);
    t->a += rows * t->a_row;
    t->c += rows * t->c_row;
    if (t->add) t->add += rows * t->add_row;
  } while (--t->repeat > 0);
}

static void tile_1x1(lamina_conv_tile *t) { tile_body(t, 1, 1); }
static void tile_1x2(lamina_conv_tile *t) { tile_body(t, 1, 2); }
static void tile_2x1(lamina_conv_tile *t) { tile_body(t, 2, 1); }
static void tile_2x2(lamina_conv_tile *t) { tile_body(t, 2, 2); }
static void tile_3x1(lamina_conv_tile *t) { tile_body(t, 3, 1); }
static void tile_4x1(lamina_conv_tile *t) { tile_body(t, 4, 1); }

static void (*const tiles_1[])(lamina_conv_tile *) = {NULL, tile_1x1, tile_1x2};
static void (*const tiles_2[])(lamina_conv_tile *) = {NULL, tile_2x1, tile_2x2};
static void (*const tiles_3[])(lamina_conv_tile *) = {NULL, tile_3x1};
static void (*const tiles_4[])(lamina_conv_tile *) = {NULL, tile_4x1};

static void (*const *const tiles[ROWS + 1])(lamina_conv_tile *) = {NULL, tiles_1, tiles_2, tiles_3, tiles_4};

static void overlap_add(const lamina_conv_overlap *o) {
  for (int64_t i = 0; i < o->rows; i++)
    for (int64_t t = 0; t < o->runs; t++)
      for (int64_t j = 0; o->to[t] && j < o->length; j++)
        o->to[t][i * o->to_row + j] += o->from[i * o->from_row + t * o->length + j];
}

const lamina_conv_kernels lamina_generic_conv = {.mr = ROWS,
                                                 .nr = COLUMNS,
                                                 .vector = COLUMNS,
                                                 .wide_rows = WIDE_ROWS,
                                                 .good_rows = 1,
                                                 .short_tile = ROWS,
                                                 .tile = tiles,
                                                 .overlap_add = overlap_add};
