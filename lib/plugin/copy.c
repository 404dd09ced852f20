/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/copy.h"

#include <string.h>

enum { MAX_ITEMS = 256 };

/* What a struct must hold at least: what came after is optional, and zero where a plugin does not have it. */
#define END_OF(type, field) (offsetof(type, field) + sizeof(((type *)0)->field))

static lamina_status copy_struct(const lamina_context *context, const lamina_module *module, const char *what,
                                 const void *from, size_t least, size_t bytes, void *to) {
  size_t size;
  memcpy(&size, from, sizeof size);
  if (size < least || size > (size_t)1 << 20)
    return lamina_fail(context, LAMINA_PLUGIN_ERROR, "%s: the size of a %s is given as %zu bytes; it has at least %zu",
                       module->path, what, size, least);
  memset(to, 0, bytes);
  memcpy(to, from, size < bytes ? size : bytes);
  memcpy(to, &bytes, sizeof bytes);
  return LAMINA_OK;
}

/* A copy of a NULL-ended array of pointers to structs, and of the structs. NULL stays NULL. */
static lamina_status copy_array(const lamina_context *context, lamina_module *module, const char *what,
                                const void *const *from, size_t least, size_t bytes, const void **to) {
  size_t count = 0;
  *to = NULL;
  if (!from) return LAMINA_OK;
  while (count <= MAX_ITEMS && from[count]) count++;
  if (count > MAX_ITEMS)
    return lamina_fail(context, LAMINA_PLUGIN_ERROR, "%s: a layer has more than %d of a %s, or no NULL after the last",
                       module->path, MAX_ITEMS, what);
  const void **pointers = lamina_module_alloc(context, module, (count + 1) * sizeof *pointers);
  char *items = lamina_module_alloc(context, module, count * bytes + 1);
  if (!pointers || !items) return lamina_fail_memory(context, count * bytes);
  for (size_t i = 0; i < count; i++) {
    lamina_status status = copy_struct(context, module, what, from[i], least, bytes, items + i * bytes);
    if (status) return status;
    pointers[i] = items + i * bytes;
  }
  pointers[count] = NULL;
  *to = pointers;
  return LAMINA_OK;
}

lamina_status lamina_plugin_copy(const lamina_context *context, const char *path, const lamina_plugin *from,
                                 lamina_plugin *to) {
  char *name = (char *)path;
  const lamina_module module = {.path = name};
  return copy_struct(context, &module, "plugin descriptor", from, END_OF(lamina_plugin, manifest), sizeof *to, to);
}

lamina_status lamina_layer_copy(const lamina_context *context, lamina_module *module, const lamina_layer *from,
                                lamina_layer **to) {
  const void *array = NULL;
  lamina_layer *layer = *to = lamina_module_alloc(context, module, sizeof *layer);
  if (!layer) return lamina_fail_memory(context, sizeof *layer);
  lamina_status status =
      copy_struct(context, module, "lamina_layer", from, END_OF(lamina_layer, infer), sizeof *layer, layer);
  if (status) return status;
  status = copy_array(context, module, "lamina_attr", (const void *const *)layer->attrs, END_OF(lamina_attr, count),
                      sizeof(lamina_attr), &array);
  layer->attrs = array;
  if (status) return status;
  status = copy_array(context, module, "lamina_port", (const void *const *)layer->ports,
                      END_OF(lamina_port, initializer), sizeof(lamina_port), &array);
  layer->ports = array;
  if (status) return status;
  status = copy_array(context, module, "lamina_kernel", (const void *const *)layer->kernels,
                      END_OF(lamina_kernel, backward), sizeof(lamina_kernel), &array);
  layer->kernels = array;
  return status;
}

static bool same_text(const char *a, const char *b) { return a == b || (a && b && strcmp(a, b) == 0); }

static bool same_attributes(const lamina_layer *a, const lamina_layer *b) {
  const lamina_attr *const none = NULL, *const *p = a->attrs ? a->attrs : &none,
                           *const *q = b->attrs ? b->attrs : &none;
  for (; *p && *q; p++, q++)
    if (!same_text((*p)->name, (*q)->name) || (*p)->type != (*q)->type || (*p)->count != (*q)->count ||
        !same_text((*p)->def, (*q)->def))
      return false;
  return !*p && !*q;
}

/* The ports of `a`, which are copies, then keep what the backward of either reads. */
static bool join_ports(const lamina_layer *a, const lamina_layer *b) {
  const lamina_port *const *p = a->ports, *const *q = b->ports;
  const lamina_dtype f32 = LAMINA_F32;
  for (; *p && *q; p++, q++) {
    if (!same_text((*p)->name, (*q)->name) || (*p)->kind != (*q)->kind ||
        (((*p)->flags ^ (*q)->flags) & ~(uint32_t)LAMINA_PORT_BACKWARD_READS) ||
        ((*p)->dtype ? (*p)->dtype : f32) != ((*q)->dtype ? (*q)->dtype : f32))
      return false;
    ((lamina_port *)*p)->flags |= (*q)->flags;
  }
  return !*p && !*q;
}

lamina_status lamina_layer_override(const lamina_context *context, lamina_module *module, lamina_layer *layer,
                                    const lamina_layer *base) {
  if (!layer->ports || !base->ports || !same_attributes(layer, base) || !join_ports(layer, base))
    return lamina_fail(
        context, LAMINA_PLUGIN_ERROR,
        "%s: its layer '%s' overrides one with other attributes or ports: both must have the same names, "
        "types, defaults and flags in the same order ('lamina layers %s' shows them)",
        module->path, layer->name, layer->name);
  size_t own = 0, others = 0;
  while (layer->kernels && layer->kernels[own]) own++;
  while (base->kernels[others]) others++;
  const lamina_kernel **kernels = lamina_module_alloc(context, module, (own + others + 1) * sizeof *kernels);
  if (!kernels) return lamina_fail_memory(context, (own + others + 1) * sizeof *kernels);
  if (own) memcpy(kernels, layer->kernels, own * sizeof *kernels);
  memcpy(kernels + own, base->kernels, (others + 1) * sizeof *kernels);
  layer->kernels = kernels;
  /* Whichever kernel runs, what the layer promises holds. */
  const uint32_t own_word = LAMINA_LAYER_OVERRIDE | LAMINA_LAYER_TRAINS_DIFFERENTLY |
                            LAMINA_LAYER_STOPS_GRADIENT; /* these promise nothing */
  layer->flags = (layer->flags & base->flags) | ((layer->flags | base->flags) & own_word);
  layer->epilogues &= base->epilogues;
  return LAMINA_OK;
}
