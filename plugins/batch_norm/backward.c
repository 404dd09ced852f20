/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Backward (Ioffe and Szegedy 2015, section 3), through the statistics of the batch. With r = 1 / deviation, m = hi +
 * lo the mean and sums over the rows: S1 = sum dy,  S2 = sum dy * (x - m) = sum dy * (x - hi) - lo * S1 dbias = S1,
 * dweight = r * S2 dx = weight * r * (dy - S1 / rows - (x - m) * r^2 * S2 / rows) = a * dy + b * (x - hi) + d Cost: x
 * and dy are read twice, dx is written once.
 */
#include "batch_norm.h"

typedef struct backward_pass {
  const lamina_node *node;
  const lamina_kernels *kernels;
  batch_norm_split split;
  batch_norm_memory memory;
  layer_matrix x, dy, dx;
} backward_pass;

/* Both sums of one group of rows and one part of the channels. */
static void reduce_task(void *arg, int64_t index, int thread) {
  (void)thread;
  const backward_pass *pass = arg;
  const batch_norm_split *split = &pass->split;
  float sum_dy[BATCH_NORM_PART], sum_dy_xc[BATCH_NORM_PART];
  int64_t group = index / split->parts, c = index % split->parts * BATCH_NORM_PART;
  int64_t channels = layer_min(BATCH_NORM_PART, split->channels - c), rows = batch_norm_group_rows(split, group, 1);
  const float *x = pass->x.data + group * split->group_rows * pass->x.ld + c;
  const float *dy = pass->dy.data + group * split->group_rows * pass->dy.ld + c;
  double *first = pass->memory.first + group * split->channels + c;
  double *second = pass->memory.second + group * split->channels + c;
  for (int64_t i = 0; i < channels; i++) first[i] = second[i] = 0;
  for (int64_t row = 0; row < rows; row += split->block_rows) {
    pass->kernels->norm->backward_reduce(layer_min(split->block_rows, rows - row), channels, x + row * pass->x.ld,
                                         pass->x.ld, dy + row * pass->dy.ld, pass->dy.ld, pass->memory.hi + c, sum_dy,
                                         sum_dy_xc);
    for (int64_t i = 0; i < channels; i++) {
      first[i] += sum_dy[i];
      second[i] += sum_dy_xc[i];
    }
  }
}

static void sum_groups(backward_pass *pass, int64_t begin, int64_t end) {
  const batch_norm_split *split = &pass->split;
  for (int64_t step = 1; step < split->groups; step *= 2) {
    for (int64_t g = 0; g + step < split->groups; g += 2 * step) {
      double *first = pass->memory.first + g * split->channels, *second = pass->memory.second + g * split->channels;
      for (int64_t c = begin; c < end; c++) {
        first[c] += first[c + step * split->channels];
        second[c] += second[c + step * split->channels];
      }
    }
  }
}

/* Writes or adds to the gradient of one parameter, where it is wanted. */
static void give(const lamina_node *node, int param, int64_t c, double gradient) {
  if (!(node->need_params >> param & 1)) return;
  float *to = (float *)node->d_params[param].data + c;
  *to = node->accumulate_params >> param & 1 ? *to + (float)gradient : (float)gradient;
}

static void finish_task(void *arg, int64_t index, int thread) {
  (void)thread;
  backward_pass *pass = arg;
  const lamina_node *node = pass->node;
  batch_norm_memory *memory = &pass->memory;
  const float *weight = batch_norm_param(node, BATCH_NORM_WEIGHT);
  int64_t width = batch_norm_merge_channels(&pass->split), begin = index * width;
  int64_t end = layer_min(begin + width, pass->split.channels);
  sum_groups(pass, begin, end);
  for (int64_t c = begin; c < end; c++) {
    double r = memory->invstd[c], lo = memory->lo[c], s1 = memory->first[c], s2 = memory->second[c] - lo * s1;
    double a = r * (weight ? weight[c] : 1.0), b = -a * r * r * s2 / (double)pass->split.rows;
    memory->coefficients[0][c] = (float)a;
    memory->coefficients[1][c] = (float)b;
    memory->coefficients[2][c] = (float)(-a * s1 / (double)pass->split.rows - b * lo);
    if (!weight) continue;
    give(node, BATCH_NORM_WEIGHT, c, r * s2);
    give(node, BATCH_NORM_BIAS, c, s1);
  }
}

static void apply_task(void *arg, int64_t index, int thread) {
  (void)thread;
  const backward_pass *pass = arg;
  int64_t step = batch_norm_pass_rows(&pass->split), row = index * step;
  float *const *coefficients = pass->memory.coefficients;
  pass->kernels->norm->backward_apply(layer_min(step, pass->split.rows - row), pass->split.channels,
                                      pass->x.data + row * pass->x.ld, pass->x.ld, pass->dy.data + row * pass->dy.ld,
                                      pass->dy.ld, pass->memory.hi, coefficients[0], coefficients[1], coefficients[2],
                                      layer_accumulates(pass->node, 0), pass->dx.data + row * pass->dx.ld, pass->dx.ld);
}

lamina_status batch_norm_backward(const lamina_node *node) {
  if (!node->need_params && !layer_needs_input(node, 0)) return LAMINA_OK;
  lamina_status status;
  backward_pass pass = {.node = node, .kernels = layer_kernels(node, &status)};
  if (status != LAMINA_OK) return status;
  pass.x = layer_rows(&node->inputs[0]);
  pass.dy = layer_rows(&node->d_outputs[0]);
  pass.split = batch_norm_split_of(pass.x.rows, pass.x.channels);
  pass.memory = batch_norm_memory_of(node, &pass.split);
  int64_t floats = pass.split.rows * pass.split.channels;
  layer_parallel(node->host, pass.split.groups * pass.split.parts, 2 * floats, reduce_task, &pass);
  layer_parallel(node->host, layer_ceil_div(pass.split.channels, batch_norm_merge_channels(&pass.split)),
                 4 * pass.split.groups * pass.split.channels, finish_task, &pass);
  if (!layer_needs_input(node, 0)) return LAMINA_OK;
  pass.dx = layer_rows(&node->d_inputs[0]);
  int64_t tasks = layer_ceil_div(pass.split.rows, batch_norm_pass_rows(&pass.split));
  layer_parallel(node->host, tasks, 3 * floats, apply_task, &pass);
  return LAMINA_OK;
}
