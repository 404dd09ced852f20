/* SPDX-License-Identifier: Apache-2.0 */
/* `lamina plugin new NAME`: a folder with a layer that works, to start from. */
#include "plugin.h"
#include "plugin_template.h"
#include "session.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct settings {
  common_settings common;
  const char *vendor;
} settings;

static const option options[] = {{"vendor", "NAME", OPTION_TEXT, offsetof(settings, vendor), 0, 0, NULL,
                                  "first part of the plugin's id (default example)"},
                                 {NULL, NULL, OPTION_FLAG, 0, 0, 0, NULL, NULL}};

typedef struct template_file {
  const char *path; /* @NAME@ in it is replaced too */
  const char *const *lines;
} template_file;

static const template_file files[] = {{"@NAME@/lamina/plugin.h", plugin_template_header},
                                      {"@NAME@/@NAME@.c", plugin_template_layer},
                                      {"@NAME@/@NAME@.json", plugin_template_model},
                                      {"@NAME@/meson.build", plugin_template_meson},
                                      {"@NAME@/Makefile", plugin_template_makefile}};

enum { FILE_COUNT = (int)(sizeof files / sizeof *files), NAME_MAX_LENGTH = 40, PATH_BYTES = 256 };

typedef struct names {
  const char *name, *vendor;
} names;

static bool is_name(const char *text) {
  if (!(*text >= 'a' && *text <= 'z') || strlen(text) > NAME_MAX_LENGTH) return false;
  return strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_") == strlen(text);
}

static void write_line(FILE *out, const char *line, const names *n) {
  while (*line) {
    if (!strncmp(line, "@NAME@", 6)) {
      fputs(n->name, out);
      line += 6;
    } else if (!strncmp(line, "@VENDOR@", 8)) {
      fputs(n->vendor, out);
      line += 8;
    } else {
      fputc(*line++, out);
    }
  }
}

static void path_of(const template_file *file, const names *n, char path[PATH_BYTES]) {
  size_t used = 0;
  for (const char *p = file->path; *p && used + NAME_MAX_LENGTH + 1 < PATH_BYTES; p++) {
    if (!strncmp(p, "@NAME@", 6)) {
      used += (size_t)snprintf(path + used, PATH_BYTES - used, "%s", n->name);
      p += 5;
    } else {
      path[used++] = *p;
    }
  }
  path[used] = '\0';
}

static int write_file(const template_file *file, const names *n) {
  char path[PATH_BYTES];
  path_of(file, n, path);
  FILE *out = fopen(path, "wx");
  if (!out) return fail("cannot write '%s': %s", path, strerror(errno));
  for (const char *const *line = file->lines; *line; line++) write_line(out, *line, n);
  const bool bad = ferror(out) != 0;
  if (fclose(out) || bad) return fail("cannot write '%s': %s", path, strerror(errno));
  return EXIT_OK;
}

/* Takes back what was written when something failed: the folder was not there before. */
static void remove_files(const names *n) {
  char path[PATH_BYTES];
  for (int i = 0; i < FILE_COUNT; i++) {
    path_of(&files[i], n, path);
    unlink(path);
  }
  snprintf(path, sizeof path, "%s/lamina", n->name);
  rmdir(path);
  rmdir(n->name);
}

static int write_folder(const names *n) {
  char path[PATH_BYTES];
  int status = EXIT_OK;
  if (mkdir(n->name, 0755)) return fail("cannot make the folder '%s': %s", n->name, strerror(errno));
  snprintf(path, sizeof path, "%s/lamina", n->name);
  if (mkdir(path, 0755)) status = fail("cannot make the folder '%s': %s", path, strerror(errno));
  for (int i = 0; i < FILE_COUNT && !status; i++) status = write_file(&files[i], n);
  if (status) remove_files(n);
  return status;
}

static void print_next(FILE *out, const names *n) {
  char path[PATH_BYTES];
  for (int i = 0; i < FILE_COUNT; i++) {
    path_of(&files[i], n, path);
    fprintf(out, "%s\n", path);
  }
  fprintf(out,
          "\nNext:\n  cd %s && make\n  lamina plugin lint ./%s.so\n  lamina explain %s.json --plugin ./%s.so\n"
          "  lamina train %s.json --plugin ./%s.so --epochs 1\n",
          n->name, n->name, n->name, n->name, n->name, n->name);
}

static int run(session *s, const names *n) {
  const char *provider;
  if (!is_name(n->name) || !is_name(n->vendor))
    return fail("a layer's and a vendor's name begin with a small letter and have small letters, digits and '_', "
                "%d at most: not '%s'",
                NAME_MAX_LENGTH, is_name(n->name) ? n->vendor : n->name);
  if (lamina_layer_find(s->context, n->name, &provider))
    return fail("there is a layer '%s' already (%s): take another name", n->name, provider);
  const int status = write_folder(n);
  if (status) return status;
  print_next(s->human, n);
  return s->common->json ? print_json(json_pack("{s:s s:s}", "folder", n->name, "plugin", n->name)) : EXIT_OK;
}

static int run_command(const command *self, int argc, char **argv) {
  settings set = {.vendor = "example"};
  parsed line;
  session s = {0};
  int status = options_parse(self, argc, argv, &set, &line);
  if (status != OPTIONS_RUN) return status;
  status = session_open(&s, self, &set.common);
  if (!status) status = run(&s, &(names){line.argument[0], set.vendor});
  session_close(&s);
  return status;
}

const command command_plugin_new = {
    .name = "plugin new",
    .arguments = "NAME",
    .min_arguments = 1,
    .max_arguments = 1,
    .summary = "a folder with a layer that works, to start from",
    .text = "Writes the folder NAME with a layer in one C file, a model that uses it, and two ways to build it, "
            "Makefile and\n"
            "meson.build. It needs a C compiler and nothing else: the header of the layer ABI comes along.",
    .examples = "  lamina plugin new prelu\n  lamina plugin new prelu --vendor acme",
    .options = options,
    .run = run_command};
