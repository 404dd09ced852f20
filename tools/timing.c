/* SPDX-License-Identifier: Apache-2.0 */
#include "timing.h"

#include "progress.h"

#include <stdlib.h>
#include <string.h>

enum { INPUTS_MAX = 16, RUNS_MAX = 100000, LEAST_RUNS = 5, NODE_RUNS_MAX = 100 };

static const double MEASURE_SECONDS = 2.0, WARM_UP_SECONDS = 0.3, NODE_SECONDS = 1.0;

/* One network with its inputs, and what a run took. */
typedef struct bench {
  session *s;
  lamina_exec *exec;
  const plan_settings *set;
  lamina_optimizer optimizer;
  int inputs;
  void *data[INPUTS_MAX];
  uint64_t run;
  double forward, backward, step; /* milliseconds of the last run */
} bench;

static void fill(lamina_tensor *tensor, uint64_t seed, int64_t classes) {
  const int64_t count = lamina_tensor_count(tensor);
  for (int64_t i = 0; i < count; i++) {
    const float value = random_unit(seed, (uint64_t)i);
    if (tensor->dtype == LAMINA_F32)
      ((float *)tensor->data)[i] = value;
    else
      ((int32_t *)tensor->data)[i] = (int32_t)((value + 1.0f) * 0.5f * (float)classes) % (int32_t)classes;
  }
}

static int set_inputs(bench *b, const model *m) {
  const int count = lamina_graph_input_count(m->graph);
  const int64_t classes = b->set->train ? m->out.dim[1] : 1;
  if (count > INPUTS_MAX) return fail("%s: more than %d inputs", m->path, INPUTS_MAX);
  for (int i = 0; i < count; i++) {
    const char *name = lamina_graph_input_name(m->graph, i);
    lamina_tensor shape;
    if (lamina_graph_value(m->graph, name, &shape)) return fail_library(b->s, "%s", m->path);
    shape.dim[0] = b->set->batch;
    const int64_t elements = lamina_tensor_count(&shape);
    b->data[i] = allocate(elements, sizeof(float)); /* an i32 is as large */
    if (!b->data[i]) return fail("out of memory for the input '%s'", name);
    b->inputs = i + 1;
    lamina_tensor tensor = lamina_tensor_of(b->data[i], shape.dtype, shape.rank, shape.dim);
    fill(&tensor, b->s->common->seed + (uint64_t)i, classes);
    if (lamina_exec_set_input(b->exec, name, &tensor)) return fail_library(b->s, "%s", m->path);
  }
  return EXIT_OK;
}

static int run_once(bench *b) {
  const double start = now_seconds();
  lamina_exec_seed(b->exec, b->s->common->seed, b->run++);
  if (lamina_exec_forward(b->exec)) return fail_library(b->s, "forward");
  const double middle = now_seconds();
  b->forward = 1e3 * (middle - start);
  b->backward = b->step = 0;
  if (!b->set->train) return EXIT_OK;
  if (b->set->early_step) { /* both in one */
    if (lamina_exec_backward_step(b->exec, &b->optimizer)) return fail_library(b->s, "backward");
    b->backward = 1e3 * (now_seconds() - middle);
    return EXIT_OK;
  }
  if (lamina_exec_backward(b->exec)) return fail_library(b->s, "backward");
  const double end = now_seconds();
  if (lamina_exec_step(b->exec, &b->optimizer)) return fail_library(b->s, "step");
  b->backward = 1e3 * (end - middle);
  b->step = 1e3 * (now_seconds() - end);
  return EXIT_OK;
}

/* Caches, pages and clocks settle, and weights are packed. */
static int warm_up(bench *b) {
  const double start = now_seconds();
  for (int i = 0; i < 2 || (i < 1000 && now_seconds() - start < WARM_UP_SECONDS); i++)
    if (run_once(b)) return EXIT_ERROR;
  return EXIT_OK;
}

/* values[k] holds RUNS_MAX numbers: whole run, forward, backward, step. */
static int measure_runs(bench *b, timing *t, int64_t runs, double *values[4]) {
  progress p;
  int64_t n = 0;
  const double start = now_seconds();
  progress_start(&p, stderr);
  while (n < RUNS_MAX && (runs ? n < runs : n < LEAST_RUNS || now_seconds() - start < MEASURE_SECONDS)) {
    if (run_once(b)) return EXIT_ERROR;
    values[0][n] = b->forward + b->backward + b->step;
    values[1][n] = b->forward;
    values[2][n] = b->backward;
    values[3][n] = b->step;
    n++;
    if (progress_due(&p)) progress_update(&p, "run %lld  %.3f ms", (long long)n, values[0][n - 1]);
  }
  progress_clear(&p);
  t->runs = n;
  t->median_ms = median(values[0], n);
  t->min_ms = values[0][0]; /* sorted by the median */
  t->forward_ms = median(values[1], n);
  t->backward_ms = median(values[2], n);
  t->step_ms = median(values[3], n);
  return EXIT_OK;
}

static int measure(bench *b, timing *t, int64_t runs) {
  double *all = allocate(4 * (int64_t)RUNS_MAX, sizeof *all);
  if (!all) return fail("out of memory");
  double *values[4] = {all, all + RUNS_MAX, all + 2 * RUNS_MAX, all + 3 * RUNS_MAX};
  const int status = warm_up(b) || measure_runs(b, t, runs, values) ? EXIT_ERROR : EXIT_OK;
  free(all);
  return status;
}

/* Apart from the other runs: reading the clock between nodes costs a little. */
static int measure_nodes(bench *b, timing *t, const lamina_plan *plan) {
  const int nodes = t->nodes;
  const size_t column = NODE_RUNS_MAX;
  double *forward = allocate((int64_t)nodes * 2 * NODE_RUNS_MAX, sizeof *forward);
  double *now = allocate((int64_t)nodes * 2, sizeof *now);
  int64_t n = 0;
  int status = forward && now ? EXIT_OK : fail("out of memory");
  if (!status && lamina_exec_times(b->exec, nodes, now, now + nodes)) status = fail_library(b->s, "times");
  const double start = now_seconds();
  while (!status && n < NODE_RUNS_MAX && (n < 3 || now_seconds() - start < NODE_SECONDS)) {
    if (run_once(b))
      status = EXIT_ERROR;
    else if (lamina_exec_times(b->exec, nodes, now, now + nodes))
      status = fail_library(b->s, "times");
    for (int k = 0; k < 2 * nodes && !status; k++) forward[(size_t)k * column + (size_t)n] = now[k];
    n++;
  }
  for (int k = 0; k < nodes && !status; k++) {
    t->node[k].node.size = sizeof t->node[k].node;
    t->node[k].forward_ms = median(forward + (size_t)k * column, n);
    t->node[k].backward_ms = median(forward + (size_t)(nodes + k) * column, n);
    if (lamina_plan_node(plan, k, &t->node[k].node)) status = fail_library(b->s, "node %d", k);
  }
  free(forward);
  free(now);
  return status;
}

int timing_measure(timing *t, session *s, model *m, lamina_plan *plan, const plan_settings *set, int64_t runs) {
  bench b = {.s = s, .set = set, .optimizer = lamina_optimizer_defaults(LAMINA_SGD)};
  lamina_plan_info info = {.size = sizeof info};
  int status = EXIT_OK;
  b.optimizer.momentum = 0.9;
  b.optimizer.lr = 1e-6; /* the same labels again and again: nothing must drift far from the start */
  if (lamina_graph_initialize(m->graph, s->common->seed) || lamina_plan_get_info(plan, &info) ||
      lamina_exec_create(plan, &b.exec))
    status = fail_library(s, "cannot prepare %s", m->name);
  t->nodes = info.nodes;
  t->node = calloc((size_t)(info.nodes > 0 ? info.nodes : 1), sizeof *t->node);
  if (!status && !t->node) status = fail("out of memory");
  if (!status) status = set_inputs(&b, m);
  if (!status) status = measure(&b, t, runs);
  if (!status) status = measure_nodes(&b, t, plan);
  lamina_exec_destroy(b.exec);
  for (int i = 0; i < b.inputs; i++) free(b.data[i]);
  return status;
}

void timing_release(timing *t) { free(t->node); }
