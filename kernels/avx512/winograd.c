/* SPDX-License-Identifier: Apache-2.0 */
#include "avx512.h"
#include "vec.h"

/* Written on the vec.h above. */
#include "shared/winograd_body.h"

const lamina_winograd_kernels lamina_avx512_winograd = {
    .f2 = {.outputs = 2, .points = 4, .input = winograd_input2, .output = winograd_output2, .weights = winograd_weights2},
    .f4 = {.outputs = 4, .points = 6, .input = winograd_input4, .output = winograd_output4, .weights = winograd_weights4},
};
