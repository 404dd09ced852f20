/* SPDX-License-Identifier: Apache-2.0 */
#include "host.h"

#include <string.h>

#include "gemm.h"
#include "random.h"
#include "threads.h"

static const lamina_context *context_of(const lamina_host *host) {
  return (const lamina_context *)((const char *)host - offsetof(lamina_context, host));
}

static lamina_status host_fail(const lamina_host *host, lamina_status status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  lamina_fail_va(context_of(host), status, format, arguments);
  va_end(arguments);
  return status;
}

static void host_log(const lamina_host *host, const char *message) { lamina_warn(context_of(host), "%s", message); }

static void *host_alloc(const lamina_host *host, size_t bytes) { return lamina_alloc(context_of(host), bytes); }

static void host_release(const lamina_host *host, void *memory) { lamina_free(context_of(host), memory); }

static int host_threads(const lamina_host *host) { return context_of(host)->threads; }

void lamina_parallel(const lamina_context *context, int64_t tasks, void (*task)(void *arg, int64_t index, int thread),
                     void *arg) {
  if (context->options.run && tasks > 1)
    context->options.run(context->options.run_user, tasks, task, arg);
  else if (context->pool)
    lamina_pool_run(context->pool, tasks, task, arg);
  else
    for (int64_t i = 0; i < tasks; i++) task(arg, i, 0);
}

static void host_parallel(const lamina_host *host, int64_t tasks, void (*task)(void *arg, int64_t index, int thread),
                          void *arg) {
  lamina_parallel(context_of(host), tasks, task, arg);
}

static void host_random(const lamina_host *host, uint64_t seed, uint64_t offset, int64_t n, float *out) {
  (void)host;
  lamina_random_uniform(seed, offset, n, out);
}

/* A plugin's struct, zero-extended or cut to what this library knows. */
static lamina_gemm known(const lamina_gemm *gemm) {
  lamina_gemm full = {.size = 0};
  memcpy(&full, gemm, gemm->size < sizeof full ? gemm->size : sizeof full);
  full.size = sizeof full;
  return full;
}

static size_t host_gemm_workspace(const lamina_host *host, const lamina_gemm *gemm) {
  const lamina_gemm full = known(gemm);
  return lamina_gemm_workspace(context_of(host), &full);
}

static void host_gemm(const lamina_host *host, const lamina_gemm *gemm) {
  const lamina_gemm full = known(gemm);
  lamina_gemm_run(context_of(host), &full);
}

static size_t host_gemm_serial_workspace(const lamina_host *host, const lamina_gemm *gemm) {
  const lamina_gemm full = known(gemm);
  return lamina_gemm_serial_workspace(context_of(host), &full);
}

static void host_gemm_serial(const lamina_host *host, const lamina_gemm *gemm) {
  const lamina_gemm full = known(gemm);
  lamina_gemm_run_serial(context_of(host), &full);
}

static size_t host_gemm_packed_bytes(const lamina_host *host, int64_t k, int64_t n) {
  return lamina_gemm_packed_bytes(context_of(host), k, n);
}

static void host_gemm_pack_b(const lamina_host *host, int64_t k, int64_t n, const float *b, int64_t b_k, int64_t b_n,
                             const float *scale, float *packed) {
  lamina_gemm_pack_b(context_of(host), k, n, b, b_k, b_n, scale, packed);
}

static void host_gemm_pack_b_serial(const lamina_host *host, int64_t k, int64_t n, const float *b, int64_t b_k, int64_t b_n,
                                    const float *scale, float *packed) {
  if (k > 0 && n > 0) context_of(host)->kernels.gemm->pack_b(k, n, b, b_k, b_n, scale, packed);
}

static const char *host_gemm_algorithm(const lamina_host *host, const lamina_gemm *gemm) {
  char text[64];
  const lamina_gemm full = known(gemm);
  lamina_gemm_describe(context_of(host), &full, text, sizeof text);
  const char *algorithm = lamina_intern(context_of(host), text);
  return algorithm ? algorithm : "gemm";
}

static const void *host_ext(const lamina_host *host, const char *id) {
  return id && strcmp(id, LAMINA_KERNELS_EXT) == 0 ? &context_of(host)->kernels : NULL;
}

void lamina_host_init(lamina_context *context) {
  const lamina_kernels *kernels = &context->kernels;
  context->vector = (lamina_vector){.size = sizeof(lamina_vector),
                                    .sigmoid = kernels->eltwise->activation[LAMINA_ACTIVATION_SIGMOID],
                                    .tanh = kernels->eltwise->activation[LAMINA_ACTIVATION_TANH],
                                    .silu = kernels->eltwise->activation[LAMINA_ACTIVATION_SILU],
                                    .softmax = kernels->softmax->forward,
                                    .softmax_backward = kernels->softmax->backward,
                                    .softmax_unscaled = kernels->softmax->unscaled};
  context->host = (lamina_host){
      .size = sizeof(lamina_host),
      .abi_major = LAMINA_PLUGIN_ABI_MAJOR,
      .abi_minor = LAMINA_PLUGIN_ABI_MINOR,
      .cpu = &context->cpu,
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
      .math = context->options.math,
      .gemm_algorithm = host_gemm_algorithm,
      .gemm_serial_workspace = host_gemm_serial_workspace,
      .gemm_serial = host_gemm_serial,
      .gemm_pack_b_serial = host_gemm_pack_b_serial,
      .vector = &context->vector,
  };
}
