/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of gradients on a table of networks, which the program that links them defines. */
#ifndef LAMINA_GRADIENT_TEST_H
#define LAMINA_GRADIENT_TEST_H

#include "net_test.h"

enum {
  CASE_LINEAR = 1 << 0,        /* y is linear in x0 and in the weight: the adjoint identity holds exactly */
  CASE_INFER_DIFFERS = 1 << 1, /* batch statistics, dropout: evaluation is another function */
  CASE_X1_IS_TARGET = 1 << 2   /* x1 is what a loss compares with: it gets no gradient */
};

#define IMAGE(h, w, c)                                                                                                 \
  {                                                                                                                    \
    { "x0", 3, {h, w, c}, 0, NET_UNIFORM }                                                                             \
  }
#define ROW(c)                                                                                                         \
  {                                                                                                                    \
    { "x0", 1, {c}, 0, NET_UNIFORM }                                                                                   \
  }

extern const net_case gradient_cases[];
extern const int gradient_case_count;
/* A context with every layer that the table names. */
lamina_context *gradient_context(int threads);

/* All checks of all cases. */
TCase *gradient_checks(void);

#endif
