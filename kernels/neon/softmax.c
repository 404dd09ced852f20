/* SPDX-License-Identifier: Apache-2.0 */
#include "neon.h"
#include "shared/softmax_body.h"
#include "vec.h"

const lamina_softmax_kernels lamina_neon_softmax = {.forward = softmax_forward, .backward = softmax_backward};
