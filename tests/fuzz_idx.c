/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever the bytes are, plain or through gzip, an IDX file is either refused or all its elements can be read. */
#include "fuzz.h"
#include "io/dataset.h"

#include <string.h>
#include <zlib.h>

/* 0, 1: images and labels; 2, 3: the same, compressed. */
const void *fuzz_seed(int index, size_t *bytes) {
  static uint8_t file[256], packed[256];
  const size_t header = index % 2 ? 8 : 16;
  z_stream stream = {.next_in = file, .next_out = packed, .avail_out = sizeof packed};
  if (index > 3) return NULL;
  memset(file, 0, sizeof file);
  file[2] = 8;
  file[3] = index % 2 ? 1 : 3;
  file[7] = 5;
  file[11] = file[15] = 4;
  for (size_t i = header; i < sizeof file; i++) file[i] = (uint8_t)(i % 10);
  *bytes = index % 2 ? 13 : 16 + 5 * 16;
  if (index < 2) return file;
  stream.avail_in = (uInt)*bytes;
  if (deflateInit2(&stream, 9, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY) != Z_OK) abort();
  if (deflate(&stream, Z_FINISH) != Z_STREAM_END) abort();
  *bytes = sizeof packed - stream.avail_out;
  deflateEnd(&stream);
  return packed;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  lamina_context *context = fuzz_context();
  char path[32];
  int fd = fuzz_file(data, bytes, path);
  for (int rank = 1; rank <= 3; rank += 2) {
    int64_t dim[3] = {1, 1, 1};
    unsigned char *elements, sum = 0;
    if (lamina_idx_file(context, path, rank, dim, &elements) != LAMINA_OK) continue;
    for (int64_t i = 0; i < dim[0] * dim[1] * dim[2]; i++) sum ^= elements[i];
    (void)sum;
    lamina_free(context, elements);
  }
  close(fd);
  return 0;
}
