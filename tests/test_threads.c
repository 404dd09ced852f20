/* SPDX-License-Identifier: Apache-2.0 */
/* Threads and contexts: the same bits for any number of threads, the caller's own pool, execs side by side, two
   instruction sets in one process. */
#include "net_test.h"
#include "registry.h"

#include <pthread.h>

static const net_case network = {"network",
                                 6,
                                 {{"image", 3, {19, 18, 3}, 0, NET_UNIFORM}, {"labels", 0, {0}, 7, NET_UNIFORM}},
                                 {{"conv2d", "conv1", "image", "out_channels=20 kernel=3 padding=1"},
                                  {"batch_norm", "bn1", "conv1", NULL},
                                  {"relu", "relu1", "bn1", NULL},
                                  {"max_pool2d", "pool1", "relu1", "kernel=3 stride=2 padding=1"},
                                  {"conv2d", "conv2", "pool1", "out_channels=20 kernel=3 padding=1 bias=false"},
                                  {"batch_norm", "bn2", "conv2", NULL},
                                  {"add", "add2", "bn2,pool1", NULL},
                                  {"relu", "relu2", "add2", NULL},
                                  {"conv2d", "conv3", "relu2", "out_channels=40 kernel=3 stride=2 groups=20"},
                                  {"tanh", "tanh3", "conv3", NULL},
                                  {"avg_pool2d", "pool3", "tanh3", "kernel=2"},
                                  {"flatten", "flatten", "pool3", NULL},
                                  {"dropout", "dropout", "flatten", NULL},
                                  {"linear", "fc1", "dropout", "out_features=64"},
                                  {"batch_norm", "bn3", "fc1", NULL},
                                  {"leaky_relu", "relu3", "bn3", NULL},
                                  {"linear", "fc2", "relu3", "out_features=7"},
                                  {"softmax_cross_entropy", "loss", "fc2,labels", NULL}},
                                 NULL,
                                 0};

/* Large enough that a reduction over pixels is split into many parts. */
static const net_case wide = {"wide",
                              2,
                              {{"image", 3, {96, 96, 3}, 0, NET_UNIFORM}, {"labels", 0, {0}, 3, NET_UNIFORM}},
                              {{"conv2d", "conv1", "image", "out_channels=32 kernel=3 padding=1"},
                               {"batch_norm", "bn1", "conv1", NULL},
                               {"relu", "relu1", "bn1", NULL},
                               {"conv2d", "conv2", "relu1", "out_channels=16 kernel=1"},
                               {"global_avg_pool", "pool", "conv2", NULL},
                               {"flatten", "flatten", "pool", NULL},
                               {"linear", "fc", "flatten", "out_features=3"},
                               {"softmax_cross_entropy", "loss", "fc,labels", NULL}},
                              NULL,
                              0};

/* Everything that a training run leaves behind, mixed into one number, and its last loss. */
typedef struct outcome {
  uint64_t digest;
  float loss;
} outcome;

static void mix(outcome *o, const lamina_tensor *tensor) {
  const size_t bytes = (size_t)lamina_tensor_count(tensor) * (tensor->dtype == LAMINA_I64 ? 8 : 4);
  for (size_t i = 0; i < bytes; i++)
    o->digest = (o->digest ^ ((const unsigned char *)tensor->data)[i]) * 0x100000001B3u;
}

static outcome train(lamina_context *context, const net_case *spec, lamina_optimizer_type type, int steps) {
  outcome o = {.digest = 0xCBF29CE484222325u};
  test_random random = test_random_for(spec->name);
  lamina_optimizer optimizer = lamina_optimizer_defaults(type);
  net n;
  optimizer.momentum = type == LAMINA_SGD ? 0.9 : 0;
  optimizer.weight_decay = 1e-4;
  net_open(&n, context, spec, (lamina_plan_options){.mode = LAMINA_TRAIN, .input_gradients = 1}, &random);
  for (int i = 0; i < steps; i++) {
    lamina_exec_seed(n.exec, 11, (uint64_t)i);
    NET_OK(context, lamina_exec_forward(n.exec));
    NET_OK(context, lamina_exec_backward(n.exec));
    NET_OK(context, lamina_exec_step(n.exec, &optimizer));
    const lamina_tensor loss = net_output(&n);
    o.loss = *(const float *)loss.data;
    ck_assert(isfinite(o.loss));
    mix(&o, &loss);
  }
  const lamina_tensor dx = net_gradient(&n, "image");
  mix(&o, &dx);
  for (int i = 0; i < lamina_graph_parameter_count(n.graph); i++) {
    lamina_parameter parameter = {.size = sizeof parameter};
    NET_OK(context, lamina_graph_parameter_at(n.graph, i, &parameter));
    mix(&o, &parameter.tensor);
    if (!parameter.trainable) continue;
    const lamina_tensor gradient = net_gradient(&n, parameter.name);
    mix(&o, &gradient);
  }
  net_close(&n);
  return o;
}

static outcome train_with(int threads, const net_case *spec, lamina_optimizer_type type, int steps) {
  lamina_context *context = net_context(threads);
  lamina_context_info info = {.size = sizeof info};
  NET_OK(context, lamina_context_get_info(context, &info));
  ck_assert_int_eq(info.threads, threads);
  const outcome o = train(context, spec, type, steps);
  lamina_context_destroy(context);
  return o;
}

START_TEST(training_gives_the_same_bits_for_any_number_of_threads) {
  static const int threads[] = {2, 3, 8};
  const net_case *spec = _i & 1 ? &wide : &network;
  const lamina_optimizer_type type = _i & 2 ? LAMINA_ADAM : LAMINA_SGD;
  const outcome one = train_with(1, spec, type, 4);
  for (int i = 0; i < 3; i++) {
    const outcome many = train_with(threads[i], spec, type, 4);
    test_that(many.digest == one.digest, "%s: %d threads differ from one (losses %.9g and %.9g)", spec->name,
                  threads[i], many.loss, one.loss);
  }
}
END_TEST

START_TEST(more_threads_than_cores_work) {
  lamina_context *context = net_context(1);
  lamina_context_info info = {.size = sizeof info};
  NET_OK(context, lamina_context_get_info(context, &info));
  lamina_context_destroy(context);
  const outcome one = train_with(1, &network, LAMINA_SGD, 2);
  const outcome many = train_with(4 * info.cores + 3, &network, LAMINA_SGD, 2);
  ck_assert_uint_eq(one.digest, many.digest);
}
END_TEST

/* ---- the caller's own pool --------------------------------------------------------------------------------------- */

typedef struct own_pool {
  int threads;
  bool backwards;
  long calls, tasks;
} own_pool;

/* One thread after another, each with a share of the tasks, in an order of its own: allowed by the contract. */
static void own_run(void *user, int64_t tasks, void (*task)(void *arg, int64_t index, int thread), void *arg) {
  own_pool *pool = user;
  pool->calls++;
  pool->tasks += tasks;
  for (int64_t i = 0; i < tasks; i++) {
    const int64_t index = pool->backwards ? tasks - 1 - i : i;
    task(arg, index, (int)(index % pool->threads));
  }
}

static outcome train_in_own_pool(own_pool *pool) {
  lamina_context *context = NULL;
  const lamina_context_options options = {
      .size = sizeof options, .threads = pool->threads, .run = own_run, .run_user = pool};
  ck_assert_int_eq(lamina_context_create(&options, &context), LAMINA_OK);
  const outcome o = train(context, &network, LAMINA_SGD, 3);
  lamina_context_destroy(context);
  return o;
}

START_TEST(the_callers_own_pool_gives_the_same_bits) {
  const outcome expected = train_with(1, &network, LAMINA_SGD, 3);
  own_pool forwards = {.threads = 3}, backwards = {.threads = 5, .backwards = true};
  ck_assert_uint_eq(train_in_own_pool(&forwards).digest, expected.digest);
  ck_assert_uint_eq(train_in_own_pool(&backwards).digest, expected.digest);
  ck_assert_int_gt(forwards.calls, 0);
  ck_assert_int_gt(backwards.tasks, backwards.calls);
}
END_TEST

/* ---- several threads of the caller ------------------------------------------------------------------------------- */

#define CALLERS 4
#define RUNS 8

typedef struct caller {
  lamina_context *context;
  lamina_plan *plan;
  lamina_tensor image;
  float expected[6 * 7];
  bool wrong;
} caller;

static void *run_caller(void *user) {
  caller *c = user;
  lamina_exec *exec = NULL;
  lamina_tensor y;
  c->wrong = lamina_exec_create(c->plan, &exec) != LAMINA_OK;
  for (int i = 0; i < RUNS && !c->wrong; i++) {
    c->wrong = lamina_exec_set_input(exec, "image", &c->image) != LAMINA_OK || lamina_exec_forward(exec) != LAMINA_OK ||
               lamina_exec_output(exec, "fc2", &y) != LAMINA_OK || memcmp(y.data, c->expected, sizeof c->expected) != 0;
    /* A failing call of this thread leaves its own message. */
    if (lamina_exec_output(exec, "nowhere", &y) == LAMINA_OK || !strstr(lamina_error_message(c->context), "nowhere"))
      c->wrong = true;
  }
  lamina_exec_destroy(exec);
  return NULL;
}

START_TEST(execs_of_one_plan_run_side_by_side) {
  lamina_context *context = net_context(_i);
  test_random random = test_random_for("side by side");
  net_case spec = network;
  spec.output = "fc2";
  static caller callers[CALLERS];
  pthread_t threads[CALLERS];
  lamina_graph *graph = NULL;
  lamina_plan *plan = NULL;
  lamina_exec *exec = NULL;
  const lamina_plan_options options = {.size = sizeof options, .mode = LAMINA_INFER, .batch = 6, .outputs = "fc2"};
  net_build(context, &spec, NULL, &graph);
  NET_OK(context, lamina_plan_create(graph, &options, &plan));
  NET_OK(context, lamina_exec_create(plan, &exec));
  for (int i = 0; i < CALLERS; i++) {
    lamina_tensor y;
    callers[i] = (caller){.context = context, .plan = plan, .image = net_random_tensor(&spec.inputs[0], 6, &random)};
    NET_OK(context, lamina_exec_set_input(exec, "image", &callers[i].image));
    NET_OK(context, lamina_exec_forward(exec));
    NET_OK(context, lamina_exec_output(exec, "fc2", &y));
    memcpy(callers[i].expected, y.data, sizeof callers[i].expected);
  }
  for (int i = 0; i < CALLERS; i++) ck_assert_int_eq(pthread_create(&threads[i], NULL, run_caller, &callers[i]), 0);
  for (int i = 0; i < CALLERS; i++) pthread_join(threads[i], NULL);
  for (int i = 0; i < CALLERS; i++) {
    test_that(!callers[i].wrong, "caller %d", i);
    free(callers[i].image.data);
  }
  lamina_exec_destroy(exec);
  lamina_plan_destroy(plan);
  lamina_graph_destroy(graph);
  lamina_context_destroy(context);
}
END_TEST

/* Contexts, graphs and plans made, used and destroyed in threads of their own at the same time. */
static void *train_in_thread(void *user) {
  outcome *o = user;
  lamina_context *context = net_context(2);
  *o = train(context, &network, LAMINA_SGD, 2);
  lamina_context_destroy(context);
  return NULL;
}

START_TEST(contexts_of_several_threads_do_not_disturb_each_other) {
  outcome outcomes[CALLERS];
  pthread_t threads[CALLERS];
  const outcome expected = train_with(1, &network, LAMINA_SGD, 2);
  for (int i = 0; i < CALLERS; i++)
    ck_assert_int_eq(pthread_create(&threads[i], NULL, train_in_thread, &outcomes[i]), 0);
  for (int i = 0; i < CALLERS; i++) pthread_join(threads[i], NULL);
  for (int i = 0; i < CALLERS; i++) ck_assert_uint_eq(outcomes[i].digest, expected.digest);
}
END_TEST

/* Nothing has been initialised: the plans do it, each of them. */
static void *make_plans(void *graph) {
  for (int64_t batch = 1; batch <= 3; batch++) {
    const lamina_plan_options options = {.size = sizeof options, .batch = batch, .outputs = "fc2"};
    lamina_plan *plan = NULL;
    if (lamina_plan_create(graph, &options, &plan)) return graph;
    lamina_plan_destroy(plan);
  }
  return NULL;
}

START_TEST(plans_of_one_graph_are_made_side_by_side) {
  lamina_context *context = net_context(2);
  lamina_graph *graph = NULL;
  pthread_t threads[CALLERS];
  void *failed = NULL;
  net_build(context, &network, NULL, &graph);
  for (int i = 0; i < CALLERS; i++) ck_assert_int_eq(pthread_create(&threads[i], NULL, make_plans, graph), 0);
  for (int i = 0; i < CALLERS; i++) {
    pthread_join(threads[i], &failed);
    ck_assert_ptr_null(failed);
  }
  lamina_graph_destroy(graph);
  lamina_context_destroy(context);
}
END_TEST

static void *list_layers(void *context) {
  for (int i = 0; i < 1000; i++)
    if (!lamina_layer_at(context, lamina_layer_count(context) - 1)) return context;
  return NULL;
}

START_TEST(layers_are_listed_while_others_are_added) {
  enum { ADDED = 40 };
  lamina_context *context = net_context(1);
  lamina_layer layers[ADDED];
  char names[ADDED][24];
  pthread_t thread;
  void *failed = NULL;
  ck_assert_int_eq(pthread_create(&thread, NULL, list_layers, context), 0);
  for (int i = 0; i < ADDED; i++) {
    layers[i] = *lamina_layer_find(context, "relu", NULL);
    snprintf(names[i], sizeof names[i], "layer%d", i);
    layers[i].name = names[i];
    NET_OK(context, lamina_registry_add(context, &layers[i], "test_threads"));
  }
  pthread_join(thread, &failed);
  ck_assert_ptr_null(failed);
  lamina_context_destroy(context);
}
END_TEST

/* ---- instruction sets -------------------------------------------------------------------------------------------- */

START_TEST(an_absent_isa_is_an_error) {
  lamina_context *context = (lamina_context *)(uintptr_t)1;
  char message[256] = "";
#if defined(__x86_64__)
  const char *absent = "neon";
#else
  const char *absent = "avx512";
#endif
  lamina_context_options options = {
      .size = sizeof options, .isa = absent, .error = message, .error_size = sizeof message};
  ck_assert_int_eq(lamina_context_create(&options, &context), LAMINA_UNSUPPORTED);
  ck_assert_ptr_null(context);
  ck_assert_ptr_nonnull(strstr(message, absent));
  /* From the environment as well; the option goes first. */
  char *saved = getenv("LAMINA_ISA") ? strdup(getenv("LAMINA_ISA")) : NULL;
  options.isa = NULL;
  setenv("LAMINA_ISA", absent, 1);
  ck_assert_int_eq(lamina_context_create(&options, &context), LAMINA_UNSUPPORTED);
  ck_assert_ptr_nonnull(strstr(message, absent));
  setenv("LAMINA_ISA", "riscv9", 1);
  ck_assert_int_ne(lamina_context_create(&options, &context), LAMINA_OK);
  ck_assert_ptr_nonnull(strstr(message, "riscv9"));
  options.isa = "generic";
  ck_assert_int_eq(lamina_context_create(&options, &context), LAMINA_OK);
  lamina_context_destroy(context);
  if (saved)
    setenv("LAMINA_ISA", saved, 1);
  else
    unsetenv("LAMINA_ISA");
  free(saved);
}
END_TEST

typedef struct isa_run {
  lamina_context *context;
  outcome result;
} isa_run;

static void *train_on_isa(void *user) {
  isa_run *run = user;
  run->result = train(run->context, &network, LAMINA_SGD, 3);
  return NULL;
}

/* Two contexts with two instruction sets train at the same time: each comes to the bits that it has alone, and both to
   nearly the same loss. */
START_TEST(two_isas_live_in_one_process) {
  isa_run runs[2];
  outcome alone[2];
  pthread_t threads[2];
  lamina_context_info info = {.size = sizeof info};
  for (int i = 0; i < 2; i++) {
    const lamina_context_options options = {.size = sizeof options, .threads = 2, .isa = i == 0 ? "generic" : NULL};
    ck_assert_int_eq(lamina_context_create(&options, &runs[i].context), LAMINA_OK);
    NET_OK(runs[i].context, lamina_context_get_info(runs[i].context, &info));
    if (i == 0) ck_assert_str_eq(info.isa, "generic");
    alone[i] = train(runs[i].context, &network, LAMINA_SGD, 3);
  }
  for (int i = 0; i < 2; i++) ck_assert_int_eq(pthread_create(&threads[i], NULL, train_on_isa, &runs[i]), 0);
  for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
  for (int i = 0; i < 2; i++) {
    ck_assert_uint_eq(runs[i].result.digest, alone[i].digest);
    lamina_context_destroy(runs[i].context);
  }
  ck_assert_double_le(fabs((double)alone[0].loss - alone[1].loss), 1e-3 * fabs((double)alone[0].loss));
}
END_TEST

int main(void) {
  test_print_seed();
  if (net_isa_is_absent()) return TEST_SKIPPED;
  Suite *suite = suite_create("threads");
  TCase *cases = tcase_create("threads and contexts");
  tcase_set_timeout(cases, 200);
  tcase_add_loop_test(cases, training_gives_the_same_bits_for_any_number_of_threads, 0, 4);
  tcase_add_test(cases, more_threads_than_cores_work);
  tcase_add_test(cases, the_callers_own_pool_gives_the_same_bits);
  tcase_add_loop_test(cases, execs_of_one_plan_run_side_by_side, 1, 4);
  tcase_add_test(cases, contexts_of_several_threads_do_not_disturb_each_other);
  tcase_add_test(cases, plans_of_one_graph_are_made_side_by_side);
  tcase_add_test(cases, layers_are_listed_while_others_are_added);
  tcase_add_test(cases, an_absent_isa_is_an_error);
  tcase_add_test(cases, two_isas_live_in_one_process);
  suite_add_tcase(suite, cases);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_ENV);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
