/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel_cases.h"

enum { MAX_TAPS = 12 };

/* A window: the taps in memory of their own, with one small set of values so that ties are common. */
typedef struct window {
  int taps;
  int64_t channels;
  matrix x[MAX_TAPS], dx[MAX_TAPS], old[MAX_TAPS], y, dy;
  const float *x_taps[MAX_TAPS];
  float *dx_taps[MAX_TAPS];
} window;

static void window_new(window *w, test_random *r, int taps, int64_t channels, guard_side side) {
  w->taps = taps;
  w->channels = channels;
  for (int t = 0; t < taps; t++) {
    w->x[t] = matrix_new(1, channels, 0, side);
    for (int64_t c = 0; c < channels; c++) w->x[t].data[c] = (float)test_random_below(r, 7) - 5.0f;
    w->dx[t] = matrix_random(r, 1, channels, 0, side, -1, 1);
    w->old[t] = matrix_copy(&w->dx[t], side);
    w->x_taps[t] = w->x[t].data;
    w->dx_taps[t] = w->dx[t].data;
  }
  w->y = matrix_new(1, channels, 0, side);
  w->dy = matrix_random(r, 1, channels, 0, side, -2, 2);
}

static void window_free(window *w) {
  for (int t = 0; t < w->taps; t++) {
    matrix_free(&w->x[t], "x");
    matrix_free(&w->dx[t], "dx");
    matrix_free(&w->old[t], "old");
  }
  matrix_free(&w->y, "y");
  matrix_free(&w->dy, "dy");
}

static void for_each_window(int table, const char *name, void (*check)(const lamina_kernels *, window *)) {
  static const int64_t channels[] = {1,  2,  3,  4,  5,  7,  8,  9,  15, 16,  17,  20,  31,
                                     32, 33, 47, 48, 63, 64, 65, 70, 96, 127, 128, 129, 200};
  test_random r = test_random_for(name);
  for (size_t i = 0; i < sizeof channels / sizeof channels[0]; i++)
    for (int taps = 1; taps <= MAX_TAPS; taps += taps < 4 ? 1 : 4)
      for (int side = 0; side < 2; side++) {
        window w;
        window_new(&w, &r, taps, channels[i], (guard_side)side);
        check(kernel_tables[table], &w);
        window_free(&w);
      }
}

static void check_max(const lamina_kernels *kernels, window *w) {
  const int64_t spoilt = w->channels / 2;
  w->x[w->taps / 2].data[spoilt] = NAN;
  kernels->pool->max(w->taps, w->x_taps, w->channels, w->y.data);
  for (int64_t c = 0; c < w->channels; c++) {
    double want = -INFINITY;
    for (int t = 0; t < w->taps; t++) want = fmax(want, (double)w->x[t].data[c]);
    if (c == spoilt) want = NAN;
    assert_close(w->y.data[c], want, 0, "max of %d taps, channel %lld", w->taps, (long long)c);
  }
}

static void check_max_backward(const lamina_kernels *kernels, window *w) {
  kernels->pool->max(w->taps, w->x_taps, w->channels, w->y.data);
  kernels->pool->max_backward(w->taps, w->x_taps, w->dx_taps, w->channels, w->y.data, w->dy.data);
  for (int64_t c = 0; c < w->channels; c++) {
    int first = 0;
    while (w->x[first].data[c] != w->y.data[c]) first++;
    for (int t = 0; t < w->taps; t++) {
      const float old = w->old[t].data[c];
      assert_close(w->dx[t].data[c], (double)(t == first ? old + w->dy.data[c] : old), 0,
                   "max_backward, tap %d of %d, channel %lld", t, w->taps, (long long)c);
    }
  }
}

static void check_average(const lamina_kernels *kernels, window *w) {
  const float scale = 1.0f / (float)w->taps;
  kernels->pool->average(w->taps, w->x_taps, scale, w->channels, w->y.data);
  for (int64_t c = 0; c < w->channels; c++) {
    double sum = 0;
    for (int t = 0; t < w->taps; t++) sum += (double)w->x[t].data[c];
    assert_close(w->y.data[c], sum * (double)scale, ROUNDING * fabs(sum), "average of %d taps, channel %lld", w->taps,
                 (long long)c);
  }
  kernels->pool->average_backward(w->taps, w->dx_taps, scale, w->channels, w->dy.data);
  for (int t = 0; t < w->taps; t++)
    for (int64_t c = 0; c < w->channels; c++) {
      const double want = (double)w->old[t].data[c] + (double)scale * (double)w->dy.data[c];
      assert_close(w->dx[t].data[c], want, 6 * ROUNDING, "average_backward, tap %d, channel %lld", t, (long long)c);
    }
}

START_TEST(max_of_every_window_with_nan_winning) { for_each_window(_i, "max", check_max); }
END_TEST

START_TEST(max_gradient_goes_to_the_first_of_equals) { for_each_window(_i, "max_backward", check_max_backward); }
END_TEST

START_TEST(average_and_its_gradient_of_every_window) { for_each_window(_i, "average", check_average); }
END_TEST

void add_pool_tests(TCase *tcase) {
  tcase_add_loop_test(tcase, max_of_every_window_with_nan_winning, 0, kernel_table_count);
  tcase_add_loop_test(tcase, max_gradient_goes_to_the_first_of_equals, 0, kernel_table_count);
  tcase_add_loop_test(tcase, average_and_its_gradient_of_every_window, 0, kernel_table_count);
}
