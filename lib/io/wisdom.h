/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was measured when plans were tuned, kept from one process to the next in a JSON file:
 *   {"format": "lamina wisdom", "version": 1, "entries": {KEY: {"kernel": NAME, "us": {NAME: MICROSECONDS, ...}}}}
 * A key says all that a choice depends on. The file is LAMINA_WISDOM, else lamina/wisdom.json in XDG_CACHE_HOME or in
 * ~/.cache; an empty LAMINA_WISDOM means none. What cannot be read or written is told through the log, never a failure;
 * a file that is no such file, or damaged, is neither used nor replaced.
 */
#ifndef LAMINA_IO_WISDOM_H
#define LAMINA_IO_WISDOM_H

#include "core.h"

typedef struct lamina_wisdom lamina_wisdom;

/* NULL without memory. */
lamina_wisdom *lamina_wisdom_open(const lamina_context *context);
/* The kernel that was the fastest, or NULL. Valid until the wisdom is closed. */
const char *lamina_wisdom_find(const lamina_wisdom *wisdom, const char *key);
/* Adds a choice among kernels that took so many microseconds. */
void lamina_wisdom_add(lamina_wisdom *wisdom, const char *key, const char *kernel, int count, const char *const *names,
                       const double *us);
/* Writes what was added, together with what others have written since; NULL is fine. */
void lamina_wisdom_close(lamina_wisdom *wisdom);

#endif
