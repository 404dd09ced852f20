/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which gradients are computed, and so which nodes the backward pass enters. What is frozen and what nothing trainable
 * stands before runs as at inference: its kernels keep and pack nothing for a backward pass, and the passes fuse it so.
 */
#include "plan.h"

#include <string.h>

/* Whether a pattern in which '*' stands for any characters, and every other one for itself, is the whole name. */
static bool matches(const char *pattern, const char *name) {
  const char *star = NULL, *retry = NULL;
  while (*name) {
    if (*pattern == '*') {
      star = ++pattern;
      retry = name;
    } else if (*pattern == *name) {
      pattern++;
      name++;
    } else if (star) {
      pattern = star;
      name = ++retry;
    } else {
      return false;
    }
  }
  while (*pattern == '*') pattern++;
  return !*pattern;
}

bool lamina_plan_matches(const char *patterns, const char *name) {
  char pattern[256];
  while (patterns && lamina_next_name(&patterns, pattern, sizeof pattern) == 1)
    if (matches(pattern, name)) return true;
  return false;
}

/* A pattern that matches nothing is a mistake that would go unnoticed. */
static lamina_status check_freeze(const lamina_plan *plan) {
  const char *patterns = plan->options.freeze;
  char pattern[256];
  int next = 0;
  while (patterns && (next = lamina_next_name(&patterns, pattern, sizeof pattern)) == 1) {
    bool used = false;
    for (int n = 0; n < plan->node_count; n++)
      for (int i = 0; i < plan->nodes[n].source->n_params; i++)
        used |= plan->nodes[n].source->params[i] && matches(pattern, plan->nodes[n].source->params[i]->name);
    if (!used) return lamina_fail(plan->context, LAMINA_NOT_FOUND, "plan: freeze: no parameter matches '%s'", pattern);
  }
  return next < 0 ? lamina_fail(plan->context, LAMINA_INVALID_ARGUMENT, "plan: freeze: a pattern is empty or too long")
                  : LAMINA_OK;
}

/* A node that learns nothing more: every parameter is frozen, or where there is none (no affine map), the states are.
 */
static bool is_frozen_node(const lamina_plan *plan, const plan_node *node) {
  const graph_node *source = node->source;
  int parameters = 0, states = 0, free_parameters = 0, free_states = 0;
  for (int i = 0; i < source->n_params; i++) {
    const lamina_entry *entry = source->params[i];
    if (!entry) continue;
    const bool is_free = !lamina_plan_matches(plan->options.freeze, entry->name);
    parameters += entry->trainable;
    states += !entry->trainable;
    free_parameters += entry->trainable && is_free;
    free_states += !entry->trainable && is_free;
  }
  return parameters ? !free_parameters : states && !free_states;
}

static bool has_states(const plan_node *node) {
  for (int i = 0; i < node->source->n_params; i++)
    if (node->source->params[i] && !node->source->params[i]->trainable) return true;
  return false;
}

/* Whether its forward in TRAIN and at INFER is the same, but for what it keeps for a backward pass. */
static bool runs_alike(const plan_node *node) {
  return !(node->source->layer->flags & LAMINA_LAYER_TRAINS_DIFFERENTLY) && (node->frozen_states || !has_states(node));
}

lamina_status lamina_plan_freeze(lamina_plan *plan) {
  if (plan->options.mode != LAMINA_TRAIN) return LAMINA_OK;
  lamina_status status = check_freeze(plan);
  if (status) return status;
  lamina_plan_need_gradients(plan);
  for (int n = 0; n < plan->node_count; n++) {
    plan_node *node = &plan->nodes[n];
    node->frozen_states = !plan->options.adapt_states && has_states(node) && is_frozen_node(plan, node);
    if (!node->backward && runs_alike(node)) node->mode = LAMINA_INFER;
  }
  return LAMINA_OK;
}

/* Which inputs and parameters of a node get a gradient, given which of its inputs need one. */
static void need_gradients_of(const lamina_plan *plan, plan_node *node) {
  bool differentiable = false;
  node->need_inputs = node->need_params = 0;
  for (int i = 0; i < node->n_outputs; i++) differentiable |= plan->values[node->outputs[i]].shape.dtype == LAMINA_F32;
  if (!differentiable) return;
  for (int i = 0; i < node->n_inputs; i++)
    if (plan->values[node->inputs[i]].needs_gradient && !(lamina_plan_input_flags(node, i) & LAMINA_PORT_NO_GRADIENT))
      node->need_inputs |= 1ull << i;
  for (int i = 0; i < node->source->n_params; i++)
    if (node->source->params[i] && node->source->params[i]->trainable &&
        !lamina_plan_matches(plan->options.freeze, node->source->params[i]->name))
      node->need_params |= 1ull << i;
}

void lamina_plan_need_gradients(lamina_plan *plan) {
  if (plan->options.mode != LAMINA_TRAIN) return;
  for (int v = 0; v < plan->value_count; v++)
    plan->values[v].needs_gradient =
        plan->options.input_gradients && plan->values[v].producer < 0 && plan->values[v].shape.dtype == LAMINA_F32;
  for (int n = 0; n < plan->node_count; n++) {
    plan_node *node = &plan->nodes[n];
    need_gradients_of(plan, node);
    node->backward = node->need_inputs || node->need_params;
    for (int i = 0; i < node->n_outputs; i++) {
      plan_value *value = &plan->values[node->outputs[i]];
      value->needs_gradient = node->backward && value->shape.dtype == LAMINA_F32;
    }
  }
}
