/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file norm_merge_body.h
 * What happens once for each channel, in double: plain loops that the compiler turns into vectors of the ISA. With many
 * channels and few rows they would cost more than the passes over x.
 */
#ifndef LAMINA_SHARED_NORM_MERGE_BODY_H
#define LAMINA_SHARED_NORM_MERGE_BODY_H

#include "kernels.h"

#include <math.h>

static void norm_merge(int64_t channels, double rows, double rows_b, const double *restrict mean_b,
                       const double *restrict m2_b, double *restrict mean, double *restrict m2) {
  const double share = rows_b / (rows + rows_b), factor = rows * share;
  for (int64_t c = 0; c < channels; c++) {
    const double delta = mean_b[c] - mean[c];
    mean[c] += delta * share;
    m2[c] += m2_b[c] + delta * delta * factor;
  }
}

static void norm_merge_moments(int64_t channels, double rows, double rows_b, const float *restrict sum,
                               const float *restrict sum_sq, float *restrict shift, double *restrict mean,
                               double *restrict m2) {
  const double share = rows_b / (rows + rows_b), factor = rows * share, inverse = 1 / rows_b;
  for (int64_t c = 0; c < channels; c++) {
    const double offset = (double)sum[c] * inverse, mean_b = (double)shift[c] + offset;
    const double m2_b = (double)sum_sq[c] - (double)sum[c] * offset, delta = mean_b - mean[c];
    mean[c] += delta * share;
    m2[c] += (m2_b < 0 ? 0 : m2_b) + delta * delta * factor;
    shift[c] = (float)mean_b;
  }
}

static void norm_finish(const lamina_norm_channels *n) {
  const double *restrict mean = n->mean, *restrict m2 = n->m2;
  const float *restrict weight = n->weight, *restrict bias = n->bias;
  float *restrict hi = n->hi, *restrict lo = n->lo, *restrict invstd = n->invstd;
  float *restrict scale = n->scale, *restrict offset = n->offset;
  const double inverse = 1 / n->rows, eps = n->eps;
  for (int64_t c = 0; c < n->channels; c++) {
    const double r = 1 / sqrt(m2[c] * inverse + eps);
    hi[c] = (float)mean[c];
    lo[c] = (float)(mean[c] - (double)hi[c]);
    invstd[c] = (float)r;
    scale[c] = (float)(weight ? r * (double)weight[c] : r);
    offset[c] = (float)((bias ? (double)bias[c] : 0) - (double)lo[c] * (double)scale[c]);
  }
}

#endif
