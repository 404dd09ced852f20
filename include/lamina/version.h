/* SPDX-License-Identifier: Apache-2.0 */
/* The one source of Lamina's version and of its ABI number; meson.build reads both from here. */
#ifndef LAMINA_VERSION_H
#define LAMINA_VERSION_H

#define LAMINA_VERSION "0.1.0"

/* The soname's number: it changes only when a program linked against the library would break. */
#define LAMINA_SOVERSION 0

#endif
