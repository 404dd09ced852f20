/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The walk of lstm.c and gru.c over time, G gates of H floats.
 *
 * All is held time by time, (L, N, ...), so that a step reads and writes dense rows: x is copied into that order, and
 * its product with weight_ih is one large GEMM over as many times as leave their gates in L2. A step is one GEMM (N x
 * GH x H) with weight_hh, packed once, and then the cell on each row. Backward walks back with one GEMM a step; the
 * gradients of weights, of x and of the biases are then one large product or sum over all times each. Training saves
 * gates and states: L N (G + 1) H floats, and L N H (lstm: c) or L N 3H (gru: the product with h) more.
 */
#include "recurrent.h"

enum {
  LINE = 16,
  ROW_FLOATS = 4096 /* gates of a task of rows */,
  TASK_COLUMNS = 64,
  PRODUCT_ROWS = 112 /* of a product with x, at least */
};

static lamina_gemm product_of(const recurrent *r, int64_t m, int64_t n, int64_t k, const float *a, int64_t a_row,
                              int64_t a_k, float *c) {
  return module_product(m, n, k, a, a_row, a_k, c, n, r->product);
}

/* Runs C (+)= A B with B packed. */
static void multiply_packed(const recurrent *r, lamina_gemm g, const float *packed, const float *bias, int accumulate) {
  g.b_packed = packed;
  g.bias = bias;
  g.accumulate = accumulate;
  r->host->gemm(r->host, &g);
}

/* Times whose gates half of L2 holds from the product with x to the step, but enough rows for a large product. The bits
   of a row do not depend on how many are multiplied together. */
static int64_t times_together(const recurrent *r) {
  const double fit = 0.5 * (double)r->host->cpu->l2 / (4.0 * (double)r->gates * (double)module_max(r->samples, 1));
  const int64_t times = fit < (double)r->times ? (int64_t)fit : r->times;
  return module_max(module_min(module_max(times, module_ceil_div(PRODUCT_ROWS, module_max(r->samples, 1))), r->times),
                    1);
}

static size_t most_product(const recurrent *r) {
  const int train = r->node->mode == LAMINA_TRAIN;
  const int64_t rows = r->samples * r->times, earlier = r->samples * (r->times - 1);
  const int64_t rest = r->times % r->together * r->samples;
  const int64_t sizes[][4] = {{r->together * r->samples, r->gates, r->in, 1},
                              {rest, r->gates, r->in, 1},
                              {r->samples, r->gates, r->size, 1},
                              {rows, r->in, r->gates, 1},
                              {r->samples, r->size, r->gates, 1},
                              {r->gates, r->in, rows, 0},
                              {r->gates, r->size, earlier, 0}};
  size_t most = 0;
  for (int i = 0; i < (train ? 7 : 3); i++) {
    lamina_gemm g = product_of(r, sizes[i][0], sizes[i][1], sizes[i][2], NULL, sizes[i][2], 1, NULL);
    static const float mark = 0;
    g.b_packed = sizes[i][3] ? &mark : NULL; /* not read: only tells that B will be packed */
    const size_t bytes = r->host->gemm_workspace(r->host, &g);
    most = bytes > most ? bytes : most;
  }
  return most;
}

static int64_t norm_sums(const recurrent *r) { return 3 * r->gates + 2 * r->size; }

/* Sizes, and where everything lies in the buffers that the node has by now. */
static lamina_status describe(const lamina_node *node, const recurrent_cell *cell, recurrent *r) {
  const lamina_tensor *x = &node->inputs[0];
  const int train = node->mode == LAMINA_TRAIN;
  *r = (recurrent){
      .node = node, .host = node->host, .cell = cell, .samples = x->dim[0], .times = x->dim[1], .in = x->dim[2]};
  r->size = node->attrs[RECURRENT_HIDDEN_SIZE].i;
  r->gates = cell->gates * r->size;
  r->norm = cell->norm && node->attrs[RECURRENT_NORM_STEPS].i > 0;
  r->separate = cell->separate || r->norm;
  r->last = strcmp(node->attrs[RECURRENT_OUTPUT].s, "last") == 0;
  size_t bytes;
  lamina_status status = module_bytes(node, r->samples * r->times, 4 * (r->gates + r->in + LINE), &bytes);
  if (!status && r->norm) status = module_bytes(node, node->attrs[RECURRENT_NORM_STEPS].i, 8 * r->gates, &bytes);
  if (!status) status = module_bytes(node, r->gates + 64, 4 * (r->size + r->in + 64), &bytes);
  if (status) return status;
  const int64_t rows = r->samples * r->times, step = r->samples * r->size;
  const int64_t ih = (int64_t)(r->host->gemm_packed_bytes(r->host, r->in, r->gates) / sizeof(float));
  const int64_t hh = (int64_t)(r->host->gemm_packed_bytes(r->host, r->size, r->gates) / sizeof(float));
  const int64_t ih_back = (int64_t)(r->host->gemm_packed_bytes(r->host, r->gates, r->in) / sizeof(float));
  const int64_t hh_back = (int64_t)(r->host->gemm_packed_bytes(r->host, r->gates, r->size) / sizeof(float));
  r->w_ih = module_carve(node->packed, &r->packed, ih);
  r->w_hh = module_carve(node->packed, &r->packed, hh);
  r->b_ih = module_carve(node->packed, &r->packed, r->gates);
  r->b_hh = module_carve(node->packed, &r->packed, r->gates);
  r->w_ih_back = module_carve(node->packed, &r->packed, train ? ih_back : 0);
  r->w_hh_back = module_carve(node->packed, &r->packed, train ? hh_back : 0);
  void *kept = train ? node->saved : node->workspace;
  r->together = times_together(r);
  r->kept = train ? r->times : r->together;
  const int64_t gates = r->samples * r->kept * r->gates;
  r->gate = module_carve(kept, &r->saved, gates);
  r->hidden = module_carve(kept, &r->saved, r->separate ? gates : 0);
  r->h = module_carve(kept, &r->saved, rows * r->size + step);
  r->c = module_carve(kept, &r->saved, cell->separate ? 0 : rows * r->size + step);
  const int64_t normal = r->norm ? train ? rows : r->samples : 0; /* rows of normalised values */
  r->x_hat = module_carve(kept, &r->saved, normal * r->gates);
  r->c_hat = module_carve(kept, &r->saved, normal * r->size);
  r->norm_scale = module_carve(kept, &r->saved, r->norm && train ? r->times * (2 * r->gates + r->size) : 0);
  if (!train) r->scratch = r->saved;
  r->x = module_carve(node->workspace, &r->scratch, rows * r->in);
  r->dx = module_carve(node->workspace, &r->scratch, train ? rows * r->in : 0);
  r->d_gate = r->d_hidden = module_carve(node->workspace, &r->scratch, train ? rows * r->gates : 0);
  if (r->separate) r->d_hidden = module_carve(node->workspace, &r->scratch, train ? rows * r->gates : 0);
  r->dh = module_carve(node->workspace, &r->scratch, train ? step : 0);
  r->dc = module_carve(node->workspace, &r->scratch, train ? step : 0);
  r->norm_dc = module_carve(node->workspace, &r->scratch, r->norm && train ? step : 0);
  r->norm_sums = (double *)(void *)module_carve(node->workspace, &r->scratch, r->norm && train ? 2 * norm_sums(r) : 0);
  r->product = node->workspace ? (char *)node->workspace + r->scratch : NULL;
  return LAMINA_OK;
}

lamina_status recurrent_plan(const lamina_node *node, lamina_cost *cost, const recurrent_cell *cell) {
  recurrent r;
  lamina_status status = describe(node, cell, &r);
  if (status) return status;
  const size_t most = most_product(&r);
  if (most > SIZE_MAX / 64) return node->host->fail(node->host, LAMINA_SHAPE_MISMATCH, "its products are too large");
  if (r.norm && node->mode == LAMINA_TRAIN && !node->frozen_states && r.samples == 1)
    return node->host->fail(node->host, LAMINA_SHAPE_MISMATCH,
                            "batch_norm_steps: training expects more than 1 sample for the statistics of a step");
  const double rows = (double)r.samples * (double)r.times, weights = (double)r.gates * (double)(r.in + r.size);
  cost->packed = r.packed;
  cost->saved = node->mode == LAMINA_TRAIN ? r.saved : 0;
  cost->workspace = r.scratch + most;
  cost->flops = 2 * rows * weights;
  cost->bytes = 4 * (weights * (double)r.times + rows * (double)(2 * r.in + 3 * r.gates + r.size));
  cost->backward_flops = 2 * cost->flops;
  cost->backward_bytes = 2 * cost->bytes;
  const lamina_gemm g = product_of(&r, r.samples, r.gates, r.size, NULL, r.size, 1, NULL);
  cost->algorithm = r.host->gemm_algorithm(r.host, &g);
  return LAMINA_OK;
}

lamina_status recurrent_pack(const lamina_node *node, const recurrent_cell *cell) {
  recurrent r;
  lamina_status status = describe(node, cell, &r);
  if (status) return status;
  const lamina_host *h = r.host;
  const float *w_ih = node->params[RECURRENT_W_IH].data, *w_hh = node->params[RECURRENT_W_HH].data;
  const float *b_ih = module_param(node, RECURRENT_B_IH), *b_hh = module_param(node, RECURRENT_B_HH);
  h->gemm_pack_b(h, r.in, r.gates, w_ih, 1, r.in, NULL, r.w_ih);
  h->gemm_pack_b(h, r.size, r.gates, w_hh, 1, r.size, NULL, r.w_hh);
  if (node->mode == LAMINA_TRAIN) {
    h->gemm_pack_b(h, r.gates, r.in, w_ih, r.in, 1, NULL, r.w_ih_back);
    h->gemm_pack_b(h, r.gates, r.size, w_hh, r.size, 1, NULL, r.w_hh_back);
  }
  for (int64_t i = 0; i < r.gates; i++) {
    const float x = b_ih ? b_ih[i] : 0, y = b_hh ? b_hh[i] : 0;
    r.b_ih[i] = cell->separate ? x : x + y;
    r.b_hh[i] = y;
  }
  return LAMINA_OK;
}

/* x to its copy time by time, or the gradient of that copy to the gradient of x. */
static void copy_x_task(void *arg, int64_t sample, int thread) {
  const recurrent *r = arg;
  const module_matrix x = module_rows(&r->node->inputs[0]);
  (void)thread;
  for (int64_t t = 0; t < r->times; t++)
    memcpy(r->x + (t * r->samples + sample) * r->in, x.data + (sample * r->times + t) * x.ld,
           (size_t)r->in * sizeof(float));
}

static void copy_dx_task(void *arg, int64_t sample, int thread) {
  const recurrent *r = arg;
  const module_matrix dx = module_rows(&r->node->d_inputs[0]);
  const int add = module_adds_input(r->node, 0);
  (void)thread;
  for (int64_t t = 0; t < r->times; t++) {
    const float *from = r->dx + (t * r->samples + sample) * r->in;
    float *to = dx.data + (sample * r->times + t) * dx.ld;
    for (int64_t i = 0; i < r->in; i++) to[i] = add ? to[i] + from[i] : from[i];
  }
}

/* Where the gates of r->time begin. */
static int64_t gates_at(const recurrent *r) { return r->time % r->kept * r->samples * r->gates; }

static recurrent_row row_of(const recurrent *r, int64_t sample) {
  const int64_t row = r->time * r->samples + sample, after = row + r->samples;
  return (recurrent_row){.n = r->size,
                         .gates = r->gate + gates_at(r) + sample * r->gates,
                         .hidden = r->hidden + gates_at(r) + sample * r->gates,
                         .h0 = r->h + row * r->size,
                         .h1 = r->h + after * r->size,
                         .c0 = r->c + row * r->size,
                         .c1 = r->c + after * r->size,
                         .dh = r->dh + sample * r->size,
                         .dc = r->dc + sample * r->size,
                         .d_gates = r->d_gate + row * r->gates,
                         .d_hidden = r->d_hidden + row * r->gates};
}

static int64_t rows_of_task(const recurrent *r) { return module_max(ROW_FLOATS / r->gates, 1); }

/* Where y, or its gradient, has this sample at this time; NULL for a time that is not part of y. */
static float *output_row(const recurrent *r, const lamina_tensor *y, int64_t sample) {
  const module_matrix m = module_rows(y);
  if (!r->last) return m.data + (sample * r->times + r->time) * m.ld;
  return r->time == r->times - 1 ? m.data + sample * m.ld : NULL;
}

static void forward_task(void *arg, int64_t index, int thread) {
  const recurrent *r = arg;
  const int64_t step = rows_of_task(r), end = module_min((index + 1) * step, r->samples);
  (void)thread;
  for (int64_t n = index * step; n < end; n++) {
    const recurrent_row row = row_of(r, n);
    if (!r->norm) (module_wide(r->host) ? r->cell->forward_avx2 : r->cell->forward)(r->host, &row);
    float *y = output_row(r, &r->node->outputs[0], n);
    if (y) memcpy(y, row.h1, (size_t)r->size * sizeof(float));
  }
}

static void backward_task(void *arg, int64_t index, int thread) {
  const recurrent *r = arg;
  const int64_t step = rows_of_task(r), end = module_min((index + 1) * step, r->samples);
  (void)thread;
  for (int64_t n = index * step; n < end; n++) {
    const recurrent_row row = row_of(r, n);
    const float *dy = output_row(r, &r->node->d_outputs[0], n);
    for (int64_t i = 0; dy && i < r->size; i++) row.dh[i] += dy[i];
    if (!r->norm) (module_wide(r->host) ? r->cell->backward_avx2 : r->cell->backward)(r->host, &row);
  }
}

/* The gates' part from x, of `times` times from r->time on. */
static void input_product(const recurrent *r, int64_t times) {
  const int64_t at = r->time * r->samples;
  const lamina_gemm g =
      product_of(r, times * r->samples, r->gates, r->in, r->x + at * r->in, r->in, 1, r->gate + gates_at(r));
  multiply_packed(r, g, r->w_ih, r->norm ? NULL : r->b_ih, 0); /* a norm would take the bias off again */
}

lamina_status recurrent_forward(const lamina_node *node, const recurrent_cell *cell) {
  recurrent r;
  lamina_status status = describe(node, cell, &r);
  if (status) return status;
  const lamina_host *h = r.host;
  const int64_t step = r.samples * r.size;
  h->parallel(h, r.samples, copy_x_task, &r);
  memset(r.h, 0, (size_t)step * sizeof(float));
  if (!cell->separate) memset(r.c, 0, (size_t)step * sizeof(float));
  for (r.time = 0; r.time < r.times; r.time++) {
    const int64_t at = r.time * r.samples;
    if (r.time % r.together == 0) input_product(&r, module_min(r.together, r.times - r.time));
    float *to = (r.separate ? r.hidden : r.gate) + gates_at(&r);
    const lamina_gemm g = product_of(&r, r.samples, r.gates, r.size, r.h + at * r.size, r.size, 1, to);
    const float *bias = cell->separate ? r.b_hh : NULL;
    if (r.separate || r.time > 0) multiply_packed(&r, g, r.w_hh, bias, !r.separate);
    if (r.norm) recurrent_norm_forward(&r);
    h->parallel(h, module_ceil_div(r.samples, rows_of_task(&r)), forward_task, &r);
  }
  return LAMINA_OK;
}

/* Gradient of a weight: rows of gradients of gates, transposed, times rows of what they were computed from. */
static void weight_gradient(const recurrent *r, int param, int64_t rows, const float *gradient, const float *from,
                            int64_t width) {
  if (!module_needs_param(r->node, param)) return;
  lamina_gemm g = product_of(r, r->gates, width, rows, gradient, 1, r->gates, r->node->d_params[param].data);
  g.b = from;
  g.b_k = width;
  g.b_n = 1;
  g.accumulate = module_adds_param(r->node, param);
  r->host->gemm(r->host, &g);
}

typedef struct bias_job {
  const recurrent *r;
  const float *from;
  float *to;
  int add;
} bias_job;

static void bias_task(void *arg, int64_t index, int thread) {
  const bias_job *j = arg;
  const int64_t c0 = index * TASK_COLUMNS, n = module_min(TASK_COLUMNS, j->r->gates - c0);
  double sum[TASK_COLUMNS] = {0};
  (void)thread;
  for (int64_t row = 0; row < j->r->samples * j->r->times; row++)
    for (int64_t c = 0; c < n; c++) sum[c] += j->from[row * j->r->gates + c0 + c];
  for (int64_t c = 0; c < n; c++) j->to[c0 + c] = (float)(j->add ? j->to[c0 + c] + sum[c] : sum[c]);
}

static void bias_gradient(const recurrent *r, int param, const float *from) {
  if (!module_needs_param(r->node, param)) return;
  bias_job j = {r, from, r->node->d_params[param].data, module_adds_param(r->node, param)};
  r->host->parallel(r->host, module_ceil_div(r->gates, TASK_COLUMNS), bias_task, &j);
}

lamina_status recurrent_backward(const lamina_node *node, const recurrent_cell *cell) {
  recurrent r;
  lamina_status status = describe(node, cell, &r);
  if (status) return status;
  const lamina_host *h = r.host;
  const int64_t rows = r.samples * r.times, step = r.samples * r.size;
  memset(r.dh, 0, (size_t)step * sizeof(float));
  if (r.norm) memset(r.norm_sums, 0, (size_t)norm_sums(&r) * sizeof(double));
  memset(r.dc, 0, (size_t)step * sizeof(float));
  for (r.time = r.times - 1; r.time >= 0; r.time--) {
    const float *gradient = r.d_hidden + r.time * r.samples * r.gates;
    h->parallel(h, module_ceil_div(r.samples, rows_of_task(&r)), backward_task, &r);
    if (r.norm) recurrent_norm_backward(&r);
    if (r.time > 0)
      multiply_packed(&r, product_of(&r, r.samples, r.size, r.gates, gradient, r.gates, 1, r.dh), r.w_hh_back, NULL, 1);
  }
  h->parallel(h, r.samples, copy_x_task, &r);
  weight_gradient(&r, RECURRENT_W_IH, rows, r.d_gate, r.x, r.in);
  weight_gradient(&r, RECURRENT_W_HH, rows - r.samples, r.d_hidden + r.samples * r.gates, r.h + step, r.size);
  if (r.norm) {
    recurrent_norm_gradients(&r);
  } else {
    bias_gradient(&r, RECURRENT_B_IH, r.d_gate);
    bias_gradient(&r, RECURRENT_B_HH, r.d_hidden);
  }
  if (!module_needs_input(node, 0)) return LAMINA_OK;
  multiply_packed(&r, product_of(&r, rows, r.in, r.gates, r.d_gate, r.gates, 1, r.dx), r.w_ih_back, NULL, 0);
  h->parallel(h, r.samples, copy_dx_task, &r);
  return LAMINA_OK;
}

static void infer_norm(lamina_node *node, int64_t size, int64_t gates) {
  const int64_t steps = node->attrs[RECURRENT_NORM_STEPS].i;
  module_shape(&node->params[RECURRENT_NORM_X], 1, gates, 0);
  module_shape(&node->params[RECURRENT_NORM_H], 1, gates, 0);
  module_shape(&node->params[RECURRENT_NORM_C], 1, size, 0);
  module_shape(&node->params[RECURRENT_NORM_C_BIAS], 1, size, 0);
  for (int i = RECURRENT_STATES_X; i < RECURRENT_STATES_C + 2; i++)
    module_shape(&node->params[i], 2, steps, i < RECURRENT_STATES_C ? gates : size);
}

lamina_status recurrent_infer(lamina_node *node, const recurrent_cell *cell) {
  lamina_status status = module_check_rank(node, 0, 3, 3, "(N, L, C)");
  if (status) return status;
  const lamina_tensor *x = &node->inputs[0];
  const int64_t size = node->attrs[RECURRENT_HIDDEN_SIZE].i, gates = cell->gates * size;
  lamina_tensor *y = &node->outputs[0];
  module_copy_shape(y, x);
  if (strcmp(node->attrs[RECURRENT_OUTPUT].s, "last") == 0) y->rank = 2;
  y->dim[y->rank - 1] = size;
  module_shape(&node->params[RECURRENT_W_HH], 2, gates, size);
  module_shape(&node->params[RECURRENT_W_IH], 2, gates, x->dim[2]);
  if (cell->norm && node->attrs[RECURRENT_NORM_STEPS].i > 0) infer_norm(node, size, gates);
  if (!node->attrs[RECURRENT_BIAS].i) return LAMINA_OK;
  module_shape(&node->params[RECURRENT_B_IH], 1, gates, 0);
  module_shape(&node->params[RECURRENT_B_HH], 1, gates, 0);
  return LAMINA_OK;
}
