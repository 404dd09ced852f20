/* SPDX-License-Identifier: Apache-2.0 */
/* MNIST's file format: a magic number, big-endian sizes, then bytes; often compressed by gzip, which zlib reads
 * through. */
#include "io/dataset.h"
#include "io/file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

/* Deflate never expands by more than this factor, so a file's own size bounds what its header may promise. */
enum { GZIP_FACTOR = 1032, GZIP_MAGIC = 0x8B1F };
#define DATA_LIMIT ((uint64_t)4 << 30)

typedef struct {
  const lamina_context *context;
  const char *path;
  gzFile stream;
  size_t file_bytes;
  bool compressed;
} source;

static lamina_status open_source(source *s) {
  unsigned char magic[2] = {0, 0};
  int fd;
  lamina_status status = lamina_file_open(s->context, s->path, &fd, &s->file_bytes);
  if (status != LAMINA_OK) return status;
  if (s->file_bytes >= 2) status = lamina_file_fill(s->context, s->path, fd, magic, 2);
  if (status == LAMINA_OK && lseek(fd, 0, SEEK_SET) != 0)
    status = lamina_fail(s->context, LAMINA_IO_ERROR, "%s: %s", s->path, strerror(errno));
  if (status == LAMINA_OK && !(s->stream = gzdopen(fd, "rb"))) status = lamina_fail_memory(s->context, 1 << 13);
  if (status != LAMINA_OK) close(fd);
  s->compressed = lamina_little16(magic) == GZIP_MAGIC;
  return status;
}

/* What zlib says is wrong, without the name that it makes up for a file descriptor; "" when it says nothing. */
static const char *complaint(const source *s, int *error) {
  const char *message = gzerror(s->stream, error), *colon = strstr(message, ": ");
  if (*error == Z_OK || *error == Z_STREAM_END) return "";
  return colon ? colon + 2 : message;
}

/* Reads up to this many bytes; fewer only at the end of the file. */
static lamina_status read_up_to(source *s, unsigned char *out, size_t bytes, size_t *got) {
  for (*got = 0; *got < bytes;) {
    const size_t left = bytes - *got;
    const int n = gzread(s->stream, out + *got, left < 1u << 30 ? (unsigned)left : 1u << 30);
    int error;
    const char *message = complaint(s, &error);
    if (n < 0 && error == Z_ERRNO) return lamina_fail(s->context, LAMINA_IO_ERROR, "%s: %s", s->path, strerror(errno));
    if (n < 0 || *message)
      return lamina_fail(s->context, LAMINA_BAD_FILE, "%s: truncated or damaged: %s", s->path, message);
    if (n == 0) break;
    *got += (size_t)n;
  }
  return LAMINA_OK;
}

/* Reads all data into memory that has room for one byte more: asking for it tells that nothing follows, and makes zlib
   read and verify the checksum behind the data. */
static lamina_status read_data(source *s, unsigned char *out, size_t bytes) {
  size_t got;
  const lamina_status status = read_up_to(s, out, bytes + 1, &got);
  if (status != LAMINA_OK) return status;
  if (got > bytes) return lamina_fail(s->context, LAMINA_BAD_FILE, "%s: too long: bytes follow the data", s->path);
  if (got < bytes)
    return lamina_fail(s->context, LAMINA_BAD_FILE, "%s: truncated: its header promises %zu bytes of data, it has %zu",
                       s->path, bytes, got);
  return LAMINA_OK;
}

/* Checks the header and what it promises against the file's own size. */
static lamina_status read_header(source *s, int rank, int64_t *dim, size_t *bytes) {
  unsigned char header[16];
  const size_t header_bytes = 4 + 4 * (size_t)rank;
  size_t got;
  lamina_status status = read_up_to(s, header, header_bytes, &got);
  if (status != LAMINA_OK) return status;
  if (got < header_bytes) return lamina_fail(s->context, LAMINA_BAD_FILE, "%s: truncated within its header", s->path);
  const uint32_t magic = lamina_big32(header), expected = 0x800u | (uint32_t)rank;
  if (magic != expected)
    return lamina_fail(s->context, LAMINA_BAD_FILE, "%s: magic number %08" PRIx32 ", not %08" PRIx32 " (%s)", s->path,
                       magic, expected, rank == 1 ? "labels" : "images");
  for (int i = 0; i < rank; i++) {
    dim[i] = lamina_big32(header + 4 + 4 * i);
    if (dim[i] == 0) return lamina_fail(s->context, LAMINA_BAD_FILE, "%s: a size of 0 in its header", s->path);
  }
  if (!lamina_checked_count(rank, dim, bytes) || *bytes > DATA_LIMIT)
    return lamina_fail(s->context, LAMINA_BAD_FILE, "%s: its header promises more than 4 GiB of data", s->path);
  const size_t most = s->compressed ? s->file_bytes : s->file_bytes - header_bytes;
  if ((s->compressed ? *bytes / GZIP_FACTOR : *bytes) > most)
    return lamina_fail(s->context, LAMINA_BAD_FILE,
                       "%s: truncated: its header promises %zu bytes of data, it has %zu%s", s->path, *bytes, most,
                       s->compressed ? " compressed" : "");
  return LAMINA_OK;
}

lamina_status lamina_idx_file(const lamina_context *context, const char *path, int rank, int64_t *dim,
                              unsigned char **elements) {
  source s = {.context = context, .path = path};
  size_t bytes = 0;
  unsigned char *memory = NULL;
  lamina_status status = open_source(&s);
  if (status != LAMINA_OK) return status;
  status = read_header(&s, rank, dim, &bytes);
  if (status == LAMINA_OK && !(memory = lamina_alloc(context, bytes + 1)))
    status = lamina_fail_memory(context, bytes + 1);
  if (status == LAMINA_OK) status = read_data(&s, memory, bytes);
  gzclose_r(s.stream);
  if (status != LAMINA_OK) {
    lamina_free(context, memory);
    return status;
  }
  *elements = memory;
  return LAMINA_OK;
}

/* ---- a folder of four such files -------------------------------------------------------------------------------- */

static const char *const file_names[2][2] = {{"train-images", "train-labels"}, {"t10k-images", "t10k-labels"}};
static const char *const endings[2][4] = {{"-idx3-ubyte", "-idx3-ubyte.gz", ".idx3-ubyte", ".idx3-ubyte.gz"},
                                          {"-idx1-ubyte", "-idx1-ubyte.gz", ".idx1-ubyte", ".idx1-ubyte.gz"}};

/* The path of images (kind 0) or labels (1) of a split under the first of its names that exists; NULL with a message.
 */
static lamina_status find_file(const lamina_context *context, const char *folder, int split, int kind, char **path) {
  char name[64];
  for (int i = 0; i < 4; i++) {
    snprintf(name, sizeof name, "%s%s", file_names[split][kind], endings[kind][i]);
    *path = lamina_path_join(context, folder, name);
    if (!*path) return lamina_fail_memory(context, strlen(folder));
    if (access(*path, F_OK) == 0) return LAMINA_OK;
    lamina_free(context, *path);
  }
  *path = NULL;
  return lamina_fail(context, LAMINA_NOT_FOUND, "%s: has no %s%s, plain or .gz", folder, file_names[split][kind],
                     endings[kind][0]);
}

bool lamina_idx_is_here(const lamina_context *context, const char *folder) {
  for (int split = 0; split < 2; split++) {
    char *path;
    if (find_file(context, folder, split, 0, &path) != LAMINA_OK) continue;
    lamina_free(context, path);
    return true;
  }
  return false;
}

static lamina_status read_images(lamina_dataset *dataset, int split, const char *path) {
  const lamina_context *context = dataset->context;
  lamina_samples *samples = &dataset->split[split];
  int64_t dim[3];
  lamina_status status = lamina_idx_file(context, path, 3, dim, &samples->bytes);
  if (status != LAMINA_OK) return status;
  if (split && (dim[1] != dataset->height || dim[2] != dataset->width))
    return lamina_fail(context, LAMINA_SHAPE_MISMATCH,
                       "%s: images of %" PRId64 "x%" PRId64 ", but those to train on have %" PRId64 "x%" PRId64, path,
                       dim[1], dim[2], dataset->height, dataset->width);
  samples->count = dim[0];
  dataset->height = dim[1];
  dataset->width = dim[2];
  dataset->channels = 1;
  return LAMINA_OK;
}

static lamina_status read_labels(lamina_dataset *dataset, int split, const char *path) {
  const lamina_context *context = dataset->context;
  lamina_samples *samples = &dataset->split[split];
  unsigned char *bytes;
  int64_t count;
  lamina_status status = lamina_idx_file(context, path, 1, &count, &bytes);
  if (status != LAMINA_OK) return status;
  if (count != samples->count) {
    status = lamina_fail(context, LAMINA_BAD_FILE, "%s: %" PRId64 " labels for %" PRId64 " images", path, count,
                         samples->count);
  } else if (!(samples->labels = lamina_alloc(context, (size_t)count * sizeof *samples->labels))) {
    status = lamina_fail_memory(context, (size_t)count * sizeof *samples->labels);
  } else {
    for (int64_t i = 0; i < count; i++) samples->labels[i] = bytes[i];
  }
  lamina_free(context, bytes);
  return status;
}

lamina_status lamina_idx_read(lamina_dataset *dataset, const char *folder) {
  for (int split = 0; split < 2; split++)
    for (int kind = 0; kind < 2; kind++) {
      char *path;
      lamina_status status = find_file(dataset->context, folder, split, kind, &path);
      if (status == LAMINA_OK)
        status = kind == 0 ? read_images(dataset, split, path) : read_labels(dataset, split, path);
      lamina_free(dataset->context, path);
      if (status != LAMINA_OK) return status;
    }
  return LAMINA_OK;
}
