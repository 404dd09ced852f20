/* SPDX-License-Identifier: Apache-2.0 */
#include "io/dataset.h"

#include "random.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { TRAIN_COUNT = 12000, TEST_COUNT = 2000, DIGITS_LIMIT = 10 * 1000 * 1000 };

typedef struct {
  const char *description;
  bool (*is_here)(const lamina_context *context, const char *folder);
  lamina_status (*read)(lamina_dataset *dataset, const char *folder);
} format;

static const format formats[] = {
    {"IDX images", lamina_idx_is_here, lamina_idx_read},
    {"CIFAR-10", lamina_cifar_is_here, lamina_cifar_read},
    {".npy images", lamina_arrays_are_here, lamina_arrays_read},
};

static lamina_status describe(lamina_dataset *dataset, const char *what, const char *folder) {
  const size_t bytes = strlen(what) + strlen(folder) + 16;
  dataset->description = lamina_alloc(dataset->context, bytes);
  if (!dataset->description) return lamina_fail_memory(dataset->context, bytes);
  snprintf(dataset->description, bytes, *folder ? "%s in %s" : "%s", what, folder);
  return LAMINA_OK;
}

static lamina_status read_folder(lamina_dataset *dataset, const char *folder) {
  const lamina_context *context = dataset->context;
  struct stat info;
  if (stat(folder, &info) != 0)
    return lamina_fail(context, errno == ENOENT ? LAMINA_NOT_FOUND : LAMINA_IO_ERROR, "%s: %s", folder,
                       strerror(errno));
  if (!S_ISDIR(info.st_mode))
    return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "%s: a data set is a folder, not a file", folder);
  for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
    if (!formats[i].is_here(context, folder)) continue;
    lamina_status status = formats[i].read(dataset, folder);
    return status == LAMINA_OK ? describe(dataset, formats[i].description, folder) : status;
  }
  return lamina_fail(context, LAMINA_NOT_FOUND,
                     "%s: holds no data set: neither train-images-idx3-ubyte[.gz] nor data_batch_1.bin nor "
                     "train_images.npy",
                     folder);
}

static lamina_status draw(lamina_dataset *dataset, const lamina_dataset_options *options) {
  const int64_t train = options->train_count ? options->train_count : TRAIN_COUNT;
  const int64_t test = options->test_count ? options->test_count : TEST_COUNT;
  if (train < 1 || test < 1 || train > DIGITS_LIMIT || test > DIGITS_LIMIT)
    return lamina_fail(dataset->context, LAMINA_INVALID_ARGUMENT,
                       "embedded digits: %" PRId64 " and %" PRId64 " samples; each must be 1 to %d", train, test,
                       DIGITS_LIMIT);
  lamina_status status = lamina_digits_draw(dataset, options->seed, train, test);
  return status == LAMINA_OK ? describe(dataset, "embedded digits", "") : status;
}

static void count_classes(lamina_dataset *dataset) {
  for (int split = 0; split < 2; split++)
    for (int64_t i = 0; i < dataset->split[split].count; i++)
      if (dataset->split[split].labels[i] >= dataset->classes) dataset->classes = dataset->split[split].labels[i] + 1;
}

static lamina_status check_statistics(const lamina_dataset *dataset, const lamina_dataset_options *options) {
  const lamina_context *context = dataset->context;
  if (!options->mean || !options->deviation)
    return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "normalise: mean and deviation belong together");
  if (options->statistics != 1 && options->statistics != dataset->channels)
    return lamina_fail(context, LAMINA_INVALID_ARGUMENT,
                       "normalise: %d means and deviations for %s, which has %" PRId64 " channel%s", options->statistics,
                       dataset->description, dataset->channels, dataset->channels == 1 ? "" : "s");
  for (int i = 0; i < options->statistics; i++)
    if (!isfinite(options->mean[i]) || !isfinite(options->deviation[i]) || !(options->deviation[i] > 0))
      return lamina_fail(context, LAMINA_INVALID_ARGUMENT,
                         "normalise: mean %g and deviation %g: they must be finite, and the deviation above 0",
                         options->mean[i], options->deviation[i]);
  return LAMINA_OK;
}

/* Copies the statistics, one for each channel. */
static lamina_status keep_statistics(lamina_dataset *dataset, const lamina_dataset_options *options) {
  lamina_status status = check_statistics(dataset, options);
  if (status != LAMINA_OK) return status;
  const size_t bytes = (size_t)dataset->channels * sizeof *dataset->mean;
  dataset->mean = lamina_alloc(dataset->context, bytes);
  dataset->deviation = lamina_alloc(dataset->context, bytes);
  if (!dataset->mean || !dataset->deviation) return lamina_fail_memory(dataset->context, bytes);
  for (int64_t c = 0; c < dataset->channels; c++) {
    dataset->mean[c] = options->mean[options->statistics == 1 ? 0 : c];
    dataset->deviation[c] = options->deviation[options->statistics == 1 ? 0 : c];
  }
  return LAMINA_OK;
}

static float normalised(const lamina_dataset *dataset, int64_t c, double value) {
  return (float)((value - dataset->mean[c]) / dataset->deviation[c]);
}

static lamina_status fill_table(lamina_dataset *dataset) {
  const size_t count = (size_t)dataset->channels * 256;
  dataset->bytes = lamina_alloc(dataset->context, count * sizeof *dataset->bytes);
  if (!dataset->bytes) return lamina_fail_memory(dataset->context, count * sizeof *dataset->bytes);
  for (size_t i = 0; i < count; i++)
    dataset->bytes[i] = dataset->mean ? normalised(dataset, (int64_t)(i / 256), (double)(i % 256) / 255)
                                      : (float)(i % 256) / 127.5f - 1.0f;
  return LAMINA_OK;
}

float lamina_dataset_black(const lamina_dataset *dataset, int64_t c) {
  if (dataset->split[0].bytes) return dataset->bytes[256 * c];
  return dataset->mean ? normalised(dataset, c, 0) : 0;
}

lamina_status lamina_dataset_open(lamina_context *context, const lamina_dataset_options *given, lamina_dataset **out) {
  if (out) *out = NULL;
  if (!context) return LAMINA_INVALID_ARGUMENT;
  if (!out || (given && given->size < sizeof given->size))
    return lamina_fail(context, LAMINA_INVALID_ARGUMENT,
                       "lamina_dataset_open: dataset is NULL or options have no size");
  lamina_dataset_options options = {.size = sizeof options};
  if (given) memcpy(&options, given, given->size < sizeof options ? given->size : sizeof options);
  lamina_dataset *dataset = lamina_alloc_zeroed(context, sizeof *dataset);
  if (!dataset) return lamina_fail_memory(context, sizeof *dataset);
  atomic_init(&dataset->references, 1);
  dataset->context = context;
  lamina_context_retain(context);
  lamina_status status = options.directory ? read_folder(dataset, options.directory) : draw(dataset, &options);
  if (status == LAMINA_OK && (options.mean || options.deviation)) status = keep_statistics(dataset, &options);
  if (status == LAMINA_OK) status = fill_table(dataset);
  if (status != LAMINA_OK) {
    lamina_dataset_destroy(dataset);
    return status;
  }
  count_classes(dataset);
  *out = dataset;
  return LAMINA_OK;
}

void lamina_dataset_retain(lamina_dataset *dataset) { atomic_fetch_add(&dataset->references, 1); }

void lamina_dataset_destroy(lamina_dataset *dataset) {
  if (!dataset || atomic_fetch_sub(&dataset->references, 1) > 1) return;
  lamina_context *context = dataset->context;
  for (int split = 0; split < 2; split++) {
    lamina_free(context, dataset->split[split].bytes);
    lamina_free(context, dataset->split[split].floats);
    lamina_free(context, dataset->split[split].labels);
  }
  lamina_free(context, dataset->mean);
  lamina_free(context, dataset->deviation);
  lamina_free(context, dataset->bytes);
  lamina_free(context, dataset->description);
  lamina_free(context, dataset);
  lamina_context_release(context);
}

lamina_status lamina_dataset_get_info(const lamina_dataset *dataset, lamina_dataset_info *info) {
  if (!dataset) return LAMINA_INVALID_ARGUMENT;
  if (!info || info->size < sizeof info->size)
    return lamina_fail(dataset->context, LAMINA_INVALID_ARGUMENT,
                       "lamina_dataset_get_info: info is NULL or its size is not set");
  lamina_dataset_info full = {.size = info->size,
                              .description = dataset->description,
                              .count = {dataset->split[0].count, dataset->split[1].count},
                              .height = dataset->height,
                              .width = dataset->width,
                              .channels = dataset->channels,
                              .classes = dataset->classes};
  memcpy(info, &full, info->size < sizeof full ? info->size : sizeof full);
  return LAMINA_OK;
}

/* Without the repetition of grey images. */
static void copy_bytes(const lamina_dataset *dataset, const unsigned char *bytes, float *out) {
  const int64_t pixels = dataset->height * dataset->width, channels = dataset->channels;
  for (int64_t c = 0; c < channels; c++) {
    const float *table = dataset->bytes + 256 * c;
    for (int64_t i = 0; i < pixels; i++) out[i * channels + c] = table[bytes[i * channels + c]];
  }
}

static void copy_floats(const lamina_dataset *dataset, const float *floats, float *out) {
  const int64_t elements = dataset->height * dataset->width * dataset->channels;
  if (!dataset->mean)
    memcpy(out, floats, (size_t)elements * sizeof *out);
  else
    for (int64_t i = 0; i < elements; i++) out[i] = normalised(dataset, i % dataset->channels, floats[i]);
}

void lamina_dataset_image(const lamina_dataset *dataset, lamina_split split, int64_t index, int64_t channels, float *out) {
  const lamina_samples *samples = &dataset->split[split];
  const int64_t pixels = dataset->height * dataset->width, elements = pixels * dataset->channels;
  if (samples->bytes)
    copy_bytes(dataset, samples->bytes + index * elements, out);
  else
    copy_floats(dataset, samples->floats + index * elements, out);
  if (channels == dataset->channels) return;
  for (int64_t i = pixels - 1; i >= 0; i--) { /* a grey image, into every channel: from the end, since it lies in `out` */
    const float value = out[i];
    for (int64_t c = 0; c < channels; c++) out[i * channels + c] = value;
  }
}

lamina_status lamina_dataset_batch(const lamina_dataset *dataset, lamina_split split, int64_t n, const int64_t *index,
                                   int64_t channels, float *images, int32_t *labels) {
  if (!dataset) return LAMINA_INVALID_ARGUMENT;
  const lamina_context *context = dataset->context;
  if ((split != LAMINA_SPLIT_TRAIN && split != LAMINA_SPLIT_TEST) || n < 0 || (n > 0 && (!index || !images || !labels)))
    return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "lamina_dataset_batch: a wrong split, count or NULL pointer");
  if (channels != dataset->channels && (dataset->channels != 1 || channels < 1))
    return lamina_fail(context, LAMINA_SHAPE_MISMATCH, "%s: images of %" PRId64 " channels cannot be given as %" PRId64,
                       dataset->description, dataset->channels, channels);
  const lamina_samples *samples = &dataset->split[split];
  for (int64_t i = 0; i < n; i++)
    if (index[i] < 0 || index[i] >= samples->count)
      return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "%s: sample %" PRId64 " of %" PRId64, dataset->description,
                         index[i], samples->count);
  const int64_t elements = dataset->height * dataset->width * channels;
  for (int64_t i = 0; i < n; i++) {
    lamina_dataset_image(dataset, split, index[i], channels, images + i * elements);
    labels[i] = samples->labels[index[i]];
  }
  return LAMINA_OK;
}

/* Fisher and Yates: every permutation is equally likely. */
void lamina_shuffle(uint64_t seed, uint64_t epoch, int64_t count, int64_t *index) {
  const uint64_t stream = lamina_random_stream(seed, epoch);
  for (int64_t i = 0; i < count; i++) index[i] = i;
  for (int64_t i = count - 1; i > 0; i--) {
    uint32_t words[4];
    lamina_random_block(stream, (uint64_t)i, words);
    const uint64_t number = (uint64_t)words[1] << 32 | words[0];
    const int64_t other = (int64_t)(number % ((uint64_t)i + 1)); /* the bias is below 2^-30 for any real count */
    const int64_t kept = index[i];
    index[i] = index[other];
    index[other] = kept;
  }
}
