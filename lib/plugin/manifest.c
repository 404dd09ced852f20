/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/manifest.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_MANIFEST = 16384 };

static lamina_status damaged(const lamina_elf *elf, const char *what) {
  return lamina_fail(elf->context, LAMINA_BAD_FILE, "%s: its manifest is damaged: %s", elf->path, what);
}

/* "1.0" */
static bool read_version(const char *text, unsigned *major, unsigned *minor) {
  unsigned *const part[] = {major, minor};
  for (int i = 0; i < 2; i++) {
    *part[i] = 0;
    if (*text < '0' || *text > '9') return false;
    for (; *text >= '0' && *text <= '9'; text++) {
      if (*part[i] > 99999) return false;
      *part[i] = *part[i] * 10 + (unsigned)(*text - '0');
    }
    if (*text != (i ? '\0' : '.')) return false;
    text++;
  }
  return true;
}

static lamina_status take_line(const lamina_elf *elf, char *line, lamina_manifest *m) {
  char *value = strchr(line, '=');
  const char **field = NULL;
  if (!value) return damaged(elf, "a line is not key=value");
  *value++ = '\0';
  if (strcmp(line, "abi") == 0)
    return read_version(value, &m->abi_major, &m->abi_minor) ? LAMINA_OK : damaged(elf, "its abi is not MAJOR.MINOR");
  if (strcmp(line, "id") == 0) field = &m->id;
  if (strcmp(line, "version") == 0) field = &m->version;
  if (strcmp(line, "layers") == 0) field = &m->layers;
  if (strcmp(line, "isa") == 0) field = &m->isa;
  if (field && *field) return damaged(elf, "a key is there twice");
  if (field) *field = value;
  return LAMINA_OK;
}

static lamina_status parse(const lamina_elf *elf, size_t bytes, lamina_manifest *m) {
  const size_t length = strlen(m->text), magic = strlen(LAMINA_PLUGIN_MAGIC);
  for (size_t i = length; i < bytes; i++)
    if (m->text[i]) return damaged(elf, "there is more than one in the file");
  for (size_t i = 0; i < length; i++)
    if (m->text[i] != '\n' && (m->text[i] < ' ' || m->text[i] > '~')) return damaged(elf, "it is not plain text");
  if (strncmp(m->text, LAMINA_PLUGIN_MAGIC "\n", magic + 1) != 0) return damaged(elf, "it does not begin as one");
  for (char *line = m->words + magic + 1, *end; *line; line = end) {
    end = strchr(line, '\n');
    if (!end) return damaged(elf, "its last line does not end");
    *end++ = '\0';
    lamina_status status = take_line(elf, line, m);
    if (status) return status;
  }
  if (!m->id || !*m->id || !m->version || !m->layers || !*m->layers || !m->isa)
    return damaged(elf, "id, version, layers or isa is missing");
  return m->abi_major || m->abi_minor ? LAMINA_OK : damaged(elf, "abi is missing");
}

lamina_status lamina_manifest_read(const lamina_elf *elf, lamina_manifest *manifest) {
  const Elf64_Shdr *section = lamina_elf_section(elf, LAMINA_PLUGIN_SECTION, 0);
  void *content = NULL;
  *manifest = (lamina_manifest){.text = NULL};
  if (!section)
    return lamina_fail(elf->context, LAMINA_BAD_FILE,
                       "%s: it is no Lamina plugin: it has no section '%s' (the macro LAMINA_PLUGIN writes it)",
                       elf->path, LAMINA_PLUGIN_SECTION);
  lamina_status status = lamina_elf_read(elf, section, MAX_MANIFEST, &content);
  if (status) return status;
  manifest->text = content;
  manifest->words = lamina_copy_string(elf->context, content);
  status =
      manifest->words ? parse(elf, section->sh_size, manifest) : lamina_fail_memory(elf->context, section->sh_size);
  if (status) lamina_manifest_free(elf->context, manifest);
  return status;
}

void lamina_manifest_free(const lamina_context *context, lamina_manifest *manifest) {
  lamina_free(context, manifest->text);
  lamina_free(context, manifest->words);
  *manifest = (lamina_manifest){.text = NULL};
}

bool lamina_has_word(const char *words, const char *word, size_t length) {
  while (*words) {
    const size_t n = strcspn(words, " ");
    if (n == length && memcmp(words, word, n) == 0) return true;
    words += n + strspn(words + n, " ");
  }
  return false;
}

lamina_status lamina_manifest_check(const lamina_context *context, const char *path, const lamina_manifest *manifest) {
  if (manifest->abi_major != LAMINA_PLUGIN_ABI_MAJOR)
    return lamina_fail(context, LAMINA_UNSUPPORTED, "%s: it was compiled for layer ABI %u.%u; this library has %d.%d",
                       path, manifest->abi_major, manifest->abi_minor, LAMINA_PLUGIN_ABI_MAJOR,
                       LAMINA_PLUGIN_ABI_MINOR);
  for (const char *isa = manifest->isa; *isa;) {
    const size_t n = strcspn(isa, " ");
    if (n && !lamina_has_word(context->isas, isa, n))
      return lamina_fail(context, LAMINA_UNSUPPORTED,
                         "%s: it was compiled for %.*s, which is not there; usable here: %s", path, (int)n, isa,
                         context->isas);
    isa += n + strspn(isa + n, " ");
  }
  return LAMINA_OK;
}
