/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever allocation fails, the library returns LAMINA_OUT_OF_MEMORY, leaks nothing and stays usable: every scenario
   is run again and again, with its k-th allocation failing, alone and with all that follow. */
#include "net_test.h"

#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- an allocator that counts and fails -------------------------------------------------------------------------- */

typedef struct ledger {
  atomic_long calls, alive, damaged;
  long fail_at; /* 1: the first; 0: never */
  bool all_after;
} ledger;

#define LEDGER_ALIVE 0x1A31AA11u
#define LEDGER_HEADER 32

static void *ledger_alloc(void *user, size_t bytes) {
  ledger *l = user;
  const long call = atomic_fetch_add(&l->calls, 1) + 1;
  if (l->fail_at && (call == l->fail_at || (l->all_after && call > l->fail_at))) return NULL;
  unsigned char *memory = malloc(bytes + LEDGER_HEADER);
  if (!memory) return NULL;
  const uint32_t mark = LEDGER_ALIVE;
  memcpy(memory, &mark, sizeof mark);
  memset(memory + LEDGER_HEADER, 0xCD, bytes); /* what is read before it is written shows */
  atomic_fetch_add(&l->alive, 1);
  return memory + LEDGER_HEADER;
}

static void ledger_release(void *user, void *memory) {
  ledger *l = user;
  uint32_t mark;
  if (!memory) return;
  unsigned char *block = (unsigned char *)memory - LEDGER_HEADER;
  memcpy(&mark, block, sizeof mark);
  if (mark != LEDGER_ALIVE) {
    atomic_fetch_add(&l->damaged, 1);
    return;
  }
  memset(block, 0, sizeof mark);
  atomic_fetch_sub(&l->alive, 1);
  free(block);
}

/* ---- scenarios: each returns the first failing status and destroys whatever it made -------------------------------
 */

static const net_case network = {"network",
                                 4,
                                 {{"image", 3, {8, 8, 3}, 0, NET_UNIFORM}, {"labels", 0, {0}, 5, NET_UNIFORM}},
                                 {{"conv2d", "conv1", "image", "out_channels=8 kernel=3 padding=1"},
                                  {"batch_norm", "bn1", "conv1", NULL},
                                  {"relu", "relu1", "bn1", NULL},
                                  {"max_pool2d", "pool1", "relu1", "kernel=2"},
                                  {"conv2d", "conv2", "pool1", "out_channels=8 kernel=3 padding=1"},
                                  {"batch_norm", "bn2", "conv2", NULL},
                                  {"add", "add", "bn2,pool1", NULL},
                                  {"relu", "relu2", "add", NULL},
                                  {"flatten", "flatten", "relu2", NULL},
                                  {"dropout", "dropout", "flatten", NULL},
                                  {"linear", "fc", "dropout", "out_features=5"},
                                  {"softmax_cross_entropy", "loss", "fc,labels", NULL}},
                                 NULL,
                                 0};

static char folder[] = "/tmp/lamina-test-memory-XXXXXX";

static const char *in_folder(const char *name) {
  static char path[sizeof folder + 64];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return path;
}

static lamina_status build(lamina_context *context, lamina_graph *share, lamina_graph **graph) {
  lamina_status status = lamina_graph_create(context, share, graph);
  for (int i = 0; status == LAMINA_OK && i < NET_MAX_INPUTS && network.inputs[i].name; i++) {
    const net_input *input = &network.inputs[i];
    status = lamina_graph_input(*graph, input->name, input->classes ? LAMINA_I32 : LAMINA_F32, input->rank, input->dim);
  }
  for (int i = 0; status == LAMINA_OK && i < NET_MAX_LAYERS && network.layers[i].type; i++) {
    const net_layer *layer = &network.layers[i];
    status = lamina_graph_add(*graph, layer->type, layer->name, layer->inputs, layer->attributes);
  }
  return status;
}

static lamina_status graph_scenario(lamina_context *context) {
  lamina_graph *graph = NULL, *shared = NULL;
  lamina_status status = build(context, NULL, &graph);
  if (status == LAMINA_OK) status = lamina_graph_output(graph, "fc");
  if (status == LAMINA_OK) status = lamina_graph_initialize(graph, 1);
  if (status == LAMINA_OK) status = build(context, graph, &shared);
  lamina_graph_destroy(graph);
  lamina_graph_destroy(shared);
  return status;
}

static lamina_status model_scenario(lamina_context *context) {
  lamina_graph *graph = NULL;
  lamina_status status = lamina_graph_load_model(context, in_folder("model.json"), &graph);
  if (status == LAMINA_OK) status = lamina_graph_save_model(graph, in_folder("again.json"));
  lamina_graph_destroy(graph);
  return status;
}

static lamina_status weights_scenario(lamina_context *context) {
  const lamina_metadata metadata[] = {{"epoch", "3"}, {NULL, NULL}};
  char value[16];
  lamina_graph *graph = NULL;
  lamina_status status = build(context, NULL, &graph);
  if (status == LAMINA_OK)
    status = lamina_graph_load_weights(graph, in_folder("weights.safetensors"), LAMINA_WEIGHTS_TRAINING);
  if (status == LAMINA_OK)
    status = lamina_graph_save_weights(graph, in_folder("again.safetensors"), LAMINA_WEIGHTS_TRAINING, metadata);
  if (status == LAMINA_OK)
    status = lamina_weights_metadata(context, in_folder("again.safetensors"), "epoch", value, sizeof value);
  lamina_graph_destroy(graph);
  return status;
}

static void drop_text(void *user, const char *text) { *(size_t *)user += strlen(text); }

static lamina_status plan_mode_scenario(lamina_context *context, lamina_mode mode) {
  const lamina_plan_options options = {.size = sizeof options,
                                       .mode = mode,
                                       .batch = 4,
                                       .input_gradients = mode == LAMINA_TRAIN,
                                       .outputs = mode == LAMINA_TRAIN ? NULL : "fc"};
  lamina_graph *graph = NULL;
  lamina_plan *plan = NULL;
  lamina_exec *exec = NULL;
  size_t written = 0;
  lamina_status status = build(context, NULL, &graph);
  if (status == LAMINA_OK) status = lamina_plan_create(graph, &options, &plan);
  if (status == LAMINA_OK) status = lamina_plan_explain(plan, drop_text, &written);
  if (status == LAMINA_OK) status = lamina_exec_create(plan, &exec);
  lamina_graph_destroy(graph);
  lamina_plan_destroy(plan);
  lamina_exec_destroy(exec);
  return status;
}

static lamina_status train_plan_scenario(lamina_context *context) { return plan_mode_scenario(context, LAMINA_TRAIN); }
static lamina_status infer_plan_scenario(lamina_context *context) { return plan_mode_scenario(context, LAMINA_INFER); }

static lamina_status run_steps(lamina_exec *exec, const lamina_optimizer *optimizer, float *x, int32_t *labels) {
  const int64_t image[] = {4, 8, 8, 3}, batch[] = {4};
  const lamina_tensor images = lamina_tensor_of(x, LAMINA_F32, 4, image);
  const lamina_tensor classes = lamina_tensor_of(labels, LAMINA_I32, 1, batch);
  const float one = 1;
  double times[64];
  lamina_tensor loss;
  lamina_status status = lamina_exec_set_input(exec, "image", &images);
  if (status == LAMINA_OK) status = lamina_exec_set_input(exec, "labels", &classes);
  for (int i = 0; status == LAMINA_OK && i < 2; i++) {
    status = lamina_exec_forward(exec);
    if (status == LAMINA_OK) status = lamina_exec_output(exec, "loss", &loss);
    const lamina_tensor gradient =
        status == LAMINA_OK ? lamina_tensor_of((void *)(uintptr_t)&one, LAMINA_F32, loss.rank, loss.dim) : loss;
    if (status == LAMINA_OK) status = lamina_exec_set_output_gradient(exec, "loss", &gradient);
    if (status == LAMINA_OK) status = lamina_exec_backward(exec);
    if (status == LAMINA_OK) status = lamina_exec_step(exec, optimizer);
    if (status == LAMINA_OK) status = lamina_exec_times(exec, 64, times, NULL);
  }
  return status;
}

static lamina_status train_with(lamina_context *context, lamina_optimizer optimizer) {
  const lamina_plan_options options = {.size = sizeof options, .mode = LAMINA_TRAIN, .batch = 4};
  float x[4 * 8 * 8 * 3];
  int32_t labels[4] = {0, 4, 2, 1};
  lamina_graph *graph = NULL;
  lamina_plan *plan = NULL;
  lamina_exec *exec = NULL;
  for (int i = 0; i < 4 * 8 * 8 * 3; i++) x[i] = (float)(i * 37 % 101) / 50 - 1;
  lamina_status status = build(context, NULL, &graph);
  if (status == LAMINA_OK) status = lamina_plan_create(graph, &options, &plan);
  if (status == LAMINA_OK) status = lamina_exec_create(plan, &exec);
  if (status == LAMINA_OK) status = run_steps(exec, &optimizer, x, labels);
  lamina_exec_destroy(exec);
  lamina_plan_destroy(plan);
  lamina_graph_destroy(graph);
  return status;
}

static lamina_status sgd_scenario(lamina_context *context) {
  lamina_optimizer optimizer = lamina_optimizer_defaults(LAMINA_SGD);
  optimizer.momentum = 0.9;
  return train_with(context, optimizer);
}

static lamina_status adam_scenario(lamina_context *context) {
  return train_with(context, lamina_optimizer_defaults(LAMINA_ADAM));
}

static lamina_status data_scenario(lamina_context *context) {
  const lamina_dataset_options options = {.size = sizeof options, .seed = 1, .train_count = 20, .test_count = 10};
  lamina_dataset *dataset = NULL;
  lamina_dataset_info info = {.size = sizeof info};
  lamina_tensor array = {0};
  float *images = NULL;
  int32_t labels[2];
  const int64_t index[2] = {3, 7};
  lamina_status status = lamina_dataset_open(context, &options, &dataset);
  if (status == LAMINA_OK) status = lamina_dataset_get_info(dataset, &info);
  if (status == LAMINA_OK) images = malloc((size_t)(2 * info.height * info.width * 3) * sizeof *images);
  if (images) status = lamina_dataset_batch(dataset, LAMINA_SPLIT_TRAIN, 2, index, 3, images, labels);
  if (status == LAMINA_OK) status = lamina_array_load(context, in_folder("array.npy"), &array);
  if (status == LAMINA_OK) status = lamina_array_save(context, in_folder("again.npy"), &array);
  if (array.data) lamina_array_release(context, &array);
  lamina_dataset_destroy(dataset);
  free(images);
  return status;
}

static const struct {
  const char *name;
  lamina_status (*run)(lamina_context *context);
} scenarios[] = {
    {"building a graph", graph_scenario},
    {"a model file", model_scenario},
    {"a weights file", weights_scenario},
    {"planning for training", train_plan_scenario},
    {"planning for inference", infer_plan_scenario},
    {"training with SGD", sgd_scenario},
    {"training with Adam", adam_scenario},
    {"data", data_scenario},
};

/* ---- tests --------------------------------------------------------------------------------------------------------
 */

static lamina_status create(ledger *l, lamina_context **context, char *message, size_t size) {
  const lamina_context_options options = {.size = sizeof options,
                                          .threads = 2,
                                          .alloc = ledger_alloc,
                                          .release = ledger_release,
                                          .alloc_user = l,
                                          .error = message,
                                          .error_size = size};
  return lamina_context_create(&options, context);
}

static void write_files(void) {
  lamina_context *context = net_context(1);
  lamina_graph *graph = NULL;
  lamina_optimizer optimizer = lamina_optimizer_defaults(LAMINA_SGD);
  const int64_t dim[] = {3, 4};
  float values[12] = {0};
  const lamina_tensor array = lamina_tensor_of(values, LAMINA_F32, 2, dim);
  float x[4 * 8 * 8 * 3] = {0};
  int32_t labels[4] = {0};
  const lamina_plan_options options = {.size = sizeof options, .mode = LAMINA_TRAIN, .batch = 4};
  lamina_plan *plan = NULL;
  lamina_exec *exec = NULL;
  optimizer.momentum = 0.9;
  net_build(context, &network, NULL, &graph);
  NET_OK(context, lamina_graph_save_model(graph, in_folder("model.json")));
  NET_OK(context, lamina_plan_create(graph, &options, &plan));
  NET_OK(context, lamina_exec_create(plan, &exec));
  NET_OK(context, run_steps(exec, &optimizer, x, labels));
  NET_OK(context, lamina_graph_save_weights(graph, in_folder("weights.safetensors"), LAMINA_WEIGHTS_TRAINING, NULL));
  NET_OK(context, lamina_array_save(context, in_folder("array.npy"), &array));
  lamina_exec_destroy(exec);
  lamina_plan_destroy(plan);
  lamina_graph_destroy(graph);
  lamina_context_destroy(context);
}

static void expect_clean(const char *what, long k, const ledger *l) {
  test_that(atomic_load(&l->damaged) == 0, "%s, allocation %ld: foreign memory was released", what, k);
  test_that(atomic_load(&l->alive) == 0, "%s, allocation %ld: %ld blocks leaked", what, k, atomic_load(&l->alive));
}

START_TEST(context_creation_survives_every_failing_allocation) {
  char message[512] = "";
  long calls = 0;
  for (long k = 0; k <= calls; k++) {
    for (int all_after = 0; all_after < 2; all_after++) {
      ledger l = {.fail_at = k, .all_after = all_after};
      lamina_context *context = NULL;
      const lamina_status status = create(&l, &context, message, sizeof message);
      if (k == 0) test_that(status == LAMINA_OK, "%s", message);
      if (k == 0) calls = atomic_load(&l.calls);
      if (status != LAMINA_OK) {
        ck_assert_int_eq(status, LAMINA_OUT_OF_MEMORY);
        ck_assert_ptr_null(context);
        ck_assert_str_ne(message, "");
      }
      lamina_context_destroy(context);
      expect_clean("context", k, &l);
    }
  }
  ck_assert_int_gt(calls, 0);
}
END_TEST

/* Runs scenario `index` with its k-th allocation failing; returns how many allocations there were. */
static long run_failing(int index, long k, bool all_after, long *survived) {
  const char *what = scenarios[index].name;
  char message[512] = "";
  ledger l = {0};
  lamina_context *context = NULL;
  test_that(create(&l, &context, message, sizeof message) == LAMINA_OK, "%s", message);
  const long before = atomic_load(&l.calls);
  l.fail_at = k ? before + k : 0;
  l.all_after = all_after;
  const lamina_status status = scenarios[index].run(context);
  const long calls = atomic_load(&l.calls) - before;
  if (k == 0)
    test_that(status == LAMINA_OK, "%s: %s: %s", what, lamina_status_name(status), lamina_error_message(context));
  else if (status == LAMINA_OK)
    (*survived)++;
  else
    test_that(status == LAMINA_OUT_OF_MEMORY, "%s, allocation %ld: %s: %s", what, k, lamina_status_name(status),
                  lamina_error_message(context));
  /* The context can still be used. */
  l.fail_at = 0;
  if (k % 16 == 1) NET_OK(context, scenarios[index].run(context));
  lamina_context_destroy(context);
  expect_clean(what, k, &l);
  return calls;
}

START_TEST(scenario_survives_every_failing_allocation) {
  long survived = 0;
  const long calls = run_failing(_i, 0, false, &survived);
  ck_assert_int_gt(calls, 0);
  for (long k = 1; k <= calls; k++) {
    run_failing(_i, k, false, &survived);
    run_failing(_i, k, true, &survived);
  }
  printf("%s: %ld allocations, %ld of %ld failures were survived\n", scenarios[_i].name, calls, survived, 2 * calls);
  fflush(stdout);
}
END_TEST

static void remove_files(void) {
  static const char *const names[] = {"model.json", "weights.safetensors", "array.npy",
                                      "again.json", "again.safetensors",   "again.npy"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) unlink(in_folder(names[i]));
  /* Fails, and fails the test, if a temporary file was left behind. */
  if (rmdir(folder) != 0) {
    fprintf(stderr, "%s is not empty\n", folder);
    exit(1);
  }
}

int main(void) {
  if (net_isa_is_absent()) return TEST_SKIPPED;
  if (!mkdtemp(folder)) return 1;
  Suite *suite = suite_create("memory");
  TCase *cases = tcase_create("failing allocations");
  tcase_set_timeout(cases, 500);
  tcase_add_unchecked_fixture(cases, write_files, NULL);
  tcase_add_test(cases, context_creation_survives_every_failing_allocation);
  tcase_add_loop_test(cases, scenario_survives_every_failing_allocation, 0,
                      (int)(sizeof scenarios / sizeof *scenarios));
  suite_add_tcase(suite, cases);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_ENV);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  remove_files();
  return failed != 0;
}
