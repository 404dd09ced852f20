/* SPDX-License-Identifier: Apache-2.0 */
/* Golden test: one layer's training steps and its evaluation. */
#include "golden.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_INPUTS 8
#define NODE "layer"

static const char *const input_names[MAX_INPUTS] = {"x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7"};

typedef struct replay {
  golden_run *run;
  const lamina_layer *layer;
  char attributes[1024];
  bool rows;           /* a linear layer: every leading dimension is the batch, nothing is transposed */
  lamina_graph *store; /* keeps parameters and states from shape to shape */
  lamina_graph *graph; /* for one shape and mode, used again while they stay the same */
  lamina_plan *plan;
  lamina_exec *exec;
  lamina_mode mode;
  int inputs;
  lamina_tensor shape[MAX_INPUTS];
  golden_exact exact; /* of this step, for batch norm */
} replay;

static const struct {
  const char *theirs, *ours;
} layer_names[] = {
    {"batchnorm", "batch_norm"},
    {"batchnorm1d", "batch_norm"},
    {"batchnorm2d", "batch_norm"},
    {"batchnorm3d", "batch_norm"},
    {"batch_norm1d", "batch_norm"},
    {"batch_norm2d", "batch_norm"},
    {"batch_norm3d", "batch_norm"},
    {"conv", "conv2d"},
    {"leakyrelu", "leaky_relu"},
    {"maxpool2d", "max_pool2d"},
    {"max_pool", "max_pool2d"},
    {"avgpool2d", "avg_pool2d"},
    {"avg_pool", "avg_pool2d"},
    {"globalavgpool", "global_avg_pool"},
    {"adaptive_avg_pool2d", "global_avg_pool"},
};

/* Other words for an attribute of the registry in a file's metadata. */
static const struct {
  const char *attribute, *key;
} attribute_names[] = {
    {"kernel", "kernel_size"},
    {"kernel_size", "kernel"},
    {"out_channels", "out"},
    {"out_features", "out"},
    {"features", "out_features"},
    {"negative_slope", "slope"},
    {"slope", "negative_slope"},
    {"rate", "p"},
    {"p", "rate"},
    {"track_statistics", "track_running_stats"},
    {"ceil", "ceil_mode"},
    {"include_padding", "count_include_pad"},
};

static const lamina_layer *find_layer(golden_run *run, const char *name) {
  char lower[64];
  size_t n = strlen(name);
  if (n >= sizeof lower) n = sizeof lower - 1;
  for (size_t i = 0; i < n; i++) lower[i] = (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] + 32 : name[i]);
  lower[n] = '\0';
  const lamina_layer *layer = lamina_layer_find(run->context, lower, NULL);
  for (size_t i = 0; !layer && i < sizeof layer_names / sizeof *layer_names; i++)
    if (strcmp(lower, layer_names[i].theirs) == 0) layer = lamina_layer_find(run->context, layer_names[i].ours, NULL);
  return layer;
}

/* What the shapes and names of the initial tensors tell about an attribute that the metadata leaves out. */
static bool attribute_from_tensors(const golden_run *run, const char *name, char *text, size_t size) {
  lamina_tensor weight, other;
  const bool has_weight = golden_find(run, &weight, "init.weight");
  if (strcmp(name, "bias") == 0 || strcmp(name, "affine") == 0) {
    const bool there = strcmp(name, "bias") == 0 ? golden_find(run, &other, "init.bias") : has_weight;
    snprintf(text, size, "%s", there ? "true" : "false");
    return true;
  }
  if (strncmp(name, "track_", 6) == 0) {
    snprintf(text, size, "%s", golden_find(run, &other, "init.running_mean") ? "true" : "false");
    return true;
  }
  if ((strcmp(name, "out_channels") == 0 || strcmp(name, "out_features") == 0 || strcmp(name, "features") == 0) &&
      has_weight && weight.rank >= 2) {
    snprintf(text, size, "%lld", (long long)weight.dim[0]);
    return true;
  }
  if (strncmp(name, "kernel", 6) == 0 && has_weight && weight.rank == 4) {
    snprintf(text, size, "%lld,%lld", (long long)weight.dim[2], (long long)weight.dim[3]);
    return true;
  }
  return false;
}

static bool attribute_value(const golden_run *run, const char *name, char *text, size_t size) {
  const char *value = golden_metadata(run, name);
  for (size_t i = 0; !value && i < sizeof attribute_names / sizeof *attribute_names; i++)
    if (strcmp(attribute_names[i].attribute, name) == 0) value = golden_metadata(run, attribute_names[i].key);
  if (!value) return attribute_from_tensors(run, name, text, size);
  golden_attribute_text(value, text, size);
  return true;
}

static bool describe(replay *r) {
  golden_run *run = r->run;
  const char *name = golden_metadata(run, "layer");
  size_t used = 0;
  if (!name) return golden_fail(run, "its metadata names neither a layer nor an optimizer");
  r->layer = find_layer(run, name);
  if (!r->layer) return golden_fail(run, "there is no layer called %s", name);
  r->rows = strcmp(r->layer->name, "linear") == 0;
  for (int i = 0; r->layer->attrs && r->layer->attrs[i]; i++) {
    char value[128];
    if (!attribute_value(run, r->layer->attrs[i]->name, value, sizeof value)) continue;
    const int n = snprintf(r->attributes + used, sizeof r->attributes - used, "%s%s=%s", used ? " " : "",
                           r->layer->attrs[i]->name, value);
    used += (size_t)n;
    if (used >= sizeof r->attributes) return golden_fail(run, "attributes too long");
  }
  return true;
}

static void release(replay *r) {
  lamina_exec_destroy(r->exec);
  lamina_plan_destroy(r->plan);
  lamina_graph_destroy(r->graph);
  r->exec = NULL;
  r->plan = NULL;
  r->graph = NULL;
}

static bool build_graph(replay *r, const lamina_tensor *inputs, lamina_graph **graph) {
  golden_run *run = r->run;
  char names[MAX_INPUTS * 4] = "";
  if (!golden_check(run, lamina_graph_create(run->context, r->store, graph), "graph")) return false;
  for (int i = 0; i < r->inputs; i++) {
    const char *name = input_names[i];
    strcat(names, i ? "," : "");
    strcat(names, name);
    if (inputs[i].rank < 1) return golden_fail(run, "x has no batch dimension");
    if (!golden_check(run, lamina_graph_input(*graph, name, inputs[i].dtype, inputs[i].rank - 1, inputs[i].dim + 1),
                      "x"))
      return false;
  }
  return golden_check(run, lamina_graph_add(*graph, r->layer->name, NODE, names, r->attributes), r->attributes);
}

static bool same_shapes(const replay *r, const lamina_tensor *inputs) {
  for (int i = 0; i < r->inputs; i++) {
    if (inputs[i].rank != r->shape[i].rank) return false;
    for (int d = 0; d < inputs[i].rank; d++)
      if (inputs[i].dim[d] != r->shape[i].dim[d]) return false;
  }
  return true;
}

/* Makes graph, plan and exec for these shapes unless they are there. */
static bool prepare(replay *r, const lamina_tensor *inputs, lamina_mode mode) {
  golden_run *run = r->run;
  if (r->exec && r->mode == mode && same_shapes(r, inputs)) return true;
  release(r);
  if (!r->store) {
    if (!build_graph(r, inputs, &r->store)) return false;
    if (!golden_check(run, lamina_graph_initialize(r->store, 1), "initialize")) return false;
    if (!golden_load(run, r->store, "init.", NODE ".")) return false;
  }
  if (!build_graph(r, inputs, &r->graph)) return false;
  const lamina_plan_options options = {.size = sizeof options,
                                       .mode = mode,
                                       .batch = inputs[0].dim[0],
                                       .input_gradients = mode == LAMINA_TRAIN,
                                       .no_fusion = run->no_fusion};
  if (!golden_check(run, lamina_plan_create(r->graph, &options, &r->plan), "plan")) return false;
  if (!golden_check(run, lamina_exec_create(r->plan, &r->exec), "exec")) return false;
  r->mode = mode;
  for (int i = 0; i < r->inputs; i++) r->shape[i] = inputs[i];
  return true;
}

/* (a, b, ..., features) as rows of features. */
static void fold_rows(lamina_tensor *tensor) {
  int64_t rows = 1;
  for (int i = 0; i < tensor->rank - 1; i++) rows *= tensor->dim[i];
  const int64_t dim[2] = {rows, tensor->rank > 0 ? tensor->dim[tensor->rank - 1] : 1};
  *tensor = lamina_tensor_of(tensor->data, tensor->dtype, 2, dim);
}

static bool get_activation(replay *r, const char *name, lamina_tensor *tensor) {
  lamina_tensor source;
  if (!golden_find(r->run, &source, "%s", name)) return golden_fail(r->run, "%s is missing", name);
  if (!golden_to_channels_last(r->run, &source, r->rows, tensor)) return false;
  if (r->rows) fold_rows(tensor);
  return true;
}

/* STEP.x, or STEP.x0, STEP.x1 ... */
static bool get_inputs(replay *r, const char *step, lamina_tensor *inputs) {
  lamina_tensor probe;
  char name[64];
  r->inputs = 0;
  if (golden_find(r->run, &probe, "%s.x", step)) {
    snprintf(name, sizeof name, "%s.x", step);
    r->inputs = 1;
    return get_activation(r, name, &inputs[0]);
  }
  while (r->inputs < MAX_INPUTS && golden_find(r->run, &probe, "%s.x%d", step, r->inputs)) {
    snprintf(name, sizeof name, "%s.x%d", step, r->inputs);
    if (!get_activation(r, name, &inputs[r->inputs])) return false;
    r->inputs++;
  }
  return r->inputs > 0 || golden_fail(r->run, "%s.x is missing", step);
}

/* `expected` has our layout. Where it fails, the reference's own rounding may be the reason. */
static bool compare(replay *r, const char *name, const lamina_tensor *got, const lamina_tensor *expected,
                    bool any_shape, golden_quantity which) {
  if (which < GOLDEN_EXACT && lamina_tensor_count(got) == lamina_tensor_count(expected) &&
      golden_error(got, expected) > GOLDEN_LAYER_BOUND)
    expected = golden_better(&r->exact, which, got, expected);
  return golden_compare(r->run, name, got, expected, any_shape, GOLDEN_LAYER_BOUND);
}

static bool compare_activation(replay *r, const char *name, const lamina_tensor *got, golden_quantity which) {
  lamina_tensor expected;
  if (!get_activation(r, name, &expected)) return false;
  const bool ok = compare(r, name, got, &expected, false, which);
  free(expected.data);
  return ok;
}

static bool compare_output(replay *r, const char *step) {
  golden_run *run = r->run;
  lamina_tensor got, probe;
  char name[64];
  snprintf(name, sizeof name, "%s.y", step);
  if (!golden_find(run, &probe, "%s", name)) return true;
  return golden_check(run, lamina_exec_output(r->exec, NODE, &got), name) &&
         compare_activation(r, name, &got, GOLDEN_Y);
}

static bool compare_input_gradients(replay *r, const char *step) {
  golden_run *run = r->run;
  for (int i = 0; i < r->inputs; i++) {
    lamina_tensor got, probe;
    char name[64];
    snprintf(name, sizeof name, r->inputs == 1 ? "%s.dx" : "%s.dx%d", step, i);
    if (!golden_find(run, &probe, "%s", name)) continue;
    if (!golden_check(run, lamina_exec_gradient(r->exec, input_names[i], &got), name) ||
        !compare_activation(r, name, &got, GOLDEN_DX))
      return false;
  }
  return true;
}

/* STEP.grad.NAME and STEP.state.NAME. */
static bool compare_parameters(replay *r, const char *step) {
  golden_run *run = r->run;
  const char *name;
  const size_t length = strlen(step);
  for (int i = 0; (name = golden_name(run, i)); i++) {
    lamina_tensor got, expected;
    char parameter[256];
    if (strncmp(name, step, length) != 0 || name[length] != '.') continue;
    const char *rest = name + length + 1;
    const bool gradient = strncmp(rest, "grad.", 5) == 0;
    if (!gradient && strncmp(rest, "state.", 6) != 0) continue;
    snprintf(parameter, sizeof parameter, NODE ".%s", rest + (gradient ? 5 : 6));
    if (!golden_find(run, &expected, "%s", name)) return golden_fail(run, "%s cannot be read", name);
    if (gradient) {
      if (!golden_check(run, lamina_exec_gradient(r->exec, parameter, &got), name)) return false;
    } else {
      lamina_parameter found = {.size = sizeof found};
      if (!golden_check(run, lamina_graph_parameter_find(r->graph, parameter, &found), name)) return false;
      got = found.tensor;
    }
    const golden_quantity which = !gradient                          ? GOLDEN_EXACT
                                  : strcmp(rest, "grad.weight") == 0 ? GOLDEN_GRAD_WEIGHT
                                  : strcmp(rest, "grad.bias") == 0   ? GOLDEN_GRAD_BIAS
                                                                     : GOLDEN_EXACT;
    if (!compare(r, name, &got, &expected, expected.rank <= 1, which)) return false;
  }
  return true;
}

static bool run_backward(replay *r, const char *step, const lamina_tensor *dy) {
  if (!dy->data) return true;
  return golden_check(r->run, lamina_exec_set_output_gradient(r->exec, NODE, dy), "dy") &&
         golden_check(r->run, lamina_exec_backward(r->exec), "backward") && compare_input_gradients(r, step);
}

static bool run_step(replay *r, const char *step, lamina_mode mode) {
  golden_run *run = r->run;
  lamina_tensor inputs[MAX_INPUTS] = {{0}}, dy = {0}, probe;
  char name[64];
  snprintf(name, sizeof name, "%s.dy", step);
  bool ok = get_inputs(r, step, inputs) && prepare(r, inputs, mode);
  if (ok && golden_find(run, &probe, "%s", name)) ok = get_activation(r, name, &dy);
  if (ok && dy.data && strcmp(r->layer->name, "batch_norm") == 0)
    ok =
        (lamina_tensor_count(&dy) == lamina_tensor_count(inputs) || golden_fail(run, "%s: not the shape of x", name)) &&
        golden_exact_batch_norm(run, inputs, &dy, &r->exact);
  for (int i = 0; ok && i < r->inputs; i++)
    ok = golden_check(run, lamina_exec_set_input(r->exec, input_names[i], &inputs[i]), input_names[i]);
  ok = ok && golden_check(run, lamina_exec_forward(r->exec), "forward") && compare_output(r, step);
  if (mode == LAMINA_TRAIN) ok = ok && run_backward(r, step, &dy) && compare_parameters(r, step);
  golden_exact_release(&r->exact);
  memset(&r->exact, 0, sizeof r->exact);
  for (int i = 0; i < MAX_INPUTS; i++) free(inputs[i].data);
  free(dy.data);
  return ok;
}

static bool has_step(const golden_run *run, const char *step) {
  lamina_tensor probe;
  return golden_find(run, &probe, "%s.x", step) || golden_find(run, &probe, "%s.x0", step);
}

bool golden_replay_layer(golden_run *run) {
  replay r = {.run = run};
  bool ok = describe(&r);
  int steps = 0;
  for (; ok && steps < 1000000; steps++) {
    char step[16];
    snprintf(step, sizeof step, "%d", steps);
    if (!has_step(run, step)) break;
    ok = run_step(&r, step, LAMINA_TRAIN);
  }
  if (ok && has_step(run, "eval")) ok = run_step(&r, "eval", LAMINA_INFER);
  release(&r);
  lamina_graph_destroy(r.store);
  return ok;
}
