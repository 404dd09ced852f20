/* SPDX-License-Identifier: Apache-2.0 */
/* lamina_graph_add: everything about a new node is checked here, so that a graph is always sound. */
#include "graph_add.h"

#include <stdio.h>
#include <string.h>

#include "attributes.h"
#include "initialize.h"
#include "layer_type.h"

typedef struct addition {
  lamina_graph *graph;
  graph_node *node;
  lamina_node view; /* what infer sees */
  lamina_tensor inputs[LAMINA_MAX_PORTS], outputs[LAMINA_MAX_PORTS], params[LAMINA_MAX_PORTS];
  const char *initializers[LAMINA_MAX_PORTS]; /* given as init.PORT, or NULL */
} addition;

static lamina_status resolve_inputs(addition *a, const char *list) {
  lamina_graph *graph = a->graph;
  graph_node *node = a->node;
  const lamina_context *context = graph->context;
  char name[256];
  int next, declared = lamina_port_count(node->layer, LAMINA_PORT_INPUT);
  const lamina_port *last = declared ? lamina_port_at(node->layer, LAMINA_PORT_INPUT, declared - 1) : NULL;
  bool variadic = last && (last->flags & LAMINA_PORT_VARIADIC);
  while ((next = lamina_next_name(&list, name, sizeof name)) == 1) {
    int value = lamina_graph_find(graph, name);
    if (value < 0)
      return lamina_fail(context, LAMINA_NOT_FOUND, "node '%s': its input '%s' does not exist", node->name, name);
    if (a->view.n_inputs == LAMINA_MAX_PORTS || (!variadic && a->view.n_inputs == declared))
      return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "node '%s': layer '%s' takes %d input%s, more are given",
                         node->name, node->layer->name, variadic ? LAMINA_MAX_PORTS : declared, declared == 1 ? "" : "s");
    const lamina_port *port = lamina_input_port(node->layer, a->view.n_inputs);
    lamina_dtype dtype = port->dtype ? port->dtype : LAMINA_F32;
    if (graph->values[value]->shape.dtype != dtype)
      return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "node '%s': its input '%s' (%s) must be %s, but '%s' is %s",
                         node->name, port->name, node->layer->name, lamina_dtype_name(dtype), name,
                         lamina_dtype_name(graph->values[value]->shape.dtype));
    a->inputs[a->view.n_inputs] = graph->values[value]->shape;
    node->inputs[a->view.n_inputs++] = value;
  }
  if (next < 0) return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "node '%s': an input name is empty", node->name);
  if (a->view.n_inputs < declared)
    return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "node '%s': layer '%s' needs %d input%s, %d given", node->name,
                       node->layer->name, declared, declared == 1 ? "" : "s", a->view.n_inputs);
  node->n_inputs = a->view.n_inputs;
  return LAMINA_OK;
}

static lamina_status set_initializer(void *user, const char *port, const char *initializer) {
  addition *a = user;
  for (int i = 0; i < a->node->n_params; i++)
    if (strcmp(lamina_port_at(a->node->layer, LAMINA_PORT_PARAMETER, i)->name, port) == 0) {
      a->initializers[i] = initializer;
      return lamina_initializer_check(a->graph->context, initializer);
    }
  return lamina_fail(a->graph->context, LAMINA_INVALID_ARGUMENT, "layer '%s' has no parameter '%s' to initialise",
                     a->node->layer->name, port);
}

static lamina_status parse_attributes(addition *a, const char *text) {
  const lamina_context *context = a->graph->context;
  graph_node *node = a->node;
  node->attributes = lamina_copy_string(context, text ? text : "");
  node->attrs = lamina_alloc_zeroed(context, (size_t)(lamina_attr_count(node->layer) + 1) * sizeof *node->attrs);
  node->attr_storage = lamina_alloc(context, lamina_attr_storage(node->layer, text));
  if (!node->attributes || !node->attrs || !node->attr_storage) return lamina_fail_memory(context, 1);
  lamina_status status =
      lamina_attr_parse(context, node->layer, text, node->attrs, node->attr_storage, set_initializer, a);
  return status ? lamina_fail_prefix(context, status, "node '%s' (%s)", node->name, node->layer->name) : LAMINA_OK;
}

/* Fan-in and fan-out of the node's first parameter of two or more dimensions, as PyTorch counts them. */
static void count_fans(const addition *a, int64_t *fan_in, int64_t *fan_out) {
  *fan_in = *fan_out = 1;
  for (int i = 0; i < a->node->n_params; i++) {
    const lamina_tensor *t = &a->params[i];
    if (t->rank < 2) continue;
    int64_t receptive = 1;
    for (int d = 2; d < t->rank; d++) receptive *= t->dim[d];
    *fan_in = t->dim[1] * receptive;
    *fan_out = t->dim[0] * receptive;
    return;
  }
}

static lamina_status add_parameters(addition *a) {
  const lamina_context *context = a->graph->context;
  int64_t fan_in, fan_out;
  char name[512];
  count_fans(a, &fan_in, &fan_out);
  for (int i = 0; i < a->node->n_params; i++) {
    if (a->params[i].rank < 0) continue;
    const lamina_port *port = lamina_port_at(a->node->layer, LAMINA_PORT_PARAMETER, i);
    const char *initializer = a->initializers[i] ? a->initializers[i] : port->initializer;
    snprintf(name, sizeof name, "%s.%s", a->node->name, port->name);
    lamina_status status = lamina_store_add(a->graph->store, name, &a->params[i], port, initializer ? initializer : "zeros",
                                            fan_in, fan_out, &a->node->params[i]);
    if (status) return lamina_fail_prefix(context, status, "node '%s'", a->node->name);
  }
  return LAMINA_OK;
}

static lamina_status add_outputs(addition *a) {
  lamina_graph *graph = a->graph;
  char name[512];
  for (int i = 0; i < a->node->n_outputs; i++) {
    if (i == 0)
      snprintf(name, sizeof name, "%s", a->node->name);
    else
      snprintf(name, sizeof name, "%s.%s", a->node->name, lamina_port_at(a->node->layer, LAMINA_PORT_OUTPUT, i)->name);
    lamina_status status = i ? lamina_graph_check_name(graph, "value", name) : LAMINA_OK;
    if (!status) status = lamina_graph_add_value(graph, name, (int)graph->node_count, i, &a->outputs[i]);
    if (status) return status;
    a->node->outputs[i] = (int)graph->value_count - 1;
  }
  return LAMINA_OK;
}

static lamina_status allocate_node(addition *a, const lamina_layer *layer, const char *name) {
  const lamina_context *context = a->graph->context;
  graph_node *node = a->node = lamina_alloc_zeroed(context, sizeof *node);
  if (!node) return lamina_fail_memory(context, sizeof *node);
  node->layer = layer;
  node->n_outputs = lamina_port_count(layer, LAMINA_PORT_OUTPUT);
  node->n_params = lamina_port_count(layer, LAMINA_PORT_PARAMETER);
  node->name = lamina_copy_string(context, name);
  node->inputs = lamina_alloc_zeroed(context, LAMINA_MAX_PORTS * sizeof *node->inputs);
  node->outputs = lamina_alloc_zeroed(context, (size_t)node->n_outputs * sizeof *node->outputs);
  node->params = lamina_alloc_zeroed(context, (size_t)(node->n_params + 1) * sizeof *node->params);
  graph_node **nodes =
      lamina_grow(context, a->graph->nodes, &a->graph->node_capacity, a->graph->node_count + 1, sizeof *nodes);
  if (nodes) a->graph->nodes = nodes;
  return node->name && node->inputs && node->outputs && node->params && nodes ? LAMINA_OK
                                                                              : lamina_fail_memory(context, sizeof *node);
}

static lamina_status build(addition *a, const lamina_registration *row, const char *name, const char *inputs,
                           const char *attributes) {
  const lamina_layer *layer = row->layer;
  lamina_status status = allocate_node(a, layer, name);
  if (!status) status = resolve_inputs(a, inputs ? inputs : "");
  if (!status) status = parse_attributes(a, attributes);
  if (status) return status;
  a->view.name = a->node->name;
  a->view.attrs = a->node->attrs;
  a->view.n_outputs = a->node->n_outputs;
  a->view.n_params = a->node->n_params;
  a->view.inputs = a->inputs;
  a->view.outputs = a->outputs;
  a->view.params = a->params;
  status = lamina_infer(a->graph->context, layer, &a->view);
  if (!status) status = add_parameters(a);
  if (!status) status = add_outputs(a);
  return status;
}

lamina_status lamina_graph_add(lamina_graph *graph, const char *type, const char *name, const char *inputs,
                               const char *attributes) {
  if (!graph) return LAMINA_INVALID_ARGUMENT;
  lamina_context *context = graph->context;
  lamina_status status = lamina_graph_check_name(graph, "node", name);
  if (status) return status;
  lamina_registration row;
  status = lamina_layer_type_hold(context, type, name, &row);
  if (status) return status;
  addition *a = lamina_alloc_zeroed(context, sizeof *a);
  if (!a) {
    lamina_module_release(context, row.module);
    return lamina_fail_memory(context, sizeof *a);
  }
  a->graph = graph;
  const size_t values = graph->value_count, entries = graph->store->count;
  status = build(a, &row, name, inputs, attributes);
  if (status) {
    lamina_graph_drop_values(graph, values);
    lamina_store_truncate(graph->store, entries);
    lamina_graph_node_free(context, a->node);
  } else {
    a->node->module = row.module; /* held from now on by the node */
    row.module = NULL;
    for (int i = 0; i < a->node->n_inputs; i++) graph->values[a->node->inputs[i]]->consumers++;
    graph->nodes[graph->node_count++] = a->node;
  }
  lamina_free(context, a);
  lamina_module_release(context, row.module);
  return status;
}
