/* SPDX-License-Identifier: Apache-2.0 */
/* "key=value" text to the typed values that a layer declares. */
#ifndef LAMINA_ATTRIBUTES_H
#define LAMINA_ATTRIBUTES_H

#include "core.h"

/* Called for each "init.PORT=NAME" pair: initialisers are the host's business, not the layer's. */
typedef lamina_status (*lamina_initializer_setter)(void *user, const char *port, const char *initializer);

int lamina_attr_count(const lamina_layer *layer);
/* Index of a declared attribute, or -1. */
int lamina_attr_index(const lamina_layer *layer, const char *name);
/* Parses `text` (may be NULL) into values[lamina_attr_count(layer)]. String values point into `storage`, which the caller
   gives as a buffer of at least lamina_attr_storage(layer, text) bytes and keeps as long as the values. */
size_t lamina_attr_storage(const lamina_layer *layer, const char *text);
lamina_status lamina_attr_parse(const lamina_context *context, const lamina_layer *layer, const char *text,
                                lamina_value *values, char *storage, lamina_initializer_setter set_initializer,
                                void *user);

#endif
