/* SPDX-License-Identifier: Apache-2.0 */
/* Labelled images in memory, and the readers that fill them. */
#ifndef LAMINA_IO_DATASET_H
#define LAMINA_IO_DATASET_H

#include "core.h"

enum { LAMINA_LABEL_LIMIT = 1 << 20 }; /* a label beyond is taken for damage */

typedef struct lamina_samples {
  unsigned char *bytes; /* (N, H, W, C), or NULL when the images are floats */
  float *floats;
  int32_t *labels;
  int64_t count;
} lamina_samples;

struct lamina_dataset {
  atomic_int references;
  lamina_context *context;
  char *description;
  lamina_samples split[2]; /* by lamina_split */
  int64_t height, width, channels;
  int classes;
  double *mean, *deviation; /* of each channel; NULL: not normalised */
  float *bytes;             /* what each byte becomes: 256 for each channel */
};

void lamina_dataset_retain(lamina_dataset *dataset);
/* One image with `channels` channels, a multiple of the data's. */
void lamina_dataset_image(const lamina_dataset *dataset, lamina_split split, int64_t index, int64_t channels, float *out);
/* What a black pixel's value of channel c of the data is handed out as. */
float lamina_dataset_black(const lamina_dataset *dataset, int64_t c);

/* Whether a folder holds files of a kind, and reading them. */
bool lamina_idx_is_here(const lamina_context *context, const char *folder);
lamina_status lamina_idx_read(lamina_dataset *dataset, const char *folder);
bool lamina_cifar_is_here(const lamina_context *context, const char *folder);
lamina_status lamina_cifar_read(lamina_dataset *dataset, const char *folder);
bool lamina_arrays_are_here(const lamina_context *context, const char *folder);
lamina_status lamina_arrays_read(lamina_dataset *dataset, const char *folder);
/* Draws the embedded digits. */
lamina_status lamina_digits_draw(lamina_dataset *dataset, uint64_t seed, int64_t train_count, int64_t test_count);

/* One IDX file of `rank` dimensions (1: labels, 3: images), plain or gzip; elements for lamina_free. */
lamina_status lamina_idx_file(const lamina_context *context, const char *path, int rank, int64_t *dim,
                              unsigned char **elements);

#endif
