/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A correlation over NHWC as batch-reduce matrix products, without im2col:
 *   y(t, :) = sum over taps j of x(t * stride + first + j * step, :) * weights(j, :, :)
 *
 * A task is a block of images, of rows of the output grid and of panels of output channels, cut by shape alone. A tile
 * is up to mr pixels of one row, spread evenly. Nothing is padded: taps above and below the image are left out, and
 * those beside it are left out for the pixels of a tile that they would meet there. With neighbouring columns as taps,
 * the taps of one kernel row and their channels are one contiguous run of depth.
 *
 * Where the weights of the task fit into L2 beside all else, it walks the pixels once, all channels for each tile;
 * otherwise it walks the rows for one panel of nr output channels after the other (times a chunk of the depth such that
 * it stays in L2), and meanwhile brings the next panel into L2.
 *
 * x is read in place, but where the pixels of a tile would share a set of the L1 cache, from a copy at another stride.
 * With a 1x1 kernel the copy holds just the pixels that are needed, and tiles run on over the ends of rows.
 *
 * Cost: 2 * outputs * taps * in flops, less those of taps that lie outside.
 */
#include "correlate.h"

#include <math.h>

enum {
  MAX_REPEAT = 8,   /* tiles in a sequence */
  SHORT_DEPTH = 256 /* sums of so many products or fewer are over before the next tile is set up */
};

/* The runs of a tile, kept for the tiles below it, whose are the same but for where they begin. */
typedef struct run_list {
  lamina_conv_taps *runs;
  int64_t j0, j1, m0, rows; /* what they are for: rows of taps, pixels */
  int64_t count, depth;
} run_list;

enum { INNER, LEFT, RIGHT }; /* tiles by the edge that they touch */

/* What one task works on. */
typedef struct correlate_task {
  const correlate_job *job;
  conv_window window;
  run_list lists[CORRELATE_LISTS];
  int64_t group, n0, n1, t0, t1, panel0, panel1;
} correlate_task;

/* One phase in a task: its axes, and one chunk of its depth. */
typedef struct correlate_chunk {
  conv_axis h, w;
  int64_t kh0, kh1, in0, in1; /* rows of taps, input channels */
  const float *weights;       /* of the group's first panel */
  int64_t panel_floats;
  int collapse;
  const float *ahead, *ahead_end;   /* what comes next: weights, or a row of x */
  int64_t ahead_floats, ahead_more; /* its size, and how many panels after it have such a piece */
  int repeats;                      /* tiles without an edge are run several at once: short sums */
  int64_t inner_end;                /* pixels from which on some tap lies beside the image, at the right */
  int64_t tiles, tile_rows, larger; /* of a row: how many, of how many pixels, and how many of one more */
} correlate_chunk;

/* The window of a task: x itself, or a copy of what the task's rows reach. */
static conv_window open_window(const correlate_task *task, float *scratch) {
  const correlate_job *j = task->job;
  const correlation *c = j->c;
  const int64_t channel = task->group * c->in;
  if (!j->copy)
    return (conv_window){
        .data = c->x.data + task->n0 * c->x.image + channel, .image = c->x.image, .row = c->x.row, .pixel = c->x.pixel};
  const int64_t stride = correlate_row_stride(c);
  conv_region r = {.n0 = task->n0,
                   .n1 = task->n1,
                   .r0 = task->t0 * stride + j->first_row,
                   .row_step = j->compact ? stride : 1,
                   .c0 = j->c0,
                   .c1 = j->c1,
                   .column_step = j->compact ? correlate_stride(c) : 1,
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

/* Rows of a tile m0 .. m0 + rows that tap i of the columns meets inside: *first .. *last. */
static void inside(const conv_axis *w, int64_t size, int64_t i, int64_t m0, int64_t rows, int64_t *first,
                   int64_t *last) {
  const int64_t at = w->first + i * w->step;
  const int64_t from = at < 0 ? (-at + w->stride - 1) / w->stride : 0;
  const int64_t to = at < size ? (size - at + w->stride - 1) / w->stride : 0;
  *first = layer_max(from - m0, 0);
  *last = layer_min(to - m0, rows);
}

/* Fills in the list for its rows of taps and its pixels. */
static void list_runs(const correlate_task *task, const correlate_chunk *k, run_list *list) {
  const correlate_job *job = task->job;
  const int64_t in = job->c->in, nr = job->kernels->nr, taps = k->w.taps;
  lamina_conv_taps *run = list->runs;
  for (int64_t i = 0; i < taps && list->j0 < list->j1; i++) {
    int64_t first, last;
    inside(&k->w, job->c->in_w, i, list->m0, list->rows, &first, &last);
    if (first >= last) continue;
    const int64_t b = (list->j0 * taps + i) * in + k->in0;
    if (k->collapse && run > list->runs && run[-1].b + run[-1].k * nr == b * nr && run[-1].first == first &&
        run[-1].last == last) {
      run[-1].k += in;
      continue;
    }
    *run++ =
        (lamina_conv_taps){.a = list->j0 * k->h.step * task->window.row + i * k->w.step * task->window.pixel + k->in0,
                           .b = b * nr,
                           .k = k->in1 - k->in0,
                           .first = (int)first,
                           .last = (int)last};
  }
  /* The other rows of taps are like the first. */
  const int64_t each = run - list->runs;
  for (int64_t j = 1; j < list->j1 - list->j0; j++)
    for (int64_t i = 0; i < each; i++, run++) {
      *run = run[-each];
      run->a += k->h.step * task->window.row;
      run->b += taps * in * nr;
    }
  list->count = run - list->runs;
}

/* The list of a tile of `rows` pixels from m0, for rows j0 .. j1 of the taps. */
static const run_list *runs_of(correlate_task *task, const correlate_chunk *k, int64_t j0, int64_t j1, int64_t m0,
                               int64_t rows) {
  const correlate_job *job = task->job;
  const int compact = job->copy && job->compact;
  const int64_t at = m0 * k->w.stride + k->w.first, reach = (rows - 1) * k->w.stride + (k->w.taps - 1) * k->w.step;
  const int place = compact ? INNER : at < 0 ? LEFT : at + reach >= job->c->in_w ? RIGHT : INNER;
  run_list *list = &task->lists[place];
  if (list->j0 == j0 && list->j1 == j1 && list->rows == rows && (place == INNER || list->m0 == m0)) return list;
  *list = (run_list){.runs = list->runs, .j0 = j0, .j1 = j1, .m0 = m0, .rows = rows};
  if (compact) {
    list->runs[0] =
        (lamina_conv_taps){.a = k->in0, .b = k->in0 * job->kernels->nr, .k = k->in1 - k->in0, .last = (int)rows};
    list->count = 1;
  } else {
    list_runs(task, k, list);
  }
  for (int64_t r = 0; r < list->count; r++) list->depth += list->runs[r].k;
  return list;
}

/* Puts the tile at a panel, `columns` from the first one, and runs it. */
static void run_tile(const correlate_job *j, lamina_conv_tile *tile, const lamina_conv_tile *from, int64_t rows,
                     int64_t columns, const float *b, int64_t n) {
  tile->a = from->a;
  tile->b = b;
  tile->c = from->c + columns;
  tile->bias = from->bias ? from->bias + columns : NULL;
  tile->add = from->add ? from->add + columns : NULL;
  tile->n = (int)n;
  tile->repeat = from->repeat;
  int vectors = 1;
  while (vectors * j->kernels->vector < n) vectors++;
  j->kernels->tile[rows][vectors](tile);
}

/* Tiles of short sums for panels p0 .. p1, all of those that repeat for one panel after the other. What is written next
   is fetched meanwhile. */
static void run_short(const correlate_job *j, const correlate_chunk *k, int64_t p0, int64_t p1, int64_t rows,
                      lamina_conv_tile *tile) {
  const int64_t nr = j->kernels->nr;
  const lamina_conv_tile from = *tile;
  for (int64_t p = p0; p < p1; p++) {
    tile->prefetch = from.c + rows * from.c_row;
    run_tile(j, tile, &from, rows, (p - p0) * nr, k->weights + (p - p0) * k->panel_floats,
             layer_min(nr, j->c->out - p * nr));
  }
}

/* One tile for panels p0 .. p1; complete but for what depends on the panel, and at panel p0's channels. */
static void run_panels(const correlate_job *j, correlate_chunk *k, int64_t p0, int64_t p1, int64_t rows, int64_t depth,
                       lamina_conv_tile *tile) {
  const int64_t nr = j->kernels->nr, vector = j->kernels->vector;
  const lamina_conv_tile from = *tile;
  for (int64_t p = p0, panels; p < p1; p += panels) {
    const int64_t left = j->c->out - p * nr;
    panels = rows <= j->kernels->wide_rows && p + 1 < p1 && left > 2 * nr - vector ? 2 : 1;
    if (k->ahead >= k->ahead_end && k->ahead_more > 0) { /* a group's next panel */
      k->ahead_more--;
      k->ahead += k->panel_floats - k->ahead_floats;
      k->ahead_end += k->panel_floats;
    }
    tile->prefetch = k->ahead < k->ahead_end ? k->ahead : NULL;
    if (tile->prefetch) k->ahead += layer_min(depth * CONV_LINE, k->ahead_end - k->ahead);
    run_tile(j, tile, &from, rows, (p - p0) * nr, k->weights + (p - p0) * k->panel_floats,
             layer_min(left, panels * nr));
  }
}

/* One row of the grid (or, flattened, all of the task's): its tiles. */
static void run_row(correlate_task *task, correlate_chunk *k, int64_t n, int64_t t, int64_t p0, int64_t p1) {
  const correlate_job *j = task->job;
  const correlation *c = j->c;
  const conv_window *window = &task->window;
  const int compact = j->copy && j->compact;
  const int64_t channel = task->group * c->out + p0 * j->kernels->nr;
  int64_t v0 = 0, v1 = 1;
  if (!compact) valid_taps(&k->h, t, c->in_h, &v0, &v1);
  if (k->w.taps == 0) v1 = v0;
  const int64_t j0 = layer_max(v0, k->kh0), j1 = layer_max(layer_min(v1, k->kh1), j0);
  int first = v0 >= k->kh0 && v0 < k->kh1 && k->in0 == 0, last = v1 - 1 >= k->kh0 && v1 - 1 < k->kh1 && k->in1 == c->in;
  if (v0 >= v1) first = last = k->kh0 == 0 && k->in0 == 0; /* a sum of nothing, once */
  if (j0 >= j1 && !first) return;

  const int64_t step = compact ? 1 : k->w.stride, out_row = k->h.out_first + t * k->h.out_step;
  lamina_conv_tile tile = {.a_row = step * window->pixel,
                           .b_panel = k->panel_floats,
                           .c_row = k->w.out_step * c->y.pixel,
                           .accumulate = c->accumulate || !first,
                           .add_row = k->w.out_step * c->add.pixel,
                           .lo = last ? c->lo : -INFINITY,
                           .hi = last ? c->hi : INFINITY};
  const float *a = window->data + (n - task->n0) * window->image;
  if (compact)
    a += (t - task->t0) * window->row;
  else
    a += (t * k->h.stride + k->h.first - window->r0) * window->row + (k->w.first - window->c0) * window->pixel;
  float *y = c->y.data + n * c->y.image + out_row * c->y.row + k->w.out_first * c->y.pixel + channel;
  const float *add = last && c->add.data ? c->add.data + n * c->add.image + out_row * c->add.row +
                                               k->w.out_first * c->add.pixel + channel
                                         : NULL;
  const int64_t below = ((k->h.taps - 1) * k->h.step + k->h.stride) * window->row;
  for (int64_t i = 0, m0 = 0, m, repeat; i < k->tiles; i += repeat, m0 += repeat * m) {
    m = k->tile_rows + (i < k->larger);
    const run_list *list = runs_of(task, k, j0, j1, m0, m);
    tile.runs = list->count;
    tile.run = list->runs;
    tile.a = a + m0 * tile.a_row;
    tile.c = y + m0 * tile.c_row;
    tile.add = add ? add + m0 * tile.add_row : NULL;
    tile.bias = last && c->bias ? c->bias + channel : NULL;
    tile.repeat = repeat = 1;
    if (k->repeats && list == &task->lists[INNER]) {
      const int64_t alike = layer_min(i < k->larger ? k->larger - i : k->tiles - i, MAX_REPEAT);
      tile.repeat = repeat = layer_max(layer_min(alike, (k->inner_end - m0) / m), 1);
      run_short(j, k, p0, p1, m, &tile);
      continue;
    }
    if (j->sweep) { /* weights are in L2: of x, what the row below adds */
      k->ahead = tile.a + below;
      k->ahead_end = k->ahead + 1;
    }
    run_panels(j, k, p0, p1, m, list->depth, &tile);
  }
}

/* Whether output rows follow each other like the pixels of one row, for y and what is added to it. */
static int flat(const correlate_job *j) {
  const correlation *c = j->c;
  return j->copy && j->compact && c->y.row == j->count_w * c->y.pixel &&
         (!c->add.data || c->add.row == j->count_w * c->add.pixel);
}

static void run_chunk(correlate_task *task, correlate_chunk *k, int64_t p0, int64_t p1) {
  const correlate_job *j = task->job;
  const int compact = j->copy && j->compact, all = flat(j);
  const int64_t t1 = layer_min(task->t1, k->h.count), width = k->w.count * (all ? t1 - task->t0 : 1);
  const int64_t depth = (k->kh1 - k->kh0) * k->w.taps * (k->in1 - k->in0);
  if (width <= 0) return;
  k->tiles = lamina_conv_count_tiles(j, width, compact ? width : correlate_one_sided(j, k->w.stride), depth);
  k->tile_rows = width / k->tiles;
  k->larger = width % k->tiles;
  k->repeats = j->sweep && depth <= SHORT_DEPTH;
  const int64_t beyond = j->c->in_w - (k->w.first + (k->w.taps - 1) * k->w.step);
  k->inner_end = compact ? width : layer_min(layer_max(layer_ceil_div(beyond, k->w.stride), 0), width);
  for (int i = 0; i < CORRELATE_LISTS; i++) task->lists[i].rows = 0;
  for (int64_t n = task->n0; n < task->n1; n++)
    for (int64_t t = task->t0; t < (all ? task->t0 + 1 : t1); t++) run_row(task, k, n, t, p0, p1);
}

/* What the next chunk of these panels reads, or the first of the `next` panels that follow. */
static void find_ahead(correlate_chunk *k, int64_t nr, int64_t row_depth, int last, int64_t in_chunks, int64_t in,
                       int64_t panels, int64_t next) {
  const int64_t rows = in_chunks == 1 ? k->kh1 : k->kh0 + (k->in1 == in);
  k->ahead_floats = last && next == 0 ? 0 : (k->kh1 - k->kh0) * row_depth * nr;
  k->ahead = k->weights + (last ? panels * k->panel_floats : rows * row_depth * nr);
  k->ahead_end = k->ahead + k->ahead_floats;
  k->ahead_more = (last ? next : panels) - 1;
}

/* All chunks of a phase's depth for some panels. */
static void run_phase(correlate_task *task, int64_t phase, int64_t p0, int64_t p1) {
  const correlate_job *j = task->job;
  const correlation *c = j->c;
  const int64_t phase_h = phase / c->phases_w, phase_w = phase % c->phases_w, nr = j->kernels->nr;
  correlate_chunk k = {.h = lamina_conv_axis(&c->shape->h, c->backward, phase_h),
                       .w = lamina_conv_axis(&c->shape->w, c->backward, phase_w)};
  if (k.h.count <= 0 || k.w.count <= 0 || lamina_conv_phase_empty(c, &k.h, &k.w)) return;
  const int64_t row_depth = k.w.taps * c->in, depth = k.h.taps * row_depth;
  k.panel_floats = nr * depth;
  k.weights = c->weights + task->group * lamina_conv_packed_floats(c->shape, c->in, c->out) +
              lamina_conv_phase_offset(c, phase_h, phase_w) + p0 * k.panel_floats;
  int64_t row_chunks = 1, in_chunks = 1;
  if (!j->sweep) {
    row_chunks = layer_min(layer_max(layer_ceil_div(depth, j->max_depth), 1), layer_max(k.h.taps, 1));
    if (row_depth > j->max_depth) in_chunks = layer_min(layer_ceil_div(row_depth, j->max_depth), c->in);
  }
  k.collapse = in_chunks == 1 && k.w.step == 1 && task->window.pixel == c->in;
  for (int64_t i = 0; i < row_chunks; i++) {
    k.kh0 = part(k.h.taps, row_chunks, i);
    k.kh1 = part(k.h.taps, row_chunks, i + 1);
    for (int64_t channel = 0; channel < in_chunks; channel++) {
      k.in0 = part(c->in, in_chunks, channel);
      k.in1 = part(c->in, in_chunks, channel + 1);
      if (!j->sweep)
        find_ahead(&k, nr, row_depth, i + 1 == row_chunks && channel + 1 == in_chunks, in_chunks, c->in, p1 - p0,
                   layer_min(task->panel1 - p1, j->group));
      run_chunk(task, &k, p0, p1);
    }
  }
}

/* Rows of y that the task has finished: all phases of its part of the grid. */
static void finish_task(const correlate_task *task) {
  const correlation *c = task->job->c;
  const int64_t nr = task->job->kernels->nr, channel = task->panel0 * nr;
  const int64_t step = c->backward ? c->shape->h.stride : 1, rows = c->backward ? c->shape->h.in : c->shape->h.out;
  for (int64_t n = task->n0; n < task->n1; n++)
    lamina_conv_activate(c, n, task->t0 * step, layer_min(task->t1 * step, rows), task->group * c->out + channel,
                         layer_min(task->panel1 * nr, c->out) - channel);
}

static void run_task(void *arg, int64_t index, int thread) {
  const correlate_job *j = arg;
  const correlation *c = j->c;
  const int64_t image_blocks = layer_ceil_div(c->shape->images, j->images_block);
  char *memory = j->workspace + thread * lamina_conv_correlate_thread_bytes(j);
  correlate_task task = {.job = j};
  for (int i = 0; i < CORRELATE_LISTS; i++)
    task.lists[i].runs = (lamina_conv_taps *)(void *)(memory + i * j->run_bytes);
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
  task.window = open_window(&task, (float *)(void *)(memory + CORRELATE_LISTS * j->run_bytes));
  if (c->backward && !c->accumulate) {
    const int64_t channel = task.panel0 * j->kernels->nr, channels = layer_min(task.panel1 * j->kernels->nr, c->out);
    const conv_region part = {.n0 = task.n0,
                              .n1 = task.n1,
                              .r0 = task.t0,
                              .r1 = task.t1,
                              .channel = task.group * c->out + channel,
                              .count = channels - channel};
    lamina_conv_fill_empty(c, &part);
  }
  const int64_t step = j->sweep ? task.panel1 - task.panel0 : j->group;
  for (int64_t panel = task.panel0; panel < task.panel1; panel += step)
    for (int64_t phase = 0; phase < c->phases_h * c->phases_w; phase++)
      run_phase(&task, phase, panel, layer_min(panel + step, task.panel1));
  if (c->epilogue) finish_task(&task);
}

void lamina_conv_correlate(const correlation *c) {
  correlate_job j = lamina_conv_correlate_job(c);
  j.workspace = c->shape->node->workspace;
  const int64_t blocks = layer_ceil_div(c->shape->images, j.images_block) * j.row_blocks * j.panel_blocks;
  if (j.count_h > 0 && j.count_w > 0) c->shape->host->parallel(c->shape->host, c->shape->groups * blocks, run_task, &j);
}
