/* SPDX-License-Identifier: Apache-2.0 */
#include "norms.h"

LAMINA_PLUGIN("lamina.norms", "1.0", "batch_renorm group_norm instance_norm layer_norm rms_norm", &norms_batch_renorm,
              &norms_group_norm, &norms_instance_norm, &norms_layer_norm, &norms_rms_norm);
