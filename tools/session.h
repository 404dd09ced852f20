/* SPDX-License-Identifier: Apache-2.0 */
/* What a command works with: the context, where text goes, how errors are told. */
#ifndef TOOL_SESSION_H
#define TOOL_SESSION_H

#include "lamina/lamina.h"
#include "options.h"

#include <jansson.h>
#include <stdio.h>

typedef struct session {
  const command *of;
  const common_settings *common;
  lamina_context *context;
  lamina_context_info info;
  FILE *human; /* text for people: standard output, or standard error when --json claims that */
} session;

/* Creates the context and loads the plugins. On failure prints why and returns EXIT_ERROR; close it all the same. */
int session_open(session *s, const command *of, const common_settings *common);
void session_close(session *s);

/* Prints "lamina: ..." and returns EXIT_ERROR. */
int fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same with the library's message after it: "lamina: WHAT: message". */
int fail_library(const session *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* What to do next, after a failure: "lamina: hint: ...". */
void hint(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A real, or null where JSON has no such number. */
json_t *json_number(double value);
/* Prints the object as one line on standard output and releases it. NULL (out of memory) is a failure. */
int print_json(json_t *object);

/* Whether a file can be written there, before the work that would be lost: prints why not. */
int check_writable(const char *path);

double now_seconds(void);
int compare_doubles(const void *a, const void *b);
/* Sorts the values and returns their median. */
double median(double *values, int64_t count);
/* "12.3 MB", in a buffer of at least 24 bytes; returns it. */
const char *bytes_text(double bytes, char *buffer, size_t size);
/* "1.23 GFLOP", in a buffer of at least 24 bytes; returns it. */
const char *flops_text(double flops, char *buffer, size_t size);
/* "3x28x28" of dim[first...]; returns the buffer. */
const char *dims_text(const lamina_tensor *tensor, int first, char *buffer, size_t size);
/* malloc(count * size), or NULL when that overflows; a count of 0 gives memory too. */
void *allocate(int64_t count, size_t size);
/* Uniform in [-1, 1): element `index` of stream `seed`. */
float random_unit(uint64_t seed, uint64_t index);

#endif
