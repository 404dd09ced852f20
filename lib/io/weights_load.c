/* SPDX-License-Identifier: Apache-2.0 */
/* Loading a checkpoint: everything is checked first, and only then copied, so that a refused file changes nothing. */
#include "graph.h"
#include "io/weights.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A few names and how many there were. */
typedef struct {
  int count;
  char text[224];
} name_list;

typedef struct {
  const lamina_context *context;
  const char *path;
  lamina_store *store;
  lamina_entry **entries;
  size_t count;
  lamina_safetensors *file;
  const lamina_stored_tensor **sources; /* of each entry: its tensor, its two slots and their steps, or NULL */
  float **slots;                        /* new memory for slots that the store does not have yet */
  unsigned char *used;                  /* per tensor of the file */
  lamina_optimizer_type optimizer;
  int64_t step;
  name_list missing, unknown, misshaped, mistyped;
  bool partial;
} loading;

enum { PER_ENTRY = 4 };

static void add_name(name_list *list, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void add_name(name_list *list, const char *format, ...) {
  static const char more[] = ", ...";
  char text[160];
  const size_t used = strlen(list->text);
  va_list arguments;
  list->count++;
  if (used >= sizeof more && !strcmp(list->text + used - strlen(more), more)) return;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (used + strlen(text) + sizeof more + 2 < sizeof list->text)
    sprintf(list->text + used, used ? ", %s" : "%s", text);
  else
    strcpy(list->text + used, more);
}

/* PyTorch checkpoints from before version 0.4.1 lack this counter; it then starts at 0, as PyTorch has it. */
static bool may_be_missing(const char *name) {
  static const char counter[] = "num_batches_tracked";
  const size_t length = strlen(name), tail = sizeof counter - 1;
  return length >= tail && !strcmp(name + length - tail, counter) && (length == tail || name[length - tail - 1] == '.');
}

static bool same_shape(const lamina_stored_tensor *stored, const lamina_tensor *tensor) {
  if (stored->rank <= 1 && tensor->rank <= 1 && stored->count == 1 && lamina_tensor_count(tensor) == 1) return true;
  return stored->rank == tensor->rank && !memcmp(stored->dim, tensor->dim, (size_t)tensor->rank * sizeof *tensor->dim);
}

static const char *stored_shape(const lamina_stored_tensor *stored, char *buffer, size_t bytes) {
  lamina_tensor shape = {.dtype = LAMINA_F32, .rank = stored->rank};
  memcpy(shape.dim, stored->dim, sizeof shape.dim);
  lamina_shape_text(&shape, buffer, bytes);
  char *dtype = strrchr(buffer, ' ');
  size_t used = dtype ? (size_t)(dtype - buffer) : strlen(buffer);
  snprintf(buffer + used, bytes - used, " %s", stored->dtype);
  return buffer;
}

/* Whether `store_element` will succeed. */
static lamina_status check_values(loading *l, const lamina_stored_tensor *stored, lamina_dtype dtype) {
  if (dtype == LAMINA_F32 && stored->element <= LAMINA_ELEMENT_F64) return LAMINA_OK;
  if (dtype == LAMINA_I64) {
    int64_t *trial = lamina_alloc(l->context, stored->count * sizeof *trial);
    if (!trial) return lamina_fail_memory(l->context, stored->count * sizeof *trial);
    bool exact = lamina_stored_to_i64(stored, trial);
    lamina_free(l->context, trial);
    if (exact) return LAMINA_OK;
  }
  add_name(&l->mistyped, "%.100s is %s, not %s", stored->name, stored->dtype, lamina_dtype_name(dtype));
  return LAMINA_OK;
}

static lamina_status match(loading *l, const char *name, const lamina_tensor *tensor, bool optional,
                           const lamina_stored_tensor **source) {
  const lamina_stored_tensor *stored = lamina_safetensors_find(l->file, name);
  *source = stored;
  if (!stored) {
    if (!optional) add_name(&l->missing, "%.100s", name);
    return LAMINA_OK;
  }
  l->used[stored - lamina_safetensors_at(l->file, 0)] = 1;
  if (!same_shape(stored, tensor) && l->partial) {
    *source = NULL;
    return LAMINA_OK;
  }
  if (!same_shape(stored, tensor)) {
    char here[96], there[96];
    add_name(&l->misshaped, "%.64s is %s in the file, %s in the model", name, stored_shape(stored, there, sizeof there),
             lamina_shape_text(tensor, here, sizeof here));
    return LAMINA_OK;
  }
  return check_values(l, stored, tensor->dtype);
}

/* What the file says of one parameter's steps; those of the whole file where it says nothing. */
static int64_t steps_of(const loading *l, const lamina_stored_tensor *source) {
  int64_t steps = l->step;
  if (source) lamina_stored_to_i64(source, &steps);
  return steps;
}

static bool is_step_count(int64_t steps) { return steps >= 0 && steps >> LAMINA_MAX_STEPS_BITS == 0; }

static lamina_status match_steps(loading *l, const lamina_entry *entry, const lamina_stored_tensor **source) {
  const lamina_tensor scalar = {.dtype = LAMINA_I64};
  char *name = lamina_state_tensor_name(l->context, LAMINA_STEPS_NAME, entry->name);
  if (!name) return lamina_fail_memory(l->context, strlen(entry->name));
  lamina_status status = match(l, name, &scalar, true, source);
  lamina_free(l->context, name);
  /* A number of another shape or type is in the report. */
  if (status || !*source || l->misshaped.count || l->mistyped.count || is_step_count(steps_of(l, *source)))
    return status;
  return lamina_fail(l->context, LAMINA_BAD_FILE, "%s: '%.100s' is not a number of steps", l->path, (*source)->name);
}

/* Adam's two averages come together; SGD has a momentum buffer only if it runs with momentum. */
static lamina_status match_slots(loading *l, size_t index) {
  lamina_entry *entry = l->entries[index];
  const lamina_stored_tensor **source = l->sources + PER_ENTRY * index + 1;
  for (int slot = 0; slot < 2 && entry->trainable && lamina_slot_name(l->optimizer, slot); slot++) {
    char *name = lamina_state_tensor_name(l->context, lamina_slot_name(l->optimizer, slot), entry->name);
    if (!name) return lamina_fail_memory(l->context, strlen(entry->name));
    lamina_status status = match(l, name, &entry->tensor, slot == 0 || !source[0], &source[slot]);
    lamina_free(l->context, name);
    if (status != LAMINA_OK) return status;
    size_t bytes;
    if (!source[slot] || entry->slot[slot]) continue;
    if (!lamina_tensor_bytes(&entry->tensor, &bytes)) bytes = 0;
    float *memory = l->slots[2 * index + (size_t)slot] = lamina_alloc(l->context, bytes);
    if (!memory) return lamina_fail_memory(l->context, bytes);
  }
  if (source[1] && !source[0]) add_name(&l->missing, "%s of %.100s", lamina_slot_name(l->optimizer, 0), entry->name);
  return source[0] ? match_steps(l, entry, &source[2]) : LAMINA_OK;
}

static lamina_status read_training(loading *l) {
  const char *optimizer = lamina_safetensors_metadata(l->file, "optimizer");
  const char *step = lamina_safetensors_metadata(l->file, "step");
  if (!optimizer || !step)
    return lamina_fail(l->context, LAMINA_NOT_FOUND,
                       "%s: has no optimizer state, so training cannot go on from it (only its weights can be loaded)",
                       l->path);
  int type = 0;
  while (lamina_optimizer_name((lamina_optimizer_type)type) &&
         strcmp(lamina_optimizer_name((lamina_optimizer_type)type), optimizer))
    type++;
  if (!lamina_optimizer_name((lamina_optimizer_type)type))
    return lamina_fail(l->context, LAMINA_BAD_FILE, "%s: unknown optimizer '%.40s'", l->path, optimizer);
  char *end;
  errno = 0;
  long long value = strtoll(step, &end, 10);
  if (*step < '0' || *step > '9' || *end || errno || !is_step_count(value))
    return lamina_fail(l->context, LAMINA_BAD_FILE, "%s: step '%.40s' is not a number", l->path, step);
  l->optimizer = (lamina_optimizer_type)type;
  l->step = value;
  return LAMINA_OK;
}

static void find_unknown(loading *l, uint32_t flags) {
  for (size_t i = 0; i < lamina_safetensors_count(l->file); i++) {
    const char *name = lamina_safetensors_at(l->file, i)->name;
    bool of_optimizer = !strncmp(name, LAMINA_OPTIMIZER_PREFIX, sizeof LAMINA_OPTIMIZER_PREFIX - 1);
    if (l->used[i] || (of_optimizer && !(flags & LAMINA_WEIGHTS_TRAINING))) continue;
    add_name(&l->unknown, "%.100s", name);
  }
}

static lamina_status report(const loading *l) {
  const struct {
    const name_list *list;
    const char *what;
  } parts[] = {{&l->missing, "missing"},
               {&l->unknown, "not in this model"},
               {&l->misshaped, "of another shape"},
               {&l->mistyped, "of a type that cannot be converted"}};
  char text[LAMINA_MESSAGE_BYTES] = "";
  size_t used = 0;
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
    if (parts[i].list->count)
      used += (size_t)snprintf(text + used, sizeof text - used, "%s%d tensor%s %s (%s)", used ? "; " : "",
                               parts[i].list->count, parts[i].list->count == 1 ? "" : "s", parts[i].what,
                               parts[i].list->text);
  if (!used) return LAMINA_OK;
  lamina_status status =
      l->missing.count || l->unknown.count || l->mistyped.count ? LAMINA_BAD_FILE : LAMINA_SHAPE_MISMATCH;
  return lamina_fail(l->context, status, "%s: a checkpoint for another model: %s", l->path, text);
}

static lamina_status check(loading *l, uint32_t flags) {
  lamina_status status = LAMINA_OK;
  if (flags & LAMINA_WEIGHTS_TRAINING) status = read_training(l);
  for (size_t i = 0; i < l->count && status == LAMINA_OK; i++) {
    const lamina_entry *entry = l->entries[i];
    const bool optional = l->partial || may_be_missing(entry->name);
    status = match(l, entry->name, &entry->tensor, optional, &l->sources[PER_ENTRY * i]);
    if (status == LAMINA_OK && flags & LAMINA_WEIGHTS_TRAINING) status = match_slots(l, i);
  }
  if (status != LAMINA_OK) return status;
  if (!l->partial) find_unknown(l, flags);
  return report(l);
}

/* Whether anything of the file is used: a file of a wholly different network is a mistake. */
static lamina_status check_partial(const loading *l) {
  for (size_t i = 0; i < l->count; i++)
    if (l->sources[PER_ENTRY * i]) return LAMINA_OK;
  return lamina_fail(l->context, LAMINA_BAD_FILE, "%s: a checkpoint for another model: none of its %zu tensors has the name "
                     "and shape of a parameter of this one", l->path, lamina_safetensors_count(l->file));
}

static void tell_skipped(const loading *l, void (*skipped)(void *user, const char *name, const char *reason), void *user) {
  char reason[256], here[96], there[96];
  for (size_t i = 0; i < l->count; i++) {
    const lamina_entry *entry = l->entries[i];
    const lamina_stored_tensor *stored = lamina_safetensors_find(l->file, entry->name);
    if (l->sources[PER_ENTRY * i] || (!stored && may_be_missing(entry->name))) continue;
    if (stored)
      snprintf(reason, sizeof reason, "it is %s in the file, %s in the model", stored_shape(stored, there, sizeof there),
               lamina_shape_text(&entry->tensor, here, sizeof here));
    else
      snprintf(reason, sizeof reason, "the file does not have it");
    skipped(user, entry->name, reason);
  }
  for (size_t i = 0; i < lamina_safetensors_count(l->file); i++) {
    const char *name = lamina_safetensors_at(l->file, i)->name;
    if (!l->used[i] && strncmp(name, LAMINA_OPTIMIZER_PREFIX, sizeof LAMINA_OPTIMIZER_PREFIX - 1) != 0)
      skipped(user, name, "the model has no such parameter");
  }
}

static void copy_values(const lamina_stored_tensor *source, lamina_dtype dtype, void *data) {
  if (dtype == LAMINA_I64)
    lamina_stored_to_i64(source, data);
  else
    lamina_stored_to_f32(source, data);
}

static void copy_slots(loading *l, size_t index) {
  lamina_entry *entry = l->entries[index];
  entry->steps = steps_of(l, l->sources[PER_ENTRY * index + 3]);
  for (size_t slot = 0; slot < 2; slot++) {
    const lamina_stored_tensor *source = l->sources[PER_ENTRY * index + 1 + slot];
    if (!source) {
      lamina_free(l->context, entry->slot[slot]);
      entry->slot[slot] = NULL;
      continue;
    }
    if (!entry->slot[slot]) {
      entry->slot[slot] = l->slots[2 * index + slot];
      l->slots[2 * index + slot] = NULL;
    }
    lamina_stored_to_f32(source, entry->slot[slot]);
  }
}

static void commit(loading *l, uint32_t flags) {
  for (size_t i = 0; i < l->count; i++) {
    lamina_entry *entry = l->entries[i];
    const lamina_stored_tensor *source = l->sources[PER_ENTRY * i];
    size_t bytes;
    if (source)
      copy_values(source, entry->tensor.dtype, entry->tensor.data);
    else if (!l->partial && lamina_tensor_bytes(&entry->tensor, &bytes))
      memset(entry->tensor.data, 0, bytes);
    if (source || !l->partial) entry->written = 1;
    if (flags & LAMINA_WEIGHTS_TRAINING) copy_slots(l, i);
  }
  if (flags & LAMINA_WEIGHTS_TRAINING) {
    l->store->optimizer = l->optimizer;
    l->store->step = l->step;
  }
}

static lamina_status prepare(loading *l, lamina_graph *graph) {
  lamina_status status = lamina_weights_entries(graph, &l->entries, &l->count);
  if (status == LAMINA_OK) status = lamina_safetensors_open(l->context, l->path, 0, &l->file);
  if (status != LAMINA_OK) return status;
  l->sources = lamina_alloc_zeroed(l->context, (l->count + 1) * PER_ENTRY * sizeof *l->sources);
  l->slots = lamina_alloc_zeroed(l->context, (l->count + 1) * 2 * sizeof *l->slots);
  l->used = lamina_alloc_zeroed(l->context, lamina_safetensors_count(l->file) + 1);
  return l->sources && l->slots && l->used ? LAMINA_OK : lamina_fail_memory(l->context, l->count * sizeof *l->sources);
}

/* Everything but the freeing. */
static lamina_status load(loading *l, lamina_graph *graph, uint32_t flags) {
  lamina_status status = prepare(l, graph);
  if (status == LAMINA_OK) status = check(l, flags);
  if (status == LAMINA_OK && l->partial) status = check_partial(l);
  if (status != LAMINA_OK) return status;
  commit(l, flags);
  lamina_graph_parameters_changed(graph);
  return LAMINA_OK;
}

static void release(loading *l) {
  for (size_t i = 0; l->slots && i < 2 * l->count; i++) lamina_free(l->context, l->slots[i]);
  lamina_free(l->context, l->slots);
  lamina_free(l->context, l->sources);
  lamina_free(l->context, l->used);
  lamina_free(l->context, l->entries);
  lamina_safetensors_close(l->file);
}

lamina_status lamina_graph_load_weights(lamina_graph *graph, const char *path, uint32_t flags) {
  if (!graph) return LAMINA_INVALID_ARGUMENT;
  loading l = {.context = lamina_graph_context(graph), .path = path, .store = lamina_graph_store(graph)};
  const lamina_status status = load(&l, graph, flags);
  release(&l);
  return status;
}

lamina_status lamina_graph_load_partial(lamina_graph *graph, const char *path,
                                        void (*skipped)(void *user, const char *name, const char *reason), void *user) {
  if (!graph) return LAMINA_INVALID_ARGUMENT;
  loading l = {
      .context = lamina_graph_context(graph), .path = path, .store = lamina_graph_store(graph), .partial = true};
  const lamina_status status = load(&l, graph, 0);
  if (status == LAMINA_OK && skipped) tell_skipped(&l, skipped, user);
  release(&l);
  return status;
}
