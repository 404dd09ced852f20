/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/elf.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(__x86_64__)
#define MACHINE EM_X86_64
#elif defined(__aarch64__)
#define MACHINE EM_AARCH64
#else
#define MACHINE EM_NONE
#endif

enum { MAX_SECTIONS = 4096, MAX_SEGMENTS = 256, MAX_NAMES = 1 << 20 };

static const char *machine_name(unsigned machine) {
  switch (machine) {
  case EM_X86_64:
    return "x86-64";
  case EM_AARCH64:
    return "aarch64";
  case EM_386:
    return "x86";
  case EM_ARM:
    return "arm";
  case EM_RISCV:
    return "riscv";
  case EM_PPC64:
    return "ppc64";
  default:
    return "another processor";
  }
}

/* Exactly these bytes of the file; false if they are not all there. */
static bool read_at(const lamina_elf *elf, uint64_t offset, size_t bytes, void *to) {
  if (offset > elf->bytes || bytes > elf->bytes - offset) return false;
  for (size_t done = 0; done < bytes;) {
    const ssize_t got = pread(elf->fd, (char *)to + done, bytes - done, (off_t)(offset + done));
    if (got <= 0) return false;
    done += (size_t)got;
  }
  return true;
}

static lamina_status check_head(const lamina_elf *elf) {
  const lamina_context *context = elf->context;
  const Elf64_Ehdr *head = &elf->head;
  if (memcmp(head->e_ident, ELFMAG, SELFMAG) != 0)
    return lamina_fail(context, LAMINA_BAD_FILE, "%s: it is not a shared object (no ELF file)", elf->path);
  if (head->e_ident[EI_CLASS] != ELFCLASS64 || head->e_ident[EI_DATA] != ELFDATA2LSB || head->e_machine != MACHINE)
    return lamina_fail(context, LAMINA_UNSUPPORTED, "%s: it was built for %s (%d bits); this is %s", elf->path,
                       machine_name(head->e_machine), head->e_ident[EI_CLASS] == ELFCLASS32 ? 32 : 64,
                       machine_name(MACHINE));
  if (head->e_type != ET_DYN)
    return lamina_fail(context, LAMINA_BAD_FILE, "%s: it is an ELF file, but not a shared object", elf->path);
  if (head->e_shentsize != sizeof(Elf64_Shdr) || head->e_shnum == 0 || head->e_shnum > MAX_SECTIONS ||
      head->e_shstrndx >= head->e_shnum)
    return lamina_fail(context, LAMINA_BAD_FILE, "%s: its table of sections is damaged or was stripped", elf->path);
  return LAMINA_OK;
}

static lamina_status read_tables(lamina_elf *elf) {
  const size_t bytes = elf->head.e_shnum * sizeof *elf->sections;
  elf->sections = lamina_alloc(elf->context, bytes);
  if (!elf->sections) return lamina_fail_memory(elf->context, bytes);
  if (!read_at(elf, elf->head.e_shoff, bytes, elf->sections))
    return lamina_fail(elf->context, LAMINA_BAD_FILE, "%s: it is cut off: its table of sections ends beyond the file",
                       elf->path);
  const Elf64_Shdr *names = &elf->sections[elf->head.e_shstrndx];
  void *content;
  lamina_status status = lamina_elf_read(elf, names, MAX_NAMES, &content);
  if (status) return status;
  elf->names = content;
  elf->names_bytes = names->sh_size + 1;
  return LAMINA_OK;
}

lamina_status lamina_elf_open(const lamina_context *context, const char *path, int fd, lamina_elf *elf) {
  struct stat info;
  *elf = (lamina_elf){.context = context, .path = path, .fd = fd};
  if (fstat(fd, &info)) return lamina_fail(context, LAMINA_IO_ERROR, "%s: its size cannot be read", path);
  elf->bytes = (uint64_t)info.st_size;
  if (!read_at(elf, 0, sizeof elf->head, &elf->head))
    return lamina_fail(context, LAMINA_BAD_FILE, "%s: it is not a shared object (only %llu bytes long)", path,
                       (unsigned long long)elf->bytes);
  lamina_status status = check_head(elf);
  if (!status) status = read_tables(elf);
  if (status) lamina_elf_close(elf);
  return status;
}

void lamina_elf_close(lamina_elf *elf) {
  lamina_free(elf->context, elf->sections);
  lamina_free(elf->context, elf->names);
  elf->sections = NULL;
  elf->names = NULL;
}

const Elf64_Shdr *lamina_elf_section(const lamina_elf *elf, const char *name, uint32_t type) {
  for (int i = 0; i < elf->head.e_shnum; i++) {
    const Elf64_Shdr *section = &elf->sections[i];
    if (name ? section->sh_name < elf->names_bytes && strcmp(elf->names + section->sh_name, name) == 0
             : section->sh_type == type)
      return section;
  }
  return NULL;
}

lamina_status lamina_elf_read(const lamina_elf *elf, const Elf64_Shdr *section, size_t limit, void **content) {
  const uint64_t bytes = section->sh_size;
  *content = NULL;
  if (section->sh_type == SHT_NOBITS || bytes > limit || section->sh_offset > elf->bytes ||
      bytes > elf->bytes - section->sh_offset)
    return lamina_fail(
        elf->context, LAMINA_BAD_FILE, "%s: it is damaged: a section of %llu bytes at %llu, of %llu in all", elf->path,
        (unsigned long long)bytes, (unsigned long long)section->sh_offset, (unsigned long long)elf->bytes);
  char *memory = lamina_alloc(elf->context, bytes + 1);
  if (!memory) return lamina_fail_memory(elf->context, bytes + 1);
  memory[bytes] = '\0';
  if (!read_at(elf, section->sh_offset, bytes, memory)) {
    lamina_free(elf->context, memory);
    return lamina_fail(elf->context, LAMINA_IO_ERROR, "%s: it cannot be read", elf->path);
  }
  *content = memory;
  return LAMINA_OK;
}

lamina_status lamina_elf_segments(const lamina_elf *elf, Elf64_Phdr **segments) {
  const size_t count = elf->head.e_phnum, bytes = count * sizeof **segments;
  *segments = NULL;
  if (elf->head.e_phentsize != sizeof **segments || count == 0 || count > MAX_SEGMENTS)
    return lamina_fail(elf->context, LAMINA_BAD_FILE, "%s: its table of segments is damaged", elf->path);
  Elf64_Phdr *table = lamina_alloc(elf->context, bytes);
  if (!table) return lamina_fail_memory(elf->context, bytes);
  if (!read_at(elf, elf->head.e_phoff, bytes, table)) {
    lamina_free(elf->context, table);
    return lamina_fail(elf->context, LAMINA_BAD_FILE, "%s: it is cut off: its table of segments ends beyond the file",
                       elf->path);
  }
  *segments = table;
  return LAMINA_OK;
}
