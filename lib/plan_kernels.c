/* SPDX-License-Identifier: Apache-2.0 */
/* Chooses each node's kernel (the first that finds itself worthwhile, or the fastest when the plan is tuned), and packs its
   parameters. */
#include <stdio.h>
#include <string.h>

#include "dispatch.h"
#include "plan.h"
#include "tune.h"

static bool is_generic_by_mistake(const lamina_plan *plan, const plan_node *node, const lamina_kernel *kernel) {
  return plan->options.strict && !node->is_view && strcmp(kernel->name, "generic") == 0 &&
         strcmp(plan->context->cpu.isa, "generic") != 0;
}

const char *lamina_kernel_refusal(const lamina_plan *plan, const plan_node *node, const lamina_kernel *kernel,
                                  lamina_node *view, bool tuned) {
  if (kernel->isa && !lamina_dispatch_includes(plan->context->cpu.isa, kernel->isa)) return "its instruction set is not in use";
  if (node->backward && !kernel->backward) return "it has no backward";
  if (tuned && is_generic_by_mistake(plan, node, kernel)) return "it is generic code";
  view->kernel = kernel;
  if (tuned && kernel->possible && kernel->possible(view)) return NULL;
  if (!kernel->supports || kernel->supports(view)) return NULL;
  return kernel->possible && kernel->possible(view) ? "it is not worthwhile" : "it does not support this node";
}

static lamina_status note_rejection(lamina_plan *plan, plan_node *node, const lamina_kernel *kernel, const char *reason) {
  const char *before = node->rejected ? node->rejected : "";
  size_t bytes = strlen(before) + strlen(kernel->name) + strlen(reason) + 5;
  char *text = lamina_alloc(plan->context, bytes);
  if (!text) return lamina_fail_memory(plan->context, bytes);
  snprintf(text, bytes, "%s%s%s: %s", before, *before ? "; " : "", kernel->name, reason);
  lamina_free(plan->context, node->rejected);
  node->rejected = text;
  return LAMINA_OK;
}

/* Why the kernels that do not run the node do not. */
static lamina_status note_rejections(lamina_plan *plan, plan_node *node, lamina_node *view,
                                     const lamina_tuning *tuning) {
  const lamina_kernel *const *kernels = node->source->layer->kernels;
  lamina_status status = LAMINA_OK;
  double fastest = 0;
  char text[96];
  for (int i = 0; kernels[i] && i < LAMINA_TUNE_KERNELS; i++)
    if (kernels[i] == tuning->fastest) fastest = tuning->us[i];
  for (int i = 0; kernels[i] && !status; i++) {
    if (kernels[i] == node->kernel) continue;
    const char *reason = lamina_kernel_refusal(plan, node, kernels[i], view, tuning->fastest != NULL);
    if (!reason && tuning->remembered) reason = "it was slower when it was measured";
    if (!reason && i < LAMINA_TUNE_KERNELS && tuning->us[i] > 0) {
      snprintf(text, sizeof text, "it took %.1f us, %s took %.1f", tuning->us[i], node->kernel->name, fastest);
      reason = text;
    }
    if (reason) status = note_rejection(plan, node, kernels[i], reason);
  }
  return status;
}

static lamina_status choose(lamina_plan *plan, plan_node *node, lamina_node *view, lamina_wisdom *wisdom) {
  const lamina_context *context = plan->context;
  const lamina_layer *layer = node->source->layer;
  lamina_tuning tuning = {0};
  for (const lamina_kernel *const *k = layer->kernels; *k && !node->kernel; k++)
    if (!lamina_kernel_refusal(plan, node, *k, view, false)) node->kernel = *k;
  if (node->kernel && wisdom) lamina_tune_node(plan, node, wisdom, &tuning);
  if (tuning.fastest) node->kernel = tuning.fastest;
  plan->remembered += tuning.remembered;
  for (int i = 0; i < LAMINA_TUNE_KERNELS; i++) plan->timed += tuning.us[i] > 0;
  lamina_status status = note_rejections(plan, node, view, &tuning);
  if (status) return status;
  if (!node->kernel)
    return lamina_fail(context, LAMINA_UNSUPPORTED, "node '%s': no kernel of layer '%s' can run it (%s)",
                       node->source->name, layer->name, node->rejected);
  if (is_generic_by_mistake(plan, node, node->kernel))
    return lamina_fail(context, LAMINA_UNSUPPORTED, "node '%s': strict mode, and layer '%s' has only generic code for it (%s)",
                       node->source->name, layer->name, node->rejected ? node->rejected : "no other kernel");
  node->cost = (lamina_cost){.size = sizeof node->cost, .algorithm = node->kernel->name};
  view->kernel = node->kernel;
  if (node->kernel->plan) status = node->kernel->plan(view, &node->cost);
  if (!status && node->mode == LAMINA_INFER) node->cost.saved = 0;
  if (!status && (node->cost.packed > SIZE_MAX / 4 || node->cost.saved > SIZE_MAX / 4 || node->cost.workspace > SIZE_MAX / 4))
    status = lamina_fail(context, LAMINA_PLUGIN_ERROR, "its kernel '%s' asks for more memory than there can be",
                         node->kernel->name);
  return status ? lamina_fail_prefix(context, status, "node '%s' (%s)", node->source->name, layer->name) : LAMINA_OK;
}

/* What a layer that calls its output a view must at least keep to. */
static bool is_same_memory(const lamina_node *view) {
  return view->n_inputs && view->inputs[0].dtype == view->outputs[0].dtype &&
         lamina_tensor_count(&view->inputs[0]) == lamina_tensor_count(&view->outputs[0]);
}

static lamina_status choose_all(lamina_plan *plan, lamina_wisdom *wisdom) {
  for (int n = 0; n < plan->node_count; n++) {
    plan_node *node = &plan->nodes[n];
    lamina_node *view = lamina_plan_view(plan, node);
    if (!view) return lamina_fail_memory(plan->context, sizeof *view);
    node->is_view = node->source->layer->is_view && !node->epilogue.parts && is_same_memory(view) &&
                    node->source->layer->is_view(view);
    lamina_status status = choose(plan, node, view, wisdom);
    lamina_free(plan->context, view);
    if (status) return status;
    if (node->is_view) node->cost = (lamina_cost){.size = sizeof node->cost, .algorithm = "view"};
    if (node->cost.workspace > plan->workspace) plan->workspace = node->cost.workspace;
  }
  return LAMINA_OK;
}

lamina_status lamina_plan_choose_kernels(lamina_plan *plan) {
  lamina_wisdom *wisdom = plan->options.tune ? lamina_wisdom_open(plan->context) : NULL; /* without it nothing is tuned */
  const lamina_status status = choose_all(plan, wisdom);
  lamina_wisdom_close(wisdom);
  return status;
}

/* The folded node's scale and shift, one float for each channel of the node's output, in one block. */
static lamina_status compute_affine(const lamina_plan *plan, const plan_node *node, lamina_node *view, float **memory) {
  const lamina_tensor *out = &plan->values[node->outputs[0]].shape;
  const int64_t channels = out->dim[out->rank - 1];
  float *scale = *memory = lamina_alloc(plan->context, 2 * (size_t)channels * sizeof *scale);
  if (!scale) return lamina_fail_memory(plan->context, 2 * (size_t)channels * sizeof *scale);
  int values[] = {node->outputs[0]};
  const plan_node folded = {.source = node->affine,
                            .attrs = node->affine->attrs,
                            .n_inputs = 1,
                            .n_outputs = 1,
                            .inputs = values,
                            .outputs = values,
                            .add = -1};
  lamina_node *source = lamina_plan_view(plan, &folded);
  if (!source) return lamina_fail_memory(plan->context, sizeof *source);
  lamina_status status = node->affine->layer->affine(source, scale, scale + channels);
  lamina_free(plan->context, source);
  view->epilogue.scale = scale;
  view->epilogue.shift = scale + channels;
  return status;
}

/* What changes whenever a parameter or state of the node, or of the one folded into it, may have: a sum of counts that only
   grow. */
static uint64_t version_of(const lamina_plan *plan, const plan_node *node) {
  const graph_node *sources[] = {node->source, node->affine};
  uint64_t version = atomic_load(&plan->graph->store->version);
  for (int s = 0; s < 2 && sources[s]; s++)
    for (int i = 0; i < sources[s]->n_params; i++)
      if (sources[s]->params[i]) version += atomic_load(&sources[s]->params[i]->version);
  return version;
}

lamina_status lamina_plan_pack(lamina_plan *plan, plan_node *node) {
  const uint64_t version = version_of(plan, node);
  if (!node->packed || !node->kernel->pack) return LAMINA_OK;
  lamina_status status = LAMINA_OK;
  pthread_mutex_lock(&plan->pack_lock);
  if (node->packed_version != version) {
    float *affine = NULL;
    lamina_node *view = lamina_plan_view(plan, node);
    if (!view) status = lamina_fail_memory(plan->context, sizeof *view);
    if (!status && node->affine) status = compute_affine(plan, node, view, &affine);
    if (!status) status = node->kernel->pack(view);
    if (!status) node->packed_version = version;
    lamina_free(plan->context, affine);
    lamina_free(plan->context, view);
    if (status) status = lamina_fail_prefix(plan->context, status, "node '%s' (pack)", node->source->name);
  }
  pthread_mutex_unlock(&plan->pack_lock);
  return status;
}
