/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cuts the gradient of weight into units of pixels, blocks of channels and panels of outputs, by shape and cache sizes
 * alone, and lays out a thread's memory for it.
 */
#include "weights.h"

enum {
  TASK_FLOPS = 16 << 20,
  LARGE_TASK_FLOPS = 64 << 20,
  MAX_TASKS = 32,
  MIN_TASKS = 8,
  UNIT_PIXELS = 256,
  MIN_UNIT = 64,          /* pixels of a row of them: below that, ends of tiles cost too much */
  MOST_COPIED = 4,        /* panels of dy at a time */
  MIN_UNITS = 4,          /* of a partial gradient, */
  MIN_CHANNELS = 128,     /* of a block, and */
  MIN_PANELS = 4,         /* of a task, so that copies are read often */
  MIN_FLAT_CHANNELS = 64, /* of a block of which nothing is copied */
  /* What a cut of a row of pixels costs, in cycles as they were measured, roughly: */
  TILE_END = 400,   /* the end of a tile, which adds its sums to the partial gradient, and the start of the next */
  LINE_FETCH = 3,   /* a line of x or dy from beyond L2, most of it while tiles run */
  LINE_PARTIAL = 24 /* a line of a partial gradient that is written and then added up */
};

int64_t lamina_conv_weights_thread_bytes(const weights_job *j) {
  const int64_t floats = j->x_floats + j->dy_floats + j->own_floats + j->pack_floats;
  return j->pointers * (int64_t)sizeof(float *) + floats * (int64_t)sizeof(float);
}

static int64_t unit_rows(const weights_job *j) {
  const conv_axis_shape *h = &j->s->h;
  return j->compact ? j->rows_unit : (j->rows_unit - 1) * h->stride + (h->kernel - 1) * h->dilation + 1;
}

static void cut_pixels(weights_job *j) {
  const conv_shape *s = j->s;
  const int64_t pixels = s->h.out * s->w.out;
  j->images_unit = 1;
  j->rows_unit = s->h.out;
  if (pixels <= UNIT_PIXELS)
    j->images_unit = layer_min(s->images, UNIT_PIXELS / pixels);
  else
    j->rows_unit = layer_min(layer_max(UNIT_PIXELS / s->w.out, 1), s->h.out);
  j->row_units = layer_ceil_div(s->h.out, j->rows_unit);
  j->rows_unit = layer_ceil_div(s->h.out, j->row_units);
  j->row_units = layer_ceil_div(s->h.out, j->rows_unit);
  j->images_unit = layer_ceil_div(s->images, layer_ceil_div(s->images, j->images_unit));
  j->units = j->row_units * layer_ceil_div(s->images, j->images_unit);
}

/* Pieces of `size`, none smaller than `least`, that bring the tasks near to the wanted number, but not past it. */
static int64_t pieces(int64_t wanted, int64_t tasks, int64_t size, int64_t least) {
  return layer_max(layer_min(wanted / tasks, size / least), 1);
}

/* Blocks of channels whose part of x stays in half of L2. More tasks first by splitting the pixels, as long as the
   partial gradients are small beside x and dy; then the channels; last the panels, each of which has to copy x again.
 */
static void cut_weights(weights_job *j) {
  const conv_shape *s = j->s;
  const int64_t columns = j->compact ? s->w.out : j->c1 - j->c0, l2 = (int64_t)s->host->cpu->l2 / 4;
  const int64_t pixels = j->images_unit * unit_rows(j) * columns, taps = s->h.kernel * s->w.kernel;
  const int64_t most = layer_max(l2 / 2 / pixels / CONV_LINE * CONV_LINE, 4 * CONV_LINE);
  j->channel_blocks = layer_ceil_div(s->in, most);
  j->panels = layer_ceil_div(s->out, j->gemm->nr);
  j->ld = j->panels * j->gemm->nr;
  j->partial_floats = taps * s->in * j->ld;

  const double flops =
      2.0 * (double)(s->images * s->h.out * s->w.out) * (double)(taps * s->in) * (double)(s->groups * s->out);
  const int64_t wanted =
      flops >= (double)MAX_TASKS * TASK_FLOPS ? MAX_TASKS : layer_max((int64_t)(flops / TASK_FLOPS), 1);
  const int64_t moved = s->images * s->groups * (s->h.in * s->w.in * s->in + s->h.out * s->w.out * s->out);
  int64_t tasks = s->groups * j->channel_blocks;
  j->splits =
      layer_min(pieces(wanted, tasks, moved / 3, s->groups * j->partial_floats), layer_ceil_div(j->units, MIN_UNITS));
  if (tasks * j->splits < wanted)
    j->channel_blocks = layer_max(j->channel_blocks, pieces(wanted, s->groups * j->splits, s->in, MIN_CHANNELS));
  j->channels = layer_min(round_up(layer_ceil_div(s->in, j->channel_blocks), CONV_LINE), s->in);
  j->channel_blocks = layer_ceil_div(s->in, j->channels);
  tasks = s->groups * j->channel_blocks * j->splits;
  j->panel_blocks = pieces(wanted, tasks, j->panels, MIN_PANELS);
  if (tasks * j->panel_blocks < layer_min(wanted, MIN_TASKS))
    j->panel_blocks = pieces(layer_min(wanted, MIN_TASKS), tasks, j->panels, 1);
}

/* Tasks that the gradient is worth: of at least TASK_FLOPS, and of LARGE_TASK_FLOPS where there are many. */
static int64_t wanted_tasks(const conv_shape *s) {
  const double flops = 2.0 * (double)(s->images * s->h.out * s->w.out) * (double)(s->h.kernel * s->w.kernel * s->in) *
                       (double)(s->groups * s->out);
  const double few = flops / TASK_FLOPS < MIN_TASKS ? flops / TASK_FLOPS : MIN_TASKS, many = flops / LARGE_TASK_FLOPS;
  return layer_max((int64_t)(many > MAX_TASKS ? MAX_TASKS : many > few ? many : few), 1);
}

/* A cut of one row of pixels, `in` x `out` of the gradient to a task, and what it costs. */
typedef struct flat_cut {
  int64_t in, out, splits, unit;
  double cost;
} flat_cut;

/* The task's part of the gradient, the pixels of a unit, and those of the next, which are fetched meanwhile, take most
   of L2; not all of it, since pages lie at random in it. */
static flat_cut cost_of(const weights_job *j, int64_t channel_blocks, int64_t panel_blocks) {
  const conv_shape *s = j->s;
  const int64_t pixels = s->h.out, nr = j->gemm->nr, l2 = (int64_t)s->host->cpu->l2 / 4, wanted = wanted_tasks(s);
  flat_cut cut = {.in = layer_min(round_up(layer_ceil_div(s->in, channel_blocks), CONV_LINE), s->in),
                  .out = layer_ceil_div(j->panels, panel_blocks) * nr};
  const int64_t pixel = 2 * (cut.in + cut.out), fit = (l2 * 7 / 10 - cut.in * cut.out) / pixel;
  cut.unit = layer_min(layer_max(fit, MIN_UNIT), UNIT_PIXELS);
  cut.splits = layer_min(layer_ceil_div(wanted, channel_blocks * panel_blocks), layer_ceil_div(pixels, 2 * cut.unit));
  const int64_t units = layer_ceil_div(layer_ceil_div(pixels, cut.splits), cut.unit) * cut.splits;
  cut.unit = layer_ceil_div(pixels, units);
  const double fetched = (double)(pixels * (s->in * panel_blocks + s->out * channel_blocks)) / CONV_LINE;
  const double partials = cut.splits == 1 ? 0 : (double)(cut.splits * s->in * s->out) / CONV_LINE;
  cut.cost = TILE_END * (double)(units * layer_ceil_div(s->in, j->gemm->mr) * j->panels) + LINE_FETCH * fetched +
             LINE_PARTIAL * partials;
  if (fit < MIN_UNIT || channel_blocks * panel_blocks * cut.splits < layer_min(wanted, MIN_TASKS)) cut.cost *= 1e6;
  return cut;
}

/* One row of pixels: the cheapest cut into blocks of channels x panels of outputs, and into runs of pixels. */
static void cut_flat(weights_job *j) {
  const conv_shape *s = j->s;
  j->panels = layer_ceil_div(s->out, j->gemm->nr);
  flat_cut best = {.cost = -1};
  for (int64_t c = 1; c == 1 || s->in / c >= MIN_FLAT_CHANNELS; c *= 2)
    for (int64_t p = 1; p <= j->panels; p *= 2) {
      const flat_cut cut = cost_of(j, c, p);
      if (best.cost < 0 || cut.cost < best.cost) {
        best = cut;
        j->panel_blocks = p;
      }
    }
  j->channels = best.in;
  j->channel_blocks = layer_ceil_div(s->in, best.in);
  j->splits = best.splits;
  j->images_unit = 1;
  j->rows_unit = best.unit;
  j->row_units = j->units = layer_ceil_div(s->h.out, best.unit);
  j->ld = j->panels * j->gemm->nr;
  j->partial_floats = s->in * j->ld;
}

/* Whether an image's rows and the images follow each other like the pixels of a row. */
static int in_a_row(const conv_image *image, const conv_axis_shape *h, const conv_axis_shape *w) {
  return image->row == w->in * image->pixel && image->image == h->in * image->row;
}

/* Whether pixels may lie in a row as far as the shape goes, and the shape that it then is. */
static int flat_shape(const conv_shape *s, conv_shape *flat) {
  *flat = *s;
  flat->h.in = flat->h.out = s->images * s->h.in * s->w.in;
  flat->w.in = flat->w.out = 1;
  flat->images = 1;
  return s->pointwise && s->groups == 1 && s->out % s->kernels->gemm->nr == 0 && flat->h.in > 0;
}

conv_shape lamina_conv_weights_shape(const conv_shape *s) {
  const conv_image x = lamina_conv_image(&s->node->inputs[0]), dy = lamina_conv_image(&s->node->d_outputs[0]);
  conv_shape flat;
  return flat_shape(s, &flat) && in_a_row(&x, &s->h, &s->w) && in_a_row(&dy, &s->h, &s->w) ? flat : *s;
}

weights_job lamina_conv_weights_job(const conv_shape *s) {
  weights_job j = {.s = s, .gemm = s->kernels->gemm};
  j.x = lamina_conv_image(&s->node->inputs[0]);
  if (s->node->d_outputs) j.dy = lamina_conv_image(&s->node->d_outputs[0]);
  j.compact = s->h.kernel == 1 && s->w.kernel == 1;
  j.c0 = -s->w.pad;
  j.c1 = (s->w.out - 1) * s->w.stride - s->w.pad + (s->w.kernel - 1) * s->w.dilation + 1;
  conv_shape flat;
  j.flat = s->images == 1 && s->w.in == 1 && flat_shape(s, &flat);
  if (j.flat) {
    j.x.row = j.x.pixel;
    j.dy.row = j.dy.pixel;
    cut_flat(&j);
    j.dy_panels = 1;
    j.pointers = CONV_LINE;
    j.pack_floats = lamina_conv_pack_scratch(s);
    if (j.splits == 1) j.own_floats = j.channels * layer_ceil_div(j.panels, j.panel_blocks) * j.gemm->nr;
    return j;
  }
  cut_pixels(&j);
  cut_weights(&j);
  j.pixel = j.channels;
  if ((j.compact ? 1 : s->w.stride) * j.pixel % 1024 == 0)
    j.pixel += CONV_LINE; /* lines 4 KiB apart share cache sets */
  const int64_t columns = j.compact ? s->w.out : j.c1 - j.c0, rows = j.images_unit * j.rows_unit;
  j.pointers = round_up(rows, CONV_LINE);
  j.x_floats = round_up(j.images_unit * unit_rows(&j) * columns * j.pixel, CONV_LINE);
  const int64_t panel_floats = rows * s->w.out * j.gemm->nr, fit = (int64_t)s->host->cpu->l2 / 4 / 4 / panel_floats;
  j.dy_panels = layer_max(layer_min(layer_min(fit, MOST_COPIED), layer_ceil_div(j.panels, j.panel_blocks)), 1);
  j.dy_floats = round_up(j.dy_panels * panel_floats, CONV_LINE);
  j.pack_floats = lamina_conv_pack_scratch(s);
  if (j.splits == 1)
    j.own_floats = round_up(
        s->h.kernel * s->w.kernel * j.channels * layer_ceil_div(j.panels, j.panel_blocks) * j.gemm->nr, CONV_LINE);
  return j;
}

int64_t lamina_conv_weights_partials(const weights_job *j) {
  if (j->splits == 1) return 0;
  return round_up(j->s->groups * j->splits * j->partial_floats, CONV_LINE);
}

static size_t job_bytes(const conv_shape *s) {
  const weights_job j = lamina_conv_weights_job(s);
  return (size_t)(lamina_conv_weights_partials(&j) * (int64_t)sizeof(float) +
                  lamina_conv_weights_thread_bytes(&j) * s->host->threads(s->host));
}

size_t lamina_conv_backward_weights_workspace(const conv_shape *s) {
  const int64_t channels = s->groups * s->out, pixels = s->images * s->h.out * s->w.out;
  const size_t bias = (size_t)lamina_column_sum_workspace(pixels, channels) * sizeof(float);
  size_t bytes;
  if (s->form) {
    bytes = lamina_conv_winograd_weights_workspace(s);
  } else if (lamina_conv_depthwise_gradients(s)) {
    bytes = lamina_conv_depthwise_weights_workspace(s);
  } else {
    conv_shape flat;
    bytes = job_bytes(s);
    if (flat_shape(s, &flat)) bytes = conv_larger(bytes, job_bytes(&flat)); /* at plan strides are not certain */
  }
  return bytes > bias ? bytes : bias;
}
