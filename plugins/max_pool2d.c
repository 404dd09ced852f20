/* SPDX-License-Identifier: Apache-2.0 */
/* max_pool2d: (N, H, W, C) -> (N, OH, OW, C), the largest value of each window; padding counts as -inf. The backward
   pass finds the winners again by comparing x with y (the first one takes all), so that no mask is kept. */
#include "builtin.h"
#include "window.h"

#include <math.h>

enum { ATTR_DILATION = WINDOW_ATTRS };

static void forward_pixel(const window_forward *walk, const window_taps *taps, float *y) {
  if (taps->count > 0) {
    walk->kernels->pool->max(taps->count, taps->x, walk->win->channels, y);
  } else {
    for (int64_t c = 0; c < walk->win->channels; c++) y[c] = -INFINITY;
  }
}

static void backward_pixel(const window_backward *walk, const window_taps *taps, const float *y, const float *dy) {
  if (taps->count > 0) walk->kernels->pool->max_backward(taps->count, taps->x, taps->dx, walk->win->channels, y, dy);
}

static lamina_status forward(const lamina_node *node) {
  lamina_status status;
  const window win = window_of(node, &node->attrs[ATTR_DILATION]);
  window_forward walk = {.win = &win, .kernels = layer_kernels(node, &status), .pixel = forward_pixel};
  if (status != LAMINA_OK) return status;
  walk.x = layer_rows(&node->inputs[0]);
  walk.y = layer_rows(&node->outputs[0]);
  walk.taps = node->workspace;
  window_run_forward(node->host, &walk);
  return LAMINA_OK;
}

static lamina_status backward(const lamina_node *node) {
  if (!layer_needs_input(node, 0)) return LAMINA_OK;
  lamina_status status;
  const window win = window_of(node, &node->attrs[ATTR_DILATION]);
  window_backward walk = {.win = &win, .kernels = layer_kernels(node, &status), .pixel = backward_pixel};
  if (status != LAMINA_OK) return status;
  walk.x = layer_rows(&node->inputs[0]);
  walk.y = layer_rows(&node->outputs[0]);
  walk.dy = layer_rows(&node->d_outputs[0]);
  walk.dx = layer_rows(&node->d_inputs[0]);
  walk.accumulate = layer_accumulates(node, 0);
  walk.taps = node->workspace;
  walk.d_taps = (float **)(walk.taps + node->host->threads(node->host) * win.max_taps);
  window_run_backward(node->host, &walk);
  return LAMINA_OK;
}

static lamina_status infer(lamina_node *node) { return window_infer(node, &node->attrs[ATTR_DILATION]); }

static lamina_status plan(const lamina_node *node, lamina_cost *cost) {
  const window win = window_of(node, &node->attrs[ATTR_DILATION]);
  return window_cost(node, &win, cost, "by output pixel");
}

static const lamina_attr dilation = {.size = sizeof(lamina_attr),
                                     .name = "dilation",
                                     .type = LAMINA_ATTR_INTS,
                                     .def = "1",
                                     .min = 1,
                                     .max = 1048576,
                                     .count = 2,
                                     .doc = "distance between the taps of a window"};
static const lamina_attr *const attrs[] = {&window_attr_kernel,    &window_attr_stride, &window_attr_padding,
                                           &window_attr_ceil_mode, &dilation,           NULL};
static const lamina_port port_x = {.size = sizeof(lamina_port),
                                   .name = "x",
                                   .kind = LAMINA_PORT_INPUT,
                                   .flags = LAMINA_PORT_BACKWARD_READS,
                                   .doc = "(N, H, W, C)"};
static const lamina_port port_y = {.size = sizeof(lamina_port),
                                   .name = "y",
                                   .kind = LAMINA_PORT_OUTPUT,
                                   .flags = LAMINA_PORT_BACKWARD_READS,
                                   .doc = "(N, OH, OW, C)"};
static const lamina_port *const ports[] = {&port_x, &port_y, NULL};
static const lamina_kernel kernel = {
    .size = sizeof(lamina_kernel), .name = "pool", .plan = plan, .forward = forward, .backward = backward};
static const lamina_kernel *const kernels[] = {&kernel, NULL};

const lamina_layer lamina_layer_max_pool2d = {.size = sizeof(lamina_layer),
                                              .name = "max_pool2d",
                                              .version = 1,
                                              .doc = "largest value of each window",
                                              .flags = LAMINA_LAYER_ACCUMULATES,
                                              .attrs = attrs,
                                              .ports = ports,
                                              .kernels = kernels,
                                              .infer = infer};
