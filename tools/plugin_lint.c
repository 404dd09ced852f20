/* SPDX-License-Identifier: Apache-2.0 */
/* `lamina plugin lint FILE`: what can be told about a plugin without running its layers. */
#include "plugin.h"
#include "session.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const option options[] = {{NULL, NULL, OPTION_FLAG, 0, 0, 0, NULL, NULL}};

typedef struct findings {
  FILE *out;
  json_t *list;
  int count;
} findings;

static void note(void *user, const char *problem) {
  findings *f = user;
  fprintf(f->out, "  - %s\n", problem);
  json_array_append_new(f->list, json_string(problem));
  f->count++;
}

/* Its descriptor is only there once it is loaded: whether it agrees with the manifest, and is well formed. */
static void check_descriptor(session *s, const char *file, findings *f) {
  if (lamina_context_load_plugin(s->context, file)) note(f, lamina_error_message(s->context));
}

static int run(session *s, const char *file) {
  findings f = {.out = s->human, .list = json_array()};
  lamina_plugin_info info = {.size = sizeof info};
  if (lamina_plugin_inspect(s->context, file, &info)) {
    json_decref(f.list);
    return fail_library(s, "cannot read the plugin '%s'", file);
  }
  fprintf(f.out, "%s\n%s %s, ABI %d.%d, %s: %s\n", info.path, info.id, info.version, info.abi_major, info.abi_minor,
          *info.isa ? info.isa : "any processor of this kind", info.layers);
  if (lamina_plugin_lint(s->context, file, note, &f)) note(&f, lamina_error_message(s->context));
  if (f.count == 0) check_descriptor(s, file, &f); /* not when loading may already do harm */
  fprintf(f.out, f.count ? "%d problem%s\n" : "no problem\n", f.count, f.count == 1 ? "" : "s");
  if (!s->common->json) {
    json_decref(f.list);
    return f.count ? EXIT_ERROR : EXIT_OK;
  }
  const int status =
      print_json(json_pack("{s:s s:s s:s s:s s:b s:o}", "path", info.path, "id", info.id, "version", info.version,
                           "layers", info.layers, "good", f.count == 0, "problems", f.list));
  return f.count ? EXIT_ERROR : status;
}

static int run_command(const command *self, int argc, char **argv) {
  common_settings set = {0};
  parsed line;
  session s = {0};
  int status = options_parse(self, argc, argv, &set, &line);
  if (status != OPTIONS_RUN) return status;
  struct stat info; /* a file here, as for check and bench; else a name to search for */
  const bool here = stat(line.argument[0], &info) == 0 && S_ISREG(info.st_mode);
  char *path = here ? realpath(line.argument[0], NULL) : NULL;
  status = session_open(&s, self, &set);
  if (!status) status = run(&s, path ? path : line.argument[0]);
  session_close(&s);
  free(path);
  return status;
}

const command command_plugin_lint = {
    .name = "plugin lint",
    .arguments = "FILE",
    .min_arguments = 1,
    .max_arguments = 1,
    .summary = "how a plugin's file is built: exports, libraries, manifest",
    .text =
        "Reads a plugin's file and tells what is wrong with how it is built: symbols that it exports beside its\n"
        "descriptor, libraries that it should not link (Lamina, C++, OpenMP), static constructors, an executable "
        "stack,\n"
        "code that changes the floating-point mode, a manifest that says something else than the descriptor. No code\n"
        "of the file runs; only a file without a problem is loaded, to compare its descriptor. Exit status 1 with a "
        "problem.",
    .examples = "  lamina plugin lint ./prelu.so",
    .options = options,
    .run = run_command};
