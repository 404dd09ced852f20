/* SPDX-License-Identifier: Apache-2.0 */
/* The promises of lamina.h on arguments, messages, lifetimes and seeds. */
#include "net_test.h"

#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

static lamina_context *context;
static lamina_graph *graph;

static void set_up(void) {
  const int64_t image[3] = {8, 8, 3};
  context = net_context(2);
  NET_OK(context, lamina_graph_create(context, NULL, &graph));
  NET_OK(context, lamina_graph_input(graph, "image", LAMINA_F32, 3, image));
  NET_OK(context, lamina_graph_input(graph, "labels", LAMINA_I32, 0, NULL));
  NET_OK(context, lamina_graph_add(graph, "conv2d", "conv1", "image", "out_channels=4 kernel=3 padding=1"));
  NET_OK(context, lamina_graph_add(graph, "relu", "relu1", "conv1", NULL));
  NET_OK(context, lamina_graph_add(graph, "flatten", "flatten", "relu1", NULL));
  NET_OK(context, lamina_graph_add(graph, "linear", "fc", "flatten", "out_features=5"));
  NET_OK(context, lamina_graph_add(graph, "softmax_cross_entropy", "loss", "fc,labels", NULL));
}

static void tear_down(void) {
  lamina_graph_destroy(graph);
  lamina_context_destroy(context);
}

/* Asserts the status and that the message contains every one of the words separated by '|'. */
static void expect(lamina_status got, lamina_status wanted, const char *words, int line) {
  char list[256], *save = NULL;
  const char *message = lamina_error_message(context);
  ck_assert_msg(got == wanted, "line %d: %s (%s), expected %s", line, lamina_status_name(got), message,
                lamina_status_name(wanted));
  snprintf(list, sizeof list, "%s", words);
  for (char *word = strtok_r(list, "|", &save); word; word = strtok_r(NULL, "|", &save))
    ck_assert_msg(strstr(message, word), "line %d: \"%s\" does not name %s", line, message, word);
}
#define EXPECT(call, status, words) expect((call), (status), (words), __LINE__)

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
  ck_assert_int_eq(lamina_graph_add(graph, NULL, "r", "fc", NULL), LAMINA_INVALID_ARGUMENT);
  ck_assert_int_eq(lamina_graph_add(graph, "relu", NULL, "fc", NULL), LAMINA_INVALID_ARGUMENT);
  ck_assert_int_ne(lamina_graph_add(graph, "relu", "r", NULL, NULL), LAMINA_OK);
  ck_assert_int_eq(lamina_graph_output(graph, NULL), LAMINA_INVALID_ARGUMENT);
  ck_assert_int_eq(lamina_graph_value(graph, NULL, &tensor), LAMINA_INVALID_ARGUMENT);
  ck_assert_int_eq(lamina_graph_value(graph, "fc", NULL), LAMINA_INVALID_ARGUMENT);
  ck_assert_int_eq(lamina_graph_parameter_at(graph, 0, NULL), LAMINA_INVALID_ARGUMENT);
  ck_assert_int_eq(lamina_graph_parameter_find(graph, NULL, &parameter), LAMINA_INVALID_ARGUMENT);
  ck_assert_int_eq(lamina_graph_load_model(context, NULL, &loaded), LAMINA_INVALID_ARGUMENT);
  ck_assert_int_eq(lamina_graph_load_weights(graph, NULL, 0), LAMINA_INVALID_ARGUMENT);
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
    {"relu", "r", "conv1,", NULL, "r"},
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
  ck_assert_msg(status != LAMINA_OK, "%s %s was accepted", bad_layers[_i].type,
                bad_layers[_i].attributes ? bad_layers[_i].attributes : "");
  EXPECT(status, status, bad_layers[_i].words);
  /* The graph is as it was. */
  ck_assert_int_eq(lamina_graph_parameter_count(graph), parameters);
  NET_OK(context, lamina_graph_add(graph, "relu", "fresh", "conv1", NULL));
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
  EXPECT(lamina_graph_input(graph, "type", LAMINA_U8, 2, good), LAMINA_INVALID_ARGUMENT, "type");
  EXPECT(lamina_graph_input(graph, "type", (lamina_dtype)77, 2, good), LAMINA_INVALID_ARGUMENT, "type");
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
  EXPECT(lamina_exec_gradient(exec, "conv1.wait", &y), LAMINA_NOT_FOUND, "conv1.wait");
  NET_OK(context, lamina_exec_backward(exec));
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

START_TEST(a_run_number_fixes_the_dropout) {
  const net_case spec = {"dropout", 2, {{"x", 1, {200}, 0, NET_OFF_ZERO}}, {{"dropout", "d", "x", NULL}}, NULL, 0};
  test_random random = test_random_for("dropout");
  net n;
  net_open(&n, context, &spec, (lamina_plan_options){.mode = LAMINA_TRAIN}, &random);
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
  /* Without a new seed the next run takes the next stream. */
  lamina_exec_seed(n.exec, 1, 1);
  NET_OK(context, lamina_exec_forward(n.exec));
  lamina_tensor output = net_output(&n);
  float *first = net_copy(&output);
  NET_OK(context, lamina_exec_forward(n.exec));
  output = net_output(&n);
  float *second = net_copy(&output);
  ck_assert_mem_ne(first, second, 400 * sizeof(float));
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
  tcase_add_test(cases, null_arguments_are_refused);
  tcase_add_loop_test(cases, a_bad_layer_is_refused_by_name, 0, (int)(sizeof bad_layers / sizeof *bad_layers));
  tcase_add_test(cases, bad_inputs_of_a_graph_are_refused);
  tcase_add_test(cases, unknown_names_are_not_found);
  tcase_add_test(cases, bad_plan_options_are_refused);
  tcase_add_test(cases, an_exec_refuses_what_does_not_fit);
  tcase_add_test(cases, an_inference_exec_does_not_train);
  tcase_add_test(cases, handles_are_destroyed_in_any_order);
  tcase_add_test(cases, graphs_share_a_store_by_name);
  tcase_add_test(cases, a_seed_fixes_the_initial_parameters);
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
