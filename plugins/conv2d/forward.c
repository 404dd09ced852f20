/* SPDX-License-Identifier: Apache-2.0 */
#include "conv2d.h"

correlation lamina_conv_forward_pass(const conv_shape *s) {
  const lamina_node *node = s->node;
  const lamina_epilogue *e = &node->epilogue;
  const float *packed = node->packed;
  correlation c = {.shape = s,
                   .in = s->in,
                   .out = s->out,
                   .in_h = s->h.in,
                   .in_w = s->w.in,
                   .phases_h = 1,
                   .phases_w = 1,
                   .x = lamina_conv_image(&node->inputs[0]),
                   .y = lamina_conv_image(&node->outputs[0]),
                   .weights = packed,
                   .bias = packed ? packed + s->bias : NULL,
                   .lo = e->lo,
                   .hi = e->hi,
                   .epilogue = e->parts & LAMINA_EPILOGUE_ACTIVATION ? e : NULL};
  if (e->parts & LAMINA_EPILOGUE_ADD) c.add = lamina_conv_image(&e->add);
  return c;
}

/* Pixels follow each other at one stride over rows and images. */
static int one_stride(const conv_image *image, int64_t h, int64_t w) {
  return image->row == w * image->pixel && image->image == h * image->row;
}

/* A 1x1 convolution of one group as a matrix product over all pixels. */
static lamina_gemm pointwise(const correlation *c, int64_t group) {
  const conv_shape *s = c->shape;
  const int64_t channel = group * c->out;
  return (lamina_gemm){.size = sizeof(lamina_gemm),
                       .m = s->images * s->h.out * s->w.out,
                       .n = c->out,
                       .k = c->in,
                       .a = c->x.data ? c->x.data + group * c->in : NULL,
                       .a_row = c->x.pixel,
                       .a_k = 1,
                       .b_packed = c->weights ? c->weights + group * lamina_conv_packed_floats(s, c->in, c->out) : NULL,
                       .c = c->y.data ? c->y.data + channel : NULL,
                       .c_row = c->y.pixel,
                       .accumulate = c->accumulate,
                       .bias = c->bias ? c->bias + channel : NULL,
                       .add = c->add.data ? c->add.data + channel : NULL,
                       .add_row = c->add.pixel,
                       .lo = c->lo,
                       .hi = c->hi,
                       .workspace = s->node->workspace,
                       .activation = c->epilogue ? c->epilogue->activation : NULL,
                       .parameters = c->epilogue ? c->epilogue->parameters : NULL};
}

void lamina_conv_run(const correlation *c) {
  const conv_shape *s = c->shape;
  if (s->form) {
    lamina_conv_winograd(c);
    return;
  }
  if (c->backward && lamina_conv_col2im_pays(s)) {
    lamina_conv_col2im(c);
    return;
  }
  if (lamina_conv_gather_pays(c) && one_stride(&c->y, s->h.out, s->w.out) &&
      (!c->add.data || one_stride(&c->add, s->h.out, s->w.out))) {
    for (int64_t group = 0; group < s->groups; group++) lamina_conv_gather(c, pointwise(c, group), group);
    return;
  }
  if (!s->pointwise || !one_stride(&c->x, s->h.in, s->w.in) || !one_stride(&c->y, s->h.in, s->w.in) ||
      (c->add.data && !one_stride(&c->add, s->h.in, s->w.in))) {
    lamina_conv_correlate(c);
    return;
  }
  for (int64_t group = 0; group < s->groups; group++) {
    const lamina_gemm product = pointwise(c, group);
    s->host->gemm(s->host, &product);
  }
}

size_t lamina_conv_run_workspace(const correlation *c) {
  if (c->shape->form) return lamina_conv_winograd_workspace(c);
  if (c->backward && lamina_conv_col2im_pays(c->shape)) return lamina_conv_col2im_workspace(c);
  size_t bytes = lamina_conv_correlate_workspace(c);
  const int gathers = lamina_conv_gather_pays(c);
  if (c->shape->pointwise || gathers) {
    lamina_gemm product = pointwise(c, 0);
    product.b_packed = (const float *)c; /* not read: only tells that B will be packed */
    const size_t gemm =
        gathers ? lamina_conv_gather_workspace(c, product) : c->shape->host->gemm_workspace(c->shape->host, &product);
    bytes = conv_larger(bytes, gemm);
  }
  return bytes;
}

const char *lamina_conv_pointwise_algorithm(const conv_shape *s) {
  const correlation c = lamina_conv_forward_pass(s);
  lamina_gemm product = pointwise(&c, 0);
  product.b_packed = (const float *)&c; /* not read */
  return s->host->gemm_algorithm(s->host, &product);
}

size_t lamina_conv_forward_workspace(const conv_shape *s) {
  if (s->depthwise) return lamina_conv_depthwise_workspace(s);
  const correlation c = lamina_conv_forward_pass(s);
  return lamina_conv_run_workspace(&c);
}

lamina_status lamina_conv_forward(const conv_shape *s) {
  if (s->depthwise) {
    lamina_conv_depthwise_forward(s);
    return LAMINA_OK;
  }
  const correlation c = lamina_conv_forward_pass(s);
  lamina_conv_run(&c);
  return LAMINA_OK;
}

size_t lamina_conv_backward_data_workspace(const conv_shape *s) {
  if (lamina_conv_depthwise_gradients(s)) return lamina_conv_depthwise_workspace(s);
  const correlation c = lamina_conv_backward_data_pass(s);
  return lamina_conv_run_workspace(&c);
}

lamina_status lamina_conv_backward_data(const conv_shape *s) {
  if (lamina_conv_depthwise_gradients(s)) {
    lamina_conv_depthwise_backward_data(s);
    return LAMINA_OK;
  }
  const correlation c = lamina_conv_backward_data_pass(s);
  lamina_conv_run(&c);
  return LAMINA_OK;
}
