/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin_check.h"

#include <fenv.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* The table that a layer sees ends at a guard page; in front of it stands what belongs to it. */
typedef struct watched {
  check_host *owner;
  guard *memory;
} watched;

static check_host *owner_of(const lamina_host *host) {
  check_host *owner;
  memcpy(&owner, (const char *)host - sizeof owner, sizeof owner);
  return owner;
}

uint64_t check_fp_control(void) {
  fenv_t now;
  fegetenv(&now);
#if defined(__x86_64__)
  return (uint64_t)(now.__mxcsr & ~0x3fu) | (uint64_t)now.__control_word << 32; /* without the sticky flags */
#elif defined(__aarch64__)
  return now.__fpcr;
#else
  return (uint64_t)fegetround();
#endif
}

static lamina_status host_fail(const lamina_host *host, lamina_status status, const char *format, ...) {
  check_host *h = owner_of(host);
  va_list list;
  va_start(list, format);
  vsnprintf(h->message, sizeof h->message, format, list);
  va_end(list);
  h->failures++;
  return status;
}

static void host_log(const lamina_host *host, const char *message) {
  (void)host;
  (void)message;
}

static void *host_alloc(const lamina_host *host, size_t bytes) {
  check_host *h = owner_of(host);
  const int number = __atomic_fetch_add(&h->allocations, 1, __ATOMIC_RELAXED);
  if (number == h->fail_at) return NULL;
  __atomic_fetch_add(&h->outstanding, 1, __ATOMIC_RELAXED);
  guard *g = guard_new("memory of host->alloc", bytes, 64, false);
  for (size_t i = 0; i + sizeof h->poison <= bytes; i += sizeof h->poison)
    memcpy(g->data + i, &h->poison, sizeof h->poison);
  return g->data;
}

static void host_release(const lamina_host *host, void *memory) {
  check_host *h = owner_of(host);
  if (!memory) return;
  __atomic_fetch_sub(&h->outstanding, 1, __ATOMIC_RELAXED);
  guard *g = guard_find(memory);
  if (!g || g->retired || g->data != memory)
    check_fail("release", "%s: releases memory that host->alloc did not give, or twice", check->phase);
  guard_retire(g);
}

static int host_threads(const lamina_host *host) { return owner_of(host)->real->threads(owner_of(host)->real); }

typedef struct watched_task {
  void (*task)(void *arg, int64_t index, int thread);
  void *arg;
  int64_t tasks;
  bool reversed;
} watched_task;

static void run_task(void *arg, int64_t index, int thread) {
  const watched_task *w = arg;
  const uint64_t control = check_fp_control();
  w->task(w->arg, w->reversed ? w->tasks - 1 - index : index, thread);
  if (check_fp_control() != control)
    check_fail("fp-control", "%s: a task changes the floating-point control word", check->phase);
}

static void host_parallel(const lamina_host *host, int64_t tasks, void (*task)(void *arg, int64_t index, int thread),
                          void *arg) {
  check_host *h = owner_of(host);
  watched_task w = {task, arg, tasks, h->reversed};
  if (h->nested) h->nested(h->nested_arg);
  h->real->parallel(h->real, tasks, run_task, &w);
  if (h->nested) h->nested(h->nested_arg);
}

static void host_random(const lamina_host *host, uint64_t seed, uint64_t offset, int64_t n, float *out) {
  const lamina_host *real = owner_of(host)->real;
  real->random(real, seed, offset, n, out);
}

static size_t host_gemm_workspace(const lamina_host *host, const lamina_gemm *gemm) {
  const lamina_host *real = owner_of(host)->real;
  return real->gemm_workspace(real, gemm);
}

static void host_gemm(const lamina_host *host, const lamina_gemm *gemm) {
  check_host *h = owner_of(host);
  if (h->nested) h->nested(h->nested_arg);
  h->real->gemm(h->real, gemm);
}

static size_t host_gemm_packed_bytes(const lamina_host *host, int64_t k, int64_t n) {
  const lamina_host *real = owner_of(host)->real;
  return real->gemm_packed_bytes(real, k, n);
}

static void host_gemm_pack_b(const lamina_host *host, int64_t k, int64_t n, const float *b, int64_t b_k, int64_t b_n,
                             const float *scale, float *packed) {
  const lamina_host *real = owner_of(host)->real;
  real->gemm_pack_b(real, k, n, b, b_k, b_n, scale, packed);
}

static const void *host_ext(const lamina_host *host, const char *id) {
  const lamina_host *real = owner_of(host)->real;
  return real->ext(real, id);
}

static const char *host_gemm_algorithm(const lamina_host *host, const lamina_gemm *gemm) {
  const lamina_host *real = owner_of(host)->real;
  return real->gemm_algorithm(real, gemm);
}

static size_t host_gemm_serial_workspace(const lamina_host *host, const lamina_gemm *gemm) {
  const lamina_host *real = owner_of(host)->real;
  return real->gemm_serial_workspace(real, gemm);
}

static void host_gemm_serial(const lamina_host *host, const lamina_gemm *gemm) {
  const lamina_host *real = owner_of(host)->real;
  real->gemm_serial(real, gemm);
}

static void host_gemm_pack_b_serial(const lamina_host *host, int64_t k, int64_t n, const float *b, int64_t b_k,
                                    int64_t b_n, const float *scale, float *packed) {
  const lamina_host *real = owner_of(host)->real;
  real->gemm_pack_b_serial(real, k, n, b, b_k, b_n, scale, packed);
}

/* A service that the library's host has and this one does not would crash layers that rightly call it: what is added at
   the end of the struct must be added here too. */
_Static_assert(sizeof(lamina_host) == offsetof(lamina_host, vector) + sizeof(lamina_vector *),
               "lamina_host has grown: forward what is new");

void check_host_open(check_host *h, const lamina_context *context, size_t extra) {
  const lamina_host *real = lamina_context_host(context);
  memset(h, 0, sizeof *h);
  h->real = real;
  h->fail_at = -1;
  const size_t head = sizeof(watched), bytes = sizeof(lamina_host) + extra;
  guard *memory = guard_new("host", head + bytes, 8, false);
  const watched front = {h, memory};
  memset(memory->data, 0xa5, head + bytes);
  h->host = (lamina_host *)(void *)(memory->data + head);
  *h->host = (lamina_host){.size = bytes,
                           .abi_major = real->abi_major,
                           .abi_minor = real->abi_minor + (extra ? 1 : 0),
                           .cpu = real->cpu,
                           .fail = host_fail,
                           .log = host_log,
                           .alloc = host_alloc,
                           .release = host_release,
                           .threads = host_threads,
                           .parallel = host_parallel,
                           .random = host_random,
                           .gemm_workspace = host_gemm_workspace,
                           .gemm = host_gemm,
                           .gemm_packed_bytes = host_gemm_packed_bytes,
                           .gemm_pack_b = host_gemm_pack_b,
                           .ext = host_ext,
                           .math = real->math,
                           .gemm_algorithm = host_gemm_algorithm,
                           .gemm_serial_workspace = host_gemm_serial_workspace,
                           .gemm_serial = host_gemm_serial,
                           .gemm_pack_b_serial = host_gemm_pack_b_serial,
                           .vector = real->vector};
  /* memory first, owner right before the table: owner_of reads it there */
  memcpy(memory->data, &front.memory, sizeof front.memory);
  memcpy(memory->data + sizeof front.memory, &front.owner, sizeof front.owner);
  guard_protect(memory, GUARD_READ);
}

void check_host_close(check_host *h) {
  guard *memory;
  memcpy(&memory, (char *)h->host - sizeof(watched), sizeof memory);
  guard_retire(memory);
  h->host = NULL;
}
