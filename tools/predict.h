/* SPDX-License-Identifier: Apache-2.0 */
/* Inference on any number of samples, in batches. */
#ifndef TOOL_PREDICT_H
#define TOOL_PREDICT_H

#include "model.h"

/* A plan for full batches, and one for what is left at the end. */
typedef struct predictor {
  const session *s;
  model *m;
  int64_t batch, rest; /* samples that each plan is for; rest 0: none yet */
  lamina_plan *plan, *rest_plan;
  lamina_exec *exec, *rest_exec;
} predictor;

/* A batch that keeps the images of one run within some megabytes. */
int64_t predict_batch(const model *m, int64_t samples);
int predictor_open(predictor *p, const session *s, model *m, int64_t batch);
void predictor_close(predictor *p);
/* Runs n <= batch samples, dense at `input`; `out` is valid until the next run. */
int predictor_run(predictor *p, float *input, int64_t n, lamina_tensor *out);

#endif
