/* SPDX-License-Identifier: Apache-2.0 */
/*
 * conv_transpose2d: x (N, H, W, C) and weight (C, O / groups, KH, KW) to y (N, OH, OW, O), PyTorch's ConvTranspose2d.
 *
 * It is a convolution read backwards. Take the convolution that maps y's grid to x's with the same weight: this layer's
 * forward is that convolution's gradient of its input, its gradient of x is that convolution's forward, and its
 * gradient of weight is that convolution's with the two images exchanged. So a node is described as that convolution,
 * on a node whose inputs and outputs, values and gradients have changed places, and all work is done by its functions.
 *
 * packed: weights of forward, bias (the epilogue's scale and shift folded into both), then, if the gradient of x is
 * wanted, its weights.
 */
#include "../builtin.h"
#include "conv2d.h"

#include <math.h>
#include <string.h>

enum { OUT_CHANNELS, KERNEL, STRIDE, PADDING, DILATION, GROUPS, BIAS, OUTPUT_PADDING };

typedef struct transposed {
  const lamina_node *node;
  lamina_node mirror; /* what the convolution's functions see */
  lamina_tensor x, y, dx, dy, params[2], d_params[2];
  conv_shape shape;              /* of the convolution: in is y's, out is x's */
  size_t bias, backward, packed; /* in node->packed, counted in floats */
} transposed;

/* Output size of an axis, or 0 if it is below 1 or overflows. */
static int64_t output_size(const conv_axis_shape *s, int64_t pad_after, int64_t extra) {
  int64_t size;
  if (__builtin_mul_overflow(s->out - 1, s->stride, &size)) return 0;
  if (__builtin_add_overflow(size, s->dilation * (s->kernel - 1) + extra + 1 - s->pad - pad_after, &size)) return 0;
  return layer_max(size, 0);
}

static conv_axis_shape axis_shape(const lamina_node *node, int axis) {
  const lamina_value *attrs = node->attrs;
  conv_axis_shape s = {.out = node->inputs[0].dim[1 + axis],
                       .kernel = attrs[KERNEL].ints[axis],
                       .stride = attrs[STRIDE].ints[axis],
                       .pad = lamina_conv_padding(&attrs[PADDING], axis, 0),
                       .dilation = attrs[DILATION].ints[axis]};
  s.in = output_size(&s, lamina_conv_padding(&attrs[PADDING], axis, 1), attrs[OUTPUT_PADDING].ints[axis]);
  return s;
}

static conv_shape read_shape(const lamina_node *node) {
  const int64_t groups = node->attrs[GROUPS].i;
  conv_shape s = {.host = node->host,
                  .images = node->inputs[0].dim[0],
                  .groups = groups,
                  .in = node->attrs[OUT_CHANNELS].i / groups,
                  .out = node->inputs[0].dim[3] / groups,
                  .h = axis_shape(node, 0),
                  .w = axis_shape(node, 1)};
  s.pointwise = s.h.kernel == 1 && s.w.kernel == 1 && s.h.stride == 1 && s.w.stride == 1 && s.h.out == s.h.in &&
                s.w.out == s.w.in && s.h.pad == 0 && s.w.pad == 0;
  return s;
}

static void mirror_node(const lamina_node *node, transposed *t) {
  t->x = node->inputs[0];
  t->y = node->outputs[0];
  t->dx = node->d_inputs ? node->d_inputs[0] : t->x;
  t->dy = node->d_outputs ? node->d_outputs[0] : t->y;
  t->params[0] = node->params[0];
  t->params[1].rank = t->d_params[1].rank = -1;
  if (node->d_params) t->d_params[0] = node->d_params[0];
  t->mirror = (lamina_node){.size = sizeof t->mirror,
                            .name = node->name,
                            .host = node->host,
                            .mode = node->mode,
                            .n_inputs = 1,
                            .n_outputs = 1,
                            .n_params = 2,
                            .inputs = &t->dy,
                            .outputs = &t->dx,
                            .d_inputs = &t->y,
                            .d_outputs = &t->x,
                            .params = t->params,
                            .d_params = t->d_params,
                            .need_inputs = 1,
                            .need_params = node->need_params & 1,
                            .accumulate_params = node->accumulate_params & 1,
                            .epilogue = {.size = sizeof(lamina_epilogue), .lo = -INFINITY, .hi = INFINITY},
                            .workspace = node->workspace};
}

static lamina_status describe(const lamina_node *node, transposed *t) {
  lamina_status status;
  memset(t, 0, sizeof *t);
  t->node = node;
  mirror_node(node, t);
  t->shape = read_shape(node);
  t->shape.node = &t->mirror;
  t->shape.kernels = layer_kernels(node, &status);
  if (status) return status;
  const conv_shape *s = &t->shape;
  t->bias = (size_t)(s->groups * lamina_conv_backward_floats(s));
  t->packed = t->bias + (size_t)round_up(s->groups * s->in, CONV_LINE);
  if (node->mode != LAMINA_TRAIN || !layer_needs_input(node, 0)) return LAMINA_OK;
  t->backward = t->packed;
  t->packed += (size_t)(s->groups * lamina_conv_packed_floats(s, s->in, s->out));
  return LAMINA_OK;
}

static correlation forward_pass(const transposed *t) {
  const lamina_epilogue *e = &t->node->epilogue;
  const float *packed = t->node->packed;
  correlation c = lamina_conv_backward_data_pass(&t->shape);
  c.weights = packed;
  c.bias = packed ? packed + t->bias : NULL;
  c.lo = e->lo;
  c.hi = e->hi;
  c.epilogue = e->parts & LAMINA_EPILOGUE_ACTIVATION ? e : NULL;
  if (e->parts & LAMINA_EPILOGUE_ADD) c.add = lamina_conv_image(&e->add);
  return c;
}

static correlation backward_data_pass(const transposed *t) {
  correlation c = lamina_conv_forward_pass(&t->shape);
  c.weights = t->node->packed ? (const float *)t->node->packed + t->backward : NULL;
  c.accumulate = layer_accumulates(t->node, 0);
  return c;
}

static lamina_status check_padding(const lamina_node *node) {
  for (int axis = 0; axis < 2; axis++) {
    const int64_t extra = node->attrs[OUTPUT_PADDING].ints[axis];
    const int64_t bound = layer_max(node->attrs[STRIDE].ints[axis], node->attrs[DILATION].ints[axis]);
    if (extra >= bound)
      return node->host->fail(node->host, LAMINA_INVALID_ARGUMENT,
                              "output_padding %lld is not below the stride or the dilation", (long long)extra);
  }
  return lamina_conv_check_padding(node, &node->attrs[PADDING]);
}

static lamina_status infer(lamina_node *node) {
  const lamina_host *host = node->host;
  const lamina_tensor *x = &node->inputs[0];
  const int64_t out = node->attrs[OUT_CHANNELS].i, groups = node->attrs[GROUPS].i;
  lamina_status status = layer_check_input(node, 0, 4, 4, "(N, H, W, C)");
  if (!status) status = check_padding(node);
  if (status) return status;
  if (x->dim[3] % groups || out % groups)
    return host->fail(host, LAMINA_SHAPE_MISMATCH, "%lld input and %lld output channels do not divide into %lld groups",
                      (long long)x->dim[3], (long long)out, (long long)groups);
  const conv_shape s = read_shape(node);
  char text[LAYER_SHAPE_TEXT];
  if (s.h.in < 1 || s.w.in < 1)
    return host->fail(host, LAMINA_SHAPE_MISMATCH, "input 0 has shape %s: its padding leaves nothing of the output",
                      layer_shape_text(x, text));
  if (!lamina_conv_sizes_fit(&s))
    return host->fail(host, LAMINA_SHAPE_MISMATCH,
                      "input 0 has shape %s: with %lld output channels that is more than memory can hold",
                      layer_shape_text(x, text), (long long)out);
  lamina_tensor *y = &node->outputs[0], *weight = &node->params[0];
  *y = (lamina_tensor){.data = y->data, .dtype = y->dtype, .rank = 4, .dim = {s.images, s.h.in, s.w.in, out}};
  *weight = (lamina_tensor){
      .data = weight->data, .dtype = weight->dtype, .rank = 4, .dim = {x->dim[3], s.in, s.h.kernel, s.w.kernel}};
  node->params[1].rank = -1;
  if (node->attrs[BIAS].i) layer_set_shape_1d(&node->params[1], out);
  return LAMINA_OK;
}

static lamina_status plan(const lamina_node *node, lamina_cost *cost) {
  transposed t;
  lamina_status status = describe(node, &t);
  if (status) return status;
  const conv_shape *s = &t.shape;
  correlation c = forward_pass(&t);
  const int passes = layer_needs_input(node, 0) ? 2 : 1;
  cost->packed = t.packed * sizeof(float);
  cost->workspace = lamina_conv_run_workspace(&c);
  if (node->mode == LAMINA_TRAIN) {
    const int64_t pixels = s->images * s->h.in * s->w.in;
    c = backward_data_pass(&t);
    if (passes == 2) cost->workspace = conv_larger(cost->workspace, lamina_conv_run_workspace(&c));
    cost->workspace = conv_larger(cost->workspace, lamina_conv_backward_weights_workspace(s));
    cost->workspace =
        conv_larger(cost->workspace, (size_t)lamina_column_sum_workspace(pixels, s->groups * s->in) * sizeof(float));
  }
  const double inputs = (double)layer_count(&node->inputs[0]), weights = (double)layer_count(&node->params[0]);
  cost->flops = 2 * inputs * (double)(s->in * s->h.kernel * s->w.kernel);
  cost->bytes = sizeof(float) * ((double)layer_count(&node->outputs[0]) + inputs + weights);
  cost->backward_flops = passes * cost->flops;
  cost->backward_bytes = passes * cost->bytes;
  cost->algorithm = s->pointwise ? "gemm 1x1" : s->h.stride * s->w.stride == 1 ? "direct" : "direct by phases";
  return LAMINA_OK;
}

/* The weights times the scale of the output that they lead to. */
static void scale_weights(const conv_shape *s, const float *weight, const float *scale, float *to) {
  const int64_t taps = s->h.kernel * s->w.kernel;
  for (int64_t i = 0; i < s->groups * s->out; i++)
    for (int64_t o = 0; o < s->in; o++)
      for (int64_t tap = 0; tap < taps; tap++, weight++, to++) *to = *weight * scale[i / s->out * s->in + o];
}

static lamina_status pack(const lamina_node *node) {
  transposed t;
  lamina_status status = describe(node, &t);
  if (status) return status;
  const lamina_epilogue *e = &node->epilogue;
  float *packed = node->packed, *scaled = NULL;
  const float *bias = node->params[1].rank >= 0 ? node->params[1].data : NULL;
  for (int64_t o = 0; o < t.shape.groups * t.shape.in; o++) {
    packed[t.bias + (size_t)o] = bias ? bias[o] : 0;
    if (e->parts & LAMINA_EPILOGUE_AFFINE)
      packed[t.bias + (size_t)o] = packed[t.bias + (size_t)o] * e->scale[o] + e->shift[o];
  }
  if (e->parts & LAMINA_EPILOGUE_AFFINE) {
    const size_t bytes = (size_t)layer_count(&node->params[0]) * sizeof(float);
    scaled = node->host->alloc(node->host, bytes);
    if (!scaled)
      return node->host->fail(node->host, LAMINA_OUT_OF_MEMORY, "out of memory: %zu bytes to pack weights with", bytes);
    scale_weights(&t.shape, node->params[0].data, e->scale, scaled);
    t.params[0].data = scaled;
  }
  status = lamina_conv_pack_weights(&t.shape, t.backward ? packed + t.backward : NULL, packed);
  node->host->release(node->host, scaled);
  return status;
}

static lamina_status forward(const lamina_node *node) {
  transposed t;
  lamina_status status = describe(node, &t);
  if (status) return status;
  const correlation c = forward_pass(&t);
  lamina_conv_run(&c);
  return LAMINA_OK;
}

static lamina_status backward(const lamina_node *node) {
  transposed t;
  lamina_status status = describe(node, &t);
  if (status) return status;
  const conv_shape *s = &t.shape;
  if (layer_needs_input(node, 0)) {
    const correlation c = backward_data_pass(&t);
    lamina_conv_run(&c);
  }
  if (node->need_params & 1) status = lamina_conv_backward_weights(s);
  if (!status && (node->need_params >> 1 & 1) && node->params[1].rank >= 0)
    lamina_column_sum(node->host, s->kernels, s->images * s->h.in * s->w.in, s->groups * s->in, t.dy.data,
                      t.dy.stride[2], node->accumulate_params >> 1 & 1, node->d_params[1].data, node->workspace);
  return status;
}

static const lamina_attr stride = {.size = sizeof(lamina_attr),
                                   .name = "stride",
                                   .type = LAMINA_ATTR_INTS,
                                   .def = "1",
                                   .min = 1,
                                   .max = CONV_MAX_SIZE,
                                   .count = 2,
                                   .doc = "step in the output between input pixels, by height and width"};
static const lamina_attr padding_attr = {
    .size = sizeof(lamina_attr),
    .name = "padding",
    .type = LAMINA_ATTR_INTS,
    .def = "0",
    .min = 0,
    .max = CONV_MAX_SIZE,
    .doc = "taken off the output's edges: one number, height and width, or top, left, bottom, right"};
static const lamina_attr output_padding = {.size = sizeof(lamina_attr),
                                           .name = "output_padding",
                                           .type = LAMINA_ATTR_INTS,
                                           .def = "0",
                                           .min = 0,
                                           .max = CONV_MAX_SIZE,
                                           .count = 2,
                                           .doc = "rows and columns more at the bottom and the right of the output"};

static const lamina_port weight_port = {.size = sizeof(lamina_port),
                                        .name = "weight",
                                        .kind = LAMINA_PORT_PARAMETER,
                                        .initializer = "kaiming_uniform:2.2360679774997896",
                                        .doc = "(C, out_channels / groups, KH, KW)"};
static const lamina_kernel kernel = {.size = sizeof(lamina_kernel),
                                     .name = "direct",
                                     .plan = plan,
                                     .pack = pack,
                                     .forward = forward,
                                     .backward = backward};

const lamina_layer lamina_layer_conv_transpose2d = {
    .size = sizeof(lamina_layer),
    .name = "conv_transpose2d",
    .version = 1,
    .doc = "two-dimensional transposed convolution of images",
    .flags = LAMINA_LAYER_ACCUMULATES,
    .epilogues = LAMINA_EPILOGUE_AFFINE | LAMINA_EPILOGUE_ADD | LAMINA_EPILOGUE_CLAMP | LAMINA_EPILOGUE_ACTIVATION,
    .attrs = (const lamina_attr *const[]){&lamina_conv_out_channels_attr, &lamina_conv_kernel_attr, &stride,
                                          &padding_attr, &lamina_conv_dilation_attr, &lamina_conv_groups_attr,
                                          &lamina_conv_bias_attr, &output_padding, NULL},
    .ports = (const lamina_port *const[]){&lamina_conv_x_port, &lamina_conv_y_port, &weight_port,
                                          &lamina_conv_bias_port, NULL},
    .kernels = (const lamina_kernel *const[]){&kernel, NULL},
    .infer = infer,
};
