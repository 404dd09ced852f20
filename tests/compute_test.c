/* SPDX-License-Identifier: Apache-2.0 */
#include "compute_test.h"

#include <math.h>

const int compute_threads[COMPUTE_HOSTS] = {1, 2, 3, 8};

int compute_main(Suite *suite) {
  test_print_seed();
  lamina_context *context;
  const lamina_context_options options = {.size = sizeof options, .threads = 1};
  if (lamina_context_create(&options, &context) == LAMINA_UNSUPPORTED) {
    printf("skipped: this machine cannot run %s\n", getenv("LAMINA_ISA"));
    return 77;
  }
  lamina_context_destroy(context);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? 1 : 0;
}

void compute_begin(lamina_context *context[COMPUTE_HOSTS]) {
  for (int i = 0; i < COMPUTE_HOSTS; i++) {
    const lamina_context_options options = {.size = sizeof options, .threads = compute_threads[i]};
    ck_assert_int_eq(lamina_context_create(&options, &context[i]), LAMINA_OK);
    if (getenv("LAMINA_ISA")) ck_assert_str_eq(context[i]->cpu.isa, getenv("LAMINA_ISA"));
  }
}

void compute_end(lamina_context *context[COMPUTE_HOSTS]) {
  for (int i = 0; i < COMPUTE_HOSTS; i++) lamina_context_destroy(context[i]);
}

int64_t compute_count(const lamina_tensor *t) {
  int64_t count = 1;
  for (int i = 0; i < t->rank; i++) count *= t->dim[i];
  return count;
}

TEST_UNCHECKED float *compute_at(const lamina_tensor *t, int64_t i) {
  const int64_t channels = t->dim[t->rank - 1], row = t->rank > 1 ? t->stride[t->rank - 2] : channels;
  return (float *)t->data + i / channels * row + i % channels;
}

static int64_t rows_of(const lamina_tensor *t) { return compute_count(t) / t->dim[t->rank - 1]; }

/* Strides with `gap` floats after each row of the last dimension, and memory of NaN. */
static void allocate(lamina_tensor *t, int64_t gap) {
  t->dtype = LAMINA_F32;
  t->stride[t->rank - 1] = 1;
  for (int i = t->rank - 2; i >= 0; i--)
    t->stride[i] = i == t->rank - 2 ? t->dim[i + 1] + gap : t->stride[i + 1] * t->dim[i + 1];
  const int64_t floats = rows_of(t) * (t->dim[t->rank - 1] + gap);
  t->data = malloc((size_t)floats * sizeof(float));
  ck_assert_ptr_nonnull(t->data);
  for (int64_t i = 0; i < floats; i++) ((float *)t->data)[i] = NAN;
}

static void fill(compute_case *c, lamina_tensor *t) {
  for (int64_t i = 0; i < compute_count(t); i++) *compute_at(t, i) = test_random_float(&c->random, -1, 1);
}

static lamina_tensor like(compute_case *c, const lamina_tensor *t, int64_t gap) {
  lamina_tensor copy = *t;
  allocate(&copy, gap);
  fill(c, &copy);
  return copy;
}

/* As a plugin would write it; twice is not once, zero is moved, and errors do not grow. */
static const float bend_parameters[] = {0.75f, 0.25f};

static void bend(int64_t n, const float *parameters, const float *x, float *y) {
  for (int64_t i = 0; i < n; i++) y[i] = parameters[0] * x[i] / (1 + fabsf(x[i])) + parameters[1];
}

double compute_activation(const compute_case *c, double y) {
  if (!(c->epilogue & LAMINA_EPILOGUE_ACTIVATION)) return y;
  return bend_parameters[0] * y / (1 + fabs(y)) + bend_parameters[1];
}

static void prepare_epilogue(compute_case *c) {
  lamina_epilogue *e = &c->node.epilogue;
  const int64_t channels = c->outputs[0].dim[c->outputs[0].rank - 1];
  *e = (lamina_epilogue){.size = sizeof *e, .parts = c->epilogue, .lo = -INFINITY, .hi = INFINITY};
  if (c->epilogue & LAMINA_EPILOGUE_AFFINE) {
    c->scale = malloc((size_t)channels * sizeof(float));
    c->shift = malloc((size_t)channels * sizeof(float));
    for (int64_t i = 0; i < channels; i++) {
      c->scale[i] = test_random_float(&c->random, -2, 2);
      c->shift[i] = test_random_float(&c->random, -1, 1);
    }
    e->scale = c->scale;
    e->shift = c->shift;
  }
  if (c->epilogue & LAMINA_EPILOGUE_ADD) e->add = like(c, &c->outputs[0], c->gap);
  if (c->epilogue & LAMINA_EPILOGUE_CLAMP) {
    e->lo = -0.25f;
    e->hi = 1;
  }
  if (c->epilogue & LAMINA_EPILOGUE_ACTIVATION) {
    e->activation = bend;
    memcpy(e->parameters, bend_parameters, sizeof bend_parameters);
  }
}

void compute_prepare(compute_case *c, const lamina_context *context) {
  c->inputs[0] = c->x;
  c->node = (lamina_node){.size = sizeof c->node,
                          .name = "node",
                          .host = &context->host,
                          .mode = c->mode,
                          .attrs = c->attrs,
                          .n_inputs = 1,
                          .n_outputs = 1,
                          .n_params = 2,
                          .inputs = c->inputs,
                          .outputs = c->outputs,
                          .params = c->params};
  test_that(c->layer->infer(&c->node) == LAMINA_OK, "%s", lamina_error_message(context));
  c->inputs[0] = like(c, &c->x, c->gap);
  allocate(&c->outputs[0], c->gap);
  const int params = c->params[1].rank < 0 ? 1 : 2;
  for (int i = 0; i < params; i++) c->params[i] = like(c, &c->params[i], 0);
  prepare_epilogue(c);
  if (c->mode == LAMINA_INFER) return;
  c->d_outputs[0] = like(c, &c->outputs[0], c->gap);
  c->d_inputs[0] = like(c, &c->inputs[0], c->gap);
  c->before_dx = like(c, &c->inputs[0], 0);
  for (int i = 0; i < params; i++) {
    c->d_params[i] = like(c, &c->params[i], 0);
    c->before_dp[i] = like(c, &c->params[i], 0);
  }
  if (params == 1) c->d_params[1].rank = -1;
  c->node.d_outputs = c->d_outputs;
  c->node.d_inputs = c->d_inputs;
  c->node.d_params = c->d_params;
  c->node.need_inputs = !c->no_input_gradient;
  c->node.need_params = params == 1 ? 1 : 3;
  c->node.accumulate_inputs = c->accumulate ? 1 : 0;
  c->node.accumulate_params = c->accumulate ? 3 : 0;
}

static void reset(const lamina_tensor *t, const lamina_tensor *before) {
  for (int64_t i = 0; i < compute_count(t); i++) *compute_at(t, i) = before ? *compute_at(before, i) : NAN;
}

static guarded buffer(size_t bytes) { return guarded_new((int64_t)((bytes + 63) / 64 * 16), GUARD_END); }

static void check_gaps(const compute_case *c, const lamina_tensor *t) {
  const int64_t channels = t->dim[t->rank - 1];
  for (int64_t r = 0; r < rows_of(t); r++)
    for (int64_t i = channels; i < channels + c->gap; i++)
      test_that(isnan(((float *)t->data)[r * (channels + c->gap) + i]), "a gap between rows was written");
}

static const lamina_kernel *choose_kernel(compute_case *c) {
  for (const lamina_kernel *const *k = c->layer->kernels; *k; k++) {
    c->node.kernel = *k;
    if (c->kernel ? strcmp((*k)->name, c->kernel) == 0 : !(*k)->supports || (*k)->supports(&c->node)) return *k;
  }
  ck_abort_msg("no kernel '%s'", c->kernel ? c->kernel : "that supports the node");
  return NULL;
}

void compute_run(compute_case *c, const lamina_context *context) {
  lamina_node *node = &c->node;
  lamina_cost cost = {.size = sizeof cost};
  node->host = &context->host;
  const lamina_kernel *kernel = choose_kernel(c);
  node->packed = node->workspace = NULL;
  test_that(kernel->plan(node, &cost) == LAMINA_OK, "%s", lamina_error_message(context));
  guarded packed = buffer(cost.packed), workspace = buffer(cost.workspace);
  node->packed = packed.data;
  node->workspace = workspace.data;
  ck_assert_int_eq(kernel->pack(node), LAMINA_OK);
  reset(&c->outputs[0], NULL);
  ck_assert_int_eq(kernel->forward(node), LAMINA_OK);
  check_gaps(c, &c->outputs[0]);
  if (c->mode == LAMINA_TRAIN) {
    reset(&c->d_inputs[0], c->accumulate ? &c->before_dx : NULL);
    for (int i = 0; i < 2 && c->params[i].rank >= 0; i++)
      reset(&c->d_params[i], c->accumulate ? &c->before_dp[i] : NULL);
    ck_assert_int_eq(kernel->backward(node), LAMINA_OK);
    check_gaps(c, &c->d_inputs[0]);
  }
  test_that(guarded_free(&packed) && guarded_free(&workspace), "a buffer was written past its end");
  node->packed = node->workspace = NULL;
}

void compute_release(compute_case *c) {
  const lamina_tensor *all[] = {&c->inputs[0],    &c->outputs[0],   &c->params[0],    &c->params[1],
                                &c->d_outputs[0], &c->d_inputs[0],  &c->d_params[0],  &c->d_params[1],
                                &c->before_dx,    &c->before_dp[0], &c->before_dp[1], &c->node.epilogue.add};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]->data);
  free(c->scale);
  free(c->shift);
}

void compute_compare(const compute_case *c, const char *what, const lamina_tensor *got, const double *want,
                     const double *magnitude) {
  const double tolerance = c->tolerance > 0 ? c->tolerance : 2e-6;
  for (int64_t i = 0; i < compute_count(got); i++) {
    const double error = fabs(*compute_at(got, i) - want[i]);
    test_that(error <= tolerance * magnitude[i] + 1e-30, "%s: number %lld is %.9g, not %.9g (magnitude %g)", what,
                  (long long)i, (double)*compute_at(got, i), want[i], magnitude[i]);
  }
}

float *compute_copy(const lamina_tensor *t) {
  float *copy = malloc((size_t)compute_count(t) * sizeof(float));
  for (int64_t i = 0; i < compute_count(t); i++) copy[i] = *compute_at(t, i);
  return copy;
}

void compute_same_bits(const char *what, const lamina_tensor *t, const float *other, int threads) {
  for (int64_t i = 0; i < compute_count(t); i++)
    test_that(memcmp(compute_at(t, i), &other[i], sizeof(float)) == 0,
                  "%s: number %lld is %.9g with %d threads, %.9g with 1", what, (long long)i, (double)*compute_at(t, i),
                  threads, (double)other[i]);
}

static compute_sums sums_new(const compute_case *c) {
  const size_t ny = (size_t)compute_count(&c->outputs[0]), nx = (size_t)compute_count(&c->x);
  const size_t nw = (size_t)compute_count(&c->params[0]), channels = (size_t)c->outputs[0].dim[c->outputs[0].rank - 1];
  compute_sums s = {.y = calloc(2 * (ny + nx + nw + channels), sizeof *s.y), .x = compute_copy(&c->inputs[0])};
  ck_assert_ptr_nonnull(s.y);
  double **const parts[] = {&s.y_size, &s.dx, &s.dx_size, &s.dw, &s.dw_size, &s.db, &s.db_size};
  const size_t before[] = {ny, ny, nx, nx, nw, nw, channels};
  double *at = s.y;
  for (int i = 0; i < 7; i++) *parts[i] = at += before[i];
  if (c->mode == LAMINA_TRAIN) s.dy = compute_copy(&c->d_outputs[0]);
  return s;
}

static void sums_free(compute_sums *s) {
  free(s->y);
  free(s->x);
  free(s->dy);
}

TEST_UNCHECKED static void add_epilogue(const compute_case *c, compute_sums *s) {
  const int64_t channels = c->outputs[0].dim[c->outputs[0].rank - 1];
  const float *bias = c->params[1].rank >= 0 ? c->params[1].data : NULL;
  for (int64_t i = 0; i < compute_count(&c->outputs[0]); i++) {
    const int64_t o = i % channels;
    if (bias) compute_add(s->y, s->y_size, i, bias[o] * (c->scale ? c->scale[o] : 1.0));
    if (c->shift) compute_add(s->y, s->y_size, i, c->shift[o]);
    if (c->epilogue & LAMINA_EPILOGUE_ADD) compute_add(s->y, s->y_size, i, *compute_at(&c->node.epilogue.add, i));
    s->y[i] = compute_activation(c, fmin(fmax(s->y[i], c->node.epilogue.lo), c->node.epilogue.hi));
    s->y_size[i] += c->epilogue & LAMINA_EPILOGUE_ACTIVATION ? 1 : 0;
    if (s->dy && bias) compute_add(s->db, s->db_size, o, s->dy[i]);
  }
}

static void add_before(const lamina_tensor *before, double *sum, double *size) {
  for (int64_t i = 0; i < compute_count(before); i++) compute_add(sum, size, i, *compute_at(before, i));
}

static void compare_all(const compute_case *c, const compute_sums *s, const char *text) {
  char what[400];
  snprintf(what, sizeof what, "y of %s", text);
  compute_compare(c, what, &c->outputs[0], s->y, s->y_size);
  if (c->mode != LAMINA_TRAIN) return;
  snprintf(what, sizeof what, "the gradient of x of %s", text);
  if (!c->no_input_gradient) compute_compare(c, what, &c->d_inputs[0], s->dx, s->dx_size);
  snprintf(what, sizeof what, "the gradient of weight of %s", text);
  compute_compare(c, what, &c->d_params[0], s->dw, s->dw_size);
  snprintf(what, sizeof what, "the gradient of bias of %s", text);
  if (c->d_params[1].rank >= 0) compute_compare(c, what, &c->d_params[1], s->db, s->db_size);
}

static void verify_threads(lamina_context *const context[COMPUTE_HOSTS], int turn, compute_case *c, const char *text) {
  const lamina_tensor *results[] = {&c->outputs[0], &c->d_inputs[0], &c->d_params[0], &c->d_params[1]};
  float *first[4] = {NULL};
  for (int i = 0; i < 4; i++)
    if (results[i]->data && !(i == 1 && c->no_input_gradient)) first[i] = compute_copy(results[i]);
  const int h = 1 + turn % (COMPUTE_HOSTS - 1);
  compute_run(c, context[h]);
  for (int i = 0; i < 4; i++)
    if (first[i]) compute_same_bits(text, results[i], first[i], compute_threads[h]);
  for (int i = 0; i < 4; i++) free(first[i]);
}

void compute_verify(lamina_context *const context[COMPUTE_HOSTS], int turn, compute_case *c, const char *text,
                    compute_products *products, const void *shape) {
  compute_prepare(c, context[0]);
  compute_run(c, context[0]);
  compute_sums sums = sums_new(c);
  products(c, shape, &sums);
  add_epilogue(c, &sums);
  if (c->accumulate && c->mode == LAMINA_TRAIN) {
    add_before(&c->before_dx, sums.dx, sums.dx_size);
    add_before(&c->before_dp[0], sums.dw, sums.dw_size);
    if (c->params[1].rank >= 0) add_before(&c->before_dp[1], sums.db, sums.db_size);
  }
  compare_all(c, &sums, text);
  sums_free(&sums);
  verify_threads(context, turn, c, text);
  compute_release(c);
}

void compute_refused(compute_case *c, lamina_status status, const char *word) {
  lamina_context *context;
  const lamina_context_options options = {.size = sizeof options, .threads = 1};
  ck_assert_int_eq(lamina_context_create(&options, &context), LAMINA_OK);
  lamina_node node = {.size = sizeof node,
                      .name = "node",
                      .host = &context->host,
                      .attrs = c->attrs,
                      .inputs = &c->x,
                      .outputs = c->outputs,
                      .params = c->params,
                      .n_inputs = 1,
                      .n_outputs = 1,
                      .n_params = 2};
  ck_assert_int_eq(c->layer->infer(&node), status);
  test_that(strstr(lamina_error_message(context), word) != NULL, "'%s' does not say '%s'",
            lamina_error_message(context), word);
  lamina_context_destroy(context);
}

int64_t compute_between(test_random *r, int64_t lo, int64_t hi) { return lo + test_random_below(r, hi - lo + 1); }

uint32_t compute_random_epilogue(test_random *r, lamina_mode mode) {
  uint32_t parts = 0;
  if (test_random_below(r, 2)) parts |= LAMINA_EPILOGUE_ADD;
  if (test_random_below(r, 2)) parts |= LAMINA_EPILOGUE_CLAMP;
  if (test_random_below(r, 2)) parts |= LAMINA_EPILOGUE_ACTIVATION;
  if (mode == LAMINA_INFER && test_random_below(r, 2)) parts |= LAMINA_EPILOGUE_AFFINE;
  return parts;
}
