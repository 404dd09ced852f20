/* SPDX-License-Identifier: Apache-2.0 */
/* A plugin's descriptors as this library knows them, whatever minor version of the ABI they were compiled with. */
#ifndef LAMINA_PLUGIN_COPY_H
#define LAMINA_PLUGIN_COPY_H

#include "registry.h"

/* Copies the descriptor of a plugin, zero-extended or cut to this library's size. */
lamina_status lamina_plugin_copy(const lamina_context *context, const char *path, const lamina_plugin *from,
                                 lamina_plugin *to);
/* Copies a layer with all that it points to into the module's memory. */
lamina_status lamina_layer_copy(const lamina_context *context, lamina_module *module, const lamina_layer *from,
                                lamina_layer **to);
/* Makes `layer`, a copy, stand before `base`: its kernels first, then the other's. Both must declare the same
   attributes and ports. */
lamina_status lamina_layer_override(const lamina_context *context, lamina_module *module, lamina_layer *layer,
                                    const lamina_layer *base);

#endif
