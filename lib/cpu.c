/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <stdint.h>

/* The register states that the operating system saves (XCR0), or 0 without XSAVE. */
static uint64_t saved_states(void) {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return 0;
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t)high << 32 | low;
}

bool lamina_cpu_has_avx2(void) {
  const uint64_t ymm = 0x6;
  unsigned a, b, c, d;
  if ((saved_states() & ymm) != ymm || !__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_FMA)) return false;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX2);
}

bool lamina_cpu_has_avx512(void) {
  const uint64_t zmm = 0xe6;
  const unsigned wanted = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
  unsigned a, b, c, d;
  if (!lamina_cpu_has_avx2() || (saved_states() & zmm) != zmm) return false;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & wanted) == wanted;
}

bool lamina_cpu_has_neon(void) { return false; }

#elif defined(__aarch64__)

bool lamina_cpu_has_avx2(void) { return false; }
bool lamina_cpu_has_avx512(void) { return false; }
bool lamina_cpu_has_neon(void) { return true; } /* part of the base architecture */

#else

bool lamina_cpu_has_avx2(void) { return false; }
bool lamina_cpu_has_avx512(void) { return false; }
bool lamina_cpu_has_neon(void) { return false; }

#endif
