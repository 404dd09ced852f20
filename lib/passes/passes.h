/* SPDX-License-Identifier: Apache-2.0 */
/* Graph passes: each one looks at a plan's nodes in order, changes or removes some, and keeps the meaning. */
#ifndef LAMINA_PASSES_H
#define LAMINA_PASSES_H

#include "../plan.h"

/* Flatten's PyTorch order (C, H, W) is folded into the packed weights of the linear layers that read it. */
lamina_status lamina_pass_fold_flatten(lamina_plan *plan);
/* Affine, add and clamp nodes become the epilogue of their producer. */
lamina_status lamina_pass_fuse_epilogue(lamina_plan *plan);

/* For passes: how many inputs of nodes that are left read a value, and the first such node (or NULL). */
int lamina_pass_readers(const lamina_plan *plan, int value, plan_node **first);
/* Removes a node that `into` now does the work of, and notes it for explain. */
lamina_status lamina_pass_merge(lamina_plan *plan, plan_node *node, plan_node *into);

#endif
