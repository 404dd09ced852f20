/* SPDX-License-Identifier: Apache-2.0 */
/* Batch statistics stay exact where E[x^2] - E[x]^2 has no digit left: mean 1e4, deviation 1e-2, ten million values. */
#include "net_test.h"

#define CHANNELS 10

/* mean and unbiased variance of a channel of what is really in memory, in double, in two passes. */
static void reference(const float *x, int64_t rows, int channel, double *mean, double *variance) {
  long double sum = 0, squares = 0;
  for (int64_t i = 0; i < rows; i++) sum += x[i * CHANNELS + channel];
  *mean = (double)(sum / (long double)rows);
  for (int64_t i = 0; i < rows; i++) {
    const long double d = x[i * CHANNELS + channel] - (sum / (long double)rows);
    squares += d * d;
  }
  *variance = (double)(squares / (long double)rows);
}

static const float *state(net *n, const char *name) {
  lamina_parameter parameter = {.size = sizeof parameter};
  NET_OK(n->context, lamina_graph_parameter_find(n->graph, name, &parameter));
  return parameter.tensor.data;
}

/* y is checked against the exact statistics; what fp32 itself allows is half an ulp of each of its few operations. */
static void check_outputs(net *n, const float *x, int64_t rows, int channel, double mean, double variance) {
  const lamina_tensor y = net_output(n);
  const double scale = 1 / sqrt(variance + 1e-5);
  double worst = 0, largest = 0;
  for (int64_t i = 0; i < rows; i++) {
    const double exact = (x[i * CHANNELS + channel] - mean) * scale;
    worst = fmax(worst, fabs(((const float *)y.data)[i * CHANNELS + channel] - exact));
    largest = fmax(largest, fabs(exact));
  }
  printf("channel %d: y off by %.2e of %.3g\n", channel, worst, largest);
  test_that(worst <= n->spec->flags * 1e-6 * largest, "channel %d: y is off by %.3g of %.3g", channel, worst,
                largest);
}

static void check_statistics(const net_case *spec, double centre, double deviation) {
  test_random random = test_random_for(spec->name);
  lamina_context *context = net_context(2);
  net n;
  net_open(&n, context, spec, (lamina_plan_options){.mode = LAMINA_TRAIN}, &random);
  float *x = n.data[0].data;
  const int64_t rows = lamina_tensor_count(&n.data[0]) / CHANNELS;
  for (int64_t i = 0; i < rows * CHANNELS; i++) {
    /* A sum of uniforms: near enough to a normal distribution, and of the wanted deviation. */
    const double u =
        test_random_float(&random, -1, 1) + test_random_float(&random, -1, 1) + test_random_float(&random, -1, 1);
    x[i] = (float)(centre + deviation * u);
  }
  NET_OK(context, lamina_exec_forward(n.exec));
  const float *running_mean = state(&n, "b.running_mean"), *running_var = state(&n, "b.running_var");
  for (int c = 0; c < CHANNELS; c++) {
    double mean, variance;
    reference(x, rows, c, &mean, &variance);
    const double unbiased = variance * (double)rows / ((double)rows - 1);
    const double error = fabs(running_var[c] - unbiased) / unbiased;
    printf("channel %d: variance off by %.2e, mean by %.2e\n", c, error, fabs(running_mean[c] - mean) / fabs(mean));
    test_that(error < 1e-6, "channel %d: variance %.9g, exactly %.9g: off by %.3g", c, running_var[c], unbiased,
                  error);
    /* The mean is stored in fp32. */
    ck_assert_double_le(fabs(running_mean[c] - mean), 0x1p-24 * fabs(mean) * 1.01 + 1e-12);
    check_outputs(&n, x, rows, c, mean, variance);
  }
  fflush(stdout);
  net_close(&n);
  lamina_context_destroy(context);
}

START_TEST(variance_far_from_zero_is_exact_to_1e_6) {
  const net_case spec = {"far from zero",
                         100,
                         {{"x", 3, {100, 100, CHANNELS}, 0, NET_UNIFORM}},
                         {{"batch_norm", "b", "x", "momentum=1 affine=false"}},
                         NULL,
                         1};
  check_statistics(&spec, 1e4, 1e-2);
}
END_TEST

START_TEST(variance_around_zero_is_exact_to_1e_6) {
  const net_case spec = {"around zero",
                         100,
                         {{"x", 3, {100, 100, CHANNELS}, 0, NET_UNIFORM}},
                         {{"batch_norm", "b", "x", "momentum=1 affine=false"}},
                         NULL,
                         1};
  check_statistics(&spec, 0.5, 1);
}
END_TEST

START_TEST(few_rows_are_exact_too) {
  const net_case spec = {
      "few rows", 7, {{"x", 1, {CHANNELS}, 0, NET_UNIFORM}}, {{"batch_norm", "b", "x", "momentum=1 affine=false"}},
      NULL,       1};
  check_statistics(&spec, -3e3, 1e-2);
}
END_TEST

int main(void) {
  test_print_seed();
  if (net_isa_is_absent()) return TEST_SKIPPED;
  Suite *suite = suite_create("batch norm accuracy");
  TCase *cases = tcase_create("statistics");
  tcase_set_timeout(cases, 200);
  tcase_add_test(cases, variance_far_from_zero_is_exact_to_1e_6);
  tcase_add_test(cases, variance_around_zero_is_exact_to_1e_6);
  tcase_add_test(cases, few_rows_are_exact_too);
  suite_add_tcase(suite, cases);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_ENV);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
