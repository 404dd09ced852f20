/* SPDX-License-Identifier: Apache-2.0 */
/* case_verify: a layer against its formula in double and that formula's numerical derivative. */
#include "layer_test.h"

static void expect_near(const char *what, const layer_case *c, const lamina_tensor *got, const double *want,
                        double tolerance) {
  int64_t n = case_count(got);
  double scale = 1e-3;
  for (int64_t i = 0; i < n; i++) scale = fmax(scale, fabs(want[i]));
  for (int64_t i = 0; i < n; i++) {
    double value = *case_at(got, i);
    test_that(fabs(value - want[i]) <= tolerance * scale, "%s (padding %d): %s[%lld] is %.9g, not %.9g",
                  c->layer->name, (int)c->padding, what, (long long)i, value, want[i]);
  }
}

typedef struct doubles {
  double *in[CASE_MAX], *par[CASE_MAX], *out;
} doubles;

static doubles doubles_of(const layer_case *c) {
  doubles d = {.out = malloc((size_t)case_count(&c->outputs[0]) * sizeof(double))};
  for (int i = 0; i < c->node.n_inputs; i++) d.in[i] = case_doubles(&c->inputs[i]);
  for (int i = 0; i < c->node.n_params; i++)
    if (c->params[i].rank > 0) d.par[i] = case_doubles(&c->params[i]);
  return d;
}

static void doubles_free(doubles *d) {
  for (int i = 0; i < CASE_MAX; i++) {
    free(d->in[i]);
    free(d->par[i]);
  }
  free(d->out);
}

static double weighted_sum(const layer_case *c, doubles *d, case_reference *reference, const double *dy) {
  double sum = 0;
  reference(c, d->in, d->par, d->out);
  for (int64_t i = 0, n = case_count(&c->outputs[0]); i < n; i++) sum += dy[i] * d->out[i];
  return sum;
}

/* The derivative of sum(dy * y) by one array of the reference's arguments, by central differences, plus `start`. */
static double *numerical(const layer_case *c, doubles *d, case_reference *reference, const double *dy, double *x,
                         int64_t n, const double *start) {
  double *g = malloc((size_t)n * sizeof *g), h = 1e-6;
  for (int64_t i = 0; i < n; i++) {
    double kept = x[i];
    x[i] = kept + h;
    double above = weighted_sum(c, d, reference, dy);
    x[i] = kept - h;
    double below = weighted_sum(c, d, reference, dy);
    x[i] = kept;
    g[i] = (above - below) / (2 * h) + (start ? start[i] : 0);
  }
  return g;
}

/* Runs backward for the needs that are set up and compares every gradient. */
static void verify_backward(layer_case *c, doubles *d, case_reference *reference, int accumulate, double tolerance) {
  lamina_node *node = &c->node;
  double *dy = case_doubles(&c->d_outputs[0]), *start[2 * CASE_MAX] = {0};
  for (int i = 0; i < CASE_MAX; i++) {
    if (accumulate && node->need_inputs >> i & 1) start[i] = case_doubles(&c->d_inputs[i]);
    if (accumulate && node->need_params >> i & 1) start[CASE_MAX + i] = case_doubles(&c->d_params[i]);
  }
  ck_assert_int_eq(c->kernel->backward(node), LAMINA_OK);
  case_check_bounds(c);
  for (int i = 0; i < CASE_MAX; i++) {
    if (node->need_inputs >> i & 1) {
      double *g = numerical(c, d, reference, dy, d->in[i], case_count(&c->inputs[i]), start[i]);
      expect_near("input gradient", c, &c->d_inputs[i], g, 4 * tolerance);
      free(g);
    }
    if (node->need_params >> i & 1) {
      double *g = numerical(c, d, reference, dy, d->par[i], case_count(&c->params[i]), start[CASE_MAX + i]);
      expect_near("parameter gradient", c, &c->d_params[i], g, 4 * tolerance);
      free(g);
    }
    free(start[i]);
    free(start[CASE_MAX + i]);
  }
  free(dy);
}

/* Inputs that are differentiated, and parameters that are there. */
static void all_needs(const layer_case *c, uint64_t *inputs, uint64_t *params) {
  *inputs = *params = 0;
  for (int i = 0; i < c->node.n_inputs; i++)
    if (!(case_port(c, LAMINA_PORT_INPUT, i)->flags & LAMINA_PORT_NO_GRADIENT)) *inputs |= 1ull << i;
  for (int i = 0; i < c->node.n_params; i++)
    if (c->params[i].rank >= 0 && case_port(c, LAMINA_PORT_PARAMETER, i)->kind == LAMINA_PORT_PARAMETER)
      *params |= 1ull << i;
}

typedef struct variant {
  int64_t padding;
  int in_place, accumulate, backward_in_place;
  uint64_t inputs, params; /* masks laid over all needs */
} variant;

static void verify_variant(const lamina_layer *layer, lamina_mode mode, const char *attributes, const char *shapes,
                           case_reference *reference, double tolerance, const variant *v) {
  layer_case c;
  case_begin(&c, layer, mode, attributes);
  c.padding = v->padding;
  c.in_place = v->in_place;
  char text[128], *rest = text;
  snprintf(text, sizeof text, "%s", shapes);
  for (char *word; (word = strtok_r(rest, " ", &rest));) case_input(&c, word);
  test_that(case_infer(&c) == LAMINA_OK, "%s", case_message());
  test_that(case_prepare(&c, -2, 2) == LAMINA_OK, "%s", case_message());
  doubles d = doubles_of(&c);
  test_that(case_forward(&c) == LAMINA_OK, "%s", case_message());
  reference(&c, d.in, d.par, d.out);
  expect_near("output", &c, &c.outputs[0], d.out, tolerance);
  uint64_t inputs, params;
  all_needs(&c, &inputs, &params);
  if (mode == LAMINA_TRAIN && !v->in_place) {
    case_backward(&c, inputs & v->inputs, params & v->params, v->accumulate);
    if (v->backward_in_place && c.d_inputs[0].data) {
      free(c.d_inputs[0].data);
      c.d_inputs[0] = c.d_outputs[0];
    }
    verify_backward(&c, &d, reference, v->accumulate, tolerance);
  }
  doubles_free(&d);
  case_end(&c);
}

void case_verify(const lamina_layer *layer, lamina_mode mode, const char *attributes, const char *shapes,
                 case_reference *reference, double tolerance) {
  const uint64_t all = UINT64_MAX;
  variant variants[] = {{0, 0, 0, 0, all, all}, {3, 0, 0, 0, all, all}, {0, 0, 0, 0, 1, 0},
                        {0, 0, 0, 0, 2, 1},     {0, 0, 0, 0, 0, 2},     {0, 0, 1, 0, all, all},
                        {5, 0, 1, 0, all, all}, {0, 0, 0, 1, all, all}, {0, 1, 0, 0, all, all}};
  for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
    const variant *v = &variants[i];
    if (v->accumulate && !(layer->flags & LAMINA_LAYER_ACCUMULATES)) continue;
    if (v->in_place && !(layer->flags & LAMINA_LAYER_IN_PLACE)) continue;
    if (v->backward_in_place && !(layer->flags & LAMINA_LAYER_BACKWARD_IN_PLACE)) continue;
    case_set_order((task_order)(i % 3), 1 + (int)i % 4);
    verify_variant(layer, mode, attributes, shapes, reference, tolerance, v);
  }
}
