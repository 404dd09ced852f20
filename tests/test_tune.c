/* SPDX-License-Identifier: Apache-2.0 */
/* Tuning: the fastest kernel is found by measuring, it is remembered in a file, and no file can make a plan fail. */
#include "net_test.h"
#include "registry.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

static lamina_context *context;
static char folder[64], path[96]; /* of the wisdom file */
static char warnings[4096];
static int forwards; /* of all kernels of the layer below */

static void keep_warning(void *user, const char *message) {
  strncat(warnings, message, sizeof warnings - strlen(warnings) - 1);
}

static void open_context(int threads, lamina_math_mode math) {
  const lamina_context_options options = {
      .size = sizeof options, .threads = threads, .math = math, .log = keep_warning};
  warnings[0] = '\0';
  ck_assert_int_eq(lamina_context_create(&options, &context), LAMINA_OK);
}

static void set_up(void) {
  snprintf(folder, sizeof folder, "/tmp/lamina-tune-XXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/wisdom.json", folder);
  setenv("LAMINA_WISDOM", path, 1);
  unsetenv("LAMINA_PLAN_TUNE");
  open_context(2, LAMINA_MATH_DEFAULT);
}

static void tear_down(void) {
  char command[96];
  lamina_context_destroy(context);
  snprintf(command, sizeof command, "rm -rf %s", folder);
  ck_assert_int_eq(system(command), 0);
}

/* ---- a layer with a choice: y = weight * x ------------------------------------------------------------------------
 */

enum { N = 50 };

static lamina_status infer(lamina_node *node) {
  node->outputs[0].rank = node->inputs[0].rank;
  memcpy(node->outputs[0].dim, node->inputs[0].dim, sizeof node->inputs[0].dim);
  node->params[0].rank = 1;
  node->params[0].dim[0] = N;
  return LAMINA_OK;
}

static lamina_status scale(const lamina_node *node, const float *weight, const lamina_tensor *from, lamina_tensor *to) {
  for (int64_t i = 0; i < lamina_tensor_count(from); i++)
    ((float *)to->data)[i] = weight[i % N] * ((const float *)from->data)[i];
  return LAMINA_OK;
}

static void wait_a_while(void) { usleep(1500); }

/* Never takes itself to be worthwhile; reads packed weights. */
static int never(const lamina_node *node) { return 0; }
static int unless_strict(const lamina_node *node) { return node->host->math != LAMINA_MATH_STRICT; }
static lamina_status quick_plan(const lamina_node *node, lamina_cost *cost) {
  cost->packed = cost->workspace = N * sizeof(float);
  if (node->mode == LAMINA_TRAIN) cost->saved = sizeof(float);
  return LAMINA_OK;
}
static lamina_status quick_pack(const lamina_node *node) {
  memcpy(node->packed, node->params[0].data, N * sizeof(float));
  return LAMINA_OK;
}
static lamina_status quick_forward(const lamina_node *node) {
  forwards++;
  memset(node->workspace, 0, N * sizeof(float));
  if (node->mode == LAMINA_TRAIN) *(float *)node->saved = 1;
  return scale(node, node->packed, &node->inputs[0], &node->outputs[0]);
}
static lamina_status quick_backward(const lamina_node *node) {
  ck_assert(*(float *)node->saved == 1);
  if (node->need_params) memset(node->d_params[0].data, 0, N * sizeof(float));
  return node->need_inputs ? scale(node, node->packed, &node->d_outputs[0], &node->d_inputs[0]) : LAMINA_OK;
}

static lamina_status slow_forward(const lamina_node *node) {
  forwards++;
  wait_a_while();
  return scale(node, node->params[0].data, &node->inputs[0], &node->outputs[0]);
}
static lamina_status slow_backward(const lamina_node *node) {
  if (node->need_params) memset(node->d_params[0].data, 0, N * sizeof(float));
  return node->need_inputs ? scale(node, node->params[0].data, &node->d_outputs[0], &node->d_inputs[0]) : LAMINA_OK;
}

/* Would be the fastest of all. */
static lamina_status broken_forward(const lamina_node *node) {
  return (node->host->fail)(node->host, LAMINA_UNSUPPORTED, "broken"); /* check has a macro fail */
}
static int always(const lamina_node *node) { return 1; }

static const lamina_port x_port = {.size = sizeof x_port, .name = "x", .kind = LAMINA_PORT_INPUT};
static const lamina_port y_port = {.size = sizeof y_port, .name = "y", .kind = LAMINA_PORT_OUTPUT};
static const lamina_port weight_port = {
    .size = sizeof weight_port, .name = "weight", .kind = LAMINA_PORT_PARAMETER, .initializer = "constant:3"};
static const lamina_kernel broken = {.size = sizeof broken,
                                     .name = "broken",
                                     .supports = never,
                                     .possible = always,
                                     .forward = broken_forward,
                                     .backward = broken_forward};
static const lamina_kernel quick = {.size = sizeof quick,
                                    .name = "quick",
                                    .supports = never,
                                    .possible = unless_strict,
                                    .plan = quick_plan,
                                    .pack = quick_pack,
                                    .forward = quick_forward,
                                    .backward = quick_backward};
static const lamina_kernel slow = {
    .size = sizeof slow, .name = "slow", .forward = slow_forward, .backward = slow_backward};
static const lamina_layer choice = {.size = sizeof choice,
                                    .name = "choice",
                                    .version = 1,
                                    .ports = (const lamina_port *const[]){&x_port, &y_port, &weight_port, NULL},
                                    .kernels = (const lamina_kernel *const[]){&broken, &quick, &slow, NULL},
                                    .infer = infer};

static const net_case one = {"one", 2, {{"x", 1, {N}, 0, NET_UNIFORM}}, {{"choice", "c", "x", NULL}}, NULL, 0};

/* Opens the network, checks its result, and that these kernels were measured and choices remembered. */
static net planned(const net_case *spec, lamina_plan_options options, int timed, int remembered) {
  test_random random = test_random_for(spec->name);
  lamina_plan_info info = {.size = sizeof info};
  net n;
  if (!lamina_layer_find(context, "choice", NULL)) NET_OK(context, lamina_registry_add(context, &choice, "test_tune"));
  forwards = 0;
  net_open(&n, context, spec, options, &random);
  NET_OK(context, lamina_plan_get_info(n.plan, &info));
  ck_assert_int_eq(info.timed, timed);
  ck_assert_int_eq(info.remembered, remembered);
  test_that(timed ? forwards > 2 : forwards == 0, "%d runs", forwards);
  return n;
}

static void expect_kernel(const net *n, const char *kernel, const char *rejected) {
  lamina_node_info info = {.size = sizeof info};
  NET_OK(context, lamina_plan_node(n->plan, 0, &info));
  ck_assert_str_eq(info.kernel, kernel);
  test_that(strstr(info.rejected, rejected), "'%s' does not say '%s'", info.rejected, rejected);
}

static void expect_result(net *n) {
  lamina_parameter weight = {.size = sizeof weight};
  NET_OK(context, lamina_graph_parameter_find(n->graph, "c.weight", &weight));
  NET_OK(context, lamina_exec_forward(n->exec));
  const float *y = net_output(n).data, *x = n->data[0].data, *w = weight.tensor.data;
  for (int i = 0; i < 2 * N; i++) ck_assert_float_eq(y[i], w[i % N] * x[i]);
}

static void check_and_close(net n, const char *kernel, const char *rejected) {
  expect_kernel(&n, kernel, rejected);
  expect_result(&n);
  net_close(&n);
}

static const lamina_plan_options tuned = {.tune = 1};

static char *read_file(const char *name) {
  static char text[4096];
  FILE *file = fopen(name, "r");
  if (!file) return NULL;
  text[fread(text, 1, sizeof text - 1, file)] = '\0';
  fclose(file);
  return text;
}

static void write_file(const char *text) {
  FILE *file = fopen(path, "w");
  ck_assert_ptr_nonnull(file);
  fputs(text, file);
  fclose(file);
}

/* ---- tests ------------------------------------------------------------------------------------------------------- */

START_TEST(without_tuning_the_first_worthwhile_kernel_runs) {
  check_and_close(planned(&one, (lamina_plan_options){0}, 0, 0), "slow", "quick: it is not worthwhile");
  ck_assert_ptr_null(read_file(path));
}
END_TEST

START_TEST(the_fastest_is_found_kept_and_not_measured_again) {
  check_and_close(planned(&one, tuned, 2, 0), "quick", "slow: it took");
  const char *text = read_file(path);
  ck_assert_ptr_nonnull(text);
  ck_assert_ptr_nonnull(strstr(text, "\"kernel\": \"quick\""));
  ck_assert_ptr_nonnull(strstr(text, "choice@1"));
  for (int i = 0; i < 2; i++) check_and_close(planned(&one, tuned, 0, 1), "quick", "slow: it was slower");
  lamina_context_destroy(context); /* another process */
  open_context(2, LAMINA_MATH_DEFAULT);
  check_and_close(planned(&one, tuned, 0, 1), "quick", "slow: it was slower");
  ck_assert_str_eq(warnings, "");
}
END_TEST

START_TEST(what_a_choice_depends_on_is_measured_anew) {
  static const net_case larger = {"larger", 3, {{"x", 1, {N}, 0, NET_UNIFORM}}, {{"choice", "c", "x", NULL}}, NULL, 0};
  net n = planned(&one, tuned, 2, 0);
  net_close(&n);
  n = planned(&larger, tuned, 2, 0); /* another shape */
  net_close(&n);
  n = planned(&one, (lamina_plan_options){.mode = LAMINA_TRAIN, .tune = 1}, 2, 0);
  net_close(&n);
  lamina_context_destroy(context);
  open_context(1, LAMINA_MATH_DEFAULT); /* other threads */
  n = planned(&one, tuned, 2, 0);
  net_close(&n);
  n = planned(&larger, tuned, 2, 0);
  net_close(&n);
  lamina_context_destroy(context);
  open_context(2, LAMINA_MATH_DEFAULT); /* all are kept beside each other */
  n = planned(&one, tuned, 0, 1);
  net_close(&n);
  n = planned(&larger, tuned, 0, 1);
  net_close(&n);
}
END_TEST

START_TEST(the_math_mode_decides_who_may_run) {
  lamina_context_destroy(context);
  open_context(2, LAMINA_MATH_STRICT);
  check_and_close(planned(&one, tuned, 1, 0), "slow", "quick: it does not support");
}
END_TEST

START_TEST(equal_nodes_are_measured_once) {
  static const net_case two = {
      "two", 2, {{"x", 1, {N}, 0, NET_UNIFORM}}, {{"choice", "c", "x", NULL}, {"choice", "d", "c", NULL}}, NULL, 0};
  net n = planned(&two, tuned, 2, 1);
  net_close(&n);
}
END_TEST

START_TEST(training_plans_are_tuned_with_their_backward) {
  net n = planned(&one, (lamina_plan_options){.mode = LAMINA_TRAIN, .input_gradients = 1, .tune = 1}, 2, 0);
  lamina_parameter weight = {.size = sizeof weight};
  expect_kernel(&n, "quick", "slow");
  expect_result(&n);
  NET_OK(context, lamina_graph_parameter_find(n.graph, "c.weight", &weight));
  float ones[2 * N];
  for (int i = 0; i < 2 * N; i++) ones[i] = 1;
  const lamina_tensor dy = lamina_tensor_of(ones, LAMINA_F32, 2, (int64_t[]){2, N});
  NET_OK(context, lamina_exec_set_output_gradient(n.exec, "c", &dy));
  NET_OK(context, lamina_exec_backward(n.exec));
  const float *dx = net_gradient(&n, "x").data, *w = weight.tensor.data;
  for (int i = 0; i < 2 * N; i++) ck_assert_float_eq(dx[i], w[i % N]);
  net_close(&n);
}
END_TEST

START_TEST(the_environment_turns_it_on_and_the_option_decides) {
  setenv("LAMINA_PLAN_TUNE", "1", 1);
  setenv("LAMINA_WISDOM", "", 1); /* and nothing is kept */
  check_and_close(planned(&one, (lamina_plan_options){0}, 2, 0), "quick", "slow");
  check_and_close(planned(&one, (lamina_plan_options){.tune = 1}, 2, 0), "quick", "slow");
  check_and_close(planned(&one, (lamina_plan_options){.tune = -1}, 0, 0), "slow", "quick");
  setenv("LAMINA_PLAN_TUNE", "0", 1);
  check_and_close(planned(&one, (lamina_plan_options){0}, 0, 0), "slow", "quick");
  ck_assert_ptr_null(read_file(path));
  ck_assert_str_eq(warnings, "");
}
END_TEST

static const char *const damaged[] = {
    "",
    "{",
    "no json at all",
    "[1, 2]",
    "{\"mine\": \"a file of somebody else\"}",
    "{\"format\": \"lamina wisdom\", \"version\": 2, \"entries\": {}}",
    "{\"format\": \"lamina wisdom\", \"version\": 1, \"entries\": []}",
    "{\"format\": \"lamina wisdom\", \"version\": 1, \"entries\": {\"a\": {\"kernel\": \"x",
};

START_TEST(a_damaged_file_is_told_and_left_alone) {
  write_file(damaged[_i]);
  check_and_close(planned(&one, tuned, 2, 0), "quick", "slow");
  test_that(strstr(warnings, path), "the warning '%s' does not name the file", warnings);
  ck_assert_str_eq(read_file(path), damaged[_i]);
}
END_TEST

/* A file of the right form, with an entry for everything that is no entry, or names a kernel that is not there. */
START_TEST(damaged_entries_are_measured_again) {
  static const char *const bad[] = {"1", "\"quick\"", "{}", "{\"kernel\": 7}", "{\"kernel\": \"broken wing\"}"};
  check_and_close(planned(&one, tuned, 2, 0), "quick", "slow");
  char good[4096], text[8192];
  snprintf(good, sizeof good, "%s", read_file(path));
  const char *entry = strstr(strstr(good, "choice@1"), "{"), *end = strstr(entry, "}"); /* of its times */
  end = strstr(end + 1, "}") + 1;
  snprintf(text, sizeof text, "%.*s%s%s", (int)(entry - good), good, bad[_i], end);
  write_file(text);
  check_and_close(planned(&one, tuned, 2, 0), "quick", "slow");
  ck_assert_str_eq(warnings, "");
  check_and_close(planned(&one, tuned, 0, 1), "quick", "slow"); /* it was repaired */
}
END_TEST

START_TEST(a_folder_that_cannot_be_written_is_told) {
  char below[128];
  snprintf(below, sizeof below, "%s/none/wisdom.json", folder);
  setenv("LAMINA_WISDOM", below, 1);
  check_and_close(planned(&one, tuned, 2, 0), "quick", "slow");
  test_that(strstr(warnings, below) && strstr(warnings, "not kept"), "the warning is '%s'", warnings);
  warnings[0] = '\0';
  setenv("LAMINA_WISDOM", folder, 1);
  check_and_close(planned(&one, tuned, 2, 0), "quick", "slow");
  test_that(strstr(warnings, folder), "the warning is '%s'", warnings);
}
END_TEST

START_TEST(the_default_file_is_in_the_cache_folder) {
  char cache[96], file[160];
  snprintf(cache, sizeof cache, "%s/home/.cache", folder);
  snprintf(file, sizeof file, "%s/lamina/wisdom.json", cache);
  unsetenv("LAMINA_WISDOM");
  setenv("XDG_CACHE_HOME", cache, 1);
  check_and_close(planned(&one, tuned, 2, 0), "quick", "slow");
  ck_assert_ptr_nonnull(read_file(file));
  check_and_close(planned(&one, tuned, 0, 1), "quick", "slow");
  snprintf(file, sizeof file, "%s/home", folder);
  unsetenv("XDG_CACHE_HOME");
  setenv("HOME", file, 1);
  check_and_close(planned(&one, tuned, 0, 1), "quick", "slow");
  ck_assert_str_eq(warnings, "");
  unsetenv("HOME");
  check_and_close(planned(&one, tuned, 2, 0), "quick", "slow"); /* nowhere */
  ck_assert_str_eq(warnings, "");
}
END_TEST

/* ---- memory that fails ------------------------------------------------------------------------------------------- */

static long calls, fail_at, alive;

static void *failing_alloc(void *user, size_t bytes) {
  if (++calls == fail_at) return NULL;
  alive++;
  return malloc(bytes);
}

static void failing_release(void *user, void *memory) {
  alive -= memory != NULL;
  free(memory);
}

/* The plan then comes out untuned, or not at all; nothing is lost. */
START_TEST(tuning_survives_a_lack_of_memory) {
  const lamina_context_options options = {
      .size = sizeof options, .threads = 1, .alloc = failing_alloc, .release = failing_release};
  const lamina_plan_options plan_options = {.size = sizeof plan_options, .tune = 1};
  bool reached = false;
  for (long k = 1; !reached; k++) {
    lamina_context *small = NULL;
    lamina_graph *graph = NULL;
    lamina_plan *plan = NULL;
    fail_at = 0;
    ck_assert_int_eq(lamina_context_create(&options, &small), LAMINA_OK);
    NET_OK(small, lamina_registry_add(small, &choice, "test_tune"));
    net_build(small, &one, NULL, &graph);
    unlink(path);
    calls = 0;
    fail_at = k;
    const lamina_status status = lamina_plan_create(graph, &plan_options, &plan);
    reached = calls < k;
    test_that(status == LAMINA_OK || (status == LAMINA_OUT_OF_MEMORY && !reached), "allocation %ld: %s", k,
                  lamina_error_message(small));
    lamina_plan_destroy(plan);
    lamina_graph_destroy(graph);
    lamina_context_destroy(small);
    ck_assert_int_eq(alive, 0);
  }
}
END_TEST

/* Winograd's kernels are measured beside the direct one where the math mode allows them. */
START_TEST(a_convolution_has_a_choice_unless_it_is_strict) {
  static const net_case spec = {"conv",
                                1,
                                {{"x", 3, {12, 12, 64}, 0, NET_UNIFORM}},
                                {{"conv2d", "c", "x", "out_channels=64 kernel=3 padding=1"}, {"silu", "s", "c", NULL}},
                                NULL,
                                0};
  for (int strict = 0; strict < 2; strict++) {
    test_random random = test_random_for(spec.name);
    lamina_plan_info info = {.size = sizeof info};
    net n, usual;
    lamina_context_destroy(context);
    open_context(1, strict ? LAMINA_MATH_STRICT : LAMINA_MATH_DEFAULT);
    net_open(&n, context, &spec, tuned, &random);
    NET_OK(context, lamina_plan_get_info(n.plan, &info));
    test_that(strict ? info.timed == 0 : info.timed >= 2, "%d kernels were measured", info.timed);
    net_open_shared(&usual, &n, (lamina_plan_options){.tune = -1, .no_fusion = 1});
    NET_OK(context, lamina_exec_forward(n.exec));
    NET_OK(context, lamina_exec_forward(usual.exec));
    const lamina_tensor a = net_output(&n), b = net_output(&usual);
    ck_assert_double_le(net_error(a.data, b.data, lamina_tensor_count(&a)), 1e-4);
    net_close_shared(&usual);
    net_close(&n);
  }
}
END_TEST

/* Built-in layers, whatever kernels they have. */
START_TEST(a_tuned_network_gives_the_same_result) {
  test_random random = test_random_for("tuned network");
  for (int mode = 0; mode < 2; mode++) {
    net usual, n;
    net_open(&usual, context, &net_small, (lamina_plan_options){.mode = mode ? LAMINA_TRAIN : LAMINA_INFER, .tune = -1},
             &random);
    net_open_shared(&n, &usual, (lamina_plan_options){.mode = mode ? LAMINA_TRAIN : LAMINA_INFER, .tune = 1});
    NET_OK(context, lamina_exec_forward(usual.exec));
    NET_OK(context, lamina_exec_forward(n.exec));
    const lamina_tensor a = net_output(&n), b = net_output(&usual);
    ck_assert_double_le(net_error(a.data, b.data, lamina_tensor_count(&a)), 1e-5);
    net_close_shared(&n);
    net_close(&usual);
  }
}
END_TEST

int main(void) {
  test_print_seed();
  if (net_isa_is_absent()) return TEST_SKIPPED;
  Suite *suite = suite_create("tune");
  TCase *cases = tcase_create("tuning");
  tcase_set_timeout(cases, 60);
  tcase_add_checked_fixture(cases, set_up, tear_down);
  tcase_add_test(cases, without_tuning_the_first_worthwhile_kernel_runs);
  tcase_add_test(cases, the_fastest_is_found_kept_and_not_measured_again);
  tcase_add_test(cases, what_a_choice_depends_on_is_measured_anew);
  tcase_add_test(cases, the_math_mode_decides_who_may_run);
  tcase_add_test(cases, equal_nodes_are_measured_once);
  tcase_add_test(cases, training_plans_are_tuned_with_their_backward);
  tcase_add_test(cases, the_environment_turns_it_on_and_the_option_decides);
  tcase_add_loop_test(cases, a_damaged_file_is_told_and_left_alone, 0, sizeof damaged / sizeof *damaged);
  tcase_add_loop_test(cases, damaged_entries_are_measured_again, 0, 5);
  tcase_add_test(cases, a_folder_that_cannot_be_written_is_told);
  tcase_add_test(cases, the_default_file_is_in_the_cache_folder);
  tcase_add_test(cases, tuning_survives_a_lack_of_memory);
  tcase_add_test(cases, a_convolution_has_a_choice_unless_it_is_strict);
  tcase_add_test(cases, a_tuned_network_gives_the_same_result);
  suite_add_tcase(suite, cases);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_ENV);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
