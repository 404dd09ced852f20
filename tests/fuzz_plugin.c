/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever the bytes are, a plugin's file is either refused or its manifest can be read; no code of it runs. */
#include "fuzz.h"
#include "plugin/manifest.h"

#include <string.h>

enum { NAMES = 64, MANIFEST = 192, SECTIONS = 512, SEGMENTS = 448 };

static void put_section(uint8_t *file, int index, const Elf64_Shdr *section) {
  memcpy(file + SECTIONS + (size_t)index * sizeof *section, section, sizeof *section);
}

/* The smallest shared object with a manifest; the second also has the tables that lint reads. */
const void *fuzz_seed(int index, size_t *bytes) {
  static uint8_t file[1024];
  static const char names[] = "\0.shstrtab\0" LAMINA_PLUGIN_SECTION;
  static const char manifest[] = LAMINA_PLUGIN_MAGIC "\nabi=1.0\nid=a.b\nversion=1\nlayers=b c\nisa=\n";
  if (index > 1) return NULL;
  memset(file, 0, sizeof file);
  Elf64_Ehdr head = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                     .e_type = ET_DYN,
#ifdef __aarch64__
                     .e_machine = EM_AARCH64,
#else
                     .e_machine = EM_X86_64,
#endif
                     .e_shoff = SECTIONS,
                     .e_shentsize = sizeof(Elf64_Shdr),
                     .e_shnum = 3,
                     .e_shstrndx = 1,
                     .e_phoff = SEGMENTS,
                     .e_phentsize = sizeof(Elf64_Phdr),
                     .e_phnum = (Elf64_Half)index};
  memcpy(file, &head, sizeof head);
  memcpy(file + NAMES, names, sizeof names);
  memcpy(file + MANIFEST, manifest, sizeof manifest);
  put_section(file, 1, &(Elf64_Shdr){.sh_name = 1, .sh_type = SHT_STRTAB, .sh_offset = NAMES, .sh_size = sizeof names});
  put_section(file, 2,
              &(Elf64_Shdr){.sh_name = 11, .sh_type = SHT_PROGBITS, .sh_offset = MANIFEST, .sh_size = sizeof manifest});
  *bytes = SECTIONS + 3 * sizeof(Elf64_Shdr);
  return file;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  lamina_context *context = fuzz_context();
  lamina_elf elf;
  lamina_manifest manifest;
  Elf64_Phdr *segments;
  void *content;
  char path[32];
  int fd = fuzz_file(data, bytes, path);
  if (lamina_elf_open(context, path, fd, &elf) == LAMINA_OK) {
    if (lamina_manifest_read(&elf, &manifest) == LAMINA_OK) {
      if (strlen(manifest.id) + strlen(manifest.version) + strlen(manifest.layers) + strlen(manifest.isa) > bytes)
        abort();
      if (lamina_manifest_check(context, path, &manifest) == LAMINA_OK && manifest.abi_major != LAMINA_PLUGIN_ABI_MAJOR)
        abort();
      lamina_manifest_free(context, &manifest);
    }
    if (lamina_elf_segments(&elf, &segments) == LAMINA_OK) lamina_free(context, segments);
    for (int i = 0; i < elf.head.e_shnum; i++)
      if (lamina_elf_read(&elf, &elf.sections[i], bytes, &content) == LAMINA_OK) {
        if (((char *)content)[elf.sections[i].sh_size]) abort();
        lamina_free(context, content);
      }
    lamina_elf_close(&elf);
  }
  close(fd);
  return 0;
}
