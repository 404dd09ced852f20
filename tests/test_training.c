/* SPDX-License-Identifier: Apache-2.0 */
/* Optimizers and schedules against their formulas in double, with PyTorch's meaning of every option. */
#include "net_test.h"

#define WEIGHTS 33
#define STEPS 7

static const net_case line = {
    "line", 1, {{"x", 1, {WEIGHTS}, 0, NET_UNIFORM}}, {{"linear", "l", "x", "out_features=1 bias=false"}}, NULL, 0};

typedef struct reference {
  double w[WEIGHTS], m[WEIGHTS], v[WEIGHTS];
} reference;

/* torch.optim.SGD. */
static void sgd(reference *r, const lamina_optimizer *o, const float *gradient, int step) {
  for (int i = 0; i < WEIGHTS; i++) {
    double g = gradient[i] + o->weight_decay * r->w[i];
    if (o->momentum != 0) {
      r->m[i] = step == 1 ? g : o->momentum * r->m[i] + (1 - o->dampening) * g;
      g = o->nesterov ? g + o->momentum * r->m[i] : r->m[i];
    }
    r->w[i] -= o->lr * g;
  }
}

/* torch.optim.Adam; AdamW decays the weight itself (Loshchilov and Hutter 2019). */
static void adam(reference *r, const lamina_optimizer *o, const float *gradient, int step) {
  for (int i = 0; i < WEIGHTS; i++) {
    double g = gradient[i];
    if (o->type == LAMINA_ADAMW)
      r->w[i] *= 1 - o->lr * o->weight_decay;
    else
      g += o->weight_decay * r->w[i];
    r->m[i] = o->beta1 * r->m[i] + (1 - o->beta1) * g;
    r->v[i] = o->beta2 * r->v[i] + (1 - o->beta2) * g * g;
    const double m = r->m[i] / (1 - pow(o->beta1, step)), v = r->v[i] / (1 - pow(o->beta2, step));
    r->w[i] -= o->lr * m / (sqrt(v) + o->eps);
  }
}

static const lamina_optimizer optimizers[] = {
    {.type = LAMINA_SGD, .lr = 0.1},
    {.type = LAMINA_SGD, .lr = 0.1, .weight_decay = 0.01},
    {.type = LAMINA_SGD, .lr = 0.05, .momentum = 0.9},
    {.type = LAMINA_SGD, .lr = 0.05, .momentum = 0.9, .dampening = 0.3, .weight_decay = 0.02},
    {.type = LAMINA_SGD, .lr = 0.05, .momentum = 0.9, .nesterov = 1, .weight_decay = 0.02},
    {.type = LAMINA_ADAM, .lr = 0.01, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8},
    {.type = LAMINA_ADAM, .lr = 0.01, .beta1 = 0.8, .beta2 = 0.99, .eps = 1e-3, .weight_decay = 0.1},
    {.type = LAMINA_ADAMW, .lr = 0.01, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.1},
};

/* The gradient of a linear layer with one output is x itself, so that the test says what it is in every step. */
START_TEST(an_optimizer_follows_its_formula) {
  lamina_optimizer optimizer = optimizers[_i];
  test_random random = test_random_for("optimizer");
  lamina_context *context = net_context(2);
  lamina_parameter weight = {.size = sizeof weight};
  const int64_t scalar[2] = {1, 1};
  float one = 1;
  const lamina_tensor dy = lamina_tensor_of(&one, LAMINA_F32, 2, scalar);
  reference r = {0};
  net n;
  optimizer.size = sizeof optimizer;
  net_open(&n, context, &line, (lamina_plan_options){.mode = LAMINA_TRAIN}, &random);
  NET_OK(context, lamina_graph_parameter_find(n.graph, "l.weight", &weight));
  for (int i = 0; i < WEIGHTS; i++) r.w[i] = ((float *)weight.tensor.data)[i];
  for (int step = 1; step <= STEPS; step++) {
    float *x = n.data[0].data;
    test_random_fill(&random, x, WEIGHTS, -1, 1);
    NET_OK(context, lamina_exec_forward(n.exec));
    NET_OK(context, lamina_exec_set_output_gradient(n.exec, "l", &dy));
    NET_OK(context, lamina_exec_backward(n.exec));
    NET_OK(context, lamina_exec_step(n.exec, &optimizer));
    if (optimizer.type == LAMINA_SGD)
      sgd(&r, &optimizer, x, step);
    else
      adam(&r, &optimizer, x, step);
    for (int i = 0; i < WEIGHTS; i++)
      test_that(fabs(((float *)weight.tensor.data)[i] - r.w[i]) <= 2e-6, "step %d, weight %d: %.9g, exactly %.9g",
                    step, i, ((float *)weight.tensor.data)[i], r.w[i]);
  }
  net_close(&n);
  lamina_context_destroy(context);
}
END_TEST

START_TEST(defaults_are_pytorchs) {
  const lamina_optimizer sgd_defaults = lamina_optimizer_defaults(LAMINA_SGD);
  const lamina_optimizer adam_defaults = lamina_optimizer_defaults(LAMINA_ADAM);
  const lamina_optimizer adamw_defaults = lamina_optimizer_defaults(LAMINA_ADAMW);
  ck_assert_double_eq(sgd_defaults.lr, 0.01);
  ck_assert_double_eq(sgd_defaults.momentum, 0);
  ck_assert_double_eq(sgd_defaults.weight_decay, 0);
  ck_assert_double_eq(adam_defaults.lr, 1e-3);
  ck_assert_double_eq(adam_defaults.beta1, 0.9);
  ck_assert_double_eq(adam_defaults.beta2, 0.999);
  ck_assert_double_eq(adam_defaults.eps, 1e-8);
  ck_assert_double_eq(adam_defaults.weight_decay, 0);
  ck_assert_double_eq(adamw_defaults.weight_decay, 0.01);
  ck_assert_uint_eq(adam_defaults.size, sizeof adam_defaults);
}
END_TEST

START_TEST(bad_optimizers_are_refused) {
  static const lamina_optimizer bad[] = {
      {.type = LAMINA_SGD, .lr = -1},
      {.type = LAMINA_SGD, .lr = NAN},
      {.type = LAMINA_SGD, .lr = 0.1, .momentum = -0.5},
      {.type = LAMINA_SGD, .lr = 0.1, .weight_decay = -1},
      {.type = LAMINA_SGD, .lr = 0.1, .nesterov = 1},
      {.type = LAMINA_SGD, .lr = 0.1, .momentum = 0.9, .dampening = 0.1, .nesterov = 1},
      {.type = LAMINA_ADAM, .lr = 0.1, .beta1 = 1, .beta2 = 0.9, .eps = 1e-8},
      {.type = LAMINA_ADAM, .lr = 0.1, .beta1 = 0.9, .beta2 = -0.1, .eps = 1e-8},
      {.type = (lamina_optimizer_type)9, .lr = 0.1},
  };
  test_random random = test_random_for("bad optimizers");
  lamina_context *context = net_context(1);
  net n;
  net_open(&n, context, &line, (lamina_plan_options){.mode = LAMINA_TRAIN}, &random);
  NET_OK(context, lamina_exec_forward(n.exec));
  NET_OK(context, lamina_exec_backward(n.exec));
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    lamina_optimizer optimizer = bad[i];
    optimizer.size = sizeof optimizer;
    test_that(lamina_exec_step(n.exec, &optimizer) == LAMINA_INVALID_ARGUMENT, "optimizer %zu was accepted", i);
    ck_assert_str_ne(lamina_error_message(context), "");
  }
  net_close(&n);
  lamina_context_destroy(context);
}
END_TEST

/* One weight in each of two networks of a store, as those of a GAN: whatever is stepped more often, Adam's first step
   is lr long and SGD's momentum begins with the gradient itself. */
START_TEST(each_parameter_counts_its_own_steps) {
  const int64_t dim[2] = {1, 1};
  float one = 1;
  const lamina_tensor tensor = lamina_tensor_of(&one, LAMINA_F32, 2, dim);
  lamina_optimizer optimizer = lamina_optimizer_defaults((lamina_optimizer_type)_i);
  optimizer.momentum = 0.9;
  optimizer.dampening = 0.5;
  optimizer.weight_decay = 0;
  lamina_context *context = net_context(1);
  lamina_graph *graph[2] = {NULL, NULL};
  lamina_exec *exec[2];
  lamina_parameter weight[2];
  for (int g = 0; g < 2; g++) {
    lamina_plan *plan;
    const char *name = g ? "second" : "first";
    NET_OK(context, lamina_graph_create(context, graph[0], &graph[g]));
    NET_OK(context, lamina_graph_input(graph[g], "x", LAMINA_F32, 1, dim));
    NET_OK(context, lamina_graph_add(graph[g], "linear", name, "x", "out_features=1 bias=false init.weight=zeros"));
    NET_OK(context,
           lamina_plan_create(
               graph[g], &(lamina_plan_options){.size = sizeof(lamina_plan_options), .mode = LAMINA_TRAIN}, &plan));
    NET_OK(context, lamina_exec_create(plan, &exec[g]));
    NET_OK(context, lamina_exec_set_input(exec[g], "x", &tensor));
    NET_OK(context, lamina_exec_set_output_gradient(exec[g], name, &tensor));
    weight[g].size = sizeof weight[g];
    NET_OK(context, lamina_graph_parameter_at(graph[g], 0, &weight[g]));
    lamina_plan_destroy(plan);
  }
  for (int step = 0; step < 6; step++) {
    const int g = step == 5; /* five steps of the first, then one of the second */
    NET_OK(context, lamina_exec_forward(exec[g]));
    NET_OK(context, lamina_exec_backward(exec[g]));
    NET_OK(context, lamina_exec_step(exec[g], &optimizer));
  }
  ck_assert_float_eq_tol(*(float *)weight[1].tensor.data, (float)-optimizer.lr, 1e-6f);
  for (int g = 0; g < 2; g++) {
    lamina_exec_destroy(exec[g]);
    lamina_graph_destroy(graph[g]);
  }
  lamina_context_destroy(context);
}
END_TEST

/* What lies behind the size that the caller gave is not the library's to read. */
START_TEST(a_shorter_optimizer_is_not_read_beyond_its_size) {
  const lamina_optimizer optimizer = {.size = offsetof(lamina_optimizer, beta1), .lr = 0.1};
  const lamina_schedule cosine = {.size = offsetof(lamina_schedule, epochs), .type = LAMINA_SCHEDULE_COSINE, .lr = 0.5};
  test_random random = test_random_for("shorter optimizer");
  lamina_context *context = net_context(1);
  void *shorter = malloc(optimizer.size), *schedule = malloc(cosine.size);
  net n;
  net_open(&n, context, &line, (lamina_plan_options){.mode = LAMINA_TRAIN}, &random);
  NET_OK(context, lamina_exec_forward(n.exec));
  NET_OK(context, lamina_exec_backward(n.exec));
  memcpy(shorter, &optimizer, optimizer.size);
  NET_OK(context, lamina_exec_step(n.exec, shorter));
  memcpy(shorter, &(size_t){sizeof(size_t)}, sizeof(size_t));
  ck_assert_int_eq(lamina_exec_step(n.exec, shorter), LAMINA_INVALID_ARGUMENT);
  memcpy(schedule, &cosine, cosine.size);
  ck_assert_double_eq(lamina_schedule_rate(schedule, 3), 0.5);
  free(schedule);
  free(shorter);
  net_close(&n);
  lamina_context_destroy(context);
}
END_TEST

START_TEST(schedules_follow_their_formulas) {
  const lamina_schedule constant = {.size = sizeof constant, .type = LAMINA_SCHEDULE_CONSTANT, .lr = 0.3, .epochs = 10};
  const lamina_schedule step = {
      .size = sizeof step, .type = LAMINA_SCHEDULE_STEP, .lr = 0.4, .gamma = 0.5, .epochs = 10, .step_epochs = 3};
  const lamina_schedule cosine = {
      .size = sizeof cosine, .type = LAMINA_SCHEDULE_COSINE, .lr = 1, .min_lr = 0.2, .epochs = 10};
  ck_assert_double_eq(lamina_schedule_rate(&constant, 7.5), 0.3);
  ck_assert_double_eq(lamina_schedule_rate(&step, 2.99), 0.4);
  ck_assert_double_eq(lamina_schedule_rate(&step, 3), 0.2);
  ck_assert_double_eq(lamina_schedule_rate(&step, 9), 0.05);
  ck_assert_double_eq_tol(lamina_schedule_rate(&cosine, 0), 1, 1e-15);
  ck_assert_double_eq_tol(lamina_schedule_rate(&cosine, 5), 0.6, 1e-15);
  ck_assert_double_eq_tol(lamina_schedule_rate(&cosine, 10), 0.2, 1e-15);
  ck_assert_double_eq_tol(lamina_schedule_rate(&cosine, 11), 0.2, 1e-15);
}
END_TEST

int main(void) {
  test_print_seed();
  if (net_isa_is_absent()) return TEST_SKIPPED;
  Suite *suite = suite_create("training");
  TCase *cases = tcase_create("optimizers and schedules");
  tcase_set_timeout(cases, 60);
  tcase_add_loop_test(cases, an_optimizer_follows_its_formula, 0, (int)(sizeof optimizers / sizeof *optimizers));
  tcase_add_test(cases, defaults_are_pytorchs);
  tcase_add_test(cases, bad_optimizers_are_refused);
  tcase_add_loop_test(cases, each_parameter_counts_its_own_steps, LAMINA_SGD, LAMINA_ADAMW + 1);
  tcase_add_test(cases, a_shorter_optimizer_is_not_read_beyond_its_size);
  tcase_add_test(cases, schedules_follow_their_formulas);
  suite_add_tcase(suite, cases);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_ENV);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
