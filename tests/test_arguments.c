/* SPDX-License-Identifier: Apache-2.0 */
/* Every bad argument of lamina.h is refused with a status and a message that names the culprit; nothing has changed. */
#include "net_test.h"

#include <limits.h>
#include <locale.h>

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

/* ---- arguments of graphs ----------------------------------------------------------------------------------------- */

START_TEST(null_arguments_are_refused) {
  const int64_t dim[1] = {3};
  lamina_tensor tensor = {0};
  lamina_parameter parameter = {.size = sizeof parameter};
  lamina_context_info info = {.size = sizeof info};
  lamina_plan *plan = NULL;
  lamina_exec *exec = NULL;
  lamina_graph *loaded = NULL;
  lamina_dataset *dataset = NULL;
  ck_assert_int_eq(lamina_context_create(NULL, NULL), LAMINA_INVALID_ARGUMENT);
  ck_assert_int_eq(lamina_context_get_info(NULL, &info), LAMINA_INVALID_ARGUMENT);
  ck_assert_int_eq(lamina_context_get_info(context, NULL), LAMINA_INVALID_ARGUMENT);
  ck_assert_int_eq(lamina_context_load_plugin(context, NULL), LAMINA_INVALID_ARGUMENT);
  ck_assert_int_eq(lamina_graph_create(NULL, NULL, &loaded), LAMINA_INVALID_ARGUMENT);
  ck_assert_int_eq(lamina_graph_create(context, NULL, NULL), LAMINA_INVALID_ARGUMENT);
  ck_assert_int_eq(lamina_graph_input(NULL, "x", LAMINA_F32, 1, dim), LAMINA_INVALID_ARGUMENT);
  ck_assert_int_eq(lamina_graph_input(graph, NULL, LAMINA_F32, 1, dim), LAMINA_INVALID_ARGUMENT);
  ck_assert_int_eq(lamina_graph_input(graph, "x", LAMINA_F32, 1, NULL), LAMINA_INVALID_ARGUMENT);
  ck_assert_int_eq(lamina_graph_add(NULL, "relu", "r", "fc", NULL), LAMINA_INVALID_ARGUMENT);
  ck_assert_int_ne(lamina_graph_add(graph, NULL, "r", "fc", NULL), LAMINA_OK);
  ck_assert_int_eq(lamina_graph_add(graph, "relu", NULL, "fc", NULL), LAMINA_INVALID_ARGUMENT);
  ck_assert_int_ne(lamina_graph_add(graph, "relu", "r", NULL, NULL), LAMINA_OK);
  ck_assert_int_ne(lamina_graph_output(graph, NULL), LAMINA_OK);
  ck_assert_int_ne(lamina_graph_value(graph, NULL, &tensor), LAMINA_OK);
  ck_assert_int_ne(lamina_graph_value(graph, "fc", NULL), LAMINA_OK);
  ck_assert_int_ne(lamina_graph_parameter_at(graph, 0, NULL), LAMINA_OK);
  ck_assert_int_ne(lamina_graph_parameter_find(graph, NULL, &parameter), LAMINA_OK);
  ck_assert_int_ne(lamina_graph_load_model(context, NULL, &loaded), LAMINA_OK);
  ck_assert_int_ne(lamina_graph_load_weights(graph, NULL, 0), LAMINA_OK);
  ck_assert_int_eq(lamina_graph_save_weights(NULL, "/tmp/x", 0, NULL), LAMINA_INVALID_ARGUMENT);
  ck_assert_int_eq(lamina_plan_create(NULL, NULL, &plan), LAMINA_INVALID_ARGUMENT);
  ck_assert_int_eq(lamina_plan_create(graph, NULL, NULL), LAMINA_INVALID_ARGUMENT);
  ck_assert_int_eq(lamina_exec_create(NULL, &exec), LAMINA_INVALID_ARGUMENT);
  ck_assert_int_eq(lamina_exec_forward(NULL), LAMINA_INVALID_ARGUMENT);
  ck_assert_int_eq(lamina_exec_backward(NULL), LAMINA_INVALID_ARGUMENT);
  ck_assert_int_eq(lamina_dataset_open(NULL, NULL, &dataset), LAMINA_INVALID_ARGUMENT);
  lamina_context_destroy(NULL);
  lamina_graph_destroy(NULL);
  lamina_plan_destroy(NULL);
  lamina_exec_destroy(NULL);
  lamina_dataset_destroy(NULL);
  ck_assert_ptr_nonnull(lamina_error_message(NULL));
  ck_assert_int_eq(lamina_layer_count(NULL), 0);
  ck_assert_ptr_null(lamina_layer_at(context, -1));
  ck_assert_ptr_null(lamina_layer_at(context, INT_MAX));
}
END_TEST

static const struct {
  const char *type, *name, *inputs, *attributes;
  const char *words; /* that the message must contain */
} bad_layers[] = {
    {"conv9d", "c", "image", NULL, "conv9d"},
    {"conv2d", "conv1", "image", "out_channels=4 kernel=3", "conv1"},
    {"conv2d", "image", "image", "out_channels=4 kernel=3", "image"},
    {"relu", "", "conv1", NULL, "name"},
    {"relu", "r", "nowhere", NULL, "r|nowhere"},
    {"relu", "r", "r", NULL, "r"},
    {"relu", "r", "conv1,relu1", NULL, "r"},
    {"relu", "r", "", NULL, "r"},
    {"add", "a", "conv1,,relu1", NULL, "a"},
    {"conv2d", "c", "image", "kernel=3", "c|out_channels"},
    {"conv2d", "c", "image", "out_channels=4 kernel=3 colour=red", "c|colour"},
    {"conv2d", "c", "image", "out_channels=4 kernel=3 kernel=5", "c|kernel"},
    {"conv2d", "c", "image", "out_channels=0 kernel=3", "c|out_channels"},
    {"conv2d", "c", "image", "out_channels=-4 kernel=3", "c|out_channels"},
    {"conv2d", "c", "image", "out_channels=four kernel=3", "c|out_channels|four"},
    {"conv2d", "c", "image", "out_channels=4.5 kernel=3", "c|out_channels|4.5"},
    {"conv2d", "c", "image", "out_channels=99999999999999999999 kernel=3", "c|out_channels"},
    {"conv2d", "c", "image", "out_channels=9223372036854775807 kernel=3", "c"},
    {"conv2d", "c", "image", "out_channels=4 kernel=0", "c|kernel"},
    {"conv2d", "c", "image", "out_channels=4 kernel=3,3,3", "c|kernel"},
    {"conv2d", "c", "image", "out_channels=4 kernel=3 stride=0", "c|stride"},
    {"conv2d", "c", "image", "out_channels=4 kernel=3 padding=-1", "c|padding"},
    {"conv2d", "c", "image", "out_channels=4 kernel=9", "c|8"},
    {"conv2d", "c", "image", "out_channels=4 kernel=3 groups=2", "c|groups"},
    {"conv2d", "c", "image", "out_channels=4 kernel", "c|kernel"},
    {"conv2d", "c", "image", "out_channels=4 kernel=3 bias=maybe", "c|bias|maybe"},
    {"conv2d", "c", "fc", "out_channels=4 kernel=3", "c"},
    {"linear", "l", "fc", "out_features=0", "l|out_features"},
    {"add", "a", "conv1,fc", NULL, "a"},
    {"concat", "k", "conv1,fc", NULL, "k"},
    {"softmax_cross_entropy", "s", "fc,fc", NULL, "s"},
    {"batch_norm", "b", "conv1", "eps=-1", "b|eps"},
    {"batch_norm", "b", "conv1", "eps=nan", "b|eps"},
    {"relu", "r", "labels", NULL, "r|labels"},
};

START_TEST(a_bad_layer_is_refused_by_name) {
  const int parameters = lamina_graph_parameter_count(graph);
  const lamina_status status = lamina_graph_add(graph, bad_layers[_i].type, bad_layers[_i].name, bad_layers[_i].inputs,
                                                bad_layers[_i].attributes);
  test_that(status != LAMINA_OK, "%s %s was accepted", bad_layers[_i].type,
                bad_layers[_i].attributes ? bad_layers[_i].attributes : "");
  EXPECT(status, status, bad_layers[_i].words);
  /* The graph is as it was. */
  ck_assert_int_eq(lamina_graph_parameter_count(graph), parameters);
  NET_OK(context, lamina_graph_add(graph, "relu", "fresh", "conv1", NULL));
}
END_TEST

/* A program that shows numbers with a decimal comma still writes attributes with a point. */
START_TEST(attributes_do_not_depend_on_the_locale) {
  static const char *const with_comma[] = {"de_DE.UTF-8", "fr_FR.UTF-8", "nl_NL.UTF-8", "es_ES.UTF-8"};
  bool found = false;
  for (size_t i = 0; i < sizeof with_comma / sizeof *with_comma && !found; i++)
    found = setlocale(LC_NUMERIC, with_comma[i]) && *localeconv()->decimal_point == ',';
  if (!found) printf("skipped: no locale with a decimal comma is installed\n");
  NET_OK(context, lamina_graph_add(graph, "leaky_relu", "leaky", "conv1", "negative_slope=0.25"));
  setlocale(LC_NUMERIC, "C");
}
END_TEST

START_TEST(bad_inputs_of_a_graph_are_refused) {
  const int64_t good[2] = {4, 4}, zero[2] = {4, 0}, negative[2] = {-1, 4}, many[8] = {1, 1, 1, 1, 1, 1, 1, 1};
  const int64_t huge[3] = {INT64_C(1) << 31, INT64_C(1) << 31, 16};
  EXPECT(lamina_graph_input(graph, "zero", LAMINA_F32, 2, zero), LAMINA_INVALID_ARGUMENT, "zero");
  EXPECT(lamina_graph_input(graph, "negative", LAMINA_F32, 2, negative), LAMINA_INVALID_ARGUMENT, "negative");
  EXPECT(lamina_graph_input(graph, "rank", LAMINA_F32, 8, many), LAMINA_INVALID_ARGUMENT, "rank");
  EXPECT(lamina_graph_input(graph, "rank", LAMINA_F32, -1, many), LAMINA_INVALID_ARGUMENT, "rank");
  EXPECT(lamina_graph_input(graph, "huge", LAMINA_F32, 3, huge), LAMINA_INVALID_ARGUMENT, "huge");
  EXPECT(lamina_graph_input(graph, "conv1", LAMINA_F32, 2, good), LAMINA_INVALID_ARGUMENT, "conv1");
  EXPECT(lamina_graph_input(graph, "image", LAMINA_F32, 2, good), LAMINA_INVALID_ARGUMENT, "image");
  EXPECT(lamina_graph_input(graph, "type", LAMINA_U8, 2, good), LAMINA_UNSUPPORTED, "type");
  ck_assert_int_ne(lamina_graph_input(graph, "type", (lamina_dtype)77, 2, good), LAMINA_OK);
  EXPECT(lamina_graph_output(graph, "nothing"), LAMINA_NOT_FOUND, "nothing");
  NET_OK(context, lamina_graph_input(graph, "good", LAMINA_F32, 2, good));
}
END_TEST

START_TEST(unknown_names_are_not_found) {
  lamina_tensor tensor = {0};
  lamina_parameter parameter = {.size = sizeof parameter};
  lamina_graph *loaded = (lamina_graph *)(uintptr_t)1;
  EXPECT(lamina_graph_value(graph, "nothing", &tensor), LAMINA_NOT_FOUND, "nothing");
  EXPECT(lamina_graph_parameter_find(graph, "conv1.wait", &parameter), LAMINA_NOT_FOUND, "conv1.wait");
  ck_assert_int_ne(lamina_graph_parameter_at(graph, -1, &parameter), LAMINA_OK);
  ck_assert_int_ne(lamina_graph_parameter_at(graph, 1000, &parameter), LAMINA_OK);
  EXPECT(lamina_graph_load_model(context, "/nonexistent/model.json", &loaded), LAMINA_NOT_FOUND,
         "/nonexistent/model.json");
  ck_assert_ptr_null(loaded);
  EXPECT(lamina_graph_load_weights(graph, "/nonexistent/w.safetensors", 0), LAMINA_NOT_FOUND,
         "/nonexistent/w.safetensors");
  ck_assert_ptr_null(lamina_layer_find(context, "conv9d", NULL));
  ck_assert_ptr_null(lamina_graph_input_name(graph, 99));
  ck_assert_ptr_null(lamina_graph_output_name(graph, -1));
}
END_TEST

/* ---- plans and execs --------------------------------------------------------------------------------------------- */

START_TEST(bad_plan_options_are_refused) {
  lamina_plan *plan = (lamina_plan *)(uintptr_t)1;
  lamina_plan_options options = {.size = sizeof options, .batch = -1};
  ck_assert_int_eq(lamina_plan_create(graph, &options, &plan), LAMINA_INVALID_ARGUMENT);
  ck_assert_ptr_null(plan);
  options.batch = INT64_MAX;
  ck_assert_int_ne(lamina_plan_create(graph, &options, &plan), LAMINA_OK);
  options.batch = INT64_C(1) << 56;
  ck_assert_int_ne(lamina_plan_create(graph, &options, &plan), LAMINA_OK);
  options.batch = 1;
  options.mode = (lamina_mode)5;
  ck_assert_int_eq(lamina_plan_create(graph, &options, &plan), LAMINA_INVALID_ARGUMENT);
  options.mode = LAMINA_INFER;
  options.outputs = "fc,nothing";
  EXPECT(lamina_plan_create(graph, &options, &plan), LAMINA_NOT_FOUND, "nothing");
  options.outputs = "";
  ck_assert_int_ne(lamina_plan_create(graph, &options, &plan), LAMINA_OK);
  ck_assert_ptr_null(plan);
  lamina_graph *empty = NULL;
  NET_OK(context, lamina_graph_create(context, NULL, &empty));
  ck_assert_int_ne(lamina_plan_create(empty, NULL, &plan), LAMINA_OK);
  ck_assert_str_ne(lamina_error_message(context), "");
  lamina_graph_destroy(empty);
}
END_TEST

static void open_exec(lamina_mode mode, const char *outputs, lamina_plan **plan, lamina_exec **exec) {
  const lamina_plan_options options = {.size = sizeof options, .mode = mode, .batch = 2, .outputs = outputs};
  NET_OK(context, lamina_plan_create(graph, &options, plan));
  NET_OK(context, lamina_exec_create(*plan, exec));
}

START_TEST(an_exec_refuses_what_does_not_fit) {
  static float x[2 * 8 * 8 * 3];
  static int32_t labels[2];
  const int64_t good[4] = {2, 8, 8, 3}, batch3[4] = {3, 8, 8, 3}, wrong[4] = {2, 3, 8, 8}, two[1] = {2};
  lamina_tensor tensor = lamina_tensor_of(x, LAMINA_F32, 4, good), y;
  lamina_plan *plan = NULL;
  lamina_exec *exec = NULL;
  open_exec(LAMINA_TRAIN, NULL, &plan, &exec);
  EXPECT(lamina_exec_forward(exec), LAMINA_INVALID_ARGUMENT, "image");
  EXPECT(lamina_exec_set_input(exec, "picture", &tensor), LAMINA_NOT_FOUND, "picture");
  tensor.dtype = LAMINA_I32;
  EXPECT(lamina_exec_set_input(exec, "image", &tensor), LAMINA_SHAPE_MISMATCH, "image");
  tensor = lamina_tensor_of(x, LAMINA_F32, 4, batch3);
  EXPECT(lamina_exec_set_input(exec, "image", &tensor), LAMINA_SHAPE_MISMATCH, "image|3x8x8x3|2x8x8x3");
  tensor = lamina_tensor_of(x, LAMINA_F32, 4, wrong);
  EXPECT(lamina_exec_set_input(exec, "image", &tensor), LAMINA_SHAPE_MISMATCH, "image|2x3x8x8|2x8x8x3");
  tensor = lamina_tensor_of(NULL, LAMINA_F32, 4, good);
  ck_assert_int_ne(lamina_exec_set_input(exec, "image", &tensor), LAMINA_OK);
  tensor = lamina_tensor_of(x, LAMINA_F32, 4, good);
  tensor.stride[2] = 4;
  ck_assert_int_ne(lamina_exec_set_input(exec, "image", &tensor), LAMINA_OK);
  tensor = lamina_tensor_of(x, LAMINA_F32, 4, good);
  NET_OK(context, lamina_exec_set_input(exec, "image", &tensor));
  EXPECT(lamina_exec_forward(exec), LAMINA_INVALID_ARGUMENT, "labels");
  tensor = lamina_tensor_of(labels, LAMINA_I32, 1, two);
  NET_OK(context, lamina_exec_set_input(exec, "labels", &tensor));
  ck_assert_int_ne(lamina_exec_backward(exec), LAMINA_OK);
  NET_OK(context, lamina_exec_forward(exec));
  EXPECT(lamina_exec_output(exec, "conv1", &y), LAMINA_NOT_FOUND, "conv1");
  ck_assert_int_ne(lamina_exec_gradient(exec, "conv1.weight", &y), LAMINA_OK); /* backward has not run */
  NET_OK(context, lamina_exec_backward(exec));
  EXPECT(lamina_exec_gradient(exec, "conv1.wait", &y), LAMINA_NOT_FOUND, "conv1.wait");
  ck_assert_int_eq(lamina_exec_step(exec, NULL), LAMINA_INVALID_ARGUMENT);
  /* A label out of range is an error that tells which one. */
  labels[1] = 5;
  EXPECT(lamina_exec_forward(exec), LAMINA_INVALID_ARGUMENT, "loss|5");
  labels[1] = -1;
  EXPECT(lamina_exec_forward(exec), LAMINA_INVALID_ARGUMENT, "loss|-1");
  lamina_exec_destroy(exec);
  lamina_plan_destroy(plan);
}
END_TEST

START_TEST(an_inference_exec_does_not_train) {
  static float x[2 * 8 * 8 * 3];
  const int64_t dim[4] = {2, 8, 8, 3};
  const lamina_tensor tensor = lamina_tensor_of(x, LAMINA_F32, 4, dim);
  const lamina_optimizer sgd = lamina_optimizer_defaults(LAMINA_SGD);
  lamina_tensor gradient;
  lamina_plan *plan = NULL;
  lamina_exec *exec = NULL;
  open_exec(LAMINA_INFER, "fc", &plan, &exec);
  NET_OK(context, lamina_exec_set_input(exec, "image", &tensor));
  NET_OK(context, lamina_exec_forward(exec));
  ck_assert_int_ne(lamina_exec_backward(exec), LAMINA_OK);
  ck_assert_int_ne(lamina_exec_step(exec, &sgd), LAMINA_OK);
  ck_assert_int_ne(lamina_exec_gradient(exec, "fc.weight", &gradient), LAMINA_OK);
  lamina_exec_destroy(exec);
  lamina_plan_destroy(plan);
}
END_TEST

int main(void) {
  test_print_seed();
  if (net_isa_is_absent()) return TEST_SKIPPED;
  Suite *suite = suite_create("arguments");
  TCase *cases = tcase_create("bad arguments");
  tcase_set_timeout(cases, 60);
  tcase_add_checked_fixture(cases, set_up, tear_down);
  tcase_add_test(cases, null_arguments_are_refused);
  tcase_add_loop_test(cases, a_bad_layer_is_refused_by_name, 0, (int)(sizeof bad_layers / sizeof *bad_layers));
  tcase_add_test(cases, attributes_do_not_depend_on_the_locale);
  tcase_add_test(cases, bad_inputs_of_a_graph_are_refused);
  tcase_add_test(cases, unknown_names_are_not_found);
  tcase_add_test(cases, bad_plan_options_are_refused);
  tcase_add_test(cases, an_exec_refuses_what_does_not_fit);
  tcase_add_test(cases, an_inference_exec_does_not_train);
  suite_add_tcase(suite, cases);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_ENV);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
