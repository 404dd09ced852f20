/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel groups of this folder, as table.c gathers them. */
#ifndef LAMINA_KERNELS_AVX512_H
#define LAMINA_KERNELS_AVX512_H

#include "kernels.h"

extern const lamina_gemm_kernels lamina_avx512_gemm;
extern const lamina_norm_kernels lamina_avx512_norm;
extern const lamina_eltwise_kernels lamina_avx512_eltwise;
extern const lamina_pool_kernels lamina_avx512_pool;
extern const lamina_softmax_kernels lamina_avx512_softmax;
extern const lamina_optimizer_kernels lamina_avx512_optimizer;
extern const lamina_depthwise_kernels lamina_avx512_depthwise;
extern const lamina_conv_kernels lamina_avx512_conv;
extern const lamina_winograd_kernels lamina_avx512_winograd;

#endif
