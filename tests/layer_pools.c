/* SPDX-License-Identifier: Apache-2.0 */
/* max_pool2d, avg_pool2d and global_avg_pool against PyTorch's definition of a window. */
#include "layer_test.h"

/* Visits the windows of a pooling layer as PyTorch defines them; attributes: kernel, stride, padding, ceil_mode, extra.
 */
static void pool_reference(const layer_case *c, const double *x, double *y, int average) {
  const int64_t *xd = c->inputs[0].dim, *yd = c->outputs[0].dim;
  const lamina_value *a = c->attrs;
  int64_t at = 0;
  for (int64_t n = 0; n < yd[0]; n++)
    for (int64_t oh = 0; oh < yd[1]; oh++)
      for (int64_t ow = 0; ow < yd[2]; ow++)
        for (int64_t ch = 0; ch < yd[3]; ch++, at++) {
          int64_t sh = a[1].ints[0] ? a[1].ints[0] : a[0].ints[0], sw = a[1].ints[1] ? a[1].ints[1] : a[0].ints[1];
          double sum = 0, best = -INFINITY;
          int64_t inside = 0, padded = 0;
          for (int64_t i = 0; i < a[0].ints[0]; i++)
            for (int64_t j = 0; j < a[0].ints[1]; j++) {
              int64_t h = oh * sh - a[2].ints[0] + i * (average ? 1 : a[4].ints[0]);
              int64_t w = ow * sw - a[2].ints[1] + j * (average ? 1 : a[4].ints[1]);
              padded += h < xd[1] + a[2].ints[0] && w < xd[2] + a[2].ints[1];
              if (h < 0 || h >= xd[1] || w < 0 || w >= xd[2]) continue;
              double v = x[((n * xd[1] + h) * xd[2] + w) * xd[3] + ch];
              sum += v;
              best = fmax(best, v);
              inside++;
            }
          y[at] = average ? sum / (double)(a[4].i ? padded : inside) : best;
        }
}

static void max_reference(const layer_case *c, double *const *in, double *const *par, double *out) {
  pool_reference(c, in[0], out, 0);
}
static void average_reference(const layer_case *c, double *const *in, double *const *par, double *out) {
  pool_reference(c, in[0], out, 1);
}

START_TEST(pooling_follows_pytorch) {
  const char *attributes[] = {"kernel=2",
                              "kernel=2 padding=1",
                              "kernel=3,2",
                              "kernel=4,3 padding=2,1 ceil_mode=true",
                              "kernel=3 stride=2 padding=1",
                              "kernel=3 stride=1 padding=1",
                              "kernel=2,3 stride=3,1 padding=1,0",
                              "kernel=3 stride=2 ceil_mode=true",
                              "kernel=3 stride=2 padding=1 ceil_mode=true",
                              "kernel=5,4"};
  for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++) {
    char text[128];
    case_verify(&lamina_layer_max_pool2d, LAMINA_TRAIN, attributes[i], "2x6x5x3", max_reference, 1e-6);
    case_verify(&lamina_layer_max_pool2d, LAMINA_TRAIN, attributes[i], "1x5x4x17", max_reference, 1e-6);
    case_verify(&lamina_layer_avg_pool2d, LAMINA_TRAIN, attributes[i], "2x6x5x3", average_reference, 1e-6);
    snprintf(text, sizeof text, "%s count_include_pad=false", attributes[i]);
    case_verify(&lamina_layer_avg_pool2d, LAMINA_TRAIN, text, "2x5x4x5", average_reference, 1e-6);
  }
  case_verify(&lamina_layer_max_pool2d, LAMINA_TRAIN, "kernel=2 stride=1 dilation=2", "2x6x5x3", max_reference, 1e-6);
  case_verify(&lamina_layer_max_pool2d, LAMINA_TRAIN, "kernel=3,2 stride=2 dilation=2,3 padding=1", "1x7x8x4",
              max_reference, 1e-6);
}
END_TEST

static void shape_of(const lamina_layer *layer, const char *attributes, const char *input, int64_t h, int64_t w) {
  layer_case c;
  case_begin(&c, layer, LAMINA_INFER, attributes);
  case_input(&c, input);
  ck_assert_int_eq(case_infer(&c), LAMINA_OK);
  ck_assert_int_eq(c.outputs[0].dim[1], h);
  ck_assert_int_eq(c.outputs[0].dim[2], w);
}

START_TEST(pooling_shapes_are_pytorchs) {
  shape_of(&lamina_layer_max_pool2d, "kernel=3 stride=2 padding=1", "1x112x112x64", 56, 56);
  shape_of(&lamina_layer_max_pool2d, "kernel=3 stride=2 ceil_mode=true", "1x112x111x64", 56, 55);
  shape_of(&lamina_layer_max_pool2d, "kernel=2 stride=2 padding=1 ceil_mode=true", "1x5x6x1", 3, 4);
  shape_of(&lamina_layer_avg_pool2d, "kernel=1 stride=2 ceil_mode=true", "1x6x7x1", 3, 4);
  shape_of(&lamina_layer_avg_pool2d, "kernel=7", "1x7x7x9", 1, 1);
}
END_TEST

START_TEST(max_pool_gives_the_gradient_to_the_first_of_equals) {
  layer_case c;
  case_begin(&c, &lamina_layer_max_pool2d, LAMINA_TRAIN, "kernel=2");
  case_input(&c, "1x2x2x1");
  case_infer(&c);
  case_prepare(&c, 1, 1);
  case_forward(&c);
  case_backward(&c, 1, 0, 0);
  c.kernel->backward(&c.node);
  ck_assert_float_eq(*case_at(&c.d_inputs[0], 0), *case_at(&c.d_outputs[0], 0));
  for (int i = 1; i < 4; i++) ck_assert_float_eq(*case_at(&c.d_inputs[0], i), 0);
  case_end(&c);
}
END_TEST

/* The gradient of max_pool2d, window by window. */
static double *max_gradient(const layer_case *c) {
  const int64_t *xd = c->inputs[0].dim, *yd = c->outputs[0].dim, channels = xd[3];
  const lamina_value *a = c->attrs;
  double *dx = calloc((size_t)case_count(&c->inputs[0]), sizeof *dx);
  int64_t stride[2] = {a[1].ints[0] ? a[1].ints[0] : a[0].ints[0], a[1].ints[1] ? a[1].ints[1] : a[0].ints[1]};
  for (int64_t out = 0; out < case_count(&c->outputs[0]); out++) {
    int64_t ch = out % channels, ow = out / channels % yd[2], oh = out / channels / yd[2] % yd[1];
    int64_t image = out / channels / yd[2] / yd[1], winner = -1;
    for (int64_t i = 0; i < a[0].ints[0] * a[0].ints[1]; i++) {
      int64_t h = oh * stride[0] - a[2].ints[0] + i / a[0].ints[1] * a[4].ints[0];
      int64_t w = ow * stride[1] - a[2].ints[1] + i % a[0].ints[1] * a[4].ints[1];
      if (h < 0 || h >= xd[1] || w < 0 || w >= xd[2]) continue;
      int64_t at = ((image * xd[1] + h) * xd[2] + w) * channels + ch;
      if (winner < 0 || *case_at(&c->inputs[0], at) > *case_at(&c->inputs[0], winner)) winner = at;
    }
    if (winner >= 0) dx[winner] += *case_at(&c->d_outputs[0], out);
  }
  return dx;
}

START_TEST(large_images_are_pooled_in_bands_without_a_seam) {
  const char *attributes[] = {"kernel=5 stride=1 padding=2", "kernel=2 stride=3", "kernel=3 stride=2 padding=1",
                              "kernel=2,1 stride=1 dilation=20,1 padding=1,0", "kernel=2 stride=7"};
  for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++) {
    for (int accumulate = 0; accumulate < 2; accumulate++) {
      layer_case c;
      case_set_order((task_order)(i % 3), 2);
      case_begin(&c, &lamina_layer_max_pool2d, LAMINA_TRAIN, attributes[i]);
      case_input(&c, "2x95x9x301");
      ck_assert_int_eq(case_infer(&c), LAMINA_OK);
      case_prepare(&c, -1, 1);
      case_forward(&c);
      case_backward(&c, 1, 0, accumulate);
      double *start = accumulate ? case_doubles(&c.d_inputs[0]) : NULL, *want = max_gradient(&c);
      c.kernel->backward(&c.node);
      for (int64_t k = 0; k < case_count(&c.inputs[0]); k++) {
        double value = want[k] + (start ? start[k] : 0);
        test_that(fabs(*case_at(&c.d_inputs[0], k) - value) < 1e-5, "%s: gradient %lld is %g, not %g",
                      attributes[i], (long long)k, *case_at(&c.d_inputs[0], k), value);
      }
      free(start);
      free(want);
      case_end(&c);
    }
  }
}
END_TEST

static void global_reference(const layer_case *c, double *const *in, double *const *par, double *out) {
  const lamina_tensor *x = &c->inputs[0];
  int64_t images = x->dim[0], channels = x->dim[x->rank - 1], positions = case_count(x) / images / channels;
  for (int64_t n = 0; n < images; n++)
    for (int64_t ch = 0; ch < channels; ch++) {
      double sum = 0;
      for (int64_t p = 0; p < positions; p++) sum += in[0][(n * positions + p) * channels + ch];
      out[n * channels + ch] = sum / (double)positions;
    }
}

START_TEST(global_avg_pool_is_the_mean_over_positions) {
  case_verify(&lamina_layer_global_avg_pool, LAMINA_TRAIN, "", "2x3x4x5", global_reference, 1e-6);
  case_verify(&lamina_layer_global_avg_pool, LAMINA_TRAIN, "", "3x1x1x2", global_reference, 1e-6);
  case_verify(&lamina_layer_global_avg_pool, LAMINA_TRAIN, "", "2x300x2", global_reference, 1e-6);
  case_verify(&lamina_layer_global_avg_pool, LAMINA_TRAIN, "", "1x2x1x300", global_reference, 1e-6);
}
END_TEST

void pool_tests(TCase *t) {
  tcase_add_test(t, pooling_follows_pytorch);
  tcase_add_test(t, pooling_shapes_are_pytorchs);
  tcase_add_test(t, max_pool_gives_the_gradient_to_the_first_of_equals);
  tcase_add_test(t, large_images_are_pooled_in_bands_without_a_seam);
  tcase_add_test(t, global_avg_pool_is_the_mean_over_positions);
}
