/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file pool_backward_body.h
 * The gradients of a run of pooling windows, on vec.h: window by window, of max a vector of channels at a time. Cost: for each
 * tap a load of x (max), a load of dx (unless it is overwritten) and a store.
 */
#ifndef LAMINA_SHARED_POOL_BACKWARD_BODY_H
#define LAMINA_SHARED_POOL_BACKWARD_BODY_H

#include "kernels.h"
#include "vec_inline.h"

VEC_INLINE vf pool_get(const float *p, int tail) { return tail ? vf_load_n(p, tail) : vf_load(p); }

VEC_INLINE void pool_put(float *p, vf value, int tail) {
  if (tail)
    vf_store_n(p, value, tail);
  else
    vf_store(p, value);
}

/* `open` are the channels whose tap has not been found yet. */
VEC_INLINE void pool_max_window(int overwrite, int64_t rows, int64_t columns, int tail, const lamina_pool_row *run,
                                int64_t w, int64_t c) {
  const float *x = run->x + w * run->x_at.window + c;
  float *dx = run->dx + w * run->dx_at.window + c;
  const vf best = pool_get(run->y + w * run->y_ld + c, tail), gradient = pool_get(run->dy + w * run->dy_ld + c, tail);
  vm open = vm_first(VF_LEN);
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j++) {
      float *to = dx + i * run->dx_at.row + j * run->dx_at.column;
      const vm hit = vm_and(open, vf_eq(pool_get(x + i * run->x_at.row + j * run->x_at.column, tail), best));
      const vf share = vf_keep(hit, gradient);
      pool_put(to, overwrite ? share : vf_add(pool_get(to, tail), share), tail);
      open = vm_andnot(hit, open);
    }
}

/* Tap by tap, all channels of each: pixels may be a multiple of 4 KiB apart, where a load would wait for the store to
   another tap. */
VEC_INLINE void pool_average_window(int overwrite, const lamina_pool_row *run, int64_t w) {
  const vf scale = vf_set1(run->scale);
  const float *dy = run->dy + w * run->dy_ld;
  const int tail = (int)(run->channels % VF_LEN);
  const int64_t whole = run->channels - tail;
  for (int64_t i = 0; i < run->rows; i++)
    for (int64_t j = 0; j < run->columns; j++) {
      float *dx = run->dx + w * run->dx_at.window + i * run->dx_at.row + j * run->dx_at.column;
      for (int64_t c = 0; c < whole; c += VF_LEN) {
        const vf gradient = vf_load(dy + c);
        vf_store(dx + c, overwrite ? vf_mul(scale, gradient) : vf_fma(scale, gradient, vf_load(dx + c)));
      }
      if (!tail) continue;
      const vf gradient = vf_load_n(dy + whole, tail);
      vf_store_n(dx + whole, overwrite ? vf_mul(scale, gradient) : vf_fma(scale, gradient, vf_load_n(dx + whole, tail)),
                 tail);
    }
}

VEC_INLINE void pool_max_all(int overwrite, int64_t rows, int64_t columns, const lamina_pool_row *run) {
  const int tail = (int)(run->channels % VF_LEN);
  for (int64_t w = 0; w < run->windows; w++) {
    int64_t c = 0;
    for (; c + VF_LEN <= run->channels; c += VF_LEN) pool_max_window(overwrite, rows, columns, 0, run, w, c);
    if (tail) pool_max_window(overwrite, rows, columns, tail, run, w, c);
  }
}

static void pool_max_backward(const lamina_pool_row *run) {
  const int64_t rows = run->rows, columns = run->columns;
  if (run->overwrite && rows == 2 && columns == 2)
    pool_max_all(1, 2, 2, run);
  else if (run->overwrite)
    pool_max_all(1, rows, columns, run);
  else if (rows == 3 && columns == 3)
    pool_max_all(0, 3, 3, run);
  else
    pool_max_all(0, rows, columns, run);
}

static void pool_average_backward(const lamina_pool_row *run) {
  for (int64_t w = 0; w < run->windows; w++)
    if (run->overwrite)
      pool_average_window(1, run, w);
    else
      pool_average_window(0, run, w);
}

#endif
