/* SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"
#include "session.h"

#include <stdlib.h>
#include <string.h>

static const option options[] = {{NULL, NULL, OPTION_FLAG, 0, 0, 0, NULL, NULL}};

static const char *attr_type_name(const lamina_attr *a) {
  switch (a->type) {
  case LAMINA_ATTR_INT:
    return "integer";
  case LAMINA_ATTR_INTS:
    return "integers";
  case LAMINA_ATTR_FLOAT:
    return "number";
  case LAMINA_ATTR_BOOL:
    return "boolean";
  case LAMINA_ATTR_STRING:
    return "text";
  }
  return "unknown";
}

static const char *port_kind_name(const lamina_port *p) {
  switch (p->kind) {
  case LAMINA_PORT_INPUT:
    return "input";
  case LAMINA_PORT_OUTPUT:
    return "output";
  case LAMINA_PORT_PARAMETER:
    return "parameter";
  case LAMINA_PORT_STATE:
    return "state";
  }
  return "unknown";
}

static const char *dtype_name(lamina_dtype dtype) {
  switch (dtype) {
  case LAMINA_I32:
    return "i32";
  case LAMINA_I64:
    return "i64";
  case LAMINA_U8:
    return "u8";
  case LAMINA_F32:
    return "f32";
  }
  return "f32"; /* 0 is declared to mean f32 */
}

static bool bounded(const lamina_attr *a) { return a->min != 0 || a->max != 0; }

/* "1 to 1e+06", "a|b", or "". */
static const char *range_text(const lamina_attr *a, char *buffer, size_t size) {
  *buffer = 0;
  if (a->choices)
    snprintf(buffer, size, "%s", a->choices);
  else if (bounded(a) && a->max >= 1e9)
    snprintf(buffer, size, "%.10g or more", a->min);
  else if (bounded(a))
    snprintf(buffer, size, "%.10g to %.10g", a->min, a->max);
  return buffer;
}

/* ---- one layer ------------------------------------------------------------------------------------------------- */

static void print_attributes(const lamina_layer *layer) {
  char range[128];
  if (!layer->attrs || !layer->attrs[0]) {
    printf("\nNo attributes.\n");
    return;
  }
  printf("\nAttributes:\n  %-20s %-10s %-12s %-16s %s\n", "name", "type", "default", "range", "meaning");
  for (const lamina_attr *const *p = layer->attrs; *p; p++) {
    const lamina_attr *a = *p;
    char type[32];
    if (a->type == LAMINA_ATTR_INTS && a->count)
      snprintf(type, sizeof type, "%d integers", a->count);
    else
      snprintf(type, sizeof type, "%s%s", attr_type_name(a), a->allow_none ? "|none" : "");
    printf("  %-20s %-10s %-12s %-16s %s\n", a->name, type, a->def ? a->def : "(required)",
           range_text(a, range, sizeof range), a->doc ? a->doc : "");
  }
}

static void print_ports(const lamina_layer *layer) {
  printf("\nPorts:\n  %-20s %-10s %-5s %-16s %s\n", "name", "kind", "type", "initialiser", "meaning");
  for (const lamina_port *const *p = layer->ports; p && *p; p++) {
    const lamina_port *port = *p;
    printf("  %-20s %-10s %-5s %-16s %s%s%s\n", port->name, port_kind_name(port), dtype_name(port->dtype),
           port->initializer ? port->initializer : "", port->doc ? port->doc : "",
           port->flags & LAMINA_PORT_VARIADIC ? " (one or more)" : "",
           port->flags & LAMINA_PORT_NO_GRADIENT ? " (not differentiated)" : "");
  }
}

static void print_initializers(const lamina_layer *layer) {
  for (const lamina_port *const *p = layer->ports; p && *p; p++) {
    if ((*p)->kind != LAMINA_PORT_PARAMETER) continue;
    printf("\nThe attribute \"init.%s\" of a model gives another initialiser: zeros, ones, constant:V, uniform:BOUND,\n"
           "normal:STD, kaiming_uniform[:a], kaiming_normal[:a], xavier_uniform, xavier_normal or fan_in_uniform.\n",
           (*p)->name);
    return;
  }
}

static void print_kernels(const lamina_layer *layer) {
  printf("\nKernels, the first that supports a node runs it:\n");
  for (const lamina_kernel *const *p = layer->kernels; p && *p; p++)
    printf("  %-20s %-10s %s\n", (*p)->name, (*p)->isa ? (*p)->isa : "any ISA",
           (*p)->backward ? "forward and backward" : "forward only");
}

/* A value that a reader may start from: the default, the first choice, the least in range. */
static json_t *example_value(const lamina_attr *a) {
  switch (a->type) {
  case LAMINA_ATTR_INT:
    return json_integer(bounded(a) && a->min > 16 ? (json_int_t)a->min : 16);
  case LAMINA_ATTR_INTS: {
    json_t *list = json_array();
    for (int i = 0; i < (a->count ? a->count : 1); i++) json_array_append_new(list, json_integer(3));
    return list;
  }
  case LAMINA_ATTR_FLOAT:
    return json_real(bounded(a) ? a->min : 1.0);
  case LAMINA_ATTR_BOOL:
    return json_true();
  case LAMINA_ATTR_STRING:
    return a->choices ? json_stringn(a->choices, strcspn(a->choices, "|")) : json_string("...");
  }
  return json_null();
}

/* The entry of a model file with the required attributes and an input for each port. */
static json_t *example_entry(const lamina_layer *layer) {
  json_t *entry = json_object(), *inputs = json_array(), *attributes = json_object();
  char name[64];
  snprintf(name, sizeof name, "%s1", layer->name);
  json_object_set_new(entry, "type", json_string(layer->name));
  json_object_set_new(entry, "name", json_string(name));
  for (const lamina_port *const *p = layer->ports; p && *p; p++) {
    if ((*p)->kind != LAMINA_PORT_INPUT) continue;
    json_array_append_new(inputs, json_string((*p)->flags & LAMINA_PORT_VARIADIC ? "left" : (*p)->name));
    if ((*p)->flags & LAMINA_PORT_VARIADIC) json_array_append_new(inputs, json_string("right"));
  }
  json_object_set_new(entry, "inputs", inputs);
  for (const lamina_attr *const *p = layer->attrs; p && *p; p++)
    if (!(*p)->def) json_object_set_new(attributes, (*p)->name, example_value(*p));
  if (json_object_size(attributes)) json_object_set(entry, "attributes", attributes);
  json_decref(attributes);
  return entry;
}

static void print_layer(const lamina_layer *layer, const char *provider) {
  json_t *entry = example_entry(layer);
  char *text = json_dumps(entry, 0);
  printf("%s (version %u, %s)\n%s\n", layer->name, (unsigned)layer->version, provider, layer->doc ? layer->doc : "");
  print_attributes(layer);
  print_ports(layer);
  print_initializers(layer);
  print_kernels(layer);
  if (text) printf("\nIn a model file:\n  %s\n", text);
  free(text);
  json_decref(entry);
}

/* ---- JSON ------------------------------------------------------------------------------------------------------ */

static json_t *text_or_null(const char *text) { return text ? json_string(text) : json_null(); }

static json_t *attributes_json(const lamina_layer *layer) {
  json_t *list = json_array();
  for (const lamina_attr *const *p = layer->attrs; p && *p; p++) {
    const lamina_attr *a = *p;
    json_array_append_new(list, json_pack("{s:s s:s s:o s:o s:o s:o s:o}", "name", a->name, "type", attr_type_name(a),
                                          "default", text_or_null(a->def), "min",
                                          bounded(a) ? json_number(a->min) : json_null(), "max",
                                          bounded(a) ? json_number(a->max) : json_null(), "choices",
                                          text_or_null(a->choices), "doc", text_or_null(a->doc)));
  }
  return list;
}

static json_t *ports_json(const lamina_layer *layer) {
  json_t *list = json_array();
  for (const lamina_port *const *p = layer->ports; p && *p; p++)
    json_array_append_new(list, json_pack("{s:s s:s s:s s:b s:o s:o}", "name", (*p)->name, "kind", port_kind_name(*p),
                                          "dtype", dtype_name((*p)->dtype), "variadic",
                                          ((*p)->flags & LAMINA_PORT_VARIADIC) != 0, "initializer",
                                          text_or_null((*p)->initializer), "doc", text_or_null((*p)->doc)));
  return list;
}

static json_t *kernels_json(const lamina_layer *layer) {
  json_t *list = json_array();
  for (const lamina_kernel *const *p = layer->kernels; p && *p; p++)
    json_array_append_new(list, json_pack("{s:s s:o s:b}", "name", (*p)->name, "isa", text_or_null((*p)->isa),
                                          "backward", (*p)->backward != NULL));
  return list;
}

static json_t *layer_json(const lamina_layer *layer, const char *provider) {
  return json_pack("{s:s s:i s:s s:o s:o s:o s:o s:o}", "name", layer->name, "version", (int)layer->version, "provider",
                   provider, "doc", text_or_null(layer->doc), "attributes", attributes_json(layer), "ports",
                   ports_json(layer), "kernels", kernels_json(layer), "example", example_entry(layer));
}

/* ---- all layers ------------------------------------------------------------------------------------------------ */

/* Plugins in the folders, read without running code of them. */
static void print_plugin(void *user, const lamina_plugin_info *info) {
  const char *provider = "", *name = info->layers + strspn(info->layers, " ");
  char first[128];
  snprintf(first, sizeof first, "%.*s", (int)strcspn(name, " "), name);
  if (lamina_layer_find(((const session *)user)->context, first, &provider) && !strcmp(provider, info->path)) return;
  printf("%-24s in the plugin %s, %s\n", info->layers, info->path,
         info->usable ? "not loaded (--plugin)" : "which cannot run here");
}

static void print_table(session *s) {
  const int count = lamina_layer_count(s->context);
  for (int i = 0; i < count; i++) {
    const lamina_layer *layer = lamina_layer_at(s->context, i);
    const char *provider = "";
    lamina_layer_find(s->context, layer->name, &provider);
    const bool built_in = !strcmp(provider, "built-in");
    printf("%-24s %s%s%s%s\n", layer->name, layer->doc ? layer->doc : "", built_in ? "" : " [",
           built_in ? "" : provider, built_in ? "" : "]");
  }
  lamina_plugin_list(s->context, print_plugin, s);
  printf("\n'lamina layers NAME' shows a layer's attributes, ports and kernels\n");
}

static int print_all_json(const session *s) {
  json_t *list = json_array();
  const int count = lamina_layer_count(s->context);
  for (int i = 0; i < count; i++) {
    const lamina_layer *layer = lamina_layer_at(s->context, i);
    const char *provider = "";
    lamina_layer_find(s->context, layer->name, &provider);
    json_array_append_new(list, layer_json(layer, provider));
  }
  return print_json(json_pack("{s:o}", "layers", list));
}

static int no_such_layer(const session *s, const char *name) {
  const char *names[256];
  int count = lamina_layer_count(s->context);
  if (count > 256) count = 256;
  for (int i = 0; i < count; i++) names[i] = lamina_layer_at(s->context, i)->name;
  const char *near = nearest_name(name, names, count);
  fail("there is no layer '%s'", name);
  if (near) hint("did you mean '%s'?", near);
  hint("'lamina layers' lists them; --plugin FILE adds those of a plugin");
  return EXIT_ERROR;
}

static int show(session *s, const char *name) {
  const char *provider = "";
  if (!name && s->common->json) return print_all_json(s);
  if (!name) {
    print_table(s);
    return EXIT_OK;
  }
  const lamina_layer *layer = lamina_layer_find(s->context, name, &provider);
  if (!layer) return no_such_layer(s, name);
  if (s->common->json) return print_json(layer_json(layer, provider));
  print_layer(layer, provider);
  return EXIT_OK;
}

static int run_command(const command *self, int argc, char **argv) {
  common_settings set = {0};
  parsed line;
  session s = {0};
  int status = options_parse(self, argc, argv, &set, &line);
  if (status != OPTIONS_RUN) return status;
  status = session_open(&s, self, &set);
  if (!status) status = show(&s, line.argument[0]);
  session_close(&s);
  return status;
}

const command command_layers = {
    .name = "layers",
    .arguments = "[NAME]",
    .max_arguments = 1,
    .summary = "the layers a model can be built from, or all about one",
    .text = "Lists every layer with what it does. With NAME: its attributes, ports, parameters and kernels, and an "
            "entry for\n"
            "a model file.",
    .examples = "  lamina layers\n  lamina layers conv2d\n  lamina layers swish --plugin ./swish.so",
    .options = options,
    .run = run_command};
