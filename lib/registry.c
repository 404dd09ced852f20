/* SPDX-License-Identifier: Apache-2.0 */
#include "registry.h"

#include <string.h>

#include "../plugins/builtin.h"

/* The first row whose name is not less than `name`. */
static size_t lower_bound(const lamina_registry *registry, const char *name) {
  size_t low = 0, high = registry->count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (strcmp(registry->rows[middle].layer->name, name) < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

static lamina_status check_ports(const lamina_context *context, const lamina_layer *layer) {
  int outputs = 0, inputs = 0, params = 0;
  for (const lamina_port *const *p = layer->ports; p && *p; p++) {
    if (!(*p)->name)
      return lamina_fail(context, LAMINA_PLUGIN_ERROR, "layer '%s': a port has no name", layer->name);
    if (((*p)->flags & LAMINA_PORT_VARIADIC) && p[1] && p[1]->kind == LAMINA_PORT_INPUT)
      return lamina_fail(context, LAMINA_PLUGIN_ERROR, "layer '%s': only the last input may be variadic", layer->name);
    outputs += (*p)->kind == LAMINA_PORT_OUTPUT;
    inputs += (*p)->kind == LAMINA_PORT_INPUT;
    params += (*p)->kind == LAMINA_PORT_PARAMETER || (*p)->kind == LAMINA_PORT_STATE;
  }
  if (outputs < 1 || outputs > LAMINA_MAX_PORTS || inputs > LAMINA_MAX_PORTS || params > LAMINA_MAX_PORTS)
    return lamina_fail(context, LAMINA_PLUGIN_ERROR, "layer '%s': it declares %d inputs, %d outputs and %d parameters",
                       layer->name, inputs, outputs, params);
  return LAMINA_OK;
}

static lamina_status check_attributes(const lamina_context *context, const lamina_layer *layer) {
  int count = 0;
  for (const lamina_attr *const *a = layer->attrs; a && *a; a++, count++)
    if (!(*a)->name || (*a)->count < 0 || (*a)->count > LAMINA_ATTR_MAX_INTS)
      return lamina_fail(context, LAMINA_PLUGIN_ERROR,
                         "layer '%s': attribute number %d has no name, or a count beyond 0 to %d", layer->name, count,
                         LAMINA_ATTR_MAX_INTS);
  if (count > 64) /* graph_add keeps a bit for each */
    return lamina_fail(context, LAMINA_PLUGIN_ERROR, "layer '%s': it declares %d attributes; 64 are the most",
                       layer->name, count);
  return LAMINA_OK;
}

static lamina_status check_layer(const lamina_context *context, const lamina_layer *layer) {
  if (!layer->name || !*layer->name || !layer->infer || !layer->kernels || !layer->kernels[0])
    return lamina_fail(context, LAMINA_PLUGIN_ERROR, "layer '%s': name, infer and at least one kernel are required",
                       layer->name ? layer->name : "");
  for (const lamina_kernel *const *k = layer->kernels; *k; k++)
    if (!(*k)->name || !(*k)->forward)
      return lamina_fail(context, LAMINA_PLUGIN_ERROR, "layer '%s': a kernel lacks its name or its forward", layer->name);
  lamina_status status = check_attributes(context, layer);
  return status ? status : check_ports(context, layer);
}

static bool is_at(const lamina_registry *registry, size_t at, const char *name) {
  return at < registry->count && strcmp(registry->rows[at].layer->name, name) == 0;
}

lamina_status lamina_registry_put(lamina_context *context, const lamina_registration *row) {
  lamina_registry *registry = context->registry;
  const char *name = row->layer->name;
  lamina_status status = check_layer(context, row->layer);
  if (status) return status;
  pthread_mutex_lock(&registry->lock);
  const size_t at = lower_bound(registry, name);
  lamina_registration *rows =
      lamina_grow(context, registry->rows, &registry->capacity, registry->count + 1, sizeof *rows);
  if (rows) registry->rows = rows;
  if (!rows) {
    status = lamina_fail_memory(context, sizeof *rows * (registry->count + 1));
  } else if (!is_at(registry, at, name)) {
    memmove(rows + at + 1, rows + at, (registry->count - at) * sizeof *rows);
    rows[at] = *row;
    registry->count++;
  } else if (row->hidden && row->hidden->layer == rows[at].layer && !rows[at].hidden) {
    rows[at] = *row;
  } else {
    status = lamina_fail(context, LAMINA_INVALID_ARGUMENT, "the layer '%s' of %s exists already: it comes from %s", name,
                         row->provider, rows[at].provider);
  }
  pthread_mutex_unlock(&registry->lock);
  return status;
}

lamina_status lamina_registry_add(lamina_context *context, const lamina_layer *layer, const char *provider) {
  return lamina_registry_put(context, &(lamina_registration){.layer = layer, .provider = provider});
}

void lamina_registry_remove(lamina_context *context, const lamina_module *module) {
  lamina_registry *registry = context->registry;
  size_t kept = 0;
  pthread_mutex_lock(&registry->lock);
  for (size_t i = 0; i < registry->count; i++) {
    const lamina_registration row = registry->rows[i];
    if (row.module != module)
      registry->rows[kept++] = row;
    else if (row.hidden)
      registry->rows[kept++] = *row.hidden;
  }
  registry->count = kept;
  pthread_mutex_unlock(&registry->lock);
}

bool lamina_registry_hold(const lamina_context *context, const char *name, lamina_registration *row) {
  lamina_registry *registry = context->registry;
  pthread_mutex_lock(&registry->lock);
  const size_t at = lower_bound(registry, name);
  const bool found = is_at(registry, at, name);
  if (found) {
    *row = registry->rows[at];
    lamina_module_hold(row->module);
  }
  pthread_mutex_unlock(&registry->lock);
  return found;
}

lamina_status lamina_registry_create(lamina_context *context) {
  lamina_registry *registry = lamina_alloc_zeroed(context, sizeof *registry);
  if (!registry) return lamina_fail_memory(context, sizeof *registry);
  pthread_mutex_init(&registry->lock, NULL);
  pthread_mutex_init(&registry->load_lock, NULL);
  context->registry = registry;
  for (const lamina_layer *const *layer = lamina_builtin_layers; *layer; layer++) {
    lamina_status status = lamina_registry_add(context, *layer, "built-in");
    if (status) return status;
  }
  return LAMINA_OK;
}

void lamina_registry_destroy(lamina_context *context) {
  lamina_registry *registry = context->registry;
  if (!registry) return;
  for (size_t i = 0; i < registry->module_count; i++) lamina_module_release(context, registry->modules[i]);
  lamina_free(context, registry->modules);
  lamina_free(context, registry->rows);
  pthread_mutex_destroy(&registry->lock);
  pthread_mutex_destroy(&registry->load_lock);
  lamina_free(context, registry);
  context->registry = NULL;
}

int lamina_layer_count(const lamina_context *context) {
  if (!context) return 0;
  pthread_mutex_lock(&context->registry->lock);
  const int count = (int)context->registry->count;
  pthread_mutex_unlock(&context->registry->lock);
  return count;
}

const lamina_layer *lamina_layer_at(const lamina_context *context, int index) {
  if (!context || index < 0) return NULL;
  lamina_registry *registry = context->registry;
  pthread_mutex_lock(&registry->lock);
  const lamina_layer *layer = (size_t)index < registry->count ? registry->rows[index].layer : NULL;
  pthread_mutex_unlock(&registry->lock);
  return layer;
}

const lamina_layer *lamina_layer_find(const lamina_context *context, const char *name, const char **provider) {
  lamina_registration row;
  if (!context || !name || !lamina_registry_hold(context, name, &row)) return NULL;
  if (provider) *provider = row.provider;
  lamina_module_release(context, row.module);
  return row.layer;
}
