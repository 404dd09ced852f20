/* SPDX-License-Identifier: Apache-2.0 */
#include "neon.h"
#include "vec.h"

/* Written on the vec.h above. */
#include "shared/winograd_body.h"

const lamina_winograd_kernels lamina_neon_winograd = WINOGRAD_FORMS;
