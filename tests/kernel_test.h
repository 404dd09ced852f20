/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file kernel_test.h
 * What the kernel tests share: guarded memory, seeded random numbers and the tables that this CPU can run.
 *
 * Environment: LAMINA_TEST_SEED=N repeats a run; LAMINA_TEST_ISA=NAME (or LAMINA_ISA) tests one table alone.
 */
#ifndef LAMINA_KERNEL_TEST_H
#define LAMINA_KERNEL_TEST_H

#include "kernels.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* Fails with a message as ck_assert_msg does. That one writes to a file also where all is well: in the loops over numbers
   it is nine tenths of a test's time. */
#define test_that(condition, ...)                  \
  do {                                             \
    if (!(condition)) ck_abort_msg(__VA_ARGS__);   \
  } while (0)

/* ---- guarded memory: a touch outside is a fault on one side, a changed canary on the other ---------------------- */

typedef enum guard_side {
  GUARD_END,  /* the last float touches a page that cannot be accessed */
  GUARD_START /* the first float does */
} guard_side;

typedef struct guarded {
  float *data;
  size_t bytes; /* of data */
  unsigned char *map;
  size_t map_bytes, page;
} guarded;

#define GUARD_CANARY 0xA5

/* Maps that were freed, for the next of their size: making one costs more than a small kernel's whole test. */
enum { GUARD_KEPT = 64, GUARD_KEPT_BYTES = 1 << 18 };
typedef struct guard_map {
  unsigned char *map;
  size_t bytes;
} guard_map;
static guard_map guard_kept[GUARD_KEPT];

static inline guard_map *guard_map_find(size_t bytes) {
  for (int i = 0; i < GUARD_KEPT; i++)
    if (guard_kept[i].bytes == bytes) return &guard_kept[i];
  return NULL;
}

static inline unsigned char *guard_map_new(size_t bytes, size_t page) {
  guard_map *kept = guard_map_find(bytes);
  if (kept) {
    kept->bytes = 0;
    return kept->map;
  }
  unsigned char *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) {
    perror("mmap");
    exit(1);
  }
  mprotect(map, page, PROT_NONE);
  mprotect(map + bytes - page, page, PROT_NONE);
  return map;
}

static inline void guard_map_free(unsigned char *map, size_t bytes) {
  guard_map *free_place = bytes <= GUARD_KEPT_BYTES ? guard_map_find(0) : NULL;
  if (free_place)
    *free_place = (guard_map){map, bytes};
  else
    munmap(map, bytes);
}

/* `count` floats between two inaccessible pages; filled with NaN, so that what is read before it is written shows. */
static inline guarded guarded_new(int64_t count, guard_side side) {
  guarded g;
  g.page = (size_t)sysconf(_SC_PAGESIZE);
  g.bytes = (size_t)count * sizeof(float);
  size_t inner = (g.bytes + g.page) / g.page * g.page;
  g.map_bytes = inner + 2 * g.page;
  g.map = guard_map_new(g.map_bytes, g.page);
  memset(g.map + g.page, GUARD_CANARY, inner);
  g.data = (float *)(void *)(g.map + g.page + (side == GUARD_END ? inner - g.bytes : 0));
  for (int64_t i = 0; i < count; i++) g.data[i] = NAN;
  return g;
}

/* Nonzero if nothing outside the floats was written. */
static inline int guarded_intact(const guarded *g) {
  const unsigned char *end = g->map + g->map_bytes - g->page, *first = (const unsigned char *)g->data;
  for (const unsigned char *p = g->map + g->page; p < first; p++)
    if (*p != GUARD_CANARY) return 0;
  for (const unsigned char *p = first + g->bytes; p < end; p++)
    if (*p != GUARD_CANARY) return 0;
  return 1;
}

/* Frees; nonzero if it was intact. */
static inline int guarded_free(guarded *g) {
  int intact = guarded_intact(g);
  guard_map_free(g->map, g->map_bytes);
  memset(g, 0, sizeof *g);
  return intact;
}

/* ---- random numbers (splitmix64) -------------------------------------------------------------------------------- */

typedef struct test_random {
  uint64_t state;
} test_random;

/* The seed of this run, printed by the caller's main through test_print_seed. With a fixed default a failure is always
   repeatable; LAMINA_TEST_SEED=time draws another one. */
static inline uint64_t test_seed(void) {
  const char *text = getenv("LAMINA_TEST_SEED");
  if (text && strcmp(text, "time") == 0) return (uint64_t)time(NULL);
  return text && *text ? strtoull(text, NULL, 0) : 20260101u;
}

/* Call it first in main: fixes the seed for this process and its children. */
static inline void test_print_seed(void) {
  char text[32];
  snprintf(text, sizeof text, "%llu", (unsigned long long)test_seed());
  setenv("LAMINA_TEST_SEED", text, 1);
  printf("LAMINA_TEST_SEED=%s\n", text);
  fflush(stdout);
}

/* A generator for one test: the run's seed mixed with a name, so that tests do not depend on each other's order. */
static inline test_random test_random_for(const char *name) {
  test_random r = {test_seed() * 0x9E3779B97F4A7C15u + 1};
  for (; *name; name++) r.state = (r.state ^ (unsigned char)*name) * 0x100000001B3u;
  return r;
}

static inline uint64_t test_random_bits(test_random *r) {
  uint64_t z = (r->state += 0x9E3779B97F4A7C15u);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

/* Uniform in [0, n). */
static inline int64_t test_random_below(test_random *r, int64_t n) {
  return (int64_t)(test_random_bits(r) % (uint64_t)n);
}

/* Uniform in [lo, hi). */
static inline float test_random_float(test_random *r, float lo, float hi) {
  return lo + (hi - lo) * ((float)(test_random_bits(r) >> 40) * 0x1p-24f);
}

static inline void test_random_fill(test_random *r, float *x, int64_t n, float lo, float hi) {
  for (int64_t i = 0; i < n; i++) x[i] = test_random_float(r, lo, hi);
}

/* ---- tables ----------------------------------------------------------------------------------------------------- */

#define TEST_MAX_TABLES 4

typedef struct test_table {
  const char *isa;
  const lamina_kernels *kernels;
  int cpu_has_it;
} test_table;

static inline int test_known_tables(test_table *out) {
  int n = 0;
  out[n++] = (test_table){"generic", &lamina_kernels_generic, 1};
#if defined(__x86_64__)
  int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  out[n++] = (test_table){"avx2", &lamina_kernels_avx2, avx2};
  out[n++] = (test_table){"avx512", &lamina_kernels_avx512, avx512};
#endif
#if defined(__aarch64__)
  out[n++] = (test_table){"neon", &lamina_kernels_neon, 1};
#endif
  return n;
}

/* The tables to test: those that the CPU supports, or the one that LAMINA_TEST_ISA names. Prints what is skipped; a
   caller left with none returns TEST_SKIPPED from main. */
static inline int test_tables(const lamina_kernels *tables[TEST_MAX_TABLES]) {
  test_table known[TEST_MAX_TABLES];
  const char *wanted = getenv("LAMINA_TEST_ISA");
  if (!wanted) wanted = getenv("LAMINA_ISA"); /* as for every other test: meson runs each once for every ISA */
  int n = test_known_tables(known), count = 0, seen = 0;
  for (int i = 0; i < n; i++) {
    if (wanted && *wanted && strcmp(wanted, known[i].isa) != 0) continue;
    seen = 1;
    if (known[i].cpu_has_it)
      tables[count++] = known[i].kernels;
    else
      printf("skipped: %s (this CPU has no such ISA)\n", known[i].isa);
  }
  if (!seen) printf("skipped: %s (not in this build)\n", wanted);
  for (int i = 0; i < count; i++) printf("testing: %s\n", tables[i]->isa);
  fflush(stdout);
  return count;
}

#define TEST_SKIPPED 77 /* meson's exit status for a skipped test */

#endif
