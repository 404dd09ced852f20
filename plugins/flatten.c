/* SPDX-License-Identifier: Apache-2.0 */
/* flatten: (N, ..., C) -> (N, C * positions) in PyTorch's order, channels outermost: a transposition of each image.
   With channels_last the order in memory stays, which the plan asks for when it folds the permutation into the linear
   layer that follows. Where both orders are one, the output is the input's memory. */
#include "builtin.h"
#include "layer.h"

#include <string.h>

enum { ATTR_CHANNELS_LAST };
enum { BLOCK_CHANNELS = 64 };

typedef struct walk {
  const lamina_kernels *kernels;
  layer_matrix map, flat; /* the side of x: images * positions rows of C; the side of y: images rows of C * positions */
  int64_t positions, parts;
  int backward;
} walk;

static void transpose_task(void *arg, int64_t index, int thread) {
  (void)thread;
  const walk *w = arg;
  int64_t image = index / w->parts, c = index % w->parts * BLOCK_CHANNELS;
  int64_t channels = layer_min(BLOCK_CHANNELS, w->map.channels - c);
  float *map = w->map.data + image * w->positions * w->map.ld + c;
  float *flat = w->flat.data + image * w->flat.ld + c * w->positions;
  if (w->backward) {
    w->kernels->gemm->transpose(channels, w->positions, flat, w->positions, map, w->map.ld);
  } else {
    w->kernels->gemm->transpose(w->positions, channels, map, w->map.ld, flat, w->positions);
  }
}

static void copy_task(void *arg, int64_t image, int thread) {
  (void)thread;
  const walk *w = arg;
  for (int64_t row = 0; row < w->positions; row++) {
    float *map = w->map.data + (image * w->positions + row) * w->map.ld;
    float *flat = w->flat.data + image * w->flat.ld + row * w->map.channels;
    memcpy(w->backward ? map : flat, w->backward ? flat : map, (size_t)w->map.channels * sizeof(float));
  }
}

/* Nonzero if the order of the elements in memory does not change. */
static int keeps_order(const lamina_node *node) {
  const lamina_tensor *x = &node->inputs[0];
  int64_t images = x->dim[0], channels = x->dim[x->rank - 1];
  return node->attrs[ATTR_CHANNELS_LAST].i || x->rank == 2 || channels == 1 || layer_count(x) == images * channels;
}

static lamina_status run(const lamina_node *node, const lamina_tensor *map, const lamina_tensor *flat, int backward) {
  lamina_status status;
  walk w = {.kernels = layer_kernels(node, &status), .map = layer_rows(map), .flat = layer_rows(flat)};
  if (status != LAMINA_OK) return status;
  w.positions = w.map.rows / w.flat.rows;
  w.parts = layer_ceil_div(w.map.channels, BLOCK_CHANNELS);
  w.backward = backward;
  int64_t floats = w.map.rows * w.map.channels;
  if (!keeps_order(node)) {
    layer_parallel(node->host, w.flat.rows * w.parts, floats, transpose_task, &w);
  } else if (w.map.data != w.flat.data) {
    layer_parallel(node->host, w.flat.rows, floats, copy_task, &w);
  }
  return LAMINA_OK;
}

static lamina_status forward(const lamina_node *node) { return run(node, &node->inputs[0], &node->outputs[0], 0); }

static lamina_status backward(const lamina_node *node) {
  return layer_needs_input(node, 0) ? run(node, &node->d_inputs[0], &node->d_outputs[0], 1) : LAMINA_OK;
}

static lamina_status infer(lamina_node *node) {
  lamina_status status = layer_check_input(node, 0, 2, LAMINA_MAX_RANK, "(N, ..., C)");
  if (status != LAMINA_OK) return status;
  const lamina_tensor *x = &node->inputs[0];
  node->outputs[0].rank = 2;
  node->outputs[0].dim[0] = x->dim[0];
  node->outputs[0].dim[1] = layer_count(x) / x->dim[0];
  return LAMINA_OK;
}

static lamina_status plan(const lamina_node *node, lamina_cost *cost) {
  layer_pass_cost(node, cost, 0, 2, keeps_order(node) ? "copy" : "transposition");
  return LAMINA_OK;
}

static const lamina_attr channels_last = {.size = sizeof(lamina_attr),
                                          .name = "channels_last",
                                          .type = LAMINA_ATTR_BOOL,
                                          .def = "false",
                                          .doc = "keep the order in memory (positions, channels) instead of PyTorch's"};
static const lamina_attr *const attrs[] = {&channels_last, NULL};
static const lamina_port port_x = {
    .size = sizeof(lamina_port), .name = "x", .kind = LAMINA_PORT_INPUT, .doc = "(N, ..., C)"};
static const lamina_port port_y = {
    .size = sizeof(lamina_port), .name = "y", .kind = LAMINA_PORT_OUTPUT, .doc = "(N, all the rest)"};
static const lamina_port *const ports[] = {&port_x, &port_y, NULL};
static const lamina_kernel kernel = {
    .size = sizeof(lamina_kernel), .name = "transpose", .plan = plan, .forward = forward, .backward = backward};
static const lamina_kernel *const kernels[] = {&kernel, NULL};

const lamina_layer lamina_layer_flatten = {.size = sizeof(lamina_layer),
                                           .name = "flatten",
                                           .version = 1,
                                           .doc = "all dimensions but the first as one, in PyTorch's order (C, H, W)",
                                           .attrs = attrs,
                                           .ports = ports,
                                           .kernels = kernels,
                                           .infer = infer,
                                           .is_view = keeps_order};
