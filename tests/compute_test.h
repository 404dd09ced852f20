/* SPDX-License-Identifier: Apache-2.0 */
/* Runs conv2d and linear through their callbacks, on hosts with several numbers of threads, and compares with double.
 */
#ifndef LAMINA_COMPUTE_TEST_H
#define LAMINA_COMPUTE_TEST_H

#include "core.h"
#include "kernel_test.h"

#include <check.h>

enum { COMPUTE_HOSTS = 4 };
extern const int compute_threads[COMPUTE_HOSTS];

/* Runs the suite as a test program's main does: prints the seed; 77 when the ISA that LAMINA_ISA names is not there. */
int compute_main(Suite *suite);
/* Contexts for LAMINA_ISA with compute_threads[i] threads. */
void compute_begin(lamina_context *context[COMPUTE_HOSTS]);
void compute_end(lamina_context *context[COMPUTE_HOSTS]);

/* A layer with at most one bias and one input; filled by the test, then by compute_prepare. */
typedef struct compute_case {
  const lamina_layer *layer;
  lamina_mode mode;
  lamina_value attrs[8];
  lamina_tensor x; /* shape */
  uint32_t epilogue;
  const char *kernel; /* one of the layer's; NULL: the first that supports the node */
  double tolerance;   /* of compute_compare; 0: 2e-6 */
  int64_t gap;    /* floats between the rows of every activation */
  int accumulate; /* all gradients are added to what is there */
  int no_input_gradient;
  test_random random;

  lamina_node node;
  lamina_tensor inputs[1], outputs[1], params[2], d_outputs[1], d_inputs[1], d_params[2];
  float *scale, *shift;
  lamina_tensor before_dx, before_dp[2]; /* what gradients are added to */
} compute_case;

/* For the loops of references, where a sanitizer finds nothing but the test's own arrays and takes most of the time. */
#define TEST_UNCHECKED __attribute__((no_sanitize("address", "undefined")))

/* Adds to a sum and to its magnitude. */
TEST_UNCHECKED static inline void compute_add(double *sum, double *size, int64_t i, double value) {
  sum[i] += value;
  size[i] += fabs(value);
}

/* Infers, allocates and fills everything with random numbers. */
void compute_prepare(compute_case *c, const lamina_context *context);
/* Plans, packs and runs forward and, in TRAIN, backward on a context; outputs and gradients are overwritten. Fails if
   anything is written between rows or past the bytes that were asked for; buffers begin as NaN. */
void compute_run(compute_case *c, const lamina_context *context);
void compute_release(compute_case *c);

/* What the epilogue makes of a sum in double, after its clamp: the activation of the tests, or nothing. */
double compute_activation(const compute_case *c, double y);

/* What forward and backward ought to give, in double, and the magnitudes that were added up. */
typedef struct compute_sums {
  double *y, *dx, *dw, *db, *y_size, *dx_size, *dw_size, *db_size;
  float *x, *dy; /* of the case, without gaps */
} compute_sums;

/* One product of forward, x[x] * w[w] for y[y], and what it adds to the gradients of x and weight. */
TEST_UNCHECKED static inline void compute_product(const compute_case *c, compute_sums *s, int64_t y, int64_t x,
                                                  int64_t w) {
  const int64_t channels = c->outputs[0].dim[c->outputs[0].rank - 1];
  const double weight = ((const float *)c->params[0].data)[w];
  compute_add(s->y, s->y_size, y, s->x[x] * weight * (c->scale ? c->scale[y % channels] : 1.0));
  if (!s->dy) return;
  compute_add(s->dx, s->dx_size, x, s->dy[y] * weight);
  compute_add(s->dw, s->dw_size, w, s->dy[y] * (double)s->x[x]);
}

/* Calls compute_product for all products of a layer at a shape of the test's. */
typedef void compute_products(const compute_case *c, const void *shape, compute_sums *sums);
/* A case that was not prepared yet, against double with one thread, then bit by bit with another number of threads (the
   others have their turn). What `products` leaves out (bias, epilogue, what gradients are added to) is added here. */
void compute_verify(lamina_context *const context[COMPUTE_HOSTS], int turn, compute_case *c, const char *text,
                    compute_products *products, const void *shape);
/* The layer's infer refuses c->x with this status and a message that has the word. */
void compute_refused(compute_case *c, lamina_status status, const char *word);

/* Random parts of an epilogue, which the mode allows. */
uint32_t compute_random_epilogue(test_random *r, lamina_mode mode);
int64_t compute_between(test_random *r, int64_t lo, int64_t hi);

/* A dense row-major tensor's element, or one with gaps: the i-th number without them. */
float *compute_at(const lamina_tensor *t, int64_t i);
int64_t compute_count(const lamina_tensor *t);
/* |got - want| <= tolerance * sum of the magnitudes that were added up, for each number. */
void compute_compare(const compute_case *c, const char *what, const lamina_tensor *got, const double *want,
                     const double *magnitude);
/* The same bits as `other`, which compute_copy made. */
float *compute_copy(const lamina_tensor *t);
void compute_same_bits(const char *what, const lamina_tensor *t, const float *other, int threads);

#endif
