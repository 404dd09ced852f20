/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Convolution tiles of 8 x 12, as those of the GEMM: 24 accumulators, 3 vectors of weights, and pixels multiplied by
 * lane.
 */
#include "neon.h"
#include "vec.h"

#define CONV_ROWS 8
#define CONV_VECTORS 3
#define CONV_WIDE_ROWS 0

static inline vf tile_fma(const float *a, vf b, vf c) { return vfmaq_n_f32(c, b, *a); }

#include "shared/conv_overlap.h"
#include "shared/conv_tiles.h"

const lamina_conv_kernels lamina_neon_conv = {.mr = CONV_ROWS,
                                              .nr = CONV_VECTORS * VF_LEN,
                                              .vector = VF_LEN,
                                              .wide_rows = CONV_WIDE_ROWS,
                                              .good_rows = 4,
                                              .short_tile = CONV_ROWS * CONV_VECTORS,
                                              .tile = conv_tiles,
                                              .overlap_add = conv_overlap_add};
