/* SPDX-License-Identifier: Apache-2.0 */
#include "recurrent.h"

LAMINA_PLUGIN("lamina.recurrent", "1.0", "gru lstm", &recurrent_gru, &recurrent_lstm);
