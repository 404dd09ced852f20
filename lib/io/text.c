/* SPDX-License-Identifier: Apache-2.0 */
#include "io/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void lamina_text_add(lamina_text *text, const char *format, ...) {
  va_list arguments, again;
  if (text->failed) return;
  va_start(arguments, format);
  va_copy(again, arguments);
  int length = vsnprintf(NULL, 0, format, arguments);
  va_end(arguments);
  char *data = NULL;
  if (length >= 0) data = lamina_grow(text->context, text->data, &text->capacity, text->bytes + (size_t)length + 1, 1);
  if (data) {
    text->data = data;
    vsnprintf(data + text->bytes, (size_t)length + 1, format, again);
    text->bytes += (size_t)length;
  } else {
    text->failed = true;
  }
  va_end(again);
}

void lamina_text_add_real(lamina_text *text, double value) {
  char number[40];
  for (int digits = 6; digits <= 17; digits++) {
    snprintf(number, sizeof number, "%.*g", digits, value);
    if (strtod(number, NULL) == value) break;
  }
  char *comma = strchr(number, ',');
  if (comma) *comma = '.';
  lamina_text_add(text, "%s", number);
}
