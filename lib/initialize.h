/* SPDX-License-Identifier: Apache-2.0 */
/* Initialisers by name, as plugin.h lists them. */
#ifndef LAMINA_INITIALIZE_H
#define LAMINA_INITIALIZE_H

#include "core.h"

/* Checks the text without writing anything. */
lamina_status lamina_initializer_check(const lamina_context *context, const char *text);
/* Fills an f32 or i64 tensor. `stream` decides the random numbers. */
lamina_status lamina_initializer_run(const lamina_context *context, const char *text, int64_t fan_in, int64_t fan_out,
                                     uint64_t stream, lamina_tensor *tensor);

#endif
