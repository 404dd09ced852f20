/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PyTorch's flatten of an image gives (C, H, W) order, ours lies in memory as (H, W, C). When only linear layers read the
 * result, the permutation moves into the order of their packed weight columns, and flatten becomes a view: a layer offers
 * this by an attribute "channels_last" (flatten) and "in_spatial" (linear). Not in training, where weights change with each
 * step: there are more of them than activations.
 */
#include "../attributes.h"
#include "passes.h"

static bool all_readers_fold(const lamina_plan *plan, int value) {
  if (plan->values[value].is_output) return false;
  bool any = false;
  for (int n = 0; n < plan->node_count; n++) {
    const plan_node *node = &plan->nodes[n];
    for (int i = 0; !node->removed && i < node->n_inputs; i++) {
      if (node->inputs[i] != value) continue;
      int attr = lamina_attr_index(node->source->layer, "in_spatial");
      if (attr < 0 || node->attrs[attr].i != 1) return false;
      any = true;
    }
  }
  return any;
}

lamina_status lamina_pass_fold_flatten(lamina_plan *plan) {
  if (plan->options.mode == LAMINA_TRAIN) return LAMINA_OK;
  for (int n = 0; n < plan->node_count; n++) {
    plan_node *flatten = &plan->nodes[n];
    int attr = lamina_attr_index(flatten->source->layer, "channels_last");
    if (flatten->removed || attr < 0 || flatten->attrs[attr].i) continue;
    const lamina_tensor *in = &plan->values[flatten->inputs[0]].shape;
    const lamina_tensor *out = &plan->values[flatten->outputs[0]].shape;
    if (in->rank < 3 || out->rank != 2 || !all_readers_fold(plan, flatten->outputs[0])) continue;
    int64_t spatial = 1;
    for (int d = 1; d < in->rank - 1; d++) spatial *= in->dim[d];
    flatten->attrs[attr].i = 1;
    for (int m = 0; m < plan->node_count; m++)
      for (int i = 0; i < plan->nodes[m].n_inputs; i++)
        if (plan->nodes[m].inputs[i] == flatten->outputs[0])
          plan->nodes[m].attrs[lamina_attr_index(plan->nodes[m].source->layer, "in_spatial")].i = spatial;
  }
  return LAMINA_OK;
}
