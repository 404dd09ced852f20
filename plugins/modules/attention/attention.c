/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scaled_dot_product_attention, for each sample and head: y = softmax(q k^T * scale) v, the softmax over the keys; with
 * is_causal, query i sees keys 0 .. i. Vaswani et al. 2017; torch.nn.functional.scaled_dot_product_attention.
 *
 * Shapes: q (N, L, E), k (N, S, E), v (N, S, F), y (N, L, F); E and F are num_heads heads side by side. scale is
 * 1 / sqrt(E / num_heads) unless given.
 *
 * A task is one head of one sample. It packs k and v once, then takes the queries in even blocks: scores (block x S),
 * softmax and the product with v stay in cache, and a causal block computes no key past its last query. The rows of a
 * block are copied to where they do not share the sets of a cache. The scale is packed into k and v; the softmax is
 * divided by its sum after the product with v, which has fewer columns. Backward computes the probabilities p again,
 * so that nothing is saved, and dv += p^T dy, dp = dy v^T, ds = p (dp - sum(p dp)) scale, dq = ds k, dk += ds^T q.
 * Cost: 2 L S (E + F) operations forward, 2.5 times as many backward; half of it where causal.
 */
#include "../module.h"

enum { HEADS, CAUSAL, SCALE };
enum { Q, K, V };
enum { BLOCK = 64 /* queries at a time, at most */, LINE = 16 };

typedef struct attention {
  const lamina_node *node;
  const lamina_host *host;
  int64_t samples, heads, queries, keys, depth, width; /* depth of q and k, width of v, of one head */
  float scale;
  int causal;
  int64_t ld[3], y_ld, dy_ld, d_ld[3];
  /* of each thread, in floats */
  int64_t packed[4], scale_floats, sum_floats, block_floats[2], score_floats, product_floats, thread_floats;
  int64_t blocks, q_ld, g_ld, score_ld; /* row strides of a block's q, dy and scores */
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

/* The first query of a block; they are even, so that none is a few rows alone. */
static int64_t first_query(const attention *a, int64_t block) {
  const int64_t rest = a->queries % a->blocks;
  return a->queries / a->blocks * block + module_min(block, rest);
}

/* The most workspace that a product of any block takes: only a causal block differs from the first, but for the last.
 */
static size_t most_bytes(const attention *a, int train) {
  size_t most = 0;
  for (int64_t i = 0; i < a->blocks; i = a->causal || i == a->blocks - 1 ? i + 1 : a->blocks - 1) {
    const int64_t first = first_query(a, i), rows = first_query(a, i + 1) - first, keys = visible(a, first, rows);
    const size_t bytes[] = {product_bytes(a, rows, keys, a->depth, 1), product_bytes(a, rows, a->width, keys, 0),
                            product_bytes(a, rows, keys, a->width, 1), product_bytes(a, rows, a->depth, keys, 0),
                            product_bytes(a, keys, a->width, rows, 0), product_bytes(a, keys, a->depth, rows, 0)};
    for (int k = 0; k < (train ? 6 : 2); k++) most = bytes[k] > most ? bytes[k] : most;
  }
  return most;
}

/* A row stride that is an odd number of lines: rows do not share the sets of a cache. */
static int64_t odd_lines(int64_t floats) { return module_round_up(floats, LINE) | LINE; }

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
  if (h->vector->size < offsetof(lamina_vector, softmax_unscaled) + sizeof h->vector->softmax_unscaled)
    return h->fail(h, LAMINA_UNSUPPORTED, "it needs a newer Lamina: this one has no softmax without division");
  const int64_t sizes[4][2] = {{a->depth, a->keys}, {a->keys, a->width}, {a->keys, a->depth}, {a->width, a->keys}};
  for (int i = 0; i < (train ? 4 : 2); i++) {
    const size_t bytes = h->gemm_packed_bytes(h, sizes[i][0], sizes[i][1]);
    if (bytes > SIZE_MAX / 64) return h->fail(h, LAMINA_SHAPE_MISMATCH, "its buffers are more than memory can hold");
    a->packed[i] = module_round_up((int64_t)(bytes / sizeof(float)), LINE);
  }
  a->blocks = module_max(module_ceil_div(a->queries, BLOCK), 1);
  a->score_ld = odd_lines(a->keys);
  a->q_ld = odd_lines(a->depth);
  a->g_ld = odd_lines(a->width);
  const size_t most = most_bytes(a, train);
  a->scale_floats = module_round_up(a->keys, LINE);
  a->sum_floats = BLOCK;
  a->block_floats[0] = BLOCK * a->q_ld;
  a->block_floats[1] = train ? BLOCK * a->g_ld : 0;
  a->score_floats = BLOCK * a->score_ld;
  if (most > SIZE_MAX / 64) return h->fail(h, LAMINA_SHAPE_MISMATCH, "its buffers are more than memory can hold");
  a->product_floats = module_round_up((int64_t)(most / sizeof(float)), LINE);
  a->thread_floats = a->packed[0] + a->packed[1] + a->packed[2] + a->packed[3] + a->scale_floats + a->sum_floats +
                     a->block_floats[0] + a->block_floats[1] + (train ? 2 : 1) * a->score_floats + a->product_floats;
  return LAMINA_OK;
}

/* One head of one sample, and the buffers of the thread that works on it. */
typedef struct head {
  const float *q, *k, *v;
  float *packed[4], *scales, *sums, *q_block, *g_block, *scores, *d_scores,
      *workspace; /* scales: the scale, for each key */
} head;

/* Where the inputs of a head begin. */
static head inputs_of(const attention *a, int64_t index) {
  const int64_t sample = index / a->heads, number = index % a->heads;
  const lamina_tensor *in = a->node->inputs;
  return (head){.q = (const float *)in[Q].data + sample * a->queries * a->ld[Q] + number * a->depth,
                .k = (const float *)in[K].data + sample * a->keys * a->ld[K] + number * a->depth,
                .v = (const float *)in[V].data + sample * a->keys * a->ld[V] + number * a->width};
}

static head head_of(const attention *a, int64_t index, int thread) {
  head h = inputs_of(a, index);
  float *at = module_floats(a->node->workspace, thread * a->thread_floats);
  for (int i = 0; i < 4; at += a->packed[i++]) h.packed[i] = at;
  h.scales = at;
  h.sums = at + a->scale_floats;
  h.q_block = h.sums + a->sum_floats;
  h.g_block = h.q_block + a->block_floats[0];
  h.scores = h.g_block + a->block_floats[1];
  for (int64_t i = 0; i < a->keys; i++) h.scales[i] = a->scale;
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
    a->host->gemm_pack_b_serial(a->host, width, a->keys, b, 1, ld, h->scales, h->packed[which]);
  else
    a->host->gemm_pack_b_serial(a->host, a->keys, width, b, ld, 1, NULL, h->packed[which]);
}

/* C = A B or C += A B with B packed; a product over keys may see only the first of them. */
static void multiply(const attention *a, const head *h, lamina_gemm g, int which, int accumulate) {
  g.accumulate = accumulate;
  g.b_packed = h->packed[which];
  g.packed_k = which == K_T ? a->depth : which == V_T ? a->width : a->keys;
  a->host->gemm_serial(a->host, &g);
}

static void copy_rows(int64_t rows, int64_t width, const float *from, int64_t from_ld, float *to, int64_t to_ld) {
  for (int64_t r = 0; r < rows; r++) memcpy(to + r * to_ld, from + r * from_ld, (size_t)width * sizeof(float));
}

/* The probabilities of a block of queries into h->scores: divided by their sum, or not and the sums into h->sums. */
static void probabilities(const attention *a, const head *h, int64_t first, int64_t rows, int divide) {
  const int64_t keys = visible(a, first, rows);
  copy_rows(rows, a->depth, h->q + first * a->ld[Q], a->ld[Q], h->q_block, a->q_ld);
  multiply(a, h, module_product(rows, keys, a->depth, h->q_block, a->q_ld, 1, h->scores, a->score_ld, h->workspace),
           K_T, 0);
  for (int64_t r = 0; r < rows; r++) {
    float *row = h->scores + r * a->score_ld;
    const int64_t seen = visible(a, first + r, 1);
    if (divide)
      a->host->vector->softmax(seen, row, row);
    else
      h->sums[r] = a->host->vector->softmax_unscaled(seen, row, row);
    for (int64_t c = seen; c < keys; c++) row[c] = 0;
  }
}

MODULE_INLINE void divide_rows(int64_t rows, int64_t width, const float *sums, float *y, int64_t ld) {
  for (int64_t r = 0; r < rows; r++) {
    const float scale = sums[r] > 0 ? 1.0f / sums[r] : sums[r]; /* nothing to attend to is 0, NaN stays */
    for (int64_t c = 0; c < width; c++) y[r * ld + c] *= scale;
  }
}
static void divide_plain(int64_t rows, int64_t width, const float *sums, float *y, int64_t ld) {
  divide_rows(rows, width, sums, y, ld);
}
MODULE_AVX2 static void divide_avx2(int64_t rows, int64_t width, const float *sums, float *y, int64_t ld) {
  divide_rows(rows, width, sums, y, ld);
}

static void forward_task(void *arg, int64_t index, int thread) {
  const attention *a = arg;
  const head h = head_of(a, index, thread);
  float *y = (float *)a->node->outputs[0].data + index / a->heads * a->queries * a->y_ld + index % a->heads * a->width;
  pack(a, &h, K_T);
  pack(a, &h, V_N);
  for (int64_t i = 0; i < a->blocks; i++) {
    const int64_t first = first_query(a, i), rows = first_query(a, i + 1) - first, keys = visible(a, first, rows);
    float *to = y + first * a->y_ld;
    probabilities(a, &h, first, rows, 0);
    multiply(a, &h, module_product(rows, a->width, keys, h.scores, a->score_ld, 1, to, a->y_ld, h.workspace), V_N, 0);
    (module_wide(a->host) ? divide_avx2 : divide_plain)(rows, a->width, h.sums, to, a->y_ld);
  }
}

/* The head's part of an input's gradient; set to zero if the first block is not to write all of it. */
static float *gradient_of(const attention *a, int input, int64_t index, int64_t rows, int64_t width) {
  if (!module_needs_input(a->node, input)) return NULL;
  float *to = (float *)a->node->d_inputs[input].data + index / a->heads * rows * a->d_ld[input];
  to += index % a->heads * width;
  const int clear = input != Q && (a->causal || !a->queries) && !module_adds_input(a->node, input);
  for (int64_t r = 0; clear && r < rows; r++) memset(to + r * a->d_ld[input], 0, (size_t)width * sizeof(float));
  return to;
}

/* C(keys, n) (+)= A^T B for A = p or ds of the block, B = rows of dy or q and C the gradient of an input. */
static void add_transposed(const attention *a, const head *h, lamina_gemm g, const float *b, int64_t b_ld, int add) {
  g.workspace = h->workspace;
  g.b = b;
  g.b_k = b_ld;
  g.b_n = 1;
  g.accumulate = add;
  a->host->gemm_serial(a->host, &g);
}

static void backward_task(void *arg, int64_t index, int thread) {
  const attention *a = arg;
  const head h = head_of(a, index, thread);
  const float *dy = (const float *)a->node->d_outputs[0].data + index / a->heads * a->queries * a->dy_ld +
                    index % a->heads * a->width;
  float *dq = gradient_of(a, Q, index, a->queries, a->depth), *dk = gradient_of(a, K, index, a->keys, a->depth);
  float *dv = gradient_of(a, V, index, a->keys, a->width);
  pack(a, &h, K_T);
  pack(a, &h, K_N);
  pack(a, &h, V_T);
  for (int64_t i = 0; i < a->blocks; i++) {
    const int64_t first = first_query(a, i), rows = first_query(a, i + 1) - first, keys = visible(a, first, rows);
    const int more = i > 0 || a->causal; /* only the first of blocks that see all keys overwrites dk and dv */
    const int64_t ld = a->score_ld;
    probabilities(a, &h, first, rows, 1);
    copy_rows(rows, a->width, dy + first * a->dy_ld, a->dy_ld, h.g_block, a->g_ld);
    if (dv)
      add_transposed(a, &h, module_product(keys, a->width, rows, h.scores, 1, ld, dv, a->d_ld[V], NULL), h.g_block,
                     a->g_ld, more || module_adds_input(a->node, V));
    if (!dq && !dk) continue;
    multiply(a, &h, module_product(rows, keys, a->width, h.g_block, a->g_ld, 1, h.d_scores, ld, h.workspace), V_T, 0);
    for (int64_t r = 0; r < rows; r++)
      a->host->vector->softmax_backward(keys, h.scores + r * ld, h.d_scores + r * ld, 0, h.d_scores + r * ld);
    if (dq)
      multiply(
          a, &h,
          module_product(rows, a->depth, keys, h.d_scores, ld, 1, dq + first * a->d_ld[Q], a->d_ld[Q], h.workspace),
          K_N, module_adds_input(a->node, Q));
    if (dk)
      add_transposed(a, &h, module_product(keys, a->depth, rows, h.d_scores, 1, ld, dk, a->d_ld[K], NULL), h.q_block,
                     a->q_ld, more || module_adds_input(a->node, K));
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
    return node->host->fail(node->host, LAMINA_SHAPE_MISMATCH,
                            "%lld and %lld channels cannot be parted into num_heads = %lld", (long long)q->dim[2],
                            (long long)v->dim[2], heads);
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
