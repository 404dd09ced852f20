/* SPDX-License-Identifier: Apache-2.0 */
#include "avx2.h"
#include "vec.h"

/* Written on the vec.h above. */
#include "shared/pool_backward_body.h"
#include "shared/pool_body.h"
#include "shared/pool_winner_body.h"

const lamina_pool_kernels lamina_avx2_pool = {
    .max = pool_max,
    .max_backward = pool_max_backward,
    .average = pool_average,
    .average_backward = pool_average_backward,
    .max_winner = pool_max_winner,
    .max_gather = pool_max_gather,
};
