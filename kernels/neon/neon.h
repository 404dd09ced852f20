/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel groups of this folder, as table.c gathers them. */
#ifndef LAMINA_KERNELS_NEON_H
#define LAMINA_KERNELS_NEON_H

#include "kernels.h"

extern const lamina_gemm_kernels lamina_neon_gemm;
extern const lamina_norm_kernels lamina_neon_norm;
extern const lamina_eltwise_kernels lamina_neon_eltwise;
extern const lamina_pool_kernels lamina_neon_pool;
extern const lamina_softmax_kernels lamina_neon_softmax;
extern const lamina_optimizer_kernels lamina_neon_optimizer;
extern const lamina_depthwise_kernels lamina_neon_depthwise;
extern const lamina_conv_kernels lamina_neon_conv;
extern const lamina_winograd_kernels lamina_neon_winograd;

#endif
