/* SPDX-License-Identifier: Apache-2.0 */
/* CIFAR-10's binary files: records of a label byte and three planes of 32x32 bytes. */
#include "io/dataset.h"
#include "io/file.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { SIDE = 32, PIXELS = SIDE * SIDE, CHANNELS = 3, RECORD = 1 + PIXELS * CHANNELS, CLASSES = 10, BATCHES = 5 };
#define FILE_LIMIT ((size_t)1 << 30)

static void batch_name(int split, int batch, char *name, size_t bytes) {
  if (split == LAMINA_SPLIT_TEST)
    snprintf(name, bytes, "test_batch.bin");
  else
    snprintf(name, bytes, "data_batch_%d.bin", batch + 1);
}

bool lamina_cifar_is_here(const lamina_context *context, const char *folder) {
  for (int i = 0; i <= BATCHES; i++) {
    char name[32];
    batch_name(i == BATCHES, i, name, sizeof name);
    char *path = lamina_path_join(context, folder, name);
    const bool here = path && access(path, F_OK) == 0;
    lamina_free(context, path);
    if (here) return true;
  }
  return false;
}

/* Appends the records of one file: planes become pixels of three channels. */
static lamina_status add_records(lamina_dataset *dataset, lamina_samples *samples, const char *path,
                                 const unsigned char *data, int64_t count) {
  const lamina_context *context = dataset->context;
  const size_t total = (size_t)(samples->count + count), image = PIXELS * CHANNELS;
  unsigned char *bytes = lamina_alloc(context, total * image);
  int32_t *labels = lamina_alloc(context, total * sizeof *labels);
  if (samples->count && bytes && labels) {
    memcpy(bytes, samples->bytes, (size_t)samples->count * image);
    memcpy(labels, samples->labels, (size_t)samples->count * sizeof *labels);
  }
  if (!bytes || !labels) {
    lamina_free(context, bytes);
    lamina_free(context, labels);
    return lamina_fail_memory(context, total * image);
  }
  lamina_free(context, samples->bytes);
  lamina_free(context, samples->labels);
  samples->bytes = bytes;
  samples->labels = labels;
  for (int64_t i = 0; i < count; i++, data += RECORD) {
    if (data[0] >= CLASSES)
      return lamina_fail(context, LAMINA_BAD_FILE, "%s: sample %lld: label %d is not 0 to 9", path, (long long)i,
                         data[0]);
    labels[samples->count] = data[0];
    unsigned char *out = bytes + (size_t)samples->count++ * image;
    for (int p = 0; p < PIXELS; p++)
      for (int c = 0; c < CHANNELS; c++) out[p * CHANNELS + c] = data[1 + c * PIXELS + p];
  }
  return LAMINA_OK;
}

static lamina_status read_batch(lamina_dataset *dataset, int split, const char *path) {
  char *data;
  size_t bytes;
  lamina_status status = lamina_file_read(dataset->context, path, FILE_LIMIT, &data, &bytes);
  if (status != LAMINA_OK) return status;
  if (bytes == 0 || bytes % RECORD)
    status =
        lamina_fail(dataset->context, LAMINA_BAD_FILE,
                    "%s: truncated or too long: %zu bytes are not a multiple of a record's %d", path, bytes, RECORD);
  else
    status = add_records(dataset, &dataset->split[split], path, (unsigned char *)data, (int64_t)(bytes / RECORD));
  lamina_free(dataset->context, data);
  return status;
}

lamina_status lamina_cifar_read(lamina_dataset *dataset, const char *folder) {
  dataset->height = dataset->width = SIDE;
  dataset->channels = CHANNELS;
  for (int i = 0; i <= BATCHES; i++) {
    const int split = i == BATCHES ? LAMINA_SPLIT_TEST : LAMINA_SPLIT_TRAIN;
    char name[32];
    batch_name(split, i, name, sizeof name);
    char *path = lamina_path_join(dataset->context, folder, name);
    if (!path) return lamina_fail_memory(dataset->context, strlen(folder));
    lamina_status status = read_batch(dataset, split, path);
    lamina_free(dataset->context, path);
    if (status != LAMINA_OK) return status;
  }
  return LAMINA_OK;
}
