/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of files share: a context, a folder of their own, and expectations about messages. */
#ifndef LAMINA_TESTS_IO_TEST_H
#define LAMINA_TESTS_IO_TEST_H

#include "core.h"

#include <check.h>
#include <stddef.h>

extern lamina_context *context;

/* A check fixture: creates the context and an empty folder, and removes both. */
void io_setup(void);
void io_teardown(void);
/* The path of a file in that folder; good for the next few calls. */
const char *io_path(const char *name);
void io_write(const char *name, const void *data, size_t bytes);
void io_write_text(const char *name, const char *text);
/* The content, to be freed; NULL if there is no such file. A zero byte follows it. */
char *io_read(const char *name, size_t *bytes);
/* Files in the folder, temporary ones too. */
int io_file_count(void);
/* A safetensors file of a header and `bytes` bytes 0, 1, 2 ... of data. */
void io_write_safetensors(const char *name, const char *header, size_t bytes);
/* The call must have failed with this status and a message that contains both texts. */
void io_expect_failure(lamina_status got, lamina_status status, const char *text, const char *more);
void io_expect_ok(lamina_status got);
/* Runs the suite; the exit status of the test. */
int io_run(Suite *suite);

#endif
