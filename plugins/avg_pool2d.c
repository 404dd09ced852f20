/* SPDX-License-Identifier: Apache-2.0 */
/* avg_pool2d: (N, H, W, C) -> (N, OH, OW, C), the mean of each window; padding counts as zeros (count_include_pad), or
   not at all. */
#include "builtin.h"
#include "window.h"

enum { ATTR_COUNT_INCLUDE_PAD = WINDOW_ATTRS };

static lamina_status forward(const lamina_node *node) {
  lamina_status status;
  const lamina_kernels *kernels = layer_kernels(node, &status);
  if (status != LAMINA_OK) return status;
  const window win = window_of(node, NULL);
  window_forward walk = {.win = &win, .kernel = kernels->pool->average};
  walk.x = layer_rows(&node->inputs[0]);
  walk.y = layer_rows(&node->outputs[0]);
  walk.include_padding = node->attrs[ATTR_COUNT_INCLUDE_PAD].i != 0;
  window_run_forward(node->host, &walk);
  return LAMINA_OK;
}

static lamina_status backward(const lamina_node *node) {
  if (!layer_needs_input(node, 0)) return LAMINA_OK;
  lamina_status status;
  const lamina_kernels *kernels = layer_kernels(node, &status);
  if (status != LAMINA_OK) return status;
  const window win = window_of(node, NULL);
  window_backward walk = {.win = &win, .kernel = kernels->pool->average_backward};
  walk.dy = layer_rows(&node->d_outputs[0]);
  walk.dx = layer_rows(&node->d_inputs[0]);
  walk.accumulate = layer_accumulates(node, 0);
  walk.include_padding = node->attrs[ATTR_COUNT_INCLUDE_PAD].i != 0;
  window_run_backward(node->host, &walk);
  return LAMINA_OK;
}

static lamina_status infer(lamina_node *node) { return window_infer(node, NULL); }

static lamina_status plan(const lamina_node *node, lamina_cost *cost) {
  const window win = window_of(node, NULL);
  window_cost(&win, cost);
  return LAMINA_OK;
}

static const lamina_attr count_include_pad = {
    .size = sizeof(lamina_attr),
    .name = "count_include_pad",
    .type = LAMINA_ATTR_BOOL,
    .def = "true",
    .doc = "padding counts as zeros; false: the mean of what is inside the image"};
static const lamina_attr *const attrs[] = {&window_attr_kernel,    &window_attr_stride, &window_attr_padding,
                                           &window_attr_ceil_mode, &count_include_pad,  NULL};
static const lamina_port port_x = {
    .size = sizeof(lamina_port), .name = "x", .kind = LAMINA_PORT_INPUT, .doc = "(N, H, W, C)"};
static const lamina_port port_y = {
    .size = sizeof(lamina_port), .name = "y", .kind = LAMINA_PORT_OUTPUT, .doc = "(N, OH, OW, C)"};
static const lamina_port *const ports[] = {&port_x, &port_y, NULL};
static const lamina_kernel kernel = {
    .size = sizeof(lamina_kernel), .name = "pool", .plan = plan, .forward = forward, .backward = backward};
static const lamina_kernel *const kernels[] = {&kernel, NULL};

const lamina_layer lamina_layer_avg_pool2d = {.size = sizeof(lamina_layer),
                                              .name = "avg_pool2d",
                                              .version = 1,
                                              .doc = "mean of each window",
                                              .flags = LAMINA_LAYER_ACCUMULATES,
                                              .attrs = attrs,
                                              .ports = ports,
                                              .kernels = kernels,
                                              .infer = infer};
