/* SPDX-License-Identifier: Apache-2.0 */
/* The two loops of peak.cc for one vector type: included once for each ISA, inside a class, with
     VECTOR  the vector type      TARGET  the attribute that allows its instructions */

/* steps * kChains multiply-adds of vectors in registers; returns the seconds. */
TARGET static double multiply_add(int64_t steps) {
  VECTOR sum[kChains], a = {}, b = {};
#pragma GCC unroll 16
  for (int c = 0; c < kChains; c++) sum[c] = a + static_cast<float>(c); // equal chains would become one
  a += 0.999999f;
  b += 1e-6f;
  asm volatile("" : "+m"(a), "+m"(b));
  const double start = now();
  for (int64_t i = 0; i < steps; i++) {
#pragma GCC unroll 16
    for (int c = 0; c < kChains; c++) sum[c] = sum[c] * a + b;
  }
  const double seconds = now() - start;
  VECTOR total = sum[0];
#pragma GCC unroll 16
  for (int c = 1; c < kChains; c++) total += sum[c];
  keep(&total);
  return seconds;
}

/* Reads `count` floats (a multiple of 8 vectors, aligned to one); returns the seconds. */
TARGET static double read(const float *p, int64_t count) {
  constexpr int64_t lanes = sizeof(VECTOR) / sizeof(float);
  VECTOR sum[8] = {};
  const double start = now();
  for (int64_t i = 0; i < count; i += 8 * lanes) {
#pragma GCC unroll 8
    for (int64_t c = 0; c < 8; c++) sum[c] += *reinterpret_cast<const VECTOR *>(p + i + c * lanes);
  }
  const double seconds = now() - start;
  VECTOR total = sum[0];
#pragma GCC unroll 8
  for (int c = 1; c < 8; c++) total += sum[c];
  keep(&total);
  return seconds;
}

static constexpr int64_t kLanes = sizeof(VECTOR) / sizeof(float);

#undef VECTOR
#undef TARGET
