/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file depthwise_body.h
 * Depthwise convolution, on vec.h: a strip of up to DW_WIDTH neighbouring outputs of one row, for one vector of
 * channels, is summed in registers. A step is one row of taps: their weights are loaded, and each vector of x in the
 * strip's row, loaded once, goes to all outputs that it feeds. So for K taps and a stride of S a step of K * width
 * FMAs costs K + (width - 1) * S + K loads. Other widths of a kernel and dilation take one load for each FMA.
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

enum { DW_WIDTH = 7, DW_LINE_VECTORS = LAMINA_DEPTHWISE_BLOCK / VF_LEN };

/* A strip: `count` outputs of a row from its first one, and the vector of channels with `lanes` of them in use. */
typedef struct depthwise_strip {
  const lamina_depthwise *d;
  const float *x; /* the vector of channels in row 0, in the column of tap 0 of the first output (perhaps outside) */
  const float *weights, *bias, *add;
  float *y;
  int64_t column; /* of x, as above */
  int count, lanes;
} depthwise_strip;

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
  if (s->add) {
    const float *add = s->add + row * d->add_row;
#pragma GCC unroll 16
    for (int c = 0; c < width; c++)
      if (c < count) acc[c] = vf_add(acc[c], depthwise_load(masked, add + c * d->add_pixel, s->lanes));
  }
  const vf lo = vf_set1(d->lo), hi = vf_set1(d->hi);
  float *y = s->y + row * d->y_row;
#pragma GCC unroll 16
  for (int c = 0; c < width; c++) {
    const vf r = vf_min(hi, vf_max(lo, acc[c]));
    if (c >= count) break;
    if (masked)
      vf_store_n(y + c * d->y_pixel, r, s->lanes);
    else
      vf_store(y + c * d->y_pixel, r);
  }
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
  const vf bias = s->bias ? vf_load(s->bias) : vf_zero();
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
        const vf xv = depthwise_load(masked, p, lanes);
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

/* Any width, stride and step of the kernel: one load for each FMA. */
VEC_INLINE void depthwise_row_any(int width, int border, int masked, const depthwise_strip *s, int64_t row) {
  const lamina_depthwise *d = s->d;
  const int lanes = s->lanes;
  const int64_t taps = d->w.taps, x_in = d->w.in, stride = d->w.stride;
  const ptrdiff_t x_output = d->w.stride * d->x_pixel, x_tap = d->w.step * d->x_pixel;
  const int count = s->count;
  vf acc[DW_WIDTH];
  const vf bias = s->bias ? vf_load(s->bias) : vf_zero();
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
        if (!border || (c < count && at >= 0 && at < x_in)) acc[c] = vf_fma(depthwise_load(masked, p, lanes), wv, acc[c]);
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

#define DEPTHWISE_WIDTH(TAPS, STRIDE)                                                                                  \
  DEPTHWISE_DOWN(depthwise_##TAPS##s##STRIDE##_inside, depthwise_row(TAPS, STRIDE, DW_WIDTH, 0, 0, s + v, row))        \
  DEPTHWISE_DOWN(depthwise_##TAPS##s##STRIDE##_border, depthwise_row(TAPS, STRIDE, DW_WIDTH, 1, 0, s + v, row))        \
  DEPTHWISE_DOWN(depthwise_##TAPS##s##STRIDE##_masked, depthwise_row(TAPS, STRIDE, DW_WIDTH, 1, 1, s + v, row))

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
  depthwise_down *inside, *border, *masked;
} depthwise_downs;

#define DEPTHWISE_ROW(NAME) {NAME##_inside, NAME##_border, NAME##_masked}

static const depthwise_downs *depthwise_choose(const lamina_depthwise_axis *w) {
  static const depthwise_downs fixed[3][2] = {{DEPTHWISE_ROW(depthwise_3s1), DEPTHWISE_ROW(depthwise_3s2)},
                                              {DEPTHWISE_ROW(depthwise_5s1), DEPTHWISE_ROW(depthwise_5s2)},
                                              {DEPTHWISE_ROW(depthwise_7s1), DEPTHWISE_ROW(depthwise_7s2)}};
  static const depthwise_downs any = DEPTHWISE_ROW(depthwise_any);
  const int known = w->step == 1 && w->stride <= 2 && (w->taps == 3 || w->taps == 5 || w->taps == 7);
  return known ? &fixed[w->taps / 2 - 1][w->stride - 1] : &any;
}

static void depthwise_forward(const lamina_depthwise *d, int64_t row0, int64_t row1) {
  const depthwise_downs *downs = depthwise_choose(&d->w);
  const int64_t strips = (d->columns + DW_WIDTH - 1) / DW_WIDTH, taps = d->h.taps * d->w.taps;
  int64_t q = 0;
  for (int64_t strip = 0; strip < strips; strip++) {
    const int count = (int)((d->columns - q + strips - strip - 1) / (strips - strip));
    const int64_t column = q * d->w.stride + d->w.first;
    const int64_t last = column + (count - 1) * d->w.stride + (d->w.taps - 1) * d->w.step;
    const int inside = count == DW_WIDTH && column >= 0 && last < d->w.in;
    for (int64_t c = 0; c < d->channels; c += LAMINA_DEPTHWISE_BLOCK) {
      depthwise_strip s[DW_LINE_VECTORS];
      int full = 0, used = 0;
      for (int64_t lane = c; lane < d->channels && used < DW_LINE_VECTORS; lane += VF_LEN) {
        const int lanes = (int)(d->channels - lane < VF_LEN ? d->channels - lane : VF_LEN);
        s[used++] = (depthwise_strip){.d = d,
                                      .x = d->x + column * d->x_pixel + lane,
                                      .weights = d->weights + c * taps + lane - c,
                                      .bias = d->bias ? d->bias + lane : NULL,
                                      .add = d->add ? d->add + q * d->add_pixel + lane : NULL,
                                      .y = d->y + q * d->y_pixel + lane,
                                      .column = column,
                                      .count = count,
                                      .lanes = lanes};
        full += lanes == VF_LEN;
      }
      if (full > 0) (inside ? downs->inside : downs->border)(s, full, row0, row1);
      if (used > full) downs->masked(s + full, 1, row0, row1);
    }
    q += count;
  }
}

#endif
