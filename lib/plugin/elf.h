/* SPDX-License-Identifier: Apache-2.0 */
/* Reads ELF files that nobody vouches for: what lies outside of the file, or would take too much memory, is refused. */
#ifndef LAMINA_PLUGIN_ELF_H
#define LAMINA_PLUGIN_ELF_H

#include "core.h"

#include <elf.h>

typedef struct lamina_elf {
  const lamina_context *context;
  const char *path; /* for messages */
  int fd;
  uint64_t bytes; /* of the file */
  Elf64_Ehdr head;
  Elf64_Shdr *sections; /* head.e_shnum of them */
  char *names;          /* the sections' names, NUL-ended */
  size_t names_bytes;
} lamina_elf;

/* Reads the head of a shared object for this machine's processor. `path` and `fd` are the caller's and must live as
   long. On failure nothing is left to close. */
lamina_status lamina_elf_open(const lamina_context *context, const char *path, int fd, lamina_elf *elf);
void lamina_elf_close(lamina_elf *elf);
/* The first section of that name, or of that type if name is NULL; NULL if there is none. */
const Elf64_Shdr *lamina_elf_section(const lamina_elf *elf, const char *name, uint32_t type);
/* A section's bytes and one 0 after them, at most `limit` bytes, to be freed by lamina_free. */
lamina_status lamina_elf_read(const lamina_elf *elf, const Elf64_Shdr *section, size_t limit, void **content);
/* The program headers, head.e_phnum of them, to be freed by lamina_free. */
lamina_status lamina_elf_segments(const lamina_elf *elf, Elf64_Phdr **segments);

#endif
