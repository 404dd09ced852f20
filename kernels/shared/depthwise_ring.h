/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file depthwise_ring.h
 * A part of depthwise_body.h, which includes it: kernels of 3x3 with every row of outputs in flight in registers, so that
 * each vector of x is loaded once.
 */
#ifndef LAMINA_SHARED_DEPTHWISE_RING_H
#define LAMINA_SHARED_DEPTHWISE_RING_H

/* Outputs of a strip of 3x3 in each of the rows in flight, which are three, or two at stride 2. */
#if VF_REGISTERS >= 32
#define DW_RING_WIDTH(STRIDE) DW_WIDTH
typedef struct depthwise_ring_weights {
  vf tap[3][3];
} depthwise_ring_weights;
#define DEPTHWISE_RING_WEIGHT(W, I, K) (W)->tap[I][K]
#else
#define DW_RING_WIDTH(STRIDE) ((STRIDE) == 1 ? 4 : 6)
typedef const float *depthwise_ring_weights; /* operands in memory */
#define DEPTHWISE_RING_WEIGHT(W, I, K) vf_load(*(W) + ((I)*3 + (K)) * LAMINA_DEPTHWISE_BLOCK)
#endif

VEC_INLINE depthwise_ring_weights depthwise_load_weights(const float *from) {
#if VF_REGISTERS >= 32
  depthwise_ring_weights w;
#pragma GCC unroll 16
  for (int t = 0; t < 9; t++) w.tap[t / 3][t % 3] = vf_pin(vf_load(from + t * LAMINA_DEPTHWISE_BLOCK));
  return w;
#else
  return from;
#endif
}

/* The vector of x in column j: adds its products with those rows of weights that `taps` has bits for to the rows of outputs
   in flight, of which acc[0] is the upper one. */
VEC_INLINE void depthwise_ring_products(int stride, unsigned taps, int j, vf x, depthwise_ring_weights *w,
                                        vf acc[3][DW_WIDTH]) {
#if VF_REGISTERS < 32
  __asm__("" : "+r"(*w)); /* else the compiler loads weights for all columns at once, and has nowhere to put them */
#endif
#pragma GCC unroll 16
  for (int i = 0; i < 3; i++)
#pragma GCC unroll 16
    for (int k = 0; k < 3; k++)
      if ((taps >> i & 1) && j >= k && (j - k) % stride == 0 && (j - k) / stride < DW_RING_WIDTH(stride)) {
        const int row = stride == 1 ? 2 - i : i == 0, c = (j - k) / stride;
        acc[row][c] = vf_fma(x, DEPTHWISE_RING_WEIGHT(w, i, k), acc[row][c]);
      }
}

/* One row of x. */
VEC_INLINE void depthwise_ring_step(int stride, int border, int masked, int lanes, unsigned taps, const float *p,
                                    ptrdiff_t pixel, int64_t first, int64_t last, depthwise_ring_weights *w,
                                    vf acc[3][DW_WIDTH]) {
  const int columns = (DW_RING_WIDTH(stride) - 1) * stride + 3;
#pragma GCC unroll 32
  for (int j = 0; j < columns; j++) {
    if (!border || (j >= first && j < last))
      depthwise_ring_products(stride, taps, j, vf_pin(depthwise_load(masked, p, lanes)), w, acc);
    p += pixel;
  }
}

/* The next row of outputs enters, those in flight move up. */
VEC_INLINE void depthwise_ring_turn(int stride, const float *bias, vf acc[3][DW_WIDTH]) {
#pragma GCC unroll 16
  for (int c = 0; c < DW_WIDTH; c++) {
    if (c >= DW_RING_WIDTH(stride)) break;
    acc[0][c] = acc[1][c];
    acc[1][c] = stride == 1 ? acc[2][c] : vf_load(bias);
    acc[2][c] = vf_load(bias);
  }
}

/* Kernels of 3x3 with steps of 1: the outputs of all rows that a row of x belongs to are in registers, and so are the
   weights where there are 32; each vector of x is loaded once. */
VEC_INLINE void depthwise_ring(int stride, int border, int masked, const depthwise_strip *s, int64_t row0, int64_t row1) {
  const lamina_depthwise *d = s->d;
  const int lanes = s->lanes;
  const int64_t end = (s->count - 1) * stride + 3, inside = d->w.in - s->column;
  const int64_t first = s->column < 0 ? -s->column : 0, last = end < inside ? end : inside;
  const ptrdiff_t pixel = d->x_pixel;
  depthwise_ring_weights w = depthwise_load_weights(s->weights);
  vf acc[3][DW_WIDTH];
#pragma GCC unroll 16
  for (int c = 0; c < DW_WIDTH; c++) acc[0][c] = acc[1][c] = acc[2][c] = vf_load(s->bias);
  int64_t in = row0 * stride + d->h.first;
  const float *x = s->x + in * d->x_row;
#define DEPTHWISE_RING_STEP(TAPS)                                                                                      \
  do {                                                                                                                 \
    if (in >= 0 && in < d->h.in)                                                                                       \
      depthwise_ring_step(stride, border, masked, lanes, TAPS, x, pixel, first, last, &w, acc);                        \
    in++;                                                                                                              \
    x += d->x_row;                                                                                                     \
  } while (0)
  /* The rows of x that only the first rows of weights meet. */
  DEPTHWISE_RING_STEP(1);
  depthwise_ring_turn(stride, s->bias, acc);
  if (stride == 1) {
    DEPTHWISE_RING_STEP(3);
    depthwise_ring_turn(stride, s->bias, acc);
  }
  for (int64_t row = row0; row < row1; row++) {
    if (stride == 2) DEPTHWISE_RING_STEP(2);
    DEPTHWISE_RING_STEP(stride == 1 ? 7 : 5);
    depthwise_store(masked, DW_RING_WIDTH(stride), s, row, acc[0]);
    depthwise_ring_turn(stride, s->bias, acc);
  }
#undef DEPTHWISE_RING_STEP
}

#endif
