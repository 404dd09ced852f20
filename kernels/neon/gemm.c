/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GEMM tiles of 8 x 12: 24 accumulators and 3 vectors of B leave 5 of 32 registers for elements of A. An element is
 * loaded as a scalar and multiplied by lane, so that no instruction is spent on a broadcast. A step in depth is 24 FMAs
 * for 8 scalar and 3 vector loads.
 */
#include "neon.h"
#include "vec.h"

#define GEMM_ROWS 8
#define GEMM_VECTORS 3
#define GEMM_PAIRS 0
#define GEMM_HALF 0
#define GEMM_MASKS 0
#define GEMM_WIDE_ROWS 4
#define GEMM_SHORT 0
#define GEMM_THIN_ROWS 2

static inline vf tile_fma(const float *a, vf b, vf c) { return vfmaq_n_f32(c, b, *a); }

#include "shared/gemm_tiles.h"

/* In registers: element j of r[i] and element i of r[j] change places. */
static inline __attribute__((always_inline)) void vectors_transpose(vf r[VF_LEN]) {
  const float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(r[0], r[1]));
  const float64x2_t b = vreinterpretq_f64_f32(vtrn2q_f32(r[0], r[1]));
  const float64x2_t c = vreinterpretq_f64_f32(vtrn1q_f32(r[2], r[3]));
  const float64x2_t d = vreinterpretq_f64_f32(vtrn2q_f32(r[2], r[3]));
  r[0] = vreinterpretq_f32_f64(vtrn1q_f64(a, c));
  r[1] = vreinterpretq_f32_f64(vtrn1q_f64(b, d));
  r[2] = vreinterpretq_f32_f64(vtrn2q_f64(a, c));
  r[3] = vreinterpretq_f32_f64(vtrn2q_f64(b, d));
}

#include "shared/gemm_pack.h"

const lamina_gemm_kernels lamina_neon_gemm = {.mr = GEMM_ROWS,
                                                .nr = GEMM_VECTORS * VF_LEN,
                                                .tile = gemm_tiles,
                                                .stream_end = stream_end,
                                                .pack_b = pack_b,
                                                .stream_b = stream_b,
                                                .transpose = transpose,
                                                .shapes = sizeof gemm_shapes / sizeof *gemm_shapes,
                                                .shape = gemm_shapes};
