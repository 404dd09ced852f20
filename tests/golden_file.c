/* SPDX-License-Identifier: Apache-2.0 */
/* Golden test: a safetensors file with its tensors as F32 or I64, and its metadata as attributes. */
#include "golden.h"
#include "io/safetensors.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct golden_file {
  lamina_safetensors *safetensors;
  size_t count;
  lamina_tensor *tensors; /* in the file's order */
};

static bool convert(const lamina_stored_tensor *stored, lamina_tensor *tensor) {
  const bool integer = stored->element == LAMINA_ELEMENT_I32 || stored->element == LAMINA_ELEMENT_I64 ||
                       stored->element == LAMINA_ELEMENT_U8;
  void *data = calloc(stored->count + 1, integer ? sizeof(int64_t) : sizeof(float));
  *tensor = lamina_tensor_of(data, integer ? LAMINA_I64 : LAMINA_F32, stored->rank, stored->dim);
  return data && (integer ? lamina_stored_to_i64(stored, data) : lamina_stored_to_f32(stored, data));
}

golden_file *golden_file_open(lamina_context *context, const char *path, char *error, size_t error_size) {
  golden_file *file = calloc(1, sizeof *file);
  if (!file) {
    snprintf(error, error_size, "out of memory");
    return NULL;
  }
  if (lamina_safetensors_open(context, path, 0, &file->safetensors) != LAMINA_OK) {
    snprintf(error, error_size, "%s", lamina_error_message(context));
    golden_file_close(file);
    return NULL;
  }
  file->count = lamina_safetensors_count(file->safetensors);
  file->tensors = calloc(file->count + 1, sizeof *file->tensors);
  for (size_t i = 0; i < file->count; i++) {
    const lamina_stored_tensor *stored = lamina_safetensors_at(file->safetensors, i);
    if (file->tensors && convert(stored, &file->tensors[i])) continue;
    snprintf(error, error_size, "%s: elements of type %s cannot be read", stored->name, stored->dtype);
    golden_file_close(file);
    return NULL;
  }
  return file;
}

void golden_file_close(golden_file *file) {
  if (!file) return;
  for (size_t i = 0; file->tensors && i < file->count; i++) free(file->tensors[i].data);
  free(file->tensors);
  lamina_safetensors_close(file->safetensors);
  free(file);
}

const char *golden_name(const golden_run *run, int index) {
  if ((size_t)index >= run->file->count) return NULL;
  return lamina_safetensors_at(run->file->safetensors, (size_t)index)->name;
}

bool golden_find(const golden_run *run, lamina_tensor *tensor, const char *format, ...) {
  char name[256];
  va_list args;
  va_start(args, format);
  vsnprintf(name, sizeof name, format, args);
  va_end(args);
  for (size_t i = 0; i < run->file->count; i++) {
    if (strcmp(lamina_safetensors_at(run->file->safetensors, i)->name, name) != 0) continue;
    *tensor = run->file->tensors[i];
    return true;
  }
  return false;
}

const char *golden_metadata(const golden_run *run, const char *key) {
  return lamina_safetensors_metadata(run->file->safetensors, key);
}

static bool is_none(const char *text) {
  return strcasecmp(text, "none") == 0 || strcasecmp(text, "null") == 0 || text[0] == '\0';
}

static bool is_true(const char *text) { return strcasecmp(text, "true") == 0 || strcmp(text, "1") == 0; }

double golden_number(const golden_run *run, const char *key, double absent) {
  const char *text = golden_metadata(run, key);
  if (!text) return absent;
  return is_none(text) ? NAN : strtod(text, NULL);
}

bool golden_flag(const golden_run *run, const char *key, bool absent) {
  const char *text = golden_metadata(run, key);
  return text ? is_true(text) : absent;
}

void golden_attribute_text(const char *value, char *text, size_t size) {
  size_t used = 0;
  if (is_none(value)) value = "none";
  if (strcasecmp(value, "true") == 0) value = "true";
  if (strcasecmp(value, "false") == 0) value = "false";
  for (; *value && used + 1 < size; value++) {
    if (strchr("()[]{} '\"", *value)) continue;
    if (*value == ',' && (value[1] == ')' || value[1] == ']')) continue;
    text[used++] = *value;
  }
  text[used] = '\0';
}
