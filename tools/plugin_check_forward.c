/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin_check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OTHER = 0x3f800000 /* 1.0f */, REPEATS = 64 };

static double element(const run_result *r, int at, int64_t i) { return run_element(r, at, i); }

static uint64_t hash(const run_result *r) {
  uint64_t h = 1469598103934665603u;
  for (int v = 0; v < r->count; v++) {
    const unsigned char *p = r->value[v].tensor.data;
    for (size_t i = 0; i < check_bytes(&r->value[v].tensor); i++) h = (h ^ p[i]) * 1099511628211u;
  }
  return h;
}

/* Two processes that begin alike: if they agree, it is something kept from call to call that makes the difference. */
static bool depends_on_more_than_state(const check_case *c, const run_options *o) {
  uint64_t *result = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (result == MAP_FAILED) return false;
  for (int i = 0; i < 2; i++) {
    const pid_t child = fork();
    if (child == 0) {
      run_result r;
      check_run(c, o, &r);
      result[i] = hash(&r);
      _exit(0);
    }
    if (child > 0) waitpid(child, NULL, 0);
  }
  return result[0] != result[1];
}

/* Runs again in the same way, and after a run on other values. */
static void check_repeats(check_case *c, const run_options *o, const run_result *first, const char *what) {
  run_result again, other;
  check_case changed;
  int at;
  check_run(c, o, &again);
  int64_t i = run_difference(first, &again, &at);
  if (i < 0) {
    check_other_values(c, &changed);
    check_run(&changed, o, &other);
    run_release(&other);
    run_release(&again);
    check_run(c, o, &again);
    i = run_difference(first, &again, &at);
    check_other_release(&changed);
  }
  if (i >= 0 && depends_on_more_than_state(c, o))
    check_fail("nondeterministic", "%s: the same call gives another result: %s[%lld] is %.9g, then %.9g", what,
               first->value[at].name, (long long)i, element(first, at, i), element(&again, at, i));
  if (i >= 0)
    check_fail(
        "state",
        "%s: the result depends on earlier calls: %s[%lld] is %.9g, then %.9g; what is kept belongs in a state port",
        what, first->value[at].name, (long long)i, element(first, at, i), element(&again, at, i));
  run_release(&again);
  check_held();
}

static bool has_bits(const run_result *r, int at, int64_t i, uint32_t bits) {
  return r->value[at].tensor.dtype == LAMINA_F32 && !memcmp((const float *)r->value[at].tensor.data + i, &bits, 4);
}

/* What the buffers hold before the call must not matter. */
static void check_poison(check_case *c, const run_options *base, const run_result *first, const char *what) {
  static const char *const names[] = {"its output, before it has written it",
                                      "workspace, packed or allocated memory that it has not written",
                                      "'saved', where forward has not written it"};
  for (int k = 0; k < (base->backward ? 3 : 2); k++) {
    run_options o = *base;
    run_result r;
    int at;
    *(k == 0 ? &o.poison_out : k == 1 ? &o.poison_work : &o.poison_saved) = OTHER;
    check_run(c, &o, &r);
    const int64_t i = run_difference(first, &r, &at);
    if (i >= 0 && k == 0 && has_bits(first, at, i, base->poison_out) && has_bits(&r, at, i, OTHER))
      check_fail("not-written", "%s: does not write %s[%lld] of %lld elements", what, first->value[at].name,
                 (long long)i, (long long)check_count(&first->value[at].tensor));
    if (i >= 0)
      check_fail("reads-uninitialised", "%s: reads %s: %s[%lld] changes with what was there", what, names[k],
                 first->value[at].name, (long long)i);
    run_release(&r);
    check_held();
  }
}

static void check_finite(const run_result *r, const char *what) {
  for (int v = 0; v < r->count; v++)
    for (int64_t i = 0; i < check_count(&r->value[v].tensor); i++)
      if (!isfinite(run_element(r, v, i)))
        check_fail("not-finite", "%s: %s[%lld] is %g for finite inputs", what, r->value[v].name, (long long)i,
                   run_element(r, v, i));
  check_held();
}

static void same_bits(check_case *c, const run_options *o, const run_result *first, const char *cause,
                      const char *what) {
  run_result r;
  int at;
  check_run(c, o, &r);
  const int64_t i = run_difference(first, &r, &at);
  if (i >= 0)
    check_fail(cause, "%s: %s[%lld] is %.9g, not %.9g", what, first->value[at].name, (long long)i, element(&r, at, i),
               element(first, at, i));
  run_release(&r);
  check_held();
}

static void check_allocations(check_case *c, const run_options *base, const run_result *first) {
  if (first->outstanding)
    check_fail("leak", "%s: keeps %d blocks of host->alloc", base->backward ? "backward" : "forward",
               first->outstanding);
  for (int n = 0; n < first->allocations && n < 16; n++) {
    run_options o = *base;
    run_result r;
    int at;
    o.fail_at = n;
    check_run(c, &o, &r);
    if (!r.status && run_difference(first, &r, &at) >= 0)
      check_fail("allocation", "allocation %d of host->alloc fails, and the layer returns LAMINA_OK with a wrong %s",
                 n + 1, first->value[at].name);
    if (r.outstanding)
      check_fail("leak", "when allocation %d fails, %d blocks of host->alloc are never released", n + 1, r.outstanding);
    run_release(&r);
    check_held();
  }
}

/* What holds for any run; `first` is one as `base` says. */
static void check_any(check_case *c, const run_options *base, const run_result *first, const char *what) {
  run_options o = *base;
  check_repeats(c, base, first, what);
  check_poison(c, base, first, what);
  check_finite(first, what);
  o.at_start = true;
  run_result r;
  check_run(c, &o, &r); /* a fault is what it could end with: the last bits may follow the alignment */
  run_release(&r);
  o = *base;
  o.reversed = true;
  same_bits(c, &o, first, "threads", "the order in which tasks run changes the result");
  o = *base;
  o.newer = true;
  same_bits(c, &o, first, "struct-size", "a host of a later version, whose structs are longer, changes the result");
  check_allocations(c, base, first);
}

void check_forward(check_case *c, const check_target *t, const lamina_kernel *kernel, lamina_context *context,
                   lamina_mode mode) {
  (void)t;
  run_options o = run_defaults;
  run_result first;
  o.context = context;
  o.kernel = kernel;
  o.mode = mode;
  check_run(c, &o, &first);
  check_any(c, &o, &first, "forward");
  if ((c->layer->flags & LAMINA_LAYER_IN_PLACE) && c->n_inputs) {
    o.in_place = true;
    same_bits(c, &o, &first, "in-place", "forward with output 0 in input 0's memory (LAMINA_LAYER_IN_PLACE)");
  }
  run_release(&first);
}

void check_leaks(check_case *c, const lamina_kernel *kernel, lamina_context *context) {
  run_options o = run_defaults;
  run_result r;
  o.context = context;
  o.kernel = kernel;
  o.repeat = REPEATS;
  check_run(c, &o, &r);
  if (r.leaked >= REPEATS / 2 * 8)
    check_fail("leak", "forward: the heap grows by %zu bytes over %d calls", r.leaked, REPEATS * 3 / 4);
  if (r.mapped >= REPEATS / 2 * 4096)
    check_fail("leak", "forward: mappings grow by %zu bytes over %d calls", r.mapped, REPEATS * 3 / 4);
  if (r.opened >= REPEATS / 2) check_fail("leak", "forward: %d calls leave %d open files", REPEATS * 3 / 4, r.opened);
  run_release(&r);
  check_held();
}

/* ---- backward, but for its values -------------------------------------------------------------------------------- */

/* The value of `other` that is value v of `r`. */
static int find(const run_result *other, const run_result *r, int v) {
  for (int w = 0; w < other->count; w++)
    if (other->value[w].gradient == r->value[v].gradient && other->value[w].kind == r->value[v].kind &&
        other->value[w].port == r->value[v].port)
      return w;
  return -1;
}

/* Gradients must not depend on which others are asked for. */
static void check_needs(check_case *c, const run_options *base, const run_result *first) {
  for (int k = 0; k < 2; k++) {
    run_options o = *base;
    run_result r;
    *(k ? &o.leave_params : &o.leave_inputs) = ~0ull;
    check_run(c, &o, &r);
    for (int v = 0; v < r.count; v++) {
      const int w = find(first, &r, v);
      const int64_t count = check_count(&r.value[v].tensor);
      for (int64_t i = 0; w >= 0 && r.value[v].gradient && i < count; i++)
        if (fabs(run_element(&r, v, i) - run_element(first, w, i)) > 1e-5 * (1 + fabs(run_element(first, w, i))))
          check_fail("needs", "backward: %s[%lld] is another when the gradients of %s are not asked for",
                     r.value[v].name, (long long)i, k ? "parameters" : "inputs");
    }
    run_release(&r);
    check_held();
  }
}

static void check_accumulate(check_case *c, const run_options *base, const run_result *first) {
  run_options o = *base;
  run_result r;
  o.accumulate = true;
  check_run(c, &o, &r);
  for (int v = 0; v < r.count; v++) {
    const int w = find(first, &r, v);
    if (!r.value[v].gradient || r.value[v].kind != LAMINA_PORT_INPUT || w < 0) continue;
    double scale = 1;
    for (int64_t i = 0; i < check_count(&r.value[v].tensor); i++) scale = fmax(scale, fabs(run_element(first, w, i)));
    for (int64_t i = 0; i < check_count(&r.value[v].tensor); i++) {
      const double start = 0.25 * ((int)(i % 7) - 3), want = start + run_element(first, w, i);
      if (fabs(run_element(&r, v, i) - want) > 1e-5 * scale)
        check_fail(
            "accumulate",
            "backward: accumulate_inputs is set, and %s[%lld] becomes %.9g, not %.9g + %.9g (LAMINA_LAYER_ACCUMULATES)",
            r.value[v].name, (long long)i, run_element(&r, v, i), start, run_element(first, w, i));
    }
  }
  run_release(&r);
  check_held();
}

void check_backward(check_case *c, const lamina_kernel *kernel, lamina_context *context) {
  run_options o = run_defaults;
  run_result first;
  o.context = context;
  o.kernel = kernel;
  o.mode = LAMINA_TRAIN;
  o.backward = true;
  check_run(c, &o, &first);
  check_any(c, &o, &first, "backward");
  check_needs(c, &o, &first);
  if (c->layer->flags & LAMINA_LAYER_ACCUMULATES) check_accumulate(c, &o, &first);
  if (c->layer->flags & LAMINA_LAYER_BACKWARD_IN_PLACE && c->n_inputs && c->inputs[0].dtype == LAMINA_F32 &&
      check_count(&c->inputs[0]) == check_count(&c->outputs[0])) {
    o.backward_in_place = true;
    same_bits(c, &o, &first, "in-place",
              "backward with input 0's gradient in that of output 0 (LAMINA_LAYER_BACKWARD_IN_PLACE)");
    o.backward_in_place = false;
  }
  run_release(&first);
}
