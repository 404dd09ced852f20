/* SPDX-License-Identifier: Apache-2.0 */
/* What is done to an image before it is trained on, by chance. */
#ifndef LAMINA_IO_AUGMENT_H
#define LAMINA_IO_AUGMENT_H

#include "io/dataset.h"

/* Where output coordinate x finds its value: the value at `low`, and so much of the one at `high`. */
typedef struct lamina_augment_axis {
  int64_t low, high;
  float weight;
} lamina_augment_axis;

typedef struct lamina_augment {
  int64_t shift, crop;
  bool flip;
  int64_t height, width, channels;
  const float *black;           /* of each channel */
  lamina_augment_axis *columns; /* scratch: width of them */
} lamina_augment;

/* Writes `image` as sample `index` of this stream has it; `out` is other memory. */
void lamina_augment_image(const lamina_augment *a, uint64_t stream, int64_t index, const float *image, float *out);

#endif
