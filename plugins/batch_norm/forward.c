/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forward: statistics of the batch (two reads of x in all), running statistics, then y = clamp((x - hi) * scale +
 * offset + add).
 *
 * Accuracy. Moments are taken about a shift near the mean, so that nothing cancels: the mean of a few rows first, that
 * of the previous block afterwards. Each block's mean and M2 (sum of squared deviations) are merged in double by Chan,
 * Golub and LeVeque's formula (1979). The mean is kept as the sum of two floats: with hi alone a mean of 1e4 would be
 * off by 5e-4, which at a deviation of 1e-2 shifts every result by 0.05.
 */
#include "batch_norm.h"

#include <math.h>
#include <string.h>

enum { PILOT_ROWS = 8 };

typedef struct forward_pass {
  const lamina_node *node;
  const lamina_kernels *kernels;
  batch_norm_split split;
  batch_norm_memory memory;
  layer_matrix x, y, add;
  const float *mean; /* what the normalising pass subtracts */
  float lo, hi;
  int stream;
  double factor; /* of this batch in the running statistics */
} forward_pass;

/* Mean and M2 of one group of rows and one part of the channels. The last rows first: whoever wrote x has left them in the
   caches, and the first ones, read last, are still there when the normalising pass begins. */
static void moments_task(void *arg, int64_t index, int thread) {
  (void)thread;
  forward_pass *pass = arg;
  const batch_norm_split *split = &pass->split;
  const lamina_norm_kernels *norm = pass->kernels->norm;
  float shift[BATCH_NORM_PART], sum[BATCH_NORM_PART], sum_sq[BATCH_NORM_PART];
  int64_t group = split->groups - 1 - index / split->parts, c = index % split->parts * BATCH_NORM_PART;
  int64_t channels = layer_min(BATCH_NORM_PART, split->channels - c), rows = batch_norm_group_rows(split, group, 1);
  int64_t ld = pass->x.ld, pilot = layer_min(PILOT_ROWS, rows);
  const float *x = pass->x.data + group * split->group_rows * ld + c;
  double *mean = pass->memory.first + group * split->channels + c;
  double *m2 = pass->memory.second + group * split->channels + c;

  memcpy(shift, x, (size_t)channels * sizeof(float));
  norm->moments(pilot, channels, x, ld, shift, sum, sum_sq);
  for (int64_t i = 0; i < channels; i++) {
    shift[i] += sum[i] / (float)pilot;
    mean[i] = m2[i] = 0;
  }
  for (int64_t row = 0; row < rows; row += split->block_rows) {
    int64_t block = layer_min(split->block_rows, rows - row);
    norm->moments(block, channels, x + row * ld, ld, shift, sum, sum_sq);
    norm->merge_moments(channels, (double)row, (double)block, sum, sum_sq, shift, mean, m2);
  }
}

/* Merges the groups of some channels in a tree; the result is group 0's. */
static void merge_groups(forward_pass *pass, int64_t begin, int64_t end) {
  const batch_norm_split *split = &pass->split;
  for (int64_t step = 1; step < split->groups; step *= 2) {
    for (int64_t g = 0; g + step < split->groups; g += 2 * step) {
      double na = (double)batch_norm_group_rows(split, g, step);
      double nb = (double)batch_norm_group_rows(split, g + step, step);
      double *mean = pass->memory.first + g * split->channels, *m2 = pass->memory.second + g * split->channels;
      const double *mean_b = mean + step * split->channels, *m2_b = m2 + step * split->channels;
      pass->kernels->norm->merge(end - begin, na, nb, mean_b + begin, m2_b + begin, mean + begin, m2 + begin);
    }
  }
}

/* From the groups' moments to everything that is kept of a channel. */
static void finish_task(void *arg, int64_t index, int thread) {
  (void)thread;
  forward_pass *pass = arg;
  const lamina_node *node = pass->node;
  batch_norm_memory *memory = &pass->memory;
  const float *weight = batch_norm_param(node, BATCH_NORM_WEIGHT), *bias = batch_norm_param(node, BATCH_NORM_BIAS);
  double rows = (double)pass->split.rows, factor = pass->factor;
  int64_t width = batch_norm_merge_channels(&pass->split), begin = index * width;
  int64_t end = layer_min(begin + width, pass->split.channels);
  merge_groups(pass, begin, end);
  const lamina_norm_channels channels = {.channels = end - begin,
                                         .rows = rows,
                                         .eps = node->attrs[BATCH_NORM_EPS].f,
                                         .mean = memory->first + begin,
                                         .m2 = memory->second + begin,
                                         .weight = weight ? weight + begin : NULL,
                                         .bias = bias ? bias + begin : NULL,
                                         .hi = memory->hi + begin,
                                         .lo = memory->lo + begin,
                                         .invstd = memory->invstd + begin,
                                         .scale = memory->scale + begin,
                                         .offset = memory->offset + begin};
  pass->kernels->norm->finish(&channels);
  if (node->mode != LAMINA_TRAIN || node->params[BATCH_NORM_MEAN].rank < 0) return;
  float *running_mean = node->params[BATCH_NORM_MEAN].data, *running_var = node->params[BATCH_NORM_VAR].data;
  const double keep = 1 - factor, unbiased = factor / (rows - 1);
  for (int64_t c = begin; c < end; c++) {
    running_mean[c] = (float)(keep * running_mean[c] + factor * memory->first[c]);
    running_var[c] = (float)(keep * running_var[c] + unbiased * memory->second[c]);
  }
}

static void batch_statistics(forward_pass *pass) {
  const lamina_node *node = pass->node;
  const batch_norm_split *split = &pass->split;
  if (node->mode == LAMINA_TRAIN && node->params[BATCH_NORM_COUNT].rank == 0) {
    int64_t *batches = node->params[BATCH_NORM_COUNT].data;
    double momentum = node->attrs[BATCH_NORM_MOMENTUM].f;
    ++*batches;
    pass->factor = isnan(momentum) ? 1.0 / (double)*batches : momentum;
  }
  layer_parallel(node->host, split->groups * split->parts, split->rows * split->channels, moments_task, pass);
  layer_parallel(node->host, layer_ceil_div(split->channels, batch_norm_merge_channels(split)),
                 4 * split->groups * split->channels, finish_task, pass);
  pass->mean = pass->memory.hi;
}

/* What an earlier run of this forward has saved: nothing of the batch is to be measured or counted again. */
static int has_statistics(const lamina_node *node) { return node->recompute && node->saved; }

static void running_statistics(forward_pass *pass) {
  const lamina_node *node = pass->node;
  const float *weight = batch_norm_param(node, BATCH_NORM_WEIGHT), *bias = batch_norm_param(node, BATCH_NORM_BIAS);
  const float *var = batch_norm_param(node, BATCH_NORM_VAR);
  for (int64_t c = 0; c < pass->split.channels; c++) {
    double scale = (weight ? weight[c] : 1.0) / sqrt((double)var[c] + node->attrs[BATCH_NORM_EPS].f);
    pass->memory.scale[c] = (float)scale;
    pass->memory.offset[c] = bias ? bias[c] : 0.0f;
    if (node->mode != LAMINA_TRAIN) continue;
    pass->memory.hi[c] = batch_norm_param(node, BATCH_NORM_MEAN)[c]; /* for the backward pass */
    pass->memory.lo[c] = 0;
    pass->memory.invstd[c] = (float)(1 / sqrt((double)var[c] + node->attrs[BATCH_NORM_EPS].f));
  }
  pass->mean = batch_norm_param(node, BATCH_NORM_MEAN);
}

static void normalize_task(void *arg, int64_t index, int thread) {
  (void)thread;
  const forward_pass *pass = arg;
  int64_t step = batch_norm_pass_rows(&pass->split), row = index * step;
  const float *add = pass->add.data ? pass->add.data + row * pass->add.ld : NULL;
  pass->kernels->norm->normalize(layer_min(step, pass->split.rows - row), pass->split.channels,
                                 pass->x.data + row * pass->x.ld, pass->x.ld, pass->mean, pass->memory.scale,
                                 pass->memory.offset, add, pass->add.ld, pass->lo, pass->hi,
                                 pass->stream, pass->y.data + row * pass->y.ld, pass->y.ld);
}

lamina_status batch_norm_forward(const lamina_node *node) {
  lamina_status status = batch_norm_check_count(node);
  if (status != LAMINA_OK) return status;
  forward_pass pass = {.node = node, .kernels = layer_kernels(node, &status), .lo = -INFINITY, .hi = INFINITY};
  if (status != LAMINA_OK) return status;
  pass.x = layer_rows(&node->inputs[0]);
  pass.y = layer_rows(&node->outputs[0]);
  pass.split = batch_norm_split_of(pass.x.rows, pass.x.channels);
  pass.memory = batch_norm_memory_of(node, &pass.split);
  if (node->epilogue.parts & LAMINA_EPILOGUE_ADD) pass.add = layer_rows(&node->epilogue.add);
  if (node->epilogue.parts & LAMINA_EPILOGUE_CLAMP) {
    pass.lo = node->epilogue.lo;
    pass.hi = node->epilogue.hi;
  }
  if (batch_norm_uses_batch(node) && has_statistics(node)) {
    pass.mean = pass.memory.hi;
  } else if (batch_norm_uses_batch(node)) {
    batch_statistics(&pass);
  } else {
    running_statistics(&pass);
  }
  pass.stream = batch_norm_streams(node, &pass.split, pass.y.data, pass.x.data, pass.add.data);
  int64_t tasks = layer_ceil_div(pass.split.rows, batch_norm_pass_rows(&pass.split));
  layer_parallel(node->host, tasks, 2 * pass.split.rows * pass.split.channels, normalize_task, &pass);
  return LAMINA_OK;
}
