/* SPDX-License-Identifier: Apache-2.0 */
#include "avx512.h"

const lamina_kernels lamina_kernels_avx512 = {
    .isa = "avx512",
    .vector_floats = 16,
    .gemm = &lamina_avx512_gemm,
    .norm = &lamina_avx512_norm,
    .eltwise = &lamina_avx512_eltwise,
    .pool = &lamina_avx512_pool,
    .softmax = &lamina_avx512_softmax,
    .optimizer = &lamina_avx512_optimizer,
    .depthwise = &lamina_avx512_depthwise,
    .conv = &lamina_avx512_conv,
    .winograd = &lamina_avx512_winograd,
};
