/* SPDX-License-Identifier: Apache-2.0 */
#include "generic.h"

const lamina_kernels lamina_kernels_generic = {
    .isa = "generic",
    .vector_floats = 1,
    .gemm = &lamina_generic_gemm,
    .norm = &lamina_generic_norm,
    .eltwise = &lamina_generic_eltwise,
    .pool = &lamina_generic_pool,
    .softmax = &lamina_generic_softmax,
    .optimizer = &lamina_generic_optimizer,
    .depthwise = &lamina_generic_depthwise,
    .conv = &lamina_generic_conv,
    .winograd = &lamina_generic_winograd,
};
