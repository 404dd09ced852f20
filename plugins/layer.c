/* SPDX-License-Identifier: Apache-2.0 */
#include "layer.h"

#include <stdio.h>
#include <string.h>

/* More elements than this are refused, so that counts, byte sizes and sums of a few of them never overflow. */
#define MAX_ELEMENTS (INT64_MAX / 1024)

layer_matrix layer_rows(const lamina_tensor *tensor) {
  layer_matrix m = {.data = tensor->data, .rows = 1, .channels = 1, .ld = 1};
  if (tensor->rank > 0) {
    m.channels = tensor->dim[tensor->rank - 1];
    m.ld = m.channels;
  }
  if (tensor->rank > 1) m.ld = tensor->stride[tensor->rank - 2];
  for (int i = 0; i + 1 < tensor->rank; i++) m.rows *= tensor->dim[i];
  return m;
}

int64_t layer_count(const lamina_tensor *tensor) {
  int64_t count = 1;
  for (int i = 0; i < tensor->rank; i++) count *= tensor->dim[i];
  return count;
}

const char *layer_shape_text(const lamina_tensor *tensor, char text[LAYER_SHAPE_TEXT]) {
  size_t used = 0;
  snprintf(text, LAYER_SHAPE_TEXT, "scalar");
  for (int i = 0; i < tensor->rank && used < LAYER_SHAPE_TEXT; i++) {
    int n = snprintf(text + used, LAYER_SHAPE_TEXT - used, "%s%lld", i ? "x" : "", (long long)tensor->dim[i]);
    used += n > 0 ? (size_t)n : 0;
  }
  return text;
}

void layer_copy_shape(lamina_tensor *to, const lamina_tensor *from) {
  to->rank = from->rank;
  memcpy(to->dim, from->dim, sizeof to->dim);
}

void layer_set_shape_1d(lamina_tensor *to, int64_t dim) {
  to->rank = 1;
  to->dim[0] = dim;
}

lamina_status layer_check_input(const lamina_node *node, int index, int min_rank, int max_rank, const char *expected) {
  const lamina_tensor *x = &node->inputs[index];
  char text[LAYER_SHAPE_TEXT];
  layer_shape_text(x, text);
  if (x->rank < min_rank || x->rank > max_rank) {
    return node->host->fail(node->host, LAMINA_SHAPE_MISMATCH, "input %d has shape %s; expected %s", index, text,
                            expected);
  }
  int64_t count = 1;
  for (int i = 0; i < x->rank; i++) {
    if (x->dim[i] < 1) {
      return node->host->fail(node->host, LAMINA_SHAPE_MISMATCH, "input %d has shape %s: every size must be at least 1",
                              index, text);
    }
    if (__builtin_mul_overflow(count, x->dim[i], &count) || count > MAX_ELEMENTS) {
      return node->host->fail(node->host, LAMINA_SHAPE_MISMATCH, "input %d has shape %s: too many elements", index,
                              text);
    }
  }
  return LAMINA_OK;
}

lamina_status layer_check_same(const lamina_node *node, int index) {
  const lamina_tensor *a = &node->inputs[0], *b = &node->inputs[index];
  int same = a->rank == b->rank;
  for (int i = 0; same && i < a->rank; i++) same = a->dim[i] == b->dim[i];
  if (same) return LAMINA_OK;
  char text_a[LAYER_SHAPE_TEXT], text_b[LAYER_SHAPE_TEXT];
  return node->host->fail(node->host, LAMINA_SHAPE_MISMATCH,
                          "input %d has shape %s, but input 0 has %s: they must be equal", index,
                          layer_shape_text(b, text_b), layer_shape_text(a, text_a));
}

const lamina_kernels *layer_kernels(const lamina_node *node, lamina_status *status) {
  const lamina_kernels *kernels = node->host->ext(node->host, LAMINA_KERNELS_EXT);
  *status = LAMINA_OK;
  if (!kernels)
    *status = node->host->fail(node->host, LAMINA_UNSUPPORTED, "the host has no \"%s\"", LAMINA_KERNELS_EXT);
  return kernels;
}

void layer_parallel(const lamina_host *host, int64_t tasks, int64_t floats,
                    void (*task)(void *arg, int64_t index, int thread), void *arg) {
  if (tasks > 1 && floats > 2 * LAYER_TASK_FLOATS) {
    host->parallel(host, tasks, task, arg);
    return;
  }
  for (int64_t i = 0; i < tasks; i++) task(arg, i, 0);
}

static void pass_task(void *arg, int64_t index, int thread) {
  (void)thread;
  const layer_pass *pass = arg;
  const layer_matrix *m = pass->operand;
  float *at[LAYER_PASS_OPERANDS] = {0};
  if (m->rows == 1) {
    int64_t first = index * pass->step;
    for (int k = 0; k < pass->operands; k++) at[k] = m[k].data + first;
    pass->body(pass, layer_min(pass->step, m->channels - first), at, first);
    return;
  }
  int64_t end = layer_min((index + 1) * pass->step, m->rows);
  for (int64_t r = index * pass->step; r < end; r++) {
    for (int k = 0; k < pass->operands; k++) at[k] = m[k].data + r * m[k].ld;
    pass->body(pass, m->channels, at, r * m->channels);
  }
}

void layer_pass_run(layer_pass *pass) {
  layer_matrix *m = pass->operand;
  int64_t count = m->rows * m->channels;
  int dense = 1;
  for (int k = 0; k < pass->operands; k++) dense &= m[k].ld == m[k].channels || m[k].rows == 1;
  for (int k = 0; dense && k < pass->operands; k++) {
    m[k].rows = 1;
    m[k].channels = m[k].ld = count;
  }
  int64_t tasks;
  if (m->rows == 1) {
    pass->step = LAYER_TASK_FLOATS;
    tasks = layer_ceil_div(m->channels, pass->step);
  } else {
    pass->step = layer_max(1, LAYER_TASK_FLOATS / m->channels);
    tasks = layer_ceil_div(m->rows, pass->step);
  }
  layer_parallel(pass->host, tasks, count * pass->operands, pass_task, pass);
}

int64_t layer_pass_tasks(int64_t rows, int64_t channels) {
  int64_t flat = layer_ceil_div(rows * channels, LAYER_TASK_FLOATS);
  return layer_max(flat, layer_ceil_div(rows, layer_max(1, LAYER_TASK_FLOATS / channels)));
}

int64_t layer_pass_task(const layer_pass *pass, int64_t first) {
  const layer_matrix *m = pass->operand;
  return m->rows == 1 ? first / pass->step : first / (pass->step * m->channels);
}

void layer_copy_body(const layer_pass *pass, int64_t n, float *const *at, int64_t first) {
  (void)first;
  if (pass->accumulate) {
    pass->kernels->eltwise->add_scaled(n, 1.0f, at[0], at[1]);
  } else if (at[0] != at[1]) {
    memcpy(at[1], at[0], (size_t)n * sizeof(float));
  }
}

void layer_activate(const lamina_epilogue *epilogue, int64_t rows, int64_t n, float *y, int64_t ld) {
  if (!(epilogue->parts & LAMINA_EPILOGUE_ACTIVATION)) return;
  if (ld == n) {
    n *= rows;
    rows = 1;
  }
  for (int64_t r = 0; r < rows; r++, y += ld) epilogue->activation(n, epilogue->parameters, y, y);
}

void layer_pass_cost(const lamina_node *node, lamina_cost *cost, double flops, double tensors, const char *algorithm) {
  double n = (double)layer_count(&node->outputs[0]);
  cost->flops = cost->backward_flops = n * flops;
  cost->bytes = n * tensors * sizeof(float);
  cost->backward_bytes = n * (tensors + 1) * sizeof(float);
  cost->algorithm = algorithm;
}
