/* SPDX-License-Identifier: Apache-2.0 */
/* Composes the kernel table of a context from the ISAs that were compiled in and that the processor has. */
#ifndef LAMINA_DISPATCH_H
#define LAMINA_DISPATCH_H

#include "core.h"

/* The ISA names usable here, best first, separated by spaces. */
void lamina_dispatch_list(char *buffer, size_t bytes);
/* Fills `table` for the ISA of that name, or the best for NULL; a group that an ISA leaves NULL comes from the one below.
   On failure writes what is wrong into `error`. */
lamina_status lamina_dispatch_compose(const char *isa, lamina_kernels *table, char *error, size_t error_size);
/* Whether a context whose ISA is `in_force` may run code for `isa`. */
bool lamina_dispatch_includes(const char *in_force, const char *isa);

#endif
