/* SPDX-License-Identifier: Apache-2.0 */
/* What a plan promises about memory that is shared, inputs that a fused node reads, statistics and gradients. Layers of
   the test's own take the paths that no built-in layer takes. */
#include "net_test.h"
#include "registry.h"

static lamina_context *context;

static void set_up(void) { context = net_context(2); }
static void tear_down(void) { lamina_context_destroy(context); }

#define EXPECT(call, status, words) net_expect(context, call, status, words, __LINE__)

/* ---- layers of our own ------------------------------------------------------------------------------------------- */

enum { N = 300 }; /* elements of every value here */

static const lamina_port in_a = {.size = sizeof in_a, .name = "a", .kind = LAMINA_PORT_INPUT};
static const lamina_port in_b = {.size = sizeof in_b, .name = "b", .kind = LAMINA_PORT_INPUT};
static const lamina_port out_y = {.size = sizeof out_y, .name = "y", .kind = LAMINA_PORT_OUTPUT};
static const lamina_port out_aux = {.size = sizeof out_aux, .name = "aux", .kind = LAMINA_PORT_OUTPUT};
static const lamina_port out_mask = {
    .size = sizeof out_mask, .name = "mask", .kind = LAMINA_PORT_OUTPUT, .dtype = LAMINA_U8};

static lamina_status same_shapes(lamina_node *node) {
  for (int i = 0; i < node->n_outputs; i++) {
    node->outputs[i].rank = node->inputs[0].rank;
    memcpy(node->outputs[i].dim, node->inputs[0].dim, sizeof node->inputs[0].dim);
  }
  return LAMINA_OK;
}

/* y[i] = a[i] + b[N - 1 - i]: may be written over a, as long as a is not b. */
static lamina_status twist(const lamina_node *node) {
  const float *a = node->inputs[0].data, *b = node->inputs[1].data;
  float *y = node->outputs[0].data;
  for (int i = 0; i < N; i++) y[i] = a[i] + b[N - 1 - i];
  return LAMINA_OK;
}

static const lamina_kernel twist_kernel = {.size = sizeof twist_kernel, .name = "twist", .forward = twist};
static const lamina_layer twist_layer = {.size = sizeof twist_layer,
                                         .name = "twist",
                                         .flags = LAMINA_LAYER_IN_PLACE,
                                         .ports = (const lamina_port *const[]){&in_a, &in_b, &out_y, NULL},
                                         .kernels = (const lamina_kernel *const[]){&twist_kernel, NULL},
                                         .infer = same_shapes};

/* Two scalars, of which the first is the loss: both are the sum of a. */
static lamina_status scalars(lamina_node *node) {
  for (int i = 0; i < node->n_outputs; i++) node->outputs[i].rank = 0;
  return LAMINA_OK;
}

static lamina_status sum(const lamina_node *node) {
  float total = 0;
  for (int i = 0; i < N; i++) total += ((const float *)node->inputs[0].data)[i];
  for (int i = 0; i < 2; i++) *(float *)node->outputs[i].data = total;
  return LAMINA_OK;
}

static lamina_status sum_backward(const lamina_node *node) {
  const float loss = *(const float *)node->d_outputs[0].data, aux = *(const float *)node->d_outputs[1].data;
  for (int i = 0; i < N; i++) ((float *)node->d_inputs[0].data)[i] = loss + 10 * aux;
  return LAMINA_OK;
}

static const lamina_kernel sum_kernel = {
    .size = sizeof sum_kernel, .name = "sum", .forward = sum, .backward = sum_backward};
static const lamina_layer sum_layer = {.size = sizeof sum_layer,
                                       .name = "sum_loss",
                                       .flags = LAMINA_LAYER_LOSS,
                                       .ports = (const lamina_port *const[]){&in_a, &out_y, &out_aux, NULL},
                                       .kernels = (const lamina_kernel *const[]){&sum_kernel, NULL},
                                       .infer = scalars};

/* y = a, and a mask of bytes; the backward pass may be told to fail. */
static bool fails;

static lamina_status masked(const lamina_node *node) {
  memcpy(node->outputs[0].data, node->inputs[0].data, N * sizeof(float));
  memset(node->outputs[1].data, 1, N);
  return LAMINA_OK;
}

static lamina_status masked_backward(const lamina_node *node) {
  if (fails) return (node->host->fail)(node->host, LAMINA_UNSUPPORTED, "told to"); /* check has a macro fail */
  ck_assert_ptr_null(node->d_outputs[1].data);
  memcpy(node->d_inputs[0].data, node->d_outputs[0].data, N * sizeof(float));
  return LAMINA_OK;
}

static const lamina_kernel masked_kernel = {
    .size = sizeof masked_kernel, .name = "masked", .forward = masked, .backward = masked_backward};
static const lamina_layer masked_layer = {.size = sizeof masked_layer,
                                          .name = "masked",
                                          .ports = (const lamina_port *const[]){&in_a, &out_y, &out_mask, NULL},
                                          .kernels = (const lamina_kernel *const[]){&masked_kernel, NULL},
                                          .infer = same_shapes};

static void add_layer(const lamina_layer *layer) { NET_OK(context, lamina_registry_add(context, layer, "test_plan")); }

START_TEST(an_output_never_overwrites_what_another_input_still_reads) {
  static const net_case spec = {
      "twist", 1, {{"x", 1, {N}, 0, NET_OFF_ZERO}}, {{"relu", "r", "x", NULL}, {"twist", "t", "r,r", NULL}}, NULL, 0};
  test_random random = test_random_for(spec.name);
  net n;
  add_layer(&twist_layer);
  net_open(&n, context, &spec, (lamina_plan_options){0}, &random);
  NET_OK(context, lamina_exec_forward(n.exec));
  const float *x = n.data[0].data, *y = net_output(&n).data;
  for (int i = 0; i < N; i++) ck_assert_float_eq(y[i], fmaxf(x[i], 0) + fmaxf(x[N - 1 - i], 0));
  net_close(&n);
}
END_TEST

START_TEST(only_the_loss_itself_starts_with_a_gradient_of_1) {
  static const net_case spec = {"sum",     1, {{"x", 1, {N}, 0, NET_UNIFORM}}, {{"sum_loss", "l", "x", NULL}},
                                "l,l.aux", 0};
  test_random random = test_random_for(spec.name);
  net n;
  add_layer(&sum_layer);
  net_open(&n, context, &spec, (lamina_plan_options){.mode = LAMINA_TRAIN, .input_gradients = 1}, &random);
  NET_OK(context, lamina_exec_forward(n.exec));
  NET_OK(context, lamina_exec_backward(n.exec));
  const float *dx = net_gradient(&n, "x").data;
  for (int i = 0; i < N; i++) ck_assert_float_eq(dx[i], 1);
  net_close(&n);
}
END_TEST

static const net_case with_mask = {
    "mask",
    1,
    {{"x", 1, {N}, 0, NET_UNIFORM}, {"target", 1, {N}, 0, NET_UNIFORM}},
    {{"masked", "m", "x", NULL}, {"tanh", "t", "m", NULL}, {"mse_loss", "loss", "t,target", NULL}},
    "loss",
    0};

START_TEST(values_that_are_not_floats_have_no_gradient) {
  test_random random = test_random_for(with_mask.name);
  net n;
  add_layer(&masked_layer);
  net_open(&n, context, &with_mask, (lamina_plan_options){.mode = LAMINA_TRAIN, .input_gradients = 1}, &random);
  NET_OK(context, lamina_exec_forward(n.exec));
  NET_OK(context, lamina_exec_backward(n.exec));
  const float *x = n.data[0].data, *target = n.data[1].data, *dx = net_gradient(&n, "x").data;
  for (int i = 0; i < N; i++) {
    const double y = tanh(x[i]);
    ck_assert_double_le(fabs(dx[i] - 2.0 / N * (y - target[i]) * (1 - y * y)), 1e-7);
  }
  net_close(&n);
}
END_TEST

/* A backward pass that failed has used up what forward left: memory is given to gradients as it becomes free. */
START_TEST(after_a_failed_backward_comes_a_forward) {
  test_random random = test_random_for(with_mask.name);
  net n;
  add_layer(&masked_layer);
  net_open(&n, context, &with_mask, (lamina_plan_options){.mode = LAMINA_TRAIN, .input_gradients = 1}, &random);
  NET_OK(context, lamina_exec_forward(n.exec));
  fails = true;
  EXPECT(lamina_exec_backward(n.exec), LAMINA_UNSUPPORTED, "told to|m");
  fails = false;
  EXPECT(lamina_exec_backward(n.exec), LAMINA_INVALID_ARGUMENT, "forward");
  NET_OK(context, lamina_exec_forward(n.exec));
  NET_OK(context, lamina_exec_backward(n.exec));
  net_close(&n);
}
END_TEST

START_TEST(a_layer_with_impossible_attributes_is_refused) {
  static const lamina_attr many = {
      .size = sizeof many, .name = "many", .type = LAMINA_ATTR_INTS, .def = "1", .count = 9};
  static const lamina_attr nameless = {.size = sizeof nameless, .type = LAMINA_ATTR_INT, .def = "1"};
  const lamina_attr *const bad[] = {&many, &nameless};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    lamina_layer layer = twist_layer;
    layer.attrs = (const lamina_attr *const[]){bad[i], NULL};
    EXPECT(lamina_registry_add(context, &layer, "test_plan"), LAMINA_PLUGIN_ERROR, "twist|attribute");
  }
}
END_TEST

/* ---- inputs ------------------------------------------------------------------------------------------------------ */

START_TEST(an_input_that_only_a_fused_node_reads_must_be_set) {
  const int64_t dim[2] = {1, 4};
  float x[4] = {1, 2, 3, 4}, skip[4] = {10, 20, 30, 40};
  const lamina_tensor tensor = lamina_tensor_of(x, LAMINA_F32, 2, dim),
                      other = lamina_tensor_of(skip, LAMINA_F32, 2, dim);
  lamina_graph *graph = NULL;
  lamina_plan *plan = NULL;
  lamina_exec *exec = NULL;
  lamina_plan_info info = {.size = sizeof info};
  NET_OK(context, lamina_graph_create(context, NULL, &graph));
  NET_OK(context, lamina_graph_input(graph, "x", LAMINA_F32, 1, dim + 1));
  NET_OK(context, lamina_graph_input(graph, "skip", LAMINA_F32, 1, dim + 1));
  NET_OK(context, lamina_graph_add(graph, "linear", "fc", "x", "out_features=4 init.weight=ones init.bias=zeros"));
  NET_OK(context, lamina_graph_add(graph, "add", "sum", "fc,skip", NULL));
  NET_OK(context, lamina_plan_create(graph, NULL, &plan));
  NET_OK(context, lamina_plan_get_info(plan, &info));
  ck_assert_int_eq(info.fused, 1);
  NET_OK(context, lamina_exec_create(plan, &exec));
  NET_OK(context, lamina_exec_set_input(exec, "x", &tensor));
  EXPECT(lamina_exec_forward(exec), LAMINA_INVALID_ARGUMENT, "skip");
  NET_OK(context, lamina_exec_set_input(exec, "skip", &other));
  NET_OK(context, lamina_exec_forward(exec));
  lamina_tensor y;
  NET_OK(context, lamina_exec_output(exec, "sum", &y));
  for (int i = 0; i < 4; i++) ck_assert_float_eq(((float *)y.data)[i], 10 + skip[i]);
  lamina_exec_destroy(exec);
  lamina_plan_destroy(plan);
  lamina_graph_destroy(graph);
}
END_TEST

START_TEST(an_input_cannot_be_an_output) {
  lamina_graph *graph = NULL;
  lamina_plan *plan = NULL;
  net_build(context, &net_small, NULL, &graph);
  EXPECT(lamina_graph_output(graph, "image"), LAMINA_INVALID_ARGUMENT, "image|input");
  NET_OK(context, lamina_plan_create(graph, NULL, &plan));
  lamina_plan_destroy(plan);
  lamina_graph_destroy(graph);
}
END_TEST

/* The next batch may be set before the backward pass of this one. */
START_TEST(an_input_is_for_the_runs_to_come) {
  test_random random = test_random_for(net_small.name);
  net n;
  net_open(&n, context, &net_small, (lamina_plan_options){.mode = LAMINA_TRAIN}, &random);
  NET_OK(context, lamina_exec_forward(n.exec));
  NET_OK(context, lamina_exec_backward(n.exec));
  lamina_tensor gradient = net_gradient(&n, "conv1.weight");
  float *wanted = net_copy(&gradient);
  lamina_tensor next = net_random_tensor(&net_small.inputs[0], net_small.batch, &random);
  NET_OK(context, lamina_exec_forward(n.exec));
  NET_OK(context, lamina_exec_set_input(n.exec, "image", &next));
  NET_OK(context, lamina_exec_backward(n.exec));
  gradient = net_gradient(&n, "conv1.weight");
  ck_assert_mem_eq(gradient.data, wanted, (size_t)lamina_tensor_count(&gradient) * sizeof(float));
  free(next.data);
  free(wanted);
  net_close(&n);
}
END_TEST

/* ---- statistics and names ---------------------------------------------------------------------------------------- */

static const net_case with_norm = {
    "norm",
    4,
    {{"x", 3, {5, 5, 3}, 0, NET_UNIFORM}},
    {{"conv2d", "conv", "x", "out_channels=4 kernel=3"}, {"batch_norm", "bn", "conv", NULL}},
    NULL,
    0};

/* At inference batch norm is folded into packed weights, which a forward of a training plan makes stale. */
START_TEST(statistics_of_a_training_forward_reach_inference_plans) {
  test_random random = test_random_for(with_norm.name);
  net train, folded, plain;
  net_open(&train, context, &with_norm, (lamina_plan_options){.mode = LAMINA_TRAIN}, &random);
  net_open_shared(&folded, &train, (lamina_plan_options){.mode = LAMINA_INFER});
  net_open_shared(&plain, &train, (lamina_plan_options){.mode = LAMINA_INFER, .no_fusion = 1});
  for (int run = 0; run < 3; run++) {
    NET_OK(context, lamina_exec_forward(train.exec));
    NET_OK(context, lamina_exec_forward(folded.exec));
    NET_OK(context, lamina_exec_forward(plain.exec));
    const lamina_tensor a = net_output(&folded), b = net_output(&plain);
    ck_assert_double_le(net_error(a.data, b.data, lamina_tensor_count(&a)), 1e-5);
  }
  net_close_shared(&plain);
  net_close_shared(&folded);
  net_close(&train);
}
END_TEST

/* Dropout draws its numbers in plain C; at inference nothing of it runs. */
START_TEST(strict_refuses_generic_code_on_a_better_instruction_set) {
  const int64_t dim[1] = {4};
  lamina_context_info info = {.size = sizeof info};
  lamina_plan_options options = {.size = sizeof options, .strict = 1, .mode = LAMINA_INFER};
  lamina_graph *graph = NULL;
  lamina_plan *plan = NULL;
  NET_OK(context, lamina_context_get_info(context, &info));
  NET_OK(context, lamina_graph_create(context, NULL, &graph));
  NET_OK(context, lamina_graph_input(graph, "x", LAMINA_F32, 1, dim));
  NET_OK(context, lamina_graph_add(graph, "linear", "fc", "x", "out_features=4"));
  NET_OK(context, lamina_graph_add(graph, "dropout", "drop", "fc", NULL));
  NET_OK(context, lamina_plan_create(graph, &options, &plan));
  lamina_plan_destroy(plan);
  options.mode = LAMINA_TRAIN;
  if (strcmp(info.isa, "generic") == 0)
    NET_OK(context, lamina_plan_create(graph, &options, &plan));
  else
    EXPECT(lamina_plan_create(graph, &options, &plan), LAMINA_UNSUPPORTED, "drop|strict");
  lamina_plan_destroy(plan);
  lamina_graph_destroy(graph);
}
END_TEST

START_TEST(a_star_alone_is_special_in_freeze) {
  const int64_t dim[1] = {4};
  lamina_graph *graph = NULL;
  lamina_plan *plan = NULL;
  NET_OK(context, lamina_graph_create(context, NULL, &graph));
  NET_OK(context, lamina_graph_input(graph, "x", LAMINA_F32, 1, dim));
  NET_OK(context, lamina_graph_add(graph, "linear", "block[0].fc", "x", "out_features=4"));
  NET_OK(context, lamina_graph_add(graph, "linear", "block[1].fc", "block[0].fc", "out_features=4"));
  const char *good[] = {"block[0].fc.weight", "block[0].*", "*", "*[1]*bias, *0*weight", "*.fc.*"};
  const char *bad[] = {"block?0].fc.weight", "block.*", "*fc", "*.weight*s"};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    NET_OK(context,
           lamina_plan_create(
               graph,
               &(lamina_plan_options){.size = sizeof(lamina_plan_options), .mode = LAMINA_TRAIN, .freeze = good[i]},
               &plan));
    lamina_plan_destroy(plan);
  }
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    EXPECT(lamina_plan_create(
               graph,
               &(lamina_plan_options){.size = sizeof(lamina_plan_options), .mode = LAMINA_TRAIN, .freeze = bad[i]},
               &plan),
           LAMINA_NOT_FOUND, "freeze");
  EXPECT(lamina_graph_add(graph, "relu", "r\001", "x", NULL), LAMINA_INVALID_ARGUMENT, "name");
  lamina_graph_destroy(graph);
}
END_TEST

int main(void) {
  test_print_seed();
  if (net_isa_is_absent()) return TEST_SKIPPED;
  Suite *suite = suite_create("plan");
  TCase *cases = tcase_create("promises of a plan");
  tcase_set_timeout(cases, 60);
  tcase_add_checked_fixture(cases, set_up, tear_down);
  tcase_add_test(cases, an_output_never_overwrites_what_another_input_still_reads);
  tcase_add_test(cases, only_the_loss_itself_starts_with_a_gradient_of_1);
  tcase_add_test(cases, values_that_are_not_floats_have_no_gradient);
  tcase_add_test(cases, after_a_failed_backward_comes_a_forward);
  tcase_add_test(cases, a_layer_with_impossible_attributes_is_refused);
  tcase_add_test(cases, an_input_that_only_a_fused_node_reads_must_be_set);
  tcase_add_test(cases, an_input_cannot_be_an_output);
  tcase_add_test(cases, an_input_is_for_the_runs_to_come);
  tcase_add_test(cases, statistics_of_a_training_forward_reach_inference_plans);
  tcase_add_test(cases, strict_refuses_generic_code_on_a_better_instruction_set);
  tcase_add_test(cases, a_star_alone_is_special_in_freeze);
  suite_add_tcase(suite, cases);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_ENV);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
