/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests on whole networks share: a network as a table, and one that stands ready to run on random inputs. */
#ifndef LAMINA_NET_TEST_H
#define LAMINA_NET_TEST_H

#include "kernel_test.h"
#include "lamina/lamina.h"

#include <check.h>
#include <stdbool.h>

#define NET_MAX_INPUTS 4
#define NET_MAX_LAYERS 24

typedef enum net_values {
  NET_UNIFORM,  /* in [-1, 1) */
  NET_OFF_ZERO, /* 0.25 <= |x| < 1: a kink at 0 is out of a finite difference's reach */
  NET_DISTINCT  /* a permutation of multiples of 2/count: the order of a maximum's candidates is safe */
} net_values;

typedef struct net_input {
  const char *name; /* NULL ends the list */
  int rank;         /* of one sample */
  int64_t dim[4];
  int classes; /* > 0: integer labels below it */
  net_values values;
} net_input;

typedef struct net_layer {
  const char *type, *name, *inputs, *attributes; /* type NULL ends the list */
} net_layer;

typedef struct net_case {
  const char *name;
  int64_t batch;
  net_input inputs[NET_MAX_INPUTS];
  net_layer layers[NET_MAX_LAYERS];
  const char *output; /* NULL: the last layer */
  uint32_t flags;     /* the tests' own */
} net_case;

typedef struct net {
  lamina_context *context;
  const net_case *spec;
  const char *output;
  lamina_graph *graph;
  lamina_plan *plan;
  lamina_exec *exec;
  int inputs;
  lamina_tensor data[NET_MAX_INPUTS];
} net;

/* Fails the test with the context's message unless the status is LAMINA_OK. */
#define NET_OK(context, call) net_check(context, call, #call, __FILE__, __LINE__)
void net_check(const lamina_context *context, lamina_status status, const char *call, const char *file, int line);

/* Asserts the status, and that the context's message contains every one of the words separated by '|'. */
void net_expect(const lamina_context *context, lamina_status got, lamina_status wanted, const char *words, int line);

/* image {8, 8, 3} -> conv1 (4 channels) -> relu1 -> flatten -> fc (5) -> loss with labels. */
extern const net_case net_small;

/* In main: nonzero if LAMINA_ISA names an ISA that is not here; says so. The program then exits with TEST_SKIPPED. */
bool net_isa_is_absent(void);
/* A context with LAMINA_ISA's ISA (asserted) and so many threads. */
lamina_context *net_context(int threads);

void net_build(lamina_context *context, const net_case *spec, lamina_graph *share, lamina_graph **graph);
/* Builds graph, parameters, inputs, plan and exec. Parameters whose initial value hides errors (zeros, ones) get random
   ones; running statistics too (positive). */
void net_open(net *n, lamina_context *context, const net_case *spec, lamina_plan_options options, test_random *random);
/* Another plan and exec of the same graph on the same inputs. */
void net_open_shared(net *n, const net *from, lamina_plan_options options);
void net_close(net *n);
void net_close_shared(net *n);

lamina_tensor net_random_tensor(const net_input *input, int64_t batch, test_random *random);
lamina_tensor net_output(net *n);
lamina_tensor net_gradient(net *n, const char *name);
/* A dense copy of a float tensor, to be freed. */
float *net_copy(const lamina_tensor *tensor);
/* max|a - b| / max|b|; infinite if a value is not finite. */
double net_error(const float *a, const float *b, int64_t count);

#endif
