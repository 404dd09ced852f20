/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gelu and mish, element by element on any shape; both offer their function, so that at inference the convolution or
 * linear layer before them applies it to its output while that is in cache.
 *
 *   gelu   x * P(x), P the normal distribution; approximate=tanh: x / (1 + exp(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3)
 *          Hendrycks and Gimpel 2016; torch.nn.GELU
 *   mish   x * tanh(log(1 + e^x)) = x * n / (n + 2), n = e (e + 2), e = e^x                Misra 2019; torch.nn.Mish
 *
 * P(x) = erfc(-x / sqrt 2) / 2 with erfc(z) = t exp(-z^2) q(t), t = 1 / (1 + z/2), z >= 0; q is a polynomial of degree
 * 9 in t - 0.6, fitted by least squares to a relative error of 9e-9. Cost: about 30 operations an element.
 */
#include "../module.h"

enum { TASK_FLOATS = 16384, PIECE = 64 /* floats at a time */, HALF = 32, SMALL = 16 /* of what is left, filled up */ };
enum { GELU = 0, GELU_TANH, MISH };

/* Long chains of operations: twice as long vectors hide twice as much of their latency, so there is a third version. */
enum { VERSIONS = 3 };
#if defined(__x86_64__)
enum { WIDE = 1 };
#define AVX512 __attribute__((target("avx512f,avx512dq,avx512vl,avx2,fma")))
#else
enum { WIDE = 0 };
#define AVX512
#endif

static int version_for(const lamina_host *host) {
  return strcmp(host->cpu->isa, "avx512") == 0 ? 2 : module_wide(host);
}

/* a * b + c, rounded once where the processor does that as fast: `fused` is a constant of each version. */
MODULE_INLINE float mad(int fused, float a, float b, float c) { return fused ? __builtin_fmaf(a, b, c) : a * b + c; }

/* e^x to 2 ulp for -87 <= x <= 88, and the value at the nearer bound beyond. x = n ln 2 + r; ln 2 in two parts. */
MODULE_INLINE float exponential(int fused, float x) {
  const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  const float shifted = mad(fused, x, 1.44269504f, magic), n = shifted - magic;
  const float r = mad(fused, n, 2.12194440e-4f, mad(fused, n, -0.693359375f, x));
  float p = 1.0f / 5040;
  p = mad(fused, p, r, 1.0f / 720);
  p = mad(fused, p, r, 1.0f / 120);
  p = mad(fused, p, r, 1.0f / 24);
  p = mad(fused, p, r, 1.0f / 6);
  p = mad(fused, p, r, 0.5f);
  p = mad(fused, p, r, 1.0f);
  p = mad(fused, p, r, 1.0f);
  uint32_t bits;
  memcpy(&bits, &shifted, sizeof bits);
  bits = (bits - 0x4b400000u + 127u) << 23;
  float power;
  memcpy(&power, &bits, sizeof power);
  return p * power;
}

/* P(x), and its derivative, the normal density. */
MODULE_INLINE float normal(int fused, float x, float *density) {
  const float e = exponential(fused, -0.5f * x * x), t = 1.0f / (1.0f + 0.35355339f * fabsf(x)), u = t - 0.6f;
  float q = 0.0245383123f;
  q = mad(fused, q, u, -0.0572304474f);
  q = mad(fused, q, u, -0.00767910508f);
  q = mad(fused, q, u, 0.112009389f);
  q = mad(fused, q, u, -0.0379319599f);
  q = mad(fused, q, u, -0.207732080f);
  q = mad(fused, q, u, 0.0686912134f);
  q = mad(fused, q, u, 0.591469060f);
  q = mad(fused, q, u, 0.802588609f);
  q = mad(fused, q, u, 0.585224494f);
  const float tail = 0.5f * t * e * q;
  *density = 0.39894228f * e;
  return x > 0 ? 1.0f - tail : tail;
}

/* f(x) and f'(x). */
MODULE_INLINE float evaluate(int type, int fused, float x, float *slope) {
  if (type == GELU) {
    float density;
    const float p = normal(fused, x, &density);
    *slope = p + x * density;
    return x * p;
  }
  if (type == GELU_TANH) {
    const float e = exponential(fused, -1.59576912f * (x + 0.044715f * x * x * x)), s = 1.0f / (1.0f + e);
    *slope = s + x * s * (e * s) * (1.59576912f + 0.214070968f * x * x);
    return x * s;
  }
  const float e = exponential(fused, x > 20.0f ? 20.0f : x), n = e * (e + 2.0f), w = 1.0f / (n + 2.0f);
  *slope = n * w + x * (4.0f * e * (e + 1.0f) * w * w);
  return x * (n * w);
}

/* `count` <= `size` <= PIECE floats, through buffers of its own: out may be x or dy, which would keep the compiler from
   vector code. */
MODULE_INLINE void map_piece(int type, int fused, int size, int64_t count, const float *x, const float *dy, int add,
                             float *out) {
  float value[PIECE], slope[PIECE];
  for (int i = 0; i < size && count < size; i++) value[i] = 0;
  memcpy(value, x, (size_t)count * sizeof(float));
  if (!dy) {
    for (int i = 0; i < size; i++) {
      float unused;
      value[i] = evaluate(type, fused, value[i], &unused);
    }
    memcpy(out, value, (size_t)count * sizeof(float));
    return;
  }
  for (int i = 0; i < size; i++) evaluate(type, fused, value[i], &slope[i]);
  for (int64_t i = 0; i < count; i++) value[i] = dy[i] * slope[i];
  for (int64_t i = 0; i < count && add; i++) value[i] += out[i];
  memcpy(out, value, (size_t)count * sizeof(float));
}

MODULE_INLINE void map(int type, int fused, int64_t n, const float *x, const float *dy, int add, float *out) {
  int64_t i = 0;
  for (; i + PIECE <= n; i += PIECE) map_piece(type, fused, PIECE, PIECE, x + i, dy ? dy + i : NULL, add, out + i);
  for (; i + HALF <= n; i += HALF) map_piece(type, fused, HALF, HALF, x + i, dy ? dy + i : NULL, add, out + i);
  for (; i < n; i += SMALL)
    map_piece(type, fused, SMALL, module_min(SMALL, n - i), x + i, dy ? dy + i : NULL, add, out + i);
}

/* The function that an epilogue calls, in a version for each kind of processor. */
#define VERSION(name, type, target, fused)                                                                             \
  target static void name(int64_t n, const float *parameters, const float *x, float *y) {                              \
    (void)parameters;                                                                                                  \
    map(type, fused, n, x, NULL, 0, y);                                                                                \
  }
#define TILE(name, type)                                                                                               \
  VERSION(name, type, , 0) VERSION(name##_avx2, type, MODULE_AVX2, WIDE) VERSION(name##_avx512, type, AVX512, WIDE)
TILE(gelu_tile, GELU)
TILE(gelu_tanh_tile, GELU_TANH)
TILE(mish_tile, MISH)

static lamina_activate *const tiles[][VERSIONS] = {{gelu_tile, gelu_tile_avx2, gelu_tile_avx512},
                                                   {gelu_tanh_tile, gelu_tanh_tile_avx2, gelu_tanh_tile_avx512},
                                                   {mish_tile, mish_tile_avx2, mish_tile_avx512}};

typedef struct pass {
  module_matrix x, dy, out;
  int type, add;
  int64_t rows; /* of a task */
} pass;

MODULE_INLINE void pass_body(void *arg, int64_t index, int fused) {
  const pass *p = arg;
  const int64_t n = p->x.channels, end = module_min((index + 1) * p->rows, p->x.rows);
  for (int64_t r = index * p->rows; r < end; r++) {
    const float *x = p->x.data + r * p->x.ld, *dy = p->dy.data ? p->dy.data + r * p->dy.ld : NULL;
    float *out = p->out.data + r * p->out.ld;
    if (p->type == GELU) map(GELU, fused, n, x, dy, p->add, out);
    if (p->type == GELU_TANH) map(GELU_TANH, fused, n, x, dy, p->add, out);
    if (p->type == MISH) map(MISH, fused, n, x, dy, p->add, out);
  }
}

#define PASS(name, target, fused)                                                                                      \
  target static void name(void *arg, int64_t index, int thread) {                                                      \
    (void)thread;                                                                                                      \
    pass_body(arg, index, fused);                                                                                      \
  }
PASS(pass_plain, , 0)
PASS(pass_avx2, MODULE_AVX2, WIDE)
PASS(pass_avx512, AVX512, WIDE)

static void run_pass(const lamina_host *host, int64_t tasks, pass *p) {
  static void (*const versions[VERSIONS])(void *, int64_t, int) = {pass_plain, pass_avx2, pass_avx512};
  host->parallel(host, tasks, versions[version_for(host)], p);
}

/* Dense operands are cut into rows of a length of their own. */
static void flatten(module_matrix *m, int64_t count, int64_t row) {
  if (!m->data) return;
  m->channels = m->ld = row;
  m->rows = count / row;
}

static lamina_status run(const lamina_node *node, pass p) {
  const int64_t count = p.x.rows * p.x.channels;
  const int dense =
      (p.x.ld == p.x.channels && p.out.ld == p.out.channels && (!p.dy.data || p.dy.ld == p.dy.channels)) ||
      p.x.rows == 1;
  int64_t rest = 0;
  if (!count) return LAMINA_OK; /* no channels: nothing to divide a task by */
  if (dense && count > TASK_FLOATS) {
    rest = count % TASK_FLOATS;
    flatten(&p.x, count, TASK_FLOATS);
    flatten(&p.dy, count, TASK_FLOATS);
    flatten(&p.out, count, TASK_FLOATS);
  }
  p.rows = module_max(TASK_FLOATS / p.x.channels, 1);
  run_pass(node->host, module_ceil_div(p.x.rows, p.rows), &p);
  if (!rest) return LAMINA_OK;
  p.x.data += count - rest;
  p.out.data += count - rest;
  if (p.dy.data) p.dy.data += count - rest;
  p.x.channels = rest;
  p.x.rows = p.rows = 1;
  run_pass(node->host, 1, &p);
  return LAMINA_OK;
}

static int gelu_type(const lamina_node *node) { return strcmp(node->attrs[0].s, "tanh") == 0 ? GELU_TANH : GELU; }

static lamina_status forward(const lamina_node *node, int type) {
  return run(node, (pass){.x = module_rows(&node->inputs[0]), .out = module_rows(&node->outputs[0]), .type = type});
}

static lamina_status backward(const lamina_node *node, int type) {
  if (!module_needs_input(node, 0)) return LAMINA_OK;
  return run(node, (pass){.x = module_rows(&node->inputs[0]),
                          .dy = module_rows(&node->d_outputs[0]),
                          .out = module_rows(&node->d_inputs[0]),
                          .type = type,
                          .add = module_adds_input(node, 0)});
}

static int as_epilogue(const lamina_node *node, int type, lamina_epilogue *epilogue) {
  epilogue->parts |= LAMINA_EPILOGUE_ACTIVATION;
  epilogue->activation = tiles[type][version_for(node->host)];
  return 1;
}

static lamina_status plan(const lamina_node *node, lamina_cost *cost) {
  const module_matrix x = module_rows(&node->inputs[0]);
  const double count = (double)x.rows * (double)x.channels;
  cost->flops = cost->backward_flops = 30 * count;
  cost->bytes = 8 * count;
  cost->backward_bytes = 12 * count;
  cost->algorithm = "elementwise";
  return LAMINA_OK;
}

static lamina_status infer(lamina_node *node) {
  module_copy_shape(&node->outputs[0], &node->inputs[0]);
  return LAMINA_OK;
}

static lamina_status gelu_forward(const lamina_node *node) { return forward(node, gelu_type(node)); }
static lamina_status gelu_backward(const lamina_node *node) { return backward(node, gelu_type(node)); }
static int gelu_epilogue(const lamina_node *node, lamina_epilogue *e) { return as_epilogue(node, gelu_type(node), e); }
static lamina_status mish_forward(const lamina_node *node) { return forward(node, MISH); }
static lamina_status mish_backward(const lamina_node *node) { return backward(node, MISH); }
static int mish_epilogue(const lamina_node *node, lamina_epilogue *e) { return as_epilogue(node, MISH, e); }

static const lamina_attr approximate = {.size = sizeof(lamina_attr),
                                        .name = "approximate",
                                        .type = LAMINA_ATTR_STRING,
                                        .def = "none",
                                        .choices = "none|tanh",
                                        .doc =
                                            "none: by the normal distribution; tanh: the approximation of many models"};
MODULE_INPUT(x_port, "x", LAMINA_PORT_BACKWARD_READS, "any shape");
MODULE_OUTPUT(y_port, "y", 0, "the shape of x");
MODULE_KERNEL(gelu_kernel, plan, gelu_forward, gelu_backward);
MODULE_KERNEL(mish_kernel, plan, mish_forward, mish_backward);

static const lamina_layer gelu = {.size = sizeof(lamina_layer),
                                  .name = "gelu",
                                  .version = 1,
                                  .doc = "x times the normal distribution at x",
                                  .flags =
                                      LAMINA_LAYER_IN_PLACE | LAMINA_LAYER_BACKWARD_IN_PLACE | LAMINA_LAYER_ACCUMULATES,
                                  .attrs = MODULE_ATTRS(&approximate),
                                  .ports = MODULE_PORTS(&x_port, &y_port),
                                  .kernels = MODULE_KERNELS(&gelu_kernel),
                                  .infer = infer,
                                  .as_epilogue = gelu_epilogue};
static const lamina_layer mish = {.size = sizeof(lamina_layer),
                                  .name = "mish",
                                  .version = 1,
                                  .doc = "x * tanh(log(1 + e^x))",
                                  .flags =
                                      LAMINA_LAYER_IN_PLACE | LAMINA_LAYER_BACKWARD_IN_PLACE | LAMINA_LAYER_ACCUMULATES,
                                  .attrs = (const lamina_attr *const[]){NULL},
                                  .ports = MODULE_PORTS(&x_port, &y_port),
                                  .kernels = MODULE_KERNELS(&mish_kernel),
                                  .infer = infer,
                                  .as_epilogue = mish_epilogue};

LAMINA_PLUGIN("lamina.activations", "1.0", "gelu mish", &gelu, &mish);
