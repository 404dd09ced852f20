/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file vec.h
 * The vector type of AArch64's Advanced SIMD: 4 floats. Every ISA's vec.h has these names, so that the bodies of
 * kernels/shared are written once. All functions are inline and, lane by lane, give the same bits on every ISA.
 *
 *   vf  a vector of VF_LEN floats      vm  a mask, one truth value a lane      vd  a vector of VF_LEN / 2 doubles
 *
 * vf_max(bound, x) and vf_min(bound, x): a NaN in the *second* operand is the result; what happens to one in the first
 * differs between ISAs. Put the constant first and the data second, and NaN stays NaN.
 */
#ifndef LAMINA_NEON_VEC_H
#define LAMINA_NEON_VEC_H

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#define VF_LEN 4
#define VF_REGISTERS 32

typedef float32x4_t vf;
typedef uint32x4_t vm; /* all bits of a lane, or none */
typedef float64x2_t vd;

/* The first n lanes, 0 <= n <= VF_LEN. */
static inline vm vm_first(int n) {
  const int32x4_t lane = {0, 1, 2, 3};
  return vcltq_s32(lane, vdupq_n_s32(n));
}
static inline vm vm_and(vm a, vm b) { return vandq_u32(a, b); }
static inline vm vm_or(vm a, vm b) { return vorrq_u32(a, b); }
static inline vm vm_andnot(vm a, vm b) { return vbicq_u32(b, a); } /* b where a is not */
static inline int vm_any(vm a) { return vmaxvq_u32(a) != 0; }

static inline vf vf_zero(void) { return vdupq_n_f32(0.0f); }
static inline vf vf_set1(float x) { return vdupq_n_f32(x); }
static inline vf vf_load(const float *p) { return vld1q_f32(p); }
static inline void vf_store(float *p, vf v) { vst1q_f32(p, v); }
/* A store to a whole vector's boundary past the caches where there is one (not here), and what makes such stores visible to other threads. */
static inline void vf_stream(float *p, vf v) { vst1q_f32(p, v); }
static inline void vf_stream_end(void) {}
/* n <= VF_LEN lanes, the others zero; memory beyond them is not touched, and for n = 0 none is. */
static inline vf vf_load_n(const float *p, int n) {
  if (n >= 4) return vld1q_f32(p);
  if (n == 0) return vdupq_n_f32(0.0f);
  if (n == 1) return vld1q_lane_f32(p, vdupq_n_f32(0.0f), 0);
  vf low = vcombine_f32(vld1_f32(p), vdup_n_f32(0.0f));
  return n == 2 ? low : vld1q_lane_f32(p + 2, low, 2);
}
static inline void vf_store_n(float *p, vf v, int n) {
  if (n >= 4) {
    vst1q_f32(p, v);
    return;
  }
  if (n >= 2) vst1_f32(p, vget_low_f32(v));
  if (n == 1) vst1q_lane_f32(p, v, 0);
  if (n == 3) vst1q_lane_f32(p + 2, v, 2);
}

static inline vf vf_add(vf a, vf b) { return vaddq_f32(a, b); }
static inline vf vf_sub(vf a, vf b) { return vsubq_f32(a, b); }
static inline vf vf_mul(vf a, vf b) { return vmulq_f32(a, b); }
static inline vf vf_div(vf a, vf b) { return vdivq_f32(a, b); }
static inline vf vf_sqrt(vf a) { return vsqrtq_f32(a); }
static inline vf vf_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }  /* a * b + c, rounded once */
static inline vf vf_fnma(vf a, vf b, vf c) { return vfmsq_f32(c, a, b); } /* c - a * b, rounded once */
static inline vf vf_max(vf bound, vf x) { return vmaxq_f32(bound, x); }
static inline vf vf_min(vf bound, vf x) { return vminq_f32(bound, x); }
static inline vf vf_abs(vf a) { return vabsq_f32(a); }
/* The magnitude of the first, the sign bit of the second. */
static inline vf vf_copysign(vf a, vf sign) { return vbslq_f32(vdupq_n_u32(0x80000000u), sign, a); }

/* Comparisons with a NaN are false. */
static inline vm vf_lt(vf a, vf b) { return vcltq_f32(a, b); }
static inline vm vf_le(vf a, vf b) { return vcleq_f32(a, b); }
static inline vm vf_eq(vf a, vf b) { return vceqq_f32(a, b); }
static inline vm vf_isnan(vf a) { return vmvnq_u32(vceqq_f32(a, a)); }
static inline vf vf_select(vm m, vf yes, vf no) { return vbslq_f32(m, yes, no); }
/* a where m, zero elsewhere */
static inline vf vf_keep(vm m, vf a) { return vreinterpretq_f32_u32(vandq_u32(m, vreinterpretq_u32_f32(a))); }
/* The larger one; NaN if either is. */
static inline vf vf_larger(vf a, vf b) { return vmaxq_f32(a, b); }

/* VF_LEN bytes: the lanes whose byte is `number`; and integral lanes of 0 .. 255 as bytes. */
static inline vm vb_is(const uint8_t *p, int number) {
  uint32_t four;
  memcpy(&four, p, sizeof four);
  const uint16x8_t words = vmovl_u8(vcreate_u8(four));
  return vceqq_u32(vmovl_u16(vget_low_u16(words)), vdupq_n_u32((uint32_t)number));
}
static inline void vb_store(uint8_t *p, vf v) {
  const uint16x4_t words = vmovn_u32(vcvtnq_u32_f32(v));
  const uint32_t four = vget_lane_u32(vreinterpret_u32_u8(vmovn_u16(vcombine_u16(words, words))), 0);
  memcpy(p, &four, sizeof four);
}

/* The nearest integer, ties to even. */
static inline vf vf_round(vf a) { return vrndnq_f32(a); }
/* a * 2^n, rounded once, for integral n of magnitude <= 250: in two steps, of which the first is exact. */
static inline vf vf_scale2(vf a, vf n) {
  int32x4_t bits = vcvtnq_s32_f32(n), half = vshrq_n_s32(bits, 1), bias = vdupq_n_s32(127);
  int32x4_t rest = vsubq_s32(bits, half);
  vf first = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(half, bias), 23));
  vf second = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(rest, bias), 23));
  return vmulq_f32(vmulq_f32(a, first), second);
}

/* Lanes 2 apart, then 1 apart. */
static inline float vf_sum(vf v) {
  float32x2_t b = vadd_f32(vget_low_f32(v), vget_high_f32(v));
  return vget_lane_f32(b, 0) + vget_lane_f32(b, 1);
}

/* The largest lane; lanes that are NaN may be lost. */
static inline float vf_largest(vf v) { return vmaxnmvq_f32(v); }

static inline vd vd_zero(void) { return vdupq_n_f64(0.0); }
static inline vd vd_low(vf v) { return vcvt_f64_f32(vget_low_f32(v)); }
static inline vd vd_high(vf v) { return vcvt_high_f64_f32(v); }
static inline vd vd_add(vd a, vd b) { return vaddq_f64(a, b); }
static inline vd vd_fma(vd a, vd b, vd c) { return vfmaq_f64(c, a, b); }
static inline double vd_sum(vd v) { return vgetq_lane_f64(v, 0) + vgetq_lane_f64(v, 1); }

/* Lane i is a's lane lanes[i]. */
static inline vf vf_pick(vf a, const int32_t *lanes) {
  const uint32x4_t from = vmulq_n_u32(vreinterpretq_u32_s32(vld1q_s32(lanes)), 0x04040404u);
  const uint8x16_t bytes = vreinterpretq_u8_u32(vaddq_u32(from, vdupq_n_u32(0x03020100u)));
  return vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(a), bytes));
}

/* p[0 .. n) again and again, for n = 1 or 2; nothing else is read. */
static inline vf vf_repeat(const float *p, int n) {
  const float32x2_t two = n == 1 ? vld1_dup_f32(p) : vld1_f32(p);
  return vcombine_f32(two, two);
}

/* The same value, which the compiler holds to be new: it stays in its register instead of being loaded for each use. */
static inline vf vf_pin(vf a) {
  __asm__("" : "+w"(a));
  return a;
}

/* Any address may be prefetched. Always inline: gcc deletes calls of a function that does nothing else. */
static inline __attribute__((always_inline)) void vf_prefetch_l1(const void *p) { __builtin_prefetch(p, 0, 3); }
static inline __attribute__((always_inline)) void vf_prefetch_l2(const void *p) { __builtin_prefetch(p, 0, 2); }

#endif
