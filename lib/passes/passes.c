/* SPDX-License-Identifier: Apache-2.0 */
#include "passes.h"

#include <stdio.h>
#include <string.h>

static lamina_status (*const passes[])(lamina_plan *plan) = {lamina_pass_fold_flatten, lamina_pass_fuse_epilogue};

int lamina_pass_readers(const lamina_plan *plan, int value, plan_node **first) {
  int readers = 0;
  *first = NULL;
  for (int n = 0; n < plan->node_count; n++) {
    plan_node *node = &plan->nodes[n];
    if (node->removed) continue;
    readers += node->add == value;
    for (int i = 0; i < node->n_inputs; i++) {
      if (node->inputs[i] != value) continue;
      readers++;
      if (!*first) *first = node;
    }
  }
  return readers;
}

lamina_status lamina_pass_merge(lamina_plan *plan, plan_node *node, plan_node *into) {
  const char *before = into->fused ? into->fused : "";
  size_t bytes = strlen(before) + strlen(node->source->name) + 2;
  char *names = lamina_alloc(plan->context, bytes);
  if (!names) return lamina_fail_memory(plan->context, bytes);
  snprintf(names, bytes, "%s%s%s", before, *before ? " " : "", node->source->name);
  lamina_free(plan->context, into->fused);
  into->fused = names;
  /* The value between is not written and read; where a gradient passes, neither is its gradient. */
  size_t value = 0;
  lamina_tensor_bytes(&plan->values[node->outputs[0]].shape, &value);
  into->fused_bytes += (into->backward ? 4.0 : 2.0) * (double)value;
  node->removed = true;
  plan->fused_count++;
  return LAMINA_OK;
}

lamina_status lamina_plan_run_passes(lamina_plan *plan) {
  if (!plan->options.no_fusion)
    for (size_t i = 0; i < sizeof passes / sizeof passes[0]; i++) {
      lamina_status status = passes[i](plan);
      if (status) return status;
    }
  int kept = 0;
  for (int n = 0; n < plan->node_count; n++) {
    plan_node *node = &plan->nodes[n];
    if (node->removed) {
      lamina_free(plan->context, node->attrs);
      lamina_free(plan->context, node->inputs);
      lamina_free(plan->context, node->outputs);
      lamina_free(plan->context, node->temporary);
      lamina_free(plan->context, node->fused);
      continue;
    }
    for (int i = 0; i < node->n_outputs; i++) plan->values[node->outputs[i]].producer = kept;
    if (kept != n) plan->nodes[kept] = *node;
    kept++;
  }
  plan->node_count = kept;
  return LAMINA_OK;
}
