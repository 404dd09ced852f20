/* SPDX-License-Identifier: Apache-2.0 */
/*
 * conv2d: x (N, H, W, C) and weight (O, C / groups, KH, KW) to y (N, OH, OW, O), PyTorch's cross-correlation.
 *
 * Forward and the gradient of x are one computation, a correlation: a grid of output pixels, each a sum over taps of
 * input pixel times weight. Forward walks y's grid; the gradient of x falls, by stride, into stride_h x stride_w
 * phases, each of which is a correlation of stride 1 of dy with the taps that hit it. Both axes are alike, so that a
 * phase is two axes.
 */
#ifndef LAMINA_CONV2D_H
#define LAMINA_CONV2D_H

#include "../layer.h"
#include "reduce.h"

/* Attributes and ports that conv2d and conv_transpose2d have in common. */
extern const lamina_attr lamina_conv_out_channels_attr, lamina_conv_kernel_attr, lamina_conv_dilation_attr,
    lamina_conv_groups_attr, lamina_conv_bias_attr;
extern const lamina_port lamina_conv_x_port, lamina_conv_y_port, lamina_conv_bias_port;

static inline size_t conv_larger(size_t a, size_t b) { return a > b ? a : b; }

enum {
  CONV_LINE = 16,         /* floats in a cache line */
  CONV_MAX_SIZE = 1 << 16 /* of kernel, stride, padding and dilation */
};

/* A node, read once: sizes of one axis are in h and w. */
typedef struct conv_axis_shape {
  int64_t in, out, kernel, stride, pad, dilation;
} conv_axis_shape;

/* An activation or its gradient in memory; strides count floats. */
typedef struct conv_image {
  float *data;
  int64_t image, row, pixel;
} conv_image;

typedef struct conv_shape {
  const lamina_node *node;
  const lamina_host *host;
  const lamina_kernels *kernels;
  const lamina_winograd_form *form; /* NULL: the direct sum */
  int64_t images, groups;
  int64_t in, out; /* channels of a group */
  conv_axis_shape h, w;
  int pointwise; /* 1x1 with stride 1 and no padding */
  int depthwise; /* forward by the depthwise kernels: one input channel for each of several groups, or few in and out */
  int tiled;     /* those kernels by Winograd's F(4, 3) along the height */
  /* In node->packed, counted in floats: weights of forward, bias, weights of the gradient of x. */
  size_t bias, backward, packed;
} conv_shape;

/* One axis of a phase: output t reads input t * stride + first + j * step for each of its taps j, whose place in the
   kernel is k_first + j * k_step; it is written at out_first + t * out_step. */
typedef struct conv_axis {
  int64_t taps, k_first, k_step;
  int64_t stride, first, step;
  int64_t count, out_first, out_step;
} conv_axis;

/* What a correlation reads and writes. */
typedef struct correlation {
  const conv_shape *shape;
  int backward;       /* the gradient of x */
  int64_t in, out;    /* channels of a group */
  int64_t in_h, in_w; /* the grid that is read */
  int64_t phases_h, phases_w;
  conv_image x, y, add; /* add.data may be NULL */
  const float *weights;
  const float *bias; /* groups * out floats, or NULL */
  float lo, hi;
  int accumulate;
  const lamina_epilogue *epilogue; /* its activation is applied to y; NULL: none */
} correlation;

/* A part of x as the tiles read it: itself, or a copy with its padding, in a thread's scratch. */
typedef struct conv_window {
  const float *data; /* of row r0, column c0, first channel of the group, first image */
  int64_t image, row, pixel;
  int64_t r0, c0;
} conv_window;

/* Rows r0 .. r1 and columns c0 .. c1 of images n0 .. n1, channels channel .. channel + count; every row_step-th and
   column_step-th of them. Outside of the h x w grid there are zeros. */
typedef struct conv_region {
  int64_t n0, n1, r0, r1, row_step, c0, c1, column_step, channel, count;
  int64_t h, w;
  int64_t pixel; /* of the copy: count, or more */
} conv_region;

/* Copies a region; the window's data is `to`. */
conv_window lamina_conv_copy(const conv_image *from, const conv_region *region, float *to);
int64_t lamina_conv_region_floats(const conv_region *region);

/* Reads node and fills in the shape; fails when sizes overflow. Strides of tensors are read from the tensors
 * themselves. */
lamina_status lamina_conv_describe(const lamina_node *node, conv_shape *shape);
/* What conv2d and conv_transpose2d check alike. Padding before and after, by axis (0: height); its numbers, with a
   message; and whether the sizes of weights, images with their padding and workspace can be counted. */
int64_t lamina_conv_padding(const lamina_value *padding, int axis, int after);
lamina_status lamina_conv_check_padding(const lamina_node *node, const lamina_value *padding);
int lamina_conv_sizes_fit(const conv_shape *shape);
conv_image lamina_conv_image(const lamina_tensor *tensor);
/* Phase `index` of an axis, for forward or the gradient of x. */
conv_axis lamina_conv_axis(const conv_axis_shape *axis, int backward, int64_t index);

/* The correlations, without data pointers when the node has none yet (at plan). */
correlation lamina_conv_forward_pass(const conv_shape *shape);
correlation lamina_conv_backward_data_pass(const conv_shape *shape);
size_t lamina_conv_correlate_workspace(const correlation *c);
void lamina_conv_correlate(const correlation *c);
const char *lamina_conv_correlate_algorithm(const correlation *c); /* with the shape of most of its tiles */
/* The same, as one matrix product where that is all it takes. */
void lamina_conv_run(const correlation *c);
size_t lamina_conv_run_workspace(const correlation *c);

/* Whether a convolution with stride is best computed as products over copies of the pixels it reads. `product` is the
   one over all pixels, but for A. */
int lamina_conv_gather_pays(const correlation *c);
size_t lamina_conv_gather_workspace(const correlation *c, lamina_gemm product);
void lamina_conv_gather(const correlation *c, lamina_gemm product, int64_t group);

/* Applies the activation, if there is one, to rows r0 .. r1 of y in image n, all of their columns, `count` channels from
   `channel` on. For whoever has written all of these, while they are in cache. */
void lamina_conv_activate(const correlation *c, int64_t n, int64_t r0, int64_t r1, int64_t channel, int64_t count);

/* Floats of one group's packed weights: the taps of all phases after each other, each phase as B of a matrix product of
   depth (taps_h, taps_w, in) and width out. */
int64_t lamina_conv_packed_floats(const conv_shape *shape, int64_t in, int64_t out);
/* Where a phase begins in it. */
int64_t lamina_conv_phase_offset(const correlation *c, int64_t phase_h, int64_t phase_w);
lamina_status lamina_conv_pack(const conv_shape *shape);
/* Packs the weights alone, those of forward and those of the gradient of x; either may be NULL. Not for depthwise. */
lamina_status lamina_conv_pack_weights(const conv_shape *shape, float *forward, float *backward);
/* The gradient of weight as it is computed, some channels x one panel of outputs: row tap * channels + c. */
typedef struct conv_partial {
  const float *data; /* at the panel's first column */
  int64_t channels, ld;
  int64_t partials, stride; /* how many to add up, and how far they are apart */
} conv_partial;

/* Adds up the partials in their order and brings them into PyTorch's (O, C / groups, KH, KW): writes, or adds to, input
   channels `first` and up of a panel's outputs. `gradient` is the group's. */
void lamina_conv_unpack_panel(const conv_shape *shape, const conv_partial *partial, int64_t first, int64_t panel,
                              int accumulate, float *gradient, float *scratch);
/* Floats of its scratch for one thread; also that of packing. */
int64_t lamina_conv_pack_scratch(const conv_shape *shape);

/* Whether the gradient of x is best computed as products of all taps that are added up where they overlap: few channels.
   Its weights are packed as one B of depth out and width (taps, in). */
int lamina_conv_col2im_pays(const conv_shape *shape);
lamina_status lamina_conv_col2im_pack(const conv_shape *shape, float *packed);
size_t lamina_conv_col2im_workspace(const correlation *c);
void lamina_conv_col2im(const correlation *c);
/* Floats of one group's packed weights of the gradient of x, in either order. */
int64_t lamina_conv_backward_floats(const conv_shape *shape);

/* Whether a shape can run by Winograd's algorithm at all; whether the error then stays within 2.5 times the direct one's;
   and how it compares with the direct one: the estimated time over the direct one's. */
int lamina_conv_winograd_possible(const conv_shape *shape);
int lamina_conv_winograd_accurate(const conv_shape *shape, const lamina_winograd_form *form);
double lamina_conv_winograd_cost(const conv_shape *shape, const lamina_winograd_form *form);
/* Floats of one group's transformed weights. */
int64_t lamina_conv_winograd_packed_floats(const conv_shape *shape, int64_t in, int64_t out);
size_t lamina_conv_winograd_workspace(const correlation *c);
void lamina_conv_winograd(const correlation *c);
size_t lamina_conv_winograd_weights_workspace(const conv_shape *shape);
void lamina_conv_winograd_weights(const conv_shape *shape);

lamina_status lamina_conv_forward(const conv_shape *shape);
size_t lamina_conv_forward_workspace(const conv_shape *shape);
/* Of a pointwise convolution: how its product is computed. */
const char *lamina_conv_pointwise_algorithm(const conv_shape *shape);
lamina_status lamina_conv_backward_data(const conv_shape *shape);
size_t lamina_conv_backward_data_workspace(const conv_shape *shape);
lamina_status lamina_conv_backward_weights(const conv_shape *shape);
size_t lamina_conv_backward_weights_workspace(const conv_shape *shape);

/* Whether groups of several channels are few and small enough for the depthwise kernels. */
int lamina_conv_depthwise_groups(const conv_shape *shape);
/* Whether they can run by Winograd's F(4, 3) along the height as well, and the estimated time then, over the direct sum's. */
int lamina_conv_depthwise_tiles(const conv_shape *shape);
double lamina_conv_depthwise_tiled_cost(const conv_shape *shape);
/* One input channel for each group, or few: no matrix product, all loops run over channels. The gradients are for one
   output each too; those of more are a convolution's like any other. */
static inline int lamina_conv_depthwise_gradients(const conv_shape *s) {
  return s->depthwise && s->in == 1 && s->out == 1;
}
int64_t lamina_conv_depthwise_floats(const conv_shape *shape); /* of its packed weights, of one pass */
void lamina_conv_depthwise_pack(const conv_shape *shape);
void lamina_conv_depthwise_forward(const conv_shape *shape);
void lamina_conv_depthwise_backward_data(const conv_shape *shape);
size_t lamina_conv_depthwise_workspace(const conv_shape *shape);
void lamina_conv_depthwise_backward_weights(const conv_shape *shape);
size_t lamina_conv_depthwise_weights_workspace(const conv_shape *shape);
/* An axis as the kernels take it, of a grid that is `in` long. */
lamina_depthwise_axis lamina_conv_depthwise_axis(const conv_axis *axis, int64_t in);

#endif
