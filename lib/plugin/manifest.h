/* SPDX-License-Identifier: Apache-2.0 */
/* What a plugin's file says about itself, read without running any of it. */
#ifndef LAMINA_PLUGIN_MANIFEST_H
#define LAMINA_PLUGIN_MANIFEST_H

#include "plugin/elf.h"

typedef struct lamina_manifest {
  char *text;  /* as it stands in the file */
  char *words; /* the same, cut into what follows */
  unsigned abi_major, abi_minor;
  const char *id, *version, *layers, *isa;
} lamina_manifest;

/* Reads the manifest of an open ELF file. On success release it with lamina_manifest_free. */
lamina_status lamina_manifest_read(const lamina_elf *elf, lamina_manifest *manifest);
void lamina_manifest_free(const lamina_context *context, lamina_manifest *manifest);
/* Whether the file can run here at all: the major version of the ABI, and the processor's instructions. */
lamina_status lamina_manifest_check(const lamina_context *context, const char *path, const lamina_manifest *manifest);
/* Whether `word` is one of those separated by blanks. */
bool lamina_has_word(const char *words, const char *word, size_t length);

#endif
