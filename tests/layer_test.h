/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file layer_test.h
 * Runs one layer through plugin.h alone: a host of its own, whose parallel runs tasks in any order and hands out any
 * thread, and memory that is checked for touches outside rows and buffers.
 */
#ifndef LAMINA_LAYER_TEST_H
#define LAMINA_LAYER_TEST_H

#include "../plugins/builtin.h"
#include "kernel_test.h"
#include "lamina/plugin.h"

#include <check.h>

#define CASE_MAX 6

/* How `parallel` orders tasks. */
typedef enum task_order { ORDER_FORWARD, ORDER_BACKWARD, ORDER_SHUFFLED } task_order;

/* The composed table for LAMINA_ISA; NULL if this machine has no such ISA. */
const lamina_kernels *case_kernels(void);
/* The last message of host->fail. */
const char *case_message(void);
void case_set_order(task_order order, int threads);

/* A layer with attributes, tensors and buffers. Values are dense floats (`value`), tensors may have padded rows. */
typedef struct layer_case {
  const lamina_layer *layer;
  const lamina_kernel *kernel;
  lamina_node node;
  lamina_value attrs[CASE_MAX];
  lamina_tensor inputs[CASE_MAX], outputs[1], params[CASE_MAX], d_outputs[1], d_inputs[CASE_MAX], d_params[CASE_MAX];
  lamina_cost cost;
  int64_t padding; /* floats between rows */
  int in_place;
  test_random random;
} layer_case;

/* attributes: "kernel=2 padding=1,0"; what is not given has its default. */
void case_begin(layer_case *c, const lamina_layer *layer, lamina_mode mode, const char *attributes);
/* Adds an input of that shape: "2x5x5x3", or "scalar". */
void case_input(layer_case *c, const char *shape);
lamina_status case_infer(layer_case *c);
/* Allocates all memory for the inferred shapes: inputs uniform in [lo, hi), parameters in [0.5, 1.5). */
lamina_status case_prepare(layer_case *c, float lo, float hi);
lamina_status case_forward(layer_case *c);
/* Fills in random output gradients (and what is accumulated to) and runs backward for the given needs. */
lamina_status case_backward(layer_case *c, uint64_t need_inputs, uint64_t need_params, int accumulate);
void case_end(layer_case *c);

const lamina_port *case_port(const layer_case *c, lamina_port_kind kind, int index);
/* Fails if anything was written between rows or behind a buffer. */
void case_check_bounds(const layer_case *c);
int64_t case_count(const lamina_tensor *t);
/* Element i of a tensor, counted without padding. */
float *case_at(const lamina_tensor *t, int64_t i);
/* A dense copy in double; free() it. */
double *case_doubles(const lamina_tensor *t);

/* The layer in double: dense inputs and parameters (NULL where absent) to a dense output. */
typedef void case_reference(const layer_case *c, double *const *in, double *const *par, double *out);

/*
 * The promise of a layer: forward equals the reference; every gradient equals the reference's numerical derivative;
 * with padded rows too, adding up where it says so, in place where it says so, and writing only what is needed. Shapes
 * are separated by spaces. `tolerance` is relative to the largest value.
 */
void case_verify(const lamina_layer *layer, lamina_mode mode, const char *attributes, const char *shapes,
                 case_reference *reference, double tolerance);

/* Infers and expects a refusal whose message holds every given word (separated by '|'). */
void case_refused(const lamina_layer *layer, const char *attributes, const char *shapes, const char *words);

/* The tests of the other files. */
void pool_tests(TCase *t);
void loss_tests(TCase *t);
Suite *batch_norm_suite(void);

#endif
