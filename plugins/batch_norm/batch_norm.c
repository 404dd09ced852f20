/* SPDX-License-Identifier: Apache-2.0 */
/* batch_norm: y = (x - mean) / sqrt(var + eps) * weight + bias for each channel; PyTorch's BatchNorm1d, 2d and 3d. */
#include "batch_norm.h"

#include "../builtin.h"

#include <math.h>

batch_norm_split batch_norm_split_of(int64_t rows, int64_t channels) {
  int64_t width = layer_min(channels, BATCH_NORM_PART), most = channels < 16 ? 1024 : 512;
  batch_norm_split split = {.rows = rows, .channels = channels, .parts = layer_ceil_div(channels, BATCH_NORM_PART)};
  /* At least 128 rows, so that a merge in double costs little beside its block; few enough that fp32 sums stay good. */
  split.block_rows = layer_min(layer_max(LAYER_TASK_FLOATS / width, 128), most);
  /* A group is about 512 KiB, and there are at most 64: the merge of groups stays small. */
  int64_t blocks = layer_max(1, 8 * LAYER_TASK_FLOATS / (split.block_rows * width));
  blocks = layer_max(blocks, layer_ceil_div(layer_ceil_div(rows, 64), split.block_rows));
  split.group_rows = blocks * split.block_rows;
  split.groups = layer_ceil_div(rows, split.group_rows);
  return split;
}

int batch_norm_uses_batch(const lamina_node *node) {
  return (node->mode == LAMINA_TRAIN && !node->frozen_states) || !node->attrs[BATCH_NORM_TRACK].i;
}

/* Sums over the rows: forward for the batch's statistics, backward for the gradients of the parameters too. */
static int reduces(const lamina_node *node) { return node->mode == LAMINA_TRAIN || batch_norm_uses_batch(node); }

batch_norm_memory batch_norm_memory_of(const lamina_node *node, const batch_norm_split *split) {
  int64_t c = split->channels, sums = reduces(node) ? split->groups * c : 0;
  batch_norm_memory m = {.first = node->workspace};
  m.second = m.first + sums;
  float *floats = (float *)(m.second + sums);
  for (int i = 0; i < 3; i++) m.coefficients[i] = floats + i * c;
  float *kept = node->mode == LAMINA_TRAIN ? node->saved : floats + 3 * c;
  m.hi = kept;
  m.lo = kept + c;
  m.invstd = kept + 2 * c;
  m.scale = kept + 3 * c;
  m.offset = kept + 4 * c;
  return m;
}

lamina_status batch_norm_check_count(const lamina_node *node) {
  layer_matrix x = layer_rows(&node->inputs[0]);
  if (node->mode != LAMINA_TRAIN || !batch_norm_uses_batch(node) || x.rows > 1) return LAMINA_OK;
  char text[LAYER_SHAPE_TEXT];
  return node->host->fail(node->host, LAMINA_SHAPE_MISMATCH,
                          "expected more than 1 value per channel when training, got input of shape %s",
                          layer_shape_text(&node->inputs[0], text));
}

static lamina_status infer(lamina_node *node) {
  lamina_status status = layer_check_input(node, 0, 2, LAMINA_MAX_RANK, "(N, ..., C)");
  if (status != LAMINA_OK) return status;
  const lamina_tensor *x = &node->inputs[0];
  int64_t channels = x->dim[x->rank - 1];
  layer_copy_shape(&node->outputs[0], x);
  if (node->attrs[BATCH_NORM_AFFINE].i) {
    layer_set_shape_1d(&node->params[BATCH_NORM_WEIGHT], channels);
    layer_set_shape_1d(&node->params[BATCH_NORM_BIAS], channels);
  }
  if (node->attrs[BATCH_NORM_TRACK].i) {
    layer_set_shape_1d(&node->params[BATCH_NORM_MEAN], channels);
    layer_set_shape_1d(&node->params[BATCH_NORM_VAR], channels);
    node->params[BATCH_NORM_COUNT].rank = 0;
  }
  return LAMINA_OK;
}

static lamina_status plan(const lamina_node *node, lamina_cost *cost) {
  lamina_status status = batch_norm_check_count(node);
  if (status != LAMINA_OK) return status;
  layer_matrix x = layer_rows(&node->inputs[0]);
  batch_norm_split split = batch_norm_split_of(x.rows, x.channels);
  size_t channels = (size_t)x.channels;
  int batch = batch_norm_uses_batch(node);
  double n = (double)x.rows * (double)x.channels;
  cost->workspace = (reduces(node) ? 2 * (size_t)split.groups * channels * sizeof(double) : 0) + 8 * channels * sizeof(float);
  cost->saved = node->mode == LAMINA_TRAIN ? 5 * channels * sizeof(float) : 0;
  cost->flops = (batch ? 7 : 3) * n;
  cost->bytes = (batch ? 3 : 2) * n * sizeof(float);
  cost->backward_flops = 10 * n;
  cost->backward_bytes = 5 * n * sizeof(float);
  cost->algorithm = batch ? "batch statistics" : "running statistics";
  return LAMINA_OK;
}

static lamina_status affine(const lamina_node *node, float *scale, float *shift) {
  if (batch_norm_uses_batch(node)) return LAMINA_UNSUPPORTED;
  if (!scale) return LAMINA_OK; /* only asked whether it is so */
  const float *weight = batch_norm_param(node, BATCH_NORM_WEIGHT), *bias = batch_norm_param(node, BATCH_NORM_BIAS);
  const float *mean = batch_norm_param(node, BATCH_NORM_MEAN), *var = batch_norm_param(node, BATCH_NORM_VAR);
  for (int64_t c = 0; c < node->params[BATCH_NORM_MEAN].dim[0]; c++) {
    double s = (weight ? weight[c] : 1.0) / sqrt((double)var[c] + node->attrs[BATCH_NORM_EPS].f);
    scale[c] = (float)s;
    shift[c] = (float)((bias ? bias[c] : 0.0) - s * mean[c]);
  }
  return LAMINA_OK;
}

static const lamina_attr eps = {.size = sizeof(lamina_attr),
                                .name = "eps",
                                .type = LAMINA_ATTR_FLOAT,
                                .def = "1e-5",
                                .min = 0,
                                .max = 1e30,
                                .doc = "added to the variance"};
static const lamina_attr momentum = {.size = sizeof(lamina_attr),
                                     .name = "momentum",
                                     .type = LAMINA_ATTR_FLOAT,
                                     .def = "0.1",
                                     .min = 0,
                                     .max = 1,
                                     .allow_none = 1,
                                     .doc = "weight of a batch in the running statistics; none: their plain average"};
static const lamina_attr attr_affine = {.size = sizeof(lamina_attr),
                                        .name = "affine",
                                        .type = LAMINA_ATTR_BOOL,
                                        .def = "true",
                                        .doc = "has weight and bias"};
static const lamina_attr track = {.size = sizeof(lamina_attr),
                                  .name = "track_running_stats",
                                  .type = LAMINA_ATTR_BOOL,
                                  .def = "true",
                                  .doc = "keep running statistics, for inference; false: always those of the batch"};
static const lamina_attr *const attrs[] = {&eps, &momentum, &attr_affine, &track, NULL};

static const lamina_port port_x = {.size = sizeof(lamina_port),
                                   .name = "x",
                                   .kind = LAMINA_PORT_INPUT,
                                   .flags = LAMINA_PORT_BACKWARD_READS,
                                   .doc = "(N, ..., C)"};
static const lamina_port port_y = {
    .size = sizeof(lamina_port), .name = "y", .kind = LAMINA_PORT_OUTPUT, .doc = "the shape of x"};
static const lamina_port port_weight = {.size = sizeof(lamina_port),
                                        .name = "weight",
                                        .kind = LAMINA_PORT_PARAMETER,
                                        .flags = LAMINA_PORT_NO_DECAY,
                                        .initializer = "ones",
                                        .doc = "(C): gamma"};
static const lamina_port port_bias = {.size = sizeof(lamina_port),
                                      .name = "bias",
                                      .kind = LAMINA_PORT_PARAMETER,
                                      .flags = LAMINA_PORT_NO_DECAY,
                                      .initializer = "zeros",
                                      .doc = "(C): beta"};
static const lamina_port port_mean = {.size = sizeof(lamina_port),
                                      .name = "running_mean",
                                      .kind = LAMINA_PORT_STATE,
                                      .initializer = "zeros",
                                      .doc = "(C)"};
static const lamina_port port_var = {.size = sizeof(lamina_port),
                                     .name = "running_var",
                                     .kind = LAMINA_PORT_STATE,
                                     .initializer = "ones",
                                     .doc = "(C): unbiased"};
static const lamina_port port_count = {.size = sizeof(lamina_port),
                                       .name = "num_batches_tracked",
                                       .kind = LAMINA_PORT_STATE,
                                       .dtype = LAMINA_I64,
                                       .initializer = "zeros",
                                       .doc = "a scalar"};
static const lamina_port *const ports[] = {&port_x,    &port_y,   &port_weight, &port_bias,
                                           &port_mean, &port_var, &port_count,  NULL};
static const lamina_kernel kernel = {.size = sizeof(lamina_kernel),
                                     .name = "norm",
                                     .plan = plan,
                                     .forward = batch_norm_forward,
                                     .backward = batch_norm_backward};
static const lamina_kernel *const kernels[] = {&kernel, NULL};

const lamina_layer lamina_layer_batch_norm = {.size = sizeof(lamina_layer),
                                              .name = "batch_norm",
                                              .version = 1,
                                              .doc = "batch normalisation of each channel, for any rank",
                                              .flags = LAMINA_LAYER_IN_PLACE | LAMINA_LAYER_BACKWARD_IN_PLACE |
                                                       LAMINA_LAYER_ACCUMULATES | LAMINA_LAYER_EPILOGUE_BACKWARD |
                                                       LAMINA_LAYER_CHEAP,
                                              .epilogues = LAMINA_EPILOGUE_ADD | LAMINA_EPILOGUE_CLAMP,
                                              .attrs = attrs,
                                              .ports = ports,
                                              .kernels = kernels,
                                              .infer = infer,
                                              .affine = affine};
