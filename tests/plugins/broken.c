/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One good layer, y = weight[c] * (x + x^2 / 2), and every way in which it can be broken: compiled with -DBROKEN=NAME
 * it has that one fault, which `lamina plugin check` must name (causes.txt). With -DBROKEN=good it has none.
 */
#include <fcntl.h>
#include <fenv.h>
#include <lamina/plugin.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* clang-format off */
enum fault {
  good, wrong_gradient, wrong_gradient_tail, wrong_parameter_gradient, ignores_accumulate, writes_past_end, reads_past_end,
  writes_before_start, keeps_pointer, thread_count, task_order, leaks, leaks_host_memory, leaks_on_failure, leaks_on_load,
  wrong_shape, no_shape, fp_control, infinite_loop, crash, error_ignored, allocation_ignored, allocation_crash,
  workspace_small, nondeterministic, reads_output, reads_workspace, reads_saved, wrong_in_place, wrong_backward_in_place,
  writes_input, writes_gradient, state_between_calls, skips_tail, wrong_tail, wrong_variant, batch_of_one, empty_tensor,
  calls_abort, calls_exit, undeclared_read, needs_both, struct_size, wrong_activation, false_view, not_finite, bad_status,
  releases_twice, negative_cost, leaks_mapping, leaks_descriptor, leaks_descriptor_on_load, plan_allocation_ignored,
  infer_allocation_ignored, leaks_in_infer, prints, global_scratch, ignores_recompute, ignores_frozen_states, good_states,
  wrong_epilogue, good_epilogue, writes_attribute, writes_node
};
/* clang-format on */
#define IS(fault) (BROKEN == (fault))
#define HAS_STATE (IS(good_states) || IS(ignores_recompute) || IS(ignores_frozen_states))
#define HAS_EPILOGUE (IS(good_epilogue) || IS(wrong_epilogue))
#define HAS_ATTRIBUTE IS(writes_attribute)

#if defined(__aarch64__)
#define ISA "neon"
#else
#define ISA "avx2"
#endif

enum { TASK_ROWS = 8 };

static const float *kept; /* of an earlier call */
static int *volatile nowhere;
static float remembered = 0.0f; /* from call to call */
static float scratch[1024]; /* of whichever call was the last */

static int64_t channels(const lamina_tensor *t) { return t->rank ? t->dim[t->rank - 1] : 1; }

static int64_t rows(const lamina_tensor *t) {
  int64_t count = 1;
  for (int i = 0; i + 1 < t->rank; i++) count *= t->dim[i];
  return count;
}

typedef struct job {
  const lamina_node *node;
  const float *weight;
  int64_t rows_each;
  atomic_int *order; /* how many tasks have begun */
} job;

static void forward_row(const lamina_node *node, const float *w, int64_t r) {
  const int64_t n = channels(&node->inputs[0]), all = rows(&node->inputs[0]);
  const float *x = (const float *)node->inputs[0].data + r * n;
  float *y = (float *)node->outputs[0].data + r * n;
  const int fast = node->kernel->variant;
  for (int64_t c = 0; c < n; c++) {
    if (IS(skips_tail) && r + 1 == all && c + 1 == n) continue;
    float value = w[c] * (x[c] + 0.5f * x[c] * x[c]);
    if (IS(wrong_variant) && fast) value *= 1.01f;
    if (IS(wrong_tail) && fast && n > 8 && c >= n / 8 * 8) value = 0;
    if (IS(batch_of_one) && node->inputs[0].dim[0] == 1) value += 0.125f;
    if (IS(reads_output)) value += y[c] * 0.5f > 0.25f ? 1.0f : 0.0f;
    if (IS(wrong_in_place) && (const float *)y == x) value = w[c] * x[c];
    if (IS(not_finite)) value = x[c] > 1 ? 1.0f / (x[c] - x[c]) : value;
    if (HAS_EPILOGUE && value < node->epilogue.lo) value = node->epilogue.lo;
    if (IS(good_epilogue) && value > node->epilogue.hi) value = node->epilogue.hi;
    if (IS(struct_size) && node->size != sizeof *node) value = 0;
    y[c] = value;
  }
}

static void forward_task(void *arg, int64_t index, int thread) {
  const job *j = arg;
  const lamina_tensor *x = &j->node->inputs[0];
  (void)thread;
  for (int64_t r = index * j->rows_each; r < (index + 1) * j->rows_each && r < rows(x); r++) {
    forward_row(j->node, j->weight, r);
    if (IS(thread_count) && r == index * j->rows_each)
      *((float *)j->node->outputs[0].data + r * channels(x)) *= 1 + 1e-6f * (float)index;
    if (IS(task_order))
      *((float *)j->node->outputs[0].data + r * channels(x)) += 1e-6f * (float)atomic_fetch_add(j->order, 1);
  }
}

/* Faults of a whole call, before it does its work. */
static lamina_status misbehave(const lamina_node *node) {
  const lamina_tensor *x = &node->inputs[0];
  const int64_t n = rows(x) * channels(x);
  float *y = node->outputs[0].data;
  volatile float sink = 0;
  if (IS(writes_past_end)) y[n] = 0;
  if (IS(writes_before_start)) y[-1] = 0;
  if (IS(reads_past_end)) sink = ((const float *)x->data)[n];
  if (IS(writes_input) && n) ((float *)node->inputs[0].data)[0] = 0.5f;
  if (IS(keeps_pointer)) {
    if (kept) sink = kept[0];
    if (n) kept = x->data;
  }
  if (IS(leaks)) ((volatile char *)malloc(100))[0] = 1;
  if (IS(fp_control)) fesetround(FE_UPWARD);
  while (IS(infinite_loop)) sink = sink + 1;
  if (IS(crash)) *nowhere = 1;
  if (IS(leaks_mapping)) mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (IS(leaks_descriptor)) sink = (float)open("/dev/null", O_RDONLY);
  if (IS(prints)) printf("forward of %s\n", node->name);
  if (IS(writes_attribute)) ((lamina_value *)(uintptr_t)node->attrs)[0].f = 2;
  if (IS(writes_node)) ((lamina_node *)(uintptr_t)node)->workspace = NULL;
  if (IS(calls_abort)) abort();
  if (IS(calls_exit)) exit(0);
  if (IS(empty_tensor)) sink = (float)(1000 / n);
  if (IS(error_ignored)) node->host->fail(node->host, LAMINA_UNSUPPORTED, "not today");
  if (IS(bad_status) && n % 2) return node->host->fail(node->host, LAMINA_UNSUPPORTED, "an odd number of elements");
  (void)sink;
  return LAMINA_OK;
}

/* Faults of a whole call, after its work. */
static void spoil(const lamina_node *node) {
  float *y = node->outputs[0].data;
  if (rows(&node->inputs[0]) * channels(&node->inputs[0]) == 0) return;
  if (IS(nondeterministic)) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    y[0] += (float)(now.tv_nsec % 1000003) * 1e-6f;
  }
  if (IS(state_between_calls)) y[0] += remembered += 0.5f;
  if (IS(reads_workspace)) y[0] += ((const float *)node->workspace)[0] > 0.5f ? 1.0f : 0.0f;
}

/* A running sum of the first row, for which the output has no use. */
static void update_state(const lamina_node *node) {
  float *seen = node->params[1].data;
  const float *x = node->inputs[0].data;
  if (node->mode != LAMINA_TRAIN || !rows(&node->inputs[0])) return;
  if (node->frozen_states && !IS(ignores_frozen_states)) return;
  if (node->recompute && !IS(ignores_recompute)) return;
  for (int64_t c = 0; c < channels(&node->inputs[0]); c++) seen[c] += 0.1f * x[c];
}

static lamina_status forward(const lamina_node *node) {
  const lamina_host *host = node->host;
  const int64_t n = channels(&node->inputs[0]), all = rows(&node->inputs[0]);
  lamina_status status = misbehave(node);
  if (status) return status;
  float *weight = host->alloc(host, (size_t)n * sizeof *weight);
  float *second = IS(leaks_on_failure) ? host->alloc(host, 64) : NULL;
  if (IS(leaks_on_failure) && !second) return host->fail(host, LAMINA_OUT_OF_MEMORY, "out of memory");
  if (second) host->release(host, second);
  if (!weight && IS(allocation_ignored)) {
    if (all * n > 0) memset(node->outputs[0].data, 0, (size_t)(all * n) * sizeof(float));
    return LAMINA_OK;
  }
  if (!weight && !IS(allocation_crash))
    return host->fail(host, LAMINA_OUT_OF_MEMORY, "out of memory: %lld floats", (long long)n);
  if (n) memcpy(weight, node->params[0].data, (size_t)n * sizeof *weight);
  if (IS(global_scratch) && n && n <= 1024) memcpy(scratch, weight, (size_t)n * sizeof *weight);
  if (HAS_STATE) update_state(node);
  atomic_int order = 0;
  job j = {.node = node,
           .weight = IS(global_scratch) && n <= 1024 ? scratch : weight,
           .rows_each = IS(thread_count) ? all / host->threads(host) + 1 : TASK_ROWS,
           .order = &order};
  host->parallel(host, (all + j.rows_each - 1) / j.rows_each, forward_task, &j);
  spoil(node);
  if (!IS(reads_saved) && node->saved && n) memcpy(node->saved, weight, (size_t)n * sizeof *weight);
  if (!IS(leaks_host_memory)) host->release(host, weight);
  if (IS(releases_twice)) host->release(host, weight);
  return LAMINA_OK;
}

static void backward_input(const lamina_node *node, int64_t r) {
  const int64_t n = channels(&node->inputs[0]), all = rows(&node->inputs[0]);
  const float *x = (const float *)node->inputs[0].data + r * n, *w = node->saved;
  float *dy = (float *)node->d_outputs[0].data + r * n;
  float *dx = (float *)node->d_inputs[0].data + r * n;
  const int add = (node->accumulate_inputs & 1) && !IS(ignores_accumulate);
  for (int64_t c = 0; c < n; c++) {
    float g = dy[c] * w[c] * (1 + x[c]);
    if (IS(wrong_gradient)) g *= 1.05f;
    if (IS(wrong_gradient_tail) && r + 1 == all && c + 1 == n) g += 0.5f;
    if (IS(wrong_backward_in_place) && dx == dy && c) g += dx[c - 1];
    if (IS(undeclared_read)) g += 0 * ((const float *)node->outputs[0].data)[r * n + c];
    if (IS(needs_both) && !(node->need_params & 1)) g *= 2;
    if (IS(writes_gradient) && dx != dy) dy[c] = 0;
    dx[c] = add ? dx[c] + g : g;
  }
}

static lamina_status backward(const lamina_node *node) {
  const lamina_tensor *x = &node->inputs[0];
  const int64_t n = channels(x), all = rows(x), tasks = (all + TASK_ROWS - 1) / TASK_ROWS;
  float *partial = node->workspace;
  if (node->need_params & 1) {
    float *dw = node->d_params[0].data;
    if (tasks * n > 0) memset(partial, 0, (size_t)(tasks * n) * sizeof *partial);
    for (int64_t r = 0; r < all; r++)
      for (int64_t c = 0; c < n; c++) {
        const float v = ((const float *)x->data)[r * n + c], dy = ((const float *)node->d_outputs[0].data)[r * n + c];
        partial[r / TASK_ROWS * n + c] += dy * (v + (IS(wrong_parameter_gradient) ? 0.4f : 0.5f) * v * v);
      }
    for (int64_t c = 0; c < n; c++) {
      const float before = node->accumulate_params & 1 ? dw[c] : 0;
      dw[c] = before;
      for (int64_t t = 0; t < tasks; t++) dw[c] += partial[t * n + c];
    }
  }
  if (node->need_inputs & 1)
    for (int64_t r = 0; r < all; r++) backward_input(node, r);
  return LAMINA_OK;
}

static lamina_status plan(const lamina_node *node, lamina_cost *cost) {
  const int64_t n = channels(&node->inputs[0]), all = rows(&node->inputs[0]);
  const size_t tasks = (size_t)((all + TASK_ROWS - 1) / TASK_ROWS);
  if (IS(plan_allocation_ignored)) {
    char *table = node->host->alloc(node->host, 64);
    table[0] = 1;
    node->host->release(node->host, table);
  }
  cost->workspace = tasks * (size_t)n * sizeof(float);
  if (IS(reads_workspace)) cost->workspace += sizeof(float);
  if (IS(workspace_small) && cost->workspace) cost->workspace -= sizeof(float);
  cost->saved = node->mode == LAMINA_TRAIN ? (size_t)n * sizeof(float) : 0;
  cost->flops = (IS(negative_cost) ? -4.0 : 4.0) * (double)(all * n);
  cost->bytes = 8.0 * (double)(all * n);
  cost->backward_flops = 2 * cost->flops;
  cost->backward_bytes = 2 * cost->bytes;
  return LAMINA_OK;
}

static lamina_status infer(lamina_node *node) {
  const lamina_tensor *x = &node->inputs[0];
  if (x->rank < 2) return node->host->fail(node->host, LAMINA_SHAPE_MISMATCH, "x is not (N, ..., C)");
  if (IS(no_shape)) return LAMINA_OK;
  if (IS(infer_allocation_ignored) || IS(leaks_in_infer)) {
    char *table = node->host->alloc(node->host, 64);
    if (!table && IS(leaks_in_infer)) return node->host->fail(node->host, LAMINA_OUT_OF_MEMORY, "out of memory");
    table[0] = 1;
    if (!IS(leaks_in_infer)) node->host->release(node->host, table);
  }
  node->outputs[0].rank = x->rank;
  for (int i = 0; i < x->rank; i++) node->outputs[0].dim[i] = x->dim[i];
  if (IS(wrong_shape)) node->outputs[0].dim[0]++;
  node->params[0].rank = 1;
  node->params[0].dim[0] = channels(x);
  if (HAS_STATE) {
    node->params[1].rank = 1;
    node->params[1].dim[0] = channels(x);
  }
  return LAMINA_OK;
}

static void activate(int64_t n, const float *parameters, const float *x, float *y) {
  (void)parameters;
  for (int64_t i = 0; i < n; i++) y[i] = x[i] * 0.5f;
}

static int as_epilogue(const lamina_node *node, lamina_epilogue *epilogue) {
  (void)node;
  if (!IS(wrong_activation)) return 0;
  epilogue->parts |= LAMINA_EPILOGUE_ACTIVATION;
  epilogue->activation = activate;
  return 1;
}

static int is_view(const lamina_node *node) {
  (void)node;
  return IS(false_view);
}

static char *volatile lost;
__attribute__((constructor)) static void when_loaded(void) {
  if (IS(leaks_descriptor_on_load)) lost = open("/dev/null", O_RDONLY) < 0 ? lost : NULL;
  if (!IS(leaks_on_load)) return;
  lost = malloc(300);
  if (lost) lost[0] = 1;
}

static const lamina_port x_port = {.size = sizeof x_port,
                                   .name = "x",
                                   .kind = LAMINA_PORT_INPUT,
                                   .flags = LAMINA_PORT_BACKWARD_READS,
                                   .doc = "(N, ..., C)"};
static const lamina_port y_port = {.size = sizeof y_port, .name = "y", .kind = LAMINA_PORT_OUTPUT, .doc = "as x"};
static const lamina_port weight_port = {
    .size = sizeof weight_port, .name = "weight", .kind = LAMINA_PORT_PARAMETER, .initializer = "ones", .doc = "(C)"};
static const lamina_port seen_port = {
    .size = sizeof seen_port, .name = "seen", .kind = LAMINA_PORT_STATE, .initializer = "zeros", .doc = "(C)"};
static const lamina_attr slope_attr = {
    .size = sizeof slope_attr, .name = "slope", .type = LAMINA_ATTR_FLOAT, .def = "1", .doc = "not used"};
static const lamina_kernel fast = {.size = sizeof fast,
                                   .name = "fast",
                                   .isa = ISA,
                                   .plan = plan,
                                   .forward = forward,
                                   .backward = backward,
                                   .variant = 1};
static const lamina_kernel plain = {
    .size = sizeof plain, .name = "plain", .plan = plan, .forward = forward, .backward = backward};
static const lamina_layer layer = {.size = sizeof layer,
                                   .name = "broken",
                                   .version = 1,
                                   .doc = "weight * (x + x^2 / 2), with at most one fault",
                                   .flags = LAMINA_LAYER_IN_PLACE | LAMINA_LAYER_BACKWARD_IN_PLACE |
                                            LAMINA_LAYER_ACCUMULATES | (HAS_STATE ? LAMINA_LAYER_CHEAP : 0),
                                   .epilogues = HAS_EPILOGUE ? LAMINA_EPILOGUE_CLAMP : 0,
                                   .attrs = (const lamina_attr *const[]){HAS_ATTRIBUTE ? &slope_attr : NULL, NULL},
                                   .ports = (const lamina_port *const[]){&x_port, &y_port, &weight_port,
                                                                         HAS_STATE ? &seen_port : NULL, NULL},
                                   .kernels = (const lamina_kernel *const[]){&fast, &plain, NULL},
                                   .infer = infer,
                                   .is_view = is_view,
                                   .as_epilogue = as_epilogue};

LAMINA_PLUGIN("test.broken", "1.0", "broken", &layer);
