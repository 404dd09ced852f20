/* SPDX-License-Identifier: Apache-2.0 */
/* The machine as hwloc sees it, within the cpuset that this process may use. */
#ifndef LAMINA_TOPOLOGY_H
#define LAMINA_TOPOLOGY_H

#include <pthread.h>
#include <stddef.h>

typedef struct lamina_topology lamina_topology;

/* NULL when there is no memory or hwloc finds nothing. */
lamina_topology *lamina_topology_create(void);
void lamina_topology_destroy(lamina_topology *topology);
/* Cores that this process may use; at least 1. */
int lamina_topology_cores(const lamina_topology *topology);
/* Bytes of data cache of that level (1 to 3) above the first core; 0 if there is none. */
size_t lamina_topology_cache(const lamina_topology *topology, int level);
const char *lamina_topology_cpu_name(const lamina_topology *topology);
/* The index of the usable core that the calling thread runs on; 0 if that is not known. */
int lamina_topology_here(const lamina_topology *topology);
/* Binds a thread to the index-th usable core; a failure is ignored, since placement is only a matter of speed. */
void lamina_topology_bind(const lamina_topology *topology, pthread_t thread, int index);

#endif
