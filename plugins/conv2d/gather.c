/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A 1x1 convolution with stride as matrix products: the pixels that it reads are copied next to each other, as many
 * rows of the output at once as take an L2, and each such block is one product. Its tiles run on over the ends of rows,
 * all of the best size, and many to a call; where tiles are small, that is worth more than the copy costs.
 *
 * Cost: 2 * outputs * in flops, and a move of each float that is read for every 2 * out of them.
 */
#include "correlate.h"

enum {
  MIN_PANELS = 8,   /* of output channels, for which the copy is worth its cost */
  SHARED_SETS = 256 /* floats from pixel to pixel with which those of a tile share a few sets of L1 */
};

typedef struct gather_job {
  const correlation *c;
  int64_t pixel;      /* stride of the copy */
  int64_t rows, row0; /* of the output, over all images: those of a block, and where this one begins */
  int64_t group;
  float *copy;
} gather_job;

static gather_job describe(const correlation *c) {
  const conv_shape *s = c->shape;
  gather_job j = {.c = c, .pixel = c->in};
  if (j.pixel % SHARED_SETS == 0) j.pixel += CONV_LINE;
  const int64_t row = j.pixel * s->w.out, all = s->images * s->h.out;
  j.rows = layer_max(layer_min((int64_t)s->host->cpu->l2 / 4 / layer_max(row, 1), all), 1);
  return j;
}

int lamina_conv_gather_pays(const correlation *c) {
  const conv_shape *s = c->shape;
  if (c->backward || s->h.kernel * s->w.kernel != 1 || s->h.stride * s->w.stride == 1) return 0;
  if (s->images * s->h.out * s->w.out <= 0 || c->out < MIN_PANELS * s->kernels->gemm->nr) return 0;
  /* In place, it would copy anyway or have tiles of too few pixels. */
  const correlate_job j = lamina_conv_correlate_job(c);
  return j.may_copy || s->w.out / layer_ceil_div(s->w.out, j.kernels->mr) < j.kernels->good_rows;
}

static void gather_row(void *arg, int64_t index, int thread) {
  const gather_job *j = arg;
  const conv_shape *s = j->c->shape;
  const int64_t row = j->row0 + index, n = row / s->h.out, r = row % s->h.out * s->h.stride - s->h.pad;
  (void)thread;
  const conv_region region = {.n0 = n,
                              .n1 = n + 1,
                              .r0 = r,
                              .r1 = r + 1,
                              .row_step = 1,
                              .c0 = -s->w.pad,
                              .c1 = (s->w.out - 1) * s->w.stride - s->w.pad + 1,
                              .column_step = s->w.stride,
                              .channel = j->group * j->c->in,
                              .count = j->c->in,
                              .h = s->h.in,
                              .w = s->w.in,
                              .pixel = j->pixel};
  lamina_conv_copy(&j->c->x, &region, j->copy + index * s->w.out * j->pixel);
}

void lamina_conv_gather(const correlation *c, lamina_gemm product, int64_t group) {
  const conv_shape *s = c->shape;
  gather_job j = describe(c);
  const int64_t all = s->images * s->h.out;
  j.group = group;
  j.copy = s->node->workspace;
  float *y = product.c;
  const float *add = product.add;
  product.a = j.copy;
  product.a_row = j.pixel;
  product.workspace = j.copy + round_up(j.rows * s->w.out * j.pixel, CONV_LINE);
  for (j.row0 = 0; j.row0 < all; j.row0 += j.rows) {
    const int64_t rows = layer_min(j.rows, all - j.row0), pixels = j.row0 * s->w.out;
    layer_parallel(s->host, rows, rows * s->w.out * j.pixel, gather_row, &j);
    product.m = rows * s->w.out;
    product.c = y + pixels * product.c_row;
    product.add = add ? add + pixels * product.add_row : NULL;
    s->host->gemm(s->host, &product);
  }
}

size_t lamina_conv_gather_workspace(const correlation *c, lamina_gemm product) {
  const conv_shape *s = c->shape;
  const gather_job j = describe(c);
  const int64_t all = s->images * s->h.out, rest = all % j.rows;
  product.m = j.rows * s->w.out;
  size_t gemm = s->host->gemm_workspace(s->host, &product);
  product.m = rest * s->w.out;
  if (rest > 0) gemm = conv_larger(gemm, s->host->gemm_workspace(s->host, &product));
  return (size_t)round_up(j.rows * s->w.out * j.pixel, CONV_LINE) * sizeof(float) + gemm;
}
