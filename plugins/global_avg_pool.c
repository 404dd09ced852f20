/* SPDX-License-Identifier: Apache-2.0 */
/* global_avg_pool: (N, ..., C) -> (N, C), the mean over all positions. A small map is one pooling window, which adds up
   its lines and then their sums. Sums of others are fp32 in blocks of rows and double across blocks, in a fixed order. */
#include "builtin.h"
#include "layer.h"

#include <string.h>

enum { BLOCK_ROWS = 256, BLOCK_CHANNELS = 256, WINDOW_TAPS = 64 /* along a line, and lines */ };

typedef struct walk {
  const lamina_kernels *kernels;
  layer_matrix map, pooled; /* x and y, or dx and dy */
  int64_t positions;        /* rows of the map for each image */
  int64_t line;             /* positions along the last axis but the channels */
  int64_t parts;            /* channel blocks (forward) or row blocks (backward) of an image */
  int accumulate;
} walk;

static void forward_task(void *arg, int64_t index, int thread) {
  (void)thread;
  const walk *w = arg;
  int64_t image = index / w->parts, c = index % w->parts * BLOCK_CHANNELS;
  int64_t channels = layer_min(BLOCK_CHANNELS, w->map.channels - c);
  const float *x = w->map.data + image * w->positions * w->map.ld + c;
  float *y = w->pooled.data + image * w->pooled.ld + c;
  float block[BLOCK_CHANNELS];
  double sum[BLOCK_CHANNELS] = {0};
  for (int64_t row = 0; row < w->positions; row += BLOCK_ROWS) {
    int64_t rows = layer_min(BLOCK_ROWS, w->positions - row);
    w->kernels->norm->column_sum(rows, channels, x + row * w->map.ld, w->map.ld, block);
    for (int64_t i = 0; i < channels; i++) sum[i] += block[i];
  }
  double scale = 1.0 / (double)w->positions;
  for (int64_t i = 0; i < channels; i++) y[i] = (float)(sum[i] * scale);
}

static void window_task(void *arg, int64_t index, int thread) {
  (void)thread;
  const walk *w = arg;
  int64_t image = index / w->parts, c = index % w->parts * BLOCK_CHANNELS;
  lamina_pool_row window = {.windows = 1, .rows = w->line, .columns = w->positions / w->line};
  window.channels = layer_min(BLOCK_CHANNELS, w->map.channels - c);
  window.x = w->map.data + image * w->positions * w->map.ld + c;
  window.x_at.row = w->map.ld;
  window.x_at.column = w->line * w->map.ld;
  window.y = w->pooled.data + image * w->pooled.ld + c;
  window.y_ld = w->pooled.ld;
  window.scale = (float)(1.0 / (double)w->positions);
  w->kernels->pool->average(&window);
}

static void backward_task(void *arg, int64_t index, int thread) {
  (void)thread;
  const walk *w = arg;
  int64_t image = index / w->parts, row = index % w->parts * BLOCK_ROWS;
  int64_t rows = layer_min(BLOCK_ROWS, w->positions - row);
  const float *dy = w->pooled.data + image * w->pooled.ld;
  float *dx = w->map.data + (image * w->positions + row) * w->map.ld;
  float scale = (float)(1.0 / (double)w->positions), gradient[BLOCK_CHANNELS];
  for (int64_t c = 0; c < w->map.channels; c += BLOCK_CHANNELS) {
    int64_t channels = layer_min(BLOCK_CHANNELS, w->map.channels - c);
    for (int64_t i = 0; i < channels; i++) gradient[i] = dy[c + i] * scale;
    for (int64_t r = 0; r < rows; r++) {
      float *to = dx + r * w->map.ld + c;
      if (w->accumulate) {
        w->kernels->eltwise->add_scaled(channels, 1.0f, gradient, to);
      } else {
        memcpy(to, gradient, (size_t)channels * sizeof(float));
      }
    }
  }
}

static lamina_status forward(const lamina_node *node) {
  lamina_status status;
  walk w = {.kernels = layer_kernels(node, &status)};
  if (status != LAMINA_OK) return status;
  w.map = layer_rows(&node->inputs[0]);
  w.pooled = layer_rows(&node->outputs[0]);
  w.positions = w.map.rows / w.pooled.rows;
  w.line = node->inputs[0].dim[node->inputs[0].rank - 2];
  w.parts = layer_ceil_div(w.map.channels, BLOCK_CHANNELS);
  int small = w.line <= WINDOW_TAPS && w.positions / w.line <= WINDOW_TAPS;
  layer_parallel(node->host, w.pooled.rows * w.parts, w.map.rows * w.map.channels, small ? window_task : forward_task, &w);
  return LAMINA_OK;
}

static lamina_status backward(const lamina_node *node) {
  if (!layer_needs_input(node, 0)) return LAMINA_OK;
  lamina_status status;
  walk w = {.kernels = layer_kernels(node, &status)};
  if (status != LAMINA_OK) return status;
  w.map = layer_rows(&node->d_inputs[0]);
  w.pooled = layer_rows(&node->d_outputs[0]);
  w.positions = w.map.rows / w.pooled.rows;
  w.parts = layer_ceil_div(w.positions, BLOCK_ROWS);
  w.accumulate = layer_accumulates(node, 0);
  layer_parallel(node->host, w.pooled.rows * w.parts, w.map.rows * w.map.channels, backward_task, &w);
  return LAMINA_OK;
}

static lamina_status infer(lamina_node *node) {
  lamina_status status = layer_check_input(node, 0, 3, LAMINA_MAX_RANK, "(N, H, W, C)");
  if (status != LAMINA_OK) return status;
  const lamina_tensor *x = &node->inputs[0];
  node->outputs[0].rank = 2;
  node->outputs[0].dim[0] = x->dim[0];
  node->outputs[0].dim[1] = x->dim[x->rank - 1];
  return LAMINA_OK;
}

static lamina_status plan(const lamina_node *node, lamina_cost *cost) {
  double in = (double)layer_count(&node->inputs[0]), out = (double)layer_count(&node->outputs[0]);
  cost->flops = cost->backward_flops = in;
  cost->bytes = cost->backward_bytes = (in + out) * sizeof(float);
  cost->algorithm = "sums of rows";
  return LAMINA_OK;
}

static const lamina_port port_x = {.size = sizeof(lamina_port),
                                   .name = "x",
                                   .kind = LAMINA_PORT_INPUT,
                                   .doc = "(N, H, W, C), or any positions between"};
static const lamina_port port_y = {
    .size = sizeof(lamina_port), .name = "y", .kind = LAMINA_PORT_OUTPUT, .doc = "(N, C)"};
static const lamina_port *const ports[] = {&port_x, &port_y, NULL};
static const lamina_attr *const attrs[] = {NULL};
static const lamina_kernel kernel = {
    .size = sizeof(lamina_kernel), .name = "norm", .plan = plan, .forward = forward, .backward = backward};
static const lamina_kernel *const kernels[] = {&kernel, NULL};

const lamina_layer lamina_layer_global_avg_pool = {.size = sizeof(lamina_layer),
                                                   .name = "global_avg_pool",
                                                   .version = 1,
                                                   .doc = "mean over all positions of an image",
                                                   .flags = LAMINA_LAYER_ACCUMULATES,
                                                   .attrs = attrs,
                                                   .ports = ports,
                                                   .kernels = kernels,
                                                   .infer = infer};
