/* SPDX-License-Identifier: Apache-2.0 */
/* softmax_cross_entropy: the mean over all samples of -sum_k q[k] * log(softmax(x)[k]), where q is 1 at the label,
   mixed with a uniform distribution by label_smoothing (Szegedy et al. 2016); PyTorch's CrossEntropyLoss. Saves the
   softmax for the backward pass: dx = (softmax - q) * dloss / samples. */
#include "builtin.h"
#include "layer.h"

#include <math.h>
#include <string.h>

enum { ATTR_LABEL_SMOOTHING };

typedef struct walk {
  const lamina_kernels *kernels;
  layer_matrix x; /* logits, or their gradient in the backward pass */
  const int32_t *labels;
  float *softmax; /* saved: samples x classes, dense */
  double *losses; /* forward: one sum for each task */
  double smoothing;
  float scale; /* backward: dloss / samples */
  int64_t rows_per_task;
  int accumulate;
} walk;

static int64_t rows_per_task(int64_t classes) { return layer_max(1, LAYER_TASK_FLOATS / 4 / classes); }

/* -log of the label's probability. The small difference of two large logits is better taken from the softmax itself,
   unless that has run out of range. */
static double negative_log(float probability, float log_sum, float logit) {
  return probability > 1e-30f ? -log((double)probability) : (double)log_sum - (double)logit;
}

static void forward_task(void *arg, int64_t index, int thread) {
  (void)thread;
  const walk *w = arg;
  int64_t classes = w->x.channels, end = layer_min((index + 1) * w->rows_per_task, w->x.rows);
  double total = 0;
  for (int64_t r = index * w->rows_per_task; r < end; r++) {
    const float *x = w->x.data + r * w->x.ld;
    float *y = w->softmax + r * classes;
    float log_sum = w->kernels->softmax->forward(classes, x, y);
    double loss = negative_log(y[w->labels[r]], log_sum, x[w->labels[r]]);
    if (w->smoothing > 0) {
      double sum = 0;
      for (int64_t k = 0; k < classes; k++) sum += (double)log_sum - (double)x[k];
      loss = (1 - w->smoothing) * loss + w->smoothing * sum / (double)classes;
    }
    total += loss;
  }
  w->losses[index] = total;
}

static void backward_task(void *arg, int64_t index, int thread) {
  (void)thread;
  const walk *w = arg;
  int64_t classes = w->x.channels, end = layer_min((index + 1) * w->rows_per_task, w->x.rows);
  float uniform = (float)(w->smoothing / (double)classes), hit = (float)(1 - w->smoothing);
  for (int64_t r = index * w->rows_per_task; r < end; r++) {
    const float *y = w->softmax + r * classes;
    float *dx = w->x.data + r * w->x.ld;
    int64_t label = w->labels[r];
    float kept = w->accumulate ? dx[label] : 0.0f;
    for (int64_t k = 0; k < classes; k++) {
      float g = (y[k] - uniform) * w->scale;
      dx[k] = w->accumulate ? dx[k] + g : g;
    }
    dx[label] = kept + (y[label] - hit - uniform) * w->scale;
  }
}

static lamina_status check_labels(const lamina_node *node, int64_t samples, int64_t classes) {
  const int32_t *labels = node->inputs[1].data;
  for (int64_t i = 0; i < samples; i++) {
    if (labels[i] < 0 || labels[i] >= classes) {
      return node->host->fail(node->host, LAMINA_INVALID_ARGUMENT,
                              "sample %lld has label %ld; labels must be 0 to %lld", (long long)i, (long)labels[i],
                              (long long)classes - 1);
    }
  }
  return LAMINA_OK;
}

static void prepare(const lamina_node *node, walk *w) {
  w->labels = node->inputs[1].data;
  w->softmax = node->saved;
  w->smoothing = node->attrs[ATTR_LABEL_SMOOTHING].f;
  w->rows_per_task = rows_per_task(w->x.channels);
}

static lamina_status forward(const lamina_node *node) {
  lamina_status status;
  walk w = {.kernels = layer_kernels(node, &status), .x = layer_rows(&node->inputs[0]), .losses = node->workspace};
  if (status == LAMINA_OK) status = check_labels(node, w.x.rows, w.x.channels);
  if (status != LAMINA_OK) return status;
  prepare(node, &w);
  if (!w.softmax) { /* inference keeps nothing: the softmax follows the sums in the workspace */
    w.softmax = (float *)(w.losses + layer_ceil_div(w.x.rows, w.rows_per_task));
  }
  int64_t tasks = layer_ceil_div(w.x.rows, w.rows_per_task);
  layer_parallel(node->host, tasks, w.x.rows * w.x.channels * 4, forward_task, &w);
  double total = 0;
  for (int64_t i = 0; i < tasks; i++) total += w.losses[i];
  *(float *)node->outputs[0].data = (float)(total / (double)w.x.rows);
  return LAMINA_OK;
}

static lamina_status backward(const lamina_node *node) {
  if (!layer_needs_input(node, 0)) return LAMINA_OK;
  walk w = {.x = layer_rows(&node->d_inputs[0]), .accumulate = layer_accumulates(node, 0)};
  prepare(node, &w);
  w.scale = (float)(*(const float *)node->d_outputs[0].data / (double)w.x.rows);
  int64_t tasks = layer_ceil_div(w.x.rows, w.rows_per_task);
  layer_parallel(node->host, tasks, w.x.rows * w.x.channels * 2, backward_task, &w);
  return LAMINA_OK;
}

static lamina_status infer(lamina_node *node) {
  lamina_status status = layer_check_input(node, 0, 2, LAMINA_MAX_RANK, "logits of (N, classes)");
  if (status == LAMINA_OK) status = layer_check_input(node, 1, 1, LAMINA_MAX_RANK, "labels of (N)");
  if (status != LAMINA_OK) return status;
  const lamina_tensor *logits = &node->inputs[0], *labels = &node->inputs[1];
  char text_logits[LAYER_SHAPE_TEXT], text_labels[LAYER_SHAPE_TEXT];
  layer_shape_text(logits, text_logits);
  layer_shape_text(labels, text_labels);
  int fits = labels->rank == logits->rank - 1;
  for (int i = 0; fits && i < labels->rank; i++) fits = labels->dim[i] == logits->dim[i];
  if (!fits) {
    return node->host->fail(node->host, LAMINA_SHAPE_MISMATCH,
                            "labels have shape %s and logits %s: there must be one label for each row of logits",
                            text_labels, text_logits);
  }
  if (labels->dtype != LAMINA_I32) {
    return node->host->fail(node->host, LAMINA_INVALID_ARGUMENT, "labels must be of dtype i32");
  }
  node->outputs[0].rank = 0;
  return LAMINA_OK;
}

static lamina_status plan(const lamina_node *node, lamina_cost *cost) {
  size_t rows = (size_t)layer_count(&node->inputs[1]), n = (size_t)layer_count(&node->inputs[0]);
  int64_t classes = (int64_t)(n / rows);
  size_t tasks = (size_t)layer_ceil_div((int64_t)rows, rows_per_task(classes));
  cost->workspace = tasks * sizeof(double);
  if (node->mode == LAMINA_TRAIN) {
    cost->saved = n * sizeof(float);
  } else {
    cost->workspace += n * sizeof(float);
  }
  cost->flops = 4.0 * (double)n;
  cost->backward_flops = 2.0 * (double)n;
  cost->bytes = cost->backward_bytes = 2.0 * (double)n * sizeof(float);
  cost->algorithm = "by row";
  return LAMINA_OK;
}

static const lamina_attr label_smoothing = {.size = sizeof(lamina_attr),
                                            .name = "label_smoothing",
                                            .type = LAMINA_ATTR_FLOAT,
                                            .def = "0",
                                            .min = 0,
                                            .max = 1,
                                            .doc = "share of the target that is spread over all classes"};
static const lamina_attr *const attrs[] = {&label_smoothing, NULL};
static const lamina_port port_logits = {
    .size = sizeof(lamina_port), .name = "logits", .kind = LAMINA_PORT_INPUT, .doc = "(N, classes)"};
static const lamina_port port_labels = {.size = sizeof(lamina_port),
                                        .name = "labels",
                                        .kind = LAMINA_PORT_INPUT,
                                        .flags = LAMINA_PORT_BACKWARD_READS | LAMINA_PORT_NO_GRADIENT,
                                        .dtype = LAMINA_I32,
                                        .doc = "(N), from 0 to classes - 1"};
static const lamina_port port_loss = {.size = sizeof(lamina_port),
                                      .name = "loss",
                                      .kind = LAMINA_PORT_OUTPUT,
                                      .doc = "a scalar: the mean over the samples"};
static const lamina_port *const ports[] = {&port_logits, &port_labels, &port_loss, NULL};
static const lamina_kernel kernel = {
    .size = sizeof(lamina_kernel), .name = "softmax", .plan = plan, .forward = forward, .backward = backward};
static const lamina_kernel *const kernels[] = {&kernel, NULL};

const lamina_layer lamina_layer_softmax_cross_entropy = {.size = sizeof(lamina_layer),
                                                         .name = "softmax_cross_entropy",
                                                         .version = 1,
                                                         .doc =
                                                             "mean cross-entropy of softmax(logits) and class labels",
                                                         .flags = LAMINA_LAYER_LOSS | LAMINA_LAYER_ACCUMULATES,
                                                         .attrs = attrs,
                                                         .ports = ports,
                                                         .kernels = kernels,
                                                         .infer = infer};
