/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Convolution tiles of 6 x 16, as those of the GEMM, and of up to 2 x 32, where 2 x 16 would have too few accumulators to
 * keep the FMA units busy. (3 x 32 would take all registers; clang then moves some through memory.)
 */
#include "avx2.h"
#include "vec.h"

#define CONV_ROWS 6
#define CONV_VECTORS 2
#define CONV_WIDE_ROWS 2

static inline vf tile_fma(const float *a, vf b, vf c) { return vf_fma(vf_set1(*a), b, c); }

#include "shared/conv_overlap.h"
#include "shared/conv_tiles.h"

const lamina_conv_kernels lamina_avx2_conv = {.mr = CONV_ROWS,
                                              .nr = CONV_VECTORS * VF_LEN,
                                              .vector = VF_LEN,
                                              .wide_rows = CONV_WIDE_ROWS,
                                              .good_rows = 6,
                                              .short_tile = CONV_ROWS * CONV_VECTORS,
                                              .tile = conv_tiles,
                                              .overlap_add = conv_overlap_add};
