/* SPDX-License-Identifier: Apache-2.0 */
#include "avx512.h"
#include "vec.h"

/* Written on the vec.h above. */
#include "shared/norm_apply_body.h"
#include "shared/norm_merge_body.h"
#include "shared/norm_reduce_body.h"

const lamina_norm_kernels lamina_avx512_norm = {
    .moments = norm_moments,
    .merge = norm_merge,
    .merge_moments = norm_merge_moments,
    .finish = norm_finish,
    .normalize = norm_normalize,
    .backward_reduce = norm_backward_reduce,
    .backward_apply = norm_backward_apply,
    .column_sum = norm_column_sum,
};
