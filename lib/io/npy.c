/* SPDX-License-Identifier: Apache-2.0 */
/* Arrays in NumPy's file format. */
#include "io/npy.h"

#include "io/atomic_file.h"
#include "io/file.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define LIMIT ((size_t)1 << 40)

/* The bytes that the header's shape stands for must be exactly those that follow it. */
static lamina_status check_size(const lamina_context *context, const char *path, const lamina_npy *npy, size_t bytes,
                                size_t *count) {
  size_t needed;
  if (!lamina_checked_count(npy->rank, npy->dim, count) || !lamina_multiply(*count, npy->element, &needed))
    return lamina_fail(context, LAMINA_BAD_FILE, "%s: the shape overflows", path);
  if (needed != bytes - npy->header)
    return lamina_fail(context, LAMINA_BAD_FILE, "%s: %s: the shape needs %zu bytes of data, the file has %zu", path,
                       needed > bytes - npy->header ? "truncated" : "too long", needed, bytes - npy->header);
  return LAMINA_OK;
}

/* Moves the elements to the start of the memory that holds the file; f8 becomes f4 on the way. */
static void unpack(char *data, const lamina_npy *npy, size_t count) {
  if (!npy->is_f64) {
    memmove(data, data + npy->header, count * npy->element);
    return;
  }
  for (size_t i = 0; i < count; i++) {
    double wide;
    memcpy(&wide, data + npy->header + 8 * i, 8);
    float narrow = (float)wide;
    memcpy(data + 4 * i, &narrow, 4);
  }
}

lamina_status lamina_array_load(lamina_context *context, const char *path, lamina_tensor *tensor) {
  if (!context) return LAMINA_INVALID_ARGUMENT;
  if (!tensor) return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "lamina_array_load: no tensor was given");
  char *data;
  size_t bytes, count = 0;
  lamina_npy npy;
  lamina_status status = lamina_file_read(context, path, LIMIT, &data, &bytes);
  if (status != LAMINA_OK) return status;
  status = lamina_npy_header(context, path, (unsigned char *)data, bytes, &npy);
  if (status == LAMINA_OK) status = check_size(context, path, &npy, bytes, &count);
  if (status != LAMINA_OK) {
    lamina_free(context, data);
    return status;
  }
  unpack(data, &npy, count);
  *tensor = lamina_tensor_of(data, npy.dtype, npy.rank, npy.dim);
  return LAMINA_OK;
}

void lamina_array_release(lamina_context *context, lamina_tensor *tensor) {
  if (!context || !tensor) return;
  lamina_free(context, tensor->data);
  tensor->data = NULL;
}

/* The header, padded with spaces so that the data begins at a multiple of 64, as NumPy does. */
static size_t format_header(const lamina_tensor *tensor, char *text, size_t capacity) {
  const char *type = tensor->dtype == LAMINA_F32   ? "<f4"
                     : tensor->dtype == LAMINA_I32 ? "<i4"
                     : tensor->dtype == LAMINA_I64 ? "<i8"
                                                   : "|u1";
  int length =
      snprintf(text, capacity, "%cNUMPY%c%c  {'descr': '%s', 'fortran_order': False, 'shape': (", 0x93, 1, 0, type);
  size_t end = (size_t)length;
  for (int i = 0; i < tensor->rank; i++)
    end += (size_t)snprintf(text + end, capacity - end, i ? ", %" PRId64 : "%" PRId64, tensor->dim[i]);
  end += (size_t)snprintf(text + end, capacity - end, tensor->rank == 1 ? ",), }" : "), }");
  while (end % 64 != 63) text[end++] = ' ';
  text[end++] = '\n';
  text[8] = (char)((end - 10) & 255);
  text[9] = (char)((end - 10) >> 8);
  return end;
}

lamina_status lamina_array_save(lamina_context *context, const char *path, const lamina_tensor *tensor) {
  if (!context) return LAMINA_INVALID_ARGUMENT;
  char header[512]; /* 8 dimensions of 20 characters fit */
  size_t bytes;
  if (!tensor || tensor->rank < 0 || tensor->rank > LAMINA_MAX_RANK || !lamina_dtype_bytes(tensor->dtype) ||
      !lamina_tensor_bytes(tensor, &bytes) || (bytes && !tensor->data) || !lamina_tensor_is_dense(tensor))
    return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "%s: only a dense tensor can be saved",
                       path ? path : "(null)");
  lamina_atomic_file *file;
  lamina_status status = lamina_atomic_open(context, path, &file);
  if (status != LAMINA_OK) return status;
  status = lamina_atomic_write(file, header, format_header(tensor, header, sizeof header));
  if (status == LAMINA_OK) status = lamina_atomic_write(file, tensor->data, bytes);
  if (status == LAMINA_OK) return lamina_atomic_commit(file);
  lamina_atomic_abandon(file);
  return status;
}
