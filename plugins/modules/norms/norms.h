/* SPDX-License-Identifier: Apache-2.0 */
/* Normalisations: what their files share. */
#ifndef LAMINA_NORMS_H
#define LAMINA_NORMS_H

#include "../columns.h"

extern const lamina_layer norms_group_norm, norms_instance_norm, norms_layer_norm, norms_rms_norm, norms_batch_renorm;

enum { NORM_LANES = 16 /* sums of a row go side by side in so many accumulators, in a fixed order */ };

/* Rows whose gradients of weight and bias are summed in one task, before the tasks' sums are added in order. */
enum { NORM_BLOCK_ROWS = 64 };

/* Adds `blocks` partial sums of n floats, `stride` floats apart, in double and in order; to = or += the result. */
static inline void norms_add_blocks(const float *from, int64_t blocks, int64_t stride, int64_t n, int add, float *to) {
  for (int64_t c = 0; c < n; c++) {
    double sum = 0;
    for (int64_t b = 0; b < blocks; b++) sum += from[b * stride + c];
    to[c] = (float)(add ? to[c] + sum : sum);
  }
}

#endif
