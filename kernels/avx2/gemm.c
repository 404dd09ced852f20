/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GEMM tiles of 6 x 16: 12 accumulators, 2 vectors of B and a broadcast element of A out of 16 registers. A step in
 * depth is 12 FMAs for 8 loads, bound by the FMA units.
 */
#include "avx2.h"
#include "vec.h"

#define GEMM_ROWS 6
#define GEMM_VECTORS 2
#define GEMM_PAIRS 1
#define GEMM_HALF 0
#define GEMM_MASKS 1
#define GEMM_WIDE_ROWS 3
#define GEMM_SHORT 0
#define GEMM_THIN_ROWS 1

static inline vf tile_fma(const float *a, vf b, vf c) { return vf_fma(vf_set1(*a), b, c); }

/* In pieces: a masked store takes a dozen cycles on some processors, a branch that goes the same way in all rows none. */
static inline void tile_store_pieces(float *p, vf v, int n) {
  __m128 x = _mm256_castps256_ps128(v);
  if (n == VF_LEN) {
    vf_store(p, v);
    return;
  }
  if (n & 4) {
    _mm_storeu_ps(p, x);
    p += 4;
    x = _mm256_extractf128_ps(v, 1);
  }
  if (n & 2) {
    _mm_storel_pi((__m64 *)p, x);
    p += 2;
    x = _mm_movehl_ps(x, x);
  }
  if (n & 1) _mm_store_ss(p, x);
}
#define TILE_STORE_N tile_store_pieces

#include "shared/gemm_tiles.h"

/* In registers: element j of r[i] and element i of r[j] change places. */
static inline __attribute__((always_inline)) void vectors_transpose(vf r[VF_LEN]) {
  vf s[8];
#pragma GCC unroll 16
  for (int i = 0; i < 8; i += 4) {
    const vf a = _mm256_unpacklo_ps(r[i], r[i + 1]), b = _mm256_unpackhi_ps(r[i], r[i + 1]);
    const vf c = _mm256_unpacklo_ps(r[i + 2], r[i + 3]), d = _mm256_unpackhi_ps(r[i + 2], r[i + 3]);
    s[i] = _mm256_shuffle_ps(a, c, 0x44);
    s[i + 1] = _mm256_shuffle_ps(a, c, 0xee);
    s[i + 2] = _mm256_shuffle_ps(b, d, 0x44);
    s[i + 3] = _mm256_shuffle_ps(b, d, 0xee);
  }
#pragma GCC unroll 16
  for (int c = 0; c < 4; c++) {
    r[c] = _mm256_permute2f128_ps(s[c], s[4 + c], 0x20);
    r[4 + c] = _mm256_permute2f128_ps(s[c], s[4 + c], 0x31);
  }
}

#include "shared/gemm_pack.h"

const lamina_gemm_kernels lamina_avx2_gemm = {.mr = GEMM_ROWS,
                                                .nr = GEMM_VECTORS * VF_LEN,
                                                .tile = gemm_tiles,
                                                .stream_end = stream_end,
                                                .pack_b = pack_b,
                                                .stream_b = stream_b,
                                                .transpose = transpose,
                                                .shapes = sizeof gemm_shapes / sizeof *gemm_shapes,
                                                .shape = gemm_shapes};
