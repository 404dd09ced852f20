/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node whose output goes to one reader alone takes that reader's work into its epilogue, in the order in
 * which an epilogue is applied: an affine map (batch norm with running statistics, folded into the packed weights), the
 * addition of another value that is there before the node runs, a clamp, an activation (any elementwise layer, a
 * plugin's too, that offers its function).
 *
 * At inference, and in training where no gradient is needed, any layer may do so. In training else one whose backward pass goes through its epilogue (batch norm): no affine
 * map then, and the addend becomes an input of the node, which gets a gradient like any other.
 */
#include <math.h>
#include <string.h>

#include "passes.h"

static bool folds_affine(lamina_plan *plan, const plan_node *producer, plan_node *reader, lamina_status *status) {
  if (!(producer->source->layer->epilogues & LAMINA_EPILOGUE_AFFINE) || !reader->source->layer->affine) return false;
  if (producer->epilogue.parts || reader->n_inputs != 1) return false;
  lamina_node *view = lamina_plan_view(plan, reader);
  if (!view) {
    *status = lamina_fail_memory(plan->context, sizeof *view);
    return false;
  }
  bool possible = reader->source->layer->affine(view, NULL, NULL) == LAMINA_OK;
  lamina_free(plan->context, view);
  return possible;
}

/* What the reader offers to be, or parts == 0. `view` is the caller's to free. */
static lamina_epilogue offered(lamina_plan *plan, const plan_node *reader, lamina_node **view, lamina_status *status) {
  lamina_epilogue offer = {.size = sizeof offer, .lo = -INFINITY, .hi = INFINITY};
  *view = NULL;
  if (!reader->source->layer->as_epilogue) return offer;
  *view = lamina_plan_view(plan, reader);
  if (!*view)
    *status = lamina_fail_memory(plan->context, sizeof **view);
  else if (!reader->source->layer->as_epilogue(*view, &offer))
    offer.parts = 0;
  return offer;
}

/* In training a merged node's backward is that of the producer, which knows nothing of its parameters; and an epilogue keeps
   up with those of one node. */
static bool may_take_parameters(const lamina_plan *plan, const plan_node *producer, const plan_node *reader) {
  return !reader->source->n_params || (plan->options.mode == LAMINA_INFER && !producer->offer);
}

void lamina_plan_refresh_epilogue(const plan_node *node, lamina_epilogue *epilogue) {
  lamina_epilogue now = {.size = sizeof now, .lo = -INFINITY, .hi = INFINITY};
  if (!node->offer || !node->offer_source->layer->as_epilogue(node->offer, &now)) return;
  if (now.parts & LAMINA_EPILOGUE_CLAMP) {
    epilogue->lo = now.lo;
    epilogue->hi = now.hi;
  }
  if (now.parts & LAMINA_EPILOGUE_ACTIVATION) memcpy(epilogue->parameters, now.parameters, sizeof now.parameters);
}

/* Takes what the reader offers, if the producer can apply it and nothing that is applied later is there already. */
static bool take(lamina_plan *plan, int n, const plan_node *reader, const lamina_epilogue *offer) {
  plan_node *producer = &plan->nodes[n];
  lamina_epilogue *e = &producer->epilogue;
  if (!(producer->source->layer->epilogues & offer->parts) || e->parts >= offer->parts) return false;
  switch (offer->parts) {
  case LAMINA_EPILOGUE_ADD: {
    if (reader->n_inputs != 2) return false;
    const int other = reader->inputs[reader->inputs[0] == producer->outputs[0]];
    if (plan->values[other].producer >= n || other == producer->outputs[0]) return false;
    producer->add = other;
    if (producer->mode == LAMINA_TRAIN) producer->inputs[producer->n_inputs++] = other;
    break;
  }
  case LAMINA_EPILOGUE_CLAMP:
    e->lo = offer->lo;
    e->hi = offer->hi;
    break;
  case LAMINA_EPILOGUE_ACTIVATION:
    if (!offer->activation || reader->n_inputs != 1) return false;
    e->activation = offer->activation;
    memcpy(e->parameters, offer->parameters, sizeof e->parameters);
    break;
  default: /* nothing, or several at once */
    return false;
  }
  e->parts |= offer->parts;
  return true;
}

/* Does the reader's work in the producer if it can; *merged tells. */
static lamina_status try_merge(lamina_plan *plan, int n, plan_node *reader, bool *merged) {
  plan_node *producer = &plan->nodes[n];
  lamina_status status = LAMINA_OK;
  *merged = false;
  if (!lamina_same_shape(&plan->values[producer->outputs[0]].shape, &plan->values[reader->outputs[0]].shape))
    return LAMINA_OK;
  const bool train = producer->mode == LAMINA_TRAIN;
  if (reader->backward && !train) return LAMINA_OK; /* its backward has to go through it */
  if (!train && folds_affine(plan, producer, reader, &status)) {
    producer->affine = reader->source;
    producer->epilogue.parts |= LAMINA_EPILOGUE_AFFINE;
    *merged = true;
    return LAMINA_OK;
  }
  if (status || !may_take_parameters(plan, producer, reader)) return status;
  lamina_node *view;
  lamina_epilogue offer = offered(plan, reader, &view, &status);
  *merged = !status && take(plan, n, reader, &offer);
  if (*merged && reader->source->n_params) {
    view->attrs = reader->source->attrs; /* the node's own copy goes with it */
    producer->offer = view;
    producer->offer_source = reader->source;
    return LAMINA_OK;
  }
  lamina_free(plan->context, view);
  return status;
}

static bool can_fuse(const lamina_plan *plan, const plan_node *producer) {
  const lamina_layer *layer = producer->source->layer;
  const bool through = producer->mode == LAMINA_INFER ||
                       ((layer->flags & LAMINA_LAYER_EPILOGUE_BACKWARD) && producer->n_inputs == producer->source->n_inputs);
  return through && layer->epilogues && producer->n_outputs == 1;
}

lamina_status lamina_pass_fuse_epilogue(lamina_plan *plan) {
  for (int n = 0; n < plan->node_count; n++) {
    plan_node *producer = &plan->nodes[n], *reader;
    bool merged = !producer->removed && can_fuse(plan, producer);
    while (merged) {
      int out = producer->outputs[0];
      if (plan->values[out].is_output || lamina_pass_readers(plan, out, &reader) != 1 || !reader ||
          reader->n_outputs != 1)
        break;
      lamina_status status = try_merge(plan, n, reader, &merged);
      if (status || !merged) {
        if (status) return status;
        break;
      }
      producer->outputs[0] = reader->outputs[0];
      plan->values[producer->outputs[0]].producer = n;
      status = lamina_pass_merge(plan, reader, producer);
      if (status) return status;
    }
  }
  return LAMINA_OK;
}
