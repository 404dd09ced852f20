/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/trust.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static lamina_status check_owner(const lamina_context *context, const char *path, const struct stat *info, bool folder,
                                 const char *what, int length) {
  const char *kind = folder ? "the folder " : "";
  if (info->st_uid != 0 && info->st_uid != geteuid())
    return lamina_fail(context, LAMINA_UNSUPPORTED, "%s: not trusted: %s'%.*s' belongs to user %u, not to root or you",
                       path, kind, length, what, (unsigned)info->st_uid);
  if ((info->st_mode & (S_IWGRP | S_IWOTH)) && !(folder && (info->st_mode & S_ISVTX)))
    return lamina_fail(context, LAMINA_UNSUPPORTED,
                       "%s: not trusted: %s'%.*s' is writable by others (mode %03o; chmod go-w)", path, kind, length,
                       what, (unsigned)info->st_mode & 0777);
  return LAMINA_OK;
}

static lamina_status cannot_open(const lamina_context *context, const char *path) {
  return lamina_fail(context, errno == ENOENT ? LAMINA_NOT_FOUND : LAMINA_IO_ERROR, "%s: it cannot be opened: %s", path,
                     errno == ELOOP ? "it was replaced by a link while it was checked" : strerror(errno));
}

/* Checks an open folder, and opens what stands in it under the name that begins at `name`. */
static lamina_status descend(const lamina_context *context, const char *path, const char *real, const char *name,
                             int *fd) {
  struct stat info;
  char part[256];
  const size_t length = strcspn(name, "/");
  if (length == 0 || length >= sizeof part)
    return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "%s: no file's name", path);
  memcpy(part, name, length);
  part[length] = '\0';
  if (fstat(*fd, &info)) return cannot_open(context, path);
  const int above = name - real > 1 ? (int)(name - real) - 1 : 1; /* "/" for the root */
  lamina_status status = check_owner(context, path, &info, true, real, above);
  if (status) return status;
  const int flags = name[length] ? O_PATH | O_DIRECTORY : O_RDONLY | O_NONBLOCK; /* a pipe must not make us wait */
  const int next = openat(*fd, part, flags | O_NOFOLLOW | O_CLOEXEC);
  if (next < 0) return cannot_open(context, path);
  close(*fd);
  *fd = next;
  return LAMINA_OK;
}

static lamina_status check_file(const lamina_context *context, const char *path, int fd) {
  struct stat info;
  if (fstat(fd, &info)) return cannot_open(context, path);
  if (!S_ISREG(info.st_mode))
    return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "%s: it is %s", path,
                       S_ISDIR(info.st_mode) ? "a folder" : "not a regular file");
  return check_owner(context, path, &info, false, path, (int)strlen(path));
}

lamina_status lamina_trusted_open(const lamina_context *context, const char *path, int *out, char **real) {
  *out = -1;
  *real = NULL;
  char *resolved = realpath(path, NULL);
  if (!resolved)
    return lamina_fail(context, errno == ENOENT || errno == ENOTDIR ? LAMINA_NOT_FOUND : LAMINA_IO_ERROR,
                       "%s: there is no such plugin file (%s)", path, strerror(errno));
  *real = lamina_copy_string(context, resolved);
  free(resolved);
  if (!*real) return lamina_fail_memory(context, strlen(path));
  int fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  lamina_status status = fd < 0 ? cannot_open(context, path) : LAMINA_OK;
  for (const char *name = *real + 1; !status && *name;) {
    status = descend(context, path, *real, name, &fd);
    name += strcspn(name, "/");
    name += *name == '/';
  }
  if (!status) status = check_file(context, path, fd);
  if (!status) {
    *out = fd;
    return LAMINA_OK;
  }
  if (fd >= 0) close(fd);
  lamina_free(context, *real);
  *real = NULL;
  return status;
}
