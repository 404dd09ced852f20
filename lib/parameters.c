/* SPDX-License-Identifier: Apache-2.0 */
/* The public view of a graph's parameters. */
#include <string.h>

#include "graph.h"

static lamina_entry *entry_at(const lamina_graph *graph, int wanted, int *count) {
  *count = 0;
  for (size_t n = 0; graph && n < graph->node_count; n++)
    for (int i = 0; i < graph->nodes[n]->n_params; i++)
      if (graph->nodes[n]->params[i] && (*count)++ == wanted) return graph->nodes[n]->params[i];
  return NULL;
}

int lamina_graph_parameter_count(const lamina_graph *graph) {
  int count;
  entry_at(graph, -1, &count);
  return count;
}

static lamina_status describe(const lamina_graph *graph, lamina_entry *entry, lamina_parameter *parameter) {
  if (!parameter || parameter->size < sizeof parameter->size)
    return lamina_fail(graph->context, LAMINA_INVALID_ARGUMENT, "parameter is NULL or its size is not set");
  lamina_parameter full = {
      .size = parameter->size, .name = entry->name, .trainable = entry->trainable, .tensor = entry->tensor};
  memcpy(parameter, &full, parameter->size < sizeof full ? parameter->size : sizeof full);
  return LAMINA_OK;
}

lamina_status lamina_graph_parameter_at(lamina_graph *graph, int index, lamina_parameter *parameter) {
  if (!graph) return LAMINA_INVALID_ARGUMENT;
  int count;
  lamina_entry *entry = index < 0 ? NULL : entry_at(graph, index, &count);
  if (!entry) return lamina_fail(graph->context, LAMINA_NOT_FOUND, "the graph has no parameter number %d", index);
  lamina_status status = lamina_store_ensure_written(graph->store, entry);
  return status ? status : describe(graph, entry, parameter);
}

lamina_status lamina_graph_parameter_find(lamina_graph *graph, const char *name, lamina_parameter *parameter) {
  if (!graph) return LAMINA_INVALID_ARGUMENT;
  for (size_t n = 0; name && n < graph->node_count; n++)
    for (int i = 0; i < graph->nodes[n]->n_params; i++) {
      lamina_entry *entry = graph->nodes[n]->params[i];
      if (!entry || strcmp(entry->name, name) != 0) continue;
      lamina_status status = lamina_store_ensure_written(graph->store, entry);
      return status ? status : describe(graph, entry, parameter);
    }
  return lamina_fail(graph->context, LAMINA_NOT_FOUND, "the graph has no parameter '%s'", name ? name : "NULL");
}

void lamina_graph_parameters_changed(lamina_graph *graph) {
  if (graph) atomic_fetch_add(&graph->store->version, 1);
}

lamina_status lamina_graph_initialize(lamina_graph *graph, uint64_t seed) {
  if (!graph) return LAMINA_INVALID_ARGUMENT;
  for (size_t n = 0; n < graph->node_count; n++)
    for (int i = 0; i < graph->nodes[n]->n_params; i++) {
      if (!graph->nodes[n]->params[i]) continue;
      lamina_status status = lamina_store_initialize(graph->store, graph->nodes[n]->params[i], seed);
      if (status) return status;
    }
  return LAMINA_OK;
}
