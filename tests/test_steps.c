/* SPDX-License-Identifier: Apache-2.0 */
/* The step's variants: gradients accumulated over several runs, gradients clipped by their norm, steps in the midst of the
   backward pass; and their misuse. */
#include "net_test.h"

#define RUNS 4
#define PART 2

#define LAYERS                                                                                                          \
  {{"conv2d", "conv1", "image", "out_channels=12 kernel=3 padding=1"}, {"silu", "silu", "conv1", ""},                   \
   {"conv2d", "conv2", "silu", "out_channels=40 kernel=3"}, {"relu", "relu", "conv2", ""}, {"flatten", "flat", "relu", ""}, \
   {"linear", "fc", "flat", "out_features=5"}, {"softmax_cross_entropy", "loss", "fc, label", ""}}
#define INPUTS {{"image", 3, {9, 8, 3}, 0, NET_UNIFORM}, {"label", 0, {0}, 5, NET_UNIFORM}}

static const net_case whole = {"whole", RUNS *PART, INPUTS, LAYERS, NULL, 0};
static const net_case part = {"part", PART, INPUTS, LAYERS, NULL, 0};
static const net_case normed = {"batch norm", PART, INPUTS,
                                {{"conv2d", "conv1", "image", "out_channels=12 kernel=3 padding=1"},
                                 {"batch_norm", "norm", "conv1", ""}, {"relu", "relu", "norm", ""}, {"flatten", "flat", "relu", ""},
                                 {"linear", "fc", "flat", "out_features=5"}, {"softmax_cross_entropy", "loss", "fc, label", ""}},
                                NULL, 0};

static lamina_optimizer optimizer_of(int index) {
  static const lamina_optimizer_type types[] = {LAMINA_SGD, LAMINA_ADAMW};
  lamina_optimizer o = lamina_optimizer_defaults(types[index]);
  o.lr = 0.02;
  o.momentum = 0.9;
  return o;
}

/* Makes part `run` of the inputs of `from` those of n. */
static void set_part(net *n, const net *from, int run) {
  for (int i = 0; i < from->inputs; i++) {
    lamina_tensor tensor = from->data[i];
    const int64_t count = lamina_tensor_count(&tensor) / RUNS;
    tensor.dim[0] = PART;
    tensor.data = (float *)from->data[i].data + run * count; /* labels are as large as floats */
    NET_OK(n->context, lamina_exec_set_input(n->exec, from->spec->inputs[i].name, &tensor));
  }
}

static void step_whole(net *n, const lamina_optimizer *o) {
  NET_OK(n->context, lamina_exec_forward(n->exec));
  NET_OK(n->context, lamina_exec_backward(n->exec));
  NET_OK(n->context, lamina_exec_step(n->exec, o));
}

static void step_parts(net *n, const net *from, const lamina_optimizer *o, bool early) {
  for (int run = 0; run < RUNS; run++) {
    set_part(n, from, run);
    NET_OK(n->context, lamina_exec_forward(n->exec));
    if (early)
      NET_OK(n->context, lamina_exec_backward_step(n->exec, o));
    else
      NET_OK(n->context, lamina_exec_backward(n->exec));
  }
  if (!early) NET_OK(n->context, lamina_exec_step(n->exec, o));
}

static void compare_parameters(const char *what, net *a, net *b, double bound) {
  for (int i = 0; i < lamina_graph_parameter_count(a->graph); i++) {
    lamina_parameter x = {.size = sizeof x}, y = {.size = sizeof y};
    NET_OK(a->context, lamina_graph_parameter_at(a->graph, i, &x));
    NET_OK(b->context, lamina_graph_parameter_at(b->graph, i, &y));
    const double error = net_error(x.tensor.data, y.tensor.data, lamina_tensor_count(&x.tensor));
    test_that(error <= bound, "%s: %s differs by %g", what, x.name, error);
  }
}

START_TEST(accumulated_parts_are_the_whole_batch) {
  const lamina_optimizer o = optimizer_of(_i);
  lamina_context *context = net_context(2);
  test_random random = test_random_for("accumulate"), second = random, third = random;
  net n, parts, early;
  net_open(&n, context, &whole, (lamina_plan_options){.mode = LAMINA_TRAIN}, &random);
  net_open(&parts, context, &part, (lamina_plan_options){.mode = LAMINA_TRAIN, .accumulate = RUNS}, &second);
  net_open(&early, context, &part, (lamina_plan_options){.mode = LAMINA_TRAIN, .accumulate = RUNS, .early_step = 1}, &third);
  for (int step = 0; step < 3; step++) {
    step_whole(&n, &o);
    step_parts(&parts, &n, &o, false);
    step_parts(&early, &n, &o, true);
    compare_parameters("parts", &parts, &n, _i ? 2e-3 : 2e-6); /* Adam divides by what may be small */
    compare_parameters("early steps", &early, &parts, 0);
  }
  net_close(&n);
  net_close(&parts);
  net_close(&early);
  lamina_context_destroy(context);
}
END_TEST

/* With batch norm: the mean of the gradients of single runs, and running statistics that each run has moved. */
START_TEST(accumulation_is_the_mean_of_runs) {
  lamina_context *context = net_context(2);
  test_random random = test_random_for("mean"), second = random;
  net single, mean;
  net_open(&single, context, &normed, (lamina_plan_options){.mode = LAMINA_TRAIN}, &random);
  net_open(&mean, context, &normed, (lamina_plan_options){.mode = LAMINA_TRAIN, .accumulate = 3}, &second);
  double sum[4096] = {0};
  int64_t count = 0;
  for (int run = 0; run < 3; run++) {
    float *x = single.data[0].data, *y = mean.data[0].data;
    test_random_fill(&random, x, lamina_tensor_count(&single.data[0]), -1, 1);
    memcpy(y, x, (size_t)lamina_tensor_count(&single.data[0]) * sizeof *x);
    NET_OK(context, lamina_exec_forward(single.exec));
    NET_OK(context, lamina_exec_backward(single.exec));
    NET_OK(context, lamina_exec_forward(mean.exec));
    NET_OK(context, lamina_exec_backward(mean.exec));
    const lamina_tensor gradient = net_gradient(&single, "fc.weight");
    count = lamina_tensor_count(&gradient);
    ck_assert_int_lt(count, 8192);
    for (int64_t i = 0; i < count && i < 4096; i++) sum[i] += ((const float *)gradient.data)[i] / 3.0;
  }
  const lamina_tensor gradient = net_gradient(&mean, "fc.weight");
  for (int64_t i = 0; i < count && i < 4096; i++)
    test_that(fabs(((const float *)gradient.data)[i] - sum[i]) < 1e-6, "element %d", (int)i);
  compare_parameters("running statistics", &mean, &single, 0);
  net_close(&single);
  net_close(&mean);
  lamina_context_destroy(context);
}
END_TEST

static double norm_of(net *n) {
  double sum = 0;
  for (int i = 0; i < lamina_graph_parameter_count(n->graph); i++) {
    lamina_parameter p = {.size = sizeof p};
    NET_OK(n->context, lamina_graph_parameter_at(n->graph, i, &p));
    const lamina_tensor g = net_gradient(n, p.name);
    for (int64_t k = 0; k < lamina_tensor_count(&g); k++) sum += pow(((const float *)g.data)[k], 2);
  }
  return sqrt(sum);
}

START_TEST(clipping_bounds_the_norm_of_all_gradients) {
  lamina_context *context = net_context(1 + _i);
  test_random random = test_random_for("clip");
  net n;
  double norm = 0;
  net_open(&n, context, &whole, (lamina_plan_options){.mode = LAMINA_TRAIN}, &random);
  NET_OK(context, lamina_exec_forward(n.exec));
  NET_OK(context, lamina_exec_backward(n.exec));
  const double before = norm_of(&n);
  const lamina_tensor gradient = net_gradient(&n, "conv2.weight");
  const int64_t count = lamina_tensor_count(&gradient);
  float *first = net_copy(&gradient);
  NET_OK(context, lamina_exec_clip_gradients(n.exec, 2 * before, &norm));
  ck_assert_double_eq_tol(norm, before, 1e-9 * before);
  ck_assert_int_eq(memcmp(first, gradient.data, (size_t)count * sizeof *first), 0);
  NET_OK(context, lamina_exec_clip_gradients(n.exec, 0.25 * before, NULL));
  ck_assert_double_eq_tol(norm_of(&n), 0.25 * before, 1e-5 * before);
  for (int64_t i = 0; i < count; i++)
    test_that(fabs(((const float *)gradient.data)[i] - 0.25 * first[i]) <= 1e-5 * fabs(first[i]), "element %d", (int)i);
  ((float *)gradient.data)[count - 1] = INFINITY;
  memcpy(first, gradient.data, (size_t)count * sizeof *first);
  norm = -1;
  net_expect(context, lamina_exec_clip_gradients(n.exec, 1, &norm), LAMINA_NOT_FINITE, "clip|not finite", __LINE__);
  ck_assert(norm == -1 && memcmp(first, gradient.data, (size_t)count * sizeof *first) == 0);
  net_expect(context, lamina_exec_clip_gradients(n.exec, 0, NULL), LAMINA_INVALID_ARGUMENT, "not above 0", __LINE__);
  net_expect(context, lamina_exec_clip_gradients(n.exec, NAN, NULL), LAMINA_INVALID_ARGUMENT, "not above 0", __LINE__);
  free(first);
  net_close(&n);
  lamina_context_destroy(context);
}
END_TEST

START_TEST(an_early_step_keeps_no_gradients) {
  const lamina_optimizer o = optimizer_of(0);
  lamina_optimizer bad = o;
  lamina_context *context = net_context(1);
  test_random random = test_random_for("early");
  lamina_plan_info info = {.size = sizeof info};
  lamina_tensor tensor;
  net n;
  net_open(&n, context, &whole, (lamina_plan_options){.mode = LAMINA_TRAIN, .early_step = 1}, &random);
  NET_OK(context, lamina_plan_get_info(n.plan, &info));
  ck_assert_uint_eq(info.gradients, 0);
  net_expect(context, lamina_exec_backward_step(n.exec, &o), LAMINA_INVALID_ARGUMENT, "backward|forward", __LINE__);
  NET_OK(context, lamina_exec_forward(n.exec));
  net_expect(context, lamina_exec_backward(n.exec), LAMINA_INVALID_ARGUMENT, "early_step|backward_step", __LINE__);
  bad.lr = -1;
  net_expect(context, lamina_exec_backward_step(n.exec, &bad), LAMINA_INVALID_ARGUMENT, "step: lr -1", __LINE__);
  net_expect(context, lamina_exec_backward_step(n.exec, NULL), LAMINA_INVALID_ARGUMENT, "optimizer is NULL", __LINE__);
  NET_OK(context, lamina_exec_backward_step(n.exec, &o));
  net_expect(context, lamina_exec_backward_step(n.exec, &o), LAMINA_INVALID_ARGUMENT, "backward|forward", __LINE__);
  net_expect(context, lamina_exec_step(n.exec, &o), LAMINA_UNSUPPORTED, "step|early_step", __LINE__);
  net_expect(context, lamina_exec_clip_gradients(n.exec, 1, NULL), LAMINA_UNSUPPORTED, "clip|early_step", __LINE__);
  net_expect(context, lamina_exec_gradient(n.exec, "fc.weight", &tensor), LAMINA_UNSUPPORTED, "fc.weight|early_step", __LINE__);
  net_close(&n);
  lamina_context_destroy(context);
}
END_TEST

START_TEST(a_step_waits_for_all_runs) {
  const lamina_optimizer o = optimizer_of(0);
  lamina_context *context = net_context(1);
  test_random random = test_random_for("waits");
  net n;
  net_open(&n, context, &part, (lamina_plan_options){.mode = LAMINA_TRAIN, .accumulate = 2}, &random);
  NET_OK(context, lamina_exec_forward(n.exec));
  NET_OK(context, lamina_exec_backward(n.exec));
  net_expect(context, lamina_exec_step(n.exec, &o), LAMINA_INVALID_ARGUMENT, "1 runs|2 before a step", __LINE__);
  net_expect(context, lamina_exec_clip_gradients(n.exec, 1, NULL), LAMINA_INVALID_ARGUMENT, "clip|1 runs", __LINE__);
  NET_OK(context, lamina_exec_forward(n.exec));
  NET_OK(context, lamina_exec_backward(n.exec));
  NET_OK(context, lamina_exec_clip_gradients(n.exec, 1, NULL));
  NET_OK(context, lamina_exec_step(n.exec, &o));
  lamina_plan *plan;
  const lamina_plan_options options = {.size = sizeof options, .mode = LAMINA_TRAIN, .accumulate = -1};
  net_expect(context, lamina_plan_create(n.graph, &options, &plan), LAMINA_INVALID_ARGUMENT, "accumulate", __LINE__);
  net_close(&n);
  lamina_context_destroy(context);
}
END_TEST

int main(void) {
  test_print_seed();
  if (net_isa_is_absent()) return TEST_SKIPPED;
  Suite *suite = suite_create("steps");
  TCase *t = tcase_create("steps");
  tcase_set_timeout(t, 120);
  tcase_add_loop_test(t, accumulated_parts_are_the_whole_batch, 0, 2);
  tcase_add_test(t, accumulation_is_the_mean_of_runs);
  tcase_add_loop_test(t, clipping_bounds_the_norm_of_all_gradients, 0, 2);
  tcase_add_test(t, an_early_step_keeps_no_gradients);
  tcase_add_test(t, a_step_waits_for_all_runs);
  suite_add_tcase(suite, t);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? 1 : 0;
}
