/* SPDX-License-Identifier: Apache-2.0 */
/* One line on a terminal that is rewritten in place; nothing when the stream is a file or a pipe. */
#ifndef TOOL_PROGRESS_H
#define TOOL_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct progress {
  FILE *stream; /* NULL: not a terminal */
  double last;  /* when it was drawn */
  bool drawn;
} progress;

void progress_start(progress *p, FILE *stream);
/* Whether a tenth of a second has passed since the last update: ask before composing the text. */
bool progress_due(const progress *p);
void progress_update(progress *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* "WHAT done/all, time left", when it is due. */
void progress_count(progress *p, const char *what, int64_t done, int64_t all, double elapsed);
/* Removes the line, so that other text can be printed. */
void progress_clear(progress *p);
/* "2:05" or "1:02:05" of a duration; returns the buffer. */
const char *duration_text(double seconds, char *buffer, size_t size);

#endif
