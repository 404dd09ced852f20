/* SPDX-License-Identifier: Apache-2.0 */
#include "plan.h"

#include <stdlib.h>
#include <string.h>

static lamina_status read_options(lamina_graph *graph, const lamina_plan_options *given, lamina_plan_options *options) {
  memset(options, 0, sizeof *options);
  if (given && given->size < offsetof(lamina_plan_options, batch))
    return lamina_fail(graph->context, LAMINA_INVALID_ARGUMENT, "plan options: size is not set");
  if (given) memcpy(options, given, given->size < sizeof *options ? given->size : sizeof *options);
  if (options->batch == 0) options->batch = 1;
  if (options->batch < 0)
    return lamina_fail(graph->context, LAMINA_INVALID_ARGUMENT, "plan options: a batch of %lld samples",
                       (long long)options->batch);
  if (options->mode != LAMINA_INFER && options->mode != LAMINA_TRAIN)
    return lamina_fail(graph->context, LAMINA_INVALID_ARGUMENT, "plan options: %d is not a mode", (int)options->mode);
  if (options->accumulate == 0) options->accumulate = 1;
  if (options->accumulate < 0)
    return lamina_fail(graph->context, LAMINA_INVALID_ARGUMENT, "plan options: accumulate is %lld",
                       (long long)options->accumulate);
  const char *tune = getenv("LAMINA_PLAN_TUNE");
  if (options->tune == 0) options->tune = tune && *tune && strcmp(tune, "0") != 0;
  if (options->tune < 0) options->tune = 0;
  return LAMINA_OK;
}

/* Parameters that nothing was written to get their initial values. */
static lamina_status write_parameters(lamina_plan *plan) {
  lamina_store *store = plan->graph->store;
  for (int n = 0; n < plan->node_count; n++) {
    plan_node *node = &plan->nodes[n];
    const graph_node *sources[] = {node->source, node->affine, node->offer_source};
    for (int s = 0; s < 3; s++)
      for (int i = 0; sources[s] && i < sources[s]->n_params; i++) {
        lamina_entry *entry = sources[s]->params[i];
        if (!entry) continue;
        lamina_status status = lamina_store_ensure_written(store, entry);
        if (status) return status;
      }
  }
  return LAMINA_OK;
}

/* Everything is packed once. */
static lamina_status pack_parameters(lamina_plan *plan) {
  for (int n = 0; n < plan->node_count; n++) {
    plan_node *node = &plan->nodes[n];
    if (node->cost.packed && !lamina_plan_packs_late(plan, node)) {
      node->packed = lamina_alloc(plan->context, node->cost.packed);
      if (!node->packed) return lamina_fail_memory(plan->context, node->cost.packed);
    }
  }
  for (int n = 0; n < plan->node_count; n++) {
    lamina_status status = lamina_plan_pack(plan, &plan->nodes[n]);
    if (status) return status;
  }
  return LAMINA_OK;
}

static lamina_status build(lamina_plan *plan, const char *outputs) {
  lamina_status status = lamina_plan_clone(plan, outputs);
  if (!status) status = lamina_plan_freeze(plan);
  if (!status) status = lamina_plan_run_passes(plan);
  if (!status) lamina_plan_need_gradients(plan);
  if (!status && plan->options.tune) status = write_parameters(plan); /* kernels are measured with them */
  if (!status) status = lamina_plan_choose_kernels(plan);
  if (!status) status = lamina_plan_recompute(plan);
  if (!status) status = lamina_plan_place(plan);
  if (!status) status = write_parameters(plan);
  if (!status) status = pack_parameters(plan);
  return status;
}

lamina_status lamina_plan_create(lamina_graph *graph, const lamina_plan_options *given, lamina_plan **out) {
  if (out) *out = NULL;
  if (!graph) return LAMINA_INVALID_ARGUMENT;
  lamina_plan_options options;
  lamina_status status = read_options(graph, given, &options);
  if (!status && !out) status = lamina_fail(graph->context, LAMINA_INVALID_ARGUMENT, "lamina_plan_create: plan is NULL");
  if (status) return status;
  lamina_plan *plan = lamina_alloc_zeroed(graph->context, sizeof *plan);
  if (!plan) return lamina_fail_memory(graph->context, sizeof *plan);
  atomic_init(&plan->references, 1);
  pthread_mutex_init(&plan->pack_lock, NULL);
  plan->context = graph->context;
  plan->graph = graph;
  plan->options = options;
  plan->options.outputs = NULL; /* the caller's memory */
  lamina_graph_retain(graph);
  status = build(plan, options.outputs);
  plan->options.freeze = plan->options.recompute = NULL;
  if (status) {
    lamina_plan_destroy(plan);
    return status;
  }
  *out = plan;
  return LAMINA_OK;
}

void lamina_plan_retain(lamina_plan *plan) { atomic_fetch_add(&plan->references, 1); }

void lamina_plan_destroy(lamina_plan *plan) {
  if (!plan || atomic_fetch_sub(&plan->references, 1) > 1) return;
  lamina_context *context = plan->context;
  for (int n = 0; n < plan->node_count; n++) {
    plan_node *node = &plan->nodes[n];
    lamina_free(context, node->attrs);
    lamina_free(context, node->inputs);
    lamina_free(context, node->outputs);
    lamina_free(context, node->temporary);
    lamina_free(context, node->fused);
    lamina_free(context, node->rejected);
    lamina_free(context, node->offer);
    lamina_free(context, node->packed);
  }
  lamina_free(context, plan->nodes);
  lamina_free(context, plan->values);
  lamina_free(context, plan->buffers);
  pthread_mutex_destroy(&plan->pack_lock);
  lamina_graph *graph = plan->graph;
  lamina_free(context, plan);
  lamina_graph_destroy(graph);
}

static void fill_view(const lamina_plan *plan, const plan_node *node, lamina_node *view) {
  for (int i = 0; i < node->n_inputs; i++) view->inputs[i] = view->d_inputs[i] = plan->values[node->inputs[i]].shape;
  for (int i = 0; i < node->n_outputs; i++) view->outputs[i] = view->d_outputs[i] = plan->values[node->outputs[i]].shape;
  for (int i = 0; i < view->n_params; i++) {
    const lamina_entry *entry = node->source->params[i];
    view->params[i] = view->d_params[i] = entry ? entry->tensor : (lamina_tensor){.rank = -1};
    view->d_params[i].data = NULL;
  }
  if (node->add >= 0) view->epilogue.add = plan->values[node->add].shape;
}

uint32_t lamina_plan_input_flags(const plan_node *node, int input) {
  return input < node->source->n_inputs ? lamina_input_port(node->source->layer, input)->flags : 0;
}

lamina_node *lamina_plan_view(const lamina_plan *plan, const plan_node *node) {
  const int params = node->source->n_params;
  const size_t tensors = 2 * (size_t)(node->n_inputs + node->n_outputs + params);
  const size_t head = (sizeof(lamina_node) + 63) & ~(size_t)63;
  char *block = lamina_alloc_zeroed(plan->context, head + tensors * sizeof(lamina_tensor));
  if (!block) return NULL;
  lamina_node *view = (lamina_node *)(void *)block;
  lamina_tensor *tensor = (lamina_tensor *)(void *)(block + head);
  *view = (lamina_node){.size = sizeof *view,
                        .name = node->source->name,
                        .host = &plan->context->host,
                        .mode = node->mode,
                        .frozen_states = node->frozen_states,
                        .kernel = node->kernel,
                        .attrs = node->attrs,
                        .n_inputs = node->n_inputs,
                        .n_outputs = node->n_outputs,
                        .n_params = params,
                        .need_inputs = node->need_inputs,
                        .need_params = node->need_params,
                        .accumulate_inputs = node->accumulate_inputs,
                        .epilogue = node->epilogue,
                        .packed = node->packed};
  view->inputs = tensor;
  view->d_inputs = view->inputs + node->n_inputs;
  view->outputs = view->d_inputs + node->n_inputs;
  view->d_outputs = view->outputs + node->n_outputs;
  view->params = view->d_outputs + node->n_outputs;
  view->d_params = view->params + params;
  fill_view(plan, node, view);
  return view;
}

lamina_status lamina_plan_get_info(const lamina_plan *plan, lamina_plan_info *info) {
  if (!plan) return LAMINA_INVALID_ARGUMENT;
  if (!info || info->size < sizeof info->size)
    return lamina_fail(plan->context, LAMINA_INVALID_ARGUMENT, "lamina_plan_get_info: info is NULL or its size is not set");
  lamina_plan_info full = {.size = info->size,
                           .nodes = plan->node_count,
                           .fused = plan->fused_count,
                           .arena = plan->arena,
                           .unplanned = plan->unplanned,
                           .workspace = plan->workspace,
                           .timed = plan->timed,
                           .remembered = plan->remembered,
                           .plain = plan->plain};
  const bool keeps = !plan->options.early_step || plan->options.accumulate > 1;
  for (int n = 0; n < plan->node_count; n++) {
    const plan_node *node = &plan->nodes[n];
    full.saved += node->saved_buffer >= 0 ? node->cost.saved : 0;
    full.packed += lamina_plan_packs_late(plan, node) ? 0 : node->cost.packed;
    full.flops += node->cost.flops;
    full.recomputed += node->again;
    full.fused_bytes += node->fused_bytes;
    full.plain += node->cost.packed + lamina_plan_gradient_bytes(node);
    full.gradients += keeps ? lamina_plan_gradient_bytes(node) : 0;
    full.frozen += plan->options.mode == LAMINA_TRAIN && !node->backward;
    for (int i = 0; i < node->source->n_params; i++)
      if (node->need_params >> i & 1) full.trained += lamina_tensor_count(&node->source->params[i]->tensor);
    full.backward_flops += node->backward ? node->cost.backward_flops : 0;
  }
  memcpy(info, &full, info->size < sizeof full ? info->size : sizeof full);
  return LAMINA_OK;
}
