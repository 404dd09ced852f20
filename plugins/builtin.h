/* SPDX-License-Identifier: Apache-2.0 */
/* The built-in layers. A new one is declared here and listed in builtin.c. */
#ifndef LAMINA_BUILTIN_H
#define LAMINA_BUILTIN_H

#include "lamina/plugin.h"

extern const lamina_layer lamina_layer_add;
extern const lamina_layer lamina_layer_avg_pool2d;
extern const lamina_layer lamina_layer_batch_norm;
extern const lamina_layer lamina_layer_clip;
extern const lamina_layer lamina_layer_concat;
extern const lamina_layer lamina_layer_conv2d;
extern const lamina_layer lamina_layer_conv_transpose2d;
extern const lamina_layer lamina_layer_dropout;
extern const lamina_layer lamina_layer_flatten;
extern const lamina_layer lamina_layer_global_avg_pool;
extern const lamina_layer lamina_layer_hard_sigmoid;
extern const lamina_layer lamina_layer_hard_swish;
extern const lamina_layer lamina_layer_leaky_relu;
extern const lamina_layer lamina_layer_linear;
extern const lamina_layer lamina_layer_max_pool2d;
extern const lamina_layer lamina_layer_mse_loss;
extern const lamina_layer lamina_layer_relu;
extern const lamina_layer lamina_layer_sigmoid;
extern const lamina_layer lamina_layer_silu;
extern const lamina_layer lamina_layer_softmax;
extern const lamina_layer lamina_layer_softmax_cross_entropy;
extern const lamina_layer lamina_layer_tanh;

/* All of them, sorted by name, NULL-ended. */
extern const lamina_layer *const lamina_builtin_layers[];

#endif
