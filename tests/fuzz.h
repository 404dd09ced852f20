/* SPDX-License-Identifier: Apache-2.0 */
/* A fuzzer is one file with these two functions. Linked with fuzz_main.c it runs by itself; with clang's
   -fsanitize=fuzzer it is a libFuzzer target. */
#ifndef LAMINA_TESTS_FUZZ_H
#define LAMINA_TESTS_FUZZ_H

#include "core.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
/* The index-th valid file to start from; NULL past the end. */
const void *fuzz_seed(int index, size_t *bytes);

/* More than any small input may ask for: a parser that believes a size gets NULL, as on a small machine. */
#define FUZZ_MEMORY ((size_t)64 << 20)

static inline void *fuzz_alloc(void *user, size_t bytes) {
  (void)user;
  return bytes > FUZZ_MEMORY ? NULL : malloc(bytes);
}

static inline void fuzz_release(void *user, void *memory) {
  (void)user;
  free(memory);
}

/* One context for all inputs: to ask the machine for its topology takes longer than to parse a file. */
static inline lamina_context *fuzz_context(void) {
  static lamina_context *context;
  lamina_context_options options = {
      .size = sizeof options, .isa = "generic", .threads = 1, .alloc = fuzz_alloc, .release = fuzz_release};
  if (!context && lamina_context_create(&options, &context) != LAMINA_OK) abort();
  return context;
}

/* A file in memory that holds these bytes; the name leads to it until the descriptor is closed. */
static inline int fuzz_file(const uint8_t *data, size_t bytes, char path[32]) {
  int fd = memfd_create("fuzz", MFD_CLOEXEC);
  if (fd < 0 || write(fd, data, bytes) != (ssize_t)bytes) abort();
  snprintf(path, 32, "/proc/self/fd/%d", fd);
  return fd;
}

#endif
