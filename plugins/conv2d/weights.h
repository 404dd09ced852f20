/* SPDX-License-Identifier: Apache-2.0 */
/* How the gradient of weight is cut into tasks: what backward_weights.c and weights_blocking.c share. */
#ifndef LAMINA_CONV2D_WEIGHTS_H
#define LAMINA_CONV2D_WEIGHTS_H

#include "conv2d.h"

typedef struct weights_job {
  const conv_shape *s;
  const lamina_gemm_kernels *gemm;
  conv_image x, dy;
  int64_t c0, c1, pixel; /* columns and pixel stride of the copy of x */
  int compact;           /* 1x1: the copy holds the needed pixels alone */
  int flat;              /* one row of pixels, which x and dy are read from in place */
  int64_t images_unit, rows_unit, row_units, units;
  int64_t channels; /* of a block */
  int64_t channel_blocks, panels, panel_blocks, splits;
  int64_t dy_panels; /* that are copied together */
  int64_t ld, partial_floats;            /* of one partial gradient */
  int64_t own_floats, pack_floats;       /* of a thread: its part when there is no other, and scratch to unpack with */
  int64_t pointers, x_floats, dy_floats; /* of a thread */
  float *partials;
  char *memory;
} weights_job;

/* The shape to make a job for, at a run: a 1x1 convolution whose pixels follow each other in memory is one image with rows
   of one pixel. */
conv_shape lamina_conv_weights_shape(const conv_shape *shape);
weights_job lamina_conv_weights_job(const conv_shape *shape);
/* Floats of all partial gradients together: 0 where each task has its own. */
int64_t lamina_conv_weights_partials(const weights_job *job);
/* Bytes of one thread's memory: pointers, copies of x and dy, scratch to unpack with, its own part. */
int64_t lamina_conv_weights_thread_bytes(const weights_job *job);

#endif
