/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relu, leaky_relu, clip, sigmoid, hard_sigmoid, tanh, silu and hard_swish: y = f(x) element by element. The backward
 * pass needs y alone, but for silu and hard_swish, whose gradient is computed from x.
 */
#include "builtin.h"
#include "layer.h"

#include <math.h>

enum { PARAMETERS = 2 /* the most that an activation has: its attributes, in their order */ };

typedef struct activation {
  lamina_activation type;
  float parameters[PARAMETERS];
} activation;

static activation describe(const lamina_node *node, lamina_activation type) {
  activation f = {.type = type};
  const int count = type == LAMINA_ACTIVATION_CLIP ? 2 : type == LAMINA_ACTIVATION_LEAKY_RELU ? 1 : 0;
  for (int i = 0; i < count; i++) f.parameters[i] = (float)node->attrs[i].f;
  return f;
}

static void forward_body(const layer_pass *pass, int64_t n, float *const *at, int64_t first) {
  (void)first;
  const activation *f = pass->argument;
  pass->kernels->eltwise->activation[f->type](n, f->parameters, at[0], at[1]);
}

static void backward_body(const layer_pass *pass, int64_t n, float *const *at, int64_t first) {
  (void)first;
  const activation *f = pass->argument;
  pass->kernels->eltwise->activation_backward[f->type](n, f->parameters, at[0], at[1], pass->accumulate, at[2]);
}

static lamina_status forward(const lamina_node *node, lamina_activation type) {
  const activation f = describe(node, type);
  lamina_status status;
  layer_pass pass = {.host = node->host, .kernels = layer_kernels(node, &status), .operands = 2, .body = forward_body};
  if (status != LAMINA_OK) return status;
  pass.operand[0] = layer_rows(&node->inputs[0]);
  pass.operand[1] = layer_rows(&node->outputs[0]);
  pass.argument = &f;
  layer_pass_run(&pass);
  return LAMINA_OK;
}

static lamina_status backward(const lamina_node *node, lamina_activation type) {
  if (!layer_needs_input(node, 0)) return LAMINA_OK;
  const activation f = describe(node, type);
  lamina_status status;
  layer_pass pass = {.host = node->host, .kernels = layer_kernels(node, &status), .operands = 3, .body = backward_body};
  if (status != LAMINA_OK) return status;
  pass.operand[0] = layer_rows(type >= LAMINA_ACTIVATION_SILU ? &node->inputs[0] : &node->outputs[0]);
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

static lamina_status clip_infer(lamina_node *node) {
  if (!(node->attrs[0].f < node->attrs[1].f))
    return node->host->fail(node->host, LAMINA_INVALID_ARGUMENT, "min = %g is not below max = %g", node->attrs[0].f,
                            node->attrs[1].f);
  return infer(node);
}

static lamina_status plan(const lamina_node *node, lamina_cost *cost) {
  layer_pass_cost(node, cost, 1, 2, "elementwise");
  return LAMINA_OK;
}

/* relu and clip are bounds, which an epilogue applies in registers; all others are fused as a function. */
static int as_epilogue(const lamina_node *node, lamina_activation type, lamina_epilogue *epilogue) {
  const activation f = describe(node, type);
  if (type == LAMINA_ACTIVATION_RELU || type == LAMINA_ACTIVATION_CLIP) {
    epilogue->parts |= LAMINA_EPILOGUE_CLAMP;
    epilogue->lo = f.parameters[0];
    epilogue->hi = type == LAMINA_ACTIVATION_CLIP ? f.parameters[1] : INFINITY;
    return 1;
  }
  lamina_status status;
  const lamina_kernels *kernels = layer_kernels(node, &status);
  if (status != LAMINA_OK) return 0;
  epilogue->parts |= LAMINA_EPILOGUE_ACTIVATION;
  epilogue->activation = kernels->eltwise->activation[type];
  for (int i = 0; i < PARAMETERS; i++) epilogue->parameters[i] = f.parameters[i];
  return 1;
}

static const lamina_port x_port = {
    .size = sizeof(lamina_port), .name = "x", .kind = LAMINA_PORT_INPUT, .doc = "any shape"};
static const lamina_port x_read_port = {.size = sizeof(lamina_port),
                                        .name = "x",
                                        .kind = LAMINA_PORT_INPUT,
                                        .flags = LAMINA_PORT_BACKWARD_READS,
                                        .doc = "any shape"};
static const lamina_port y_port = {
    .size = sizeof(lamina_port), .name = "y", .kind = LAMINA_PORT_OUTPUT, .doc = "the shape of x"};
static const lamina_port y_read_port = {.size = sizeof(lamina_port),
                                        .name = "y",
                                        .kind = LAMINA_PORT_OUTPUT,
                                        .flags = LAMINA_PORT_BACKWARD_READS,
                                        .doc = "the shape of x"};
static const lamina_port *const ports_by_y[] = {&x_port, &y_read_port, NULL};
static const lamina_port *const ports_by_x[] = {&x_read_port, &y_port, NULL};
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

static const lamina_attr clip_min = {.size = sizeof(lamina_attr),
                                     .name = "min",
                                     .type = LAMINA_ATTR_FLOAT,
                                     .def = "-1",
                                     .min = -3e38,
                                     .max = 3e38,
                                     .doc = "the least value of y"};
static const lamina_attr clip_max = {.size = sizeof(lamina_attr),
                                     .name = "max",
                                     .type = LAMINA_ATTR_FLOAT,
                                     .def = "1",
                                     .min = -3e38,
                                     .max = 3e38,
                                     .doc = "the largest value of y"};
static const lamina_attr *const clip_attrs[] = {&clip_min, &clip_max, NULL};

/* The callbacks and the descriptor of one activation, which differ by its place in the table of kernels alone. */
#define ACTIVATION(id, place, layer_attrs, layer_ports, layer_infer, text)                                             \
  static lamina_status id##_forward(const lamina_node *node) { return forward(node, place); }                          \
  static lamina_status id##_backward(const lamina_node *node) { return backward(node, place); }                        \
  static int id##_as_epilogue(const lamina_node *node, lamina_epilogue *epilogue) {                                    \
    return as_epilogue(node, place, epilogue);                                                                         \
  }                                                                                                                    \
  static const lamina_kernel id##_kernel = {.size = sizeof(lamina_kernel),                                             \
                                            .name = "eltwise",                                                         \
                                            .plan = plan,                                                              \
                                            .forward = id##_forward,                                                   \
                                            .backward = id##_backward};                                                \
  static const lamina_kernel *const id##_kernels[] = {&id##_kernel, NULL};                                             \
  const lamina_layer lamina_layer_##id = {.size = sizeof(lamina_layer),                                                \
                                          .name = #id,                                                                 \
                                          .version = 1,                                                                \
                                          .doc = text,                                                                 \
                                          .flags = LAMINA_LAYER_IN_PLACE | LAMINA_LAYER_BACKWARD_IN_PLACE |            \
                                                   LAMINA_LAYER_ACCUMULATES | LAMINA_LAYER_CHEAP,                      \
                                          .attrs = layer_attrs,                                                        \
                                          .ports = layer_ports,                                                        \
                                          .kernels = id##_kernels,                                                     \
                                          .infer = layer_infer,                                                        \
                                          .as_epilogue = id##_as_epilogue}

ACTIVATION(relu, LAMINA_ACTIVATION_RELU, no_attrs, ports_by_y, infer, "max(x, 0)");
ACTIVATION(leaky_relu, LAMINA_ACTIVATION_LEAKY_RELU, leaky_relu_attrs, ports_by_y, infer,
           "x, or negative_slope * x where x < 0");
ACTIVATION(clip, LAMINA_ACTIVATION_CLIP, clip_attrs, ports_by_y, clip_infer,
           "x within min and max (PyTorch's hardtanh; relu6 is 0 and 6)");
ACTIVATION(sigmoid, LAMINA_ACTIVATION_SIGMOID, no_attrs, ports_by_y, infer, "1 / (1 + exp(-x))");
ACTIVATION(hard_sigmoid, LAMINA_ACTIVATION_HARD_SIGMOID, no_attrs, ports_by_y, infer, "x + 3 within 0 and 6, over 6");
ACTIVATION(tanh, LAMINA_ACTIVATION_TANH, no_attrs, ports_by_y, infer, "hyperbolic tangent of x");
ACTIVATION(silu, LAMINA_ACTIVATION_SILU, no_attrs, ports_by_x, infer, "x * sigmoid(x), also called swish");
ACTIVATION(hard_swish, LAMINA_ACTIVATION_HARD_SWISH, no_attrs, ports_by_x, infer, "x * hard_sigmoid(x)");
