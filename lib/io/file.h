/* SPDX-License-Identifier: Apache-2.0 */
/* Reading files: sizes are those of the file itself, checked before memory is asked for. */
#ifndef LAMINA_IO_FILE_H
#define LAMINA_IO_FILE_H

#include "core.h"

/* Opens a regular file for reading and tells its size. LAMINA_NOT_FOUND or LAMINA_IO_ERROR with path and reason. */
lamina_status lamina_file_open(const lamina_context *context, const char *path, int *fd, size_t *bytes);
/* Fills `buffer` from the descriptor's position; a file that ends early is LAMINA_BAD_FILE. */
lamina_status lamina_file_fill(const lamina_context *context, const char *path, int fd, void *buffer, size_t bytes);
/* Reads a whole file of at most `limit` bytes into memory for lamina_free, with a zero byte after its end. */
lamina_status lamina_file_read(const lamina_context *context, const char *path, size_t limit, char **data,
                               size_t *bytes);

/* Elements of a shape from a file; false if a dimension is negative or the product overflows, zeros left out of it:
   then strides cannot overflow either. */
bool lamina_checked_count(int rank, const int64_t *dim, size_t *count);

/* "FOLDER/NAME" to be freed with lamina_free; NULL without memory. */
char *lamina_path_join(const lamina_context *context, const char *folder, const char *name);

static inline uint16_t lamina_little16(const unsigned char *p) { return (uint16_t)(p[0] | p[1] << 8); }
static inline uint32_t lamina_little32(const unsigned char *p) {
  return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static inline uint64_t lamina_little64(const unsigned char *p) {
  return (uint64_t)lamina_little32(p) | (uint64_t)lamina_little32(p + 4) << 32;
}
static inline uint32_t lamina_big32(const unsigned char *p) {
  return (uint32_t)p[3] | (uint32_t)p[2] << 8 | (uint32_t)p[1] << 16 | (uint32_t)p[0] << 24;
}

/* Tensor data is little-endian in every format read here and is copied as it is. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "a big-endian port must swap the data of files");

#endif
