/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file vec.h
 * The vector type of AVX-512 (F, BW, DQ, VL): 16 floats. Every ISA's vec.h has these names, so that the bodies of
 * kernels/shared are written once. All functions are inline and, lane by lane, give the same bits on every ISA.
 *
 *   vf  a vector of VF_LEN floats      vm  a mask, one truth value a lane      vd  a vector of VF_LEN / 2 doubles
 *
 * vf_max(bound, x) and vf_min(bound, x): a NaN in the *second* operand is the result; what happens to one in the first
 * differs between ISAs. Put the constant first and the data second, and NaN stays NaN.
 */
#ifndef LAMINA_AVX512_VEC_H
#define LAMINA_AVX512_VEC_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define VF_LEN 16
#define VF_REGISTERS 32

typedef __m512 vf;
typedef __mmask16 vm;
typedef __m512d vd;

/* The first n lanes, 0 <= n <= VF_LEN. */
static inline vm vm_first(int n) { return (vm)((1u << n) - 1u); }
static inline vm vm_and(vm a, vm b) { return a & b; }
static inline vm vm_or(vm a, vm b) { return a | b; }
static inline vm vm_andnot(vm a, vm b) { return (vm)(~a & b); } /* b where a is not */
static inline int vm_any(vm a) { return a != 0; }

static inline vf vf_zero(void) { return _mm512_setzero_ps(); }
static inline vf vf_set1(float x) { return _mm512_set1_ps(x); }
static inline vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void vf_store(float *p, vf v) { _mm512_storeu_ps(p, v); }
/* A store to a whole vector's boundary past the caches, and what makes such stores visible to other threads. */
static inline void vf_stream(float *p, vf v) { _mm512_stream_ps(p, v); }
static inline void vf_stream_end(void) { _mm_sfence(); }
/* n <= VF_LEN lanes, the others zero; memory beyond them is not touched, and for n = 0 none is. */
static inline vf vf_load_n(const float *p, int n) { return _mm512_maskz_loadu_ps(vm_first(n), p); }
static inline void vf_store_n(float *p, vf v, int n) { _mm512_mask_storeu_ps(p, vm_first(n), v); }

static inline vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
static inline vf vf_sqrt(vf a) { return _mm512_sqrt_ps(a); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }   /* a * b + c, rounded once */
static inline vf vf_fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); } /* c - a * b, rounded once */
static inline vf vf_max(vf bound, vf x) { return _mm512_max_ps(bound, x); }
static inline vf vf_min(vf bound, vf x) { return _mm512_min_ps(bound, x); }
static inline vf vf_abs(vf a) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), a); }
/* The magnitude of the first, the sign bit of the second. */
static inline vf vf_copysign(vf a, vf sign) {
  vf bit = _mm512_set1_ps(-0.0f);
  return _mm512_or_ps(_mm512_andnot_ps(bit, a), _mm512_and_ps(bit, sign));
}

/* Comparisons with a NaN are false. */
static inline vm vf_lt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
static inline vm vf_le(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
static inline vm vf_eq(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
static inline vm vf_isnan(vf a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q); }
static inline vf vf_select(vm m, vf yes, vf no) { return _mm512_mask_blend_ps(m, no, yes); }
static inline vf vf_keep(vm m, vf a) { return _mm512_maskz_mov_ps(m, a); } /* a where m, zero elsewhere */
/* The larger one; NaN if either is. */
static inline vf vf_larger(vf a, vf b) { return _mm512_mask_max_ps(a, _mm512_cmp_ps_mask(a, a, _CMP_ORD_Q), a, b); }

/* VF_LEN bytes: the lanes whose byte is `number`; and integral lanes of 0 .. 255 as bytes. */
static inline vm vb_is(const uint8_t *p, int number) {
  return _mm_cmpeq_epi8_mask(_mm_loadu_si128((const __m128i *)(const void *)p), _mm_set1_epi8((char)number));
}
static inline void vb_store(uint8_t *p, vf v) {
  _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v)));
}

/* The nearest integer, ties to even. */
static inline vf vf_round(vf a) { return _mm512_roundscale_ps(a, 8); }
/* a * 2^n, rounded once, for integral n of magnitude <= 250. */
static inline vf vf_scale2(vf a, vf n) { return _mm512_scalef_ps(a, n); }

/* Lanes i and i + 8, then 4, 2 and 1 apart. */
static inline float vf_sum(vf v) {
  __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  b = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

/* The largest lane; lanes that are NaN may be lost. */
static inline float vf_largest(vf v) {
  __m256 a = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  b = _mm_max_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}

static inline vd vd_zero(void) { return _mm512_setzero_pd(); }
static inline vd vd_low(vf v) { return _mm512_cvtps_pd(_mm512_castps512_ps256(v)); }
static inline vd vd_high(vf v) { return _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1)); }
static inline vd vd_add(vd a, vd b) { return _mm512_add_pd(a, b); }
static inline vd vd_fma(vd a, vd b, vd c) { return _mm512_fmadd_pd(a, b, c); }
static inline double vd_sum(vd v) {
  __m256d a = _mm256_add_pd(_mm512_castpd512_pd256(v), _mm512_extractf64x4_pd(v, 1));
  __m128d b = _mm_add_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd(a, 1));
  return _mm_cvtsd_f64(_mm_add_sd(b, _mm_unpackhi_pd(b, b)));
}

/* Lane i is a's lane lanes[i]. */
static inline vf vf_pick(vf a, const int32_t *lanes) {
  return _mm512_permutexvar_ps(_mm512_loadu_si512(lanes), a);
}

/* p[0 .. n) again and again, for n = 1, 2, 4 or 8; nothing else is read. */
static inline vf vf_repeat(const float *p, int n) {
  if (n == 1) return _mm512_set1_ps(*p);
  if (n == 2) { /* a load that repeats: of a vector the compiler would load first and then shuffle */
    double two;
    memcpy(&two, p, sizeof two);
    return _mm512_castpd_ps(_mm512_set1_pd(two));
  }
  return n == 4 ? _mm512_broadcast_f32x4(_mm_loadu_ps(p)) : _mm512_broadcast_f32x8(_mm256_loadu_ps(p));
}

/* The same value, which the compiler holds to be new: it stays in its register instead of being loaded for each use. */
static inline vf vf_pin(vf a) {
  __asm__("" : "+v"(a));
  return a;
}

/* Any address may be prefetched. Always inline: gcc deletes calls of a function that does nothing else. */
static inline __attribute__((always_inline)) void vf_prefetch_l1(const void *p) {
  _mm_prefetch((const char *)p, _MM_HINT_T0);
}
static inline __attribute__((always_inline)) void vf_prefetch_l2(const void *p) {
  _mm_prefetch((const char *)p, _MM_HINT_T1);
}

#endif
