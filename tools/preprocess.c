/* SPDX-License-Identifier: Apache-2.0 */
#include "preprocess.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Numbers separated by commas, up to `stop`; -1 if it is anything else. */
static int parse_list(const char **text, char stop, double *values) {
  for (int count = 0; count < STATISTICS_MAX;) {
    char *end;
    if (!**text || isspace((unsigned char)**text)) return -1;
    values[count] = strtod(*text, &end);
    if (end == *text || !isfinite(values[count])) return -1;
    count++;
    *text = end + (*end != 0);
    if (*end == stop) return count;
    if (*end != ',') return -1;
  }
  return -1;
}

const char *normalisation_parse(const char *text, normalisation *n) {
  *n = (normalisation){0};
  if (!*text) return NULL;
  const int means = parse_list(&text, '/', n->mean), deviations = means < 1 ? -1 : parse_list(&text, 0, n->deviation);
  if (deviations < 1)
    return "it must be MEAN/DEVIATION, each a number or one for each channel: 0.13/0.31 or "
           "0.49,0.48,0.45/0.25,0.24,0.26";
  if (means != deviations) return "there must be as many means as deviations";
  for (int i = 0; i < deviations; i++)
    if (!(n->deviation[i] > 0)) return "a deviation must be above 0";
  n->count = means;
  return NULL;
}

/* "NAME=N", or "NAME" alone for those without a number. */
static bool parse_word(const char *word, size_t length, const char *name, int64_t *value) {
  const size_t own = strlen(name);
  if (length < own + 2 || length > own + 5 || strncmp(word, name, own) != 0 || word[own] != '=') return false;
  *value = 0;
  for (size_t i = own + 1; i < length; i++) {
    if (!isdigit((unsigned char)word[i])) return false;
    *value = *value * 10 + (word[i] - '0');
  }
  return true;
}

const char *augmentation_parse(const char *text, augmentation *a) {
  *a = (augmentation){0};
  if (strlen(text) >= AUGMENT_MAX) return "it is too long";
  while (*text) {
    const size_t length = strcspn(text, ",");
    if (length == 4 && !strncmp(text, "flip", 4))
      a->flip = 1;
    else if (!parse_word(text, length, "shift", &a->shift) && !parse_word(text, length, "crop", &a->crop))
      return "it must be any of shift=N, crop=N and flip, separated by commas";
    text += length;
    if (*text == ',' && !*++text) return "it ends in a comma";
  }
  return NULL;
}

int normalisation_of_weights(const session *s, const char *path, normalisation *n) {
  char text[NORMALISE_MAX];
  *n = (normalisation){0};
  const lamina_status status = lamina_weights_metadata(s->context, path, NORMALISE_KEY, text, sizeof text);
  if (status == LAMINA_NOT_FOUND) return EXIT_OK;
  if (status) return fail_library(s, "cannot read the weights");
  const char *wrong = normalisation_parse(text, n);
  return wrong ? fail("%s: the metadata '" NORMALISE_KEY "' is damaged: %s", path, wrong) : EXIT_OK;
}

float normalised(const normalisation *n, int64_t c, double value) {
  const int64_t i = n->count == 1 ? 0 : c;
  return (float)((value - n->mean[i]) / n->deviation[i]);
}
