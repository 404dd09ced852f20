/* SPDX-License-Identifier: Apache-2.0 */
/* What the loadable layers share: views of tensors as rows of channels, checks, and short forms of descriptors. All of it
   is inline, so that a module is its own files, this header and plugin.h. */
#ifndef LAMINA_MODULE_H
#define LAMINA_MODULE_H

#include "lamina/plugin.h"

#include <math.h>
#include <string.h>

/* Loops over channels are plain C, compiled once for the processor that the library asks for and once for AVX2. Both
   round alike (no contraction), so that only the speed differs. A body is MODULE_INLINE, its two versions are made by
   MODULE_TASK, and module_wide tells which one to run. */
#define MODULE_INLINE static inline __attribute__((always_inline))
#if defined(__x86_64__)
#define MODULE_AVX2 __attribute__((target("avx2,fma")))
#else
#define MODULE_AVX2
#endif

/* NAME_task and NAME_task_avx2, for host->parallel, from `NAME_body(arg, index, thread)`. */
#define MODULE_TASK(name)                                                                                              \
  static void name##_task(void *arg, int64_t index, int thread) { name##_body(arg, index, thread); }                   \
  MODULE_AVX2 static void name##_task_avx2(void *arg, int64_t index, int thread) { name##_body(arg, index, thread); }
#define MODULE_RUN(host, tasks, name, arg)                                                                             \
  (host)->parallel(host, tasks, module_wide(host) ? name##_task_avx2 : name##_task, arg)

static inline int module_wide(const lamina_host *host) { return strncmp(host->cpu->isa, "avx", 3) == 0; }

static inline int64_t module_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t module_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t module_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t module_round_up(int64_t a, int64_t to) { return module_ceil_div(a, to) * to; }

/* A tensor as a matrix: all leading dimensions are rows, the last one is the channels; rows may be padded. */
typedef struct module_matrix {
  float *data;
  int64_t rows, channels, ld;
} module_matrix;

static inline module_matrix module_rows(const lamina_tensor *t) {
  module_matrix m = {.data = (float *)t->data, .rows = 1, .channels = 1, .ld = 1};
  if (t->rank > 0) m.channels = m.ld = t->dim[t->rank - 1];
  if (t->rank > 1) m.ld = t->stride[t->rank - 2];
  for (int i = 0; i + 1 < t->rank; i++) m.rows *= t->dim[i];
  return m;
}

static inline void module_copy_shape(lamina_tensor *to, const lamina_tensor *from) {
  to->rank = from->rank;
  memcpy(to->dim, from->dim, sizeof to->dim);
}

static inline void module_shape(lamina_tensor *to, int rank, int64_t a, int64_t b) {
  to->rank = rank;
  to->dim[0] = a;
  to->dim[1] = b;
}

static inline int module_needs_input(const lamina_node *node, int i) { return (int)(node->need_inputs >> i & 1); }
static inline int module_adds_input(const lamina_node *node, int i) { return (int)(node->accumulate_inputs >> i & 1); }
static inline int module_needs_param(const lamina_node *node, int i) {
  return (int)(node->need_params >> i & 1) && node->params[i].rank >= 0;
}
static inline int module_adds_param(const lamina_node *node, int i) { return (int)(node->accumulate_params >> i & 1); }
static inline float *module_param(const lamina_node *node, int i) {
  return node->params[i].rank >= 0 ? (float *)node->params[i].data : NULL;
}

/* Refuses ranks outside least .. most; `form` says what the layer wants: "(N, L, C)". */
static inline lamina_status module_check_rank(const lamina_node *node, int i, int least, int most, const char *form) {
  const int rank = node->inputs[i].rank;
  if (rank >= least && rank <= most) return LAMINA_OK;
  return node->host->fail(node->host, LAMINA_SHAPE_MISMATCH, "input %d has rank %d; expected %s", i, rank, form);
}

/* Bytes of `floats` times `count`, or a failure if that is more than memory can hold. */
static inline lamina_status module_bytes(const lamina_node *node, int64_t floats, int64_t count, size_t *bytes) {
  if (!__builtin_mul_overflow((size_t)floats, (size_t)count, bytes) && *bytes <= SIZE_MAX / 64) {
    *bytes *= sizeof(float);
    return LAMINA_OK;
  }
  return node->host->fail(node->host, LAMINA_SHAPE_MISMATCH, "its buffers are more than memory can hold");
}

static inline float *module_floats(void *memory, int64_t offset) { return (float *)memory + offset; }

/* The next `floats` floats of a workspace, in lines of their own: without `base` only *at, its bytes so far, grows. */
static inline float *module_carve(void *base, size_t *at, int64_t floats) {
  enum { LINE_FLOATS = 16 };
  float *result = base ? (float *)((char *)base + *at) : NULL;
  *at += (size_t)module_round_up(floats, LINE_FLOATS) * sizeof(float);
  return result;
}

/* C(m, n) = A(m, k) B for a host's product; the caller says what B is, and what else there is. */
static inline lamina_gemm module_product(int64_t m, int64_t n, int64_t k, const float *a, int64_t a_row, int64_t a_k, float *c,
                                         int64_t c_row, void *workspace) {
  return (lamina_gemm){.size = sizeof(lamina_gemm),
                       .m = m,
                       .n = n,
                       .k = k,
                       .a = a,
                       .a_row = a_row,
                       .a_k = a_k,
                       .c = c,
                       .c_row = c_row,
                       .lo = -INFINITY,
                       .hi = INFINITY,
                       .workspace = workspace};
}

/* Short forms of descriptors. */
#define MODULE_PORT(id, port_kind, port_name, port_flags, init, text)                                                  \
  static const lamina_port id = {.size = sizeof(lamina_port),                                                          \
                                 .name = port_name,                                                                    \
                                 .kind = port_kind,                                                                    \
                                 .flags = port_flags,                                                                  \
                                 .initializer = init,                                                                  \
                                 .doc = text}
#define MODULE_INPUT(id, name, flags, text) MODULE_PORT(id, LAMINA_PORT_INPUT, name, flags, NULL, text)
#define MODULE_OUTPUT(id, name, flags, text) MODULE_PORT(id, LAMINA_PORT_OUTPUT, name, flags, NULL, text)
#define MODULE_PARAMETER(id, name, flags, init, text) MODULE_PORT(id, LAMINA_PORT_PARAMETER, name, flags, init, text)
#define MODULE_STATE(id, name, init, text) MODULE_PORT(id, LAMINA_PORT_STATE, name, 0, init, text)
#define MODULE_ATTR(id, attr_name, attr_type, fallback, least, most, text)                                             \
  static const lamina_attr id = {.size = sizeof(lamina_attr),                                                          \
                                 .name = attr_name,                                                                    \
                                 .type = attr_type,                                                                    \
                                 .def = fallback,                                                                      \
                                 .min = least,                                                                         \
                                 .max = most,                                                                          \
                                 .doc = text}
#define MODULE_KERNEL(id, plan_fn, forward_fn, backward_fn)                                                            \
  static const lamina_kernel id = {.size = sizeof(lamina_kernel),                                                      \
                                   .name = "vector",                                                                   \
                                   .plan = plan_fn,                                                                    \
                                   .forward = forward_fn,                                                              \
                                   .backward = backward_fn}
#define MODULE_ATTRS(...) ((const lamina_attr *const[]){__VA_ARGS__, NULL})
#define MODULE_PORTS(...) ((const lamina_port *const[]){__VA_ARGS__, NULL})
#define MODULE_KERNELS(...) ((const lamina_kernel *const[]){__VA_ARGS__, NULL})

#endif
