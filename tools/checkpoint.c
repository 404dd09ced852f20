/* SPDX-License-Identifier: Apache-2.0 */
/* Two files: F holds the weights alone, for use here or in PyTorch; F.train holds weights, the optimizer's state and,
   as metadata, the settings and the position. Reals are written as hexadecimal, so that nothing is rounded. */
#include "train.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FORMAT_KEY "lamina.training"
#define FORMAT_VERSION "1"

enum { FIELDS_MAX = 36, FINGERPRINT_SAMPLES = 64, NUMBER_BYTES = 32 };

typedef enum field_type { FIELD_TEXT, FIELD_INT, FIELD_SEED, FIELD_REAL } field_type;

typedef struct field {
  const char *key;
  field_type type;
  size_t offset, size; /* in struct run */
  const char *absent;  /* for checkpoints from before the field was there; NULL: it must be */
} field;

#define FIELD(key, type, member)                                                                                       \
  { "lamina." key, type, offsetof(run, member), sizeof((run *)0)->member, NULL }
#define LATER_FIELD(key, type, member, absent)                                                                         \
  { "lamina." key, type, offsetof(run, member), sizeof((run *)0)->member, absent }

static const field fields[] = {
    FIELD("model", FIELD_TEXT, model),
    FIELD("optimizer", FIELD_TEXT, optimizer),
    FIELD("schedule", FIELD_TEXT, schedule),
    FIELD("data", FIELD_TEXT, data),
    FIELD("data_fingerprint", FIELD_TEXT, fingerprint),
    FIELD("seed", FIELD_SEED, seed),
    FIELD("epochs", FIELD_INT, epochs),
    FIELD("batch", FIELD_INT, batch),
    FIELD("nesterov", FIELD_INT, nesterov),
    FIELD("lr", FIELD_REAL, lr),
    FIELD("momentum", FIELD_REAL, momentum),
    FIELD("weight_decay", FIELD_REAL, weight_decay),
    FIELD("gamma", FIELD_REAL, gamma),
    FIELD("step_epochs", FIELD_REAL, step_epochs),
    FIELD("epoch", FIELD_INT, epoch),
    FIELD("step", FIELD_INT, step),
    FIELD("loss_sum", FIELD_REAL, loss_sum),
    FIELD("seconds", FIELD_REAL, seconds),
    FIELD("train_seconds", FIELD_REAL, train_seconds),
    LATER_FIELD("freeze", FIELD_TEXT, freeze, ""),
    LATER_FIELD("batch_norm", FIELD_TEXT, batch_norm, "frozen"),
    LATER_FIELD("augment", FIELD_TEXT, augment, ""),
    LATER_FIELD("normalise", FIELD_TEXT, normalise, ""),
    LATER_FIELD("accumulate", FIELD_INT, accumulate, "1"),
    LATER_FIELD("clip_norm", FIELD_REAL, clip_norm, "0"),
};

enum { FIELD_COUNT = (int)(sizeof fields / sizeof *fields) };

int checkpoint_fingerprint(const training *t, char *text, size_t size) {
  const lamina_dataset_info *i = &t->data.info;
  const int64_t count = i->count[LAMINA_SPLIT_TRAIN];
  const int64_t n = count < FINGERPRINT_SAMPLES ? count : FINGERPRINT_SAMPLES;
  const int64_t pixels = i->height * i->width * i->channels;
  float *images = allocate(n * pixels, sizeof *images);
  int32_t labels[FINGERPRINT_SAMPLES];
  int64_t index[FINGERPRINT_SAMPLES];
  uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
  if (!images) return fail("out of memory");
  for (int64_t k = 0; k < n; k++) index[k] = k;
  if (lamina_dataset_batch(t->data.dataset, LAMINA_SPLIT_TRAIN, n, index, i->channels, images, labels)) {
    free(images);
    return fail_library(&t->s, "cannot read the data");
  }
  const unsigned char *bytes = (const unsigned char *)images;
  for (size_t k = 0; k < (size_t)(n * pixels) * sizeof *images; k++) hash = (hash ^ bytes[k]) * UINT64_C(0x100000001b3);
  for (int64_t k = 0; k < n; k++) hash = (hash ^ (uint64_t)(uint32_t)labels[k]) * UINT64_C(0x100000001b3);
  free(images);
  snprintf(text, size, "%lldx%lldx%lldx%lld-%d-%016llx", (long long)count, (long long)i->height, (long long)i->width,
           (long long)i->channels, i->classes, (unsigned long long)hash);
  return EXIT_OK;
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

static void field_text(const run *r, const field *f, char *text, size_t size) {
  const void *at = (const char *)r + f->offset;
  switch (f->type) {
  case FIELD_TEXT:
    snprintf(text, size, "%s", (const char *)at);
    break;
  case FIELD_INT:
    snprintf(text, size, "%lld", (long long)*(const int64_t *)at);
    break;
  case FIELD_SEED:
    snprintf(text, size, "%llu", (unsigned long long)*(const uint64_t *)at);
    break;
  case FIELD_REAL:
    snprintf(text, size, "%a", *(const double *)at);
    break;
  }
}

/* "0x1.8p+0 0x1.2p-1 ": the caller frees it. */
static char *list_text(const double *values, int64_t count) {
  char *text = allocate(count + 1, NUMBER_BYTES);
  if (!text) return NULL;
  size_t used = 0;
  *text = 0;
  for (int64_t i = 0; i < count; i++) used += (size_t)snprintf(text + used, NUMBER_BYTES, "%a ", values[i]);
  return text;
}

static int write_training(training *t) {
  char file[sizeof t->save + 8];
  char(*text)[4096] = allocate(FIELD_COUNT, sizeof *text);
  char *losses = list_text(t->run.losses, t->run.epoch), *accuracies = list_text(t->run.accuracies, t->run.epoch);
  lamina_metadata metadata[FIELDS_MAX] = {{FORMAT_KEY, FORMAT_VERSION}};
  int count = 1, status = EXIT_OK;
  if (!text || !losses || !accuracies) {
    status = fail("out of memory while saving");
    goto done;
  }
  for (int i = 0; i < FIELD_COUNT; i++) {
    field_text(&t->run, &fields[i], text[i], sizeof text[i]);
    metadata[count++] = (lamina_metadata){fields[i].key, text[i]};
  }
  metadata[count++] = (lamina_metadata){"lamina.epoch_losses", losses};
  metadata[count++] = (lamina_metadata){"lamina.epoch_accuracies", accuracies};
  snprintf(file, sizeof file, "%s.train", t->save);
  if (lamina_graph_save_weights(t->model.graph, file, LAMINA_WEIGHTS_TRAINING, metadata))
    status = fail_library(&t->s, "cannot save the checkpoint");
done:
  free(text);
  free(losses);
  free(accuracies);
  return status;
}

static int write_weights(training *t) {
  char epoch[32], accuracy[32] = "";
  snprintf(epoch, sizeof epoch, "%lld", (long long)t->run.epoch);
  if (t->run.epoch) snprintf(accuracy, sizeof accuracy, "%.6f", t->run.accuracies[t->run.epoch - 1]);
  const lamina_metadata metadata[] = {{"format", "pt"},
                                      {"lamina.model", t->run.model},
                                      {"lamina.epochs_done", epoch},
                                      {"lamina.test_accuracy", accuracy},
                                      {*t->run.normalise ? NORMALISE_KEY : NULL, t->run.normalise},
                                      {NULL, NULL}};
  if (lamina_graph_save_weights(t->model.graph, t->save, 0, metadata))
    return fail_library(&t->s, "cannot save the weights");
  return EXIT_OK;
}

static int check_finite(const training *t) {
  const int count = lamina_graph_parameter_count(t->model.graph);
  for (int i = 0; i < count; i++) {
    lamina_parameter p = {.size = sizeof p};
    if (lamina_graph_parameter_at(t->model.graph, i, &p)) return fail_library(&t->s, "cannot read a parameter");
    if (p.tensor.dtype != LAMINA_F32) continue;
    const float *values = p.tensor.data;
    const int64_t n = lamina_tensor_count(&p.tensor);
    for (int64_t k = 0; k < n; k++)
      if (!isfinite(values[k])) return fail("'%s' holds values that are not finite: nothing is saved", p.name);
  }
  return EXIT_OK;
}

int checkpoint_write(training *t) {
  /* The checkpoint first: if the second file fails, both on disk are whole, and the newer one continues the run. */
  if (check_finite(t) || write_training(t) || write_weights(t)) return EXIT_ERROR;
  t->saved = true;
  return EXIT_OK;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

static bool parse_field(run *r, const field *f, const char *text) {
  void *at = (char *)r + f->offset;
  char *end = NULL;
  errno = 0;
  switch (f->type) {
  case FIELD_TEXT:
    return snprintf(at, f->size, "%s", text) < (int)f->size;
  case FIELD_INT:
    *(int64_t *)at = strtoll(text, &end, 10);
    break;
  case FIELD_SEED:
    *(uint64_t *)at = strtoull(text, &end, 10);
    break;
  case FIELD_REAL:
    *(double *)at = strtod(text, &end);
    break;
  }
  return end != text && !*end && !errno && (f->type != FIELD_REAL || isfinite(*(double *)at));
}

static int damaged(const char *file, const char *key) {
  return fail("%s: the metadata '%s' is missing or damaged", file, key);
}

static double *read_list(const training *t, const char *file, const char *key, int64_t count, int64_t room) {
  const size_t size = (size_t)(count + 1) * NUMBER_BYTES;
  double *values = allocate(room, sizeof *values);
  char *text = malloc(size), *at = text;
  bool good = values && text && !lamina_weights_metadata(t->s.context, file, key, text, size);
  for (int64_t i = 0; i < count && good; i++) {
    char *end;
    values[i] = strtod(at, &end);
    good = end != at;
    at = end;
  }
  good = good && at[strspn(at, " ")] == 0;
  free(text);
  if (good) return values;
  free(values);
  damaged(file, key);
  return NULL;
}

/* What a damaged or forged file could hold. The step is compared with the data later. */
static bool sane(const run *r) {
  return r->epochs >= 1 && r->epochs <= 1000000 && r->batch >= 1 && r->accumulate >= 1 && r->epoch >= 0 && r->epoch <= r->epochs &&
         r->step >= 0 && r->lr >= 0 && r->seconds >= 0 && r->train_seconds >= 0 && r->step_epochs > 0;
}

/* F.train for F, or the file itself when it ends so. */
static int find_file(training *t, const char *path, char *file, size_t file_size) {
  char format[16];
  const size_t length = strlen(path);
  const bool whole = length > 6 && !strcmp(path + length - 6, ".train");
  if (length + 7 > file_size || length >= sizeof t->save) return fail("--resume: the path is too long");
  snprintf(file, file_size, whole ? "%s" : "%s.train", path);
  snprintf(t->save, sizeof t->save, "%.*s", (int)(whole ? length - 6 : length), path);
  if (access(file, R_OK)) {
    fail("cannot read the checkpoint '%s': %s", file, strerror(errno));
    if (!access(path, R_OK)) hint("%s holds weights alone, from which training cannot go on", path);
    return EXIT_ERROR;
  }
  const lamina_status status = lamina_weights_metadata(t->s.context, file, FORMAT_KEY, format, sizeof format);
  if (status == LAMINA_NOT_FOUND) return fail("%s is not a checkpoint of 'lamina train'", file);
  if (status) return fail_library(&t->s, "cannot read the checkpoint");
  if (strcmp(format, FORMAT_VERSION))
    return fail("%s: checkpoint format %s; this lamina reads format " FORMAT_VERSION, file, format);
  return EXIT_OK;
}

int checkpoint_read(training *t, const char *path, char *file, size_t file_size) {
  char text[4096];
  if (find_file(t, path, file, file_size)) return EXIT_ERROR;
  for (int i = 0; i < FIELD_COUNT; i++) {
    const lamina_status status = lamina_weights_metadata(t->s.context, file, fields[i].key, text, sizeof text);
    const char *value = status == LAMINA_NOT_FOUND ? fields[i].absent : status ? NULL : text;
    if (!value || !parse_field(&t->run, &fields[i], value)) return damaged(file, fields[i].key);
  }
  if (!sane(&t->run)) return fail("%s: the metadata holds impossible settings", file);
  const int64_t room = t->set.epochs > t->run.epochs ? t->set.epochs : t->run.epochs;
  t->run.losses = read_list(t, file, "lamina.epoch_losses", t->run.epoch, room);
  t->run.accuracies = t->run.losses ? read_list(t, file, "lamina.epoch_accuracies", t->run.epoch, room) : NULL;
  return t->run.accuracies ? EXIT_OK : EXIT_ERROR;
}
