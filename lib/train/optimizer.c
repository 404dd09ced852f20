/* SPDX-License-Identifier: Apache-2.0 */
/* One step of an optimizer over all parameters, with PyTorch's rules: torch.optim.SGD, Adam (Kingma and Ba 2015), AdamW
   (Loshchilov and Hutter 2019). */
#include <math.h>
#include <string.h>

#include "../host.h"
#include "optimizer.h"

enum { CHUNK = 16384 }; /* elements of one task: its operands stay in L2 */

lamina_optimizer lamina_optimizer_defaults(lamina_optimizer_type type) {
  return (lamina_optimizer){.size = sizeof(lamina_optimizer),
                            .type = type,
                            .lr = type == LAMINA_SGD ? 0.01 : 0.001,
                            .weight_decay = type == LAMINA_ADAMW ? 0.01 : 0,
                            .beta1 = 0.9,
                            .beta2 = 0.999,
                            .eps = 1e-8};
}

typedef struct chunk {
  int64_t count, number; /* number: of the step, from 1, as its parameter counts them */
  const float *gradient;
  float *weight, *slot[2];
} chunk;

struct lamina_step {
  const lamina_optimizer_kernels *kernels;
  lamina_optimizer_type type;
  lamina_sgd_step sgd;
  lamina_adam_step adam;
  int slots;
  bool begun; /* a parameter was stepped */
  chunk *chunks; /* room for those of all parameters */
};

static void run_chunk(void *argument, int64_t index, int thread) {
  const lamina_step *s = argument;
  const chunk *c = &s->chunks[index];
  (void)thread;
  if (s->type == LAMINA_SGD) {
    lamina_sgd_step sgd = s->sgd;
    sgd.first = c->number == 1;
    s->kernels->sgd(c->count, &sgd, c->gradient, c->slot[0], c->weight);
  } else {
    lamina_adam_step adam = s->adam;
    adam.bias1 = 1 - pow(adam.beta1, (double)c->number);
    adam.sqrt_bias2 = sqrt(1 - pow(adam.beta2, (double)c->number));
    s->kernels->adam(c->count, &adam, c->gradient, c->slot[0], c->slot[1], c->weight);
  }
}

static lamina_status check(const lamina_exec *exec, const lamina_optimizer *o) {
  const lamina_context *context = exec->context;
  if ((unsigned)o->type > LAMINA_ADAMW) return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "step: unknown optimizer");
  if (!(o->lr >= 0) || !(o->weight_decay >= 0) || !isfinite(o->lr) || !isfinite(o->weight_decay))
    return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "step: lr %g and weight_decay %g must not be negative", o->lr,
                       o->weight_decay);
  if (o->type == LAMINA_SGD && (!(o->momentum >= 0) || !isfinite(o->momentum) || !isfinite(o->dampening) ||
                                (o->nesterov && (o->momentum <= 0 || o->dampening != 0))))
    return lamina_fail(context, LAMINA_INVALID_ARGUMENT,
                       "step: momentum %g must not be negative, and Nesterov needs momentum and no dampening", o->momentum);
  if (o->type != LAMINA_SGD &&
      (!(o->beta1 >= 0 && o->beta1 < 1) || !(o->beta2 >= 0 && o->beta2 < 1) || !(o->eps >= 0)))
    return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "step: betas %g, %g must be in [0, 1) and eps %g not negative",
                       o->beta1, o->beta2, o->eps);
  const lamina_store *store = exec->plan->graph->store;
  if (store->step > 0 && (store->optimizer == LAMINA_SGD) != (o->type == LAMINA_SGD))
    return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "step: the parameters carry the state of another optimizer");
  return LAMINA_OK;
}

/* Makes sure of the slots. A parameter whose state begins here begins to count here too, whatever others have done: one
   that was frozen, or that belongs to another network of the same store. */
static lamina_status prepare_slots(lamina_store *store, lamina_entry *entry, int slots) {
  if (slots && !entry->slot[0]) entry->steps = 0;
  for (int s = 0; s < slots; s++) {
    lamina_status status = lamina_store_slot(store, entry, s);
    if (status) return status;
  }
  return LAMINA_OK;
}

static bool is_stepped(const plan_node *node, int param) { return node->need_params >> param & 1; }

/* Makes sure of the slots, and counts the chunks. */
static lamina_status prepare(lamina_exec *exec, int slots, int64_t *count) {
  for (int n = 0; n < exec->plan->node_count; n++)
    for (int i = 0; i < exec->plan->nodes[n].source->n_params; i++) {
      lamina_entry *entry = exec->plan->nodes[n].source->params[i];
      if (!is_stepped(&exec->plan->nodes[n], i)) continue;
      lamina_status status = prepare_slots(exec->plan->graph->store, entry, slots);
      if (status) return status;
      *count += (lamina_tensor_count(&entry->tensor) + CHUNK - 1) / CHUNK;
    }
  return LAMINA_OK;
}

/* Counts a step of one parameter and writes its chunks; returns how many. */
static int64_t list_chunks(lamina_entry *entry, int slots, const float *gradient, chunk *chunks) {
  const int64_t elements = lamina_tensor_count(&entry->tensor);
  int64_t count = 0;
  entry->steps++;
  atomic_fetch_add(&entry->version, 1);
  for (int64_t at = 0; at < elements; at += CHUNK)
    chunks[count++] = (chunk){.count = elements - at < CHUNK ? elements - at : CHUNK,
                              .number = entry->steps,
                              .gradient = gradient + at,
                              .weight = (float *)entry->tensor.data + at,
                              .slot = {slots > 0 ? entry->slot[0] + at : NULL, slots > 1 ? entry->slot[1] + at : NULL}};
  return count;
}

static void set_scalars(lamina_step *s, const lamina_optimizer *o) {
  s->sgd = (lamina_sgd_step){.lr = o->lr,
                             .momentum = o->momentum,
                             .dampening = o->dampening,
                             .weight_decay = o->weight_decay,
                             .nesterov = o->nesterov};
  s->adam = (lamina_adam_step){.lr = o->lr,
                               .beta1 = o->beta1,
                               .beta2 = o->beta2,
                               .eps = o->eps,
                               .weight_decay = o->weight_decay,
                               .decoupled = o->type == LAMINA_ADAMW};
}

lamina_status lamina_step_begin(lamina_exec *exec, const lamina_optimizer *given, lamina_step **out) {
  lamina_optimizer o = {0};
  if (!given || given->size < offsetof(lamina_optimizer, weight_decay))
    return lamina_fail(exec->context, LAMINA_INVALID_ARGUMENT, "step: the optimizer is NULL or its size is not set");
  memcpy(&o, given, given->size < sizeof o ? given->size : sizeof o);
  lamina_status status = check(exec, &o);
  if (status) return status;
  const int slots = o.type != LAMINA_SGD ? 2 : o.momentum > 0 ? 1 : 0;
  int64_t count = 0;
  status = prepare(exec, slots, &count);
  if (status) return status;
  lamina_step *s = lamina_alloc_zeroed(exec->context, sizeof *s);
  chunk *chunks = lamina_alloc(exec->context, ((size_t)count + 1) * sizeof *chunks);
  if (!s || !chunks) {
    lamina_free(exec->context, s);
    lamina_free(exec->context, chunks);
    return lamina_fail_memory(exec->context, (size_t)count * sizeof *chunks);
  }
  *s = (lamina_step){.kernels = exec->context->kernels.optimizer, .type = o.type, .slots = slots, .chunks = chunks};
  set_scalars(s, &o);
  *out = s;
  return LAMINA_OK;
}

void lamina_step_nodes(lamina_exec *exec, lamina_step *s, int first, int end) {
  int64_t count = 0;
  for (int n = first; n < end; n++)
    for (int i = 0; i < exec->plan->nodes[n].source->n_params; i++) {
      if (!is_stepped(&exec->plan->nodes[n], i)) continue;
      const size_t at = (size_t)n * LAMINA_MAX_PORTS + (size_t)i;
      const float *gradient = exec->gradients[at] ? exec->gradients[at] : exec->written[at];
      count += list_chunks(exec->plan->nodes[n].source->params[i], s->slots, gradient, s->chunks + count);
    }
  lamina_parallel(exec->context, count, run_chunk, s);
  s->begun = true;
}

void lamina_step_end(lamina_exec *exec, lamina_step *s) {
  lamina_store *store = exec->plan->graph->store;
  if (s->begun) {
    store->step++;
    store->optimizer = s->type;
  }
  lamina_free(exec->context, s->chunks);
  lamina_free(exec->context, s);
}

lamina_status lamina_exec_step(lamina_exec *exec, const lamina_optimizer *given) {
  if (!exec) return LAMINA_INVALID_ARGUMENT;
  lamina_step *s;
  lamina_status status = lamina_exec_check_gradients(exec, "step");
  if (!status) status = lamina_step_begin(exec, given, &s);
  if (status) return status;
  lamina_step_nodes(exec, s, 0, exec->plan->node_count);
  lamina_step_end(exec, s);
  return LAMINA_OK;
}
