/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file norm_period.h
 * A dense matrix of few or odd channels as virtual rows: `period` floats, a whole number of rows and of vectors, so
 * that any channel count runs without tails. Per-channel constants are repeated to that length.
 */
#ifndef LAMINA_SHARED_NORM_PERIOD_H
#define LAMINA_SHARED_NORM_PERIOD_H

#include <stdint.h>
#include <string.h>

/* NORM_MAX_CHANNELS channels, VF_LEN of them at most in a period: 4 KiB a constant with 16 lanes. */
enum { NORM_MAX_CHANNELS = 64, NORM_MAX_PERIOD = NORM_MAX_CHANNELS * VF_LEN };

/* The length of a virtual row of a dense matrix; 0: take it as it is (wide rows, whole vectors, too few rows to pay).
 */
static inline int64_t norm_period(int64_t rows, int64_t channels) {
  enum { BLOCK = 4 * VF_LEN };
  if (channels < 1 || channels >= NORM_MAX_CHANNELS || channels % BLOCK == 0) return 0;
  int64_t period = channels;
  while (period % VF_LEN) period *= 2; /* VF_LEN is a power of two */
  while (period % BLOCK && 2 * period <= NORM_MAX_PERIOD) period *= 2;
  return rows * channels >= 8 * period ? period : 0;
}

static inline void norm_expand(int64_t period, int64_t channels, const float *from, float *to) {
  for (int64_t i = 0; i < period; i += channels) memcpy(to + i, from, (size_t)channels * sizeof(float));
}

#endif
