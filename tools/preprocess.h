/* SPDX-License-Identifier: Apache-2.0 */
/* What is done to images before a network sees them: --normalise, which belongs to the weights, and --augment. */
#ifndef TOOL_PREPROCESS_H
#define TOOL_PREPROCESS_H

#include "session.h"

enum { STATISTICS_MAX = 16, NORMALISE_MAX = 1024, AUGMENT_MAX = 64 };

typedef struct normalisation {
  int count; /* 0: none */
  double mean[STATISTICS_MAX], deviation[STATISTICS_MAX];
} normalisation;

typedef struct augmentation {
  int64_t shift, crop;
  int flip;
} augmentation;

/* "MEAN/DEVIATION", each one number or one for each channel, separated by commas; "": none. NULL, or what is wrong. */
const char *normalisation_parse(const char *text, normalisation *n);
/* "shift=N,crop=N,flip", any of them; "": none. NULL, or what is wrong. */
const char *augmentation_parse(const char *text, augmentation *a);

/* How these weights want their images: prints on failure. */
int normalisation_of_weights(const session *s, const char *path, normalisation *n);
/* The metadata's key of a weights file. */
#define NORMALISE_KEY "lamina.normalise"
/* value of channel c; bytes have been scaled to 0 .. 1 */
float normalised(const normalisation *n, int64_t c, double value);

#endif
