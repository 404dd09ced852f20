/* SPDX-License-Identifier: Apache-2.0 */
#include "store.h"

#include <string.h>

#include "initialize.h"
#include "random.h"

lamina_store *lamina_store_create(lamina_context *context) {
  lamina_store *store = lamina_alloc_zeroed(context, sizeof *store);
  if (!store) return NULL;
  atomic_init(&store->references, 1);
  atomic_init(&store->version, 1);
  pthread_mutex_init(&store->write_lock, NULL);
  store->context = context;
  lamina_context_retain(context);
  return store;
}

void lamina_store_retain(lamina_store *store) { atomic_fetch_add(&store->references, 1); }

static void destroy_entry(const lamina_context *context, lamina_entry *entry) {
  if (!entry) return;
  lamina_free(context, entry->slot[0]);
  lamina_free(context, entry->slot[1]);
  lamina_free(context, entry->tensor.data);
  lamina_free(context, entry->initializer);
  lamina_free(context, entry->name);
  lamina_free(context, entry);
}

void lamina_store_release(lamina_store *store) {
  if (!store || atomic_fetch_sub(&store->references, 1) > 1) return;
  lamina_context *context = store->context;
  for (size_t i = 0; i < store->count; i++) destroy_entry(context, store->entries[i]);
  lamina_free(context, store->entries);
  pthread_mutex_destroy(&store->write_lock);
  lamina_free(context, store);
  lamina_context_release(context);
}

void lamina_store_truncate(lamina_store *store, size_t kept) {
  while (store->count > kept) destroy_entry(store->context, store->entries[--store->count]);
}

lamina_entry *lamina_store_find(const lamina_store *store, const char *name) {
  for (size_t i = 0; i < store->count; i++)
    if (strcmp(store->entries[i]->name, name) == 0) return store->entries[i];
  return NULL;
}

static lamina_status check_same(const lamina_store *store, const lamina_entry *entry, const lamina_tensor *shape) {
  if (lamina_same_shape(&entry->tensor, shape) && entry->tensor.dtype == shape->dtype) return LAMINA_OK;
  char here[96], there[96];
  return lamina_fail(store->context, LAMINA_SHAPE_MISMATCH, "parameter '%s' is %s here, but %s in the shared store",
                     entry->name, lamina_shape_text(shape, here, sizeof here),
                     lamina_shape_text(&entry->tensor, there, sizeof there));
}

static lamina_status fill_entry(lamina_store *store, lamina_entry *entry, const char *name, const lamina_tensor *shape,
                                const char *initializer) {
  const lamina_context *context = store->context;
  size_t bytes;
  if (!lamina_tensor_bytes(shape, &bytes))
    return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "parameter '%s': its size overflows", name);
  entry->tensor = *shape;
  lamina_tensor_set_dense(&entry->tensor);
  entry->name = lamina_copy_string(context, name);
  entry->initializer = lamina_copy_string(context, initializer);
  entry->tensor.data = lamina_alloc_zeroed(context, bytes);
  return entry->name && entry->initializer && entry->tensor.data ? LAMINA_OK : lamina_fail_memory(context, bytes);
}

lamina_status lamina_store_add(lamina_store *store, const char *name, const lamina_tensor *shape, const lamina_port *port,
                               const char *initializer, int64_t fan_in, int64_t fan_out, lamina_entry **out) {
  lamina_entry *entry = lamina_store_find(store, name);
  if (entry) {
    *out = entry;
    return check_same(store, entry, shape);
  }
  const lamina_context *context = store->context;
  lamina_entry **entries =
      lamina_grow(context, store->entries, &store->capacity, store->count + 1, sizeof *store->entries);
  if (!entries) return lamina_fail_memory(context, (store->count + 1) * sizeof *entries);
  store->entries = entries;
  entry = lamina_alloc_zeroed(context, sizeof *entry);
  if (!entry) return lamina_fail_memory(context, sizeof *entry);
  entry->trainable = port->kind == LAMINA_PORT_PARAMETER;
  entry->no_decay = (port->flags & LAMINA_PORT_NO_DECAY) != 0;
  entry->fan_in = fan_in;
  entry->fan_out = fan_out;
  lamina_status status = fill_entry(store, entry, name, shape, initializer);
  if (status) {
    destroy_entry(context, entry);
    return status;
  }
  store->entries[store->count++] = entry;
  *out = entry;
  return LAMINA_OK;
}

lamina_status lamina_store_slot(lamina_store *store, lamina_entry *entry, int index) {
  if (entry->slot[index]) return LAMINA_OK;
  size_t bytes;
  if (!lamina_tensor_bytes(&entry->tensor, &bytes)) bytes = 0;
  entry->slot[index] = lamina_alloc_zeroed(store->context, bytes);
  return entry->slot[index] ? LAMINA_OK : lamina_fail_memory(store->context, bytes);
}

static lamina_status initialize(const lamina_store *store, lamina_entry *entry, uint64_t seed) {
  const uint64_t stream = lamina_random_stream(seed, lamina_random_key(entry->name));
  lamina_status status = lamina_initializer_run(store->context, entry->initializer, entry->fan_in, entry->fan_out, stream,
                                                &entry->tensor);
  if (status) return lamina_fail_prefix(store->context, status, "%s", entry->name);
  entry->written = 1;
  return LAMINA_OK;
}

lamina_status lamina_store_initialize(lamina_store *store, lamina_entry *entry, uint64_t seed) {
  lamina_status status = initialize(store, entry, seed);
  atomic_fetch_add(&store->version, 1);
  return status;
}

lamina_status lamina_store_ensure_written(lamina_store *store, lamina_entry *entry) {
  pthread_mutex_lock(&store->write_lock);
  lamina_status status = entry->written ? LAMINA_OK : initialize(store, entry, 0);
  pthread_mutex_unlock(&store->write_lock);
  return status;
}
