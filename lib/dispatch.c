/* SPDX-License-Identifier: Apache-2.0 */
#include "dispatch.h"

#include <stdio.h>
#include <string.h>

#include "cpu.h"

typedef struct isa_row {
  const char *name;
  const lamina_kernels *table; /* NULL: not in this build */
  bool (*present)(void);
} isa_row;

static bool always(void) { return true; }

#ifdef LAMINA_HAVE_AVX2
#define AVX2_TABLE &lamina_kernels_avx2
#else
#define AVX2_TABLE NULL
#endif
#ifdef LAMINA_HAVE_AVX512
#define AVX512_TABLE &lamina_kernels_avx512
#else
#define AVX512_TABLE NULL
#endif
#ifdef LAMINA_HAVE_NEON
#define NEON_TABLE &lamina_kernels_neon
#else
#define NEON_TABLE NULL
#endif

/* The list of ISAs: each one inherits from the rows above it. */
static const isa_row rows[] = {
    {"generic", &lamina_kernels_generic, always},
    {"neon", NEON_TABLE, lamina_cpu_has_neon},
    {"avx2", AVX2_TABLE, lamina_cpu_has_avx2},
    {"avx512", AVX512_TABLE, lamina_cpu_has_avx512},
};
enum { ROWS = sizeof rows / sizeof rows[0] };

static bool usable(const isa_row *row) { return row->table && row->present(); }

void lamina_dispatch_list(char *buffer, size_t bytes) {
  size_t used = 0;
  buffer[0] = '\0';
  for (int i = ROWS - 1; i >= 0; i--)
    if (usable(&rows[i]) && used < bytes)
      used += (size_t)snprintf(buffer + used, bytes - used, "%s%s", used ? " " : "", rows[i].name);
}

static void inherit(lamina_kernels *table, const lamina_kernels *isa) {
  table->isa = isa->isa;
  table->vector_floats = isa->vector_floats;
  if (isa->gemm) table->gemm = isa->gemm;
  if (isa->norm) table->norm = isa->norm;
  if (isa->eltwise) table->eltwise = isa->eltwise;
  if (isa->pool) table->pool = isa->pool;
  if (isa->softmax) table->softmax = isa->softmax;
  if (isa->optimizer) table->optimizer = isa->optimizer;
  if (isa->depthwise) table->depthwise = isa->depthwise;
  if (isa->conv) table->conv = isa->conv;
  if (isa->winograd) table->winograd = isa->winograd;
}

lamina_status lamina_dispatch_compose(const char *isa, lamina_kernels *table, char *error, size_t error_size) {
  int wanted = -1;
  char list[64];
  lamina_dispatch_list(list, sizeof list);
  for (int i = ROWS - 1; i >= 0 && wanted < 0; i--)
    if (isa ? strcmp(isa, rows[i].name) == 0 : usable(&rows[i])) wanted = i;
  if (wanted < 0) {
    snprintf(error, error_size, "unknown instruction set '%s'; usable here: %s", isa ? isa : "", list);
    return LAMINA_INVALID_ARGUMENT;
  }
  if (!usable(&rows[wanted])) {
    snprintf(error, error_size, "the instruction set '%s' is not %s; usable here: %s", isa,
             rows[wanted].table ? "there on this processor" : "part of this build", list);
    return LAMINA_UNSUPPORTED;
  }
  memset(table, 0, sizeof *table);
  for (int i = 0; i <= wanted; i++)
    if (usable(&rows[i])) inherit(table, rows[i].table);
  return LAMINA_OK;
}

bool lamina_dispatch_includes(const char *in_force, const char *isa) {
  bool found = false;
  for (int i = 0; i < ROWS; i++) {
    found |= usable(&rows[i]) && strcmp(rows[i].name, isa) == 0;
    if (strcmp(rows[i].name, in_force) == 0) return found;
  }
  return false;
}
