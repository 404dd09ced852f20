/* SPDX-License-Identifier: Apache-2.0 */
#include "io/wisdom.h"

#include "io/atomic_file.h"
#include "io/file.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define FORMAT "lamina wisdom"
enum { VERSION = 1, LIMIT = 64 << 20 /* bytes of a file that is read */ };

struct lamina_wisdom {
  const lamina_context *context;
  char *path;      /* NULL: no file */
  bool own_folder; /* the path is the default one, whose folder is made when it is missing */
  json_t *entries, *added;
  bool unusable; /* something else lies there, which is left alone */
};

/* The environment of a program with more rights than its user is not to be trusted with paths. */
static char *find_path(const lamina_context *context, bool *own_folder) {
  const char *path = secure_getenv("LAMINA_WISDOM"), *cache = secure_getenv("XDG_CACHE_HOME"),
             *home = secure_getenv("HOME");
  *own_folder = false;
  if (path) return *path ? lamina_copy_string(context, path) : NULL;
  *own_folder = true;
  if (cache && *cache == '/') return lamina_path_join(context, cache, "lamina/wisdom.json");
  return home && *home == '/' ? lamina_path_join(context, home, ".cache/lamina/wisdom.json") : NULL;
}

static json_t *refuse(lamina_wisdom *w, const char *reason) {
  lamina_warn(w->context, "tuning: %s is not used and not replaced: %s", w->path, reason);
  w->unusable = true;
  return NULL;
}

/* The entries of the file, none if there is no file yet; NULL if there is something else. */
static json_t *read_entries(lamina_wisdom *w) {
  char *text = NULL;
  size_t bytes = 0;
  json_error_t error;
  if (!w->path) return json_object();
  const lamina_status status = lamina_file_read(w->context, w->path, LIMIT, &text, &bytes);
  if (status == LAMINA_NOT_FOUND) return json_object();
  if (status) return refuse(w, lamina_error_message(w->context));
  json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
  lamina_free(w->context, text);
  if (!root) return refuse(w, error.text);
  const char *format = json_string_value(json_object_get(root, "format"));
  json_t *entries = json_object_get(root, "entries");
  if (!format || strcmp(format, FORMAT) != 0 || json_integer_value(json_object_get(root, "version")) != VERSION ||
      !json_is_object(entries))
    entries = refuse(w, "it is no wisdom of this version of the format");
  json_incref(entries);
  json_decref(root);
  return entries;
}

lamina_wisdom *lamina_wisdom_open(const lamina_context *context) {
  lamina_wisdom *w = lamina_alloc_zeroed(context, sizeof *w);
  if (!w) return NULL;
  w->context = context;
  w->path = find_path(context, &w->own_folder);
  w->entries = read_entries(w);
  w->added = json_object();
  return w;
}

static const char *kernel_of(const json_t *entries, const char *key) {
  return json_string_value(json_object_get(json_object_get(entries, key), "kernel"));
}

const char *lamina_wisdom_find(const lamina_wisdom *w, const char *key) {
  const char *added = kernel_of(w->added, key); /* an equal node of the same plan */
  return added ? added : kernel_of(w->entries, key);
}

void lamina_wisdom_add(lamina_wisdom *w, const char *key, const char *kernel, int count, const char *const *names,
                       const double *us) {
  json_t *times = json_object();
  for (int i = 0; i < count; i++) json_object_set_new(times, names[i], json_real(us[i]));
  json_object_set_new(w->added, key, json_pack("{s:s, s:o}", "kernel", kernel, "us", times));
}

/* Makes the folders above the default path; those that are there already are as good. */
static void make_folders(const lamina_wisdom *w) {
  char *path = lamina_copy_string(w->context, w->path);
  char *last = path ? strrchr(path, '/') : NULL;
  for (char *slash = last ? strchr(path + 1, '/') : NULL; slash && slash <= last; slash = strchr(slash + 1, '/')) {
    *slash = '\0';
    mkdir(path, 0700); /* what fails here fails again, with a message, when the file is written */
    *slash = '/';
  }
  lamina_free(w->context, path);
}

static lamina_status write_text(const lamina_wisdom *w, const char *text) {
  lamina_atomic_file *file = NULL;
  lamina_status status = lamina_atomic_open(w->context, w->path, &file);
  if (!status) status = lamina_atomic_write(file, text, strlen(text));
  if (status) {
    lamina_atomic_abandon(file);
    return status;
  }
  return lamina_atomic_commit(file);
}

static void save(lamina_wisdom *w) {
  json_t *entries = read_entries(w), *root = NULL;
  if (!entries) return; /* told already */
  json_object_update(entries, w->added);
  root = json_pack("{s:s, s:i, s:O}", "format", FORMAT, "version", VERSION, "entries", entries);
  char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_SORT_KEYS | JSON_REAL_PRECISION(6)) : NULL;
  if (w->own_folder) make_folders(w);
  lamina_status status = text ? write_text(w, text) : lamina_fail_memory(w->context, 0);
  if (status) lamina_warn(w->context, "tuning: its choices are not kept: %s", lamina_error_message(w->context));
  free(text);
  json_decref(root);
  json_decref(entries);
}

void lamina_wisdom_close(lamina_wisdom *w) {
  if (!w) return;
  if (w->path && !w->unusable && json_object_size(w->added)) save(w);
  json_decref(w->entries);
  json_decref(w->added);
  lamina_free(w->context, w->path);
  lamina_free(w->context, w);
}
