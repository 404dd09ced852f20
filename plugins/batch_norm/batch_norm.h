/* SPDX-License-Identifier: Apache-2.0 */
/* batch_norm (Ioffe and Szegedy 2015) over the rows of a rows x channels matrix. */
#ifndef LAMINA_BATCH_NORM_H
#define LAMINA_BATCH_NORM_H

#include "../layer.h"

enum { BATCH_NORM_EPS, BATCH_NORM_MOMENTUM, BATCH_NORM_AFFINE, BATCH_NORM_TRACK };              /* attributes */
enum { BATCH_NORM_WEIGHT, BATCH_NORM_BIAS, BATCH_NORM_MEAN, BATCH_NORM_VAR, BATCH_NORM_COUNT }; /* parameters, states */

/* Channels of one task's reductions: its fp32 sums live on the stack. */
#define BATCH_NORM_PART 512

/*
 * How a reduction over rows is cut, by shape alone. A block's rows are summed in fp32 by a kernel; the blocks of a
 * group are merged in double one after the other by the task that owns the group and a part of the channels; the groups
 * are merged in double in a tree.
 */
typedef struct batch_norm_split {
  int64_t rows, channels, parts;
  int64_t block_rows, group_rows, groups;
} batch_norm_split;

batch_norm_split batch_norm_split_of(int64_t rows, int64_t channels);

/* Memory of a call. first and second hold groups x channels doubles: mean and M2 forward, two sums backward. */
typedef struct batch_norm_memory {
  double *first, *second;
  /* The mean as hi + lo, 1 / deviation, and what the normalising pass multiplied by and added: saved for the backward
     pass. */
  float *hi, *lo, *invstd, *scale, *offset;
  float *coefficients[3]; /* backward: a, b, d of the kernel backward_apply */
} batch_norm_memory;

batch_norm_memory batch_norm_memory_of(const lamina_node *node, const batch_norm_split *split);

/* Nonzero if this run takes its statistics from the batch. */
int batch_norm_uses_batch(const lamina_node *node);
/* PyTorch's refusal: one value for each channel has no variance to train with. */
lamina_status batch_norm_check_count(const lamina_node *node);

static inline const float *batch_norm_param(const lamina_node *node, int index) {
  return node->params[index].rank < 0 ? NULL : node->params[index].data;
}

/* Rows of one group, or of `groups` neighbouring ones, from group g on. */
static inline int64_t batch_norm_group_rows(const batch_norm_split *split, int64_t g, int64_t groups) {
  return layer_min((g + groups) * split->group_rows, split->rows) - layer_min(g * split->group_rows, split->rows);
}
/* Rows of one task of the elementwise passes, and channels of one task that merges groups. */
static inline int64_t batch_norm_pass_rows(const batch_norm_split *split) {
  return layer_max(1, LAYER_TASK_FLOATS / split->channels);
}
static inline int64_t batch_norm_merge_channels(const batch_norm_split *split) {
  return layer_max(256, 32768 / split->groups);
}

/* Whether a result of the elementwise pass is written past the caches: so large that it would drive out of them what this
   pass reads, and no input's memory. */
static inline int batch_norm_streams(const lamina_node *node, const batch_norm_split *split, const float *to,
                                     const float *in, const float *other) {
  const double bytes = (double)split->rows * (double)split->channels * sizeof(float);
  return layer_streams(node->host, bytes) && to != in && to != other;
}

lamina_status batch_norm_forward(const lamina_node *node);
lamina_status batch_norm_backward(const lamina_node *node);

#endif
