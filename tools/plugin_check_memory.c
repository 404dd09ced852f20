/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin_check.h"

#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

check_report *check;

enum { PAGE = 4096, SLACK = 0x5a, GUARDS = 1 << 22 };

/* The child's one address zone. It is a process of its own, and a signal handler can be handed nothing. */
static struct zone {
  char *base, *next, *end;
  guard *guards; /* address space for all there will be: malloc's books stay the layer's */
  size_t count;
} zone;

void check_fail(const char *cause, const char *format, ...) {
  va_list list;
  va_start(list, format);
  vsnprintf(check->message, sizeof check->message, format, list);
  va_end(list);
  snprintf(check->cause, sizeof check->cause, "%s", cause);
  check->failed = check->finished = 1;
  _exit(0);
}

void check_phase(const char *format, ...) {
  va_list list;
  va_start(list, format);
  vsnprintf(check->phase, sizeof check->phase, format, list);
  va_end(list);
}

void check_held(void) { check->checks++; }

static const char *signal_text(int number) {
  switch (number) {
  case SIGSEGV:
  case SIGBUS:
    return "touches memory that is not there";
  case SIGFPE:
    return "divides an integer by zero";
  case SIGILL:
    return "runs an illegal instruction";
  default:
    return "calls abort";
  }
}

static guard *guard_at(const char *address) {
  for (size_t i = zone.count; i-- > 0;) {
    guard *g = &zone.guards[i];
    if (address >= g->map - PAGE && address < g->map + g->usable + PAGE) return g;
  }
  return NULL;
}

/* 1: a write, 0: a read, -1: unknown. */
static int is_write(const void *context) {
#if defined(__x86_64__)
  const ucontext_t *u = context;
  return (u->uc_mcontext.gregs[REG_ERR] & 2) != 0;
#else
  (void)context;
  return -1;
#endif
}

static void guard_fault(const guard *g, const char *address, int write) {
  const char *verb = write == 1 ? "writes" : write == 0 ? "reads" : "touches";
  const long long beyond = address - (g->data + g->bytes), before = g->data - address;
  if (g->retired)
    check_fail("keeps-pointer", "%s: %s '%s' of an earlier call, which is gone: it kept a pointer", check->phase, verb,
               g->name);
  if (beyond >= 0 && !strcmp(g->name, "workspace"))
    check_fail("workspace", "%s: %s byte %lld of a workspace for which its plan asked %zu bytes", check->phase, verb,
               (long long)(address - g->data), g->bytes);
  if (check->empty) check_fail("empty", "%s: %s '%s', which has no elements", check->phase, verb, g->name);
  if (beyond >= 0)
    check_fail(write == 1 ? "writes-past-end" : "reads-past-end", "%s: %s %lld bytes past the end of '%s' (%zu bytes)",
               check->phase, verb, beyond, g->name, g->bytes);
  if (before > 0)
    check_fail(write == 1 ? "writes-before-start" : "reads-before-start", "%s: %s %lld bytes before the start of '%s'",
               check->phase, verb, before, g->name);
  if (g->access == GUARD_READ)
    check_fail("writes-read-only", "%s: writes into '%s' at byte %lld, which is not its to write", check->phase,
               g->name, -before);
  check_fail(g->none_cause ? g->none_cause : "crash",
             "%s: %s '%s', which it has not declared (LAMINA_PORT_BACKWARD_READS)", check->phase, verb, g->name);
}

static void on_signal(int number, siginfo_t *info, void *context) {
  const char *address = info->si_addr;
  if ((number == SIGSEGV || number == SIGBUS) && address >= zone.base && address < zone.end) {
    const guard *g = guard_at(address);
    if (g) guard_fault(g, address, is_write(context));
  }
  if (check->allocation_fails)
    check_fail("allocation", "%s: %s when an allocation fails", check->phase, signal_text(number));
  if (check->empty && number != SIGABRT) check_fail("empty", "%s: %s", check->phase, signal_text(number));
  if (number == SIGABRT) check_fail("abort", "%s: calls abort; a failure is a status", check->phase);
  check_fail("crash", "%s: %s (signal %d, address %p)", check->phase, signal_text(number), number,
             (void *)info->si_addr);
}

void guard_start(void) {
  const int numbers[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
  const size_t size = (size_t)1 << 36; /* address space, not memory */
  const stack_t stack = {.ss_sp = malloc(64 << 10), .ss_size = 64 << 10};
  struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
  zone.base = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  zone.guards =
      mmap(NULL, GUARDS * sizeof(guard), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (zone.base == MAP_FAILED || zone.guards == MAP_FAILED || !stack.ss_sp)
    check_fail("checker", "no memory to check in");
  zone.next = zone.base;
  zone.end = zone.base + size;
  sigaltstack(&stack, NULL);
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) sigaction(numbers[i], &action, NULL);
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* tasks may allocate */

static guard *add_guard(const char *name, size_t bytes, size_t align, bool at_start) {
  const size_t usable = (bytes + PAGE - 1) & ~(size_t)(PAGE - 1);
  guard *g = &zone.guards[zone.count];
  if (zone.count == GUARDS || zone.next + usable + 2 * PAGE > zone.end) check_fail("checker", "no memory to check in");
  g->map = zone.next + PAGE;
  zone.next = g->map + usable + PAGE;
  g->bytes = bytes;
  g->usable = usable;
  g->data = g->map + (at_start ? 0 : (usable - bytes) & ~(align - 1));
  snprintf(g->name, sizeof g->name, "%s", name);
  if (usable && mprotect(g->map, usable, PROT_READ | PROT_WRITE)) check_fail("checker", "no memory to check in");
  memset(g->map, SLACK, (size_t)(g->data - g->map));
  memset(g->data + bytes, SLACK, (size_t)(g->map + usable - (g->data + bytes)));
  zone.count++;
  return g;
}

guard *guard_new(const char *name, size_t bytes, size_t align, bool at_start) {
  pthread_mutex_lock(&lock);
  guard *g = add_guard(name, bytes, align, at_start);
  pthread_mutex_unlock(&lock);
  return g;
}

guard *guard_find(const void *data) {
  pthread_mutex_lock(&lock);
  guard *g = guard_at(data);
  pthread_mutex_unlock(&lock);
  return g;
}

void guard_protect(guard *g, guard_access access) {
  g->access = access;
  if (!g->usable) return;
  const int protection = access == GUARD_NONE ? PROT_NONE : access == GUARD_READ ? PROT_READ : PROT_READ | PROT_WRITE;
  if (mprotect(g->map, g->usable, protection)) check_fail("checker", "mprotect failed");
}

void guard_retire(guard *g) {
  guard_protect(g, GUARD_READ_WRITE);
  for (char *p = g->map; p < g->map + g->usable; p++) {
    if (p == g->data) p += g->bytes;
    if (p >= g->map + g->usable || *p == SLACK) continue;
    const long long at = p - g->data;
    if (at < 0)
      check_fail("writes-before-start", "%s: wrote %lld bytes before the start of '%s'", check->phase, -at, g->name);
    if (!strcmp(g->name, "workspace"))
      check_fail("workspace", "%s: wrote byte %lld of a workspace for which its plan asked %zu bytes", check->phase, at,
                 g->bytes);
    check_fail("writes-past-end", "%s: wrote past the end of '%s' (%zu bytes), at byte %lld", check->phase, g->name,
               g->bytes, at);
  }
  g->retired = 1;
  if (g->usable &&
      mmap(g->map, g->usable, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
    check_fail("checker", "mmap failed");
}
