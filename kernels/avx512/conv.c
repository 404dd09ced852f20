/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Convolution tiles of 14 x 32, as those of the GEMM, and of up to 6 x 64 for images of few columns: 24 accumulators, 4
 * vectors of weights and a broadcast pixel. Past 20 accumulators the physical registers do not suffice to begin the
 * next tile's sums before the stores of this one: up to 10 rows a tile's end costs 25 cycles, from 11 on 70 to 100 (Zen
 * 4).
 */
#include "avx512.h"
#include "vec.h"

#define CONV_ROWS 14
#define CONV_VECTORS 2
#define CONV_WIDE_ROWS 6

static inline vf tile_fma(const float *a, vf b, vf c) { return vf_fma(vf_set1(*a), b, c); }

#include "shared/conv_overlap.h"
#include "shared/conv_tiles.h"

const lamina_conv_kernels lamina_avx512_conv = {.mr = CONV_ROWS,
                                                .nr = CONV_VECTORS * VF_LEN,
                                                .vector = VF_LEN,
                                                .wide_rows = CONV_WIDE_ROWS,
                                                .good_rows = 5,
                                                .short_tile = 20,
                                                .tile = conv_tiles,
                                                .overlap_add = conv_overlap_add};
