/* SPDX-License-Identifier: Apache-2.0 */
/* What lstm and gru share: the products with the input and the hidden state, the walk over time, memory. A cell adds
   what happens to one row of gates. */
#ifndef LAMINA_RECURRENT_H
#define LAMINA_RECURRENT_H

#include "../module.h"

extern const lamina_layer recurrent_gru, recurrent_lstm;

/* Attributes; the last three of lstm alone. */
enum {
  RECURRENT_HIDDEN_SIZE,
  RECURRENT_BIAS,
  RECURRENT_OUTPUT,
  RECURRENT_NORM_STEPS,
  RECURRENT_NORM_EPS,
  RECURRENT_NORM_MOMENTUM
};
/* weight_hh comes first: the initializers take their fan-in from the first matrix, and PyTorch's bound is
 * 1/sqrt(hidden). */
enum { RECURRENT_W_HH, RECURRENT_W_IH, RECURRENT_B_IH, RECURRENT_B_HH };
/* Of a normalised lstm: scales, and pairs of running mean and variance, (T, 4H) and (T, H). */
enum {
  RECURRENT_NORM_X = RECURRENT_B_HH + 1,
  RECURRENT_NORM_H,
  RECURRENT_NORM_C,
  RECURRENT_NORM_C_BIAS,
  RECURRENT_STATES_X,
  RECURRENT_STATES_H = RECURRENT_STATES_X + 2,
  RECURRENT_STATES_C = RECURRENT_STATES_H + 2
};
enum { RECURRENT_SPAN = 16 /* columns of a task that normalises */ };

/* One row (one sample at one time), H floats each gate, in PyTorch's order. */
typedef struct recurrent_row {
  int64_t n;                 /* H */
  float *gates;              /* in: sums of both products (lstm) or of x's (gru); out: activated */
  float *hidden;             /* gru: the product with h and its bias */
  const float *h0, *c0;      /* state before */
  float *h1, *c1;            /* state after; backward: as forward left it */
  float *dh, *dc;            /* backward; in: gradients of h1 and c1; out: of c0, and of h0 but for the product */
  float *d_gates, *d_hidden; /* backward: gradients of what the two products gave; the same memory for lstm */
} recurrent_row;

typedef struct recurrent_cell {
  int gates;
  int norm;     /* it may be normalised (lstm) */
  int separate; /* the products with x and h are not merely added (gru) */
  void (*forward)(const lamina_host *host, const recurrent_row *row);
  void (*backward)(const lamina_host *host, const recurrent_row *row);
  void (*forward_avx2)(const lamina_host *host, const recurrent_row *row); /* the same for AVX2, where module_wide */
  void (*backward_avx2)(const lamina_host *host, const recurrent_row *row);
} recurrent_cell;

typedef struct recurrent {
  const lamina_node *node;
  const lamina_host *host;
  const recurrent_cell *cell;
  int64_t samples, times, in, size, gates; /* size: H; gates: G * H */
  int norm, separate;                      /* batch normalisation; the products are not merely added (also gru) */
  int last;                                /* y is the last state alone */
  int64_t together, kept; /* times of a product with x; times whose gates are kept, at inference those alone */
  /* packed */
  float *w_ih, *w_hh, *w_ih_back, *w_hh_back, *b_ih, *b_hh;
  size_t packed;
  /* forward to backward; at inference in the workspace */
  float *gate, *hidden, *h, *c;
  float *x_hat, *c_hat, *norm_scale; /* normalised, as `hidden` is then; 1 / deviations of each time */
  size_t saved;
  /* scratch */
  float *x, *dx, *d_gate, *d_hidden, *dh, *dc;
  float *norm_dc;
  double *norm_sums;
  void *product;
  size_t scratch;
  int64_t time; /* of the step that runs */
} recurrent;

/* norm.c: the normalised cell, on all rows of the step r->time; then the gradients that were summed over all times. */
void recurrent_norm_forward(const recurrent *r);
void recurrent_norm_backward(const recurrent *r);
void recurrent_norm_gradients(const recurrent *r);

lamina_status recurrent_infer(lamina_node *node, const recurrent_cell *cell);
lamina_status recurrent_plan(const lamina_node *node, lamina_cost *cost, const recurrent_cell *cell);
lamina_status recurrent_pack(const lamina_node *node, const recurrent_cell *cell);
lamina_status recurrent_forward(const lamina_node *node, const recurrent_cell *cell);
lamina_status recurrent_backward(const lamina_node *node, const recurrent_cell *cell);

#endif
