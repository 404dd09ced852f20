/* SPDX-License-Identifier: Apache-2.0 */
/* add: the sum of one or more inputs of one shape, clamped if a relu was fused. */
#include "builtin.h"
#include "layer.h"

#include <math.h>

typedef struct bounds {
  float lo, hi;
} bounds;

/* at: a, b, y; y = clamp(a + b). */
static void add_body(const layer_pass *pass, int64_t n, float *const *at, int64_t first) {
  (void)first;
  const bounds *clamp = pass->argument;
  pass->kernels->eltwise->add(n, at[0], at[1], clamp->lo, clamp->hi, at[2]);
}

/* at: x, y; y = clamp(x). */
static void clamp_body(const layer_pass *pass, int64_t n, float *const *at, int64_t first) {
  (void)first;
  const bounds *clamp = pass->argument;
  pass->kernels->eltwise->clamp(n, clamp->lo, clamp->hi, at[0], at[1]);
}

static lamina_status forward(const lamina_node *node) {
  const bounds none = {-INFINITY, INFINITY};
  bounds last = none;
  if (node->epilogue.parts & LAMINA_EPILOGUE_CLAMP) last = (bounds){node->epilogue.lo, node->epilogue.hi};
  lamina_status status;
  layer_pass pass = {.host = node->host, .kernels = layer_kernels(node, &status)};
  if (status != LAMINA_OK) return status;
  if (node->n_inputs == 1) {
    pass.operands = 2;
    pass.body = clamp_body;
    pass.argument = &last;
    pass.operand[0] = layer_rows(&node->inputs[0]);
    pass.operand[1] = layer_rows(&node->outputs[0]);
    layer_pass_run(&pass);
    return LAMINA_OK;
  }
  pass.operands = 3;
  pass.body = add_body;
  for (int i = 1; i < node->n_inputs; i++) {
    pass.operand[0] = layer_rows(i == 1 ? &node->inputs[0] : &node->outputs[0]);
    pass.operand[1] = layer_rows(&node->inputs[i]);
    pass.operand[2] = layer_rows(&node->outputs[0]);
    pass.argument = i + 1 == node->n_inputs ? &last : &none;
    layer_pass_run(&pass);
  }
  return LAMINA_OK;
}

static lamina_status backward(const lamina_node *node) {
  lamina_status status;
  const lamina_kernels *kernels = layer_kernels(node, &status);
  if (status != LAMINA_OK) return status;
  for (int i = 0; i < node->n_inputs; i++) {
    if (!layer_needs_input(node, i)) continue;
    layer_pass pass = {.host = node->host, .kernels = kernels, .operands = 2, .body = layer_copy_body};
    pass.operand[0] = layer_rows(&node->d_outputs[0]);
    pass.operand[1] = layer_rows(&node->d_inputs[i]);
    pass.accumulate = layer_accumulates(node, i);
    if (pass.operand[0].data == pass.operand[1].data && !pass.accumulate) continue;
    layer_pass_run(&pass);
  }
  return LAMINA_OK;
}

static lamina_status infer(lamina_node *node) {
  for (int i = 0; i < node->n_inputs; i++) {
    lamina_status status = layer_check_input(node, i, 0, LAMINA_MAX_RANK, "any shape");
    if (status == LAMINA_OK) status = layer_check_same(node, i);
    if (status != LAMINA_OK) return status;
  }
  layer_copy_shape(&node->outputs[0], &node->inputs[0]);
  return LAMINA_OK;
}

static lamina_status plan(const lamina_node *node, lamina_cost *cost) {
  layer_pass_cost(node, cost, node->n_inputs - 1, node->n_inputs + 1, "elementwise");
  return LAMINA_OK;
}

static int as_epilogue(const lamina_node *node, lamina_epilogue *epilogue) {
  if (node->n_inputs != 2) return 0;
  epilogue->parts |= LAMINA_EPILOGUE_ADD;
  epilogue->lo = -INFINITY;
  epilogue->hi = INFINITY;
  return 1;
}

static const lamina_port port_x = {.size = sizeof(lamina_port),
                                   .name = "x",
                                   .kind = LAMINA_PORT_INPUT,
                                   .flags = LAMINA_PORT_VARIADIC,
                                   .doc = "one or more values of one shape"};
static const lamina_port port_y = {
    .size = sizeof(lamina_port), .name = "y", .kind = LAMINA_PORT_OUTPUT, .doc = "the same shape"};
static const lamina_port *const ports[] = {&port_x, &port_y, NULL};
static const lamina_attr *const attrs[] = {NULL};
static const lamina_kernel kernel = {
    .size = sizeof(lamina_kernel), .name = "eltwise", .plan = plan, .forward = forward, .backward = backward};
static const lamina_kernel *const kernels[] = {&kernel, NULL};

const lamina_layer lamina_layer_add = {.size = sizeof(lamina_layer),
                                       .name = "add",
                                       .version = 1,
                                       .doc = "sum of its inputs, element by element",
                                       .flags = LAMINA_LAYER_IN_PLACE | LAMINA_LAYER_BACKWARD_IN_PLACE |
                                                LAMINA_LAYER_ACCUMULATES | LAMINA_LAYER_CHEAP,
                                       .epilogues = LAMINA_EPILOGUE_CLAMP,
                                       .attrs = attrs,
                                       .ports = ports,
                                       .kernels = kernels,
                                       .infer = infer,
                                       .as_epilogue = as_epilogue};
