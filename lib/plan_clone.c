/* SPDX-License-Identifier: Apache-2.0 */
/* Copies what the outputs need of a graph, with the shapes of the plan's batch. */
#include <math.h>
#include <string.h>

#include "attributes.h"
#include "plan.h"

static lamina_status mark_outputs(lamina_plan *plan, const char *outputs) {
  const lamina_graph *graph = plan->graph;
  char name[256];
  int next, marked = 0;
  if (!outputs) {
    for (int v = 0; v < plan->value_count; v++) marked += plan->values[v].is_output = lamina_graph_is_output(graph, v);
    return marked ? LAMINA_OK : lamina_fail(plan->context, LAMINA_INVALID_ARGUMENT, "plan: the graph has no layers");
  }
  while ((next = lamina_next_name(&outputs, name, sizeof name)) == 1) {
    int value = lamina_graph_find(graph, name);
    if (value < 0) return lamina_fail(plan->context, LAMINA_NOT_FOUND, "plan: the graph has no value '%s'", name);
    if (graph->values[value]->producer < 0)
      return lamina_fail(plan->context, LAMINA_INVALID_ARGUMENT, "plan: '%s' is an input, not an output", name);
    plan->values[value].is_output = true;
    marked++;
  }
  if (next < 0 || !marked) return lamina_fail(plan->context, LAMINA_INVALID_ARGUMENT, "plan: an output name is empty");
  return LAMINA_OK;
}

/* needed[n]: node n leads to an output. */
static void mark_needed(const lamina_plan *plan, bool *needed) {
  const lamina_graph *graph = plan->graph;
  for (int v = 0; v < plan->value_count; v++)
    if (plan->values[v].is_output) needed[graph->values[v]->producer] = true;
  for (int n = (int)graph->node_count - 1; n >= 0; n--)
    for (int i = 0; needed[n] && i < graph->nodes[n]->n_inputs; i++) {
      int producer = graph->values[graph->nodes[n]->inputs[i]]->producer;
      if (producer >= 0) needed[producer] = true;
    }
}

/* With room for one more. */
static int *copy_ints(const lamina_context *context, const int *from, int count) {
  int *copy = lamina_alloc(context, (size_t)(count + 1) * sizeof *copy);
  if (copy && count) memcpy(copy, from, (size_t)count * sizeof *copy);
  return copy;
}

static lamina_status clone_node(lamina_plan *plan, const graph_node *source) {
  const lamina_context *context = plan->context;
  const size_t attrs = (size_t)lamina_attr_count(source->layer) + 1;
  plan_node *node = &plan->nodes[plan->node_count++];
  *node = (plan_node){.source = source,
                      .mode = plan->options.mode,
                      .n_inputs = source->n_inputs,
                      .n_outputs = source->n_outputs,
                      .epilogue = {.size = sizeof(lamina_epilogue), .lo = -INFINITY, .hi = INFINITY},
                      .add = -1,
                      .saved_buffer = -1,
                      .packed_buffer = {-1, -1, -1},
                      .gradients_buffer = -1};
  node->inputs = copy_ints(context, source->inputs, source->n_inputs);
  node->outputs = copy_ints(context, source->outputs, source->n_outputs);
  node->temporary = copy_ints(context, source->inputs, source->n_inputs);
  node->attrs = lamina_alloc(context, attrs * sizeof *node->attrs);
  if (!node->inputs || !node->outputs || !node->temporary || !node->attrs)
    return lamina_fail_memory(context, attrs * sizeof *node->attrs);
  memcpy(node->attrs, source->attrs, attrs * sizeof *node->attrs);
  for (int i = 0; i <= node->n_inputs; i++) node->temporary[i] = -1; /* one more: a pass may append an input */
  for (int i = 0; i < node->n_outputs; i++) plan->values[node->outputs[i]].producer = plan->node_count - 1;

  lamina_node *view = lamina_plan_view(plan, node);
  if (!view) return lamina_fail_memory(context, sizeof *view);
  lamina_status status = lamina_infer(context, source->layer, view);
  for (int i = 0; !status && i < node->n_outputs; i++) plan->values[node->outputs[i]].shape = view->outputs[i];
  lamina_free(context, view);
  return status;
}

static lamina_status clone_values(lamina_plan *plan) {
  const lamina_graph *graph = plan->graph;
  for (int v = 0; v < plan->value_count; v++) {
    plan_value *value = &plan->values[v];
    *value = (plan_value){.name = graph->values[v]->name,
                          .shape = graph->values[v]->shape,
                          .producer = -1,
                          .port = graph->values[v]->port,
                          .root = v,
                          .buffer = -1,
                          .again_buffer = -1,
                          .gradient_buffer = -1,
                          .first_writer = -1};
    if (graph->values[v]->producer >= 0) continue;
    size_t bytes;
    value->shape.dim[0] = plan->options.batch;
    if (!lamina_tensor_bytes(&value->shape, &bytes))
      return lamina_fail(plan->context, LAMINA_INVALID_ARGUMENT, "plan: the size of input '%s' overflows with a batch of %lld",
                         value->name, (long long)plan->options.batch);
    lamina_tensor_set_dense(&value->shape);
  }
  return LAMINA_OK;
}

lamina_status lamina_plan_clone(lamina_plan *plan, const char *outputs) {
  const lamina_graph *graph = plan->graph;
  const lamina_context *context = plan->context;
  plan->value_count = (int)graph->value_count;
  plan->values = lamina_alloc_zeroed(context, (graph->value_count + 1) * sizeof *plan->values);
  plan->nodes = lamina_alloc_zeroed(context, (graph->node_count + 1) * sizeof *plan->nodes);
  bool *needed = lamina_alloc_zeroed(context, graph->node_count + 1);
  lamina_status status = LAMINA_OK;
  if (!plan->values || !plan->nodes || !needed) status = lamina_fail_memory(context, graph->node_count);
  if (!status) status = clone_values(plan);
  if (!status) status = mark_outputs(plan, outputs);
  if (!status) mark_needed(plan, needed);
  for (size_t n = 0; !status && n < graph->node_count; n++)
    if (needed[n]) status = clone_node(plan, graph->nodes[n]);
  lamina_free(context, needed);
  return status;
}
