/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever the bytes are, a .npy file is either refused or becomes an array that can be read and saved. */
#include "fuzz.h"

#include <string.h>

static const struct {
  const char *dictionary;
  int major;
  size_t data;
} files[] = {{"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", 1, 24},
             {"{'descr': '<f8', 'fortran_order': False, 'shape': (4,), }\n", 2, 32},
             {"{'descr': '|u1', 'fortran_order': False, 'shape': (), }\n", 3, 1},
             {"{'descr': '<i8', 'fortran_order': False, 'shape': (1, 2, 1), }\n", 1, 16}};

const void *fuzz_seed(int index, size_t *bytes) {
  static uint8_t file[256];
  if (index >= (int)(sizeof files / sizeof *files)) return NULL;
  const size_t length = strlen(files[index].dictionary), start = files[index].major == 1 ? 10 : 12;
  memset(file, 0, sizeof file);
  memcpy(file, "\x93NUMPY", 6);
  file[6] = (uint8_t)files[index].major;
  file[8] = (uint8_t)length;
  memcpy(file + start, files[index].dictionary, length);
  *bytes = start + length + files[index].data;
  return file;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  lamina_context *context = fuzz_context();
  lamina_tensor tensor;
  char path[32];
  int fd = fuzz_file(data, bytes, path);
  if (lamina_array_load(context, path, &tensor) == LAMINA_OK) {
    size_t size = 0;
    unsigned char sum = 0;
    if (!lamina_tensor_bytes(&tensor, &size)) abort();
    for (size_t i = 0; i < size; i++) sum ^= ((unsigned char *)tensor.data)[i];
    (void)sum;
    lamina_array_release(context, &tensor);
  }
  close(fd);
  return 0;
}
