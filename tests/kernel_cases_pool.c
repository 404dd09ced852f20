/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel_cases.h"

/* The form of a run: taps, pixels from window to window and from column to column. */
typedef struct form {
  int64_t windows, rows, columns, step, dilation;
} form;

static const form forms[] = {
    {3, 1, 1, 1, 1}, {5, 2, 2, 2, 1}, {3, 2, 2, 1, 1}, {1, 3, 3, 2, 1},  {6, 3, 3, 2, 1}, {7, 3, 3, 1, 1}, {4, 2, 3, 2, 1},
    {5, 1, 3, 1, 1}, {2, 3, 3, 3, 1}, {3, 4, 3, 2, 2}, {35, 2, 3, 1, 1}, {3, 3, 2, 3, 1}, {1, 7, 7, 1, 1}, {2, 4, 5, 5, 1},
};
enum { FORMS = sizeof forms / sizeof forms[0] };

/* An image of whole rows of pixels that holds the taps of a run, with few different values so that ties are common. */
typedef struct image {
  form f;
  int64_t channels, width;
  matrix x, dx, old, y, dy;
  lamina_pool_row run;
} image;

static lamina_pool_distance distance_in(const image *w, const matrix *m) {
  return (lamina_pool_distance){
      .row = w->width * m->ld, .column = w->f.dilation * m->ld, .window = w->f.step * m->ld};
}

static void image_new(image *w, test_random *r, const form *f, int64_t channels, guard_side side) {
  memset(w, 0, sizeof *w);
  w->f = *f;
  w->channels = channels;
  w->width = (f->windows - 1) * f->step + (f->columns - 1) * f->dilation + 1;
  w->x = matrix_new(f->rows * w->width, channels, side ? 3 : 0, side);
  for (int64_t i = 0; i < w->x.rows; i++)
    for (int64_t c = 0; c < channels; c++) w->x.data[i * w->x.ld + c] = (float)test_random_below(r, 7) - 5.0f;
  w->dx = matrix_random(r, w->x.rows, channels, side ? 0 : 5, side, -1, 1);
  w->old = matrix_copy(&w->dx, side);
  w->y = matrix_new(f->windows, channels, side ? 2 : 0, side);
  w->dy = matrix_random(r, f->windows, channels, side ? 0 : 1, side, -2, 2);
  w->run = (lamina_pool_row){
      .windows = f->windows, .channels = channels, .rows = f->rows, .columns = f->columns, .x = w->x.data};
  w->run.x_at = distance_in(w, &w->x);
  w->run.dx_at = distance_in(w, &w->dx);
  w->run.y = w->y.data;
  w->run.y_ld = w->y.ld;
  w->run.dy = w->dy.data;
  w->run.dy_ld = w->dy.ld;
  w->run.dx = w->dx.data;
  w->run.scale = 1.0f / (float)(f->rows * f->columns);
}

static void image_free(image *w) {
  matrix_free(&w->x, "x");
  matrix_free(&w->dx, "dx");
  matrix_free(&w->old, "old");
  matrix_free(&w->y, "y");
  matrix_free(&w->dy, "dy");
}

/* The pixel of a window's tap. */
static int64_t pixel(const image *w, int64_t window, int64_t i, int64_t j) {
  return i * w->width + window * w->f.step + j * w->f.dilation;
}

static float x_of(const image *w, int64_t at, int64_t c) { return w->x.data[at * w->x.ld + c]; }

typedef void image_check(const lamina_kernels *kernels, image *w);

static void for_each_image(int table, const char *name, image_check *check) {
  static const int64_t channels[] = {1,  2,  3,  4,  5,  7,  8,  9,  15, 16,  17,  20,  31,  32,
                                     33, 47, 48, 63, 64, 65, 70, 96, 127, 128, 129, 200, 261, 300};
  test_random r = test_random_for(name);
  for (size_t i = 0; i < sizeof channels / sizeof channels[0]; i++)
    for (int f = 0; f < FORMS; f++)
      for (int side = 0; side < 2; side++) {
        image w;
        image_new(&w, &r, &forms[f], channels[i], (guard_side)side);
        check(kernel_tables[table], &w);
        image_free(&w);
      }
}

static void verify_max(const lamina_kernels *kernels, image *w) {
  kernels->pool->max(&w->run);
  for (int64_t window = 0; window < w->f.windows; window++)
    for (int64_t c = 0; c < w->channels; c++) {
      double want = -INFINITY;
      for (int64_t i = 0; i < w->f.rows; i++)
        for (int64_t j = 0; j < w->f.columns; j++) {
          const double x = (double)x_of(w, pixel(w, window, i, j), c);
          want = isnan(want) || isnan(x) ? (double)NAN : fmax(want, x);
        }
      assert_close(w->y.data[window * w->y.ld + c], want, 0, "max of %lldx%lld taps, window %lld, channel %lld",
                   (long long)w->f.rows, (long long)w->f.columns, (long long)window, (long long)c);
    }
}

/* Also as if x were too large for the caches. */
static void check_max(const lamina_kernels *kernels, image *w) {
  /* NaN here and there, so that every tap of a window is one somewhere. */
  for (int64_t at = 0; at < w->x.rows; at += 2) w->x.data[at * w->x.ld + at % w->channels] = NAN;
  w->x.data[w->x.rows / 2 * w->x.ld + w->channels / 2] = -INFINITY;
  for (w->run.streamed = 0; w->run.streamed < 2; w->run.streamed++) {
    for (int64_t i = 0; i < w->f.windows; i++)
      for (int64_t c = 0; c < w->channels; c++) w->y.data[i * w->y.ld + c] = 77.0f;
    verify_max(kernels, w);
  }
}

/* The gradient in double, on top of what dx held. */
static void verify_dx(const lamina_kernels *kernels, const image *w, int is_max, int overwrite) {
  for (int64_t c = 0; c < w->channels; c++) {
    double *want = calloc((size_t)w->dx.rows, sizeof *want);
    for (int64_t at = 0; at < w->dx.rows; at++) want[at] = (double)w->old.data[at * w->old.ld + c];
    for (int64_t window = 0; window < w->f.windows; window++) {
      const double dy = (double)w->dy.data[window * w->dy.ld + c];
      int open = 1;
      for (int64_t i = 0; i < w->f.rows; i++)
        for (int64_t j = 0; j < w->f.columns; j++) {
          const int64_t at = pixel(w, window, i, j);
          const int hit = open && x_of(w, at, c) == w->y.data[window * w->y.ld + c];
          const double share = is_max ? (hit ? dy : 0) : (double)w->run.scale * dy;
          want[at] = overwrite ? share : want[at] + share;
          if (hit) open = 0;
        }
    }
    for (int64_t at = 0; at < w->dx.rows; at++)
      assert_close(w->dx.data[at * w->dx.ld + c], want[at], 100 * ROUNDING,
                   "%s gradient%s, %lldx%lld, pixel %lld of %lld, channel %lld", is_max ? "max" : "average", overwrite ? ", overwriting" : "", (long long)w->f.rows,
                   (long long)w->f.columns, (long long)at, (long long)w->dx.rows, (long long)c);
    free(want);
  }
}

static void verify_backward(const lamina_kernels *kernels, image *w, int is_max,
                            void (*kernel)(const lamina_pool_row *)) {
  kernel(&w->run);
  verify_dx(kernels, w, is_max, 0);
  if (w->f.step < (w->f.columns - 1) * w->f.dilation + 1) return;
  /* What is overwritten is not read: NaN there. */
  for (int64_t window = 0; window < w->f.windows; window++)
    for (int64_t i = 0; i < w->f.rows; i++)
      for (int64_t j = 0; j < w->f.columns; j++)
        for (int64_t c = 0; c < w->channels; c++) w->dx.data[pixel(w, window, i, j) * w->dx.ld + c] = NAN;
  w->run.overwrite = 1;
  kernel(&w->run);
  verify_dx(kernels, w, is_max, 1);
}

static void check_max_backward(const lamina_kernels *kernels, image *w) {
  kernels->pool->max(&w->run);
  w->y.data[w->channels / 2] = NAN; /* equals nothing: its gradient goes nowhere */
  verify_backward(kernels, w, 1, kernels->pool->max_backward);
}

static void verify_average(const lamina_kernels *kernels, image *w) {
  kernels->pool->average(&w->run);
  for (int64_t window = 0; window < w->f.windows; window++)
    for (int64_t c = 0; c < w->channels; c++) {
      double sum = 0, size = 0;
      for (int64_t i = 0; i < w->f.rows; i++)
        for (int64_t j = 0; j < w->f.columns; j++) {
          sum += (double)x_of(w, pixel(w, window, i, j), c);
          size += fabs((double)x_of(w, pixel(w, window, i, j), c));
        }
      assert_close(w->y.data[window * w->y.ld + c], sum * (double)w->run.scale, ROUNDING * size,
                   "average of %lldx%lld taps, window %lld, channel %lld", (long long)w->f.rows,
                   (long long)w->f.columns, (long long)window, (long long)c);
    }
}

static void check_average(const lamina_kernels *kernels, image *w) {
  for (w->run.streamed = 0; w->run.streamed < 2; w->run.streamed++) {
    for (int64_t i = 0; i < w->f.windows; i++)
      for (int64_t c = 0; c < w->channels; c++) w->y.data[i * w->y.ld + c] = NAN;
    verify_average(kernels, w);
  }
}

static void check_average_backward(const lamina_kernels *kernels, image *w) {
  w->run.x = NULL;
  w->run.y = NULL;
  verify_backward(kernels, w, 0, kernels->pool->average_backward);
}

/* ---- max pooling that remembers its winners ----------------------------------------------------------------------- */

/* Bytes that end, or begin, where memory that may be touched does. */
typedef struct byte_block {
  guarded memory;
  uint8_t *at;
} byte_block;

static byte_block bytes_new(int64_t count, guard_side side) {
  const int64_t floats = (count + 3) / 4;
  byte_block b = {.memory = guarded_new(floats, side)};
  b.at = (uint8_t *)b.memory.data + (side == GUARD_END ? 4 * floats - count : 0);
  return b;
}

/* The winners' numbers, counted as if the run were a part of larger windows. */
static void check_winner(const lamina_kernels *kernels, image *w) {
  if (w->f.dilation > 1) return;
  for (int64_t at = 0; at < w->x.rows; at += 5) w->x.data[at * w->x.ld + at % w->channels] = NAN;
  w->x.data[w->x.rows / 2 * w->x.ld + w->channels / 2] = -INFINITY;
  byte_block winners = bytes_new(w->f.windows * w->channels, w->x.ld > w->channels ? GUARD_START : GUARD_END);
  w->run.winner = winners.at;
  w->run.winner_ld = w->channels;
  w->run.tap = 3;
  w->run.tap_row = (int)w->f.columns + 2;
  kernels->pool->max_winner(&w->run);
  for (int64_t window = 0; window < w->f.windows; window++)
    for (int64_t c = 0; c < w->channels; c++) {
      float best = x_of(w, pixel(w, window, 0, 0), c);
      int want = 3;
      for (int64_t i = 0; i < w->f.rows; i++)
        for (int64_t j = 0; j < w->f.columns; j++) {
          const float x = x_of(w, pixel(w, window, i, j), c);
          if (!(x > best) && !isnan(x)) continue;
          best = x;
          want = 3 + (int)(i * (w->f.columns + 2) + j);
        }
      const float y = w->y.data[window * w->y.ld + c];
      const int got = winners.at[window * w->channels + c];
      test_that(y == best || (isnan(y) && isnan(best)), "max and winner: %g, not %g", (double)y, (double)best);
      test_that(got == want, "the winner of %lldx%lld taps, window %lld, channel %lld: %d, not %d", (long long)w->f.rows,
                (long long)w->f.columns, (long long)window, (long long)c, got, want);
    }
  test_that(guarded_free(&winners.memory), "max_winner wrote beside the winners");
}

/* Rows of windows and windows in each, of a width, at a stride, with padding; numbers of which some belong to other rows. */
static const int64_t gathers[][5] = {{1, 1, 1, 1, 0}, {1, 4, 2, 2, 0}, {2, 5, 3, 2, 1}, {1, 5, 3, 2, 1}, {3, 6, 3, 1, 1},
                                     {2, 3, 2, 3, 0}, {0, 3, 3, 2, 1}, {4, 4, 5, 2, 2}, {2, 2, 3, 2, 0}};

static void verify_gather(const lamina_kernels *kernels, test_random *r, const int64_t *g, int64_t channels, int way,
                          guard_side side) {
  const int64_t rows = g[0], windows = g[1], count = rows * windows, columns = (windows - 1) * g[3] + g[2];
  const int padded = way & 1;
  matrix dy = matrix_random(r, count + (count == 0), channels, padded ? 3 : 0, side, -2, 2);
  matrix dx = matrix_random(r, columns, channels, padded ? 2 : 0, side, -1, 1), old = matrix_copy(&dx, side);
  byte_block winners = bytes_new(count > 0 ? count * channels : 1, side);
  for (int64_t i = 0; i < count * channels; i++) winners.at[i] = (uint8_t)test_random_below(r, 3 * g[2] + 1);
  const lamina_pool_gather row = {.columns = columns,
                                  .channels = channels,
                                  .dx = dx.data,
                                  .dx_ld = dx.ld,
                                  .rows = rows,
                                  .windows = windows,
                                  .dy = dy.data,
                                  .dy_ld = dy.ld,
                                  .dy_row = windows * dy.ld,
                                  .winner = winners.at,
                                  .winner_ld = channels,
                                  .winner_row = windows * channels,
                                  .tap = 2 * g[2],
                                  .tap_row = g[2] / 2,
                                  .width = g[2],
                                  .stride = g[3],
                                  .padding = g[4],
                                  .accumulate = way >> 1 & 1,
                                  .stream = way >> 2 & 1};
  kernels->pool->max_gather(&row);
  for (int64_t w = 0; w < columns; w++)
    for (int64_t c = 0; c < channels; c++) {
      double want = row.accumulate ? (double)old.data[w * old.ld + c] : 0;
      for (int64_t i = 0; i < rows; i++)
        for (int64_t o = 0; o < windows; o++) {
          const int64_t tap = w + g[4] - o * g[3];
          if (tap >= 0 && tap < g[2] && winners.at[(i * windows + o) * channels + c] == row.tap - i * row.tap_row + tap)
            want += (double)dy.data[(i * windows + o) * dy.ld + c];
        }
      assert_close(dx.data[w * dx.ld + c], want, 100 * ROUNDING, "gathered, %lld windows of %lld at %lld, column %lld, channel %lld",
                   (long long)windows, (long long)g[2], (long long)g[3], (long long)w, (long long)c);
    }
  matrix_free(&dy, "dy");
  matrix_free(&dx, "dx");
  matrix_free(&old, "old");
  test_that(guarded_free(&winners.memory), "max_gather wrote beside the winners");
}

START_TEST(max_winner_is_the_first_of_equals) { for_each_image(_i, "max_winner", check_winner); }
END_TEST

START_TEST(max_gather_gives_dy_to_the_winners) {
  static const int64_t channels[] = {1, 3, 4, 7, 8, 15, 16, 17, 32, 33, 64, 70};
  test_random r = test_random_for("max_gather");
  for (size_t i = 0; i < sizeof channels / sizeof channels[0]; i++)
    for (size_t g = 0; g < sizeof gathers / sizeof gathers[0]; g++)
      for (int way = 0; way < 8; way++)
        for (int side = 0; side < 2; side++)
          verify_gather(kernel_tables[_i], &r, gathers[g], channels[i], way, (guard_side)side);
}
END_TEST

START_TEST(max_of_every_window_with_nan_winning) { for_each_image(_i, "max", check_max); }
END_TEST

START_TEST(max_gradient_goes_to_the_first_of_equals) { for_each_image(_i, "max_backward", check_max_backward); }
END_TEST

START_TEST(average_of_every_window) { for_each_image(_i, "average", check_average); }
END_TEST

START_TEST(average_gradient_goes_to_every_tap) { for_each_image(_i, "average_backward", check_average_backward); }
END_TEST

void add_pool_tests(TCase *tcase) {
  tcase_add_loop_test(tcase, max_of_every_window_with_nan_winning, 0, kernel_table_count);
  tcase_add_loop_test(tcase, max_gradient_goes_to_the_first_of_equals, 0, kernel_table_count);
  tcase_add_loop_test(tcase, max_winner_is_the_first_of_equals, 0, kernel_table_count);
  tcase_add_loop_test(tcase, max_gather_gives_dy_to_the_winners, 0, kernel_table_count);
  tcase_add_loop_test(tcase, average_of_every_window, 0, kernel_table_count);
  tcase_add_loop_test(tcase, average_gradient_goes_to_every_tap, 0, kernel_table_count);
}
