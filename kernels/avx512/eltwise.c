/* SPDX-License-Identifier: Apache-2.0 */
#include "avx512.h"
#include "vec.h"

/* Written on the vec.h above. */
#include "shared/eltwise_body.h"

const lamina_eltwise_kernels lamina_avx512_eltwise = {
    .activation = {eltwise_relu, eltwise_leaky_relu, eltwise_sigmoid, eltwise_tanh, eltwise_clip, eltwise_hard_sigmoid,
                   eltwise_silu, eltwise_hard_swish},
    .activation_backward = {eltwise_relu_backward, eltwise_leaky_relu_backward, eltwise_sigmoid_backward,
                            eltwise_tanh_backward, eltwise_clip_backward, eltwise_hard_sigmoid_backward,
                            eltwise_silu_backward, eltwise_hard_swish_backward},
    .add = eltwise_add,
    .add_scaled = eltwise_add_scaled,
    .multiply = eltwise_multiply,
    .clamp = eltwise_clamp,
    .all_finite = eltwise_all_finite,
    .stream_zero = eltwise_stream_zero,
};
