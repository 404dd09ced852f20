/* SPDX-License-Identifier: Apache-2.0 */
#include "conv2d.h"

#include "../builtin.h"

enum { OUT_CHANNELS, KERNEL, STRIDE, PADDING, DILATION, GROUPS, BIAS };
enum {
  DIRECT,
  WINOGRAD_4X4,
  WINOGRAD_2X2
}; /* variants: kernels that differ in the algorithm of k x k correlations alone */

static int64_t gcd(int64_t a, int64_t b) {
  while (b) {
    const int64_t rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

conv_axis lamina_conv_axis(const conv_axis_shape *s, int backward, int64_t index) {
  if (!backward)
    return (conv_axis){.taps = s->kernel,
                       .k_step = 1,
                       .stride = s->stride,
                       .first = -s->pad,
                       .step = s->dilation,
                       .count = s->out,
                       .out_step = 1};
  /* Input pixel index + stride * t is reached from output o through tap k if o * stride - pad + k * dilation is that.
   */
  const int64_t period = s->stride / gcd(s->stride, s->dilation);
  conv_axis axis = {.k_step = -period,
                    .stride = 1,
                    .step = s->dilation * period / s->stride,
                    .count = index < s->in ? (s->in - index + s->stride - 1) / s->stride : 0,
                    .out_first = index,
                    .out_step = s->stride};
  int64_t k = 0;
  while (k < layer_min(period, s->kernel) && (index + s->pad - k * s->dilation) % s->stride != 0) k++;
  if (k >= layer_min(period, s->kernel)) return axis;
  axis.taps = (s->kernel - 1 - k) / period + 1;
  axis.k_first = k + (axis.taps - 1) * period;
  axis.first = (index + s->pad - axis.k_first * s->dilation) / s->stride;
  return axis;
}

conv_image lamina_conv_image(const lamina_tensor *t) {
  return (conv_image){t->data, t->stride[0], t->stride[1], t->stride[2]};
}

int64_t lamina_conv_padding(const lamina_value *p, int axis, int after) {
  if (p->count == 4) return p->ints[axis + 2 * after]; /* top, left, bottom, right */
  return p->ints[p->count == 2 ? axis : 0];
}

static conv_axis_shape axis_shape(const lamina_node *node, int axis) {
  const lamina_value *attrs = node->attrs;
  conv_axis_shape s = {.in = node->inputs[0].dim[1 + axis],
                       .kernel = attrs[KERNEL].ints[axis],
                       .stride = attrs[STRIDE].ints[axis],
                       .pad = lamina_conv_padding(&attrs[PADDING], axis, 0),
                       .dilation = attrs[DILATION].ints[axis]};
  const int64_t room = s.in + s.pad + lamina_conv_padding(&attrs[PADDING], axis, 1) - s.dilation * (s.kernel - 1) - 1;
  s.out = room < 0 ? 0 : room / s.stride + 1;
  return s;
}

static int multiply(int64_t *product, int64_t by) {
  return !__builtin_mul_overflow(*product, by, product) && *product < INT64_MAX / 1024;
}

int lamina_conv_sizes_fit(const conv_shape *s) {
  int64_t weights = s->groups, image = s->images, out = s->images;
  return multiply(&weights, round_up(s->in, 64)) && multiply(&weights, round_up(s->out, 64)) &&
         multiply(&weights, s->h.kernel) && multiply(&weights, s->w.kernel) &&
         multiply(&image, s->h.in + 4 * CONV_MAX_SIZE) && multiply(&image, s->w.in + 4 * CONV_MAX_SIZE) &&
         multiply(&out, s->groups * s->out) && multiply(&out, s->h.out) && multiply(&out, s->w.out);
}

static conv_shape read_shape(const lamina_node *node) {
  const int64_t groups = node->attrs[GROUPS].i;
  conv_shape s = {.node = node,
                  .host = node->host,
                  .images = node->inputs[0].dim[0],
                  .groups = groups,
                  .in = node->inputs[0].dim[3] / groups,
                  .out = node->attrs[OUT_CHANNELS].i / groups,
                  .h = axis_shape(node, 0),
                  .w = axis_shape(node, 1)};
  s.pointwise = s.h.kernel == 1 && s.w.kernel == 1 && s.h.stride == 1 && s.w.stride == 1 && s.h.out == s.h.in &&
                s.w.out == s.w.in && s.h.pad == 0 && s.w.pad == 0;
  s.depthwise = s.in == 1 && groups > 1;
  return s;
}

/* Floats of a correlation's packed weights, all groups. */
static size_t packed_floats(const conv_shape *s, int64_t in, int64_t out) {
  return (size_t)(s->groups *
                  (s->form ? lamina_conv_winograd_packed_floats(s, in, out) : lamina_conv_packed_floats(s, in, out)));
}

static const lamina_winograd_form *form_of(const lamina_kernels *kernels, int variant) {
  return variant == DIRECT ? NULL : variant == WINOGRAD_4X4 ? &kernels->winograd->f4 : &kernels->winograd->f2;
}

lamina_status lamina_conv_describe(const lamina_node *node, conv_shape *s) {
  lamina_status status;
  *s = read_shape(node);
  s->kernels = layer_kernels(node, &status);
  if (status) return status;
  s->form = form_of(s->kernels, node->kernel ? node->kernel->variant : DIRECT);
  s->tiled = s->form == &s->kernels->winograd->f4 && lamina_conv_depthwise_tiles(s);
  if (s->tiled) s->form = NULL; /* nor for the gradients */
  if (!s->form) s->depthwise |= lamina_conv_depthwise_groups(s);
  s->bias = s->depthwise ? (size_t)lamina_conv_depthwise_floats(s) : packed_floats(s, s->in, s->out);
  s->packed = s->bias + (size_t)round_up(s->groups * s->out, CONV_LINE);
  if (node->mode != LAMINA_TRAIN || !layer_needs_input(node, 0)) return LAMINA_OK;
  s->backward = s->packed;
  s->packed += lamina_conv_depthwise_gradients(s) ? (size_t)lamina_conv_depthwise_floats(s)
               : s->form                          ? packed_floats(s, s->out, s->in)
                                                  : (size_t)(s->groups * lamina_conv_backward_floats(s));
  return LAMINA_OK;
}

lamina_status lamina_conv_check_padding(const lamina_node *node, const lamina_value *padding) {
  const lamina_host *host = node->host;
  const int pads = padding->count;
  if (pads != 1 && pads != 2 && pads != 4)
    return host->fail(host, LAMINA_INVALID_ARGUMENT,
                      "padding has %d numbers; expected one, two (height, width) or four (top, left, bottom, right)",
                      pads);
  for (int i = 0; i < pads; i++)
    if (padding->ints[i] < 0 || padding->ints[i] > CONV_MAX_SIZE)
      return host->fail(host, LAMINA_INVALID_ARGUMENT, "padding %lld is not within 0 to %d",
                        (long long)padding->ints[i], (int)CONV_MAX_SIZE);
  return LAMINA_OK;
}

static lamina_status infer(lamina_node *node) {
  const lamina_host *host = node->host;
  const lamina_tensor *x = &node->inputs[0];
  const int64_t out = node->attrs[OUT_CHANNELS].i, groups = node->attrs[GROUPS].i;
  lamina_status status = layer_check_input(node, 0, 4, 4, "(N, H, W, C)");
  if (!status) status = lamina_conv_check_padding(node, &node->attrs[PADDING]);
  if (status) return status;
  if (x->dim[3] % groups || out % groups)
    return host->fail(host, LAMINA_SHAPE_MISMATCH, "%lld input and %lld output channels do not divide into %lld groups",
                      (long long)x->dim[3], (long long)out, (long long)groups);
  const conv_shape s = read_shape(node);
  char text[LAYER_SHAPE_TEXT];
  if (s.h.out < 1 || s.w.out < 1)
    return host->fail(
        host, LAMINA_SHAPE_MISMATCH,
        "input 0 has shape %s, smaller with its padding than the kernel of %lldx%lld (dilation %lld, %lld)",
        layer_shape_text(x, text), (long long)s.h.kernel, (long long)s.w.kernel, (long long)s.h.dilation,
        (long long)s.w.dilation);
  if (!lamina_conv_sizes_fit(&s))
    return host->fail(host, LAMINA_SHAPE_MISMATCH,
                      "input 0 has shape %s: with %lld output channels that is more than memory can hold",
                      layer_shape_text(x, text), (long long)out);
  lamina_tensor *y = &node->outputs[0], *weight = &node->params[0];
  *y = (lamina_tensor){.data = y->data, .dtype = y->dtype, .rank = 4, .dim = {s.images, s.h.out, s.w.out, out}};
  *weight = (lamina_tensor){
      .data = weight->data, .dtype = weight->dtype, .rank = 4, .dim = {out, s.in, s.h.kernel, s.w.kernel}};
  node->params[1].rank = -1;
  if (node->attrs[BIAS].i) layer_set_shape_1d(&node->params[1], out);
  return LAMINA_OK;
}

static const char *algorithm(const conv_shape *s) {
  if (s->form) return s->form->outputs == 4 ? "winograd F(4x4)" : "winograd F(2x2)";
  if (s->tiled) return "grouped winograd F(4x1)";
  if (s->depthwise && s->in > 1)
    return s->in == 2   ? "grouped 2x2, 3x3"
           : s->in == 4 ? "grouped 4x4, 3x3"
           : s->in == 8 ? "grouped 8x8, 3x3"
                        : "grouped 16x16, 3x3";
  if (s->depthwise) {
    if (s->h.kernel != s->w.kernel || s->w.dilation != 1 || s->w.stride > 2) return "depthwise";
    return s->h.kernel == 3   ? "depthwise 3x3"
           : s->h.kernel == 5 ? "depthwise 5x5"
           : s->h.kernel == 7 ? "depthwise 7x7"
                              : "depthwise";
  }
  if (s->pointwise) return lamina_conv_pointwise_algorithm(s);
  const correlation c = lamina_conv_forward_pass(s);
  return lamina_conv_gather_pays(&c) ? "gemm of gathered pixels" : lamina_conv_correlate_algorithm(&c);
}

/* Whether a variant is accurate enough for the math mode. */
static int is_accurate(const conv_shape *s, const lamina_winograd_form *form) {
  return s->host->math == LAMINA_MATH_FAST || lamina_conv_winograd_accurate(s, form);
}

/* Describes the node; nonzero if its variant can run it and may, in this math mode. */
static int describe_winograd(const lamina_node *node, conv_shape *s) {
  return node->host->math != LAMINA_MATH_STRICT && lamina_conv_describe(node, s) == LAMINA_OK &&
         (s->tiled || (lamina_conv_winograd_possible(s) && is_accurate(s, s->form)));
}

static int winograd_possible(const lamina_node *node) {
  conv_shape s;
  return describe_winograd(node, &s);
}

/* A variant runs where it is estimated to be faster than the direct sum and the other variant. */
static int winograd_pays(const lamina_node *node) {
  conv_shape s;
  if (!describe_winograd(node, &s)) return 0;
  if (lamina_conv_depthwise_tiles(&s)) return s.tiled && lamina_conv_depthwise_tiled_cost(&s) < 1;
  const lamina_winograd_kernels *forms = s.kernels->winograd;
  const lamina_winograd_form *other = s.form == &forms->f4 ? &forms->f2 : &forms->f4;
  const double cost = lamina_conv_winograd_cost(&s, s.form);
  return cost < 1 && (!is_accurate(&s, other) || cost <= lamina_conv_winograd_cost(&s, other));
}

static lamina_status plan(const lamina_node *node, lamina_cost *cost) {
  conv_shape s;
  lamina_status status = lamina_conv_describe(node, &s);
  if (status) return status;
  const int passes = layer_needs_input(node, 0) ? 2 : 1;
  cost->packed = s.packed * sizeof(float);
  cost->workspace = lamina_conv_forward_workspace(&s);
  if (node->mode == LAMINA_TRAIN) {
    if (passes == 2) cost->workspace = conv_larger(cost->workspace, lamina_conv_backward_data_workspace(&s));
    cost->workspace = conv_larger(cost->workspace, lamina_conv_backward_weights_workspace(&s));
  }
  const double outputs = (double)layer_count(&node->outputs[0]), weights = (double)layer_count(&node->params[0]);
  cost->flops = 2 * outputs * (double)(s.in * s.h.kernel * s.w.kernel);
  cost->bytes = sizeof(float) * ((double)layer_count(&node->inputs[0]) + outputs + weights);
  cost->backward_flops = passes * cost->flops;
  cost->backward_bytes = passes * cost->bytes;
  cost->algorithm = algorithm(&s);
  return LAMINA_OK;
}

static lamina_status pack(const lamina_node *node) {
  conv_shape s;
  lamina_status status = lamina_conv_describe(node, &s);
  return status ? status : lamina_conv_pack(&s);
}

static lamina_status forward(const lamina_node *node) {
  conv_shape s;
  lamina_status status = lamina_conv_describe(node, &s);
  return status ? status : lamina_conv_forward(&s);
}

static lamina_status backward(const lamina_node *node) {
  conv_shape s;
  lamina_status status = lamina_conv_describe(node, &s);
  if (!status && layer_needs_input(node, 0)) status = lamina_conv_backward_data(&s);
  if (!status && node->need_params) status = lamina_conv_backward_weights(&s);
  return status;
}

const lamina_attr lamina_conv_out_channels_attr = {.size = sizeof(lamina_attr),
                                                   .name = "out_channels",
                                                   .type = LAMINA_ATTR_INT,
                                                   .min = 1,
                                                   .max = 1 << 24,
                                                   .doc = "channels of the output"};
const lamina_attr lamina_conv_kernel_attr = {.size = sizeof(lamina_attr),
                                             .name = "kernel",
                                             .type = LAMINA_ATTR_INTS,
                                             .min = 1,
                                             .max = CONV_MAX_SIZE,
                                             .count = 2,
                                             .doc = "height and width of the kernel"};
static const lamina_attr stride = {.size = sizeof(lamina_attr),
                                   .name = "stride",
                                   .type = LAMINA_ATTR_INTS,
                                   .def = "1",
                                   .min = 1,
                                   .max = CONV_MAX_SIZE,
                                   .count = 2,
                                   .doc = "step between output pixels, by height and width"};
static const lamina_attr padding_attr = {
    .size = sizeof(lamina_attr),
    .name = "padding",
    .type = LAMINA_ATTR_INTS,
    .def = "0",
    .min = 0,
    .max = CONV_MAX_SIZE,
    .doc = "zeros around the image: one number, height and width, or top, left, bottom, right"};
const lamina_attr lamina_conv_dilation_attr = {.size = sizeof(lamina_attr),
                                               .name = "dilation",
                                               .type = LAMINA_ATTR_INTS,
                                               .def = "1",
                                               .min = 1,
                                               .max = CONV_MAX_SIZE,
                                               .count = 2,
                                               .doc = "step between the taps of the kernel, by height and width"};
const lamina_attr lamina_conv_groups_attr = {.size = sizeof(lamina_attr),
                                             .name = "groups",
                                             .type = LAMINA_ATTR_INT,
                                             .def = "1",
                                             .min = 1,
                                             .max = 1 << 24,
                                             .doc = "groups of channels that are convolved apart"};
const lamina_attr lamina_conv_bias_attr = {
    .size = sizeof(lamina_attr), .name = "bias", .type = LAMINA_ATTR_BOOL, .def = "true", .doc = "add a learned bias"};

const lamina_port lamina_conv_x_port = {.size = sizeof(lamina_port),
                                        .name = "x",
                                        .kind = LAMINA_PORT_INPUT,
                                        .flags = LAMINA_PORT_BACKWARD_READS,
                                        .doc = "(N, H, W, C)"};
const lamina_port lamina_conv_y_port = {
    .size = sizeof(lamina_port), .name = "y", .kind = LAMINA_PORT_OUTPUT, .doc = "(N, OH, OW, out_channels)"};
static const lamina_port weight_port = {.size = sizeof(lamina_port),
                                        .name = "weight",
                                        .kind = LAMINA_PORT_PARAMETER,
                                        .initializer = "kaiming_uniform:2.2360679774997896",
                                        .doc = "(out_channels, C / groups, KH, KW)"};
const lamina_port lamina_conv_bias_port = {.size = sizeof(lamina_port),
                                           .name = "bias",
                                           .kind = LAMINA_PORT_PARAMETER,
                                           .flags = LAMINA_PORT_NO_DECAY,
                                           .initializer = "fan_in_uniform",
                                           .doc = "(out_channels)"};

static const lamina_kernel winograd4x4 = {.size = sizeof(lamina_kernel),
                                          .name = "winograd4x4",
                                          .supports = winograd_pays,
                                          .possible = winograd_possible,
                                          .plan = plan,
                                          .pack = pack,
                                          .forward = forward,
                                          .backward = backward,
                                          .variant = WINOGRAD_4X4};
static const lamina_kernel winograd2x2 = {.size = sizeof(lamina_kernel),
                                          .name = "winograd2x2",
                                          .supports = winograd_pays,
                                          .possible = winograd_possible,
                                          .plan = plan,
                                          .pack = pack,
                                          .forward = forward,
                                          .backward = backward,
                                          .variant = WINOGRAD_2X2};
static const lamina_kernel direct = {.size = sizeof(lamina_kernel),
                                     .name = "direct",
                                     .plan = plan,
                                     .pack = pack,
                                     .forward = forward,
                                     .backward = backward,
                                     .variant = DIRECT};

const lamina_layer lamina_layer_conv2d = {
    .size = sizeof(lamina_layer),
    .name = "conv2d",
    .version = 1,
    .doc = "two-dimensional convolution (cross-correlation) of images",
    .flags = LAMINA_LAYER_ACCUMULATES,
    .epilogues = LAMINA_EPILOGUE_AFFINE | LAMINA_EPILOGUE_ADD | LAMINA_EPILOGUE_CLAMP | LAMINA_EPILOGUE_ACTIVATION,
    .attrs = (const lamina_attr *const[]){&lamina_conv_out_channels_attr, &lamina_conv_kernel_attr, &stride,
                                          &padding_attr, &lamina_conv_dilation_attr, &lamina_conv_groups_attr,
                                          &lamina_conv_bias_attr, NULL},
    .ports = (const lamina_port *const[]){&lamina_conv_x_port, &lamina_conv_y_port, &weight_port,
                                          &lamina_conv_bias_port, NULL},
    .kernels = (const lamina_kernel *const[]){&winograd4x4, &winograd2x2, &direct, NULL},
    .infer = infer,
};
