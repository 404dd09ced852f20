/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gradient of x: dx(i, :) = sum over taps k and outputs o with o * stride - pad + k * dilation = i of dy(o, :) *
 * W(k). The pixels i of one residue modulo the stride use the same taps: they are a phase, a correlation of stride 1 of
 * dy with these taps in reverse order, written to every stride-th pixel of dx.
 */
#include "conv2d.h"

#include <math.h>

correlation lamina_conv_backward_data_pass(const conv_shape *s) {
  const lamina_node *node = s->node;
  const float *packed = node->packed;
  correlation c = {.shape = s,
                   .backward = 1,
                   .in = s->out,
                   .out = s->in,
                   .in_h = s->h.out,
                   .in_w = s->w.out,
                   .phases_h = layer_min(s->h.stride, s->h.in),
                   .phases_w = layer_min(s->w.stride, s->w.in),
                   .weights = packed ? packed + s->backward : NULL,
                   .lo = -INFINITY,
                   .hi = INFINITY,
                   .accumulate = layer_accumulates(node, 0)};
  if (node->d_outputs) c.x = lamina_conv_image(&node->d_outputs[0]);
  if (node->d_inputs) c.y = lamina_conv_image(&node->d_inputs[0]);
  return c;
}
