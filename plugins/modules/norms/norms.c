/* SPDX-License-Identifier: Apache-2.0 */
#include "norms.h"

MODULE_ENTRY("lamina.norms", &norms_batch_renorm, &norms_group_norm, &norms_instance_norm, &norms_layer_norm,
             &norms_rms_norm);
