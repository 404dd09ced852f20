/* SPDX-License-Identifier: Apache-2.0 */
#include "neon.h"
#include "vec.h"

/* Written on the vec.h above. */
#include "shared/depthwise_body.h"
#include "shared/depthwise_weights_body.h"

const lamina_depthwise_kernels lamina_neon_depthwise = {
    .forward = depthwise_forward,
    .grouped = depthwise_grouped,
    .group_weights = depthwise_group_weights,
    .backward_weights = depthwise_backward_weights,
    .winograd = depthwise_winograd,
    .winograd_weights = depthwise_winograd_weights,
    .scatters = depthwise_scatters,
    .backward_data = depthwise_backward_data,
};
