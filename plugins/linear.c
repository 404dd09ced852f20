/* SPDX-License-Identifier: Apache-2.0 */
/*
 * linear: y (.., out) = x (.., in) * weight^T + bias, a matrix product with packed weights.
 *
 * After a flatten that the plan folded, the row of x is (spatial, channels) in memory while the columns of weight are
 * in PyTorch's (channels, spatial) order: packing permutes the columns, and the weight gradient is permuted back.
 *
 * packed: bias (out, the epilogue's scale and shift folded in), then B of the forward product (in x out), then, if the
 * gradient of x is wanted, B of the backward product (out x in). In training, where weights change with each step, there
 * is the bias alone: the products read the parameter itself, of which a block passes through the cache either way. Only
 * permuted or scaled weights are packed there too.
 */
#include "builtin.h"
#include "conv2d/reduce.h"
#include "layer.h"

#include <string.h>

enum { OUT_FEATURES, BIAS, IN_SPATIAL };
enum { LINE = 16, GRADIENT_FLOATS = 1 << 20 };

typedef struct linear {
  const lamina_node *node;
  const lamina_host *host;
  const lamina_kernels *kernels;
  int64_t rows, in, out, spatial; /* in: features of a row, spatial * channels */
  int64_t x_ld, y_ld;
  float *weights, *bias, *weights_backward; /* in node->packed */
  size_t packed;                            /* bytes of all three */
} linear;

/* Leading dimensions that are rows: all but the last, or the first alone when the rest was a folded flatten's input. */
static int64_t row_stride(const lamina_tensor *x, int64_t spatial) {
  if (spatial > 1) return x->stride[0];
  return x->rank > 1 ? x->stride[x->rank - 2] : x->dim[0];
}

static int64_t features(const lamina_tensor *x, int64_t spatial) {
  if (spatial <= 1) return x->dim[x->rank - 1];
  int64_t in = 1;
  for (int i = 1; i < x->rank; i++) in *= x->dim[i];
  return in;
}

/* Whether products read packed weights instead of the parameter. */
static int packs_weights(const linear *l) {
  return l->node->mode != LAMINA_TRAIN || l->spatial > 1 || (l->node->epilogue.parts & LAMINA_EPILOGUE_AFFINE);
}

static int needs_backward_weights(const lamina_node *node) {
  return node->mode == LAMINA_TRAIN && layer_needs_input(node, 0);
}

/* Floats of a packed matrix, on a whole line; false if that overflows. */
static int packed_floats(const lamina_host *host, int64_t k, int64_t n, size_t *floats) {
  size_t bytes = host->gemm_packed_bytes(host, k, n);
  if (bytes > SIZE_MAX / 4) return 0;
  *floats = (size_t)round_up((int64_t)(bytes / sizeof(float)), LINE);
  return 1;
}

static lamina_status describe(const lamina_node *node, linear *l) {
  lamina_status status;
  const lamina_tensor *x = &node->inputs[0], *y = &node->outputs[0];
  *l = (linear){
      .node = node, .host = node->host, .kernels = layer_kernels(node, &status), .spatial = node->attrs[IN_SPATIAL].i};
  if (status) return status;
  l->in = features(x, l->spatial);
  l->out = y->dim[y->rank - 1];
  l->rows = layer_count(x) / l->in;
  l->x_ld = row_stride(x, l->spatial);
  l->y_ld = row_stride(y, 1);
  size_t forward = 0, backward = 0;
  if (packs_weights(l) && (!packed_floats(l->host, l->in, l->out, &forward) ||
                           (needs_backward_weights(node) && !packed_floats(l->host, l->out, l->in, &backward))))
    return l->host->fail(l->host, LAMINA_SHAPE_MISMATCH, "%lld x %lld weights are more than memory can hold",
                         (long long)l->out, (long long)l->in);
  const size_t bias = (size_t)round_up(l->out, LINE);
  l->packed = (forward + bias + backward) * sizeof(float);
  l->bias = node->packed;
  if (!node->packed) return LAMINA_OK;
  if (forward) l->weights = l->bias + bias;
  if (backward) l->weights_backward = l->weights + forward;
  return LAMINA_OK;
}

static lamina_status infer(lamina_node *node) {
  const lamina_tensor *x = &node->inputs[0];
  const int64_t out = node->attrs[OUT_FEATURES].i, spatial = node->attrs[IN_SPATIAL].i;
  lamina_status status = layer_check_input(node, 0, 2, LAMINA_MAX_RANK, "(N, ..., features)");
  if (status) return status;
  const int64_t in = features(x, spatial);
  if (in % spatial != 0)
    return node->host->fail(node->host, LAMINA_SHAPE_MISMATCH, "%lld features are not a multiple of in_spatial = %lld",
                            (long long)in, (long long)spatial);
  lamina_tensor *y = &node->outputs[0], *weight = &node->params[0];
  layer_copy_shape(y, x);
  if (spatial > 1) y->rank = 2;
  y->dim[y->rank - 1] = out;
  weight->rank = 2;
  weight->dim[0] = out;
  weight->dim[1] = in;
  node->params[1].rank = -1;
  if (node->attrs[BIAS].i) layer_set_shape_1d(&node->params[1], out);
  return LAMINA_OK;
}

static lamina_gemm forward_product(const linear *l) {
  const lamina_epilogue *e = &l->node->epilogue;
  lamina_gemm g = {.size = sizeof g,
                   .m = l->rows,
                   .n = l->out,
                   .k = l->in,
                   .a = l->node->inputs[0].data,
                   .a_row = l->x_ld,
                   .a_k = 1,
                   .b = l->node->params[0].data,
                   .b_k = 1,
                   .b_n = l->in,
                   .b_packed = l->weights,
                   .c = l->node->outputs[0].data,
                   .c_row = l->y_ld,
                   .bias = l->bias,
                   .lo = e->lo,
                   .hi = e->hi,
                   .workspace = l->node->workspace,
                   .activation = e->activation,
                   .parameters = e->parameters};
  if (e->parts & LAMINA_EPILOGUE_ADD) {
    g.add = e->add.data;
    g.add_row = row_stride(&e->add, 1);
  }
  return g;
}

static lamina_gemm backward_data_product(const linear *l) {
  return (lamina_gemm){.size = sizeof(lamina_gemm),
                       .m = l->rows,
                       .n = l->in,
                       .k = l->out,
                       .a = l->node->d_outputs ? l->node->d_outputs[0].data : NULL,
                       .a_row = l->node->d_outputs ? row_stride(&l->node->d_outputs[0], 1) : l->out,
                       .a_k = 1,
                       .b = l->node->params[0].data,
                       .b_k = l->in,
                       .b_n = 1,
                       .b_packed = l->weights_backward,
                       .c = l->node->d_inputs ? l->node->d_inputs[0].data : NULL,
                       .c_row = l->node->d_inputs ? row_stride(&l->node->d_inputs[0], l->spatial) : l->in,
                       .accumulate = layer_accumulates(l->node, 0),
                       .lo = -__builtin_inff(),
                       .hi = __builtin_inff(),
                       .workspace = l->node->workspace};
}

/* Rows `first` and up of dW(out, in) = dy^T x. */
static lamina_gemm backward_weights_product(const linear *l, int64_t first, int64_t count) {
  const float *dy = l->node->d_outputs ? l->node->d_outputs[0].data : NULL;
  return (lamina_gemm){.size = sizeof(lamina_gemm),
                       .m = count,
                       .n = l->in,
                       .k = l->rows,
                       .a = dy ? dy + first : NULL,
                       .a_row = 1,
                       .a_k = l->node->d_outputs ? row_stride(&l->node->d_outputs[0], 1) : l->out,
                       .b = l->node->inputs[0].data,
                       .b_k = l->x_ld,
                       .b_n = 1,
                       .c_row = l->in,
                       .lo = -__builtin_inff(),
                       .hi = __builtin_inff(),
                       .workspace = l->node->workspace};
}

/* Rows of the weight gradient that are computed in one go; in pieces when they must still be permuted. */
static int64_t gradient_rows(const linear *l) {
  return l->spatial > 1 ? layer_min(l->out, layer_max(GRADIENT_FLOATS / l->in, 32)) : l->out;
}

/* Floats of workspace beside the products': a piece of the weight gradient, or the sums for the bias. */
static int64_t scratch_floats(const linear *l) {
  const int64_t piece = l->spatial > 1 ? gradient_rows(l) * l->in : 0;
  return round_up(layer_max(piece, lamina_column_sum_workspace(l->rows, l->out)), LINE);
}

static lamina_status plan(const lamina_node *node, lamina_cost *cost) {
  linear l;
  lamina_status status = describe(node, &l);
  if (status) return status;
  lamina_gemm product = forward_product(&l);
  const float *packed = packs_weights(&l) ? (const float *)&l : NULL; /* not read: only tells that B will be packed */
  product.b_packed = packed;
  size_t workspace = l.host->gemm_workspace(l.host, &product);
  if (node->mode == LAMINA_TRAIN) {
    product = backward_data_product(&l);
    product.b_packed = packed;
    size_t data = l.host->gemm_workspace(l.host, &product);
    product = backward_weights_product(&l, 0, gradient_rows(&l));
    size_t weights = l.host->gemm_workspace(l.host, &product);
    if (l.out % gradient_rows(&l)) {
      product = backward_weights_product(&l, 0, l.out % gradient_rows(&l));
      size_t rest = l.host->gemm_workspace(l.host, &product);
      weights = rest > weights ? rest : weights;
    }
    if (weights > SIZE_MAX / 4) return l.host->fail(l.host, LAMINA_SHAPE_MISMATCH, "the weight gradient is too large");
    weights = (size_t)round_up((int64_t)weights, 64) + (size_t)scratch_floats(&l) * sizeof(float);
    workspace = data > workspace ? data : workspace;
    workspace = weights > workspace ? weights : workspace;
  }
  const double m = (double)l.rows, n = (double)l.out, k = (double)l.in;
  cost->packed = l.packed;
  cost->workspace = workspace;
  cost->flops = 2 * m * n * k;
  cost->bytes = 4 * (m * k + n * k + m * n);
  cost->backward_flops = (layer_needs_input(node, 0) ? 2 : 1) * cost->flops;
  cost->backward_bytes = (layer_needs_input(node, 0) ? 2 : 1) * cost->bytes;
  product = forward_product(&l);
  product.b_packed = packed;
  cost->algorithm = l.host->gemm_algorithm(l.host, &product);
  return LAMINA_OK;
}

/* Packing with permuted columns: one panel of output features a task. */
typedef struct permute_job {
  const linear *l;
  float *scratch; /* for each thread nr rows of weights in memory order */
} permute_job;

static void pack_permuted(void *arg, int64_t panel, int thread) {
  const permute_job *j = arg;
  const linear *l = j->l;
  const lamina_gemm_kernels *gemm = l->kernels->gemm;
  const int64_t nr = gemm->nr, first = panel * nr, count = layer_min(nr, l->out - first), channels = l->in / l->spatial;
  const float *weight = (const float *)l->node->params[0].data + first * l->in;
  const float *scale = l->node->epilogue.parts & LAMINA_EPILOGUE_AFFINE ? l->node->epilogue.scale + first : NULL;
  float *rows = j->scratch + thread * nr * l->in;
  for (int64_t o = 0; o < count; o++)
    gemm->transpose(channels, l->spatial, weight + o * l->in, l->spatial, rows + o * l->in, channels);
  gemm->pack_b(l->in, count, rows, 1, l->in, scale, l->weights + first * l->in);
  if (!l->weights_backward) return;
  for (int64_t n = 0; n < l->in; n += nr) {
    const int64_t width = layer_min(nr, l->in - n);
    for (int64_t o = 0; o < count; o++) {
      float *to = l->weights_backward + n * l->out + (first + o) * nr;
      memcpy(to, rows + o * l->in + n, (size_t)width * sizeof(float));
      for (int64_t i = width; i < nr; i++) to[i] = 0;
    }
  }
}

static lamina_status pack_weights(const linear *l) {
  const float *weight = l->node->params[0].data;
  if (!packs_weights(l)) return LAMINA_OK;
  if (l->spatial <= 1) {
    const float *scale = l->node->epilogue.parts & LAMINA_EPILOGUE_AFFINE ? l->node->epilogue.scale : NULL;
    l->host->gemm_pack_b(l->host, l->in, l->out, weight, 1, l->in, scale, l->weights);
    if (l->weights_backward) l->host->gemm_pack_b(l->host, l->out, l->in, weight, l->in, 1, NULL, l->weights_backward);
    return LAMINA_OK;
  }
  const int64_t nr = l->kernels->gemm->nr;
  permute_job j = {.l = l};
  size_t bytes;
  if (__builtin_mul_overflow((size_t)(nr * l->host->threads(l->host)) * sizeof(float), (size_t)l->in, &bytes))
    bytes = SIZE_MAX;
  j.scratch = bytes < SIZE_MAX ? l->host->alloc(l->host, bytes) : NULL;
  if (!j.scratch)
    return l->host->fail(l->host, LAMINA_OUT_OF_MEMORY, "out of memory: %zu bytes to pack weights with", bytes);
  l->host->parallel(l->host, layer_ceil_div(l->out, nr), pack_permuted, &j);
  l->host->release(l->host, j.scratch);
  return LAMINA_OK;
}

static lamina_status pack(const lamina_node *node) {
  linear l;
  lamina_status status = describe(node, &l);
  if (status) return status;
  const lamina_epilogue *e = &node->epilogue;
  const float *bias = node->params[1].rank >= 0 ? node->params[1].data : NULL;
  for (int64_t o = 0; o < l.out; o++) {
    l.bias[o] = bias ? bias[o] : 0;
    if (e->parts & LAMINA_EPILOGUE_AFFINE) l.bias[o] = l.bias[o] * e->scale[o] + e->shift[o];
  }
  return pack_weights(&l);
}

static lamina_status forward(const lamina_node *node) {
  linear l;
  lamina_status status = describe(node, &l);
  if (status) return status;
  lamina_gemm product = forward_product(&l);
  l.host->gemm(l.host, &product);
  return LAMINA_OK;
}

/* A piece of the weight gradient, (rows, spatial, channels), to PyTorch's (rows, channels, spatial). */
typedef struct unpermute_job {
  const linear *l;
  const float *piece;
  float *gradient;
  int accumulate;
} unpermute_job;

static void unpermute_row(void *arg, int64_t row, int thread) {
  const unpermute_job *j = arg;
  const linear *l = j->l;
  (void)thread;
  const int64_t channels = l->in / l->spatial;
  const float *from = j->piece + row * l->in;
  float *to = j->gradient + row * l->in;
  if (!j->accumulate) {
    l->kernels->gemm->transpose(l->spatial, channels, from, channels, to, l->spatial);
    return;
  }
  for (int64_t c = 0; c < channels; c++)
    for (int64_t s = 0; s < l->spatial; s++) to[c * l->spatial + s] += from[s * channels + c];
}

static void backward_weights(const linear *l) {
  const int accumulate = l->node->accumulate_params & 1;
  float *gradient = l->node->d_params[0].data, *scratch = l->node->workspace;
  const int64_t rows = gradient_rows(l);
  for (int64_t first = 0; first < l->out; first += rows) {
    const int64_t count = layer_min(rows, l->out - first);
    lamina_gemm product = backward_weights_product(l, first, count);
    product.workspace = scratch + scratch_floats(l);
    if (l->spatial <= 1) {
      product.c = gradient + first * l->in;
      product.accumulate = accumulate;
      l->host->gemm(l->host, &product);
      continue;
    }
    product.c = scratch;
    l->host->gemm(l->host, &product);
    unpermute_job j = {.l = l, .piece = scratch, .gradient = gradient + first * l->in, .accumulate = accumulate};
    layer_parallel(l->host, count, count * l->in, unpermute_row, &j);
  }
}

static lamina_status backward(const lamina_node *node) {
  linear l;
  lamina_status status = describe(node, &l);
  if (status) return status;
  const lamina_tensor *dy = &node->d_outputs[0];
  if (layer_needs_input(node, 0)) {
    lamina_gemm product = backward_data_product(&l);
    l.host->gemm(l.host, &product);
  }
  if (node->need_params & 1) backward_weights(&l);
  if ((node->need_params >> 1 & 1) && node->params[1].rank >= 0)
    lamina_column_sum(l.host, l.kernels, l.rows, l.out, dy->data, row_stride(dy, 1), node->accumulate_params >> 1 & 1,
                      node->d_params[1].data, node->workspace);
  return LAMINA_OK;
}

static const lamina_attr out_features = {.size = sizeof(lamina_attr),
                                         .name = "out_features",
                                         .type = LAMINA_ATTR_INT,
                                         .min = 1,
                                         .max = 1 << 30,
                                         .doc = "features of the output"};
static const lamina_attr bias_attr = {
    .size = sizeof(lamina_attr), .name = "bias", .type = LAMINA_ATTR_BOOL, .def = "true", .doc = "add a learned bias"};
static const lamina_attr in_spatial = {.size = sizeof(lamina_attr),
                                       .name = "in_spatial",
                                       .type = LAMINA_ATTR_INT,
                                       .def = "1",
                                       .min = 1,
                                       .max = 1 << 30,
                                       .doc = "set by the plan when it folded a flatten: the input row is (spatial, "
                                              "channels), of this many spatial positions, "
                                              "while weight has columns in PyTorch's (channels, spatial) order"};

static const lamina_port x_port = {.size = sizeof(lamina_port),
                                   .name = "x",
                                   .kind = LAMINA_PORT_INPUT,
                                   .flags = LAMINA_PORT_BACKWARD_READS,
                                   .doc = "(N, ..., in)"};
static const lamina_port y_port = {
    .size = sizeof(lamina_port), .name = "y", .kind = LAMINA_PORT_OUTPUT, .doc = "(N, ..., out)"};
static const lamina_port weight_port = {.size = sizeof(lamina_port),
                                        .name = "weight",
                                        .kind = LAMINA_PORT_PARAMETER,
                                        .initializer = "kaiming_uniform:2.2360679774997896",
                                        .doc = "(out, in)"};
static const lamina_port bias_port = {.size = sizeof(lamina_port),
                                      .name = "bias",
                                      .kind = LAMINA_PORT_PARAMETER,
                                      .flags = LAMINA_PORT_NO_DECAY,
                                      .initializer = "fan_in_uniform",
                                      .doc = "(out)"};

static const lamina_kernel kernel = {.size = sizeof(lamina_kernel),
                                     .name = "gemm",
                                     .plan = plan,
                                     .pack = pack,
                                     .forward = forward,
                                     .backward = backward};

const lamina_layer lamina_layer_linear = {
    .size = sizeof(lamina_layer),
    .name = "linear",
    .version = 1,
    .doc = "matrix product with learned weights: y = x * weight^T + bias",
    .flags = LAMINA_LAYER_ACCUMULATES,
    .epilogues = LAMINA_EPILOGUE_AFFINE | LAMINA_EPILOGUE_ADD | LAMINA_EPILOGUE_CLAMP | LAMINA_EPILOGUE_ACTIVATION,
    .attrs = (const lamina_attr *const[]){&out_features, &bias_attr, &in_spatial, NULL},
    .ports = (const lamina_port *const[]){&x_port, &y_port, &weight_port, &bias_port, NULL},
    .kernels = (const lamina_kernel *const[]){&kernel, NULL},
    .infer = infer,
};
