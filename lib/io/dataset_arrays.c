/* SPDX-License-Identifier: Apache-2.0 */
/* Data sets of four .npy files: images (N, H, W) or (N, H, W, C) of u1 or f4, labels (N) of any integer type. */
#include "io/dataset.h"
#include "io/file.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

static const char *const file_names[2][2] = {{"train_images.npy", "train_labels.npy"},
                                             {"test_images.npy", "test_labels.npy"}};

bool lamina_arrays_are_here(const lamina_context *context, const char *folder) {
  for (int i = 0; i < 4; i++) {
    char *path = lamina_path_join(context, folder, file_names[i / 2][i % 2]);
    const bool here = path && access(path, F_OK) == 0;
    lamina_free(context, path);
    if (here) return true;
  }
  return false;
}

static lamina_status take_images(lamina_dataset *dataset, int split, const char *path, lamina_tensor *tensor) {
  const lamina_context *context = dataset->context;
  lamina_samples *samples = &dataset->split[split];
  char shape[96];
  if ((tensor->dtype != LAMINA_U8 && tensor->dtype != LAMINA_F32) || tensor->rank < 3 || tensor->rank > 4 ||
      lamina_tensor_count(tensor) < 1)
    return lamina_fail(context, LAMINA_BAD_FILE, "%s: images must be (N, H, W) or (N, H, W, C) of u1 or f4, not %s",
                       path, lamina_shape_text(tensor, shape, sizeof shape));
  const int64_t channels = tensor->rank == 4 ? tensor->dim[3] : 1;
  const lamina_samples *other = &dataset->split[0];
  if (split && (tensor->dim[1] != dataset->height || tensor->dim[2] != dataset->width || channels != dataset->channels))
    return lamina_fail(
        context, LAMINA_SHAPE_MISMATCH, "%s: images of %s, but those to train on have %" PRId64 "x%" PRId64 "x%" PRId64,
        path, lamina_shape_text(tensor, shape, sizeof shape), dataset->height, dataset->width, dataset->channels);
  if (split && (tensor->dtype == LAMINA_U8) != (other->bytes != NULL))
    return lamina_fail(context, LAMINA_BAD_FILE, "%s: its type differs from that of the images to train on", path);
  samples->count = tensor->dim[0];
  dataset->height = tensor->dim[1];
  dataset->width = tensor->dim[2];
  dataset->channels = channels;
  if (tensor->dtype == LAMINA_U8)
    samples->bytes = tensor->data;
  else
    samples->floats = tensor->data;
  tensor->data = NULL;
  return LAMINA_OK;
}

static int64_t label_at(const lamina_tensor *tensor, int64_t i) {
  switch (tensor->dtype) {
  case LAMINA_I32:
    return ((const int32_t *)tensor->data)[i];
  case LAMINA_I64:
    return ((const int64_t *)tensor->data)[i];
  default:
    return ((const unsigned char *)tensor->data)[i];
  }
}

static lamina_status take_labels(lamina_dataset *dataset, int split, const char *path, const lamina_tensor *tensor) {
  const lamina_context *context = dataset->context;
  lamina_samples *samples = &dataset->split[split];
  if (tensor->dtype == LAMINA_F32 || tensor->rank != 1)
    return lamina_fail(context, LAMINA_BAD_FILE, "%s: labels must be one dimension of whole numbers", path);
  if (tensor->dim[0] != samples->count)
    return lamina_fail(context, LAMINA_BAD_FILE, "%s: %" PRId64 " labels for %" PRId64 " images", path, tensor->dim[0],
                       samples->count);
  samples->labels = lamina_alloc(context, (size_t)samples->count * sizeof *samples->labels);
  if (!samples->labels) return lamina_fail_memory(context, (size_t)samples->count * sizeof *samples->labels);
  for (int64_t i = 0; i < samples->count; i++) {
    const int64_t label = label_at(tensor, i);
    if (label < 0 || label >= LAMINA_LABEL_LIMIT)
      return lamina_fail(context, LAMINA_BAD_FILE, "%s: sample %" PRId64 ": label %" PRId64 " is not 0 to %d", path, i,
                         label, LAMINA_LABEL_LIMIT - 1);
    samples->labels[i] = (int32_t)label;
  }
  return LAMINA_OK;
}

lamina_status lamina_arrays_read(lamina_dataset *dataset, const char *folder) {
  for (int i = 0; i < 4; i++) {
    const int split = i / 2;
    lamina_tensor tensor = {.data = NULL};
    char *path = lamina_path_join(dataset->context, folder, file_names[split][i % 2]);
    if (!path) return lamina_fail_memory(dataset->context, strlen(folder));
    lamina_status status = lamina_array_load(dataset->context, path, &tensor);
    if (status == LAMINA_OK)
      status = i % 2 == 0 ? take_images(dataset, split, path, &tensor) : take_labels(dataset, split, path, &tensor);
    lamina_array_release(dataset->context, &tensor);
    lamina_free(dataset->context, path);
    if (status != LAMINA_OK) return status;
  }
  return LAMINA_OK;
}
