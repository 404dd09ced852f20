/* SPDX-License-Identifier: Apache-2.0 */
/* Tuning: the kernels that can run a node are measured on its shapes, or an earlier measurement is remembered. */
#ifndef LAMINA_TUNE_H
#define LAMINA_TUNE_H

#include "io/wisdom.h"
#include "plan.h"

enum { LAMINA_TUNE_KERNELS = 16 /* of a layer, that take part */ };

typedef struct lamina_tuning {
  const lamina_kernel *fastest; /* NULL: there was nothing to choose, or nothing could be measured */
  bool remembered;
  double us[LAMINA_TUNE_KERNELS]; /* by the layer's kernels: what one took, 0 if it was not measured */
} lamina_tuning;

/* Chooses for a node whose kernel is the one that would run without tuning. Never fails; leaves the node as it is. */
void lamina_tune_node(lamina_plan *plan, plan_node *node, lamina_wisdom *wisdom, lamina_tuning *tuning);

/* What choosing asks of a kernel: may it run here, and if not, why? With `tuned` whether it is worthwhile does not
 * count. */
const char *lamina_kernel_refusal(const lamina_plan *plan, const plan_node *node, const lamina_kernel *kernel,
                                  lamina_node *view, bool tuned);

#endif
