/* SPDX-License-Identifier: Apache-2.0 */
/* What the built-in layers share: views of tensors as rows of channels, shape checks, and one way to split work. */
#ifndef LAMINA_LAYER_H
#define LAMINA_LAYER_H

#include "kernels.h"
#include "lamina/plugin.h"

#include <stdint.h>

/* Floats that one task works on: 64 KiB, a piece that stays in a core's caches. A constant, so that the split follows
   from the shape alone and results do not depend on the number of threads. */
#define LAYER_TASK_FLOATS 16384

/* A tensor as a matrix: all leading dimensions are rows, the last one is the channels; rows may be padded. */
typedef struct layer_matrix {
  float *data;
  int64_t rows, channels, ld;
} layer_matrix;

layer_matrix layer_rows(const lamina_tensor *tensor);
int64_t layer_count(const lamina_tensor *tensor);
/* "64x3x28x28"; "scalar" for rank 0. */
#define LAYER_SHAPE_TEXT 192
const char *layer_shape_text(const lamina_tensor *tensor, char text[LAYER_SHAPE_TEXT]);
void layer_copy_shape(lamina_tensor *to, const lamina_tensor *from);
void layer_set_shape_1d(lamina_tensor *to, int64_t dim);

/* Refuses ranks outside min_rank .. max_rank, sizes below 1, and more elements than memory can hold. `expected` is the
   form the layer wants: "(N, H, W, C)". */
lamina_status layer_check_input(const lamina_node *node, int index, int min_rank, int max_rank, const char *expected);
/* Refuses an input whose shape is not that of input 0. */
lamina_status layer_check_same(const lamina_node *node, int index);

/* The composed table of kernels, or NULL with a message when the host has none. */
const lamina_kernels *layer_kernels(const lamina_node *node, lamina_status *status);

/* Runs the tasks through the host's threads, or right here when `floats`, all that they touch together, is so little
   that waking threads would cost more. */
void layer_parallel(const lamina_host *host, int64_t tasks, int64_t floats,
                    void (*task)(void *arg, int64_t index, int thread), void *arg);

static inline int64_t layer_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t layer_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t layer_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int layer_needs_input(const lamina_node *node, int index) { return (node->need_inputs >> index) & 1; }
static inline int layer_accumulates(const lamina_node *node, int index) {
  return (node->accumulate_inputs >> index) & 1;
}

/* Whether a result of so many bytes is written past the caches, which it would only pass through, driving out what is
   read. Small ones are not, also where a machine does not tell how large its L3 is. */
static inline int layer_streams(const lamina_host *host, double bytes) {
  return bytes > (double)layer_max((int64_t)host->cpu->l3 / 4, 4 << 20);
}

/* An elementwise pass over up to three matrices of one shape. `body` is called with n neighbouring elements of each
   and the number of the first, counted without padding. */
#define LAYER_PASS_OPERANDS 3
typedef struct layer_pass {
  const lamina_host *host;
  const lamina_kernels *kernels;
  int operands;
  layer_matrix operand[LAYER_PASS_OPERANDS];
  void (*body)(const struct layer_pass *pass, int64_t n, float *const *at, int64_t first);
  int accumulate;       /* for the body: add to the last operand */
  const void *argument; /* for the body */
  int64_t step;         /* set by layer_pass_run: elements of a row, or rows, of one task */
} layer_pass;

void layer_pass_run(layer_pass *pass);
/* The most tasks that a pass over so many rows of channels is cut into, and for a body the task that it works for. */
int64_t layer_pass_tasks(int64_t rows, int64_t channels);
int64_t layer_pass_task(const layer_pass *pass, int64_t first);

/* A pass that copies operand 0 to operand 1, or adds it there. */
void layer_copy_body(const layer_pass *pass, int64_t n, float *const *at, int64_t first);

/* Applies an epilogue's activation, if it has one, to rows x n floats at row stride `ld`. */
void layer_activate(const lamina_epilogue *epilogue, int64_t rows, int64_t n, float *y, int64_t ld);

/* Fills in the cost of an elementwise node: `flops` and `tensors` (read or written) for each element. */
void layer_pass_cost(const lamina_node *node, lamina_cost *cost, double flops, double tensors, const char *algorithm);

#endif
