/* SPDX-License-Identifier: Apache-2.0 */
/* softmax over the last axis: y = exp(x - max) / sum. */
#include "builtin.h"
#include "layer.h"

typedef struct walk {
  const lamina_kernels *kernels;
  layer_matrix x, y, dy, dx;
  int64_t rows_per_task;
  int accumulate;
} walk;

static void forward_task(void *arg, int64_t index, int thread) {
  (void)thread;
  const walk *w = arg;
  int64_t end = layer_min((index + 1) * w->rows_per_task, w->y.rows);
  for (int64_t r = index * w->rows_per_task; r < end; r++) {
    w->kernels->softmax->forward(w->y.channels, w->x.data + r * w->x.ld, w->y.data + r * w->y.ld);
  }
}

static void backward_task(void *arg, int64_t index, int thread) {
  (void)thread;
  const walk *w = arg;
  int64_t end = layer_min((index + 1) * w->rows_per_task, w->y.rows);
  for (int64_t r = index * w->rows_per_task; r < end; r++) {
    w->kernels->softmax->backward(w->y.channels, w->y.data + r * w->y.ld, w->dy.data + r * w->dy.ld, w->accumulate,
                                  w->dx.data + r * w->dx.ld);
  }
}

static lamina_status run(const lamina_node *node, walk *w, void (*task)(void *arg, int64_t index, int thread)) {
  lamina_status status;
  w->kernels = layer_kernels(node, &status);
  if (status != LAMINA_OK) return status;
  w->y = layer_rows(&node->outputs[0]);
  w->rows_per_task = layer_max(1, LAYER_TASK_FLOATS / 4 / w->y.channels);
  layer_parallel(node->host, layer_ceil_div(w->y.rows, w->rows_per_task), w->y.rows * w->y.channels * 4, task, w);
  return LAMINA_OK;
}

static lamina_status forward(const lamina_node *node) {
  walk w = {.x = layer_rows(&node->inputs[0])};
  return run(node, &w, forward_task);
}

static lamina_status backward(const lamina_node *node) {
  if (!layer_needs_input(node, 0)) return LAMINA_OK;
  walk w = {.dy = layer_rows(&node->d_outputs[0]), .dx = layer_rows(&node->d_inputs[0])};
  w.accumulate = layer_accumulates(node, 0);
  return run(node, &w, backward_task);
}

static lamina_status infer(lamina_node *node) {
  lamina_status status = layer_check_input(node, 0, 1, LAMINA_MAX_RANK, "(N, ..., C)");
  if (status == LAMINA_OK) layer_copy_shape(&node->outputs[0], &node->inputs[0]);
  return status;
}

static lamina_status plan(const lamina_node *node, lamina_cost *cost) {
  layer_pass_cost(node, cost, 4, 2, "by row");
  return LAMINA_OK;
}

static const lamina_port port_x = {
    .size = sizeof(lamina_port), .name = "x", .kind = LAMINA_PORT_INPUT, .doc = "(N, ..., C)"};
static const lamina_port port_y = {.size = sizeof(lamina_port),
                                   .name = "y",
                                   .kind = LAMINA_PORT_OUTPUT,
                                   .flags = LAMINA_PORT_BACKWARD_READS,
                                   .doc = "the shape of x; the last axis sums to 1"};
static const lamina_port *const ports[] = {&port_x, &port_y, NULL};
static const lamina_attr *const attrs[] = {NULL};
static const lamina_kernel kernel = {
    .size = sizeof(lamina_kernel), .name = "softmax", .plan = plan, .forward = forward, .backward = backward};
static const lamina_kernel *const kernels[] = {&kernel, NULL};

const lamina_layer lamina_layer_softmax = {.size = sizeof(lamina_layer),
                                           .name = "softmax",
                                           .version = 1,
                                           .doc = "softmax over the last axis",
                                           .flags = LAMINA_LAYER_IN_PLACE | LAMINA_LAYER_BACKWARD_IN_PLACE |
                                                    LAMINA_LAYER_ACCUMULATES,
                                           .attrs = attrs,
                                           .ports = ports,
                                           .kernels = kernels,
                                           .infer = infer};
