/* SPDX-License-Identifier: Apache-2.0 */
/* Every layer's backward pass against finite differences of its forward pass, the adjoint identity of the linear ones,
   and the agreement of fused and unfused, training and inference plans. */
#include "gradient_test.h"

#define MAX_COORDINATES 48  /* of one tensor; more are sampled */
#define RELATIVE_BOUND 3e-3 /* of the tensor's largest gradient */
#define AGREEMENT 3e-5      /* fused against unfused, relative in the maximum norm */
#define ADJOINT_BOUND 2e-6  /* of the norms' product */

typedef struct checker {
  net n;
  float *weights; /* r of the objective: sum of r * y */
  int64_t outputs;
  double scale; /* the largest gradient of all tensors */
  int checked, outliers;
  char worst[256];
} checker;

static const lamina_plan_options train_options = {
    .size = sizeof train_options, .mode = LAMINA_TRAIN, .input_gradients = 1};

static float *forward(net *n) {
  lamina_exec_seed(n->exec, 7, 3);
  NET_OK(n->context, lamina_exec_forward(n->exec));
  const lamina_tensor y = net_output(n);
  return net_copy(&y);
}

static bool is_loss(const net *n) {
  const lamina_tensor y = net_output((net *)n);
  return lamina_tensor_count(&y) == 1 && y.rank == 0;
}

/* Runs forward and backward for the objective with weights r (drawn here unless given). */
static float *run_backward(net *n, float *r, test_random *random) {
  free(forward(n));
  const lamina_tensor y = net_output(n);
  const int64_t count = lamina_tensor_count(&y);
  if (!r) {
    r = malloc((size_t)count * sizeof *r);
    ck_assert_ptr_nonnull(r);
    test_random_fill(random, r, count, -1, 1);
    if (is_loss(n)) r[0] = 1;
  }
  const lamina_tensor dy = lamina_tensor_of(r, LAMINA_F32, y.rank, y.dim);
  NET_OK(n->context, lamina_exec_set_output_gradient(n->exec, n->output, &dy));
  NET_OK(n->context, lamina_exec_backward(n->exec));
  return r;
}

static double largest(const float *x, int64_t count) {
  double result = 0;
  for (int64_t i = 0; i < count; i++) {
    test_that(isfinite(x[i]), "a gradient is not finite");
    result = fmax(result, fabs((double)x[i]));
  }
  return result;
}

/* Central difference at one coordinate; `noise` is what rounding of the two outputs can amount to. */
static double difference(checker *c, float *coordinate, float step, double *noise) {
  const float at = *coordinate;
  const float up = at + step, down = at - step;
  const double width = (double)up - down;
  double sum = 0, squares = 0;
  *coordinate = up;
  lamina_graph_parameters_changed(c->n.graph);
  float *y_up = forward(&c->n);
  *coordinate = down;
  lamina_graph_parameters_changed(c->n.graph);
  float *y_down = forward(&c->n);
  *coordinate = at;
  lamina_graph_parameters_changed(c->n.graph);
  for (int64_t i = 0; i < c->outputs; i++) {
    const double r = c->weights[i], size = r * fmax(fabs((double)y_up[i]), fabs((double)y_down[i]));
    sum += r * ((double)y_up[i] - y_down[i]);
    if (y_up[i] != y_down[i]) squares += size * size;
  }
  free(y_up);
  free(y_down);
  *noise = 40 * 0x1p-24 * sqrt(squares) / width;
  return sum / width;
}

static void check_tensor(checker *c, const char *name, float *values, const float *gradient, int64_t count,
                         test_random *random) {
  static const float steps[] = {0x1p-6f, 0x1p-8f, 0x1p-10f};
  const double scale = fmax(largest(gradient, count), 1e-4 * c->scale);
  const int64_t coordinates = count < MAX_COORDINATES ? count : MAX_COORDINATES;
  for (int64_t k = 0; k < coordinates; k++) {
    const int64_t i = count <= MAX_COORDINATES ? k : test_random_below(random, count);
    bool close = false;
    double numeric = 0, noise = 0;
    for (int s = 0; s < 3 && !close; s++) {
      numeric = difference(c, &values[i], steps[s], &noise);
      close = fabs(numeric - gradient[i]) <= RELATIVE_BOUND * scale + noise;
    }
    c->checked++;
    if (close) continue;
    c->outliers++;
    snprintf(c->worst, sizeof c->worst, "%s[%lld]: gradient %.6g, finite difference %.6g", name, (long long)i,
             gradient[i], numeric);
  }
}

/* Inside a network, a difference may step over the kink of a relu, a clip or a maximum. */
static bool has_kinks(const net_case *spec) {
  if (!spec->layers[1].type) return false;
  for (int i = 0; i < NET_MAX_LAYERS && spec->layers[i].type; i++)
    if (strstr(spec->layers[i].type, "relu") || strstr(spec->layers[i].type, "hard_") ||
        strcmp(spec->layers[i].type, "squeeze_excite") == 0 ||
        strcmp(spec->layers[i].type, "clip") == 0 || strcmp(spec->layers[i].type, "max_pool2d") == 0)
      return true;
  return false;
}

static bool has_gradient(const net *n, int input) {
  return n->data[input].dtype == LAMINA_F32 && !((n->spec->flags & CASE_X1_IS_TARGET) && input == 1);
}

/* Names, values and gradients of everything that has one, parameters first. */
static int list_tensors(net *n, const char **names, lamina_tensor *values, int limit) {
  int count = 0;
  for (int i = 0; i < lamina_graph_parameter_count(n->graph); i++) {
    lamina_parameter parameter = {.size = sizeof parameter};
    NET_OK(n->context, lamina_graph_parameter_at(n->graph, i, &parameter));
    if (!parameter.trainable) continue;
    ck_assert_int_lt(count, limit);
    names[count] = parameter.name;
    values[count++] = parameter.tensor;
  }
  for (int i = 0; i < n->inputs; i++) {
    if (!has_gradient(n, i)) continue;
    ck_assert_int_lt(count, limit);
    names[count] = n->spec->inputs[i].name;
    values[count++] = n->data[i];
  }
  return count;
}

#define MAX_TENSORS 40

START_TEST(gradients_match_finite_differences) {
  const net_case *spec = &gradient_cases[_i];
  test_random random = test_random_for(spec->name);
  lamina_context *context = gradient_context(1);
  checker c = {0};
  const char *names[MAX_TENSORS];
  lamina_tensor values[MAX_TENSORS];
  float *gradients[MAX_TENSORS];
  net_open(&c.n, context, spec, train_options, &random);
  c.weights = run_backward(&c.n, NULL, &random);
  const lamina_tensor y = net_output(&c.n);
  c.outputs = lamina_tensor_count(&y);
  const int count = list_tensors(&c.n, names, values, MAX_TENSORS);
  for (int i = 0; i < count; i++) {
    const lamina_tensor gradient = net_gradient(&c.n, names[i]);
    ck_assert_int_eq(lamina_tensor_count(&gradient), lamina_tensor_count(&values[i]));
    gradients[i] = net_copy(&gradient);
    c.scale = fmax(c.scale, largest(gradients[i], lamina_tensor_count(&values[i])));
  }
  test_that(c.scale > 0, "%s: every gradient is zero", spec->name);
  for (int i = 0; i < count; i++) {
    check_tensor(&c, names[i], values[i].data, gradients[i], lamina_tensor_count(&values[i]), &random);
    free(gradients[i]);
  }
  const int allowed = has_kinks(spec) ? c.checked / 10 : 0;
  test_that(c.outliers <= allowed, "%s: %d of %d differ, such as %s", spec->name, c.outliers, c.checked, c.worst);
  free(c.weights);
  net_close(&c.n);
  lamina_context_destroy(context);
}
END_TEST

static double dot(const float *a, const float *b, int64_t count, double *norms) {
  double sum = 0, aa = 0, bb = 0;
  for (int64_t i = 0; i < count; i++) {
    sum += (double)a[i] * b[i];
    aa += (double)a[i] * a[i];
    bb += (double)b[i] * b[i];
  }
  *norms = sqrt(aa * bb);
  return sum;
}

START_TEST(linear_layers_are_the_adjoint_of_their_backward) {
  const net_case *spec = &gradient_cases[_i];
  if (!(spec->flags & CASE_LINEAR)) return;
  test_random random = test_random_for(spec->name);
  lamina_context *context = gradient_context(2);
  const char *names[MAX_TENSORS];
  lamina_tensor values[MAX_TENSORS];
  net n;
  double norms;
  net_open(&n, context, spec, train_options, &random);
  float *r = run_backward(&n, NULL, &random);
  const lamina_tensor output = net_output(&n);
  float *y = net_copy(&output);
  const double expected = dot(y, r, lamina_tensor_count(&output), &norms);
  const int count = list_tensors(&n, names, values, MAX_TENSORS);
  for (int i = 0; i < count; i++) {
    const lamina_tensor gradient = net_gradient(&n, names[i]);
    float *g = net_copy(&gradient);
    double other;
    const double got = dot(g, values[i].data, lamina_tensor_count(&gradient), &other);
    test_that(fabs(got - expected) <= ADJOINT_BOUND * fmax(norms, other),
                  "%s: <y, dy> = %.9g, <%s, its gradient> = %.9g", spec->name, expected, names[i], got);
    free(g);
  }
  free(y);
  free(r);
  net_close(&n);
  lamina_context_destroy(context);
}
END_TEST

static void expect_same(const net_case *spec, const char *what, const lamina_tensor *a, const lamina_tensor *b,
                        double scale) {
  const int64_t count = lamina_tensor_count(b);
  ck_assert_int_eq(lamina_tensor_count(a), count);
  float *x = net_copy(a), *y = net_copy(b);
  double difference = 0, size = scale;
  for (int64_t i = 0; i < count; i++) {
    test_that(isfinite(x[i]) && isfinite(y[i]), "%s: %s is not finite", spec->name, what);
    difference = fmax(difference, fabs((double)x[i] - y[i]));
    size = fmax(size, fabs((double)y[i]));
  }
  test_that(difference <= AGREEMENT * size, "%s: %s differs by %.3g of %.3g", spec->name, what, difference, size);
  free(x);
  free(y);
}

START_TEST(fused_plans_agree_with_unfused_ones) {
  const net_case *spec = &gradient_cases[_i];
  test_random random = test_random_for(spec->name);
  lamina_context *context = gradient_context(2);
  const char *names[MAX_TENSORS];
  lamina_tensor values[MAX_TENSORS];
  lamina_plan_options options = train_options;
  net fused, plain;
  double scale = 0;
  net_open(&fused, context, spec, options, &random);
  options.no_fusion = 1;
  net_open_shared(&plain, &fused, options);
  float *r = run_backward(&fused, NULL, &random);
  run_backward(&plain, r, NULL);
  lamina_tensor a = net_output(&fused), b = net_output(&plain);
  expect_same(spec, "y of training", &a, &b, 0);
  const int count = list_tensors(&plain, names, values, MAX_TENSORS);
  for (int i = 0; i < count; i++) {
    b = net_gradient(&plain, names[i]);
    float *g = net_copy(&b);
    scale = fmax(scale, largest(g, lamina_tensor_count(&b)));
    free(g);
  }
  for (int i = 0; i < count; i++) {
    a = net_gradient(&fused, names[i]);
    b = net_gradient(&plain, names[i]);
    expect_same(spec, names[i], &a, &b, 0.05 * scale);
  }
  net_close_shared(&plain);
  free(r);
  net_close(&fused);
  lamina_context_destroy(context);
}
END_TEST

START_TEST(inference_agrees_fused_unfused_and_with_training) {
  const net_case *spec = &gradient_cases[_i];
  test_random random = test_random_for(spec->name);
  lamina_context *context = gradient_context(2);
  net train, fused, plain;
  net_open(&train, context, spec, train_options, &random);
  net_open_shared(&fused, &train, (lamina_plan_options){.mode = LAMINA_INFER});
  net_open_shared(&plain, &train, (lamina_plan_options){.mode = LAMINA_INFER, .no_fusion = 1});
  free(forward(&fused));
  free(forward(&plain));
  const lamina_tensor a = net_output(&fused), b = net_output(&plain);
  expect_same(spec, "y of inference", &a, &b, 0);
  if (!(spec->flags & CASE_INFER_DIFFERS)) {
    free(forward(&train));
    const lamina_tensor c = net_output(&train);
    expect_same(spec, "y of training against inference", &c, &b, 0);
  }
  net_close_shared(&plain);
  net_close_shared(&fused);
  net_close(&train);
  lamina_context_destroy(context);
}
END_TEST

/* Gradients are overwritten, not added up, and the same run gives the same bits. */
START_TEST(a_second_backward_gives_the_same_bits) {
  const net_case *spec = &gradient_cases[_i];
  test_random random = test_random_for(spec->name);
  lamina_context *context = gradient_context(2);
  const char *names[MAX_TENSORS];
  lamina_tensor values[MAX_TENSORS];
  float *first[MAX_TENSORS];
  net n;
  net_open(&n, context, spec, train_options, &random);
  float *r = run_backward(&n, NULL, &random);
  const int count = list_tensors(&n, names, values, MAX_TENSORS);
  for (int i = 0; i < count; i++) {
    const lamina_tensor gradient = net_gradient(&n, names[i]);
    first[i] = net_copy(&gradient);
  }
  run_backward(&n, r, NULL);
  for (int i = 0; i < count; i++) {
    const lamina_tensor gradient = net_gradient(&n, names[i]);
    float *second = net_copy(&gradient);
    test_that(memcmp(first[i], second, (size_t)lamina_tensor_count(&gradient) * sizeof *second) == 0, "%s: %s",
                  spec->name, names[i]);
    free(second);
    free(first[i]);
  }
  free(r);
  net_close(&n);
  lamina_context_destroy(context);
}
END_TEST

TCase *gradient_checks(void) {
  TCase *checks = tcase_create("layers and networks");
  tcase_set_timeout(checks, 120);
  tcase_add_loop_test(checks, gradients_match_finite_differences, 0, gradient_case_count);
  tcase_add_loop_test(checks, linear_layers_are_the_adjoint_of_their_backward, 0, gradient_case_count);
  tcase_add_loop_test(checks, fused_plans_agree_with_unfused_ones, 0, gradient_case_count);
  tcase_add_loop_test(checks, inference_agrees_fused_unfused_and_with_training, 0, gradient_case_count);
  tcase_add_loop_test(checks, a_second_backward_gives_the_same_bits, 0, gradient_case_count);
  return checks;
}
