/* SPDX-License-Identifier: Apache-2.0 */
/* From a graph to a model file, one line a layer. */
#include "attributes.h"
#include "graph.h"
#include "io/atomic_file.h"
#include "io/text.h"
#include "layer_type.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static lamina_status add_string(lamina_text *out, const char *string) {
  json_t *json = json_string(string);
  char *quoted = json ? json_dumps(json, JSON_ENCODE_ANY) : NULL;
  json_decref(json);
  if (!quoted) return lamina_fail(out->context, LAMINA_INVALID_ARGUMENT, "'%.60s' is not UTF-8 text", string);
  lamina_text_add(out, "%s", quoted);
  free(quoted);
  return LAMINA_OK;
}

static size_t integer_length(const char *text) {
  const size_t sign = *text == '-', digits = strspn(text + sign, "0123456789");
  if (digits == 0 || (digits > 1 && text[sign] == '0')) return 0;
  errno = 0;
  strtoll(text, NULL, 10);
  return errno ? 0 : sign + digits;
}

static bool is_integer(const char *text) { return *text && integer_length(text) == strlen(text); }

/* JSON's form of a number: digits before and after a point, no sign but a minus. */
static bool is_number(const char *text) {
  size_t at = integer_length(text);
  if (at == 0) return false;
  if (text[at] == '.') {
    const size_t digits = strspn(text + ++at, "0123456789");
    if (digits == 0) return false;
    at += digits;
  }
  if (text[at] == 'e' || text[at] == 'E') {
    at += 1 + (text[at + 1] == '-' || text[at + 1] == '+');
    const size_t digits = strspn(text + at, "0123456789");
    if (digits == 0) return false;
    at += digits;
  }
  return text[at] == 0;
}

/* "3,3" as [3, 3]; false if it is not a list of integers. */
static bool add_list(lamina_text *out, const char *text) {
  bool valid = true;
  for (const char *p = text; valid; p = strchr(p, ',') + 1) {
    const size_t length = integer_length(p);
    valid = length && (p[length] == ',' || !p[length]);
    if (!strchr(p, ',')) break;
  }
  if (!valid) return false;
  lamina_text_add(out, "[");
  for (const char *p = text; *p; p++) {
    lamina_text_add(out, "%c", *p);
    if (*p == ',') lamina_text_add(out, " ");
  }
  lamina_text_add(out, "]");
  return true;
}

/* The value in the JSON type that its declaration suggests; a string holds whatever has no better form. */
static lamina_status add_value(lamina_text *out, const lamina_attr *attr, const char *value) {
  if (!attr) return add_string(out, value);
  const bool is_numeric = attr->type != LAMINA_ATTR_STRING && attr->type != LAMINA_ATTR_BOOL;
  if (attr->type == LAMINA_ATTR_BOOL && (!strcmp(value, "true") || !strcmp(value, "1")))
    lamina_text_add(out, "true");
  else if (attr->type == LAMINA_ATTR_BOOL && (!strcmp(value, "false") || !strcmp(value, "0")))
    lamina_text_add(out, "false");
  else if (attr->type == LAMINA_ATTR_FLOAT && !strcmp(value, "none"))
    lamina_text_add(out, "null");
  else if (is_numeric && (attr->type == LAMINA_ATTR_FLOAT ? is_number(value) : is_integer(value)))
    lamina_text_add(out, "%s", value);
  else if (attr->type != LAMINA_ATTR_INTS || !add_list(out, value))
    return add_string(out, value);
  return LAMINA_OK;
}

/* Takes the next "key=value" apart, in place and without its quotes; false at the end. */
static bool next_pair(char **text, char **key, char **value) {
  char *p = *text, *out;
  bool quoted = false;
  while (isspace((unsigned char)*p)) p++;
  if (!*p) return false;
  *key = out = p;
  *value = NULL;
  for (; *p && (quoted || !isspace((unsigned char)*p)); p++) {
    if (*p == '\'') {
      quoted = !quoted;
    } else if (*p == '=' && !*value) {
      *out++ = 0;
      *value = out;
    } else {
      *out++ = *p;
    }
  }
  *text = *p ? p + 1 : p;
  *out = 0;
  return *value != NULL;
}

static lamina_status add_attributes(lamina_text *out, const graph_node *node) {
  char *copy = lamina_copy_string(out->context, node->attributes), *at = copy, *key, *value;
  lamina_status status = copy ? LAMINA_OK : lamina_fail_memory(out->context, strlen(node->attributes));
  const char *separator = ", \"attributes\": {";
  bool any = false;
  while (status == LAMINA_OK && next_pair(&at, &key, &value)) {
    const int index = lamina_attr_index(node->layer, key);
    lamina_text_add(out, "%s", separator);
    status = add_string(out, key);
    lamina_text_add(out, ": ");
    if (status == LAMINA_OK) status = add_value(out, index < 0 ? NULL : node->layer->attrs[index], value);
    separator = ", ";
    any = true;
  }
  if (any) lamina_text_add(out, "}");
  lamina_free(out->context, copy);
  return status;
}

static lamina_status add_node(lamina_text *out, const lamina_graph *graph, const graph_node *node) {
  char type[600];
  lamina_layer_type_write(node->layer, node->module, type, sizeof type);
  lamina_text_add(out, "    {\"type\": ");
  lamina_status status = add_string(out, type);
  lamina_text_add(out, ", \"name\": ");
  if (status == LAMINA_OK) status = add_string(out, node->name);
  lamina_text_add(out, ", \"inputs\": [");
  for (int i = 0; i < node->n_inputs && status == LAMINA_OK; i++) {
    if (i) lamina_text_add(out, ", ");
    status = add_string(out, graph->values[node->inputs[i]]->name);
  }
  lamina_text_add(out, "]");
  if (status == LAMINA_OK) status = add_attributes(out, node);
  lamina_text_add(out, "}");
  return status;
}

static lamina_status add_input(lamina_text *out, const graph_value *value) {
  lamina_text_add(out, "    {\"name\": ");
  lamina_status status = add_string(out, value->name);
  lamina_text_add(out, ", \"shape\": [");
  for (int i = 1; i < value->shape.rank; i++)
    lamina_text_add(out, i > 1 ? ", %" PRId64 : "%" PRId64, value->shape.dim[i]);
  lamina_text_add(out, "], \"dtype\": \"%s\"}", lamina_dtype_name(value->shape.dtype));
  return status;
}

/* The model is called as its file, without folder and ".json". */
static lamina_status add_name(lamina_text *out, const char *path) {
  const char *slash = strrchr(path, '/');
  char *name = lamina_copy_string(out->context, slash ? slash + 1 : path);
  if (!name) return lamina_fail_memory(out->context, strlen(path));
  char *end = strrchr(name, '.');
  if (end && end > name && !strcmp(end, ".json")) *end = 0;
  lamina_text_add(out, "{\n  \"name\": ");
  lamina_status status = add_string(out, name);
  lamina_free(out->context, name);
  return status;
}

static lamina_status add_graph(lamina_text *out, const lamina_graph *graph, const char *path) {
  const char *separator = "";
  lamina_status status = add_name(out, path);
  lamina_text_add(out, ",\n  \"inputs\": [\n");
  for (size_t i = 0; i < graph->value_count && status == LAMINA_OK; i++) {
    if (graph->values[i]->producer >= 0) continue;
    lamina_text_add(out, "%s", separator);
    status = add_input(out, graph->values[i]);
    separator = ",\n";
  }
  lamina_text_add(out, "\n  ],\n  \"layers\": [\n");
  for (size_t i = 0; i < graph->node_count && status == LAMINA_OK; i++) {
    if (i) lamina_text_add(out, ",\n");
    status = add_node(out, graph, graph->nodes[i]);
  }
  lamina_text_add(out, "\n  ],\n  \"outputs\": [");
  for (int i = 0; i < lamina_graph_output_count(graph) && status == LAMINA_OK; i++) {
    if (i) lamina_text_add(out, ", ");
    status = add_string(out, lamina_graph_output_name(graph, i));
  }
  lamina_text_add(out, "]\n}\n");
  return status;
}

lamina_status lamina_graph_save_model(const lamina_graph *graph, const char *path) {
  if (!graph) return LAMINA_INVALID_ARGUMENT;
  if (!path) return lamina_fail(graph->context, LAMINA_INVALID_ARGUMENT, "no file name was given");
  lamina_text text = {.context = graph->context};
  lamina_atomic_file *file = NULL;
  lamina_status status = add_graph(&text, graph, path);
  if (status != LAMINA_OK) status = lamina_fail_prefix(graph->context, status, "%s", path);
  if (status == LAMINA_OK && text.failed) status = lamina_fail_memory(graph->context, text.bytes);
  if (status == LAMINA_OK) status = lamina_atomic_open(graph->context, path, &file);
  if (status == LAMINA_OK) status = lamina_atomic_write(file, text.data, text.bytes);
  if (status == LAMINA_OK)
    status = lamina_atomic_commit(file);
  else
    lamina_atomic_abandon(file);
  lamina_free(graph->context, text.data);
  return status;
}
