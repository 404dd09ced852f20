/* SPDX-License-Identifier: Apache-2.0 */
/* The safetensors format: 8 bytes of header length, a JSON header that describes each tensor by dtype, shape and a pair
   of offsets, then the data. Nothing of a file is believed before it is checked. */
#ifndef LAMINA_IO_SAFETENSORS_H
#define LAMINA_IO_SAFETENSORS_H

#include "core.h"

typedef enum lamina_element {
  LAMINA_ELEMENT_F32,
  LAMINA_ELEMENT_F16,
  LAMINA_ELEMENT_BF16,
  LAMINA_ELEMENT_F64,
  LAMINA_ELEMENT_I32,
  LAMINA_ELEMENT_I64,
  LAMINA_ELEMENT_U8,
  LAMINA_ELEMENT_OTHER /* a type of the format that is described but never converted */
} lamina_element;

/* One tensor of an open file. */
typedef struct lamina_stored_tensor {
  const char *name;
  const char *dtype; /* as the file spells it: "BF16" */
  lamina_element element;
  int rank;
  int64_t dim[LAMINA_MAX_RANK];
  size_t count, offset, bytes;
  const unsigned char *data; /* may be unaligned; NULL when only the header was read */
} lamina_stored_tensor;

typedef struct lamina_safetensors lamina_safetensors;

enum { LAMINA_SAFETENSORS_HEADER_ONLY = 1 << 0 };

/* Reads and checks a file. Damage is LAMINA_BAD_FILE with file and tensor. The context must outlive the handle. */
lamina_status lamina_safetensors_open(const lamina_context *context, const char *path, uint32_t flags,
                                      lamina_safetensors **file);
/* The same for bytes in memory, which must outlive the handle; `path` is only for messages. */
lamina_status lamina_safetensors_parse(const lamina_context *context, const char *path, const void *data, size_t bytes,
                                       lamina_safetensors **file);
void lamina_safetensors_close(lamina_safetensors *file);
/* Tensors in the order of their data. */
size_t lamina_safetensors_count(const lamina_safetensors *file);
const lamina_stored_tensor *lamina_safetensors_at(const lamina_safetensors *file, size_t index);
const lamina_stored_tensor *lamina_safetensors_find(const lamina_safetensors *file, const char *name);
/* The value of a metadata key, or NULL. */
const char *lamina_safetensors_metadata(const lamina_safetensors *file, const char *key);

/* Elements as floats, or as integers if every one has an exact integer value (false otherwise, and for other types). */
bool lamina_stored_to_f32(const lamina_stored_tensor *tensor, float *out);
bool lamina_stored_to_i64(const lamina_stored_tensor *tensor, int64_t *out);

typedef struct lamina_named_tensor {
  const char *name;
  lamina_tensor tensor; /* dense */
} lamina_named_tensor;

/* Writes a file atomically. Tensors of wide elements come first (so that all data is aligned), otherwise in the given
   order; the same input gives the same bytes. `metadata` is ended by a NULL key, or NULL. */
lamina_status lamina_safetensors_write(const lamina_context *context, const char *path,
                                       const lamina_named_tensor *tensors, size_t count,
                                       const lamina_metadata *metadata);

#endif
