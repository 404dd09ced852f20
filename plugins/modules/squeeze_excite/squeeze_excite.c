/* SPDX-License-Identifier: Apache-2.0 */
/*
 * squeeze_excite: channels weighted by what the whole image says. Hu et al. 2018; torchvision.ops.SqueezeExcitation.
 *
 *   p = mean of x over positions,  u = relu(fc1 p + b1),  s = sigmoid(fc2 u + b2),  y = x * s
 *
 * Shapes: x (N, H, W, C) or (N, L, C); fc1.weight (S, C, 1, 1), fc1.bias (S), fc2.weight (C, S, 1, 1), fc2.bias (C) with
 * S = squeeze_channels; y as x. p, u and s are saved for the backward pass, each a row of each sample: the gradient of s is
 * the sum over positions of dy * x, and dx = dy * s + dp / positions. Cost: two passes over x; the products are small.
 */
#include "../columns.h"

enum { W1, B1, W2, B2 };
enum { TASK_ROWS = 64 };

typedef struct excite {
  const lamina_node *node;
  const lamina_host *host;
  module_matrix x, out, dy;
  int64_t samples, positions, channels, squeezed, parts;
  int add;
  float *w1, *w2, *w1_back, *w2_back; /* packed */
  size_t packed;
  float *p, *u, *s; /* saved */
  size_t saved;
  float *ds, *du, *dp; /* scratch */
  double *sums;        /* of each thread */
  void *product;
  size_t scratch;
} excite;

static lamina_status describe(const lamina_node *node, excite *e) {
  const lamina_host *h = node->host;
  const int train = node->mode == LAMINA_TRAIN;
  size_t bytes;
  *e = (excite){.node = node, .host = h, .x = module_rows(&node->inputs[0]), .samples = node->inputs[0].dim[0]};
  e->positions = e->x.rows / module_max(e->samples, 1);
  e->channels = e->x.channels;
  e->squeezed = node->attrs[0].i;
  e->parts = module_ceil_div(e->channels, COLUMN_SPAN);
  lamina_status status = module_bytes(node, e->samples + e->squeezed + 64, 8 * (e->channels + e->squeezed + 64), &bytes);
  if (status) return status;
  const int64_t wide = (int64_t)(h->gemm_packed_bytes(h, e->channels, e->squeezed) / sizeof(float));
  const int64_t thin = (int64_t)(h->gemm_packed_bytes(h, e->squeezed, e->channels) / sizeof(float));
  e->w1 = module_carve(node->packed, &e->packed, wide);
  e->w2 = module_carve(node->packed, &e->packed, thin);
  e->w1_back = module_carve(node->packed, &e->packed, train ? thin : 0);
  e->w2_back = module_carve(node->packed, &e->packed, train ? wide : 0);
  void *kept = train ? node->saved : node->workspace;
  e->p = module_carve(kept, &e->saved, e->samples * e->channels);
  e->u = module_carve(kept, &e->saved, e->samples * e->squeezed);
  e->s = module_carve(kept, &e->saved, e->samples * e->channels);
  if (!train) e->scratch = e->saved;
  e->ds = module_carve(node->workspace, &e->scratch, train ? e->samples * e->channels : 0);
  e->du = module_carve(node->workspace, &e->scratch, train ? e->samples * e->squeezed : 0);
  e->dp = module_carve(node->workspace, &e->scratch, train ? e->samples * e->channels : 0);
  e->sums = (double *)module_carve(node->workspace, &e->scratch, 2 * COLUMN_SPAN * h->threads(h));
  e->product = node->workspace ? (char *)node->workspace + e->scratch : NULL;
  return LAMINA_OK;
}

static lamina_gemm product_of(const excite *e, int64_t m, int64_t n, int64_t k, const float *a, float *c) {
  return module_product(m, n, k, a, k, 1, c, n, e->product);
}

static lamina_status plan(const lamina_node *node, lamina_cost *cost) {
  excite e;
  lamina_status status = describe(node, &e);
  if (status) return status;
  const int64_t n = e.samples, c = e.channels, s = e.squeezed;
  const int64_t sizes[][4] = {{n, s, c, 1}, {n, c, s, 1}, {s, c, n, 0}, {c, s, n, 0}};
  size_t most = 0;
  for (int i = 0; i < (node->mode == LAMINA_TRAIN ? 4 : 2); i++) {
    static const float mark = 0;
    lamina_gemm g = product_of(&e, sizes[i][0], sizes[i][1], sizes[i][2], NULL, NULL);
    g.b_packed = sizes[i][3] ? &mark : NULL; /* not read: only tells that B will be packed */
    const size_t bytes = e.host->gemm_workspace(e.host, &g);
    most = bytes > most ? bytes : most;
  }
  if (most > SIZE_MAX / 64) return node->host->fail(node->host, LAMINA_SHAPE_MISMATCH, "its products are too large");
  const double count = (double)e.x.rows * (double)c;
  cost->packed = e.packed;
  cost->saved = node->mode == LAMINA_TRAIN ? e.saved : 0;
  cost->workspace = e.scratch + most;
  cost->flops = 2 * count + 4 * (double)n * (double)c * (double)s;
  cost->bytes = 12 * count;
  cost->backward_flops = 2 * cost->flops;
  cost->backward_bytes = 20 * count;
  cost->algorithm = "pool, two products, scale";
  return LAMINA_OK;
}

static lamina_status pack(const lamina_node *node) {
  excite e;
  lamina_status status = describe(node, &e);
  if (status) return status;
  const lamina_host *h = e.host;
  const float *w1 = node->params[W1].data, *w2 = node->params[W2].data;
  h->gemm_pack_b(h, e.channels, e.squeezed, w1, 1, e.channels, NULL, e.w1);
  h->gemm_pack_b(h, e.squeezed, e.channels, w2, 1, e.squeezed, NULL, e.w2);
  if (node->mode != LAMINA_TRAIN) return LAMINA_OK;
  h->gemm_pack_b(h, e.squeezed, e.channels, w1, e.channels, 1, NULL, e.w1_back);
  h->gemm_pack_b(h, e.channels, e.squeezed, w2, e.squeezed, 1, NULL, e.w2_back);
  return LAMINA_OK;
}

/* Sums over the positions of one sample: the mean of x into p, or without dividing dy * x into ds. */
MODULE_INLINE void sums_body(void *arg, int64_t index, int thread) {
  const excite *e = arg;
  const int64_t sample = index / e->parts, c0 = index % e->parts * COLUMN_SPAN;
  const int64_t n = module_min(COLUMN_SPAN, e->channels - c0), first = sample * e->positions;
  const float *x = e->x.data + first * e->x.ld + c0;
  double *sums = e->sums + thread * COLUMN_SPAN;
  if (e->dy.data)
    module_column_sums(COLUMN_DOT, e->positions, n, x, e->x.ld, e->dy.data + first * e->dy.ld + c0, e->dy.ld, NULL, sums);
  else
    module_column_sums(COLUMN_PLAIN, e->positions, n, x, e->x.ld, NULL, 0, NULL, sums);
  float *to = (e->dy.data ? e->ds : e->p) + sample * e->channels + c0;
  for (int64_t c = 0; c < n; c++) to[c] = (float)(e->dy.data ? sums[c] : sums[c] / (double)e->positions);
}
MODULE_TASK(sums)

/* out = x * s, or out (+)= dy * s + dp / positions. */
MODULE_INLINE void apply_body(void *arg, int64_t index, int thread) {
  const excite *e = arg;
  const int64_t n = e->channels, end = module_min((index + 1) * TASK_ROWS, e->x.rows);
  const float scale = 1.0f / (float)e->positions;
  (void)thread;
  for (int64_t r = index * TASK_ROWS; r < end; r++) {
    const float *s = e->s + r / e->positions * n, *dp = e->dp + r / e->positions * n;
    const float *from = e->dy.data ? e->dy.data + r * e->dy.ld : e->x.data + r * e->x.ld;
    float *out = e->out.data + r * e->out.ld;
    if (!e->dy.data)
      for (int64_t c = 0; c < n; c++) out[c] = from[c] * s[c];
    else
      for (int64_t c = 0; c < n; c++) {
        const float d = from[c] * s[c] + dp[c] * scale;
        out[c] = e->add ? out[c] + d : d;
      }
  }
}
MODULE_TASK(apply)

static lamina_status forward(const lamina_node *node) {
  excite e;
  lamina_status status = describe(node, &e);
  if (status) return status;
  const lamina_host *h = e.host;
  MODULE_RUN(h, e.samples * e.parts, sums, &e);
  lamina_gemm g = product_of(&e, e.samples, e.squeezed, e.channels, e.p, e.u);
  g.b_packed = e.w1;
  g.bias = node->params[B1].data;
  g.lo = 0;
  h->gemm(h, &g);
  g = product_of(&e, e.samples, e.channels, e.squeezed, e.u, e.s);
  g.b_packed = e.w2;
  g.bias = node->params[B2].data;
  g.activation = h->vector->sigmoid;
  h->gemm(h, &g);
  e.out = module_rows(&node->outputs[0]);
  MODULE_RUN(h, module_ceil_div(e.x.rows, TASK_ROWS), apply, &e);
  return LAMINA_OK;
}

/* Gradients of one weight, dy^T x for dy (N, out) and x (N, in), and of its bias. */
static void parameter_gradients(const excite *e, int weight, int64_t out, int64_t in, const float *dy, const float *x) {
  const lamina_node *node = e->node;
  if (module_needs_param(node, weight)) {
    lamina_gemm g = product_of(e, out, in, e->samples, dy, node->d_params[weight].data);
    g.a_row = 1;
    g.a_k = out;
    g.b = x;
    g.b_k = in;
    g.b_n = 1;
    g.accumulate = module_adds_param(node, weight);
    e->host->gemm(e->host, &g);
  }
  float *bias = module_needs_param(node, weight + 1) ? node->d_params[weight + 1].data : NULL;
  for (int64_t c = 0; bias && c < out; c++) {
    double sum = module_adds_param(node, weight + 1) ? bias[c] : 0;
    for (int64_t n = 0; n < e->samples; n++) sum += dy[n * out + c];
    bias[c] = (float)sum;
  }
}

static lamina_status backward(const lamina_node *node) {
  excite e;
  lamina_status status = describe(node, &e);
  if (status) return status;
  const lamina_host *h = e.host;
  e.dy = module_rows(&node->d_outputs[0]);
  MODULE_RUN(h, e.samples * e.parts, sums, &e);
  for (int64_t i = 0; i < e.samples * e.channels; i++) e.ds[i] *= e.s[i] * (1 - e.s[i]);
  lamina_gemm g = product_of(&e, e.samples, e.squeezed, e.channels, e.ds, e.du);
  g.b_packed = e.w2_back;
  h->gemm(h, &g);
  for (int64_t i = 0; i < e.samples * e.squeezed; i++) e.du[i] = e.u[i] > 0 ? e.du[i] : 0;
  g = product_of(&e, e.samples, e.channels, e.squeezed, e.du, e.dp);
  g.b_packed = e.w1_back;
  h->gemm(h, &g);
  parameter_gradients(&e, W1, e.squeezed, e.channels, e.du, e.p);
  parameter_gradients(&e, W2, e.channels, e.squeezed, e.ds, e.u);
  if (!module_needs_input(node, 0)) return LAMINA_OK;
  e.out = module_rows(&node->d_inputs[0]);
  e.add = module_adds_input(node, 0);
  MODULE_RUN(h, module_ceil_div(e.x.rows, TASK_ROWS), apply, &e);
  return LAMINA_OK;
}

static lamina_status infer(lamina_node *node) {
  lamina_status status = module_check_rank(node, 0, 3, LAMINA_MAX_RANK, "(N, ..., C) with positions");
  if (status) return status;
  const int64_t channels = node->inputs[0].dim[node->inputs[0].rank - 1], squeezed = node->attrs[0].i;
  module_copy_shape(&node->outputs[0], &node->inputs[0]);
  module_shape(&node->params[W1], 4, squeezed, channels);
  module_shape(&node->params[B1], 1, squeezed, 0);
  module_shape(&node->params[W2], 4, channels, squeezed);
  module_shape(&node->params[B2], 1, channels, 0);
  for (int i = W1; i <= W2; i += W2 - W1) node->params[i].dim[2] = node->params[i].dim[3] = 1;
  return LAMINA_OK;
}

MODULE_ATTR(squeeze_channels, "squeeze_channels", LAMINA_ATTR_INT, NULL, 1, 1 << 24, "S, channels between fc1 and fc2");
MODULE_INPUT(x_port, "x", LAMINA_PORT_BACKWARD_READS, "(N, ..., C)");
MODULE_OUTPUT(y_port, "y", 0, "the shape of x");
MODULE_PARAMETER(w1_port, "fc1.weight", 0, "kaiming_uniform:2.2360679774997896", "(S, C, 1, 1)");
MODULE_PARAMETER(b1_port, "fc1.bias", LAMINA_PORT_NO_DECAY, "zeros", "(S)");
MODULE_PARAMETER(w2_port, "fc2.weight", 0, "kaiming_uniform:2.2360679774997896", "(C, S, 1, 1)");
MODULE_PARAMETER(b2_port, "fc2.bias", LAMINA_PORT_NO_DECAY, "zeros", "(C)");
static const lamina_kernel kernel = {
    .size = sizeof(lamina_kernel), .name = "gemm", .plan = plan, .pack = pack, .forward = forward, .backward = backward};

static const lamina_layer squeeze_excite = {.size = sizeof(lamina_layer),
                                            .name = "squeeze_excite",
                                            .version = 1,
                                            .doc = "channels scaled by a small network on their means",
                                            .flags = LAMINA_LAYER_ACCUMULATES,
                                            .attrs = MODULE_ATTRS(&squeeze_channels),
                                            .ports = MODULE_PORTS(&x_port, &y_port, &w1_port, &b1_port, &w2_port, &b2_port),
                                            .kernels = MODULE_KERNELS(&kernel),
                                            .infer = infer};

LAMINA_PLUGIN("lamina.squeeze_excite", "1.0", "squeeze_excite", &squeeze_excite);
