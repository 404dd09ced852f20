/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recurrent batch normalisation: Cooijmans, Ballas, Laurent, Gulcehre and Courville 2016, "Recurrent Batch
 * Normalization", equations 6 to 8. With BN(a; s) = s (a - mean) / sqrt(var + eps) over the N samples of one time, each
 * of its own statistics:
 *
 *   i, f, g, o = gates of BN(W_ih x_t; s_x) + BN(W_hh h_{t-1}; s_h) + b_ih + b_hh
 *   c_t = f c_{t-1} + i g,   h_t = o tanh(BN(c_t; s_c) + b_c)
 *
 * A task is a span of the H columns for all samples: the statistics, the gates and the state of a column need no other.
 * Training normalises by the batch's statistics and follows them (var unbiased) for each of the first T times; times
 * after those share the last ones at inference. Sums over time are kept in double. Beside what lstm keeps, training
 * keeps 2 L N 4H + L N H normalised values.
 */
#include "recurrent.h"

enum { MAX_GATES = 4 };
enum { MEAN, VARIANCE }; /* rows of a pair of states */

/* Statistics of one time for one of the three normalised values, `n` columns: of the batch, or those that are followed.
 */
typedef struct column_norm {
  float *running_mean, *running_var; /* of this time */
  float *scale;                      /* 1 / deviation, for backward; NULL at inference */
  int batch, follow;                 /* normalise by the batch; follow it */
  double momentum, eps;
} column_norm;

static column_norm norm_of(const recurrent *r, int state, int64_t width, float *scale) {
  const lamina_node *node = r->node;
  const int train = node->mode == LAMINA_TRAIN && !node->frozen_states;
  const int64_t steps = node->attrs[RECURRENT_NORM_STEPS].i, at = module_min(r->time, steps - 1) * width;
  return (column_norm){.running_mean = (float *)node->params[state + MEAN].data + at,
                       .running_var = (float *)node->params[state + VARIANCE].data + at,
                       .scale = scale,
                       .batch = train,
                       .follow = train && !node->recompute && r->time < steps,
                       .momentum = node->attrs[RECURRENT_NORM_MOMENTUM].f,
                       .eps = node->attrs[RECURRENT_NORM_EPS].f};
}

/* Normalises columns c0 .. c0 + n of `rows` rows in place of, or beside, what they were. */
MODULE_INLINE void normalise(const column_norm *v, int64_t rows, int64_t ld, int64_t c0, int64_t n, const float *a,
                             float *to) {
  double mean[RECURRENT_SPAN] = {0}, var[RECURRENT_SPAN] = {0};
  float m[RECURRENT_SPAN], s[RECURRENT_SPAN];
  for (int64_t c = 0; c < n && !v->batch; c++) {
    mean[c] = v->running_mean[c0 + c];
    var[c] = v->running_var[c0 + c];
  }
  for (int64_t i = 0; i < rows && v->batch; i++)
    for (int64_t c = 0; c < n; c++) mean[c] += (double)a[i * ld + c0 + c];
  for (int64_t c = 0; c < n && v->batch; c++) mean[c] /= (double)rows;
  for (int64_t i = 0; i < rows && v->batch; i++)
    for (int64_t c = 0; c < n; c++) {
      const double d = (double)a[i * ld + c0 + c] - mean[c];
      var[c] += d * d;
    }
  for (int64_t c = 0; c < n && v->batch; c++) {
    const double unbiased = rows > 1 ? var[c] / (double)(rows - 1) : 0;
    var[c] /= (double)rows;
    if (!v->follow) continue;
    float *rm = v->running_mean + c0 + c, *rv = v->running_var + c0 + c;
    *rm = (float)(*rm + v->momentum * (mean[c] - *rm));
    *rv = (float)(*rv + v->momentum * (unbiased - *rv));
  }
  for (int64_t c = 0; c < n; c++) {
    m[c] = (float)mean[c];
    s[c] = (float)(1 / sqrt(var[c] + v->eps));
    if (v->scale) v->scale[c0 + c] = s[c];
  }
  for (int64_t i = 0; i < rows; i++)
    for (int64_t c = 0; c < n; c++) to[i * ld + c0 + c] = (a[i * ld + c0 + c] - m[c]) * s[c];
}

/* dx of y = w x^, from dy of y and x^, in place of dy or beside it; adds the sum of dy x^ to dw. */
MODULE_INLINE void normalise_backward(const column_norm *v, int64_t rows, int64_t ld, int64_t c0, int64_t n,
                                      const float *w, const float *hat, const float *dy, float *dx, double *dw) {
  double sum[RECURRENT_SPAN] = {0}, product[RECURRENT_SPAN] = {0};
  float a[RECURRENT_SPAN], b[RECURRENT_SPAN], s[RECURRENT_SPAN];
  for (int64_t i = 0; i < rows; i++)
    for (int64_t c = 0; c < n; c++) {
      sum[c] += (double)dy[i * ld + c0 + c];
      product[c] += (double)dy[i * ld + c0 + c] * (double)hat[i * ld + c0 + c];
    }
  for (int64_t c = 0; c < n; c++) {
    dw[c0 + c] += product[c];
    a[c] = v->batch ? (float)(sum[c] / (double)rows) : 0; /* statistics that are given do not depend on x */
    b[c] = v->batch ? (float)(product[c] / (double)rows) : 0;
    s[c] = w[c0 + c] * v->scale[c0 + c];
  }
  for (int64_t i = 0; i < rows; i++)
    for (int64_t c = 0; c < n; c++)
      dx[i * ld + c0 + c] = (dy[i * ld + c0 + c] - a[c] - hat[i * ld + c0 + c] * b[c]) * s[c];
}

/* Where what belongs to this step is. */
typedef struct step {
  const recurrent *r;
  float *gate, *x_hat, *h_hat, *c0, *c1, *c_hat, *h1;
  float *d_x, *d_h;
  column_norm x, h, c;
  const float *w_x, *w_h, *w_c, *b_c;
} step;

static step step_of(const recurrent *r) {
  const int train = r->node->mode == LAMINA_TRAIN;
  const int64_t row = r->time * r->samples, kept = train ? row : 0, all = 2 * r->gates + r->size;
  const lamina_tensor *p = r->node->params;
  step s = {.r = r,
            .gate = r->gate + r->time % r->kept * r->samples * r->gates,
            .h_hat = r->hidden + r->time % r->kept * r->samples * r->gates,
            .x_hat = r->x_hat + kept * r->gates,
            .c0 = r->c + row * r->size,
            .c1 = r->c + (row + r->samples) * r->size,
            .c_hat = r->c_hat + kept * r->size,
            .h1 = r->h + (row + r->samples) * r->size,
            .w_x = p[RECURRENT_NORM_X].data,
            .w_h = p[RECURRENT_NORM_H].data,
            .w_c = p[RECURRENT_NORM_C].data,
            .b_c = p[RECURRENT_NORM_C_BIAS].data};
  float *scale = train ? r->norm_scale + r->time * all : NULL;
  s.x = norm_of(r, RECURRENT_STATES_X, r->gates, scale);
  s.h = norm_of(r, RECURRENT_STATES_H, r->gates, scale ? scale + r->gates : NULL);
  s.c = norm_of(r, RECURRENT_STATES_C, r->size, scale ? scale + 2 * r->gates : NULL);
  if (!train) return s;
  s.d_x = r->d_gate + row * r->gates;
  s.d_h = r->d_hidden + row * r->gates;
  return s;
}

MODULE_INLINE void norm_forward_body(void *arg, int64_t index, int thread) {
  const step *s = arg;
  const recurrent *r = s->r;
  const int64_t size = r->size, gates = r->gates, k0 = index * RECURRENT_SPAN,
                n = module_min(RECURRENT_SPAN, size - k0);
  const lamina_vector *v = r->host->vector;
  (void)thread;
  for (int64_t g = 0; g < MAX_GATES; g++) {
    normalise(&s->x, r->samples, gates, g * size + k0, n, s->gate, s->x_hat);
    normalise(&s->h, r->samples, gates, g * size + k0, n, s->h_hat, s->h_hat);
  }
  for (int64_t i = 0; i < r->samples; i++) {
    for (int64_t g = 0; g < MAX_GATES; g++) {
      const int64_t c0 = g * size + k0, at = i * gates + c0;
      float *to = s->gate + at;
      for (int64_t c = 0; c < n; c++)
        to[c] = s->x_hat[at + c] * s->w_x[c0 + c] + s->h_hat[at + c] * s->w_h[c0 + c] + r->b_ih[c0 + c];
      (g == 2 ? v->tanh : v->sigmoid)(n, NULL, to, to);
    }
    const float *in = s->gate + i * gates + k0, *forget = in + size, *new = forget + size;
    for (int64_t c = 0; c < n; c++) s->c1[i * size + k0 + c] = forget[c] * s->c0[i * size + k0 + c] + in[c] * new[c];
  }
  normalise(&s->c, r->samples, size, k0, n, s->c1, s->c_hat);
  for (int64_t i = 0; i < r->samples; i++) {
    const float *hat = s->c_hat + i * size + k0, *out = s->gate + i * gates + 3 * size + k0;
    float *h = s->h1 + i * size + k0;
    for (int64_t c = 0; c < n; c++) h[c] = hat[c] * s->w_c[k0 + c] + s->b_c[k0 + c];
    v->tanh(n, NULL, h, h);
    for (int64_t c = 0; c < n; c++) h[c] *= out[c];
  }
}
MODULE_TASK(norm_forward)

void recurrent_norm_forward(const recurrent *r) {
  step s = step_of(r);
  if (r->samples) MODULE_RUN(r->host, module_ceil_div(r->size, RECURRENT_SPAN), norm_forward, &s);
}

/* The sums over time, in doubles: of the bias, s_x and s_h (4H each), s_c and b_c (H each). */
MODULE_INLINE void norm_backward_body(void *arg, int64_t index, int thread) {
  const step *s = arg;
  const recurrent *r = s->r;
  const int64_t size = r->size, gates = r->gates, k0 = index * RECURRENT_SPAN,
                n = module_min(RECURRENT_SPAN, size - k0);
  double *d_bias = r->norm_sums, *d_wx = d_bias + gates, *d_wh = d_wx + gates, *d_wc = d_wh + gates,
         *d_bc = d_wc + size;
  (void)thread;
  for (int64_t i = 0; i < r->samples; i++) { /* d_hidden's first gate holds dy of BN(c), its last one tanh of it */
    const int64_t at = i * size + k0;
    const float *out = s->gate + i * gates + 3 * size + k0;
    float *t = s->d_h + i * gates + 3 * size + k0, *d_out = s->d_x + i * gates + 3 * size + k0, *d = r->norm_dc + at;
    for (int64_t c = 0; c < n; c++) t[c] = s->c_hat[at + c] * s->w_c[k0 + c] + s->b_c[k0 + c];
    r->host->vector->tanh(n, NULL, t, t);
    for (int64_t c = 0; c < n; c++) {
      const float dh = r->dh[at + c];
      d_out[c] = dh * t[c] * out[c] * (1 - out[c]);
      d[c] = dh * out[c] * (1 - t[c] * t[c]);
      d_bc[k0 + c] += (double)d[c];
      r->dh[at + c] = 0;
    }
  }
  normalise_backward(&s->c, r->samples, size, k0, n, s->w_c, s->c_hat, r->norm_dc, r->norm_dc, d_wc);
  for (int64_t i = 0; i < r->samples; i++) {
    const int64_t at = i * size + k0;
    const float *in = s->gate + i * gates + k0, *forget = in + size, *new = forget + size, *c0 = s->c0 + at;
    float *d_in = s->d_x + i * gates + k0, *d_forget = d_in + size, *d_new = d_forget + size, *d_out = d_new + size;
    for (int64_t c = 0; c < n; c++) {
      const float dc = r->dc[at + c] + r->norm_dc[at + c];
      d_in[c] = dc * new[c] * in[c] * (1 - in[c]);
      d_forget[c] = dc * c0[c] * forget[c] * (1 - forget[c]);
      d_new[c] = dc * in[c] * (1 - new[c] * new[c]);
      r->dc[at + c] = dc * forget[c];
      d_bias[k0 + c] += (double)d_in[c];
      d_bias[size + k0 + c] += (double)d_forget[c];
      d_bias[2 * size + k0 + c] += (double)d_new[c];
      d_bias[3 * size + k0 + c] += (double)d_out[c];
    }
  }
  for (int64_t g = 0; g < MAX_GATES; g++) {
    const int64_t c0 = g * size + k0;
    normalise_backward(&s->h, r->samples, gates, c0, n, s->w_h, s->h_hat, s->d_x, s->d_h, d_wh);
    normalise_backward(&s->x, r->samples, gates, c0, n, s->w_x, s->x_hat, s->d_x, s->d_x, d_wx);
  }
}
MODULE_TASK(norm_backward)

void recurrent_norm_backward(const recurrent *r) {
  step s = step_of(r);
  if (r->samples) MODULE_RUN(r->host, module_ceil_div(r->size, RECURRENT_SPAN), norm_backward, &s);
}

static void give(const recurrent *r, int param, int64_t n, const double *sums) {
  if (!module_needs_param(r->node, param)) return;
  float *to = r->node->d_params[param].data;
  for (int64_t i = 0; i < n; i++) to[i] = (float)(module_adds_param(r->node, param) ? to[i] + sums[i] : sums[i]);
}

void recurrent_norm_gradients(const recurrent *r) {
  const double *sums = r->norm_sums;
  give(r, RECURRENT_B_IH, r->gates, sums);
  give(r, RECURRENT_B_HH, r->gates, sums);
  give(r, RECURRENT_NORM_X, r->gates, sums + r->gates);
  give(r, RECURRENT_NORM_H, r->gates, sums + 2 * r->gates);
  give(r, RECURRENT_NORM_C, r->size, sums + 3 * r->gates);
  give(r, RECURRENT_NORM_C_BIAS, r->size, sums + 3 * r->gates + r->size);
}
