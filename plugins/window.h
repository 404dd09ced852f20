/* SPDX-License-Identifier: Apache-2.0 */
/* The geometry of pooling windows, and the two walks over them that max_pool2d and avg_pool2d share. */
#ifndef LAMINA_WINDOW_H
#define LAMINA_WINDOW_H

#include "layer.h"

typedef struct window {
  int64_t images, h, w, channels, oh, ow;
  int64_t kernel[2], stride[2], padding[2], dilation[2];
  int64_t max_taps; /* of one window, inside the image */
} window;

/* The first attributes of both layers, in this order. */
enum { WINDOW_KERNEL, WINDOW_STRIDE, WINDOW_PADDING, WINDOW_CEIL_MODE, WINDOW_ATTRS };
extern const lamina_attr window_attr_kernel, window_attr_stride, window_attr_padding, window_attr_ceil_mode;

/* Geometry from the node's attributes and shapes; `dilation` is the attribute's value, or NULL for 1. */
window window_of(const lamina_node *node, const lamina_value *dilation);
/* Checks input 0 and sets the output's shape. */
lamina_status window_infer(lamina_node *node, const lamina_value *dilation);
/* Workspace for each thread's lists of taps, flops and bytes. */
lamina_status window_cost(const lamina_node *node, const window *win, lamina_cost *cost, const char *algorithm);

/* The taps of one output pixel that lie inside the image: offsets of pixels, h * w at most. */
typedef struct window_taps {
  int64_t count;
  int64_t padded_area; /* taps inside the image and its padding: the divisor with count_include_pad */
  const float **x;
  float **dx;
} window_taps;

/* Calls `pixel` for every output pixel of the forward pass: tasks are runs of output rows. */
typedef struct window_forward {
  const window *win;
  const lamina_kernels *kernels;
  layer_matrix x, y;
  int64_t rows_per_task;
  const float **taps; /* max_taps for each thread */
  int include_padding;
  void (*pixel)(const struct window_forward *walk, const window_taps *taps, float *y);
} window_forward;

void window_run_forward(const lamina_host *host, window_forward *walk);

/*
 * The backward pass. A task owns a band of output rows of an image. Windows of neighbouring bands overlap, so the even
 * bands run first, then the odd ones: bands are high enough that every second one touches other rows of dx. The sums
 * are thus made in an order that follows from the shape. dx is zeroed first unless it is added to.
 */
typedef struct window_backward {
  const window *win;
  const lamina_kernels *kernels;
  layer_matrix x, y, dy, dx;     /* x.data and y.data may be NULL where the layer reads neither */
  int64_t band_rows, bands, odd; /* odd: which half runs */
  int accumulate, include_padding;
  const float **taps; /* max_taps for each thread */
  float **d_taps;
  void (*pixel)(const struct window_backward *walk, const window_taps *taps, const float *y, const float *dy);
} window_backward;

void window_run_backward(const lamina_host *host, window_backward *walk);

/* 1 / number of taps that an average counts. */
static inline float window_scale(const window_taps *taps, int include_padding) {
  int64_t n = include_padding ? taps->padded_area : taps->count;
  return n > 0 ? (float)(1.0 / (double)n) : 0.0f;
}

#endif
