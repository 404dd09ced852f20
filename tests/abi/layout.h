/* SPDX-License-Identifier: Apache-2.0 */
/* Asserts, while it compiles, where the fields of public structs are. */
#ifndef LAMINA_TESTS_ABI_LAYOUT_H
#define LAMINA_TESTS_ABI_LAYOUT_H

#include <stddef.h>

/* A struct that begins with its size may grow at its end; others stay as they are. */
#define GROWS(type, bytes) _Static_assert(sizeof(type) >= (bytes), #type " has shrunk");
#define FIXED(type, bytes) _Static_assert(sizeof(type) == (bytes), #type " has another size");
#define AT(type, field, offset) _Static_assert(offsetof(type, field) == (offset), #type "." #field " has moved");
#define IS(constant, value) _Static_assert((long long)(constant) == (value), #constant " has another value");

#endif
