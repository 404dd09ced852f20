/* SPDX-License-Identifier: Apache-2.0 */
/* Model files: JSON with the keys name, inputs, layers and outputs.

   {"name": "mynet",
    "inputs": [{"name": "image", "shape": [28, 28, 3], "dtype": "f32"}],
    "layers": [{"type": "conv2d", "name": "conv1", "inputs": ["image"], "attributes": {"out_channels": 64, "kernel":
   3}}], "outputs": ["conv1"]}

   A layer without inputs reads the layer before it in the file, the first one the model's only input. Layers may stand
   in any order. Without outputs, every value that nothing reads is one. */
#ifndef LAMINA_IO_MODEL_FILE_H
#define LAMINA_IO_MODEL_FILE_H

#include "core.h"

#include <jansson.h>

enum { LAMINA_MODEL_BYTES = 64 << 20, LAMINA_MODEL_LAYERS = 10000, LAMINA_MODEL_INPUTS = 1024 };

typedef struct lamina_model_layer {
  const char *type, *name;
  const char **inputs; /* names of values, as written or filled in */
  int *sources;        /* for each input: the index of the layer that makes it, or -1 for an input of the model */
  int n_inputs;
  json_t *attributes; /* or NULL */
} lamina_model_layer;

/* A model file, checked but for what only the layers themselves know. */
typedef struct lamina_model {
  const lamina_context *context;
  const char *path;
  json_t *root;
  json_t *inputs, *outputs; /* arrays of the root */
  lamina_model_layer *layers;
  int count;
  int *order;    /* of execution */
  json_t *index; /* name of a layer -> its number; of a model input -> -1 */
} lamina_model;

/* Checks text and structure. `model` must be cleaned up by lamina_model_close in any case. */
lamina_status lamina_model_parse(lamina_model *model, const lamina_context *context, const char *path, const char *text,
                                 size_t bytes);
/* Finds what each layer reads and sorts the layers; a cycle is an error that names its layers. */
lamina_status lamina_model_sort(lamina_model *model);
void lamina_model_close(lamina_model *model);

/* The graph of a model given as text; `path` is for messages. */
lamina_status lamina_model_build(lamina_context *context, const char *path, const char *text, size_t bytes,
                                 lamina_graph **graph);

/* A layer's attributes as the text that lamina_graph_add takes; to be freed with lamina_free. */
lamina_status lamina_model_attributes(const lamina_model *model, const lamina_model_layer *layer, char **text);

#endif
