/* SPDX-License-Identifier: Apache-2.0 */
/* softmax, softmax_cross_entropy and mse_loss. */
#include "layer_test.h"

static void softmax_row(const double *x, double *y, int64_t n) {
  double max = x[0], sum = 0;
  for (int64_t k = 1; k < n; k++) max = fmax(max, x[k]);
  for (int64_t k = 0; k < n; k++) sum += y[k] = exp(x[k] - max);
  for (int64_t k = 0; k < n; k++) y[k] /= sum;
}

static void softmax_reference(const layer_case *c, double *const *in, double *const *par, double *out) {
  int64_t n = c->inputs[0].dim[c->inputs[0].rank - 1];
  for (int64_t i = 0; i < case_count(&c->outputs[0]); i += n) softmax_row(in[0] + i, out + i, n);
}

static void cross_entropy_reference(const layer_case *c, double *const *in, double *const *par, double *out) {
  int64_t n = c->inputs[0].dim[c->inputs[0].rank - 1], rows = case_count(&c->inputs[1]);
  double *y = malloc((size_t)n * sizeof *y), smoothing = c->attrs[0].f;
  out[0] = 0;
  for (int64_t r = 0; r < rows; r++) {
    softmax_row(in[0] + r * n, y, n);
    for (int64_t k = 0; k < n; k++) {
      double target = smoothing / (double)n + (k == (int64_t)in[1][r] ? 1 - smoothing : 0);
      out[0] -= target * log(y[k]) / (double)rows;
    }
  }
  free(y);
}

static void mse_reference(const layer_case *c, double *const *in, double *const *par, double *out) {
  int64_t n = case_count(&c->inputs[0]);
  out[0] = 0;
  for (int64_t i = 0; i < n; i++) out[0] += (in[0][i] - in[1][i]) * (in[0][i] - in[1][i]) / (double)n;
}

START_TEST(softmax_and_losses_follow_their_formulas) {
  case_verify(&lamina_layer_softmax, LAMINA_TRAIN, "", "3x10", softmax_reference, 1e-6);
  case_verify(&lamina_layer_softmax, LAMINA_TRAIN, "", "2x2x19", softmax_reference, 1e-6);
  case_verify(&lamina_layer_softmax, LAMINA_TRAIN, "", "2x1", softmax_reference, 1e-6);
  for (int mode = LAMINA_INFER; mode <= LAMINA_TRAIN; mode++) {
    case_verify(&lamina_layer_softmax_cross_entropy, (lamina_mode)mode, "", "7x10 7", cross_entropy_reference, 1e-6);
    case_verify(&lamina_layer_softmax_cross_entropy, (lamina_mode)mode, "label_smoothing=0.1", "5x17 5",
                cross_entropy_reference, 1e-6);
    case_verify(&lamina_layer_softmax_cross_entropy, (lamina_mode)mode, "", "2x3x4 2x3", cross_entropy_reference, 1e-6);
    case_verify(&lamina_layer_mse_loss, (lamina_mode)mode, "", "3x4x5 3x4x5", mse_reference, 1e-6);
    case_verify(&lamina_layer_mse_loss, (lamina_mode)mode, "", "9 9", mse_reference, 1e-6);
  }
}
END_TEST

START_TEST(losses_of_many_values_are_exact_and_do_not_depend_on_threads) {
  const lamina_layer *layers[] = {&lamina_layer_softmax_cross_entropy, &lamina_layer_mse_loss};
  const char *second[] = {"3000", "3000x20"};
  for (int l = 0; l < 2; l++) {
    float first = 0;
    for (int order = 0; order < 6; order++) {
      layer_case c;
      case_set_order((task_order)(order % 3), 1 + order);
      case_begin(&c, layers[l], LAMINA_TRAIN, "");
      c.padding = order < 3 ? 0 : 4;
      case_input(&c, "3000x20");
      case_input(&c, second[l]);
      case_infer(&c);
      case_prepare(&c, -3, 3);
      case_forward(&c);
      float loss = *(float *)c.outputs[0].data;
      double want, *in[2] = {case_doubles(&c.inputs[0]), case_doubles(&c.inputs[1])};
      if (l == 0)
        cross_entropy_reference(&c, in, NULL, &want);
      else
        mse_reference(&c, in, NULL, &want);
      ck_assert_double_eq_tol(loss, want, 3e-7 * want);
      if (order % 3 == 0) first = loss;
      ck_assert_float_eq(loss, first);
      free(in[0]);
      free(in[1]);
      case_end(&c);
    }
  }
}
END_TEST

START_TEST(cross_entropy_stands_large_logits) {
  layer_case c;
  case_begin(&c, &lamina_layer_softmax_cross_entropy, LAMINA_TRAIN, "");
  case_input(&c, "2x3");
  case_input(&c, "2");
  case_infer(&c);
  case_prepare(&c, 0, 1);
  const float logits[] = {1000, 1001, 999, 0, 500, -500};
  memcpy(c.inputs[0].data, logits, sizeof logits);
  ((int32_t *)c.inputs[1].data)[0] = 1;
  ((int32_t *)c.inputs[1].data)[1] = 0;
  case_forward(&c);
  double want = (log(exp(-1) + 1 + exp(-2)) + 500) / 2;
  ck_assert_double_eq_tol(*(float *)c.outputs[0].data, want, 1e-6 * want);
  case_end(&c);
}
END_TEST

START_TEST(a_label_out_of_range_is_named) {
  const int32_t bad[] = {10, -1, INT32_MAX};
  for (int i = 0; i < 3; i++) {
    char label[32];
    layer_case c;
    case_begin(&c, &lamina_layer_softmax_cross_entropy, LAMINA_TRAIN, "");
    case_input(&c, "4x10");
    case_input(&c, "4");
    case_infer(&c);
    case_prepare(&c, 0, 1);
    ((int32_t *)c.inputs[1].data)[2] = bad[i];
    ck_assert_int_eq(case_forward(&c), LAMINA_INVALID_ARGUMENT);
    snprintf(label, sizeof label, "sample 2 has label %d", bad[i]);
    test_that(strstr(case_message(), label) && strstr(case_message(), "0 to 9"), "%s", case_message());
    case_end(&c);
  }
}
END_TEST

void loss_tests(TCase *t) {
  tcase_add_test(t, softmax_and_losses_follow_their_formulas);
  tcase_add_test(t, losses_of_many_values_are_exact_and_do_not_depend_on_threads);
  tcase_add_test(t, cross_entropy_stands_large_logits);
  tcase_add_test(t, a_label_out_of_range_is_named);
}
