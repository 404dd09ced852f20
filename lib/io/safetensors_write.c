/* SPDX-License-Identifier: Apache-2.0 */
/* The writer of safetensors files. */
#include "io/atomic_file.h"
#include "io/file.h"
#include "io/safetensors.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char *format_name(lamina_dtype dtype) {
  switch (dtype) {
  case LAMINA_F32:
    return "F32";
  case LAMINA_I32:
    return "I32";
  case LAMINA_I64:
    return "I64";
  case LAMINA_U8:
    return "U8";
  }
  return NULL;
}

/* {"dtype": ..., "shape": [...], "data_offsets": [begin, end]}; NULL without memory. */
static json_t *describe(const lamina_tensor *tensor, size_t begin, size_t end) {
  json_t *shape = json_array();
  for (int i = 0; i < tensor->rank; i++)
    if (json_array_append_new(shape, json_integer(tensor->dim[i])) != 0) {
      json_decref(shape);
      return NULL;
    }
  return json_pack("{s:s, s:o, s:[I, I]}", "dtype", format_name(tensor->dtype), "shape", shape, "data_offsets",
                   (json_int_t)begin, (json_int_t)end);
}

/* Puts a new entry under a name that must be UTF-8 and not there yet. */
static lamina_status add_entry(const lamina_context *context, const char *path, json_t *object, const char *name,
                               json_t *value) {
  if (json_object_get(object, name)) {
    json_decref(value);
    return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "%s: '%.100s' would be written twice", path, name);
  }
  if (!value || json_object_set_new(object, name, value) != 0)
    return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "%s: '%.100s' cannot be written: not UTF-8, or out of memory",
                       path, name);
  return LAMINA_OK;
}

static lamina_status add_metadata(const lamina_context *context, const char *path, json_t *header,
                                  const lamina_metadata *metadata) {
  if (!metadata || !metadata->key) return LAMINA_OK;
  json_t *object = json_object();
  if (!object || json_object_set_new(header, "__metadata__", object) != 0) return lamina_fail_memory(context, 0);
  for (; metadata->key; metadata++) {
    if (!metadata->value)
      return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "%s: metadata '%.100s' has no value", path, metadata->key);
    lamina_status status = add_entry(context, path, object, metadata->key, json_string(metadata->value));
    if (status != LAMINA_OK) return status;
  }
  return LAMINA_OK;
}

/* Checks a tensor and adds its size to the end of the data. */
static lamina_status add_tensor(const lamina_context *context, const char *path, json_t *header,
                                const lamina_named_tensor *item, size_t *end) {
  size_t bytes, begin = *end;
  if (!format_name(item->tensor.dtype) || !lamina_tensor_is_dense(&item->tensor) ||
      !lamina_tensor_bytes(&item->tensor, &bytes) || !lamina_add(begin, bytes, end) || (bytes && !item->tensor.data))
    return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "%s: tensor '%.100s' cannot be written: it is not dense", path,
                       item->name);
  return add_entry(context, path, header, item->name, describe(&item->tensor, begin, *end));
}

static lamina_status write_header(lamina_atomic_file *file, const char *text) {
  static const char spaces[8] = "        ";
  const size_t length = strlen(text), padding = (8 - length % 8) % 8;
  unsigned char start[8];
  for (int i = 0; i < 8; i++) start[i] = (unsigned char)((uint64_t)(length + padding) >> 8 * i);
  lamina_status status = lamina_atomic_write(file, start, sizeof start);
  if (status == LAMINA_OK) status = lamina_atomic_write(file, text, length);
  return status == LAMINA_OK ? lamina_atomic_write(file, spaces, padding) : status;
}

static lamina_status write_file(const lamina_context *context, const char *path, const char *text,
                                const lamina_named_tensor *const *order, size_t count) {
  lamina_atomic_file *file;
  lamina_status status = lamina_atomic_open(context, path, &file);
  if (status != LAMINA_OK) return status;
  status = write_header(file, text);
  for (size_t i = 0; i < count && status == LAMINA_OK; i++) {
    size_t bytes = 0;
    lamina_tensor_bytes(&order[i]->tensor, &bytes);
    status = lamina_atomic_write(file, order[i]->tensor.data, bytes);
  }
  if (status == LAMINA_OK) return lamina_atomic_commit(file);
  lamina_atomic_abandon(file);
  return status;
}

lamina_status lamina_safetensors_write(const lamina_context *context, const char *path,
                                       const lamina_named_tensor *tensors, size_t count,
                                       const lamina_metadata *metadata) {
  size_t placed = 0, end = 0;
  char *text = NULL;
  json_t *header = json_object();
  const lamina_named_tensor **order = lamina_alloc(context, (count + 1) * sizeof *order);
  lamina_status status = header && order ? LAMINA_OK : lamina_fail_memory(context, (count + 1) * sizeof *order);
  if (status == LAMINA_OK) status = add_metadata(context, path, header, metadata);
  for (size_t width = 8; width && status == LAMINA_OK; width /= 2)
    for (size_t i = 0; i < count && status == LAMINA_OK; i++) {
      if (lamina_dtype_bytes(tensors[i].tensor.dtype) != width) continue;
      order[placed++] = tensors + i;
      status = add_tensor(context, path, header, tensors + i, &end);
    }
  if (status == LAMINA_OK && placed != count)
    status = lamina_fail(context, LAMINA_INVALID_ARGUMENT, "%s: a tensor of an unknown dtype cannot be written", path);
  if (status == LAMINA_OK) {
    text = json_dumps(header, JSON_COMPACT);
    status = text ? write_file(context, path, text, order, count) : lamina_fail_memory(context, end);
  }
  free(text);
  lamina_free(context, order);
  json_decref(header);
  return status;
}
