/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin_check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const run_options run_defaults = {
    .fail_at = -1, .poison_out = 0x7fc0dead, .poison_work = 0x7fc0dead, .poison_saved = 0x7fc0dead};

enum { RUN_GUARDS = 6 * LAMINA_MAX_PORTS + 24, EXTRA = 96 };

/* One run's memory, all of it guarded. */
typedef struct run {
  const check_case *c;
  const run_options *o;
  check_host host;
  lamina_node *node;
  guard *all[RUN_GUARDS];
  int count;
  guard *x[LAMINA_MAX_PORTS], *y[LAMINA_MAX_PORTS], *p[LAMINA_MAX_PORTS], *packed, *saved, *workspace;
  guard *dx[LAMINA_MAX_PORTS], *dp[LAMINA_MAX_PORTS];
} run;

static guard *keep(run *r, guard *g) {
  r->all[r->count++] = g;
  return g;
}

static guard *buffer(run *r, const char *prefix, const char *name, size_t bytes, size_t align, const void *content,
                     uint32_t poison) {
  char full[40];
  snprintf(full, sizeof full, "%.12s%.27s", prefix, name);
  guard *g = keep(r, guard_new(full, bytes, align, r->o->at_start));
  if (content)
    memcpy(g->data, content, bytes);
  else
    for (size_t i = 0; i + sizeof poison <= bytes; i += sizeof poison) memcpy(g->data + i, &poison, sizeof poison);
  return g;
}

static size_t align_of(const lamina_tensor *t) { return t->dtype == LAMINA_I64 ? 8 : t->dtype == LAMINA_U8 ? 1 : 4; }

static const char *port_name(const run *r, lamina_port_kind kind, int i) {
  return check_port(r->c->layer, kind, i)->name;
}

static bool is_state(const run *r, int i) {
  return check_port(r->c->layer, LAMINA_PORT_PARAMETER, i)->kind == LAMINA_PORT_STATE;
}

/* An array of the node, at the end of a page: a layer that counts its ports wrongly finds out. */
static lamina_tensor *tensors(run *r, const char *name, const lamina_tensor *from, int count) {
  guard *g = keep(r, guard_new(name, (size_t)count * sizeof *from, 8, false));
  memcpy(g->data, from, (size_t)count * sizeof *from);
  lamina_tensor *t = (lamina_tensor *)(void *)g->data;
  for (int i = 0; i < count; i++) t[i].data = NULL;
  return t;
}

static bool wants_input(const run *r, int i) {
  const lamina_port *port = check_port(r->c->layer, LAMINA_PORT_INPUT, i);
  return r->c->inputs[i].dtype == LAMINA_F32 && !(port->flags & LAMINA_PORT_NO_GRADIENT) &&
         !(r->o->leave_inputs >> i & 1);
}

/* Which gradients a training plan computes: plan and pack are told too. */
static void set_needs(run *r) {
  if (r->o->mode != LAMINA_TRAIN) return;
  for (int i = 0; i < r->c->n_inputs; i++)
    if (wants_input(r, i)) r->node->need_inputs |= 1ull << i;
  for (int i = 0; i < r->c->n_params; i++)
    if (r->c->params[i].rank >= 0 && !is_state(r, i) && !(r->o->leave_params >> i & 1))
      r->node->need_params |= 1ull << i;
  if (r->o->accumulate) r->node->accumulate_inputs = r->node->need_inputs;
}

static void line(int64_t n, const float *parameters, const float *x, float *y) {
  for (int64_t i = 0; i < n; i++) y[i] = parameters[0] * x[i] + parameters[1];
}

/* The parts that are asked for; check_epilogues knows what they make of an output. */
static void set_epilogue(run *r) {
  lamina_epilogue *e = &r->node->epilogue;
  const lamina_tensor *y = &r->c->outputs[0];
  const size_t channels = y->rank ? (size_t)y->dim[y->rank - 1] : 1;
  *e = (lamina_epilogue){.size = sizeof *e, .parts = r->o->epilogue, .lo = -INFINITY, .hi = INFINITY};
  if (e->parts & LAMINA_EPILOGUE_AFFINE) {
    float *scale = (float *)(void *)keep(r, guard_new("epilogue.scale", channels * sizeof *scale, 4, false))->data;
    float *shift = (float *)(void *)keep(r, guard_new("epilogue.shift", channels * sizeof *shift, 4, false))->data;
    for (size_t i = 0; i < channels; i++) scale[i] = EPILOGUE_SCALE(i), shift[i] = EPILOGUE_SHIFT(i);
    e->scale = scale;
    e->shift = shift;
  }
  if (e->parts & LAMINA_EPILOGUE_ADD) {
    guard *add = keep(r, guard_new("epilogue.add", check_bytes(y), 4, false));
    e->add = *y;
    e->add.data = add->data;
    for (int64_t i = 0; i < check_count(y); i++) ((float *)e->add.data)[i] = EPILOGUE_ADD(i);
    guard_protect(add, GUARD_READ);
  }
  if (e->parts & LAMINA_EPILOGUE_CLAMP) e->lo = EPILOGUE_LOW, e->hi = EPILOGUE_HIGH;
  if (e->parts & LAMINA_EPILOGUE_ACTIVATION) {
    e->activation = line;
    e->parameters[0] = EPILOGUE_SLOPE;
    e->parameters[1] = EPILOGUE_OFFSET;
  }
}

static void make_node(run *r) {
  const check_case *c = r->c;
  const size_t extra = r->o->newer ? EXTRA : 0;
  check_host_open(&r->host, r->o->context, extra);
  r->host.poison = r->o->poison_work;
  r->host.reversed = r->o->reversed;
  guard *g = keep(r, guard_new("node", sizeof(lamina_node) + extra, 8, false));
  memset(g->data, 0xa5, g->bytes);
  guard *attrs = keep(r, guard_new("attrs", (size_t)c->n_attrs * sizeof *c->attrs, 8, false));
  memcpy(attrs->data, c->attrs, attrs->bytes);
  r->node = (lamina_node *)(void *)g->data;
  *r->node = (lamina_node){.size = sizeof(lamina_node) + extra,
                           .name = "checked",
                           .host = r->host.host,
                           .mode = r->o->mode,
                           .attrs = (const lamina_value *)(const void *)attrs->data,
                           .n_inputs = c->n_inputs,
                           .n_outputs = c->n_outputs,
                           .n_params = c->n_params,
                           .seed = 77 + (uint64_t)c->number,
                           .kernel = r->o->kernel};
  r->node->inputs = tensors(r, "node->inputs", c->inputs, c->n_inputs);
  r->node->outputs = tensors(r, "node->outputs", c->outputs, c->n_outputs);
  r->node->params = tensors(r, "node->params", c->params, c->n_params);
  r->node->d_inputs = tensors(r, "node->d_inputs", c->inputs, c->n_inputs);
  r->node->d_outputs = tensors(r, "node->d_outputs", c->outputs, c->n_outputs);
  r->node->d_params = tensors(r, "node->d_params", c->params, c->n_params);
  r->node->frozen_states = r->o->frozen;
  guard_protect(attrs, GUARD_READ);
  set_epilogue(r);
  set_needs(r);
}

typedef lamina_status callback(const lamina_node *node);

/* Another run of the same kernel, as another thread could have one between any two moments of this run. */
static void run_nested(void *arg) {
  const run *r = arg;
  run_options o = *r->o;
  run_result other;
  char phase[sizeof check->phase];
  memcpy(phase, check->phase, sizeof phase);
  o.nested = NULL;
  o.tolerate = true;
  check_run(r->o->nested, &o, &other);
  run_release(&other);
  memcpy(check->phase, phase, sizeof phase);
}

/* Runs one callback and looks at what it must leave alone. */
static lamina_status call(run *r, callback *function, const char *name) {
  const uint64_t control = check_fp_control();
  check_phase("%s", name);
  r->host.failures = 0;
  r->host.nested = r->o->nested ? run_nested : NULL;
  r->host.nested_arg = r;
  guard_protect(r->all[0], GUARD_READ); /* the node */
  const lamina_status status = function(r->node);
  guard_protect(r->all[0], GUARD_READ_WRITE);
  if (check_fp_control() != control)
    check_fail("fp-control", "%s: changes the floating-point control word (rounding, flush to zero)", name);
  if (!status && r->host.failures)
    check_fail("error-ignored", "%s: calls host->fail (\"%s\") and returns LAMINA_OK", name, r->host.message);
  if (status && r->o->fail_at < 0 && !r->o->tolerate && r->o->kernel->forward == function)
    check_fail("status", "%s: fails on a case that infer, supports and plan accepted: %s", name,
               r->host.failures ? r->host.message : lamina_status_name(status));
  return status;
}

static lamina_status plan(run *r, lamina_cost *cost) {
  const size_t extra = r->o->newer ? EXTRA : 0;
  guard *g = keep(r, guard_new("cost", sizeof *cost + extra, 8, false));
  lamina_cost *out = (lamina_cost *)(void *)g->data;
  memset(g->data, 0xa5, g->bytes);
  *out = (lamina_cost){.size = sizeof *cost + extra, .algorithm = r->o->kernel->name};
  lamina_status status = LAMINA_OK;
  check_phase("plan");
  r->host.failures = 0;
  if (r->o->kernel->plan) status = r->o->kernel->plan(r->node, out);
  if (!status && r->host.failures)
    check_fail("error-ignored", "plan: calls host->fail (\"%s\") and returns LAMINA_OK", r->host.message);
  *cost = *out;
  if (status) return status;
  if (cost->packed > SIZE_MAX / 4 || cost->saved > SIZE_MAX / 4 || cost->workspace > SIZE_MAX / 4)
    check_fail("workspace", "plan: asks for more memory than there can be");
  if (!(cost->flops >= 0) || !(cost->bytes >= 0) || !cost->algorithm)
    check_fail("cost", "plan: FLOPs or bytes are negative or not numbers, or there is no algorithm's name");
  if (r->o->mode == LAMINA_INFER) cost->saved = 0;
  r->packed = buffer(r, "packed", "", cost->packed, 64, NULL, r->o->poison_work);
  r->saved = buffer(r, "saved", "", cost->saved, 64, NULL, r->o->poison_saved);
  r->workspace = buffer(r, "workspace", "", cost->workspace, 64, NULL, r->o->poison_work);
  r->node->packed = cost->packed ? r->packed->data : NULL;
  r->node->saved = cost->saved ? r->saved->data : NULL;
  r->node->workspace = r->workspace->data;
  return LAMINA_OK;
}

static void bind(run *r) {
  const check_case *c = r->c;
  for (int i = 0; i < c->n_params; i++) {
    if (c->params[i].rank < 0) continue;
    r->p[i] = buffer(r, "", port_name(r, LAMINA_PORT_PARAMETER, i), check_bytes(&c->params[i]), align_of(&c->params[i]),
                     c->params[i].data, 0);
    r->node->params[i].data = r->p[i]->data;
    guard_protect(r->p[i], GUARD_READ);
  }
}

static void bind_values(run *r) {
  const check_case *c = r->c;
  for (int i = 0; i < c->n_inputs; i++) {
    r->x[i] = buffer(r, "", port_name(r, LAMINA_PORT_INPUT, i), check_bytes(&c->inputs[i]), align_of(&c->inputs[i]),
                     c->inputs[i].data, 0);
    r->node->inputs[i].data = r->x[i]->data;
    if (i || !r->o->in_place) guard_protect(r->x[i], GUARD_READ);
  }
  for (int i = 0; i < c->n_outputs; i++) {
    r->y[i] = i == 0 && r->o->in_place ? r->x[0]
                                       : buffer(r, "", port_name(r, LAMINA_PORT_OUTPUT, i), check_bytes(&c->outputs[i]),
                                                align_of(&c->outputs[i]), NULL, r->o->poison_out);
    r->node->outputs[i].data = r->y[i]->data;
  }
  for (int i = 0; i < c->n_params; i++)
    if (r->p[i] && is_state(r, i) && r->o->mode == LAMINA_TRAIN) guard_protect(r->p[i], GUARD_READ_WRITE);
  if (r->packed) guard_protect(r->packed, GUARD_READ);
}

/* What a gradient is added to: the same numbers in every run. */
static void start_value(guard *g) {
  for (size_t i = 0; i + sizeof(float) <= g->bytes; i += sizeof(float)) {
    const float value = 0.25f * (float)((int)(i / 4 % 7) - 3);
    memcpy(g->data + i, &value, sizeof value);
  }
}

static void bind_gradients(run *r) {
  const check_case *c = r->c;
  char name[40];
  lamina_node *node = r->node;
  for (int i = 0; i < c->n_inputs; i++)
    if (!(check_port(c->layer, LAMINA_PORT_INPUT, i)->flags & LAMINA_PORT_BACKWARD_READS) && !r->o->in_place) {
      r->x[i]->none_cause = "undeclared-read";
      guard_protect(r->x[i], GUARD_NONE);
    }
  for (int i = 0; i < c->n_outputs; i++) {
    const bool reads = check_port(c->layer, LAMINA_PORT_OUTPUT, i)->flags & LAMINA_PORT_BACKWARD_READS;
    if (!(i == 0 && r->o->in_place)) {
      r->y[i]->none_cause = "undeclared-read";
      guard_protect(r->y[i], reads ? GUARD_READ : GUARD_NONE);
    }
    if (c->outputs[i].dtype != LAMINA_F32) continue;
    guard *g =
        buffer(r, "gradient of ", port_name(r, LAMINA_PORT_OUTPUT, i), check_bytes(&c->outputs[i]), 4, c->dy[i], 0);
    node->d_outputs[i].data = g->data;
    if (!(i == 0 && r->o->backward_in_place))
      guard_protect(g, GUARD_READ);
    else
      r->dx[0] = g;
  }
  for (int i = 0; i < c->n_inputs; i++) {
    const lamina_port *port = check_port(c->layer, LAMINA_PORT_INPUT, i);
    if (!wants_input(r, i)) continue;
    if (!r->dx[i])
      r->dx[i] = buffer(r, "gradient of ", port->name, check_bytes(&c->inputs[i]), 4, NULL, r->o->poison_out);
    if (r->o->accumulate) start_value(r->dx[i]);
    node->d_inputs[i].data = r->dx[i]->data;
  }
  for (int i = 0; i < c->n_params; i++) {
    if (!r->p[i]) continue;
    guard_protect(r->p[i], GUARD_READ);
    if (is_state(r, i) || (r->o->leave_params >> i & 1)) continue;
    snprintf(name, sizeof name, "%s", port_name(r, LAMINA_PORT_PARAMETER, i));
    r->dp[i] = buffer(r, "gradient of ", name, check_bytes(&c->params[i]), 4, NULL, r->o->poison_out);
    node->d_params[i].data = r->dp[i]->data;
  }
  for (size_t i = 0; i + 4 <= r->workspace->bytes; i += 4) memcpy(r->workspace->data + i, &r->o->poison_work, 4);
}

static void take(run_result *result, const guard *g, const lamina_tensor *shape, bool gradient, lamina_port_kind kind,
                 int port) {
  if (result->count == CHECK_VALUES) return;
  const int at = result->count++;
  snprintf(result->value[at].name, sizeof result->value[at].name, "%s", g->name);
  result->value[at].tensor = *shape;
  result->value[at].tensor.data = malloc(g->bytes + 8);
  if (!result->value[at].tensor.data) check_fail("checker", "out of memory");
  memcpy(result->value[at].tensor.data, g->data, g->bytes);
  result->value[at].gradient = gradient;
  result->value[at].kind = kind;
  result->value[at].port = port;
}

static void take_forward(run *r, run_result *result) {
  const check_case *c = r->c;
  for (int i = 0; i < c->n_outputs; i++) {
    take(result, r->y[i], &c->outputs[i], false, LAMINA_PORT_OUTPUT, i);
    snprintf(result->value[result->count - 1].name, sizeof result->value[0].name, "%s",
             port_name(r, LAMINA_PORT_OUTPUT, i));
  }
  for (int i = 0; i < c->n_params; i++)
    if (r->p[i] && is_state(r, i)) {
      take(result, r->p[i], &c->params[i], false, LAMINA_PORT_STATE, i);
      result->value[result->count - 1].of_state = true;
    }
}

static void take_backward(run *r, run_result *result) {
  for (int i = 0; i < r->c->n_inputs; i++) {
    if (!r->dx[i] || !(r->node->need_inputs >> i & 1)) continue;
    take(result, r->dx[i], &r->c->inputs[i], true, LAMINA_PORT_INPUT, i);
    snprintf(result->value[result->count - 1].name, sizeof result->value[0].name, "gradient of %s",
             port_name(r, LAMINA_PORT_INPUT, i));
  }
  for (int i = 0; i < r->c->n_params; i++)
    if (r->dp[i]) take(result, r->dp[i], &r->c->params[i], true, LAMINA_PORT_PARAMETER, i);
}

/* What the process holds after many calls more than before them; the first calls may fill caches. */
static void grown(run *r, run_result *result) {
  check_usage before = check_used(), after;
  for (int i = 0; i < r->o->repeat; i++) {
    if (i == r->o->repeat / 4) before = check_used();
    if (call(r, r->o->kernel->forward, "forward")) return;
  }
  after = check_used();
  result->leaked = after.heap > before.heap ? after.heap - before.heap : 0;
  result->mapped = after.mapped > before.mapped ? after.mapped - before.mapped : 0;
  result->opened = after.files - before.files;
}

/* Forward once more between forward and backward, whose outputs were not kept. */
static lamina_status again(run *r) {
  r->node->recompute = 1;
  for (int i = 0; i < r->c->n_outputs; i++)
    for (size_t k = 0; k + 4 <= r->y[i]->bytes; k += 4) memcpy(r->y[i]->data + k, &r->o->poison_out, 4);
  const lamina_status status = call(r, r->o->kernel->forward, "forward, once more (recompute)");
  r->node->recompute = 0;
  return status;
}

void check_run(const check_case *c, const run_options *o, run_result *result) {
  run r = {.c = c, .o = o};
  memset(result, 0, sizeof *result);
  snprintf(check->kernel, sizeof check->kernel, "%s", o->kernel->name);
  snprintf(check->isa, sizeof check->isa, "%s", lamina_context_host(o->context)->cpu->isa);
  make_node(&r);
  r.host.fail_at = o->fail_at;
  check->allocation_fails = o->fail_at >= 0;
  lamina_status status = plan(&r, &result->cost);
  if (!status) bind(&r);
  if (!status && o->kernel->pack && result->cost.packed) status = call(&r, o->kernel->pack, "pack");
  if (!status) bind_values(&r);
  if (!status) status = call(&r, o->kernel->forward, "forward");
  if (!status && o->recompute) status = again(&r);
  if (!status && o->repeat) grown(&r, result);
  if (!status) take_forward(&r, result);
  if (!status && o->backward) {
    bind_gradients(&r);
    status = call(&r, o->kernel->backward, "backward");
    if (status && o->fail_at < 0)
      check_fail("status", "backward: fails after a forward that succeeded: %s", r.host.message);
    if (!status) take_backward(&r, result);
  }
  check->allocation_fails = 0;
  result->status = status;
  result->allocations = r.host.allocations;
  result->outstanding = r.host.outstanding;
  for (int i = 0; i < r.count; i++) guard_retire(r.all[i]);
  check_host_close(&r.host);
}

bool kernel_takes(const check_case *c, const run_options *o) {
  const lamina_kernel *kernel = o->kernel;
  run r = {.c = c, .o = o};
  if (o->mode == LAMINA_TRAIN && !kernel->backward) return false;
  snprintf(check->kernel, sizeof check->kernel, "%s", kernel->name);
  make_node(&r);
  check_phase("supports");
  const bool yes = !kernel->supports || kernel->supports(r.node) || (kernel->possible && kernel->possible(r.node));
  lamina_cost cost;
  const bool planned = yes && !plan(&r, &cost);
  for (int i = 0; i < r.count; i++) guard_retire(r.all[i]);
  check_host_close(&r.host);
  return planned;
}

bool kernel_runs(const check_case *c, const lamina_kernel *kernel, const lamina_context *context, lamina_mode mode) {
  run_options o = run_defaults;
  o.context = context;
  o.kernel = kernel;
  o.mode = mode;
  return kernel_takes(c, &o);
}
