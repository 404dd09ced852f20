/* SPDX-License-Identifier: Apache-2.0 */
#include "neon.h"

const lamina_kernels lamina_kernels_neon = {
    .isa = "neon",
    .vector_floats = 4,
    .gemm = &lamina_neon_gemm,
    .norm = &lamina_neon_norm,
    .eltwise = &lamina_neon_eltwise,
    .pool = &lamina_neon_pool,
    .softmax = &lamina_neon_softmax,
    .optimizer = &lamina_neon_optimizer,
    .depthwise = &lamina_neon_depthwise,
    .conv = &lamina_neon_conv,
    .winograd = &lamina_neon_winograd,
};
