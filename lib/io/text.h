/* SPDX-License-Identifier: Apache-2.0 */
/* Text that grows as it is written. */
#ifndef LAMINA_IO_TEXT_H
#define LAMINA_IO_TEXT_H

#include "core.h"

/* Zero-initialise but for the context. Once memory has failed, adding does nothing and `failed` stays set. */
typedef struct lamina_text {
  const lamina_context *context;
  char *data; /* ends with a zero byte, once anything was added */
  size_t bytes, capacity;
  bool failed;
} lamina_text;

void lamina_text_add(lamina_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A short decimal number that reads back as exactly this value, with a point in every locale. */
void lamina_text_add_real(lamina_text *text, double value);

#endif
