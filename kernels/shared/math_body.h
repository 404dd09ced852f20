/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file math_body.h
 * exp, sigmoid and tanh of a vector, on vec.h (which the ISA file includes first). About 15, 25 and 30 operations.
 *
 * Both start from x = n ln 2 + r with |r| <= ln(2)/2 (Cody and Waite 1980) and expm1(r) = r + r^2 q(r), where q is a
 * least-maximum polynomial of degree 5, fitted to a relative error of 3e-10 and rounded to fp32 (2e-9).
 */
#ifndef LAMINA_SHARED_MATH_BODY_H
#define LAMINA_SHARED_MATH_BODY_H

#include "vec_inline.h"

/* expm1(r) and n of x = n ln 2 + r; ln 2 is taken off in two parts, so that r keeps its digits. NaN stays NaN. */
VEC_INLINE vf expm1_reduced(vf x, vf *n) {
  *n = vf_round(vf_mul(x, vf_set1(0x1.715476p+0f)));
  vf r = vf_fnma(*n, vf_set1(0x1.62e43p-1f), x);
  r = vf_fnma(*n, vf_set1(-0x1.05c61p-29f), r);
  vf q = vf_fma(vf_set1(0x1.a1a218p-13f), r, vf_set1(0x1.6d7528p-10f));
  q = vf_fma(q, r, vf_set1(0x1.11109p-7f));
  q = vf_fma(q, r, vf_set1(0x1.5554aep-5f));
  q = vf_fma(q, r, vf_set1(0x1.555556p-3f));
  q = vf_fma(q, r, vf_set1(0.5f));
  return vf_fma(vf_mul(r, r), q, r);
}

/* exp(x) to 1 ulp, subnormal results included; 0 below -104, +inf above 88.73. */
VEC_INLINE vf vf_exp(vf x) {
  vf n;
  x = vf_min(vf_set1(89.0f), vf_max(vf_set1(-105.0f), x));
  vf p = expm1_reduced(x, &n);
  return vf_scale2(vf_add(vf_set1(1.0f), p), n);
}

/* 1 / (1 + exp(-x)) through e = exp(-|x|), which cannot overflow: 1 / (1 + e), or e / (1 + e) for a negative x. */
VEC_INLINE vf vf_sigmoid(vf x) {
  vf one = vf_set1(1.0f), e = vf_exp(vf_sub(vf_zero(), vf_abs(x)));
  return vf_div(vf_select(vf_lt(x, vf_zero()), e, one), vf_add(one, e));
}

/* m / (m + 2) with m = expm1(2 |x|), accurate for small x too; beyond |x| = 10 the result is 1. */
VEC_INLINE vf vf_tanh(vf x) {
  vf n, a = vf_min(vf_set1(10.0f), vf_abs(x)), one = vf_set1(1.0f);
  vf p = expm1_reduced(vf_add(a, a), &n), power = vf_scale2(one, n);
  vf m = vf_fma(power, p, vf_sub(power, one));
  return vf_copysign(vf_div(m, vf_add(m, vf_set1(2.0f))), x);
}

#endif
