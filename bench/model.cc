/* SPDX-License-Identifier: Apache-2.0 */
#include "model.h"
#include "side.h"

#include "lamina/lamina.h"

#include <jansson.h>

namespace bench {

Array make_images(int64_t count) {
  Array images(count);
  for (int64_t i = 0; i < count; i++) images[i] = static_cast<float>(i * 7919 % 255) / 127.5f - 1;
  return images;
}

Array model_images(const Model &m, int64_t batch) { return make_images(batch * m.height * m.width * m.channels); }

/* An attribute of one integer or an array of them; what is not there is `otherwise`. */
static std::vector<int64_t> integers(const json_t *attributes, const char *name, std::vector<int64_t> otherwise) {
  const json_t *value = json_object_get(attributes, name);
  if (json_is_integer(value)) return {json_integer_value(value)};
  if (!json_is_array(value)) return otherwise;
  std::vector<int64_t> list;
  for (size_t i = 0; i < json_array_size(value); i++) list.push_back(json_integer_value(json_array_get(value, i)));
  return list;
}

static Layer read_layer(const json_t *o) {
  Layer l;
  l.type = json_string_value(json_object_get(o, "type"));
  l.name = json_string_value(json_object_get(o, "name"));
  const json_t *inputs = json_object_get(o, "inputs"), *attributes = json_object_get(o, "attributes");
  for (size_t i = 0; i < json_array_size(inputs); i++) l.inputs.push_back(json_string_value(json_array_get(inputs, i)));
  for (const char *name : {"out_channels", "out_features"})
    if (json_object_get(attributes, name)) l.outputs = integers(attributes, name, {}).at(0);
  if (json_object_get(attributes, "dilation") || json_object_get(attributes, "ceil_mode") ||
      json_object_get(attributes, "eps"))
    throw Unsupported("layer '" + l.name + "' has attributes that this side does not know");
  const std::vector<int64_t> kernel = integers(attributes, "kernel", {1});
  const bool pool = l.type.find("pool") != std::string::npos;
  const std::vector<int64_t> stride = integers(attributes, "stride", pool ? kernel : std::vector<int64_t>{1});
  const std::vector<int64_t> padding = integers(attributes, "padding", {0});
  l.kh = kernel.front(), l.kw = kernel.back();
  l.sh = stride.front(), l.sw = stride.back();
  l.top = padding.front(), l.left = padding[padding.size() > 1];
  l.bottom = padding[padding.size() == 4 ? 2 : 0], l.right = padding.back();
  l.groups = integers(attributes, "groups", {1}).front();
  return l;
}

/* Parameters come from Lamina itself, which knows their shapes and initialisers. */
static void read_parameters(Model &m, const std::string &path) {
  lamina_context *context = nullptr;
  lamina_graph *graph = nullptr;
  lamina_status status = lamina_context_create(nullptr, &context);
  if (!status) status = lamina_graph_load_model(context, path.c_str(), &graph);
  if (!status) status = lamina_graph_initialize(graph, 0);
  for (int i = 0; !status && i < lamina_graph_parameter_count(graph); i++) {
    lamina_parameter p = {};
    p.size = sizeof p;
    status = lamina_graph_parameter_at(graph, i, &p);
    if (status || p.tensor.dtype != LAMINA_F32) continue;
    const float *values = static_cast<const float *>(p.tensor.data);
    m.parameters[p.name].assign(values, values + lamina_tensor_count(&p.tensor));
  }
  const std::string message = status ? lamina_error_message(context) : "";
  lamina_graph_destroy(graph);
  lamina_context_destroy(context);
  if (status) throw std::runtime_error(path + ": " + message);
}

Model load_model(const std::string &path) {
  Model m;
  read_parameters(m, path); // which also checks the file
  const std::unique_ptr<json_t, void (*)(json_t *)> root(json_load_file(path.c_str(), 0, nullptr), json_decref);
  const json_t *input = json_array_get(json_object_get(root.get(), "inputs"), 0), *shape = json_object_get(input, "shape");
  const json_t *layers = json_object_get(root.get(), "layers"), *outputs = json_object_get(root.get(), "outputs");
  if (json_array_size(shape) != 3 || json_array_size(outputs) != 1) throw Unsupported(path + ": not one image in, one value out");
  m.input = json_string_value(json_object_get(input, "name"));
  m.output = json_string_value(json_array_get(outputs, 0));
  m.height = json_integer_value(json_array_get(shape, 0));
  m.width = json_integer_value(json_array_get(shape, 1));
  m.channels = json_integer_value(json_array_get(shape, 2));
  for (size_t i = 0; i < json_array_size(layers); i++) m.layers.push_back(read_layer(json_array_get(layers, i)));
  return m;
}

} // namespace bench
