/* SPDX-License-Identifier: Apache-2.0 */
/* The .npy format: a magic number, a version, a Python dictionary of three keys, then the elements. */
#ifndef LAMINA_IO_NPY_H
#define LAMINA_IO_NPY_H

#include "core.h"

/* What a header says. */
typedef struct lamina_npy {
  lamina_dtype dtype; /* of the tensor that it becomes */
  bool is_f64;        /* f8: converted to f4 */
  size_t header;      /* bytes before the first element */
  size_t element;     /* bytes of one element in the file */
  int rank;
  int64_t dim[LAMINA_MAX_RANK];
} lamina_npy;

/* Reads a header from the first `bytes` of a file; `path` is for messages. */
lamina_status lamina_npy_header(const lamina_context *context, const char *path, const unsigned char *data,
                                size_t bytes, lamina_npy *npy);

#endif
