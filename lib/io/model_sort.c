/* SPDX-License-Identifier: Apache-2.0 */
/* The order of a model's layers. */
#include "io/model_file.h"

#include <stdio.h>
#include <string.h>

enum { WAITING, VISITING, DONE };

/* The layer (-1: an input of the model) that makes a value: the value has the layer's name, or LAYER.PORT. */
static bool find_source(const lamina_model *model, const char *value, int *source) {
  const json_t *number = json_object_get(model->index, value);
  const char *dot = strrchr(value, '.');
  if (!number && dot) {
    char layer[256];
    snprintf(layer, sizeof layer, "%.*s", (int)(dot - value), value);
    number = json_object_get(model->index, layer);
    if (number && json_integer_value(number) < 0) number = NULL; /* an input has no ports */
  }
  if (!number) return false;
  *source = (int)json_integer_value(number);
  return true;
}

static lamina_status find_sources(lamina_model *model) {
  for (int i = 0; i < model->count; i++) {
    const lamina_model_layer *layer = model->layers + i;
    for (int k = 0; k < layer->n_inputs; k++)
      if (!find_source(model, layer->inputs[k], &layer->sources[k]))
        return lamina_fail(model->context, LAMINA_BAD_FILE,
                           "%s: layer '%s': its input '%s' is neither a layer nor an input of the model", model->path,
                           layer->name, layer->inputs[k]);
  }
  return LAMINA_OK;
}

/* `stack` holds the path of the search, which has come back to `again`: the layers from there on are the cycle. */
static lamina_status fail_cycle(const lamina_model *model, const int *stack, int depth, int again) {
  char text[512] = "";
  size_t used = 0;
  int start = 0;
  while (stack[start] != again) start++;
  for (int i = depth - 1; i >= start && used < sizeof text - 300; i--)
    used += (size_t)snprintf(text + used, sizeof text - used, "%s -> ", model->layers[stack[i]].name);
  snprintf(text + used, sizeof text - used, "%s",
           used < sizeof text - 300 ? model->layers[stack[depth - 1]].name : "...");
  return lamina_fail(model->context, LAMINA_BAD_FILE, "%s: the layers form a cycle: %s", model->path, text);
}

/* Depth first from one layer, without recursion; next[i] is the input of layer i to be visited next. */
static lamina_status visit(lamina_model *model, int root, unsigned char *state, int *next, int *stack, int *placed) {
  int depth = 0;
  if (state[root] == DONE) return LAMINA_OK;
  stack[depth++] = root;
  state[root] = VISITING;
  while (depth) {
    const int at = stack[depth - 1];
    const lamina_model_layer *layer = model->layers + at;
    if (next[at] == layer->n_inputs) {
      state[at] = DONE;
      model->order[(*placed)++] = at;
      depth--;
      continue;
    }
    const int source = layer->sources[next[at]++];
    if (source < 0 || state[source] == DONE) continue;
    if (state[source] == VISITING) return fail_cycle(model, stack, depth, source);
    state[source] = VISITING;
    stack[depth++] = source;
  }
  return LAMINA_OK;
}

lamina_status lamina_model_sort(lamina_model *model) {
  const size_t count = (size_t)model->count;
  int placed = 0;
  lamina_status status = find_sources(model);
  if (status != LAMINA_OK) return status;
  model->order = lamina_alloc(model->context, count * sizeof *model->order);
  int *next = lamina_alloc_zeroed(model->context, count * sizeof *next);
  int *stack = lamina_alloc(model->context, count * sizeof *stack);
  unsigned char *state = lamina_alloc_zeroed(model->context, count);
  if (!model->order || !next || !stack || !state) status = lamina_fail_memory(model->context, count * sizeof *next);
  for (int i = 0; i < model->count && status == LAMINA_OK; i++) status = visit(model, i, state, next, stack, &placed);
  lamina_free(model->context, state);
  lamina_free(model->context, stack);
  lamina_free(model->context, next);
  return status;
}
