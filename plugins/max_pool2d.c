/* SPDX-License-Identifier: Apache-2.0 */
/*
 * max_pool2d: (N, H, W, C) -> (N, OH, OW, C), the largest value of each window; padding counts as -inf. In training
 * forward keeps a byte for each output, the tap that won (the first of equals, and NaN before all): backward then gathers,
 * for each pixel, the gradients of the windows that it has won, and reads neither x nor y. Windows with holes or of more
 * taps than a byte counts find their winners again by comparing x with y.
 */
#include "builtin.h"
#include "window.h"

#include <math.h>

enum { ATTR_DILATION = WINDOW_ATTRS };

static int keeps_winners(const lamina_node *node, const window *win) {
  return node->mode == LAMINA_TRAIN && win->dilation[0] == 1 && win->dilation[1] == 1 &&
         win->kernel[0] <= WINDOW_NO_WINNER && win->kernel[1] <= WINDOW_NO_WINNER / win->kernel[0];
}

static lamina_status forward(const lamina_node *node) {
  lamina_status status;
  const lamina_kernels *kernels = layer_kernels(node, &status);
  if (status != LAMINA_OK) return status;
  const window win = window_of(node, &node->attrs[ATTR_DILATION]);
  window_forward walk = {.win = &win, .kernel = kernels->pool->max, .empty = -INFINITY};
  if (keeps_winners(node, &win)) {
    walk.kernel = kernels->pool->max_winner;
    walk.winner = node->saved;
  }
  walk.x = layer_rows(&node->inputs[0]);
  walk.y = layer_rows(&node->outputs[0]);
  window_run_forward(node->host, &walk);
  return LAMINA_OK;
}

/* Rows of dx are independent of each other. */
typedef struct gather_job {
  const window *win;
  const lamina_kernels *kernels;
  layer_matrix dy, dx;
  const uint8_t *winner;
  int64_t rows_per_task;
  int accumulate, stream;
} gather_job;

static void gather_row(const gather_job *job, int64_t image, int64_t h) {
  const window *win = job->win;
  const int64_t at = h + win->padding[0], before = at - win->kernel[0] + 1;
  const int64_t first = before > 0 ? layer_ceil_div(before, win->stride[0]) : 0;
  const int64_t end = layer_min(win->oh, at / win->stride[0] + 1), begin = (image * win->oh + first) * win->ow;
  const lamina_pool_gather row = {.columns = win->w,
                                  .channels = win->channels,
                                  .dx = job->dx.data + (image * win->h + h) * win->w * job->dx.ld,
                                  .dx_ld = job->dx.ld,
                                  .rows = layer_max(0, end - first),
                                  .windows = win->ow,
                                  .dy = job->dy.data + begin * job->dy.ld,
                                  .dy_ld = job->dy.ld,
                                  .dy_row = win->ow * job->dy.ld,
                                  .winner = job->winner + begin * win->channels,
                                  .winner_ld = win->channels,
                                  .winner_row = win->ow * win->channels,
                                  .tap = (at - first * win->stride[0]) * win->kernel[1],
                                  .tap_row = win->stride[0] * win->kernel[1],
                                  .width = win->kernel[1],
                                  .stride = win->stride[1],
                                  .padding = win->padding[1],
                                  .accumulate = job->accumulate,
                                  .stream = job->stream};
  job->kernels->pool->max_gather(&row);
}

static void gather_task(void *arg, int64_t index, int thread) {
  (void)thread;
  const gather_job *job = arg;
  const int64_t end = layer_min((index + 1) * job->rows_per_task, job->win->images * job->win->h);
  for (int64_t row = index * job->rows_per_task; row < end; row++) gather_row(job, row / job->win->h, row % job->win->h);
}

static void gather(const lamina_node *node, const lamina_kernels *kernels, const window *win) {
  gather_job job = {.win = win,
                    .kernels = kernels,
                    .dy = layer_rows(&node->d_outputs[0]),
                    .dx = layer_rows(&node->d_inputs[0]),
                    .winner = node->saved,
                    .accumulate = layer_accumulates(node, 0)};
  const int64_t rows = win->images * win->h, floats = rows * win->w * win->channels;
  /* Results that would drive out of the caches what is read are written past them, as batch norm's are. */
  job.stream = !job.accumulate && layer_streams(node->host, (double)floats * sizeof(float));
  job.rows_per_task = layer_max(1, LAYER_TASK_FLOATS / (win->w * win->channels));
  layer_parallel(node->host, layer_ceil_div(rows, job.rows_per_task), floats, gather_task, &job);
}

static lamina_status backward(const lamina_node *node) {
  if (!layer_needs_input(node, 0)) return LAMINA_OK;
  lamina_status status;
  const lamina_kernels *kernels = layer_kernels(node, &status);
  if (status != LAMINA_OK) return status;
  const window win = window_of(node, &node->attrs[ATTR_DILATION]);
  if (keeps_winners(node, &win)) {
    gather(node, kernels, &win);
    return LAMINA_OK;
  }
  window_backward walk = {.win = &win, .kernel = kernels->pool->max_backward};
  walk.x = layer_rows(&node->inputs[0]);
  walk.y = layer_rows(&node->outputs[0]);
  walk.dy = layer_rows(&node->d_outputs[0]);
  walk.dx = layer_rows(&node->d_inputs[0]);
  walk.accumulate = layer_accumulates(node, 0);
  window_run_backward(node->host, &walk);
  return LAMINA_OK;
}

static lamina_status infer(lamina_node *node) { return window_infer(node, &node->attrs[ATTR_DILATION]); }

static lamina_status plan(const lamina_node *node, lamina_cost *cost) {
  const window win = window_of(node, &node->attrs[ATTR_DILATION]);
  window_cost(&win, cost);
  if (keeps_winners(node, &win)) cost->saved = (size_t)layer_count(&node->outputs[0]);
  return LAMINA_OK;
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
