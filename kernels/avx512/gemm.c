/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GEMM tiles of 14 x 32: 28 accumulators, 2 vectors of B and a broadcast element of A fill the 32 registers. A step in
 * depth is 28 FMAs for 16 loads, bound by the FMA units.
 */
#include "avx512.h"
#include "vec.h"

#define GEMM_ROWS 14
#define GEMM_VECTORS 2
#define GEMM_PAIRS 0
#define GEMM_HALF 1
#define GEMM_MASKS 1
#define GEMM_WIDE_ROWS 6
#define GEMM_SHORT 1
#define GEMM_THIN_ROWS 3

static inline vf tile_fma(const float *a, vf b, vf c) { return vf_fma(vf_set1(*a), b, c); }

typedef __m256 tile_half;
static inline tile_half tile_half_zero(void) { return _mm256_setzero_ps(); }
static inline tile_half tile_half_load(const float *p) { return _mm256_loadu_ps(p); }
static inline tile_half tile_half_fma(const float *a, tile_half b, tile_half c) {
  return _mm256_fmadd_ps(_mm256_set1_ps(*a), b,
                         c); /* not from the vector's: two such loads a cycle, but one of 64 bytes */
}
static inline vf tile_half_widen(tile_half v) { return _mm512_zextps256_ps512(v); }

#include "shared/gemm_tiles.h"

/* In registers: element j of r[i] and element i of r[j] change places. */
static inline __attribute__((always_inline)) void vectors_transpose(vf r[VF_LEN]) {
  vf s[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; i += 2) {
    s[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    s[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
  /* Each 128-bit lane l of r[4 g + c] becomes column 4 l + c of rows 4 g .. 4 g + 3. */
#pragma GCC unroll 16
  for (int i = 0; i < 16; i += 4) {
#pragma GCC unroll 16
    for (int c = 0; c < 2; c++) {
      const __m512d low = _mm512_castps_pd(s[i + c]), high = _mm512_castps_pd(s[i + 2 + c]);
      r[i + 2 * c] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
      r[i + 2 * c + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
    }
  }
  /* What is left is a 4 x 4 transposition of the lanes. */
#pragma GCC unroll 16
  for (int c = 0; c < 4; c++) {
    const vf a = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x44), b = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xee);
    const vf d = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x44), e = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xee);
    s[c] = _mm512_shuffle_f32x4(a, d, 0x88);
    s[4 + c] = _mm512_shuffle_f32x4(a, d, 0xdd);
    s[8 + c] = _mm512_shuffle_f32x4(b, e, 0x88);
    s[12 + c] = _mm512_shuffle_f32x4(b, e, 0xdd);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) r[i] = s[i];
}

#include "shared/gemm_pack.h"

const lamina_gemm_kernels lamina_avx512_gemm = {.mr = GEMM_ROWS,
                                                .nr = GEMM_VECTORS * VF_LEN,
                                                .tile = gemm_tiles,
                                                .stream_end = stream_end,
                                                .pack_b = pack_b,
                                                .stream_b = stream_b,
                                                .transpose = transpose,
                                                .shapes = sizeof gemm_shapes / sizeof *gemm_shapes,
                                                .shape = gemm_shapes};
