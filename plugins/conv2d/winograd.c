/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A 3x3 correlation of stride 1 by Winograd's minimal filtering, F(2x2, 3x3) or F(4x4, 3x3) (kernels.h):
 *   1. V(p, tile, in) = B^T d B for the tiles of a block;
 *   2. for each panel of output channels: M(p, tile, out) = V(p) * U(p), a matrix product for each point p;
 *   3. y = A^T M A with its epilogue, for each tile of the panel.
 *
 * A task is a block of tiles (of any images) times a range of panels, cut by shape alone; V and M stay in L2. Where there
 * are so few tiles that panels are divided among tasks, V is made once for all of them, by tasks of their own. An axis
 * that tiles do not divide ends in narrow tiles, which leave the point of infinity out: 14 is 4 + 4 + 3 + 3. A block's
 * tiles are ordered such that those that have a point are neighbours, whichever the point. Pixels outside of the image
 * are read from zeros. U = G g G^T is made when weights are packed, [panel][p][in][nr].
 *
 * Cost: points^2 / outputs^2 multiply-adds for an output and a channel instead of 9 (4 for F(2x2), 2.25 for F(4x4)), and
 * some 150 operations for each tile and vector of channels on either side. V and M move through L2 once each; U is read
 * once for each block.
 */
#include "winograd.h"

#include <math.h>
#include <string.h>

enum {
  FORWARD_BLOCK = 64, /* tiles */
  INPUT_TILES = 4,    /* of a task that makes V alone */
  MIN_TASKS = 8,
  MAX_CHAIN = 256, /* products added up in one go: longer chains cost accuracy, which F(4x4) has less of than a direct sum */
  TASK_FLOPS = 2 << 20
};

int lamina_conv_winograd_possible(const conv_shape *s) {
  return s->h.kernel == 3 && s->w.kernel == 3 && s->h.stride == 1 && s->w.stride == 1 && s->h.dilation == 1 &&
         s->w.dilation == 1 && !s->depthwise;
}

/* Sums of few channels round so little that the transforms of F(4x4) would dominate (tests/test_winograd.c). */
int lamina_conv_winograd_accurate(const conv_shape *s, const lamina_winograd_form *form) {
  const int64_t least = s->node->mode == LAMINA_TRAIN ? layer_min(s->in, s->out) : s->in;
  return form->outputs == 2 || least >= 32;
}

int64_t lamina_conv_winograd_packed_floats(const conv_shape *s, int64_t in, int64_t out) {
  return s->form->points * s->form->points * in * round_up(out, s->kernels->gemm->nr);
}

static winograd_axis cut_axis(const conv_axis *axis, int64_t outputs) {
  winograd_axis a = {.count = axis->count, .tiles = layer_ceil_div(axis->count, outputs), .first = axis->first};
  a.whole = layer_max(a.count - a.tiles * (outputs - 1), 0);
  return a;
}

static int64_t tile_start(const winograd_axis *a, int64_t outputs, int64_t tile) {
  return tile * outputs - layer_max(tile - a->whole, 0);
}

static void set_blocks(winograd_job *j, int64_t blocks) {
  j->blocks = blocks;
  j->block = layer_ceil_div(j->tiles, layer_max(blocks, 1));
  j->v_point = winograd_odd_lines(j->block * j->v_row);
  j->v_floats = j->form->points * j->form->points * j->v_point;
}

winograd_job lamina_conv_winograd_cut(const correlation *c, int64_t most, int64_t floats) {
  const conv_shape *s = c->shape;
  winograd_job j = {.c = c, .gemm = s->kernels->gemm, .form = s->form};
  const conv_axis h = lamina_conv_axis(&s->h, c->backward, 0), w = lamina_conv_axis(&s->w, c->backward, 0);
  const int64_t points = j.form->points * j.form->points, mr = j.gemm->mr;
  j.h = cut_axis(&h, j.form->outputs);
  j.w = cut_axis(&w, j.form->outputs);
  j.v_row = winograd_odd_lines(c->in);
  const int64_t fit = layer_max(floats / (points * j.v_row), 2 * mr) / mr * mr;
  j.tiles = s->images * j.h.tiles * j.w.tiles;
  set_blocks(&j, layer_ceil_div(j.tiles, layer_min(layer_min(fit, most / mr * mr), layer_max(j.tiles, 1))));
  j.panels = layer_ceil_div(c->out, j.gemm->nr);
  j.zeros = round_up(layer_max(c->in, c->out), CONV_LINE);
  return j;
}

static winograd_job describe(const correlation *c) {
  const int64_t l2 = (int64_t)c->shape->host->cpu->l2 / (int64_t)sizeof(float);
  winograd_job j = lamina_conv_winograd_cut(c, FORWARD_BLOCK, l2 / 2);
  const int64_t points = j.form->points * j.form->points;
  j.panel_blocks = 1;
  const double flops = 2.0 * (double)points * (double)j.tiles * (double)(c->in * c->out * c->shape->groups);
  const int64_t wanted = layer_min((int64_t)(flops / TASK_FLOPS), MIN_TASKS), tasks = j.blocks * c->shape->groups;
  if (tasks < wanted && tasks * j.v_floats <= l2 / 4 * 3) {
    j.panel_blocks = layer_min(layer_ceil_div(wanted, tasks), j.panels);
    j.v_count = tasks;
  } else if (tasks < wanted) {
    int64_t even = 1;
    while (even < j.blocks) even *= 2;
    set_blocks(&j, even);
  }
  j.m_point = winograd_odd_lines(j.block * round_up(j.gemm->nr, CONV_LINE));
  j.m_floats = points * j.m_point;
  return j;
}

/* Tiles that have a point, out of all. */
static double rows_of(const winograd_axis *a, int last) { return (double)(last ? layer_min(a->whole, a->tiles) : a->tiles); }

/*
 * In vector multiply-adds: what a vector of weights costs is the larger of the rows that it is multiplied with and of the
 * time that it takes to arrive from where the weights live (cycles for a line of 64 bytes, measured on Zen 4 and Zen 5).
 */
static double weight_line(const lamina_cpu *cpu, double bytes) {
  if (bytes < (double)cpu->l2 / 2) return 1;
  return bytes < (double)cpu->l3 * 0.7 ? 3 : 10;
}

double lamina_conv_winograd_cost(const conv_shape *s, const lamina_winograd_form *form) {
  /* Multiply-adds of either transform, for each point and vector, and as many again for finding a tile's pixels; what a
     tile of the product costs beside its steps in depth, in such steps. */
  enum { TRANSFORM_FLOPS = 6, TILE_STEPS = 6 };
  conv_shape shape = *s;
  shape.form = form;
  const correlation c = lamina_conv_forward_pass(&shape);
  const winograd_job j = describe(&c);
  const double vector = s->host->cpu->vector_floats, in = (double)s->in, out = (double)s->out;
  const double weights = in * ceil(out / vector), points = form->points * form->points;
  const double bytes = 4 * in * out * (double)s->groups, images = (double)s->images;
  const double arrival = weight_line(s->host->cpu, bytes * points) * (double)j.blocks;
  double cost = 0;
  for (int p = 0; p < form->points * form->points; p++) {
    const double rows = images * rows_of(&j.h, p / form->points == form->points - 1) *
                        rows_of(&j.w, p % form->points == form->points - 1);
    cost += weights * (rows > arrival ? rows : arrival);
  }
  cost *= 1 + TILE_STEPS / in;
  const double lanes = ceil(in / vector) + 1 + ceil(out / vector) + (double)j.panels;
  cost += (double)j.tiles * points * TRANSFORM_FLOPS * lanes;
  const double pixels = images * (double)(s->h.out * s->w.out);
  return cost / (9 * weights * (1 + TILE_STEPS / (9 * in)) * (pixels > 3 ? pixels : 3));
}

/* Workspace: V of all blocks if they are made first, then for each thread V of its own if not, M and zeros. */
static int64_t shared_floats(const winograd_job *j) { return j->v_count * j->v_floats; }
static int64_t thread_floats(const winograd_job *j) {
  return (j->v_count ? 0 : j->v_floats) + j->m_floats + j->zeros;
}

size_t lamina_conv_winograd_workspace(const correlation *c) {
  const winograd_job j = describe(c);
  return (size_t)(shared_floats(&j) + thread_floats(&j) * c->shape->host->threads(c->shape->host)) * sizeof(float);
}

void lamina_conv_winograd_list(winograd_task *task, int64_t block) {
  static const int kinds[4][2] = {{0, 1}, {0, 0}, {1, 0}, {1, 1}};
  const winograd_job *j = task->job;
  const int64_t first = block * j->block, end = layer_min(first + j->block, j->tiles), outputs = j->form->outputs;
  task->count = 0;
  for (int kind = 0; kind < 4; kind++) {
    const int64_t before = task->count;
    int64_t w = first % j->w.tiles, h = first / j->w.tiles % j->h.tiles, n = first / j->w.tiles / j->h.tiles;
    for (int64_t i = first; i < end; i++) {
      const int narrow_h = h >= j->h.whole, narrow_w = w >= j->w.whole;
      if (narrow_h == kinds[kind][0] && narrow_w == kinds[kind][1])
        task->tiles[task->count++] =
            (winograd_tile){n, tile_start(&j->h, outputs, h), tile_start(&j->w, outputs, w), narrow_h, narrow_w};
      if (++w < j->w.tiles) continue;
      w = 0;
      if (++h < j->h.tiles) continue;
      h = 0;
      n++;
    }
    task->narrow[kinds[kind][0]][kinds[kind][1]] = task->count - before;
  }
}

void lamina_conv_winograd_rows(const winograd_task *task, int point, int64_t *row0, int64_t *row1) {
  const int last = task->job->form->points - 1;
  *row0 = 0;
  *row1 = task->count;
  if (point / (last + 1) == last) *row1 -= task->narrow[1][0] + task->narrow[1][1];
  if (point % (last + 1) == last) {
    *row0 = task->narrow[0][1];
    *row1 = layer_min(*row1, task->count - task->narrow[1][1]);
  }
}

void lamina_conv_winograd_input(const winograd_task *task, int64_t first, int64_t end) {
  const winograd_job *j = task->job;
  const correlation *c = j->c;
  const int points = j->form->points;
  const float *x[WINOGRAD_MAX_POINTS];
  for (int64_t i = first; i < end; i++) {
    const winograd_tile *t = &task->tiles[i];
    const int64_t h0 = t->h + j->h.first, w0 = t->w + j->w.first;
    const float *image = c->x.data + t->n * c->x.image + task->group * c->in;
    for (int r = 0; r < points; r++)
      for (int s = 0; s < points; s++) {
        const int64_t h = h0 + r, w = w0 + s;
        const int inside = h >= 0 && h < c->in_h && w >= 0 && w < c->in_w;
        x[r * points + s] = inside ? image + h * c->x.row + w * c->x.pixel : task->zeros;
      }
    j->form->input(c->in, x, points - t->narrow_h, points - t->narrow_w, task->v + i * j->v_row, j->v_point);
  }
}

/* M(p) = V(p) * U(p), n columns, for the tiles that have the point. While a tile of the product runs, it fetches what the
   next point multiplies with. */
static void multiply_point(const winograd_task *task, int point, int64_t n, const float *u, const float *next) {
  const winograd_job *j = task->job;
  const int64_t nr = j->gemm->nr, depth = j->c->in;
  int64_t row0, row1;
  lamina_conv_winograd_rows(task, point, &row0, &row1);
  if (row0 >= row1) return;
  const int64_t tiles = layer_ceil_div(row1 - row0, j->gemm->mr), lines = depth * nr / CONV_LINE;
  const int64_t chunks = layer_ceil_div(depth, MAX_CHAIN);
  const float *a;
  lamina_tile tile = {.batch = 1,
                      .a = &a,
                      .a_row = j->v_row,
                      .a_k = 1,
                      .b_k = nr,
                      .c_row = nr,
                      .n = (int)n,
                      .lo = -__builtin_inff(),
                      .hi = __builtin_inff()};
  for (int64_t i = 0; i < tiles; i++) {
    const int64_t m0 = row0 + part(row1 - row0, tiles, i), m1 = row0 + part(row1 - row0, tiles, i + 1);
    const float *v = task->v + point * j->v_point + m0 * j->v_row;
    tile.c = task->m + point * j->m_point + m0 * nr;
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
      const int64_t k0 = part(depth, chunks, chunk), line = i * depth + k0;
      tile.k = part(depth, chunks, chunk + 1) - k0;
      tile.accumulate = chunk > 0;
      tile.b = u + k0 * nr;
      a = v + k0;
      tile.prefetch = next && line < lines ? next + line * CONV_LINE : NULL;
      j->gemm->tile[m1 - m0](&tile);
    }
  }
}

static void transform_output(const winograd_task *task, int64_t panel) {
  const winograd_job *j = task->job;
  const correlation *c = j->c;
  const int outputs = j->form->outputs;
  const int64_t nr = j->gemm->nr, channel = task->group * c->out + panel * nr;
  const float *add[WINOGRAD_MAX_POINTS];
  float *y[WINOGRAD_MAX_POINTS];
  lamina_winograd_output o = {.channels = layer_min(nr, c->out - panel * nr),
                              .m_point = j->m_point,
                              .bias = c->bias ? c->bias + channel : NULL,
                              .add = c->add.data || c->accumulate ? add : NULL,
                              .y = y,
                              .lo = c->lo,
                              .hi = c->hi};
  for (int64_t i = 0; i < task->count; i++) {
    const winograd_tile *t = &task->tiles[i];
    for (int r = 0; r < outputs; r++)
      for (int s = 0; s < outputs; s++) {
        const int64_t h = t->h + r, w = t->w + s;
        const int64_t pixel = r * outputs + s;
        const int inside = winograd_inside(j, t, r, s);
        y[pixel] = inside ? c->y.data + t->n * c->y.image + h * c->y.row + w * c->y.pixel + channel : NULL;
        add[pixel] = y[pixel]; /* to accumulate */
        if (inside && c->add.data)
          add[pixel] = c->add.data + t->n * c->add.image + h * c->add.row + w * c->add.pixel + channel;
      }
    o.m = task->m + i * nr;
    o.rows = j->form->points - t->narrow_h;
    o.columns = j->form->points - t->narrow_w;
    j->form->output(&o);
    for (int p = 0; c->epilogue && p < outputs * outputs; p++)
      if (y[p]) layer_activate(c->epilogue, 1, o.channels, y[p], o.channels);
  }
}

/* The task's block of tiles, and where its part of the workspace is. */
static winograd_task open_task(const winograd_job *j, int64_t group, int64_t block, int thread) {
  winograd_task task = {.job = j, .group = group};
  float *own = (float *)(void *)j->workspace + shared_floats(j) + thread * thread_floats(j);
  task.v = j->v_count ? (float *)(void *)j->workspace + (group * j->blocks + block) * j->v_floats : own;
  task.m = j->v_count ? own : own + j->v_floats;
  task.zeros = task.m + j->m_floats;
  lamina_conv_winograd_list(&task, block);
  return task;
}

static void make_input(const winograd_task *task, int64_t first, int64_t end) {
  memset(task->zeros, 0, (size_t)task->job->zeros * sizeof(float));
  lamina_conv_winograd_input(task, first, end);
}

/* A part of V of one block, for all its tasks. */
static void input_task(void *arg, int64_t index, int thread) {
  const winograd_job *j = arg;
  const int64_t parts = layer_ceil_div(j->block, INPUT_TILES), block = index / parts;
  const winograd_task task = open_task(j, block / j->blocks, block % j->blocks, thread);
  make_input(&task, part(task.count, parts, index % parts), part(task.count, parts, index % parts + 1));
}

static void run_task(void *arg, int64_t index, int thread) {
  const winograd_job *j = arg;
  const correlation *c = j->c;
  const int64_t nr = j->gemm->nr, points = j->form->points * j->form->points;
  const int64_t panel_block = index % j->panel_blocks, block = index / j->panel_blocks;
  const winograd_task task = open_task(j, block / j->blocks, block % j->blocks, thread);
  if (!j->v_count) make_input(&task, 0, task.count);
  const float *group = c->weights + task.group * lamina_conv_winograd_packed_floats(c->shape, c->in, c->out);
  const int64_t end = part(j->panels, j->panel_blocks, panel_block + 1);
  for (int64_t panel = part(j->panels, j->panel_blocks, panel_block); panel < end; panel++) {
    const float *u = group + panel * points * c->in * nr;
    const int64_t n = layer_min(nr, round_up(c->out - panel * nr, c->shape->kernels->vector_floats));
    for (int p = 0; p < points; p++, u += c->in * nr)
      multiply_point(&task, p, n, u, p + 1 < points || panel + 1 < j->panels ? u + c->in * nr : NULL);
    transform_output(&task, panel);
  }
}

void lamina_conv_winograd(const correlation *c) {
  const lamina_host *host = c->shape->host;
  winograd_job j = describe(c);
  j.workspace = c->shape->node->workspace;
  host->parallel(host, j.v_count * layer_ceil_div(j.block, INPUT_TILES), input_task, &j);
  host->parallel(host, c->shape->groups * j.blocks * j.panel_blocks, run_task, &j);
}
