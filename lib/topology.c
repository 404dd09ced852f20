/* SPDX-License-Identifier: Apache-2.0 */
#include "topology.h"

#include <hwloc.h>

/* hwloc's handle is itself opaque: ours is the same pointer under the name that lib/ uses. */
static hwloc_topology_t handle(const lamina_topology *topology) { return (hwloc_topology_t)(uintptr_t)topology; }

lamina_topology *lamina_topology_create(void) {
  hwloc_topology_t topology;
  if (hwloc_topology_init(&topology) != 0) return NULL;
  /* Devices are not wanted and slow to find. */
  hwloc_topology_set_all_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_STRUCTURE);
  hwloc_topology_set_type_filter(topology, HWLOC_OBJ_CORE, HWLOC_TYPE_FILTER_KEEP_ALL);
  hwloc_topology_set_type_filter(topology, HWLOC_OBJ_PACKAGE, HWLOC_TYPE_FILTER_KEEP_ALL); /* knows the CPU's name */
  hwloc_topology_set_cache_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_ALL);
  hwloc_topology_set_io_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_NONE);
  if (hwloc_topology_load(topology) != 0 || !hwloc_get_root_obj(topology)) {
    hwloc_topology_destroy(topology);
    return NULL;
  }
  /* Only what this process may run on (taskset, cgroups). */
  hwloc_bitmap_t allowed = hwloc_bitmap_alloc();
  if (allowed && hwloc_get_cpubind(topology, allowed, HWLOC_CPUBIND_PROCESS) == 0 && !hwloc_bitmap_iszero(allowed))
    hwloc_topology_restrict(topology, allowed, 0);
  hwloc_bitmap_free(allowed);
  return (lamina_topology *)(void *)topology;
}

void lamina_topology_destroy(lamina_topology *topology) {
  if (topology) hwloc_topology_destroy(handle(topology));
}

static hwloc_obj_type_t core_type(hwloc_topology_t topology) {
  return hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE) > 0 ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
}

int lamina_topology_cores(const lamina_topology *topology) {
  if (!topology) return 1;
  int cores = hwloc_get_nbobjs_by_type(handle(topology), core_type(handle(topology)));
  return cores > 0 ? cores : 1;
}

size_t lamina_topology_cache(const lamina_topology *topology, int level) {
  static const hwloc_obj_type_t types[] = {HWLOC_OBJ_L1CACHE, HWLOC_OBJ_L2CACHE, HWLOC_OBJ_L3CACHE};
  if (!topology || level < 1 || level > 3) return 0;
  hwloc_obj_t cache = hwloc_get_obj_by_type(handle(topology), types[level - 1], 0);
  return cache ? (size_t)cache->attr->cache.size : 0;
}

const char *lamina_topology_cpu_name(const lamina_topology *topology) {
  if (!topology) return "";
  hwloc_obj_t package = hwloc_get_obj_by_type(handle(topology), HWLOC_OBJ_PACKAGE, 0);
  const char *name = package ? hwloc_obj_get_info_by_name(package, "CPUModel") : NULL;
  if (!name) name = hwloc_obj_get_info_by_name(hwloc_get_root_obj(handle(topology)), "CPUModel");
  return name ? name : "";
}

int lamina_topology_here(const lamina_topology *topology) {
  if (!topology) return 0;
  hwloc_topology_t t = handle(topology);
  hwloc_bitmap_t place = hwloc_bitmap_alloc();
  int index = 0;
  if (place && hwloc_get_last_cpu_location(t, place, HWLOC_CPUBIND_THREAD) == 0)
    for (int i = 0, cores = lamina_topology_cores(topology); i < cores; i++) {
      hwloc_obj_t core = hwloc_get_obj_by_type(t, core_type(t), (unsigned)i);
      if (core && hwloc_bitmap_intersects(place, core->cpuset)) index = i;
    }
  hwloc_bitmap_free(place);
  return index;
}

void lamina_topology_bind(const lamina_topology *topology, pthread_t thread, int index) {
  if (!topology) return;
  hwloc_topology_t t = handle(topology);
  hwloc_obj_t core = hwloc_get_obj_by_type(t, core_type(t), (unsigned)index);
  if (core) (void)hwloc_set_thread_cpubind(t, thread, core->cpuset, 0);
}
