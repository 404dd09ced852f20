/* SPDX-License-Identifier: Apache-2.0 */
/* A graph's insides. Nodes and values only grow; a node never changes once added, so that plans may point at it. */
#ifndef LAMINA_GRAPH_H
#define LAMINA_GRAPH_H

#include "registry.h"
#include "store.h"

typedef struct graph_value {
  char *name;
  int producer, port;  /* node and its output port; producer -1: an input of the graph */
  lamina_tensor shape; /* for a batch of 1; data NULL */
  bool is_output;      /* marked by lamina_graph_output */
  int consumers;
} graph_value;

typedef struct graph_node {
  char *name;
  const lamina_layer *layer;
  lamina_module *module; /* that the layer comes from, held; NULL: built in */
  char *attributes; /* as given */
  lamina_value *attrs;
  char *attr_storage;
  int n_inputs, n_outputs, n_params;
  int *inputs, *outputs; /* values */
  lamina_entry **params; /* in port order; NULL: absent */
} graph_node;

struct lamina_graph {
  atomic_int references;
  lamina_context *context;
  lamina_store *store;
  graph_node **nodes;
  size_t node_count, node_capacity;
  graph_value **values;
  size_t value_count, value_capacity;
};

void lamina_graph_retain(lamina_graph *graph);
static inline lamina_store *lamina_graph_store(lamina_graph *graph) { return graph->store; }
static inline lamina_context *lamina_graph_context(const lamina_graph *graph) { return graph->context; }
/* Index of the value of that name, or -1. */
int lamina_graph_find(const lamina_graph *graph, const char *name);
/* Whether a value is an output: marked, or with none marked, read by nobody. */
bool lamina_graph_is_output(const lamina_graph *graph, int value);

/* Ports of one kind (LAMINA_PORT_PARAMETER counts states too); the i-th of them. */
int lamina_port_count(const lamina_layer *layer, lamina_port_kind kind);
const lamina_port *lamina_port_at(const lamina_layer *layer, lamina_port_kind kind, int index);
/* The port that input `index` of a node belongs to: the last one repeats if it is variadic. */
const lamina_port *lamina_input_port(const lamina_layer *layer, int index);

/* Runs a layer's infer on node->inputs and checks what it set. */
lamina_status lamina_infer(const lamina_context *context, const lamina_layer *layer, lamina_node *node);
/* The names of a comma-separated list, one after another: copies the next into `name` (bytes long) and moves *list.
   Returns 1, 0 at the end, -1 when a name is empty or too long. */
int lamina_next_name(const char **list, char *name, size_t bytes);

#endif
