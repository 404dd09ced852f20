/* SPDX-License-Identifier: Apache-2.0 */
/* An exec's insides: one thread's memory for a plan. */
#ifndef LAMINA_EXEC_H
#define LAMINA_EXEC_H

#include "plan.h"

struct lamina_exec {
  lamina_plan *plan;
  lamina_context *context;
  lamina_node **views;    /* of each node */
  void **inputs;          /* by value: what set_input gave; NULL until then */
  void **read;            /* by value: the inputs of the last forward, which its backward reads too */
  bool *seeded;           /* by value: set_output_gradient was called */
  float **seeds;          /* by value: the copy that it made */
  char *arena, *workspace;
  float **gradients;      /* by node * LAMINA_MAX_PORTS + parameter: into gradient_block; NULL with early_step */
  float **written;        /* what backward writes: the same, or in the arena until the node is done */
  char *gradient_block;
  uint64_t seed, run;     /* the next forward's stream */
  uint64_t current;       /* the last forward's: its backward sees the same random numbers */
  int64_t accumulated;    /* runs whose gradients are summed in `gradients`; of the plan's `accumulate` */
  bool timing, forward_done, backward_done;
  bool in_backward;       /* values that are computed again have their second place */
  double *forward_ms, *backward_ms;
};

/* Where a value lives: in the arena, or in the caller's memory. */
void *lamina_exec_value(const lamina_exec *exec, int value);
float *lamina_exec_value_gradient(const lamina_exec *exec, int value);
/* Points a node's view at today's memory. */
void lamina_exec_bind(lamina_exec *exec, int node);
/* Packs a node's parameters for its forward (0), backward (1) or second run (2), if the plan does so late. Bound before. */
lamina_status lamina_exec_pack(lamina_exec *exec, int node, int when);
double lamina_exec_clock(void); /* milliseconds */
/* Runs one node forward, packing its parameters first if they changed. */
lamina_status lamina_exec_run_node(lamina_exec *exec, int node);

#endif
