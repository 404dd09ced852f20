/* SPDX-License-Identifier: Apache-2.0 */
/* Sources: Glorot and Bengio 2010 (xavier), He et al. 2015, eq. 10 and 14 (kaiming); bounds as torch.nn.init has them. */
#include "initialize.h"

#include <math.h>
#include <string.h>

#include "random.h"

typedef enum distribution { CONSTANT, UNIFORM, NORMAL } distribution;

typedef struct initializer {
  const char *name;
  int arguments;       /* 0 none, 1 optional, 2 required */
  double fallback;     /* of an optional argument */
  distribution kind;
  double (*magnitude)(double argument, double fan_in, double fan_out); /* value, bound or deviation */
} initializer;

static double argument_itself(double a, double in, double out) { return (void)in, (void)out, a; }
static double kaiming_uniform(double a, double in, double out) { return (void)out, sqrt(6.0 / ((1 + a * a) * in)); }
static double kaiming_normal(double a, double in, double out) { return (void)out, sqrt(2.0 / ((1 + a * a) * in)); }
static double xavier_uniform(double a, double in, double out) { return (void)a, sqrt(6.0 / (in + out)); }
static double xavier_normal(double a, double in, double out) { return (void)a, sqrt(2.0 / (in + out)); }
static double fan_in_uniform(double a, double in, double out) { return (void)a, (void)out, 1.0 / sqrt(in); }

static const initializer initializers[] = {
    {"zeros", 0, 0, CONSTANT, argument_itself},        {"ones", 0, 1, CONSTANT, argument_itself},
    {"constant", 2, 0, CONSTANT, argument_itself},     {"uniform", 2, 0, UNIFORM, argument_itself},
    {"normal", 2, 0, NORMAL, argument_itself},         {"kaiming_uniform", 1, 0, UNIFORM, kaiming_uniform},
    {"kaiming_normal", 1, 0, NORMAL, kaiming_normal},  {"xavier_uniform", 0, 0, UNIFORM, xavier_uniform},
    {"xavier_normal", 0, 0, NORMAL, xavier_normal},    {"fan_in_uniform", 0, 0, UNIFORM, fan_in_uniform},
};

/* Splits "name:argument"; NULL with a message if it is not one of the list. */
static const initializer *parse(const lamina_context *context, const char *text, double *argument) {
  const char *colon = strchr(text, ':');
  size_t length = colon ? (size_t)(colon - text) : strlen(text);
  for (size_t i = 0; i < sizeof initializers / sizeof initializers[0]; i++) {
    const initializer *candidate = &initializers[i];
    if (strlen(candidate->name) != length || memcmp(candidate->name, text, length) != 0) continue;
    *argument = candidate->fallback;
    if (!colon && candidate->arguments < 2) return candidate;
    char *end = NULL;
    if (colon && candidate->arguments) *argument = lamina_parse_double(context, colon + 1, &end);
    if (end && end != colon + 1 && !*end && isfinite(*argument)) return candidate;
    lamina_fail(context, LAMINA_INVALID_ARGUMENT, "initializer '%s': '%s' takes %s", text, candidate->name,
                candidate->arguments ? "one number after a colon" : "no argument");
    return NULL;
  }
  lamina_fail(context, LAMINA_INVALID_ARGUMENT,
              "initializer '%s' is unknown; known: zeros ones constant:V uniform:B normal:S kaiming_uniform[:a] "
              "kaiming_normal[:a] xavier_uniform xavier_normal fan_in_uniform",
              text);
  return NULL;
}

lamina_status lamina_initializer_check(const lamina_context *context, const char *text) {
  double argument;
  return parse(context, text, &argument) ? LAMINA_OK : LAMINA_INVALID_ARGUMENT;
}

lamina_status lamina_initializer_run(const lamina_context *context, const char *text, int64_t fan_in, int64_t fan_out,
                                     uint64_t stream, lamina_tensor *tensor) {
  double argument;
  const initializer *chosen = parse(context, text, &argument);
  if (!chosen) return LAMINA_INVALID_ARGUMENT;
  const int64_t count = lamina_tensor_count(tensor);
  const double magnitude =
      chosen->magnitude(argument, fan_in > 0 ? (double)fan_in : 1.0, fan_out > 0 ? (double)fan_out : 1.0);
  if (tensor->dtype == LAMINA_I64) {
    for (int64_t i = 0; i < count; i++) ((int64_t *)tensor->data)[i] = (int64_t)magnitude;
    return LAMINA_OK;
  }
  float *value = tensor->data;
  if (chosen->kind == UNIFORM) lamina_random_uniform(stream, 0, count, value);
  if (chosen->kind == NORMAL) lamina_random_normal(stream, 0, count, value);
  for (int64_t i = 0; i < count; i++)
    value[i] = chosen->kind == CONSTANT  ? (float)magnitude
               : chosen->kind == UNIFORM ? (float)((2.0 * value[i] - 1.0) * magnitude)
                                         : (float)(value[i] * magnitude);
  return LAMINA_OK;
}
