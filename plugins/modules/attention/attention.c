/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scaled_dot_product_attention, for each sample and head: y = softmax(q k^T * scale) v, the softmax over the keys; with
 * is_causal, query i sees keys 0 .. i. Vaswani et al. 2017; torch.nn.functional.scaled_dot_product_attention.
 *
 * Shapes: q (N, L, E), k (N, S, E), v (N, S, F), y (N, L, F); E and F are num_heads heads side by side. scale is
 * 1 / sqrt(E / num_heads) unless given.
 *
 * A task is one head of one sample. It packs k and v once, then takes the queries in blocks: scores (block x S), softmax and
 * the product with v stay in cache, and a causal block computes no key past its last query. Backward computes the
 * probabilities p again (nothing is saved): dv += p^T dy, dp = dy v^T, ds = p (dp - sum(p dp)) scale, dq = ds k,
 * dk += ds^T q. Cost: 2 L S (E + F) operations forward, 2.5 times as many backward; half of it where causal.
 */
#include "../module.h"

enum { HEADS, CAUSAL, SCALE };
enum { Q, K, V };
enum { BLOCK = 64 /* queries at a time */, LINE = 16 };

typedef struct attention {
  const lamina_node *node;
  const lamina_host *host;
  int64_t samples, heads, queries, keys, depth, width; /* depth of q and k, width of v, of one head */
  float scale;
  int causal;
  int64_t ld[3], y_ld, dy_ld, d_ld[3];
  /* of each thread, in floats */
  int64_t packed[4], block_floats, score_floats, product_floats, thread_floats;
} attention;

/* B of the four products with k and v: k^T, v, and in backward k, v^T. */
enum { K_T, V_N, K_N, V_T };

/* Workspace of one product, given B packed or not. */
static size_t product_bytes(const attention *a, int64_t m, int64_t n, int64_t k, int packed) {
  static const float mark = 0;
  lamina_gemm g = module_product(m, n, k, NULL, k, 1, NULL, n, NULL);
  g.b_packed = packed ? &mark : NULL; /* not read: only tells that B will be packed */
  return a->host->gemm_serial_workspace(a->host, &g);
}

/* Keys that queries first .. first + rows - 1 see together. */
static int64_t visible(const attention *a, int64_t first, int64_t rows) {
  return a->causal ? module_min(first + rows, a->keys) : a->keys;
}

/* The most workspace that a product of any block takes: only a causal block differs from the first, but for the last. */
static size_t most_bytes(const attention *a, int train) {
  const int64_t last = (a->queries - 1) / BLOCK * BLOCK;
  size_t most = 0;
  for (int64_t first = 0; first <= last; first = a->causal || first == last ? first + BLOCK : last) {
    const int64_t rows = module_min(BLOCK, a->queries - first), keys = visible(a, first, rows);
    const size_t bytes[] = {product_bytes(a, rows, keys, a->depth, 1), product_bytes(a, rows, a->width, keys, 0),
                            product_bytes(a, rows, keys, a->width, 1), product_bytes(a, rows, a->depth, keys, 0),
                            product_bytes(a, keys, a->width, rows, 0), product_bytes(a, keys, a->depth, rows, 0)};
    for (int i = 0; i < (train ? 6 : 2); i++) most = bytes[i] > most ? bytes[i] : most;
  }
  return most;
}

static lamina_status describe(const lamina_node *node, attention *a) {
  const lamina_tensor *q = &node->inputs[Q], *v = &node->inputs[V];
  *a = (attention){.node = node, .host = node->host, .samples = q->dim[0], .heads = node->attrs[HEADS].i};
  a->queries = q->dim[1];
  a->keys = v->dim[1];
  a->depth = q->dim[2] / a->heads;
  a->width = v->dim[2] / a->heads;
  a->causal = node->attrs[CAUSAL].i != 0;
  a->scale = (float)(isnan(node->attrs[SCALE].f) ? 1 / sqrt((double)a->depth) : node->attrs[SCALE].f);
  for (int i = 0; i < 3; i++) a->ld[i] = module_rows(&node->inputs[i]).ld;
  const int train = node->mode == LAMINA_TRAIN;
  const lamina_host *h = node->host;
  const int64_t sizes[4][2] = {{a->depth, a->keys}, {a->keys, a->width}, {a->keys, a->depth}, {a->width, a->keys}};
  for (int i = 0; i < (train ? 4 : 2); i++) {
    const size_t bytes = h->gemm_packed_bytes(h, sizes[i][0], sizes[i][1]);
    if (bytes > SIZE_MAX / 64) return h->fail(h, LAMINA_SHAPE_MISMATCH, "its buffers are more than memory can hold");
    a->packed[i] = module_round_up((int64_t)(bytes / sizeof(float)), LINE);
  }
  const size_t most = most_bytes(a, train);
  a->block_floats = BLOCK * module_round_up(module_max(a->depth, a->width), LINE);
  a->score_floats = BLOCK * module_round_up(a->keys, LINE);
  if (most > SIZE_MAX / 64) return h->fail(h, LAMINA_SHAPE_MISMATCH, "its buffers are more than memory can hold");
  a->product_floats = module_round_up((int64_t)(most / sizeof(float)), LINE);
  a->thread_floats = a->packed[0] + a->packed[1] + a->packed[2] + a->packed[3] + a->block_floats +
                     (train ? 2 : 1) * a->score_floats + a->product_floats;
  return LAMINA_OK;
}

/* One head of one sample, and the buffers of the thread that works on it. */
typedef struct head {
  const float *q, *k, *v;
  float *packed[4], *block, *scores, *d_scores, *workspace;
  int64_t score_ld;
} head;

static head head_of(const attention *a, int64_t index, int thread) {
  const int64_t sample = index / a->heads, number = index % a->heads;
  const lamina_tensor *in = a->node->inputs;
  head h = {.q = (const float *)in[Q].data + sample * a->queries * a->ld[Q] + number * a->depth,
            .k = (const float *)in[K].data + sample * a->keys * a->ld[K] + number * a->depth,
            .v = (const float *)in[V].data + sample * a->keys * a->ld[V] + number * a->width,
            .score_ld = module_round_up(a->keys, LINE)};
  float *at = module_floats(a->node->workspace, thread * a->thread_floats);
  for (int i = 0; i < 4; at += a->packed[i++]) h.packed[i] = at;
  h.block = at;
  h.scores = at + a->block_floats;
  h.workspace = h.scores + a->score_floats;
  if (a->node->mode == LAMINA_TRAIN) {
    h.d_scores = h.workspace;
    h.workspace += a->score_floats;
  }
  return h;
}

static void pack(const attention *a, const head *h, int which) {
  const int of_k = which == K_T || which == K_N, transposed = which == K_T || which == V_T;
  const float *b = of_k ? h->k : h->v;
  const int64_t width = of_k ? a->depth : a->width, ld = of_k ? a->ld[K] : a->ld[V];
  if (transposed)
    a->host->gemm_pack_b_serial(a->host, width, a->keys, b, 1, ld, NULL, h->packed[which]);
  else
    a->host->gemm_pack_b_serial(a->host, a->keys, width, b, ld, 1, NULL, h->packed[which]);
}

/* C = A B or C += A B with B packed, or unpacked where the depth is only part of the packed keys. */
static void multiply(const attention *a, const head *h, lamina_gemm g, int which, int accumulate) {
  const int of_k = which == K_T || which == K_N;
  g.accumulate = accumulate;
  g.b = of_k ? h->k : h->v;
  g.b_k = of_k ? a->ld[K] : a->ld[V];
  g.b_n = 1;
  if (which == K_T || which == V_T || g.k == a->keys) g.b_packed = h->packed[which];
  a->host->gemm_serial(a->host, &g);
}

/* The probabilities of a block of queries into h->scores. */
static void probabilities(const attention *a, const head *h, int64_t first, int64_t rows) {
  const int64_t keys = visible(a, first, rows);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < a->depth; c++) h->block[r * a->depth + c] = h->q[(first + r) * a->ld[Q] + c] * a->scale;
  multiply(a, h, module_product(rows, keys, a->depth, h->block, a->depth, 1, h->scores, h->score_ld, h->workspace), K_T, 0);
  for (int64_t r = 0; r < rows; r++) {
    float *row = h->scores + r * h->score_ld;
    const int64_t seen = visible(a, first + r, 1);
    a->host->vector->softmax(seen, row, row);
    for (int64_t c = seen; c < keys; c++) row[c] = 0;
  }
}

static void forward_task(void *arg, int64_t index, int thread) {
  const attention *a = arg;
  const head h = head_of(a, index, thread);
  float *y = (float *)a->node->outputs[0].data + index / a->heads * a->queries * a->y_ld + index % a->heads * a->width;
  pack(a, &h, K_T);
  pack(a, &h, V_N);
  for (int64_t first = 0; first < a->queries; first += BLOCK) {
    const int64_t rows = module_min(BLOCK, a->queries - first), keys = visible(a, first, rows);
    probabilities(a, &h, first, rows);
    multiply(a, &h, module_product(rows, a->width, keys, h.scores, h.score_ld, 1, y + first * a->y_ld, a->y_ld, h.workspace), V_N,
             0);
  }
}

static float *gradient_of(const attention *a, int input, int64_t index, int64_t rows, int64_t width) {
  if (!module_needs_input(a->node, input)) return NULL;
  float *to = (float *)a->node->d_inputs[input].data + index / a->heads * rows * a->d_ld[input];
  to += index % a->heads * width;
  for (int64_t r = 0; !module_adds_input(a->node, input) && r < rows; r++)
    memset(to + r * a->d_ld[input], 0, (size_t)width * sizeof(float));
  return to;
}

/* C(keys, n) += A^T B for A = p or ds of the block and B = rows of dy or q. */
static void add_transposed(const attention *a, const head *h, int64_t keys, int64_t n, int64_t rows, const float *scores,
                           const float *b, int64_t b_ld, float *c, int64_t c_ld) {
  lamina_gemm g = module_product(keys, n, rows, scores, 1, h->score_ld, c, c_ld, h->workspace);
  g.b = b;
  g.b_k = b_ld;
  g.b_n = 1;
  g.accumulate = 1;
  a->host->gemm_serial(a->host, &g);
}

static void backward_task(void *arg, int64_t index, int thread) {
  const attention *a = arg;
  const head h = head_of(a, index, thread);
  const float *dy =
      (const float *)a->node->d_outputs[0].data + index / a->heads * a->queries * a->dy_ld + index % a->heads * a->width;
  float *dq = gradient_of(a, Q, index, a->queries, a->depth), *dk = gradient_of(a, K, index, a->keys, a->depth);
  float *dv = gradient_of(a, V, index, a->keys, a->width);
  pack(a, &h, K_T);
  pack(a, &h, K_N);
  pack(a, &h, V_T);
  for (int64_t first = 0; first < a->queries; first += BLOCK) {
    const int64_t rows = module_min(BLOCK, a->queries - first), keys = visible(a, first, rows);
    const float *g = dy + first * a->dy_ld;
    probabilities(a, &h, first, rows);
    if (dv) add_transposed(a, &h, keys, a->width, rows, h.scores, g, a->dy_ld, dv, a->d_ld[V]);
    if (!dq && !dk) continue;
    multiply(a, &h, module_product(rows, keys, a->width, g, a->dy_ld, 1, h.d_scores, h.score_ld, h.workspace), V_T, 0);
    for (int64_t r = 0; r < rows; r++) {
      float *row = h.d_scores + r * h.score_ld;
      a->host->vector->softmax_backward(keys, h.scores + r * h.score_ld, row, 0, row);
      for (int64_t c = 0; c < keys; c++) row[c] *= a->scale;
    }
    if (dq)
      multiply(a, &h, module_product(rows, a->depth, keys, h.d_scores, h.score_ld, 1, dq + first * a->d_ld[Q], a->d_ld[Q], h.workspace),
               K_N, 1);
    if (dk) add_transposed(a, &h, keys, a->depth, rows, h.d_scores, h.q + first * a->ld[Q], a->ld[Q], dk, a->d_ld[K]);
  }
}

static lamina_status forward(const lamina_node *node) {
  attention a;
  lamina_status status = describe(node, &a);
  if (status) return status;
  a.y_ld = module_rows(&node->outputs[0]).ld;
  node->host->parallel(node->host, a.samples * a.heads, forward_task, &a);
  return LAMINA_OK;
}

static lamina_status backward(const lamina_node *node) {
  attention a;
  lamina_status status = describe(node, &a);
  if (status) return status;
  a.dy_ld = module_rows(&node->d_outputs[0]).ld;
  for (int i = 0; i < 3; i++)
    if (module_needs_input(node, i)) a.d_ld[i] = module_rows(&node->d_inputs[i]).ld;
  node->host->parallel(node->host, a.samples * a.heads, backward_task, &a);
  return LAMINA_OK;
}

static lamina_status plan(const lamina_node *node, lamina_cost *cost) {
  attention a;
  lamina_status status = describe(node, &a);
  if (!status) status = module_bytes(node, a.thread_floats, node->host->threads(node->host), &cost->workspace);
  if (status) return status;
  const double heads = (double)a.samples * (double)a.heads, inner = (double)(a.depth + a.width);
  cost->flops = heads * 2 * (double)a.queries * (double)a.keys * inner * (a.causal ? 0.5 : 1);
  cost->bytes = heads * 4 * inner * (double)(a.queries + a.keys);
  cost->backward_flops = 2.5 * cost->flops;
  cost->backward_bytes = 2 * cost->bytes;
  cost->algorithm = a.causal ? "blocks of queries, causal" : "blocks of queries";
  return LAMINA_OK;
}

static lamina_status infer(lamina_node *node) {
  const lamina_tensor *q = &node->inputs[Q], *k = &node->inputs[K], *v = &node->inputs[V];
  const long long heads = (long long)node->attrs[HEADS].i;
  lamina_status status = LAMINA_OK;
  for (int i = 0; i < 3 && !status; i++) status = module_check_rank(node, i, 3, 3, "(N, length, heads * depth)");
  if (status) return status;
  if (k->dim[0] != q->dim[0] || v->dim[0] != q->dim[0] || k->dim[1] != v->dim[1] || k->dim[2] != q->dim[2])
    return node->host->fail(node->host, LAMINA_SHAPE_MISMATCH,
                            "q, k and v must be (N, L, E), (N, S, E) and (N, S, F) with the same N, S and E");
  if (q->dim[2] % heads != 0 || v->dim[2] % heads != 0)
    return node->host->fail(node->host, LAMINA_SHAPE_MISMATCH, "%lld and %lld channels cannot be parted into num_heads = %lld",
                            (long long)q->dim[2], (long long)v->dim[2], heads);
  module_copy_shape(&node->outputs[0], q);
  node->outputs[0].dim[2] = v->dim[2];
  return LAMINA_OK;
}

MODULE_ATTR(num_heads, "num_heads", LAMINA_ATTR_INT, "1", 1, 1 << 20, "heads that the channels are parted into");
MODULE_ATTR(is_causal, "is_causal", LAMINA_ATTR_BOOL, "false", 0, 0, "query i sees keys 0 .. i alone");
static const lamina_attr scale = {.size = sizeof(lamina_attr),
                                  .name = "scale",
                                  .type = LAMINA_ATTR_FLOAT,
                                  .def = "none",
                                  .min = -1e30,
                                  .max = 1e30,
                                  .allow_none = 1,
                                  .doc = "of the scores; none: 1 / sqrt(depth of a head)"};
MODULE_INPUT(q_port, "q", LAMINA_PORT_BACKWARD_READS, "(N, L, E)");
MODULE_INPUT(k_port, "k", LAMINA_PORT_BACKWARD_READS, "(N, S, E)");
MODULE_INPUT(v_port, "v", LAMINA_PORT_BACKWARD_READS, "(N, S, F)");
MODULE_OUTPUT(y_port, "y", 0, "(N, L, F)");
MODULE_KERNEL(kernel, plan, forward, backward);

static const lamina_layer layer = {.size = sizeof(lamina_layer),
                                   .name = "scaled_dot_product_attention",
                                   .version = 1,
                                   .doc = "softmax(q k^T * scale) v for each head",
                                   .attrs = MODULE_ATTRS(&num_heads, &is_causal, &scale),
                                   .ports = MODULE_PORTS(&q_port, &k_port, &v_port, &y_port),
                                   .kernels = MODULE_KERNELS(&kernel),
                                   .infer = infer};

LAMINA_PLUGIN("lamina.attention", "1.0", "scaled_dot_product_attention", &layer);
