/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file norm_period.h
 * How the rows of a matrix are taken. A dense matrix of few or odd channels is read as virtual rows: `period` floats, a
 * whole number of rows and of vectors, so that any channel count runs without tails. Per-channel constants are repeated
 * to that length. Rows that go together, so that constants or sums are loaded once for all, lie in pages of their own.
 */
#ifndef LAMINA_SHARED_NORM_PERIOD_H
#define LAMINA_SHARED_NORM_PERIOD_H

#include <stdint.h>
#include <string.h>

enum { NORM_MAX_PERIOD = 64 * VF_LEN }; /* 4 KiB a constant with 16 lanes */

/* The length of a virtual row of a dense matrix; 0: take it as it is (whole vectors, a long period, too few rows). */
static inline int64_t norm_period(int64_t rows, int64_t channels) {
  int64_t period = channels;
  if (channels < 1) return 0;
  while (period % VF_LEN) period *= 2; /* VF_LEN is a power of two */
  while (period < 4 * VF_LEN) period *= 2;
  return period > channels && period <= NORM_MAX_PERIOD && rows * channels >= 8 * period ? period : 0;
}

/* Repeats a row of constants; the period is channels * 2^k. */
static inline void norm_expand(int64_t period, int64_t channels, const float *from, float *to) {
  memcpy(to, from, (size_t)channels * sizeof(float));
  for (int64_t done = channels; done < period; done *= 2) memcpy(to + done, to, (size_t)done * sizeof(float));
}

/*
 * How far apart `streams` rows lie that go together. Rows of one page, read in turn, are no stream that the hardware would
 * follow, and memory is read at less than half its speed; so the matrix is cut into as many pieces, and a row of each
 * goes together. Not a whole number of pages apart, where all would fall into the same few sets of L1.
 */
static inline int64_t norm_apart(int64_t rows, int64_t streams, int64_t ld) {
  const int64_t page = 4096 / sizeof(float), apart = ld < page ? rows / streams : 1;
  return apart > 1 && apart * ld % page == 0 ? apart - 1 : apart;
}

#endif
