/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gradient of depthwise weights. A task has some channels and some rows of all images; channels are cut first,
 * since they share no sums, and rows only where that gives too few tasks. Each task of the same channels has a partial
 * gradient in the kernels' order, blocks of 16 channels; they are added up in a fixed tree and brought into PyTorch's
 * order.
 */
#include "conv2d.h"

#include <math.h>
#include <string.h>

enum {
  BLOCK = LAMINA_DEPTHWISE_BLOCK,
  TASK_FMAS = 1 << 20,
  MAX_TASKS = 32,
  MIN_BLOCKS = 4, /* of channels of a task: runs of memory long enough to be fetched ahead */
  MIN_ROWS = 8    /* of a task */
};

typedef struct weights_job {
  const conv_shape *s;
  int64_t taps, blocks;   /* of channels */
  int64_t pieces, splits; /* of channels, of rows */
  int64_t floats;         /* of a partial gradient */
} weights_job;

static weights_job cut_up(const conv_shape *s) {
  weights_job j = {.s = s, .taps = s->h.kernel * s->w.kernel, .blocks = layer_ceil_div(s->groups, BLOCK)};
  const int64_t rows = s->images * s->h.out;
  const double fmas = (double)(rows * s->w.out) * (double)(s->groups * j.taps);
  const int64_t wanted = fmas >= (double)MAX_TASKS * TASK_FMAS ? MAX_TASKS : layer_max((int64_t)(fmas / TASK_FMAS), 1);
  j.pieces = layer_max(layer_min(wanted, j.blocks / MIN_BLOCKS), 1);
  j.splits = layer_max(layer_min(layer_ceil_div(wanted, j.pieces), rows / MIN_ROWS), 1);
  j.floats = j.blocks * j.taps * BLOCK;
  return j;
}

size_t lamina_conv_depthwise_weights_workspace(const conv_shape *s) {
  const weights_job j = cut_up(s);
  return (size_t)(j.floats * j.splits + j.taps * BLOCK) * sizeof(float);
}

static void run_task(void *arg, int64_t index, int thread) {
  const weights_job *j = arg;
  const conv_shape *s = j->s;
  (void)thread;
  const conv_image x = lamina_conv_image(&s->node->inputs[0]), dy = lamina_conv_image(&s->node->d_outputs[0]);
  const int64_t piece = index % j->pieces, split = index / j->pieces;
  const int64_t block0 = part(j->blocks, j->pieces, piece), block1 = part(j->blocks, j->pieces, piece + 1);
  const int64_t rows = s->images * s->h.out, end = part(rows, j->splits, split + 1), c0 = block0 * BLOCK;
  const conv_axis h = lamina_conv_axis(&s->h, 0, 0), w = lamina_conv_axis(&s->w, 0, 0);
  lamina_depthwise_weights d = {.channels = layer_min(block1 * BLOCK, s->groups) - c0,
                                .columns = s->w.out,
                                .h = lamina_conv_depthwise_axis(&h, s->h.in),
                                .w = lamina_conv_depthwise_axis(&w, s->w.in),
                                .x_row = x.row,
                                .x_pixel = x.pixel,
                                .dy_row = dy.row,
                                .dy_pixel = dy.pixel,
                                .dw = (float *)s->node->workspace + split * j->floats + c0 * j->taps};
  memset(d.dw, 0, (size_t)((block1 - block0) * BLOCK * j->taps) * sizeof(float));
  for (int64_t row = part(rows, j->splits, split); row < end;) {
    const int64_t n = row / s->h.out, row0 = row % s->h.out, row1 = layer_min(row0 + end - row, s->h.out);
    d.x = x.data + n * x.image + c0;
    d.dy = dy.data + n * dy.image + c0;
    s->kernels->depthwise->backward_weights(&d, row0, row1);
    row += row1 - row0;
  }
}

/* A block from (taps, 16) to (channels, taps). */
static void unpack_block(const weights_job *j, int64_t block, float *scratch) {
  const conv_shape *s = j->s;
  const int64_t n = layer_min(s->groups - block * BLOCK, BLOCK), floats = n * j->taps;
  const float *from = (const float *)s->node->workspace + block * j->taps * BLOCK;
  float *gradient = (float *)s->node->d_params[0].data + block * BLOCK * j->taps;
  const int accumulate = s->node->accumulate_params & 1;
  s->kernels->gemm->transpose(j->taps, n, from, BLOCK, accumulate ? scratch : gradient, j->taps);
  if (accumulate) s->kernels->eltwise->add(floats, gradient, scratch, -INFINITY, INFINITY, gradient);
}

void lamina_conv_depthwise_backward_weights(const conv_shape *s) {
  weights_job j = cut_up(s);
  float *partials = s->node->workspace;
  s->host->parallel(s->host, j.pieces * j.splits, run_task, &j);
  lamina_tree_sum(s->kernels, j.splits, j.floats, j.floats, partials);
  for (int64_t block = 0; block < j.blocks; block++) unpack_block(&j, block, partials + j.floats * j.splits);
}
