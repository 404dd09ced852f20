/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gradient of weight: dW(kh, kw, c, o) = sum over output pixels of x(pixel moved by the tap, c) * dy(pixel, o).
 *
 * As a matrix product its depth is the pixels, and NHWC has both operands in the order that a tile wants: a row of a
 * tile is an input channel (or a neighbouring one of the next tap of the kernel row), a column an output channel. The
 * pixels are cut into units (rows of an image, or several small images), whose part of x is copied with its padding
 * where it has any. For a unit each tile starts at zero and is then added to a partial gradient, which keeps chains of
 * additions short. Units are spread over a few partial gradients by shape alone; in the end these are added up in their
 * order and brought into PyTorch's order. Where there is one only, a task keeps its part in its own scratch and does so
 * itself, from L2.
 *
 * A 1x1 convolution whose pixels follow each other in memory is one row of pixels (`flat`): nothing is copied, since a
 * unit is so small that it and the next one, which the tiles fetch meanwhile, stay in L2 beside the partial gradient.
 *
 * Cost: 2 * pixels * taps * in * out flops; every unit reads and writes the partial gradient once.
 */
#include "weights.h"

#include <string.h>

enum { MIN_REUSE = 16 /* tiles that read a panel of dy, for which it is worth copying */ };

typedef struct weights_task {
  const weights_job *job;
  int64_t group, channel, count, panel0, panel1;
  const float **a;
  float *x_scratch, *dy_scratch, *pack_scratch;
  float *partial; /* at the task's first channel and panel */
  int64_t partial_channels, ld;
  int copy_x, copy_dy;
  int64_t n0, n1, t0, t1;               /* the unit */
  int first;                            /* the unit is the partial's first */
  const float *ahead[2], *ahead_end[2]; /* what the next unit will read of x and dy, a line at a time */
  /* In a row of pixels: columns of lines of them, the next unit's of x and of dy, and how many floats are left of each.
   */
  const float *column[2];
  int64_t columns[2];
  conv_window window;
} weights_task;

/* The unit's part of x: copied with its padding, or in place. */
static void open_unit(weights_task *task) {
  const weights_job *j = task->job;
  const conv_shape *s = j->s;
  const int64_t channel = task->group * s->in + task->channel;
  if (!task->copy_x) {
    task->window = (conv_window){
        .data = j->x.data + task->n0 * j->x.image + channel, .image = j->x.image, .row = j->x.row, .pixel = j->x.pixel};
    return;
  }
  const int64_t top = task->t0 * s->h.stride - s->h.pad;
  conv_region r = {.n0 = task->n0,
                   .n1 = task->n1,
                   .r0 = top,
                   .r1 = (task->t1 - 1) * s->h.stride - s->h.pad + (s->h.kernel - 1) * s->h.dilation + 1,
                   .row_step = j->compact ? s->h.stride : 1,
                   .c0 = j->c0,
                   .c1 = j->c1,
                   .column_step = j->compact ? s->w.stride : 1,
                   .channel = channel,
                   .count = task->count,
                   .h = s->h.in,
                   .w = s->w.in,
                   .pixel = task->count == j->channels ? j->pixel : task->count};
  if (!j->compact) { /* rows above and below are never read */
    r.r0 = layer_max(r.r0, 0);
    r.r1 = layer_max(layer_min(r.r1, s->h.in), r.r0);
  }
  task->window = lamina_conv_copy(&j->x, &r, task->x_scratch);
}

/* Some panels of dy, one after the other: together, since a pixel's part of a panel alone is too short a run to be
   fetched ahead. Pixels lie in the order (row, image, column): then the rows that a tap reaches are one run for all
   images; for 1x1 in that of memory. */
static void copy_dy(const weights_task *task, int64_t panel, int64_t panels) {
  const weights_job *j = task->job;
  const conv_shape *s = j->s;
  const int64_t nr = j->gemm->nr, images = task->n1 - task->n0, rows = task->t1 - task->t0, width = s->w.out;
  const int64_t first = panel * nr, n = layer_min(panels * nr, s->out - first);
  const float *from = j->dy.data + task->n0 * j->dy.image + task->t0 * j->dy.row + task->group * s->out + first;
  if ((images == 1 || (j->compact && j->dy.image == rows * j->dy.row)) && j->dy.row == width * j->dy.pixel) {
    j->gemm->pack_b(images * rows * width, n, from, j->dy.pixel, 1, NULL, task->dy_scratch);
    return;
  }
  float *to = task->dy_scratch;
  for (int64_t done = 0; done < n; done += nr)
    for (int64_t i = 0; i < images * rows; i++, to += width * nr) {
      const int64_t image = j->compact ? i / rows : i % images, row = j->compact ? i % rows : i / images;
      j->gemm->pack_b(width, layer_min(nr, n - done), from + image * j->dy.image + row * j->dy.row + done, j->dy.pixel,
                      1, NULL, to);
    }
}

/* Output rows of the unit whose tap kh lies inside. */
static void valid_rows(const weights_task *task, int64_t kh, int64_t *t0, int64_t *t1) {
  const conv_axis_shape *h = &task->job->s->h;
  *t0 = task->t0;
  *t1 = task->t1;
  if (task->job->compact && task->copy_x) return; /* its copy has zeros there */
  const int64_t at = kh * h->dilation - h->pad;   /* input row of output row 0 */
  if (at < 0) *t0 = layer_max(*t0, (-at + h->stride - 1) / h->stride);
  *t1 = layer_min(*t1, h->in > at ? (h->in - at + h->stride - 1) / h->stride : 0);
  if (*t1 < *t0) *t1 = *t0;
}

/* Sets the depth of a tile: where x begins for each row, and dy, in the panel's copy if there is one. `kw` moves the
   columns. */
static void gather(const weights_task *task, int64_t panel, const float *dy, int64_t kh, int64_t kw,
                   lamina_tile *tile) {
  const weights_job *j = task->job;
  const conv_shape *s = j->s;
  const conv_window *window = &task->window;
  const int64_t nr = j->gemm->nr, images = task->n1 - task->n0;
  const int in_order = j->compact && task->copy_x, by_row = task->copy_dy && !j->compact;
  int64_t t0, t1;
  if (j->flat) { /* one run */
    tile->batch = 1;
    tile->k = task->t1 - task->t0;
    tile->a_row = 1;
    tile->a_k = window->pixel;
    tile->b = j->dy.data + task->t0 * j->dy.pixel + panel * nr;
    tile->b_k = j->dy.pixel;
    task->a[0] = window->data + task->t0 * window->pixel;
    return;
  }
  valid_rows(task, kh, &t0, &t1);
  tile->batch = (t1 - t0) * images;
  tile->k = s->w.out;
  tile->a_row = 1;
  tile->a_k = (in_order ? 1 : s->w.stride) * window->pixel;
  if (task->copy_dy) {
    tile->b = dy + (t0 - task->t0) * images * s->w.out * nr;
    tile->b_k = nr;
    tile->b_batch = s->w.out * nr;
  } else {
    tile->b = j->dy.data + task->n0 * j->dy.image + t0 * j->dy.row + task->group * s->out + panel * nr;
    tile->b_k = j->dy.pixel;
    tile->b_batch = j->dy.row;
  }
  for (int64_t i = 0; i < tile->batch; i++) {
    const int64_t n = by_row ? i % images : i / (t1 - t0), t = t0 + (by_row ? i / images : i % (t1 - t0));
    if (in_order)
      task->a[i] = window->data + n * window->image + (t - task->t0) * window->row;
    else
      task->a[i] = window->data + n * window->image +
                   (t * s->h.stride - s->h.pad + kh * s->h.dilation - window->r0) * window->row +
                   (kw * s->w.dilation - s->w.pad - window->c0) * window->pixel;
  }
  /* Rows that follow each other in both are one run. */
  const int64_t run = tile->k * tile->a_k;
  for (int64_t i = 1; i < tile->batch; i++)
    if (task->a[i] - task->a[i - 1] != run) return;
  if (tile->batch > 1 && tile->b_batch == tile->k * tile->b_k) {
    tile->k *= tile->batch;
    tile->batch = 1;
  }
}

/* Memory of the next unit that a tile of so many steps fetches into L2, a line a step; NULL when all of it was. */
static const float *next_lines(weights_task *task, int64_t steps) {
  for (int i = 0; i < 2; i++) {
    const float *at = task->ahead[i];
    if (at >= task->ahead_end[i]) continue;
    task->ahead[i] += layer_min(steps * CONV_LINE, task->ahead_end[i] - at);
    return at;
  }
  return NULL;
}

/* What a tile fetches into L2, a line a step. */
static void fetch_ahead(weights_task *task, int64_t steps, lamina_tile *tile) {
  const weights_job *j = task->job;
  tile->prefetch = next_lines(task, steps);
  tile->prefetch_step = 0;
  for (int i = 0; i < 2 && !tile->prefetch; i++) {
    if (task->columns[i] <= 0) continue;
    tile->prefetch = task->column[i];
    tile->prefetch_step = i == 0 ? j->x.pixel : j->dy.pixel;
    task->column[i] += CONV_LINE;
    task->columns[i] -= CONV_LINE;
  }
}

/* The run of memory from the first to the last pixel of an image's rows that the unit after this one reads. */
static void look_ahead(weights_task *task, int64_t unit) {
  const weights_job *j = task->job;
  const conv_shape *s = j->s;
  const int64_t n0 = unit / j->row_units * j->images_unit, n1 = layer_min(n0 + j->images_unit, s->images);
  const int64_t t0 = unit % j->row_units * j->rows_unit, t1 = layer_min(t0 + j->rows_unit, s->h.out);
  if (j->flat) {
    task->column[0] = j->x.data + t0 * j->x.row + task->channel;
    task->column[1] = j->dy.data + t0 * j->dy.row + task->panel0 * j->gemm->nr;
    task->columns[0] = task->count == s->in ? 0 : task->count;
    task->columns[1] = task->panel1 - task->panel0 == j->panels ? 0 : (task->panel1 - task->panel0) * j->gemm->nr;
  }
  const int64_t r0 = layer_max(t0 * s->h.stride - s->h.pad, 0), r1 = layer_min(t1 * s->h.stride - s->h.pad, s->h.in);
  if (r1 > r0 && task->count == s->groups * s->in) {
    task->ahead[0] = j->x.data + n0 * j->x.image + r0 * j->x.row;
    task->ahead_end[0] = j->x.data + (n1 - 1) * j->x.image + r1 * j->x.row;
  }
  if (task->panel1 - task->panel0 == j->panels && s->groups == 1) {
    task->ahead[1] = j->dy.data + n0 * j->dy.image + t0 * j->dy.row;
    task->ahead_end[1] = j->dy.data + (n1 - 1) * j->dy.image + t1 * j->dy.row;
  }
}

/* `rows` rows of the gradient, neighbours in x, from row `row` of the partial on. */
static void run_rows(weights_task *task, lamina_tile *tile, int64_t rows, float *c) {
  const weights_job *j = task->job;
  const int64_t tiles = layer_ceil_div(rows, j->gemm->mr);
  int64_t done = 0;
  for (int64_t i = 0; i < tiles; i++) {
    const int64_t m0 = part(rows, tiles, i), m1 = part(rows, tiles, i + 1);
    for (int64_t b = 0; b < tile->batch; b++) task->a[b] += m0 - done;
    done = m0;
    tile->c = c + m0 * task->ld;
    fetch_ahead(task, tile->batch * tile->k, tile);
    j->gemm->tile[m1 - m0](tile);
  }
}

static void run_panel(weights_task *task, int64_t panel, const float *dy) {
  const weights_job *j = task->job;
  const conv_shape *s = j->s;
  const int64_t nr = j->gemm->nr;
  lamina_tile tile = {.a = task->a,
                      .c_row = task->ld,
                      .n = (int)(task->copy_dy ? nr : layer_min(nr, s->out - panel * nr)),
                      .accumulate = !task->first,
                      .lo = -__builtin_inff(),
                      .hi = __builtin_inff()};
  /* The columns of a kernel row and their channels are one run, both in x and in the gradient. */
  const int run = s->w.dilation == 1 && task->window.pixel == s->in && task->count == s->in;
  for (int64_t kh = 0; kh < s->h.kernel; kh++)
    for (int64_t kw = 0; kw < (run ? 1 : s->w.kernel); kw++) {
      gather(task, panel, dy, kh, kw, &tile);
      if (tile.batch == 0 && !task->first) continue;
      float *c =
          task->partial + (kh * s->w.kernel + kw) * task->partial_channels * task->ld + (panel - task->panel0) * nr;
      run_rows(task, &tile, run ? s->w.kernel * s->in : task->count, c);
    }
}

static void run_unit(weights_task *task) {
  const weights_job *j = task->job;
  const int64_t pixels = (task->n1 - task->n0) * (task->t1 - task->t0) * j->s->w.out;
  for (int64_t panel = task->panel0; panel < task->panel1; panel += j->dy_panels) {
    const int64_t panels = layer_min(j->dy_panels, task->panel1 - panel);
    if (task->copy_dy) copy_dy(task, panel, panels);
    for (int64_t i = 0; i < panels; i++) run_panel(task, panel + i, task->dy_scratch + i * pixels * j->gemm->nr);
  }
}

/* Whether tiles had better read copies. */
static void choose_copies(weights_task *task) {
  const weights_job *j = task->job;
  const conv_shape *s = j->s;
  if (j->flat) return; /* both are in L2 when they are read */
  const int inside = s->w.pad == 0 && j->c1 <= s->w.in && s->h.pad == 0 &&
                     (s->h.out - 1) * s->h.stride + (s->h.kernel - 1) * s->h.dilation < s->h.in;
  task->copy_x = !inside || task->count != s->in || s->groups > 1 || (j->compact && s->h.stride * s->w.stride > 1);
  const int64_t reuse = s->h.kernel * layer_ceil_div(s->w.kernel * task->count, j->gemm->mr);
  const int one_run = j->images_unit == 1 || (s->h.kernel == 1 && inside && j->dy.image == s->h.out * j->dy.row);
  const int spread = j->dy.pixel % 512 == 0 && reuse >= MIN_REUSE / 2; /* lines that share a few cache sets */
  task->copy_dy = s->out % j->gemm->nr != 0 || reuse >= MIN_REUSE || spread || !one_run;
}

/* Writes a panel's gradient, of channels `first` and up. */
static void unpack(const weights_job *j, const conv_partial *partial, int64_t group, int64_t first, int64_t panel,
                   float *scratch) {
  const conv_shape *s = j->s;
  float *gradient = (float *)s->node->d_params[0].data + group * s->out * s->in * s->h.kernel * s->w.kernel;
  lamina_conv_unpack_panel(s, partial, first, panel, s->node->accumulate_params & 1, gradient, scratch);
}

static void run_task(void *arg, int64_t index, int thread) {
  const weights_job *j = arg;
  const conv_shape *s = j->s;
  char *memory = j->memory + thread * lamina_conv_weights_thread_bytes(j);
  weights_task task = {.job = j, .a = (const float **)(void *)memory};
  task.x_scratch = (float *)(void *)(memory + j->pointers * (int64_t)sizeof(float *));
  task.dy_scratch = task.x_scratch + j->x_floats;
  const int64_t panel_block = index % j->panel_blocks;
  index /= j->panel_blocks;
  task.channel = index % j->channel_blocks * j->channels;
  task.count = layer_min(j->channels, s->in - task.channel);
  index /= j->channel_blocks;
  const int64_t split = index % j->splits;
  task.group = index / j->splits;
  task.panel0 = part(j->panels, j->panel_blocks, panel_block);
  task.panel1 = part(j->panels, j->panel_blocks, panel_block + 1);
  task.pack_scratch = task.dy_scratch + j->dy_floats;
  if (j->splits == 1) {
    task.partial = task.pack_scratch + j->pack_floats;
    task.partial_channels = task.count;
    task.ld = (task.panel1 - task.panel0) * j->gemm->nr;
  } else {
    task.partial = j->partials + (task.group * j->splits + split) * j->partial_floats + task.channel * j->ld +
                   task.panel0 * j->gemm->nr;
    task.partial_channels = s->in;
    task.ld = j->ld;
  }
  choose_copies(&task);
  const int64_t begin = part(j->units, j->splits, split), end = part(j->units, j->splits, split + 1);
  for (int64_t unit = begin; unit < end; unit++) {
    task.first = unit == begin;
    task.n0 = unit / j->row_units * j->images_unit;
    task.n1 = layer_min(task.n0 + j->images_unit, s->images);
    task.t0 = unit % j->row_units * j->rows_unit;
    task.t1 = layer_min(task.t0 + j->rows_unit, s->h.out);
    open_unit(&task);
    if (unit + 1 < end) look_ahead(&task, unit + 1);
    run_unit(&task);
  }
  for (int64_t panel = task.panel0; j->splits == 1 && panel < task.panel1; panel++) {
    const float *from = task.partial + (panel - task.panel0) * j->gemm->nr;
    unpack(j, &(conv_partial){.data = from, .channels = task.count, .ld = task.ld, .partials = 1}, task.group,
           task.channel, panel, task.pack_scratch);
  }
}

/* Adds up a panel's partial gradients. */
static void finish_panel(void *arg, int64_t index, int thread) {
  const weights_job *j = arg;
  const int64_t panel = index % j->panels, group = index / j->panels;
  const float *from = j->partials + group * j->splits * j->partial_floats + panel * j->gemm->nr;
  float *scratch = (float *)(void *)(j->memory + thread * lamina_conv_weights_thread_bytes(j));
  unpack(j,
         &(conv_partial){
             .data = from, .channels = j->s->in, .ld = j->ld, .partials = j->splits, .stride = j->partial_floats},
         group, 0, panel, scratch);
}

static void weight_gradient(const conv_shape *shape) {
  const conv_shape cut = lamina_conv_weights_shape(shape), *s = &cut;
  weights_job j = lamina_conv_weights_job(s);
  j.partials = s->node->workspace;
  j.memory = (char *)(j.partials + lamina_conv_weights_partials(&j));
  s->host->parallel(s->host, s->groups * j.splits * j.channel_blocks * j.panel_blocks, run_task, &j);
  if (j.splits > 1)
    layer_parallel(s->host, s->groups * j.panels, s->groups * j.splits * j.partial_floats, finish_panel, &j);
}

lamina_status lamina_conv_backward_weights(const conv_shape *s) {
  const lamina_node *node = s->node;
  if (node->need_params & 1) {
    if (s->form)
      lamina_conv_winograd_weights(s);
    else if (lamina_conv_depthwise_gradients(s))
      lamina_conv_depthwise_backward_weights(s);
    else
      weight_gradient(s);
  }
  if ((node->need_params >> 1 & 1) && node->params[1].rank >= 0)
    lamina_column_sum(s->host, s->kernels, s->images * s->h.out * s->w.out, s->groups * s->out, node->d_outputs[0].data,
                      node->d_outputs[0].stride[2], node->accumulate_params >> 1 & 1, node->d_params[1].data,
                      node->workspace);
  return LAMINA_OK;
}
