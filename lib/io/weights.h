/* SPDX-License-Identifier: Apache-2.0 */
/* How a checkpoint names what it holds: parameters by their own names, the optimizer's state under a prefix. */
#ifndef LAMINA_IO_WEIGHTS_H
#define LAMINA_IO_WEIGHTS_H

#include "io/safetensors.h"
#include "store.h"

#define LAMINA_OPTIMIZER_PREFIX "optimizer."

/* The graph's entries in the order of its layers, in memory for lamina_free. */
lamina_status lamina_weights_entries(lamina_graph *graph, lamina_entry ***entries, size_t *count);
/* "sgd", "adam", "adamw"; NULL past the end. */
const char *lamina_optimizer_name(lamina_optimizer_type type);
/* What state slot 0 or 1 is called in a file ("exp_avg"), or NULL if that optimizer has no such slot. */
const char *lamina_slot_name(lamina_optimizer_type type, int slot);
/* "optimizer.exp_avg.conv1.weight", for lamina_free; NULL without memory. */
char *lamina_slot_tensor_name(const lamina_context *context, lamina_optimizer_type type, int slot, const char *name);

#endif
