/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One input channel for each group. Forward and the gradient of x walk down the rows of a block of channels of one
 * image (kernels.h, depthwise); the weights are packed in blocks of 16 channels, the taps of a block after each other.
 * With several outputs for each group forward repeats the channels of x in a copy of the rows that a task needs;
 * gradients are then those of any convolution.
 */
#include "conv2d.h"

#include <math.h>
#include <string.h>

enum {
  BLOCK = LAMINA_DEPTHWISE_BLOCK,
  TILE = 4, /* rows of Winograd's */
  MAX_TASKS = 64,
  COPY_CHANNELS = 64, /* of a task that repeats channels */
  TASK_FMAS = 1 << 18,
  GROUPED_TASK_FMAS = 1 << 20, /* which start slowly: nothing of their first rows has been prefetched */
  MIN_ROWS = 4,    /* of a task: each one reads again what lies above and below */
  FAR_MIN_ROWS = 14 /* the same where all of them come from memory */
};

static int64_t taps_of(const conv_shape *s) { return s->h.kernel * s->w.kernel; }
/* For each pair of channels. */
static int64_t weights_of(const conv_shape *s) { return s->tiled ? LAMINA_DEPTHWISE_TILE_TAPS : taps_of(s); }

/* Whether the gradient of x, which has several phases, is computed for all of them at once. */
static int scatters(const conv_shape *s, const correlation *c) {
  if (!c->backward || s->in > 1 || s->out > 1 || c->phases_h * c->phases_w == 1) return 0;
  const conv_axis h = lamina_conv_axis(&s->h, 0, 0), w = lamina_conv_axis(&s->w, 0, 0);
  const lamina_depthwise d = {.group = 1,
                              .h = lamina_conv_depthwise_axis(&h, s->h.out),
                              .w = lamina_conv_depthwise_axis(&w, s->w.out)};
  return s->kernels->depthwise->scatters(&d);
}

/* A pass over one phase's grid; all of them together for the gradient of x. */
typedef struct depthwise_job {
  correlation c;
  int64_t channels, channels_block, channel_blocks;
  int64_t rows, rows_block, row_blocks;
  int scatter; /* the gradient of x without phases: rows are its own */
  int far; /* x and y are larger than the caches near a core */
  int64_t copy_floats; /* of a thread: rows of x with each channel repeated, or none */
  float *copies;
} depthwise_job;

/* Whether x and y are so large that they come from afar, and a task should walk through all channels of a pixel. */
static int is_far(const conv_shape *s) {
  const double x = (double)(s->images * s->h.in * s->w.in) * (double)(s->groups * s->in);
  const double y = (double)(s->images * s->h.out * s->w.out) * (double)(s->groups * s->out);
  return (x + y) * sizeof(float) > 4 * (double)s->host->cpu->l2;
}

/* Cut by shape: images, then channels, which share nothing but cache lines, then rows; what is far by rows alone. */
static depthwise_job cut_up(const conv_shape *s, const correlation *c) {
  depthwise_job j = {.c = *c, .channels = s->groups * s->out};
  const int64_t lines = layer_ceil_div(j.channels, BLOCK), grid_h = c->backward ? s->h.in : s->h.out;
  j.scatter = scatters(s, c);
  j.rows = layer_ceil_div(grid_h, c->backward && !j.scatter ? s->h.stride : 1);
  const double fmas = (double)(s->images * j.channels * taps_of(s) * s->in) * (double)(s->h.out * s->w.out);
  const double task = s->in > 1 ? GROUPED_TASK_FMAS : TASK_FMAS;
  const int64_t wanted = fmas >= MAX_TASKS * task ? MAX_TASKS : layer_max((int64_t)(fmas / task), 1);
  const int copies = s->in == 1 && s->out > 1 && !c->backward;
  j.far = is_far(s) && s->in > 1;
  int64_t blocks = j.far || j.scatter ? 1 : layer_min(layer_ceil_div(wanted, s->images), lines);
  j.channels_block = layer_ceil_div(lines, blocks) * BLOCK;
  if (copies) j.channels_block = layer_min(j.channels_block, COPY_CHANNELS);
  j.channel_blocks = layer_ceil_div(j.channels, j.channels_block);
  blocks = layer_ceil_div(wanted, s->images * j.channel_blocks);
  blocks = layer_max(layer_min(blocks, j.rows / (j.far ? FAR_MIN_ROWS : MIN_ROWS)), 1);
  if (copies) {
    const int64_t fit = (int64_t)s->host->cpu->l2 / 2 / (int64_t)sizeof(float) / (s->w.in * j.channels_block);
    const int64_t span = (s->h.kernel - 1) * s->h.dilation;
    const int64_t rows = layer_max((fit - span) / s->h.stride, MIN_ROWS);
    blocks = layer_max(blocks, layer_ceil_div(j.rows, rows));
    j.rows_block = layer_ceil_div(j.rows, blocks);
    j.copy_floats = layer_min((j.rows_block - 1) * s->h.stride + span + 1, s->h.in) * s->w.in * j.channels_block;
    j.copy_floats = round_up(j.copy_floats, CONV_LINE);
  }
  j.rows_block = layer_ceil_div(j.rows, blocks);
  if (s->tiled) j.rows_block = round_up(j.rows_block, TILE);
  j.row_blocks = layer_ceil_div(j.rows, j.rows_block);
  return j;
}

/* The copies of forward. */
size_t lamina_conv_depthwise_workspace(const conv_shape *s) {
  const correlation c = lamina_conv_forward_pass(s);
  return (size_t)(cut_up(s, &c).copy_floats * s->host->threads(s->host)) * sizeof(float);
}

int64_t lamina_conv_depthwise_floats(const conv_shape *s) {
  return weights_of(s) * s->in * round_up(s->groups * s->out, BLOCK);
}

/* The taps of one phase, behind `taps` of others, in its order. */
static void pack_phase(const conv_shape *s, const conv_axis *h, const conv_axis *w, const float *scale, float *packed) {
  const float *weight = s->node->params[0].data;
  const int64_t taps = h->taps * w->taps, channels = s->groups * s->out;
  for (int64_t i = 0; i < channels * s->in; i++) { /* output channel c, input channel k of its group */
    const int64_t c = i / s->in, k = i % s->in;
    float *to = packed + (c / BLOCK * s->in * (s->tiled ? weights_of(s) : taps) + k * taps) * BLOCK + c % BLOCK;
    for (int64_t t = 0; t < taps; t++) {
      const int64_t kh = h->k_first + t / w->taps * h->k_step, kw = w->k_first + t % w->taps * w->k_step;
      to[t * BLOCK] = weight[(i * s->h.kernel + kh) * s->w.kernel + kw] * (scale ? scale[c] : 1.0f);
    }
  }
}

/* Transforms the taps of each block of channels, which stand where the points will. */
static void pack_tiles(const conv_shape *s, float *packed) {
  float taps[9 * BLOCK * BLOCK];
  const int64_t blocks = layer_ceil_div(s->groups * s->out, BLOCK);
  for (int64_t i = 0; i < blocks; i++, packed += s->in * weights_of(s) * BLOCK) {
    memcpy(taps, packed, (size_t)(s->in * 9 * BLOCK) * sizeof *taps);
    s->kernels->depthwise->winograd_weights(s->in, taps, packed);
  }
}

/* Calls for each phase of a pass with the place of its weights. */
static void pack_pass(const conv_shape *s, const correlation *c, const float *scale, float *packed) {
  for (int64_t i = 0; i < c->phases_h; i++)
    for (int64_t k = 0; k < c->phases_w; k++) {
      const conv_axis h = lamina_conv_axis(&s->h, c->backward, i), w = lamina_conv_axis(&s->w, c->backward, k);
      pack_phase(s, &h, &w, scale, packed);
      packed += h.taps * w.taps * round_up(s->groups * s->out, BLOCK);
    }
}

void lamina_conv_depthwise_pack(const conv_shape *s) {
  const lamina_epilogue *e = &s->node->epilogue;
  float *packed = s->node->packed;
  const correlation forward = lamina_conv_forward_pass(s), backward = lamina_conv_backward_data_pass(s);
  memset(packed, 0, (size_t)lamina_conv_depthwise_floats(s) * sizeof(float));
  pack_pass(s, &forward, e->parts & LAMINA_EPILOGUE_AFFINE ? e->scale : NULL, packed);
  if (s->tiled)
    pack_tiles(s, packed);
  else if (s->in > 1)
    s->kernels->depthwise->group_weights(s->in, lamina_conv_depthwise_floats(s), packed);
  if (!s->backward || !lamina_conv_depthwise_gradients(s)) return;
  memset(packed + s->backward, 0, (size_t)lamina_conv_depthwise_floats(s) * sizeof(float));
  pack_pass(s, scatters(s, &backward) ? &forward : &backward, NULL, packed + s->backward);
}

lamina_depthwise_axis lamina_conv_depthwise_axis(const conv_axis *axis, int64_t in) {
  return (lamina_depthwise_axis){
      .in = in, .taps = axis->taps, .stride = axis->stride, .first = axis->first, .step = axis->step};
}

int lamina_conv_depthwise_groups(const conv_shape *s) {
  if (s->in < 2 || s->in != s->out || s->groups < 2 || s->in > BLOCK || s->in > s->kernels->vector_floats) return 0;
  const conv_axis h = lamina_conv_axis(&s->h, 0, 0), w = lamina_conv_axis(&s->w, 0, 0);
  const lamina_depthwise d = {.group = s->in, .h = lamina_conv_depthwise_axis(&h, s->h.in), .w = lamina_conv_depthwise_axis(&w, s->w.in)};
  return s->kernels->depthwise->grouped(&d);
}

int lamina_conv_depthwise_tiles(const conv_shape *s) {
  return s->h.kernel == 3 && s->w.kernel == 3 && s->h.stride == 1 && s->w.stride == 1 && s->h.dilation == 1 &&
         s->w.dilation == 1 && lamina_conv_depthwise_groups(s);
}

double lamina_conv_depthwise_tiled_cost(const conv_shape *s) {
  /* Vector operations of the transforms of a column of a tile: loads, stores and sums. */
  enum { TRANSFORMS = 40 };
  const double tiles = (double)layer_ceil_div(s->h.out, TILE), in = (double)s->in;
  return tiles * (18 * in + TRANSFORMS) / ((double)s->h.out * 9 * in);
}

/* Rows r0 .. r1 of x, channels first .. first + count of the output, each one that of its group's input. */
static const float *repeat_channels(const depthwise_job *j, const lamina_depthwise *d, int64_t r0, int64_t r1,
                                    int64_t first, float *copy) {
  const int64_t out = j->c.out, width = d->w.in;
  float *to = copy;
  for (int64_t r = r0; r < r1; r++)
    for (int64_t q = 0; q < width; q++, to += d->channels) {
      const float *from = d->x + r * d->x_row + q * d->x_pixel;
      int64_t group = first / out, k = first % out;
      for (int64_t c = 0; c < d->channels; c++) {
        to[c] = from[group];
        if (++k == out) k = 0, group++;
      }
    }
  return copy;
}

/* Rows row0 .. row1 of a phase's grid. */
static void run_phase(const depthwise_job *j, const lamina_depthwise *whole, const conv_axis *h, const conv_axis *w,
                      int64_t row0, int64_t row1) {
  const correlation *c = &j->c;
  lamina_depthwise d = *whole;
  row1 = layer_min(row1, h->count);
  if (row0 >= row1 || w->count <= 0) return;
  d.columns = w->count;
  d.h = lamina_conv_depthwise_axis(h, c->in_h);
  d.w = lamina_conv_depthwise_axis(w, c->in_w);
  d.y += h->out_first * c->y.row + w->out_first * c->y.pixel;
  if (d.add) d.add += h->out_first * c->add.row + w->out_first * c->add.pixel;
  d.y_row = h->out_step * c->y.row;
  d.y_pixel = w->out_step * c->y.pixel;
  d.add_row = h->out_step * c->add.row;
  d.add_pixel = w->out_step * c->add.pixel;
  const lamina_depthwise_kernels *kernels = c->shape->kernels->depthwise;
  (c->shape->tiled ? kernels->winograd : kernels->forward)(&d, row0, row1);
}

/* Rows row0 .. row1 of the gradient of x. */
static void run_scatter(const depthwise_job *j, const lamina_depthwise *whole, int64_t row0, int64_t row1) {
  const correlation *c = &j->c;
  const conv_shape *s = c->shape;
  const conv_axis h = lamina_conv_axis(&s->h, 0, 0), w = lamina_conv_axis(&s->w, 0, 0);
  lamina_depthwise d = *whole;
  d.columns = s->w.in;
  d.h = lamina_conv_depthwise_axis(&h, s->h.out);
  d.w = lamina_conv_depthwise_axis(&w, s->w.out);
  d.y_row = c->y.row;
  d.y_pixel = c->y.pixel;
  d.add_row = c->add.row;
  d.add_pixel = c->add.pixel;
  s->kernels->depthwise->backward_data(&d, row0, row1);
}

static void run_task(void *arg, int64_t index, int thread) {
  const depthwise_job *j = arg;
  const correlation *c = &j->c;
  const conv_shape *s = c->shape;
  const int64_t c0 = index % j->channel_blocks * j->channels_block, n = index / j->channel_blocks / j->row_blocks;
  const int64_t row0 = index / j->channel_blocks % j->row_blocks * j->rows_block;
  const int64_t row1 = layer_min(row0 + j->rows_block, j->rows);
  lamina_depthwise d = {.group = s->in,
                        .far = j->far,
                        .channels = layer_min(j->channels_block, j->channels - c0),
                        .x = c->x.data + n * c->x.image,
                        .x_row = c->x.row,
                        .x_pixel = c->x.pixel,
                        .bias = c->bias ? c->bias + c0 : NULL,
                        .add = c->add.data ? c->add.data + n * c->add.image + c0 : NULL,
                        .y = c->y.data + n * c->y.image + c0,
                        .lo = c->lo,
                        .hi = c->hi};
  if (j->copy_floats) {
    const int64_t top = row0 * s->h.stride - s->h.pad, span = (s->h.kernel - 1) * s->h.dilation;
    const int64_t r0 = layer_min(layer_max(top, 0), s->h.in);
    const int64_t r1 = layer_min(top + (row1 - row0 - 1) * s->h.stride + span + 1, s->h.in);
    float *copy = j->copies + thread * j->copy_floats;
    d.w.in = s->w.in;
    repeat_channels(j, &d, r0, r1, c0, copy);
    d.x_pixel = d.channels;
    d.x_row = s->w.in * d.channels;
    d.x = copy - r0 * d.x_row;
  } else {
    d.x += c0;
  }
  d.weights = c->weights;
  if (j->scatter) {
    d.weights += c0 * taps_of(s);
    run_scatter(j, &d, row0, row1);
    return;
  }
  for (int64_t i = 0; i < c->phases_h; i++)
    for (int64_t k = 0; k < c->phases_w; k++) {
      const conv_axis h = lamina_conv_axis(&s->h, c->backward, i), w = lamina_conv_axis(&s->w, c->backward, k);
      const float *weights = d.weights;
      d.weights += c0 * (s->tiled ? weights_of(s) : h.taps * w.taps) * s->in;
      run_phase(j, &d, &h, &w, row0, row1);
      d.weights = weights + h.taps * w.taps * s->in * round_up(j->channels, BLOCK);
    }
  if (!c->backward) lamina_conv_activate(c, n, row0, row1, c0, d.channels);
}

static void run(const correlation *c) {
  const conv_shape *s = c->shape;
  depthwise_job j = cut_up(s, c);
  j.copies = s->node->workspace;
  const int64_t tasks = s->images * j.channel_blocks * j.row_blocks;
  layer_parallel(s->host, tasks, s->images * s->h.out * s->w.out * j.channels * s->in * taps_of(s), run_task, &j);
}

void lamina_conv_depthwise_forward(const conv_shape *s) {
  const correlation c = lamina_conv_forward_pass(s);
  run(&c);
}

void lamina_conv_depthwise_backward_data(const conv_shape *s) {
  correlation c = lamina_conv_backward_data_pass(s);
  if (c.accumulate) c.add = c.y;
  run(&c);
}
