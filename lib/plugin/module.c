/* SPDX-License-Identifier: Apache-2.0 */
/* What a loaded plugin holds, for as long as somebody holds the plugin. */
#include "registry.h"

#include <dlfcn.h>
#include <fenv.h>

void *lamina_module_alloc(const lamina_context *context, lamina_module *module, size_t bytes) {
  void **blocks =
      lamina_grow(context, module->blocks, &module->block_capacity, module->block_count + 1, sizeof *blocks);
  if (!blocks) return NULL;
  module->blocks = blocks;
  void *memory = lamina_alloc_zeroed(context, bytes);
  if (memory) blocks[module->block_count++] = memory;
  return memory;
}

void lamina_module_hold(lamina_module *module) {
  if (module) atomic_fetch_add(&module->references, 1);
}

void lamina_module_release(const lamina_context *context, lamina_module *module) {
  fenv_t before;
  if (!module || atomic_fetch_sub(&module->references, 1) > 1) return;
  for (size_t i = 0; i < module->base_count; i++) lamina_module_release(context, module->bases[i]);
  fegetenv(&before);
  if (module->handle) dlclose(module->handle);
  fesetenv(&before);
  for (size_t i = 0; i < module->block_count; i++) lamina_free(context, module->blocks[i]);
  lamina_free(context, module->blocks);
  lamina_free(context, module->path);
  lamina_free(context, module);
}
