/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gelu and mish, element by element on any shape; both offer their function, so that at inference the convolution or linear
 * layer before them applies it to its output while that is in cache.
 *
 *   gelu   x * P(x), P the normal distribution; approximate=tanh: x / (1 + exp(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3)
 *          Hendrycks and Gimpel 2016; torch.nn.GELU
 *   mish   x * tanh(log(1 + e^x)) = x * n / (n + 2), n = e (e + 2), e = e^x                Misra 2019; torch.nn.Mish
 *
 * P(x) = erfc(-x / sqrt 2) / 2 with erfc(z) = t exp(-z^2) q(t), t = 1 / (1 + z/2), z >= 0; q is a polynomial of degree 9 in t - 0.6,
 * fitted by least squares to a relative error of 9e-9. Cost: about 30 operations an element.
 */
#include "../module.h"

enum { TASK_FLOATS = 16384, PIECE = 64 /* floats at a time, the last piece filled up */ };
enum { GELU = 0, GELU_TANH, MISH };

/* e^x to 2 ulp for -87 <= x <= 88, and the value at the nearer bound beyond. x = n ln 2 + r; ln 2 in two parts. */
MODULE_INLINE float exponential(float x) {
  const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  const float shifted = x * 1.44269504f + magic, n = shifted - magic;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  uint32_t bits;
  memcpy(&bits, &shifted, sizeof bits);
  bits = (bits - 0x4b400000u + 127u) << 23;
  float power;
  memcpy(&power, &bits, sizeof power);
  return p * power;
}

/* P(x), and its derivative, the normal density. */
MODULE_INLINE float normal(float x, float *density) {
  const float e = exponential(-0.5f * x * x), t = 1.0f / (1.0f + 0.35355339f * fabsf(x)), u = t - 0.6f;
  float q = 0.0245383123f;
  q = q * u - 0.0572304474f;
  q = q * u - 0.00767910508f;
  q = q * u + 0.112009389f;
  q = q * u - 0.0379319599f;
  q = q * u - 0.207732080f;
  q = q * u + 0.0686912134f;
  q = q * u + 0.591469060f;
  q = q * u + 0.802588609f;
  q = q * u + 0.585224494f;
  const float tail = 0.5f * t * e * q;
  *density = 0.39894228f * e;
  return x > 0 ? 1.0f - tail : tail;
}

/* f(x) and f'(x). */
MODULE_INLINE float evaluate(int type, float x, float *slope) {
  if (type == GELU) {
    float density;
    const float p = normal(x, &density);
    *slope = p + x * density;
    return x * p;
  }
  if (type == GELU_TANH) {
    const float e = exponential(-1.59576912f * (x + 0.044715f * x * x * x)), s = 1.0f / (1.0f + e);
    *slope = s + x * s * (e * s) * (1.59576912f + 0.214070968f * x * x);
    return x * s;
  }
  const float e = exponential(x > 20.0f ? 20.0f : x), n = e * (e + 2.0f), w = 1.0f / (n + 2.0f);
  *slope = n * w + x * (4.0f * e * (e + 1.0f) * w * w);
  return x * (n * w);
}

/* Through buffers of its own: out may be x or dy, which would keep the compiler from vector code. */
MODULE_INLINE void map(int type, int64_t n, const float *x, const float *dy, int add, float *out) {
  float value[PIECE] = {0}, slope[PIECE];
  for (int64_t first = 0; first < n; first += PIECE) {
    const int64_t count = module_min(PIECE, n - first);
    memcpy(value, x + first, (size_t)count * sizeof(float));
    for (int i = 0; i < PIECE; i++) value[i] = evaluate(type, value[i], &slope[i]);
    if (!dy) {
      memcpy(out + first, value, (size_t)count * sizeof(float));
      continue;
    }
    for (int64_t i = 0; i < count; i++) {
      const float d = dy[first + i] * slope[i];
      out[first + i] = add ? out[first + i] + d : d;
    }
  }
}

/* The function that an epilogue calls, in two versions. */
#define TILE(name, type)                                                                                               \
  static void name(int64_t n, const float *parameters, const float *x, float *y) {                                     \
    (void)parameters;                                                                                                  \
    map(type, n, x, NULL, 0, y);                                                                                       \
  }                                                                                                                    \
  MODULE_AVX2 static void name##_avx2(int64_t n, const float *parameters, const float *x, float *y) {                  \
    (void)parameters;                                                                                                  \
    map(type, n, x, NULL, 0, y);                                                                                       \
  }
TILE(gelu_tile, GELU)
TILE(gelu_tanh_tile, GELU_TANH)
TILE(mish_tile, MISH)

static lamina_activate *const tiles[][2] = {
    {gelu_tile, gelu_tile_avx2}, {gelu_tanh_tile, gelu_tanh_tile_avx2}, {mish_tile, mish_tile_avx2}};

typedef struct pass {
  module_matrix x, dy, out;
  int type, add;
  int64_t rows; /* of a task */
} pass;

MODULE_INLINE void pass_body(void *arg, int64_t index, int thread) {
  const pass *p = arg;
  const int64_t n = p->x.channels, end = module_min((index + 1) * p->rows, p->x.rows);
  (void)thread;
  for (int64_t r = index * p->rows; r < end; r++) {
    const float *x = p->x.data + r * p->x.ld, *dy = p->dy.data ? p->dy.data + r * p->dy.ld : NULL;
    float *out = p->out.data + r * p->out.ld;
    if (p->type == GELU) map(GELU, n, x, dy, p->add, out);
    if (p->type == GELU_TANH) map(GELU_TANH, n, x, dy, p->add, out);
    if (p->type == MISH) map(MISH, n, x, dy, p->add, out);
  }
}
MODULE_TASK(pass)

/* Dense operands are cut into rows of a length of their own. */
static void flatten(module_matrix *m, int64_t count, int64_t row) {
  if (!m->data) return;
  m->channels = m->ld = row;
  m->rows = count / row;
}

static lamina_status run(const lamina_node *node, pass p) {
  const int64_t count = p.x.rows * p.x.channels;
  const int dense = (p.x.ld == p.x.channels && p.out.ld == p.out.channels && (!p.dy.data || p.dy.ld == p.dy.channels)) ||
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
  MODULE_RUN(node->host, module_ceil_div(p.x.rows, p.rows), pass, &p);
  if (!rest) return LAMINA_OK;
  p.x.data += count - rest;
  p.out.data += count - rest;
  if (p.dy.data) p.dy.data += count - rest;
  p.x.channels = rest;
  p.x.rows = p.rows = 1;
  MODULE_RUN(node->host, 1, pass, &p);
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
  epilogue->activation = tiles[type][module_wide(node->host)];
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
                                        .doc = "none: by the normal distribution; tanh: the approximation of many models"};
MODULE_INPUT(x_port, "x", LAMINA_PORT_BACKWARD_READS, "any shape");
MODULE_OUTPUT(y_port, "y", 0, "the shape of x");
MODULE_KERNEL(gelu_kernel, plan, gelu_forward, gelu_backward);
MODULE_KERNEL(mish_kernel, plan, mish_forward, mish_backward);

static const lamina_layer gelu = {.size = sizeof(lamina_layer),
                                  .name = "gelu",
                                  .version = 1,
                                  .doc = "x times the normal distribution at x",
                                  .flags = LAMINA_LAYER_IN_PLACE | LAMINA_LAYER_BACKWARD_IN_PLACE | LAMINA_LAYER_ACCUMULATES,
                                  .attrs = MODULE_ATTRS(&approximate),
                                  .ports = MODULE_PORTS(&x_port, &y_port),
                                  .kernels = MODULE_KERNELS(&gelu_kernel),
                                  .infer = infer,
                                  .as_epilogue = gelu_epilogue};
static const lamina_layer mish = {.size = sizeof(lamina_layer),
                                  .name = "mish",
                                  .version = 1,
                                  .doc = "x * tanh(log(1 + e^x))",
                                  .flags = LAMINA_LAYER_IN_PLACE | LAMINA_LAYER_BACKWARD_IN_PLACE | LAMINA_LAYER_ACCUMULATES,
                                  .attrs = (const lamina_attr *const[]){NULL},
                                  .ports = MODULE_PORTS(&x_port, &y_port),
                                  .kernels = MODULE_KERNELS(&mish_kernel),
                                  .infer = infer,
                                  .as_epilogue = mish_epilogue};

LAMINA_PLUGIN("lamina.activations", "1.0", "gelu mish", &gelu, &mish);
