/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory by lifetime. First values and gradients that may share memory are joined (views, in-place nodes), then each
 * group's first and last use is found, then the groups are placed in one arena, largest first, at the lowest offset that is
 * free during their whole life.
 */
#include <stdlib.h>
#include <string.h>

#include "plan.h"

enum { ALIGNMENT = 64 };

static int backward_time(const lamina_plan *plan, int node) { return 2 * plan->node_count - 1 - node; }
static int end_time(const lamina_plan *plan) { return 2 * plan->node_count; }

static size_t value_bytes(const lamina_plan *plan, int value) {
  size_t bytes = 0;
  lamina_tensor_bytes(&plan->values[value].shape, &bytes);
  return bytes;
}

static void extend(int *last, int time) {
  if (*last < time) *last = time;
}

/* Of each value: when it itself is read or written last; of one that is computed again, in the forward pass, and when it
   is needed first and last in the backward pass. */
typedef struct lifetimes {
  int *last, *again_first, *again_last;
} lifetimes;

static bool is_again(const lamina_plan *plan, int value) {
  const int producer = plan->values[value].producer;
  return producer >= 0 && plan->nodes[producer].again;
}

static void use(const lamina_plan *plan, const lifetimes *l, int value, int time) {
  const int viewed = lamina_plan_viewed(plan, value);
  if (time < plan->node_count || !is_again(plan, viewed)) {
    extend(&l->last[value], time);
    return;
  }
  if (time < l->again_first[viewed]) l->again_first[viewed] = time;
  extend(&l->again_last[viewed], time);
}

static void find_uses(const lamina_plan *plan, const lifetimes *l, int n) {
  const plan_node *node = &plan->nodes[n];
  const lamina_layer *layer = node->source->layer;
  const int then = backward_time(plan, n);
  for (int i = 0; i < node->n_inputs; i++) {
    use(plan, l, node->inputs[i], n);
    if (node->backward && !node->is_view && (lamina_plan_input_flags(node, i) & LAMINA_PORT_BACKWARD_READS))
      use(plan, l, node->inputs[i], then);
  }
  if (node->add >= 0) use(plan, l, node->add, n);
  if (node->add >= 0 && node->backward) use(plan, l, node->outputs[0], then); /* to tell a clamp */
  for (int i = 0; i < node->n_outputs; i++)
    if (node->backward && !node->is_view &&
        (lamina_port_at(layer, LAMINA_PORT_OUTPUT, i)->flags & LAMINA_PORT_BACKWARD_READS))
      use(plan, l, node->outputs[i], then);
}

/* A node runs again before the first that needs it, and needs its own inputs then. Those that read it come first. */
static void find_second_runs(lamina_plan *plan, const lifetimes *l) {
  for (int n = plan->node_count - 1; n >= 0; n--) {
    plan_node *node = &plan->nodes[n];
    if (!node->again) continue;
    node->again = l->again_last[node->outputs[0]] >= 0;
    node->again_time = l->again_first[node->outputs[0]];
    for (int i = 0; node->again && i < node->n_inputs; i++) use(plan, l, node->inputs[i], node->again_time);
    if (node->again && node->add >= 0) use(plan, l, node->add, node->again_time);
  }
}

static void find_lifetimes(lamina_plan *plan, const lifetimes *l) {
  for (int v = 0; v < plan->value_count; v++) {
    l->last[v] = plan->values[v].producer;
    l->again_first[v] = end_time(plan);
    l->again_last[v] = -1;
    if (plan->values[v].is_output) l->last[v] = end_time(plan);
  }
  for (int n = 0; n < plan->node_count; n++) find_uses(plan, l, n);
  find_second_runs(plan, l);
}

/* Whether another input lies in the memory of input 0: the layer reads it after it has begun to write its output. */
static bool is_read_again(const lamina_plan *plan, const plan_node *node) {
  for (int i = 1; i < node->n_inputs; i++)
    if (plan->values[node->inputs[i]].root == plan->values[node->inputs[0]].root) return true;
  return false;
}

/* Joins outputs with the inputs whose memory they use; afterwards last[root] is the group's. */
static void join_values(lamina_plan *plan, int *last) {
  for (int n = 0; n < plan->node_count; n++) {
    const plan_node *node = &plan->nodes[n];
    if (!node->n_inputs) continue;
    plan_value *y = &plan->values[node->outputs[0]];
    const int root = plan->values[node->inputs[0]].root;
    const bool ours = plan->values[root].producer >= 0;
    const bool in_place = (node->source->layer->flags & LAMINA_LAYER_IN_PLACE) && ours && last[root] <= n &&
                          !node->again && !is_again(plan, root) &&
                          y->shape.dtype == plan->values[node->inputs[0]].shape.dtype &&
                          value_bytes(plan, node->outputs[0]) == value_bytes(plan, node->inputs[0]) && node->add < 0 &&
                          !is_read_again(plan, node);
    if (!node->is_view && !in_place) continue;
    y->root = root;
    extend(&last[root], last[node->outputs[0]]);
  }
}

/* What a value would take on its own; a sum that overflows is refused by the next buffer. */
static void count_unplanned(lamina_plan *plan, size_t bytes) {
  if (!lamina_add(plan->unplanned, bytes, &plan->unplanned)) plan->unplanned = SIZE_MAX;
}

static lamina_status add_buffer(lamina_plan *plan, size_t bytes, int first, int last, int *index) {
  plan_buffer *buffers =
      lamina_grow(plan->context, plan->buffers, &plan->buffer_capacity, plan->buffer_count + 1, sizeof *buffers);
  if (!buffers) return lamina_fail_memory(plan->context, (plan->buffer_count + 1) * sizeof *buffers);
  plan->buffers = buffers;
  *index = (int)plan->buffer_count;
  bytes = (bytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
  if (!lamina_add(plan->unplanned, bytes, &plan->unplanned))
    return lamina_fail(plan->context, LAMINA_INVALID_ARGUMENT, "plan: the memory that it needs overflows");
  buffers[plan->buffer_count++] = (plan_buffer){.bytes = bytes, .first = first, .last = last};
  return LAMINA_OK;
}

static lamina_status buffer_values(lamina_plan *plan, const lifetimes *l) {
  for (int n = 0; n < plan->node_count; n++)
    for (int i = 0; i < plan->nodes[n].n_outputs; i++) {
      const int v = plan->nodes[n].outputs[i];
      const size_t bytes = value_bytes(plan, v);
      if (plan->values[v].root != v) {
        count_unplanned(plan, bytes);
        continue;
      }
      lamina_status status = add_buffer(plan, bytes, n, l->last[v], &plan->values[v].buffer);
      if (!status && plan->nodes[n].again)
        status = add_buffer(plan, bytes, l->again_first[v], l->again_last[v], &plan->values[v].again_buffer);
      if (status) return status;
    }
  return LAMINA_OK;
}

/* Which node writes a gradient first: the last one that reads the value. */
static void find_first_writers(lamina_plan *plan) {
  for (int n = 0; n < plan->node_count; n++)
    for (int i = 0; i < plan->nodes[n].n_inputs; i++)
      if (plan->nodes[n].need_inputs >> i & 1) plan->values[plan->nodes[n].inputs[i]].first_writer = n;
}

/* Input i's gradient is added to: another node, the seed of an output, or an earlier input was there first. */
static bool must_accumulate(const lamina_plan *plan, int n, int i) {
  const plan_node *node = &plan->nodes[n];
  const plan_value *value = &plan->values[node->inputs[i]];
  for (int j = 0; j < i; j++)
    if (node->inputs[j] == node->inputs[i] && (node->need_inputs >> j & 1)) return true;
  return value->is_output || value->first_writer != n;
}

static bool can_share_gradient(const lamina_plan *plan, int n) {
  const plan_node *node = &plan->nodes[n];
  if (!(node->need_inputs & 1) || (node->accumulate_inputs & 1) || plan->values[node->outputs[0]].gradient_buffer < 0)
    return false;
  for (int i = 1; i < node->n_inputs; i++)
    if (node->inputs[i] == node->inputs[0]) return false;
  return node->is_view || ((node->source->layer->flags & LAMINA_LAYER_BACKWARD_IN_PLACE) &&
                           value_bytes(plan, node->inputs[0]) == value_bytes(plan, node->outputs[0]));
}

/* Gradients of the values, in backward order, so that a shared one is extended as far as it lives. */
static lamina_status buffer_gradients(lamina_plan *plan) {
  for (int v = 0; v < plan->value_count; v++) {
    plan_value *value = &plan->values[v];
    if (!value->needs_gradient || (!value->is_output && value->first_writer >= 0) || value->producer < 0) continue;
    /* Seeded before the backward pass begins, or zeroed because nothing writes it. */
    const int last = backward_time(plan, value->producer);
    lamina_status status = add_buffer(plan, value_bytes(plan, v), value->is_output ? plan->node_count : last, last,
                                      &value->gradient_buffer);
    if (status) return status;
  }
  for (int n = plan->node_count - 1; n >= 0; n--) {
    plan_node *node = &plan->nodes[n];
    for (int i = 0; i < node->n_inputs; i++) {
      plan_value *value = &plan->values[node->inputs[i]];
      if (!(node->need_inputs >> i & 1)) continue;
      const int last = value->producer >= 0 ? backward_time(plan, value->producer) : end_time(plan);
      if (must_accumulate(plan, n, i)) node->accumulate_inputs |= 1ull << i;
      node->gradient_is_shared |= i == 0 && can_share_gradient(plan, n);
      lamina_status status = LAMINA_OK;
      if (value->gradient_buffer < 0 && i == 0 && node->gradient_is_shared) {
        value->gradient_buffer = plan->values[node->outputs[0]].gradient_buffer;
        extend(&plan->buffers[value->gradient_buffer].last, last);
        count_unplanned(plan, value_bytes(plan, node->inputs[0]));
      } else if (value->gradient_buffer < 0) {
        status = add_buffer(plan, value_bytes(plan, node->inputs[i]), backward_time(plan, n), last, &value->gradient_buffer);
      }
      if (!status && (node->accumulate_inputs >> i & 1) && !node->is_view &&
          !(node->source->layer->flags & LAMINA_LAYER_ACCUMULATES))
        status = add_buffer(plan, value_bytes(plan, node->inputs[i]), backward_time(plan, n), backward_time(plan, n),
                            &node->temporary[i]);
      if (status) return status;
    }
  }
  return LAMINA_OK;
}

static lamina_status buffer_saved(lamina_plan *plan) {
  for (int n = 0; n < plan->node_count; n++) {
    plan_node *node = &plan->nodes[n];
    if (!node->cost.saved) continue;
    int last = node->backward ? backward_time(plan, n) : n;
    if (node->again) extend(&last, node->again_time);
    lamina_status status = add_buffer(plan, node->cost.saved, n, last, &node->saved_buffer);
    if (status) return status;
  }
  return LAMINA_OK;
}

size_t lamina_plan_gradient_bytes(const plan_node *node) {
  size_t total = 0, bytes;
  for (int i = 0; i < node->source->n_params; i++)
    if ((node->need_params >> i & 1) && lamina_tensor_bytes(&node->source->params[i]->tensor, &bytes))
      total += (bytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
  return total;
}

bool lamina_plan_passes_gradients_on(const lamina_plan *plan) {
  return plan->options.mode == LAMINA_TRAIN && (plan->options.early_step || plan->options.accumulate > 1);
}

/* What is frozen is packed once; what a step changes is packed anew in any case. */
bool lamina_plan_packs_late(const lamina_plan *plan, const plan_node *node) {
  return plan->options.pack_late && node->mode == LAMINA_TRAIN && node->need_params && node->cost.packed &&
         node->kernel->pack;
}

static lamina_status buffer_packed(lamina_plan *plan) {
  lamina_status status = LAMINA_OK;
  for (int n = 0; n < plan->node_count && !status; n++) {
    plan_node *node = &plan->nodes[n];
    if (!lamina_plan_packs_late(plan, node)) continue;
    const int times[] = {n, node->backward ? backward_time(plan, n) : -1, node->again ? node->again_time : -1};
    for (int i = 0; i < 3 && !status; i++)
      if (times[i] >= 0) status = add_buffer(plan, node->cost.packed, times[i], times[i], &node->packed_buffer[i]);
  }
  return status;
}

static lamina_status buffer_parameter_gradients(lamina_plan *plan) {
  lamina_status status = LAMINA_OK;
  for (int n = 0; n < plan->node_count && !status && lamina_plan_passes_gradients_on(plan); n++) {
    const size_t bytes = lamina_plan_gradient_bytes(&plan->nodes[n]);
    const int time = backward_time(plan, n);
    if (bytes) status = add_buffer(plan, bytes, time, time, &plan->nodes[n].gradients_buffer);
  }
  return status;
}

static int larger_first(const void *a, const void *b) {
  const plan_buffer *const *x = a, *const *y = b;
  if ((*x)->bytes != (*y)->bytes) return (*x)->bytes < (*y)->bytes ? 1 : -1;
  return *x < *y ? -1 : *x > *y;
}

/* Places `buffer` among `count` placed ones that are sorted by offset, and keeps them sorted. */
static void place_one(plan_buffer **placed, size_t count, plan_buffer *buffer) {
  size_t offset = 0;
  for (size_t i = 0; i < count; i++) {
    const plan_buffer *other = placed[i];
    if (other->last < buffer->first || buffer->last < other->first) continue;
    if (other->offset >= offset && other->offset - offset >= buffer->bytes) break;
    if (other->offset + other->bytes > offset) offset = other->offset + other->bytes;
  }
  buffer->offset = offset;
  size_t at = count;
  while (at > 0 && placed[at - 1]->offset > offset) at--;
  memmove(placed + at + 1, placed + at, (count - at) * sizeof *placed);
  placed[at] = buffer;
}

static lamina_status assign_offsets(lamina_plan *plan) {
  const size_t count = plan->buffer_count;
  plan_buffer **order = lamina_alloc(plan->context, (2 * count + 2) * sizeof *order);
  if (!order) return lamina_fail_memory(plan->context, (2 * count + 2) * sizeof *order);
  plan_buffer **placed = order + count + 1;
  for (size_t i = 0; i < count; i++) order[i] = &plan->buffers[i];
  qsort(order, count, sizeof *order, larger_first);
  for (size_t i = 0; i < count; i++) {
    place_one(placed, i, order[i]);
    if (order[i]->offset + order[i]->bytes > plan->arena) plan->arena = order[i]->offset + order[i]->bytes;
  }
  lamina_free(plan->context, order);
  return LAMINA_OK;
}

static lamina_status place(lamina_plan *plan, bool plain) {
  const size_t count = (size_t)plan->value_count + 1;
  int *times = lamina_alloc(plan->context, 3 * count * sizeof *times);
  if (!times) return lamina_fail_memory(plan->context, 3 * count * sizeof *times);
  const lifetimes l = {times, times + count, times + 2 * count};
  find_lifetimes(plan, &l);
  join_values(plan, l.last);
  lamina_status status = buffer_values(plan, &l);
  lamina_free(plan->context, times);
  find_first_writers(plan);
  if (!status) status = buffer_gradients(plan);
  if (!status) status = buffer_saved(plan);
  if (!status && !plain) status = buffer_packed(plan);
  if (!status && !plain) status = buffer_parameter_gradients(plan);
  if (!status) status = assign_offsets(plan);
  return status;
}

static void undo(lamina_plan *plan) {
  plan->buffer_count = plan->arena = plan->unplanned = 0;
  for (int v = 0; v < plan->value_count; v++) {
    plan_value *value = &plan->values[v];
    value->root = v;
    value->buffer = value->again_buffer = value->gradient_buffer = value->first_writer = -1;
  }
  for (int n = 0; n < plan->node_count; n++) {
    plan_node *node = &plan->nodes[n];
    node->accumulate_inputs = 0;
    node->gradient_is_shared = false;
    node->saved_buffer = node->gradients_buffer = -1;
    for (int i = 0; i < 3; i++) node->packed_buffer[i] = -1;
    for (int i = 0; i < node->n_inputs; i++) node->temporary[i] = -1;
  }
}

/* What memory would be without the options that save some, for people to compare: nothing runs again, and the gradients of
   parameters are not in the arena. */
static lamina_status measure_plain(lamina_plan *plan, bool *again) {
  for (int n = 0; n < plan->node_count; n++) {
    again[n] = plan->nodes[n].again;
    plan->nodes[n].again = false;
  }
  lamina_status status = place(plan, true);
  plan->plain = plan->arena;
  undo(plan);
  for (int n = 0; n < plan->node_count; n++) plan->nodes[n].again = again[n];
  return status;
}

lamina_status lamina_plan_place(lamina_plan *plan) {
  bool *again = lamina_alloc(plan->context, (size_t)plan->node_count + 1);
  if (!again) return lamina_fail_memory(plan->context, (size_t)plan->node_count);
  lamina_status status = measure_plain(plan, again);
  lamina_free(plan->context, again);
  if (!status) status = place(plan, false);
  return status;
}
