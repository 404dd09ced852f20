/* SPDX-License-Identifier: Apache-2.0 */
/* batch_norm: PyTorch's semantics, and accuracy where fp32 sums fail. */
#include "layer_test.h"

enum { WEIGHT, BIAS, MEAN, VAR, COUNT };

/* Mean and biased variance of one channel of a dense matrix. */
static void statistics(const double *x, int64_t rows, int64_t channels, int64_t c, double *mean, double *var) {
  *mean = *var = 0;
  for (int64_t r = 0; r < rows; r++) *mean += x[r * channels + c] / (double)rows;
  for (int64_t r = 0; r < rows; r++) {
    double d = x[r * channels + c] - *mean;
    *var += d * d / (double)rows;
  }
}

static void reference(const layer_case *c, double *const *in, double *const *par, double *out) {
  int64_t channels = c->inputs[0].dim[c->inputs[0].rank - 1], rows = case_count(&c->inputs[0]) / channels;
  for (int64_t i = 0; i < channels; i++) {
    double mean, var;
    if (c->node.mode == LAMINA_TRAIN || !c->attrs[3].i) {
      statistics(in[0], rows, channels, i, &mean, &var);
    } else {
      mean = par[MEAN][i];
      var = par[VAR][i];
    }
    double scale = (par[WEIGHT] ? par[WEIGHT][i] : 1) / sqrt(var + c->attrs[0].f);
    for (int64_t r = 0; r < rows; r++) {
      out[r * channels + i] = (in[0][r * channels + i] - mean) * scale + (par[BIAS] ? par[BIAS][i] : 0);
    }
  }
}

START_TEST(forward_and_backward_follow_the_formula_for_any_rank) {
  const char *shapes[] = {"8x3", "2x3x3x4", "2x5x3", "3x2x2x2x2", "9x1", "5x17", "4x1"};
  const char *attributes[] = {"", "affine=false", "eps=0.1", "track_running_stats=false"};
  for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
    for (int a = 0; a < 4; a++) {
      case_verify(&lamina_layer_batch_norm, LAMINA_TRAIN, attributes[a], shapes[s], reference, 5e-6);
      case_verify(&lamina_layer_batch_norm, LAMINA_INFER, attributes[a], shapes[s], reference, 5e-6);
    }
  }
}
END_TEST

static void begin(layer_case *c, lamina_mode mode, const char *attributes, const char *shape, float lo, float hi) {
  case_begin(c, &lamina_layer_batch_norm, mode, attributes);
  case_input(c, shape);
  ck_assert_int_eq(case_infer(c), LAMINA_OK);
  ck_assert_int_eq(case_prepare(c, lo, hi), LAMINA_OK);
}

static void running_statistics_over_batches(const char *attributes) {
  layer_case c;
  double mean[3], var[3];
  begin(&c, LAMINA_TRAIN, attributes, "10x3", -1, 1);
  for (int i = 0; i < 3; i++) {
    mean[i] = *case_at(&c.params[MEAN], i);
    var[i] = *case_at(&c.params[VAR], i);
  }
  for (int batch = 1; batch <= 5; batch++) {
    test_random_fill(&c.random, c.inputs[0].data, 30, (float)-batch, (float)(2 * batch));
    ck_assert_int_eq(case_forward(&c), LAMINA_OK);
    ck_assert_int_eq(*(int64_t *)c.params[COUNT].data, batch);
    double *x = case_doubles(&c.inputs[0]), factor = isnan(c.attrs[1].f) ? 1.0 / batch : c.attrs[1].f;
    for (int i = 0; i < 3; i++) {
      double m, v;
      statistics(x, 10, 3, i, &m, &v);
      mean[i] = (1 - factor) * mean[i] + factor * m;
      var[i] = (1 - factor) * var[i] + factor * v * 10 / 9;
      ck_assert_double_eq_tol(*case_at(&c.params[MEAN], i), mean[i], 1e-6 * (1 + fabs(mean[i])));
      ck_assert_double_eq_tol(*case_at(&c.params[VAR], i), var[i], 1e-6 * (1 + var[i]));
    }
    free(x);
  }
  case_end(&c);
}

START_TEST(running_statistics_are_pytorchs) {
  running_statistics_over_batches("");
  running_statistics_over_batches("momentum=0.3");
  running_statistics_over_batches("momentum=none");
  running_statistics_over_batches("momentum=1 affine=false");
  running_statistics_over_batches("momentum=0");
}
END_TEST

START_TEST(inference_leaves_states_alone_and_equals_the_affine_map) {
  layer_case c;
  float scale[5], shift[5];
  begin(&c, LAMINA_INFER, "", "4x5", -1, 1);
  double *before = case_doubles(&c.params[MEAN]);
  case_forward(&c);
  ck_assert_int_eq(c.layer->affine(&c.node, NULL, NULL), LAMINA_OK);
  ck_assert_int_eq(c.layer->affine(&c.node, scale, shift), LAMINA_OK);
  ck_assert_int_eq(*(int64_t *)c.params[COUNT].data, 0);
  for (int i = 0; i < 5; i++) ck_assert_double_eq(*case_at(&c.params[MEAN], i), before[i]);
  for (int i = 0; i < 20; i++) {
    double y = scale[i % 5] * (double)*case_at(&c.inputs[0], i) + shift[i % 5];
    ck_assert_double_eq_tol(*case_at(&c.outputs[0], i), y, 1e-5);
  }
  free(before);
  case_end(&c);
  begin(&c, LAMINA_INFER, "track_running_stats=false", "4x5", -1, 1);
  ck_assert_int_ne(c.layer->affine(&c.node, scale, shift), LAMINA_OK);
  case_end(&c);
}
END_TEST

START_TEST(training_needs_more_than_one_value_per_channel) {
  layer_case c;
  case_refused(&lamina_layer_batch_norm, "", "1x1x1x7", "more than 1 value per channel|1x1x1x7");
  case_refused(&lamina_layer_batch_norm, "track_running_stats=false", "1x7", "more than 1 value per channel|1x7");
  begin(&c, LAMINA_INFER, "", "1x7", -1, 1);
  ck_assert_int_eq(case_forward(&c), LAMINA_OK);
  case_end(&c);
}
END_TEST

START_TEST(adds_and_clamps_in_the_same_pass) {
  for (int mode = LAMINA_INFER; mode <= LAMINA_TRAIN; mode++) {
    layer_case plain, fused, other;
    begin(&plain, (lamina_mode)mode, "", "3x4x5", -1, 1);
    begin(&fused, (lamina_mode)mode, "", "3x4x5", -1, 1);
    begin(&other, (lamina_mode)mode, "", "3x4x5", -1, 1);
    fused.node.epilogue = (lamina_epilogue){.size = sizeof(lamina_epilogue),
                                            .lo = 0,
                                            .hi = 1,
                                            .parts = LAMINA_EPILOGUE_ADD | LAMINA_EPILOGUE_CLAMP,
                                            .add = other.inputs[0]};
    case_forward(&plain);
    case_forward(&fused);
    for (int64_t i = 0; i < 60; i++) {
      float want = fminf(fmaxf(*case_at(&plain.outputs[0], i) + *case_at(&other.inputs[0], i), 0), 1);
      ck_assert_float_eq_tol(*case_at(&fused.outputs[0], i), want, 1e-6f);
    }
    case_end(&plain);
    case_end(&fused);
    case_end(&other);
  }
}
END_TEST

/* A large batch around `mean`: variance to 1e-6 and everything that follows from it. */
static void large_batch(const char *shape, int64_t padding, float mean, float deviation) {
  layer_case c;
  case_begin(&c, &lamina_layer_batch_norm, LAMINA_TRAIN, "momentum=1 eps=0");
  c.padding = padding;
  case_input(&c, shape);
  case_infer(&c);
  ck_assert_int_eq(case_prepare(&c, mean - 1.7320508f * deviation, mean + 1.7320508f * deviation), LAMINA_OK);
  ck_assert_int_eq(case_forward(&c), LAMINA_OK);
  case_backward(&c, 1, 3, 0);
  ck_assert_int_eq(c.kernel->backward(&c.node), LAMINA_OK);
  double *x = case_doubles(&c.inputs[0]), *dy = case_doubles(&c.d_outputs[0]);
  int64_t channels = c.inputs[0].dim[c.inputs[0].rank - 1], rows = case_count(&c.inputs[0]) / channels;
  for (int64_t i = 0; i < channels; i += 1 + channels / 8) {
    double m, v, s1 = 0, s2 = 0, size = 0;
    statistics(x, rows, channels, i, &m, &v);
    double unbiased = v * (double)rows / (double)(rows - 1), r = 1 / sqrt(v), w = *case_at(&c.params[WEIGHT], i);
    test_that(fabs(*case_at(&c.params[VAR], i) / unbiased - 1) < 1e-6, "%s: variance of channel %lld off by %.3g",
                  shape, (long long)i, *case_at(&c.params[VAR], i) / unbiased - 1);
    ck_assert_double_eq_tol(*case_at(&c.params[MEAN], i), m, 1e-7 * fabs(m) + 1e-6 * sqrt(v));
    for (int64_t k = i; k < rows * channels; k += channels) {
      s1 += dy[k];
      s2 += dy[k] * (x[k] - m);
      size += fabs(dy[k]);
    }
    ck_assert_double_eq_tol(*case_at(&c.d_params[BIAS], i), s1, 1e-6 * size);
    ck_assert_double_eq_tol(*case_at(&c.d_params[WEIGHT], i), r * s2, 2e-6 * size);
    for (int64_t k = i; k < rows * channels; k += channels * (1 + rows / 50)) {
      double y = (x[k] - m) * r * w + *case_at(&c.params[BIAS], i);
      double dx = w * r * (dy[k] - s1 / (double)rows - (x[k] - m) * r * r * s2 / (double)rows);
      test_that(fabs(*case_at(&c.outputs[0], k) - y) < 5e-6, "%s: y is %.9g, not %.9g", shape,
                    *case_at(&c.outputs[0], k), y);
      test_that(fabs(*case_at(&c.d_inputs[0], k) - dx) < 5e-6 * w * r, "%s: dx is %.9g, not %.9g", shape,
                    *case_at(&c.d_inputs[0], k), dx);
    }
  }
  free(x);
  free(dy);
  case_end(&c);
}

START_TEST(variance_is_right_to_1e_6_at_mean_1e4_and_deviation_1e_2) {
  large_batch("700000x3", 0, 1e4f, 1e-2f);
  large_batch("32x56x56x20", 0, 1e4f, 1e-2f);
  large_batch("8x28x28x256", 0, 1e4f, 1e-2f);
  large_batch("64x512", 0, 1e4f, 1e-2f);
}
END_TEST

START_TEST(odd_channels_and_padded_rows_are_right_at_size) {
  large_batch("1000x1", 0, 0.5f, 1);
  large_batch("4x31x29x17", 7, -3, 2);
  large_batch("130x513", 3, 0, 1);
  large_batch("257x1030", 0, 1, 1);
  large_batch("3x2049", 1, 1, 1);
}
END_TEST

/* Blocks that differ wildly from one another: the shift of a block is not the mean of the next one. */
START_TEST(drifting_means_do_not_spoil_the_variance) {
  layer_case c;
  begin(&c, LAMINA_TRAIN, "momentum=1", "60000x5", 0, 1);
  for (int64_t i = 0; i < 300000; i++) *case_at(&c.inputs[0], i) += (float)(i / 5 / 700 % 7) * 1000.0f;
  ck_assert_int_eq(case_forward(&c), LAMINA_OK);
  double *x = case_doubles(&c.inputs[0]);
  for (int i = 0; i < 5; i++) {
    double m, v;
    statistics(x, 60000, 5, i, &m, &v);
    ck_assert_double_eq_tol(*case_at(&c.params[VAR], i) / (v * 60000 / 59999), 1, 2e-6);
  }
  free(x);
  case_end(&c);
}
END_TEST

START_TEST(a_constant_channel_has_no_variance) {
  layer_case c;
  begin(&c, LAMINA_TRAIN, "momentum=1", "3000x4", 0.1f, 0.1f);
  ck_assert_int_eq(case_forward(&c), LAMINA_OK);
  for (int i = 0; i < 4; i++) {
    ck_assert_float_ge(*case_at(&c.params[VAR], i), 0);
    ck_assert_float_le(*case_at(&c.params[VAR], i), 1e-12f);
  }
  case_end(&c);
}
END_TEST

/* Running statistics are constants: dx = dy * weight / deviation, whatever the batch is. */
static void frozen(const char *attributes, const char *shape, uint64_t params, int clamp) {
  layer_case c;
  case_begin(&c, &lamina_layer_batch_norm, LAMINA_TRAIN, attributes);
  c.node.frozen_states = 1;
  case_input(&c, shape);
  ck_assert_int_eq(case_infer(&c), LAMINA_OK);
  ck_assert_int_eq(case_prepare(&c, -2, 2), LAMINA_OK);
  if (clamp) {
    c.node.epilogue = (lamina_epilogue){.size = sizeof(lamina_epilogue), .parts = LAMINA_EPILOGUE_CLAMP, .hi = INFINITY};
  }
  double *mean = case_doubles(&c.params[MEAN]), *var = case_doubles(&c.params[VAR]);
  ck_assert_int_eq(case_forward(&c), LAMINA_OK);
  case_backward(&c, 1, params, 0);
  ck_assert_int_eq(c.kernel->backward(&c.node), LAMINA_OK);
  double *x = case_doubles(&c.inputs[0]), *dy = case_doubles(&c.d_outputs[0]);
  int64_t channels = c.inputs[0].dim[c.inputs[0].rank - 1], rows = case_count(&c.inputs[0]) / channels;
  for (int64_t i = 0; i < channels; i++) {
    double r = 1 / sqrt(var[i] + c.attrs[0].f), w = c.params[WEIGHT].rank < 0 ? 1 : *case_at(&c.params[WEIGHT], i), s1 = 0, s2 = 0;
    double b = c.params[BIAS].rank < 0 ? 0 : *case_at(&c.params[BIAS], i);
    test_that(*case_at(&c.params[MEAN], i) == (float)mean[i] && *case_at(&c.params[VAR], i) == (float)var[i], "changed");
    for (int64_t k = i; k < rows * channels; k += channels) {
      double y = (x[k] - mean[i]) * r * w + b, d = clamp && y <= 0 ? 0 : dy[k];
      s1 += d;
      s2 += d * (x[k] - mean[i]);
      if (clamp && fabs(y) < 1e-4) continue;
      test_that(fabs(*case_at(&c.outputs[0], k) - (clamp ? fmax(y, 0) : y)) < 1e-5, "%s: y", shape);
      test_that(fabs(*case_at(&c.d_inputs[0], k) - d * w * r) < 1e-5, "%s: dx is %g, not %g", shape,
                *case_at(&c.d_inputs[0], k), d * w * r);
    }
    if (params & 1) test_that(fabs(*case_at(&c.d_params[WEIGHT], i) - r * s2) < 1e-5 * (double)rows, "%s: dweight", shape);
    if (params & 2) test_that(fabs(*case_at(&c.d_params[BIAS], i) - s1) < 1e-5 * (double)rows, "%s: dbias", shape);
  }
  ck_assert_int_eq(*(int64_t *)c.params[COUNT].data, 0);
  free(mean);
  free(var);
  free(x);
  free(dy);
  case_end(&c);
}

START_TEST(frozen_statistics_are_used_and_kept_in_training) {
  for (int clamp = 0; clamp < 2; clamp++) {
    frozen("", "6x5x4x17", 0, clamp);
    frozen("", "300x70", 3, clamp);
    frozen("", "1x5", 3, clamp); /* one value for each channel is enough */
    frozen("affine=false eps=0.1", "40x3", 0, clamp);
  }
}
END_TEST

Suite *batch_norm_suite(void) {
  Suite *suite = suite_create("batch_norm");
  TCase *t = tcase_create("batch_norm");
  tcase_set_timeout(t, 240);
  tcase_add_test(t, forward_and_backward_follow_the_formula_for_any_rank);
  tcase_add_test(t, running_statistics_are_pytorchs);
  tcase_add_test(t, inference_leaves_states_alone_and_equals_the_affine_map);
  tcase_add_test(t, training_needs_more_than_one_value_per_channel);
  tcase_add_test(t, adds_and_clamps_in_the_same_pass);
  tcase_add_test(t, frozen_statistics_are_used_and_kept_in_training);
  tcase_add_test(t, variance_is_right_to_1e_6_at_mean_1e4_and_deviation_1e_2);
  tcase_add_test(t, odd_channels_and_padded_rows_are_right_at_size);
  tcase_add_test(t, drifting_means_do_not_spoil_the_variance);
  tcase_add_test(t, a_constant_channel_has_no_variance);
  suite_add_tcase(suite, t);
  return suite;
}
