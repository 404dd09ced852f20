/* SPDX-License-Identifier: Apache-2.0 */
/*
 * batch_renorm: batch normalisation whose training output follows the running statistics, for small or dependent batches.
 * Source: Ioffe 2017, "Batch Renormalization", algorithm 1. x (N, C), (N, L, C) or (N, H, W, C).
 *
 *   training    r = clip(s_B / s, 1 / r_max, r_max), d = clip((m_B - m) / s, -d_max, d_max)   held constant in backward
 *               y = ((x - m_B) / s_B * r + d) * weight + bias
 *               m += momentum * (m_B - m), s += momentum * (s_B - s)
 *   inference, or frozen states   y = (x - m) / s * weight + bias
 *
 * with m_B the mean, s_B = sqrt(var + eps) the deviation of the batch (var biased), m = running_mean, s = running_std. With
 * r_max = 1 and d_max = 0 it is batch normalisation. Parameters: weight (C), bias (C); states: running_mean (C),
 * running_std (C). Backward: with n = (x - m_B) / s_B and g = dy * weight * r, dx = (g - mean(g) - n * mean(g * n)) / s_B.
 * Cost: two passes over x for the statistics, one to apply.
 */
#include "norms.h"

enum { EPS, MOMENTUM, R_MAX, D_MAX };
enum { WEIGHT, BIAS, RUNNING_MEAN, RUNNING_STD };
enum { TASK_ROWS = 256 };
/* Rows of what is kept from forward to backward, C floats each: batch mean, 1 / deviation, r, d. */
enum { MEAN, SCALE, R, D, KEPT };
/* Rows of coefficients, C floats each; forward: y = (x - [0]) * [1] + [2]; backward: dx = (dy - [0] - (x - mean) * [1]) * [2]. */
enum { COEFFICIENTS = 3 };

typedef struct renorm {
  module_matrix x, out, dy;
  const float *mean, *coefficients;
  int form, add; /* form of the column sums */
  double *partial;
} renorm;

/* A task's column sums: one of x, or in PRODUCTS form of (x - mean) * dy and of dy. */
MODULE_INLINE void sums_body(void *arg, int64_t index, int thread) {
  const renorm *r = arg;
  const int64_t n = r->x.channels, r0 = index * TASK_ROWS, rows = module_min(TASK_ROWS, r->x.rows - r0);
  const float *x = r->x.data + r0 * r->x.ld, *dy = r->dy.data ? r->dy.data + r0 * r->dy.ld : NULL;
  double *sums = r->partial + index * 2 * n;
  (void)thread;
  if (r->form == COLUMN_PLAIN) module_column_sums(COLUMN_PLAIN, rows, n, x, r->x.ld, NULL, 0, r->mean, sums);
  if (r->form == COLUMN_SQUARES) module_column_sums(COLUMN_SQUARES, rows, n, x, r->x.ld, NULL, 0, r->mean, sums);
  if (r->form != COLUMN_PRODUCTS) return;
  module_column_sums(COLUMN_PRODUCTS, rows, n, x, r->x.ld, dy, r->dy.ld, r->mean, sums);
  module_column_sums(COLUMN_PLAIN, rows, n, dy, r->dy.ld, NULL, 0, NULL, sums + n);
}
MODULE_TASK(sums)

MODULE_INLINE void apply_body(void *arg, int64_t index, int thread) {
  const renorm *r = arg;
  const int64_t n = r->x.channels, end = module_min((index + 1) * TASK_ROWS, r->x.rows);
  const float *a = r->coefficients, *b = a + n, *s = b + n;
  (void)thread;
  for (int64_t m = index * TASK_ROWS; m < end; m++) {
    const float *x = r->x.data + m * r->x.ld, *dy = r->dy.data ? r->dy.data + m * r->dy.ld : NULL;
    float *out = r->out.data + m * r->out.ld;
    for (int64_t c = 0; !dy && c < n; c++) out[c] = (x[c] - a[c]) * b[c] + s[c];
    for (int64_t c = 0; dy && c < n; c++) {
      const float d = (dy[c] - a[c] - (x[c] - r->mean[c]) * b[c]) * s[c];
      out[c] = r->add ? out[c] + d : d;
    }
  }
}
MODULE_TASK(apply)

static int64_t tasks_of(const module_matrix *x) { return module_ceil_div(x->rows, TASK_ROWS); }

/* Column sums over all rows: the tasks' sums are added in order into the first task's. */
static const double *column_sums(const lamina_node *node, renorm *r, int form) {
  const int64_t n = 2 * r->x.channels, tasks = tasks_of(&r->x);
  r->form = form;
  MODULE_RUN(node->host, tasks, sums, r);
  for (int64_t t = 1; t < tasks; t++)
    for (int64_t c = 0; c < (form == COLUMN_PRODUCTS ? n : n / 2); c++) r->partial[c] += r->partial[t * n + c];
  return r->partial;
}

static double clip(double x, double low, double high) { return x < low ? low : x > high ? high : x; }

/* Batch statistics into `kept`, and the running ones after them. */
static void train_statistics(const lamina_node *node, renorm *r, float *kept) {
  const int64_t n = r->x.channels;
  const double rows = (double)r->x.rows, momentum = node->attrs[MOMENTUM].f;
  float *m = node->params[RUNNING_MEAN].data, *s = node->params[RUNNING_STD].data;
  const double *sums = column_sums(node, r, COLUMN_PLAIN);
  for (int64_t c = 0; c < n; c++) kept[MEAN * n + c] = (float)(sums[c] / rows);
  r->mean = kept + MEAN * n;
  sums = column_sums(node, r, COLUMN_SQUARES);
  for (int64_t c = 0; c < n; c++) {
    const double mean = kept[MEAN * n + c], deviation = sqrt(sums[c] / rows + node->attrs[EPS].f);
    const double r_max = node->attrs[R_MAX].f, d_max = node->attrs[D_MAX].f;
    kept[SCALE * n + c] = (float)(1 / deviation);
    kept[R * n + c] = (float)clip(deviation / s[c], 1 / r_max, r_max);
    kept[D * n + c] = (float)clip((mean - m[c]) / s[c], -d_max, d_max);
    m[c] = (float)(m[c] + momentum * (mean - m[c]));
    s[c] = (float)(s[c] + momentum * (deviation - s[c]));
  }
}

/* Frozen: the running statistics stand for the batch's, and stay as they are. */
static void frozen_statistics(const lamina_node *node, int64_t n, float *kept) {
  const float *mean = node->params[RUNNING_MEAN].data, *deviation = node->params[RUNNING_STD].data;
  for (int64_t c = 0; c < n; c++) {
    kept[MEAN * n + c] = mean[c];
    kept[SCALE * n + c] = 1 / deviation[c];
    kept[R * n + c] = 1;
    kept[D * n + c] = 0;
  }
}

static float *coefficients_of(const lamina_node *node, const renorm *r) {
  return (float *)((double *)node->workspace + tasks_of(&r->x) * 2 * r->x.channels);
}

static lamina_status forward(const lamina_node *node) {
  renorm r = {.x = module_rows(&node->inputs[0]), .out = module_rows(&node->outputs[0]), .partial = node->workspace};
  const int64_t n = r.x.channels;
  if (!r.x.rows) return LAMINA_OK; /* no statistics: the running ones stay */
  const float *weight = node->params[WEIGHT].data, *bias = node->params[BIAS].data, *kept = node->saved;
  float *a = coefficients_of(node, &r);
  if (node->mode == LAMINA_TRAIN && node->frozen_states) frozen_statistics(node, n, node->saved);
  if (node->mode == LAMINA_TRAIN && !node->frozen_states) train_statistics(node, &r, node->saved);
  const float *mean = node->params[RUNNING_MEAN].data, *deviation = node->params[RUNNING_STD].data;
  for (int64_t c = 0; c < n; c++) {
    const int train = node->mode == LAMINA_TRAIN;
    a[c] = train ? kept[MEAN * n + c] : mean[c];
    a[n + c] = weight[c] * (train ? kept[SCALE * n + c] * kept[R * n + c] : 1 / deviation[c]);
    a[2 * n + c] = bias[c] + (train ? weight[c] * kept[D * n + c] : 0);
  }
  r.coefficients = a;
  MODULE_RUN(node->host, tasks_of(&r.x), apply, &r);
  return LAMINA_OK;
}

/* An empty batch: no task writes sums, and its parameters' gradients are 0. */
static lamina_status backward_empty(const lamina_node *node, int64_t n) {
  for (int i = WEIGHT; i <= BIAS; i++)
    if (module_needs_param(node, i) && !module_adds_param(node, i))
      memset(node->d_params[i].data, 0, (size_t)n * sizeof(float));
  return LAMINA_OK;
}

static lamina_status backward(const lamina_node *node) {
  renorm r = {.x = module_rows(&node->inputs[0]), .dy = module_rows(&node->d_outputs[0]), .partial = node->workspace};
  const int64_t n = r.x.channels;
  if (!r.x.rows) return backward_empty(node, n);
  const double rows = (double)r.x.rows;
  const float *weight = node->params[WEIGHT].data, *kept = node->saved;
  float *a = coefficients_of(node, &r);
  r.mean = kept + MEAN * n;
  const double *products = column_sums(node, &r, COLUMN_PRODUCTS), *sums = products + n;
  for (int64_t c = 0; c < n; c++) {
    const double scale = kept[SCALE * n + c], normalised = products[c] * scale;
    const float dw = (float)(normalised * kept[R * n + c] + sums[c] * kept[D * n + c]), db = (float)sums[c];
    float *to = module_needs_param(node, WEIGHT) ? node->d_params[WEIGHT].data : NULL;
    if (to) to[c] = module_adds_param(node, WEIGHT) ? to[c] + dw : dw;
    to = module_needs_param(node, BIAS) ? node->d_params[BIAS].data : NULL;
    if (to) to[c] = module_adds_param(node, BIAS) ? to[c] + db : db;
    a[c] = node->frozen_states ? 0 : (float)(sums[c] / rows); /* frozen statistics do not depend on x */
    a[n + c] = node->frozen_states ? 0 : (float)(normalised * scale / rows);
    a[2 * n + c] = (float)(weight[c] * kept[R * n + c] * scale);
  }
  if (!module_needs_input(node, 0)) return LAMINA_OK;
  r.coefficients = a;
  r.out = module_rows(&node->d_inputs[0]);
  r.add = module_adds_input(node, 0);
  MODULE_RUN(node->host, tasks_of(&r.x), apply, &r);
  return LAMINA_OK;
}

static lamina_status plan(const lamina_node *node, lamina_cost *cost) {
  const module_matrix x = module_rows(&node->inputs[0]);
  const double count = (double)x.rows * (double)x.channels;
  size_t coefficients;
  lamina_status status = module_bytes(node, 4 * x.channels, tasks_of(&x), &cost->workspace);
  if (!status) status = module_bytes(node, COEFFICIENTS, x.channels, &coefficients);
  if (!status) status = module_bytes(node, KEPT, x.channels, &cost->saved);
  if (status) return status;
  cost->workspace += coefficients;
  if (node->mode != LAMINA_TRAIN) cost->saved = 0;
  cost->flops = 7 * count;
  cost->bytes = 16 * count;
  cost->backward_flops = 9 * count;
  cost->backward_bytes = 20 * count;
  cost->algorithm = "two passes";
  return LAMINA_OK;
}

static lamina_status infer(lamina_node *node) {
  lamina_status status = module_check_rank(node, 0, 2, LAMINA_MAX_RANK, "(N, ..., C)");
  if (status) return status;
  module_copy_shape(&node->outputs[0], &node->inputs[0]);
  for (int i = WEIGHT; i <= RUNNING_STD; i++)
    module_shape(&node->params[i], 1, node->inputs[0].dim[node->inputs[0].rank - 1], 0);
  return LAMINA_OK;
}

/* At inference it is an affine map, which the convolution or linear layer before it takes over. */
static lamina_status affine(const lamina_node *node, float *scale, float *shift) {
  if (!scale) return LAMINA_OK;
  const float *weight = node->params[WEIGHT].data, *bias = node->params[BIAS].data;
  const float *mean = node->params[RUNNING_MEAN].data, *deviation = node->params[RUNNING_STD].data;
  for (int64_t c = 0; c < node->params[WEIGHT].dim[0]; c++) {
    scale[c] = weight[c] / deviation[c];
    shift[c] = bias[c] - mean[c] * scale[c];
  }
  return LAMINA_OK;
}

MODULE_ATTR(eps, "eps", LAMINA_ATTR_FLOAT, "1e-5", 0, 1, "added to the variance");
MODULE_ATTR(momentum, "momentum", LAMINA_ATTR_FLOAT, "0.01", 0, 1, "weight of a batch in the running statistics");
MODULE_ATTR(r_max, "r_max", LAMINA_ATTR_FLOAT, "3", 1, 1e6, "bound of the correction of the deviation");
MODULE_ATTR(d_max, "d_max", LAMINA_ATTR_FLOAT, "5", 0, 1e6, "bound of the correction of the mean");
MODULE_INPUT(x_port, "x", LAMINA_PORT_BACKWARD_READS, "(N, ..., C)");
MODULE_OUTPUT(y_port, "y", 0, "the shape of x");
MODULE_PARAMETER(weight_port, "weight", LAMINA_PORT_NO_DECAY, "ones", "(C)");
MODULE_PARAMETER(bias_port, "bias", LAMINA_PORT_NO_DECAY, "zeros", "(C)");
MODULE_STATE(mean_port, "running_mean", "zeros", "(C)");
MODULE_STATE(std_port, "running_std", "ones", "(C)");
MODULE_KERNEL(kernel, plan, forward, backward);

const lamina_layer norms_batch_renorm = {
    .size = sizeof(lamina_layer),
    .name = "batch_renorm",
    .version = 1,
    .doc = "batch normalisation corrected towards the running statistics",
    .flags = LAMINA_LAYER_ACCUMULATES | LAMINA_LAYER_STOPS_GRADIENT, /* r and d are constants to it */
    .attrs = MODULE_ATTRS(&eps, &momentum, &r_max, &d_max),
    .ports = MODULE_PORTS(&x_port, &y_port, &weight_port, &bias_port, &mean_port, &std_port),
    .kernels = MODULE_KERNELS(&kernel),
    .infer = infer,
    .affine = affine};
