/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"
#include "dispatch.h"
#include "host.h"
#include "registry.h"
#include "threads.h"

enum { MAX_THREADS = 1024 };

static lamina_status check_options(const lamina_context_options *o, char *error, size_t bytes) {
  if (!o->alloc != !o->release) {
    snprintf(error, bytes, "context options: alloc and release are given both or not at all");
    return LAMINA_INVALID_ARGUMENT;
  }
  if (o->threads < 0 || o->threads > MAX_THREADS) {
    snprintf(error, bytes, "context options: threads is %d, not 0 to %d", o->threads, (int)MAX_THREADS);
    return LAMINA_INVALID_ARGUMENT;
  }
  if (o->run && o->threads == 0) {
    snprintf(error, bytes, "context options: with a thread pool of your own (run), threads must be given");
    return LAMINA_INVALID_ARGUMENT;
  }
  if ((unsigned)o->math > LAMINA_MATH_FAST) {
    snprintf(error, bytes, "context options: %d is not a math mode", (int)o->math);
    return LAMINA_INVALID_ARGUMENT;
  }
  return LAMINA_OK;
}

/* The part that both sides know, or the defaults. */
static lamina_status read_options(const lamina_context_options *given, lamina_context_options *options) {
  memset(options, 0, sizeof *options);
  if (!given) return LAMINA_OK;
  if (given->size < offsetof(lamina_context_options, threads)) return LAMINA_INVALID_ARGUMENT;
  memcpy(options, given, given->size < sizeof *options ? given->size : sizeof *options);
  return LAMINA_OK;
}

static lamina_status start(lamina_context *context, char *error, size_t bytes) {
  const char *isa = context->options.isa;
  if (!isa) isa = getenv("LAMINA_ISA");
  if (isa && !*isa) isa = NULL;
  lamina_status status = lamina_dispatch_compose(isa, &context->kernels, error, bytes);
  if (status) return status;
  context->options.isa = context->kernels.isa;
  lamina_dispatch_list(context->isas, sizeof context->isas);

  lamina_topology *topology = lamina_topology_create();
  context->cores = lamina_topology_cores(topology);
  context->threads = context->options.threads ? context->options.threads : context->cores;
  size_t l1 = lamina_topology_cache(topology, 1), l2 = lamina_topology_cache(topology, 2);
  context->cpu = (lamina_cpu){.size = sizeof(lamina_cpu),
                              .isa = context->kernels.isa,
                              .vector_floats = context->kernels.vector_floats,
                              .l1 = l1 ? l1 : 32 << 10, /* where hwloc does not know: what every core of today has */
                              .l2 = l2 ? l2 : 256 << 10,
                              .l3 = lamina_topology_cache(topology, 3)};
  snprintf(context->cpu_name, sizeof context->cpu_name, "%s", lamina_topology_cpu_name(topology));
  lamina_host_init(context);
  if (!context->locale) status = lamina_fail_memory(context, sizeof context->locale);
  if (!status && context->options.plugin_path) {
    context->options.plugin_path = lamina_intern(context, context->options.plugin_path);
    if (!context->options.plugin_path) status = lamina_fail_memory(context, 1);
  }
  if (!status && !context->options.run && context->threads > 1)
    status = lamina_pool_create(context, context->threads, topology, &context->pool);
  lamina_topology_destroy(topology);
  if (!status) status = lamina_registry_create(context);
  if (status) snprintf(error, bytes, "%s", lamina_error_message(context));
  return status;
}

lamina_status lamina_context_create(const lamina_context_options *given, lamina_context **out) {
  char ignored[LAMINA_MESSAGE_BYTES];
  char *error = ignored;
  size_t bytes = sizeof ignored;
  lamina_context_options options;
  if (!out) return LAMINA_INVALID_ARGUMENT;
  *out = NULL;
  lamina_status status = read_options(given, &options);
  if (status) return status; /* a size of 0: even the error buffer cannot be trusted */
  if (options.error && options.error_size) {
    error = options.error;
    bytes = options.error_size;
  }
  status = check_options(&options, error, bytes);
  if (status) return status;
  lamina_context *context = options.alloc ? options.alloc(options.alloc_user, sizeof *context) : malloc(sizeof *context);
  if (!context) {
    snprintf(error, bytes, "out of memory: %zu bytes could not be allocated", sizeof *context);
    return LAMINA_OUT_OF_MEMORY;
  }
  memset(context, 0, sizeof *context);
  context->options = options;
  context->options.error = NULL;
  atomic_init(&context->references, 1);
  pthread_mutex_init(&context->message_lock, NULL);
  context->locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
  status = start(context, error, bytes);
  if (status) {
    lamina_context_destroy(context);
    return status;
  }
  *out = context;
  return LAMINA_OK;
}

double lamina_parse_double(const lamina_context *context, const char *text, char **end) {
  return strtod_l(text, end, context->locale);
}

void lamina_context_retain(lamina_context *context) { atomic_fetch_add(&context->references, 1); }

void lamina_context_destroy(lamina_context *context) {
  if (!context || atomic_fetch_sub(&context->references, 1) > 1) return;
  lamina_pool_destroy(context->pool);
  lamina_registry_destroy(context);
  for (lamina_message *m = context->messages, *next; m; m = next) {
    next = m->next;
    if (m != &context->first_message) lamina_free(context, m);
  }
  for (lamina_string *t = context->texts, *next; t; t = next) {
    next = t->next;
    lamina_free(context, t);
  }
  pthread_mutex_destroy(&context->message_lock);
  if (context->locale) freelocale(context->locale);
  if (context->options.release)
    context->options.release(context->options.alloc_user, context);
  else
    free(context);
}

lamina_status lamina_context_get_info(const lamina_context *context, lamina_context_info *info) {
  if (!context) return LAMINA_INVALID_ARGUMENT;
  if (!info || info->size < sizeof info->size)
    return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "lamina_context_get_info: info is NULL or its size is not set");
  lamina_context_info full = {.size = info->size,
                              .isa = context->cpu.isa,
                              .isas = context->isas,
                              .cpu = context->cpu_name,
                              .threads = context->threads,
                              .cores = context->cores,
                              .l1 = context->cpu.l1,
                              .l2 = context->cpu.l2,
                              .l3 = context->cpu.l3};
  memcpy(info, &full, info->size < sizeof full ? info->size : sizeof full);
  return LAMINA_OK;
}

const lamina_host *lamina_context_host(const lamina_context *context) { return context ? &context->host : NULL; }
