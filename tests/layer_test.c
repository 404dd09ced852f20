/* SPDX-License-Identifier: Apache-2.0 */
#include "layer_test.h"

#include "dispatch.h"
#include "random.h"

#include <stdarg.h>
#include <stddef.h>

/* ---- the host --------------------------------------------------------------------------------------------------- */

static struct {
  char message[512];
  task_order order;
  int threads;
  lamina_kernels kernels;
  int composed;
} host_state = {.threads = 3};

static lamina_status host_fail(const lamina_host *host, lamina_status status, const char *format, ...) {
  (void)host;
  va_list list;
  va_start(list, format);
  vsnprintf(host_state.message, sizeof host_state.message, format, list);
  va_end(list);
  return status;
}

static int host_threads(const lamina_host *host) {
  (void)host;
  return host_state.threads;
}

static void host_parallel(const lamina_host *host, int64_t tasks, void (*task)(void *arg, int64_t index, int thread),
                          void *arg) {
  (void)host;
  /* i * stride mod tasks visits all of them, as the stride is a prime that does not divide their number. */
  int64_t stride = tasks % 7919 ? 7919 : 7907;
  for (int64_t i = 0; i < tasks; i++) {
    int64_t index = host_state.order == ORDER_FORWARD    ? i
                    : host_state.order == ORDER_BACKWARD ? tasks - 1 - i
                                                         : (i * stride + 5) % tasks;
    task(arg, index, (int)(i % host_state.threads));
  }
}

static void host_random(const lamina_host *host, uint64_t seed, uint64_t offset, int64_t n, float *out) {
  (void)host;
  lamina_random_uniform(seed, offset, n, out);
}

static const void *host_ext(const lamina_host *host, const char *id) {
  (void)host;
  return strcmp(id, LAMINA_KERNELS_EXT) == 0 ? case_kernels() : NULL;
}

/* Caches so small that the layers take the paths of large matrices. */
static const lamina_cpu cpu = {.size = sizeof(lamina_cpu), .l1 = 4096, .l2 = 16384, .l3 = 65536};

static const lamina_host host = {.size = sizeof(lamina_host),
                                 .abi_major = LAMINA_PLUGIN_ABI_MAJOR,
                                 .abi_minor = LAMINA_PLUGIN_ABI_MINOR,
                                 .cpu = &cpu,
                                 .fail = host_fail,
                                 .threads = host_threads,
                                 .parallel = host_parallel,
                                 .random = host_random,
                                 .ext = host_ext};

const lamina_kernels *case_kernels(void) {
  char error[256];
  if (!host_state.composed) {
    host_state.composed = 1;
    if (lamina_dispatch_compose(getenv("LAMINA_ISA"), &host_state.kernels, error, sizeof error)) {
      printf("skipped: %s\n", error);
      host_state.kernels.isa = NULL;
    }
  }
  return host_state.kernels.isa ? &host_state.kernels : NULL;
}

const char *case_message(void) { return host_state.message; }

void case_set_order(task_order order, int threads) {
  host_state.order = order;
  host_state.threads = threads;
}

/* ---- a case ----------------------------------------------------------------------------------------------------- */

static void parse_attribute(const lamina_attr *attr, const char *text, lamina_value *value) {
  memset(value, 0, sizeof *value);
  value->i = strcmp(text, "true") == 0 ? 1 : strtoll(text, NULL, 10);
  value->f = strcmp(text, "none") == 0 ? NAN : strtod(text, NULL);
  if (attr->type != LAMINA_ATTR_INTS) return;
  char *end = NULL;
  for (const char *p = text; value->count < attr->count; value->count++) {
    value->ints[value->count] = strtoll(p, &end, 10);
    if (*end == ',') p = end + 1; /* a single number is read again for each axis */
  }
}

void case_begin(layer_case *c, const lamina_layer *layer, lamina_mode mode, const char *attributes) {
  memset(c, 0, sizeof *c);
  c->layer = layer;
  c->kernel = layer->kernels[0];
  c->random = test_random_for(layer->name);
  c->node = (lamina_node){.size = sizeof(lamina_node),
                          .name = "node",
                          .host = &host,
                          .mode = mode,
                          .attrs = c->attrs,
                          .inputs = c->inputs,
                          .outputs = c->outputs,
                          .params = c->params,
                          .d_outputs = c->d_outputs,
                          .d_inputs = c->d_inputs,
                          .d_params = c->d_params,
                          .seed = 77};
  c->cost.size = sizeof c->cost;
  for (int i = 0; layer->attrs[i]; i++) {
    ck_assert_int_lt(i, CASE_MAX);
    if (layer->attrs[i]->def) parse_attribute(layer->attrs[i], layer->attrs[i]->def, &c->attrs[i]);
  }
  for (const char *p = attributes; p && *p;) {
    char key[64], value[64];
    int used = 0;
    ck_assert_int_eq(sscanf(p, " %63[^=]=%63s%n", key, value, &used), 2);
    p += used;
    int found = 0;
    for (int i = 0; layer->attrs[i]; i++) {
      if (strcmp(layer->attrs[i]->name, key) != 0) continue;
      parse_attribute(layer->attrs[i], value, &c->attrs[i]);
      found = 1;
    }
    test_that(found, "%s has no attribute %s", layer->name, key);
  }
}

const lamina_port *case_port(const layer_case *c, lamina_port_kind kind, int index) {
  const lamina_port *last = NULL;
  for (int i = 0; c->layer->ports[i]; i++) {
    int is_param = c->layer->ports[i]->kind >= LAMINA_PORT_PARAMETER;
    if (kind == LAMINA_PORT_PARAMETER ? !is_param : c->layer->ports[i]->kind != kind) continue;
    last = c->layer->ports[i];
    if (index-- == 0) return last;
  }
  return last && last->flags & LAMINA_PORT_VARIADIC ? last : NULL;
}

void case_input(layer_case *c, const char *shape) {
  ck_assert_int_lt(c->node.n_inputs, CASE_MAX);
  lamina_tensor *t = &c->inputs[c->node.n_inputs];
  const lamina_port *port = case_port(c, LAMINA_PORT_INPUT, c->node.n_inputs++);
  ck_assert_ptr_nonnull(port);
  memset(t, 0, sizeof *t);
  t->dtype = port->dtype ? port->dtype : LAMINA_F32;
  if (strcmp(shape, "scalar") == 0) return;
  for (char *end; *shape; shape = *end == 'x' ? end + 1 : end) t->dim[t->rank++] = strtoll(shape, &end, 10);
}

lamina_status case_infer(layer_case *c) {
  c->node.n_outputs = 1;
  c->outputs[0].rank = -1;
  c->outputs[0].dtype = LAMINA_F32;
  for (int i = 0; case_port(c, LAMINA_PORT_PARAMETER, i); i++) {
    c->params[i].rank = -1;
    c->params[i].dtype = case_port(c, LAMINA_PORT_PARAMETER, i)->dtype;
    c->node.n_params = i + 1;
  }
  return c->layer->infer(&c->node);
}

int64_t case_count(const lamina_tensor *t) {
  int64_t n = 1;
  for (int i = 0; i < t->rank; i++) n *= t->dim[i];
  return n;
}

float *case_at(const lamina_tensor *t, int64_t i) {
  if (t->rank < 2) return (float *)t->data + i;
  int64_t channels = t->dim[t->rank - 1];
  return (float *)t->data + i / channels * t->stride[t->rank - 2] + i % channels;
}

double *case_doubles(const lamina_tensor *t) {
  int64_t n = case_count(t);
  double *out = malloc((size_t)n * sizeof *out);
  for (int64_t i = 0; i < n; i++) out[i] = t->dtype == LAMINA_I32 ? ((int32_t *)t->data)[i] : *case_at(t, i);
  return out;
}

static const uint32_t canary = 0x7fc5a5a5; /* a NaN, so that reading it shows as well */

/* Strides with `padding` floats behind each row, and memory filled with canaries. */
static void allocate(lamina_tensor *t, int64_t padding) {
  int64_t step = 1;
  for (int i = t->rank - 1; i >= 0; i--) {
    t->stride[i] = step;
    step *= t->dim[i];
    if (i == t->rank - 1 && t->rank > 1 && t->dtype == LAMINA_F32) step += padding;
  }
  size_t bytes = (size_t)step * (t->dtype == LAMINA_I64 ? 8 : 4);
  t->data = aligned_alloc(64, (bytes + 63) / 64 * 64);
  for (size_t i = 0; i < bytes / 4; i++) memcpy((char *)t->data + 4 * i, &canary, 4);
}

static int row_gaps_intact(const lamina_tensor *t) {
  if (t->rank < 2 || !t->data || t->dtype != LAMINA_F32) return 1;
  int64_t channels = t->dim[t->rank - 1], ld = t->stride[t->rank - 2], rows = case_count(t) / channels;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = channels; i < ld; i++)
      if (memcmp((float *)t->data + r * ld + i, &canary, 4) != 0) return 0;
  return 1;
}

static void fill(layer_case *c, lamina_tensor *t, float lo, float hi) {
  for (int64_t i = 0, n = case_count(t); i < n; i++) *case_at(t, i) = test_random_float(&c->random, lo, hi);
}

enum { GUARD = 64 }; /* bytes behind a buffer of the node */

static void *buffer(size_t bytes) {
  char *p = aligned_alloc(64, (bytes + 63) / 64 * 64 + GUARD);
  memset(p, 0xFF, (bytes + 63) / 64 * 64 + GUARD);
  return p;
}

static void check_buffer(const void *p, size_t bytes) {
  for (int i = 0; i < GUARD; i++) 
    test_that(((const unsigned char *)p)[bytes + (size_t)i] == 0xFF, "written %d bytes past the end", i);
}

lamina_status case_prepare(layer_case *c, float lo, float hi) {
  lamina_node *node = &c->node;
  if (c->kernel->plan) {
    lamina_status status = c->kernel->plan(node, &c->cost);
    if (status != LAMINA_OK) return status;
  }
  if (c->cost.saved) node->saved = buffer(c->cost.saved);
  if (c->cost.workspace) node->workspace = buffer(c->cost.workspace);
  for (int i = 0; i < node->n_inputs; i++) {
    allocate(&c->inputs[i], c->padding);
    if (c->inputs[i].dtype == LAMINA_F32) fill(c, &c->inputs[i], lo, hi);
    int32_t *labels = c->inputs[i].data;
    int64_t classes = c->inputs[0].dim[c->inputs[0].rank - 1];
    for (int64_t k = 0; c->inputs[i].dtype == LAMINA_I32 && k < case_count(&c->inputs[i]); k++)
      labels[k] = (int32_t)test_random_below(&c->random, classes);
    c->d_inputs[i] = c->inputs[i];
    c->d_inputs[i].data = NULL;
  }
  for (int i = 0; i < node->n_params; i++) {
    if (c->params[i].rank < 0) continue;
    allocate(&c->params[i], 0);
    if (c->params[i].dtype != LAMINA_I64)
      fill(c, &c->params[i], 0.5f, 1.5f);
    else
      memset(c->params[i].data, 0, 8);
    c->d_params[i] = c->params[i];
    c->d_params[i].data = NULL;
  }
  allocate(&c->outputs[0], c->padding);
  if (c->in_place) {
    free(c->outputs[0].data);
    c->outputs[0].data = c->inputs[0].data;
  }
  c->d_outputs[0] = c->outputs[0];
  c->d_outputs[0].data = NULL;
  return LAMINA_OK;
}

void case_check_bounds(const layer_case *c) {
  for (int i = 0; i < c->node.n_inputs; i++) {
    test_that(row_gaps_intact(&c->inputs[i]), "%s wrote between the rows of input %d", c->layer->name, i);
    test_that(row_gaps_intact(&c->d_inputs[i]), "%s wrote between the rows of gradient %d", c->layer->name, i);
  }
  test_that(row_gaps_intact(&c->outputs[0]), "%s wrote between the rows of its output", c->layer->name);
  if (c->node.saved) check_buffer(c->node.saved, c->cost.saved);
  if (c->node.workspace) check_buffer(c->node.workspace, c->cost.workspace);
}

lamina_status case_forward(layer_case *c) {
  lamina_status status = c->kernel->forward(&c->node);
  case_check_bounds(c);
  return status;
}

lamina_status case_backward(layer_case *c, uint64_t need_inputs, uint64_t need_params, int accumulate) {
  lamina_node *node = &c->node;
  node->need_inputs = need_inputs;
  node->need_params = need_params;
  node->accumulate_inputs = accumulate ? need_inputs : 0;
  node->accumulate_params = accumulate ? need_params : 0;
  allocate(&c->d_outputs[0], c->padding);
  fill(c, &c->d_outputs[0], -1, 1);
  for (int i = 0; i < node->n_inputs; i++) {
    if (!(need_inputs >> i & 1)) continue;
    allocate(&c->d_inputs[i], c->padding);
    if (accumulate) fill(c, &c->d_inputs[i], -1, 1);
  }
  for (int i = 0; i < node->n_params; i++) {
    if (!(need_params >> i & 1)) continue;
    allocate(&c->d_params[i], 0);
    if (accumulate) fill(c, &c->d_params[i], -1, 1);
  }
  return LAMINA_OK;
}

void case_end(layer_case *c) {
  for (int i = 0; i < CASE_MAX; i++) {
    free(c->inputs[i].data);
    free(c->params[i].data);
    if (c->d_inputs[i].data != c->d_outputs[0].data) free(c->d_inputs[i].data);
    free(c->d_params[i].data);
  }
  free(c->d_outputs[0].data);
  if (!c->in_place) free(c->outputs[0].data);
  free(c->node.saved);
  free(c->node.workspace);
}

void case_refused(const lamina_layer *layer, const char *attributes, const char *shapes, const char *words) {
  layer_case c;
  char text[128], *rest = text;
  case_begin(&c, layer, LAMINA_TRAIN, attributes);
  snprintf(text, sizeof text, "%s", shapes);
  for (char *word; (word = strtok_r(rest, " ", &rest));) case_input(&c, word);
  host_state.message[0] = '\0';
  lamina_status status = case_infer(&c);
  if (status == LAMINA_OK && c.kernel->plan) status = c.kernel->plan(&c.node, &c.cost);
  test_that(status != LAMINA_OK, "%s accepts %s with %s", layer->name, shapes, attributes);
  snprintf(text, sizeof text, "%s", words);
  rest = text;
  for (char *word; (word = strtok_r(rest, "|", &rest));) {
    test_that(strstr(case_message(), word) != NULL, "'%s' is not in the message: %s", word, case_message());
  }
}
