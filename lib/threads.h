/* SPDX-License-Identifier: Apache-2.0 */
/* The context's own thread pool. Tasks are handed out dynamically: results do not depend on who runs which, because work
   is split by shape alone. */
#ifndef LAMINA_THREADS_H
#define LAMINA_THREADS_H

#include "core.h"
#include "topology.h"

/* A pool of `threads` threads, the caller's own included; `topology` (may be NULL) is used to place them. */
lamina_status lamina_pool_create(const lamina_context *context, int threads, const lamina_topology *topology,
                                 lamina_pool **pool);
void lamina_pool_destroy(lamina_pool *pool);
/* Runs task(arg, i, thread) for each i < tasks and returns when all have ended. A call from within a task, or while
   another thread uses the pool, runs all of them on the calling thread. */
void lamina_pool_run(lamina_pool *pool, int64_t tasks, void (*task)(void *arg, int64_t index, int thread), void *arg);

#endif
