/* SPDX-License-Identifier: Apache-2.0 */
/* Loads a plugin: one const descriptor is read, nothing of it is linked. */
#include "plugin/loader.h"

#include "plugin/copy.h"
#include "plugin/search.h"
#include "plugin/trust.h"

#include <dlfcn.h>
#include <fenv.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The dynamic loader would map what lies beyond the end of a file, and die of it. */
static lamina_status check_segments(const lamina_elf *elf) {
  Elf64_Phdr *segments;
  lamina_status status = lamina_elf_segments(elf, &segments);
  for (int i = 0; !status && i < elf->head.e_phnum; i++)
    if (segments[i].p_offset > elf->bytes || segments[i].p_filesz > elf->bytes - segments[i].p_offset)
      status =
          lamina_fail(elf->context, LAMINA_BAD_FILE, "%s: it is cut off: a segment ends beyond the file", elf->path);
  lamina_free(elf->context, segments);
  return status;
}

lamina_status lamina_plugin_open(const lamina_context *context, const char *plugin, lamina_plugin_file *file) {
  char *path;
  *file = (lamina_plugin_file){.fd = -1};
  lamina_status status = lamina_plugin_resolve(context, plugin, &path);
  if (status) return status;
  status = lamina_trusted_open(context, path, &file->fd, &file->path);
  lamina_free(context, path);
  if (status) return status;
  status = lamina_elf_open(context, file->path, file->fd, &file->elf);
  if (!status) {
    status = check_segments(&file->elf);
    if (!status) status = lamina_manifest_read(&file->elf, &file->manifest);
  }
  if (status) lamina_plugin_close(context, file);
  return status;
}

void lamina_plugin_close(const lamina_context *context, lamina_plugin_file *file) {
  if (file->elf.context) lamina_elf_close(&file->elf);
  lamina_manifest_free(context, &file->manifest);
  lamina_free(context, file->path);
  if (file->fd >= 0) close(file->fd);
  *file = (lamina_plugin_file){.fd = -1};
}

/* A name of the descriptor that no other loaded file ever had: the dynamic loader takes equal names for the same file,
   and a descriptor's number is soon another file's. So the file's number is spelled in the path, a bit a slash: "./" or
   "/". */
static void spell_path(const struct stat *info, int fd, char path[320]) {
  const uint64_t numbers[] = {(uint64_t)info->st_dev, (uint64_t)info->st_ino};
  char *end = path + sprintf(path, "/proc/self/fd/");
  for (int i = 0; i < 128; i++) {
    if (numbers[i / 64] >> (i % 64) & 1) *end++ = '.';
    *end++ = '/';
  }
  sprintf(end, "%d", fd);
}

static lamina_status map_file(const lamina_context *context, const lamina_plugin_file *file, lamina_module *module) {
  struct stat info;
  char path[320];
  fenv_t before;
  if (fstat(file->fd, &info)) return lamina_fail(context, LAMINA_IO_ERROR, "%s: it cannot be read", file->path);
  module->device = info.st_dev;
  module->inode = info.st_ino;
  spell_path(&info, file->fd, path);
  fegetenv(&before);
  module->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  fesetenv(&before); /* a constructor of -ffast-math would flush denormals to zero from here on */
  if (module->handle) return LAMINA_OK;
  const char *why = dlerror();
  if (why && strncmp(why, path, strlen(path)) == 0) why += strlen(path);
  if (why) why += strspn(why, ": ");
  return lamina_fail(context, LAMINA_PLUGIN_ERROR, "%s: it cannot be loaded: %s", file->path,
                     why ? why : "no reason given");
}

/* Whether descriptor and manifest say the same. */
static lamina_status check_plugin(const lamina_context *context, const lamina_plugin_file *file,
                                  const lamina_plugin *plugin) {
  const lamina_manifest *m = &file->manifest;
  if (plugin->abi_major != m->abi_major || plugin->abi_minor != m->abi_minor || !plugin->id || !plugin->version ||
      !plugin->layers || !plugin->layers[0] || !plugin->manifest || strcmp(plugin->manifest, m->text) != 0 ||
      strcmp(plugin->id, m->id) != 0 || strcmp(plugin->version, m->version) != 0)
    return lamina_fail(context, LAMINA_PLUGIN_ERROR,
                       "%s: its manifest (%s %s, ABI %u.%u) is not that of its descriptor (%s %s, ABI %u.%u)",
                       file->path, m->id, m->version, m->abi_major, m->abi_minor, plugin->id ? plugin->id : "no id",
                       plugin->version ? plugin->version : "no version", plugin->abi_major, plugin->abi_minor);
  const char *name = m->layers + strspn(m->layers, " ");
  for (const lamina_layer *const *layer = plugin->layers; *layer || *name; layer += *layer != NULL) {
    const size_t length = strcspn(name, " ");
    const char *has = *layer && (*layer)->name ? (*layer)->name : "no layer";
    if (!*layer || !length || strlen(has) != length || memcmp(has, name, length) != 0)
      return lamina_fail(context, LAMINA_PLUGIN_ERROR,
                         "%s: its manifest names the layer '%.*s' where its descriptor has '%s'", file->path,
                         (int)length, name, has);
    name += length + strspn(name + length, " ");
  }
  return LAMINA_OK;
}

static lamina_status add_layer(lamina_context *context, const lamina_layer *from, lamina_module *module) {
  lamina_layer *copy;
  lamina_registration base, row = {.provider = module->path, .module = module};
  lamina_status status = lamina_layer_copy(context, module, from, &copy);
  if (status) return status;
  row.layer = copy;
  if (copy->flags & LAMINA_LAYER_OVERRIDE) {
    if (!lamina_registry_hold(context, copy->name, &base))
      return lamina_fail(context, LAMINA_NOT_FOUND, "%s: it overrides the layer '%s', which is not there", module->path,
                         copy->name);
    module->bases[module->base_count++] = base.module; /* held, if not NULL, until this module goes */
    lamina_registration *hidden = lamina_module_alloc(context, module, sizeof *hidden);
    if (!hidden) return lamina_fail_memory(context, sizeof *hidden);
    *hidden = base;
    row.hidden = hidden;
    status = lamina_layer_override(context, module, copy, base.layer);
  }
  if (!status) status = lamina_registry_put(context, &row);
  return status;
}

static lamina_status add_layers(lamina_context *context, const lamina_plugin *plugin, lamina_module *module) {
  size_t count = 0;
  while (plugin->layers[count]) count++;
  char *id = lamina_module_alloc(context, module, strlen(plugin->id) + 1);
  module->bases = lamina_module_alloc(context, module, count * sizeof(lamina_module *));
  if (!id || !module->bases) return lamina_fail_memory(context, count * sizeof(lamina_module *));
  module->id = strcpy(id, plugin->id);
  lamina_status status = LAMINA_OK;
  for (size_t i = 0; i < count && !status; i++) status = add_layer(context, plugin->layers[i], module);
  return status;
}

static lamina_status keep_module(lamina_context *context, lamina_module *module) {
  lamina_registry *registry = context->registry;
  pthread_mutex_lock(&registry->lock);
  lamina_module **modules =
      lamina_grow(context, registry->modules, &registry->module_capacity, registry->module_count + 1, sizeof *modules);
  if (modules) {
    registry->modules = modules;
    modules[registry->module_count++] = module;
  }
  pthread_mutex_unlock(&registry->lock);
  return modules ? LAMINA_OK : lamina_fail_memory(context, sizeof *modules);
}

/* The module that was loaded from the same file, or that has the same id. */
static lamina_module *find_module(const lamina_context *context, const struct stat *info, const char *id) {
  const lamina_registry *registry = context->registry;
  for (size_t i = 0; i < registry->module_count; i++) {
    lamina_module *module = registry->modules[i];
    if (info && module->device == info->st_dev && module->inode == info->st_ino) return module;
    if (id && strcmp(module->id, id) == 0) return module;
  }
  return NULL;
}

lamina_status lamina_plugin_load(lamina_context *context, const lamina_plugin_file *file) {
  struct stat info;
  lamina_plugin plugin;
  if (fstat(file->fd, &info) == 0 && find_module(context, &info, NULL)) return LAMINA_OK;
  const lamina_module *same = find_module(context, NULL, file->manifest.id);
  if (same)
    return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "%s: a plugin '%s' is loaded already, from %s", file->path,
                       file->manifest.id, same->path);
  lamina_status status = lamina_manifest_check(context, file->path, &file->manifest);
  if (status) return status;
  lamina_module *module = lamina_alloc_zeroed(context, sizeof *module);
  if (!module) return lamina_fail_memory(context, sizeof *module);
  atomic_init(&module->references, 1);
  module->path = lamina_copy_string(context, file->path);
  status = module->path ? map_file(context, file, module) : lamina_fail_memory(context, strlen(file->path));
  const lamina_plugin *entry = status ? NULL : dlsym(module->handle, LAMINA_PLUGIN_ENTRY);
  if (!status && !entry)
    status = lamina_fail(context, LAMINA_PLUGIN_ERROR, "%s: it does not export '%s'", file->path, LAMINA_PLUGIN_ENTRY);
  if (!status) status = lamina_plugin_copy(context, file->path, entry, &plugin);
  if (!status) status = check_plugin(context, file, &plugin);
  if (!status) status = add_layers(context, &plugin, module);
  if (!status) status = keep_module(context, module);
  if (!status) return LAMINA_OK;
  lamina_registry_remove(context, module);
  lamina_module_release(context, module);
  return status;
}

lamina_status lamina_context_load_plugin(lamina_context *context, const char *plugin) {
  lamina_plugin_file file;
  if (!context) return LAMINA_INVALID_ARGUMENT;
  if (!plugin) return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "lamina_context_load_plugin: plugin is NULL");
  lamina_status status = lamina_plugin_open(context, plugin, &file);
  if (status) return status;
  pthread_mutex_lock(&context->registry->load_lock);
  status = lamina_plugin_load(context, &file);
  pthread_mutex_unlock(&context->registry->load_lock);
  lamina_plugin_close(context, &file);
  return status;
}

/* The loaded module that a path, a name or an id stands for. */
static lamina_module *find_loaded(lamina_context *context, const char *plugin) {
  struct stat info;
  char *path;
  lamina_module *module = find_module(context, NULL, plugin);
  if (module || lamina_plugin_resolve(context, plugin, &path)) return module;
  if (stat(path, &info) == 0) module = find_module(context, &info, NULL);
  lamina_free(context, path);
  return module;
}

static lamina_status unload(lamina_context *context, const char *plugin) {
  lamina_registry *registry = context->registry;
  lamina_module *module = find_loaded(context, plugin);
  if (!module) return lamina_fail(context, LAMINA_NOT_FOUND, "the plugin '%s' is not loaded", plugin);
  for (size_t i = 0; i < registry->module_count; i++)
    for (size_t b = 0; b < registry->modules[i]->base_count; b++)
      if (registry->modules[i]->bases[b] == module)
        return lamina_fail(context, LAMINA_BUSY, "the plugin '%s' stays: %s overrides a layer of it", plugin,
                           registry->modules[i]->path);
  lamina_registry_remove(context, module);
  pthread_mutex_lock(&registry->lock);
  size_t kept = 0;
  for (size_t i = 0; i < registry->module_count; i++)
    if (registry->modules[i] != module) registry->modules[kept++] = registry->modules[i];
  registry->module_count = kept;
  pthread_mutex_unlock(&registry->lock);
  lamina_module_release(context, module);
  return LAMINA_OK;
}

lamina_status lamina_context_unload_plugin(lamina_context *context, const char *plugin) {
  if (!context) return LAMINA_INVALID_ARGUMENT;
  if (!plugin) return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "lamina_context_unload_plugin: plugin is NULL");
  pthread_mutex_lock(&context->registry->load_lock);
  const lamina_status status = unload(context, plugin);
  pthread_mutex_unlock(&context->registry->load_lock);
  return status;
}

lamina_status lamina_plugin_inspect(lamina_context *context, const char *plugin, lamina_plugin_info *info) {
  lamina_plugin_file file;
  if (!context) return LAMINA_INVALID_ARGUMENT;
  if (!plugin || !info || info->size < sizeof info->size)
    return lamina_fail(context, LAMINA_INVALID_ARGUMENT,
                       "lamina_plugin_inspect: an argument is NULL or its size is not set");
  lamina_status status = lamina_plugin_open(context, plugin, &file);
  if (status) return status;
  const lamina_manifest *m = &file.manifest;
  lamina_plugin_info full = {.size = info->size,
                             .path = lamina_intern(context, file.path),
                             .id = lamina_intern(context, m->id),
                             .version = lamina_intern(context, m->version),
                             .layers = lamina_intern(context, m->layers),
                             .isa = lamina_intern(context, m->isa),
                             .abi_major = (int)m->abi_major,
                             .abi_minor = (int)m->abi_minor,
                             .usable = lamina_manifest_check(context, file.path, m) == LAMINA_OK};
  lamina_plugin_close(context, &file);
  if (!full.path || !full.id || !full.version || !full.layers || !full.isa) return lamina_fail_memory(context, 1);
  memcpy(info, &full, info->size < sizeof full ? info->size : sizeof full);
  return LAMINA_OK;
}
