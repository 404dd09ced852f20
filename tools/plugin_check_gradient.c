/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gradients against differences of the forward: <dy, f(x + h v) - f(x - h v)> / 2h and <g, v> for v along single
 * elements, and for v along all (the adjoint identity: the difference is <dy, J v>, the gradient J' dy). Sums are in
 * double; the forward is in float, so that each of several h gives a value with an error that is estimated, and the
 * best is believed.
 */
#include "plugin_check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 5, FLOAT_BITS = 24 };

typedef struct probe {
  check_case *c;
  run_options forward;
  run_result middle;
  float *x, *saved; /* the tensor that is varied */
  const float *g;
  int64_t count;
  const char *name;
} probe;

typedef struct noise {
  double all, changed; /* what rounding can have added: over all outputs, and over those that changed */
} noise;

/* <dy, f - f0>. */
static double objective(const probe *p, const run_result *r, noise *n) {
  double sum = 0, all = 0, changed = 0;
  for (int v = 0; v < r->count; v++) {
    if (r->value[v].kind != LAMINA_PORT_OUTPUT || r->value[v].tensor.dtype != LAMINA_F32 || r->value[v].of_state)
      continue;
    const float *y = r->value[v].tensor.data, *y0 = p->middle.value[v].tensor.data, *dy = p->c->dy[r->value[v].port];
    for (int64_t i = 0; i < check_count(&r->value[v].tensor); i++) {
      const double e = dy[i] * (fabs((double)y[i]) + fabs((double)y0[i]) + 0.25);
      sum += (double)dy[i] * ((double)y[i] - (double)y0[i]);
      all += e * e;
      if (y[i] != y0[i]) changed += e * e;
    }
  }
  n->all = ldexp(sqrt(all), -FLOAT_BITS + 1);
  n->changed = ldexp(sqrt(changed), -FLOAT_BITS + 2);
  return sum;
}

static double moved(probe *p, double h, const signed char *direction, int64_t only, noise *n, double *actual) {
  run_result r;
  memcpy(p->saved, p->x, (size_t)p->count * sizeof *p->x);
  *actual = 0; /* <g, what was really moved>: h is rounded into x */
  for (int64_t i = only < 0 ? 0 : only; i < (only < 0 ? p->count : only + 1); i++) {
    p->x[i] = (float)((double)p->x[i] + h * (only < 0 ? direction[i] : 1));
    *actual += (double)p->g[i] * ((double)p->x[i] - (double)p->saved[i]);
  }
  check_run(p->c, &p->forward, &r);
  const double value = objective(p, &r, n);
  run_release(&r);
  memcpy(p->x, p->saved, (size_t)p->count * sizeof *p->x);
  return value;
}

/* Compares along one direction; `only`: an element, or -1 for all. */
static void compare(probe *p, const signed char *direction, int64_t only) {
  double best = INFINITY, difference = 0, gradient = 0, before = 0, left = 0, right = 0, last_noise = 0, last_h = 1;
  double least = 0, most = 0; /* of the slopes on either side */
  double size = 0;
  for (int64_t i = 0; i < p->count; i++)
    if (only < 0 || i == only) size += (double)p->g[i] * p->g[i];
  for (int k = 0; k < STEPS; k++) {
    const double h = ldexp(1, -3 - 2 * k) * (only < 0 ? 1 / sqrt((double)p->count) : 1);
    noise n[2];
    double actual[2];
    right = moved(p, h, direction, only, &n[0], &actual[0]);
    left = moved(p, -h, direction, only, &n[1], &actual[1]);
    last_noise = (n[0].changed + n[1].changed) / (2 * h);
    last_h = h;
    const double d = (right - left) / (2 * h), g = (actual[0] - actual[1]) / (2 * h);
    const double error = fabs(d - before) + (n[0].all + n[1].all) / (2 * h);
    if (k && error < best) {
      best = error;
      difference = d;
      gradient = g;
      least = fmin(-left, right) / h;
      most = fmax(-left, right) / h;
    }
    before = d;
  }
  /* A kink between the two sides (relu at 0): neither slope is wrong. */
  const double slope_left = -left / last_h, slope_right = right / last_h;
  if (fabs(slope_left - slope_right) > 0.02 * (fabs(slope_left) + fabs(slope_right)) + 4 * last_noise) return;
  const double allowed = 6 * best + 2e-3 * fmax(fabs(difference), fabs(gradient)) + 2e-4 * sqrt(size) + 1e-6;
  /* Kinks of a few elements among many, which are less than rounding at the last h: between the slopes is right. */
  if (gradient >= least - allowed && gradient <= most + allowed) return;
  if (only < 0)
    check_fail("gradient",
               "backward: the gradient of %s is wrong: along a direction through all elements the forward changes by "
               "%.6g (+- %.1g), the gradient says %.6g",
               p->name, difference, best, gradient);
  check_fail("gradient",
             "backward: the gradient of %s is wrong: at element %lld of %lld it is %.6g, by differences of the forward "
             "%.6g (+- %.1g)",
             p->name, (long long)only, (long long)p->count, gradient, difference, best);
}

static void check_tensor(probe *p, uint64_t *random) {
  const int singles = p->count > 20000 ? 3 : p->count > 16 ? 8 : (int)p->count;
  signed char *direction = malloc((size_t)p->count + 1);
  p->saved = malloc((size_t)(p->count + 1) * sizeof *p->saved);
  if (!direction || !p->saved) check_fail("checker", "out of memory");
  for (int k = 0; k < singles; k++) {
    int64_t element = p->count <= 16 || k == 0 ? k
                      : k == 1                 ? p->count - 1
                                               : (int64_t)(check_random(random) % (uint64_t)p->count);
    compare(p, direction, element);
  }
  for (int k = 0; k < 2; k++) {
    for (int64_t i = 0; i < p->count; i++) direction[i] = check_random(random) & 1 ? 1 : -1;
    if (p->count > 1) compare(p, direction, -1);
  }
  free(direction);
  free(p->saved);
  check_held();
}

void check_gradients(check_case *c, const lamina_kernel *kernel, lamina_context *context) {
  probe p = {.c = c, .forward = run_defaults};
  run_result first;
  uint64_t random = c->random;
  p.forward.context = context;
  p.forward.kernel = kernel;
  p.forward.mode = LAMINA_TRAIN;
  check_run(c, &p.forward, &p.middle);
  p.forward.backward = true;
  check_run(c, &p.forward, &first);
  p.forward.backward = false;
  for (int v = 0; v < first.count; v++) {
    if (!first.value[v].gradient) continue;
    const int port = first.value[v].port;
    lamina_tensor *t = first.value[v].kind == LAMINA_PORT_INPUT ? &c->inputs[port] : &c->params[port];
    p.x = t->data;
    p.g = first.value[v].tensor.data;
    p.count = check_count(t);
    p.name = check_port(c->layer, first.value[v].kind, port)->name;
    if (p.count) check_tensor(&p, &random);
  }
  run_release(&p.middle);
  run_release(&first);
}
