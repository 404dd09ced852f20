/* SPDX-License-Identifier: Apache-2.0 */
#include "graph.h"

#include <string.h>

#include "graph_add.h"

enum { MAX_NAME = 200 };

lamina_status lamina_graph_create(lamina_context *context, lamina_graph *share, lamina_graph **out) {
  if (out) *out = NULL;
  if (!context) return LAMINA_INVALID_ARGUMENT;
  if (!out) return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "lamina_graph_create: graph is NULL");
  if (share && share->context != context)
    return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "lamina_graph_create: the graph to share with has another context");
  lamina_graph *graph = lamina_alloc_zeroed(context, sizeof *graph);
  if (!graph) return lamina_fail_memory(context, sizeof *graph);
  if (share) {
    graph->store = share->store;
    lamina_store_retain(graph->store);
  } else {
    graph->store = lamina_store_create(context);
  }
  if (!graph->store) {
    lamina_free(context, graph);
    return lamina_fail_memory(context, sizeof *graph->store);
  }
  atomic_init(&graph->references, 1);
  graph->context = context;
  lamina_context_retain(context);
  *out = graph;
  return LAMINA_OK;
}

void lamina_graph_retain(lamina_graph *graph) { atomic_fetch_add(&graph->references, 1); }

void lamina_graph_node_free(const lamina_context *context, graph_node *node) {
  if (!node) return;
  lamina_module_release(context, node->module);
  lamina_free(context, node->name);
  lamina_free(context, node->attributes);
  lamina_free(context, node->attrs);
  lamina_free(context, node->attr_storage);
  lamina_free(context, node->inputs);
  lamina_free(context, node->outputs);
  lamina_free(context, node->params);
  lamina_free(context, node);
}

void lamina_graph_destroy(lamina_graph *graph) {
  if (!graph || atomic_fetch_sub(&graph->references, 1) > 1) return;
  lamina_context *context = graph->context;
  for (size_t i = 0; i < graph->node_count; i++) lamina_graph_node_free(context, graph->nodes[i]);
  lamina_graph_drop_values(graph, 0);
  lamina_free(context, graph->nodes);
  lamina_free(context, graph->values);
  lamina_store_release(graph->store);
  lamina_free(context, graph);
  lamina_context_release(context);
}

int lamina_graph_find(const lamina_graph *graph, const char *name) {
  for (size_t i = 0; i < graph->value_count; i++)
    if (strcmp(graph->values[i]->name, name) == 0) return (int)i;
  return -1;
}

/* Checkpoints take no control characters either. */
static bool is_plain(const char *name) {
  for (; *name; name++)
    if ((unsigned char)*name <= ' ' || *name == 127 || strchr(",'\"=/\\", *name)) return false;
  return true;
}

lamina_status lamina_graph_check_name(const lamina_graph *graph, const char *what, const char *name) {
  if (!name || !*name || strlen(name) > MAX_NAME || !is_plain(name))
    return lamina_fail(
        graph->context, LAMINA_INVALID_ARGUMENT,
        "%s name '%.60s': it must have 1 to %d characters without blanks, commas, quotes, '=' or slashes", what,
        name ? name : "NULL", (int)MAX_NAME);
  if (lamina_graph_find(graph, name) >= 0)
    return lamina_fail(graph->context, LAMINA_INVALID_ARGUMENT, "%s name '%s' is taken already", what, name);
  return LAMINA_OK;
}

lamina_status lamina_graph_add_value(lamina_graph *graph, const char *name, int producer, int port,
                                     const lamina_tensor *shape) {
  const lamina_context *context = graph->context;
  graph_value **values =
      lamina_grow(context, graph->values, &graph->value_capacity, graph->value_count + 1, sizeof *values);
  if (values) graph->values = values;
  graph_value *value = values ? lamina_alloc_zeroed(context, sizeof *value) : NULL;
  char *copy = value ? lamina_copy_string(context, name) : NULL;
  if (!copy) {
    lamina_free(context, value);
    return lamina_fail_memory(context, sizeof *value);
  }
  *value = (graph_value){.name = copy, .producer = producer, .port = port, .shape = *shape};
  values[graph->value_count++] = value;
  return LAMINA_OK;
}

void lamina_graph_drop_values(lamina_graph *graph, size_t kept) {
  while (graph->value_count > kept) {
    graph_value *value = graph->values[--graph->value_count];
    lamina_free(graph->context, value->name);
    lamina_free(graph->context, value);
  }
}

lamina_status lamina_graph_input(lamina_graph *graph, const char *name, lamina_dtype dtype, int rank, const int64_t *dim) {
  if (!graph) return LAMINA_INVALID_ARGUMENT;
  lamina_status status = lamina_graph_check_name(graph, "input", name);
  if (status) return status;
  if (dtype != LAMINA_F32 && dtype != LAMINA_I32)
    return lamina_fail(graph->context, LAMINA_UNSUPPORTED, "input '%s': its type must be f32 or i32", name);
  if (rank < 0 || rank >= LAMINA_MAX_RANK || (rank > 0 && !dim))
    return lamina_fail(graph->context, LAMINA_INVALID_ARGUMENT, "input '%s': rank %d is not 0 to %d", name, rank,
                       LAMINA_MAX_RANK - 1);
  lamina_tensor shape = {.dtype = dtype, .rank = rank + 1, .dim = {1}};
  size_t bytes;
  for (int i = 0; i < rank; i++) {
    shape.dim[i + 1] = dim[i];
    if (dim[i] < 1)
      return lamina_fail(graph->context, LAMINA_INVALID_ARGUMENT, "input '%s': size %lld in dimension %d is not positive",
                         name, (long long)dim[i], i);
  }
  if (!lamina_tensor_bytes(&shape, &bytes))
    return lamina_fail(graph->context, LAMINA_INVALID_ARGUMENT, "input '%s': its size overflows", name);
  lamina_tensor_set_dense(&shape);
  return lamina_graph_add_value(graph, name, -1, 0, &shape);
}

lamina_status lamina_graph_output(lamina_graph *graph, const char *name) {
  if (!graph) return LAMINA_INVALID_ARGUMENT;
  int index = name ? lamina_graph_find(graph, name) : -1;
  if (index < 0)
    return lamina_fail(graph->context, LAMINA_NOT_FOUND, "output '%s': the graph has no such value", name ? name : "NULL");
  if (graph->values[index]->producer < 0)
    return lamina_fail(graph->context, LAMINA_INVALID_ARGUMENT, "output '%s': it is an input", name);
  graph->values[index]->is_output = true;
  return LAMINA_OK;
}

bool lamina_graph_is_output(const lamina_graph *graph, int index) {
  for (size_t i = 0; i < graph->value_count; i++)
    if (graph->values[i]->is_output) return graph->values[index]->is_output;
  const graph_value *value = graph->values[index];
  return value->producer >= 0 && value->consumers == 0 && value->port == 0;
}

lamina_status lamina_graph_value(const lamina_graph *graph, const char *name, lamina_tensor *tensor) {
  if (!graph) return LAMINA_INVALID_ARGUMENT;
  int index = name && tensor ? lamina_graph_find(graph, name) : -1;
  if (index < 0)
    return lamina_fail(graph->context, LAMINA_NOT_FOUND, "the graph has no value '%s'", name ? name : "NULL");
  *tensor = graph->values[index]->shape;
  return LAMINA_OK;
}

static const char *nth_value(const lamina_graph *graph, int wanted, bool inputs, int *count) {
  const char *found = NULL;
  *count = 0;
  for (size_t i = 0; graph && i < graph->value_count; i++) {
    bool match = inputs ? graph->values[i]->producer < 0 : lamina_graph_is_output(graph, (int)i);
    if (match && (*count)++ == wanted) found = graph->values[i]->name;
  }
  return found;
}

int lamina_graph_input_count(const lamina_graph *graph) {
  int count;
  nth_value(graph, -1, true, &count);
  return count;
}

const char *lamina_graph_input_name(const lamina_graph *graph, int index) {
  int count;
  return nth_value(graph, index, true, &count);
}

int lamina_graph_output_count(const lamina_graph *graph) {
  int count;
  nth_value(graph, -1, false, &count);
  return count;
}

const char *lamina_graph_output_name(const lamina_graph *graph, int index) {
  int count;
  return nth_value(graph, index, false, &count);
}
