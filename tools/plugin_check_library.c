/* SPDX-License-Identifier: Apache-2.0 */
/* What needs more than one kernel or context: instruction sets, threads, batches, files, loading. */
#include "plugin_check.h"

#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Whether a kernel for an ISA may run where `context` is: on one that comes after it in the list, it may not. */
static bool isa_allows(const check_target *t, int context, const lamina_kernel *kernel) {
  if (!kernel->isa) return true;
  for (int i = context; i < t->isas; i++)
    if (!strcmp(t->isa[i], kernel->isa)) return true;
  return false;
}

static run_options options_of(const check_case *c, const lamina_kernel *kernel, const lamina_context *context,
                              lamina_mode mode) {
  run_options o = run_defaults;
  (void)c;
  o.context = context;
  o.kernel = kernel;
  o.mode = mode;
  o.backward = mode == LAMINA_TRAIN;
  return o;
}

/* The specification: the last kernel that needs no ISA, in a context of the last ISA, which is plain C. */
static const lamina_kernel *reference_kernel(const check_case *c, const check_target *t, lamina_mode mode) {
  const lamina_kernel *found = NULL;
  for (const lamina_kernel *const *k = c->layer->kernels; *k; k++)
    if (isa_allows(t, t->isas - 1, *k) && kernel_runs(c, *k, t->context[t->isas - 1], mode)) found = *k;
  return found;
}

void check_kernels_agree(check_case *c, const check_target *t, lamina_mode mode) {
  const lamina_kernel *reference = reference_kernel(c, t, mode);
  run_result want, got;
  int at;
  if (!reference) return;
  run_options o = options_of(c, reference, t->context[t->isas - 1], mode);
  check_run(c, &o, &want);
  for (int i = 0; i < t->isas; i++)
    for (const lamina_kernel *const *k = c->layer->kernels; *k; k++) {
      if (!isa_allows(t, i, *k) || (*k == reference && i == t->isas - 1) || !kernel_runs(c, *k, t->context[i], mode))
        continue;
      o = options_of(c, *k, t->context[i], mode);
      check_run(c, &o, &got);
      const int64_t e = run_distance(&got, &want, 1e-3, &at);
      if (e >= 0)
        check_fail("kernels-differ", "kernel '%s' on %s gives %s[%lld] = %.9g; kernel '%s' on %s gives %.9g",
                   (*k)->name, t->isa[i], want.value[at].name, (long long)e, run_element(&got, at, e), reference->name,
                   t->isa[t->isas - 1], run_element(&want, at, e));
      run_release(&got);
      check_held();
    }
  run_release(&want);
}

void check_threads(check_case *c, const check_target *t, const lamina_kernel *kernel, lamina_mode mode) {
  static const int counts[] = {2, 7};
  run_result one, more;
  int at;
  run_options o = options_of(c, kernel, t->context[0], mode);
  check_run(c, &o, &one);
  for (int k = 0; k < 2; k++) {
    lamina_context *context;
    const lamina_context_options set = {.size = sizeof set, .isa = t->isa[0], .threads = counts[k]};
    if (lamina_context_create(&set, &context)) check_fail("checker", "no context of %d threads", counts[k]);
    o.context = context;
    check_run(c, &o, &more);
    const int64_t e = run_difference(&one, &more, &at);
    if (e >= 0)
      check_fail("threads", "%s[%lld] is %.9g with 1 thread and %.9g with %d: split work by shape, not by threads",
                 one.value[at].name, (long long)e, run_element(&one, at, e), run_element(&more, at, e), counts[k]);
    run_release(&more);
    lamina_context_destroy(context);
    check_held();
  }
  run_release(&one);
}

/* ---- a batch and its samples ------------------------------------------------------------------------------------- */

/* Sample `index` alone; false where the layer does not take it or its outputs are not of one sample. */
static bool sample_case(const check_case *c, int64_t index, check_case *s, const lamina_context *context) {
  *s = *c;
  memset(s->dy, 0, sizeof s->dy);
  for (int i = 0; i < s->n_inputs; i++) {
    if (!c->inputs[i].rank || c->inputs[i].dim[0] != c->inputs[0].dim[0]) return false;
    s->inputs[i].dim[0] = 1;
    check_dense(&s->inputs[i]);
    s->inputs[i].data = (char *)c->inputs[i].data + (size_t)index * check_bytes(&s->inputs[i]);
  }
  if (check_case_infer(s, context)) return false;
  for (int i = 0; i < s->n_params; i++) {
    if (s->params[i].rank >= 0 && check_count(&s->params[i]) != check_count(&c->params[i])) return false;
    s->params[i].data = c->params[i].data;
  }
  for (int i = 0; i < s->n_outputs; i++)
    if (!c->outputs[i].rank || c->outputs[i].dim[0] != c->inputs[0].dim[0] || s->outputs[i].dim[0] != 1) return false;
  return true;
}

/* Whether sample 0's result changes with the last sample's values. */
static bool couples_samples(check_case *c, const run_options *o, const run_result *first) {
  check_case changed = *c;
  run_result r;
  bool coupled = false;
  lamina_tensor *x = &changed.inputs[0];
  const size_t bytes = check_bytes(x), sample = bytes / (size_t)x->dim[0];
  x->data = malloc(bytes);
  if (!x->data) check_fail("checker", "out of memory");
  memcpy(x->data, c->inputs[0].data, bytes);
  for (size_t i = bytes - sample; x->dtype == LAMINA_F32 && i + 4 <= bytes; i += 4) {
    float value;
    memcpy(&value, (char *)x->data + i, 4);
    value = 0.3f - 0.7f * value;
    memcpy((char *)x->data + i, &value, 4);
  }
  check_run(&changed, o, &r);
  for (int v = 0; v < r.count; v++)
    coupled |= memcmp(r.value[v].tensor.data, first->value[v].tensor.data,
                      check_bytes(&r.value[v].tensor) / (size_t)x->dim[0]) != 0;
  run_release(&r);
  free(x->data);
  return coupled;
}

void check_batch(check_case *c, const lamina_kernel *kernel, lamina_context *context) {
  run_options o = options_of(c, kernel, context, LAMINA_INFER);
  run_result all, one;
  check_case s;
  if (!c->n_inputs || !c->inputs[0].rank || c->inputs[0].dim[0] < 2 || !sample_case(c, 0, &s, context)) return;
  if (!kernel_runs(&s, kernel, context, LAMINA_INFER)) return;
  check_run(c, &o, &all);
  const bool coupled = couples_samples(c, &o, &all);
  for (int64_t n = 0; n < c->inputs[0].dim[0] && n < 2 && !coupled; n++) {
    if (!sample_case(c, n, &s, context)) break;
    check_run(&s, &o, &one);
    for (int v = 0; v < one.count; v++) {
      const int64_t count = check_count(&one.value[v].tensor);
      double scale = 1e-6;
      if (one.value[v].of_state || count * c->inputs[0].dim[0] != check_count(&all.value[v].tensor)) continue;
      for (int64_t i = 0; i < count; i++) scale = fmax(scale, fabs(run_element(&all, v, n * count + i)));
      for (int64_t i = 0; i < count; i++)
        if (!(fabs(run_element(&all, v, n * count + i) - run_element(&one, v, i)) <= 1e-3 * scale))
          check_fail("batch", "sample %lld alone gives %s[%lld] = %.9g; in a batch of %lld it is %.9g", (long long)n,
                     one.value[v].name, (long long)i, run_element(&one, v, i), (long long)c->inputs[0].dim[0],
                     run_element(&all, v, n * count + i));
    }
    run_release(&one);
    check_held();
  }
  run_release(&all);
}

/* ---- what the layer says of itself ------------------------------------------------------------------------------- */

static void describe_node(check_case *c, lamina_node *node, check_host *h) {
  *node = (lamina_node){.size = sizeof *node,
                        .name = "checked",
                        .host = h->host,
                        .mode = LAMINA_INFER,
                        .attrs = c->attrs,
                        .n_inputs = c->n_inputs,
                        .n_outputs = c->n_outputs,
                        .n_params = c->n_params,
                        .inputs = c->inputs,
                        .outputs = c->outputs,
                        .params = c->params};
  node->epilogue = (lamina_epilogue){.size = sizeof node->epilogue, .lo = -INFINITY, .hi = INFINITY};
}

static void expect(const run_result *r, int64_t i, double got, const char *what) {
  const double want = run_element(r, 0, i);
  if (!(fabs(got - want) <= 1e-4 * (fabs(want) + 1e-2)))
    check_fail("fused", "%s gives element %lld as %.9g, forward gives %.9g", what, (long long)i, got, want);
}

static void check_epilogue(check_case *c, const lamina_epilogue *e, const run_result *r) {
  const float *x = c->inputs[0].data;
  const int64_t count = check_count(&c->inputs[0]);
  if (c->inputs[0].dtype != LAMINA_F32 || count != check_count(&c->outputs[0])) return;
  guard *g = guard_new("activation's y", (size_t)count * 4, 4, false);
  float *y = (float *)(void *)g->data;
  for (int64_t i = 0, step = 1; i < count; i += step, step = step % 37 + 1) { /* pieces of any size, in place */
    const int64_t n = count - i < step ? count - i : step;
    memcpy(y + i, x + i, (size_t)n * 4);
    if (e->parts & LAMINA_EPILOGUE_ACTIVATION) e->activation(n, e->parameters, y + i, y + i);
  }
  for (int64_t i = 0; i < count; i++) {
    double value = y[i];
    if (e->parts & LAMINA_EPILOGUE_ADD) value += ((const float *)c->inputs[1].data)[i];
    if (e->parts & LAMINA_EPILOGUE_CLAMP) value = value < e->lo ? e->lo : value > e->hi ? e->hi : value;
    expect(r, i, value, "the function or bound of as_epilogue");
  }
  guard_retire(g);
  check_held();
}

void check_claims(check_case *c, const lamina_kernel *kernel, lamina_context *context) {
  run_options o = options_of(c, kernel, context, LAMINA_INFER);
  run_result r;
  lamina_node node;
  check_host h;
  check_host_open(&h, context, 0);
  describe_node(c, &node, &h);
  check_run(c, &o, &r);
  check_phase("is_view, as_epilogue, affine");
  if (c->layer->is_view && c->layer->is_view(&node) &&
      (check_bytes(&c->inputs[0]) != check_bytes(&c->outputs[0]) ||
       memcmp(c->inputs[0].data, r.value[0].tensor.data, check_bytes(&c->inputs[0]))))
    check_fail("view", "is_view says that the output is the input's memory; forward gives other values");
  lamina_epilogue e = node.epilogue;
  if (c->layer->as_epilogue && c->layer->as_epilogue(&node, &e)) check_epilogue(c, &e, &r);
  if (c->layer->affine && !c->layer->affine(&node, NULL, NULL)) {
    const lamina_tensor *y = &c->outputs[0];
    const int64_t channels = y->rank ? y->dim[y->rank - 1] : 1;
    float *scale = malloc((size_t)(2 * channels + 1) * sizeof *scale);
    if (!scale) check_fail("checker", "out of memory");
    if (!c->layer->affine(&node, scale, scale + channels))
      for (int64_t i = 0; i < check_count(y); i++)
        expect(&r, i,
               (double)scale[i % channels] * (double)((const float *)c->inputs[0].data)[i] +
                   (double)scale[channels + i % channels],
               "the scale and shift of affine");
    free(scale);
    check_held();
  }
  check_host_close(&h);
  run_release(&r);
}

/* ---- through a graph and files ----------------------------------------------------------------------------------- */

static lamina_status run_graph(lamina_graph *graph, const check_case *c, run_result *r) {
  const lamina_plan_options set = {.size = sizeof set, .batch = c->inputs[0].dim[0]};
  lamina_plan *plan = NULL;
  lamina_exec *exec = NULL;
  char name[16];
  lamina_status status = lamina_plan_create(graph, &set, &plan);
  if (!status) status = lamina_exec_create(plan, &exec);
  for (int i = 0; i < c->n_inputs && !status; i++) {
    snprintf(name, sizeof name, "in%d", i);
    status = lamina_exec_set_input(exec, name, &c->inputs[i]);
  }
  if (!status) status = lamina_exec_forward(exec);
  memset(r, 0, sizeof *r);
  lamina_tensor t;
  if (!status) status = lamina_exec_output(exec, "checked", &t);
  if (!status) {
    r->count = 1;
    snprintf(r->value[0].name, sizeof r->value[0].name, "%s", check_port(c->layer, LAMINA_PORT_OUTPUT, 0)->name);
    r->value[0].tensor = t;
    r->value[0].tensor.data = malloc(check_bytes(&t) + 8);
    if (!r->value[0].tensor.data) check_fail("checker", "out of memory");
    memcpy(r->value[0].tensor.data, t.data, check_bytes(&t));
  }
  lamina_exec_destroy(exec);
  lamina_plan_destroy(plan);
  return status;
}

static lamina_status build_graph(const check_case *c, lamina_context *context, lamina_graph **graph) {
  char name[16], names[1024] = "";
  lamina_status status = lamina_graph_create(context, NULL, graph);
  for (int i = 0; i < c->n_inputs && !status; i++) {
    snprintf(name, sizeof name, "in%d", i);
    strcat(strcat(names, i ? "," : ""), name);
    status = lamina_graph_input(*graph, name, c->inputs[i].dtype, c->inputs[i].rank - 1, c->inputs[i].dim + 1);
  }
  return status ? status : lamina_graph_add(*graph, c->layer->name, "checked", names, c->text);
}

static void library(lamina_status status, const lamina_context *context, const char *what) {
  if (status) check_fail("save-load", "%s: %s", what, lamina_error_message(context));
}

/* The master copies of parameters and states, into the graph. */
static bool set_parameters(const check_case *c, lamina_graph *graph) {
  char name[128];
  for (int i = 0; i < c->n_params; i++) {
    lamina_parameter p = {.size = sizeof p};
    snprintf(name, sizeof name, "checked.%s", check_port(c->layer, LAMINA_PORT_PARAMETER, i)->name);
    if (c->params[i].rank < 0 || lamina_graph_parameter_find(graph, name, &p)) continue;
    if (check_count(&p.tensor) != check_count(&c->params[i])) return false; /* its shape follows the batch */
    memcpy(p.tensor.data, c->params[i].data, check_bytes(&c->params[i]));
  }
  lamina_graph_parameters_changed(graph);
  return true;
}

void check_save_load(check_case *c, const check_target *t) {
  lamina_context *context = t->context[0];
  lamina_graph *graph = NULL, *loaded = NULL;
  run_result first, again;
  int at;
  char folder[] = "/tmp/lamina-check-XXXXXX", model[64], weights[64];
  for (int i = 0; i < c->n_inputs; i++)
    if (!c->inputs[i].rank || !c->inputs[i].dim[0] || c->inputs[i].dim[0] != c->inputs[0].dim[0]) return;
  if (!c->n_inputs || (c->outputs[0].rank && c->outputs[0].dim[0] != c->inputs[0].dim[0])) return;
  check_phase("a graph of the layer");
  if (build_graph(c, context,
                  &graph)) { /* what a graph does not take (a batch of 1 that does not fit) is not this check's */
    lamina_graph_destroy(graph);
    return;
  }
  library(lamina_graph_initialize(graph, 1), context, "initialising the parameters");
  if (!set_parameters(c, graph) || run_graph(graph, c, &first)) {
    lamina_graph_destroy(graph);
    return; /* no kernel, or a batch that it refuses */
  }
  check_phase("save and load");
  if (!mkdtemp(folder)) check_fail("checker", "no temporary folder");
  snprintf(model, sizeof model, "%s/m.json", folder);
  snprintf(weights, sizeof weights, "%s/m.safetensors", folder);
  lamina_status status = lamina_graph_save_model(graph, model);
  const char *what = "saving the model";
  if (!status) status = lamina_graph_save_weights(graph, weights, 0, NULL), what = "saving the weights";
  if (!status) status = lamina_graph_load_model(context, model, &loaded), what = "loading the model";
  if (!status) status = lamina_graph_load_weights(loaded, weights, 0), what = "loading the weights";
  if (!status) status = run_graph(loaded, c, &again), what = "running the loaded model";
  unlink(model);
  unlink(weights);
  rmdir(folder);
  library(status, context, what);
  const int64_t e = run_difference(&first, &again, &at);
  if (e >= 0)
    check_fail("save-load", "saved and loaded, the layer gives %s[%lld] = %.9g instead of %.9g", first.value[at].name,
               (long long)e, run_element(&again, at, e), run_element(&first, at, e));
  run_release(&first);
  run_release(&again);
  lamina_graph_destroy(loaded);
  lamina_graph_destroy(graph);
  check_held();
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

void check_load_unload(const char *file) {
  enum { LOADS = 1000, WARM = 50 };
  check_usage before = check_used();
  char *path = realpath(file, NULL);
  check_phase("loading and unloading");
  const uint64_t control = check_fp_control();
  for (int i = 0; i < LOADS && path; i++) {
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) check_fail("load", "loading number %d fails: %s", i + 1, dlerror());
    if (check_fp_control() != control) check_fail("fp-control", "loading changes the floating-point control word");
    dlclose(handle);
    if (i == WARM) before = check_used();
  }
  void *still = path ? dlopen(path, RTLD_NOW | RTLD_NOLOAD) : NULL;
  if (still) check_fail("load", "it stays loaded after it was unloaded");
  const check_usage after = check_used();
  if (after.heap > before.heap + 8 * (LOADS - WARM))
    check_fail("leak", "loading and unloading %d times leaves %zu bytes", LOADS - WARM, after.heap - before.heap);
  if (after.files > before.files)
    check_fail("leak", "loading and unloading %d times leaves %d open files", LOADS - WARM, after.files - before.files);
  if (after.maps > before.maps + 20 || after.mapped > before.mapped + (size_t)(LOADS - WARM) * 1024)
    check_fail("leak", "loading and unloading %d times leaves mappings of %zu bytes", LOADS - WARM,
               after.mapped - before.mapped);
  free(path);
  check_held();
}
