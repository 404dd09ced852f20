/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A correlation over NHWC as batch-reduce matrix products, without im2col:
 *   y(t, :) = sum over taps j of x(t * stride + first + j * step, :) * weights(j, :, :)
 *
 * A task is a block of images, of rows of the output grid and of panels of output channels, cut by shape alone. It
 * reads x in place, or, where columns would fall outside or pixels share cache sets, from a copy of the rows it needs,
 * padded with zeros, that stays in L2. Taps above and below the image are left out. For each panel of nr output
 * channels (times a chunk of the depth such that it stays in L2) it walks the rows; a tile is up to mr pixels of one
 * row, spread evenly. With a 1x1 kernel the copy holds just the pixels that are needed, and tiles run on over the ends
 * of rows. With neighbouring columns as taps, the taps of one kernel row and their channels are one contiguous run of
 * depth.
 *
 * Cost: 2 * outputs * taps * in flops; the copies move taps-independent (rows + halo) * columns * in floats for each
 * block.
 */
#include "conv2d.h"

#include <math.h>

enum {
  PAGE_BYTES = 4096,
  TASK_FLOPS = 8 << 20,
  MAX_TASKS = 64,
  MIN_ROWS = 4,  /* of a block, where the grid has as many: below that too much is copied twice */
  MIN_TILES = 16 /* pixels of a block, in tiles, that are worth reading a panel of weights for */
};

typedef struct correlate_job {
  const correlation *c;
  const lamina_gemm_kernels *gemm;
  int64_t count_h, count_w; /* the largest grid of a phase */
  int copy, compact;        /* compact: a 1x1 kernel, the copy holds the pixels that are needed alone */
  int64_t c0, c1;           /* columns of x that the taps reach */
  int64_t first_row, span;  /* rows that output row 0 reaches: the first, and how many */
  int64_t pixel;            /* stride of the copy */
  int64_t panels, images_block, rows_block, row_blocks, panel_blocks;
  int64_t max_depth; /* of a chunk */
  int64_t pointers, thread_floats;
  char *workspace;
} correlate_job;

/* What one task works on. */
typedef struct correlate_task {
  const correlate_job *job;
  conv_window window;
  const float **a;
  int64_t group, n0, n1, t0, t1, panel0, panel1;
} correlate_task;

/* One phase in a task: its axes, and one chunk of its depth. */
typedef struct correlate_chunk {
  conv_axis h, w;
  int64_t kh0, kh1, in0, in1; /* rows of taps, input channels */
  const float *weights;       /* of the panel */
  int collapse;
} correlate_chunk;

static void find_reach(correlate_job *j) {
  const correlation *c = j->c;
  int64_t r0 = INT64_MAX, r1 = INT64_MIN;
  j->c0 = INT64_MAX;
  j->c1 = INT64_MIN;
  for (int64_t i = 0; i < c->phases_h; i++) {
    const conv_axis h = lamina_conv_axis(&c->shape->h, c->backward, i);
    j->count_h = layer_max(j->count_h, h.count);
    if (h.taps <= 0 || h.count <= 0) continue;
    r0 = layer_min(r0, h.first);
    r1 = layer_max(r1, h.first + (h.taps - 1) * h.step);
  }
  for (int64_t i = 0; i < c->phases_w; i++) {
    const conv_axis w = lamina_conv_axis(&c->shape->w, c->backward, i);
    j->count_w = layer_max(j->count_w, w.count);
    if (w.taps <= 0 || w.count <= 0) continue;
    j->c0 = layer_min(j->c0, w.first);
    j->c1 = layer_max(j->c1, (w.count - 1) * w.stride + w.first + (w.taps - 1) * w.step + 1);
  }
  if (r0 > r1 || j->c0 > j->c1) r0 = j->c0 = 0, r1 = 0, j->c1 = 1; /* no phase has a tap */
  j->first_row = r0;
  j->span = r1 - r0 + 1;
}

static int64_t stride_of(const correlation *c) { return c->backward ? 1 : c->shape->w.stride; }
static int64_t row_stride_of(const correlation *c) { return c->backward ? 1 : c->shape->h.stride; }

static int aliases(int64_t stride) { return stride * 4 % PAGE_BYTES == 0; }

/* Rows of x that rows t0 .. t0 + rows of the grid reach. */
static int64_t reached_rows(const correlate_job *j, int64_t rows) {
  if (j->compact) return rows;
  return layer_min((rows - 1) * row_stride_of(j->c) + j->span, j->c->in_h);
}

static int64_t copy_columns(const correlate_job *j) { return j->compact ? j->count_w : j->c1 - j->c0; }

static int64_t wanted_tasks(const correlate_job *j) {
  const conv_shape *s = j->c->shape;
  const double flops = 2.0 * (double)s->images * (double)(s->groups * s->in * s->out) * (double)(s->h.out * s->w.out) *
                       (double)(s->h.kernel * s->w.kernel);
  return flops >= (double)MAX_TASKS * TASK_FLOPS ? MAX_TASKS : layer_max((int64_t)(flops / TASK_FLOPS), 1);
}

/* Rows of a block: as many as stay in half of L2; then more blocks, of rows or of panels, until there are enough tasks;
   or several images to a block, where there are plenty. */
static void cut_up(correlate_job *j) {
  const correlation *c = j->c;
  const conv_shape *s = c->shape;
  const int64_t l2 = (int64_t)s->host->cpu->l2 / 4, row = copy_columns(j) * j->pixel, rows = layer_max(j->count_h, 1);
  const int64_t wanted = wanted_tasks(j), units = s->images * s->groups;
  const int64_t fit = j->compact ? l2 / 2 / row : (l2 / 2 / row - j->span) / row_stride_of(c) + 1;
  int64_t row_blocks = layer_ceil_div(rows, layer_max(layer_min(fit, rows), 1));
  const int64_t max_row_blocks = layer_max(row_blocks, layer_max(rows / MIN_ROWS, 1));
  const int64_t weights = s->h.kernel * s->w.kernel * s->in * s->out, input = c->in_h * c->in_w * c->in;
  j->panels = layer_ceil_div(c->out, j->gemm->nr);
  j->panel_blocks = 1;
  if (weights > input && units * row_blocks < wanted)
    j->panel_blocks = layer_min(layer_ceil_div(wanted, units * row_blocks), j->panels);
  if (units * row_blocks * j->panel_blocks < wanted)
    row_blocks = layer_min(layer_ceil_div(wanted, units * j->panel_blocks), max_row_blocks);
  if (units * row_blocks * j->panel_blocks < wanted)
    j->panel_blocks = layer_min(layer_ceil_div(wanted, units * row_blocks), j->panels);
  j->rows_block = layer_ceil_div(rows, row_blocks);
  j->row_blocks = layer_ceil_div(rows, j->rows_block);

  const int64_t block_pixels = j->rows_block * j->count_w, block_floats = reached_rows(j, j->rows_block) * row;
  int64_t images = layer_ceil_div(MIN_TILES * j->gemm->mr, layer_max(block_pixels, 1));
  images = layer_min(images, l2 / 3 / layer_max(block_floats, 1));
  images = layer_min(images, units * j->row_blocks * j->panel_blocks / wanted);
  j->images_block = layer_max(layer_min(images, s->images), 1);
}

static correlate_job describe(const correlation *c) {
  const conv_shape *s = c->shape;
  correlate_job j = {.c = c, .gemm = s->kernels->gemm};
  find_reach(&j);
  const int single = c->phases_h * c->phases_w == 1 && (!c->backward || s->h.stride * s->w.stride == 1);
  const int64_t stride = stride_of(c);
  j.compact = single && s->h.kernel == 1 && s->w.kernel == 1;
  j.copy = j.compact || j.c0 < 0 || j.c1 > c->in_w || (aliases(stride * c->x.pixel) && j.count_w > 4);
  j.pixel = c->in;
  if (aliases((j.compact ? 1 : stride) * j.pixel)) j.pixel += CONV_LINE;
  j.max_depth = layer_max((int64_t)s->host->cpu->l2 / 10 / j.gemm->nr, 256);
  cut_up(&j);
  j.pointers = round_up(s->h.kernel * s->w.kernel, CONV_LINE);
  /* Asked for even when x can be read in place: at plan its strides are not known for certain. */
  j.thread_floats = round_up(j.images_block * reached_rows(&j, j.rows_block) * copy_columns(&j) * j.pixel, CONV_LINE);
  return j;
}

static int64_t thread_bytes(const correlate_job *j) {
  return j->pointers * (int64_t)sizeof(float *) + j->thread_floats * (int64_t)sizeof(float);
}

size_t lamina_conv_correlate_workspace(const correlation *c) {
  const correlate_job j = describe(c);
  return (size_t)(thread_bytes(&j) * c->shape->host->threads(c->shape->host));
}

/* The window of a task: x itself, or a copy of what the task's rows reach. */
static conv_window open_window(const correlate_task *task, float *scratch) {
  const correlate_job *j = task->job;
  const correlation *c = j->c;
  const int64_t channel = task->group * c->in;
  if (!j->copy)
    return (conv_window){
        .data = c->x.data + task->n0 * c->x.image + channel, .image = c->x.image, .row = c->x.row, .pixel = c->x.pixel};
  const int64_t stride = row_stride_of(c);
  conv_region r = {.n0 = task->n0,
                   .n1 = task->n1,
                   .r0 = task->t0 * stride + j->first_row,
                   .row_step = j->compact ? stride : 1,
                   .c0 = j->c0,
                   .c1 = j->c1,
                   .column_step = j->compact ? stride_of(c) : 1,
                   .channel = channel,
                   .count = c->in,
                   .h = c->in_h,
                   .w = c->in_w,
                   .pixel = j->pixel};
  r.r1 = (task->t1 - 1) * stride + j->first_row + j->span;
  if (!j->compact) { /* rows above and below are never read */
    r.r0 = layer_max(r.r0, 0);
    r.r1 = layer_max(layer_min(r.r1, c->in_h), r.r0);
  }
  return lamina_conv_copy(&c->x, &r, scratch);
}

/* Taps j of an axis that lie inside at output t: *j0 .. *j1. */
static void valid_taps(const conv_axis *axis, int64_t t, int64_t size, int64_t *j0, int64_t *j1) {
  const int64_t at = t * axis->stride + axis->first;
  *j0 = at < 0 ? layer_min((-at + axis->step - 1) / axis->step, axis->taps) : 0;
  *j1 = at < size ? layer_min((size - at + axis->step - 1) / axis->step, axis->taps) : 0;
  if (*j1 < *j0) *j1 = *j0;
}

/* Pointers to the first pixel of row t for each entry of the batch; sets the batch's geometry. */
static void gather(const correlate_task *task, const correlate_chunk *k, int64_t n, int64_t t, int64_t j0, int64_t j1,
                   lamina_tile *tile) {
  const conv_window *window = &task->window;
  const int64_t nr = task->job->gemm->nr, in = task->job->c->in;
  const int64_t entries = k->collapse ? 1 : k->w.taps;
  tile->batch = (j1 - j0) * entries;
  tile->k = k->collapse ? k->w.taps * in : k->in1 - k->in0;
  tile->b_batch = k->collapse ? tile->k * nr : in * nr;
  tile->b = k->weights + (j0 * k->w.taps * in + k->in0) * nr;
  const float **a = task->a;
  const float *image = window->data + (n - task->n0) * window->image + k->in0;
  if (task->job->compact) {
    *a = image + (t - task->t0) * window->row;
    return;
  }
  for (int64_t j = j0; j < j1; j++) {
    const float *row = image + (t * k->h.stride + k->h.first + j * k->h.step - window->r0) * window->row;
    for (int64_t i = 0; i < entries; i++) *a++ = row + (k->w.first + i * k->w.step - window->c0) * window->pixel;
  }
}

/* One row of the grid (or, flattened, `rows` of them): its tiles. */
static void run_row(const correlate_task *task, const correlate_chunk *k, int64_t n, int64_t t, int64_t rows,
                    int64_t panel, const float **ahead, const float *ahead_end) {
  const correlate_job *j = task->job;
  const correlation *c = j->c;
  const int64_t nr = j->gemm->nr, channel = task->group * c->out + panel * nr;
  int64_t v0 = 0, v1 = 1;
  if (!j->compact) valid_taps(&k->h, t, c->in_h, &v0, &v1);
  if (k->w.taps == 0) v1 = v0;
  const int64_t j0 = layer_max(v0, k->kh0), j1 = layer_min(v1, k->kh1);
  int first = v0 >= k->kh0 && v0 < k->kh1 && k->in0 == 0, last = v1 - 1 >= k->kh0 && v1 - 1 < k->kh1 && k->in1 == c->in;
  if (v0 >= v1) first = last = k->kh0 == 0 && k->in0 == 0; /* a sum of nothing, once */
  if (j0 >= j1 && !first) return;

  const int64_t step = j->compact ? 1 : k->w.stride;
  lamina_tile tile = {.a = task->a,
                      .a_row = step * task->window.pixel,
                      .a_k = 1,
                      .b_k = nr,
                      .c_row = k->w.out_step * c->y.pixel,
                      .n = (int)layer_min(nr, c->out - panel * nr),
                      .accumulate = c->accumulate || !first,
                      .bias = last && c->bias ? c->bias + channel : NULL,
                      .add_row = k->w.out_step * c->add.pixel,
                      .lo = last ? c->lo : -INFINITY,
                      .hi = last ? c->hi : INFINITY};
  gather(task, k, n, t, j0, layer_max(j0, j1), &tile);
  const int64_t out_row = k->h.out_first + t * k->h.out_step, width = k->w.count * rows;
  const int64_t tiles = layer_ceil_div(width, j->gemm->mr);
  float *y = c->y.data + n * c->y.image + out_row * c->y.row + k->w.out_first * c->y.pixel + channel;
  const float *add = last && c->add.data ? c->add.data + n * c->add.image + out_row * c->add.row +
                                               k->w.out_first * c->add.pixel + channel
                                         : NULL;
  int64_t done = 0;
  for (int64_t i = 0; i < tiles; i++) {
    const int64_t m0 = part(width, tiles, i), m1 = part(width, tiles, i + 1);
    for (int64_t b = 0; b < tile.batch; b++) task->a[b] += (m0 - done) * tile.a_row;
    done = m0;
    tile.c = y + m0 * tile.c_row;
    tile.add = add ? add + m0 * tile.add_row : NULL;
    tile.prefetch = *ahead && *ahead < ahead_end ? *ahead : NULL;
    if (tile.prefetch) *ahead += layer_min(tile.batch * tile.k * CONV_LINE, ahead_end - *ahead);
    j->gemm->tile[m1 - m0](&tile);
  }
}

/* Whether output rows follow each other like the pixels of one row, for y and what is added to it. */
static int flat(const correlate_job *j) {
  const correlation *c = j->c;
  return j->compact && c->y.row == j->count_w * c->y.pixel && (!c->add.data || c->add.row == j->count_w * c->add.pixel);
}

static void run_chunk(const correlate_task *task, const correlate_chunk *k, int64_t panel, const float *ahead,
                      const float *ahead_end) {
  const int64_t t1 = layer_min(task->t1, k->h.count);
  for (int64_t n = task->n0; n < task->n1; n++) {
    if (flat(task->job)) {
      run_row(task, k, n, task->t0, t1 - task->t0, panel, &ahead, ahead_end);
      continue;
    }
    for (int64_t t = task->t0; t < t1; t++) run_row(task, k, n, t, 1, panel, &ahead, ahead_end);
  }
}

/* All chunks of a phase's depth for one panel. */
static void run_phase(const correlate_task *task, int64_t phase, int64_t panel) {
  const correlate_job *j = task->job;
  const correlation *c = j->c;
  const int64_t phase_h = phase / c->phases_w, phase_w = phase % c->phases_w, nr = j->gemm->nr;
  correlate_chunk k = {.h = lamina_conv_axis(&c->shape->h, c->backward, phase_h),
                       .w = lamina_conv_axis(&c->shape->w, c->backward, phase_w)};
  if (k.h.count <= 0 || k.w.count <= 0) return;
  const int64_t row_depth = k.w.taps * c->in, depth = k.h.taps * row_depth;
  k.weights = c->weights + task->group * lamina_conv_packed_floats(c->shape, c->in, c->out) +
              lamina_conv_phase_offset(c, phase_h, phase_w) + panel * nr * depth;
  const int64_t row_chunks = layer_min(layer_max(layer_ceil_div(depth, j->max_depth), 1), layer_max(k.h.taps, 1));
  const int64_t in_chunks = row_depth > j->max_depth ? layer_min(layer_ceil_div(row_depth, j->max_depth), c->in) : 1;
  k.collapse = in_chunks == 1 && k.w.step == 1 && task->window.pixel == c->in;
  const float *end = panel + 1 < task->panel1 ? k.weights + 2 * nr * depth : k.weights + nr * depth;
  for (int64_t i = 0; i < row_chunks; i++) {
    k.kh0 = part(k.h.taps, row_chunks, i);
    k.kh1 = part(k.h.taps, row_chunks, i + 1);
    for (int64_t channel = 0; channel < in_chunks; channel++) {
      k.in0 = part(c->in, in_chunks, channel);
      k.in1 = part(c->in, in_chunks, channel + 1);
      /* What the next chunk reads, or the next panel's first. */
      const float *ahead = k.weights + (in_chunks == 1 ? k.kh1 : k.kh0 + (channel + 1 == in_chunks)) * row_depth * nr;
      run_chunk(task, &k, panel, ahead, layer_min(end - ahead, (k.kh1 - k.kh0) * row_depth * nr) + ahead);
    }
  }
}

/* Rows of y that the task has finished: all phases of its part of the grid. */
static void finish_task(const correlate_task *task) {
  const correlation *c = task->job->c;
  const int64_t nr = task->job->gemm->nr, channel = task->panel0 * nr;
  const int64_t step = c->backward ? c->shape->h.stride : 1, rows = c->backward ? c->shape->h.in : c->shape->h.out;
  for (int64_t n = task->n0; n < task->n1; n++)
    lamina_conv_activate(c, n, task->t0 * step, layer_min(task->t1 * step, rows), task->group * c->out + channel,
                         layer_min(task->panel1 * nr, c->out) - channel);
}

static void run_task(void *arg, int64_t index, int thread) {
  const correlate_job *j = arg;
  const correlation *c = j->c;
  const int64_t image_blocks = layer_ceil_div(c->shape->images, j->images_block);
  char *memory = j->workspace + thread * thread_bytes(j);
  correlate_task task = {.job = j, .a = (const float **)(void *)memory};
  const int64_t panel_block = index % j->panel_blocks;
  index /= j->panel_blocks;
  task.t0 = index % j->row_blocks * j->rows_block;
  task.t1 = layer_min(task.t0 + j->rows_block, j->count_h);
  index /= j->row_blocks;
  task.n0 = index % image_blocks * j->images_block;
  task.n1 = layer_min(task.n0 + j->images_block, c->shape->images);
  task.group = index / image_blocks;
  task.panel0 = part(j->panels, j->panel_blocks, panel_block);
  task.panel1 = part(j->panels, j->panel_blocks, panel_block + 1);
  task.window = open_window(&task, (float *)(void *)(memory + j->pointers * (int64_t)sizeof(float *)));
  for (int64_t panel = task.panel0; panel < task.panel1; panel++)
    for (int64_t phase = 0; phase < c->phases_h * c->phases_w; phase++) run_phase(&task, phase, panel);
  if (c->epilogue) finish_task(&task);
}

void lamina_conv_correlate(const correlation *c) {
  correlate_job j = describe(c);
  j.workspace = c->shape->node->workspace;
  const int64_t blocks = layer_ceil_div(c->shape->images, j.images_block) * j.row_blocks * j.panel_blocks;
  if (j.count_h > 0 && j.count_w > 0) c->shape->host->parallel(c->shape->host, c->shape->groups * blocks, run_task, &j);
}
