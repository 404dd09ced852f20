/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file pool_body.h
 * A run of pooling windows of one row, on vec.h. Up to four vectors of channels are kept in registers while the taps
 * pass, first down the columns, then from column to column. Windows of three columns that overlap share the columns'
 * results. Cost: one load for each tap that no other window of the run shares, and channel.
 */
#ifndef LAMINA_SHARED_POOL_BODY_H
#define LAMINA_SHARED_POOL_BODY_H

#include "kernels.h"
#include "vec_inline.h"

#include <math.h>

enum {
  POOL_VECTORS = 4,
  /* A large window has so many taps, and takes so many vectors if they are long enough together. Where rows are a
     multiple of 4 KiB apart, the taps of a few channels compete for the same lines of the cache. */
  POOL_LARGE = 16,
  POOL_WIDE = VF_REGISTERS / 4,
  POOL_WIDE_FLOATS = POOL_WIDE * VF_LEN,
  POOL_LONG_FLOATS = 128,
  POOL_PIECE = VF_REGISTERS / 2, /* vectors of a piece where x comes from memory */
  POOL_MOST = POOL_WIDE > POOL_VECTORS ? POOL_WIDE : POOL_VECTORS,
  /* Windows that share columns are walked with one block of channels in registers; so many of them stay in cache until
     the next block's turn. */
  POOL_CHUNK = 16
};

/* A block of channels: whole vectors at c, c + VF_LEN, ..., the last of them at c + last, or `tail` channels alone. */
typedef struct pool_block {
  int64_t c, last;
  int tail;
} pool_block;

VEC_INLINE int64_t pool_at(int v, int vectors, const pool_block *b) { return v + 1 < vectors ? v * VF_LEN : b->last; }

VEC_INLINE vf pool_load(const float *p, int v, int vectors, const pool_block *b) {
  return vectors ? vf_load(p + pool_at(v, vectors, b)) : vf_load_n(p, b->tail);
}

VEC_INLINE void pool_store(float *p, vf value, int v, int vectors, const pool_block *b) {
  if (vectors)
    vf_store(p + pool_at(v, vectors, b), value);
  else
    vf_store_n(p, value, b->tail);
}

VEC_INLINE vf pool_join(int is_max, vf a, vf b) { return is_max ? vf_larger(a, b) : vf_add(a, b); }

/* One column of taps. `vectors` is 0 for a tail. */
VEC_INLINE void pool_column(int is_max, int vectors, int64_t rows, const float *p, int64_t below, const pool_block *b,
                            vf *r) {
  const int n = vectors ? vectors : 1;
  for (int v = 0; v < n; v++) r[v] = pool_load(p, v, vectors, b);
  for (int64_t i = 1; i < rows; i++) {
    p += below;
    for (int v = 0; v < n; v++) r[v] = pool_join(is_max, r[v], pool_load(p, v, vectors, b));
  }
}

/* `count` windows from number `first` on. Columns that a window shares with the next one: `shared` of three, or 0. */
VEC_INLINE void pool_windows(int is_max, int vectors, int64_t rows, int64_t columns, int shared,
                             const lamina_pool_row *run, const pool_block *b, int64_t first, int64_t count) {
  const int n = vectors ? vectors : 1;
  const int64_t below = run->x_at.row, right = run->x_at.column;
  const vf scale = vf_set1(run->scale);
  const float *x = run->x + first * run->x_at.window + b->c;
  float *y = run->y + first * run->y_ld + b->c;
  vf kept[2][POOL_MOST];
  for (int j = 0; j < shared; j++) pool_column(is_max, vectors, rows, x + j * right, below, b, kept[j]);
  for (int64_t w = 0; w < count; w++, x += run->x_at.window, y += run->y_ld) {
    vf r[POOL_MOST], column[POOL_MOST];
    if (!shared) pool_column(is_max, vectors, rows, x, below, b, r);
    if (shared)
      for (int v = 0; v < n; v++) r[v] = shared == 2 ? pool_join(is_max, kept[0][v], kept[1][v]) : kept[0][v];
    for (int64_t j = shared ? shared : 1; j < columns; j++) {
      pool_column(is_max, vectors, rows, x + j * right, below, b, column);
      for (int v = 0; v < n; v++) r[v] = pool_join(is_max, r[v], column[v]);
    }
    for (int v = 0; v < n && shared; v++) {
      kept[0][v] = shared == 2 ? kept[1][v] : column[v];
      kept[1][v] = column[v];
    }
    for (int v = 0; v < n; v++) pool_store(y, is_max ? r[v] : vf_mul(r[v], scale), v, vectors, b);
  }
}

/* All channels: wide blocks if wanted, blocks of `most` vectors, then what is left. The last vector may overlap the one before. */
VEC_INLINE void pool_channels(int is_max, int wide, int most, int64_t rows, int64_t columns, int shared,
                              const lamina_pool_row *run, int64_t first, int64_t count) {
  pool_block b = {.c = 0, .last = (most - 1) * VF_LEN};
  const int64_t channels = run->channels;
  if (wide) {
    b.last = (POOL_WIDE - 1) * VF_LEN;
    for (; b.c + POOL_WIDE_FLOATS <= channels; b.c += POOL_WIDE_FLOATS)
      pool_windows(is_max, POOL_WIDE, rows, columns, shared, run, &b, first, count);
    b.last = (most - 1) * VF_LEN;
  }
  for (; b.c + most * VF_LEN <= channels; b.c += most * VF_LEN)
    pool_windows(is_max, most, rows, columns, shared, run, &b, first, count);
  if (b.c == channels) return;
  if (channels < VF_LEN) {
    b.tail = (int)channels;
    pool_windows(is_max, 0, rows, columns, shared, run, &b, first, count);
    return;
  }
  const int64_t vectors = (channels - b.c + VF_LEN - 1) / VF_LEN;
  b.last = channels - VF_LEN - b.c;
  if (most >= 4 && vectors == 4)
    pool_windows(is_max, 4, rows, columns, shared, run, &b, first, count);
  else if (most >= 3 && vectors == 3)
    pool_windows(is_max, 3, rows, columns, shared, run, &b, first, count);
  else if (vectors == 2)
    pool_windows(is_max, 2, rows, columns, shared, run, &b, first, count);
  else
    pool_windows(is_max, 1, rows, columns, shared, run, &b, first, count);
}

/* One window tap by tap, `vectors` of channels from c on, or a tail. */
VEC_INLINE void pool_taps(int is_max, int vectors, const lamina_pool_row *run, int64_t w, int64_t c, int tail) {
  const int n = vectors ? vectors : 1;
  const pool_block b = {.last = (n - 1) * VF_LEN, .tail = tail};
  const vf scale = vf_set1(run->scale);
  const float *x = run->x + w * run->x_at.window + c;
  float *y = run->y + w * run->y_ld + c;
  vf r[POOL_PIECE];
  for (int v = 0; v < n; v++) r[v] = is_max ? vf_set1(-INFINITY) : vf_zero();
  for (int64_t i = 0; i < run->rows; i++, x += run->x_at.row)
    for (int64_t j = 0; j < run->columns; j++) {
      const float *p = x + j * run->x_at.column;
      for (int v = 0; v < n; v++) r[v] = pool_join(is_max, r[v], pool_load(p, v, vectors, &b));
    }
  for (int v = 0; v < n; v++) pool_store(y, is_max ? r[v] : vf_mul(r[v], scale), v, vectors, &b);
}

/* From memory: long pieces of channels, for the sake of the processor's prefetch. */
VEC_INLINE void pool_streamed(int is_max, const lamina_pool_row *run) {
  for (int64_t w = 0; w < run->windows; w++) {
    int64_t c = 0, vectors = run->channels / VF_LEN;
    for (; vectors >= POOL_PIECE; vectors -= POOL_PIECE, c += POOL_PIECE * VF_LEN)
      pool_taps(is_max, POOL_PIECE, run, w, c, 0);
    for (; vectors >= POOL_PIECE * 3 / 4; vectors -= POOL_PIECE * 3 / 4, c += POOL_PIECE * 3 / 4 * VF_LEN)
      pool_taps(is_max, POOL_PIECE * 3 / 4, run, w, c, 0);
    for (; vectors >= POOL_PIECE / 2; vectors -= POOL_PIECE / 2, c += POOL_PIECE / 2 * VF_LEN)
      pool_taps(is_max, POOL_PIECE / 2, run, w, c, 0);
    for (; vectors >= 2; vectors -= 2, c += 2 * VF_LEN) pool_taps(is_max, 2, run, w, c, 0);
    for (; vectors >= 1; vectors -= 1, c += VF_LEN) pool_taps(is_max, 1, run, w, c, 0);
    if (c < run->channels) pool_taps(is_max, 0, run, w, c, (int)(run->channels - c));
  }
}

/* Windows that share nothing are taken one after the other, so that memory is read in its order. */
VEC_INLINE void pool_apart(int is_max, int64_t rows, int64_t columns, const lamina_pool_row *run) {
  if (run->channels <= POOL_VECTORS * VF_LEN)
    pool_channels(is_max, 0, POOL_VECTORS, rows, columns, 0, run, 0, run->windows);
  else
    for (int64_t w = 0; w < run->windows; w++) pool_channels(is_max, 0, POOL_VECTORS, rows, columns, 0, run, w, 1);
}

VEC_INLINE void pool_add_column(int is_max, int vectors, const lamina_pool_row *run, const pool_block *b, int64_t j,
                                const float *x, float *y) {
  const int n = vectors ? vectors : 1;
  const vf scale = vf_set1(run->scale);
  vf r[POOL_VECTORS];
  pool_column(is_max, vectors, run->rows, x + b->c, run->x_at.row, b, r);
  for (int v = 0; v < n; v++) {
    if (j > 0) r[v] = pool_join(is_max, pool_load(y + b->c, v, vectors, b), r[v]);
    if (!is_max && j + 1 == run->columns) r[v] = vf_mul(r[v], scale);
    pool_store(y + b->c, r[v], v, vectors, b);
  }
}

/* Large windows without enough registers for long pieces: column by column, with y as the accumulator, so that only the
   rows of one column compete. */
VEC_INLINE void pool_by_column(int is_max, const lamina_pool_row *run) {
  for (int64_t w = 0; w < run->windows; w++)
    for (int64_t j = 0; j < run->columns; j++) {
      const float *x = run->x + w * run->x_at.window + j * run->x_at.column;
      float *y = run->y + w * run->y_ld;
      pool_block b = {.c = 0, .last = (POOL_VECTORS - 1) * VF_LEN};
      for (; b.c + POOL_VECTORS * VF_LEN <= run->channels; b.c += POOL_VECTORS * VF_LEN)
        pool_add_column(is_max, POOL_VECTORS, run, &b, j, x, y);
      b.last = 0;
      for (; b.c + VF_LEN <= run->channels; b.c += VF_LEN) pool_add_column(is_max, 1, run, &b, j, x, y);
      b.tail = (int)(run->channels - b.c);
      if (b.tail > 0) pool_add_column(is_max, 0, run, &b, j, x, y);
    }
}

VEC_INLINE void pool_overlapping(int is_max, int shared, const lamina_pool_row *run) {
  enum { PAIR = VF_REGISTERS / 8 }; /* two kept columns, a third and the result */
  for (int64_t w = 0; w < run->windows; w += POOL_CHUNK) {
    const int64_t count = run->windows - w < POOL_CHUNK ? run->windows - w : POOL_CHUNK;
    pool_channels(is_max, 0, shared == 2 ? PAIR : POOL_VECTORS, run->rows, 3, shared, run, w, count);
  }
}

VEC_INLINE void pool_forward(int is_max, const lamina_pool_row *run) {
  const int64_t step = run->x_at.window, right = run->x_at.column;
  if (run->streamed && run->channels > POOL_VECTORS * VF_LEN)
    pool_streamed(is_max, run);
  else if (run->columns == 3 && run->windows > 1 && step == 2 * right)
    pool_overlapping(is_max, 1, run);
  else if (run->columns == 3 && run->windows > 1 && step == right)
    pool_overlapping(is_max, 2, run);
  else if (run->columns == 2 && run->rows == 2)
    pool_apart(is_max, 2, 2, run);
  else if (run->rows * run->columns >= POOL_LARGE && POOL_WIDE_FLOATS < POOL_LONG_FLOATS)
    pool_by_column(is_max, run);
  else if (run->rows * run->columns >= POOL_LARGE)
    for (int64_t w = 0; w < run->windows; w++)
      pool_channels(is_max, 1, POOL_VECTORS, run->rows, run->columns, 0, run, w, 1);
  else
    pool_apart(is_max, run->rows, run->columns, run);
}

static void pool_max(const lamina_pool_row *run) { pool_forward(1, run); }

static void pool_average(const lamina_pool_row *run) { pool_forward(0, run); }

#endif
