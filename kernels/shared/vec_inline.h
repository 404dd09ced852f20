/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file vec_inline.h
 * VEC_INLINE marks the templates of the bodies: functions whose first arguments are constants at every call, so that
 * each call becomes a loop of its own.
 */
#ifndef LAMINA_SHARED_VEC_INLINE_H
#define LAMINA_SHARED_VEC_INLINE_H

#define VEC_INLINE static inline __attribute__((always_inline))

#endif
