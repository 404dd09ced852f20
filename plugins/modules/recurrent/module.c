/* SPDX-License-Identifier: Apache-2.0 */
#include "recurrent.h"

MODULE_ENTRY("lamina.recurrent", &recurrent_gru, &recurrent_lstm);
