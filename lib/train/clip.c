/* SPDX-License-Identifier: Apache-2.0 */
/* Gradient clipping by the norm of all gradients together (Pascanu, Mikolov and Bengio 2013), as PyTorch does it. */
#include <math.h>

#include "../host.h"
#include "optimizer.h"

enum { CHUNK = 16384 }; /* elements of one task; the sums of the tasks are added in order, for any number of threads */

lamina_status lamina_exec_check_gradients(const lamina_exec *exec, const char *what) {
  if (exec->plan->options.early_step)
    return lamina_fail(exec->context, LAMINA_UNSUPPORTED, "%s: a plan with early_step keeps no gradients", what);
  if (!exec->backward_done)
    return lamina_fail(exec->context, LAMINA_INVALID_ARGUMENT, "%s: it must follow a backward that succeeded", what);
  if (exec->accumulated != exec->plan->options.accumulate)
    return lamina_fail(exec->context, LAMINA_INVALID_ARGUMENT,
                       "%s: gradients of %lld runs are accumulated, and the plan has %lld before a step", what,
                       (long long)exec->accumulated, (long long)exec->plan->options.accumulate);
  return LAMINA_OK;
}

typedef struct piece {
  int64_t count;
  float *gradient;
} piece;

typedef struct clip {
  const lamina_optimizer_kernels *kernels;
  piece *pieces;
  double *sums;
  float factor;
} clip;

static void sum_piece(void *argument, int64_t index, int thread) {
  const clip *c = argument;
  (void)thread;
  c->sums[index] = c->kernels->sum_squares(c->pieces[index].count, c->pieces[index].gradient);
}

static void scale_piece(void *argument, int64_t index, int thread) {
  const clip *c = argument;
  float *gradient = c->pieces[index].gradient;
  (void)thread;
  for (int64_t i = 0; i < c->pieces[index].count; i++) gradient[i] *= c->factor;
}

/* Counts the pieces, or lists them. */
static int64_t list_pieces(const lamina_exec *exec, piece *pieces) {
  int64_t count = 0;
  for (int n = 0; n < exec->plan->node_count; n++)
    for (int i = 0; i < exec->plan->nodes[n].source->n_params; i++) {
      if (!(exec->plan->nodes[n].need_params >> i & 1)) continue;
      const int64_t elements = lamina_tensor_count(&exec->plan->nodes[n].source->params[i]->tensor);
      float *gradient = exec->gradients[(size_t)n * LAMINA_MAX_PORTS + (size_t)i];
      for (int64_t at = 0; at < elements; at += CHUNK, count++)
        if (pieces) pieces[count] = (piece){elements - at < CHUNK ? elements - at : CHUNK, gradient + at};
    }
  return count;
}

static lamina_status run_clip(lamina_exec *exec, clip *c, int64_t count, double max_norm, double *norm) {
  double sum = 0;
  list_pieces(exec, c->pieces);
  lamina_parallel(exec->context, count, sum_piece, c);
  for (int64_t i = 0; i < count; i++) sum += c->sums[i];
  const double total = sqrt(sum);
  if (!isfinite(total))
    return lamina_fail(exec->context, LAMINA_NOT_FINITE, "clip: the norm of the gradients is not finite");
  c->factor = (float)(max_norm / (total + 1e-6));
  if (c->factor < 1) lamina_parallel(exec->context, count, scale_piece, c);
  if (norm) *norm = total;
  return LAMINA_OK;
}

lamina_status lamina_exec_clip_gradients(lamina_exec *exec, double max_norm, double *norm) {
  if (!exec) return LAMINA_INVALID_ARGUMENT;
  lamina_status status = lamina_exec_check_gradients(exec, "clip");
  if (status) return status;
  if (!(max_norm > 0))
    return lamina_fail(exec->context, LAMINA_INVALID_ARGUMENT, "clip: a norm of %g is not above 0", max_norm);
  const int64_t count = list_pieces(exec, NULL);
  const size_t bytes = ((size_t)count + 1) * (sizeof(piece) + sizeof(double));
  clip c = {.kernels = exec->context->kernels.optimizer, .pieces = lamina_alloc(exec->context, bytes)};
  if (!c.pieces) return lamina_fail_memory(exec->context, bytes);
  c.sums = (double *)(void *)(c.pieces + count + 1);
  status = run_clip(exec, &c, count, max_norm, norm);
  lamina_free(exec->context, c.pieces);
  return status;
}
