/* SPDX-License-Identifier: Apache-2.0 */
#include "avx2.h"
#include "vec.h"

/* Written on the vec.h above. */
#include "shared/optimizer_body.h"

const lamina_optimizer_kernels lamina_avx2_optimizer = {
    .sgd = optimizer_sgd,
    .adam = optimizer_adam,
    .sum_squares = optimizer_sum_squares,
};
