/* SPDX-License-Identifier: Apache-2.0 */
/* mse_loss: the mean over all elements of (prediction - target)^2. Sums are in double, one for each task, then in
 * order. */
#include "builtin.h"
#include "layer.h"

/* at: prediction, target; adds to the sum of the task. */
static void forward_body(const layer_pass *pass, int64_t n, float *const *at, int64_t first) {
  double *sums = *(double *const *)pass->argument, sum = 0;
  for (int64_t i = 0; i < n; i++) {
    double d = (double)at[0][i] - (double)at[1][i];
    sum += d * d;
  }
  sums[layer_pass_task(pass, first)] += sum;
}

/* at: prediction, target, gradient. */
static void backward_body(const layer_pass *pass, int64_t n, float *const *at, int64_t first) {
  (void)first;
  float scale = *(const float *)pass->argument;
  for (int64_t i = 0; i < n; i++) {
    float g = (at[0][i] - at[1][i]) * scale;
    at[2][i] = pass->accumulate ? at[2][i] + g : g;
  }
}

static lamina_status forward(const lamina_node *node) {
  layer_matrix shape = layer_rows(&node->inputs[0]);
  int64_t count = shape.rows * shape.channels, tasks = layer_pass_tasks(shape.rows, shape.channels);
  double *sums = node->workspace, total = 0;
  for (int64_t i = 0; i < tasks; i++) sums[i] = 0;
  layer_pass pass = {.host = node->host, .operands = 2, .body = forward_body, .argument = &sums};
  pass.operand[0] = layer_rows(&node->inputs[0]);
  pass.operand[1] = layer_rows(&node->inputs[1]);
  layer_pass_run(&pass);
  for (int64_t i = 0; i < tasks; i++) total += sums[i];
  *(float *)node->outputs[0].data = (float)(total / (double)count);
  return LAMINA_OK;
}

static lamina_status backward(const lamina_node *node) {
  double scale = 2.0 * *(const float *)node->d_outputs[0].data / (double)layer_count(&node->inputs[0]);
  for (int i = 0; i < 2; i++) {
    if (!layer_needs_input(node, i)) continue;
    float signed_scale = (float)(i == 0 ? scale : -scale);
    layer_pass pass = {.host = node->host, .operands = 3, .body = backward_body, .argument = &signed_scale};
    pass.operand[0] = layer_rows(&node->inputs[0]);
    pass.operand[1] = layer_rows(&node->inputs[1]);
    pass.operand[2] = layer_rows(&node->d_inputs[i]);
    pass.accumulate = layer_accumulates(node, i);
    layer_pass_run(&pass);
  }
  return LAMINA_OK;
}

static lamina_status infer(lamina_node *node) {
  for (int i = 0; i < 2; i++) {
    lamina_status status = layer_check_input(node, i, 0, LAMINA_MAX_RANK, "any shape");
    if (status == LAMINA_OK) status = layer_check_same(node, i);
    if (status != LAMINA_OK) return status;
  }
  node->outputs[0].rank = 0;
  return LAMINA_OK;
}

static lamina_status plan(const lamina_node *node, lamina_cost *cost) {
  layer_matrix shape = layer_rows(&node->inputs[0]);
  int64_t count = shape.rows * shape.channels;
  cost->workspace = (size_t)layer_pass_tasks(shape.rows, shape.channels) * sizeof(double);
  cost->flops = cost->backward_flops = 3.0 * (double)count;
  cost->bytes = 2.0 * (double)count * sizeof(float);
  cost->backward_bytes = 4.0 * (double)count * sizeof(float);
  cost->algorithm = "elementwise";
  return LAMINA_OK;
}

static const lamina_port port_prediction = {.size = sizeof(lamina_port),
                                            .name = "prediction",
                                            .kind = LAMINA_PORT_INPUT,
                                            .flags = LAMINA_PORT_BACKWARD_READS,
                                            .doc = "any shape"};
static const lamina_port port_target = {.size = sizeof(lamina_port),
                                        .name = "target",
                                        .kind = LAMINA_PORT_INPUT,
                                        .flags = LAMINA_PORT_BACKWARD_READS,
                                        .doc = "the shape of prediction"};
static const lamina_port port_loss = {.size = sizeof(lamina_port),
                                      .name = "loss",
                                      .kind = LAMINA_PORT_OUTPUT,
                                      .doc = "a scalar: the mean over all elements"};
static const lamina_port *const ports[] = {&port_prediction, &port_target, &port_loss, NULL};
static const lamina_attr *const attrs[] = {NULL};
static const lamina_kernel kernel = {
    .size = sizeof(lamina_kernel), .name = "generic", .plan = plan, .forward = forward, .backward = backward};
static const lamina_kernel *const kernels[] = {&kernel, NULL};

const lamina_layer lamina_layer_mse_loss = {.size = sizeof(lamina_layer),
                                            .name = "mse_loss",
                                            .version = 1,
                                            .doc = "mean of (prediction - target)^2",
                                            .flags = LAMINA_LAYER_LOSS | LAMINA_LAYER_ACCUMULATES,
                                            .attrs = attrs,
                                            .ports = ports,
                                            .kernels = kernels,
                                            .infer = infer};
