/* SPDX-License-Identifier: Apache-2.0 */
/* Sums in a fixed tree, for the gradients of biases and weights; used by conv2d and linear. */
#ifndef LAMINA_PLUGINS_REDUCE_H
#define LAMINA_PLUGINS_REDUCE_H

#include "kernels.h"
#include "lamina/plugin.h"

static inline int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }
/* Start of part i of n even parts of `total`. */
static inline int64_t part(int64_t total, int64_t n, int64_t i) {
  return total / n * i + (i < total % n ? i : total % n);
}

/* rows x n numbers at row stride ld; out[c] (+)= sum over rows. The order of the sum depends on the shape alone. */
void lamina_column_sum(const lamina_host *host, const lamina_kernels *kernels, int64_t rows, int64_t n, const float *x,
                       int64_t ld, int accumulate, float *out, float *workspace);
/* Floats of its workspace. */
int64_t lamina_column_sum_workspace(int64_t rows, int64_t n);

/* Adds `count` vectors of n numbers, `stride` apart, into the first one, pairwise. */
void lamina_tree_sum(const lamina_kernels *kernels, int64_t count, int64_t n, int64_t stride, float *vectors);

#endif
