/* SPDX-License-Identifier: Apache-2.0 */
#include "exec.h"

#include <string.h>
#include <time.h>

#include "random.h"

double lamina_exec_clock(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

static size_t round_up(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

/* One block for the gradients of all parameters that are kept. */
static lamina_status allocate_gradients(lamina_exec *exec) {
  const lamina_plan *plan = exec->plan;
  for (int pass = 0; pass < 2; pass++) {
    size_t total = 0, bytes;
    for (int n = 0; n < plan->node_count; n++)
      for (int i = 0; i < plan->nodes[n].source->n_params; i++) {
        if (!(plan->nodes[n].need_params >> i & 1)) continue;
        if (!lamina_tensor_bytes(&plan->nodes[n].source->params[i]->tensor, &bytes)) bytes = 0;
        const size_t at = (size_t)n * LAMINA_MAX_PORTS + (size_t)i;
        if (pass) exec->gradients[at] = exec->written[at] = (float *)(void *)(exec->gradient_block + total);
        total += round_up(bytes);
      }
    if (pass || !total) continue;
    exec->gradient_block = lamina_alloc_zeroed(exec->context, total);
    if (!exec->gradient_block) return lamina_fail_memory(exec->context, total);
  }
  return LAMINA_OK;
}

/* In the arena, those of one node side by side. */
static void place_written(lamina_exec *exec) {
  const lamina_plan *plan = exec->plan;
  for (int n = 0; n < plan->node_count; n++) {
    size_t bytes;
    if (plan->nodes[n].gradients_buffer < 0) continue;
    char *at = exec->arena + plan->buffers[plan->nodes[n].gradients_buffer].offset;
    for (int i = 0; i < plan->nodes[n].source->n_params; i++) {
      if (!(plan->nodes[n].need_params >> i & 1)) continue;
      exec->written[(size_t)n * LAMINA_MAX_PORTS + (size_t)i] = (float *)(void *)at;
      if (lamina_tensor_bytes(&plan->nodes[n].source->params[i]->tensor, &bytes)) at += round_up(bytes);
    }
  }
}

static lamina_status allocate(lamina_exec *exec) {
  const lamina_plan *plan = exec->plan;
  const lamina_context *context = exec->context;
  const size_t nodes = (size_t)plan->node_count + 1, values = (size_t)plan->value_count + 1;
  exec->views = lamina_alloc_zeroed(context, nodes * sizeof *exec->views);
  exec->inputs = lamina_alloc_zeroed(context, values * sizeof *exec->inputs);
  exec->read = lamina_alloc_zeroed(context, values * sizeof *exec->read);
  exec->seeded = lamina_alloc_zeroed(context, values * sizeof *exec->seeded);
  exec->seeds = lamina_alloc_zeroed(context, values * sizeof *exec->seeds);
  exec->gradients = lamina_alloc_zeroed(context, nodes * LAMINA_MAX_PORTS * sizeof *exec->gradients);
  exec->written = lamina_alloc_zeroed(context, nodes * LAMINA_MAX_PORTS * sizeof *exec->written);
  exec->forward_ms = lamina_alloc_zeroed(context, nodes * sizeof *exec->forward_ms);
  exec->backward_ms = lamina_alloc_zeroed(context, nodes * sizeof *exec->backward_ms);
  if (!exec->views || !exec->inputs || !exec->read || !exec->seeded || !exec->seeds || !exec->gradients ||
      !exec->written || !exec->forward_ms || !exec->backward_ms)
    return lamina_fail_memory(context, nodes * LAMINA_MAX_PORTS * sizeof *exec->gradients);
  exec->arena = lamina_alloc(context, plan->arena);
  if (!exec->arena) return lamina_fail_memory(context, plan->arena);
  exec->workspace = lamina_alloc(context, plan->workspace);
  if (!exec->workspace) return lamina_fail_memory(context, plan->workspace);
  for (int n = 0; n < plan->node_count; n++) {
    exec->views[n] = lamina_plan_view(plan, &plan->nodes[n]);
    if (!exec->views[n]) return lamina_fail_memory(context, sizeof(lamina_node));
  }
  const bool keeps = !plan->options.early_step || plan->options.accumulate > 1;
  lamina_status status = keeps ? allocate_gradients(exec) : LAMINA_OK;
  place_written(exec);
  return status;
}

lamina_status lamina_exec_create(lamina_plan *plan, lamina_exec **out) {
  if (out) *out = NULL;
  if (!plan) return LAMINA_INVALID_ARGUMENT;
  lamina_context *context = plan->context;
  if (!out) return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "lamina_exec_create: exec is NULL");
  lamina_exec *exec = lamina_alloc_zeroed(context, sizeof *exec);
  if (!exec) return lamina_fail_memory(context, sizeof *exec);
  exec->plan = plan;
  exec->context = context;
  lamina_plan_retain(plan);
  lamina_status status = allocate(exec);
  if (status) {
    lamina_exec_destroy(exec);
    return status;
  }
  *out = exec;
  return LAMINA_OK;
}

void lamina_exec_destroy(lamina_exec *exec) {
  if (!exec) return;
  const lamina_context *context = exec->context;
  lamina_plan *plan = exec->plan;
  for (int n = 0; exec->views && n < plan->node_count; n++) lamina_free(context, exec->views[n]);
  for (int v = 0; exec->seeds && v < plan->value_count; v++) lamina_free(context, exec->seeds[v]);
  lamina_free(context, exec->views);
  lamina_free(context, exec->inputs);
  lamina_free(context, exec->read);
  lamina_free(context, exec->seeded);
  lamina_free(context, exec->seeds);
  lamina_free(context, exec->gradients);
  lamina_free(context, exec->written);
  lamina_free(context, exec->gradient_block);
  lamina_free(context, exec->forward_ms);
  lamina_free(context, exec->backward_ms);
  lamina_free(context, exec->arena);
  lamina_free(context, exec->workspace);
  lamina_free(context, exec);
  lamina_plan_destroy(plan);
}

void *lamina_exec_value(const lamina_exec *exec, int value) {
  const int root = exec->plan->values[value].root;
  const int again = exec->in_backward ? exec->plan->values[root].again_buffer : -1;
  const int buffer = again >= 0 ? again : exec->plan->values[root].buffer;
  return buffer < 0 ? exec->read[root] : exec->arena + exec->plan->buffers[buffer].offset;
}

float *lamina_exec_value_gradient(const lamina_exec *exec, int value) {
  const int buffer = exec->plan->values[value].gradient_buffer;
  return buffer < 0 ? NULL : (float *)(void *)(exec->arena + exec->plan->buffers[buffer].offset);
}

void lamina_exec_bind(lamina_exec *exec, int n) {
  const lamina_plan *plan = exec->plan;
  const plan_node *node = &plan->nodes[n];
  lamina_node *view = exec->views[n];
  for (int i = 0; i < node->n_inputs; i++) {
    view->inputs[i].data = lamina_exec_value(exec, node->inputs[i]);
    view->d_inputs[i].data = lamina_exec_value_gradient(exec, node->inputs[i]);
  }
  for (int i = 0; i < node->n_outputs; i++) {
    view->outputs[i].data = lamina_exec_value(exec, node->outputs[i]);
    view->d_outputs[i].data = lamina_exec_value_gradient(exec, node->outputs[i]);
  }
  for (int i = 0; i < node->source->n_params; i++)
    view->d_params[i].data = exec->written[(size_t)n * LAMINA_MAX_PORTS + (size_t)i];
  if (node->add >= 0) view->epilogue.add.data = lamina_exec_value(exec, node->add);
  view->need_inputs = node->need_inputs;
  view->need_params = node->need_params;
  view->accumulate_inputs = node->accumulate_inputs;
  view->packed = node->packed;
  view->workspace = exec->workspace;
  view->saved = node->saved_buffer < 0 ? NULL : exec->arena + plan->buffers[node->saved_buffer].offset;
  view->seed = lamina_random_stream(exec->current, lamina_random_key(node->source->name));
}

static int find_input(const lamina_exec *exec, const char *name) {
  const lamina_graph *graph = exec->plan->graph;
  for (int v = 0; name && v < exec->plan->value_count; v++)
    if (graph->values[v]->producer < 0 && strcmp(graph->values[v]->name, name) == 0) return v;
  return -1;
}

static lamina_status check_tensor(const lamina_exec *exec, const char *what, const plan_value *value,
                                  const lamina_tensor *tensor) {
  char wanted[96], given[96];
  if (!tensor || !tensor->data || tensor->rank < 0 || tensor->rank > LAMINA_MAX_RANK)
    return lamina_fail(exec->context, LAMINA_INVALID_ARGUMENT, "%s '%s': the tensor or its data is NULL, or its rank is bad",
                       what, value->name);
  if (!lamina_same_shape(tensor, &value->shape) || tensor->dtype != value->shape.dtype)
    return lamina_fail(exec->context, LAMINA_SHAPE_MISMATCH, "%s '%s': the plan wants %s, given is %s", what, value->name,
                       lamina_shape_text(&value->shape, wanted, sizeof wanted),
                       lamina_shape_text(tensor, given, sizeof given));
  if (!lamina_tensor_is_dense(tensor))
    return lamina_fail(exec->context, LAMINA_UNSUPPORTED, "%s '%s': its strides are not those of a dense tensor", what,
                       value->name);
  return LAMINA_OK;
}

lamina_status lamina_exec_set_input(lamina_exec *exec, const char *name, const lamina_tensor *tensor) {
  if (!exec) return LAMINA_INVALID_ARGUMENT;
  int v = find_input(exec, name);
  if (v < 0) return lamina_fail(exec->context, LAMINA_NOT_FOUND, "the graph has no input '%s'", name ? name : "NULL");
  lamina_status status = check_tensor(exec, "input", &exec->plan->values[v], tensor);
  if (!status) exec->inputs[v] = tensor->data;
  return status;
}

static int find_output(const lamina_exec *exec, const char *name) {
  for (int v = 0; name && v < exec->plan->value_count; v++)
    if (exec->plan->values[v].is_output && strcmp(exec->plan->values[v].name, name) == 0) return v;
  return -1;
}

lamina_status lamina_exec_output(lamina_exec *exec, const char *name, lamina_tensor *tensor) {
  if (!exec) return LAMINA_INVALID_ARGUMENT;
  int v = find_output(exec, name);
  if (v < 0) return lamina_fail(exec->context, LAMINA_NOT_FOUND, "the plan has no output '%s'", name ? name : "NULL");
  if (!tensor) return lamina_fail(exec->context, LAMINA_INVALID_ARGUMENT, "output '%s': tensor is NULL", name);
  if (!exec->forward_done)
    return lamina_fail(exec->context, LAMINA_INVALID_ARGUMENT, "output '%s': there is none before forward has run", name);
  *tensor = exec->plan->values[v].shape;
  tensor->data = lamina_exec_value(exec, v);
  return LAMINA_OK;
}

lamina_status lamina_exec_set_output_gradient(lamina_exec *exec, const char *name, const lamina_tensor *tensor) {
  if (!exec) return LAMINA_INVALID_ARGUMENT;
  int v = find_output(exec, name);
  if (v < 0) return lamina_fail(exec->context, LAMINA_NOT_FOUND, "the plan has no output '%s'", name ? name : "NULL");
  lamina_status status = check_tensor(exec, "gradient of output", &exec->plan->values[v], tensor);
  size_t bytes;
  if (status || !lamina_tensor_bytes(tensor, &bytes)) return status;
  if (!exec->seeds[v]) exec->seeds[v] = lamina_alloc(exec->context, bytes);
  if (!exec->seeds[v]) return lamina_fail_memory(exec->context, bytes);
  memcpy(exec->seeds[v], tensor->data, bytes);
  exec->seeded[v] = true;
  return LAMINA_OK;
}

lamina_status lamina_exec_gradient(lamina_exec *exec, const char *name, lamina_tensor *tensor) {
  if (!exec) return LAMINA_INVALID_ARGUMENT;
  const lamina_plan *plan = exec->plan;
  if (!name || !tensor) return lamina_fail(exec->context, LAMINA_INVALID_ARGUMENT, "gradient: an argument is NULL");
  if (!exec->backward_done)
    return lamina_fail(exec->context, LAMINA_INVALID_ARGUMENT, "gradient '%s': there is none before backward has run", name);
  int v = find_input(exec, name);
  if (v >= 0 && plan->values[v].gradient_buffer >= 0) {
    *tensor = plan->values[v].shape;
    tensor->data = lamina_exec_value_gradient(exec, v);
    return LAMINA_OK;
  }
  for (int n = 0; n < plan->node_count; n++)
    for (int i = 0; i < plan->nodes[n].source->n_params; i++) {
      const lamina_entry *entry = plan->nodes[n].source->params[i];
      if (!(plan->nodes[n].need_params >> i & 1) || strcmp(entry->name, name) != 0) continue;
      float *gradient = exec->gradients[(size_t)n * LAMINA_MAX_PORTS + (size_t)i];
      if (!gradient)
        return lamina_fail(exec->context, LAMINA_UNSUPPORTED, "gradient '%s': a plan with early_step keeps none", name);
      *tensor = entry->tensor;
      tensor->data = gradient;
      return LAMINA_OK;
    }
  return lamina_fail(exec->context, LAMINA_NOT_FOUND, "'%s' has no gradient in this plan%s", name,
                     v >= 0 ? ": input_gradients was not set" : "");
}

void lamina_exec_seed(lamina_exec *exec, uint64_t seed, uint64_t run) {
  if (!exec) return;
  exec->seed = seed;
  exec->run = run;
}

lamina_status lamina_exec_times(lamina_exec *exec, int nodes, double *forward_ms, double *backward_ms) {
  if (!exec) return LAMINA_INVALID_ARGUMENT;
  if (nodes < exec->plan->node_count)
    return lamina_fail(exec->context, LAMINA_INVALID_ARGUMENT, "lamina_exec_times: room for %d nodes, the plan has %d", nodes,
                       exec->plan->node_count);
  const size_t bytes = (size_t)exec->plan->node_count * sizeof *forward_ms;
  exec->timing = true;
  if (forward_ms) memcpy(forward_ms, exec->forward_ms, bytes);
  if (backward_ms) memcpy(backward_ms, exec->backward_ms, bytes);
  return LAMINA_OK;
}
