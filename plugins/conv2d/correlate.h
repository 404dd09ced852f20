/* SPDX-License-Identifier: Apache-2.0 */
/* How a correlation is cut into tasks and tiles: what correlate.c and correlate_blocking.c share. */
#ifndef LAMINA_CONV2D_CORRELATE_H
#define LAMINA_CONV2D_CORRELATE_H

#include "conv2d.h"

typedef struct correlate_job {
  const correlation *c;
  const lamina_conv_kernels *kernels;
  int64_t count_h, count_w; /* the largest grid of a phase */
  int may_copy;      /* where x is dense: what tasks are cut by, since strides are not known for certain at plan */
  int copy, compact; /* compact: a 1x1 kernel, a copy holds the pixels that are needed alone */
  int64_t c0, c1;    /* columns of x that the taps reach */
  int64_t first_row, span; /* rows that output row 0 reaches: the first, and how many */
  int64_t pixel;           /* stride of the copy */
  int64_t panels, images_block, rows_block, row_blocks, panel_blocks;
  int sweep;         /* all panels of the task for each tile */
  int64_t group;     /* otherwise: panels that are walked together */
  int64_t max_depth; /* of a chunk */
  int panel_vectors; /* vectors of a panel */
  int64_t run_bytes, thread_floats;
  char *workspace;
} correlate_job;

/* Step between the pixels, and the rows, of x that neighbouring outputs read. */
static inline int64_t correlate_stride(const correlation *c) { return c->backward ? 1 : c->shape->w.stride; }
static inline int64_t correlate_row_stride(const correlation *c) { return c->backward ? 1 : c->shape->h.stride; }

correlate_job lamina_conv_correlate_job(const correlation *c);
/* Bytes of one thread's memory: lists of runs, and a copy of x. */
int64_t lamina_conv_correlate_thread_bytes(const correlate_job *job);
/* Tiles of at most `limit` pixels that a row of `width` is spread over, for sums of `depth` products. */
int64_t lamina_conv_count_tiles(const correlate_job *job, int64_t width, int64_t limit, int64_t depth);
/* The most pixels of a tile in which no tap has a first and a last pixel to leave out. */
static inline int64_t correlate_one_sided(const correlate_job *job, int64_t stride) {
  return job->c->in_w / stride + 1;
}

enum { CORRELATE_LISTS = 3 /* of runs that a thread keeps */ };

/* Whether a phase is nothing but zeros, without taps and without anything to add or to clamp. */
int lamina_conv_phase_empty(const correlation *c, const conv_axis *h, const conv_axis *w);
/* Writes the zeros of all such phases: rows r0 .. r1 of each phase's grid, of images n0 .. n1, the region's channels. */
void lamina_conv_fill_empty(const correlation *c, const conv_region *region);

#endif
