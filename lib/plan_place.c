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

/* last[v]: when value v itself is read or written last. */
static void find_last_uses(const lamina_plan *plan, int *last) {
  for (int v = 0; v < plan->value_count; v++) {
    last[v] = plan->values[v].producer;
    if (plan->values[v].is_output) last[v] = end_time(plan);
  }
  for (int n = 0; n < plan->node_count; n++) {
    const plan_node *node = &plan->nodes[n];
    const lamina_layer *layer = node->source->layer;
    for (int i = 0; i < node->n_inputs; i++) {
      extend(&last[node->inputs[i]], n);
      if (node->backward && !node->is_view && (lamina_plan_input_flags(node, i) & LAMINA_PORT_BACKWARD_READS))
        extend(&last[node->inputs[i]], backward_time(plan, n));
    }
    if (node->add >= 0) extend(&last[node->add], n);
    if (node->add >= 0 && node->backward) extend(&last[node->outputs[0]], backward_time(plan, n)); /* to tell a clamp */
    for (int i = 0; i < node->n_outputs; i++)
      if (node->backward && !node->is_view &&
          (lamina_port_at(layer, LAMINA_PORT_OUTPUT, i)->flags & LAMINA_PORT_BACKWARD_READS))
        extend(&last[node->outputs[i]], backward_time(plan, n));
  }
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

static lamina_status buffer_values(lamina_plan *plan, const int *last) {
  for (int n = 0; n < plan->node_count; n++)
    for (int i = 0; i < plan->nodes[n].n_outputs; i++) {
      const int v = plan->nodes[n].outputs[i];
      const size_t bytes = value_bytes(plan, v);
      if (plan->values[v].root != v) {
        count_unplanned(plan, bytes);
        continue;
      }
      lamina_status status = add_buffer(plan, bytes, n, last[v], &plan->values[v].buffer);
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
    lamina_status status =
        add_buffer(plan, node->cost.saved, n, node->backward ? backward_time(plan, n) : n, &node->saved_buffer);
    if (status) return status;
  }
  return LAMINA_OK;
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

lamina_status lamina_plan_place(lamina_plan *plan) {
  int *last = lamina_alloc(plan->context, ((size_t)plan->value_count + 1) * sizeof *last);
  if (!last) return lamina_fail_memory(plan->context, (size_t)plan->value_count * sizeof *last);
  find_last_uses(plan, last);
  join_values(plan, last);
  lamina_status status = buffer_values(plan, last);
  lamina_free(plan->context, last);
  find_first_writers(plan);
  if (!status) status = buffer_gradients(plan);
  if (!status) status = buffer_saved(plan);
  if (!status) status = assign_offsets(plan);
  return status;
}
