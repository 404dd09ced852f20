/* SPDX-License-Identifier: Apache-2.0 */
/*
 * group_norm and instance_norm: the channels of one sample, (N, L, C) or (N, H, W, C), are normalised in groups of C/G over
 * all positions; instance_norm has a group for each channel.
 *
 *   y = (x - mean) / sqrt(var + eps) * weight + bias, var biased
 *
 * Sources: Wu and He 2018, torch.nn.GroupNorm; Ulyanov et al. 2016, torch.nn.InstanceNorm (no running statistics).
 * Parameters: weight (C) and bias (C), with affine (default: true for group_norm, false for instance_norm).
 *
 * A task is some whole groups of one sample, 64 channels or more. Sums go channel by channel in blocks of positions,
 * merged in double; the variance is a second pass around the mean. Mean and deviation of each channel are saved for the
 * backward pass: with n = normalised x and g = dy * weight, dx = (g - mean(g) - n * mean(g * n)) / deviation.
 */
#include "norms.h"

enum { GROUPS, EPS, AFFINE };
enum { INSTANCE_EPS, INSTANCE_AFFINE };

typedef struct group_norm {
  module_matrix x, y, dy, dx;
  int64_t samples, positions, channels, width; /* width: channels of a group */
  int64_t span, spans;                         /* channels of a task; tasks of a sample */
  const float *weight, *bias;
  float *saved;   /* of each sample: mean, then 1 / deviation, by channel */
  float *partial; /* backward, of each sample: sums of dy * n, then of dy, by channel */
  double *sums;   /* of each thread, two for each channel of a task */
  double eps;
  int add, need_dx;
} group_norm;

/* Every channel of a group gets the group's mean of `sums`. */
static inline void spread(const group_norm *g, int64_t n, double *sums) {
  for (int64_t c0 = 0; c0 < n; c0 += g->width) {
    double sum = 0;
    for (int64_t c = c0; c < c0 + g->width; c++) sum += sums[c];
    for (int64_t c = c0; c < c0 + g->width; c++) sums[c] = sum / ((double)g->width * (double)g->positions);
  }
}

MODULE_INLINE void forward_body(void *arg, int64_t index, int thread) {
  const group_norm *g = arg;
  const int64_t sample = index / g->spans, c0 = index % g->spans * g->span;
  const int64_t n = module_min(g->span, g->channels - c0);
  const float *x = g->x.data + sample * g->positions * g->x.ld + c0;
  float *y = g->y.data + sample * g->positions * g->y.ld + c0;
  float *mean = g->saved + sample * 2 * g->channels + c0, *scale = mean + g->channels;
  double *sums = g->sums + thread * 2 * g->span;
  module_column_sums(COLUMN_PLAIN, g->positions, n, x, g->x.ld, NULL, 0, NULL, sums);
  spread(g, n, sums);
  for (int64_t c = 0; c < n; c++) mean[c] = (float)sums[c];
  module_column_sums(COLUMN_SQUARES, g->positions, n, x, g->x.ld, NULL, 0, mean, sums);
  spread(g, n, sums);
  for (int64_t c = 0; c < n; c++) scale[c] = (float)(1 / sqrt(sums[c] + g->eps));
  for (int64_t p = 0; p < g->positions; p++, x += g->x.ld, y += g->y.ld) {
    if (g->weight)
      for (int64_t c = 0; c < n; c++) y[c] = (x[c] - mean[c]) * scale[c] * g->weight[c0 + c] + g->bias[c0 + c];
    else
      for (int64_t c = 0; c < n; c++) y[c] = (x[c] - mean[c]) * scale[c];
  }
}
MODULE_TASK(forward)

MODULE_INLINE void backward_body(void *arg, int64_t index, int thread) {
  const group_norm *g = arg;
  const int64_t sample = index / g->spans, c0 = index % g->spans * g->span;
  const int64_t n = module_min(g->span, g->channels - c0);
  const float *x = g->x.data + sample * g->positions * g->x.ld + c0;
  const float *dy = g->dy.data + sample * g->positions * g->dy.ld + c0;
  const float *mean = g->saved + sample * 2 * g->channels + c0, *scale = mean + g->channels;
  const float *weight = g->weight ? g->weight + c0 : NULL;
  float *dw = g->partial + sample * 2 * g->channels + c0, *db = dw + g->channels;
  double *products = g->sums + thread * 2 * g->span, *sums = products + g->span;
  module_column_sums(COLUMN_PRODUCTS, g->positions, n, x, g->x.ld, dy, g->dy.ld, mean, products);
  module_column_sums(COLUMN_PLAIN, g->positions, n, dy, g->dy.ld, NULL, 0, NULL, sums);
  for (int64_t c = 0; c < n; c++) {
    products[c] *= scale[c];
    dw[c] = (float)products[c];
    db[c] = (float)sums[c];
  }
  if (!g->need_dx) return;
  for (int64_t c = 0; weight && c < n; c++) {
    products[c] *= weight[c];
    sums[c] *= weight[c];
  }
  spread(g, n, products);
  spread(g, n, sums);
  float *dx = g->dx.data + sample * g->positions * g->dx.ld + c0;
  for (int64_t p = 0; p < g->positions; p++, x += g->x.ld, dy += g->dy.ld, dx += g->dx.ld)
    for (int64_t c = 0; c < n; c++) {
      const float v = weight ? dy[c] * weight[c] : dy[c];
      const float d = scale[c] * (v - (float)sums[c] - (x[c] - mean[c]) * scale[c] * (float)products[c]);
      dx[c] = g->add ? dx[c] + d : d;
    }
}
MODULE_TASK(backward)

static group_norm describe(const lamina_node *node, int instance) {
  group_norm g = {.x = module_rows(&node->inputs[0]), .samples = node->inputs[0].dim[0]};
  g.positions = g.x.rows / module_max(g.samples, 1);
  g.channels = g.x.channels;
  g.width = instance ? 1 : module_max(g.channels / node->attrs[GROUPS].i, 1);
  g.eps = node->attrs[instance ? INSTANCE_EPS : EPS].f;
  g.span = module_min(module_round_up(COLUMN_SPAN, g.width), module_max(g.channels, 1)); /* of no channels: 0 spans */
  g.spans = module_ceil_div(g.channels, g.span);
  g.weight = module_param(node, 0);
  g.bias = module_param(node, 1);
  return g;
}

static int64_t sums_floats(const lamina_node *node, const group_norm *g) {
  return (int64_t)(sizeof(double) / sizeof(float)) * 2 * g->span * node->host->threads(node->host);
}

static lamina_status make_plan(const lamina_node *node, lamina_cost *cost, int instance) {
  const group_norm g = describe(node, instance);
  const double count = (double)g.x.rows * (double)g.channels;
  size_t statistics, sums;
  lamina_status status = module_bytes(node, 2 * g.channels, g.samples, &statistics);
  if (!status) status = module_bytes(node, sums_floats(node, &g), 1, &sums);
  if (status) return status;
  cost->saved = node->mode == LAMINA_TRAIN ? statistics : 0;
  cost->workspace = sums + statistics; /* the statistics at inference, sums of gradients in training */
  cost->flops = 8 * count;
  cost->bytes = 16 * count;
  cost->backward_flops = 14 * count;
  cost->backward_bytes = 24 * count;
  cost->algorithm = "two passes";
  return LAMINA_OK;
}

static lamina_status run_forward(const lamina_node *node, int instance) {
  group_norm g = describe(node, instance);
  g.y = module_rows(&node->outputs[0]);
  g.sums = node->workspace;
  g.saved = node->mode == LAMINA_TRAIN ? node->saved : module_floats(node->workspace, sums_floats(node, &g));
  MODULE_RUN(node->host, g.samples * g.spans, forward, &g);
  return LAMINA_OK;
}

static lamina_status run_backward(const lamina_node *node, int instance) {
  group_norm g = describe(node, instance);
  g.dy = module_rows(&node->d_outputs[0]);
  g.need_dx = module_needs_input(node, 0);
  if (g.need_dx) g.dx = module_rows(&node->d_inputs[0]);
  g.add = module_adds_input(node, 0);
  g.saved = node->saved;
  g.sums = node->workspace;
  g.partial = module_floats(node->workspace, sums_floats(node, &g));
  MODULE_RUN(node->host, g.samples * g.spans, backward, &g);
  for (int i = 0; i < 2; i++)
    if (module_needs_param(node, i))
      norms_add_blocks(g.partial + i * g.channels, g.samples, 2 * g.channels, g.channels, module_adds_param(node, i),
                       node->d_params[i].data);
  return LAMINA_OK;
}

static lamina_status infer_with(lamina_node *node, int64_t affine) {
  const int64_t channels = node->inputs[0].dim[node->inputs[0].rank - 1];
  module_copy_shape(&node->outputs[0], &node->inputs[0]);
  for (int i = 0; affine && i < 2; i++) module_shape(&node->params[i], 1, channels, 0);
  return LAMINA_OK;
}

static lamina_status group_infer(lamina_node *node) {
  lamina_status status = module_check_rank(node, 0, 2, LAMINA_MAX_RANK, "(N, ..., C)");
  if (status) return status;
  const int64_t channels = node->inputs[0].dim[node->inputs[0].rank - 1];
  if (channels % node->attrs[GROUPS].i != 0)
    return node->host->fail(node->host, LAMINA_SHAPE_MISMATCH, "%lld channels cannot be parted into num_groups = %lld",
                            (long long)channels, (long long)node->attrs[GROUPS].i);
  return infer_with(node, node->attrs[AFFINE].i);
}

static lamina_status instance_infer(lamina_node *node) {
  lamina_status status = module_check_rank(node, 0, 3, LAMINA_MAX_RANK, "(N, ..., C) with positions");
  return status ? status : infer_with(node, node->attrs[INSTANCE_AFFINE].i);
}

static lamina_status group_plan(const lamina_node *node, lamina_cost *cost) { return make_plan(node, cost, 0); }
static lamina_status group_forward(const lamina_node *node) { return run_forward(node, 0); }
static lamina_status group_backward(const lamina_node *node) { return run_backward(node, 0); }
static lamina_status instance_plan(const lamina_node *node, lamina_cost *cost) { return make_plan(node, cost, 1); }
static lamina_status instance_forward(const lamina_node *node) { return run_forward(node, 1); }
static lamina_status instance_backward(const lamina_node *node) { return run_backward(node, 1); }

MODULE_ATTR(num_groups, "num_groups", LAMINA_ATTR_INT, NULL, 1, 1 << 30, "groups that the channels are parted into");
MODULE_ATTR(eps, "eps", LAMINA_ATTR_FLOAT, "1e-5", 0, 1, "added to the variance");
MODULE_ATTR(group_affine, "affine", LAMINA_ATTR_BOOL, "true", 0, 0, "learn weight and bias");
MODULE_ATTR(instance_affine, "affine", LAMINA_ATTR_BOOL, "false", 0, 0, "learn weight and bias");
MODULE_INPUT(x_port, "x", LAMINA_PORT_BACKWARD_READS, "(N, ..., C)");
MODULE_OUTPUT(y_port, "y", 0, "the shape of x");
MODULE_PARAMETER(weight_port, "weight", LAMINA_PORT_NO_DECAY, "ones", "(C)");
MODULE_PARAMETER(bias_port, "bias", LAMINA_PORT_NO_DECAY, "zeros", "(C)");
MODULE_KERNEL(group_kernel, group_plan, group_forward, group_backward);
MODULE_KERNEL(instance_kernel, instance_plan, instance_forward, instance_backward);

const lamina_layer norms_group_norm = {.size = sizeof(lamina_layer),
                                       .name = "group_norm",
                                       .version = 1,
                                       .doc = "groups of channels of each sample to mean 0 and variance 1",
                                       .flags = LAMINA_LAYER_ACCUMULATES,
                                       .attrs = MODULE_ATTRS(&num_groups, &eps, &group_affine),
                                       .ports = MODULE_PORTS(&x_port, &y_port, &weight_port, &bias_port),
                                       .kernels = MODULE_KERNELS(&group_kernel),
                                       .infer = group_infer};
const lamina_layer norms_instance_norm = {.size = sizeof(lamina_layer),
                                          .name = "instance_norm",
                                          .version = 1,
                                          .doc = "each channel of each sample to mean 0 and variance 1",
                                          .flags = LAMINA_LAYER_ACCUMULATES,
                                          .attrs = MODULE_ATTRS(&eps, &instance_affine),
                                          .ports = MODULE_PORTS(&x_port, &y_port, &weight_port, &bias_port),
                                          .kernels = MODULE_KERNELS(&instance_kernel),
                                          .infer = instance_infer};
