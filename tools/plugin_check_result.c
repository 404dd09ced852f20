/* SPDX-License-Identifier: Apache-2.0 */
/* What runs wrote, and how two of them differ. */
#include "plugin_check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void run_release(run_result *result) {
  for (int i = 0; i < result->count; i++) free(result->value[i].tensor.data);
  result->count = 0;
}

static size_t size_of(const lamina_tensor *t) { return t->dtype == LAMINA_I64 ? 8 : t->dtype == LAMINA_U8 ? 1 : 4; }

int64_t run_difference(const run_result *a, const run_result *b, int *at) {
  for (*at = 0; *at < a->count && *at < b->count; ++*at) {
    const char *p = a->value[*at].tensor.data, *q = b->value[*at].tensor.data;
    const size_t bytes = check_bytes(&a->value[*at].tensor);
    if (!memcmp(p, q, bytes)) continue;
    for (size_t i = 0; i < bytes; i++)
      if (p[i] != q[i]) return (int64_t)(i / size_of(&a->value[*at].tensor));
  }
  return -1;
}

double run_element(const run_result *r, int at, int64_t i) {
  const lamina_tensor *t = &r->value[at].tensor;
  switch (t->dtype) {
  case LAMINA_I64:
    return (double)((const int64_t *)t->data)[i];
  case LAMINA_I32:
    return ((const int32_t *)t->data)[i];
  case LAMINA_U8:
    return ((const uint8_t *)t->data)[i];
  default:
    return (double)((const float *)t->data)[i];
  }
}

int64_t run_distance(const run_result *a, const run_result *b, double tolerance, int *at) {
  for (*at = 0; *at < a->count && *at < b->count; ++*at) {
    const int64_t count = check_count(&a->value[*at].tensor);
    double scale = 0;
    for (int64_t i = 0; i < count; i++) scale = fmax(scale, fabs(run_element(b, *at, i)));
    for (int64_t i = 0; i < count; i++)
      if (!(fabs(run_element(a, *at, i) - run_element(b, *at, i)) <= tolerance * (scale + 1e-3))) return i;
  }
  return -1;
}
