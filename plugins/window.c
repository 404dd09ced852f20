/* SPDX-License-Identifier: Apache-2.0 */
#include "window.h"

#include <string.h>

/* Bounds keep every product below 2^63, as the sizes of the image are checked on their own. */
#define MAX_EXTENT 1048576

/* 8 MiB: such an input is not expected in a cache. A constant, as sums are made in another order. */
#define STREAMED_FLOATS 2097152

const lamina_attr window_attr_kernel = {.size = sizeof(lamina_attr),
                                        .name = "kernel",
                                        .type = LAMINA_ATTR_INTS,
                                        .min = 1,
                                        .max = MAX_EXTENT,
                                        .count = 2,
                                        .doc = "height and width of the window"};
const lamina_attr window_attr_stride = {.size = sizeof(lamina_attr),
                                        .name = "stride",
                                        .type = LAMINA_ATTR_INTS,
                                        .def = "0",
                                        .min = 0,
                                        .max = MAX_EXTENT,
                                        .count = 2,
                                        .doc = "step of the window, vertical and horizontal; 0: the kernel's size"};
const lamina_attr window_attr_padding = {.size = sizeof(lamina_attr),
                                         .name = "padding",
                                         .type = LAMINA_ATTR_INTS,
                                         .def = "0",
                                         .min = 0,
                                         .max = MAX_EXTENT,
                                         .count = 2,
                                         .doc =
                                             "rows above and below, columns left and right; at most half the kernel"};
const lamina_attr window_attr_ceil_mode = {.size = sizeof(lamina_attr),
                                           .name = "ceil_mode",
                                           .type = LAMINA_ATTR_BOOL,
                                           .def = "false",
                                           .doc = "round the output's size up: keep windows that reach past the end"};

/* PyTorch's rule. In ceil_mode the last window must start inside the image or its left padding. */
static int64_t output_size(int64_t size, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation,
                           int ceil_mode) {
  int64_t span = size + 2 * padding - dilation * (kernel - 1) - 1;
  if (span < 0 && !(ceil_mode && span + stride > 0)) return 0;
  if (!ceil_mode) return span / stride + 1;
  int64_t n = (span + stride - 1) / stride + 1;
  return (n - 1) * stride >= size + padding ? n - 1 : n;
}

window window_of(const lamina_node *node, const lamina_value *dilation) {
  const int64_t *dim = node->inputs[0].dim;
  window win = {.images = dim[0], .h = dim[1], .w = dim[2], .channels = dim[3]};
  int64_t out[2];
  for (int i = 0; i < 2; i++) {
    win.kernel[i] = node->attrs[WINDOW_KERNEL].ints[i];
    win.stride[i] = node->attrs[WINDOW_STRIDE].ints[i];
    if (win.stride[i] == 0) win.stride[i] = win.kernel[i];
    win.padding[i] = node->attrs[WINDOW_PADDING].ints[i];
    win.dilation[i] = dilation ? dilation->ints[i] : 1;
    out[i] = output_size(dim[1 + i], win.kernel[i], win.stride[i], win.padding[i], win.dilation[i],
                         node->attrs[WINDOW_CEIL_MODE].i != 0);
  }
  win.oh = out[0];
  win.ow = out[1];
  int64_t last = win.w - 1 - (win.kernel[1] - 1) * win.dilation[1] + win.padding[1]; /* where a whole window may start */
  win.first_whole = layer_min(win.ow, layer_ceil_div(win.padding[1], win.stride[1]));
  win.end_whole = last < 0 ? win.first_whole : layer_max(win.first_whole, layer_min(win.ow, last / win.stride[1] + 1));
  return win;
}

lamina_status window_infer(lamina_node *node, const lamina_value *dilation) {
  lamina_status status = layer_check_input(node, 0, 4, 4, "(N, H, W, C)");
  if (status != LAMINA_OK) return status;
  window win = window_of(node, dilation);
  char text[LAYER_SHAPE_TEXT];
  layer_shape_text(&node->inputs[0], text);
  if (win.padding[0] * 2 > win.kernel[0] || win.padding[1] * 2 > win.kernel[1]) {
    return node->host->fail(node->host, LAMINA_INVALID_ARGUMENT,
                            "padding %lldx%lld is more than half of the kernel %lldx%lld", (long long)win.padding[0],
                            (long long)win.padding[1], (long long)win.kernel[0], (long long)win.kernel[1]);
  }
  if (win.oh < 1 || win.ow < 1) {
    return node->host->fail(node->host, LAMINA_SHAPE_MISMATCH,
                            "a window of %lldx%lld (dilation %lldx%lld, padding %lldx%lld) does not fit into input %s",
                            (long long)win.kernel[0], (long long)win.kernel[1], (long long)win.dilation[0],
                            (long long)win.dilation[1], (long long)win.padding[0], (long long)win.padding[1], text);
  }
  lamina_tensor *y = &node->outputs[0];
  y->rank = 4;
  y->dim[0] = win.images;
  y->dim[1] = win.oh;
  y->dim[2] = win.ow;
  y->dim[3] = win.channels;
  return LAMINA_OK;
}

void window_cost(const window *win, lamina_cost *cost) {
  double out = (double)win->images * (double)win->oh * (double)win->ow * (double)win->channels;
  double in = (double)win->images * (double)win->h * (double)win->w * (double)win->channels;
  cost->flops = out * (double)win->kernel[0] * (double)win->kernel[1];
  cost->bytes = (in + out) * sizeof(float);
  cost->backward_flops = cost->flops;
  cost->backward_bytes = 2 * cost->bytes;
  cost->algorithm = "by row of windows";
}

/* The part of a window along one axis that lies inside 0 .. size - 1: taps first .. first + count - 1. */
typedef struct span {
  int64_t start; /* of tap 0; negative in the padding */
  int64_t first, count, padded;
} span;

static span span_of(const window *win, int axis, int64_t out) {
  int64_t size = axis ? win->w : win->h, kernel = win->kernel[axis], step = win->dilation[axis];
  span s = {.start = out * win->stride[axis] - win->padding[axis]};
  s.first = s.start < 0 ? layer_min(kernel, step == 1 ? -s.start : layer_ceil_div(-s.start, step)) : 0;
  int64_t end = s.start < size ? layer_min(kernel, (step == 1 ? size - 1 - s.start : (size - 1 - s.start) / step) + 1) : 0;
  s.count = layer_max(0, end - s.first);
  s.padded = layer_min(kernel, size + win->padding[axis] - s.start);
  return s;
}

static int64_t tap_of(const window *win, span v, span h, int64_t ld) {
  int64_t row = v.start + v.first * win->dilation[0], column = h.start + h.first * win->dilation[1];
  return (row * win->w + column) * ld;
}

static lamina_pool_distance distance_of(const window *win, int64_t ld) {
  return (lamina_pool_distance){
      .row = win->dilation[0] * win->w * ld, .column = win->dilation[1] * ld, .window = win->stride[1] * ld};
}

/* Sets the taps of the run of equal windows that starts at window ow; none are left where all taps are in the padding. */
static void run_from(const window *win, span v, int64_t ow, int include_padding, lamina_pool_row *run, span *h) {
  *h = span_of(win, 1, ow);
  run->windows = ow >= win->first_whole && ow < win->end_whole ? win->end_whole - ow : 1;
  run->channels = win->channels;
  run->rows = v.count;
  run->columns = h->count;
  int64_t taps = include_padding ? v.padded * h->padded : v.count * h->count;
  run->scale = taps > 0 ? (float)(1.0 / (double)taps) : 0.0f;
}

/* `x` is that of the image, `y` and `winner` those of the row. What has no taps has no winner either: a number of none. */
static void forward_row(const window_forward *walk, span v, const float *x, float *y, uint8_t *winner) {
  const window *win = walk->win;
  lamina_pool_row run = {.x_at = distance_of(win, walk->x.ld), .y_ld = walk->y.ld};
  run.streamed = walk->x.rows * win->channels >= STREAMED_FLOATS;
  run.winner_ld = win->channels;
  run.tap_row = (int)win->kernel[1];
  for (int64_t ow = 0; ow < win->ow; ow += run.windows) {
    span h;
    run_from(win, v, ow, walk->include_padding, &run, &h);
    run.y = y + ow * walk->y.ld;
    if (winner) run.winner = winner + ow * win->channels;
    if (run.rows > 0 && run.columns > 0) {
      run.x = x + tap_of(win, v, h, walk->x.ld);
      run.tap = (int)(v.first * win->kernel[1] + h.first);
      walk->kernel(&run);
      continue;
    }
    for (int64_t i = 0; i < run.windows; i++)
      for (int64_t c = 0; c < win->channels; c++) run.y[i * walk->y.ld + c] = walk->empty;
    if (winner) memset(run.winner, WINDOW_NO_WINNER, (size_t)(run.windows * win->channels));
  }
}

static void forward_task(void *arg, int64_t index, int thread) {
  (void)thread;
  const window_forward *walk = arg;
  const window *win = walk->win;
  int64_t end = layer_min((index + 1) * walk->rows_per_task, win->images * win->oh);
  for (int64_t row = index * walk->rows_per_task; row < end; row++) {
    const float *image = walk->x.data + row / win->oh * win->h * win->w * walk->x.ld;
    forward_row(walk, span_of(win, 0, row % win->oh), image, walk->y.data + row * win->ow * walk->y.ld,
                walk->winner ? walk->winner + row * win->ow * win->channels : NULL);
  }
}

void window_run_forward(const lamina_host *host, window_forward *walk) {
  const window *win = walk->win;
  int64_t rows = win->images * win->oh;
  walk->rows_per_task = layer_max(1, LAYER_TASK_FLOATS / (win->ow * win->channels));
  layer_parallel(host, layer_ceil_div(rows, walk->rows_per_task), walk->x.rows * win->channels, forward_task, walk);
}

/* The rows of dx that the windows of a band touch: first_row .. end_row - 1. The last band's go on to the end. */
static int64_t first_row(const window_backward *walk, int64_t band) {
  const window *win = walk->win;
  return layer_min(win->h, layer_max(0, band * walk->band_rows * win->stride[0] - win->padding[0]));
}

static int64_t end_row(const window_backward *walk, int64_t band) {
  const window *win = walk->win;
  if (band + 1 >= walk->bands) return win->h;
  int64_t last = ((band + 1) * walk->band_rows - 1) * win->stride[0] - win->padding[0];
  return layer_min(win->h, layer_max(0, last + win->dilation[0] * (win->kernel[0] - 1) + 1));
}

static void zero_pixels(const window_backward *walk, int64_t first, int64_t end) {
  for (int64_t pixel = first; pixel < end; pixel++)
    memset(walk->dx.data + pixel * walk->dx.ld, 0, (size_t)walk->win->channels * sizeof(float));
}

/* Even bands zero all that they touch; odd ones what is left between them. */
static void zero_band(const window_backward *walk, int64_t image, int64_t band) {
  const window *win = walk->win;
  int64_t begin = first_row(walk, band), end = end_row(walk, band);
  if (walk->odd) {
    begin = end_row(walk, band - 1);
    end = band + 1 < walk->bands ? first_row(walk, band + 1) : win->h;
  }
  zero_pixels(walk, (image * win->h + begin) * win->w, (image * win->h + end) * win->w);
}

/* Where windows overwrite dx: zeros for the columns and the rows behind the last windows. */
static void zero_uncovered(const window_backward *walk, int64_t image, int64_t band, int64_t end) {
  const window *win = walk->win;
  int64_t columns = layer_min(win->w, win->ow * win->stride[1] - win->padding[1]);
  int64_t first_row = layer_max(0, band * walk->band_rows * win->stride[0] - win->padding[0]);
  int64_t end_row = layer_min(win->h, end * win->stride[0] - win->padding[0]);
  for (int64_t row = first_row; row < end_row && columns < win->w; row++) {
    int64_t first = (image * win->h + row) * win->w;
    zero_pixels(walk, first + columns, first + win->w);
  }
  if (end == win->oh) zero_pixels(walk, (image * win->h + end_row) * win->w, (image + 1) * win->h * win->w);
}

/* `image` is the first pixel of the image, `row` that of the row of windows. */
static void backward_row(const window_backward *walk, span v, int64_t image, int64_t row) {
  const window *win = walk->win;
  lamina_pool_row run = {.x_at = distance_of(win, walk->x.ld), .dx_at = distance_of(win, walk->dx.ld)};
  run.y_ld = walk->y.ld;
  run.dy_ld = walk->dy.ld;
  run.overwrite = walk->overwrite;
  for (int64_t ow = 0; ow < win->ow; ow += run.windows) {
    span h;
    run_from(win, v, ow, walk->include_padding, &run, &h);
    if (run.rows == 0 || run.columns == 0) continue;
    run.dx = walk->dx.data + image * walk->dx.ld + tap_of(win, v, h, walk->dx.ld);
    run.dy = walk->dy.data + (row + ow) * walk->dy.ld;
    if (walk->x.data) run.x = walk->x.data + image * walk->x.ld + tap_of(win, v, h, walk->x.ld);
    if (walk->y.data) run.y = walk->y.data + (row + ow) * walk->y.ld;
    walk->kernel(&run);
  }
}

static void backward_task(void *arg, int64_t index, int thread) {
  (void)thread;
  const window_backward *walk = arg;
  const window *win = walk->win;
  int64_t half = (walk->bands + 1 - walk->odd) / 2, image = index / half, band = index % half * 2 + walk->odd;
  int64_t end = layer_min((band + 1) * walk->band_rows, win->oh);
  if (walk->overwrite)
    zero_uncovered(walk, image, band, end);
  else if (!walk->accumulate)
    zero_band(walk, image, band);
  for (int64_t oh = band * walk->band_rows; oh < end; oh++)
    backward_row(walk, span_of(win, 0, oh), image * win->h * win->w, (image * win->oh + oh) * win->ow);
}

void window_run_backward(const lamina_host *host, window_backward *walk) {
  const window *win = walk->win;
  walk->overwrite = !walk->accumulate && win->stride[0] == win->kernel[0] && win->stride[1] == win->kernel[1] &&
                    win->dilation[0] == 1 && win->dilation[1] == 1;
  int64_t reach = win->dilation[0] * (win->kernel[0] - 1) + 1;
  int64_t rows = layer_ceil_div(layer_ceil_div(4 * LAYER_TASK_FLOATS, win->w * win->channels), win->stride[0]);
  walk->band_rows = layer_max(rows, layer_ceil_div(reach, win->stride[0]));
  walk->bands = layer_ceil_div(win->oh, walk->band_rows);
  int64_t floats = win->images * win->h * win->w * win->channels;
  for (walk->odd = 0; walk->odd < layer_min(walk->bands, 2); walk->odd++) {
    int64_t half = (walk->bands + 1 - walk->odd) / 2;
    layer_parallel(host, win->images * half, floats, backward_task, walk);
  }
}
