/* SPDX-License-Identifier: Apache-2.0 */
/* Ports and shape inference: what a graph and a plan both ask of a layer. */
#include <ctype.h>
#include <string.h>

#include "graph.h"

static bool same_kind(lamina_port_kind a, lamina_port_kind wanted) {
  return a == wanted || (wanted == LAMINA_PORT_PARAMETER && a == LAMINA_PORT_STATE);
}

int lamina_port_count(const lamina_layer *layer, lamina_port_kind kind) {
  int count = 0;
  for (const lamina_port *const *p = layer->ports; p && *p; p++) count += same_kind((*p)->kind, kind);
  return count;
}

const lamina_port *lamina_port_at(const lamina_layer *layer, lamina_port_kind kind, int index) {
  for (const lamina_port *const *p = layer->ports; p && *p; p++)
    if (same_kind((*p)->kind, kind) && index-- == 0) return *p;
  return NULL;
}

const lamina_port *lamina_input_port(const lamina_layer *layer, int index) {
  int declared = lamina_port_count(layer, LAMINA_PORT_INPUT);
  return lamina_port_at(layer, LAMINA_PORT_INPUT, index < declared ? index : declared - 1);
}

int lamina_next_name(const char **list, char *name, size_t bytes) {
  const char *p = *list;
  while (isspace((unsigned char)*p)) p++;
  if (!*p) return 0;
  size_t length = strcspn(p, ",");
  *list = p[length] ? p + length + 1 : p + length;
  while (length && isspace((unsigned char)p[length - 1])) length--;
  if (!length || length >= bytes) return -1;
  memcpy(name, p, length);
  name[length] = '\0';
  return 1;
}

static lamina_status check_tensor(const lamina_context *context, const lamina_node *node, const lamina_port *port,
                                  lamina_tensor *tensor, int least) {
  size_t bytes;
  tensor->dtype = port->dtype ? port->dtype : LAMINA_F32;
  if (tensor->rank < 0 || tensor->rank > LAMINA_MAX_RANK)
    return lamina_fail(context, LAMINA_PLUGIN_ERROR, "node '%s': its layer gave '%s' the rank %d", node->name, port->name,
                       tensor->rank);
  for (int i = 0; i < tensor->rank; i++)
    if (tensor->dim[i] < least)
      return lamina_fail(context, LAMINA_SHAPE_MISMATCH, "node '%s': '%s' would have a size of %lld in dimension %d",
                         node->name, port->name, (long long)tensor->dim[i], i);
  if (!lamina_tensor_bytes(tensor, &bytes))
    return lamina_fail(context, LAMINA_SHAPE_MISMATCH, "node '%s': the size of '%s' overflows", node->name, port->name);
  lamina_tensor_set_dense(tensor);
  return LAMINA_OK;
}

lamina_status lamina_infer(const lamina_context *context, const lamina_layer *layer, lamina_node *node) {
  char shapes[200] = "", one[96];
  node->size = sizeof *node;
  node->host = &context->host;
  for (int i = 0; i < node->n_outputs; i++) node->outputs[i].rank = -1;
  for (int i = 0; i < node->n_params; i++) node->params[i].rank = -1;
  lamina_status status = layer->infer(node);
  if (status) {
    for (int i = 0; i < node->n_inputs; i++) {
      lamina_shape_text(&node->inputs[i], one, sizeof one);
      if (strlen(shapes) + strlen(one) + 3 < sizeof shapes) strcat(strcat(shapes, i ? ", " : ""), one);
    }
    return lamina_fail_prefix(context, status, "node '%s' (%s of %s)", node->name, layer->name, shapes);
  }
  for (int i = 0; i < node->n_outputs && !status; i++)
    status = check_tensor(context, node, lamina_port_at(layer, LAMINA_PORT_OUTPUT, i), &node->outputs[i], 1);
  for (int i = 0; i < node->n_params && !status; i++)
    if (node->params[i].rank >= 0)
      status = check_tensor(context, node, lamina_port_at(layer, LAMINA_PORT_PARAMETER, i), &node->params[i], 1);
  return status;
}
