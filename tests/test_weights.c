/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints: what is saved comes back to the bit, and a file that does not fit changes nothing. */
#include "graph.h"
#include "io/safetensors.h"
#include "io_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* conv -> batch norm -> flatten -> linear: conv.weight, .bias, bn.weight, .bias, .running_mean, .running_var,
   .num_batches_tracked, fc.weight, fc.bias. */
static lamina_graph *network(int64_t seed) {
  const int64_t dim[] = {4, 4, 2};
  lamina_graph *graph;
  io_expect_ok(lamina_graph_create(context, NULL, &graph));
  io_expect_ok(lamina_graph_input(graph, "image", LAMINA_F32, 3, dim));
  io_expect_ok(lamina_graph_add(graph, "conv2d", "conv", "image", "out_channels=3 kernel=3 padding=1"));
  io_expect_ok(lamina_graph_add(graph, "batch_norm", "bn", "conv", NULL));
  io_expect_ok(lamina_graph_add(graph, "flatten", "flat", "bn", NULL));
  io_expect_ok(lamina_graph_add(graph, "linear", "fc", "flat", "out_features=5"));
  io_expect_ok(lamina_graph_initialize(graph, (uint64_t)seed));
  return graph;
}

static lamina_entry *entry(lamina_graph *graph, const char *name) {
  lamina_entry *found = lamina_store_find(lamina_graph_store(graph), name);
  ck_assert_ptr_nonnull(found);
  return found;
}

static size_t entry_bytes(const lamina_entry *e) {
  size_t bytes = 0;
  lamina_tensor_bytes(&e->tensor, &bytes);
  return bytes;
}

static bool same_parameters(lamina_graph *a, lamina_graph *b) {
  const lamina_store *store = lamina_graph_store(a);
  for (size_t i = 0; i < store->count; i++) {
    const lamina_entry *x = store->entries[i], *y = entry(b, x->name);
    if (memcmp(x->tensor.data, y->tensor.data, entry_bytes(x))) return false;
  }
  return true;
}

/* Fills the optimizer's state of every learnable parameter with numbers of its own. */
static void fill_slots(lamina_graph *graph, lamina_optimizer_type type, int slots) {
  lamina_store *store = lamina_graph_store(graph);
  for (size_t i = 0; i < store->count; i++)
    for (int s = 0; s < slots && store->entries[i]->trainable; s++) {
      io_expect_ok(lamina_store_slot(store, store->entries[i], s));
      for (int64_t k = 0; k < lamina_tensor_count(&store->entries[i]->tensor); k++)
        store->entries[i]->slot[s][k] = (float)(i * 100 + (size_t)s * 10 + (size_t)k);
      store->entries[i]->steps = 77;
    }
  store->optimizer = type;
  store->step = 77;
}

typedef struct skips {
  int count;
  char text[8][256];
} skips;

static void note_skip(void *user, const char *name, const char *reason) {
  skips *s = user;
  ck_assert_int_lt(s->count, 8);
  snprintf(s->text[s->count++], sizeof s->text[0], "%s: %s", name, reason);
}

/* The head of `b` is wider, and it has one more layer: they keep the values that they had. */
START_TEST(what_fits_is_loaded_and_the_rest_is_named) {
  lamina_graph *a = network(1), *b, *other;
  const int64_t dim[] = {4, 4, 2};
  skips s = {0};
  io_expect_ok(lamina_graph_save_weights(a, io_path("w"), 0, NULL));
  io_expect_ok(lamina_graph_create(context, NULL, &b));
  io_expect_ok(lamina_graph_input(b, "image", LAMINA_F32, 3, dim));
  io_expect_ok(lamina_graph_add(b, "conv2d", "conv", "image", "out_channels=3 kernel=3 padding=1"));
  io_expect_ok(lamina_graph_add(b, "flatten", "flat", "conv", NULL));
  io_expect_ok(lamina_graph_add(b, "linear", "fc", "flat", "out_features=7"));
  io_expect_ok(lamina_graph_add(b, "linear", "more", "fc", "out_features=2 bias=false"));
  io_expect_ok(lamina_graph_initialize(b, 9));
  float before[7];
  memcpy(before, entry(b, "fc.bias")->tensor.data, sizeof before);
  const uint64_t version = lamina_graph_store(b)->version;
  io_expect_failure(lamina_graph_load_weights(b, io_path("w"), 0), LAMINA_BAD_FILE, "fc.weight is 5x48", "more.weight");
  io_expect_ok(lamina_graph_load_partial(b, io_path("w"), note_skip, &s));
  ck_assert_uint_gt(lamina_graph_store(b)->version, version);
  ck_assert_int_eq(s.count, 8);
  ck_assert_str_eq(s.text[0], "fc.weight: it is 5x48 F32 in the file, 7x48 f32 in the model");
  ck_assert_str_eq(s.text[1], "fc.bias: it is 5 F32 in the file, 7 f32 in the model");
  ck_assert_str_eq(s.text[2], "more.weight: the file does not have it");
  for (int i = 3; i < 8; i++) ck_assert_ptr_nonnull(strstr(s.text[i], "bn."));
  ck_assert_mem_eq(entry(b, "conv.weight")->tensor.data, entry(a, "conv.weight")->tensor.data,
                   entry_bytes(entry(a, "conv.weight")));
  ck_assert_mem_eq(entry(b, "fc.bias")->tensor.data, before, sizeof before);
  io_expect_ok(lamina_graph_load_partial(b, io_path("w"), NULL, NULL));

  io_expect_ok(lamina_graph_create(context, NULL, &other));
  io_expect_ok(lamina_graph_input(other, "image", LAMINA_F32, 1, dim));
  io_expect_ok(lamina_graph_add(other, "linear", "fc", "image", "out_features=9"));
  s.count = 0;
  io_expect_failure(lamina_graph_load_partial(other, io_path("w"), note_skip, &s), LAMINA_BAD_FILE, "/w",
                    "none of its 9 tensors");
  io_expect_failure(lamina_graph_load_partial(other, io_path("none"), note_skip, &s), LAMINA_NOT_FOUND, "/none", "");
  ck_assert_int_eq(s.count, 0);
  lamina_graph_destroy(a);
  lamina_graph_destroy(b);
  lamina_graph_destroy(other);
}
END_TEST

START_TEST(weights_come_back_to_the_bit) {
  lamina_graph *a = network(1), *b = network(2);
  const lamina_metadata metadata[] = {{"epoch", "3"}, {NULL, NULL}};
  char value[8];
  *(int64_t *)entry(a, "bn.num_batches_tracked")->tensor.data = 12345678901;
  ck_assert(!same_parameters(a, b));
  io_expect_ok(lamina_graph_save_weights(a, io_path("w"), 0, metadata));
  uint64_t version = lamina_graph_store(b)->version;
  io_expect_ok(lamina_graph_load_weights(b, io_path("w"), 0));
  ck_assert_uint_gt(lamina_graph_store(b)->version, version);
  ck_assert(same_parameters(a, b));
  io_expect_ok(lamina_weights_metadata(context, io_path("w"), "epoch", value, sizeof value));
  ck_assert_str_eq(value, "3");
  io_expect_failure(lamina_weights_metadata(context, io_path("w"), "none", value, sizeof value), LAMINA_NOT_FOUND,
                    "'none'", "/w");
  lamina_graph_destroy(a);
  lamina_graph_destroy(b);
}
END_TEST

START_TEST(a_plain_file_holds_what_pytorch_expects) {
  lamina_graph *a = network(1);
  lamina_safetensors *file;
  fill_slots(a, LAMINA_ADAM, 2);
  io_expect_ok(lamina_graph_save_weights(a, io_path("w"), 0, NULL));
  io_expect_ok(lamina_safetensors_open(context, io_path("w"), 0, &file));
  ck_assert_uint_eq(lamina_safetensors_count(file), 9);
  const lamina_stored_tensor *counter = lamina_safetensors_find(file, "bn.num_batches_tracked");
  ck_assert_ptr_nonnull(counter);
  ck_assert_str_eq(counter->dtype, "I64");
  ck_assert_int_eq(counter->rank, 0);
  const lamina_stored_tensor *weight = lamina_safetensors_find(file, "conv.weight");
  const int64_t dim[] = {3, 2, 3, 3};
  ck_assert_str_eq(weight->dtype, "F32");
  ck_assert_mem_eq(weight->dim, dim, sizeof dim);
  ck_assert_ptr_null(lamina_safetensors_metadata(file, "step"));
  lamina_safetensors_close(file);
  lamina_graph_destroy(a);
}
END_TEST

START_TEST(training_goes_on_from_a_checkpoint) {
  const lamina_optimizer_type type = (lamina_optimizer_type)_i;
  const int slots = type == LAMINA_SGD ? 1 : 2;
  lamina_graph *a = network(1), *b = network(2);
  fill_slots(a, type, slots);
  lamina_store *from = lamina_graph_store(a), *to = lamina_graph_store(b);
  io_expect_ok(lamina_graph_save_weights(a, io_path("w"), LAMINA_WEIGHTS_TRAINING, NULL));
  io_expect_ok(lamina_store_slot(to, entry(b, "fc.bias"), 0)); /* one slot is there already */
  io_expect_ok(lamina_graph_load_weights(b, io_path("w"), LAMINA_WEIGHTS_TRAINING));
  ck_assert(same_parameters(a, b));
  ck_assert_int_eq(to->step, 77);
  ck_assert_int_eq(to->optimizer, type);
  for (size_t i = 0; i < from->count; i++)
    for (int s = 0; s < 2; s++) {
      const lamina_entry *x = from->entries[i], *y = entry(b, x->name);
      ck_assert_int_eq(x->slot[s] != NULL, x->trainable && s < slots);
      ck_assert_int_eq(x->slot[s] != NULL, y->slot[s] != NULL);
      if (x->slot[s]) ck_assert_mem_eq(x->slot[s], y->slot[s], entry_bytes(x));
    }
  lamina_graph_destroy(b);
  b = network(3); /* without the flag, the same file gives the model alone */
  io_expect_ok(lamina_graph_load_weights(b, io_path("w"), 0));
  ck_assert(same_parameters(a, b));
  ck_assert_int_eq(lamina_graph_store(b)->step, 0);
  ck_assert_ptr_null(entry(b, "fc.bias")->slot[0]);
  io_expect_ok(lamina_graph_save_weights(a, io_path("plain"), 0, NULL));
  io_expect_failure(lamina_graph_load_weights(b, io_path("plain"), LAMINA_WEIGHTS_TRAINING), LAMINA_NOT_FOUND, "plain",
                    "no optimizer state");
  lamina_graph_destroy(a);
  lamina_graph_destroy(b);
}
END_TEST

/* Writes the graph's tensors with one of them changed: left out, renamed, or with another tensor in its place. */
static void write_changed(lamina_graph *graph, const char *name, const char *new_name, const lamina_tensor *instead,
                          const lamina_metadata *metadata) {
  const lamina_store *store = lamina_graph_store(graph);
  lamina_named_tensor tensors[16];
  size_t count = 0;
  for (size_t i = 0; i < store->count; i++) {
    lamina_named_tensor item = {store->entries[i]->name, store->entries[i]->tensor};
    if (!strcmp(item.name, name)) {
      if (!new_name) continue;
      item.name = new_name;
      if (instead) item.tensor = *instead;
    }
    tensors[count++] = item;
  }
  io_expect_ok(lamina_safetensors_write(context, io_path("w"), tensors, count, metadata));
}

static void expect_refused(lamina_status status, const char *message, const char *more) {
  lamina_graph *b = network(2), *before = network(2);
  io_expect_failure(lamina_graph_load_weights(b, io_path("w"), 0), status, message, more);
  ck_assert(same_parameters(b, before)); /* nothing has changed */
  ck_assert_ptr_nonnull(strstr(lamina_error_message(context), "/w: a checkpoint for another model"));
  lamina_graph_destroy(b);
  lamina_graph_destroy(before);
}

START_TEST(a_checkpoint_of_another_model_changes_nothing) {
  lamina_graph *a = network(1);
  float values[12] = {0};
  const int64_t d5[] = {5}, d4[] = {4}, d51[] = {5, 1};
  lamina_tensor wrong_size = lamina_tensor_of(values, LAMINA_F32, 1, d4),
                wrong_rank = lamina_tensor_of(values, LAMINA_F32, 2, d51);
  lamina_tensor wrong_type = lamina_tensor_of(values, LAMINA_I32, 1, d5);
  lamina_tensor fraction = lamina_tensor_of(values, LAMINA_F32, 0, NULL);
  values[0] = 2.5f;
  write_changed(a, "fc.bias", NULL, NULL, NULL);
  expect_refused(LAMINA_BAD_FILE, "1 tensor missing (fc.bias)", "");
  write_changed(a, "fc.bias", "fc2.bias", NULL, NULL);
  expect_refused(LAMINA_BAD_FILE, "1 tensor missing (fc.bias)", "1 tensor not in this model (fc2.bias)");
  write_changed(a, "fc.bias", "fc.bias", &wrong_size, NULL);
  expect_refused(LAMINA_SHAPE_MISMATCH, "fc.bias is 4 F32 in the file", "5 f32 in the model");
  write_changed(a, "fc.bias", "fc.bias", &wrong_rank, NULL);
  expect_refused(LAMINA_SHAPE_MISMATCH, "fc.bias is 5x1 F32 in the file", "");
  write_changed(a, "fc.bias", "fc.bias", &wrong_type, NULL);
  expect_refused(LAMINA_BAD_FILE, "fc.bias is I32, not f32", "");
  write_changed(a, "bn.num_batches_tracked", "bn.num_batches_tracked", &fraction, NULL);
  expect_refused(LAMINA_BAD_FILE, "bn.num_batches_tracked is F32, not i64", "");
  io_write_safetensors("w", "{}", 0);
  expect_refused(LAMINA_BAD_FILE, "8 tensors missing", "conv.weight");
  lamina_graph_destroy(a);
}
END_TEST

START_TEST(a_counter_may_have_other_forms_or_be_missing) {
  lamina_graph *a = network(1), *b = network(2);
  int64_t *counter = entry(b, "bn.num_batches_tracked")->tensor.data, big = (int64_t)1 << 40;
  const int64_t one[] = {1};
  float f = 33;
  int32_t i = 44;
  const lamina_tensor forms[] = {lamina_tensor_of(&f, LAMINA_F32, 1, one), lamina_tensor_of(&i, LAMINA_I32, 0, NULL),
                                 lamina_tensor_of(&big, LAMINA_I64, 1, one)};
  const int64_t expected[] = {33, 44, big};
  for (int k = 0; k < 3; k++) {
    write_changed(a, "bn.num_batches_tracked", "bn.num_batches_tracked", &forms[k], NULL);
    io_expect_ok(lamina_graph_load_weights(b, io_path("w"), 0));
    ck_assert_int_eq(*counter, expected[k]);
  }
  write_changed(a, "bn.num_batches_tracked", NULL, NULL, NULL);
  io_expect_ok(lamina_graph_load_weights(b, io_path("w"), 0));
  ck_assert_int_eq(*counter, 0);
  lamina_graph_destroy(a);
  lamina_graph_destroy(b);
}
END_TEST

START_TEST(damaged_optimizer_state_is_refused) {
  const lamina_metadata cases[][3] = {{{"optimizer", "lbfgs"}, {"step", "1"}, {NULL, NULL}},
                                      {{"optimizer", "sgd"}, {"step", "-1"}, {NULL, NULL}},
                                      {{"optimizer", "sgd"}, {"step", "1x"}, {NULL, NULL}},
                                      {{"optimizer", "sgd"}, {"step", "99999999999999999999"}, {NULL, NULL}}};
  const char *messages[] = {"unknown optimizer 'lbfgs'", "step '-1'", "step '1x'", "step '9"};
  lamina_graph *a = network(1), *b = network(2), *before = network(2);
  for (int i = 0; i < 4; i++) {
    write_changed(a, "", NULL, NULL, cases[i]);
    io_expect_failure(lamina_graph_load_weights(b, io_path("w"), LAMINA_WEIGHTS_TRAINING), LAMINA_BAD_FILE, "/w",
                      messages[i]);
  }
  fill_slots(a, LAMINA_ADAM, 2);
  lamina_free(context, entry(a, "fc.bias")->slot[1]);
  entry(a, "fc.bias")->slot[1] = NULL;
  io_expect_ok(lamina_graph_save_weights(a, io_path("w"), LAMINA_WEIGHTS_TRAINING, NULL));
  io_expect_failure(lamina_graph_load_weights(b, io_path("w"), LAMINA_WEIGHTS_TRAINING), LAMINA_BAD_FILE, "missing",
                    "optimizer.exp_avg_sq.fc.bias");
  ck_assert(same_parameters(b, before));
  ck_assert_ptr_null(entry(b, "fc.weight")->slot[0]);
  lamina_graph_destroy(a);
  lamina_graph_destroy(b);
  lamina_graph_destroy(before);
}
END_TEST

/* Two networks of one store, or what was frozen for a while: not every parameter was stepped as often. */
START_TEST(each_parameter_keeps_its_own_steps) {
  lamina_graph *a = network(1), *b = network(2);
  const int64_t two[] = {2};
  int64_t many[2] = {1, 2}, negative = -1;
  fill_slots(a, LAMINA_ADAM, 2);
  entry(a, "fc.weight")->steps = 5;
  io_expect_ok(lamina_graph_save_weights(a, io_path("w"), LAMINA_WEIGHTS_TRAINING, NULL));
  io_expect_ok(lamina_graph_load_weights(b, io_path("w"), LAMINA_WEIGHTS_TRAINING));
  ck_assert_int_eq(entry(b, "fc.weight")->steps, 5);
  ck_assert_int_eq(entry(b, "fc.bias")->steps, 77);
  io_expect_ok(lamina_graph_load_weights(b, io_path("w"), 0));

  const lamina_tensor wrong[] = {lamina_tensor_of(many, LAMINA_I64, 1, two),
                                 lamina_tensor_of(&negative, LAMINA_I64, 0, NULL)};
  const lamina_status statuses[] = {LAMINA_SHAPE_MISMATCH, LAMINA_BAD_FILE};
  const lamina_metadata metadata[] = {{"optimizer", "sgd"}, {"step", "7"}, {NULL, NULL}};
  float momentum[5] = {0};
  for (int i = 0; i < 2; i++) {
    lamina_named_tensor tensors[16];
    size_t count = 0;
    const lamina_store *store = lamina_graph_store(a);
    for (size_t k = 0; k < store->count; k++)
      tensors[count++] = (lamina_named_tensor){store->entries[k]->name, store->entries[k]->tensor};
    tensors[count++] = (lamina_named_tensor){"optimizer.momentum.fc.bias", entry(a, "fc.bias")->tensor};
    tensors[count - 1].tensor.data = momentum;
    tensors[count++] = (lamina_named_tensor){"optimizer.step.fc.bias", wrong[i]};
    io_expect_ok(lamina_safetensors_write(context, io_path("w"), tensors, count, metadata));
    io_expect_failure(lamina_graph_load_weights(b, io_path("w"), LAMINA_WEIGHTS_TRAINING), statuses[i],
                      "optimizer.step.fc.bias", "");
    ck_assert_int_eq(entry(b, "fc.bias")->steps, 77);
  }
  lamina_graph_destroy(a);
  lamina_graph_destroy(b);
}
END_TEST

START_TEST(metadata_given_twice_is_refused) {
  const lamina_metadata metadata[] = {{"step", "3"}, {NULL, NULL}};
  lamina_graph *a = network(1);
  io_expect_failure(lamina_graph_save_weights(a, io_path("w"), LAMINA_WEIGHTS_TRAINING, metadata),
                    LAMINA_INVALID_ARGUMENT, "'step'", "twice");
  ck_assert_int_eq(io_file_count(), 0);
  lamina_graph_destroy(a);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("weights");
  TCase *test = tcase_create("weights");
  tcase_add_checked_fixture(test, io_setup, io_teardown);
  tcase_add_test(test, what_fits_is_loaded_and_the_rest_is_named);
  tcase_add_test(test, weights_come_back_to_the_bit);
  tcase_add_test(test, a_plain_file_holds_what_pytorch_expects);
  tcase_add_loop_test(test, training_goes_on_from_a_checkpoint, LAMINA_SGD, LAMINA_ADAMW + 1);
  tcase_add_test(test, a_checkpoint_of_another_model_changes_nothing);
  tcase_add_test(test, a_counter_may_have_other_forms_or_be_missing);
  tcase_add_test(test, damaged_optimizer_state_is_refused);
  tcase_add_test(test, each_parameter_keeps_its_own_steps);
  tcase_add_test(test, metadata_given_twice_is_refused);
  suite_add_tcase(suite, test);
  return io_run(suite);
}
