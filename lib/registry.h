/* SPDX-License-Identifier: Apache-2.0 */
/* The layers that a context knows, built in or loaded. */
#ifndef LAMINA_REGISTRY_H
#define LAMINA_REGISTRY_H

#include "core.h"

typedef struct lamina_registration {
  const lamina_layer *layer;
  const char *provider; /* "built-in", or the plugin's file; the registry's own memory */
} lamina_registration;

typedef struct lamina_module {
  void *handle; /* dlopen's */
  char *path;
  lamina_layer **copies; /* layers whose structs were grown to today's size; NULL-ended */
} lamina_module;

struct lamina_registry {
  lamina_registration *rows; /* sorted by name */
  size_t count, capacity;
  lamina_module *modules;
  size_t module_count, module_capacity;
  pthread_mutex_t lock;
};

lamina_status lamina_registry_create(lamina_context *context);
void lamina_registry_destroy(lamina_context *context);
/* Adds a layer after checking its descriptor; a name that is taken is refused, naming both providers. */
lamina_status lamina_registry_add(lamina_context *context, const lamina_layer *layer, const char *provider);
void lamina_registry_remove(lamina_context *context, const char *provider);
/* Takes a module's layers out of the registry and unmaps it. */
void lamina_module_unload(lamina_context *context, lamina_module *module);

#endif
