/* SPDX-License-Identifier: Apache-2.0 */
/* The promises of lamina.h on lifetimes, shared stores, seeds and what a plan tells. */
#include "net_test.h"

static lamina_context *context;
static lamina_graph *graph;

static void set_up(void) {
  context = net_context(2);
  net_build(context, &net_small, NULL, &graph);
}

static void tear_down(void) {
  lamina_graph_destroy(graph);
  lamina_context_destroy(context);
}

#define EXPECT(call, status, words) net_expect(context, call, status, words, __LINE__)

START_TEST(handles_are_destroyed_in_any_order) {
  for (int order = 0; order < 24; order++) {
    int left[4] = {0, 1, 2, 3}, code = order;
    lamina_context *own = net_context(2);
    lamina_graph *g = NULL;
    lamina_plan *plan = NULL;
    lamina_exec *exec = NULL;
    const int64_t dim[1] = {6}, batch[2] = {1, 6};
    float x[6] = {1, 2, 3, 4, 5, 6};
    const lamina_tensor input = lamina_tensor_of(x, LAMINA_F32, 2, batch);
    NET_OK(own, lamina_graph_create(own, NULL, &g));
    NET_OK(own, lamina_graph_input(g, "x", LAMINA_F32, 1, dim));
    NET_OK(own, lamina_graph_add(g, "linear", "l", "x", "out_features=3"));
    NET_OK(own, lamina_plan_create(g, NULL, &plan));
    NET_OK(own, lamina_exec_create(plan, &exec));
    NET_OK(own, lamina_exec_set_input(exec, "x", &input));
    for (int n = 4; n > 0; n--) {
      const int pick = code % n, which = left[pick];
      code /= n;
      left[pick] = left[n - 1];
      if (which == 0) lamina_context_destroy(own);
      if (which == 1) lamina_graph_destroy(g);
      if (which == 2) lamina_plan_destroy(plan);
      if (which == 3) lamina_exec_destroy(exec);
      if (which == 3) exec = NULL;
      if (exec) ck_assert_int_eq(lamina_exec_forward(exec), LAMINA_OK);
    }
  }
}
END_TEST

/* ---- stores and seeds -------------------------------------------------------------------------------------------- */

START_TEST(graphs_share_a_store_by_name) {
  const int64_t image[3] = {8, 8, 3};
  lamina_graph *other = NULL;
  lamina_parameter a = {.size = sizeof a}, b = {.size = sizeof b};
  NET_OK(context, lamina_graph_create(context, graph, &other));
  NET_OK(context, lamina_graph_input(other, "image", LAMINA_F32, 3, image));
  NET_OK(context, lamina_graph_add(other, "conv2d", "conv1", "image", "out_channels=4 kernel=3"));
  NET_OK(context, lamina_graph_parameter_find(graph, "conv1.weight", &a));
  NET_OK(context, lamina_graph_parameter_find(other, "conv1.weight", &b));
  ck_assert_ptr_eq(a.tensor.data, b.tensor.data);
  /* Only what this graph's own nodes use belongs to it. */
  ck_assert_int_ne(lamina_graph_parameter_find(other, "fc.weight", &b), LAMINA_OK);
  /* The same name with another shape does not fit. */
  lamina_graph *third = NULL;
  NET_OK(context, lamina_graph_create(context, graph, &third));
  NET_OK(context, lamina_graph_input(third, "image", LAMINA_F32, 3, image));
  EXPECT(lamina_graph_add(third, "conv2d", "conv1", "image", "out_channels=5 kernel=3"), LAMINA_SHAPE_MISMATCH,
         "conv1");
  lamina_graph_destroy(third);
  lamina_graph_destroy(other);
}
END_TEST

static void parameter_bytes(lamina_graph *g, const char *name, float *out, int64_t count) {
  lamina_parameter parameter = {.size = sizeof parameter};
  NET_OK(context, lamina_graph_parameter_find(g, name, &parameter));
  ck_assert_int_eq(lamina_tensor_count(&parameter.tensor), count);
  memcpy(out, parameter.tensor.data, (size_t)count * sizeof *out);
}

START_TEST(a_seed_fixes_the_initial_parameters) {
  float a[108], b[108], c[108];
  NET_OK(context, lamina_graph_initialize(graph, 5));
  parameter_bytes(graph, "conv1.weight", a, 108);
  NET_OK(context, lamina_graph_initialize(graph, 6));
  parameter_bytes(graph, "conv1.weight", b, 108);
  NET_OK(context, lamina_graph_initialize(graph, 5));
  parameter_bytes(graph, "conv1.weight", c, 108);
  ck_assert_mem_eq(a, c, sizeof a);
  ck_assert_mem_ne(a, b, sizeof a);
  /* PyTorch's rule: uniform within 1/sqrt(fan-in), here 1/sqrt(27). */
  float largest = 0;
  for (int i = 0; i < 108; i++) largest = fmaxf(largest, fabsf(a[i]));
  ck_assert_float_le(largest, 0.19245f);
  ck_assert_float_ge(largest, 0.15f);
}
END_TEST

static void train_once(lamina_exec *exec, lamina_tensor *image, lamina_tensor *labels) {
  lamina_optimizer sgd = lamina_optimizer_defaults(LAMINA_SGD);
  sgd.weight_decay = 0.1;
  NET_OK(context, lamina_exec_set_input(exec, "image", image));
  NET_OK(context, lamina_exec_set_input(exec, "labels", labels));
  NET_OK(context, lamina_exec_forward(exec));
  NET_OK(context, lamina_exec_backward(exec));
  NET_OK(context, lamina_exec_step(exec, &sgd));
}

START_TEST(frozen_parameters_stay_as_they_are) {
  test_random random = test_random_for("freeze");
  lamina_plan_options options = {.size = sizeof options, .mode = LAMINA_TRAIN, .batch = 2};
  lamina_tensor image = net_random_tensor(&net_small.inputs[0], 2, &random);
  lamina_tensor labels = net_random_tensor(&net_small.inputs[1], 2, &random), gradient;
  float conv[2][108], bias[2][4], fc[3][5 * 256], free_gradient[5 * 256];
  lamina_plan *plan = NULL;
  lamina_exec *exec = NULL;
  for (int frozen = 0; frozen < 2; frozen++) {
    NET_OK(context, lamina_graph_initialize(graph, 3));
    parameter_bytes(graph, "conv1.weight", conv[0], 108);
    parameter_bytes(graph, "conv1.bias", bias[0], 4);
    parameter_bytes(graph, "fc.weight", fc[2], 5 * 256);
    options.freeze = frozen ? "conv1.*, nothing*.bias, f*.bias" : NULL;
    if (frozen) EXPECT(lamina_plan_create(graph, &options, &plan), LAMINA_NOT_FOUND, "nothing*.bias");
    options.freeze = frozen ? "conv1.*" : NULL;
    NET_OK(context, lamina_plan_create(graph, &options, &plan));
    NET_OK(context, lamina_exec_create(plan, &exec));
    train_once(exec, &image, &labels);
    parameter_bytes(graph, "conv1.weight", conv[1], 108);
    parameter_bytes(graph, "conv1.bias", bias[1], 4);
    parameter_bytes(graph, "fc.weight", fc[frozen], 5 * 256);
    NET_OK(context, lamina_exec_gradient(exec, "fc.weight", &gradient));
    if (!frozen) memcpy(free_gradient, gradient.data, sizeof free_gradient);
    ck_assert_mem_eq(gradient.data, free_gradient, sizeof free_gradient);
    ck_assert_int_eq(memcmp(conv[0], conv[1], sizeof conv[0]) == 0, frozen);
    ck_assert_int_eq(memcmp(bias[0], bias[1], sizeof bias[0]) == 0, frozen);
    if (frozen) EXPECT(lamina_exec_gradient(exec, "conv1.weight", &gradient), LAMINA_NOT_FOUND, "conv1.weight");
    lamina_exec_destroy(exec);
    lamina_plan_destroy(plan);
  }
  ck_assert_mem_eq(fc[0], fc[1], sizeof fc[0]);
  ck_assert_mem_ne(fc[0], fc[2], sizeof fc[0]);
  free(image.data);
  free(labels.data);
}
END_TEST

START_TEST(a_run_number_fixes_the_dropout) {
  const net_case spec = {"dropout", 2, {{"x", 1, {200}, 0, NET_OFF_ZERO}}, {{"dropout", "d", "x", NULL}}, NULL, 0};
  test_random random = test_random_for("dropout");
  net n;
  net_open(&n, context, &spec, (lamina_plan_options){.mode = LAMINA_TRAIN, .input_gradients = 1}, &random);
  float *y[4];
  const uint64_t seeds[4][2] = {{1, 1}, {1, 2}, {2, 1}, {1, 1}};
  for (int i = 0; i < 4; i++) {
    lamina_exec_seed(n.exec, seeds[i][0], seeds[i][1]);
    NET_OK(context, lamina_exec_forward(n.exec));
    const lamina_tensor output = net_output(&n);
    y[i] = net_copy(&output);
  }
  ck_assert_mem_eq(y[0], y[3], 400 * sizeof(float));
  ck_assert_mem_ne(y[0], y[1], 400 * sizeof(float));
  ck_assert_mem_ne(y[0], y[2], 400 * sizeof(float));
  for (int i = 0; i < 4; i++) free(y[i]);
  /* Without a new seed the next run, forward and backward, takes the next stream. */
  lamina_exec_seed(n.exec, 1, 1);
  NET_OK(context, lamina_exec_forward(n.exec));
  lamina_tensor output = net_output(&n);
  float *first = net_copy(&output);
  NET_OK(context, lamina_exec_backward(n.exec));
  NET_OK(context, lamina_exec_forward(n.exec));
  output = net_output(&n);
  float *second = net_copy(&output);
  ck_assert_mem_ne(first, second, 400 * sizeof(float));
  /* With no backward in between, too. */
  NET_OK(context, lamina_exec_forward(n.exec));
  output = net_output(&n);
  ck_assert_mem_ne(second, output.data, 400 * sizeof(float));
  free(first);
  free(second);
  net_close(&n);
}
END_TEST

/* ---- what a plan tells ------------------------------------------------------------------------------------------- */

typedef struct text {
  char data[65536];
  size_t used;
} text;

static void append(void *user, const char *piece) {
  text *t = user;
  const size_t n = strlen(piece);
  if (t->used + n < sizeof t->data) {
    memcpy(t->data + t->used, piece, n + 1);
    t->used += n;
  }
}

START_TEST(a_plan_tells_what_it_runs) {
  lamina_plan *plan = NULL;
  lamina_plan_info info = {.size = sizeof info};
  lamina_node_info node = {.size = sizeof node};
  lamina_plan_options options = {.size = sizeof options, .mode = LAMINA_TRAIN, .batch = 4};
  static text t;
  NET_OK(context, lamina_plan_create(graph, &options, &plan));
  NET_OK(context, lamina_plan_get_info(plan, &info));
  ck_assert_int_gt(info.nodes, 0);
  ck_assert_uint_gt(info.arena, 0);
  ck_assert_uint_le(info.arena, info.unplanned);
  /* The convolution alone: 4 images of 8x8 pixels, 4 x 27 multiplications and additions. */
  ck_assert_double_ge(info.flops, 2.0 * 4 * 64 * 4 * 27);
  ck_assert_double_ge(info.backward_flops, info.flops);
  bool conv = false;
  for (int i = 0; i < info.nodes; i++) {
    NET_OK(context, lamina_plan_node(plan, i, &node));
    ck_assert_ptr_nonnull(node.name);
    ck_assert_ptr_nonnull(node.kernel);
    ck_assert_ptr_nonnull(node.fused);
    ck_assert_ptr_nonnull(node.rejected);
    ck_assert_ptr_nonnull(node.algorithm);
    if (strcmp(node.name, "conv1") == 0) {
      conv = true;
      ck_assert_str_eq(node.type, "conv2d");
      ck_assert_double_ge(node.flops, 2.0 * 4 * 64 * 4 * 27);
    }
  }
  ck_assert(conv);
  ck_assert_int_ne(lamina_plan_node(plan, info.nodes, &node), LAMINA_OK);
  ck_assert_int_ne(lamina_plan_node(plan, -1, &node), LAMINA_OK);
  t.used = 0;
  NET_OK(context, lamina_plan_explain(plan, append, &t));
  ck_assert_ptr_nonnull(strstr(t.data, "conv1"));
  ck_assert_ptr_nonnull(strstr(t.data, "fc"));
  lamina_plan_destroy(plan);
  options.no_fusion = 1;
  lamina_plan_info plain = {.size = sizeof plain};
  NET_OK(context, lamina_plan_create(graph, &options, &plan));
  NET_OK(context, lamina_plan_get_info(plan, &plain));
  ck_assert_int_ge(plain.nodes, info.nodes);
  ck_assert_int_eq(plain.fused, 0);
  lamina_plan_destroy(plan);
}
END_TEST

START_TEST(a_smaller_struct_of_an_older_caller_is_enough) {
  lamina_context_info info;
  memset(&info, 0x5A, sizeof info);
  info.size = offsetof(lamina_context_info, cpu);
  NET_OK(context, lamina_context_get_info(context, &info));
  unsigned char rest[sizeof info - offsetof(lamina_context_info, cpu)];
  memset(rest, 0x5A, sizeof rest);
  ck_assert_mem_eq((unsigned char *)&info + offsetof(lamina_context_info, cpu), rest, sizeof rest);
  ck_assert_ptr_nonnull(info.isa);
}
END_TEST

static void open_exec(lamina_mode mode, const char *outputs, lamina_plan **plan, lamina_exec **exec) {
  const lamina_plan_options options = {.size = sizeof options, .mode = mode, .batch = 2, .outputs = outputs};
  NET_OK(context, lamina_plan_create(graph, &options, plan));
  NET_OK(context, lamina_exec_create(*plan, exec));
}

START_TEST(what_is_not_finite_is_found_by_name) {
  static float x[2 * 8 * 8 * 3];
  static int32_t labels[2];
  const int64_t dim[4] = {2, 8, 8, 3}, two[1] = {2};
  const lamina_tensor image = lamina_tensor_of(x, LAMINA_F32, 4, dim),
                      classes = lamina_tensor_of(labels, LAMINA_I32, 1, two);
  lamina_parameter weight = {.size = sizeof weight};
  lamina_plan *plan = NULL;
  lamina_exec *exec = NULL;
  open_exec(LAMINA_TRAIN, NULL, &plan, &exec);
  for (size_t i = 0; i < sizeof x / sizeof *x; i++) x[i] = 0.5f;
  NET_OK(context, lamina_exec_set_input(exec, "image", &image));
  NET_OK(context, lamina_exec_set_input(exec, "labels", &classes));
  NET_OK(context, lamina_exec_forward(exec));
  ck_assert_ptr_null(lamina_exec_find_not_finite(exec));
  NET_OK(context, lamina_graph_parameter_find(graph, "fc.weight", &weight));
  ((float *)weight.tensor.data)[3] = INFINITY;
  lamina_graph_parameters_changed(graph);
  NET_OK(context, lamina_exec_forward(exec));
  const char *name = lamina_exec_find_not_finite(exec);
  ck_assert_ptr_nonnull(name);
  ck_assert_str_eq(name, "fc");
  lamina_exec_destroy(exec);
  lamina_plan_destroy(plan);
}
END_TEST

START_TEST(status_names_are_words) {
  for (int i = LAMINA_OK; i <= LAMINA_PLUGIN_ERROR; i++) {
    ck_assert_ptr_nonnull(lamina_status_name((lamina_status)i));
    ck_assert_str_ne(lamina_status_name((lamina_status)i), "");
  }
  ck_assert_ptr_nonnull(lamina_status_name((lamina_status)999));
  ck_assert_str_eq(lamina_version(), LAMINA_VERSION);
}
END_TEST

START_TEST(tensor_counts_do_not_overflow) {
  const int64_t huge[4] = {INT64_C(1) << 31, INT64_C(1) << 31, 4, 1}, scalar[1] = {0}, some[3] = {2, 3, 4};
  lamina_tensor tensor = lamina_tensor_of(NULL, LAMINA_F32, 4, huge);
  ck_assert_int_eq(lamina_tensor_count(&tensor), -1);
  tensor = lamina_tensor_of(NULL, LAMINA_F32, 0, scalar);
  ck_assert_int_eq(lamina_tensor_count(&tensor), 1);
  tensor = lamina_tensor_of(NULL, LAMINA_F32, 3, some);
  ck_assert_int_eq(lamina_tensor_count(&tensor), 24);
  ck_assert_int_eq(tensor.stride[0], 12);
  ck_assert_int_eq(tensor.stride[2], 1);
}
END_TEST

int main(void) {
  test_print_seed();
  if (net_isa_is_absent()) return TEST_SKIPPED;
  Suite *suite = suite_create("api");
  TCase *cases = tcase_create("promises of lamina.h");
  tcase_set_timeout(cases, 60);
  tcase_add_checked_fixture(cases, set_up, tear_down);
  tcase_add_test(cases, handles_are_destroyed_in_any_order);
  tcase_add_test(cases, graphs_share_a_store_by_name);
  tcase_add_test(cases, a_seed_fixes_the_initial_parameters);
  tcase_add_test(cases, frozen_parameters_stay_as_they_are);
  tcase_add_test(cases, a_run_number_fixes_the_dropout);
  tcase_add_test(cases, a_plan_tells_what_it_runs);
  tcase_add_test(cases, a_smaller_struct_of_an_older_caller_is_enough);
  tcase_add_test(cases, what_is_not_finite_is_found_by_name);
  tcase_add_test(cases, status_names_are_words);
  tcase_add_test(cases, tensor_counts_do_not_overflow);
  suite_add_tcase(suite, cases);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_ENV);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
