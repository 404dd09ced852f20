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
/* The steps that a parameter's slots hold, where they are not those of the file as a whole: "step", an i64 scalar. */
#define LAMINA_STEPS_NAME "step"
enum { LAMINA_MAX_STEPS_BITS = 53 };
/* "optimizer.exp_avg.conv1.weight", for lamina_free; NULL without memory. */
char *lamina_state_tensor_name(const lamina_context *context, const char *state, const char *name);

#endif
