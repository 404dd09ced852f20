/* SPDX-License-Identifier: Apache-2.0 */
/* From a checked model file to a graph. */
#include "io/file.h"
#include "io/model_file.h"
#include "io/text.h"

#include <inttypes.h>
#include <string.h>

static lamina_status fail_attribute(const lamina_model *model, const lamina_model_layer *layer, const char *key,
                                    const char *what) {
  return lamina_fail(model->context, LAMINA_BAD_FILE, "%s: layer '%s': attribute '%.60s': %s", model->path, layer->name,
                     key, what);
}

/* Words go to lamina_graph_add between blanks, and single quotes hold what contains blanks; there is no escape. */
static bool is_safe(const char *text) {
  for (; *text; text++)
    if (*text == '\'' || (unsigned char)*text < ' ') return false;
  return true;
}

static bool add_ints(lamina_text *text, const json_t *list) {
  for (size_t i = 0; i < json_array_size(list); i++) {
    const json_t *item = json_array_get(list, i);
    if (!json_is_integer(item)) return false;
    lamina_text_add(text, i ? ",%" PRId64 : "%" PRId64, (int64_t)json_integer_value(item));
  }
  return json_array_size(list) > 0;
}

static lamina_status add_attribute(const lamina_model *model, const lamina_model_layer *layer, const char *key,
                                   const json_t *value, lamina_text *text) {
  if (!*key || !is_safe(key) || strpbrk(key, " =")) return fail_attribute(model, layer, key, "is not a name");
  lamina_text_add(text, text->bytes ? " %s=" : "%s=", key);
  switch (json_typeof(value)) {
  case JSON_INTEGER:
    lamina_text_add(text, "%" PRId64, (int64_t)json_integer_value(value));
    break;
  case JSON_REAL:
    lamina_text_add_real(text, json_real_value(value));
    break;
  case JSON_TRUE:
    lamina_text_add(text, "true");
    break;
  case JSON_FALSE:
    lamina_text_add(text, "false");
    break;
  case JSON_NULL:
    lamina_text_add(text, "none");
    break;
  case JSON_STRING:
    if (!is_safe(json_string_value(value)))
      return fail_attribute(model, layer, key, "a quote or a control character is not possible here");
    lamina_text_add(text, strpbrk(json_string_value(value), " ") ? "'%s'" : "%s", json_string_value(value));
    break;
  case JSON_ARRAY:
    if (!add_ints(text, value)) return fail_attribute(model, layer, key, "a list must be of whole numbers");
    break;
  case JSON_OBJECT:
    return fail_attribute(model, layer, key, "an object is not possible here");
  }
  return LAMINA_OK;
}

lamina_status lamina_model_attributes(const lamina_model *model, const lamina_model_layer *layer, char **out) {
  lamina_text text = {.context = model->context};
  lamina_status status = LAMINA_OK;
  const char *key;
  json_t *value;
  lamina_text_add(&text, "%s", "");
  json_object_foreach(layer->attributes, key, value) {
    status = add_attribute(model, layer, key, value, &text);
    if (status != LAMINA_OK) break;
  }
  if (status == LAMINA_OK && text.failed) status = lamina_fail_memory(model->context, text.bytes);
  if (status != LAMINA_OK) {
    lamina_free(model->context, text.data);
    return status;
  }
  *out = text.data;
  return LAMINA_OK;
}

static lamina_status add_inputs(const lamina_model *model, lamina_graph *graph) {
  size_t i;
  json_t *input;
  json_array_foreach(model->inputs, i, input) {
    const json_t *shape = json_object_get(input, "shape");
    const char *dtype = json_string_value(json_object_get(input, "dtype"));
    int64_t dim[LAMINA_MAX_RANK];
    for (size_t d = 0; d < json_array_size(shape); d++) dim[d] = json_integer_value(json_array_get(shape, d));
    lamina_status status =
        lamina_graph_input(graph, json_string_value(json_object_get(input, "name")),
                           dtype && !strcmp(dtype, "i32") ? LAMINA_I32 : LAMINA_F32, (int)json_array_size(shape), dim);
    if (status != LAMINA_OK) return lamina_fail_prefix(model->context, status, "%s", model->path);
  }
  return LAMINA_OK;
}

static lamina_status add_layer(const lamina_model *model, const lamina_model_layer *layer, lamina_graph *graph) {
  lamina_text inputs = {.context = model->context};
  char *attributes = NULL;
  for (int i = 0; i < layer->n_inputs; i++) lamina_text_add(&inputs, i ? ",%s" : "%s", layer->inputs[i]);
  lamina_status status = inputs.failed ? lamina_fail_memory(model->context, inputs.bytes)
                                       : lamina_model_attributes(model, layer, &attributes);
  if (status == LAMINA_OK) {
    status = lamina_graph_add(graph, layer->type, layer->name, inputs.data, attributes);
    if (status != LAMINA_OK) status = lamina_fail_prefix(model->context, status, "%s", model->path);
  }
  lamina_free(model->context, attributes);
  lamina_free(model->context, inputs.data);
  return status;
}

static lamina_status build(const lamina_model *model, lamina_graph *graph) {
  lamina_status status = add_inputs(model, graph);
  for (int i = 0; i < model->count && status == LAMINA_OK; i++)
    status = add_layer(model, model->layers + model->order[i], graph);
  for (size_t i = 0; status == LAMINA_OK && i < json_array_size(model->outputs); i++) {
    status = lamina_graph_output(graph, json_string_value(json_array_get(model->outputs, i)));
    if (status != LAMINA_OK) status = lamina_fail_prefix(model->context, status, "%s: outputs", model->path);
  }
  return status;
}

lamina_status lamina_model_build(lamina_context *context, const char *path, const char *text, size_t bytes,
                                 lamina_graph **graph) {
  lamina_model model;
  *graph = NULL;
  lamina_status status = lamina_model_parse(&model, context, path, text, bytes);
  if (status == LAMINA_OK) status = lamina_model_sort(&model);
  if (status == LAMINA_OK) status = lamina_graph_create(context, NULL, graph);
  if (status == LAMINA_OK) status = build(&model, *graph);
  lamina_model_close(&model);
  if (status != LAMINA_OK) {
    lamina_graph_destroy(*graph);
    *graph = NULL;
  }
  return status;
}

lamina_status lamina_graph_load_model(lamina_context *context, const char *path, lamina_graph **graph) {
  char *text;
  size_t bytes;
  if (graph) *graph = NULL;
  if (!context) return LAMINA_INVALID_ARGUMENT;
  if (!graph) return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "lamina_graph_load_model: graph is NULL");
  lamina_status status = lamina_file_read(context, path, LAMINA_MODEL_BYTES, &text, &bytes);
  if (status != LAMINA_OK) return status;
  status = lamina_model_build(context, path, text, bytes, graph);
  lamina_free(context, text);
  return status;
}
