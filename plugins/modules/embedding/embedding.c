/* SPDX-License-Identifier: Apache-2.0 */
/*
 * embedding: y(..., d) = weight(x(...), d), a row of a table for each index. torch.nn.Embedding.
 *
 * Shapes: x (N) or (N, L), i32, 0 <= x < num_embeddings; weight (num_embeddings, embedding_dim), from a normal
 * distribution; y (N, embedding_dim) or (N, L, embedding_dim). The row padding_idx gets no gradient.
 * Backward: dweight(x) += dy, in the order of the indices; a task has some columns of the whole table, so that no two tasks
 * add to one number. Cost: one copy.
 */
#include "../module.h"

enum { COUNT, WIDTH, PADDING };
enum { TASK_ROWS = 64, TASK_COLUMNS = 64 };

typedef struct lookup {
  const int32_t *index;
  int64_t rows, width, table_rows, padding;
  const float *from;
  float *to;
  int64_t ld; /* of y or dy */
  int add;
} lookup;

static lookup describe(const lamina_node *node, const lamina_tensor *y) {
  const module_matrix m = module_rows(y);
  return (lookup){.index = node->inputs[0].data,
                  .rows = m.rows,
                  .width = m.channels,
                  .table_rows = node->attrs[COUNT].i,
                  .padding = node->attrs[PADDING].i,
                  .ld = m.ld};
}

static void forward_task(void *arg, int64_t task, int thread) {
  const lookup *l = arg;
  const int64_t end = module_min((task + 1) * TASK_ROWS, l->rows);
  (void)thread;
  for (int64_t r = task * TASK_ROWS; r < end; r++)
    memcpy(l->to + r * l->ld, l->from + l->index[r] * l->width, (size_t)l->width * sizeof(float));
}

static void backward_task(void *arg, int64_t task, int thread) {
  const lookup *l = arg;
  const int64_t c0 = task * TASK_COLUMNS, n = module_min(TASK_COLUMNS, l->width - c0);
  (void)thread;
  for (int64_t r = 0; !l->add && r < l->table_rows; r++) memset(l->to + r * l->width + c0, 0, (size_t)n * sizeof(float));
  for (int64_t r = 0; r < l->rows; r++) {
    if (l->index[r] == l->padding) continue;
    const float *dy = l->from + r * l->ld + c0;
    float *dw = l->to + l->index[r] * l->width + c0;
    for (int64_t c = 0; c < n; c++) dw[c] += dy[c];
  }
}

static lamina_status forward(const lamina_node *node) {
  lookup l = describe(node, &node->outputs[0]);
  for (int64_t r = 0; r < l.rows; r++)
    if (l.index[r] < 0 || l.index[r] >= l.table_rows)
      return node->host->fail(node->host, LAMINA_INVALID_ARGUMENT, "index %d at place %lld is not below num_embeddings = %lld",
                              (int)l.index[r], (long long)r, (long long)l.table_rows);
  l.from = node->params[0].data;
  l.to = node->outputs[0].data;
  node->host->parallel(node->host, module_ceil_div(l.rows, TASK_ROWS), forward_task, &l);
  return LAMINA_OK;
}

static lamina_status backward(const lamina_node *node) {
  if (!module_needs_param(node, 0)) return LAMINA_OK;
  lookup l = describe(node, &node->d_outputs[0]);
  l.from = node->d_outputs[0].data;
  l.to = node->d_params[0].data;
  l.add = module_adds_param(node, 0);
  node->host->parallel(node->host, module_ceil_div(l.width, TASK_COLUMNS), backward_task, &l);
  return LAMINA_OK;
}

static lamina_status plan(const lamina_node *node, lamina_cost *cost) {
  const lookup l = describe(node, &node->outputs[0]);
  cost->bytes = 8 * (double)l.rows * (double)l.width;
  cost->backward_flops = (double)l.rows * (double)l.width;
  cost->backward_bytes = 12 * cost->backward_flops + 4 * (double)l.table_rows * (double)l.width;
  cost->algorithm = "copy";
  return LAMINA_OK;
}

static lamina_status infer(lamina_node *node) {
  lamina_status status = module_check_rank(node, 0, 1, LAMINA_MAX_RANK - 1, "(N, ...) of indices");
  if (status) return status;
  if (node->attrs[PADDING].i >= node->attrs[COUNT].i)
    return node->host->fail(node->host, LAMINA_INVALID_ARGUMENT, "padding_idx = %lld is not below num_embeddings = %lld",
                            (long long)node->attrs[PADDING].i, (long long)node->attrs[COUNT].i);
  lamina_tensor *y = &node->outputs[0];
  module_copy_shape(y, &node->inputs[0]);
  y->dim[y->rank++] = node->attrs[WIDTH].i;
  module_shape(&node->params[0], 2, node->attrs[COUNT].i, node->attrs[WIDTH].i);
  return LAMINA_OK;
}

MODULE_ATTR(num_embeddings, "num_embeddings", LAMINA_ATTR_INT, NULL, 1, 1 << 30, "rows of the table");
MODULE_ATTR(embedding_dim, "embedding_dim", LAMINA_ATTR_INT, NULL, 1, 1 << 30, "columns of the table");
MODULE_ATTR(padding_idx, "padding_idx", LAMINA_ATTR_INT, "-1", -1, 1 << 30, "a row that gets no gradient; -1: none");
static const lamina_port x_port = {.size = sizeof(lamina_port),
                                   .name = "x",
                                   .kind = LAMINA_PORT_INPUT,
                                   .flags = LAMINA_PORT_NO_GRADIENT | LAMINA_PORT_BACKWARD_READS,
                                   .dtype = LAMINA_I32,
                                   .doc = "(N, ...), indices"};
MODULE_OUTPUT(y_port, "y", 0, "(N, ..., embedding_dim)");
MODULE_PARAMETER(weight_port, "weight", LAMINA_PORT_NO_DECAY, "normal:1", "(num_embeddings, embedding_dim)");
MODULE_KERNEL(kernel, plan, forward, backward);

static const lamina_layer embedding = {.size = sizeof(lamina_layer),
                                       .name = "embedding",
                                       .version = 1,
                                       .doc = "a learned row for each index",
                                       .flags = LAMINA_LAYER_STOPS_GRADIENT, /* to the row padding_idx */
                                       .attrs = MODULE_ATTRS(&num_embeddings, &embedding_dim, &padding_idx),
                                       .ports = MODULE_PORTS(&x_port, &y_port, &weight_port),
                                       .kernels = MODULE_KERNELS(&kernel),
                                       .infer = infer};

LAMINA_PLUGIN("lamina.embedding", "1.0", "embedding", &embedding);
