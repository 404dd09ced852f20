/* SPDX-License-Identifier: Apache-2.0 */
/* How a model names the layer of a node: "conv2d", or "vendor.layer@version" for one that a plugin brings. */
#ifndef LAMINA_LAYER_TYPE_H
#define LAMINA_LAYER_TYPE_H

#include "registry.h"

/* Holds the layer that `type` names, as lamina_registry_hold does, for a node of that name. Fails when it is not there, is
   another vendor's, or is older than the one that the model was made with. */
lamina_status lamina_layer_type_hold(lamina_context *context, const char *type, const char *node,
                                     lamina_registration *row);
/* The name to save: as short as above for a layer of the library, and for an override, whose place the one that it stands
   before can take. At most `bytes` with the zero. */
void lamina_layer_type_write(const lamina_layer *layer, const lamina_module *module, char *text, size_t bytes);

#endif
