/* SPDX-License-Identifier: Apache-2.0 */
/* The two halves of loading a plugin: what is checked, and then the code. */
#ifndef LAMINA_PLUGIN_LOADER_H
#define LAMINA_PLUGIN_LOADER_H

#include "plugin/manifest.h"
#include "registry.h"

/* A file that was checked and not yet run. */
typedef struct lamina_plugin_file {
  char *path; /* absolute */
  int fd;     /* what was checked is what will be loaded */
  lamina_elf elf;
  lamina_manifest manifest;
} lamina_plugin_file;

/* Finds, opens, trusts and reads a plugin's file; runs no code of it. On failure nothing is left to close. */
lamina_status lamina_plugin_open(const lamina_context *context, const char *plugin, lamina_plugin_file *file);
void lamina_plugin_close(const lamina_context *context, lamina_plugin_file *file);
/* Maps the file and registers its layers. Under the registry's load_lock. */
lamina_status lamina_plugin_load(lamina_context *context, const lamina_plugin_file *file);
/* What lamina_plugin_lint reports, of an open file. */
lamina_status lamina_plugin_lint_file(const lamina_elf *elf, const lamina_manifest *manifest,
                                      void (*report)(void *user, const char *problem), void *user);

#endif
