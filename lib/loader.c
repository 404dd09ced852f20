/* SPDX-License-Identifier: Apache-2.0 */
/* Loads a plugin file: one const descriptor is read, nothing of it is linked. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "registry.h"

/* What the first version of a layer's descriptor held: less is not a descriptor. */
#define LAYER_MINIMUM (offsetof(lamina_layer, infer) + sizeof(((lamina_layer *)0)->infer))

static lamina_status check_plugin(const lamina_context *context, const lamina_plugin *plugin, const char *path) {
  if (plugin->size < sizeof(lamina_plugin))
    return lamina_fail(context, LAMINA_PLUGIN_ERROR, "%s: its descriptor is %zu bytes long, not the %zu of this ABI", path,
                       plugin->size, sizeof(lamina_plugin));
  if (plugin->abi_major != LAMINA_PLUGIN_ABI_MAJOR ||
      (LAMINA_PLUGIN_ABI_MAJOR == 0 && plugin->abi_minor != LAMINA_PLUGIN_ABI_MINOR))
    return lamina_fail(context, LAMINA_UNSUPPORTED, "%s: it was compiled for layer ABI %u.%u; this library has %d.%d", path,
                       plugin->abi_major, plugin->abi_minor, LAMINA_PLUGIN_ABI_MAJOR, LAMINA_PLUGIN_ABI_MINOR);
  if (!plugin->id || !plugin->layers || !plugin->layers[0])
    return lamina_fail(context, LAMINA_PLUGIN_ERROR, "%s: its descriptor names no layers", path);
  for (const lamina_layer *const *layer = plugin->layers; *layer; layer++)
    if ((*layer)->size < LAYER_MINIMUM)
      return lamina_fail(context, LAMINA_PLUGIN_ERROR, "%s: a layer's descriptor is only %zu bytes long", path,
                         (*layer)->size);
  return LAMINA_OK;
}

/* Copies each layer's descriptor, zero-extended or cut to the size that this library knows, and registers it. */
static lamina_status add_layers(lamina_context *context, const lamina_plugin *plugin, lamina_module *module) {
  size_t count = 0;
  while (plugin->layers[count]) count++;
  module->copies = lamina_alloc_zeroed(context, (count + 1) * sizeof *module->copies);
  if (!module->copies) return lamina_fail_memory(context, (count + 1) * sizeof *module->copies);
  for (size_t i = 0; i < count; i++) {
    const lamina_layer *layer = plugin->layers[i];
    lamina_layer *copy = module->copies[i] = lamina_alloc_zeroed(context, sizeof *copy);
    if (!copy) return lamina_fail_memory(context, sizeof *copy);
    memcpy(copy, layer, layer->size < sizeof *copy ? layer->size : sizeof *copy);
    copy->size = sizeof *copy;
    lamina_status status = lamina_registry_add(context, copy, module->path);
    if (status) return status;
  }
  return LAMINA_OK;
}

void lamina_module_unload(lamina_context *context, lamina_module *module) {
  lamina_registry_remove(context, module->path);
  for (lamina_layer **copy = module->copies; copy && *copy; copy++) lamina_free(context, *copy);
  lamina_free(context, module->copies);
  lamina_free(context, module->path);
  if (module->handle) dlclose(module->handle);
}

static lamina_status keep_module(lamina_context *context, const lamina_module *module) {
  lamina_registry *registry = context->registry;
  pthread_mutex_lock(&registry->lock);
  lamina_module *modules =
      lamina_grow(context, registry->modules, &registry->module_capacity, registry->module_count + 1, sizeof *modules);
  if (modules) {
    registry->modules = modules;
    modules[registry->module_count++] = *module;
  }
  pthread_mutex_unlock(&registry->lock);
  return modules ? LAMINA_OK : lamina_fail_memory(context, sizeof *modules);
}

lamina_status lamina_context_load_plugin(lamina_context *context, const char *path) {
  if (!context) return LAMINA_INVALID_ARGUMENT;
  if (!path) return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "lamina_context_load_plugin: path is NULL");
  lamina_module module = {0};
  lamina_status status = LAMINA_OK;
  char *real = realpath(path, NULL); /* absolute: dlopen must not search */
  if (!real) return lamina_fail(context, LAMINA_NOT_FOUND, "%s: there is no such plugin file", path);
  module.path = lamina_copy_string(context, real);
  free(real);
  if (!module.path) return lamina_fail_memory(context, strlen(path));

  module.handle = dlopen(module.path, RTLD_NOW | RTLD_LOCAL);
  const lamina_plugin *plugin = module.handle ? dlsym(module.handle, LAMINA_PLUGIN_ENTRY) : NULL;
  if (!module.handle)
    status = lamina_fail(context, LAMINA_PLUGIN_ERROR, "%s: %s", path, dlerror());
  else if (!plugin)
    status = lamina_fail(context, LAMINA_PLUGIN_ERROR, "%s: it has no symbol '%s', so it is no Lamina plugin", path,
                         LAMINA_PLUGIN_ENTRY);
  else
    status = check_plugin(context, plugin, path);
  if (!status) status = add_layers(context, plugin, &module);
  if (!status) status = keep_module(context, &module);
  if (status) lamina_module_unload(context, &module);
  return status;
}
