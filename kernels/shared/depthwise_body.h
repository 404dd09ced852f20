/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file depthwise_body.h
 * Depthwise convolution, on vec.h: a strip of up to DW_WIDTH neighbouring outputs of one row, for one vector of
 * channels, is summed in registers. A step is one row of taps: their weights are loaded, and each vector of x in the
 * strip's row, loaded once, goes to all outputs that it feeds. So for K taps and a stride of S a step of K * width
 * FMAs costs K + (width - 1) * S + K loads. Other widths of a kernel and dilation take one load for each FMA.
 *
 * 3x3 keeps the outputs of three rows (stride 2: two) in registers, so that each vector of x is loaded once: 9 loads
 * for 63 FMAs with 32 registers, where the weights stay in registers too.
 *
 * Strips go down the rows, so that rows of x come from L1 when they are met again by the next outputs: pixels that are
 * many channels apart share few cache sets, and whole rows would not stay there.
 *
 * Padding is left out: rows by shortening the taps, columns by a check for each vector of x in strips at the border.
 */
#ifndef LAMINA_SHARED_DEPTHWISE_BODY_H
#define LAMINA_SHARED_DEPTHWISE_BODY_H

#include "kernels.h"
#include "vec_inline.h"

#include <math.h>

enum {
  DW_WIDTH = 7,
  DW_LINE_VECTORS = LAMINA_DEPTHWISE_BLOCK / VF_LEN,
  DW_PAGE = 4096,
  DW_SPARSE = 1024, /* bytes: so many pixels in so few sets that no row stays in L1 */
  DW_NEAR = 128,    /* bytes: two lines, which are fetched together */
  DW_LAG = 2,       /* lines of channels between what is computed and what is written */
  DW_LAG_ROWS = 8
};

/* Outputs that wait in a buffer, to be written row by row while others are computed. */
typedef struct depthwise_waiting {
  _Alignas(64) float buffer[DW_LAG_ROWS][DW_WIDTH][LAMINA_DEPTHWISE_BLOCK];
  float *y; /* of the next row to write */
  int64_t y_row, y_pixel;
  int row, rows, count, vectors;
} depthwise_waiting;

/* A strip: `count` outputs of a row from its first one, and the vector of channels with `lanes` of them in use. */
typedef struct depthwise_strip {
  const lamina_depthwise *d;
  const float *x; /* the vector of channels in row 0, in the column of tap 0 of the first output (perhaps outside) */
  const float *weights, *bias, *add;
  float *y;
  int64_t column; /* of x, as above */
  int count, lanes;
  const int32_t *picks;       /* a depthwise_order of groups of several channels, or NULL */
  const float *next_x, *next_y; /* what to prefetch, or NULL: depthwise_next */
  depthwise_waiting *waiting; /* of which a row is to be written with each row that is computed, or NULL */
} depthwise_strip;

VEC_INLINE void depthwise_write_row(depthwise_waiting *w) {
  if (w->row >= w->rows) return;
  for (int c = 0; c < w->count; c++)
    for (int v = 0; v < w->vectors; v++)
      vf_store(w->y + c * w->y_pixel + v * VF_LEN, vf_load(w->buffer[w->row][c] + v * VF_LEN));
  w->row++;
  w->y += w->y_row;
}

/* The taps i0 .. i1 of an output row that are inside of the image. */
VEC_INLINE void depthwise_rows(const lamina_depthwise_axis *h, int64_t row, int64_t *i0, int64_t *i1) {
  const int64_t top = row * h->stride + h->first;
  *i0 = 0;
  *i1 = h->taps;
  while (*i0 < *i1 && top + *i0 * h->step < 0) ++*i0;
  while (*i0 < *i1 && top + (*i1 - 1) * h->step >= h->in) --*i1;
}

VEC_INLINE vf depthwise_load(int masked, const float *p, int lanes) {
  return masked ? vf_load_n(p, lanes) : vf_load(p);
}

/* Adds what is to be added, clamps and stores. */
VEC_INLINE void depthwise_store(int masked, int width, const depthwise_strip *s, int64_t row, vf *acc) {
  const lamina_depthwise *d = s->d;
  const int count = s->count;
  const ptrdiff_t pixel = d->y_pixel;
  if (s->add) {
    const float *add = s->add + row * d->add_row;
#pragma GCC unroll 16
    for (int c = 0; c < width; c++)
      if (c < count) acc[c] = vf_add(acc[c], depthwise_load(masked, add + c * d->add_pixel, s->lanes));
  }
  if (d->lo > -INFINITY || d->hi < INFINITY) {
    const vf lo = vf_set1(d->lo), hi = vf_set1(d->hi);
#pragma GCC unroll 16
    for (int c = 0; c < width; c++) acc[c] = vf_min(hi, vf_max(lo, acc[c]));
  }
  float *y = s->y + row * d->y_row;
#pragma GCC unroll 16
  for (int c = 0; c < width; c++) {
    if (c >= count) break;
    if (masked)
      vf_store_n(y, acc[c], s->lanes);
    else
      vf_store(y, acc[c]);
    y += pixel;
  }
  if (!masked && s->waiting) depthwise_write_row(s->waiting);
}

/* Kernels `taps` wide with a step of 1. `border`: columns may be outside, or the strip shorter than `width`. */
VEC_INLINE void depthwise_row(int taps, int stride, int width, int border, int masked, const depthwise_strip *s,
                              int64_t row) {
  const lamina_depthwise *d = s->d;
  const int lanes = s->lanes;
  /* Vectors of x, counted from the strip's first: those that are inside and needed. */
  const int64_t end = (s->count - 1) * stride + taps, inside = d->w.in - s->column;
  const int64_t first = s->column < 0 ? -s->column : 0, last = end < inside ? end : inside;
  const ptrdiff_t pixel = d->x_pixel;
  vf acc[DW_WIDTH];
  const vf bias = vf_load(s->bias);
#pragma GCC unroll 16
  for (int c = 0; c < width; c++) acc[c] = bias;
  int64_t i0, i1;
  depthwise_rows(&d->h, row, &i0, &i1);
  const float *x = s->x + (row * d->h.stride + d->h.first + i0 * d->h.step) * d->x_row;
  const float *w = s->weights + i0 * taps * LAMINA_DEPTHWISE_BLOCK;
  const ptrdiff_t x_step = d->h.step * d->x_row;
  for (int64_t i = i1 - i0; i > 0; i--) {
    vf wv[7];
#pragma GCC unroll 16
    for (int k = 0; k < taps; k++) wv[k] = vf_load(w + k * LAMINA_DEPTHWISE_BLOCK);
    const float *p = x;
#pragma GCC unroll 32
    for (int j = 0; j < (width - 1) * stride + taps; j++) {
      if (!border || (j >= first && j < last)) {
        const vf xv = vf_pin(depthwise_load(masked, p, lanes));
#pragma GCC unroll 16
        for (int k = 0; k < taps; k++)
          if (j >= k && (j - k) % stride == 0 && (j - k) / stride < width)
            acc[(j - k) / stride] = vf_fma(xv, wv[k], acc[(j - k) / stride]);
      }
      p += pixel;
    }
    x += x_step;
    w += taps * LAMINA_DEPTHWISE_BLOCK;
  }
  depthwise_store(masked, width, s, row, acc);
}

#include "depthwise_ring.h"

/* Any width, stride and step of the kernel: one load for each FMA. */
VEC_INLINE void depthwise_row_any(int width, int border, int masked, const depthwise_strip *s, int64_t row) {
  const lamina_depthwise *d = s->d;
  const int lanes = s->lanes;
  const int64_t taps = d->w.taps, x_in = d->w.in, stride = d->w.stride;
  const ptrdiff_t x_output = d->w.stride * d->x_pixel, x_tap = d->w.step * d->x_pixel;
  const int count = s->count;
  vf acc[DW_WIDTH];
  const vf bias = vf_load(s->bias);
#pragma GCC unroll 16
  for (int c = 0; c < width; c++) acc[c] = bias;
  int64_t i0, i1;
  depthwise_rows(&d->h, row, &i0, &i1);
  const float *w = s->weights + i0 * taps * LAMINA_DEPTHWISE_BLOCK;
  for (int64_t i = i0; i < i1; i++) {
    const float *x = s->x + (row * d->h.stride + d->h.first + i * d->h.step) * d->x_row;
    int64_t column = s->column;
    for (int64_t k = 0; k < taps; k++) {
      const vf wv = vf_load(w);
      const float *p = x;
      int64_t at = column;
#pragma GCC unroll 16
      for (int c = 0; c < width; c++) {
        if (!border || (c < count && at >= 0 && at < x_in))
          acc[c] = vf_fma(depthwise_load(masked, p, lanes), wv, acc[c]);
        p += x_output;
        at += stride;
      }
      x += x_tap;
      column += d->w.step;
      w += LAMINA_DEPTHWISE_BLOCK;
    }
  }
  depthwise_store(masked, width, s, row, acc);
}

/* The strips of a line of channels, LAMINA_DEPTHWISE_BLOCK of them, go down together, since they share cache lines. */
#define DEPTHWISE_DOWN(NAME, ROW)                                                                                      \
  static __attribute__((noinline)) void NAME(const depthwise_strip *s, int vectors, int64_t row0, int64_t row1) {      \
    for (int64_t row = row0; row < row1; row++)                                                                        \
      for (int v = 0; v < vectors; v++) ROW;                                                                           \
  }

#define DEPTHWISE_RING(NAME, STRIDE)                                                                                   \
  DEPTHWISE_RING_KIND(NAME##_inside, STRIDE, 0, 0)                                                                     \
  DEPTHWISE_RING_KIND(NAME##_border, STRIDE, 1, 0)                                                                     \
  DEPTHWISE_RING_KIND(NAME##_masked, STRIDE, 1, 1)
#define DEPTHWISE_RING_KIND(NAME, STRIDE, BORDER, MASKED)                                                              \
  static __attribute__((noinline)) void NAME(const depthwise_strip *s, int vectors, int64_t row0, int64_t row1) {      \
    for (int v = 0; v < vectors; v++) depthwise_ring(STRIDE, BORDER, MASKED, s + v, row0, row1);                       \
  }

#define DEPTHWISE_WIDTH(TAPS, STRIDE)                                                                                  \
  DEPTHWISE_DOWN(depthwise_##TAPS##s##STRIDE##_inside, depthwise_row(TAPS, STRIDE, DW_WIDTH, 0, 0, s + v, row))        \
  DEPTHWISE_DOWN(depthwise_##TAPS##s##STRIDE##_border, depthwise_row(TAPS, STRIDE, DW_WIDTH, 1, 0, s + v, row))        \
  DEPTHWISE_DOWN(depthwise_##TAPS##s##STRIDE##_masked, depthwise_row(TAPS, STRIDE, DW_WIDTH, 1, 1, s + v, row))

DEPTHWISE_RING(depthwise_3x3s1, 1)
DEPTHWISE_RING(depthwise_3x3s2, 2)
DEPTHWISE_WIDTH(3, 1)
DEPTHWISE_WIDTH(3, 2)
DEPTHWISE_WIDTH(5, 1)
DEPTHWISE_WIDTH(5, 2)
DEPTHWISE_WIDTH(7, 1)
DEPTHWISE_WIDTH(7, 2)
DEPTHWISE_DOWN(depthwise_any_inside, depthwise_row_any(DW_WIDTH, 0, 0, s + v, row))
DEPTHWISE_DOWN(depthwise_any_border, depthwise_row_any(DW_WIDTH, 1, 0, s + v, row))
DEPTHWISE_DOWN(depthwise_any_masked, depthwise_row_any(DW_WIDTH, 1, 1, s + v, row))

/* How a strip goes down: away from the borders, at one, with some lanes only. */
typedef void depthwise_down(const depthwise_strip *s, int vectors, int64_t row0, int64_t row1);
typedef struct depthwise_downs {
  int width; /* outputs of a strip */
  depthwise_down *inside, *border, *masked;
} depthwise_downs;

#define DEPTHWISE_ROW(NAME, WIDTH)                                                                                     \
  { WIDTH, NAME##_inside, NAME##_border, NAME##_masked }

/* The largest power of two, at most a page, that divides distances in bytes: pixels that far apart share cache sets. */
static uintptr_t depthwise_period(int64_t floats) {
  const uintptr_t bits = (uintptr_t)floats * sizeof(float) | DW_PAGE;
  return bits & -bits;
}

/* The ring reads each row once; where weights do not stay in registers it pays only if rows do not stay in L1. */
static const depthwise_downs *depthwise_choose(const lamina_depthwise *d) {
  const lamina_depthwise_axis *h = &d->h, *w = &d->w;
  static const depthwise_downs fixed[3][2] = {
      {DEPTHWISE_ROW(depthwise_3s1, DW_WIDTH), DEPTHWISE_ROW(depthwise_3s2, DW_WIDTH)},
      {DEPTHWISE_ROW(depthwise_5s1, DW_WIDTH), DEPTHWISE_ROW(depthwise_5s2, DW_WIDTH)},
      {DEPTHWISE_ROW(depthwise_7s1, DW_WIDTH), DEPTHWISE_ROW(depthwise_7s2, DW_WIDTH)}};
  static const depthwise_downs any = DEPTHWISE_ROW(depthwise_any, DW_WIDTH);
  const int known = w->step == 1 && w->stride <= 2 && (w->taps == 3 || w->taps == 5 || w->taps == 7);
  static const depthwise_downs ring[2] = {DEPTHWISE_ROW(depthwise_3x3s1, DW_RING_WIDTH(1)),
                                          DEPTHWISE_ROW(depthwise_3x3s2, DW_RING_WIDTH(2))};
  const int pays = VF_REGISTERS >= 32 || depthwise_period(d->x_pixel) >= DW_SPARSE;
  if (known && pays && w->taps == 3 && h->taps == 3 && h->step == 1 && h->stride == w->stride)
    return &ring[w->stride - 1];
  return known ? &fixed[w->taps / 2 - 1][w->stride - 1] : &any;
}

/* Whether pixels of x and y, one below the other in a strip, share few sets of an L1 cache, the same for both: measured, a
   strip then takes up to twice as long. */
static int depthwise_collides(const lamina_depthwise *d) {
  const uintptr_t period = depthwise_period(d->x_pixel | d->y_pixel);
  const uintptr_t apart = ((uintptr_t)d->y - (uintptr_t)d->x) % period;
  return period >= DW_SPARSE && (apart < DW_NEAR || apart > period - DW_NEAR);
}

/* The lines of channels whose outputs wait. */
typedef struct depthwise_queue {
  depthwise_waiting waiting[DW_LAG + 1];
  int turn;
} depthwise_queue;

/* At most DW_LAG_ROWS rows of the full vectors of a line of channels, where x and y collide: the outputs go to a
   buffer, and what is written at the same time lies DW_LAG lines before. */
static void depthwise_late(depthwise_down *down, const depthwise_strip *strips, int vectors, int64_t row0, int64_t row1,
                           depthwise_queue *queue) {
  depthwise_waiting *now = queue->waiting + queue->turn;
  queue->turn = (queue->turn + 1) % (DW_LAG + 1);
  depthwise_waiting *write = queue->waiting + queue->turn;
  lamina_depthwise d = *strips->d;
  now->row = 0;
  now->rows = (int)(row1 - row0);
  now->count = strips->count;
  now->vectors = vectors;
  now->y_row = d.y_row;
  now->y_pixel = d.y_pixel;
  now->y = strips->y + row0 * d.y_row;
  d.y_row = DW_WIDTH * LAMINA_DEPTHWISE_BLOCK;
  d.y_pixel = LAMINA_DEPTHWISE_BLOCK;
  depthwise_strip s[DW_LINE_VECTORS];
  for (int v = 0; v < vectors; v++) {
    s[v] = strips[v];
    s[v].d = &d;
    s[v].y = now->buffer[0][0] + v * VF_LEN - row0 * d.y_row;
    s[v].waiting = v == 0 ? write : NULL;
  }
  down(s, vectors, row0, row1);
  while (write->row < write->rows) depthwise_write_row(write);
}

/* The vectors of a line of channels, from channel c, in the strip whose first output is q; with `taps` weights for each
   channel. Returns how many are full. */
static int depthwise_line(const lamina_depthwise *d, int64_t c, int64_t q, int count, int64_t taps,
                          const int32_t *picks, depthwise_strip *s, int *used) {
  static const float zeros[LAMINA_DEPTHWISE_BLOCK];
  const int64_t column = q * d->w.stride + d->w.first;
  int full = 0;
  *used = 0;
  for (int64_t lane = c; lane < d->channels && *used < DW_LINE_VECTORS; lane += VF_LEN) {
    const int lanes = (int)(d->channels - lane < VF_LEN ? d->channels - lane : VF_LEN);
    s[(*used)++] = (depthwise_strip){.d = d,
                                     .x = d->x + column * d->x_pixel + lane,
                                     .weights = d->weights + c * d->group * taps + lane - c,
                                     .bias = d->bias ? d->bias + lane : zeros,
                                     .add = d->add ? d->add + q * d->add_pixel + lane : NULL,
                                     .y = d->y + q * d->y_pixel + lane,
                                     .column = column,
                                     .count = count,
                                     .lanes = lanes,
                                     .picks = picks};
    full += lanes == VF_LEN;
  }
  return full;
}

/* What to prefetch while channels c .. c + 16 of a strip are computed: as many lines of each row of x and y as they have, but
   neighbours, a part of the strip that comes next. So memory is walked in order, page by page, whatever the channels. */
static void depthwise_next(const lamina_depthwise *d, int64_t c, int64_t q, int count, int64_t rows,
                           depthwise_strip *s) {
  if (!d->far || d->x_pixel != d->channels || d->y_pixel != d->channels) return;
  const int beside = q + count < d->columns; /* else at the left, below */
  const int64_t column = beside ? q + count : 0, row = beside ? 0 : rows;
  const int64_t x_column = column * d->w.stride + d->w.first + (beside ? d->w.taps : 0);
  s->next_x = d->x + row * d->h.stride * d->x_row + x_column * d->x_pixel + c * count * d->w.stride;
  s->next_y = d->y + row * d->y_row + column * d->y_pixel + c * count;
}

#include "depthwise_groups.h"
#include "depthwise_winograd.h"
#include "depthwise_scatter.h"

static void depthwise_strips(const lamina_depthwise *d, int64_t row0, int64_t row1, depthwise_queue *queue) {
  const depthwise_downs *downs = depthwise_choose(d);
  const int64_t strips = (d->columns + downs->width - 1) / downs->width;
  int64_t q = 0;
  for (int64_t strip = 0; strip < strips; strip++) {
    const int count = (int)((d->columns - q + strips - strip - 1) / (strips - strip));
    const int64_t column = q * d->w.stride + d->w.first;
    const int64_t last = column + (count - 1) * d->w.stride + (d->w.taps - 1) * d->w.step;
    depthwise_down *down = count == downs->width && column >= 0 && last < d->w.in ? downs->inside : downs->border;
    for (int64_t c = 0; c < d->channels; c += LAMINA_DEPTHWISE_BLOCK) {
      depthwise_strip s[DW_LINE_VECTORS];
      int used;
      const int full = depthwise_line(d, c, q, count, d->h.taps * d->w.taps, NULL, s, &used);
      if (full > 0 && queue)
        depthwise_late(down, s, full, row0, row1, queue);
      else if (full > 0)
        down(s, full, row0, row1);
      if (used > full) downs->masked(s + full, 1, row0, row1);
    }
    q += count;
  }
}

static void depthwise_forward(const lamina_depthwise *d, int64_t row0, int64_t row1) {
  if (d->group > 1) {
    depthwise_groups(d, row0, row1);
    return;
  }
  if (!depthwise_collides(d)) {
    depthwise_strips(d, row0, row1, NULL);
    return;
  }
  depthwise_queue queue;
  queue.turn = 0;
  for (int i = 0; i <= DW_LAG; i++) queue.waiting[i].row = queue.waiting[i].rows = 0;
  const int64_t rows = row1 - row0, blocks = (rows + DW_LAG_ROWS - 1) / DW_LAG_ROWS;
  for (int64_t i = 0; i < blocks; i++)
    depthwise_strips(d, row0 + rows * i / blocks, row0 + rows * (i + 1) / blocks, &queue);
  for (int i = 0; i <= DW_LAG; i++) {
    depthwise_waiting *w = queue.waiting + (queue.turn + i) % (DW_LAG + 1);
    while (w->row < w->rows) depthwise_write_row(w);
  }
}

#endif
