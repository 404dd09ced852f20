/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node is run alone, on values of its own and with its packed parameters, forward and in a plan for training backward
 * too. Its kernels take turns, so that what changes slowly is the same for all and none finds the caches as it left
 * them; the best of its runs counts. The kernel that would run without tuning is kept unless another is clearly faster.
 */
#include "tune.h"

#include "attributes.h"
#include "exec.h"
#include "io/text.h"
#include "random.h"

#include <stdio.h>
#include <string.h>

enum { ROUNDS = 20, LEAST_ROUNDS = 3 };
#define BUDGET_MS 20.0 /* of measuring, for each kernel */
#define CLEARLY 0.98

typedef struct trial {
  const lamina_kernel *kernel;
  int index; /* of the layer's kernels */
  lamina_cost cost;
  void *packed, *saved;
  double ms;
  bool fails;
} trial;

/* A node alone: all that is allocated for it is in `memory`. */
typedef struct bench {
  lamina_plan *plan;
  plan_node *node;
  lamina_node view;
  int count;
  trial trials[LAMINA_TUNE_KERNELS];
  void *memory[5 * (LAMINA_MAX_PORTS + 1) + 2]; /* values and their gradients, gradients of parameters, add, workspace */
  int allocated;
} bench;

static void *take(bench *b, size_t bytes) {
  void *memory = lamina_alloc(b->plan->context, bytes ? bytes : 1);
  return b->memory[b->allocated++] = memory;
}

/* Memory for a tensor: floats between 0 and 1, anything else zero, which is a valid label. */
static bool fill(bench *b, lamina_tensor *t) {
  size_t bytes;
  if (!lamina_tensor_bytes(t, &bytes) || !(t->data = take(b, bytes))) return false;
  if (t->dtype == LAMINA_F32)
    lamina_random_uniform(1, 0, (int64_t)(bytes / sizeof(float)), t->data);
  else
    memset(t->data, 0, bytes);
  return true;
}

static bool fill_values(bench *b) {
  lamina_node *v = &b->view;
  bool done = true;
  for (int i = 0; done && i < v->n_inputs; i++) {
    done = fill(b, &v->inputs[i]);
    if (v->need_inputs >> i & 1) done = done && fill(b, &v->d_inputs[i]);
  }
  for (int i = 0; done && i < v->n_outputs; i++) {
    done = fill(b, &v->outputs[i]);
    if (b->node->backward && v->outputs[i].dtype == LAMINA_F32) done = done && fill(b, &v->d_outputs[i]);
  }
  for (int i = 0; done && i < v->n_params; i++)
    if (v->need_params >> i & 1) done = fill(b, &v->d_params[i]);
  if (done && b->node->add >= 0) done = fill(b, &v->epilogue.add);
  return done;
}

/* Buffers and packed parameters of a kernel. */
static bool prepare(bench *b, trial *t) {
  const lamina_context *context = b->plan->context;
  plan_node *node = b->node;
  t->cost = (lamina_cost){.size = sizeof t->cost};
  b->view.kernel = t->kernel;
  if (t->kernel->plan && t->kernel->plan(&b->view, &t->cost)) return false;
  if (node->mode == LAMINA_INFER) t->cost.saved = 0;
  if (t->cost.packed > SIZE_MAX / 4 || t->cost.saved > SIZE_MAX / 4 || t->cost.workspace > SIZE_MAX / 4) return false;
  if (t->cost.saved && !(t->saved = lamina_alloc(context, t->cost.saved))) return false;
  if (!t->cost.packed) return true;
  t->packed = lamina_alloc(context, t->cost.packed);
  if (!t->packed) return false;
  node->kernel = t->kernel;
  node->packed = t->packed;
  node->packed_version = 0;
  const bool packed = lamina_plan_pack(b->plan, node) == LAMINA_OK;
  node->packed = NULL;
  node->packed_version = 0;
  return packed;
}

static void run(bench *b, trial *t) {
  if (t->fails) return;
  b->view.kernel = t->kernel;
  b->view.packed = t->packed;
  b->view.saved = t->saved;
  const double start = lamina_exec_clock();
  t->fails = t->kernel->forward(&b->view) != LAMINA_OK;
  if (!t->fails && b->node->backward) t->fails = t->kernel->backward(&b->view) != LAMINA_OK;
  const double ms = lamina_exec_clock() - start;
  if (t->ms == 0 || ms < t->ms) t->ms = ms;
}

static void measure(bench *b) {
  size_t workspace = 0;
  bool ready = fill_values(b);
  for (int i = 0; i < b->count; i++) {
    b->trials[i].fails = !ready || !prepare(b, &b->trials[i]);
    if (b->trials[i].cost.workspace > workspace) workspace = b->trials[i].cost.workspace;
  }
  b->view.workspace = take(b, workspace);
  for (int i = 0; i < b->count; i++) {
    b->trials[i].fails = b->trials[i].fails || !b->view.workspace;
    run(b, &b->trials[i]);
    b->trials[i].ms = 0; /* that was the first touch of everything */
  }
  const double start = lamina_exec_clock();
  for (int r = 0; r < ROUNDS; r++) {
    for (int i = 0; i < b->count; i++) run(b, &b->trials[i]);
    if (r + 1 >= LEAST_ROUNDS && lamina_exec_clock() - start > BUDGET_MS * b->count) break;
  }
}

/* The fastest, or the usual one if that is about as fast. */
static const trial *best_of(const bench *b, const lamina_kernel *usual) {
  const trial *best = NULL, *kept = NULL;
  for (int i = 0; i < b->count; i++) {
    const trial *t = &b->trials[i];
    if (t->fails) continue;
    if (!best || t->ms < best->ms) best = t;
    if (t->kernel == usual) kept = t;
  }
  return best && kept && best->ms >= CLEARLY * kept->ms ? kept : best;
}

static void add_attributes(lamina_text *text, const lamina_layer *layer, const lamina_value *values) {
  for (const lamina_attr *const *a = layer->attrs; a && *a; a++, values++) {
    lamina_text_add(text, " %s=", (*a)->name);
    if ((*a)->type == LAMINA_ATTR_STRING)
      lamina_text_add(text, "%s", values->s ? values->s : "");
    else if ((*a)->type == LAMINA_ATTR_FLOAT)
      lamina_text_add_real(text, values->f);
    else if ((*a)->type != LAMINA_ATTR_INTS)
      lamina_text_add(text, "%lld", (long long)values->i);
    for (int i = 0; (*a)->type == LAMINA_ATTR_INTS && i < values->count; i++)
      lamina_text_add(text, "%s%lld", i ? "," : "", (long long)values->ints[i]);
  }
}

static void add_shapes(lamina_text *text, const char *what, int count, const lamina_tensor *tensors) {
  char shape[128];
  for (int i = 0; i < count; i++)
    lamina_text_add(text, "%s%s", i ? " " : what, lamina_shape_text(&tensors[i], shape, sizeof shape));
}

/* All that the choice depends on. */
static void write_key(const bench *b, lamina_text *text) {
  const lamina_context *context = b->plan->context;
  const lamina_layer *layer = b->node->source->layer;
  const lamina_node *v = &b->view;
  const lamina_cpu *cpu = &context->cpu; /* a virtual machine's name may leave the model out: caches tell more */
  lamina_text_add(text, "%s %zu/%zu/%zu KiB; %s; lamina %s; %d threads; math %d; %s; %s@%u", context->cpu_name,
                  cpu->l1 >> 10, cpu->l2 >> 10, cpu->l3 >> 10, cpu->isa, lamina_version(), context->threads,
                  (int)context->options.math, b->node->mode == LAMINA_TRAIN ? "train" : "infer", layer->name,
                  layer->version);
  add_attributes(text, layer, b->node->attrs);
  if (v->epilogue.parts) lamina_text_add(text, "; epilogue %u", v->epilogue.parts);
  if (b->node->frozen_states) lamina_text_add(text, "; frozen states");
  if (b->node->backward)
    lamina_text_add(text, "; gradients %llx %llx", (unsigned long long)v->need_inputs,
                    (unsigned long long)v->need_params);
  add_shapes(text, "; ", v->n_inputs, v->inputs);
  add_shapes(text, " -> ", v->n_outputs, v->outputs);
  for (int i = 0; i < b->count; i++) lamina_text_add(text, "%s%s", i ? " " : "; ", b->trials[i].kernel->name);
}

static void collect(bench *b) {
  int index = 0;
  for (const lamina_kernel *const *k = b->node->source->layer->kernels; *k && index < LAMINA_TUNE_KERNELS; k++, index++)
    if (!lamina_kernel_refusal(b->plan, b->node, *k, &b->view, true))
      b->trials[b->count++] = (trial){.kernel = *k, .index = index};
}

/* A forward that changes states (running statistics) would leave its traces. */
static bool changes_states(const plan_node *node) {
  for (int i = 0; i < node->source->n_params; i++)
    if (node->mode == LAMINA_TRAIN && !node->frozen_states && node->source->params[i] && !node->source->params[i]->trainable)
      return true;
  return false;
}

static void choose(bench *b, const char *key, const lamina_kernel *usual, lamina_wisdom *wisdom,
                   lamina_tuning *tuning) {
  const char *known = lamina_wisdom_find(wisdom, key), *names[LAMINA_TUNE_KERNELS];
  double us[LAMINA_TUNE_KERNELS];
  for (int i = 0; known && i < b->count; i++)
    if (strcmp(b->trials[i].kernel->name, known) == 0) tuning->fastest = b->trials[i].kernel;
  tuning->remembered = tuning->fastest != NULL;
  if (tuning->remembered) return;
  measure(b);
  const trial *best = best_of(b, usual);
  if (!best) return;
  int measured = 0;
  for (int i = 0; i < b->count; i++) {
    if (b->trials[i].fails) continue;
    tuning->us[b->trials[i].index] = us[measured] = 1e3 * b->trials[i].ms;
    names[measured++] = b->trials[i].kernel->name;
  }
  tuning->fastest = best->kernel;
  lamina_wisdom_add(wisdom, key, best->kernel->name, measured, names, us);
}

void lamina_tune_node(lamina_plan *plan, plan_node *node, lamina_wisdom *wisdom, lamina_tuning *tuning) {
  memset(tuning, 0, sizeof *tuning);
  if (node->is_view || changes_states(node)) return;
  lamina_node *own = lamina_plan_view(plan, node); /* whose tensors get memory */
  bench *b = own ? lamina_alloc_zeroed(plan->context, sizeof *b) : NULL;
  lamina_text key = {.context = plan->context};
  const lamina_kernel *usual = node->kernel;
  if (b) {
    b->plan = plan;
    b->node = node;
    b->view = *own;
    collect(b);
    if (b->count > 1) write_key(b, &key);
    if (b->count > 1 && !key.failed) choose(b, key.data, usual, wisdom, tuning);
    for (int i = 0; i < b->count; i++) {
      lamina_free(plan->context, b->trials[i].packed);
      lamina_free(plan->context, b->trials[i].saved);
    }
    for (int i = 0; i < b->allocated; i++) lamina_free(plan->context, b->memory[i]);
  }
  node->kernel = usual;
  lamina_free(plan->context, key.data);
  lamina_free(plan->context, b);
  lamina_free(plan->context, own);
}
