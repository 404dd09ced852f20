/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One channel in and out of each group: y(oh, ow, c) = sum over taps of x(.., c) * weight(tap, c). All loops run over
 * contiguous channels; packed weights are (KH, KW, C). A task is a row; cost: 3 floats moved for each multiply-add,
 * from L1.
 */
#include "conv2d.h"

#include <math.h>
#include <string.h>

enum { MAX_BLOCKS = 64 };

static int64_t taps_of(const conv_shape *s) { return s->h.kernel * s->w.kernel; }
static int64_t rows_of(const conv_shape *s) { return s->images * s->h.out; }
static int64_t blocks_of(const conv_shape *s) { return layer_min(rows_of(s), MAX_BLOCKS); }
static int64_t partial_floats(const conv_shape *s) { return round_up(taps_of(s) * s->groups, CONV_LINE); }

/* The weight gradient: a partial sum for each block, and a row's sum for each thread. */
size_t lamina_conv_depthwise_workspace(const conv_shape *s) {
  if (s->node->mode != LAMINA_TRAIN) return 0;
  return (size_t)(partial_floats(s) * (blocks_of(s) + s->host->threads(s->host))) * sizeof(float);
}

void lamina_conv_depthwise_pack(const conv_shape *s) {
  const lamina_epilogue *e = &s->node->epilogue;
  const float *weight = s->node->params[0].data;
  float *packed = s->node->packed;
  const int64_t taps = taps_of(s);
  for (int64_t c = 0; c < s->groups; c++)
    for (int64_t t = 0; t < taps; t++)
      packed[t * s->groups + c] = weight[c * taps + t] * (e->parts & LAMINA_EPILOGUE_AFFINE ? e->scale[c] : 1.0f);
}

static void forward_row(void *arg, int64_t index, int thread) {
  const conv_shape *s = arg;
  (void)thread;
  const correlation p = lamina_conv_forward_pass(s);
  const int64_t n = index / s->h.out, oh = index % s->h.out, channels = s->groups;
  for (int64_t ow = 0; ow < s->w.out; ow++) {
    float *y = p.y.data + n * p.y.image + oh * p.y.row + ow * p.y.pixel;
    memcpy(y, p.bias, (size_t)channels * sizeof(float));
    for (int64_t kh = 0; kh < s->h.kernel; kh++)
      for (int64_t kw = 0; kw < s->w.kernel; kw++) {
        const int64_t ih = oh * s->h.stride - s->h.pad + kh * s->h.dilation;
        const int64_t iw = ow * s->w.stride - s->w.pad + kw * s->w.dilation;
        if (ih < 0 || ih >= s->h.in || iw < 0 || iw >= s->w.in) continue;
        s->kernels->eltwise->multiply(channels, p.x.data + n * p.x.image + ih * p.x.row + iw * p.x.pixel,
                                      p.weights + (kh * s->w.kernel + kw) * channels, 1, y);
      }
    if (p.add.data)
      s->kernels->eltwise->add(channels, y, p.add.data + n * p.add.image + oh * p.add.row + ow * p.add.pixel, p.lo,
                               p.hi, y);
    else if (p.lo > -INFINITY || p.hi < INFINITY)
      s->kernels->eltwise->clamp(channels, p.lo, p.hi, y, y);
  }
  lamina_conv_activate(&p, n, oh, oh + 1, 0, channels);
}

void lamina_conv_depthwise_forward(const conv_shape *s) {
  layer_parallel(s->host, rows_of(s), rows_of(s) * s->w.out * s->groups * taps_of(s), forward_row, (void *)s);
}

/* Output that input `in` feeds through tap k, or -1. */
static int64_t reached(const conv_axis_shape *axis, int64_t in, int64_t k) {
  const int64_t at = in + axis->pad - k * axis->dilation;
  return at >= 0 && at % axis->stride == 0 && at / axis->stride < axis->out ? at / axis->stride : -1;
}

static void backward_data_row(void *arg, int64_t index, int thread) {
  const conv_shape *s = arg;
  (void)thread;
  const correlation p = lamina_conv_backward_data_pass(s);
  const float *weights = s->node->packed;
  const int64_t n = index / s->h.in, ih = index % s->h.in, channels = s->groups;
  for (int64_t iw = 0; iw < s->w.in; iw++) {
    float *dx = p.y.data + n * p.y.image + ih * p.y.row + iw * p.y.pixel;
    if (!p.accumulate) memset(dx, 0, (size_t)channels * sizeof(float));
    for (int64_t kh = 0; kh < s->h.kernel; kh++) {
      const int64_t oh = reached(&s->h, ih, kh);
      for (int64_t kw = 0; oh >= 0 && kw < s->w.kernel; kw++) {
        const int64_t ow = reached(&s->w, iw, kw);
        if (ow < 0) continue;
        s->kernels->eltwise->multiply(channels, p.x.data + n * p.x.image + oh * p.x.row + ow * p.x.pixel,
                                      weights + (kh * s->w.kernel + kw) * channels, 1, dx);
      }
    }
  }
}

void lamina_conv_depthwise_backward_data(const conv_shape *s) {
  const int64_t rows = s->images * s->h.in;
  layer_parallel(s->host, rows, rows * s->w.in * s->groups * taps_of(s), backward_data_row, (void *)s);
}

/* Rows are summed apart and then added to their block's sum, which keeps the chains of additions short. */
static void weights_block(void *arg, int64_t index, int thread) {
  const conv_shape *s = arg;
  const conv_image x = lamina_conv_image(&s->node->inputs[0]), dy = lamina_conv_image(&s->node->d_outputs[0]);
  const int64_t blocks = blocks_of(s), channels = s->groups, floats = taps_of(s) * channels;
  float *sum = (float *)s->node->workspace + index * partial_floats(s);
  float *row = (float *)s->node->workspace + (blocks + thread) * partial_floats(s);
  memset(sum, 0, (size_t)floats * sizeof(float));
  for (int64_t r = part(rows_of(s), blocks, index); r < part(rows_of(s), blocks, index + 1); r++) {
    const int64_t n = r / s->h.out, oh = r % s->h.out;
    memset(row, 0, (size_t)floats * sizeof(float));
    for (int64_t tap = 0; tap < taps_of(s); tap++) {
      const int64_t ih = oh * s->h.stride - s->h.pad + tap / s->w.kernel * s->h.dilation;
      if (ih < 0 || ih >= s->h.in) continue;
      for (int64_t ow = 0; ow < s->w.out; ow++) {
        const int64_t iw = ow * s->w.stride - s->w.pad + tap % s->w.kernel * s->w.dilation;
        if (iw < 0 || iw >= s->w.in) continue;
        s->kernels->eltwise->multiply(channels, x.data + n * x.image + ih * x.row + iw * x.pixel,
                                      dy.data + n * dy.image + oh * dy.row + ow * dy.pixel, 1, row + tap * channels);
      }
    }
    s->kernels->eltwise->add_scaled(floats, 1.0f, row, sum);
  }
}

void lamina_conv_depthwise_backward_weights(const conv_shape *s) {
  const int64_t blocks = blocks_of(s), taps = taps_of(s), channels = s->groups;
  float *sum = s->node->workspace, *gradient = s->node->d_params[0].data;
  s->host->parallel(s->host, blocks, weights_block, (void *)s);
  lamina_tree_sum(s->kernels, blocks, taps * channels, partial_floats(s), sum);
  for (int64_t c = 0; c < channels; c++)
    for (int64_t t = 0; t < taps; t++) {
      float *to = gradient + c * taps + t;
      *to = (s->node->accumulate_params & 1 ? *to : 0) + sum[t * channels + c];
    }
}
