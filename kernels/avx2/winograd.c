/* SPDX-License-Identifier: Apache-2.0 */
#include "avx2.h"
#include "vec.h"

/* Written on the vec.h above. */
#include "shared/winograd_body.h"

const lamina_winograd_kernels lamina_avx2_winograd = WINOGRAD_FORMS;
