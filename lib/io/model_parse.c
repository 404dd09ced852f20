/* SPDX-License-Identifier: Apache-2.0 */
/* From the text of a model file to layers whose keys and types are right. */
#include "io/model_file.h"

#include <stdio.h>
#include <string.h>

static lamina_status fail(const lamina_model *model, const char *where, const char *what) {
  return lamina_fail(model->context, LAMINA_BAD_FILE, "%s: %s%s%s", model->path, where, *where ? ": " : "", what);
}

/* Every key of the object must be one of `known`, a list ended by NULL. */
static lamina_status check_keys(const lamina_model *model, const char *where, json_t *object,
                                const char *const *known) {
  const char *key;
  json_t *value;
  json_object_foreach(object, key, value) {
    int i = 0;
    while (known[i] && strcmp(known[i], key)) i++;
    if (!known[i])
      return lamina_fail(model->context, LAMINA_BAD_FILE, "%s: %s%sunknown key '%.60s'", model->path, where,
                         *where ? ": " : "", key);
  }
  return LAMINA_OK;
}

/* A name may hold anything that neither separates names nor vanishes when it is printed. */
static bool is_name(const json_t *value) {
  const char *text = json_string_value(value);
  if (!text || !*text || strlen(text) > 255) return false;
  for (; *text; text++)
    if ((unsigned char)*text <= ' ' || *text == ',' || *text == 127) return false;
  return true;
}

/* Enters a name into the index; it must be new. */
static lamina_status add_name(lamina_model *model, const char *where, const char *name, int number) {
  if (json_object_get(model->index, name))
    return lamina_fail(model->context, LAMINA_BAD_FILE, "%s: %s: the name '%s' is used twice", model->path, where,
                       name);
  if (json_object_set_new(model->index, name, json_integer(number)) != 0) return lamina_fail_memory(model->context, 0);
  return LAMINA_OK;
}

static lamina_status parse_inputs(lamina_model *model) {
  static const char *const keys[] = {"name", "shape", "dtype", NULL};
  size_t i;
  json_t *input;
  if (!json_is_array(model->inputs) || json_array_size(model->inputs) == 0)
    return fail(model, "inputs", "must be a list of at least one input");
  if (json_array_size(model->inputs) > LAMINA_MODEL_INPUTS) return fail(model, "inputs", "too many");
  json_array_foreach(model->inputs, i, input) {
    char where[300] = "inputs";
    if (!json_is_object(input)) return fail(model, where, "an input is not an object");
    const json_t *name = json_object_get(input, "name"), *shape = json_object_get(input, "shape");
    const json_t *dtype = json_object_get(input, "dtype");
    if (!is_name(name)) return fail(model, where, "an input has no valid name");
    snprintf(where, sizeof where, "input '%s'", json_string_value(name));
    lamina_status status = check_keys(model, where, input, keys);
    if (status == LAMINA_OK) status = add_name(model, where, json_string_value(name), -1);
    if (status != LAMINA_OK) return status;
    if (!json_is_array(shape) || json_array_size(shape) >= LAMINA_MAX_RANK)
      return fail(model, where, "shape must be a list of at most 7 sizes (of one sample, without the batch)");
    for (size_t d = 0; d < json_array_size(shape); d++)
      if (json_integer_value(json_array_get(shape, d)) < 1)
        return fail(model, where, "every size of its shape must be a whole number of at least 1");
    if (dtype && (!json_is_string(dtype) ||
                  (strcmp(json_string_value(dtype), "f32") && strcmp(json_string_value(dtype), "i32"))))
      return fail(model, where, "dtype must be \"f32\" or \"i32\"");
  }
  return LAMINA_OK;
}

/* What a layer without inputs reads: the layer before it, or the only input of the model. */
static lamina_status default_input(lamina_model *model, const char *where, int number) {
  lamina_model_layer *layer = model->layers + number;
  if (number == 0 && json_array_size(model->inputs) != 1)
    return fail(model, where, "has no inputs, and the model has more than one to choose from");
  layer->inputs[0] = number > 0 ? model->layers[number - 1].name
                                : json_string_value(json_object_get(json_array_get(model->inputs, 0), "name"));
  layer->n_inputs = 1;
  return LAMINA_OK;
}

static lamina_status parse_layer_inputs(lamina_model *model, const char *where, int number, const json_t *inputs) {
  lamina_model_layer *layer = model->layers + number;
  const size_t count = inputs ? json_array_size(inputs) : 1;
  if (inputs && (!json_is_array(inputs) || count == 0))
    return fail(model, where, "inputs must be a list of at least one name");
  if (count > LAMINA_MAX_PORTS) return fail(model, where, "has too many inputs");
  layer->inputs = lamina_alloc(model->context, count * sizeof *layer->inputs);
  layer->sources = lamina_alloc(model->context, count * sizeof *layer->sources);
  if (!layer->inputs || !layer->sources) return lamina_fail_memory(model->context, count * sizeof *layer->inputs);
  if (!inputs) return default_input(model, where, number);
  for (size_t i = 0; i < count; i++) {
    if (!is_name(json_array_get(inputs, i))) return fail(model, where, "an element of its inputs is not a valid name");
    layer->inputs[i] = json_string_value(json_array_get(inputs, i));
  }
  layer->n_inputs = (int)count;
  return LAMINA_OK;
}

static lamina_status parse_layer(lamina_model *model, int number, json_t *object) {
  static const char *const keys[] = {"type", "name", "inputs", "attributes", NULL};
  lamina_model_layer *layer = model->layers + number;
  char where[300];
  snprintf(where, sizeof where, "layer number %d", number + 1);
  if (!json_is_object(object)) return fail(model, where, "is not an object");
  const json_t *type = json_object_get(object, "type"), *name = json_object_get(object, "name");
  if (!is_name(name)) return fail(model, where, "has no valid name");
  layer->name = json_string_value(name);
  snprintf(where, sizeof where, "layer '%s'", layer->name);
  if (!is_name(type)) return fail(model, where, "has no valid type");
  layer->type = json_string_value(type);
  layer->attributes = json_object_get(object, "attributes");
  if (layer->attributes && !json_is_object(layer->attributes)) return fail(model, where, "attributes is not an object");
  lamina_status status = check_keys(model, where, object, keys);
  if (status == LAMINA_OK) status = add_name(model, where, layer->name, number);
  if (status == LAMINA_OK) status = parse_layer_inputs(model, where, number, json_object_get(object, "inputs"));
  return status;
}

static lamina_status parse_layers(lamina_model *model, json_t *layers) {
  size_t i;
  json_t *object;
  if (!json_is_array(layers) || json_array_size(layers) == 0)
    return fail(model, "layers", "must be a list of at least one layer");
  if (json_array_size(layers) > LAMINA_MODEL_LAYERS) return fail(model, "layers", "too many");
  model->count = (int)json_array_size(layers);
  model->layers = lamina_alloc_zeroed(model->context, (size_t)model->count * sizeof *model->layers);
  if (!model->layers) return lamina_fail_memory(model->context, (size_t)model->count * sizeof *model->layers);
  json_array_foreach(layers, i, object) {
    lamina_status status = parse_layer(model, (int)i, object);
    if (status != LAMINA_OK) return status;
  }
  return LAMINA_OK;
}

lamina_status lamina_model_parse(lamina_model *model, const lamina_context *context, const char *path, const char *text,
                                 size_t bytes) {
  static const char *const keys[] = {"name", "inputs", "layers", "outputs", NULL};
  json_error_t error;
  memset(model, 0, sizeof *model);
  model->context = context;
  model->path = path;
  model->index = json_object();
  if (!model->index) return lamina_fail_memory(context, 0);
  model->root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
  if (!model->root)
    return lamina_fail(context, LAMINA_BAD_FILE, "%s:%d:%d: %s", path, error.line, error.column, error.text);
  if (!json_is_object(model->root)) return fail(model, "", "a model must be a JSON object");
  lamina_status status = check_keys(model, "", model->root, keys);
  if (status != LAMINA_OK) return status;
  const json_t *name = json_object_get(model->root, "name");
  if (name && !json_is_string(name)) return fail(model, "name", "is not a string");
  model->inputs = json_object_get(model->root, "inputs");
  model->outputs = json_object_get(model->root, "outputs");
  status = parse_inputs(model);
  if (status == LAMINA_OK) status = parse_layers(model, json_object_get(model->root, "layers"));
  if (status != LAMINA_OK || !model->outputs) return status;
  if (!json_is_array(model->outputs)) return fail(model, "outputs", "must be a list of names");
  for (size_t i = 0; i < json_array_size(model->outputs); i++)
    if (!is_name(json_array_get(model->outputs, i))) return fail(model, "outputs", "an element is not a valid name");
  return LAMINA_OK;
}

void lamina_model_close(lamina_model *model) {
  for (int i = 0; model->layers && i < model->count; i++) {
    lamina_free(model->context, model->layers[i].inputs);
    lamina_free(model->context, model->layers[i].sources);
  }
  lamina_free(model->context, model->layers);
  lamina_free(model->context, model->order);
  json_decref(model->index);
  json_decref(model->root);
}
