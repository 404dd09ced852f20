/* SPDX-License-Identifier: Apache-2.0 */
/* Element types of files, converted to those of the library. */
#include "io/safetensors.h"

#include <math.h>
#include <string.h>

static float from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* IEEE 754 binary16, exact: every half is a float. */
static float from_half(uint16_t half) {
  const uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
  const uint32_t exponent = half >> 10 & 31u, fraction = half & 1023u;
  if (exponent == 31) return from_bits(sign | 0x7F800000u | fraction << 13);
  if (exponent) return from_bits(sign | (exponent + 112) << 23 | fraction << 13);
  float value = (float)fraction * 0x1p-24f; /* zero and the subnormals */
  return sign ? -value : value;
}

static double element_at(const lamina_stored_tensor *tensor, size_t i) {
  uint16_t half;
  int32_t i32;
  float f32;
  double f64;
  switch (tensor->element) {
  case LAMINA_ELEMENT_F32:
    memcpy(&f32, tensor->data + 4 * i, 4);
    return (double)f32;
  case LAMINA_ELEMENT_F16:
    memcpy(&half, tensor->data + 2 * i, 2);
    return (double)from_half(half);
  case LAMINA_ELEMENT_BF16:
    memcpy(&half, tensor->data + 2 * i, 2);
    return (double)from_bits((uint32_t)half << 16);
  case LAMINA_ELEMENT_F64:
    memcpy(&f64, tensor->data + 8 * i, 8);
    return f64;
  case LAMINA_ELEMENT_I32:
    memcpy(&i32, tensor->data + 4 * i, 4);
    return (double)i32;
  case LAMINA_ELEMENT_U8:
    return (double)tensor->data[i];
  case LAMINA_ELEMENT_I64:
  case LAMINA_ELEMENT_OTHER:
    break;
  }
  return (double)NAN;
}

bool lamina_stored_to_f32(const lamina_stored_tensor *tensor, float *out) {
  switch (tensor->element) {
  case LAMINA_ELEMENT_F32:
    if (tensor->bytes) memcpy(out, tensor->data, tensor->bytes);
    return true;
  case LAMINA_ELEMENT_F16:
  case LAMINA_ELEMENT_BF16:
  case LAMINA_ELEMENT_F64:
    for (size_t i = 0; i < tensor->count; i++) out[i] = (float)element_at(tensor, i);
    return true;
  default:
    return false;
  }
}

bool lamina_stored_to_i64(const lamina_stored_tensor *tensor, int64_t *out) {
  if (tensor->element == LAMINA_ELEMENT_OTHER) return false;
  if (tensor->element == LAMINA_ELEMENT_I64) {
    if (tensor->bytes) memcpy(out, tensor->data, tensor->bytes);
    return true;
  }
  for (size_t i = 0; i < tensor->count; i++) {
    double value = element_at(tensor, i);
    if (!(value >= -0x1p63 && value < 0x1p63) || value != trunc(value)) return false;
    out[i] = (int64_t)value;
  }
  return true;
}
