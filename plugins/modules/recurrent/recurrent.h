/* SPDX-License-Identifier: Apache-2.0 */
/* What lstm and gru share: the products with the input and the hidden state, the walk over time, memory. A cell adds what
   happens to one row of gates. */
#ifndef LAMINA_RECURRENT_H
#define LAMINA_RECURRENT_H

#include "../module.h"

extern const lamina_layer recurrent_gru, recurrent_lstm;

enum { RECURRENT_HIDDEN_SIZE, RECURRENT_BIAS, RECURRENT_OUTPUT }; /* attributes */
/* weight_hh comes first: the initializers take their fan-in from the first matrix, and PyTorch's bound is 1/sqrt(hidden). */
enum { RECURRENT_W_HH, RECURRENT_W_IH, RECURRENT_B_IH, RECURRENT_B_HH };

/* One row (one sample at one time), H floats each gate, in PyTorch's order. */
typedef struct recurrent_row {
  int64_t n;                  /* H */
  float *gates;               /* in: sums of both products (lstm) or of x's (gru); out: activated */
  float *hidden;              /* gru: the product with h and its bias */
  const float *h0, *c0;       /* state before */
  float *h1, *c1;             /* state after; backward: as forward left it */
  float *dh, *dc;             /* backward; in: gradients of h1 and c1; out: of c0, and of h0 but for the product */
  float *d_gates, *d_hidden;  /* backward: gradients of what the two products gave; the same memory for lstm */
} recurrent_row;

typedef struct recurrent_cell {
  int gates;
  int separate; /* the products with x and h are not merely added (gru) */
  void (*forward)(const lamina_host *host, const recurrent_row *row);
  void (*backward)(const lamina_host *host, const recurrent_row *row);
  void (*forward_avx2)(const lamina_host *host, const recurrent_row *row); /* the same for AVX2, where module_wide */
  void (*backward_avx2)(const lamina_host *host, const recurrent_row *row);
} recurrent_cell;

lamina_status recurrent_infer(lamina_node *node, const recurrent_cell *cell);
lamina_status recurrent_plan(const lamina_node *node, lamina_cost *cost, const recurrent_cell *cell);
lamina_status recurrent_pack(const lamina_node *node, const recurrent_cell *cell);
lamina_status recurrent_forward(const lamina_node *node, const recurrent_cell *cell);
lamina_status recurrent_backward(const lamina_node *node, const recurrent_cell *cell);

#endif
