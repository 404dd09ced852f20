/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which outputs are not kept for the backward pass but computed again in it: those that the caller names (checkpointing;
 * Chen, Xu, Zhang and Guestrin 2016), and, in place of batch norm in place (Rota Bulo, Porzi and Kontschieder 2018), which
 * needs an invertible activation, those of cheap layers whose inputs are kept anyway. Of a convolution with batch norm,
 * addition and ReLU that leaves one value to keep, the convolution's, instead of two, and no bit of a result changes.
 */
#include "plan.h"

int lamina_plan_viewed(const lamina_plan *plan, int value) {
  while (plan->values[value].producer >= 0 && plan->nodes[plan->values[value].producer].is_view)
    value = plan->nodes[plan->values[value].producer].inputs[0];
  return value;
}

static bool has_states(const plan_node *node) {
  for (int i = 0; i < node->source->n_params; i++)
    if (node->source->params[i] && !node->source->params[i]->trainable) return true;
  return false;
}

/* An output of the graph must be there at the end, and a layer must know that it is not to change its states again. */
static bool can_run_again(const lamina_plan *plan, const plan_node *node) {
  const uint32_t flags = node->source->layer->flags;
  if (node->is_view || node->n_outputs != 1 || (flags & LAMINA_LAYER_LOSS)) return false;
  if (has_states(node) && !(flags & LAMINA_LAYER_CHEAP)) return false;
  for (int v = 0; v < plan->value_count; v++)
    if (plan->values[v].is_output && lamina_plan_viewed(plan, v) == node->outputs[0]) return false;
  return true;
}

/* Whether a value is there when node n's backward runs, without being kept for its sake: the backward of n or of an earlier
   node reads it. */
static bool is_kept(const lamina_plan *plan, int n, int value) {
  const plan_value *viewed = &plan->values[lamina_plan_viewed(plan, value)];
  if (viewed->producer < 0 || viewed->is_output || plan->nodes[viewed->producer].again) return true;
  for (int m = viewed->producer; m <= n; m++) {
    const plan_node *node = &plan->nodes[m];
    if (!node->backward || node->is_view) continue;
    for (int i = 0; i < node->n_inputs; i++)
      if ((lamina_plan_input_flags(node, i) & LAMINA_PORT_BACKWARD_READS) &&
          lamina_plan_viewed(plan, node->inputs[i]) == lamina_plan_viewed(plan, value))
        return true;
  }
  const plan_node *producer = &plan->nodes[viewed->producer];
  return producer->backward &&
         (lamina_port_at(producer->source->layer, LAMINA_PORT_OUTPUT, viewed->port)->flags & LAMINA_PORT_BACKWARD_READS);
}

static bool is_cheap(const lamina_plan *plan, int n) {
  const plan_node *node = &plan->nodes[n];
  if (!(node->source->layer->flags & LAMINA_LAYER_CHEAP)) return false;
  for (int i = 0; i < node->n_inputs; i++)
    if (!is_kept(plan, n, node->inputs[i])) return false;
  return node->add < 0 || is_kept(plan, n, node->add);
}

/* A node goes by its own name and, with others merged into it, by that of its output. */
static bool is_named(const lamina_plan *plan, const plan_node *node, const char *patterns) {
  return lamina_plan_matches(patterns, node->source->name) ||
         lamina_plan_matches(patterns, plan->values[node->outputs[0]].name);
}

static lamina_status check_patterns(const lamina_plan *plan) {
  const char *patterns = plan->options.recompute;
  char pattern[256];
  int next = 0;
  while (patterns && (next = lamina_next_name(&patterns, pattern, sizeof pattern)) == 1) {
    bool used = false;
    for (int n = 0; n < plan->node_count; n++) used |= is_named(plan, &plan->nodes[n], pattern);
    if (!used) return lamina_fail(plan->context, LAMINA_NOT_FOUND, "plan: recompute: no node matches '%s'", pattern);
  }
  return next < 0 ? lamina_fail(plan->context, LAMINA_INVALID_ARGUMENT, "plan: recompute: a pattern is empty or too long")
                  : LAMINA_OK;
}

lamina_status lamina_plan_recompute(lamina_plan *plan) {
  if (plan->options.mode != LAMINA_TRAIN) return LAMINA_OK;
  lamina_status status = check_patterns(plan);
  if (status) return status;
  for (int n = 0; n < plan->node_count; n++) {
    plan_node *node = &plan->nodes[n];
    const bool wanted = is_named(plan, node, plan->options.recompute) || (plan->options.in_place && is_cheap(plan, n));
    node->again = wanted && can_run_again(plan, node);
  }
  return LAMINA_OK;
}
