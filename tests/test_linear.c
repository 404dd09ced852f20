/* SPDX-License-Identifier: Apache-2.0 */
/* linear, and the host's matrix product behind it, against double; the same bits for any number of threads. */
#include "compute_test.h"
#include "gemm.h"

#include <math.h>

extern const lamina_layer lamina_layer_linear;

enum { OUT_FEATURES, BIAS, IN_SPATIAL };

/* A layer's row of x is (spatial, channels), its weight's columns are (channels, spatial). */
TEST_UNCHECKED static int64_t weight_column(int64_t k, int64_t in, int64_t spatial) {
  const int64_t channels = in / spatial;
  return k % channels * spatial + k / channels;
}

TEST_UNCHECKED static void products(const compute_case *c, const void *shape, compute_sums *s) {
  const int64_t in = *(const int64_t *)shape, out = c->attrs[OUT_FEATURES].i, spatial = c->attrs[IN_SPATIAL].i;
  for (int64_t y = 0; y < compute_count(&c->outputs[0]); y++)
    for (int64_t k = 0; k < in; k++)
      compute_product(c, s, y, y / out * in + k, y % out * in + weight_column(k, in, spatial));
}

static void verify(lamina_context *const context[COMPUTE_HOSTS], int turn, compute_case *c) {
  c->layer = &lamina_layer_linear;
  int64_t in = c->x.dim[c->x.rank - 1];
  for (int i = 1; c->attrs[IN_SPATIAL].i > 1 && i + 1 < c->x.rank; i++) in *= c->x.dim[i];
  compute_verify(context, turn, c, "linear", products, &in);
}

START_TEST(random_layers_equal_double) {
  lamina_context *context[COMPUTE_HOSTS];
  compute_begin(context);
  char name[40];
  snprintf(name, sizeof name, "random layers %d", _i);
  test_random random = test_random_for(name);
  for (int i = 0; i < 20; i++) {
    compute_case c = {.mode = i % 3 ? LAMINA_TRAIN : LAMINA_INFER, .random = random};
    c.x = (lamina_tensor){.rank = (int)compute_between(&random, 2, 4)};
    for (int d = 0; d < c.x.rank; d++) c.x.dim[d] = compute_between(&random, 1, d + 1 < c.x.rank ? 9 : 90);
    c.attrs[OUT_FEATURES].i = compute_between(&random, 1, 100);
    c.attrs[BIAS].i = test_random_below(&random, 2);
    c.attrs[IN_SPATIAL].i = 1;
    if (test_random_below(&random, 3) == 0 && c.x.rank == 4)
      c.attrs[IN_SPATIAL].i = c.x.dim[1] * c.x.dim[2]; /* a folded flatten */
    if (test_random_below(&random, 3) == 0 && c.x.rank == 2) {
      c.attrs[IN_SPATIAL].i = compute_between(&random, 2, 9);
      c.x.dim[1] = c.attrs[IN_SPATIAL].i * compute_between(&random, 1, 20);
    }
    if (c.attrs[IN_SPATIAL].i == 1) c.gap = test_random_below(&random, 2) * compute_between(&random, 0, 9);
    c.accumulate = (int)test_random_below(&random, 2);
    c.epilogue = compute_random_epilogue(&random, c.mode);
    verify(context, i, &c);
  }
  compute_end(context);
}
END_TEST

/* Rows, features in and out, spatial: more than one chunk of depth, one row, strides of 4 KiB, a gradient in pieces;
   few rows that read panels side by side, weights beyond L2, columns that end within a vector, small products in tasks;
   a result that is written past the caches. */
static const int64_t blocked[][4] = {
    {70, 2600, 40, 1},  {1, 1024, 1000, 1}, {300, 1024, 65, 1}, {33, 49 * 128, 180, 49}, {130, 96, 2048, 1},
    {5, 3, 1, 1},       {2, 1100, 310, 1},  {3, 700, 1000, 1},  {1, 1500, 700, 1},       {8, 4096, 70, 1},
    {61, 2048, 200, 1}, {120, 300, 24, 1},  {199, 130, 41, 1},  {57, 90, 7, 1},          {1, 40, 5000, 1},
    {22000, 3, 96, 1},
};

START_TEST(blocked_layers_equal_double) {
  lamina_context *context[COMPUTE_HOSTS];
  compute_begin(context);
  for (int i = 0; i < (int)(sizeof blocked / sizeof *blocked); i++) {
    compute_case c = {.mode = LAMINA_TRAIN, .random = test_random_for("blocked layers"), .accumulate = i % 2};
    if (i % 2 == 0) c.epilogue = LAMINA_EPILOGUE_ACTIVATION;
    c.x = (lamina_tensor){.rank = 2, .dim = {blocked[i][0], blocked[i][1]}};
    c.attrs[OUT_FEATURES].i = blocked[i][2];
    c.attrs[BIAS].i = 1;
    c.attrs[IN_SPATIAL].i = blocked[i][3];
    verify(context, i, &c);
  }
  compute_end(context);
}
END_TEST

TEST_UNCHECKED static void add_product(double *sum, double *size, float a, float b) {
  compute_add(sum, size, 0, a * (double)b);
}

/* One product with random strides for A, B and what is added; B packed, or not. */
static void verify_product(const lamina_context *context, test_random *r, int64_t m, int64_t n, int64_t k,
                           float *result) {
  const int a_turned = (int)test_random_below(r, 2), b_turned = (int)test_random_below(r, 2),
            packed = (int)test_random_below(r, 2);
  const int64_t gap = test_random_below(r, 3), a_ld = (a_turned ? m : k) + gap, b_ld = (b_turned ? k : n) + gap,
                c_ld = n + gap;
  lamina_gemm g = {.size = sizeof g,
                   .m = m,
                   .n = n,
                   .k = k,
                   .a_row = a_turned ? 1 : a_ld,
                   .a_k = a_turned ? a_ld : 1,
                   .b_k = b_turned ? 1 : b_ld,
                   .b_n = b_turned ? b_ld : 1,
                   .c = result,
                   .c_row = c_ld,
                   .add_row = c_ld,
                   .accumulate = (int)test_random_below(r, 2),
                   .lo = -INFINITY,
                   .hi = INFINITY};
  float *a = malloc((size_t)((m + k) * (m + k + gap) + 1) * sizeof *a),
        *b = malloc((size_t)((n + k) * (n + k + gap) + 1) * sizeof *b);
  float *before = malloc((size_t)(m * c_ld + 1) * sizeof *before), *add = malloc((size_t)(m * c_ld + 1) * sizeof *add);
  float *bias = malloc((size_t)n * sizeof *bias);
  test_random_fill(r, a, (m + k) * (m + k + gap), -1, 1);
  test_random_fill(r, b, (n + k) * (n + k + gap), -1, 1);
  test_random_fill(r, before, m * c_ld, -1, 1);
  test_random_fill(r, add, m * c_ld, -1, 1);
  test_random_fill(r, bias, n, -1, 1);
  memcpy(result, before, (size_t)(m * c_ld) * sizeof *before);
  g.a = k ? a : NULL;
  g.b = k ? b : NULL;
  if (test_random_below(r, 2)) g.bias = bias;
  if (test_random_below(r, 2)) g.add = add;
  if (test_random_below(r, 2)) g.lo = -0.5f, g.hi = 2;
  guarded pack = guarded_new((int64_t)(lamina_gemm_packed_bytes(context, k, n) / sizeof(float)) + 1, GUARD_START);
  if (packed) lamina_gemm_pack_b(context, k, n, b, g.b_k, g.b_n, NULL, pack.data), g.b_packed = pack.data;
  guarded workspace = guarded_new((int64_t)(lamina_gemm_workspace(context, &g) / sizeof(float)) + 1, GUARD_START);
  g.workspace = workspace.data;
  lamina_gemm_run(context, &g);
  for (int64_t i = 0; i < m * n; i++) {
    const int64_t row = i / n, column = i % n, at = row * c_ld + column;
    double want = 0, size = 0;
    for (int64_t p = 0; p < k; p++) add_product(&want, &size, a[row * g.a_row + p * g.a_k], b[p * g.b_k + column * g.b_n]);
    if (g.accumulate) compute_add(&want, &size, 0, before[at]);
    if (g.bias) compute_add(&want, &size, 0, bias[column]);
    if (g.add) compute_add(&want, &size, 0, add[at]);
    want = fmin(fmax(want, g.lo), g.hi);
    test_that(fabs(result[at] - want) <= 2e-6 * size, "%lldx%lldx%lld at %lld, %lld: %g, not %g", (long long)m,
                  (long long)n, (long long)k, (long long)row, (long long)column, (double)result[at], want);
  }
  for (int64_t row = 0; row < m; row++)
    for (int64_t i = n; i < c_ld; i++)
      test_that(result[row * c_ld + i] == before[row * c_ld + i], "written between rows, at %lld", (long long)i);
  ck_assert(guarded_free(&workspace) && guarded_free(&pack));
  free(a), free(b), free(before), free(add), free(bias);
}

START_TEST(products_equal_double) {
  lamina_context *context[COMPUTE_HOSTS];
  compute_begin(context);
  test_random random = test_random_for("products");
  const int64_t edges[] = {0, 1, 13, 14, 15, 31, 32, 33, 64, 100, 257};
  const int64_t count = (int64_t)(sizeof edges / sizeof *edges);
  for (int i = 0; i < 150; i++) {
    int64_t size[3];
    for (int d = 0; d < 3; d++) size[d] = edges[test_random_below(&random, count)];
    if (i == 0) size[0] = 40, size[1] = 64, size[2] = 1024;
    if (i == 1) size[0] = 64, size[1] = 100, size[2] = 2100;
    if (size[0] == 0 || size[1] == 0) size[2] = 5;
    float *one = malloc((size_t)(size[0] * (size[1] + 3) + 1) * sizeof *one),
          *other = malloc((size_t)(size[0] * (size[1] + 3) + 1) * sizeof *other);
    const test_random start = random;
    verify_product(context[0], &random, size[0], size[1], size[2], one);
    const int h = 1 + i % (COMPUTE_HOSTS - 1);
    random = start;
    verify_product(context[h], &random, size[0], size[1], size[2], other);
    if (size[0])
      test_that(memcmp(one, other, (size_t)(size[0] * size[1]) * sizeof *one) == 0, "%d threads give other bits",
                    compute_threads[h]);
    free(one), free(other);
  }
  compute_end(context);
}
END_TEST

START_TEST(sizes_that_overflow_are_refused) {
  lamina_context *context[COMPUTE_HOSTS];
  compute_begin(context);
  ck_assert_uint_eq(lamina_gemm_packed_bytes(context[0], INT64_MAX, 2), SIZE_MAX);
  ck_assert_uint_eq(lamina_gemm_packed_bytes(context[0], INT64_MAX / 8, 1 << 20), SIZE_MAX);
  compute_case c = {.layer = &lamina_layer_linear};
  c.x = (lamina_tensor){.rank = 2, .dim = {1, 10}};
  c.attrs[OUT_FEATURES].i = 4;
  c.attrs[IN_SPATIAL].i = 3;
  compute_refused(&c, LAMINA_SHAPE_MISMATCH, "in_spatial");
  compute_end(context);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("linear");
  TCase *t = tcase_create("linear");
  tcase_set_timeout(t, 120);
  tcase_add_loop_test(t, random_layers_equal_double, 0, 3);
  tcase_add_test(t, blocked_layers_equal_double);
  tcase_add_test(t, products_equal_double);
  tcase_add_test(t, sizes_that_overflow_are_refused);
  suite_add_tcase(suite, t);
  return compute_main(suite);
}
