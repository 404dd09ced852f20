/* SPDX-License-Identifier: Apache-2.0 */
#include "layer_type.h"

#include "plugin/search.h"

#include <stdio.h>
#include <string.h>

enum { NAME = 256 };
static const char own_vendor[] = "lamina"; /* of what is built in */

typedef struct layer_type {
  char vendor[NAME], layer[NAME]; /* vendor: "" for any */
  uint32_t version;
} layer_type;

/* An id is vendor.name. */
static int vendor_length(const lamina_module *module) {
  return (int)(module ? strcspn(module->id, ".") : sizeof own_vendor - 1);
}

static const char *vendor_of(const lamina_module *module) { return module ? module->id : own_vendor; }

static bool read_type(const char *text, layer_type *t) {
  const char *at = strrchr(text, '@'), *dot = strchr(text, '.');
  *t = (layer_type){.version = 0};
  if (!at) return (size_t)snprintf(t->layer, NAME, "%s", text) < NAME;
  if (!dot || dot == text || dot + 1 >= at || at - text >= NAME || !at[1] || strlen(at) > 11) return false;
  uint64_t version = 0;
  for (const char *p = at + 1; *p; p++) {
    if (*p < '0' || *p > '9') return false;
    version = version * 10 + (uint64_t)(*p - '0');
  }
  if (version > UINT32_MAX) return false;
  t->version = (uint32_t)version;
  memcpy(t->vendor, text, (size_t)(dot - text));
  memcpy(t->layer, dot + 1, (size_t)(at - dot - 1));
  return true;
}

static lamina_status check_type(const lamina_context *context, const layer_type *t, const char *type, const char *node,
                                const lamina_registration *row) {
  while (row->hidden) row = row->hidden; /* an override is as good as what it stands before */
  const int length = vendor_length(row->module);
  if ((int)strlen(t->vendor) != length || strncmp(t->vendor, vendor_of(row->module), (size_t)length) != 0)
    return lamina_fail(context, LAMINA_NOT_FOUND,
                       "node '%s': it needs %s, and the layer '%s' that is there comes from '%.*s' (%s)", node, type,
                       t->layer, length, vendor_of(row->module), row->provider);
  if (row->layer->version < t->version)
    return lamina_fail(context, LAMINA_UNSUPPORTED,
                       "node '%s': it was made with %s, and what is there is version %u (%s): a newer one is needed",
                       node, type, row->layer->version, row->provider);
  return LAMINA_OK;
}

lamina_status lamina_layer_type_hold(lamina_context *context, const char *type, const char *node,
                                     lamina_registration *row) {
  layer_type t;
  if (!type) return lamina_plugin_suggest(context, node, "NULL");
  if (!read_type(type, &t))
    return lamina_fail(context, LAMINA_INVALID_ARGUMENT,
                       "node '%s': '%.300s' names no layer: it is neither LAYER nor VENDOR.LAYER@VERSION", node, type);
  if (!lamina_registry_hold(context, t.layer, row)) return lamina_plugin_suggest(context, node, t.layer);
  const lamina_status status = *t.vendor ? check_type(context, &t, type, node, row) : LAMINA_OK;
  if (status) lamina_module_release(context, row->module);
  return status;
}

void lamina_layer_type_write(const lamina_layer *layer, const lamina_module *module, char *text, size_t bytes) {
  layer_type t;
  int length = -1;
  if (module && !(layer->flags & LAMINA_LAYER_OVERRIDE))
    length = snprintf(text, bytes, "%.*s.%s@%u", vendor_length(module), vendor_of(module), layer->name, layer->version);
  /* what could not be read again (an id without a vendor, too long a name) goes without */
  if (length < 0 || (size_t)length >= bytes || !read_type(text, &t)) snprintf(text, bytes, "%s", layer->name);
}
