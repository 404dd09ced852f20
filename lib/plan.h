/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A plan's insides, and the steps that make it: clone the graph for a batch, run the passes, choose kernels, decide which
 * gradients are needed, place everything in one arena by lifetime.
 *
 * Time is counted in nodes: node i runs forward at i and backward at 2n-1-i; 2n is after everything.
 */
#ifndef LAMINA_PLAN_H
#define LAMINA_PLAN_H

#include "graph.h"

typedef struct plan_value {
  const char *name;
  lamina_tensor shape; /* for the plan's batch; data NULL */
  int producer, port;  /* producer -1: an input of the graph */
  bool is_output, needs_gradient;
  int root;            /* the value whose memory it shares, itself if none */
  int buffer;          /* of a root: in the arena; -1: the caller's memory (an input) */
  int again_buffer;    /* of a root that is computed again: where it is in the backward pass; -1: it is not */
  int gradient_buffer; /* -1: none */
  int first_writer;    /* the node whose backward writes its gradient first; -1: none does */
} plan_value;

typedef struct plan_node {
  const graph_node *source;
  const lamina_kernel *kernel;
  lamina_value *attrs; /* a copy that passes may change */
  int n_inputs, n_outputs;
  int *inputs, *outputs;
  lamina_epilogue epilogue;
  int add;                  /* the value that the epilogue adds, or -1; in TRAIN the last of the inputs as well */
  const graph_node *affine; /* a node folded into the packed weights, or NULL */
  const graph_node *offer_source; /* a merged node whose parameters the epilogue depends on, or NULL */
  lamina_node *offer;             /* and its view */
  char *fused, *rejected;   /* for explain */
  bool removed, is_view, backward;
  lamina_mode mode;         /* in TRAIN plans INFER too, where no gradient is needed and nothing else differs */
  bool frozen_states;       /* its states are used as at inference, and never changed */
  uint64_t need_inputs, need_params, accumulate_inputs;
  bool gradient_is_shared; /* the gradient of input 0 has the memory of output 0's */
  lamina_cost cost;
  int saved_buffer; /* -1: none */
  int packed_buffer[3];    /* packed when it is needed: in forward, backward and the second run; -1: not so */
  int gradients_buffer;    /* what backward writes of all parameters, if only until the node is done; -1: none */
  bool again;              /* runs a second time in the backward pass: its output is not kept */
  int again_time;          /* before the backward of the node that has this time */
  double fused_bytes;      /* memory traffic that was saved by what is merged into it */
  int *temporary;   /* by input: where a layer that cannot accumulate writes first; -1: none */
  void *packed;
  uint64_t packed_version; /* of what was packed */
} plan_node;

/* Memory needed from time `first` to `last`, both included. */
typedef struct plan_buffer {
  size_t bytes, offset;
  int first, last;
} plan_buffer;

struct lamina_plan {
  atomic_int references;
  lamina_context *context;
  lamina_graph *graph;
  lamina_plan_options options;
  plan_node *nodes;
  int node_count, fused_count;
  int timed, remembered; /* by tuning: kernels that were measured, nodes whose choice was known */
  plan_value *values; /* same indices as the graph's at the time */
  int value_count;
  plan_buffer *buffers;
  size_t buffer_count, buffer_capacity;
  size_t arena, unplanned, workspace;
  size_t plain; /* the arena without again, gradients_buffer */
  pthread_mutex_t pack_lock;
};

/* A lamina_node with its tensor arrays in one block of memory; shapes filled in, data NULL but for parameters. */
lamina_node *lamina_plan_view(const lamina_plan *plan, const plan_node *node);
void lamina_plan_retain(lamina_plan *plan);

/* Flags of an input's port; none for the addend of an epilogue, which follows the graph's inputs. */
uint32_t lamina_plan_input_flags(const plan_node *node, int input);

/* The steps, in their order. */
lamina_status lamina_plan_clone(lamina_plan *plan, const char *outputs);
lamina_status lamina_plan_run_passes(lamina_plan *plan);
lamina_status lamina_plan_choose_kernels(lamina_plan *plan);
/* Before the passes (they fuse as at inference where no gradient is needed), and after them for the nodes that are left. */
lamina_status lamina_plan_freeze(lamina_plan *plan);
void lamina_plan_need_gradients(lamina_plan *plan);
/* Which nodes run again in the backward pass. */
lamina_status lamina_plan_recompute(lamina_plan *plan);
lamina_status lamina_plan_place(lamina_plan *plan);

/* Whether `name` matches one of the comma-separated patterns, in which '*' stands for any characters. */
bool lamina_plan_matches(const char *patterns, const char *name);
/* The value whose memory a view shows, itself if none. */
int lamina_plan_viewed(const lamina_plan *plan, int value);
/* Bytes of the gradients of a node's parameters, each in its 64-byte lines. */
size_t lamina_plan_gradient_bytes(const plan_node *node);
/* Whether a node's parameters are packed in the arena whenever it runs. */
bool lamina_plan_packs_late(const lamina_plan *plan, const plan_node *node);
/* Whether gradients of parameters live only until their node's backward is done with them. */
bool lamina_plan_passes_gradients_on(const lamina_plan *plan);
/* Makes what an epilogue has from learned parameters current. */
void lamina_plan_refresh_epilogue(const plan_node *node, lamina_epilogue *epilogue);

/* Makes a node's packed parameters current. */
lamina_status lamina_plan_pack(lamina_plan *plan, plan_node *node);

#endif
