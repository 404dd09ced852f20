/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/trust.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { NAMES = 4096 }; /* bytes of an entry of the databases of users and groups; one that is longer is a group of many */

/* Whether /etc/passwd has this account, and no other one that has the group as its own. What cannot be read is no. Accounts
   that come from elsewhere are not seen, so the user must not be one of them. */
static bool is_only_account(const char *name, gid_t group, uid_t user) {
  struct passwd entry, *account;
  char memory[NAMES];
  bool mine = false, others = false;
  int end = ENOENT;
  FILE *accounts = fopen("/etc/passwd", "re");
  if (!accounts) return false;
  while (!others && !(end = fgetpwent_r(accounts, &entry, memory, sizeof memory, &account))) {
    mine |= account->pw_uid == user && strcmp(account->pw_name, name) == 0;
    others = account->pw_gid == group && account->pw_uid != user;
  }
  fclose(accounts);
  return mine && !others && end == ENOENT;
}

/* Whether /etc/group has the group under this name and no other (a number may stand there twice), and nobody else in it. */
static bool is_only_group(const char *name, gid_t group) {
  struct group entry, *g;
  char memory[NAMES];
  bool found = false, others = false;
  int end = ENOENT;
  FILE *groups = fopen("/etc/group", "re");
  if (!groups) return false;
  while (!others && !(end = fgetgrent_r(groups, &entry, memory, sizeof memory, &g))) {
    if (g->gr_gid != group) continue;
    found = true;
    others = strcmp(g->gr_name, name) != 0;
    for (char **member = g->gr_mem; *member; member++) others |= strcmp(*member, name) != 0;
  }
  fclose(groups);
  return found && !others && end == ENOENT;
}

/* Whether the group is this user's alone, as most systems make one for each user, of the same name: that is where a umask
   of 002 comes from, and such a group's right to write is no other's. */
static bool is_private_group(gid_t group) {
  struct passwd user, *me = NULL;
  char memory[NAMES];
  const uid_t id = geteuid();
  if (getpwuid_r(id, &user, memory, sizeof memory, &me) || !me || me->pw_gid != group) return false;
  return is_only_group(me->pw_name, group) && is_only_account(me->pw_name, group, id);
}

/* Whether an access control list says who may write: then what the mode calls the group's rights is its mask, which others
   may have too. Any doubt is yes. */
static bool has_access_list(int fd) {
  char link[40];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd); /* a folder's descriptor is O_PATH, which fgetxattr refuses */
  return getxattr(link, "system.posix_acl_access", NULL, 0) >= 0 || (errno != ENODATA && errno != ENOTSUP);
}

static lamina_status check_owner(const lamina_context *context, const char *path, int fd, const struct stat *info,
                                 bool folder, const char *what, int length) {
  const char *kind = folder ? "the folder " : "";
  const unsigned mode = (unsigned)info->st_mode & 0777;
  if (info->st_uid != 0 && info->st_uid != geteuid())
    return lamina_fail(context, LAMINA_UNSUPPORTED, "%s: not trusted: %s'%.*s' belongs to user %u, not to root or you",
                       path, kind, length, what, (unsigned)info->st_uid);
  if (folder && (info->st_mode & S_ISVTX)) return LAMINA_OK;
  if (info->st_mode & S_IWOTH)
    return lamina_fail(context, LAMINA_UNSUPPORTED, "%s: not trusted: %s'%.*s' is writable by others (mode %03o; chmod go-w)",
                       path, kind, length, what, mode);
  if ((info->st_mode & S_IWGRP) && has_access_list(fd))
    return lamina_fail(context, LAMINA_UNSUPPORTED,
                       "%s: not trusted: %s'%.*s' has an access control list that lets more than its owner write (setfacl -b)",
                       path, kind, length, what);
  if ((info->st_mode & S_IWGRP) && !is_private_group(info->st_gid))
    return lamina_fail(context, LAMINA_UNSUPPORTED,
                       "%s: not trusted: %s'%.*s' is writable by group %u, which is not yours alone (mode %03o; "
                       "chmod g-w, also on the folders below; umask 022 before the next build)",
                       path, kind, length, what, (unsigned)info->st_gid, mode);
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
  lamina_status status = check_owner(context, path, *fd, &info, true, real, above);
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
  return check_owner(context, path, fd, &info, false, path, (int)strlen(path));
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
