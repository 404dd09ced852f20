/* SPDX-License-Identifier: Apache-2.0 */
#include "predict.h"

#include <string.h>

int64_t predict_batch(const model *m, int64_t samples) {
  const int64_t sample_bytes = lamina_tensor_count(&m->in) * (int64_t)sizeof(float);
  int64_t batch = sample_bytes > 0 ? (INT64_C(16) << 20) / sample_bytes : 1;
  if (batch > 256) batch = 256;
  if (batch > samples) batch = samples;
  return batch < 1 ? 1 : batch;
}

static int create(const predictor *p, int64_t batch, lamina_plan **plan, lamina_exec **exec) {
  const lamina_plan_options options = {
      .size = sizeof options, .mode = LAMINA_INFER, .batch = batch, .outputs = p->m->output};
  if (lamina_plan_create(p->m->graph, &options, plan) || lamina_exec_create(*plan, exec))
    return fail_library(p->s, "cannot prepare %s for batches of %lld", p->m->name, (long long)batch);
  return EXIT_OK;
}

int predictor_open(predictor *p, const session *s, model *m, int64_t batch) {
  *p = (predictor){.s = s, .m = m, .batch = batch};
  return create(p, batch, &p->plan, &p->exec);
}

static void close_rest(predictor *p) {
  lamina_exec_destroy(p->rest_exec);
  lamina_plan_destroy(p->rest_plan);
  p->rest_exec = NULL;
  p->rest_plan = NULL;
  p->rest = 0;
}

void predictor_close(predictor *p) {
  close_rest(p);
  lamina_exec_destroy(p->exec);
  lamina_plan_destroy(p->plan);
  memset(p, 0, sizeof *p);
}

static int prepare_rest(predictor *p, int64_t n) {
  if (p->rest == n) return EXIT_OK;
  close_rest(p);
  if (create(p, n, &p->rest_plan, &p->rest_exec)) return EXIT_ERROR;
  p->rest = n;
  return EXIT_OK;
}

int predictor_run(predictor *p, float *input, int64_t n, lamina_tensor *out) {
  if (n != p->batch && prepare_rest(p, n)) return EXIT_ERROR;
  lamina_exec *exec = n == p->batch ? p->exec : p->rest_exec;
  int64_t dim[LAMINA_MAX_RANK];
  memcpy(dim, p->m->in.dim, sizeof dim);
  dim[0] = n;
  const lamina_tensor tensor = lamina_tensor_of(input, LAMINA_F32, p->m->in.rank, dim);
  if (lamina_exec_set_input(exec, p->m->input, &tensor) || lamina_exec_forward(exec) ||
      lamina_exec_output(exec, p->m->output, out))
    return fail_library(p->s, "cannot run %s", p->m->name);
  return EXIT_OK;
}
