/* SPDX-License-Identifier: Apache-2.0 */
#include "graph.h"
#include "io/weights.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

const char *lamina_optimizer_name(lamina_optimizer_type type) {
  switch (type) {
  case LAMINA_SGD:
    return "sgd";
  case LAMINA_ADAM:
    return "adam";
  case LAMINA_ADAMW:
    return "adamw";
  }
  return NULL;
}

const char *lamina_slot_name(lamina_optimizer_type type, int slot) {
  if (type == LAMINA_SGD) return slot == 0 ? "momentum" : NULL;
  return slot == 0 ? "exp_avg" : "exp_avg_sq";
}

char *lamina_state_tensor_name(const lamina_context *context, const char *state, const char *name) {
  size_t bytes = sizeof LAMINA_OPTIMIZER_PREFIX + strlen(state) + 1 + strlen(name);
  char *text = lamina_alloc(context, bytes);
  if (text) snprintf(text, bytes, LAMINA_OPTIMIZER_PREFIX "%s.%s", state, name);
  return text;
}

lamina_status lamina_weights_entries(lamina_graph *graph, lamina_entry ***out, size_t *out_count) {
  const int n = lamina_graph_parameter_count(graph);
  const size_t bytes = ((size_t)n + 1) * sizeof(lamina_entry *);
  size_t count = 0;
  lamina_entry **entries = lamina_alloc(graph->context, bytes);
  if (!entries) return lamina_fail_memory(graph->context, bytes);
  for (size_t i = 0; i < graph->node_count; i++)
    for (int k = 0; k < graph->nodes[i]->n_params; k++)
      if (graph->nodes[i]->params[k]) entries[count++] = graph->nodes[i]->params[k];
  *out = entries;
  *out_count = count;
  return LAMINA_OK;
}

/* Everything that goes into one file. */
typedef struct {
  const lamina_context *context;
  lamina_store *store;
  lamina_entry **entries;
  size_t entry_count;
  lamina_named_tensor *tensors; /* the first entry_count have the entries' names, the others own theirs */
  size_t count;
  lamina_metadata *metadata;
  char step[24];
} checkpoint;

static lamina_status add_state(checkpoint *c, const lamina_entry *entry, const char *state, lamina_tensor tensor) {
  char *name = lamina_state_tensor_name(c->context, state, entry->name);
  if (!name) return lamina_fail_memory(c->context, strlen(entry->name));
  c->tensors[c->count++] = (lamina_named_tensor){.name = name, .tensor = tensor};
  return LAMINA_OK;
}

static lamina_status add_slots(checkpoint *c) {
  const lamina_optimizer_type type = c->store->optimizer;
  lamina_status status = LAMINA_OK;
  for (size_t i = 0; i < c->entry_count; i++) {
    lamina_entry *entry = c->entries[i];
    for (int slot = 0; slot < 2 && !status; slot++) {
      lamina_tensor tensor = entry->tensor;
      tensor.data = entry->slot[slot];
      if (tensor.data && lamina_slot_name(type, slot))
        status = add_state(c, entry, lamina_slot_name(type, slot), tensor);
    }
    if (!status && entry->slot[0] && entry->steps != c->store->step)
      status = add_state(c, entry, LAMINA_STEPS_NAME, (lamina_tensor){.data = &entry->steps, .dtype = LAMINA_I64});
    if (status) return status;
  }
  return LAMINA_OK;
}

static lamina_status add_tensors(checkpoint *c, uint32_t flags) {
  const size_t bytes = (4 * c->entry_count + 1) * sizeof *c->tensors; /* a parameter, two slots, its steps */
  c->tensors = lamina_alloc(c->context, bytes);
  if (!c->tensors) return lamina_fail_memory(c->context, bytes);
  for (size_t i = 0; i < c->entry_count; i++) {
    lamina_entry *entry = c->entries[i];
    /* What was never written has its initial value, as everywhere. */
    lamina_status status = lamina_store_ensure_written(c->store, entry);
    if (status != LAMINA_OK) return status;
    c->tensors[c->count++] = (lamina_named_tensor){.name = entry->name, .tensor = entry->tensor};
  }
  return flags & LAMINA_WEIGHTS_TRAINING ? add_slots(c) : LAMINA_OK;
}

/* The caller's metadata, `format` as PyTorch's readers expect it, and the state of the optimizer. */
static lamina_status add_metadata(checkpoint *c, uint32_t flags, const lamina_metadata *given) {
  size_t count = 0, n = 0;
  bool has_format = false;
  for (; given && given[count].key; count++) has_format = has_format || !strcmp(given[count].key, "format");
  c->metadata = lamina_alloc(c->context, (count + 4) * sizeof *c->metadata);
  if (!c->metadata) return lamina_fail_memory(c->context, (count + 4) * sizeof *c->metadata);
  if (!has_format) c->metadata[n++] = (lamina_metadata){"format", "pt"};
  if (flags & LAMINA_WEIGHTS_TRAINING) {
    snprintf(c->step, sizeof c->step, "%" PRId64, c->store->step);
    c->metadata[n++] = (lamina_metadata){"optimizer", lamina_optimizer_name(c->store->optimizer)};
    c->metadata[n++] = (lamina_metadata){"step", c->step};
  }
  for (size_t i = 0; i < count; i++) c->metadata[n++] = given[i];
  c->metadata[n] = (lamina_metadata){NULL, NULL};
  return LAMINA_OK;
}

lamina_status lamina_graph_save_weights(lamina_graph *graph, const char *path, uint32_t flags,
                                        const lamina_metadata *metadata) {
  if (!graph) return LAMINA_INVALID_ARGUMENT;
  checkpoint c = {.context = lamina_graph_context(graph), .store = lamina_graph_store(graph)};
  lamina_status status = lamina_weights_entries(graph, &c.entries, &c.entry_count);
  if (status != LAMINA_OK) return status;
  status = add_tensors(&c, flags);
  if (status == LAMINA_OK) status = add_metadata(&c, flags, metadata);
  if (status == LAMINA_OK) status = lamina_safetensors_write(c.context, path, c.tensors, c.count, c.metadata);
  for (size_t i = c.entry_count; i < c.count; i++) lamina_free(c.context, (char *)c.tensors[i].name);
  lamina_free(c.context, c.tensors);
  lamina_free(c.context, c.metadata);
  lamina_free(c.context, c.entries);
  return status;
}

lamina_status lamina_weights_metadata(lamina_context *context, const char *path, const char *key, char *value,
                                      size_t value_size) {
  if (!context) return LAMINA_INVALID_ARGUMENT;
  if (!key || !value || !value_size)
    return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "lamina_weights_metadata: key or value is missing");
  lamina_safetensors *file;
  lamina_status status = lamina_safetensors_open(context, path, LAMINA_SAFETENSORS_HEADER_ONLY, &file);
  if (status != LAMINA_OK) return status;
  const char *text = lamina_safetensors_metadata(file, key);
  if (text)
    snprintf(value, value_size, "%s", text);
  else
    status = lamina_fail(context, LAMINA_NOT_FOUND, "%s: has no metadata '%.100s'", path, key);
  lamina_safetensors_close(file);
  return status;
}
