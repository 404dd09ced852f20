/* SPDX-License-Identifier: Apache-2.0 */
#include "session.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

int fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("lamina: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  return EXIT_ERROR;
}

int fail_library(const session *s, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("lamina: ", stderr);
  vfprintf(stderr, format, arguments);
  fprintf(stderr, ": %s\n", lamina_error_message(s->context));
  va_end(arguments);
  return EXIT_ERROR;
}

void hint(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("lamina: hint: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
}

static void log_warning(void *user, const char *message) {
  (void)user;
  fprintf(stderr, "lamina: warning: %s\n", message);
}

static lamina_math_mode math_mode(const char *name) {
  if (name && !strcmp(name, "strict")) return LAMINA_MATH_STRICT;
  if (name && !strcmp(name, "fast")) return LAMINA_MATH_FAST;
  return LAMINA_MATH_DEFAULT;
}

int session_open(session *s, const command *of, const common_settings *common) {
  char error[1024] = "";
  lamina_context_options options = {.size = sizeof options,
                                    .isa = common->isa,
                                    .threads = (int)common->threads,
                                    .math = math_mode(common->math),
                                    .log = log_warning,
                                    .error = error,
                                    .error_size = sizeof error};
  *s = (session){.of = of, .common = common, .human = common->json ? stderr : stdout, .info.size = sizeof s->info};
  const lamina_status status = lamina_context_create(&options, &s->context);
  if (status) {
    fail("cannot start: %s", *error ? error : lamina_status_name(status));
    if (status == LAMINA_UNSUPPORTED) hint("'lamina info' lists what this machine has; --isa and LAMINA_ISA choose");
    return EXIT_ERROR;
  }
  if (lamina_context_get_info(s->context, &s->info)) return fail_library(s, "cannot read the context");
  for (int i = 0; i < common->plugins.count; i++)
    if (lamina_context_load_plugin(s->context, common->plugins.item[i]))
      return fail_library(s, "cannot load the plugin '%s'", common->plugins.item[i]);
  return EXIT_OK;
}

void session_close(session *s) {
  lamina_context_destroy(s->context);
  s->context = NULL;
}

json_t *json_number(double value) { return isfinite(value) ? json_real(value) : json_null(); }

int print_json(json_t *object) {
  /* Nine digits tell every float from its neighbours, so that equal lines mean equal bits. */
  char *text = object ? json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
  json_decref(object);
  if (!text) return fail("out of memory while writing JSON");
  fflush(stderr);
  puts(text);
  free(text);
  return EXIT_OK;
}

int check_writable(const char *path) {
  struct stat status;
  char probe[4096];
  if (!stat(path, &status) && !S_ISREG(status.st_mode))
    return fail("cannot write '%s': it is %s", path, S_ISDIR(status.st_mode) ? "a folder" : "not a regular file");
  if (!access(path, F_OK) && access(path, W_OK)) return fail("cannot write '%s': %s", path, strerror(errno));
  if (snprintf(probe, sizeof probe, "%s.XXXXXX", path) >= (int)sizeof probe) return fail("'%s' is too long", path);
  const int file = mkstemp(probe); /* files are written beside their place and renamed: the folder must allow it */
  if (file < 0) return fail("cannot write '%s': %s", path, strerror(errno));
  close(file);
  unlink(probe);
  return EXIT_OK;
}

double now_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int compare_doubles(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

double median(double *values, int64_t count) {
  if (count < 1) return 0;
  qsort(values, (size_t)count, sizeof *values, compare_doubles);
  return count % 2 ? values[count / 2] : 0.5 * (values[count / 2 - 1] + values[count / 2]);
}

const char *bytes_text(double bytes, char *buffer, size_t size) {
  static const char *const units[] = {"bytes", "KB", "MB", "GB", "TB"};
  int unit = 0;
  while (bytes >= 1024 && unit < 4) {
    bytes /= 1024;
    unit++;
  }
  snprintf(buffer, size, unit ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
  return buffer;
}

const char *flops_text(double flops, char *buffer, size_t size) {
  static const char *const units[] = {"FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP"};
  int unit = 0;
  for (; flops >= 1000 && unit < 4; unit++) flops /= 1000;
  snprintf(buffer, size, "%.3g %s", flops, units[unit]);
  return buffer;
}

const char *dims_text(const lamina_tensor *tensor, int first, char *buffer, size_t size) {
  size_t used = 0;
  snprintf(buffer, size, "scalar");
  for (int i = first; i < tensor->rank && used < size; i++)
    used += (size_t)snprintf(buffer + used, size - used, "%s%lld", i > first ? "x" : "", (long long)tensor->dim[i]);
  return buffer;
}

void *allocate(int64_t count, size_t size) {
  size_t bytes;
  if (count < 0 || __builtin_mul_overflow((size_t)count, size, &bytes)) return NULL;
  return malloc(bytes ? bytes : 1);
}

float random_unit(uint64_t seed, uint64_t index) {
  uint64_t x = seed * UINT64_C(0xD1342543DE82EF95) + (index + 1) * UINT64_C(0x9E3779B97F4A7C15); /* splitmix64 */
  x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
  x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
  x ^= x >> 31;
  return (float)(x >> 40) * 0x1p-23f - 1.0f;
}
