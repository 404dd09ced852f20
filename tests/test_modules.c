/* SPDX-License-Identifier: Apache-2.0 */
/* The layers that are shipped as loadable modules: their gradients, that they do not depend on threads, their values
   against formulas in double, and what they refuse. */
#include "module_cases.h"

static const char *const module_files[] = {"norms.so", "activations.so", "embedding.so", "upsample.so", "attention.so",
                                           "recurrent.so", "squeeze_excite.so"};

static void load(lamina_context *context, const char *file) {
  char path[1024];
  snprintf(path, sizeof path, "%s/%s", TEST_MODULES, file);
  NET_OK(context, lamina_context_load_plugin(context, path));
}

lamina_context *gradient_context(int threads) {
  lamina_context *context = net_context(threads);
  for (size_t i = 0; i < sizeof module_files / sizeof *module_files; i++) load(context, module_files[i]);
  return context;
}

/* Output, then every gradient, of one run with so many threads. */
static size_t run_all(const net_case *spec, int threads, float *result, size_t most) {
  test_random random = test_random_for(spec->name);
  lamina_context *context = gradient_context(threads);
  net n;
  net_open(&n, context, spec, (lamina_plan_options){.mode = LAMINA_TRAIN, .input_gradients = 1}, &random);
  NET_OK(context, lamina_exec_forward(n.exec));
  const lamina_tensor y = net_output(&n);
  float *copy = net_copy(&y);
  size_t used = (size_t)lamina_tensor_count(&y);
  ck_assert_uint_le(used, most);
  memcpy(result, copy, used * sizeof *copy);
  lamina_tensor dy = lamina_tensor_of(copy, LAMINA_F32, y.rank, y.dim);
  NET_OK(context, lamina_exec_set_output_gradient(n.exec, n.output, &dy));
  NET_OK(context, lamina_exec_backward(n.exec));
  free(copy);
  for (int i = 0; i < lamina_graph_parameter_count(n.graph); i++) {
    lamina_parameter parameter = {.size = sizeof parameter};
    NET_OK(context, lamina_graph_parameter_at(n.graph, i, &parameter));
    const lamina_tensor g = parameter.trainable ? net_gradient(&n, parameter.name) : parameter.tensor;
    const size_t count = (size_t)lamina_tensor_count(&g);
    ck_assert_uint_le(used + count, most);
    memcpy(result + used, g.data, count * sizeof(float));
    used += count;
  }
  for (int i = 0; i < n.inputs; i++) {
    if (n.data[i].dtype != LAMINA_F32) continue;
    const lamina_tensor g = net_gradient(&n, spec->inputs[i].name);
    const size_t count = (size_t)lamina_tensor_count(&g);
    ck_assert_uint_le(used + count, most);
    memcpy(result + used, g.data, count * sizeof(float));
    used += count;
  }
  net_close(&n);
  lamina_context_destroy(context);
  return used;
}

/* Forward, and backward with gradients of 1; the output. */
static float *run_ones(net *n) {
  NET_OK(n->context, lamina_exec_forward(n->exec));
  const lamina_tensor y = net_output(n);
  float *copy = net_copy(&y), *ones = net_copy(&y);
  for (int64_t i = 0; i < lamina_tensor_count(&y); i++) ones[i] = 1;
  const lamina_tensor dy = lamina_tensor_of(ones, LAMINA_F32, y.rank, y.dim);
  NET_OK(n->context, lamina_exec_set_output_gradient(n->exec, n->output, &dy));
  NET_OK(n->context, lamina_exec_backward(n->exec));
  free(ones);
  return copy;
}

START_TEST(threads_do_not_change_a_bit) {
  enum { MOST = 1 << 18 };
  static float one[MOST], other[MOST];
  const net_case *spec = &gradient_cases[_i];
  const size_t count = run_all(spec, 1, one, MOST);
  for (int threads = 2; threads <= 7; threads += 5) {
    ck_assert_uint_eq(run_all(spec, threads, other, MOST), count);
    test_that(memcmp(one, other, count * sizeof *one) == 0, "%s: %d threads give other bits", spec->name, threads);
  }
}
END_TEST

/* Every layer of a module occurs in the table, so that a new one cannot go unchecked. */
START_TEST(every_layer_of_the_modules_is_checked) {
  lamina_context *context = gradient_context(1);
  int modules = 0;
  for (int i = 0; i < lamina_layer_count(context); i++) {
    const char *name = lamina_layer_at(context, i)->name, *provider = NULL;
    bool found = false;
    lamina_layer_find(context, name, &provider);
    if (strcmp(provider, "built-in") == 0) continue;
    modules++;
    for (int k = 0; k < gradient_case_count && !found; k++)
      for (int j = 0; j < NET_MAX_LAYERS && gradient_cases[k].layers[j].type && !found; j++)
        found = strcmp(gradient_cases[k].layers[j].type, name) == 0;
    test_that(found, "no case for layer %s", name);
  }
  test_that(modules >= 13, "only %d layers come from modules", modules);
  lamina_context_destroy(context);
}
END_TEST

/* Runs a network of one layer on x at inference and compares each element with f(x). */
static void compare_with(const char *type, const char *attributes, double (*f)(double), double bound) {
  const net_case spec = {"values", 500, {{"x0", 1, {33}, 0, NET_UNIFORM}}, {{type, "y", "x0", attributes}}, NULL, 0};
  test_random random = test_random_for(type);
  lamina_context *context = gradient_context(2);
  net n;
  net_open(&n, context, &spec, (lamina_plan_options){.mode = LAMINA_INFER}, &random);
  float *x = n.data[0].data;
  const int64_t count = lamina_tensor_count(&n.data[0]);
  for (int64_t i = 0; i < count; i++) x[i] = (float)(24.0 * (double)i / (double)count - 12);
  NET_OK(context, lamina_exec_forward(n.exec));
  const lamina_tensor y = net_output(&n);
  for (int64_t i = 0; i < count; i++) {
    const double want = f(x[i]), got = ((float *)y.data)[i];
    test_that(fabs(got - want) <= bound * fmax(fabs(want), 1e-3), "%s %s at %.9g: %.9g, not %.9g", type,
              attributes ? attributes : "", x[i], got, want);
  }
  net_close(&n);
  lamina_context_destroy(context);
}

static double gelu(double x) { return 0.5 * x * erfc(-x * sqrt(0.5)); }
static double gelu_tanh(double x) { return 0.5 * x * (1 + tanh(sqrt(8 / acos(-1.0)) / 2 * (x + 0.044715 * x * x * x))); }
static double mish(double x) { return x * tanh(log1p(exp(x))); }

START_TEST(activations_match_their_formulas) {
  compare_with("gelu", NULL, gelu, 1e-6);
  compare_with("gelu", "approximate=tanh", gelu_tanh, 2e-6);
  compare_with("mish", NULL, mish, 1e-6);
}
END_TEST

/* One normalised column: Cooijmans' BN without its scale; follows the running statistics as PyTorch's BatchNorm does. */
static void normalise_column(int n, const double *a, double *hat, double *running_mean, double *running_var) {
  double mean = 0, var = 0;
  for (int i = 0; i < n; i++) mean += a[i] / n;
  for (int i = 0; i < n; i++) var += (a[i] - mean) * (a[i] - mean) / n;
  for (int i = 0; i < n; i++) hat[i] = (a[i] - mean) / sqrt(var + 1e-5);
  *running_mean += 0.1 * (mean - *running_mean);
  *running_var += 0.1 * (var * n / (n - 1) - *running_var);
}

/* Equations 6 to 8 of the paper in double, and the running statistics after them. */
START_TEST(a_normalised_lstm_follows_its_formulas) {
  enum { N = 9, L = 3, C = 4, H = 5, G = 4 * H };
  const net_case spec = {
      "bnlstm", N, {{"x0", 2, {L, C}, 0, NET_UNIFORM}}, {{"lstm", "l", "x0", "hidden_size=5 batch_norm_steps=2"}}, NULL, 0};
  static const char *const names[] = {"weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "batch_norm_ih.weight",
                                      "batch_norm_hh.weight", "batch_norm_c.weight", "batch_norm_c.bias",
                                      "batch_norm_ih.running_mean", "batch_norm_ih.running_var",
                                      "batch_norm_hh.running_mean", "batch_norm_hh.running_var"};
  test_random random = test_random_for("bnlstm");
  lamina_context *context = gradient_context(2);
  const float *p[12];
  net n;
  net_open(&n, context, &spec, (lamina_plan_options){.mode = LAMINA_TRAIN}, &random);
  for (int i = 0; i < 12; i++) {
    char name[64];
    lamina_parameter q = {.size = sizeof q};
    snprintf(name, sizeof name, "l.%s", names[i]);
    NET_OK(context, lamina_graph_parameter_find(n.graph, name, &q));
    p[i] = q.tensor.data;
    if (i >= 4 && i < 8) test_random_fill(&random, q.tensor.data, i < 6 ? G : H, 0.3f, 1);
    for (int k = 0; i >= 8 && k < 2 * G; k++) ((float *)q.tensor.data)[k] = i % 2 ? 1 : 0; /* the net set them at random */
  }
  NET_OK(context, lamina_exec_forward(n.exec));
  const float *x = n.data[0].data, *y = net_output(&n).data;
  double h[N][H] = {{0}}, c[N][H] = {{0}};
  for (int t = 0; t < L; t++) {
    double gate[G][N], hat[N], column[N], mean, var;
    for (int k = 0; k < G; k++)
      for (int part = 0; part < 2; part++) {
        const float *w = p[part] + k * (part ? H : C);
        for (int i = 0; i < N; i++) {
          column[i] = 0;
          for (int j = 0; j < (part ? H : C); j++) column[i] += w[j] * (part ? h[i][j] : (double)x[(i * L + t) * C + j]);
        }
        mean = 0, var = 1;
        normalise_column(N, column, hat, &mean, &var);
        for (int i = 0; i < N; i++)
          gate[k][i] = (part ? gate[k][i] : (double)p[2][k] + p[3][k]) + p[4 + part][k] * hat[i];
        if (t > 1) continue; /* the statistics end */
        test_that(fabs(p[8 + 2 * part][t * G + k] - mean) < 1e-6, "running mean %d of time %d", part, t);
        test_that(fabs(p[9 + 2 * part][t * G + k] - var) < 1e-6, "running variance %d of time %d", part, t);
      }
    for (int k = 0; k < H; k++) {
      for (int i = 0; i < N; i++)
        column[i] = c[i][k] = c[i][k] / (1 + exp(-gate[H + k][i])) + tanh(gate[2 * H + k][i]) / (1 + exp(-gate[k][i]));
      normalise_column(N, column, hat, &mean, &var);
      for (int i = 0; i < N; i++) {
        h[i][k] = tanh(hat[i] * p[6][k] + p[7][k]) / (1 + exp(-gate[3 * H + k][i]));
        test_that(fabs(y[(i * L + t) * H + k] - h[i][k]) < 1e-4, "h[%d][%d] of time %d", i, k, t);
      }
    }
  }
  net_close(&n);
  lamina_context_destroy(context);
}
END_TEST

enum { RENORM_CHANNELS = 3 };

/* weight, bias, running_mean and running_std of a batch_renorm called b, the last two set to m and s. */
static void renorm_parameters(lamina_context *context, const net *n, const float *m, const float *s,
                              lamina_parameter p[4]) {
  const char *const names[] = {"b.weight", "b.bias", "b.running_mean", "b.running_std"};
  for (int i = 0; i < 4; i++) {
    p[i] = (lamina_parameter){.size = sizeof p[i]};
    NET_OK(context, lamina_graph_parameter_find(n->graph, names[i], &p[i]));
  }
  memcpy(p[2].tensor.data, m, RENORM_CHANNELS * sizeof *m);
  memcpy(p[3].tensor.data, s, RENORM_CHANNELS * sizeof *s);
}

/* Frozen, it is the affine map of inference, forward and backward, and its states stay as they are. */
START_TEST(frozen_batch_renorm_uses_and_keeps_its_states) {
  enum { N = 70, C = RENORM_CHANNELS };
  const net_case spec = {"frozen", N, {{"x0", 1, {C}, 0, NET_UNIFORM}}, {{"batch_renorm", "b", "x0", NULL}}, NULL, 0};
  test_random random = test_random_for("frozen");
  lamina_context *context = gradient_context(2);
  lamina_parameter p[4];
  net n;
  net_open(&n, context, &spec, (lamina_plan_options){.mode = LAMINA_TRAIN, .input_gradients = 1, .freeze = "b.*"}, &random);
  const float m[RENORM_CHANNELS] = {0.1f, -2, 0}, s[RENORM_CHANNELS] = {0.6f, 0.1f, 5};
  float dy[N * C];
  renorm_parameters(context, &n, m, s, p);
  test_random_fill(&random, dy, N * C, -1, 1);
  NET_OK(context, lamina_exec_forward(n.exec));
  const lamina_tensor y = net_output(&n), gradient = lamina_tensor_of(dy, LAMINA_F32, y.rank, y.dim);
  const float *x = n.data[0].data, *w = p[0].tensor.data, *b = p[1].tensor.data;
  for (int i = 0; i < N * C; i++) {
    const int c = i % C;
    const double want = ((double)x[i] - m[c]) / s[c] * w[c] + b[c];
    test_that(fabs(((float *)y.data)[i] - want) < 1e-5 * (1 + fabs(want)), "y[%d]", i);
  }
  NET_OK(context, lamina_exec_set_output_gradient(n.exec, "b", &gradient));
  NET_OK(context, lamina_exec_backward(n.exec));
  const lamina_tensor dx = net_gradient(&n, "x0");
  for (int i = 0; i < N * C; i++) {
    const double want = (double)dy[i] * w[i % C] / s[i % C];
    test_that(fabs(((float *)dx.data)[i] - want) < 1e-5 * (1 + fabs(want)), "dx[%d]", i);
  }
  test_that(!memcmp(p[2].tensor.data, m, sizeof m) && !memcmp(p[3].tensor.data, s, sizeof s), "the states changed");
  net_close(&n);
  lamina_context_destroy(context);
}
END_TEST

/* Ioffe's formulas in double, with r and d from given running statistics. */
START_TEST(batch_renorm_holds_r_and_d_constant) {
  enum { N = 40, C = RENORM_CHANNELS };
  const net_case spec = {
      "renorm", N, {{"x0", 1, {C}, 0, NET_UNIFORM}}, {{"batch_renorm", "b", "x0", "r_max=1.5 d_max=0.5"}}, NULL, 0};
  test_random random = test_random_for("renorm");
  lamina_context *context = gradient_context(2);
  lamina_parameter p[4];
  net n;
  net_open(&n, context, &spec, (lamina_plan_options){.mode = LAMINA_TRAIN, .input_gradients = 1}, &random);
  const float m[RENORM_CHANNELS] = {0.1f, -2, 0}, s[RENORM_CHANNELS] = {0.6f, 0.1f, 5};
  float dy[N * C];
  renorm_parameters(context, &n, m, s, p);
  test_random_fill(&random, dy, N * C, -1, 1);
  NET_OK(context, lamina_exec_forward(n.exec));
  const lamina_tensor y = net_output(&n), gradient = lamina_tensor_of(dy, LAMINA_F32, y.rank, y.dim);
  NET_OK(context, lamina_exec_set_output_gradient(n.exec, "b", &gradient));
  const float *x = n.data[0].data, *w = p[0].tensor.data, *b = p[1].tensor.data;
  double r[C], d[C], mean[C], scale[C];
  for (int c = 0; c < C; c++) {
    double sum = 0, squares = 0;
    for (int i = 0; i < N; i++) sum += x[i * C + c] / (double)N;
    for (int i = 0; i < N; i++) squares += (x[i * C + c] - sum) * (x[i * C + c] - sum) / N;
    const double deviation = sqrt(squares + 1e-5);
    mean[c] = sum;
    scale[c] = 1 / deviation;
    r[c] = fmin(fmax(deviation / s[c], 1 / 1.5), 1.5);
    d[c] = fmin(fmax((sum - m[c]) / s[c], -0.5), 0.5);
    for (int i = 0; i < N; i++)
      test_that(fabs(((float *)y.data)[i * C + c] - (((x[i * C + c] - sum) / deviation * r[c] + d[c]) * w[c] + b[c])) < 1e-5,
                "y[%d][%d]", i, c);
    test_that(fabs(((float *)p[2].tensor.data)[c] - (m[c] + 0.01 * (sum - m[c]))) < 1e-6, "running_mean[%d]", c);
    test_that(fabs(((float *)p[3].tensor.data)[c] - (s[c] + 0.01 * (deviation - s[c]))) < 1e-6, "running_std[%d]", c);
  }
  NET_OK(context, lamina_exec_backward(n.exec));
  const lamina_tensor dx = net_gradient(&n, "x0"), dw = net_gradient(&n, "b.weight");
  for (int c = 0; c < C; c++) {
    double sum = 0, product = 0;
    for (int i = 0; i < N; i++) sum += dy[i * C + c];
    for (int i = 0; i < N; i++) product += dy[i * C + c] * (x[i * C + c] - mean[c]) * scale[c];
    test_that(fabs(((float *)dw.data)[c] - (product * r[c] + sum * d[c])) < 1e-4, "the gradient of weight[%d]", c);
    for (int i = 0; i < N; i++) {
      const double normal = (x[i * C + c] - mean[c]) * scale[c];
      const double want = w[c] * r[c] * scale[c] * (dy[i * C + c] - sum / N - normal * product / N);
      test_that(fabs(((float *)dx.data)[i * C + c] - want) < 1e-4, "dx[%d][%d]", i, c);
    }
  }
  net_close(&n);
  lamina_context_destroy(context);
}
END_TEST

/* An override stands in the built-in layer's place where its file was loaded, and nowhere else. */
START_TEST(an_override_is_used) {
  const net_case spec = {"relu", 3, {{"x", 1, {37}, 0, NET_UNIFORM}}, {{"relu", "y", "x", ""}}, NULL, 0};
  test_random random = test_random_for("override");
  lamina_context *context = gradient_context(1);
  const char *provider = NULL;
  ck_assert_ptr_nonnull(lamina_layer_find(context, "relu", &provider));
  ck_assert_str_eq(provider, "built-in");
  load(context, "relu_override.so");
  ck_assert_ptr_nonnull(lamina_layer_find(context, "relu", &provider));
  ck_assert_ptr_nonnull(strstr(provider, "relu_override"));
  net n;
  net_open(&n, context, &spec, (lamina_plan_options){.mode = LAMINA_TRAIN, .input_gradients = 1}, &random);
  free(run_ones(&n));
  const float *x = n.data[0].data, *y = net_output(&n).data, *dx = net_gradient(&n, "x").data;
  for (int i = 0; i < 3 * 37; i++)
    test_that(y[i] == fmaxf(x[i], 0) && dx[i] == (float)(x[i] > 0), "at %d: y %g, dx %g for %g", i, y[i], dx[i], x[i]);
  net_close(&n);
  lamina_context_destroy(context);
}
END_TEST

/* An index beyond the table is an error of the run, not a read beyond memory. */
START_TEST(an_index_beyond_the_table_is_refused) {
  const net_case spec = {"index",
                         2,
                         {{"x0", 1, {3}, 4, NET_UNIFORM}},
                         {{"embedding", "e", "x0", "num_embeddings=4 embedding_dim=2 padding_idx=1"}},
                         NULL,
                         0};
  test_random random = test_random_for("index");
  lamina_context *context = gradient_context(1);
  net n;
  net_open(&n, context, &spec, (lamina_plan_options){.mode = LAMINA_TRAIN}, &random);
  int32_t *index = n.data[0].data;
  memcpy(index, (int32_t[]){0, 1, 1, 3, 0, 0}, 6 * sizeof *index);
  free(run_ones(&n));
  const lamina_tensor gradient = net_gradient(&n, "e.weight");
  const float want[] = {3, 3, 0, 0, 0, 0, 1, 1}; /* how often each row occurs; not the padding's */
  test_that(memcmp(gradient.data, want, sizeof want) == 0, "the gradient does not count the indices");
  for (int32_t bad = -1; bad <= 4; bad += 5) {
    index[4] = bad;
    net_expect(context, lamina_exec_forward(n.exec), LAMINA_INVALID_ARGUMENT, "node 'e'|place 4|num_embeddings = 4",
               __LINE__);
  }
  net_close(&n);
  lamina_context_destroy(context);
}
END_TEST

/* A refused node names what is wrong. */
START_TEST(shapes_that_do_not_fit_are_refused) {
  static const struct {
    const char *type, *attributes, *words;
  } wrong[] = {
      {"group_norm", "num_groups=3", "4 channels|num_groups = 3"},
      {"instance_norm", NULL, "rank 2|positions"},
      {"upsample", NULL, "rank 2|(N, H, W, C)"},
      {"lstm", "hidden_size=3", "rank 2|(N, L, C)"},
      {"squeeze_excite", "squeeze_channels=2", "rank 2|positions"},
  };
  const int64_t dim[] = {4};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    lamina_context *context = gradient_context(1);
    lamina_graph *graph = NULL;
    NET_OK(context, lamina_graph_create(context, NULL, &graph));
    NET_OK(context, lamina_graph_input(graph, "x", LAMINA_F32, 1, dim));
    net_expect(context, lamina_graph_add(graph, wrong[i].type, "node", "x", wrong[i].attributes), LAMINA_SHAPE_MISMATCH,
               wrong[i].words, __LINE__);
    lamina_graph_destroy(graph);
    lamina_context_destroy(context);
  }
}
END_TEST

int main(void) {
  test_print_seed();
  if (net_isa_is_absent()) return TEST_SKIPPED;
  Suite *suite = suite_create("modules");
  TCase *cases = gradient_checks();
  tcase_add_loop_test(cases, threads_do_not_change_a_bit, 0, gradient_case_count);
  tcase_add_test(cases, every_layer_of_the_modules_is_checked);
  tcase_add_test(cases, activations_match_their_formulas);
  tcase_add_test(cases, batch_renorm_holds_r_and_d_constant);
  tcase_add_test(cases, a_normalised_lstm_follows_its_formulas);
  tcase_add_test(cases, frozen_batch_renorm_uses_and_keeps_its_states);
  tcase_add_test(cases, an_override_is_used);
  tcase_add_test(cases, an_index_beyond_the_table_is_refused);
  tcase_add_test(cases, shapes_that_do_not_fit_are_refused);
  suite_add_tcase(suite, cases);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_ENV);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
