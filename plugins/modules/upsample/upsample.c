/* SPDX-License-Identifier: Apache-2.0 */
/*
 * upsample: an image (N, H, W, C) to (N, s_h H, s_w W, C) by whole factors. torch.nn.Upsample(scale_factor, mode).
 *
 *   nearest    y(h, w) = x(h / s_h, w / s_w)
 *   bilinear   y(h, w) = the four neighbours of (h + 1/2) / s - 1/2 (not below 0), weighted by closeness; with
 *              align_corners the first and last pixels of both meet: h (H - 1) / (s H - 1)
 *
 * An output pixel is a row of channels, mixed from two rows of two pixels. Backward adds each dy to the pixels that it came
 * from; a task is some channels of one sample, so that no two tasks add to one number. Cost: 7 operations an output.
 */
#include "../module.h"

enum { SCALE, MODE, ALIGN };
enum { TASK_CHANNELS = 64 };

/* Where one output comes from along an axis: two inputs and the second's weight. */
typedef struct source {
  int64_t first, second;
  float weight;
} source;

typedef struct upsample {
  int64_t samples, in_h, in_w, out_h, out_w, channels, parts;
  int nearest, align, add;
  const float *from;
  float *to;
  int64_t from_ld, to_ld;
} upsample;

static source source_of(const upsample *u, int64_t out, int64_t in_size, int64_t out_size) {
  const int64_t scale = out_size / in_size;
  if (u->nearest) return (source){.first = out / scale, .second = out / scale, .weight = 0};
  double at = u->align ? (out_size > 1 ? (double)out * (double)(in_size - 1) / (double)(out_size - 1) : 0)
                       : ((double)out + 0.5) / (double)scale - 0.5;
  if (at < 0) at = 0;
  const int64_t first = module_min((int64_t)at, in_size - 1);
  return (source){.first = first, .second = module_min(first + 1, in_size - 1), .weight = (float)(at - (double)first)};
}

/* One row of output pixels. */
MODULE_INLINE void forward_body(void *arg, int64_t index, int thread) {
  const upsample *u = arg;
  const int64_t sample = index / u->out_h, h = index % u->out_h, n = u->channels;
  const source row = source_of(u, h, u->in_h, u->out_h);
  const float *top = u->from + (sample * u->in_h + row.first) * u->in_w * u->from_ld;
  const float *low = u->from + (sample * u->in_h + row.second) * u->in_w * u->from_ld;
  float *y = u->to + (sample * u->out_h + h) * u->out_w * u->to_ld;
  (void)thread;
  for (int64_t w = 0; w < u->out_w; w++, y += u->to_ld) {
    const source column = source_of(u, w, u->in_w, u->out_w);
    const float *a = top + column.first * u->from_ld, *b = top + column.second * u->from_ld;
    const float *c = low + column.first * u->from_ld, *d = low + column.second * u->from_ld;
    const float r = row.weight, s = column.weight;
    if (u->nearest)
      memcpy(y, a, (size_t)n * sizeof(float));
    else
      for (int64_t i = 0; i < n; i++) y[i] = (1 - r) * ((1 - s) * a[i] + s * b[i]) + r * ((1 - s) * c[i] + s * d[i]);
  }
}
MODULE_TASK(forward)

MODULE_INLINE void backward_body(void *arg, int64_t index, int thread) {
  const upsample *u = arg;
  const int64_t sample = index / u->parts, c0 = index % u->parts * TASK_CHANNELS;
  const int64_t n = module_min(TASK_CHANNELS, u->channels - c0);
  float *dx = u->to + sample * u->in_h * u->in_w * u->to_ld + c0;
  const float *dy = u->from + sample * u->out_h * u->out_w * u->from_ld + c0;
  (void)thread;
  for (int64_t p = 0; !u->add && p < u->in_h * u->in_w; p++) memset(dx + p * u->to_ld, 0, (size_t)n * sizeof(float));
  for (int64_t h = 0; h < u->out_h; h++) {
    const source row = source_of(u, h, u->in_h, u->out_h);
    for (int64_t w = 0; w < u->out_w; w++, dy += u->from_ld) {
      const source column = source_of(u, w, u->in_w, u->out_w);
      float *top = dx + row.first * u->in_w * u->to_ld, *low = dx + row.second * u->in_w * u->to_ld;
      float *at[4] = {top + column.first * u->to_ld, top + column.second * u->to_ld, low + column.first * u->to_ld,
                      low + column.second * u->to_ld};
      const float r = row.weight, s = column.weight;
      const float weight[4] = {(1 - r) * (1 - s), (1 - r) * s, r * (1 - s), r * s};
      for (int k = 0; k < 4; k++)
        for (int64_t i = 0; weight[k] != 0 && i < n; i++) at[k][i] += weight[k] * dy[i];
    }
  }
}
MODULE_TASK(backward)

static upsample describe(const lamina_node *node, const lamina_tensor *from, const lamina_tensor *to) {
  const lamina_tensor *x = &node->inputs[0];
  upsample u = {.samples = x->dim[0], .in_h = x->dim[1], .in_w = x->dim[2], .channels = x->dim[3]};
  u.out_h = u.in_h * node->attrs[SCALE].ints[0];
  u.out_w = u.in_w * node->attrs[SCALE].ints[1];
  u.parts = module_ceil_div(u.channels, TASK_CHANNELS);
  u.nearest = strcmp(node->attrs[MODE].s, "nearest") == 0;
  u.align = node->attrs[ALIGN].i != 0;
  u.from = from->data;
  u.from_ld = module_rows(from).ld;
  u.to = to->data;
  u.to_ld = module_rows(to).ld;
  return u;
}

static lamina_status forward(const lamina_node *node) {
  upsample u = describe(node, &node->inputs[0], &node->outputs[0]);
  MODULE_RUN(node->host, u.samples * u.out_h, forward, &u);
  return LAMINA_OK;
}

static lamina_status backward(const lamina_node *node) {
  if (!module_needs_input(node, 0)) return LAMINA_OK;
  upsample u = describe(node, &node->d_outputs[0], &node->d_inputs[0]);
  u.add = module_adds_input(node, 0);
  MODULE_RUN(node->host, u.samples * u.parts, backward, &u);
  return LAMINA_OK;
}

static lamina_status plan(const lamina_node *node, lamina_cost *cost) {
  const module_matrix x = module_rows(&node->inputs[0]), y = module_rows(&node->outputs[0]);
  const double in = (double)x.rows * (double)x.channels, out = (double)y.rows * (double)y.channels;
  const int nearest = strcmp(node->attrs[MODE].s, "nearest") == 0;
  cost->flops = nearest ? 0 : 7 * out;
  cost->backward_flops = nearest ? out : 8 * out;
  cost->bytes = cost->backward_bytes = 4 * (in + out);
  cost->algorithm = nearest ? "nearest" : "bilinear";
  return LAMINA_OK;
}

static lamina_status infer(lamina_node *node) {
  lamina_status status = module_check_rank(node, 0, 4, 4, "(N, H, W, C)");
  if (status) return status;
  lamina_tensor *y = &node->outputs[0];
  module_copy_shape(y, &node->inputs[0]);
  for (int i = 0; i < 2; i++)
    if (__builtin_mul_overflow(y->dim[1 + i], node->attrs[SCALE].ints[i], &y->dim[1 + i]))
      return node->host->fail(node->host, LAMINA_SHAPE_MISMATCH, "the size of the output overflows");
  return LAMINA_OK;
}

static const lamina_attr scale = {.size = sizeof(lamina_attr),
                                  .name = "scale_factor",
                                  .type = LAMINA_ATTR_INTS,
                                  .def = "2",
                                  .min = 1,
                                  .max = 1 << 20,
                                  .count = 2,
                                  .doc = "how many times as high and as wide"};
static const lamina_attr mode = {.size = sizeof(lamina_attr),
                                 .name = "mode",
                                 .type = LAMINA_ATTR_STRING,
                                 .def = "nearest",
                                 .choices = "nearest|bilinear",
                                 .doc = "how a pixel is found"};
MODULE_ATTR(align, "align_corners", LAMINA_ATTR_BOOL, "false", 0, 0, "bilinear: the corner pixels meet");
MODULE_INPUT(x_port, "x", 0, "(N, H, W, C)");
MODULE_OUTPUT(y_port, "y", 0, "(N, s_h H, s_w W, C)");
MODULE_KERNEL(kernel, plan, forward, backward);

static const lamina_layer layer = {.size = sizeof(lamina_layer),
                                   .name = "upsample",
                                   .version = 1,
                                   .doc = "an image by a whole factor as large",
                                   .flags = LAMINA_LAYER_ACCUMULATES,
                                   .attrs = MODULE_ATTRS(&scale, &mode, &align),
                                   .ports = MODULE_PORTS(&x_port, &y_port),
                                   .kernels = MODULE_KERNELS(&kernel),
                                   .infer = infer};

LAMINA_PLUGIN("lamina.upsample", "1.0", "upsample", &layer);
