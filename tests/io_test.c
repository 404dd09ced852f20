/* SPDX-License-Identifier: Apache-2.0 */
#include "io_test.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

lamina_context *context;
static char folder[64];

void io_setup(void) {
  lamina_context_options options = {.size = sizeof options, .threads = 1};
  ck_assert_int_eq(lamina_context_create(&options, &context), LAMINA_OK);
  strcpy(folder, "/tmp/lamina-io-XXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(folder));
}

static int each_file(bool remove_it) {
  struct dirent *entry;
  int count = 0;
  DIR *directory = opendir(folder);
  ck_assert_ptr_nonnull(directory);
  while ((entry = readdir(directory))) {
    if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
    count++;
    if (remove_it) unlinkat(dirfd(directory), entry->d_name, 0);
  }
  closedir(directory);
  return count;
}

void io_teardown(void) {
  each_file(true);
  rmdir(folder);
  lamina_context_destroy(context);
}

int io_file_count(void) { return each_file(false); }

const char *io_path(const char *name) {
  static char paths[8][400];
  static int next;
  char *path = paths[next++ % 8];
  snprintf(path, sizeof paths[0], *name ? "%s/%s" : "%s", folder, name);
  return path;
}

void io_write(const char *name, const void *data, size_t bytes) {
  FILE *file = fopen(io_path(name), "wb");
  ck_assert_ptr_nonnull(file);
  ck_assert_uint_eq(fwrite(data, 1, bytes, file), bytes);
  ck_assert_int_eq(fclose(file), 0);
}

void io_write_text(const char *name, const char *text) { io_write(name, text, strlen(text)); }

char *io_read(const char *name, size_t *bytes) {
  FILE *file = fopen(io_path(name), "rb");
  if (!file) return NULL;
  fseek(file, 0, SEEK_END);
  *bytes = (size_t)ftell(file);
  rewind(file);
  char *data = malloc(*bytes + 1);
  ck_assert_ptr_nonnull(data);
  ck_assert_uint_eq(fread(data, 1, *bytes, file), *bytes);
  data[*bytes] = 0;
  fclose(file);
  return data;
}

void io_write_safetensors(const char *name, const char *header, size_t bytes) {
  const size_t length = strlen(header);
  unsigned char *data = calloc(1, 8 + length + bytes);
  for (int i = 0; i < 8; i++) data[i] = (unsigned char)((uint64_t)length >> 8 * i);
  memcpy(data + 8, header, length);
  for (size_t i = 0; i < bytes; i++) data[8 + length + i] = (unsigned char)i;
  io_write(name, data, 8 + length + bytes);
  free(data);
}

void io_expect_failure(lamina_status got, lamina_status status, const char *text, const char *more) {
  const char *message = lamina_error_message(context);
  ck_assert_msg(got == status, "status %s instead of %s: %s", lamina_status_name(got), lamina_status_name(status),
                message);
  ck_assert_msg(strstr(message, text) != NULL, "'%s' does not contain '%s'", message, text);
  ck_assert_msg(strstr(message, more) != NULL, "'%s' does not contain '%s'", message, more);
}

void io_expect_ok(lamina_status got) { ck_assert_msg(got == LAMINA_OK, "%s", lamina_error_message(context)); }

int io_run(Suite *suite) {
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
