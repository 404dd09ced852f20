/* SPDX-License-Identifier: Apache-2.0 */
#include "neon.h"
#include "vec.h"

/* Written on the vec.h above. */
#include "shared/optimizer_body.h"

const lamina_optimizer_kernels lamina_neon_optimizer = {
    .sgd = optimizer_sgd,
    .adam = optimizer_adam,
    .sum_squares = optimizer_sum_squares,
};
