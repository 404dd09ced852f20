/* SPDX-License-Identifier: Apache-2.0 */
#include "builtin.h"

/* clang-format off */
const lamina_layer *const lamina_builtin_layers[] = {
    &lamina_layer_add,
    &lamina_layer_avg_pool2d,
    &lamina_layer_batch_norm,
    &lamina_layer_clip,
    &lamina_layer_concat,
    &lamina_layer_conv2d,
    &lamina_layer_conv_transpose2d,
    &lamina_layer_dropout,
    &lamina_layer_flatten,
    &lamina_layer_global_avg_pool,
    &lamina_layer_hard_sigmoid,
    &lamina_layer_hard_swish,
    &lamina_layer_leaky_relu,
    &lamina_layer_linear,
    &lamina_layer_max_pool2d,
    &lamina_layer_mse_loss,
    &lamina_layer_relu,
    &lamina_layer_sigmoid,
    &lamina_layer_silu,
    &lamina_layer_softmax,
    &lamina_layer_softmax_cross_entropy,
    &lamina_layer_tanh,
    NULL,
};
/* clang-format on */
