/* SPDX-License-Identifier: Apache-2.0 */
/* What a plugin's file must not have, read from its tables: no code of it runs. */
#include "plugin/loader.h"

#include <stdio.h>
#include <string.h>

enum { MAX_TABLE = 64 << 20, MESSAGE = 512 };

typedef struct linting {
  const lamina_elf *elf;
  const lamina_manifest *manifest;
  void (*report)(void *user, const char *problem);
  void *user;
} linting;

static void report(const linting *l, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void report(const linting *l, const char *format, ...) {
  char text[MESSAGE];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  l->report(l->user, text);
}

/* A table and the strings that it names, both of sections; empty where the file has none. */
typedef struct table {
  void *items;
  char *names;
  size_t count, names_bytes;
} table;

static lamina_status read_table(const lamina_elf *elf, uint32_t type, size_t item_bytes, table *t) {
  const Elf64_Shdr *section = lamina_elf_section(elf, NULL, type);
  void *names = NULL;
  *t = (table){.count = 0};
  if (!section) return LAMINA_OK;
  if (section->sh_link >= elf->head.e_shnum)
    return lamina_fail(elf->context, LAMINA_BAD_FILE, "%s: it is damaged: a table has no names", elf->path);
  lamina_status status = lamina_elf_read(elf, section, MAX_TABLE, &t->items);
  if (!status) status = lamina_elf_read(elf, &elf->sections[section->sh_link], MAX_TABLE, &names);
  t->names = names;
  if (status) return status;
  t->count = section->sh_size / item_bytes;
  t->names_bytes = elf->sections[section->sh_link].sh_size + 1;
  return LAMINA_OK;
}

static void free_table(const lamina_elf *elf, table *t) {
  lamina_free(elf->context, t->items);
  lamina_free(elf->context, t->names);
}

static const char *name_at(const table *t, uint64_t offset) { return offset < t->names_bytes ? t->names + offset : ""; }

static bool starts(const char *text, const char *with) { return strncmp(text, with, strlen(with)) == 0; }

static void check_needed(const linting *l, const char *library) {
  static const struct {
    const char *name, *why;
  } refused[] = {
      {"liblamina", "a layer links nothing of Lamina: it gets the host's services in node->host"},
      {"libstdc++", "it needs a C++ runtime, which the program that loads it may not have"},
      {"libc++", "it needs a C++ runtime, which the program that loads it may not have"},
      {"libgomp", "it needs an OpenMP runtime: use host->parallel, whose threads are the program's"},
      {"libomp", "it needs an OpenMP runtime: use host->parallel, whose threads are the program's"},
      {"libiomp", "it needs an OpenMP runtime: use host->parallel, whose threads are the program's"},
  };
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
    if (starts(library, refused[i].name)) report(l, "it links %s: %s", library, refused[i].why);
}

static void check_dynamic(const linting *l, const table *t) {
  const Elf64_Dyn *entry = t->items;
  uint64_t constructors = 0;
  for (size_t i = 0; i < t->count && entry[i].d_tag != DT_NULL; i++) {
    const uint64_t value = entry[i].d_un.d_val;
    if (entry[i].d_tag == DT_NEEDED) check_needed(l, name_at(t, value));
    if (entry[i].d_tag == DT_INIT_ARRAYSZ || entry[i].d_tag == DT_PREINIT_ARRAYSZ)
      constructors += value / sizeof(Elf64_Addr);
    if (entry[i].d_tag == DT_TEXTREL || (entry[i].d_tag == DT_FLAGS && (value & DF_TEXTREL)))
      report(l, "its code is patched when it is loaded (text relocations): compile it with -fPIC");
    if ((entry[i].d_tag == DT_RPATH || entry[i].d_tag == DT_RUNPATH) && name_at(t, value)[0] != '/')
      report(l, "it looks for libraries in '%s': only absolute folders work, since it is loaded by its descriptor",
             name_at(t, value));
  }
  if (constructors > 1) /* one is the compiler's own */
    report(l,
           "it has %llu static constructors, which run as soon as it is loaded: a plugin is data; move the work to a "
           "kernel's plan or pack",
           (unsigned long long)constructors - 1);
}

/* What is not in the table of dynamic symbols may still be in that for debuggers, which `strip` removes. */
static void check_symbols(const linting *l, const table *dynamic, const table *all) {
  const Elf64_Sym *symbol = dynamic->items;
  bool entry = false;
  for (size_t i = 0; i < dynamic->count; i++) {
    const char *name = name_at(dynamic, symbol[i].st_name);
    const bool global = ELF64_ST_BIND(symbol[i].st_info) != STB_LOCAL;
    if (symbol[i].st_shndx == SHN_UNDEF) {
      if (starts(name, "lamina_")) report(l, "it calls '%s', which is Lamina's: a layer links nothing of it", name);
      continue;
    }
    if (!global || symbol[i].st_shndx == SHN_ABS) continue;
    if (strcmp(name, LAMINA_PLUGIN_ENTRY) != 0) {
      report(l, "it exports '%s': only %s should be; compile with -fvisibility=hidden, or make it static", name,
             LAMINA_PLUGIN_ENTRY);
    } else {
      entry = true;
      if (ELF64_ST_TYPE(symbol[i].st_info) != STT_OBJECT) report(l, "%s is not data", LAMINA_PLUGIN_ENTRY);
      if (symbol[i].st_size < offsetof(lamina_plugin, manifest) + sizeof(char *))
        report(l, "%s has %llu bytes: it is no lamina_plugin of this ABI", LAMINA_PLUGIN_ENTRY,
               (unsigned long long)symbol[i].st_size);
    }
  }
  if (!entry) report(l, "it does not export %s (the macro LAMINA_PLUGIN does)", LAMINA_PLUGIN_ENTRY);
  symbol = all->items;
  for (size_t i = 0; i < all->count; i++)
    if (strcmp(name_at(all, symbol[i].st_name), "set_fast_math") == 0)
      report(l, "it was linked with -ffast-math (or -Ofast), whose constructor makes every thread that loads it flush "
                "denormals to zero: link without it");
}

static void check_segments(const linting *l, const Elf64_Phdr *segment) {
  bool says = false;
  for (int i = 0; i < l->elf->head.e_phnum; i++) {
    if (segment[i].p_type == PT_LOAD && (segment[i].p_flags & (PF_W | PF_X)) == (PF_W | PF_X))
      report(l, "it has a segment that is writable and executable");
    if (segment[i].p_type != PT_GNU_STACK) continue;
    says = true;
    if (segment[i].p_flags & PF_X) report(l, "it makes the stack executable: link with -z noexecstack");
  }
  if (!says) report(l, "it does not say that it needs no executable stack (PT_GNU_STACK): link with -z noexecstack");
}

static void check_manifest(const linting *l) {
  const lamina_manifest *m = l->manifest;
  const char *dot = strchr(m->id, '.');
  const lamina_status status = lamina_manifest_check(l->elf->context, l->elf->path, m);
  if (status) report(l, "it cannot be used here: %s", lamina_error_message(l->elf->context));
  if (!dot || dot == m->id || !dot[1]) report(l, "its id '%s' is not of the form vendor.name", m->id);
}

/* Everything that can be told from tables. Whether descriptor and manifest agree shows when it is loaded. */
static lamina_status check_file(const linting *l) {
  table dynamic, symbols, all = {.count = 0};
  Elf64_Phdr *segments = NULL;
  lamina_status status = read_table(l->elf, SHT_DYNAMIC, sizeof(Elf64_Dyn), &dynamic);
  lamina_status other = read_table(l->elf, SHT_DYNSYM, sizeof(Elf64_Sym), &symbols);
  if (!status) status = other;
  if (!status) status = read_table(l->elf, SHT_SYMTAB, sizeof(Elf64_Sym), &all);
  if (!status) status = lamina_elf_segments(l->elf, &segments);
  if (!status) {
    check_manifest(l);
    check_dynamic(l, &dynamic);
    check_symbols(l, &symbols, &all);
    check_segments(l, segments);
  }
  free_table(l->elf, &dynamic);
  free_table(l->elf, &symbols);
  free_table(l->elf, &all);
  lamina_free(l->elf->context, segments);
  return status;
}

lamina_status lamina_plugin_lint_file(const lamina_elf *elf, const lamina_manifest *manifest,
                                      void (*told)(void *user, const char *problem), void *user) {
  const linting l = {.elf = elf, .manifest = manifest, .report = told, .user = user};
  return check_file(&l);
}

lamina_status lamina_plugin_lint(lamina_context *context, const char *plugin,
                                 void (*told)(void *user, const char *problem), void *user) {
  lamina_plugin_file file;
  if (!context) return LAMINA_INVALID_ARGUMENT;
  if (!plugin || !told) return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "lamina_plugin_lint: an argument is NULL");
  lamina_status status = lamina_plugin_open(context, plugin, &file);
  if (status) return status;
  status = lamina_plugin_lint_file(&file.elf, &file.manifest, told, user);
  lamina_plugin_close(context, &file);
  return status;
}
