/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file pool_winner_body.h
 * Max pooling that remembers, on vec.h. Forward writes for each window and channel the number of the tap that won, a byte;
 * backward then reads neither x nor y, and gathers: each pixel of dx is written once, as the sum over the few windows that
 * it lies in. Cost: forward a load for each tap, backward two for each window that a pixel lies in, and a store.
 */
#ifndef LAMINA_SHARED_POOL_WINNER_BODY_H
#define LAMINA_SHARED_POOL_WINNER_BODY_H

#include "kernels.h"
#include "vec_inline.h"

#include <string.h>

enum { WINNER_VECTORS = VF_REGISTERS / 8, WINNER_MOST = 256 };

/* `vectors` vectors of channels from c on, or one of `tail` lanes. */
VEC_INLINE void winner_window(int vectors, int tail, const lamina_pool_row *run, int64_t w, int64_t c) {
  vf best[WINNER_VECTORS], winner[WINNER_VECTORS];
  const float *x = run->x + w * run->x_at.window + c;
  for (int v = 0; v < vectors; v++) {
    best[v] = tail ? vf_load_n(x, tail) : vf_load(x + v * VF_LEN);
    winner[v] = vf_set1((float)run->tap);
  }
  for (int64_t i = 0; i < run->rows; i++, x += run->x_at.row)
    for (int64_t j = i == 0; j < run->columns; j++) {
      const vf number = vf_set1((float)(run->tap + i * run->tap_row + j));
      const float *p = x + j * run->x_at.column;
      for (int v = 0; v < vectors; v++) {
        const vf value = tail ? vf_load_n(p, tail) : vf_load(p + v * VF_LEN);
        const vm better = vm_or(vf_lt(best[v], value), vf_isnan(value));
        best[v] = vf_select(better, value, best[v]);
        winner[v] = vf_select(better, number, winner[v]);
      }
    }
  float *y = run->y + w * run->y_ld + c;
  uint8_t *to = run->winner + w * run->winner_ld + c, bytes[VF_LEN];
  for (int v = 0; v < vectors; v++) {
    if (tail) {
      vf_store_n(y, best[v], tail);
      vb_store(bytes, winner[v]);
      memcpy(to, bytes, (size_t)tail);
    } else {
      vf_store(y + v * VF_LEN, best[v]);
      vb_store(to + v * VF_LEN, winner[v]);
    }
  }
}

static void pool_max_winner(const lamina_pool_row *run) {
  for (int64_t w = 0; w < run->windows; w++) {
    int64_t c = 0;
    for (; c + WINNER_VECTORS * VF_LEN <= run->channels; c += WINNER_VECTORS * VF_LEN)
      winner_window(WINNER_VECTORS, 0, run, w, c);
    for (; c + VF_LEN <= run->channels; c += VF_LEN) winner_window(1, 0, run, w, c);
    if (c < run->channels) winner_window(1, (int)(run->channels - c), run, w, c);
  }
}

/* A window that a pixel lies in: its gradient, its winners, and the number that the pixel has there. */
typedef struct gather_window {
  const float *dy;
  const uint8_t *winner;
  int number;
} gather_window;

VEC_INLINE vf gather_share(const gather_window *from, int64_t c) {
  return vf_keep(vb_is(from->winner + c, from->number), vf_load(from->dy + c));
}

VEC_INLINE vf gather_share_n(const gather_window *from, int64_t c, int n) {
  uint8_t bytes[VF_LEN] = {0};
  memcpy(bytes, from->winner + c, (size_t)n);
  return vf_keep(vb_is(bytes, from->number), vf_load_n(from->dy + c, n));
}

VEC_INLINE void gather_pixel(int count, int stream, const lamina_pool_gather *row, const gather_window *from, float *dx) {
  int64_t c = 0;
  for (; c + VF_LEN <= row->channels; c += VF_LEN) {
    vf sum = row->accumulate ? vf_load(dx + c) : vf_zero();
    for (int i = 0; i < count; i++) sum = vf_add(sum, gather_share(&from[i], c));
    if (stream)
      vf_stream(dx + c, sum);
    else
      vf_store(dx + c, sum);
  }
  const int n = (int)(row->channels - c);
  if (n == 0) return;
  vf sum = row->accumulate ? vf_load_n(dx + c, n) : vf_zero();
  for (int i = 0; i < count; i++) sum = vf_add(sum, gather_share_n(&from[i], c, n));
  vf_store_n(dx + c, sum, n);
}

/* The windows that column w of the row lies in; returns how many. */
VEC_INLINE int gather_windows(const lamina_pool_gather *row, int64_t w, gather_window *from) {
  const int64_t at = w + row->padding, before = at - row->width + 1; /* the first and the last window begin there */
  const int64_t first = before > 0 ? (before + row->stride - 1) / row->stride : 0, last = at / row->stride;
  int count = 0;
  for (int64_t i = 0; i < row->rows; i++)
    for (int64_t o = first; o <= last && o < row->windows; o++)
      from[count++] = (gather_window){.dy = row->dy + i * row->dy_row + o * row->dy_ld,
                                      .winner = row->winner + i * row->winner_row + o * row->winner_ld,
                                      .number = (int)(row->tap - i * row->tap_row + at - o * row->stride)};
  return count;
}

VEC_INLINE void gather_row(int stream, const lamina_pool_gather *row) {
  gather_window from[WINNER_MOST];
  for (int64_t w = 0; w < row->columns; w++) {
    const int count = gather_windows(row, w, from);
    float *dx = row->dx + w * row->dx_ld;
    if (count == 1)
      gather_pixel(1, stream, row, from, dx);
    else if (count == 2)
      gather_pixel(2, stream, row, from, dx);
    else if (count == 4)
      gather_pixel(4, stream, row, from, dx);
    else
      gather_pixel(count, stream, row, from, dx);
  }
}

static void pool_max_gather(const lamina_pool_gather *row) {
  if (row->stream && (uintptr_t)row->dx % (VF_LEN * sizeof(float)) == 0 && row->dx_ld % VF_LEN == 0) {
    gather_row(1, row);
    vf_stream_end();
  } else {
    gather_row(0, row);
  }
}

#endif
