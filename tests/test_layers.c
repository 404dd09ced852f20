/* SPDX-License-Identifier: Apache-2.0 */
/* Every built-in layer but conv2d and linear keeps the promise of its descriptor: see case_verify. Pooling, losses and
   batch norm are in files of their own. */
#include "layer_test.h"
#include "random.h"

/* ---- activations ------------------------------------------------------------------------------------------------ */

static void map(const layer_case *c, const double *x, double *y, double (*f)(const layer_case *c, double x)) {
  for (int64_t i = 0; i < case_count(&c->inputs[0]); i++) y[i] = f(c, x[i]);
}

static double relu(const layer_case *c, double x) { return x > 0 ? x : 0 * c->attrs[0].f; }
static double leaky(const layer_case *c, double x) { return x > 0 ? x : x * c->attrs[0].f; }
static double sigmoid(const layer_case *c, double x) { return 1 / (1 + exp(-x)) + 0 * c->attrs[0].f; }
static double hyperbolic(const layer_case *c, double x) { return tanh(x) + 0 * c->attrs[0].f; }

static double clip(const layer_case *c, double x) { return fmin(fmax(x, c->attrs[0].f), c->attrs[1].f); }
static double gate(double x) { return fmin(fmax(x + 3, 0), 6) / 6; }
static double hard_sigmoid(const layer_case *c, double x) { return gate(x) + 0 * c->attrs[0].f; }
static double silu(const layer_case *c, double x) { return x * sigmoid(c, x); }
static double hard_swish(const layer_case *c, double x) { return x * gate(x) + 0 * c->attrs[0].f; }

static void relu_reference(const layer_case *c, double *const *in, double *const *par, double *out) {
  map(c, in[0], out, relu);
}
static void leaky_reference(const layer_case *c, double *const *in, double *const *par, double *out) {
  map(c, in[0], out, leaky);
}
static void sigmoid_reference(const layer_case *c, double *const *in, double *const *par, double *out) {
  map(c, in[0], out, sigmoid);
}
static void tanh_reference(const layer_case *c, double *const *in, double *const *par, double *out) {
  map(c, in[0], out, hyperbolic);
}

static void clip_reference(const layer_case *c, double *const *in, double *const *par, double *out) {
  map(c, in[0], out, clip);
}
static void hard_sigmoid_reference(const layer_case *c, double *const *in, double *const *par, double *out) {
  map(c, in[0], out, hard_sigmoid);
}
static void silu_reference(const layer_case *c, double *const *in, double *const *par, double *out) {
  map(c, in[0], out, silu);
}
static void hard_swish_reference(const layer_case *c, double *const *in, double *const *par, double *out) {
  map(c, in[0], out, hard_swish);
}

START_TEST(activations_follow_their_formulas) {
  const char *shapes[] = {"3x5", "2x3x2x7", "6", "1x1"};
  for (int i = 0; i < 4; i++) {
    case_verify(&lamina_layer_relu, LAMINA_TRAIN, "", shapes[i], relu_reference, 1e-6);
    case_verify(&lamina_layer_leaky_relu, LAMINA_TRAIN, "", shapes[i], leaky_reference, 1e-6);
    case_verify(&lamina_layer_leaky_relu, LAMINA_TRAIN, "negative_slope=0.3", shapes[i], leaky_reference, 1e-6);
    case_verify(&lamina_layer_sigmoid, LAMINA_TRAIN, "", shapes[i], sigmoid_reference, 1e-6);
    case_verify(&lamina_layer_tanh, LAMINA_TRAIN, "", shapes[i], tanh_reference, 1e-6);
    case_verify(&lamina_layer_clip, LAMINA_TRAIN, "", shapes[i], clip_reference, 1e-6);
    case_verify(&lamina_layer_clip, LAMINA_TRAIN, "min=0 max=1.5", shapes[i], clip_reference, 1e-6);
    case_verify(&lamina_layer_hard_sigmoid, LAMINA_TRAIN, "", shapes[i], hard_sigmoid_reference, 1e-6);
    case_verify(&lamina_layer_silu, LAMINA_TRAIN, "", shapes[i], silu_reference, 1e-6);
    case_verify(&lamina_layer_hard_swish, LAMINA_TRAIN, "", shapes[i], hard_swish_reference, 1e-6);
  }
}
END_TEST

START_TEST(relu_offers_itself_as_a_clamp_and_keeps_nan) {
  layer_case c;
  lamina_epilogue e = {.lo = -INFINITY, .hi = INFINITY};
  case_begin(&c, &lamina_layer_relu, LAMINA_INFER, "");
  case_input(&c, "2x3");
  ck_assert_int_eq(case_infer(&c), LAMINA_OK);
  ck_assert_int_ne(c.layer->as_epilogue(&c.node, &e), 0);
  ck_assert_uint_eq(e.parts, LAMINA_EPILOGUE_CLAMP);
  ck_assert(e.lo == 0 && isinf(e.hi) && e.hi > 0);
  case_prepare(&c, -1, 1);
  *case_at(&c.inputs[0], 4) = NAN;
  case_forward(&c);
  ck_assert(isnan(*case_at(&c.outputs[0], 4)));
  case_end(&c);
}
END_TEST

START_TEST(activations_offer_their_function_and_clip_its_bounds) {
  const lamina_layer *functions[] = {&lamina_layer_leaky_relu,   &lamina_layer_sigmoid, &lamina_layer_tanh,
                                     &lamina_layer_hard_sigmoid, &lamina_layer_silu,    &lamina_layer_hard_swish};
  layer_case c;
  for (int i = 0; i < 6; i++) {
    lamina_epilogue e = {.lo = -INFINITY, .hi = INFINITY};
    float y[5];
    case_begin(&c, functions[i], LAMINA_INFER, i == 0 ? "negative_slope=0.5" : "");
    case_input(&c, "5");
    ck_assert_int_eq(case_infer(&c), LAMINA_OK);
    ck_assert_int_ne(c.layer->as_epilogue(&c.node, &e), 0);
    ck_assert_uint_eq(e.parts, LAMINA_EPILOGUE_ACTIVATION);
    case_prepare(&c, -2, 2);
    case_forward(&c);
    e.activation(5, e.parameters, c.inputs[0].data, y);
    ck_assert_mem_eq(y, c.outputs[0].data, sizeof y);
    case_end(&c);
  }
  lamina_epilogue e = {.lo = -INFINITY, .hi = INFINITY};
  case_begin(&c, &lamina_layer_clip, LAMINA_INFER, "min=-0.5 max=6");
  case_input(&c, "5");
  ck_assert_int_eq(case_infer(&c), LAMINA_OK);
  ck_assert_int_ne(c.layer->as_epilogue(&c.node, &e), 0);
  ck_assert_uint_eq(e.parts, LAMINA_EPILOGUE_CLAMP);
  ck_assert(e.lo == -0.5f && e.hi == 6.0f);
  case_refused(&lamina_layer_clip, "min=2 max=2", "5", "min|max|2");
}
END_TEST

/* ---- what moves data -------------------------------------------------------------------------------------------- */

static void flatten_reference(const layer_case *c, double *const *in, double *const *par, double *out) {
  const lamina_tensor *x = &c->inputs[0];
  int64_t images = x->dim[0], channels = x->dim[x->rank - 1], positions = case_count(x) / images / channels;
  for (int64_t n = 0; n < images; n++)
    for (int64_t p = 0; p < positions; p++)
      for (int64_t ch = 0; ch < channels; ch++) {
        int64_t from = (n * positions + p) * channels + ch;
        out[c->attrs[0].i ? from : (n * channels + ch) * positions + p] = in[0][from];
      }
}

START_TEST(flatten_has_pytorchs_order) {
  const char *shapes[] = {"2x3x4x5", "1x2x2x70", "3x4", "2x6x1x1", "2x1x1x9", "2x5x3", "2x2x3x2x4"};
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
    case_verify(&lamina_layer_flatten, LAMINA_TRAIN, "", shapes[i], flatten_reference, 1e-7);
    case_verify(&lamina_layer_flatten, LAMINA_TRAIN, "channels_last=true", shapes[i], flatten_reference, 1e-7);
  }
}
END_TEST

static int is_view(const lamina_layer *layer, lamina_mode mode, const char *attributes, const char *shape) {
  layer_case c;
  case_begin(&c, layer, mode, attributes);
  case_input(&c, shape);
  ck_assert_int_eq(case_infer(&c), LAMINA_OK);
  return c.layer->is_view(&c.node) != 0;
}

START_TEST(views_are_told_where_memory_stays) {
  ck_assert(!is_view(&lamina_layer_flatten, LAMINA_TRAIN, "", "2x3x4x5"));
  ck_assert(is_view(&lamina_layer_flatten, LAMINA_TRAIN, "channels_last=true", "2x3x4x5"));
  ck_assert(is_view(&lamina_layer_flatten, LAMINA_TRAIN, "", "2x1x1x5"));
  ck_assert(is_view(&lamina_layer_flatten, LAMINA_TRAIN, "", "2x3x4x1"));
  ck_assert(is_view(&lamina_layer_flatten, LAMINA_TRAIN, "", "2x3"));
  ck_assert(is_view(&lamina_layer_dropout, LAMINA_INFER, "", "2x3"));
  ck_assert(!is_view(&lamina_layer_dropout, LAMINA_TRAIN, "", "2x3"));
}
END_TEST

static void add_reference(const layer_case *c, double *const *in, double *const *par, double *out) {
  for (int64_t i = 0; i < case_count(&c->outputs[0]); i++) {
    out[i] = 0;
    for (int k = 0; k < c->node.n_inputs; k++) out[i] += in[k][i];
  }
}

static void concat_reference(const layer_case *c, double *const *in, double *const *par, double *out) {
  int64_t channels = c->outputs[0].dim[c->outputs[0].rank - 1], rows = case_count(&c->outputs[0]) / channels;
  for (int64_t r = 0; r < rows; r++)
    for (int k = 0; k < c->node.n_inputs; k++) {
      int64_t width = c->inputs[k].dim[c->inputs[k].rank - 1];
      for (int64_t i = 0; i < width; i++) *out++ = in[k][r * width + i];
    }
}

START_TEST(add_and_concat_take_any_number_of_inputs) {
  case_verify(&lamina_layer_add, LAMINA_TRAIN, "", "2x3x4", add_reference, 1e-6);
  case_verify(&lamina_layer_add, LAMINA_TRAIN, "", "2x3x4 2x3x4", add_reference, 1e-6);
  case_verify(&lamina_layer_add, LAMINA_TRAIN, "", "7 7 7 7", add_reference, 1e-6);
  case_verify(&lamina_layer_concat, LAMINA_TRAIN, "", "2x3x4", concat_reference, 1e-7);
  case_verify(&lamina_layer_concat, LAMINA_TRAIN, "", "2x3x4 2x3x1 2x3x17", concat_reference, 1e-7);
  case_verify(&lamina_layer_concat, LAMINA_TRAIN, "", "1x2 1x3", concat_reference, 1e-7);
}
END_TEST

START_TEST(add_of_two_can_be_fused_and_applies_a_clamp) {
  layer_case c;
  lamina_epilogue e = {0};
  case_begin(&c, &lamina_layer_add, LAMINA_INFER, "");
  case_input(&c, "2x9");
  ck_assert_int_eq(case_infer(&c), LAMINA_OK);
  ck_assert_int_eq(c.layer->as_epilogue(&c.node, &e), 0);
  case_input(&c, "2x9");
  ck_assert_int_ne(c.layer->as_epilogue(&c.node, &e), 0);
  ck_assert_uint_eq(e.parts, LAMINA_EPILOGUE_ADD);
  ck_assert(isinf(e.lo) && e.lo < 0 && isinf(e.hi) && e.hi > 0);
  c.node.epilogue = (lamina_epilogue){.size = sizeof e, .parts = LAMINA_EPILOGUE_CLAMP, .lo = 0, .hi = 1.5f};
  case_prepare(&c, -1, 1);
  case_forward(&c);
  for (int64_t i = 0; i < 18; i++) {
    float sum = *case_at(&c.inputs[0], i) + *case_at(&c.inputs[1], i);
    ck_assert_float_eq(*case_at(&c.outputs[0], i), fminf(fmaxf(sum, 0), 1.5f));
  }
  case_end(&c);
}
END_TEST

/* ---- dropout ---------------------------------------------------------------------------------------------------- */

static void dropout_reference(const layer_case *c, double *const *in, double *const *par, double *out) {
  int64_t n = case_count(&c->outputs[0]);
  float *random = malloc((size_t)n * sizeof *random);
  lamina_random_uniform(c->node.seed, 0, n, random);
  double p = c->attrs[0].f;
  for (int64_t i = 0; i < n; i++) {
    int kept = c->node.mode == LAMINA_INFER || random[i] >= (float)p;
    out[i] = kept ? in[0][i] * (c->node.mode == LAMINA_TRAIN ? 1 / (1 - p) : 1) : 0;
  }
  free(random);
}

START_TEST(dropout_draws_the_same_mask_forward_and_backward) {
  const char *p[] = {"p=0", "p=0.3", "", "p=1"};
  for (int i = 0; i < 4; i++) {
    case_verify(&lamina_layer_dropout, LAMINA_TRAIN, p[i], "4x5x7", dropout_reference, 1e-6);
    case_verify(&lamina_layer_dropout, LAMINA_INFER, p[i], "4x5x7", dropout_reference, 1e-7);
  }
}
END_TEST

START_TEST(dropout_keeps_its_share_and_its_mean) {
  layer_case c;
  case_begin(&c, &lamina_layer_dropout, LAMINA_TRAIN, "p=0.25");
  case_input(&c, "1000x100");
  case_infer(&c);
  case_prepare(&c, 1, 1);
  case_forward(&c);
  int64_t zeros = 0;
  double sum = 0;
  for (int64_t i = 0; i < 100000; i++) {
    zeros += *case_at(&c.outputs[0], i) == 0;
    sum += *case_at(&c.outputs[0], i);
  }
  ck_assert_int_lt(llabs((long long)zeros - 25000), 700); /* 5 deviations */
  ck_assert_double_eq_tol(sum / 100000, 1, 0.01);
  case_end(&c);
}
END_TEST

/* ---- refusals and results that do not depend on threads -----------------------------------------------------------
 */

START_TEST(shapes_that_do_not_fit_are_refused_with_both_shapes) {
  case_refused(&lamina_layer_add, "", "2x3 2x4", "2x3|2x4");
  case_refused(&lamina_layer_add, "", "2x3 2x3x1", "2x3|2x3x1");
  case_refused(&lamina_layer_concat, "", "2x3x4 2x2x4", "2x3x4|2x2x4");
  case_refused(&lamina_layer_concat, "", "6", "6|(N, ..., C)");
  case_refused(&lamina_layer_mse_loss, "", "2x3 3x2", "2x3|3x2");
  case_refused(&lamina_layer_softmax_cross_entropy, "", "4x10 5", "4x10|5");
  case_refused(&lamina_layer_softmax_cross_entropy, "", "4x10 4x1", "4x10|4x1");
  case_refused(&lamina_layer_max_pool2d, "kernel=2", "4x10", "4x10|(N, H, W, C)");
  case_refused(&lamina_layer_max_pool2d, "kernel=5", "1x4x4x2", "5x5|1x4x4x2");
  case_refused(&lamina_layer_avg_pool2d, "kernel=3 padding=2", "1x4x4x2", "padding 2x2|3x3");
  case_refused(&lamina_layer_global_avg_pool, "", "4x10", "4x10");
  case_refused(&lamina_layer_flatten, "", "4", "shape 4");
  case_refused(&lamina_layer_relu, "", "0x4", "0x4|at least 1");
  case_refused(&lamina_layer_batch_norm, "", "2x-3", "2x-3|at least 1");
  case_refused(&lamina_layer_batch_norm, "", "9", "shape 9");
  case_refused(&lamina_layer_relu, "", "9000000000x9000000000", "too many");
}
END_TEST

/* Forward and backward, in one array of bytes. */
static float *run_all(const lamina_layer *layer, const char *attributes, const char *shape, int inputs,
                      int64_t *count) {
  layer_case c;
  case_begin(&c, layer, LAMINA_TRAIN, attributes);
  for (int i = 0; i < inputs; i++) case_input(&c, shape);
  ck_assert_int_eq(case_infer(&c), LAMINA_OK);
  ck_assert_int_eq(case_prepare(&c, -1, 1), LAMINA_OK);
  ck_assert_int_eq(case_forward(&c), LAMINA_OK);
  case_backward(&c, 1, 0, 0);
  ck_assert_int_eq(c.kernel->backward(&c.node), LAMINA_OK);
  int64_t n = case_count(&c.outputs[0]), m = case_count(&c.inputs[0]);
  float *all = malloc((size_t)(n + m) * sizeof *all);
  for (int64_t i = 0; i < n; i++) all[i] = *case_at(&c.outputs[0], i);
  for (int64_t i = 0; i < m; i++) all[n + i] = *case_at(&c.d_inputs[0], i);
  *count = n + m;
  case_end(&c);
  return all;
}

START_TEST(results_do_not_depend_on_threads_or_order) {
  const struct {
    const lamina_layer *layer;
    const char *attributes, *shape;
    int inputs;
  } rows[] = {{&lamina_layer_relu, "", "100x999", 1},
              {&lamina_layer_tanh, "", "100x999", 1},
              {&lamina_layer_dropout, "", "100x999", 1},
              {&lamina_layer_add, "", "100x999", 2},
              {&lamina_layer_softmax, "", "300x333", 1},
              {&lamina_layer_flatten, "", "3x20x20x100", 1},
              {&lamina_layer_global_avg_pool, "", "3x40x20x100", 1},
              {&lamina_layer_max_pool2d, "kernel=3 stride=1 padding=1", "2x30x30x70", 1},
              {&lamina_layer_max_pool2d, "kernel=5 stride=1 padding=2", "2x90x9x300", 1},
              {&lamina_layer_max_pool2d, "kernel=2 stride=3", "1x90x20x170", 1},
              {&lamina_layer_avg_pool2d, "kernel=3 stride=2 padding=1", "2x30x90x170", 1},
              {&lamina_layer_batch_norm, "", "90000x3", 1},
              {&lamina_layer_batch_norm, "", "3x30x30x70", 1},
              {&lamina_layer_batch_norm, "", "300x1030", 1}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    float *first = NULL;
    for (int order = 0; order < 3; order++) {
      int64_t n;
      case_set_order((task_order)order, 1 + 2 * order);
      float *all = run_all(rows[i].layer, rows[i].attributes, rows[i].shape, rows[i].inputs, &n);
      if (!first) first = all;
      test_that(memcmp(first, all, (size_t)n * sizeof *all) == 0, "%s depends on the order", rows[i].layer->name);
      if (all != first) free(all);
    }
    free(first);
  }
}
END_TEST

START_TEST(the_list_of_layers_is_sorted) {
  for (int i = 0; lamina_builtin_layers[i]; i++) {
    const lamina_layer *layer = lamina_builtin_layers[i];
    ck_assert_uint_eq(layer->size, sizeof *layer);
    ck_assert(layer->doc && layer->attrs && layer->ports && layer->kernels && layer->kernels[0] && layer->infer);
    if (i > 0) ck_assert_int_lt(strcmp(lamina_builtin_layers[i - 1]->name, layer->name), 0);
  }
}
END_TEST

static Suite *layers_suite(void) {
  Suite *suite = suite_create("layers");
  TCase *t = tcase_create("layers");
  tcase_set_timeout(t, 120);
  tcase_add_test(t, activations_follow_their_formulas);
  tcase_add_test(t, relu_offers_itself_as_a_clamp_and_keeps_nan);
  tcase_add_test(t, activations_offer_their_function_and_clip_its_bounds);
  tcase_add_test(t, flatten_has_pytorchs_order);
  tcase_add_test(t, views_are_told_where_memory_stays);
  tcase_add_test(t, add_and_concat_take_any_number_of_inputs);
  tcase_add_test(t, add_of_two_can_be_fused_and_applies_a_clamp);
  tcase_add_test(t, dropout_draws_the_same_mask_forward_and_backward);
  tcase_add_test(t, dropout_keeps_its_share_and_its_mean);
  tcase_add_test(t, shapes_that_do_not_fit_are_refused_with_both_shapes);
  tcase_add_test(t, results_do_not_depend_on_threads_or_order);
  tcase_add_test(t, the_list_of_layers_is_sorted);
  pool_tests(t);
  loss_tests(t);
  suite_add_tcase(suite, t);
  return suite;
}

int main(void) {
  test_print_seed();
  if (!case_kernels()) return TEST_SKIPPED;
  printf("testing: %s\n", case_kernels()->isa);
  fflush(stdout);
  SRunner *runner = srunner_create(layers_suite());
  srunner_add_suite(runner, batch_norm_suite());
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? 1 : 0;
}
