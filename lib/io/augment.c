/* SPDX-License-Identifier: Apache-2.0 */
/* An image is cropped and stretched, then mirrored, then shifted. For each output pixel this finds, the other way
   round, the place in the image that it shows. The draws of a sample are two blocks of its stream. */
#include "io/augment.h"

#include "random.h"

#include <math.h>
#include <string.h>

/* One sample's chances. */
typedef struct draw {
  int64_t down, right; /* of the shift */
  int64_t cut, top, left;
  bool mirrored;
} draw;

static int64_t below(uint32_t word, int64_t n) { return (int64_t)(((uint64_t)word * (uint64_t)n) >> 32); }

static draw draw_of(const lamina_augment *a, uint64_t stream, int64_t index) {
  uint32_t word[8];
  lamina_random_block(stream, 2 * (uint64_t)index, word);
  lamina_random_block(stream, 2 * (uint64_t)index + 1, word + 4);
  draw d = {.down = below(word[0], 2 * a->shift + 1) - a->shift,
            .right = below(word[1], 2 * a->shift + 1) - a->shift,
            .cut = below(word[2], a->crop + 1),
            .mirrored = a->flip && word[5] >> 31};
  d.top = below(word[3], d.cut + 1);
  d.left = below(word[4], d.cut + 1);
  return d;
}

/* Output coordinate `at` of an axis of `size`, of which `first` .. `first + size - cut - 1` is stretched over it. */
static lamina_augment_axis find(int64_t at, int64_t size, int64_t first, int64_t cut, bool mirrored) {
  if (mirrored) at = size - 1 - at;
  if (!cut) return (lamina_augment_axis){at, at, 0};
  const int64_t kept = size - cut;
  double place = ((double)at + 0.5) * (double)kept / (double)size - 0.5;
  place = fmin(fmax(place, 0), (double)(kept - 1));
  const int64_t low = (int64_t)place, high = low + 1 < kept ? low + 1 : low;
  return (lamina_augment_axis){first + low, first + high, (float)(place - (double)low)};
}

static float between(float low, float high, float weight) { return low + (high - low) * weight; }

static void black_row(const lamina_augment *a, int64_t from, int64_t to, float *out) {
  for (int64_t x = from; x < to; x++)
    for (int64_t c = 0; c < a->channels; c++) out[x * a->channels + c] = a->black[c];
}

/* Columns from .. to - 1, which lie in the image as the row does. */
static void stretch_row(const lamina_augment *a, const lamina_augment_axis *row, int64_t from, int64_t to,
                        const float *image, float *out) {
  const int64_t channels = a->channels, line = a->width * channels;
  const float *low = image + row->low * line, *high = image + row->high * line;
  for (int64_t x = from; x < to; x++) {
    const lamina_augment_axis column = a->columns[x];
    const int64_t left = column.low * channels, right = column.high * channels;
    for (int64_t c = 0; c < channels; c++)
      out[x * channels + c] = between(between(low[left + c], low[right + c], column.weight),
                                      between(high[left + c], high[right + c], column.weight), row->weight);
  }
}

static void copy_row(const lamina_augment *a, int64_t row, int64_t from, int64_t to, const float *image, float *out) {
  const int64_t channels = a->channels;
  const float *line = image + row * a->width * channels;
  for (int64_t x = from; x < to; x++)
    for (int64_t c = 0; c < channels; c++) out[x * channels + c] = line[a->columns[x].low * channels + c];
}

void lamina_augment_image(const lamina_augment *a, uint64_t stream, int64_t index, const float *image, float *out) {
  const draw d = draw_of(a, stream, index);
  const int64_t from = d.right > 0 ? d.right : 0, to = d.right < 0 ? a->width + d.right : a->width;
  for (int64_t x = from; x < to; x++) a->columns[x] = find(x - d.right, a->width, d.left, d.cut, d.mirrored);
  for (int64_t y = 0; y < a->height; y++, out += a->width * a->channels) {
    const bool outside = y < d.down || y >= a->height + d.down;
    black_row(a, 0, outside ? a->width : from, out);
    black_row(a, outside ? a->width : to, a->width, out);
    if (outside) continue;
    const lamina_augment_axis row = find(y - d.down, a->height, d.top, d.cut, false);
    if (d.cut)
      stretch_row(a, &row, from, to, image, out);
    else
      copy_row(a, row.low, from, to, image, out);
  }
}
