/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/search.h"

#include "plugin/manifest.h"

#include <dirent.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 4096, MAX_FILES = 1024 };

/* lamina/plugins beside the file that this code is in. */
static const char *own_folder(char *buffer) {
  static const char here = 0;
  Dl_info info;
  char *file = dladdr(&here, &info) && info.dli_fname ? realpath(info.dli_fname, NULL) : NULL;
  char *slash = file ? strrchr(file, '/') : NULL;
  const int length = slash ? snprintf(buffer, PATH_BYTES, "%.*s/lamina/plugins", (int)(slash - file), file) : 0;
  free(file);
  return length > 0 && length < PATH_BYTES ? buffer : NULL;
}

/* Calls `visit` for each folder, in order, until it returns true. Only absolute ones: never the working directory. */
static bool each_folder(const lamina_context *context, bool (*visit)(void *user, const char *folder), void *user) {
  char own[PATH_BYTES], folder[PATH_BYTES];
  const char *const lists[] = {context->options.plugin_path, secure_getenv("LAMINA_PLUGIN_PATH"), own_folder(own)};
  for (int i = 0; i < 3; i++)
    for (const char *list = lists[i]; list && *list;) {
      const size_t length = strcspn(list, ":");
      if (length && length < sizeof folder && list[0] == '/') {
        memcpy(folder, list, length);
        folder[length] = '\0';
        if (visit(user, folder)) return true;
      }
      list += length + (list[length] == ':');
    }
  return false;
}

typedef struct search {
  const lamina_context *context;
  const char *name;
  char path[PATH_BYTES + 256];
} search;

static bool has_file(void *user, const char *folder) {
  search *s = user;
  const size_t length = strlen(s->name);
  const bool whole = length > 3 && strcmp(s->name + length - 3, ".so") == 0;
  snprintf(s->path, sizeof s->path, "%s/%s%s", folder, s->name, whole ? "" : ".so");
  return access(s->path, F_OK) == 0;
}

static bool add_folder(void *user, const char *folder) {
  char *text = user;
  const size_t used = strlen(text), room = 400 - used;
  if (room > strlen(folder) + 3) snprintf(text + used, room, "%s%s", used ? ", " : "", folder);
  return false;
}

lamina_status lamina_plugin_resolve(const lamina_context *context, const char *plugin, char **path) {
  search s = {.context = context, .name = plugin};
  char folders[400] = "";
  *path = NULL;
  if (!*plugin || strlen(plugin) >= PATH_BYTES)
    return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "a plugin's path or name is empty or too long");
  if (!strchr(plugin, '/') && (strlen(plugin) > 200 || !each_folder(context, has_file, &s))) {
    each_folder(context, add_folder, folders);
    return lamina_fail(context, LAMINA_NOT_FOUND, "there is no plugin '%s' in %s (a path has a slash: './%s')", plugin,
                       folders, plugin);
  }
  *path = lamina_copy_string(context, strchr(plugin, '/') ? plugin : s.path);
  return *path ? LAMINA_OK : lamina_fail_memory(context, strlen(plugin));
}

typedef struct listing {
  lamina_context *context;
  void (*found)(void *user, const lamina_plugin_info *info);
  void *user;
} listing;

static int is_module(const struct dirent *entry) {
  const size_t length = strlen(entry->d_name);
  return length > 3 && entry->d_name[0] != '.' && strcmp(entry->d_name + length - 3, ".so") == 0;
}

static bool list_folder(void *user, const char *folder) {
  const listing *l = user;
  struct dirent **names;
  const int count = scandir(folder, &names, is_module, alphasort);
  for (int i = 0; i < count; i++) {
    char path[PATH_BYTES + 256];
    lamina_plugin_info info = {.size = sizeof info};
    snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name);
    if (i < MAX_FILES && lamina_plugin_inspect(l->context, path, &info) == LAMINA_OK) l->found(l->user, &info);
    free(names[i]);
  }
  if (count >= 0) free(names);
  return false;
}

void lamina_plugin_list(lamina_context *context, void (*found)(void *user, const lamina_plugin_info *info),
                        void *user) {
  listing l = {.context = context, .found = found, .user = user};
  if (context && found) each_folder(context, list_folder, &l);
}

typedef struct wanted {
  const char *layer;
  char path[400];
} wanted;

static void note_provider(void *user, const lamina_plugin_info *info) {
  wanted *w = user;
  if (!w->path[0] && lamina_has_word(info->layers, w->layer, strlen(w->layer)))
    snprintf(w->path, sizeof w->path, "%s", info->path);
}

lamina_status lamina_plugin_suggest(lamina_context *context, const char *node, const char *layer) {
  wanted w = {.layer = layer};
  char folders[400] = "";
  lamina_plugin_list(context, note_provider, &w);
  if (w.path[0])
    return lamina_fail(context, LAMINA_NOT_FOUND,
                       "node '%s': the layer '%s' is in the plugin %s, which is not loaded (a model never loads code; "
                       "--plugin does)",
                       node, layer, w.path);
  each_folder(context, add_folder, folders);
  return lamina_fail(context, LAMINA_NOT_FOUND,
                     "node '%s': there is no layer '%s'; `lamina layers` lists those that are. No plugin in %s has it (--plugin "
                     "loads one from elsewhere)",
                     node, layer, folders);
}
