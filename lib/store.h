/* SPDX-License-Identifier: Apache-2.0 */
/* Parameters and states by name, with the optimizer's state; shared by graphs and plans through a count. */
#ifndef LAMINA_STORE_H
#define LAMINA_STORE_H

#include "core.h"

typedef struct lamina_entry {
  char *name;           /* "conv1.weight" */
  lamina_tensor tensor; /* the store owns tensor.data; 64-byte aligned */
  int trainable, no_decay;
  int written;             /* initialised, loaded or handed out for writing */
  char *initializer;
  int64_t fan_in, fan_out; /* of the node's weight */
  float *slot[2];          /* optimizer state, as large as the tensor, or NULL: SGD momentum; Adam m and v */
  int64_t steps;           /* that the slots hold: others may have been stepped more often */
  _Atomic uint64_t version; /* grows when this one is changed by a step, or, a state, by a forward */
} lamina_entry;

typedef struct lamina_store {
  atomic_int references;
  lamina_context *context;
  lamina_entry **entries; /* in the order in which they were added */
  size_t count, capacity;
  _Atomic uint64_t version;        /* grows whenever any may have changed: packed copies compare it and their entries' */
  pthread_mutex_t write_lock;      /* of values that plans write when nobody has */
  int64_t step;                    /* optimizer steps taken, of any of the parameters */
  lamina_optimizer_type optimizer; /* whose state is in the slots, once step > 0 */
} lamina_store;

lamina_store *lamina_store_create(lamina_context *context);
void lamina_store_retain(lamina_store *store);
void lamina_store_release(lamina_store *store);
lamina_entry *lamina_store_find(const lamina_store *store, const char *name);
/* Adds an entry, or finds the one of that name, whose shape and dtype must be the same. */
lamina_status lamina_store_add(lamina_store *store, const char *name, const lamina_tensor *shape, const lamina_port *port,
                               const char *initializer, int64_t fan_in, int64_t fan_out, lamina_entry **entry);
/* Drops the entries added last, so that `kept` remain: an addition that failed half-way leaves nothing. */
void lamina_store_truncate(lamina_store *store, size_t kept);
/* Makes sure that slot `index` exists (zeroed when new). */
lamina_status lamina_store_slot(lamina_store *store, lamina_entry *entry, int index);
lamina_status lamina_store_initialize(lamina_store *store, lamina_entry *entry, uint64_t seed);
/* Gives what was never written its initial value with seed 0. Nothing can have packed it, so that the version stays. */
lamina_status lamina_store_ensure_written(lamina_store *store, lamina_entry *entry);

#endif
