/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of the golden test: a file of vectors, the comparison, and the two kinds of replay. */
#ifndef LAMINA_TESTS_GOLDEN_H
#define LAMINA_TESTS_GOLDEN_H

#include "lamina/lamina.h"

#include <stdbool.h>

/* Relative errors in the maximum norm, max|a - b| / max|b|. */
#define GOLDEN_LAYER_BOUND 1e-4
#define GOLDEN_LOSS_BOUND 1e-4
#define GOLDEN_FINAL_BOUND 1e-3

typedef struct golden_file golden_file;

/* One replay of one file. */
typedef struct golden_run {
  lamina_context *context;
  golden_file *file;
  bool no_fusion;
  char error[1536]; /* why it fails, "" while it does not */
  char worst[160];  /* the tensor whose error is largest, as a share of its bound */
  double worst_error, worst_bound;
  int compared;
  int variant; /* of a training run: which perturbation of the inputs gave the reference's run; 0: none */
} golden_run;

/* golden_file.c */
golden_file *golden_file_open(lamina_context *context, const char *path, char *error, size_t error_size);
void golden_file_close(golden_file *file);
/* The tensor called NAME (printf style), in PyTorch's layout; false if there is none. The data may be unaligned. */
bool golden_find(const golden_run *run, lamina_tensor *tensor, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The i-th tensor's name, or NULL past the end. */
const char *golden_name(const golden_run *run, int index);
/* A metadata value, or NULL. */
const char *golden_metadata(const golden_run *run, const char *key);
/* Metadata as a number; `none`, `null` and the like are NaN. */
double golden_number(const golden_run *run, const char *key, double absent);
bool golden_flag(const golden_run *run, const char *key, bool absent);
/* The word as an attribute's value: "(3, 5)" becomes "3,5", "True" true, "null" none. */
void golden_attribute_text(const char *value, char *text, size_t size);

/* golden_compare.c: functions return false when they have written run->error; an error larger than its bound is only
   recorded in run->worst, so that a replay goes on and the worst tensor is found. */
bool golden_fail(golden_run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Fails with the context's message if the status is not LAMINA_OK. */
bool golden_check(golden_run *run, lamina_status status, const char *what);
double golden_element(const lamina_tensor *tensor, int64_t index);
/* A copy of an activation as channels last (rank >= 3), or as it is; dtype F32, or I32 from integers. free() its data.
 */
bool golden_to_channels_last(golden_run *run, const lamina_tensor *source, bool keep_layout, lamina_tensor *copy);
/* Compares element by element; with `any_shape` only the counts must agree. */
bool golden_compare(golden_run *run, const char *name, const lamina_tensor *got, const lamina_tensor *expected,
                    bool any_shape, double bound);
/* Writes every tensor FROM + NAME ("init.weight") into the graph's parameter TO + NAME. */
bool golden_load(golden_run *run, lamina_graph *graph, const char *from, const char *to);

/* The maximum norm of the difference over that of `expected`. */
double golden_error(const lamina_tensor *got, const lamina_tensor *expected);

/* golden_batch_norm.c: a training step in double, and how far a reference in fp32 may be from it. */
typedef enum golden_quantity {
  GOLDEN_Y,
  GOLDEN_DX,
  GOLDEN_GRAD_WEIGHT,
  GOLDEN_GRAD_BIAS,
  GOLDEN_EXACT
} golden_quantity;

typedef struct golden_exact {
  lamina_tensor tensor[GOLDEN_EXACT]; /* channels last; data NULL: nothing is known */
  double slack[GOLDEN_EXACT];         /* absolute, of the reference */
  double rounding;                    /* absolute, of any dx in fp32 */
} golden_exact;

bool golden_exact_batch_norm(golden_run *run, const lamina_tensor *x, const lamina_tensor *dy, golden_exact *exact);
void golden_exact_release(golden_exact *exact);
/* What `got` is held to: the exact values if the expected ones are as near to them as fp32 lets them be (or `got`
   itself, if it is a dx that is exact to rounding), else the expected ones. */
const lamina_tensor *golden_better(const golden_exact *exact, golden_quantity which, const lamina_tensor *got,
                                   const lamina_tensor *expected);

/* golden_layer.c and golden_train.c */
bool golden_replay_layer(golden_run *run);
bool golden_replay_training(golden_run *run);

#endif
