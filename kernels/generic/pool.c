/* SPDX-License-Identifier: Apache-2.0 */
/* A run of pooling windows, all channels: the specification of the pool group. */
#include "generic.h"

#include <math.h>

static int64_t tap(const lamina_pool_distance *at, int64_t w, int64_t i, int64_t j) {
  return w * at->window + i * at->row + j * at->column;
}

static void max(const lamina_pool_row *run) {
  for (int64_t w = 0; w < run->windows; w++)
    for (int64_t c = 0; c < run->channels; c++) {
      float best = -INFINITY;
      for (int64_t i = 0; i < run->rows; i++)
        for (int64_t j = 0; j < run->columns; j++) {
          float x = run->x[tap(&run->x_at, w, i, j) + c];
          if (x > best || isnan(x)) best = x; /* once NaN, no comparison replaces it */
        }
      run->y[w * run->y_ld + c] = best;
    }
}

static void max_backward(const lamina_pool_row *run) {
  for (int64_t w = 0; w < run->windows; w++)
    for (int64_t c = 0; c < run->channels; c++) {
      const float best = run->y[w * run->y_ld + c], gradient = run->dy[w * run->dy_ld + c];
      int open = 1;
      for (int64_t i = 0; i < run->rows; i++)
        for (int64_t j = 0; j < run->columns; j++) {
          float *dx = run->dx + tap(&run->dx_at, w, i, j) + c;
          int hit = open && run->x[tap(&run->x_at, w, i, j) + c] == best;
          float share = hit ? gradient : 0.0f;
          *dx = run->overwrite ? share : *dx + share;
          if (hit) open = 0;
        }
    }
}

/* Down the columns first, then their sums. */
static void average(const lamina_pool_row *run) {
  for (int64_t w = 0; w < run->windows; w++)
    for (int64_t c = 0; c < run->channels; c++) {
      float sum = 0.0f;
      for (int64_t j = 0; j < run->columns; j++) {
        float column = 0.0f;
        for (int64_t i = 0; i < run->rows; i++) column += run->x[tap(&run->x_at, w, i, j) + c];
        sum += column;
      }
      run->y[w * run->y_ld + c] = run->scale * sum;
    }
}

static void average_backward(const lamina_pool_row *run) {
  for (int64_t w = 0; w < run->windows; w++)
    for (int64_t i = 0; i < run->rows; i++)
      for (int64_t j = 0; j < run->columns; j++) {
        float *dx = run->dx + tap(&run->dx_at, w, i, j);
        for (int64_t c = 0; c < run->channels; c++) {
          float share = run->scale * run->dy[w * run->dy_ld + c];
          dx[c] = run->overwrite ? share : dx[c] + share;
        }
      }
}

static void max_winner(const lamina_pool_row *run) {
  for (int64_t w = 0; w < run->windows; w++)
    for (int64_t c = 0; c < run->channels; c++) {
      float best = run->x[tap(&run->x_at, w, 0, 0) + c];
      int winner = run->tap;
      for (int64_t i = 0; i < run->rows; i++)
        for (int64_t j = 0; j < run->columns; j++) {
          const float x = run->x[tap(&run->x_at, w, i, j) + c];
          if (!(x > best || isnan(x))) continue;
          best = x;
          winner = run->tap + (int)i * run->tap_row + (int)j;
        }
      run->y[w * run->y_ld + c] = best;
      run->winner[w * run->winner_ld + c] = (uint8_t)winner;
    }
}

static void max_gather(const lamina_pool_gather *row) {
  for (int64_t w = 0; w < row->columns; w++)
    for (int64_t c = 0; c < row->channels; c++) {
      float sum = row->accumulate ? row->dx[w * row->dx_ld + c] : 0.0f;
      for (int64_t i = 0; i < row->rows; i++)
        for (int64_t o = 0; o < row->windows; o++) {
          const int64_t j = w + row->padding - o * row->stride;
          if (j < 0 || j >= row->width) continue;
          if (row->winner[i * row->winner_row + o * row->winner_ld + c] == row->tap - i * row->tap_row + j)
            sum += row->dy[i * row->dy_row + o * row->dy_ld + c];
        }
      row->dx[w * row->dx_ld + c] = sum;
    }
}

const lamina_pool_kernels lamina_generic_pool = {
    .max = max,
    .max_backward = max_backward,
    .average = average,
    .average_backward = average_backward,
    .max_winner = max_winner,
    .max_gather = max_gather,
};
