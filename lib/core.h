/* SPDX-License-Identifier: Apache-2.0 */
/* What every file of lib/ may use: the context, its error message and its memory. */
#ifndef LAMINA_CORE_H
#define LAMINA_CORE_H

#include <locale.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stdbool.h>

#include "kernels.h"
#include "lamina/lamina.h"

#define LAMINA_MESSAGE_BYTES 1024

/* A string that lives as long as the context. */
typedef struct lamina_string {
  struct lamina_string *next;
  char text[];
} lamina_string;

typedef struct lamina_pool lamina_pool;
typedef struct lamina_registry lamina_registry;

/* The last error message of one thread. */
typedef struct lamina_message {
  struct lamina_message *next;
  pthread_t thread;
  char text[LAMINA_MESSAGE_BYTES];
} lamina_message;

struct lamina_context {
  atomic_int references;
  lamina_context_options options;
  lamina_kernels kernels; /* the composed table: no group is NULL */
  lamina_cpu cpu;
  lamina_host host;
  lamina_vector vector; /* that host.vector points to */
  lamina_pool *pool;
  lamina_registry *registry;
  lamina_message *messages;     /* one for each thread that failed */
  lamina_message first_message; /* the first of them: reporting a lack of memory needs none */
  lamina_string *texts;
  pthread_mutex_t message_lock; /* of messages and texts */
  int threads, cores;
  locale_t locale; /* C: a number in a model reads the same whatever the program's locale */
  char cpu_name[96];
  char isas[64];
};

void lamina_context_retain(lamina_context *context);
static inline void lamina_context_release(lamina_context *context) { lamina_context_destroy(context); }

/* Records this thread's message and returns `status`: `return lamina_fail(...)`. */
lamina_status lamina_fail(const lamina_context *context, lamina_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Puts "PREFIX: " before this thread's message; for callers that know which file or node it was. */
lamina_status lamina_fail_prefix(const lamina_context *context, lamina_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
lamina_status lamina_fail_va(const lamina_context *context, lamina_status status, const char *format, va_list arguments);
lamina_status lamina_fail_memory(const lamina_context *context, size_t bytes);
void lamina_warn(const lamina_context *context, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Memory through the context's allocator: 64-byte aligned, not zeroed; NULL when it fails (no message). Any size that
   comes from a file or an argument goes through lamina_multiply and lamina_add first. */
void *lamina_alloc(const lamina_context *context, size_t bytes) __attribute__((malloc));
void *lamina_alloc_zeroed(const lamina_context *context, size_t bytes);
void lamina_free(const lamina_context *context, void *memory);
char *lamina_copy_string(const lamina_context *context, const char *text);
/* The one copy of `text` that lives as long as the context, made if there is none yet; NULL without memory. */
const char *lamina_intern(const lamina_context *context, const char *text);
/* A copy with room for `count` items, at least doubled when it must grow; NULL leaves the old array as it is. */
void *lamina_grow(const lamina_context *context, void *array, size_t *capacity, size_t count, size_t item_bytes);

/* strtod of the C locale. */
double lamina_parse_double(const lamina_context *context, const char *text, char **end);

static inline bool lamina_multiply(size_t a, size_t b, size_t *product) { return !__builtin_mul_overflow(a, b, product); }
static inline bool lamina_add(size_t a, size_t b, size_t *sum) { return !__builtin_add_overflow(a, b, sum); }

size_t lamina_dtype_bytes(lamina_dtype dtype);
const char *lamina_dtype_name(lamina_dtype dtype);
/* Row-major strides for the shape in `tensor`. */
void lamina_tensor_set_dense(lamina_tensor *tensor);
bool lamina_tensor_is_dense(const lamina_tensor *tensor);
bool lamina_same_shape(const lamina_tensor *a, const lamina_tensor *b);
/* "3x28x28 f32" into a buffer; returns it. */
const char *lamina_shape_text(const lamina_tensor *tensor, char *buffer, size_t bytes);
/* Bytes of the elements; false if that overflows or a dimension is negative. */
bool lamina_tensor_bytes(const lamina_tensor *tensor, size_t *bytes);

#endif
