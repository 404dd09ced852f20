/* SPDX-License-Identifier: Apache-2.0 */
/* Which files may become code of this process. */
#ifndef LAMINA_PLUGIN_TRUST_H
#define LAMINA_PLUGIN_TRUST_H

#include "core.h"

/*
 * Opens a regular file that nobody but root and this user can have written or put there: file and every folder above it
 * belong to one of them and are not writable by others (but a sticky folder such as /tmp, where one cannot touch what
 * another owns). A group that is the user's alone, of the same name and without other members, may write. `real` becomes its absolute path without links, to be freed by lamina_free. What is checked is what is
 * opened, whatever becomes of the path in the meantime.
 */
lamina_status lamina_trusted_open(const lamina_context *context, const char *path, int *fd, char **real);

#endif
