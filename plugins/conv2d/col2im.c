/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gradient of x where x has few channels, as a network's first layer: dx as the columns of a tile would leave most
 * of a vector empty. Instead the columns are taps x channels: a matrix product gives, for each pixel of dy, its part in
 * every pixel of dx that it reaches, and these are added up where they overlap (col2im, Chellapilla et al. 2006), a few
 * pixels of dy at a time, in cache. The channels of neighbouring columns follow each other in dx, so that a row of taps
 * is one run.
 *
 * The rows of dx that a row of dy reaches are a ring of rows in a thread's memory, which begin as the bias or zero; a
 * row that no further row of dy reaches is written. Rows of dx are cut into blocks; rows of dy that reach two of them
 * are multiplied twice. The terms of an element are added in one order, that of the rows of dy.
 *
 * Cost: 2 * pixels of dy * out * taps * in flops, taps * in rounded up to vectors, and a load, an addition and a store
 * for each vector of taps * in.
 */
#include "conv2d.h"

#include <math.h>
#include <string.h>

enum {
  CHUNK_FLOATS = 8192, /* of products between two additions: in cache */
  MAX_TASKS = 16,
  MIN_SPANS = 8 /* rows of a block, in heights of the kernel */
};

typedef struct col2im_job {
  const correlation *c;
  const lamina_conv_kernels *kernels;
  int64_t span, row_floats;       /* rows of the ring; floats of a row */
  int64_t runs, length;           /* of a pixel's products: neighbours in dx */
  int64_t columns, ld, panels;    /* taps * channels, in memory, in panels */
  int64_t chunk;                  /* pixels of dy */
  int64_t rows_block, row_blocks; /* of dx */
  int64_t thread_floats;
  float *memory;
} col2im_job;

/* The columns from the left padding's to the last that is either inside or reached. */
static double row_columns(const conv_shape *s) {
  const double reached =
      (double)(s->w.out - 1) * (double)s->w.stride + (double)(s->w.kernel - 1) * (double)s->w.dilation + 1;
  return fmax((double)(s->w.in + s->w.pad), reached);
}

int lamina_conv_col2im_pays(const conv_shape *s) {
  const int64_t taps = s->h.kernel * s->w.kernel, vector = s->kernels->conv->vector;
  if (s->form || s->groups > 1 || taps < 2 || s->in >= vector || taps > CHUNK_FLOATS / s->in) return 0;
  const double span = (double)(s->h.kernel - 1) * (double)s->h.dilation + 1;
  if ((span + 1) * row_columns(s) * (double)s->in > (double)(s->host->cpu->l2 / 2 / sizeof(float))) return 0;
  /* An addition costs as much as a multiplication with a fraction of the outputs. */
  const int64_t vectors = layer_ceil_div(taps * s->in, vector),
                additions = s->h.kernel * layer_ceil_div(s->w.kernel * s->in, vector);
  return vectors * s->out + 4 * additions < taps * s->out;
}

static int64_t columns_of(const conv_shape *s) { return s->h.kernel * s->w.kernel * s->in; }

int64_t lamina_conv_backward_floats(const conv_shape *s) {
  if (!lamina_conv_col2im_pays(s)) return lamina_conv_packed_floats(s, s->out, s->in);
  return s->out * round_up(columns_of(s), s->kernels->gemm->nr);
}

lamina_status lamina_conv_col2im_pack(const conv_shape *s, float *packed) {
  const int64_t taps = s->h.kernel * s->w.kernel, columns = columns_of(s);
  const float *weight = s->node->params[0].data;
  const size_t bytes = (size_t)(s->out * columns) * sizeof(float);
  float *rows = s->host->alloc(s->host, bytes); /* (out, taps, in) */
  if (!rows)
    return s->host->fail(s->host, LAMINA_OUT_OF_MEMORY, "out of memory: %zu bytes to pack weights with", bytes);
  for (int64_t o = 0; o < s->out; o++)
    s->kernels->gemm->transpose(s->in, taps, weight + o * columns, taps, rows + o * columns, s->in);
  s->host->gemm_pack_b(s->host, s->out, columns, rows, columns, 1, NULL, packed);
  s->host->release(s->host, rows);
  return LAMINA_OK;
}

static col2im_job describe(const correlation *c) {
  const conv_shape *s = c->shape;
  col2im_job j = {.c = c, .kernels = s->kernels->conv, .columns = columns_of(s)};
  j.span = (s->h.kernel - 1) * s->h.dilation + 1;
  j.row_floats = round_up((int64_t)row_columns(s) * s->in, CONV_LINE) + LAMINA_CONV_SLACK;
  const int together = s->w.dilation == 1;
  j.runs = s->h.kernel * (together ? 1 : s->w.kernel);
  j.length = s->in * (together ? s->w.kernel : 1);
  j.ld = round_up(j.columns, j.kernels->vector);
  j.panels = layer_ceil_div(j.columns, j.kernels->nr);
  j.chunk = layer_min(layer_max(CHUNK_FLOATS / j.ld / j.kernels->mr, 1) * j.kernels->mr, s->w.out);
  const int64_t wanted = layer_ceil_div(MAX_TASKS, s->images);
  j.rows_block = layer_ceil_div(s->h.in, layer_max(layer_min(wanted, s->h.in / (MIN_SPANS * j.span)), 1));
  j.row_blocks = layer_ceil_div(s->h.in, j.rows_block);
  const int64_t pointers = round_up(2 * j.runs, CONV_LINE); /* a pointer takes two floats */
  j.thread_floats = (j.span + 1) * j.row_floats + round_up(j.chunk * j.ld + LAMINA_CONV_SLACK, CONV_LINE) + pointers;
  return j;
}

size_t lamina_conv_col2im_workspace(const correlation *c) {
  const col2im_job j = describe(c);
  return (size_t)(j.thread_floats * c->shape->host->threads(c->shape->host)) * sizeof(float);
}

typedef struct col2im_task {
  const col2im_job *job;
  int64_t n, r0, r1; /* rows of dx */
  int64_t next;      /* the first that is not written */
  float *ring, *blank, *products, **to;
} col2im_task;

static float *ring_row(const col2im_task *task, int64_t row) {
  return task->ring + (row - task->r0) % task->job->span * task->job->row_floats;
}

/* The products of `count` pixels of dy with all taps; the pixels after them are fetched on the way. */
static void multiply(const col2im_task *task, const float *dy, int64_t count) {
  const col2im_job *j = task->job;
  const correlation *c = j->c;
  const int64_t tiles = layer_ceil_div(count, j->kernels->mr);
  for (int64_t panel = 0; panel < j->panels; panel++) {
    const int64_t n = layer_min(j->ld - panel * j->kernels->nr, j->kernels->nr);
    for (int64_t i = 0; i < tiles; i++) {
      const int64_t m0 = part(count, tiles, i), rows = part(count, tiles, i + 1) - m0;
      const lamina_conv_taps run = {.k = c->in, .last = (int)rows};
      lamina_conv_tile tile = {.runs = 1,
                               .run = &run,
                               .a = dy + m0 * c->x.pixel,
                               .a_row = c->x.pixel,
                               .b = c->weights + panel * j->kernels->nr * c->in,
                               .c = task->products + m0 * j->ld + panel * j->kernels->nr,
                               .c_row = j->ld,
                               .n = (int)n,
                               .lo = -INFINITY,
                               .hi = INFINITY,
                               .prefetch = panel == 0 ? dy + (count + m0) * c->x.pixel : NULL,
                               .repeat = 1};
      j->kernels->tile[rows][n / j->kernels->vector](&tile);
    }
  }
}

/* A row of dy into the rows of the ring that it reaches. */
static void add_row(const col2im_task *task, int64_t row) {
  const col2im_job *j = task->job;
  const correlation *c = j->c;
  const conv_shape *s = c->shape;
  const float *dy = c->x.data + task->n * c->x.image + row * c->x.row;
  const int64_t across = j->runs / s->h.kernel;
  for (int64_t w0 = 0; w0 < s->w.out; w0 += j->chunk) {
    const int64_t count = layer_min(j->chunk, s->w.out - w0);
    multiply(task, dy + w0 * c->x.pixel, count);
    for (int64_t t = 0; t < j->runs; t++) {
      const int64_t r = row * s->h.stride - s->h.pad + t / across * s->h.dilation;
      const int64_t column = w0 * s->w.stride + t % across * s->w.dilation;
      task->to[t] = r >= task->r0 && r < task->r1 ? ring_row(task, r) + column * c->out : NULL;
    }
    j->kernels->overlap_add(&(lamina_conv_overlap){.rows = count,
                                                   .runs = j->runs,
                                                   .length = j->length,
                                                   .from = task->products,
                                                   .from_row = j->ld,
                                                   .to = task->to,
                                                   .to_row = s->w.stride * c->out});
  }
}

static void write_floats(const correlation *c, int64_t n, const float *from, const float *add, float *to) {
  const lamina_eltwise_kernels *e = c->shape->kernels->eltwise;
  if (add)
    e->add(n, from, add, c->lo, c->hi, to);
  else
    e->clamp(n, c->lo, c->hi, from, to);
}

/* Writes the rows of dx up to row `end`, and makes their places in the ring new. */
static void write_rows(col2im_task *task, int64_t end) {
  const col2im_job *j = task->job;
  const correlation *c = j->c;
  const int64_t width = c->shape->w.in, first = task->next;
  const conv_image *more = c->accumulate ? &c->y : &c->add;
  const int dense = c->y.pixel == c->out && (!more->data || more->pixel == c->out);
  for (int64_t row = first; row < end; row++) {
    float *from = ring_row(task, row), *to = c->y.data + task->n * c->y.image + row * c->y.row;
    const float *add = more->data ? more->data + task->n * more->image + row * more->row : NULL;
    for (int64_t i = 0; i < (dense ? 1 : width); i++)
      write_floats(c, dense ? width * c->out : c->out, from + (c->shape->w.pad + i) * c->out,
                   add ? add + i * more->pixel : NULL, to + i * c->y.pixel);
    memcpy(from, task->blank, (size_t)j->row_floats * sizeof(float));
  }
  lamina_conv_activate(c, task->n, first, layer_max(first, end), 0, c->out);
  task->next = layer_max(first, end);
}

static void run_task(void *arg, int64_t index, int thread) {
  const col2im_job *j = arg;
  const correlation *c = j->c;
  const conv_axis_shape *h = &c->shape->h;
  col2im_task task = {.job = j, .n = index / j->row_blocks, .r0 = index % j->row_blocks * j->rows_block};
  task.next = task.r0;
  task.r1 = layer_min(task.r0 + j->rows_block, h->in);
  task.ring = j->memory + thread * j->thread_floats;
  task.blank = task.ring + j->span * j->row_floats;
  task.products = task.blank + j->row_floats;
  task.to = (float **)(void *)(task.products + round_up(j->chunk * j->ld + LAMINA_CONV_SLACK, CONV_LINE));
  memset(task.blank, 0, (size_t)j->row_floats * sizeof(float));
  for (int64_t i = 0; c->bias && i < c->shape->w.in; i++)
    memcpy(task.blank + (c->shape->w.pad + i) * c->out, c->bias, (size_t)c->out * sizeof(float));
  for (int64_t r = 0; r < j->span; r++)
    memcpy(task.ring + r * j->row_floats, task.blank, (size_t)j->row_floats * sizeof(float));
  /* The rows of dy that reach rows r0 .. r1 of dx. */
  const int64_t below = task.r0 + h->pad - j->span + 1;
  const int64_t first = below > 0 ? layer_ceil_div(below, h->stride) : 0;
  const int64_t last = layer_min((task.r1 - 1 + h->pad) / h->stride + 1, h->out);
  for (int64_t row = first; row < last; row++) {
    write_rows(&task, layer_min(row * h->stride - h->pad, task.r1));
    add_row(&task, row);
  }
  write_rows(&task, task.r1);
}

void lamina_conv_col2im(const correlation *c) {
  const conv_shape *s = c->shape;
  col2im_job j = describe(c);
  j.memory = s->node->workspace;
  layer_parallel(s->host, s->images * j.row_blocks, s->images * s->h.out * s->w.out * j.columns, run_task, &j);
}
