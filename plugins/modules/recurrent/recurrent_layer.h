/* SPDX-License-Identifier: Apache-2.0 */
/* The descriptor of a layer whose cell is the static `cell` of the file that includes this. */
#ifndef LAMINA_RECURRENT_LAYER_H
#define LAMINA_RECURRENT_LAYER_H

#include "recurrent.h"

static lamina_status layer_infer(lamina_node *node) { return recurrent_infer(node, &cell); }
static lamina_status layer_plan(const lamina_node *node, lamina_cost *cost) {
  return recurrent_plan(node, cost, &cell);
}
static lamina_status layer_pack(const lamina_node *node) { return recurrent_pack(node, &cell); }
static lamina_status layer_forward(const lamina_node *node) { return recurrent_forward(node, &cell); }
static lamina_status layer_backward(const lamina_node *node) { return recurrent_backward(node, &cell); }

MODULE_ATTR(hidden_size, "hidden_size", LAMINA_ATTR_INT, NULL, 1, 1 << 24, "H, floats of the state");
MODULE_ATTR(use_bias, "bias", LAMINA_ATTR_BOOL, "true", 0, 0, "learn both biases");
static const lamina_attr output = {.size = sizeof(lamina_attr),
                                   .name = "output",
                                   .type = LAMINA_ATTR_STRING,
                                   .def = "sequence",
                                   .choices = "sequence|last",
                                   .doc = "y is h of every time, or of the last one alone"};
MODULE_INPUT(x_port, "x", LAMINA_PORT_BACKWARD_READS, "(N, L, C)");
MODULE_OUTPUT(y_port, "y", 0, "(N, L, H), or (N, H)");

static const lamina_kernel kernel = {.size = sizeof(lamina_kernel),
                                     .name = "gemm",
                                     .plan = layer_plan,
                                     .pack = layer_pack,
                                     .forward = layer_forward,
                                     .backward = layer_backward};

/* more_attrs and more_ports, each of which begins with a comma or is empty, are what the layer has beyond the others.
 */
#define RECURRENT_NONE
#define RECURRENT_LAYER(id, text, shape_ih, shape_hh, shape_bias, more_attrs, more_ports)                              \
  MODULE_PARAMETER(w_hh_port, "weight_hh_l0", 0, "fan_in_uniform", shape_hh);                                          \
  MODULE_PARAMETER(w_ih_port, "weight_ih_l0", 0, "fan_in_uniform", shape_ih);                                          \
  MODULE_PARAMETER(b_ih_port, "bias_ih_l0", LAMINA_PORT_NO_DECAY, "fan_in_uniform", shape_bias);                       \
  MODULE_PARAMETER(b_hh_port, "bias_hh_l0", LAMINA_PORT_NO_DECAY, "fan_in_uniform", shape_bias);                       \
  const lamina_layer recurrent_##id = {                                                                                \
      .size = sizeof(lamina_layer),                                                                                    \
      .name = #id,                                                                                                     \
      .version = 1,                                                                                                    \
      .doc = text,                                                                                                     \
      .flags = LAMINA_LAYER_ACCUMULATES,                                                                               \
      .attrs = MODULE_ATTRS(&hidden_size, &use_bias, &output more_attrs),                                              \
      .ports = MODULE_PORTS(&x_port, &y_port, &w_hh_port, &w_ih_port, &b_ih_port, &b_hh_port more_ports),              \
      .kernels = MODULE_KERNELS(&kernel),                                                                              \
      .infer = layer_infer}

#endif
