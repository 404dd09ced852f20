/* SPDX-License-Identifier: Apache-2.0 */
/* The reader of safetensors files. */
#include "io/safetensors.h"

#include "io/file.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HEADER_LIMIT = 100 * 1000 * 1000, NAME_SHOWN = 100 };

struct lamina_safetensors {
  const lamina_context *context;
  char *path;
  unsigned char *owned; /* header and data of a file that was read here */
  json_t *header;       /* holds the names and the metadata */
  lamina_stored_tensor *tensors;
  size_t count;
};

static const struct {
  const char *name;
  size_t bytes;
  lamina_element element;
} element_types[] = {
    {"F32", 4, LAMINA_ELEMENT_F32},   {"F16", 2, LAMINA_ELEMENT_F16},       {"BF16", 2, LAMINA_ELEMENT_BF16},
    {"F64", 8, LAMINA_ELEMENT_F64},   {"I32", 4, LAMINA_ELEMENT_I32},       {"I64", 8, LAMINA_ELEMENT_I64},
    {"U8", 1, LAMINA_ELEMENT_U8},     {"BOOL", 1, LAMINA_ELEMENT_OTHER},    {"I8", 1, LAMINA_ELEMENT_OTHER},
    {"I16", 2, LAMINA_ELEMENT_OTHER}, {"U16", 2, LAMINA_ELEMENT_OTHER},     {"U32", 4, LAMINA_ELEMENT_OTHER},
    {"U64", 8, LAMINA_ELEMENT_OTHER}, {"F8_E4M3", 1, LAMINA_ELEMENT_OTHER}, {"F8_E5M2", 1, LAMINA_ELEMENT_OTHER},
};

static lamina_status fail_tensor(const lamina_safetensors *file, const char *name, const char *what) {
  return lamina_fail(file->context, LAMINA_BAD_FILE, "%s: tensor '%.*s': %s", file->path, NAME_SHOWN, name, what);
}

static lamina_status fail_file(const lamina_safetensors *file, const char *what) {
  return lamina_fail(file->context, LAMINA_BAD_FILE, "%s: not a valid safetensors file: %s", file->path, what);
}

/* Reads dtype and shape and computes how many bytes they stand for. */
static lamina_status read_shape(const lamina_safetensors *file, const json_t *dtype, const json_t *shape,
                                lamina_stored_tensor *tensor) {
  if (!json_is_string(dtype)) return fail_tensor(file, tensor->name, "has no dtype");
  size_t type = 0, types = sizeof element_types / sizeof *element_types;
  while (type < types && strcmp(element_types[type].name, json_string_value(dtype))) type++;
  if (type == types)
    return lamina_fail(file->context, LAMINA_BAD_FILE, "%s: tensor '%.*s': unknown dtype '%.40s'", file->path,
                       NAME_SHOWN, tensor->name, json_string_value(dtype));
  if (!json_is_array(shape)) return fail_tensor(file, tensor->name, "has no shape");
  if (json_array_size(shape) > LAMINA_MAX_RANK)
    return lamina_fail(file->context, LAMINA_BAD_FILE, "%s: tensor '%.*s': has %zu dimensions; at most %d are read",
                       file->path, NAME_SHOWN, tensor->name, json_array_size(shape), LAMINA_MAX_RANK);
  tensor->dtype = element_types[type].name;
  tensor->element = element_types[type].element;
  tensor->rank = (int)json_array_size(shape);
  for (int i = 0; i < tensor->rank; i++) {
    const json_t *dim = json_array_get(shape, (size_t)i);
    if (!json_is_integer(dim) || json_integer_value(dim) < 0)
      return fail_tensor(file, tensor->name, "a dimension is not a whole number of at least 0");
    tensor->dim[i] = json_integer_value(dim);
  }
  if (!lamina_checked_count(tensor->rank, tensor->dim, &tensor->count) ||
      !lamina_multiply(tensor->count, element_types[type].bytes, &tensor->bytes))
    return fail_tensor(file, tensor->name, "the shape overflows");
  return LAMINA_OK;
}

static lamina_status read_tensor(const lamina_safetensors *file, const char *name, const json_t *entry,
                                 size_t data_bytes, lamina_stored_tensor *tensor) {
  tensor->name = name;
  if (!*name) return fail_file(file, "a tensor has an empty name");
  for (const char *c = name; *c; c++)
    if ((unsigned char)*c < ' ' || *c == 127) return fail_file(file, "a tensor's name holds a control character");
  if (!json_is_object(entry)) return fail_tensor(file, name, "its description is not an object");
  const json_t *offsets = json_object_get(entry, "data_offsets");
  if (json_object_size(entry) != 3 || !offsets)
    return fail_tensor(file, name, "its description must have exactly dtype, shape and data_offsets");
  lamina_status status = read_shape(file, json_object_get(entry, "dtype"), json_object_get(entry, "shape"), tensor);
  if (status != LAMINA_OK) return status;
  const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
  if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end))
    return fail_tensor(file, name, "data_offsets is not a pair of whole numbers");
  json_int_t from = json_integer_value(begin), to = json_integer_value(end);
  if (from < 0 || to < from || (uint64_t)to > data_bytes)
    return lamina_fail(file->context, LAMINA_BAD_FILE,
                       "%s: tensor '%.*s': offsets %" PRId64 " to %" PRId64 " are outside of the file's %zu data bytes",
                       file->path, NAME_SHOWN, name, (int64_t)from, (int64_t)to, data_bytes);
  if ((size_t)(to - from) != tensor->bytes)
    return lamina_fail(file->context, LAMINA_BAD_FILE,
                       "%s: tensor '%.*s': the offsets span %" PRId64 " bytes, but its shape needs %zu", file->path,
                       NAME_SHOWN, name, (int64_t)(to - from), tensor->bytes);
  tensor->offset = (size_t)from;
  return LAMINA_OK;
}

static int by_offset(const void *a, const void *b) {
  const lamina_stored_tensor *x = a, *y = b;
  if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
  if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1; /* empty tensors before the one that begins there */
  return strcmp(x->name, y->name);
}

/* The tensors must cover the data exactly: no gap, no overlap, nothing left over. */
static lamina_status check_cover(const lamina_safetensors *file, size_t data_bytes) {
  size_t end = 0;
  for (size_t i = 0; i < file->count; i++) {
    const lamina_stored_tensor *tensor = file->tensors + i;
    if (tensor->offset < end)
      return lamina_fail(file->context, LAMINA_BAD_FILE, "%s: tensors '%.*s' and '%.*s' overlap", file->path,
                         NAME_SHOWN, tensor[-1].name, NAME_SHOWN, tensor->name);
    if (tensor->offset > end) return fail_tensor(file, tensor->name, "there is a gap before its data");
    end += tensor->bytes;
  }
  if (end != data_bytes)
    return lamina_fail(file->context, LAMINA_BAD_FILE, "%s: %zu bytes after the last tensor belong to none", file->path,
                       data_bytes - end);
  return LAMINA_OK;
}

static lamina_status check_metadata(const lamina_safetensors *file, json_t *metadata) {
  if (!json_is_object(metadata)) return fail_file(file, "__metadata__ is not an object");
  const char *key;
  json_t *value;
  json_object_foreach(metadata, key, value) {
    if (!json_is_string(value)) return fail_file(file, "a value of __metadata__ is not a string");
  }
  return LAMINA_OK;
}

static lamina_status read_header(lamina_safetensors *file, const char *text, size_t bytes, size_t data_bytes) {
  if (bytes == 0 || text[0] != '{') return fail_file(file, "the header does not begin with '{'");
  json_error_t error;
  file->header = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
  if (!file->header)
    return lamina_fail(file->context, LAMINA_BAD_FILE, "%s: the header is damaged at its byte %d: %s", file->path,
                       error.position, error.text);
  const size_t capacity = json_object_size(file->header);
  if (capacity) {
    file->tensors = lamina_alloc_zeroed(file->context, capacity * sizeof *file->tensors);
    if (!file->tensors) return lamina_fail_memory(file->context, capacity * sizeof *file->tensors);
  }
  const char *name;
  json_t *entry;
  json_object_foreach(file->header, name, entry) {
    lamina_status status = !strcmp(name, "__metadata__")
                               ? check_metadata(file, entry)
                               : read_tensor(file, name, entry, data_bytes, &file->tensors[file->count++]);
    if (status != LAMINA_OK) return status;
  }
  if (file->count) qsort(file->tensors, file->count, sizeof *file->tensors, by_offset);
  return check_cover(file, data_bytes);
}

/* Checks the first 8 bytes against the size of the file. */
static lamina_status header_length(const lamina_safetensors *file, const unsigned char *start, size_t bytes,
                                   size_t *length) {
  if (bytes < 8) return fail_file(file, "it has fewer than 8 bytes");
  uint64_t declared = lamina_little64(start);
  if (declared > HEADER_LIMIT)
    return lamina_fail(file->context, LAMINA_BAD_FILE,
                       "%s: not a valid safetensors file: a header of %" PRIu64 " bytes; at most %d are read",
                       file->path, declared, HEADER_LIMIT);
  if (declared > bytes - 8)
    return lamina_fail(file->context, LAMINA_BAD_FILE,
                       "%s: truncated: a header of %" PRIu64 " bytes in a file of %zu bytes", file->path, declared,
                       bytes);
  *length = (size_t)declared;
  return LAMINA_OK;
}

static lamina_status new_handle(const lamina_context *context, const char *path, lamina_safetensors **out) {
  lamina_safetensors *file = lamina_alloc_zeroed(context, sizeof *file);
  if (!file) return lamina_fail_memory(context, sizeof *file);
  file->context = context;
  file->path = lamina_copy_string(context, path);
  if (!file->path) {
    lamina_free(context, file);
    return lamina_fail_memory(context, strlen(path) + 1);
  }
  *out = file;
  return LAMINA_OK;
}

static void set_data(lamina_safetensors *file, const unsigned char *data) {
  for (size_t i = 0; i < file->count; i++) file->tensors[i].data = data + file->tensors[i].offset;
}

lamina_status lamina_safetensors_parse(const lamina_context *context, const char *path, const void *data, size_t bytes,
                                       lamina_safetensors **out) {
  lamina_safetensors *file = NULL;
  size_t header = 0;
  *out = NULL;
  lamina_status status = new_handle(context, path, &file);
  if (status != LAMINA_OK) return status;
  const unsigned char *start = data;
  status = header_length(file, start, bytes, &header);
  if (status == LAMINA_OK) status = read_header(file, (const char *)start + 8, header, bytes - 8 - header);
  if (status != LAMINA_OK) {
    lamina_safetensors_close(file);
    return status;
  }
  set_data(file, start + 8 + header);
  *out = file;
  return LAMINA_OK;
}

static lamina_status read_file(lamina_safetensors *file, int fd, size_t bytes, uint32_t flags) {
  unsigned char start[8];
  size_t header = 0;
  lamina_status status = lamina_file_fill(file->context, file->path, fd, start, bytes < 8 ? bytes : 8);
  if (status == LAMINA_OK) status = header_length(file, start, bytes, &header);
  if (status != LAMINA_OK) return status;
  const size_t data_bytes = bytes - 8 - header;
  unsigned char *text = lamina_alloc(file->context, header + 1);
  if (!text) return lamina_fail_memory(file->context, header + 1);
  status = lamina_file_fill(file->context, file->path, fd, text, header);
  if (status == LAMINA_OK) status = read_header(file, (char *)text, header, data_bytes);
  lamina_free(file->context, text);
  if (status != LAMINA_OK || flags & LAMINA_SAFETENSORS_HEADER_ONLY) return status;
  file->owned = lamina_alloc(file->context, data_bytes + 1);
  if (!file->owned) return lamina_fail_memory(file->context, data_bytes + 1);
  status = lamina_file_fill(file->context, file->path, fd, file->owned, data_bytes);
  if (status == LAMINA_OK) set_data(file, file->owned);
  return status;
}

lamina_status lamina_safetensors_open(const lamina_context *context, const char *path, uint32_t flags,
                                      lamina_safetensors **out) {
  lamina_safetensors *file = NULL;
  int fd = -1;
  size_t bytes = 0;
  *out = NULL;
  lamina_status status = lamina_file_open(context, path, &fd, &bytes);
  if (status != LAMINA_OK) return status;
  status = new_handle(context, path, &file);
  if (status == LAMINA_OK) {
    status = read_file(file, fd, bytes, flags);
    if (status != LAMINA_OK) lamina_safetensors_close(file);
  }
  close(fd);
  if (status == LAMINA_OK) *out = file;
  return status;
}

void lamina_safetensors_close(lamina_safetensors *file) {
  if (!file) return;
  json_decref(file->header);
  lamina_free(file->context, file->tensors);
  lamina_free(file->context, file->owned);
  lamina_free(file->context, file->path);
  lamina_free(file->context, file);
}

size_t lamina_safetensors_count(const lamina_safetensors *file) { return file->count; }

const lamina_stored_tensor *lamina_safetensors_at(const lamina_safetensors *file, size_t index) {
  return index < file->count ? file->tensors + index : NULL;
}

const lamina_stored_tensor *lamina_safetensors_find(const lamina_safetensors *file, const char *name) {
  for (size_t i = 0; i < file->count; i++)
    if (!strcmp(file->tensors[i].name, name)) return file->tensors + i;
  return NULL;
}

const char *lamina_safetensors_metadata(const lamina_safetensors *file, const char *key) {
  return json_string_value(json_object_get(json_object_get(file->header, "__metadata__"), key));
}
