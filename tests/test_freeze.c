/* SPDX-License-Identifier: Apache-2.0 */
/* Frozen parts of a network: what stays to the bit, what goes on, what it costs. */
#include "core.h"
#include "net_test.h"
#include "registry.h"

#include <stdlib.h>
#include <string.h>

static lamina_context *context;
static void set_up(void) { context = net_context(2); }
static void tear_down(void) { lamina_context_destroy(context); }

/* A backbone with a skip connection and a head. */
static const net_case backbone = {"backbone",
                                  6,
                                  {{"image", 3, {8, 8, 3}, 0, NET_UNIFORM}, {"labels", 0, {0}, 5, NET_UNIFORM}},
                                  {{"conv2d", "conv1", "image", "out_channels=16 kernel=3 padding=1 bias=false"},
                                   {"batch_norm", "bn1", "conv1", NULL},
                                   {"relu", "relu1", "bn1", NULL},
                                   {"conv2d", "conv2", "relu1", "out_channels=16 kernel=3 padding=1"},
                                   {"batch_norm", "bn2", "conv2", NULL},
                                   {"add", "sum", "bn2,relu1", NULL},
                                   {"relu", "relu2", "sum", NULL},
                                   {"global_avg_pool", "pool", "relu2", NULL},
                                   {"linear", "fc", "pool", "out_features=5"},
                                   {"softmax_cross_entropy", "loss", "fc,labels", NULL}},
                                  "loss",
                                  0};

/* All parameters and states of a graph, one after another. */
static char *snapshot(lamina_graph *graph, size_t offset[64]) {
  char *bytes = malloc(1 << 20);
  size_t used = 0;
  const int count = lamina_graph_parameter_count(graph);
  ck_assert_int_lt(count, 63);
  for (int i = 0; i < count; i++) {
    lamina_parameter p = {.size = sizeof p};
    size_t size = 0;
    NET_OK(context, lamina_graph_parameter_at(graph, i, &p));
    ck_assert(lamina_tensor_bytes(&p.tensor, &size) && used + size <= 1 << 20);
    memcpy(bytes + used, p.tensor.data, size);
    offset[i] = used;
    offset[i + 1] = used += size;
  }
  return bytes;
}

static void steps(net *n, int count) {
  lamina_optimizer sgd = lamina_optimizer_defaults(LAMINA_SGD);
  sgd.momentum = 0.9;
  sgd.weight_decay = 0.01;
  for (int i = 0; i < count; i++) {
    NET_OK(context, lamina_exec_forward(n->exec));
    NET_OK(context, lamina_exec_backward(n->exec));
    NET_OK(context, lamina_exec_step(n->exec, &sgd));
  }
}

static bool is_one_of(const char *name, const char *names) {
  const size_t length = strlen(name);
  for (const char *at = names; (at = strstr(at, name)); at += length)
    if ((at == names || at[-1] == ' ') && (at[length] == 0 || at[length] == ' ')) return true;
  return false;
}

/* Trains some steps; exactly the named parameters and states may have changed. */
static void expect_changes(lamina_plan_options options, const char *changed) {
  test_random random = test_random_for(options.freeze);
  size_t at[64];
  net n;
  options.mode = LAMINA_TRAIN;
  net_open(&n, context, &backbone, options, &random);
  char *before = snapshot(n.graph, at);
  steps(&n, 3);
  char *after = snapshot(n.graph, at);
  for (int i = 0; i < lamina_graph_parameter_count(n.graph); i++) {
    lamina_parameter p = {.size = sizeof p};
    NET_OK(context, lamina_graph_parameter_at(n.graph, i, &p));
    const bool same = !memcmp(before + at[i], after + at[i], at[i + 1] - at[i]);
    test_that(same != is_one_of(p.name, changed), "freeze %s, adapt %d: %s %s", options.freeze, options.adapt_states,
              p.name, same ? "did not change" : "changed");
  }
  free(before);
  free(after);
  net_close(&n);
}

START_TEST(what_is_frozen_stays_to_the_bit_with_its_statistics) {
  const char *head = "fc.weight fc.bias";
  for (int fusion = 0; fusion < 2; fusion++) {
    expect_changes((lamina_plan_options){.freeze = "conv*,bn*", .no_fusion = fusion}, head);
    expect_changes((lamina_plan_options){.freeze = "conv*, bn*.weight, bn*.bias", .no_fusion = fusion}, head);
    expect_changes((lamina_plan_options){.freeze = "conv*,bn*", .adapt_states = 1, .no_fusion = fusion},
                   "bn1.running_mean bn1.running_var bn1.num_batches_tracked bn2.running_mean bn2.running_var "
                   "bn2.num_batches_tracked fc.weight fc.bias");
    expect_changes((lamina_plan_options){.freeze = "conv1*,bn1*", .no_fusion = fusion},
                   "conv2.weight conv2.bias bn2.weight bn2.bias bn2.running_mean bn2.running_var "
                   "bn2.num_batches_tracked fc.weight fc.bias");
    expect_changes((lamina_plan_options){.freeze = "bn*", .no_fusion = fusion},
                   "conv1.weight conv2.weight conv2.bias fc.weight fc.bias");
    expect_changes(
        (lamina_plan_options){.freeze = "bn1.weight", .no_fusion = fusion},
        "conv1.weight bn1.bias bn1.running_mean bn1.running_var bn1.num_batches_tracked conv2.weight conv2.bias "
        "bn2.weight bn2.bias bn2.running_mean bn2.running_var bn2.num_batches_tracked fc.weight fc.bias");
  }
}
END_TEST

/* A frozen backbone is fused and placed as at inference, and gives the same loss to the bit. */
START_TEST(a_frozen_backbone_costs_what_inference_costs) {
  test_random random = test_random_for("frozen backbone");
  lamina_plan_info all = {.size = sizeof all}, frozen = all, infer = all;
  net n, head, forward;
  net_open(&n, context, &backbone, (lamina_plan_options){.mode = LAMINA_TRAIN}, &random);
  net_open_shared(&head, &n, (lamina_plan_options){.mode = LAMINA_TRAIN, .freeze = "conv*,bn*"});
  net_open_shared(&forward, &n, (lamina_plan_options){.mode = LAMINA_INFER});
  NET_OK(context, lamina_plan_get_info(n.plan, &all));
  NET_OK(context, lamina_plan_get_info(head.plan, &frozen));
  NET_OK(context, lamina_plan_get_info(forward.plan, &infer));
  ck_assert_int_eq(all.frozen, 0);
  ck_assert_int_eq(all.trained, 16 * 27 + 16 * 144 + 16 + 2 * 32 + 5 * 16 + 5);
  ck_assert_int_eq(frozen.trained, 5 * 16 + 5);
  ck_assert_int_eq(frozen.nodes, infer.nodes);
  ck_assert_int_eq(frozen.fused, infer.fused);
  ck_assert_int_eq(frozen.frozen, frozen.nodes - 2);
  ck_assert_uint_le(frozen.arena, infer.arena + 4096); /* the head's gradients */
  ck_assert_uint_lt(frozen.arena, all.arena / 2);
  ck_assert_double_lt(frozen.backward_flops, 0.01 * frozen.flops);
  NET_OK(context, lamina_exec_forward(head.exec));
  NET_OK(context, lamina_exec_forward(forward.exec));
  const lamina_tensor a = net_output(&head), b = net_output(&forward);
  ck_assert_mem_eq(a.data, b.data, sizeof(float));
  net_close_shared(&forward);
  net_close_shared(&head);
  net_close(&n);
}
END_TEST

/* Against a plan where nothing is fused, and with the statistics of the batch out of the way against one where nothing
   is frozen: freezing leaves the gradients of the others as they are. */
START_TEST(gradients_of_what_is_left_are_the_same) {
  static const char *const patterns[] = {"conv*,bn*", "conv1*,bn1*", "bn*", "conv1*", "conv2*,bn2*"};
  static const char *const names[] = {"conv1.weight", "bn1.weight", "conv2.weight", "bn2.bias", "fc.weight"};
  for (size_t p = 0; p < sizeof patterns / sizeof *patterns; p++)
    for (int adapt = 0; adapt < 2; adapt++) {
      test_random random = test_random_for(patterns[p]);
      net fused, plain, whole;
      const lamina_plan_options options = {.mode = LAMINA_TRAIN, .freeze = patterns[p], .adapt_states = adapt};
      lamina_plan_options unfused = options;
      unfused.no_fusion = 1;
      net_open(&fused, context, &backbone, options, &random);
      net_open_shared(&plain, &fused, unfused);
      net_open_shared(&whole, &fused, (lamina_plan_options){.mode = LAMINA_TRAIN});
      for (int run = 0; run < 3; run++) {
        net *n = run == 0 ? &fused : run == 1 ? &plain : &whole;
        NET_OK(context, lamina_exec_forward(n->exec));
        NET_OK(context, lamina_exec_backward(n->exec));
      }
      int compared = 0;
      for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        lamina_tensor a, b;
        if (lamina_exec_gradient(fused.exec, names[i], &a)) continue;
        compared++;
        b = net_gradient(&plain, names[i]);
        test_that(net_error(a.data, b.data, lamina_tensor_count(&a)) < 2e-4, "%s: %s without fusion", patterns[p],
                  names[i]);
        b = net_gradient(&whole, names[i]);
        if (adapt)
          test_that(net_error(a.data, b.data, lamina_tensor_count(&a)) < 2e-4, "%s: %s unfrozen", patterns[p],
                    names[i]);
      }
      ck_assert_int_gt(compared, 0);
      net_close_shared(&whole);
      net_close_shared(&plain);
      net_close(&fused);
    }
}
END_TEST

/* Two branches, one frozen, one with a bias to learn, which an addition brings together: it may not vanish into the
   frozen one's epilogue. */
START_TEST(an_addition_that_is_differentiated_is_not_fused_into_a_frozen_node) {
  static const net_case spec = {"branches",
                                4,
                                {{"x", 1, {12}, 0, NET_UNIFORM}, {"target", 1, {7}, 0, NET_UNIFORM}},
                                {{"linear", "free", "x", "out_features=7"},
                                 {"linear", "frozen", "x", "out_features=7"},
                                 {"add", "sum", "frozen,free", NULL},
                                 {"mse_loss", "loss", "sum,target", NULL}},
                                "loss",
                                0};
  test_random random = test_random_for("branches");
  net n, whole;
  net_open(&n, context, &spec, (lamina_plan_options){.mode = LAMINA_TRAIN, .freeze = "frozen.*"}, &random);
  net_open_shared(&whole, &n, (lamina_plan_options){.mode = LAMINA_TRAIN, .no_fusion = 1});
  NET_OK(context, lamina_exec_forward(n.exec));
  NET_OK(context, lamina_exec_backward(n.exec));
  NET_OK(context, lamina_exec_forward(whole.exec));
  NET_OK(context, lamina_exec_backward(whole.exec));
  const lamina_tensor a = net_gradient(&n, "free.weight"), b = net_gradient(&whole, "free.weight");
  ck_assert_double_lt(net_error(a.data, b.data, lamina_tensor_count(&a)), 1e-5);
  net_close_shared(&whole);
  net_close(&n);
}
END_TEST

START_TEST(dropout_in_a_frozen_part_goes_on) {
  static const net_case spec = {"dropout",
                                4,
                                {{"x", 1, {64}, 0, NET_OFF_ZERO}},
                                {{"linear", "first", "x", "out_features=64"},
                                 {"dropout", "drop", "first", NULL},
                                 {"linear", "head", "drop", "out_features=3"}},
                                "drop,head",
                                0};
  test_random random = test_random_for("dropout");
  net n;
  net_open(&n, context, &spec, (lamina_plan_options){.mode = LAMINA_TRAIN, .freeze = "first.*"}, &random);
  NET_OK(context, lamina_exec_forward(n.exec));
  lamina_tensor y;
  int zeros = 0;
  NET_OK(context, lamina_exec_output(n.exec, "drop", &y));
  for (int i = 0; i < 256; i++) zeros += ((float *)y.data)[i] == 0;
  ck_assert_int_gt(zeros, 64);
  ck_assert_int_lt(zeros, 192);
  net_close(&n);
}
END_TEST

/* Counts how often it is packed. */
static int packs;

static lamina_status pack(const lamina_node *node) {
  packs++;
  memcpy(node->packed, node->params[0].data, sizeof(float));
  return LAMINA_OK;
}

static lamina_status scale(const lamina_node *node) {
  const float *x = node->inputs[0].data, w = *(const float *)node->packed;
  for (int i = 0; i < 4; i++) ((float *)node->outputs[0].data)[i] = w * x[i];
  return LAMINA_OK;
}

static lamina_status scale_backward(const lamina_node *node) {
  const float *x = node->inputs[0].data, *dy = node->d_outputs[0].data, w = *(const float *)node->packed;
  float sum = 0;
  for (int i = 0; i < 4; i++) {
    if (node->need_inputs) ((float *)node->d_inputs[0].data)[i] = w * dy[i];
    sum += x[i] * dy[i];
  }
  if (node->need_params) *(float *)node->d_params[0].data = sum;
  return LAMINA_OK;
}

static lamina_status scale_plan(const lamina_node *node, lamina_cost *cost) {
  (void)node;
  cost->packed = sizeof(float);
  return LAMINA_OK;
}

static lamina_status scale_infer(lamina_node *node) {
  node->outputs[0].rank = node->inputs[0].rank;
  memcpy(node->outputs[0].dim, node->inputs[0].dim, sizeof node->outputs[0].dim);
  node->params[0].rank = 1;
  node->params[0].dim[0] = 1;
  return LAMINA_OK;
}

static const lamina_port port_x = {
    .size = sizeof port_x, .name = "x", .kind = LAMINA_PORT_INPUT, .flags = LAMINA_PORT_BACKWARD_READS};
static const lamina_port port_y = {.size = sizeof port_y, .name = "y", .kind = LAMINA_PORT_OUTPUT};
static const lamina_port port_w = {
    .size = sizeof port_w, .name = "weight", .kind = LAMINA_PORT_PARAMETER, .initializer = "ones"};
static const lamina_kernel scale_kernel = {.size = sizeof scale_kernel,
                                           .name = "scale",
                                           .plan = scale_plan,
                                           .pack = pack,
                                           .forward = scale,
                                           .backward = scale_backward};
static const lamina_layer scale_layer = {.size = sizeof scale_layer,
                                         .name = "scale",
                                         .ports = (const lamina_port *const[]){&port_x, &port_y, &port_w, NULL},
                                         .kernels = (const lamina_kernel *const[]){&scale_kernel, NULL},
                                         .infer = scale_infer};

START_TEST(a_step_packs_only_what_it_has_changed) {
  static const net_case spec = {
      "packs",
      1,
      {{"x", 1, {4}, 0, NET_OFF_ZERO}, {"target", 1, {4}, 0, NET_UNIFORM}},
      {{"scale", "first", "x", NULL}, {"scale", "second", "first", NULL}, {"mse_loss", "loss", "second,target", NULL}},
      "loss",
      0};
  test_random random = test_random_for("packs");
  net n;
  NET_OK(context, lamina_registry_add(context, &scale_layer, "test_freeze"));
  packs = 0;
  net_open(&n, context, &spec, (lamina_plan_options){.mode = LAMINA_TRAIN, .freeze = "first.*"}, &random);
  ck_assert_int_eq(packs, 2);
  steps(&n, 5);
  ck_assert_int_eq(packs, 2 + 4); /* after each step but the last, which no forward has followed */
  lamina_graph_parameters_changed(n.graph);
  NET_OK(context, lamina_exec_forward(n.exec));
  ck_assert_int_eq(packs, 2 + 4 + 2);
  net_close(&n);
}
END_TEST

/* One value for each channel has no variance, but a frozen batch norm needs none. */
START_TEST(a_frozen_batch_norm_trains_on_one_sample) {
  static const net_case spec = {"one",
                                1,
                                {{"x", 1, {6}, 0, NET_UNIFORM}},
                                {{"linear", "first", "x", "out_features=5"}, {"batch_norm", "bn", "first", NULL}},
                                NULL,
                                0};
  test_random random = test_random_for("one");
  lamina_plan_options options = {.size = sizeof options, .mode = LAMINA_TRAIN};
  lamina_plan *plan;
  net n;
  net_open(&n, context, &spec, (lamina_plan_options){.mode = LAMINA_TRAIN, .freeze = "bn.*"}, &random);
  steps(&n, 2);
  net_expect(context, lamina_plan_create(n.graph, &options, &plan), LAMINA_SHAPE_MISMATCH, "bn|more than 1 value",
             __LINE__);
  net_close(&n);
}
END_TEST

int main(void) {
  test_print_seed();
  if (net_isa_is_absent()) return TEST_SKIPPED;
  Suite *suite = suite_create("freeze");
  TCase *cases = tcase_create("frozen parts");
  tcase_set_timeout(cases, 60);
  tcase_add_checked_fixture(cases, set_up, tear_down);
  tcase_add_test(cases, what_is_frozen_stays_to_the_bit_with_its_statistics);
  tcase_add_test(cases, a_frozen_backbone_costs_what_inference_costs);
  tcase_add_test(cases, gradients_of_what_is_left_are_the_same);
  tcase_add_test(cases, an_addition_that_is_differentiated_is_not_fused_into_a_frozen_node);
  tcase_add_test(cases, dropout_in_a_frozen_part_goes_on);
  tcase_add_test(cases, a_step_packs_only_what_it_has_changed);
  tcase_add_test(cases, a_frozen_batch_norm_trains_on_one_sample);
  suite_add_tcase(suite, cases);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_ENV);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
