/* SPDX-License-Identifier: Apache-2.0 */
#include "reduce.h"

#include "../layer.h"

#include <math.h>
#include <string.h>

enum { MAX_BLOCKS = 64, BLOCK_FLOATS = 1 << 14 };

static int64_t blocks_of(int64_t rows, int64_t n) {
  return layer_max(layer_min(layer_min(rows, MAX_BLOCKS), rows * n / BLOCK_FLOATS), 1);
}

int64_t lamina_column_sum_workspace(int64_t rows, int64_t n) { return blocks_of(rows, n) * round_up(n, 16); }

void lamina_tree_sum(const lamina_kernels *kernels, int64_t count, int64_t n, int64_t stride, float *vectors) {
  for (int64_t step = 1; step < count; step *= 2)
    for (int64_t i = 0; i + step < count; i += 2 * step) {
      float *to = vectors + i * stride;
      kernels->eltwise->add(n, to, to + step * stride, -INFINITY, INFINITY, to);
    }
}

typedef struct sum_job {
  const lamina_kernels *kernels;
  int64_t rows, n, ld, blocks;
  const float *x;
  float *partial;
} sum_job;

static void sum_block(void *arg, int64_t index, int thread) {
  const sum_job *j = arg;
  (void)thread;
  const int64_t row0 = part(j->rows, j->blocks, index), row1 = part(j->rows, j->blocks, index + 1);
  j->kernels->norm->column_sum(row1 - row0, j->n, j->x + row0 * j->ld, j->ld, j->partial + index * round_up(j->n, 16));
}

void lamina_column_sum(const lamina_host *host, const lamina_kernels *kernels, int64_t rows, int64_t n, const float *x,
                       int64_t ld, int accumulate, float *out, float *workspace) {
  sum_job j = {kernels, rows, n, ld, blocks_of(rows, n), x, workspace};
  host->parallel(host, j.blocks, sum_block, &j);
  lamina_tree_sum(kernels, j.blocks, n, round_up(n, 16), workspace);
  if (accumulate)
    kernels->eltwise->add(n, out, workspace, -INFINITY, INFINITY, out);
  else
    memcpy(out, workspace, (size_t)n * sizeof(float));
}
