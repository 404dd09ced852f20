/* SPDX-License-Identifier: Apache-2.0 */
/* The geometry of pooling windows, and the two walks over them that max_pool2d and avg_pool2d share. */
#ifndef LAMINA_WINDOW_H
#define LAMINA_WINDOW_H

#include "layer.h"

typedef struct window {
  int64_t images, h, w, channels, oh, ow;
  int64_t kernel[2], stride[2], padding[2], dilation[2];
  int64_t first_whole, end_whole; /* of a row: windows first .. end - 1 have all their columns inside the image */
} window;

/* The first attributes of both layers, in this order. */
enum { WINDOW_KERNEL, WINDOW_STRIDE, WINDOW_PADDING, WINDOW_CEIL_MODE, WINDOW_ATTRS };
extern const lamina_attr window_attr_kernel, window_attr_stride, window_attr_padding, window_attr_ceil_mode;

/* Geometry from the node's attributes and shapes; `dilation` is the attribute's value, or NULL for 1. */
window window_of(const lamina_node *node, const lamina_value *dilation);
/* Checks input 0 and sets the output's shape. */
lamina_status window_infer(lamina_node *node, const lamina_value *dilation);
/* Flops, bytes and the algorithm. */
void window_cost(const window *win, lamina_cost *cost);

#define WINDOW_NO_WINNER 255

/* The forward pass: `kernel` for every run of windows of a row with the same taps; tasks are rows of windows. */
typedef struct window_forward {
  const window *win;
  layer_matrix x, y;
  int64_t rows_per_task;
  int include_padding;
  float empty; /* the result of a window without taps */
  uint8_t *winner; /* dense, for each window and channel the number of its tap that won; or NULL */
  void (*kernel)(const lamina_pool_row *run);
} window_forward;

void window_run_forward(const lamina_host *host, window_forward *walk);

/*
 * The backward pass. A task owns a band of output rows of an image. Windows of neighbouring bands overlap, so the even
 * bands run first, then the odd ones: bands are high enough that every second one touches other rows of dx. The sums
 * are thus made in an order that follows from the shape. dx is zeroed first unless it is added to, or
 * covered by windows that touch nothing twice.
 */
typedef struct window_backward {
  const window *win;
  layer_matrix x, y, dy, dx;     /* x.data and y.data may be NULL where the layer reads neither */
  int64_t band_rows, bands, odd; /* odd: which half runs */
  int accumulate, include_padding;
  int overwrite; /* windows tile the image: each sets its own taps */
  void (*kernel)(const lamina_pool_row *run);
} window_backward;

void window_run_backward(const lamina_host *host, window_backward *walk);

#endif
