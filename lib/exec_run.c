/* SPDX-License-Identifier: Apache-2.0 */
/* Forward, backward, and the search for the first value that is not finite. */
#include <string.h>

#include "exec.h"
#include "random.h"
#include "train/optimizer.h"

lamina_status lamina_exec_pack(lamina_exec *exec, int n, int when) {
  const plan_node *node = &exec->plan->nodes[n];
  if (node->packed_buffer[when] < 0) return LAMINA_OK;
  exec->views[n]->packed = exec->arena + exec->plan->buffers[node->packed_buffer[when]].offset;
  const lamina_status status = node->kernel->pack(exec->views[n]);
  return status ? lamina_fail_prefix(exec->context, status, "node '%s' (pack)", node->source->name) : LAMINA_OK;
}

lamina_status lamina_exec_run_node(lamina_exec *exec, int n) {
  plan_node *node = &exec->plan->nodes[n];
  lamina_exec_bind(exec, n);
  if (node->is_view) return LAMINA_OK;
  lamina_status status = lamina_plan_pack(exec->plan, node);
  if (!status) status = lamina_exec_pack(exec, n, 0);
  if (status) return status;
  lamina_plan_refresh_epilogue(node, &exec->views[n]->epilogue);
  status = node->kernel->forward(exec->views[n]);
  return status ? lamina_fail_prefix(exec->context, status, "node '%s' (%s, forward)", node->source->name,
                                     node->source->layer->name)
                : LAMINA_OK;
}

static lamina_status check_input(const lamina_exec *exec, int value) {
  if (exec->plan->values[value].producer >= 0 || exec->inputs[value]) return LAMINA_OK;
  return lamina_fail(exec->context, LAMINA_INVALID_ARGUMENT, "forward: the input '%s' was not set",
                     exec->plan->values[value].name);
}

/* Makes the inputs that were set those of the run; only what a node reads needs to be. */
static lamina_status take_inputs(lamina_exec *exec) {
  const lamina_plan *plan = exec->plan;
  lamina_status status = LAMINA_OK;
  for (int n = 0; n < plan->node_count && !status; n++) {
    const plan_node *node = &plan->nodes[n];
    for (int i = 0; i < node->n_inputs && !status; i++) status = check_input(exec, node->inputs[i]);
    if (!status && node->add >= 0) status = check_input(exec, node->add);
  }
  if (!status && plan->value_count) memcpy(exec->read, exec->inputs, (size_t)plan->value_count * sizeof *exec->read);
  return status;
}

/* The states that a forward changes: whatever has packed them does so again. */
static void mark_states(const lamina_plan *plan) {
  for (int n = 0; n < plan->node_count; n++) {
    const plan_node *node = &plan->nodes[n];
    for (int i = 0; node->mode == LAMINA_TRAIN && !node->frozen_states && i < node->source->n_params; i++) {
      lamina_entry *entry = node->source->params[i];
      if (entry && !entry->trainable) atomic_fetch_add(&entry->version, 1);
    }
  }
}

lamina_status lamina_exec_forward(lamina_exec *exec) {
  if (!exec) return LAMINA_INVALID_ARGUMENT;
  lamina_status status = take_inputs(exec);
  exec->backward_done = exec->in_backward = false;
  exec->current = lamina_random_stream(exec->seed, exec->run);
  for (int n = 0; n < exec->plan->node_count && !status; n++) {
    const double start = exec->timing ? lamina_exec_clock() : 0;
    status = lamina_exec_run_node(exec, n);
    if (exec->timing) exec->forward_ms[n] = lamina_exec_clock() - start;
  }
  mark_states(exec->plan);
  exec->forward_done = !status;
  exec->run += !status;
  return status;
}

/* Gradients that no node writes first: an output's seed, or zero. */
static void start_gradients(lamina_exec *exec) {
  const lamina_plan *plan = exec->plan;
  for (int v = 0; v < plan->value_count; v++) {
    const plan_value *value = &plan->values[v];
    if (!value->is_output || value->gradient_buffer < 0 || value->producer < 0) continue;
    const int64_t count = lamina_tensor_count(&value->shape);
    float *gradient = lamina_exec_value_gradient(exec, v);
    const bool loss = value->port == 0 && (plan->nodes[value->producer].source->layer->flags & LAMINA_LAYER_LOSS);
    if (exec->seeded[v])
      memcpy(gradient, exec->seeds[v], (size_t)count * sizeof *gradient);
    else
      for (int64_t i = 0; i < count; i++) gradient[i] = loss ? 1.0f : 0.0f;
  }
}

/* Outputs of a node that nothing differentiates through. */
static void zero_unwritten(lamina_exec *exec, const plan_node *node) {
  for (int i = 0; i < node->n_outputs; i++) {
    const plan_value *value = &exec->plan->values[node->outputs[i]];
    if (!value->is_output && value->first_writer < 0 && value->gradient_buffer >= 0)
      memset(lamina_exec_value_gradient(exec, node->outputs[i]), 0,
             (size_t)lamina_tensor_count(&value->shape) * sizeof(float));
  }
}

static void backward_view(lamina_exec *exec, const plan_node *node) {
  if (node->gradient_is_shared || !(node->need_inputs & 1)) return;
  const int64_t count = lamina_tensor_count(&exec->plan->values[node->inputs[0]].shape);
  float *to = lamina_exec_value_gradient(exec, node->inputs[0]);
  const float *from = lamina_exec_value_gradient(exec, node->outputs[0]);
  if (node->accumulate_inputs & 1)
    exec->context->kernels.eltwise->add_scaled(count, 1.0f, from, to);
  else
    memcpy(to, from, (size_t)count * sizeof *to);
}

static lamina_status backward_node(lamina_exec *exec, int n) {
  plan_node *node = &exec->plan->nodes[n];
  lamina_node *view = exec->views[n];
  lamina_exec_bind(exec, n);
  zero_unwritten(exec, node);
  if (node->is_view) {
    backward_view(exec, node);
    return LAMINA_OK;
  }
  for (int i = 0; i < node->n_inputs; i++)
    if (node->temporary[i] >= 0) {
      view->d_inputs[i].data = exec->arena + exec->plan->buffers[node->temporary[i]].offset;
      view->accumulate_inputs &= ~(1ull << i);
    }
  lamina_status status = lamina_exec_pack(exec, n, 1);
  if (status) return status;
  status = node->kernel->backward(view);
  if (status)
    return lamina_fail_prefix(exec->context, status, "node '%s' (%s, backward)", node->source->name,
                              node->source->layer->name);
  for (int i = 0; i < node->n_inputs; i++)
    if (node->temporary[i] >= 0)
      exec->context->kernels.eltwise->add_scaled(lamina_tensor_count(&view->d_inputs[i]), 1.0f, view->d_inputs[i].data,
                                                 lamina_exec_value_gradient(exec, node->inputs[i]));
  return LAMINA_OK;
}

/* Values that were not kept, and that this node's backward is the first to need. */
static lamina_status run_again(lamina_exec *exec, int n) {
  const lamina_plan *plan = exec->plan;
  const int time = 2 * plan->node_count - 1 - n;
  lamina_status status = LAMINA_OK;
  for (int r = 0; r < plan->node_count && !status; r++) {
    const plan_node *node = &plan->nodes[r];
    if (!node->again || node->again_time != time) continue;
    lamina_exec_bind(exec, r); /* what forward has packed is as it was: a parameter is stepped after its node's backward */
    status = lamina_exec_pack(exec, r, 2);
    if (status) return status;
    exec->views[r]->recompute = 1;
    status = node->kernel->forward(exec->views[r]);
    exec->views[r]->recompute = 0;
    if (status)
      lamina_fail_prefix(exec->context, status, "node '%s' (%s, forward once more)", node->source->name,
                         node->source->layer->name);
  }
  return status;
}

/* Adds what a node's backward has written to the mean over the plan's runs. */
static void accumulate_node(lamina_exec *exec, int n) {
  const plan_node *node = &exec->plan->nodes[n];
  const float scale = (float)(1.0 / (double)exec->plan->options.accumulate);
  for (int i = 0; i < node->source->n_params; i++) {
    if (!(node->need_params >> i & 1)) continue;
    const size_t at = (size_t)n * LAMINA_MAX_PORTS + (size_t)i;
    const int64_t count = lamina_tensor_count(&node->source->params[i]->tensor);
    if (exec->accumulated == 0) memset(exec->gradients[at], 0, (size_t)count * sizeof(float));
    exec->context->kernels.eltwise->add_scaled(count, scale, exec->written[at], exec->gradients[at]);
  }
}

/* With `step`, each node's parameters are stepped as soon as their gradients are final. */
static lamina_status run_backward(lamina_exec *exec, lamina_step *step) {
  lamina_status status = LAMINA_OK;
  if (exec->accumulated == exec->plan->options.accumulate) exec->accumulated = 0;
  exec->in_backward = true;
  start_gradients(exec);
  for (int n = exec->plan->node_count - 1; n >= 0 && !status; n--) {
    if (!exec->plan->nodes[n].backward) continue;
    const double start = exec->timing ? lamina_exec_clock() : 0;
    status = run_again(exec, n);
    if (!status) status = backward_node(exec, n);
    if (!status && exec->plan->options.accumulate > 1) accumulate_node(exec, n);
    if (!status && step) lamina_step_nodes(exec, step, n, n + 1);
    if (exec->timing) exec->backward_ms[n] = lamina_exec_clock() - start;
  }
  exec->backward_done = !status;
  exec->accumulated = status ? 0 : exec->accumulated + 1;
  if (status) exec->forward_done = false; /* gradients have overwritten part of what it left */
  return status;
}

static lamina_status check_backward(const lamina_exec *exec) {
  if (exec->plan->options.mode != LAMINA_TRAIN)
    return lamina_fail(exec->context, LAMINA_INVALID_ARGUMENT, "backward: the plan is for inference; make one with TRAIN");
  if (!exec->forward_done || exec->backward_done)
    return lamina_fail(exec->context, LAMINA_INVALID_ARGUMENT, "backward: it must follow a forward that succeeded");
  return LAMINA_OK;
}

lamina_status lamina_exec_backward(lamina_exec *exec) {
  if (!exec) return LAMINA_INVALID_ARGUMENT;
  lamina_status status = check_backward(exec);
  if (status) return status;
  if (exec->plan->options.early_step)
    return lamina_fail(exec->context, LAMINA_INVALID_ARGUMENT,
                       "backward: a plan with early_step keeps no gradients; lamina_exec_backward_step uses them at once");
  return run_backward(exec, NULL);
}

lamina_status lamina_exec_backward_step(lamina_exec *exec, const lamina_optimizer *optimizer) {
  if (!exec) return LAMINA_INVALID_ARGUMENT;
  const int64_t runs = exec->plan->options.accumulate;
  lamina_step *step = NULL;
  lamina_status status = check_backward(exec);
  if (!status) status = lamina_step_begin(exec, optimizer, &step);
  if (status) return status;
  const bool last = exec->accumulated % runs == runs - 1; /* after `runs` of them the next one is the first again */
  const bool early = exec->plan->options.early_step;
  status = run_backward(exec, last && early ? step : NULL);
  if (!status && last && !early) lamina_step_nodes(exec, step, 0, exec->plan->node_count);
  lamina_step_end(exec, step);
  return status;
}

/* The states of a node (running statistics), which a forward in TRAIN changes: saved to or restored from `copy`. */
static void copy_states(const plan_node *node, void **copy, bool restore) {
  for (int i = 0; i < node->source->n_params; i++) {
    lamina_entry *entry = node->source->params[i];
    size_t bytes;
    if (!copy[i] || !entry || !lamina_tensor_bytes(&entry->tensor, &bytes)) continue;
    memcpy(restore ? entry->tensor.data : copy[i], restore ? copy[i] : entry->tensor.data, bytes);
  }
}

static lamina_status run_keeping_states(lamina_exec *exec, int n) {
  const plan_node *node = &exec->plan->nodes[n];
  void *copy[LAMINA_MAX_PORTS] = {NULL};
  size_t bytes;
  lamina_status status = LAMINA_OK;
  for (int i = 0; i < node->source->n_params; i++) {
    const lamina_entry *entry = node->source->params[i];
    if (!entry || entry->trainable || !lamina_tensor_bytes(&entry->tensor, &bytes)) continue;
    copy[i] = lamina_alloc(exec->context, bytes);
    if (!copy[i]) status = lamina_fail_memory(exec->context, bytes);
  }
  copy_states(node, copy, false);
  if (!status) status = lamina_exec_run_node(exec, n);
  copy_states(node, copy, true);
  for (int i = 0; i < LAMINA_MAX_PORTS; i++) lamina_free(exec->context, copy[i]);
  return status;
}

const char *lamina_exec_find_not_finite(lamina_exec *exec) {
  if (!exec || take_inputs(exec)) return NULL;
  const lamina_plan *plan = exec->plan;
  exec->forward_done = exec->backward_done = exec->in_backward = false;
  for (int n = 0; n < plan->node_count; n++) {
    if (run_keeping_states(exec, n)) return NULL;
    for (int i = 0; i < plan->nodes[n].n_outputs; i++) {
      const plan_value *value = &plan->values[plan->nodes[n].outputs[i]];
      if (value->shape.dtype == LAMINA_F32 &&
          !exec->context->kernels.eltwise->all_finite(lamina_tensor_count(&value->shape),
                                                      lamina_exec_value(exec, plan->nodes[n].outputs[i])))
        return plan->nodes[n].source->name;
    }
  }
  return NULL;
}
