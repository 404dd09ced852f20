/* SPDX-License-Identifier: Apache-2.0 */
/* The GEMM kernels of every ISA against sums in double, around the edges of the tiles, between inaccessible pages. */
#include "kernel_test.h"

#include <check.h>

static const lamina_kernels *tables[TEST_MAX_TABLES];
static int n_tables;

/* One call of a tile, with each of its buffers as long as the contract says and not a float longer. */
typedef struct tile_case {
  int m;      /* rows of all tiles together */
  int rows;   /* of a tile */
  int panels; /* that the shape reads side by side */
  int nr;
  void (*run)(const lamina_tile *tile);
  lamina_tile tile;
  guarded a, b, c, bias, add;
  float *before; /* C as it was */
  int64_t c_count;
  const float *pointers[9];
} tile_case;

enum { WIDEST = 16 }; /* floats of the widest vector */

static guarded filled(test_random *r, int64_t count, guard_side side) {
  guarded g = guarded_new(count, side);
  test_random_fill(r, g.data, count, -1.0f, 1.0f);
  return g;
}

static int64_t pick(test_random *r, int64_t lo, int64_t hi) { return lo + test_random_below(r, hi - lo + 1); }

/* `tiles` tiles of a shape, and their buffers; the epilogue is chosen by the bits of `parts`: 1 accumulate, 2 bias,
   4 add, 8 clamp, 16 streamed if whole vectors of any ISA are written. */
static void case_of_shape(tile_case *t, test_random *r, const lamina_gemm_kernels *g, const lamina_gemm_shape *shape,
                          int tiles, int rows, int n, int64_t batch, int64_t k, int parts) {
  const guard_side side = test_random_below(r, 2) ? GUARD_END : GUARD_START;
  const int m = tiles * rows;
  memset(t, 0, sizeof *t);
  t->m = m;
  t->rows = rows;
  t->panels = shape->panels;
  t->run = shape->tile[rows];
  lamina_tile *x = &t->tile;
  x->more = tiles - 1;
  x->batch = batch;
  x->k = k;
  x->n = n;
  const int64_t depth = k > 0 ? k : 1, batches = batch > 0 ? batch : 1;
  switch (test_random_below(r, 4)) {
  case 0:
    x->a_k = 1, x->a_row = depth + pick(r, 0, 5);
    break;
  case 1:
    x->a_row = 1, x->a_k = m + pick(r, 0, 5);
    break;
  case 2:
    x->a_k = 1, x->a_row = pick(r, 1, 3);
    break; /* rows that overlap, as those of a convolution */
  default:
    x->a_k = pick(r, 2, 7), x->a_row = x->a_k * depth + pick(r, 1, 3);
  }
  const int64_t a_step = pick(r, 0, 40);
  t->a = filled(r, (batches - 1) * a_step + (m - 1) * x->a_row + (depth - 1) * x->a_k + 1, side);
  for (int64_t i = 0; i < batch; i++) t->pointers[i] = t->a.data + (batch - 1 - i) * a_step;
  x->a = t->pointers;
  x->b_k = g->nr + pick(r, 0, 3);
  x->b_batch = pick(r, 0, 1) ? depth * x->b_k : pick(r, 1, 9);
  t->nr = g->nr;
  const int64_t read = (n + g->nr - 1) / g->nr; /* panels */
  x->b_panel = shape->panels == 1 ? 0 : (batches - 1) * x->b_batch + depth * x->b_k + pick(r, 0, 3);
  const int64_t last = read > 1 ? (read - 1) * x->b_panel : 0;
  t->b = filled(r, last + (batches - 1) * x->b_batch + (depth - 1) * x->b_k + g->nr, side);
  if (shape->panels > 1 && pick(r, 0, 1)) x->prefetch = x->b;
  x->b = t->b.data;
  x->stream = parts & 16 && n % WIDEST == 0;
  x->c_row = x->stream ? n + WIDEST * pick(r, 0, 2) : n + pick(r, 0, 7);
  t->c_count = (m - 1) * x->c_row + n;
  x->accumulate = parts & 1;
  t->c = parts & 1 ? filled(r, t->c_count, side) : guarded_new(t->c_count, side);
  x->c = t->c.data;
  t->bias = filled(r, n, side);
  x->bias = parts & 2 ? t->bias.data : NULL;
  x->add_row = n + pick(r, 0, 4);
  t->add = filled(r, (m - 1) * x->add_row + n, side);
  x->add = parts & 4 ? t->add.data : NULL;
  x->lo = parts & 8 ? -0.25f : -INFINITY;
  x->hi = parts & 8 ? 0.5f : INFINITY;
  t->before = malloc((size_t)t->c_count * sizeof(float));
  memcpy(t->before, x->c, (size_t)t->c_count * sizeof(float));
}

static void case_new(tile_case *t, test_random *r, const lamina_gemm_kernels *g, int m, int n, int64_t batch, int64_t k,
                     int parts) {
  case_of_shape(t, r, g, &g->shape[0], 1, m, n, batch, k, parts);
}

static void case_restore(tile_case *t) { memcpy(t->tile.c, t->before, (size_t)t->c_count * sizeof(float)); }

static void case_free(tile_case *t) {
  ck_assert(guarded_free(&t->a) && guarded_free(&t->b) && guarded_free(&t->bias) && guarded_free(&t->add));
  test_that(guarded_free(&t->c), "something outside of C was written");
  free(t->before);
}

static int64_t column_of_b(const tile_case *t, int j) {
  return j < t->nr ? j : j / t->nr * t->tile.b_panel + j % t->nr;
}

/* Element (m, j) in double; `scale` is the sum of the magnitudes, which the error is measured by. */
static double reference(const tile_case *t, int m, int j, double *scale) {
  const lamina_tile *x = &t->tile;
  double sum = 0.0, magnitude = 0.0;
  for (int64_t i = 0; i < x->batch; i++)
    for (int64_t p = 0; p < x->k; p++) {
      double product =
          (double)x->a[i][m * x->a_row + p * x->a_k] * (double)x->b[column_of_b(t, j) + i * x->b_batch + p * x->b_k];
      sum += product;
      magnitude += fabs(product);
    }
  const double rest[] = {x->accumulate ? t->before[m * x->c_row + j] : 0.0f, x->bias ? x->bias[j] : 0.0f,
                         x->add ? x->add[m * x->add_row + j] : 0.0f};
  for (int i = 0; i < 3; i++) {
    sum += rest[i];
    magnitude += fabs(rest[i]);
  }
  *scale = magnitude;
  return fmin(fmax(sum, x->lo), x->hi);
}

static void case_check(const lamina_kernels *table, tile_case *t) {
  const lamina_tile *x = &t->tile;
  t->run(x);
  if (x->stream) table->gemm->stream_end();
  for (int64_t i = 0; i < t->c_count; i++) {
    const int m = (int)(i / x->c_row), j = (int)(i % x->c_row);
    if (j >= x->n) {
      test_that(memcmp(&x->c[i], &t->before[i], sizeof(float)) == 0, "%s: wrote between the rows", table->isa);
      continue;
    }
    double scale, expected = reference(t, m, j, &scale), bound = (double)(x->batch * x->k + 4) * 0x1p-23 * scale;
    test_that(
        fabs((double)x->c[i] - expected) <= bound,
        "%s tile[%d] of %d panels, n %d batch %d k %d a_row %d a_k %d: C(%d, %d) is %.9g, not %.9g (bound %.3g)",
        table->isa, t->rows, t->panels, x->n, (int)x->batch, (int)x->k, (int)x->a_row, (int)x->a_k, m, j,
        (double)x->c[i], expected, bound);
  }
}

START_TEST(tables_are_complete) {
  for (int i = 0; i < n_tables; i++) {
    const lamina_gemm_kernels *g = tables[i]->gemm;
    ck_assert(g && g->tile && g->stream_end && g->pack_b && g->stream_b && g->transpose);
    ck_assert(g->shapes >= 1 && g->shape[0].rows == g->mr && g->shape[0].panels == 1 && g->shape[0].tile == g->tile);
    for (int s = 1; s < g->shapes; s++) ck_assert_int_gt(g->shape[s].panels, g->shape[s - 1].panels);
    ck_assert(g->mr >= 1 && g->mr <= LAMINA_GEMM_MAX_MR && g->nr >= 1);
    for (int m = 1; m <= g->mr; m++) ck_assert_ptr_nonnull((const void *)(uintptr_t)g->tile[m]);
  }
}
END_TEST

START_TEST(tiles_match_a_sum_in_double) {
  static const int64_t depths[] = {0, 1, 2, 3, 4, 7, 16, 33};
  test_random r = test_random_for("tiles");
  for (int i = 0; i < n_tables; i++) {
    const lamina_gemm_kernels *g = tables[i]->gemm;
    int turn = 0;
    for (int m = 1; m <= g->mr; m++)
      for (int n = 1; n <= g->nr; n++)
        for (int repeat = 0; repeat < 4; repeat++, turn++) {
          tile_case t;
          case_new(&t, &r, g, m, n, 1 + turn % 9, depths[turn % 8], (int)test_random_below(&r, 32));
          case_check(tables[i], &t);
          case_free(&t);
        }
  }
}
END_TEST

/* All rows and columns of every shape, one tile and several in one call. */
START_TEST(shapes_of_several_panels_and_tiles_match_a_sum_in_double) {
  static const int64_t depths[] = {0, 1, 2, 5, 15, 16, 17, 40};
  test_random r = test_random_for("shapes");
  for (int i = 0; i < n_tables; i++) {
    const lamina_gemm_kernels *g = tables[i]->gemm;
    for (int s = 0, turn = 0; s < g->shapes; s++)
      for (int m = 1; m <= g->shape[s].rows; m++)
        for (int n = 1; n <= g->shape[s].panels * g->nr; n++, turn++) {
          tile_case t;
          case_of_shape(&t, &r, g, &g->shape[s], 1 + turn % 3, m, n, 1 + turn % 2, depths[turn % 8],
                        (int)test_random_below(&r, 32));
          case_check(tables[i], &t);
          case_free(&t);
        }
  }
}
END_TEST

/* An element of a wide tile has the bits that it has in the tile of its own panel. */
START_TEST(a_shape_does_not_change_bits) {
  test_random r = test_random_for("shape bits");
  for (int i = 0; i < n_tables; i++) {
    const lamina_gemm_kernels *g = tables[i]->gemm;
    for (int s = 1; s < g->shapes; s++)
      for (int n = 1; n <= g->shape[s].panels * g->nr; n++) {
        tile_case t;
        case_of_shape(&t, &r, g, &g->shape[s], 2, g->shape[s].rows, n, 2, 37, n % 16);
        t.run(&t.tile);
        float *whole = malloc((size_t)t.c_count * sizeof(float));
        memcpy(whole, t.tile.c, (size_t)t.c_count * sizeof(float));
        case_restore(&t);
        for (int n0 = 0; n0 < n; n0 += g->nr) {
          lamina_tile one = t.tile;
          one.n = n - n0 < g->nr ? n - n0 : g->nr;
          one.b += n0 / g->nr * one.b_panel;
          one.prefetch = NULL;
          one.c += n0;
          if (one.bias) one.bias += n0;
          if (one.add) one.add += n0;
          g->tile[t.rows](&one);
        }
        test_that(memcmp(whole, t.tile.c, (size_t)t.c_count * sizeof(float)) == 0,
                      "%s: %d panels side by side give other bits than one after the other, n %d", tables[i]->isa,
                      t.panels, n);
        free(whole);
        case_free(&t);
      }
  }
}
END_TEST

START_TEST(every_epilogue_is_applied_in_order) {
  test_random r = test_random_for("epilogue");
  for (int i = 0; i < n_tables; i++) {
    const lamina_gemm_kernels *g = tables[i]->gemm;
    for (int parts = 0; parts < 16; parts++)
      for (int edge = 0; edge < 4; edge++)
        for (int64_t batch = 0; batch <= 9; batch += 3) {
          tile_case t;
          case_new(&t, &r, g, edge & 1 ? g->mr : 1, edge & 2 ? g->nr : g->nr - 1, batch, 5, parts);
          case_check(tables[i], &t);
          case_free(&t);
        }
  }
}
END_TEST

START_TEST(long_sums_stay_inside_the_bound) {
  test_random r = test_random_for("long");
  for (int i = 0; i < n_tables; i++) {
    tile_case t;
    case_new(&t, &r, tables[i]->gemm, tables[i]->gemm->mr, tables[i]->gemm->nr, 9, 1153, 0);
    case_check(tables[i], &t);
    case_free(&t);
  }
}
END_TEST

/* Runs tile[rows] on rows first .. of the case and n of its columns; nonzero if C has the bits of `whole` there. */
static int part_equals(tile_case *t, const lamina_gemm_kernels *g, int first, int rows, int n, const float *whole) {
  lamina_tile part = t->tile;
  const float *a[9];
  for (int64_t i = 0; i < part.batch; i++) a[i] = t->tile.a[i] + first * part.a_row;
  part.a = a;
  part.c += first * part.c_row;
  if (part.add) part.add += first * part.add_row;
  part.n = n;
  case_restore(t);
  g->tile[rows](&part);
  int equal = 1;
  for (int64_t m = first; m < first + rows; m++)
    equal &= memcmp(t->tile.c + m * part.c_row, whole + m * part.c_row, (size_t)n * sizeof(float)) == 0;
  return equal;
}

/* What makes results independent of how rows and columns are split among tiles and threads. */
START_TEST(an_element_has_the_same_bits_in_every_tile) {
  test_random r = test_random_for("bits");
  for (int i = 0; i < n_tables; i++) {
    const lamina_gemm_kernels *g = tables[i]->gemm;
    for (int parts = 0; parts < 16; parts++) {
      tile_case t;
      case_new(&t, &r, g, g->mr, g->nr, 3, 21, parts);
      g->tile[g->mr](&t.tile);
      float *whole = malloc((size_t)t.c_count * sizeof(float));
      memcpy(whole, t.tile.c, (size_t)t.c_count * sizeof(float));
      for (int rows = 1; rows <= g->mr; rows++)
        for (int repeat = 0; repeat < 8; repeat++) {
          const int first = (int)pick(&r, 0, g->mr - rows), n = repeat ? (int)pick(&r, 1, g->nr) : g->nr;
          test_that(part_equals(&t, g, first, rows, n, whole), "%s: tile[%d], n %d gives other bits than tile[%d]",
                        tables[i]->isa, rows, n, g->mr);
        }
      free(whole);
      case_free(&t);
    }
  }
}
END_TEST

START_TEST(a_prefetch_address_is_never_read) {
  test_random r = test_random_for("prefetch");
  for (int i = 0; i < n_tables; i++) {
    tile_case t;
    case_new(&t, &r, tables[i]->gemm, tables[i]->gemm->mr, tables[i]->gemm->nr, 2, 300, 0);
    t.tile.prefetch = (const float *)(const void *)(t.a.map + t.a.map_bytes - t.a.page); /* inaccessible */
    case_check(tables[i], &t);
    case_free(&t);
  }
}
END_TEST

/* `where` becomes NaN; row `m` and column `j` of C, -1 for all of them, must be NaN and the rest must not. */
static void check_nan(const lamina_kernels *table, tile_case *t, float *where, int m, int j) {
  const float was = *where;
  *where = NAN;
  table->gemm->tile[t->m](&t->tile);
  for (int row = 0; row < t->m; row++)
    for (int column = 0; column < t->tile.n; column++) {
      const int expected = (m < 0 || row == m) && (j < 0 || column == j);
      const float value = t->tile.c[row * t->tile.c_row + column];
      test_that((isnan(value) ? 1 : 0) == expected, "%s: C(%d, %d) is %g", table->isa, row, column, (double)value);
    }
  *where = was;
  case_restore(t);
}

START_TEST(nan_passes_through_sums_and_clamps) {
  test_random r = test_random_for("nan");
  for (int i = 0; i < n_tables; i++) {
    const lamina_gemm_kernels *g = tables[i]->gemm;
    for (int n = g->nr - 1; n <= g->nr; n++) {
      tile_case t;
      case_new(&t, &r, g, g->mr, n, 1, 9, 15);
      lamina_tile *x = &t.tile;
      guarded a = filled(&r, g->mr * 9, GUARD_END); /* rows that do not overlap */
      t.pointers[0] = a.data;
      x->a_k = 1, x->a_row = 9;
      check_nan(tables[i], &t, a.data + 2 * 9 + 4, 2, -1);
      check_nan(tables[i], &t, t.b.data + 3 * x->b_k + n - 1, -1, n - 1);
      check_nan(tables[i], &t, t.bias.data + 1, -1, 1);
      check_nan(tables[i], &t, t.add.data + x->add_row + n - 1, 1, n - 1);
      check_nan(tables[i], &t, x->c + x->c_row + 2, 1, 2);
      ck_assert(guarded_free(&a));
      case_free(&t);
    }
  }
}
END_TEST

START_TEST(packing_lays_out_panels) {
  static const int64_t depths[] = {0, 1, 2, 7, 8, 15, 16, 17, 33, 50};
  test_random r = test_random_for("pack");
  for (int i = 0; i < n_tables; i++) {
    const int nr = tables[i]->gemm->nr;
    for (int64_t n = 1; n <= 2 * nr + 1; n++)
      for (int turn = 0; turn < 60; turn++) {
        const int64_t k = depths[turn % 10], depth = k > 0 ? k : 1, panels = (n + nr - 1) / nr;
        const int order = turn / 10 % 3, scaled = turn / 30;
        const int64_t b_n = order == 0 ? 1 : order == 1 ? depth + pick(&r, 0, 3) : 9 * depth + 1;
        const int64_t b_k = order == 0 ? n + pick(&r, 0, 3) : order == 1 ? 1 : 9;
        const guard_side side = turn & 1 ? GUARD_END : GUARD_START;
        guarded b = filled(&r, (depth - 1) * b_k + (n - 1) * b_n + 1, side), scale = filled(&r, n, side);
        guarded dst = guarded_new(panels * k * nr, side);
        (turn / 2 % 2 ? tables[i]->gemm->stream_b : tables[i]->gemm->pack_b)(k, n, b.data, b_k, b_n,
                                                                             scaled ? scale.data : NULL, dst.data);
        for (int64_t j = 0; j < panels * nr; j++)
          for (int64_t p = 0; p < k; p++) {
            float expected = j < n ? b.data[p * b_k + j * b_n] : 0.0f;
            if (scaled && j < n) expected *= scale.data[j];
            const float value = dst.data[j / nr * k * nr + p * nr + j % nr];
            test_that(value == expected, "%s: B(%d, %d) of %d x %d in order %d is packed as %g, not %g",
                          tables[i]->isa, (int)p, (int)j, (int)k, (int)n, order, (double)value, (double)expected);
          }
        ck_assert(guarded_free(&b) && guarded_free(&scale) && guarded_free(&dst));
      }
  }
}
END_TEST

START_TEST(transposition_keeps_every_element) {
  test_random r = test_random_for("transpose");
  for (int i = 0; i < n_tables; i++)
    for (int64_t rows = 1; rows <= 35; rows++)
      for (int64_t cols = 1; cols <= 35; cols += rows % 4 + 1) {
        const int64_t src_ld = cols + pick(&r, 0, 3), dst_ld = rows + pick(&r, 0, 3);
        const guard_side side = (rows ^ cols) & 1 ? GUARD_END : GUARD_START;
        guarded src = filled(&r, (rows - 1) * src_ld + cols, side);
        guarded dst = guarded_new((cols - 1) * dst_ld + rows, side);
        tables[i]->gemm->transpose(rows, cols, src.data, src_ld, dst.data, dst_ld);
        for (int64_t at = 0; at < (cols - 1) * dst_ld + rows; at++) {
          const int64_t c = at / dst_ld, row = at % dst_ld;
          if (row < rows)
            ck_assert(dst.data[at] == src.data[row * src_ld + c]);
          else
            test_that(isnan(dst.data[at]), "%s: wrote between the rows", tables[i]->isa);
        }
        ck_assert(guarded_free(&src) && guarded_free(&dst));
      }
}
END_TEST

int main(void) {
  test_print_seed();
  n_tables = test_tables(tables);
  if (!n_tables) return TEST_SKIPPED;
  Suite *suite = suite_create("gemm");
  TCase *cases = tcase_create("gemm");
  tcase_set_timeout(cases, 240);
  tcase_add_test(cases, tables_are_complete);
  tcase_add_test(cases, tiles_match_a_sum_in_double);
  tcase_add_test(cases, shapes_of_several_panels_and_tiles_match_a_sum_in_double);
  tcase_add_test(cases, a_shape_does_not_change_bits);
  tcase_add_test(cases, every_epilogue_is_applied_in_order);
  tcase_add_test(cases, long_sums_stay_inside_the_bound);
  tcase_add_test(cases, an_element_has_the_same_bits_in_every_tile);
  tcase_add_test(cases, a_prefetch_address_is_never_read);
  tcase_add_test(cases, nan_passes_through_sums_and_clamps);
  tcase_add_test(cases, packing_lays_out_panels);
  tcase_add_test(cases, transposition_keeps_every_element);
  suite_add_tcase(suite, cases);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? 1 : 0;
}
