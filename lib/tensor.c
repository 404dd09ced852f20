/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "core.h"

size_t lamina_dtype_bytes(lamina_dtype dtype) {
  switch (dtype) {
  case LAMINA_F32:
  case LAMINA_I32: return 4;
  case LAMINA_I64: return 8;
  case LAMINA_U8: return 1;
  }
  return 0;
}

const char *lamina_dtype_name(lamina_dtype dtype) {
  switch (dtype) {
  case LAMINA_F32: return "f32";
  case LAMINA_I32: return "i32";
  case LAMINA_I64: return "i64";
  case LAMINA_U8: return "u8";
  }
  return "?";
}

void lamina_tensor_set_dense(lamina_tensor *tensor) {
  int64_t stride = 1;
  for (int i = tensor->rank - 1; i >= 0; i--) {
    tensor->stride[i] = stride;
    stride = (int64_t)((uint64_t)stride * (uint64_t)tensor->dim[i]); /* beside a size of 0 it may wrap, and is not used */
  }
}

bool lamina_tensor_is_dense(const lamina_tensor *tensor) {
  int64_t stride = 1;
  for (int i = tensor->rank - 1; i >= 0; i--) {
    if (tensor->dim[i] != 1 && tensor->stride[i] != stride) return false;
    stride = (int64_t)((uint64_t)stride * (uint64_t)tensor->dim[i]);
  }
  return true;
}

lamina_tensor lamina_tensor_of(void *data, lamina_dtype dtype, int rank, const int64_t *dim) {
  lamina_tensor tensor = {.data = data, .dtype = dtype, .rank = rank};
  for (int i = 0; i < rank && i < LAMINA_MAX_RANK; i++) tensor.dim[i] = dim[i];
  if (rank >= 0 && rank <= LAMINA_MAX_RANK && lamina_tensor_count(&tensor) >= 0) lamina_tensor_set_dense(&tensor);
  return tensor;
}

int64_t lamina_tensor_count(const lamina_tensor *tensor) {
  if (!tensor || tensor->rank < 0 || tensor->rank > LAMINA_MAX_RANK) return -1;
  int64_t count = 1;
  for (int i = 0; i < tensor->rank; i++)
    if (tensor->dim[i] < 0 || __builtin_mul_overflow(count, tensor->dim[i], &count)) return -1;
  return count;
}

bool lamina_tensor_bytes(const lamina_tensor *tensor, size_t *bytes) {
  int64_t count = lamina_tensor_count(tensor);
  return count >= 0 && lamina_multiply((size_t)count, lamina_dtype_bytes(tensor->dtype), bytes) && *bytes < SIZE_MAX / 4;
}

bool lamina_same_shape(const lamina_tensor *a, const lamina_tensor *b) {
  return a->rank == b->rank && (a->rank <= 0 || memcmp(a->dim, b->dim, (size_t)a->rank * sizeof a->dim[0]) == 0);
}

const char *lamina_shape_text(const lamina_tensor *tensor, char *buffer, size_t bytes) {
  size_t used = 0;
  buffer[0] = '\0';
  for (int i = 0; i < tensor->rank && used < bytes; i++)
    used += (size_t)snprintf(buffer + used, bytes - used, "%s%lld", i ? "x" : "", (long long)tensor->dim[i]);
  if (used < bytes)
    snprintf(buffer + used, bytes - used, "%s%s", tensor->rank > 0 ? " " : "scalar ", lamina_dtype_name(tensor->dtype));
  return buffer;
}
