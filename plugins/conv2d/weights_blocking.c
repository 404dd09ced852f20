/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cuts the gradient of weight into units of pixels, blocks of channels and panels of outputs, by shape and cache sizes
 * alone, and lays out a thread's memory for it.
 */
#include "weights.h"

enum {
  TASK_FLOPS = 16 << 20,
  MAX_TASKS = 32,
  MIN_TASKS = 8,
  UNIT_PIXELS = 256,
  MOST_COPIED = 4,    /* panels of dy at a time */
  MIN_UNITS = 4,      /* of a partial gradient, */
  MIN_CHANNELS = 128, /* of a block, and */
  MIN_PANELS = 4      /* of a task, so that copies are read often */
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

weights_job lamina_conv_weights_job(const conv_shape *s) {
  weights_job j = {.s = s, .gemm = s->kernels->gemm};
  j.x = lamina_conv_image(&s->node->inputs[0]);
  if (s->node->d_outputs) j.dy = lamina_conv_image(&s->node->d_outputs[0]);
  j.compact = s->h.kernel == 1 && s->w.kernel == 1;
  j.c0 = -s->w.pad;
  j.c1 = (s->w.out - 1) * s->w.stride - s->w.pad + (s->w.kernel - 1) * s->w.dilation + 1;
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

size_t lamina_conv_backward_weights_workspace(const conv_shape *s) {
  const int64_t channels = s->groups * s->out, pixels = s->images * s->h.out * s->w.out;
  const size_t bias = (size_t)lamina_column_sum_workspace(pixels, channels) * sizeof(float);
  size_t bytes;
  if (s->form) {
    bytes = lamina_conv_winograd_weights_workspace(s);
  } else if (lamina_conv_depthwise_gradients(s)) {
    bytes = lamina_conv_depthwise_weights_workspace(s);
  } else {
    const weights_job j = lamina_conv_weights_job(s);
    bytes = (size_t)(lamina_conv_weights_partials(&j) * (int64_t)sizeof(float) +
                     lamina_conv_weights_thread_bytes(&j) * s->host->threads(s->host));
  }
  return bytes > bias ? bytes : bias;
}
