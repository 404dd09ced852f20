/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever the bytes are, a safetensors file is either refused or every tensor can be read. */
#include "fuzz.h"
#include "io/safetensors.h"

#include <string.h>

static const char *const headers[] = {
    "{\"__metadata__\":{\"format\":\"pt\"},\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
    "\"n\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[24,32]}}",
    "{\"h\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"BF16\",\"shape\":[4],"
    "\"data_offsets\":[8,16]},\"d\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[16,24]},"
    "\"u\":{\"dtype\":\"U8\",\"shape\":[2,4],\"data_offsets\":[24,32]},\"e\":{\"dtype\":\"I32\",\"shape\":[0],"
    "\"data_offsets\":[32,32]}}"};

const void *fuzz_seed(int index, size_t *bytes) {
  enum { DATA = 32 };
  static uint8_t file[1024];
  if (index >= (int)(sizeof headers / sizeof *headers)) return NULL;
  const size_t length = strlen(headers[index]);
  for (int i = 0; i < 8; i++) file[i] = (uint8_t)((uint64_t)length >> 8 * i);
  memcpy(file + 8, headers[index], length);
  for (size_t i = 0; i < DATA; i++) file[8 + length + i] = (uint8_t)(i * 37);
  *bytes = 8 + length + DATA;
  return file;
}

static void read_tensor(const lamina_stored_tensor *tensor) {
  static volatile unsigned char sink;
  const size_t bytes = tensor->count * sizeof(int64_t);
  if (tensor->count > tensor->bytes) abort();
  for (size_t i = 0; i < tensor->bytes; i++) sink = tensor->data[i];
  (void)sink;
  void *values = malloc(bytes ? bytes : 1);
  if (!values) return;
  lamina_stored_to_f32(tensor, values);
  lamina_stored_to_i64(tensor, values);
  free(values);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  lamina_context *context = fuzz_context();
  lamina_safetensors *file;
  if (lamina_safetensors_parse(context, "input", data, bytes, &file) == LAMINA_OK) {
    for (size_t i = 0; i < lamina_safetensors_count(file); i++) {
      const lamina_stored_tensor *tensor = lamina_safetensors_at(file, i);
      if (lamina_safetensors_find(file, tensor->name) != tensor) abort();
      read_tensor(tensor);
    }
    lamina_safetensors_close(file);
  }
  return 0;
}
