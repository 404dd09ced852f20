/* SPDX-License-Identifier: Apache-2.0 */
/* What a layer promises beyond one run's values: states that hold still, epilogues that it applies, calls in the midst of
   others, its own failures, and what it leaves behind. */
#include "plugin_check.h"

#include <dirent.h>
#include <malloc.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- what the process holds -------------------------------------------------------------------------------------- */

check_usage check_used(void) {
  check_usage u = {0};
  char text[1024];
  unsigned long from, to;
  FILE *maps = fopen("/proc/self/maps", "r");
  while (maps && fgets(text, sizeof text, maps)) {
    u.maps++;
    if (sscanf(text, "%lx-%lx", &from, &to) == 2 && !strstr(text, "[heap]")) u.mapped += to - from;
  }
  if (maps) fclose(maps);
  DIR *files = opendir("/proc/self/fd");
  while (files && readdir(files)) u.files++;
  if (files) closedir(files);
  const struct mallinfo2 heap = mallinfo2();
  u.heap = heap.uordblks + heap.hblkhd;
  return u;
}

/* ---- a run beside another ---------------------------------------------------------------------------------------- */

static void halve(lamina_tensor *t) {
  const void *from = t->data;
  if (!from) return;
  t->data = malloc(check_bytes(t) + 8);
  if (!t->data) check_fail("checker", "out of memory");
  memcpy(t->data, from, check_bytes(t));
  for (int64_t i = 0; t->dtype == LAMINA_F32 && i < check_count(t); i++) ((float *)t->data)[i] *= 0.5f;
}

/* A variance must stay positive, and a half of one does. */
void check_other_values(const check_case *c, check_case *other) {
  *other = *c;
  for (int i = 0; i < c->n_inputs; i++) halve(&other->inputs[i]);
  for (int i = 0; i < c->n_params; i++)
    if (c->params[i].rank >= 0) halve(&other->params[i]);
}

void check_other_release(check_case *other) {
  for (int i = 0; i < other->n_inputs; i++) free(other->inputs[i].data);
  for (int i = 0; i < other->n_params; i++)
    if (other->params[i].rank >= 0) free(other->params[i].data);
}

static run_options options_of(const lamina_kernel *kernel, const lamina_context *context, lamina_mode mode) {
  run_options o = run_defaults;
  o.kernel = kernel;
  o.context = context;
  o.mode = mode;
  return o;
}

void check_nested(check_case *c, const lamina_kernel *kernel, lamina_context *context, lamina_mode mode) {
  run_options o = options_of(kernel, context, mode);
  run_result alone, among;
  check_case other;
  int at;
  o.backward = mode == LAMINA_TRAIN;
  check_run(c, &o, &alone);
  check_other_values(c, &other);
  o.nested = &other;
  check_run(c, &o, &among);
  const int64_t i = run_difference(&alone, &among, &at);
  if (i >= 0)
    check_fail("shared-memory",
               "%s[%lld] is %.9g, and %.9g when another run of the layer happens in between, as another thread's may: "
               "memory that all runs share belongs in the workspace",
               alone.value[at].name, (long long)i, run_element(&alone, at, i), run_element(&among, at, i));
  check_other_release(&other);
  run_release(&alone);
  run_release(&among);
  check_held();
}

/* ---- states ------------------------------------------------------------------------------------------------------ */

static bool has_states(const check_case *c) {
  for (int i = 0; i < c->n_params; i++)
    if (check_port(c->layer, LAMINA_PORT_PARAMETER, i)->kind == LAMINA_PORT_STATE && c->params[i].rank >= 0) return true;
  return false;
}

static void compare_inference(const check_case *c, const run_options *frozen, const run_result *r) {
  run_options o = *frozen;
  run_result want;
  int at;
  o.mode = LAMINA_INFER;
  if ((c->layer->flags & LAMINA_LAYER_TRAINS_DIFFERENTLY) || !kernel_takes(c, &o)) return;
  check_run(c, &o, &want);
  const int64_t i = run_distance(r, &want, 1e-3, &at);
  if (i >= 0)
    check_fail("frozen-states", "forward: frozen_states is set, and %s[%lld] is %.9g, where inference gives %.9g",
               want.value[at].name, (long long)i, run_element(r, at, i), run_element(&want, at, i));
  run_release(&want);
}

/* Frozen states are used as at inference, and nothing writes them; a forward that is run a second time for the backward
   pass gives the same once more. */
void check_states(check_case *c, const lamina_kernel *kernel, lamina_context *context) {
  run_options o = options_of(kernel, context, LAMINA_TRAIN);
  run_result first, r;
  int at;
  if (has_states(c)) {
    o.frozen = true;
    check_run(c, &o, &r);
    for (int v = 0; v < r.count; v++)
      if (r.value[v].of_state && memcmp(r.value[v].tensor.data, c->params[r.value[v].port].data, check_bytes(&r.value[v].tensor)))
        check_fail("frozen-states", "forward: frozen_states is set, and the state %s is changed", r.value[v].name);
    compare_inference(c, &o, &r);
    run_release(&r);
    check_held();
    o.frozen = false;
  }
  if (!(c->layer->flags & LAMINA_LAYER_CHEAP)) return;
  check_run(c, &o, &first);
  o.recompute = true;
  check_run(c, &o, &r);
  const int64_t i = run_difference(&first, &r, &at);
  if (i >= 0)
    check_fail("recompute", "forward: run once more with `recompute` set (LAMINA_LAYER_CHEAP), %s[%lld] is %.9g, not %.9g",
               first.value[at].name, (long long)i, run_element(&r, at, i), run_element(&first, at, i));
  run_release(&first);
  run_release(&r);
  check_held();
}

/* ---- epilogues that its kernels apply ---------------------------------------------------------------------------- */

static double through(uint32_t parts, double value, int64_t i, int64_t channels) {
  if (parts & LAMINA_EPILOGUE_AFFINE)
    value = value * (double)EPILOGUE_SCALE(i % channels) + (double)EPILOGUE_SHIFT(i % channels);
  if (parts & LAMINA_EPILOGUE_ADD) value += (double)EPILOGUE_ADD(i);
  if (parts & LAMINA_EPILOGUE_CLAMP) value = fmin(fmax(value, (double)EPILOGUE_LOW), (double)EPILOGUE_HIGH);
  if (parts & LAMINA_EPILOGUE_ACTIVATION) value = (double)EPILOGUE_SLOPE * value + (double)EPILOGUE_OFFSET;
  return value;
}

static void compare_epilogue(const check_case *c, const run_options *o, const run_result *plain) {
  static const char *const names[] = {"affine", "add", "clamp", "activation"};
  const lamina_tensor *y = &c->outputs[0];
  const int64_t channels = y->rank ? y->dim[y->rank - 1] : 1;
  char parts[64] = "";
  double size = 1e-3;
  run_result r;
  for (int k = 0; k < 4; k++)
    if (o->epilogue >> k & 1) strcat(strcat(parts, *parts ? ", " : ""), names[k]);
  check_run(c, o, &r);
  for (int64_t i = 0; i < check_count(y); i++) size = fmax(size, fabs(run_element(plain, 0, i)));
  for (int64_t i = 0; i < check_count(y); i++) {
    const double want = through(o->epilogue, run_element(plain, 0, i), i, channels), got = run_element(&r, 0, i);
    if (!(fabs(got - want) <= 1e-3 * size))
      check_fail("epilogue", "forward: with an epilogue (%s), which the layer says that its kernels apply, %s[%lld] is %.9g, not %.9g",
                 parts, plain->value[0].name, (long long)i, got, want);
  }
  run_release(&r);
  check_held();
}

void check_epilogues(check_case *c, const lamina_kernel *kernel, lamina_context *context) {
  const uint32_t all = c->layer->epilogues & (LAMINA_EPILOGUE_AFFINE | LAMINA_EPILOGUE_ADD | LAMINA_EPILOGUE_CLAMP |
                                              LAMINA_EPILOGUE_ACTIVATION);
  run_options o = options_of(kernel, context, LAMINA_INFER);
  run_result plain;
  if (!all || c->outputs[0].dtype != LAMINA_F32) return;
  check_run(c, &o, &plain);
  for (int k = 0; k < 5; k++) { /* each, and all together */
    o.epilogue = k < 4 ? all & 1u << k : all;
    if (o.epilogue && kernel_takes(c, &o)) compare_epilogue(c, &o, &plain);
  }
  run_release(&plain);
}

/* ---- failures ---------------------------------------------------------------------------------------------------- */

void check_infer_failures(check_case *c, const lamina_context *context) {
  check_case tried = *c;
  int allocations = 0;
  check_phase("infer");
  if (check_case_infer_failing(&tried, context, -1, &allocations)) return;
  for (int n = 0; n < allocations && n < 16; n++) {
    tried = *c;
    if (!check_case_infer_failing(&tried, context, n, NULL))
      for (int i = 0; i < c->n_outputs; i++)
        if (check_count(&tried.outputs[i]) != check_count(&c->outputs[i]))
          check_fail("allocation", "infer: allocation %d of host->alloc fails, and it returns LAMINA_OK with a wrong shape",
                     n + 1);
    check_held();
  }
}
