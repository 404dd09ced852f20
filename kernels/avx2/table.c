/* SPDX-License-Identifier: Apache-2.0 */
#include "avx2.h"

const lamina_kernels lamina_kernels_avx2 = {
    .isa = "avx2",
    .vector_floats = 8,
    .gemm = &lamina_avx2_gemm,
    .norm = &lamina_avx2_norm,
    .eltwise = &lamina_avx2_eltwise,
    .pool = &lamina_avx2_pool,
    .softmax = &lamina_avx2_softmax,
    .optimizer = &lamina_avx2_optimizer,
    .depthwise = &lamina_avx2_depthwise,
    .conv = &lamina_avx2_conv,
    .winograd = &lamina_avx2_winograd,
};
