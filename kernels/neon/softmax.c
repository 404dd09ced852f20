/* SPDX-License-Identifier: Apache-2.0 */
#include "neon.h"
#include "vec.h"

/* Written on the vec.h above. */
#include "shared/softmax_body.h"

const lamina_softmax_kernels lamina_neon_softmax = {.forward = softmax_forward, .backward = softmax_backward, .unscaled = softmax_unscaled};
