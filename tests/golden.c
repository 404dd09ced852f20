/* SPDX-License-Identifier: Apache-2.0 */
/* Replays vectors that PyTorch computed: golden [--isa NAME] [--threads N] [--verbose] [--optional] DIR
   Every *.safetensors file of DIR is run with and without fusion; the last line is "N passed, N failed". */
#include "golden.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct options {
  const char *isa, *path;
  int threads;
  bool verbose, optional;
} options;

static bool replay(lamina_context *context, const char *path, const char *name, bool no_fusion, bool verbose) {
  golden_run run = {.context = context, .no_fusion = no_fusion};
  const char *mode = no_fusion ? "without fusion" : "with fusion";
  run.file = golden_file_open(context, path, run.error, sizeof run.error);
  if (run.file) {
    if (golden_metadata(&run, "optimizer"))
      golden_replay_training(&run);
    else
      golden_replay_layer(&run);
    if (run.compared == 0) golden_fail(&run, "nothing in it could be compared");
    if (!(run.worst_error <= run.worst_bound))
      golden_fail(&run, "worst is %s: relative error %.3e, bound %.0e", run.worst, run.worst_error, run.worst_bound);
  }
  const bool passed = !run.error[0];
  if (!passed)
    printf("FAIL %s (%s): %s\n", name, mode, run.error);
  else if (verbose)
    printf("ok   %s (%s): %d tensors, worst %s %.2e of %.0e, perturbation %d\n", name, mode, run.compared, run.worst,
           run.worst_error, run.worst_bound, run.variant);
  golden_file_close(run.file);
  return passed;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* Names of the *.safetensors files of a folder, sorted; NULL if it cannot be read. */
static char **list_files(const char *folder, int *count) {
  static const char suffix[] = ".safetensors";
  DIR *dir = opendir(folder);
  char **names = NULL;
  int n = 0, capacity = 0;
  if (!dir) return NULL;
  for (struct dirent *entry; (entry = readdir(dir));) {
    const size_t length = strlen(entry->d_name);
    if (length < sizeof suffix || strcmp(entry->d_name + length - (sizeof suffix - 1), suffix) != 0) continue;
    if (n + 1 >= capacity) {
      capacity = capacity ? 2 * capacity : 64;
      char **grown = realloc(names, (size_t)capacity * sizeof *names);
      if (!grown) break;
      names = grown;
    }
    names[n] = strdup(entry->d_name);
    if (names[n]) n++;
  }
  closedir(dir);
  if (n > 1) qsort(names, (size_t)n, sizeof *names, by_name);
  *count = n;
  return names ? names : calloc(1, sizeof *names);
}

static int replay_folder(lamina_context *context, const options *opts) {
  int count = 0, passed = 0, failed = 0;
  char **names = list_files(opts->path, &count);
  if (!names) {
    fprintf(stderr, "golden: cannot read the folder %s\n", opts->path);
    return 1;
  }
  for (int i = 0; i < count; i++) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", opts->path, names[i]);
    if (replay(context, path, names[i], false, opts->verbose) && replay(context, path, names[i], true, opts->verbose))
      passed++;
    else
      failed++;
    free(names[i]);
  }
  free(names);
  if (count == 0) printf("no *.safetensors file in %s\n", opts->path);
  printf("%d passed, %d failed\n", passed, failed);
  return failed > 0 || count == 0;
}

static bool parse(int argc, char **argv, options *opts) {
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--isa") == 0 && i + 1 < argc)
      opts->isa = argv[++i];
    else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc)
      opts->threads = atoi(argv[++i]);
    else if (strcmp(argv[i], "--verbose") == 0)
      opts->verbose = true;
    else if (strcmp(argv[i], "--optional") == 0)
      opts->optional = true;
    else if (argv[i][0] != '-' && !opts->path)
      opts->path = argv[i];
    else
      return false;
  }
  return opts->path != NULL && opts->threads >= 0;
}

int main(int argc, char **argv) {
  options opts = {0};
  char message[1024] = "";
  if (!parse(argc, argv, &opts)) {
    fprintf(stderr, "usage: golden [--isa NAME] [--threads N] [--verbose] [--optional] DIR\n");
    return 2;
  }
  struct stat st;
  if (opts.optional && stat(opts.path, &st) != 0) {
    printf("skipped: there is no folder %s\n", opts.path);
    return 77;
  }
  lamina_context *context = NULL;
  const lamina_context_options context_options = {.size = sizeof context_options,
                                                  .isa = opts.isa,
                                                  .threads = opts.threads,
                                                  .error = message,
                                                  .error_size = sizeof message};
  const lamina_status status = lamina_context_create(&context_options, &context);
  if (status != LAMINA_OK) {
    fprintf(stderr, "golden: %s\n", message);
    return opts.optional && status == LAMINA_UNSUPPORTED ? 77 : 1;
  }
  lamina_context_info info = {.size = sizeof info};
  int result = 1;
  if (lamina_context_get_info(context, &info) != LAMINA_OK || (opts.isa && strcmp(info.isa, opts.isa) != 0))
    fprintf(stderr, "golden: the ISA in force is %s, not %s\n", info.isa ? info.isa : "unknown", opts.isa);
  else
    result = replay_folder(context, &opts);
  lamina_context_destroy(context);
  return result;
}
