/* SPDX-License-Identifier: Apache-2.0 */
#include "io/atomic_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER_BYTES = 1 << 16, NAME_TRIES = 1000 };

struct lamina_atomic_file {
  const lamina_context *context;
  char *path;   /* as the caller named it, for messages */
  char *target; /* the file's name within its folder, symbolic links followed */
  int folder, fd;
  char temporary[48]; /* "" once it is gone */
  size_t buffered;
  char buffer[BUFFER_BYTES];
};

static lamina_status fail_errno(const lamina_atomic_file *file, const char *what) {
  return lamina_fail(file->context, LAMINA_IO_ERROR, "%s: cannot %s: %s", file->path, what, strerror(errno));
}

void lamina_atomic_abandon(lamina_atomic_file *file) {
  if (!file) return;
  if (file->fd >= 0) close(file->fd);
  if (file->temporary[0]) unlinkat(file->folder, file->temporary, 0);
  if (file->folder >= 0) close(file->folder);
  lamina_free(file->context, file->target);
  lamina_free(file->context, file->path);
  lamina_free(file->context, file);
}

/* Opens the folder of the file that `path` means. A symbolic link stays a link: the file that it points to is replaced.
 */
static lamina_status open_folder(lamina_atomic_file *file) {
  char *real = realpath(file->path, NULL);
  const char *path = real ? real : file->path;
  const char *slash = strrchr(path, '/');
  lamina_status status = LAMINA_OK;
  char *folder = NULL;
  file->target = lamina_copy_string(file->context, slash ? slash + 1 : path);
  folder = lamina_copy_string(file->context, slash ? path : ".");
  if (!file->target || !folder) {
    status = lamina_fail_memory(file->context, strlen(path) + 1);
  } else if (!file->target[0]) {
    status = lamina_fail(file->context, LAMINA_IO_ERROR, "%s: names a folder, not a file", file->path);
  } else {
    if (slash) folder[slash == path ? 1 : slash - path] = 0;
    file->folder = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* A folder that may be written but not listed cannot be synced, yet it can hold the file. */
    if (file->folder < 0 && errno == EACCES) file->folder = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (file->folder < 0) status = fail_errno(file, "write here");
  }
  lamina_free(file->context, folder);
  free(real);
  return status;
}

static lamina_status create_temporary(lamina_atomic_file *file) {
  struct stat old;
  bool replaces = fstatat(file->folder, file->target, &old, 0) == 0;
  if (replaces && !S_ISREG(old.st_mode))
    return lamina_fail(file->context, LAMINA_IO_ERROR, "%s: is not a regular file and is not replaced", file->path);
  for (int i = 0; i < NAME_TRIES && file->fd < 0; i++) {
    snprintf(file->temporary, sizeof file->temporary, ".lamina-%ld-%d.tmp", (long)getpid(), i);
    file->fd = openat(file->folder, file->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (file->fd < 0) file->temporary[0] = 0;
    if (file->fd < 0 && errno != EEXIST && errno != EINTR) break;
  }
  if (file->fd < 0) return fail_errno(file, "create a temporary file in its folder");
  if (replaces && fchmod(file->fd, old.st_mode & 0777) != 0) return fail_errno(file, "set its permissions");
  return LAMINA_OK;
}

lamina_status lamina_atomic_open(const lamina_context *context, const char *path, lamina_atomic_file **out) {
  *out = NULL;
  if (!path || !*path) return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "no file name was given");
  lamina_atomic_file *file = lamina_alloc(context, sizeof *file);
  if (!file) return lamina_fail_memory(context, sizeof *file);
  file->context = context;
  file->target = NULL;
  file->folder = file->fd = -1;
  file->temporary[0] = 0;
  file->buffered = 0;
  file->path = lamina_copy_string(context, path);
  lamina_status status = file->path ? LAMINA_OK : lamina_fail_memory(context, strlen(path) + 1);
  if (status == LAMINA_OK) status = open_folder(file);
  if (status == LAMINA_OK) status = create_temporary(file);
  if (status != LAMINA_OK) {
    lamina_atomic_abandon(file);
    return status;
  }
  *out = file;
  return LAMINA_OK;
}

static lamina_status write_all(lamina_atomic_file *file, const char *data, size_t bytes) {
  while (bytes) {
    ssize_t n = write(file->fd, data, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n == 0) errno = EIO;
    if (n <= 0) return fail_errno(file, "write");
    data += n;
    bytes -= (size_t)n;
  }
  return LAMINA_OK;
}

static lamina_status flush(lamina_atomic_file *file) {
  size_t bytes = file->buffered;
  file->buffered = 0;
  return write_all(file, file->buffer, bytes);
}

lamina_status lamina_atomic_write(lamina_atomic_file *file, const void *data, size_t bytes) {
  if (bytes > BUFFER_BYTES - file->buffered) {
    lamina_status status = flush(file);
    if (status != LAMINA_OK) return status;
  }
  if (bytes > BUFFER_BYTES) return write_all(file, data, bytes);
  if (bytes) memcpy(file->buffer + file->buffered, data, bytes);
  file->buffered += bytes;
  return LAMINA_OK;
}

static int sync_descriptor(int fd) {
  int result;
  while ((result = fsync(fd)) != 0 && errno == EINTR) {
  }
  return result;
}

lamina_status lamina_atomic_commit(lamina_atomic_file *file) {
  lamina_status status = flush(file);
  if (status == LAMINA_OK && sync_descriptor(file->fd) != 0) status = fail_errno(file, "write to the disk");
  if (status == LAMINA_OK) {
    int fd = file->fd;
    file->fd = -1;
    /* After EINTR the descriptor is closed on Linux, and the data was synced. */
    if (close(fd) != 0 && errno != EINTR) status = fail_errno(file, "close");
  }
  if (status == LAMINA_OK) {
    if (renameat(file->folder, file->temporary, file->folder, file->target) != 0)
      status = fail_errno(file, "replace it");
    else
      file->temporary[0] = 0;
  }
  /* The new file is complete now; syncing its folder makes the name survive a power cut. Some file systems cannot. */
  if (status == LAMINA_OK && sync_descriptor(file->folder) != 0 && errno != EINVAL && errno != EBADF &&
      errno != ENOTSUP && errno != EROFS)
    status = fail_errno(file, "write its folder to the disk (the file itself is complete)");
  lamina_atomic_abandon(file);
  return status;
}
