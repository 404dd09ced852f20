/* SPDX-License-Identifier: Apache-2.0 */
/* The convolution tiles of every ISA against sums in double: all sizes, rows left out at either side, several tiles in
 * a sequence, all between inaccessible pages. */
#include "kernel_test.h"

#include <check.h>

enum { MAX_RUNS = 6, MAX_ROWS = 16 };

static const lamina_kernels *tables[TEST_MAX_TABLES];
static int n_tables;

/* One call, with each of its buffers as long as the contract says and not a float longer. */
typedef struct tile_case {
  int rows, vectors, parts;
  lamina_conv_tile tile;
  lamina_conv_taps runs[MAX_RUNS];
  guarded a, b, c, bias, add;
  float *before; /* C as it was */
  int64_t count; /* floats of C */
} tile_case;

static guarded filled(test_random *r, int64_t count, guard_side side) {
  guarded g = guarded_new(count, side);
  test_random_fill(r, g.data, count, -1.0f, 1.0f);
  return g;
}

static int64_t pick(test_random *r, int64_t lo, int64_t hi) { return lo + test_random_below(r, hi - lo + 1); }

/* Leaves out up to all but one of the rows, at one side or none; one tile alone may, since those of a sequence have no
   edge. */
static void leave_out(test_random *r, int rows, lamina_conv_taps *run) {
  run->first = 0;
  run->last = rows;
  const int out = (int)pick(r, 0, rows - 1), side = (int)pick(r, 0, 2);
  if (side == 1) run->first = out;
  if (side == 2) run->last = rows - out;
}

/* The epilogue is chosen by the bits of `parts`: 1 accumulate, 2 bias, 4 add, 8 clamp. */
static void case_new(tile_case *t, test_random *r, const lamina_conv_kernels *kernels, int rows, int vectors, int n) {
  const guard_side side = test_random_below(r, 2) ? GUARD_END : GUARD_START;
  memset(t, 0, sizeof *t);
  t->rows = rows;
  t->vectors = vectors;
  t->parts = (int)pick(r, 0, 15);
  lamina_conv_tile *x = &t->tile;
  x->runs = pick(r, 0, MAX_RUNS);
  x->run = t->runs;
  x->n = n;
  x->repeat = pick(r, 0, 2) ? 1 : pick(r, 2, 4);
  x->a_row = pick(r, 0, 1) ? pick(r, 1, 3) : pick(r, 4, 40);
  /* Where pixels exist: from the first row that takes part of any run, to the last. */
  int64_t lowest = INT64_MAX, highest = 0, b_end = kernels->nr;
  for (int64_t i = 0; i < x->runs; i++) {
    lamina_conv_taps *run = &t->runs[i];
    run->k = pick(r, 0, 3) ? pick(r, 1, 9) : pick(r, 10, 40);
    run->a = pick(r, 0, 60);
    run->b = pick(r, 0, 3) * kernels->nr;
    leave_out(r, x->repeat > 1 ? 1 : rows, run);
    if (x->repeat > 1) run->last = rows;
    const int64_t from = run->a + run->first * x->a_row;
    const int64_t to = run->a + ((x->repeat - 1) * rows + run->last - 1) * x->a_row + run->k;
    lowest = from < lowest ? from : lowest;
    highest = to > highest ? to : highest;
    if (run->b + run->k * kernels->nr > b_end) b_end = run->b + run->k * kernels->nr;
  }
  if (x->runs == 0) lowest = 0, highest = 1;
  x->b_panel = b_end + pick(r, 0, 5);
  t->a = filled(r, highest - lowest, side);
  x->a = (const float *)((uintptr_t)t->a.data - (uintptr_t)lowest * sizeof(float));
  t->b = filled(r, vectors * kernels->vector > kernels->nr ? x->b_panel + b_end : b_end, side);
  x->b = t->b.data;
  x->c_row = n + pick(r, 0, 7);
  t->count = (x->repeat * rows - 1) * x->c_row + n;
  x->accumulate = t->parts & 1;
  t->c = t->parts & 1 ? filled(r, t->count, side) : guarded_new(t->count, side);
  x->c = t->c.data;
  t->bias = filled(r, n, side);
  x->bias = t->parts & 2 ? t->bias.data : NULL;
  x->add_row = n + pick(r, 0, 4);
  t->add = filled(r, (x->repeat * rows - 1) * x->add_row + n, side);
  x->add = t->parts & 4 ? t->add.data : NULL;
  x->lo = t->parts & 8 ? -0.25f : -INFINITY;
  x->hi = t->parts & 8 ? 0.5f : INFINITY;
  x->prefetch = pick(r, 0, 1) ? t->b.data : NULL; /* walks beyond it: any address may be prefetched */
  t->before = malloc((size_t)t->count * sizeof(float));
  memcpy(t->before, x->c, (size_t)t->count * sizeof(float));
}

static void case_free(tile_case *t) {
  ck_assert(guarded_free(&t->a) && guarded_free(&t->b) && guarded_free(&t->bias) && guarded_free(&t->add));
  test_that(guarded_free(&t->c), "something outside of C was written");
  free(t->before);
}

/* Element (m, j) of all tiles together, in double; `scale` is the sum of the magnitudes. */
static double reference(const tile_case *t, const lamina_conv_kernels *kernels, int64_t m, int j, double *scale) {
  const lamina_conv_tile *x = &t->tile;
  const int64_t row = m % t->rows, b_at = j / kernels->nr * x->b_panel + j % kernels->nr;
  double sum = 0.0;
  *scale = 0.0;
  for (int64_t i = 0; i < x->runs; i++) {
    const lamina_conv_taps *run = &t->runs[i];
    if (row < run->first || row >= run->last) continue;
    for (int64_t p = 0; p < run->k; p++) {
      const double product = (double)x->a[run->a + m * x->a_row + p] * (double)x->b[run->b + p * kernels->nr + b_at];
      sum += product;
      *scale += fabs(product);
    }
  }
  const double rest[] = {x->accumulate ? t->before[m * x->c_row + j] : 0.0f, x->bias ? x->bias[j] : 0.0f,
                         x->add ? x->add[m * x->add_row + j] : 0.0f};
  for (int i = 0; i < 3; i++) {
    sum += rest[i];
    *scale += fabs(rest[i]);
  }
  return fmin(fmax(sum, x->lo), x->hi);
}

static void case_check(const lamina_kernels *table, tile_case *t) {
  const lamina_conv_tile *x = &t->tile;
  lamina_conv_tile run = *x;
  table->conv->tile[t->rows][t->vectors](&run);
  int64_t depth = 4;
  for (int64_t i = 0; i < x->runs; i++) depth += t->runs[i].k;
  for (int64_t i = 0; i < t->count; i++) {
    const int64_t m = i / x->c_row;
    const int j = (int)(i % x->c_row);
    if (j >= x->n) {
      test_that(memcmp(&x->c[i], &t->before[i], sizeof(float)) == 0, "%s: wrote between the rows", table->isa);
      continue;
    }
    double scale;
    const double expected = reference(t, table->conv, m, j, &scale);
    test_that(fabs((double)x->c[i] - expected) <= (double)depth * 0x1p-23 * scale,
                  "%s tile[%d][%d] n %d runs %d repeat %d parts %d: C(%d, %d) is %.9g, not %.9g", table->isa, t->rows,
                  t->vectors, x->n, (int)x->runs, (int)x->repeat, t->parts, (int)m, j, (double)x->c[i], expected);
  }
  ck_assert(run.a == x->a + x->repeat * t->rows * x->a_row && run.c == x->c + x->repeat * t->rows * x->c_row);
  ck_assert(run.repeat == 0 && run.add == (x->add ? x->add + x->repeat * t->rows * x->add_row : NULL));
}

/* The numbers of vectors that a tile of so many rows comes in. */
static int exists(const lamina_conv_kernels *k, int rows, int vectors) {
  const int panel = k->nr / k->vector;
  return vectors <= panel || (rows <= k->wide_rows && vectors == 2 * panel);
}

START_TEST(tables_are_complete) {
  for (int i = 0; i < n_tables; i++) {
    const lamina_conv_kernels *k = tables[i]->conv;
    ck_assert(k && k->tile && k->mr >= 1 && k->mr <= MAX_ROWS && k->nr == tables[i]->gemm->nr &&
              k->nr % k->vector == 0);
    ck_assert(k->wide_rows <= k->mr && k->good_rows >= 1 && k->short_tile >= k->nr / k->vector);
    for (int m = 1; m <= k->mr; m++)
      for (int v = 1; v <= 2 * k->nr / k->vector; v++)
        if (exists(k, m, v)) ck_assert_ptr_nonnull((const void *)(uintptr_t)k->tile[m][v]);
  }
}
END_TEST

START_TEST(tiles_match_a_sum_in_double) {
  test_random r = test_random_for("convolution tiles");
  for (int i = 0; i < n_tables; i++) {
    const lamina_conv_kernels *k = tables[i]->conv;
    for (int rows = 1; rows <= k->mr; rows++)
      for (int vectors = 1; vectors <= 2 * k->nr / k->vector; vectors++)
        for (int n = (vectors - 1) * k->vector + 1; exists(k, rows, vectors) && n <= vectors * k->vector; n++)
          for (int repeat = 0; repeat < 6; repeat++) {
            tile_case t;
            case_new(&t, &r, k, rows, vectors, n);
            case_check(tables[i], &t);
            case_free(&t);
          }
  }
}
END_TEST

/* Each number of rows left out, for some of the widest tiles: most of them have a loop of their own. */
START_TEST(any_number_of_rows_is_left_out) {
  test_random r = test_random_for("rows left out");
  for (int i = 0; i < n_tables; i++) {
    const lamina_conv_kernels *k = tables[i]->conv;
    for (int rows = 1; rows <= k->mr; rows++)
      for (int vectors = 1; vectors <= 2 * k->nr / k->vector; vectors++)
        for (int out = 0; exists(k, rows, vectors) && out < rows; out++)
          for (int right = 0; right < 2; right++) {
            tile_case t;
            case_new(&t, &r, k, rows, vectors, vectors * k->vector);
            t.tile.repeat = 1;
            t.count = (rows - 1) * t.tile.c_row + t.tile.n;
            guarded_free(&t.a);
            const int64_t a_floats = (rows - out - 1) * t.tile.a_row + 17;
            t.a = filled(&r, a_floats, GUARD_END);
            t.tile.runs = 1;
            t.runs[0] = (lamina_conv_taps){.a = right ? 0 : -out * t.tile.a_row,
                                          .k = 17,
                                          .first = right ? 0 : out,
                                          .last = right ? rows - out : rows};
            t.tile.a = t.a.data;
            guarded_free(&t.b);
            t.tile.b_panel = 17 * k->nr;
            t.b = filled(&r, 2 * t.tile.b_panel, GUARD_END);
            t.tile.b = t.b.data;
            t.tile.prefetch = NULL;
            case_check(tables[i], &t);
            case_free(&t);
          }
  }
}
END_TEST

/* What makes results independent of how rows are split among tiles and panels among calls. */
START_TEST(an_element_has_the_same_bits_in_every_tile) {
  test_random r = test_random_for("convolution bits");
  for (int i = 0; i < n_tables; i++) {
    const lamina_conv_kernels *k = tables[i]->conv;
    float a[MAX_ROWS * 3 + 90], b[2 * 90 * 64], whole[MAX_ROWS * 64], c[64];
    const int64_t depth = 90 - 2;
    test_random_fill(&r, a, sizeof a / sizeof *a, -1, 1);
    test_random_fill(&r, b, sizeof b / sizeof *b, -1, 1);
    const lamina_conv_taps run = {.k = depth, .last = k->mr}, one = {.k = depth, .last = 1};
    lamina_conv_tile t = {.runs = 1,
                          .run = &run,
                          .a = a,
                          .a_row = 3,
                          .b = b,
                          .b_panel = depth * k->nr,
                          .c = whole,
                          .c_row = 64,
                          .n = k->nr,
                          .lo = -INFINITY,
                          .hi = INFINITY,
                          .repeat = 1};
    k->tile[k->mr][k->nr / k->vector](&t);
    for (int m = 0; m < k->mr; m++)
      for (int v = 1; v <= 2 * k->nr / k->vector; v++) {
        if (!exists(k, 1, v)) continue;
        lamina_conv_tile single = {.runs = 1,
                                   .run = &one,
                                   .a = a + 3 * m,
                                   .a_row = 3,
                                   .b = b,
                                   .b_panel = depth * k->nr,
                                   .c = c,
                                   .c_row = 64,
                                   .n = v * k->vector,
                                   .lo = -INFINITY,
                                   .hi = INFINITY,
                                   .repeat = 1};
        k->tile[1][v](&single);
        const int n = v * k->vector < k->nr ? v * k->vector : k->nr;
        test_that(memcmp(c, whole + m * 64, (size_t)n * sizeof(float)) == 0, "%s: tile[1][%d] has other bits",
                      tables[i]->isa, v);
      }
  }
}
END_TEST

/* One call of overlap_add: what it may read and write, and not a float more, lies in guarded memory. */
static void check_overlap(const lamina_kernels *kernels, test_random *r, int number) {
  enum { RUNS = 7 };
  const guard_side side = number % 2 ? GUARD_END : GUARD_START;
  lamina_conv_overlap o = {.rows = pick(r, 1, 40), .runs = pick(r, 1, RUNS), .length = pick(r, 1, number % 3 ? 24 : 90)};
  o.from_row = o.runs * o.length + pick(r, 0, 9);
  o.to_row = pick(r, 0, 3) ? pick(r, 1, o.length) : o.length + pick(r, 0, 30);
  const int64_t reach = (o.rows - 1) * o.to_row + o.length, floats = reach + LAMINA_CONV_SLACK;
  guarded from = filled(r, (o.rows - 1) * o.from_row + o.runs * o.length + LAMINA_CONV_SLACK, side), to[RUNS];
  float *at[RUNS], *before[RUNS];
  for (int64_t t = 0; t < o.runs; t++) {
    to[t] = filled(r, floats, side);
    at[t] = pick(r, 0, 4) ? to[t].data : NULL;
    before[t] = malloc((size_t)floats * sizeof(float));
    memcpy(before[t], to[t].data, (size_t)floats * sizeof(float));
  }
  o.from = from.data;
  o.to = at;
  kernels->conv->overlap_add(&o);
  for (int64_t t = 0; t < o.runs; t++) {
    for (int64_t i = 0; i < floats; i++) {
      double want = (double)before[t][i], size = fabs(want), terms = 1;
      for (int64_t row = 0; at[t] && row < o.rows; row++) {
        const int64_t j = i - row * o.to_row;
        if (j < 0 || j >= o.length) continue;
        const double term = (double)from.data[row * o.from_row + t * o.length + j];
        want += term;
        size += fabs(term);
        terms++;
      }
      test_that(fabs((double)to[t].data[i] - want) <= terms * 0x1p-24 * size, "%s: case %d, run %lld, float %lld: %g, not %g",
                kernels->isa, number, (long long)t, (long long)i, (double)to[t].data[i], want);
      if (i >= reach) test_that(to[t].data[i] == before[t][i], "%s: case %d wrote past the last run", kernels->isa, number);
    }
    free(before[t]);
    test_that(guarded_free(&to[t]), "wrote outside");
  }
  guarded_free(&from);
}

START_TEST(overlapping_rows_are_added_up) {
  test_random r = test_random_for("overlap");
  for (int i = 0; i < n_tables; i++)
    for (int number = 0; number < 300; number++) check_overlap(tables[i], &r, number);
}
END_TEST

int main(void) {
  test_print_seed();
  n_tables = test_tables(tables);
  if (n_tables == 0) return TEST_SKIPPED;
  Suite *suite = suite_create("convolution tiles");
  TCase *cases = tcase_create("kernels");
  tcase_set_timeout(cases, 120);
  tcase_add_test(cases, tables_are_complete);
  tcase_add_test(cases, tiles_match_a_sum_in_double);
  tcase_add_test(cases, any_number_of_rows_is_left_out);
  tcase_add_test(cases, an_element_has_the_same_bits_in_every_tile);
  tcase_add_test(cases, overlapping_rows_are_added_up);
  suite_add_tcase(suite, cases);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
