/* SPDX-License-Identifier: Apache-2.0 */
/* What a plan to train computes again instead of keeping it changes no bit: not of the loss, of parameters after steps, of
   running statistics, of gradients of inputs. And it takes less memory. */
#include "net_test.h"

#define IMAGE {{"image", 3, {6, 5, 3}, 0, NET_UNIFORM}, {"label", 0, {0}, 4, NET_UNIFORM}}
#define CONV(name, from) {"conv2d", name, from, "out_channels=12 kernel=3 padding=1"}
#define NORM(name, from) {"batch_norm", name, from, ""}
#define END(from) {"flatten", "flat", from, ""}, {"linear", "fc", "flat", "out_features=4"}, {"softmax_cross_entropy", "loss", "fc, label", ""}

typedef struct recompute_case {
  net_case net;
  const char *pattern; /* NULL: in_place alone */
  int in_place, recomputed;
} recompute_case;

static const recompute_case cases[] = {
    {{"batch norm and ReLU", 4, IMAGE, {CONV("conv", "image"), NORM("norm", "conv"), {"relu", "relu", "norm", ""},
      CONV("conv1", "relu"), END("conv1")}, NULL, 0},
     NULL, 1, 1},
    {{"a chain of residual blocks", 4, IMAGE,
      {CONV("conv0", "image"), NORM("norm0", "conv0"), {"relu", "relu0", "norm0", ""}, CONV("conv1", "relu0"), NORM("norm1", "conv1"),
       {"add", "sum1", "norm1, relu0", ""}, {"relu", "relu1", "sum1", ""}, CONV("conv2", "relu1"), NORM("norm2", "conv2"),
       {"add", "sum2", "norm2, relu1", ""}, {"relu", "relu2", "sum2", ""}, CONV("conv3", "relu2"), NORM("norm3", "conv3"),
       {"add", "sum3", "norm3, relu2", ""}, {"relu", "relu3", "sum3", ""}, END("relu3")},
      NULL, 0},
     NULL, 1, 4},
    {{"projected shortcut", 4, IMAGE,
      {CONV("conv0", "image"), NORM("norm0", "conv0"), CONV("conv1", "image"), NORM("norm1", "conv1"), {"add", "sum", "norm1, norm0", ""},
       {"relu", "relu1", "sum", ""}, END("relu1")},
      NULL, 0},
     NULL, 1, 2},
    {{"silu after batch norm", 4, IMAGE,
      {CONV("conv", "image"), NORM("norm", "conv"), {"silu", "silu", "norm", ""}, CONV("conv1", "silu"), NORM("norm1", "conv1"),
       {"leaky_relu", "leaky", "norm1", ""}, {"add", "sum", "leaky, silu", ""}, CONV("conv2", "sum"), END("conv2")},
      NULL, 0},
     NULL, 1, 5},
    {{"dropout draws the same numbers again", 4, IMAGE,
      {CONV("conv", "image"), NORM("norm", "conv"), {"dropout", "drop", "norm", "p=0.4"}, CONV("conv1", "drop"), NORM("norm1", "conv1"),
       CONV("conv2", "norm1"), END("conv2")},
      NULL, 0},
     NULL, 1, 3},
    {{"checkpoints", 4, IMAGE,
      {CONV("conv0", "image"), {"silu", "silu0", "conv0", ""}, CONV("conv1", "silu0"), {"silu", "silu1", "conv1", ""},
       {"max_pool2d", "pool", "silu1", "kernel=2"}, CONV("conv2", "pool"), {"silu", "silu2", "conv2", ""}, END("silu2")},
      NULL, 0},
     "conv1, silu1, pool, conv2", 0, 4},
    {{"everything that can", 4, IMAGE,
      {CONV("conv0", "image"), NORM("norm0", "conv0"), {"relu", "relu0", "norm0", ""}, CONV("conv1", "relu0"), {"tanh", "tanh", "conv1", ""},
       {"avg_pool2d", "pool", "tanh", "kernel=2"}, {"flatten", "flat", "pool", ""}, {"linear", "fc1", "flat", "out_features=7"},
       {"sigmoid", "sigmoid", "fc1", ""}, {"linear", "fc", "sigmoid", "out_features=4"}, {"softmax_cross_entropy", "loss", "fc, label", ""}},
      NULL, 0},
     "*", 1, 8},
    {{"a merged node goes by either name", 4, IMAGE,
      {CONV("conv", "image"), NORM("norm", "conv"), {"relu", "relu", "norm", ""}, CONV("conv1", "relu"), END("conv1")}, NULL, 0},
     "relu", 0, 1},
};

static void run_step(net *n, const lamina_optimizer *optimizer) {
  NET_OK(n->context, lamina_exec_forward(n->exec));
  NET_OK(n->context, lamina_exec_backward_step(n->exec, optimizer));
}

static void same_bits(const char *name, const char *what, const lamina_tensor *a, const lamina_tensor *b) {
  const size_t size = a->dtype == LAMINA_I64 ? 8 : 4;
  test_that(memcmp(a->data, b->data, (size_t)lamina_tensor_count(a) * size) == 0, "%s: %s has other bits", name, what);
}

/* Parameters and states. */
static void same_parameters(const char *name, const net *a, const net *b) {
  const int count = lamina_graph_parameter_count(a->graph);
  ck_assert_int_gt(count, 0);
  for (int i = 0; i < count; i++) {
    lamina_parameter x = {.size = sizeof x}, y = {.size = sizeof y};
    NET_OK(a->context, lamina_graph_parameter_at(a->graph, i, &x));
    NET_OK(b->context, lamina_graph_parameter_at(b->graph, i, &y));
    same_bits(name, x.name, &x.tensor, &y.tensor);
  }
}

static void compare(const recompute_case *c, lamina_plan_options options, int threads, lamina_optimizer_type type) {
  lamina_context *context = net_context(threads);
  test_random random = test_random_for(c->net.name), again = random;
  lamina_optimizer optimizer = lamina_optimizer_defaults(type);
  net plain, other;
  optimizer.lr = 0.03;
  optimizer.momentum = 0.9;
  options.mode = LAMINA_TRAIN;
  options.input_gradients = 1;
  net_open(&plain, context, &c->net, (lamina_plan_options){.mode = LAMINA_TRAIN, .input_gradients = 1}, &random);
  net_open(&other, context, &c->net, options, &again);
  lamina_plan_info info = {.size = sizeof info};
  NET_OK(context, lamina_plan_get_info(other.plan, &info));
  if (options.in_place || options.recompute) ck_assert_int_eq(info.recomputed, c->recomputed);
  for (int step = 0; step < 3; step++) {
    run_step(&plain, &optimizer);
    run_step(&other, &optimizer);
    const lamina_tensor a = net_output(&plain), b = net_output(&other);
    same_bits(c->net.name, "the loss", &a, &b);
    const lamina_tensor dx = net_gradient(&plain, "image"), dy = net_gradient(&other, "image");
    same_bits(c->net.name, "the gradient of the image", &dx, &dy);
    same_parameters(c->net.name, &plain, &other);
  }
  net_close(&plain);
  net_close(&other);
  lamina_context_destroy(context);
}

START_TEST(computing_again_changes_no_bit) {
  const recompute_case *c = &cases[_i];
  compare(c, (lamina_plan_options){.in_place = c->in_place, .recompute = c->pattern}, 2, LAMINA_SGD);
  compare(c, (lamina_plan_options){.in_place = c->in_place, .recompute = c->pattern, .early_step = 1, .pack_late = 1}, 1, LAMINA_ADAM);
  compare(c, (lamina_plan_options){.pack_late = 1}, 2, LAMINA_SGD);
  compare(c, (lamina_plan_options){.early_step = 1}, 2, LAMINA_ADAMW);
}
END_TEST

/* Runs that end after forward, and the search for what is not finite, leave nothing behind that another run would read. */
START_TEST(a_forward_may_follow_a_forward) {
  const recompute_case *c = &cases[1];
  lamina_context *context = net_context(2);
  test_random random = test_random_for("forwards");
  net n;
  net_open(&n, context, &c->net, (lamina_plan_options){.mode = LAMINA_TRAIN, .in_place = 1}, &random);
  for (int i = 0; i < 2; i++) {
    NET_OK(context, lamina_exec_forward(n.exec));
    NET_OK(context, lamina_exec_backward(n.exec));
    const lamina_tensor first = net_gradient(&n, "conv0.weight");
    float *copy = net_copy(&first);
    ck_assert_ptr_null(lamina_exec_find_not_finite(n.exec));
    NET_OK(context, lamina_exec_forward(n.exec));
    NET_OK(context, lamina_exec_forward(n.exec));
    NET_OK(context, lamina_exec_backward(n.exec));
    const lamina_tensor second = net_gradient(&n, "conv0.weight");
    ck_assert_int_eq(memcmp(copy, second.data, (size_t)lamina_tensor_count(&second) * sizeof *copy), 0);
    free(copy);
  }
  net_close(&n);
  lamina_context_destroy(context);
}
END_TEST

/* Residual blocks of two convolutions with batch norm: what is kept shrinks to about half. */
START_TEST(in_place_takes_less_memory) {
  lamina_context *context = net_context(1);
  lamina_graph *graph;
  const int64_t dim[] = {16, 16, 16};
  char name[4][32], sum[32], both[80];
  NET_OK(context, lamina_graph_create(context, NULL, &graph));
  NET_OK(context, lamina_graph_input(graph, "image", LAMINA_F32, 3, dim));
  snprintf(name[3], sizeof name[3], "image");
  for (int i = 0; i < 16; i++) {
    for (int k = 0; k < 3; k++) snprintf(name[k], sizeof name[k], "%s%d", k == 0 ? "conv" : k == 1 ? "norm" : "relu", i);
    NET_OK(context, lamina_graph_add(graph, "conv2d", name[0], name[3], "out_channels=16 kernel=3 padding=1"));
    NET_OK(context, lamina_graph_add(graph, "batch_norm", name[1], name[0], ""));
    if (i % 2) {
      snprintf(sum, sizeof sum, "sum%d", i);
      snprintf(both, sizeof both, "%s, relu%d", name[1], i > 2 ? i - 2 : 0);
      NET_OK(context, lamina_graph_add(graph, "add", sum, both, ""));
      NET_OK(context, lamina_graph_add(graph, "relu", name[2], sum, ""));
    } else {
      NET_OK(context, lamina_graph_add(graph, "relu", name[2], name[1], ""));
    }
    snprintf(name[3], sizeof name[3], "relu%d", i);
  }
  NET_OK(context, lamina_graph_add(graph, "global_avg_pool", "pool", name[3], ""));
  lamina_plan_options options = {.size = sizeof options, .mode = LAMINA_TRAIN, .batch = 4};
  lamina_plan_info plain = {.size = sizeof plain}, less = {.size = sizeof less};
  lamina_plan *plan;
  NET_OK(context, lamina_plan_create(graph, &options, &plan));
  NET_OK(context, lamina_plan_get_info(plan, &plain));
  lamina_plan_destroy(plan);
  options.in_place = 1;
  NET_OK(context, lamina_plan_create(graph, &options, &plan));
  NET_OK(context, lamina_plan_get_info(plan, &less));
  lamina_plan_destroy(plan);
  ck_assert_int_eq(less.recomputed, 16);
  ck_assert_uint_eq(less.plain, plain.plain);
  ck_assert_uint_eq(plain.plain, plain.arena + plain.gradients + plain.packed);
  test_that((double)less.arena < 0.8 * (double)plain.arena, "%zu bytes instead of %zu", less.arena, plain.arena);
  lamina_graph_destroy(graph);
  lamina_context_destroy(context);
}
END_TEST

START_TEST(bad_patterns_are_refused) {
  lamina_context *context = net_context(1);
  lamina_graph *graph;
  net_build(context, &net_small, NULL, &graph);
  lamina_plan *plan;
  lamina_plan_options options = {.size = sizeof options, .mode = LAMINA_TRAIN, .batch = 2, .recompute = "conv1, nobody*"};
  net_expect(context, lamina_plan_create(graph, &options, &plan), LAMINA_NOT_FOUND, "recompute|nobody*", __LINE__);
  options.recompute = "conv1,,relu1";
  net_expect(context, lamina_plan_create(graph, &options, &plan), LAMINA_INVALID_ARGUMENT, "recompute|empty", __LINE__);
  lamina_graph_destroy(graph);
  lamina_context_destroy(context);
}
END_TEST

int main(void) {
  test_print_seed();
  if (net_isa_is_absent()) return TEST_SKIPPED;
  Suite *suite = suite_create("recomputation");
  TCase *t = tcase_create("recomputation");
  tcase_set_timeout(t, 120);
  tcase_add_loop_test(t, computing_again_changes_no_bit, 0, sizeof cases / sizeof *cases);
  tcase_add_test(t, a_forward_may_follow_a_forward);
  tcase_add_test(t, in_place_takes_less_memory);
  tcase_add_test(t, bad_patterns_are_refused);
  suite_add_tcase(suite, t);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? 1 : 0;
}
