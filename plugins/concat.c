/* SPDX-License-Identifier: Apache-2.0 */
/* concat: joins its inputs along the last axis, the channels; all other sizes must agree. An input that already lies in
   its slice of the output (its producer wrote it there, as rows may be padded) costs nothing. */
#include "builtin.h"
#include "layer.h"

#include <string.h>

/* The copy between one input and its slice of the output. */
static void copy_slice(const lamina_node *node, const lamina_kernels *kernels, const lamina_tensor *tensor,
                       const lamina_tensor *whole, int64_t channel, int gather, int accumulate) {
  layer_matrix part = layer_rows(tensor), slice = layer_rows(whole);
  slice.data += channel;
  slice.channels = part.channels;
  if (part.data == slice.data && part.ld == slice.ld && !accumulate) return;
  layer_pass pass = {.host = node->host, .kernels = kernels, .operands = 2, .body = layer_copy_body};
  pass.operand[0] = gather ? slice : part;
  pass.operand[1] = gather ? part : slice;
  pass.accumulate = accumulate;
  layer_pass_run(&pass);
}

static lamina_status forward(const lamina_node *node) {
  lamina_status status;
  const lamina_kernels *kernels = layer_kernels(node, &status);
  if (status != LAMINA_OK) return status;
  int64_t channel = 0;
  for (int i = 0; i < node->n_inputs; i++) {
    const lamina_tensor *x = &node->inputs[i];
    copy_slice(node, kernels, x, &node->outputs[0], channel, 0, 0);
    channel += x->dim[x->rank - 1];
  }
  return LAMINA_OK;
}

static lamina_status backward(const lamina_node *node) {
  lamina_status status;
  const lamina_kernels *kernels = layer_kernels(node, &status);
  if (status != LAMINA_OK) return status;
  int64_t channel = 0;
  for (int i = 0; i < node->n_inputs; i++) {
    const lamina_tensor *x = &node->inputs[i];
    if (layer_needs_input(node, i)) {
      copy_slice(node, kernels, &node->d_inputs[i], &node->d_outputs[0], channel, 1, layer_accumulates(node, i));
    }
    channel += x->dim[x->rank - 1];
  }
  return LAMINA_OK;
}

static lamina_status infer(lamina_node *node) {
  const lamina_tensor *first = &node->inputs[0];
  lamina_tensor *y = &node->outputs[0];
  int64_t channels = 0;
  for (int i = 0; i < node->n_inputs; i++) {
    const lamina_tensor *x = &node->inputs[i];
    lamina_status status = layer_check_input(node, i, 2, LAMINA_MAX_RANK, "(N, ..., C)");
    if (status != LAMINA_OK) return status;
    int fits = x->rank == first->rank;
    for (int d = 0; fits && d + 1 < x->rank; d++) fits = x->dim[d] == first->dim[d];
    if (!fits) {
      char text_x[LAYER_SHAPE_TEXT], text_first[LAYER_SHAPE_TEXT];
      return node->host->fail(node->host, LAMINA_SHAPE_MISMATCH,
                              "input %d has shape %s, but input 0 has %s: all sizes but the last must be equal", i,
                              layer_shape_text(x, text_x), layer_shape_text(first, text_first));
    }
    channels += x->dim[x->rank - 1];
  }
  layer_copy_shape(y, first);
  y->dim[y->rank - 1] = channels;
  return LAMINA_OK;
}

static lamina_status plan(const lamina_node *node, lamina_cost *cost) {
  layer_pass_cost(node, cost, 0, 2, "copies of rows");
  return LAMINA_OK;
}

static const lamina_port port_x = {.size = sizeof(lamina_port),
                                   .name = "x",
                                   .kind = LAMINA_PORT_INPUT,
                                   .flags = LAMINA_PORT_VARIADIC,
                                   .doc = "(N, ..., C_i), one or more"};
static const lamina_port port_y = {
    .size = sizeof(lamina_port), .name = "y", .kind = LAMINA_PORT_OUTPUT, .doc = "(N, ..., sum of C_i)"};
static const lamina_port *const ports[] = {&port_x, &port_y, NULL};
static const lamina_attr *const attrs[] = {NULL};
static const lamina_kernel kernel = {
    .size = sizeof(lamina_kernel), .name = "copy", .plan = plan, .forward = forward, .backward = backward};
static const lamina_kernel *const kernels[] = {&kernel, NULL};

const lamina_layer lamina_layer_concat = {.size = sizeof(lamina_layer),
                                          .name = "concat",
                                          .version = 1,
                                          .doc = "joins its inputs along the channels (the last axis)",
                                          .flags = LAMINA_LAYER_ACCUMULATES,
                                          .attrs = attrs,
                                          .ports = ports,
                                          .kernels = kernels,
                                          .infer = infer};
