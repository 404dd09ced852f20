/* SPDX-License-Identifier: Apache-2.0 */
/* The services that layers receive. */
#ifndef LAMINA_HOST_H
#define LAMINA_HOST_H

#include "core.h"

void lamina_host_init(lamina_context *context);
/* Runs tasks on the context's pool or the caller's. */
void lamina_parallel(const lamina_context *context, int64_t tasks, void (*task)(void *arg, int64_t index, int thread),
                     void *arg);

#endif
