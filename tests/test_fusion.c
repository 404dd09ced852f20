/* SPDX-License-Identifier: Apache-2.0 */
/* What an inference plan merges into the node before: networks whose fused plan must agree with the plain one. */
#include "net_test.h"
#include "registry.h"

static const lamina_port in_a = {.size = sizeof in_a, .name = "a", .kind = LAMINA_PORT_INPUT};
static const lamina_port out_y = {.size = sizeof out_y, .name = "y", .kind = LAMINA_PORT_OUTPUT};

static lamina_status same_shape(lamina_node *node) {
  node->outputs[0].rank = node->inputs[0].rank;
  memcpy(node->outputs[0].dim, node->inputs[0].dim, sizeof node->inputs[0].dim);
  return LAMINA_OK;
}

/* An elementwise layer, as a plugin would write it, that offers its function to what comes before. */
static void soften_piece(int64_t n, const float *parameters, const float *x, float *y) {
  for (int64_t i = 0; i < n; i++) y[i] = x[i] / (parameters[0] + fabsf(x[i])) + parameters[3];
}

static const float softness[LAMINA_ACTIVATION_PARAMETERS] = {0.5f, 0, 0, 0.125f};

static lamina_status soften(const lamina_node *node) {
  soften_piece(lamina_tensor_count(&node->inputs[0]), softness, node->inputs[0].data, node->outputs[0].data);
  return LAMINA_OK;
}

static int soften_as_epilogue(const lamina_node *node, lamina_epilogue *epilogue) {
  epilogue->parts |= LAMINA_EPILOGUE_ACTIVATION;
  epilogue->activation = soften_piece;
  memcpy(epilogue->parameters, softness, sizeof softness);
  return 1;
}

static const lamina_kernel soften_kernel = {.size = sizeof soften_kernel, .name = "soften", .forward = soften};
static const lamina_layer soften_layer = {.size = sizeof soften_layer,
                                          .name = "soften",
                                          .ports = (const lamina_port *const[]){&in_a, &out_y, NULL},
                                          .kernels = (const lamina_kernel *const[]){&soften_kernel, NULL},
                                          .infer = same_shape,
                                          .as_epilogue = soften_as_epilogue};

/* One with a learned slope, which its function gets as it is when a plan runs. */
static const lamina_port slope_port = {
    .size = sizeof slope_port, .name = "slope", .kind = LAMINA_PORT_PARAMETER, .initializer = "constant:0.25"};

static void bend_piece(int64_t n, const float *parameters, const float *x, float *y) {
  for (int64_t i = 0; i < n; i++) y[i] = x[i] > 0 ? x[i] : parameters[0] * x[i];
}

static lamina_status bend_infer(lamina_node *node) {
  node->params[0] = (lamina_tensor){.rank = 1, .dim = {1}};
  return same_shape(node);
}

static lamina_status bend(const lamina_node *node) {
  bend_piece(lamina_tensor_count(&node->inputs[0]), node->params[0].data, node->inputs[0].data, node->outputs[0].data);
  return LAMINA_OK;
}

static int bend_as_epilogue(const lamina_node *node, lamina_epilogue *epilogue) {
  epilogue->parts |= LAMINA_EPILOGUE_ACTIVATION;
  epilogue->activation = bend_piece;
  epilogue->parameters[0] = *(const float *)node->params[0].data;
  return 1;
}

static const lamina_kernel bend_kernel = {.size = sizeof bend_kernel, .name = "bend", .forward = bend};
static const lamina_layer bend_layer = {.size = sizeof bend_layer,
                                        .name = "bend",
                                        .ports = (const lamina_port *const[]){&in_a, &out_y, &slope_port, NULL},
                                        .kernels = (const lamina_kernel *const[]){&bend_kernel, NULL},
                                        .infer = bend_infer,
                                        .as_epilogue = bend_as_epilogue};

/* Networks, how many nodes are left of them, and what is merged into the first. */
typedef struct fusion_case {
  net_case spec;
  int nodes;
  const char *fused;
} fusion_case;

#define FUSION_IMAGE                                                                                                   \
  {                                                                                                                    \
    { "x", 3, {9, 7, 40}, 0, NET_UNIFORM }                                                                             \
  }
#define CONV "out_channels=40 kernel=3 padding=1"

static const fusion_case fusion_cases[] = {
    {{"silu", 2, FUSION_IMAGE, {{"conv2d", "c", "x", CONV}, {"silu", "s", "c", NULL}}, NULL, 0}, 1, "s"},
    {{"plugin", 2, FUSION_IMAGE, {{"conv2d", "c", "x", CONV}, {"soften", "s", "c", NULL}}, NULL, 0}, 1, "s"},
    {{"1x1", 2, FUSION_IMAGE, {{"conv2d", "c", "x", "out_channels=70 kernel=1"}, {"soften", "s", "c", NULL}}, NULL, 0},
     1,
     "s"},
    {{"groups",
      2,
      FUSION_IMAGE,
      {{"conv2d", "c", "x", "out_channels=80 kernel=3 stride=2 groups=4"}, {"soften", "s", "c", NULL}},
      NULL,
      0},
     1,
     "s"},
    {{"depthwise",
      2,
      FUSION_IMAGE,
      {{"conv2d", "c", "x", "out_channels=40 kernel=5 padding=2 groups=40"}, {"soften", "s", "c", NULL}},
      NULL,
      0},
     1,
     "s"},
    {{"linear",
      3,
      {{"x", 1, {300}, 0, NET_UNIFORM}},
      {{"linear", "c", "x", "out_features=100"}, {"soften", "s", "c", NULL}},
      NULL,
      0},
     1,
     "s"},
    {{"everything",
      2,
      FUSION_IMAGE,
      {{"conv2d", "c", "x", CONV},
       {"batch_norm", "b", "c", NULL},
       {"add", "a", "b,x", NULL},
       {"clip", "r", "a", "min=-0.3 max=0.4"},
       {"hard_swish", "h", "r", NULL}},
      NULL,
      0},
     1,
     "b a r h"},
    {{"one activation",
      2,
      FUSION_IMAGE,
      {{"conv2d", "c", "x", CONV}, {"soften", "s", "c", NULL}, {"tanh", "t", "s", NULL}},
      NULL,
      0},
     2,
     "s"},
    {{"no clamp after it",
      2,
      FUSION_IMAGE,
      {{"conv2d", "c", "x", CONV}, {"soften", "s", "c", NULL}, {"relu", "r", "s", NULL}},
      NULL,
      0},
     2,
     "s"},
    {{"two readers",
      2,
      FUSION_IMAGE,
      {{"conv2d", "c", "x", CONV}, {"soften", "s", "c", NULL}, {"add", "a", "s,c", NULL}},
      NULL,
      0},
     3,
     ""},
};
enum { FUSION_CASES = sizeof fusion_cases / sizeof *fusion_cases };

START_TEST(activations_are_fused_where_one_node_alone_reads) {
  const fusion_case *f = &fusion_cases[_i];
  test_random random = test_random_for(f->spec.name);
  lamina_plan_info info = {.size = sizeof info};
  lamina_node_info first = {.size = sizeof first};
  net fused, plain;
  lamina_context *context = net_context(2);
  NET_OK(context, lamina_registry_add(context, &soften_layer, "test_fusion"));
  net_open(&fused, context, &f->spec, (lamina_plan_options){.mode = LAMINA_INFER}, &random);
  net_open_shared(&plain, &fused, (lamina_plan_options){.mode = LAMINA_INFER, .no_fusion = 1});
  NET_OK(context, lamina_plan_get_info(fused.plan, &info));
  NET_OK(context, lamina_plan_node(fused.plan, 0, &first));
  ck_assert_int_eq(info.nodes, f->nodes);
  ck_assert_str_eq(first.fused, f->fused);
  NET_OK(context, lamina_exec_forward(fused.exec));
  NET_OK(context, lamina_exec_forward(plain.exec));
  const lamina_tensor a = net_output(&fused), b = net_output(&plain);
  ck_assert_double_le(net_error(a.data, b.data, lamina_tensor_count(&a)), 1e-5);
  net_close_shared(&plain);
  net_close(&fused);
  lamina_context_destroy(context);
}
END_TEST

START_TEST(a_fused_slope_follows_what_is_learned) {
  static const net_case spec = {
      "slope", 2, FUSION_IMAGE, {{"conv2d", "c", "x", CONV}, {"bend", "s", "c", NULL}}, NULL, 0};
  lamina_context *context = net_context(2);
  test_random random = {test_seed()};
  net fused, plain;
  lamina_parameter slope = {.size = sizeof slope};
  lamina_node_info first = {.size = sizeof first};
  NET_OK(context, lamina_registry_add(context, &bend_layer, "test_fusion"));
  net_open(&fused, context, &spec, (lamina_plan_options){.mode = LAMINA_INFER}, &random);
  net_open_shared(&plain, &fused, (lamina_plan_options){.mode = LAMINA_INFER, .no_fusion = 1});
  NET_OK(context, lamina_plan_node(fused.plan, 0, &first));
  ck_assert_str_eq(first.fused, "s");
  NET_OK(context, lamina_graph_parameter_find(fused.graph, "s.slope", &slope));
  for (int i = 0; i < 3; i++) {
    *(float *)slope.tensor.data = 0.5f - (float)i;
    lamina_graph_parameters_changed(fused.graph);
    NET_OK(context, lamina_exec_forward(fused.exec));
    NET_OK(context, lamina_exec_forward(plain.exec));
    const lamina_tensor a = net_output(&fused), b = net_output(&plain);
    ck_assert_double_le(net_error(a.data, b.data, lamina_tensor_count(&a)), 1e-5);
  }
  net_close_shared(&plain);
  net_close(&fused);
  lamina_context_destroy(context);
}
END_TEST

int main(void) {
  test_print_seed();
  if (net_isa_is_absent()) return TEST_SKIPPED;
  Suite *suite = suite_create("fusion");
  TCase *cases = tcase_create("epilogues");
  tcase_set_timeout(cases, 60);
  tcase_add_loop_test(cases, activations_are_fused_where_one_node_alone_reads, 0, FUSION_CASES);
  tcase_add_test(cases, a_fused_slope_follows_what_is_learned);
  suite_add_tcase(suite, cases);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_ENV);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
