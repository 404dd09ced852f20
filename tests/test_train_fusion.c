/* SPDX-License-Identifier: Apache-2.0 */
/* In a TRAIN plan batch norm takes the addition and the ReLU behind it: outputs, gradients and running statistics are
   those of the plan without fusion, whoever else reads the values and writes their gradients. */
#include "net_test.h"

typedef struct fusion_case {
  net_case net;
  int fused; /* nodes that are merged into others */
} fusion_case;

#define IMAGE {{"image", 3, {6, 5, 3}, 0, NET_UNIFORM}, {"label", 0, {0}, 4, NET_UNIFORM}}
#define CONV(name, from) {"conv2d", name, from, "out_channels=12 kernel=3 padding=1"}
#define END(from) {"flatten", "flat", from, ""}, {"linear", "fc", "flat", "out_features=4"}, {"softmax_cross_entropy", "loss", "fc, label", ""}

static const fusion_case cases[] = {
    {{"relu", 4, IMAGE, {CONV("conv", "image"), {"batch_norm", "norm", "conv", ""}, {"relu", "relu", "norm", ""}, END("relu")},
      NULL, 0},
     1},
    {{"a clip of both sides", 4, IMAGE,
      {CONV("conv", "image"), {"batch_norm", "norm", "conv", ""}, {"clip", "relu6", "norm", "min=-0.25 max=0.8"}, END("relu6")},
      NULL, 0},
     1},
    {{"silu stays a node of its own", 4, IMAGE,
      {CONV("conv", "image"), {"batch_norm", "norm", "conv", ""}, {"silu", "silu", "norm", ""}, END("silu")}, NULL, 0},
     0},
    {{"residual block", 4, IMAGE,
      {CONV("conv0", "image"), {"batch_norm", "norm0", "conv0", ""}, {"relu", "relu0", "norm0", ""}, CONV("conv1", "relu0"),
       {"batch_norm", "norm1", "conv1", ""}, {"add", "sum", "norm1, relu0", ""}, {"relu", "relu1", "sum", ""}, END("relu1")},
      NULL, 0},
     3},
    {{"projected shortcut", 4, IMAGE,
      {CONV("conv0", "image"), {"batch_norm", "norm0", "conv0", ""}, CONV("conv1", "image"), {"batch_norm", "norm1", "conv1", ""},
       {"add", "sum", "norm1, norm0", ""}, {"relu", "relu1", "sum", ""}, END("relu1")},
      NULL, 0},
     2},
    {{"an addition without a ReLU", 4, IMAGE,
      {CONV("conv0", "image"), {"relu", "relu0", "conv0", ""}, CONV("conv1", "relu0"), {"batch_norm", "norm1", "conv1", ""},
       {"add", "sum", "relu0, norm1", ""}, CONV("conv2", "sum"), {"add", "sum2", "conv2, sum", ""}, END("sum2")},
      NULL, 0},
     1},
    {{"a value that two readers need", 4, IMAGE,
      {CONV("conv0", "image"), {"batch_norm", "norm0", "conv0", ""}, {"relu", "relu0", "norm0", ""},
       {"add", "sum", "norm0, relu0", ""}, END("sum")},
      NULL, 0},
     0},
    {{"the same value twice", 4, IMAGE,
      {CONV("conv0", "image"), {"batch_norm", "norm0", "conv0", ""}, {"add", "sum", "norm0, norm0", ""}, END("sum")}, NULL, 0},
     0},
};

static const char *const parameters[] = {"conv.weight",  "norm.weight",  "norm.bias",    "conv0.weight", "norm0.weight",
                                         "norm0.bias",   "conv1.weight", "norm1.weight", "norm1.bias",   "fc.weight",
                                         "conv2.weight", "conv0.bias"};

static void run(net *n) {
  NET_OK(n->context, lamina_exec_forward(n->exec));
  NET_OK(n->context, lamina_exec_backward(n->exec));
}

static bool has(const net *n, const char *parameter) {
  lamina_parameter found = {.size = sizeof found};
  return lamina_graph_parameter_find(n->graph, parameter, &found) == LAMINA_OK;
}

static void same(const char *what, const char *name, const lamina_tensor *a, const lamina_tensor *b) {
  int64_t count = 1;
  for (int i = 0; i < a->rank; i++) count *= a->dim[i];
  const double error = net_error(a->data, b->data, count);
  test_that(error < 2e-6, "%s: %s differs by %g", name, what, error);
}

START_TEST(fused_training_equals_unfused) {
  const fusion_case *c = &cases[_i];
  lamina_context *context = net_context(2);
  test_random random = test_random_for(c->net.name);
  net fused, plain;
  net_open(&fused, context, &c->net, (lamina_plan_options){.mode = LAMINA_TRAIN}, &random);
  net_open_shared(&plain, &fused, (lamina_plan_options){.mode = LAMINA_TRAIN, .no_fusion = 1});
  lamina_plan_info info = {.size = sizeof info}, plain_info = {.size = sizeof info};
  NET_OK(context, lamina_plan_get_info(fused.plan, &info));
  NET_OK(context, lamina_plan_get_info(plain.plan, &plain_info));
  ck_assert_int_eq(info.nodes + c->fused, plain_info.nodes);
  run(&fused);
  run(&plain);
  lamina_tensor a = net_output(&fused), b = net_output(&plain);
  same("the loss", c->net.name, &a, &b);
  int compared = 0;
  for (size_t i = 0; i < sizeof parameters / sizeof *parameters; i++) {
    if (!has(&fused, parameters[i])) continue;
    a = net_gradient(&fused, parameters[i]);
    b = net_gradient(&plain, parameters[i]);
    if (strcmp(parameters[i], "conv0.bias") != 0) same(parameters[i], c->net.name, &a, &b); /* there: zero but for rounding */
    compared++;
  }
  ck_assert_int_ge(compared, 4);
  net_close_shared(&plain);
  net_close(&fused);
  lamina_context_destroy(context);
}
END_TEST

int main(void) {
  test_print_seed();
  if (net_isa_is_absent()) return TEST_SKIPPED;
  Suite *suite = suite_create("fusion in training");
  TCase *t = tcase_create("fusion in training");
  tcase_set_timeout(t, 120);
  tcase_add_loop_test(t, fused_training_equals_unfused, 0, sizeof cases / sizeof *cases);
  suite_add_tcase(suite, t);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? 1 : 0;
}
