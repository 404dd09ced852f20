/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file conv_overlap.h
 * Adds rows of products where they overlap in an image, on vec.h. A row's sums overlap those of the row before, whose
 * stores are still on their way: a load that meets them waits until they are done. So CONV_APART rows far from each
 * other take turns. Whole vectors are loaded and stored, the lanes past a run as they were.
 */
#ifndef LAMINA_SHARED_CONV_OVERLAP_H
#define LAMINA_SHARED_CONV_OVERLAP_H

#include "kernels.h"
#include "vec_inline.h"

enum { CONV_APART = 8 };

/* `vectors`: those of a run; 0 if the number is no constant. */
VEC_INLINE void conv_overlap_rows(int vectors, const lamina_conv_overlap *o) {
  const int64_t length = o->length, apart = (o->rows + CONV_APART - 1) / CONV_APART;
  const int64_t full = vectors ? vectors - 1 : (length - 1) / VF_LEN;
  const vm rest = vm_first((int)(length - full * VF_LEN));
  for (int64_t i = 0; i < apart; i++)
    for (int64_t t = 0; t < o->runs; t++) {
      float *first = o->to[t];
      if (!first) continue;
      for (int64_t row = i; row < o->rows; row += apart) {
        const float *from = o->from + row * o->from_row + t * length;
        float *to = first + row * o->to_row;
        for (int64_t v = 0; v < full; v++, to += VF_LEN, from += VF_LEN)
          vf_store(to, vf_add(vf_load(to), vf_load(from)));
        const vf old = vf_load(to);
        vf_store(to, vf_select(rest, vf_add(old, vf_load(from)), old));
      }
    }
}

static void conv_overlap_add(const lamina_conv_overlap *o) {
  if (o->length < 1) return;
  switch ((o->length + VF_LEN - 1) / VF_LEN) {
  case 1:
    conv_overlap_rows(1, o);
    break;
  case 2:
    conv_overlap_rows(2, o);
    break;
  case 3:
    conv_overlap_rows(3, o);
    break;
  default:
    conv_overlap_rows(0, o);
  }
}

#endif
