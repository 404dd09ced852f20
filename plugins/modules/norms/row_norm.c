/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_norm and rms_norm: each row of channels, (N, C), (N, L, C) or (N, H, W, C), is normalised on its own.
 *
 *   layer_norm  y = (x - mean) / sqrt(var + eps) * weight + bias, var biased     Ba et al. 2016; torch.nn.LayerNorm(C)
 *   rms_norm    y = x / sqrt(mean(x^2) + eps) * weight                          Zhang and Sennrich 2019; torch.nn.RMSNorm(C)
 *
 * Parameters: weight (C) and bias (C), with elementwise_affine. With g = dy * weight and n = the normalised x, the backward
 * pass is dx = (g - mean(g) - n * mean(g * n)) / deviation; without mean(g) for rms_norm. Mean and deviation are computed
 * again from x, which is in cache anyway, so that nothing is saved. Cost: 8 operations an element, one pass over memory.
 */
#include "norms.h"

enum { EPS, AFFINE, BIAS };

typedef struct row_norm {
  module_matrix x, y, dy, dx;
  const float *weight, *bias;
  float *partial; /* of each block of rows: gradients of weight, then of bias */
  double eps;
  int centred, add, need_dx;
} row_norm;

MODULE_INLINE double total(const float *sum) {
  double result = 0;
  for (int i = 0; i < NORM_LANES; i++) result += sum[i];
  return result;
}

/* Sum over the row of (a - shift) * (b - shift_b), or of a alone where b is NULL. */
MODULE_INLINE double row_sum(int64_t n, const float *a, float shift, const float *b) {
  float sum[NORM_LANES] = {0};
  int64_t c = 0;
  for (; c + NORM_LANES <= n; c += NORM_LANES)
    for (int i = 0; i < NORM_LANES; i++) sum[i] += b ? (a[c + i] - shift) * (b[c + i] - shift) : a[c + i];
  for (int i = 0; c < n; c++, i++) sum[i] += b ? (a[c] - shift) * (b[c] - shift) : a[c];
  return total(sum);
}

MODULE_INLINE void row_statistics(const row_norm *r, const float *x, float *mean, float *scale) {
  const double n = (double)r->x.channels;
  *mean = r->centred ? (float)(row_sum(r->x.channels, x, 0, NULL) / n) : 0;
  *scale = (float)(1 / sqrt(row_sum(r->x.channels, x, *mean, x) / n + r->eps));
}

MODULE_INLINE void forward_body(void *arg, int64_t index, int thread) {
  const row_norm *r = arg;
  const int64_t n = r->x.channels, end = module_min((index + 1) * NORM_BLOCK_ROWS, r->x.rows);
  (void)thread;
  for (int64_t m = index * NORM_BLOCK_ROWS; m < end; m++) {
    const float *x = r->x.data + m * r->x.ld, *w = r->weight, *b = r->bias;
    float *y = r->y.data + m * r->y.ld, mean, scale;
    row_statistics(r, x, &mean, &scale);
    if (w && b)
      for (int64_t c = 0; c < n; c++) y[c] = (x[c] - mean) * scale * w[c] + b[c];
    else if (w)
      for (int64_t c = 0; c < n; c++) y[c] = (x[c] - mean) * scale * w[c];
    else
      for (int64_t c = 0; c < n; c++) y[c] = (x[c] - mean) * scale;
  }
}
MODULE_TASK(forward)

/* sum[0] = sum of g and sum[1] = sum of g * (x - mean), g = dy * weight. */
MODULE_INLINE void gradient_sums(int64_t n, const float *x, float mean, const float *dy, const float *w, double *sums) {
  float sum[NORM_LANES] = {0}, product[NORM_LANES] = {0};
  int64_t c = 0;
  for (; c + NORM_LANES <= n; c += NORM_LANES)
    for (int i = 0; i < NORM_LANES; i++) {
      const float g = w ? dy[c + i] * w[c + i] : dy[c + i];
      sum[i] += g;
      product[i] += g * (x[c + i] - mean);
    }
  for (int i = 0; c < n; c++, i++) {
    const float g = w ? dy[c] * w[c] : dy[c];
    sum[i] += g;
    product[i] += g * (x[c] - mean);
  }
  sums[0] = total(sum);
  sums[1] = total(product);
}

MODULE_INLINE void backward_body(void *arg, int64_t index, int thread) {
  const row_norm *r = arg;
  const int64_t n = r->x.channels, end = module_min((index + 1) * NORM_BLOCK_ROWS, r->x.rows);
  float *dw = r->partial + index * 2 * n, *db = dw + n;
  (void)thread;
  memset(dw, 0, (size_t)n * 2 * sizeof(float));
  for (int64_t m = index * NORM_BLOCK_ROWS; m < end; m++) {
    const float *x = r->x.data + m * r->x.ld, *dy = r->dy.data + m * r->dy.ld, *w = r->weight;
    float mean, scale;
    double sums[2];
    row_statistics(r, x, &mean, &scale);
    for (int64_t c = 0; c < n; c++) {
      dw[c] += dy[c] * ((x[c] - mean) * scale);
      db[c] += dy[c];
    }
    if (!r->need_dx) continue;
    gradient_sums(n, x, mean, dy, w, sums);
    float *dx = r->dx.data + m * r->dx.ld;
    const float shift = r->centred ? (float)(sums[0] / (double)n) : 0;
    const float slope = (float)(sums[1] * scale * scale / (double)n);
    for (int64_t c = 0; c < n; c++) {
      const float g = w ? dy[c] * w[c] : dy[c], d = scale * (g - shift - (x[c] - mean) * slope);
      dx[c] = r->add ? dx[c] + d : d;
    }
  }
}
MODULE_TASK(backward)

static row_norm describe(const lamina_node *node, int centred) {
  row_norm r = {.x = module_rows(&node->inputs[0]), .centred = centred, .eps = node->attrs[EPS].f};
  r.weight = module_param(node, 0);
  r.bias = centred ? module_param(node, 1) : NULL;
  return r;
}

static lamina_status infer(lamina_node *node) {
  lamina_status status = module_check_rank(node, 0, 2, LAMINA_MAX_RANK, "(N, ..., C)");
  if (status) return status;
  const int64_t channels = node->inputs[0].dim[node->inputs[0].rank - 1];
  module_copy_shape(&node->outputs[0], &node->inputs[0]);
  if (node->attrs[AFFINE].i) module_shape(&node->params[0], 1, channels, 0);
  if (node->n_params > 1 && node->attrs[AFFINE].i && node->attrs[BIAS].i) module_shape(&node->params[1], 1, channels, 0);
  return LAMINA_OK;
}

static lamina_status plan(const lamina_node *node, lamina_cost *cost) {
  const module_matrix x = module_rows(&node->inputs[0]);
  const double count = (double)x.rows * (double)x.channels;
  cost->flops = 8 * count;
  cost->bytes = 8 * count;
  cost->backward_flops = 16 * count;
  cost->backward_bytes = 12 * count;
  cost->algorithm = "rows";
  if (node->mode != LAMINA_TRAIN) return LAMINA_OK;
  return module_bytes(node, 2 * x.channels, module_ceil_div(x.rows, NORM_BLOCK_ROWS), &cost->workspace);
}

static lamina_status run_forward(const lamina_node *node, int centred) {
  row_norm r = describe(node, centred);
  r.y = module_rows(&node->outputs[0]);
  MODULE_RUN(node->host, module_ceil_div(r.x.rows, NORM_BLOCK_ROWS), forward, &r);
  return LAMINA_OK;
}

static lamina_status run_backward(const lamina_node *node, int centred) {
  row_norm r = describe(node, centred);
  const int64_t n = r.x.channels, blocks = module_ceil_div(r.x.rows, NORM_BLOCK_ROWS);
  r.dy = module_rows(&node->d_outputs[0]);
  r.need_dx = module_needs_input(node, 0);
  if (r.need_dx) r.dx = module_rows(&node->d_inputs[0]);
  r.add = module_adds_input(node, 0);
  r.partial = node->workspace;
  MODULE_RUN(node->host, blocks, backward, &r);
  for (int i = 0; i < node->n_params; i++)
    if (module_needs_param(node, i))
      norms_add_blocks(r.partial + i * n, blocks, 2 * n, n, module_adds_param(node, i), node->d_params[i].data);
  return LAMINA_OK;
}

static lamina_status layer_norm_forward(const lamina_node *node) { return run_forward(node, 1); }
static lamina_status layer_norm_backward(const lamina_node *node) { return run_backward(node, 1); }
static lamina_status rms_norm_forward(const lamina_node *node) { return run_forward(node, 0); }
static lamina_status rms_norm_backward(const lamina_node *node) { return run_backward(node, 0); }

MODULE_ATTR(layer_eps, "eps", LAMINA_ATTR_FLOAT, "1e-5", 0, 1, "added to the variance");
MODULE_ATTR(rms_eps, "eps", LAMINA_ATTR_FLOAT, "1.1920928955078125e-7", 0, 1, "added to the mean square");
MODULE_ATTR(affine, "elementwise_affine", LAMINA_ATTR_BOOL, "true", 0, 0, "learn weight (and bias)");
MODULE_ATTR(use_bias, "bias", LAMINA_ATTR_BOOL, "true", 0, 0, "learn a bias too, if affine");
MODULE_INPUT(x_port, "x", LAMINA_PORT_BACKWARD_READS, "(N, ..., C)");
MODULE_OUTPUT(y_port, "y", 0, "the shape of x");
MODULE_PARAMETER(weight_port, "weight", LAMINA_PORT_NO_DECAY, "ones", "(C)");
MODULE_PARAMETER(bias_port, "bias", LAMINA_PORT_NO_DECAY, "zeros", "(C)");
MODULE_KERNEL(layer_norm_kernel, plan, layer_norm_forward, layer_norm_backward);
MODULE_KERNEL(rms_norm_kernel, plan, rms_norm_forward, rms_norm_backward);

const lamina_layer norms_layer_norm = {.size = sizeof(lamina_layer),
                                       .name = "layer_norm",
                                       .version = 1,
                                       .doc = "each row of channels to mean 0 and variance 1, then scaled and shifted",
                                       .flags = LAMINA_LAYER_ACCUMULATES,
                                       .attrs = MODULE_ATTRS(&layer_eps, &affine, &use_bias),
                                       .ports = MODULE_PORTS(&x_port, &y_port, &weight_port, &bias_port),
                                       .kernels = MODULE_KERNELS(&layer_norm_kernel),
                                       .infer = infer};
const lamina_layer norms_rms_norm = {.size = sizeof(lamina_layer),
                                     .name = "rms_norm",
                                     .version = 1,
                                     .doc = "each row of channels over its root mean square, then scaled",
                                     .flags = LAMINA_LAYER_ACCUMULATES,
                                     .attrs = MODULE_ATTRS(&rms_eps, &affine),
                                     .ports = MODULE_PORTS(&x_port, &y_port, &weight_port),
                                     .kernels = MODULE_KERNELS(&rms_norm_kernel),
                                     .infer = infer};
