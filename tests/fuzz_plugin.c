/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever the bytes are, a plugin's file is either refused or its manifest can be read; no code of it runs. */
#include "fuzz.h"
#include "plugin/loader.h"

#include <string.h>

enum { NAMES = 64, MANIFEST = 192, SEGMENTS = 320, STRINGS = 448, DYNAMIC = 512, SYMBOLS = 640, SECTIONS = 768 };

static void put_section(uint8_t *file, int index, const Elf64_Shdr *section) {
  memcpy(file + SECTIONS + (size_t)index * sizeof *section, section, sizeof *section);
}

/* Libraries, constructors, symbols and a stack, for lint. */
static void put_tables(uint8_t *file) {
  static const char strings[] = "\0liblamina.so.0\0lamina_plugin_entry\0other";
  const Elf64_Dyn dynamic[] = {
      {DT_NEEDED, {1}}, {DT_INIT_ARRAYSZ, {16}}, {DT_RUNPATH, {16}}, {DT_TEXTREL, {0}}, {DT_NULL, {0}}};
  const Elf64_Sym symbols[] = {
      {.st_name = 0},
      {.st_name = 16, .st_info = ELF64_ST_INFO(STB_GLOBAL, STT_OBJECT), .st_shndx = 2, .st_size = 56},
      {.st_name = 36, .st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC), .st_shndx = 2}};
  const Elf64_Phdr segment = {.p_type = PT_GNU_STACK, .p_flags = PF_X};
  memcpy(file + STRINGS, strings, sizeof strings);
  memcpy(file + DYNAMIC, dynamic, sizeof dynamic);
  memcpy(file + SYMBOLS, symbols, sizeof symbols);
  memcpy(file + SEGMENTS, &segment, sizeof segment);
  put_section(file, 3, &(Elf64_Shdr){.sh_type = SHT_STRTAB, .sh_offset = STRINGS, .sh_size = sizeof strings});
  put_section(file, 4,
              &(Elf64_Shdr){.sh_type = SHT_DYNAMIC, .sh_offset = DYNAMIC, .sh_size = sizeof dynamic, .sh_link = 3});
  put_section(file, 5,
              &(Elf64_Shdr){.sh_type = SHT_DYNSYM, .sh_offset = SYMBOLS, .sh_size = sizeof symbols, .sh_link = 3});
}

/* The smallest shared object with a manifest; the second also has the tables that lint reads. */
const void *fuzz_seed(int index, size_t *bytes) {
  static uint8_t file[2048];
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
                     .e_shnum = (Elf64_Half)(index ? 6 : 3),
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
  if (index) put_tables(file);
  *bytes = SECTIONS + (index ? 6 : 3) * sizeof(Elf64_Shdr);
  return file;
}

static void told(void *user, const char *problem) { *(size_t *)user += strlen(problem); }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  lamina_context *context = fuzz_context();
  lamina_elf elf;
  lamina_manifest manifest;
  Elf64_Phdr *segments;
  void *content;
  size_t told_bytes = 0;
  char path[32];
  int fd = fuzz_file(data, bytes, path);
  if (lamina_elf_open(context, path, fd, &elf) == LAMINA_OK) {
    if (lamina_manifest_read(&elf, &manifest) == LAMINA_OK) {
      if (strlen(manifest.id) + strlen(manifest.version) + strlen(manifest.layers) + strlen(manifest.isa) > bytes)
        abort();
      if (lamina_manifest_check(context, path, &manifest) == LAMINA_OK && manifest.abi_major != LAMINA_PLUGIN_ABI_MAJOR)
        abort();
      lamina_plugin_lint_file(&elf, &manifest, told, &told_bytes);
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
