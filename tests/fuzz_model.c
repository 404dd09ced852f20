/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever the text is, a model file is either refused or becomes a graph. */
#include "fuzz.h"
#include "io/model_file.h"

#include <string.h>

static const char *const models[] = {
    "{\"name\":\"m\",\"inputs\":[{\"name\":\"x\",\"shape\":[6,6,2],\"dtype\":\"f32\"}],\"layers\":["
    "{\"type\":\"conv2d\",\"name\":\"c\",\"attributes\":{\"out_channels\":2,\"kernel\":[3,3],\"padding\":1,\"bias\":"
    "false}},"
    "{\"type\":\"batch_norm\",\"name\":\"b\",\"attributes\":{\"eps\":1e-5,\"momentum\":null}},"
    "{\"type\":\"relu\",\"name\":\"r\"},{\"type\":\"add\",\"name\":\"s\",\"inputs\":[\"r\",\"x\"]},"
    "{\"type\":\"flatten\",\"name\":\"f\"},{\"type\":\"linear\",\"name\":\"l\",\"attributes\":{\"out_features\":3}}],"
    "\"outputs\":[\"l\"]}",
    "{\"inputs\":[{\"name\":\"x\",\"shape\":[4]},{\"name\":\"y\",\"shape\":[]}],\"layers\":["
    "{\"type\":\"add\",\"name\":\"c\",\"inputs\":[\"a\",\"b\"]},{\"type\":\"relu\",\"name\":\"a\",\"inputs\":[\"x\"]},"
    "{\"type\":\"dropout\",\"name\":\"b\",\"inputs\":[\"a\"],\"attributes\":{\"p\":0.5}}]}"};

const void *fuzz_seed(int index, size_t *bytes) {
  if (index >= (int)(sizeof models / sizeof *models)) return NULL;
  *bytes = strlen(models[index]);
  return models[index];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  lamina_context *context = fuzz_context();
  lamina_graph *graph;
  if (lamina_model_build(context, "input", (const char *)data, bytes, &graph) == LAMINA_OK)
    lamina_graph_destroy(graph);
  else if (graph)
    abort();
  return 0;
}
