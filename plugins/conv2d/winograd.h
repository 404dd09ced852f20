/* SPDX-License-Identifier: Apache-2.0 */
/* How the pixels of a correlation are cut into Winograd's tiles: what its passes share. */
#ifndef LAMINA_CONV2D_WINOGRAD_H
#define LAMINA_CONV2D_WINOGRAD_H

#include "conv2d.h"

enum { WINOGRAD_MAX_POINTS = 36, WINOGRAD_MAX_BLOCK = 128 /* tiles */ };

/* How outputs of an axis fall into tiles: whole ones first, then narrow ones; the last may hang over. */
typedef struct winograd_axis {
  int64_t count, tiles, whole, first; /* first: of the input of output 0 */
} winograd_axis;

typedef struct winograd_job {
  const correlation *c;
  const lamina_gemm_kernels *gemm;
  const lamina_winograd_form *form;
  winograd_axis h, w;
  int64_t tiles, block, blocks; /* of all images; of a task; how many */
  int64_t panels, panel_blocks;
  int64_t v_row, v_point, m_point;
  int64_t v_floats, m_floats, zeros;
  int64_t v_count; /* how many V are made before the tasks, one for each block; 0: each task makes its own */
  char *workspace;
} winograd_job;

typedef struct winograd_tile {
  int64_t n, h, w; /* image, and first output pixel */
  int narrow_h, narrow_w;
} winograd_tile;

typedef struct winograd_task {
  const winograd_job *job;
  int64_t group, count, narrow[2][2]; /* tiles; how many of each kind [narrow_h][narrow_w] */
  winograd_tile tiles[WINOGRAD_MAX_BLOCK];
  float *v, *m, *zeros;
} winograd_task;

/* An odd number of cache lines, so that what is this far apart does not share a set. */
static inline int64_t winograd_odd_lines(int64_t floats) { return round_up(floats, CONV_LINE) | CONV_LINE; }

/* Cuts the grid into tiles, and these into blocks of at most `most`, which keep V below `floats`. */
winograd_job lamina_conv_winograd_cut(const correlation *c, int64_t most, int64_t floats);
/*
 * The tiles of a block, by kind: (whole, narrow), (whole, whole), (narrow, whole), (narrow, narrow) in height and width. So
 * those that are whole in height are the first two kinds, those whole in width the middle ones.
 */
void lamina_conv_winograd_list(winograd_task *task, int64_t block);
/* Which of the task's tiles have a point: *row0 .. *row1. */
void lamina_conv_winograd_rows(const winograd_task *task, int point, int64_t *row0, int64_t *row1);
/* V of the task's tiles first .. end. */
void lamina_conv_winograd_input(const winograd_task *task, int64_t first, int64_t end);
/* Whether a tile's output (r, s) is one of the grid's. */
static inline int winograd_inside(const winograd_job *j, const winograd_tile *t, int r, int s) {
  const int outputs = j->form->outputs;
  return r < outputs - t->narrow_h && s < outputs - t->narrow_w && t->h + r < j->h.count && t->w + s < j->w.count;
}

#endif
