/* SPDX-License-Identifier: Apache-2.0 */
/* The layers that a context knows, built in or loaded. */
#ifndef LAMINA_REGISTRY_H
#define LAMINA_REGISTRY_H

#include <sys/types.h>

#include "core.h"

/* A loaded plugin. The registry, every node of a graph and every override of its layers hold it. */
typedef struct lamina_module {
  atomic_int references;
  void *handle; /* dlopen's */
  char *path;   /* absolute */
  const char *id;
  dev_t device; /* which file it is, under whatever path */
  ino_t inode;
  void **blocks; /* memory that lives as long as the module: copies of its descriptors */
  size_t block_count, block_capacity;
  struct lamina_module **bases; /* whose layers its own override */
  size_t base_count;
} lamina_module;

typedef struct lamina_registration {
  const lamina_layer *layer;
  const char *provider;  /* "built-in", or the plugin's file; the registry's or the module's memory */
  lamina_module *module; /* NULL: built in */
  const struct lamina_registration *hidden; /* what an override stands before; the module's memory */
} lamina_registration;

struct lamina_registry {
  lamina_registration *rows; /* sorted by name */
  size_t count, capacity;
  lamina_module **modules;
  size_t module_count, module_capacity;
  pthread_mutex_t lock;      /* of all the above */
  pthread_mutex_t load_lock; /* one plugin at a time is loaded or unloaded */
};

lamina_status lamina_registry_create(lamina_context *context);
void lamina_registry_destroy(lamina_context *context);
/* Adds a layer after checking its descriptor; a name that is taken is refused, naming both providers, unless the row hides
   the one that is there. */
lamina_status lamina_registry_put(lamina_context *context, const lamina_registration *row);
/* The same for a layer that outlives the context. */
lamina_status lamina_registry_add(lamina_context *context, const lamina_layer *layer, const char *provider);
/* Takes a module's layers out; those that they hid are back. */
void lamina_registry_remove(lamina_context *context, const lamina_module *module);
/* The row of that name; its module, if any, is held for the caller. */
bool lamina_registry_hold(const lamina_context *context, const char *name, lamina_registration *row);

/* Memory that goes with the module, or NULL. */
void *lamina_module_alloc(const lamina_context *context, lamina_module *module, size_t bytes);
/* NULL stands for what is built in: nothing is held. */
void lamina_module_hold(lamina_module *module);
void lamina_module_release(const lamina_context *context, lamina_module *module);

#endif
