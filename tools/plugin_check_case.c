/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin_check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

uint64_t check_random(uint64_t *state) { /* splitmix64 */
  uint64_t z = (*state += 0x9e3779b97f4a7c15u);
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

double check_uniform(uint64_t *state, double low, double high) {
  return low + (high - low) * ((double)(check_random(state) >> 11) * 0x1p-53);
}

static int64_t below(uint64_t *state, int64_t n) { return (int64_t)(check_random(state) % (uint64_t)n); }

const lamina_port *check_port(const lamina_layer *layer, lamina_port_kind kind, int index) {
  const lamina_port *last = NULL;
  for (const lamina_port *const *p = layer->ports; p && *p; p++) {
    const bool same = (*p)->kind == kind || (kind == LAMINA_PORT_PARAMETER && (*p)->kind == LAMINA_PORT_STATE);
    if (!same) continue;
    last = *p;
    if (index-- == 0) return last;
  }
  return last && (last->flags & LAMINA_PORT_VARIADIC) ? last : NULL;
}

int64_t check_count(const lamina_tensor *t) {
  int64_t count = 1;
  for (int i = 0; i < t->rank; i++) count *= t->dim[i];
  return t->rank < 0 ? 0 : count;
}

static size_t element_bytes(lamina_dtype dtype) { return dtype == LAMINA_I64 ? 8 : dtype == LAMINA_U8 ? 1 : 4; }

size_t check_bytes(const lamina_tensor *t) { return (size_t)check_count(t) * element_bytes(t->dtype); }

void check_dense(lamina_tensor *t) {
  int64_t stride = 1;
  for (int i = t->rank - 1; i >= 0; i--) {
    t->stride[i] = stride;
    stride *= t->dim[i];
  }
}

/* ---- attributes ------------------------------------------------------------------------------------------------ */

static int64_t random_integer(check_case *c, const lamina_attr *a, int64_t most) {
  static const int64_t sizes[] = {1, 2, 3, 4, 5, 7, 8, 16, 17, 32, 33};
  const bool bounded = a->min != 0 || a->max != 0;
  int64_t value =
      most > 3 ? sizes[below(&c->random, (int64_t)(sizeof sizes / sizeof *sizes))] : below(&c->random, most + 1);
  if (bounded && a->min > -1e9) value = (int64_t)a->min + below(&c->random, 2) * below(&c->random, most + 1);
  if (bounded && below(&c->random, 2) && most > 3)
    value = sizes[below(&c->random, (int64_t)(sizeof sizes / sizeof *sizes))];
  if (bounded && (double)value < a->min) value = (int64_t)a->min;
  if (bounded && (double)value > a->max) value = (int64_t)a->max;
  return value;
}

static void random_text(check_case *c, const lamina_attr *a, char *text, size_t bytes) {
  const bool bounded = a->min != 0 || a->max != 0;
  size_t used = 0;
  switch (a->type) {
  case LAMINA_ATTR_INT:
    snprintf(text, bytes, "%lld", (long long)random_integer(c, a, 8));
    break;
  case LAMINA_ATTR_INTS:
    for (int i = 0; i < (a->count ? a->count : 2); i++)
      used += (size_t)snprintf(text + used, bytes - used, "%s%lld", i ? "," : "", (long long)random_integer(c, a, 3));
    break;
  case LAMINA_ATTR_FLOAT:
    if (a->allow_none && below(&c->random, 3) == 0)
      snprintf(text, bytes, "none");
    else if (bounded && a->max - a->min <= 16)
      snprintf(text, bytes, "%.3f", a->min + (a->max - a->min) * (double)(1 + below(&c->random, 7)) / 8);
    else if (a->def)
      snprintf(text, bytes, "%s", a->def);
    else
      snprintf(text, bytes, "%g", bounded && (a->min > 0.5 || a->max < 0.5) ? a->min : 0.5);
    break;
  case LAMINA_ATTR_BOOL:
    snprintf(text, bytes, below(&c->random, 2) ? "true" : "false");
    break;
  case LAMINA_ATTR_STRING: {
    int words = 1;
    const char *word = a->choices ? a->choices : a->def ? a->def : "x";
    for (const char *p = a->choices; p && *p; p++) words += *p == '|';
    for (int skip = (int)below(&c->random, words); skip > 0 && a->choices; skip--) word = strchr(word, '|') + 1;
    snprintf(text, bytes, "%.*s", (int)strcspn(word, "|"), word);
    break;
  }
  }
}

/* `text` in the form of a declared default; the value keeps a pointer to it where it is text. */
static void parse_value(const lamina_attr *a, const char *text, lamina_value *v) {
  memset(v, 0, sizeof *v);
  switch (a->type) {
  case LAMINA_ATTR_INT:
    v->i = strtoll(text, NULL, 10);
    break;
  case LAMINA_ATTR_INTS:
    for (const char *p = text; p && *p && v->count < LAMINA_ATTR_MAX_INTS;
         p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
      v->ints[v->count++] = strtoll(p, NULL, 10);
    while (v->count && v->count < a->count) v->ints[v->count++] = v->ints[0];
    break;
  case LAMINA_ATTR_FLOAT:
    v->f = a->allow_none && !strcmp(text, "none") ? NAN : strtod(text, NULL);
    break;
  case LAMINA_ATTR_BOOL:
    v->i = !strcmp(text, "true") || !strcmp(text, "1");
    break;
  case LAMINA_ATTR_STRING:
    v->s = strdup(text);
    break;
  }
}

/* An attribute is as often its default as not: one at a time goes wrong more visibly. */
static void make_attributes(check_case *c, bool plain) {
  char text[96];
  size_t used = 0;
  c->text[0] = 0;
  for (c->n_attrs = 0; c->layer->attrs && c->layer->attrs[c->n_attrs] && c->n_attrs < 64; c->n_attrs++) {
    const lamina_attr *a = c->layer->attrs[c->n_attrs];
    if (a->def && (plain || below(&c->random, 2)))
      snprintf(text, sizeof text, "%s", a->def);
    else
      random_text(c, a, text, sizeof text);
    parse_value(a, text, &c->attrs[c->n_attrs]);
    if (used < sizeof c->text)
      used += (size_t)snprintf(c->text + used, sizeof c->text - used, "%s%s=%s", used ? " " : "", a->name, text);
  }
}

/* ---- shapes ---------------------------------------------------------------------------------------------------- */

enum { CLASS_SMALL, CLASS_ODD, CLASS_EDGES, CLASS_ONE, CLASS_BATCH, CLASS_EMPTY, CLASS_LARGE, CLASS_MIXED, CLASSES };

static int64_t random_size(check_case *c, int class, int attempt) {
  static const int64_t edges[] = {15, 16, 17, 31, 32, 33, 63, 64, 65}, odd[] = {3, 5, 7, 9, 11, 13, 21};
  const int64_t grow = attempt / 64;
  switch (class) {
  case CLASS_ONE:
    return 1 + grow;
  case CLASS_ODD:
    return odd[below(&c->random, 7)] + 2 * grow;
  case CLASS_EDGES:
    return below(&c->random, 3) ? edges[below(&c->random, 9)] : 2 + grow;
  case CLASS_LARGE:
    return below(&c->random, 2) ? 20 + below(&c->random, 180) : 3 + below(&c->random, 12);
  case CLASS_MIXED:
    return 1 + below(&c->random, 24);
  default:
    return 1 + below(&c->random, 6) + grow;
  }
}

static void random_shape(check_case *c, lamina_tensor *t, int rank, int64_t batch, int class, int attempt) {
  t->rank = rank;
  for (int i = 0; i < rank; i++) t->dim[i] = i ? random_size(c, class, attempt) : batch;
}

static int declared_inputs(const lamina_layer *layer, bool *variadic) {
  int count = 0;
  *variadic = false;
  for (const lamina_port *const *p = layer->ports; p && *p; p++) {
    count += (*p)->kind == LAMINA_PORT_INPUT;
    *variadic |= (*p)->kind == LAMINA_PORT_INPUT && ((*p)->flags & LAMINA_PORT_VARIADIC);
  }
  return count;
}

static lamina_dtype dtype_of(const lamina_port *p) { return p->dtype ? p->dtype : LAMINA_F32; }

static void make_shapes(check_case *c, int class, int attempt) {
  static const int ranks[] = {2, 4, 3, 2, 4, 3, 5, 1};
  const int64_t batch = class == CLASS_SMALL || class == CLASS_ONE ? 1
                        : class == CLASS_EMPTY                     ? 0
                                                                   : 1 + below(&c->random, 5);
  bool variadic;
  const int declared = declared_inputs(c->layer, &variadic);
  c->n_inputs = declared + (variadic ? (int)below(&c->random, 3) : 0);
  memset(c->inputs, 0, sizeof c->inputs);
  for (int i = 0; i < c->n_inputs; i++) {
    lamina_tensor *t = &c->inputs[i];
    const lamina_dtype dtype = dtype_of(check_port(c->layer, LAMINA_PORT_INPUT, i));
    const int first = ranks[below(&c->random, 8)];
    const int64_t kind = i && (dtype != LAMINA_F32 || below(&c->random, 3) == 0) ? below(&c->random, 4) : 0;
    if (i && kind == 0)
      *t = c->inputs[0];
    else
      random_shape(c, t, kind == 1 ? 1 : kind == 2 ? c->inputs[0].rank : first, batch, class, attempt);
    if (i && kind == 3 && c->inputs[0].rank > 1) { /* of another length, or one rank less */
      *t = c->inputs[0];
      t->rank--;
    }
    if (i && kind == 2)
      t->dim[t->rank - 1] = t->rank > 1 && below(&c->random, 2) ? c->inputs[0].dim[t->rank - 1] : t->dim[t->rank - 1];
    t->dtype = dtype;
    t->data = NULL;
    check_dense(t);
  }
}

lamina_status check_case_infer(check_case *c, const lamina_context *context) {
  return check_case_infer_failing(c, context, -1, NULL);
}

lamina_status check_case_infer_failing(check_case *c, const lamina_context *context, int fail_at, int *allocations) {
  check_host h;
  guard *memory = guard_new("node", sizeof(lamina_node), 8, false);
  lamina_node *node = (lamina_node *)(void *)memory->data;
  lamina_tensor before[LAMINA_MAX_PORTS];
  check_host_open(&h, context, 0);
  h.fail_at = fail_at;
  check->allocation_fails = fail_at >= 0;
  for (c->n_outputs = 0; check_port(c->layer, LAMINA_PORT_OUTPUT, c->n_outputs);) c->n_outputs++;
  for (c->n_params = 0; check_port(c->layer, LAMINA_PORT_PARAMETER, c->n_params);) c->n_params++;
  memset(c->outputs, 0, sizeof c->outputs);
  memset(c->params, 0, sizeof c->params);
  for (int i = 0; i < LAMINA_MAX_PORTS; i++) c->outputs[i].rank = c->params[i].rank = -1;
  memcpy(before, c->inputs, sizeof before);
  memset(node, 0, sizeof *node);
  node->size = sizeof *node;
  node->name = "checked";
  node->host = h.host;
  node->attrs = c->attrs;
  node->n_inputs = c->n_inputs;
  node->n_outputs = c->n_outputs;
  node->n_params = c->n_params;
  node->inputs = c->inputs;
  node->outputs = c->outputs;
  node->params = c->params;
  const lamina_status status = c->layer->infer(node);
  check->allocation_fails = 0;
  if (allocations) *allocations = h.allocations;
  if (h.outstanding) check_fail("leak", "infer: keeps %d blocks of host->alloc", h.outstanding);
  if (!status && h.failures)
    check_fail("error-ignored", "infer: calls host->fail (\"%s\") and returns LAMINA_OK", h.message);
  if (memcmp(before, c->inputs, sizeof before)) check_fail("shape", "infer: changes the shape of an input");
  guard_retire(memory);
  check_host_close(&h);
  if (status) return status;
  for (int i = 0; i < c->n_outputs + c->n_params; i++) {
    const bool out = i < c->n_outputs;
    const lamina_port *port =
        check_port(c->layer, out ? LAMINA_PORT_OUTPUT : LAMINA_PORT_PARAMETER, out ? i : i - c->n_outputs);
    lamina_tensor *t = out ? &c->outputs[i] : &c->params[i - c->n_outputs];
    t->dtype = dtype_of(port);
    if ((out && t->rank < 0) || t->rank > LAMINA_MAX_RANK)
      check_fail("shape", "infer: gives '%s' the rank %d and returns LAMINA_OK", port->name, t->rank);
    for (int k = 0; k < t->rank; k++)
      if (t->dim[k] < 0) check_fail("shape", "infer: gives '%s' a size of %lld", port->name, (long long)t->dim[k]);
    check_dense(t);
  }
  if ((c->layer->flags & LAMINA_LAYER_IN_PLACE) && check_count(&c->outputs[0]) != check_count(&c->inputs[0]))
    check_fail(
        "shape",
        "infer: output 0 has another number of elements than input 0, though the layer says LAMINA_LAYER_IN_PLACE");
  return LAMINA_OK;
}

/* What a case may cost: gradients by differences run a forward for each direction. */
static bool too_large(const check_case *c, int class) {
  const int64_t most = class == CLASS_LARGE ? 300000 : 40000;
  int64_t total = 0;
  for (int i = 0; i < c->n_inputs; i++) total += check_count(&c->inputs[i]);
  if (total > most) return true;
  for (int i = 0; i < c->n_outputs; i++) total += check_count(&c->outputs[i]);
  for (int i = 0; i < c->n_params; i++) total += check_count(&c->params[i]);
  return total > 3 * most;
}

static bool is_empty(const check_case *c) {
  for (int i = 0; i < c->n_inputs; i++)
    if (!check_count(&c->inputs[i])) return true;
  return false;
}

bool check_case_make(check_case *c, const lamina_layer *layer, uint64_t seed, int64_t number,
                     const lamina_context *context) {
  const int class = (int)(number % CLASSES);
  memset(c, 0, sizeof *c);
  c->layer = layer;
  c->number = number;
  c->random = seed ^ (uint64_t)(number + 1) * 0xd1342543de82ef95u;
  check_phase("infer");
  for (int attempt = 0; attempt < 800; attempt++) {
    if (attempt % 4 == 0) make_attributes(c, number < CLASSES && attempt < 400);
    make_shapes(c, class, attempt);
    check_case_describe(c, check->given, sizeof check->given);
    check->empty = is_empty(c);
    if (too_large(c, class) || check_case_infer(c, context) || too_large(c, class)) continue;
    return true;
  }
  return false;
}

/* ---- values ---------------------------------------------------------------------------------------------------- */

static void fill_integers(check_case *c, lamina_tensor *t) {
  const int64_t count = check_count(t);
  for (int64_t i = 0; i < count; i++) {
    const int64_t value = below(&c->random, c->labels > 0 ? c->labels : 1);
    if (t->dtype == LAMINA_I64)
      ((int64_t *)t->data)[i] = value;
    else if (t->dtype == LAMINA_I32)
      ((int32_t *)t->data)[i] = (int32_t)value;
    else
      ((uint8_t *)t->data)[i] = (uint8_t)value;
  }
}

static void fill(check_case *c, lamina_tensor *t, double low, double high) {
  t->data = realloc(t->data, check_bytes(t) + 8);
  if (!t->data) check_fail("checker", "out of memory");
  if (t->dtype != LAMINA_F32) {
    fill_integers(c, t);
    return;
  }
  const int64_t count = check_count(t);
  for (int64_t i = 0; i < count; i++) ((float *)t->data)[i] = (float)check_uniform(&c->random, low, high);
}

/* Around what the initialiser says, so that a variance stays positive; weights small enough for sums not to grow. */
static void fill_parameter(check_case *c, int i) {
  const lamina_port *port = check_port(c->layer, LAMINA_PORT_PARAMETER, i);
  const char *rule = port->initializer ? port->initializer : "";
  double middle = !strcmp(rule, "ones") ? 1 : !strncmp(rule, "constant:", 9) ? strtod(rule + 9, NULL) : 0;
  if (port->kind == LAMINA_PORT_STATE && c->params[i].dtype != LAMINA_F32) c->labels = 5;
  fill(c, &c->params[i], middle - 0.45, middle + 0.45);
}

void check_case_values(check_case *c, bool positive) {
  int64_t labels = c->labels;
  for (int i = 0; i < c->n_inputs; i++) fill(c, &c->inputs[i], positive ? 0.5 : -1.5, 1.5);
  for (int i = 0; i < c->n_params; i++)
    if (c->params[i].rank >= 0) fill_parameter(c, i);
  c->labels = labels;
  for (int i = 0; i < c->n_outputs; i++) {
    if (c->outputs[i].dtype != LAMINA_F32) continue;
    const int64_t count = check_count(&c->outputs[i]);
    c->dy[i] = realloc(c->dy[i], (size_t)(count + 1) * sizeof(float));
    if (!c->dy[i]) check_fail("checker", "out of memory");
    for (int64_t k = 0; k < count; k++) c->dy[i][k] = (float)check_uniform(&c->random, -1, 1);
  }
}

void check_case_describe(const check_case *c, char *text, size_t bytes) {
  size_t used = (size_t)snprintf(text, bytes, "%s%sinputs ", c->text, *c->text ? ", " : "");
  for (int i = 0; i < c->n_inputs && used + 100 < bytes; i++) {
    used += (size_t)snprintf(text + used, bytes - used, i ? ", (" : "(");
    for (int k = 0; k < c->inputs[i].rank; k++)
      used += (size_t)snprintf(text + used, bytes - used, k ? ",%lld" : "%lld", (long long)c->inputs[i].dim[k]);
    used += (size_t)snprintf(text + used, bytes - used, ")");
  }
}
