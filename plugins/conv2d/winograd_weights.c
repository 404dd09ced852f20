/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gradient of a 3x3 kernel of stride 1 by Winograd's algorithm read backwards (the transposed F(m x m, 3 x 3)):
 *   V = B^T d B and N = A dy A^T for each tile,  U(p) = sum over tiles of V(p)^T N(p),  dW = G^T U G.
 *
 * A task is a range of panels of output channels times a part of the blocks of tiles, cut by shape alone. For each
 * block it transforms x and its channels of dy, then goes through the points: a matrix product in x out with the tiles
 * as depth, added to U. Parts are added in their order after G^T U G, when there are several.
 *
 * Cost: points^2 / outputs^2 multiply-adds for a pixel and a pair of channels instead of 9; U goes through memory once
 * for each block, which is why blocks are large.
 */
#include "winograd.h"

#include <string.h>

enum { WEIGHTS_BLOCK = 112, MIN_CHANNELS = 64, MIN_TASKS = 8, MAX_SPLITS = 8, TASK_FLOPS = 4 << 20 };

typedef struct weights_job {
  winograd_job tiles;
  const conv_shape *s;
  conv_image dy;
  int64_t splits, task_panels;
  int64_t n_row, u_floats, g_floats, scratch;
  float *partials;
  char *memory;
} weights_job;

typedef struct weights_task {
  const weights_job *job;
  winograd_task tiles;
  int64_t panel0, panel1;
  float *u, *g, *scratch;
} weights_task;

static weights_job describe(const conv_shape *s, const correlation *c) {
  const int64_t l3 = (int64_t)s->host->cpu->l3 / (int64_t)sizeof(float), nr = s->kernels->gemm->nr;
  weights_job j = {.tiles = lamina_conv_winograd_cut(c, WEIGHTS_BLOCK, l3 / 16), .s = s};
  winograd_job *t = &j.tiles;
  const int64_t points = t->form->points * t->form->points;
  const double flops = 2.0 * (double)points * (double)t->tiles * (double)(s->in * s->out * s->groups);
  const int64_t wanted = layer_max(layer_min((int64_t)(flops / TASK_FLOPS), MIN_TASKS), 1);
  t->panel_blocks = layer_max(layer_min(layer_ceil_div(wanted, s->groups), s->out / MIN_CHANNELS), 1);
  j.splits = layer_ceil_div(wanted, s->groups * t->panel_blocks);
  j.splits = layer_max(layer_min(layer_min(j.splits, MAX_SPLITS), t->blocks), 1);
  j.task_panels = layer_ceil_div(t->panels, t->panel_blocks);
  j.n_row = winograd_odd_lines(j.task_panels * nr);
  t->m_point = winograd_odd_lines(t->block * j.n_row);
  t->m_floats = points * t->m_point;
  j.u_floats = round_up(points * s->in * nr * j.task_panels, CONV_LINE);
  j.g_floats = round_up(9 * s->in * nr, CONV_LINE);
  j.scratch = round_up(lamina_conv_pack_scratch(s), CONV_LINE);
  return j;
}

static int64_t thread_floats(const weights_job *j) {
  return j->tiles.v_floats + j->tiles.m_floats + j->tiles.zeros + j->u_floats + j->g_floats + j->scratch;
}

static int64_t partial_floats(const weights_job *j) {
  return j->splits > 1 ? j->s->groups * j->splits * j->tiles.panels * j->g_floats : 0;
}

size_t lamina_conv_winograd_weights_workspace(const conv_shape *s) {
  const correlation c = lamina_conv_forward_pass(s);
  const weights_job j = describe(s, &c);
  return (size_t)(partial_floats(&j) + thread_floats(&j) * s->host->threads(s->host)) * sizeof(float);
}

/* N = A dy A^T of the task's panels. */
static void transform_gradient(const weights_task *task) {
  const weights_job *j = task->job;
  const winograd_job *w = &j->tiles;
  const int outputs = w->form->outputs, points = w->form->points;
  const int64_t nr = w->gemm->nr, first = task->panel0 * nr, count = layer_min(task->panel1 * nr, j->s->out) - first;
  const float *dy[WINOGRAD_MAX_POINTS];
  for (int64_t i = 0; i < task->tiles.count; i++) {
    const winograd_tile *t = &task->tiles.tiles[i];
    const float *image = j->dy.data + t->n * j->dy.image + task->tiles.group * j->s->out + first;
    for (int r = 0; r < outputs; r++)
      for (int s = 0; s < outputs; s++)
        dy[r * outputs + s] =
            winograd_inside(w, t, r, s) ? image + (t->h + r) * j->dy.row + (t->w + s) * j->dy.pixel : task->tiles.zeros;
    w->form->output_transposed(count, dy, points - t->narrow_h, points - t->narrow_w, task->tiles.m + i * j->n_row,
                               w->m_point);
  }
}

/* U(p) (+)= V(p)^T N(p) over the block's tiles that have the point. */
static void multiply_point(const weights_task *task, int point, int first) {
  const weights_job *j = task->job;
  const winograd_job *w = &j->tiles;
  const int64_t nr = w->gemm->nr, in = j->s->in, points = w->form->points * w->form->points;
  int64_t row0, row1;
  lamina_conv_winograd_rows(&task->tiles, point, &row0, &row1);
  const float *a;
  lamina_tile tile = {.batch = 1,
                      .k = row1 - row0,
                      .a = &a,
                      .a_row = 1,
                      .a_k = w->v_row,
                      .b_k = j->n_row,
                      .c_row = nr,
                      .n = (int)nr,
                      .accumulate = !first,
                      .lo = -__builtin_inff(),
                      .hi = __builtin_inff()};
  const int64_t tiles = layer_ceil_div(in, w->gemm->mr);
  for (int64_t panel = task->panel0; panel < task->panel1; panel++) {
    float *u = task->u + ((panel - task->panel0) * points + point) * in * nr;
    if (row0 >= row1) {
      if (first) memset(u, 0, (size_t)(in * nr) * sizeof(float));
      continue;
    }
    tile.b = task->tiles.m + point * w->m_point + row0 * j->n_row + (panel - task->panel0) * nr;
    for (int64_t i = 0; i < tiles; i++) {
      const int64_t c0 = part(in, tiles, i), c1 = part(in, tiles, i + 1);
      a = task->tiles.v + point * w->v_point + row0 * w->v_row + c0;
      tile.c = u + c0 * nr;
      w->gemm->tile[c1 - c0](&tile);
    }
  }
}

static void unpack(const conv_shape *s, const float *g, int64_t partials, int64_t stride, int64_t group, int64_t panel,
                   float *scratch) {
  const conv_partial partial = {
      .data = g, .channels = s->in, .ld = s->kernels->gemm->nr, .partials = partials, .stride = stride};
  float *gradient = (float *)s->node->d_params[0].data + group * s->out * s->in * 9;
  lamina_conv_unpack_panel(s, &partial, 0, panel, (int)(s->node->accumulate_params & 1), gradient, scratch);
}

/* dW = G^T U G, to its place or to the partial gradients. */
static void finish_task(const weights_task *task, int64_t split) {
  const weights_job *j = task->job;
  const winograd_job *w = &j->tiles;
  const int64_t floats = j->s->in * w->gemm->nr, points = w->form->points * w->form->points;
  for (int64_t panel = task->panel0; panel < task->panel1; panel++) {
    float *g = task->g;
    if (j->splits > 1) g = j->partials + ((task->tiles.group * w->panels + panel) * j->splits + split) * j->g_floats;
    w->form->weights_transposed(floats, task->u + (panel - task->panel0) * points * floats, floats, g, floats);
    if (j->splits == 1) unpack(j->s, g, 1, 0, task->tiles.group, panel, task->scratch);
  }
}

static void run_task(void *arg, int64_t index, int thread) {
  const weights_job *j = arg;
  const winograd_job *w = &j->tiles;
  const int points = w->form->points * w->form->points;
  weights_task task = {.job = j, .tiles = {.job = w}};
  task.tiles.v = (float *)(void *)j->memory + thread * thread_floats(j);
  task.tiles.m = task.tiles.v + w->v_floats;
  task.tiles.zeros = task.tiles.m + w->m_floats;
  task.u = task.tiles.zeros + w->zeros;
  task.g = task.u + j->u_floats;
  task.scratch = task.g + j->g_floats;
  const int64_t panel_block = index % w->panel_blocks, split = index / w->panel_blocks % j->splits;
  task.tiles.group = index / w->panel_blocks / j->splits;
  task.panel0 = part(w->panels, w->panel_blocks, panel_block);
  task.panel1 = part(w->panels, w->panel_blocks, panel_block + 1);
  memset(task.tiles.zeros, 0, (size_t)w->zeros * sizeof(float));
  if (j->s->out % w->gemm->nr)
    memset(task.tiles.m, 0, (size_t)w->m_floats * sizeof(float)); /* lanes after the last channel */
  const int64_t begin = part(w->blocks, j->splits, split), end = part(w->blocks, j->splits, split + 1);
  for (int64_t block = begin; block < end; block++) {
    lamina_conv_winograd_list(&task.tiles, block);
    lamina_conv_winograd_input(&task.tiles, 0, task.tiles.count);
    transform_gradient(&task);
    for (int p = 0; p < points; p++) multiply_point(&task, p, block == begin);
  }
  finish_task(&task, split);
}

/* Adds up a panel's partial gradients. */
static void add_panel(void *arg, int64_t index, int thread) {
  const weights_job *j = arg;
  float *scratch = (float *)(void *)j->memory + thread * thread_floats(j);
  unpack(j->s, j->partials + index * j->splits * j->g_floats, j->splits, j->g_floats, index / j->tiles.panels,
         index % j->tiles.panels, scratch);
}

void lamina_conv_winograd_weights(const conv_shape *s) {
  const correlation c = lamina_conv_forward_pass(s);
  weights_job j = describe(s, &c);
  j.dy = lamina_conv_image(&s->node->d_outputs[0]);
  j.partials = s->node->workspace;
  j.memory = (char *)(j.partials + partial_floats(&j));
  s->host->parallel(s->host, s->groups * j.splits * j.tiles.panel_blocks, run_task, &j);
  if (j.splits > 1) layer_parallel(s->host, s->groups * j.tiles.panels, partial_floats(&j), add_panel, &j);
}
