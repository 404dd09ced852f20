/* SPDX-License-Identifier: Apache-2.0 */
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

lamina_status lamina_file_open(const lamina_context *context, const char *path, int *fd, size_t *bytes) {
  if (!path || !*path) return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "no file name was given");
  /* Without O_NONBLOCK, opening a pipe would wait for its writer. */
  int opened = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (opened < 0) {
    lamina_status status = errno == ENOENT || errno == ENOTDIR ? LAMINA_NOT_FOUND : LAMINA_IO_ERROR;
    return lamina_fail(context, status, "%s: %s", path, strerror(errno));
  }
  struct stat info;
  lamina_status status = LAMINA_OK;
  if (fstat(opened, &info) != 0)
    status = lamina_fail(context, LAMINA_IO_ERROR, "%s: %s", path, strerror(errno));
  else if (S_ISDIR(info.st_mode))
    status = lamina_fail(context, LAMINA_IO_ERROR, "%s: is a folder, not a file", path);
  else if (!S_ISREG(info.st_mode))
    status = lamina_fail(context, LAMINA_IO_ERROR, "%s: not a regular file", path);
  else if (info.st_size < 0 || (uint64_t)info.st_size > SIZE_MAX / 2)
    status = lamina_fail(context, LAMINA_UNSUPPORTED, "%s: too large", path);
  if (status != LAMINA_OK) {
    close(opened);
    return status;
  }
  *fd = opened;
  *bytes = (size_t)info.st_size;
  return LAMINA_OK;
}

lamina_status lamina_file_fill(const lamina_context *context, const char *path, int fd, void *buffer, size_t bytes) {
  size_t done = 0;
  while (done < bytes) {
    ssize_t n = read(fd, (char *)buffer + done, bytes - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return lamina_fail(context, LAMINA_IO_ERROR, "%s: %s", path, strerror(errno));
    if (n == 0) return lamina_fail(context, LAMINA_BAD_FILE, "%s: became shorter while it was read", path);
    done += (size_t)n;
  }
  return LAMINA_OK;
}

lamina_status lamina_file_read(const lamina_context *context, const char *path, size_t limit, char **data,
                               size_t *bytes) {
  int fd = -1;
  size_t size = 0;
  lamina_status status = lamina_file_open(context, path, &fd, &size);
  if (status != LAMINA_OK) return status;
  char *memory = NULL;
  if (size > limit) {
    status =
        lamina_fail(context, LAMINA_UNSUPPORTED, "%s: has %zu bytes; more than %zu are not read", path, size, limit);
  } else if (!(memory = lamina_alloc(context, size + 1))) {
    status = lamina_fail_memory(context, size + 1);
  } else {
    status = lamina_file_fill(context, path, fd, memory, size);
  }
  close(fd);
  if (status != LAMINA_OK) {
    lamina_free(context, memory);
    return status;
  }
  memory[size] = 0;
  *data = memory;
  *bytes = size;
  return LAMINA_OK;
}

bool lamina_checked_count(int rank, const int64_t *dim, size_t *count) {
  int64_t extent = 1;
  bool empty = false;
  for (int i = 0; i < rank; i++) {
    if (dim[i] < 0 || __builtin_mul_overflow(extent, dim[i] ? dim[i] : 1, &extent)) return false;
    empty = empty || dim[i] == 0;
  }
  *count = empty ? 0 : (size_t)extent;
  return true;
}

char *lamina_path_join(const lamina_context *context, const char *folder, const char *name) {
  size_t bytes = strlen(folder) + strlen(name) + 2;
  char *path = lamina_alloc(context, bytes);
  if (path) snprintf(path, bytes, "%s/%s", folder, name);
  return path;
}
