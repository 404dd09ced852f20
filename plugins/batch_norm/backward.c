/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Backward (Ioffe and Szegedy 2015, section 3), through the statistics of the batch. With r = 1 / deviation, m = hi +
 * lo the mean and sums over the rows: S1 = sum dy,  S2 = sum dy * (x - m) = sum dy * (x - hi) - lo * S1 dbias = S1,
 * dweight = r * S2 dx = weight * r * (dy - S1 / rows - (x - m) * r^2 * S2 / rows) = a * dy + b * (x - hi) + d Cost: x
 * and dy are read twice, dx is written once. Through running statistics, which are constants, dx = weight * r * dy.
 */
#include "batch_norm.h"

#include <math.h>

typedef struct backward_pass {
  const lamina_node *node;
  const lamina_kernels *kernels;
  batch_norm_split split;
  batch_norm_memory memory;
  layer_matrix x, dy, dx, y, d_add;
  lamina_norm_backward kernel; /* what is the same for all tasks */
} backward_pass;

/* The kernels' arguments for rows from `row` on and channels from `c` on. */
static lamina_norm_backward part_of(const backward_pass *pass, int64_t row, int64_t rows, int64_t c, int64_t channels) {
  const batch_norm_memory *m = &pass->memory;
  lamina_norm_backward k = pass->kernel;
  k.rows = rows;
  k.channels = channels;
  k.x = pass->x.data + row * pass->x.ld + c;
  k.dy = pass->dy.data + row * pass->dy.ld + c;
  k.mean = m->hi + c;
  if (pass->y.data) k.y = pass->y.data + row * pass->y.ld + c;
  if (k.scale) {
    k.scale = m->scale + c;
    k.offset = m->offset + c;
  }
  return k;
}

/* Both sums of one group of rows and one part of the channels; the last rows first, as forward. */
static void reduce_task(void *arg, int64_t index, int thread) {
  (void)thread;
  const backward_pass *pass = arg;
  const batch_norm_split *split = &pass->split;
  float sum_dz[BATCH_NORM_PART], sum_dz_xc[BATCH_NORM_PART];
  int64_t group = split->groups - 1 - index / split->parts, c = index % split->parts * BATCH_NORM_PART;
  int64_t channels = layer_min(BATCH_NORM_PART, split->channels - c), rows = batch_norm_group_rows(split, group, 1);
  double *first = pass->memory.first + group * split->channels + c;
  double *second = pass->memory.second + group * split->channels + c;
  for (int64_t i = 0; i < channels; i++) first[i] = second[i] = 0;
  for (int64_t row = 0; row < rows; row += split->block_rows) {
    lamina_norm_backward k = part_of(pass, group * split->group_rows + row, layer_min(split->block_rows, rows - row), c,
                                     channels);
    k.sum_dz = sum_dz;
    k.sum_dz_xc = sum_dz_xc;
    pass->kernels->norm->backward_reduce(&k);
    for (int64_t i = 0; i < channels; i++) {
      first[i] += sum_dz[i];
      second[i] += sum_dz_xc[i];
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
static void give(const lamina_node *node, int param, int64_t begin, int64_t end, const float *gradient) {
  if (!(node->need_params >> param & 1)) return;
  float *to = (float *)node->d_params[param].data;
  const int accumulate = (int)(node->accumulate_params >> param & 1);
  for (int64_t c = begin; c < end; c++) to[c] = accumulate ? to[c] + gradient[c - begin] : gradient[c - begin];
}

/* From the sums to the coefficients of the second pass and the gradients of the parameters. */
static void finish_part(backward_pass *pass, int64_t begin, int64_t end) {
  batch_norm_memory *m = &pass->memory;
  const float *weight = batch_norm_param(pass->node, BATCH_NORM_WEIGHT);
  const int batch = batch_norm_uses_batch(pass->node);
  float d_weight[BATCH_NORM_PART], d_bias[BATCH_NORM_PART];
  const double inverse = 1 / (double)pass->split.rows;
  for (int64_t c = begin; c < end; c++) {
    const double r = m->invstd[c], lo = m->lo[c], s1 = m->first[c], s2 = m->second[c] - lo * s1;
    const double a = weight ? r * weight[c] : r, b = batch ? -a * r * r * s2 * inverse : 0;
    m->coefficients[0][c] = (float)a;
    m->coefficients[1][c] = (float)b;
    m->coefficients[2][c] = batch ? (float)(-a * s1 * inverse - b * lo) : 0;
    d_weight[c - begin] = (float)(r * s2);
    d_bias[c - begin] = (float)s1;
  }
  if (!weight) return;
  give(pass->node, BATCH_NORM_WEIGHT, begin, end, d_weight);
  give(pass->node, BATCH_NORM_BIAS, begin, end, d_bias);
}

static void finish_task(void *arg, int64_t index, int thread) {
  (void)thread;
  backward_pass *pass = arg;
  int64_t width = batch_norm_merge_channels(&pass->split), begin = index * width;
  int64_t end = layer_min(begin + width, pass->split.channels);
  sum_groups(pass, begin, end);
  for (int64_t c = begin; c < end; c += BATCH_NORM_PART) finish_part(pass, c, layer_min(c + BATCH_NORM_PART, end));
}

static void apply_task(void *arg, int64_t index, int thread) {
  (void)thread;
  const backward_pass *pass = arg;
  int64_t step = batch_norm_pass_rows(&pass->split), row = index * step;
  lamina_norm_backward k = part_of(pass, row, layer_min(step, pass->split.rows - row), 0, pass->split.channels);
  k.a = pass->memory.coefficients[0];
  k.b = pass->memory.coefficients[1];
  k.d = pass->memory.coefficients[2];
  if (pass->dx.data) k.dx = pass->dx.data + row * pass->dx.ld;
  if (pass->d_add.data) k.d_add = pass->d_add.data + row * pass->d_add.ld;
  pass->kernels->norm->backward_apply(&k);
}

/* The fused addition and clamp: with an addend the clamp shows in y, without one it is computed again from x. An addend
   without a clamp has y between no bounds. */
static void open_epilogue(backward_pass *pass) {
  const lamina_node *node = pass->node;
  lamina_norm_backward *k = &pass->kernel;
  k->lo = -INFINITY;
  k->hi = INFINITY;
  if (node->epilogue.parts & LAMINA_EPILOGUE_CLAMP) {
    k->lo = node->epilogue.lo;
    k->hi = node->epilogue.hi;
  }
  if (node->epilogue.parts & LAMINA_EPILOGUE_ADD) {
    pass->y = layer_rows(&node->outputs[0]);
    if (layer_needs_input(node, 1)) pass->d_add = layer_rows(&node->d_inputs[1]);
  } else if (node->epilogue.parts & LAMINA_EPILOGUE_CLAMP) {
    k->scale = pass->memory.scale; /* tells that there is a clamp; part_of sets both */
  }
  k->x_ld = pass->x.ld;
  k->dy_ld = pass->dy.ld;
  k->y_ld = pass->y.ld;
  k->dx_ld = pass->dx.ld;
  k->d_add_ld = pass->d_add.ld;
  k->accumulate = layer_accumulates(node, 0);
  k->accumulate_add = layer_accumulates(node, 1);
  k->stream = !k->accumulate && batch_norm_streams(node, &pass->split, pass->dx.data, pass->x.data, pass->dy.data);
  k->stream_add =
      !k->accumulate_add && batch_norm_streams(node, &pass->split, pass->d_add.data, pass->x.data, pass->dy.data);
}

lamina_status batch_norm_backward(const lamina_node *node) {
  if (!node->need_params && !node->need_inputs) return LAMINA_OK;
  lamina_status status;
  backward_pass pass = {.node = node, .kernels = layer_kernels(node, &status)};
  if (status != LAMINA_OK) return status;
  pass.x = layer_rows(&node->inputs[0]);
  pass.dy = layer_rows(&node->d_outputs[0]);
  if (layer_needs_input(node, 0)) pass.dx = layer_rows(&node->d_inputs[0]);
  pass.split = batch_norm_split_of(pass.x.rows, pass.x.channels);
  pass.memory = batch_norm_memory_of(node, &pass.split);
  open_epilogue(&pass);
  int64_t floats = pass.split.rows * pass.split.channels;
  layer_parallel(node->host, pass.split.groups * pass.split.parts, 2 * floats, reduce_task, &pass);
  layer_parallel(node->host, layer_ceil_div(pass.split.channels, batch_norm_merge_channels(&pass.split)),
                 4 * pass.split.groups * pass.split.channels, finish_task, &pass);
  if (!node->need_inputs) return LAMINA_OK;
  int64_t tasks = layer_ceil_div(pass.split.rows, batch_norm_pass_rows(&pass.split));
  layer_parallel(node->host, tasks, 3 * floats, apply_task, &pass);
  return LAMINA_OK;
}
