/* SPDX-License-Identifier: Apache-2.0 */
/* Model files: those that ship with Lamina, the round trip, and every way in which a file can be wrong. */
#include "graph.h"
#include "io_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* models/ beside this folder; this file's name is relative to where the build runs. */
static const char *model_path(const char *name) {
  static char path[400];
  const char *slash = strrchr(__FILE__, '/');
  snprintf(path, sizeof path, "%.*s/../models/%s", slash ? (int)(slash - __FILE__) : 1, slash ? __FILE__ : ".", name);
  return path;
}

static lamina_graph *load(const char *path) {
  lamina_graph *graph;
  io_expect_ok(lamina_graph_load_model(context, path, &graph));
  return graph;
}

/* What PyTorch and torchvision count: learnable tensors, learnable elements, states. */
static const struct {
  const char *file;
  int parameters, states;
  int64_t elements;
  const char *name;
  int rank;
  int64_t dim[4];
} shipped[] = {
    {"mynet.json", 14, 9, 3293962, "fc1.weight", 2, {512, 6272}},
    {"lenet5.json", 10, 0, 61706, "conv1.weight", 4, {6, 1, 5, 5}},
    {"resnet18.json", 62, 60, 11689512, "layer4.0.downsample.0.weight", 4, {512, 256, 1, 1}},
    {"resnet50.json", 161, 159, 25557032, "layer3.5.conv2.weight", 4, {256, 256, 3, 3}},
};

START_TEST(shipped_models_have_pytorchs_parameters) {
  if (access(model_path(shipped[_i].file), R_OK) != 0) {
    printf("skipped: %s is not here\n", shipped[_i].file);
    return;
  }
  lamina_graph *graph = load(model_path(shipped[_i].file));
  int parameters = 0, states = 0;
  int64_t elements = 0;
  for (size_t n = 0; n < graph->node_count; n++)
    for (int i = 0; i < graph->nodes[n]->n_params; i++) {
      const lamina_entry *entry = graph->nodes[n]->params[i];
      if (!entry) continue;
      parameters += entry->trainable;
      states += !entry->trainable;
      if (entry->trainable) elements += lamina_tensor_count(&entry->tensor);
    }
  ck_assert_int_eq(parameters, shipped[_i].parameters);
  ck_assert_int_eq(states, shipped[_i].states);
  ck_assert_int_eq(elements, shipped[_i].elements);
  const lamina_entry *entry = lamina_store_find(graph->store, shipped[_i].name);
  ck_assert_ptr_nonnull(entry);
  ck_assert_int_eq(entry->tensor.rank, shipped[_i].rank);
  ck_assert_mem_eq(entry->tensor.dim, shipped[_i].dim, (size_t)shipped[_i].rank * sizeof(int64_t));
  lamina_graph_destroy(graph);
}
END_TEST

START_TEST(a_saved_model_loads_as_the_same_graph) {
  if (access(model_path(shipped[_i].file), R_OK) != 0) return;
  lamina_graph *graph = load(model_path(shipped[_i].file));
  io_expect_ok(lamina_graph_save_model(graph, io_path("one.json")));
  lamina_graph *again = load(io_path("one.json"));
  ck_assert_uint_eq(graph->node_count, again->node_count);
  for (size_t n = 0; n < graph->node_count; n++) {
    const graph_node *a = graph->nodes[n], *b = again->nodes[n];
    ck_assert_str_eq(a->name, b->name);
    ck_assert_ptr_eq(a->layer, b->layer);
    ck_assert_str_eq(a->attributes, b->attributes);
    ck_assert_int_eq(a->n_inputs, b->n_inputs);
    ck_assert_mem_eq(a->inputs, b->inputs, (size_t)a->n_inputs * sizeof *a->inputs);
  }
  ck_assert_int_eq(lamina_graph_output_count(again), 1);
  ck_assert_str_eq(lamina_graph_output_name(again, 0), lamina_graph_output_name(graph, 0));
  lamina_graph_destroy(graph);
  lamina_graph_destroy(again);
}
END_TEST

START_TEST(attributes_keep_their_values) {
  const int64_t dim[] = {8, 8, 4};
  size_t bytes;
  lamina_graph *graph;
  io_expect_ok(lamina_graph_create(context, NULL, &graph));
  io_expect_ok(lamina_graph_input(graph, "image", LAMINA_F32, 3, dim));
  io_expect_ok(lamina_graph_add(graph, "conv2d", "conv", "image",
                                "out_channels=4 kernel=3,1 padding=1,0 bias=0 init.weight='normal:0.5'"));
  io_expect_ok(lamina_graph_add(graph, "batch_norm", "bn", "conv", " eps=1e-3   momentum=none affine=false"));
  io_expect_ok(lamina_graph_add(graph, "add", "sum", "bn,image", NULL));
  io_expect_ok(lamina_graph_save_model(graph, io_path("m.json")));
  char *text = io_read("m.json", &bytes);
  const char *expected[] = {"\"name\": \"m\"",
                            "\"shape\": [8, 8, 4]",
                            "\"kernel\": [3, 1]",
                            "\"bias\": false",
                            "\"init.weight\": \"normal:0.5\"",
                            "\"eps\": 1e-3",
                            "\"momentum\": null",
                            "\"inputs\": [\"bn\", \"image\"]",
                            "\"outputs\": [\"sum\"]"};
  for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
    ck_assert_msg(strstr(text, expected[i]) != NULL, "no %s in\n%s", expected[i], text);
  free(text);
  lamina_graph *again = load(io_path("m.json"));
  ck_assert_str_eq(again->nodes[0]->attributes,
                   "out_channels=4 kernel=3,1 padding=1,0 bias=false init.weight=normal:0.5");
  ck_assert_str_eq(again->nodes[1]->attributes, "eps=0.001 momentum=none affine=false");
  io_expect_ok(lamina_graph_save_model(again, io_path("m.json")));
  lamina_graph_destroy(again);
  lamina_graph_destroy(graph);
}
END_TEST

START_TEST(layers_may_stand_in_any_order_and_inputs_may_be_left_out) {
  io_write_text("m.json", "{\"inputs\": [{\"name\": \"x\", \"shape\": [4]}], \"layers\": ["
                          "{\"type\": \"add\", \"name\": \"last\", \"inputs\": [\"b\", \"a\"]},"
                          "{\"type\": \"relu\", \"name\": \"a\", \"inputs\": [\"x\"]},"
                          "{\"type\": \"tanh\", \"name\": \"b\"}]}");
  lamina_graph *graph = load(io_path("m.json"));
  ck_assert_str_eq(graph->nodes[0]->name, "a");
  ck_assert_str_eq(graph->nodes[1]->name, "b");
  ck_assert_str_eq(graph->nodes[2]->name, "last");
  ck_assert_int_eq(lamina_graph_output_count(graph), 1);
  lamina_graph_destroy(graph);
  io_write_text("m.json", "{\"inputs\": [{\"name\": \"x\", \"shape\": [4]}], \"layers\": "
                          "[{\"type\": \"relu\", \"name\": \"a\"}, {\"type\": \"relu\", \"name\": \"b\"}]}");
  graph = load(io_path("m.json"));
  ck_assert_str_eq(graph->values[graph->nodes[0]->inputs[0]]->name, "x");
  ck_assert_str_eq(graph->values[graph->nodes[1]->inputs[0]]->name, "a");
  lamina_graph_destroy(graph);
}
END_TEST

#define X "\"inputs\": [{\"name\": \"x\", \"shape\": [4]}]"

static const struct {
  const char *text;
  lamina_status status;
  const char *message, *more;
} wrong[] = {
    {"", LAMINA_BAD_FILE, "m.json:1:", ""},
    {"{\"a\": 1,\n  \"b\" 2}", LAMINA_BAD_FILE, "m.json:2:", ""},
    {"{\"layers\": [], \"layers\": []}", LAMINA_BAD_FILE, "duplicate", "layers"},
    {"[]", LAMINA_BAD_FILE, "must be a JSON object", ""},
    {"{\"layer\": []}", LAMINA_BAD_FILE, "unknown key 'layer'", ""},
    {"{\"name\": 1, " X "}", LAMINA_BAD_FILE, "name: is not a string", ""},
    {"{\"layers\": []}", LAMINA_BAD_FILE, "inputs: must be a list", ""},
    {"{\"inputs\": [{\"name\": \"x\", \"shape\": [0]}]}", LAMINA_BAD_FILE, "input 'x'", "at least 1"},
    {"{\"inputs\": [{\"name\": \"x\", \"shape\": [-3]}]}", LAMINA_BAD_FILE, "input 'x'", "at least 1"},
    {"{\"inputs\": [{\"name\": \"x\", \"shape\": [2.5]}]}", LAMINA_BAD_FILE, "input 'x'", "whole number"},
    {"{\"inputs\": [{\"name\": \"x\", \"shape\": 4}]}", LAMINA_BAD_FILE, "input 'x'", "shape must be a list"},
    {"{\"inputs\": [{\"name\": \"x\", \"shape\": [1,1,1,1,1,1,1,1]}]}", LAMINA_BAD_FILE, "input 'x'", "at most 7"},
    {"{\"inputs\": [{\"name\": \"x\", \"shape\": [4], \"dtype\": \"f64\"}]}", LAMINA_BAD_FILE, "input 'x'", "dtype"},
    {"{\"inputs\": [{\"name\": \"x\", \"shape\": [4], \"size\": 1}]}", LAMINA_BAD_FILE, "input 'x'",
     "unknown key 'size'"},
    {"{\"inputs\": [{\"name\": \"x\", \"shape\": [9000000000000000000, 9]}],"
     "\"layers\": [{\"type\": \"relu\", \"name\": \"a\"}]}",
     LAMINA_INVALID_ARGUMENT, "m.json", "'x'"},
    {"{\"inputs\": [{\"name\": \"a b\", \"shape\": [4]}]}", LAMINA_BAD_FILE, "no valid name", ""},
    {"{" X ", \"layers\": {}}", LAMINA_BAD_FILE, "layers: must be a list", ""},
    {"{" X ", \"layers\": [3]}", LAMINA_BAD_FILE, "layer number 1", "not an object"},
    {"{" X ", \"layers\": [{\"type\": \"relu\"}]}", LAMINA_BAD_FILE, "layer number 1", "no valid name"},
    {"{" X ", \"layers\": [{\"name\": \"a\"}]}", LAMINA_BAD_FILE, "layer 'a'", "no valid type"},
    {"{" X ", \"layers\": [{\"type\": \"relu\", \"name\": \"a\", \"attrs\": {}}]}", LAMINA_BAD_FILE, "layer 'a'",
     "unknown key 'attrs'"},
    {"{" X ", \"layers\": [{\"type\": \"relu\", \"name\": \"a\", \"attributes\": []}]}", LAMINA_BAD_FILE, "layer 'a'",
     "not an object"},
    {"{" X ", \"layers\": [{\"type\": \"relu\", \"name\": \"a\", \"inputs\": []}]}", LAMINA_BAD_FILE, "layer 'a'",
     "at least one"},
    {"{" X ", \"layers\": [{\"type\": \"relu\", \"name\": \"a\", \"inputs\": [1]}]}", LAMINA_BAD_FILE, "layer 'a'",
     "not a valid name"},
    {"{" X ", \"layers\": [{\"type\": \"relu\", \"name\": \"a\", \"inputs\": [\"y\"]}]}", LAMINA_BAD_FILE, "layer 'a'",
     "'y' is neither a layer nor an input"},
    {"{" X ", \"layers\": [{\"type\": \"relu\", \"name\": \"x\"}]}", LAMINA_BAD_FILE, "'x' is used twice", ""},
    {"{" X ", \"layers\": [{\"type\": \"relu\", \"name\": \"a\"}, {\"type\": \"relu\", \"name\": \"a\"}]}",
     LAMINA_BAD_FILE, "'a' is used twice", ""},
    {"{" X ", \"layers\": [{\"type\": \"relo\", \"name\": \"a\"}]}", LAMINA_NOT_FOUND, "m.json", "relo"},
    {"{" X ", \"layers\": [{\"type\": \"linear\", \"name\": \"a\"}]}", LAMINA_INVALID_ARGUMENT, "m.json",
     "out_features"},
    {"{" X ", \"layers\": [{\"type\": \"linear\", \"name\": \"fc\", \"attributes\": {\"out\": 3}}]}",
     LAMINA_INVALID_ARGUMENT, "'fc'", "'out'"},
    {"{" X ", \"layers\": [{\"type\": \"linear\", \"name\": \"fc\", \"attributes\": {\"out_features\": \"many\"}}]}",
     LAMINA_INVALID_ARGUMENT, "'fc'", "many"},
    {"{" X ", \"layers\": [{\"type\": \"linear\", \"name\": \"fc\", \"attributes\": {\"out_features\": [1.5]}}]}",
     LAMINA_BAD_FILE, "layer 'fc': attribute 'out_features'", "whole numbers"},
    {"{" X ", \"layers\": [{\"type\": \"linear\", \"name\": \"fc\", \"attributes\": {\"out_features\": {}}}]}",
     LAMINA_BAD_FILE, "layer 'fc': attribute 'out_features'", "object"},
    {"{" X ", \"layers\": [{\"type\": \"linear\", \"name\": \"fc\", \"attributes\": {\"a b\": 1}}]}", LAMINA_BAD_FILE,
     "attribute 'a b'", "not a name"},
    {"{" X ", \"layers\": [{\"type\": \"linear\", \"name\": \"fc\", \"attributes\": {\"a\": \"it's\"}}]}",
     LAMINA_BAD_FILE, "attribute 'a'", "quote"},
    {"{" X
     ", \"layers\": [{\"type\": \"conv2d\", \"name\": \"c\", \"attributes\": {\"out_channels\": 1, \"kernel\": 3}}]}",
     LAMINA_SHAPE_MISMATCH, "m.json", "'c'"},
    {"{" X
     ", \"layers\": [{\"type\": \"relu\", \"name\": \"a\", \"inputs\": [\"c\"]}, {\"type\": \"relu\", \"name\": \"b\","
     "\"inputs\": [\"a\"]}, {\"type\": \"relu\", \"name\": \"c\"}]}",
     LAMINA_BAD_FILE, "cycle", "b -> c -> a -> b"},
    {"{" X ", \"layers\": [{\"type\": \"relu\", \"name\": \"a\", \"inputs\": [\"a\"]}]}", LAMINA_BAD_FILE, "cycle",
     "a -> a"},
    {"{" X ", \"layers\": [{\"type\": \"relu\", \"name\": \"a\"}], \"outputs\": [\"z\"]}", LAMINA_NOT_FOUND, "outputs",
     "'z'"},
    {"{" X ", \"layers\": [{\"type\": \"relu\", \"name\": \"a\"}], \"outputs\": \"a\"}", LAMINA_BAD_FILE, "outputs",
     "list of names"},
    {"{\"inputs\": [{\"name\": \"x\", \"shape\": [4]}, {\"name\": \"y\", \"shape\": [4]}],"
     "\"layers\": [{\"type\": \"relu\", \"name\": \"a\"}]}",
     LAMINA_BAD_FILE, "layer 'a': has no inputs", "more than one"},
};

START_TEST(a_wrong_model_is_refused_by_name) {
  lamina_graph *graph = (lamina_graph *)&graph;
  io_write_text("m.json", wrong[_i].text);
  io_expect_failure(lamina_graph_load_model(context, io_path("m.json"), &graph), wrong[_i].status, wrong[_i].message,
                    wrong[_i].more);
  ck_assert_ptr_null(graph);
  ck_assert_ptr_nonnull(strstr(lamina_error_message(context), "m.json"));
}
END_TEST

START_TEST(deep_nesting_is_refused) {
  enum { DEPTH = 1000000 };
  lamina_graph *graph;
  char *text = malloc(DEPTH);
  memset(text, '[', DEPTH);
  io_write("m.json", text, DEPTH);
  free(text);
  io_expect_failure(lamina_graph_load_model(context, io_path("m.json"), &graph), LAMINA_BAD_FILE, "m.json:1:", "depth");
  io_expect_failure(lamina_graph_load_model(context, io_path("none"), &graph), LAMINA_NOT_FOUND, "none",
                    "No such file");
}
END_TEST

int main(void) {
  Suite *suite = suite_create("model files");
  TCase *test = tcase_create("models");
  tcase_set_timeout(test, 60);
  tcase_add_checked_fixture(test, io_setup, io_teardown);
  tcase_add_loop_test(test, shipped_models_have_pytorchs_parameters, 0, sizeof shipped / sizeof *shipped);
  tcase_add_loop_test(test, a_saved_model_loads_as_the_same_graph, 0, sizeof shipped / sizeof *shipped);
  tcase_add_test(test, attributes_keep_their_values);
  tcase_add_test(test, layers_may_stand_in_any_order_and_inputs_may_be_left_out);
  tcase_add_loop_test(test, a_wrong_model_is_refused_by_name, 0, sizeof wrong / sizeof *wrong);
  tcase_add_test(test, deep_nesting_is_refused);
  suite_add_tcase(suite, test);
  return io_run(suite);
}
