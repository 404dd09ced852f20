/* SPDX-License-Identifier: Apache-2.0 */
/* A file that is written beside the old one and takes its place only when it is complete and on the disk: whatever
   fails before, the old file is as it was and no temporary file is left. */
#ifndef LAMINA_IO_ATOMIC_FILE_H
#define LAMINA_IO_ATOMIC_FILE_H

#include "core.h"

typedef struct lamina_atomic_file lamina_atomic_file;

lamina_status lamina_atomic_open(const lamina_context *context, const char *path, lamina_atomic_file **file);
lamina_status lamina_atomic_write(lamina_atomic_file *file, const void *data, size_t bytes);
/* Syncs and renames. The handle is gone afterwards, whatever is returned. */
lamina_status lamina_atomic_commit(lamina_atomic_file *file);
/* Removes what was written so far; NULL is fine. */
void lamina_atomic_abandon(lamina_atomic_file *file);

#endif
