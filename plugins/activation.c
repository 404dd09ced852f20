/* SPDX-License-Identifier: Apache-2.0 */
/* relu, leaky_relu, sigmoid and tanh: y = f(x) element by element. The backward pass needs y alone. */
#include "builtin.h"
#include "layer.h"

#include <math.h>

typedef struct activation {
  lamina_activation type;
  float parameter;
} activation;

static void forward_body(const layer_pass *pass, int64_t n, float *const *at, int64_t first) {
  (void)first;
  const activation *f = pass->argument;
  pass->kernels->eltwise->activation[f->type](n, f->parameter, at[0], at[1]);
}

static void backward_body(const layer_pass *pass, int64_t n, float *const *at, int64_t first) {
  (void)first;
  const activation *f = pass->argument;
  pass->kernels->eltwise->activation_backward[f->type](n, f->parameter, at[0], at[1], pass->accumulate, at[2]);
}

static lamina_status forward(const lamina_node *node, lamina_activation type, float parameter) {
  activation f = {type, parameter};
  lamina_status status;
  layer_pass pass = {.host = node->host, .kernels = layer_kernels(node, &status), .operands = 2, .body = forward_body};
  if (status != LAMINA_OK) return status;
  pass.operand[0] = layer_rows(&node->inputs[0]);
  pass.operand[1] = layer_rows(&node->outputs[0]);
  pass.argument = &f;
  layer_pass_run(&pass);
  return LAMINA_OK;
}

static lamina_status backward(const lamina_node *node, lamina_activation type, float parameter) {
  if (!layer_needs_input(node, 0)) return LAMINA_OK;
  activation f = {type, parameter};
  lamina_status status;
  layer_pass pass = {.host = node->host, .kernels = layer_kernels(node, &status), .operands = 3, .body = backward_body};
  if (status != LAMINA_OK) return status;
  pass.operand[0] = layer_rows(&node->outputs[0]);
  pass.operand[1] = layer_rows(&node->d_outputs[0]);
  pass.operand[2] = layer_rows(&node->d_inputs[0]);
  pass.accumulate = layer_accumulates(node, 0);
  pass.argument = &f;
  layer_pass_run(&pass);
  return LAMINA_OK;
}

static lamina_status infer(lamina_node *node) {
  lamina_status status = layer_check_input(node, 0, 0, LAMINA_MAX_RANK, "any shape");
  if (status == LAMINA_OK) layer_copy_shape(&node->outputs[0], &node->inputs[0]);
  return status;
}

static lamina_status plan(const lamina_node *node, lamina_cost *cost) {
  layer_pass_cost(node, cost, 1, 2, "elementwise");
  return LAMINA_OK;
}

static lamina_status relu_forward(const lamina_node *node) { return forward(node, LAMINA_ACTIVATION_RELU, 0); }
static lamina_status relu_backward(const lamina_node *node) { return backward(node, LAMINA_ACTIVATION_RELU, 0); }
static lamina_status leaky_relu_forward(const lamina_node *node) {
  return forward(node, LAMINA_ACTIVATION_LEAKY_RELU, (float)node->attrs[0].f);
}
static lamina_status leaky_relu_backward(const lamina_node *node) {
  return backward(node, LAMINA_ACTIVATION_LEAKY_RELU, (float)node->attrs[0].f);
}
static lamina_status sigmoid_forward(const lamina_node *node) { return forward(node, LAMINA_ACTIVATION_SIGMOID, 0); }
static lamina_status sigmoid_backward(const lamina_node *node) { return backward(node, LAMINA_ACTIVATION_SIGMOID, 0); }
static lamina_status tanh_forward(const lamina_node *node) { return forward(node, LAMINA_ACTIVATION_TANH, 0); }
static lamina_status tanh_backward(const lamina_node *node) { return backward(node, LAMINA_ACTIVATION_TANH, 0); }

static int relu_as_epilogue(const lamina_node *node, lamina_epilogue *epilogue) {
  (void)node;
  epilogue->parts |= LAMINA_EPILOGUE_CLAMP;
  epilogue->lo = 0;
  epilogue->hi = INFINITY;
  return 1;
}

static const lamina_port port_x = {
    .size = sizeof(lamina_port), .name = "x", .kind = LAMINA_PORT_INPUT, .doc = "any shape"};
static const lamina_port port_y = {.size = sizeof(lamina_port),
                                   .name = "y",
                                   .kind = LAMINA_PORT_OUTPUT,
                                   .flags = LAMINA_PORT_BACKWARD_READS,
                                   .doc = "the shape of x"};
static const lamina_port *const ports[] = {&port_x, &port_y, NULL};
static const lamina_attr *const no_attrs[] = {NULL};

/* The sign of y must tell that of x, hence no negative slopes. */
static const lamina_attr negative_slope = {.size = sizeof(lamina_attr),
                                           .name = "negative_slope",
                                           .type = LAMINA_ATTR_FLOAT,
                                           .def = "0.01",
                                           .min = 0,
                                           .max = 1e30,
                                           .doc = "slope where x < 0"};
static const lamina_attr *const leaky_relu_attrs[] = {&negative_slope, NULL};

static const lamina_kernel relu_kernel = {
    .size = sizeof(lamina_kernel), .name = "eltwise", .plan = plan, .forward = relu_forward, .backward = relu_backward};
static const lamina_kernel leaky_relu_kernel = {.size = sizeof(lamina_kernel),
                                                .name = "eltwise",
                                                .plan = plan,
                                                .forward = leaky_relu_forward,
                                                .backward = leaky_relu_backward};
static const lamina_kernel sigmoid_kernel = {.size = sizeof(lamina_kernel),
                                             .name = "eltwise",
                                             .plan = plan,
                                             .forward = sigmoid_forward,
                                             .backward = sigmoid_backward};
static const lamina_kernel tanh_kernel = {
    .size = sizeof(lamina_kernel), .name = "eltwise", .plan = plan, .forward = tanh_forward, .backward = tanh_backward};
static const lamina_kernel *const relu_kernels[] = {&relu_kernel, NULL};
static const lamina_kernel *const leaky_relu_kernels[] = {&leaky_relu_kernel, NULL};
static const lamina_kernel *const sigmoid_kernels[] = {&sigmoid_kernel, NULL};
static const lamina_kernel *const tanh_kernels[] = {&tanh_kernel, NULL};

enum { FLAGS = LAMINA_LAYER_IN_PLACE | LAMINA_LAYER_BACKWARD_IN_PLACE | LAMINA_LAYER_ACCUMULATES };

const lamina_layer lamina_layer_relu = {.size = sizeof(lamina_layer),
                                        .name = "relu",
                                        .version = 1,
                                        .doc = "max(x, 0)",
                                        .flags = FLAGS,
                                        .attrs = no_attrs,
                                        .ports = ports,
                                        .kernels = relu_kernels,
                                        .infer = infer,
                                        .as_epilogue = relu_as_epilogue};
const lamina_layer lamina_layer_leaky_relu = {.size = sizeof(lamina_layer),
                                              .name = "leaky_relu",
                                              .version = 1,
                                              .doc = "x, or negative_slope * x where x < 0",
                                              .flags = FLAGS,
                                              .attrs = leaky_relu_attrs,
                                              .ports = ports,
                                              .kernels = leaky_relu_kernels,
                                              .infer = infer};
const lamina_layer lamina_layer_sigmoid = {.size = sizeof(lamina_layer),
                                           .name = "sigmoid",
                                           .version = 1,
                                           .doc = "1 / (1 + exp(-x))",
                                           .flags = FLAGS,
                                           .attrs = no_attrs,
                                           .ports = ports,
                                           .kernels = sigmoid_kernels,
                                           .infer = infer};
const lamina_layer lamina_layer_tanh = {.size = sizeof(lamina_layer),
                                        .name = "tanh",
                                        .version = 1,
                                        .doc = "hyperbolic tangent of x",
                                        .flags = FLAGS,
                                        .attrs = no_attrs,
                                        .ports = ports,
                                        .kernels = tanh_kernels,
                                        .infer = infer};
