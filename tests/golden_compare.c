/* SPDX-License-Identifier: Apache-2.0 */
/* Golden test: conversion between layouts and the comparison in the maximum norm. */
#include "golden.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool golden_fail(golden_run *run, const char *format, ...) {
  if (run->error[0]) return false;
  va_list args;
  va_start(args, format);
  vsnprintf(run->error, sizeof run->error, format, args);
  va_end(args);
  return false;
}

bool golden_check(golden_run *run, lamina_status status, const char *what) {
  if (status == LAMINA_OK) return true;
  return golden_fail(run, "%s: %s: %s", what, lamina_status_name(status), lamina_error_message(run->context));
}

double golden_element(const lamina_tensor *tensor, int64_t index) {
  const char *data = tensor->data;
  float f;
  int32_t i32;
  int64_t i64;
  switch (tensor->dtype) {
  case LAMINA_F32:
    memcpy(&f, data + index * 4, sizeof f);
    return f;
  case LAMINA_I32:
    memcpy(&i32, data + index * 4, sizeof i32);
    return i32;
  case LAMINA_I64:
    memcpy(&i64, data + index * 8, sizeof i64);
    return (double)i64;
  case LAMINA_U8:
    return ((const uint8_t *)data)[index];
  }
  return NAN;
}

static void store_element(lamina_tensor *tensor, int64_t index, double value) {
  switch (tensor->dtype) {
  case LAMINA_F32:
    ((float *)tensor->data)[index] = (float)value;
    break;
  case LAMINA_I32:
    ((int32_t *)tensor->data)[index] = (int32_t)value;
    break;
  case LAMINA_I64:
    ((int64_t *)tensor->data)[index] = (int64_t)value;
    break;
  case LAMINA_U8:
    ((uint8_t *)tensor->data)[index] = (uint8_t)value;
    break;
  }
}

bool golden_to_channels_last(golden_run *run, const lamina_tensor *source, bool keep_layout, lamina_tensor *copy) {
  const int64_t count = lamina_tensor_count(source);
  const lamina_dtype dtype = source->dtype == LAMINA_F32 ? LAMINA_F32 : LAMINA_I32;
  int64_t dim[LAMINA_MAX_RANK] = {0}, channels = 1, pixels = 1;
  const bool move = !keep_layout && source->rank >= 3;
  if (count < 0) return golden_fail(run, "a tensor's size overflows");
  for (int i = 0; i < source->rank; i++) dim[i] = source->dim[i];
  if (move) {
    channels = source->dim[1];
    for (int i = 2; i < source->rank; i++) {
      dim[i - 1] = source->dim[i];
      pixels *= source->dim[i];
    }
    dim[source->rank - 1] = channels;
  }
  void *data = malloc(count > 0 ? (size_t)count * 4 : 4);
  if (!data) return golden_fail(run, "out of memory");
  *copy = lamina_tensor_of(data, dtype, source->rank, dim);
  for (int64_t i = 0; i < count; i++) {
    int64_t to = i;
    if (move) {
      const int64_t sample = i / (channels * pixels), c = i / pixels % channels;
      to = (sample * pixels + i % pixels) * channels + c;
    }
    store_element(copy, to, golden_element(source, i));
  }
  return true;
}

static void shape_text(const lamina_tensor *tensor, char *text, size_t size) {
  size_t used = 0;
  text[0] = '\0';
  for (int i = 0; i < tensor->rank && used < size; i++)
    used += (size_t)snprintf(text + used, size - used, "%s%lld", i ? "x" : "", (long long)tensor->dim[i]);
}

static bool same_shape(const lamina_tensor *a, const lamina_tensor *b, bool any_shape) {
  if (any_shape) return lamina_tensor_count(a) == lamina_tensor_count(b);
  if (a->rank != b->rank) return false;
  for (int i = 0; i < a->rank; i++)
    if (a->dim[i] != b->dim[i]) return false;
  return true;
}

double golden_error(const lamina_tensor *got, const lamina_tensor *expected) {
  const int64_t count = lamina_tensor_count(expected);
  double largest = 0, difference = 0;
  for (int64_t i = 0; i < count; i++) {
    const double a = golden_element(got, i), b = golden_element(expected, i);
    if ((isnan(a) && isnan(b)) || (isinf(b) && a == b)) continue;
    const double d = fabs(a - b);
    if (!(d <= difference)) difference = isnan(d) ? INFINITY : d;
    if (fabs(b) > largest) largest = fabs(b);
  }
  return difference == 0 ? 0 : largest > 0 ? difference / largest : INFINITY;
}

bool golden_compare(golden_run *run, const char *name, const lamina_tensor *got, const lamina_tensor *expected,
                    bool any_shape, double bound) {
  if (!same_shape(got, expected, any_shape)) {
    char a[128], b[128];
    shape_text(got, a, sizeof a);
    shape_text(expected, b, sizeof b);
    return golden_fail(run, "%s: shape %s, expected %s", name, a, b);
  }
  const double error = golden_error(got, expected);
  run->compared++;
  if (run->worst_bound == 0 || error / bound > run->worst_error / run->worst_bound) {
    snprintf(run->worst, sizeof run->worst, "%s", name);
    run->worst_error = error;
    run->worst_bound = bound;
  }
  return true;
}

bool golden_load(golden_run *run, lamina_graph *graph, const char *from, const char *to) {
  const char *name;
  for (int i = 0; (name = golden_name(run, i)); i++) {
    char parameter_name[256];
    lamina_parameter parameter = {.size = sizeof parameter};
    lamina_tensor source;
    if (strncmp(name, from, strlen(from)) != 0) continue;
    snprintf(parameter_name, sizeof parameter_name, "%s%s", to, name + strlen(from));
    if (!golden_find(run, &source, "%s", name)) return golden_fail(run, "%s cannot be read", name);
    if (!golden_check(run, lamina_graph_parameter_find(graph, parameter_name, &parameter), name)) return false;
    const int64_t count = lamina_tensor_count(&source);
    if (lamina_tensor_count(&parameter.tensor) != count ||
        (source.rank > 1 && !same_shape(&parameter.tensor, &source, false))) {
      char a[128], b[128];
      shape_text(&parameter.tensor, a, sizeof a);
      shape_text(&source, b, sizeof b);
      return golden_fail(run, "%s: shape %s in the file, %s in the graph", name, b, a);
    }
    for (int64_t k = 0; k < count; k++) store_element(&parameter.tensor, k, golden_element(&source, k));
  }
  lamina_graph_parameters_changed(graph);
  return true;
}
