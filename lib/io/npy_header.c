/* SPDX-License-Identifier: Apache-2.0 */
/* The header of .npy files: only what NumPy itself writes is understood, and everything else is refused. */
#include "io/file.h"
#include "io/npy.h"

#include <string.h>

typedef struct {
  const lamina_context *context;
  const char *path;
  const char *at, *end;
} parser;

static lamina_status fail(const parser *p, const char *what) {
  return lamina_fail(p->context, LAMINA_BAD_FILE, "%s: damaged .npy header: %s", p->path, what);
}

static void skip_spaces(parser *p) {
  while (p->at < p->end && (*p->at == ' ' || *p->at == '\t' || *p->at == '\n' || *p->at == '\r')) p->at++;
}

static bool take(parser *p, char c) {
  skip_spaces(p);
  if (p->at == p->end || *p->at != c) return false;
  p->at++;
  return true;
}

/* A quoted word of printable characters, without escapes. */
static bool take_string(parser *p, char *word, size_t bytes) {
  skip_spaces(p);
  if (p->at == p->end || (*p->at != '\'' && *p->at != '"')) return false;
  const char quote = *p->at++, *start = p->at;
  while (p->at < p->end && *p->at != quote && *p->at != '\\' && *p->at >= ' ' && *p->at < 127) p->at++;
  size_t length = (size_t)(p->at - start);
  if (p->at == p->end || *p->at != quote || length >= bytes) return false;
  p->at++;
  memcpy(word, start, length);
  word[length] = 0;
  return true;
}

static bool take_word(parser *p, const char *word) {
  const size_t length = strlen(word);
  skip_spaces(p);
  if ((size_t)(p->end - p->at) < length || memcmp(p->at, word, length)) return false;
  p->at += length;
  return true;
}

static bool take_number(parser *p, int64_t *number) {
  skip_spaces(p);
  const char *start = p->at;
  int64_t value = 0;
  for (; p->at < p->end && *p->at >= '0' && *p->at <= '9'; p->at++)
    if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, *p->at - '0', &value)) return false;
  *number = value;
  return p->at > start;
}

static lamina_status read_dtype(parser *p, lamina_npy *npy) {
  static const struct {
    const char *name;
    lamina_dtype dtype;
    size_t bytes;
  } types[] = {{"<f4", LAMINA_F32, 4}, {"<f8", LAMINA_F32, 8}, {"<i4", LAMINA_I32, 4},
               {"<i8", LAMINA_I64, 8}, {"|u1", LAMINA_U8, 1},  {"u1", LAMINA_U8, 1}};
  char name[32];
  if (!take_string(p, name, sizeof name)) return fail(p, "descr is not a simple type");
  for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
    if (strcmp(name, types[i].name)) continue;
    npy->dtype = types[i].dtype;
    npy->element = types[i].bytes;
    npy->is_f64 = types[i].dtype == LAMINA_F32 && types[i].bytes == 8;
    return LAMINA_OK;
  }
  if (name[0] == '>') return lamina_fail(p->context, LAMINA_UNSUPPORTED, "%s: big-endian data (%s)", p->path, name);
  return lamina_fail(p->context, LAMINA_UNSUPPORTED, "%s: dtype '%s' is not read; f4, f8, i4, i8 and u1 are", p->path,
                     name);
}

static lamina_status read_shape(parser *p, lamina_npy *npy) {
  if (!take(p, '(')) return fail(p, "shape is not a tuple");
  npy->rank = 0;
  for (bool comma = true; !take(p, ')'); comma = take(p, ',')) {
    if (!comma) return fail(p, "shape has no comma between its numbers");
    if (npy->rank == LAMINA_MAX_RANK) return fail(p, "more than 8 dimensions");
    if (!take_number(p, &npy->dim[npy->rank++])) return fail(p, "a dimension is not a number of at least 0");
  }
  return LAMINA_OK;
}

static lamina_status read_order(parser *p) {
  if (take_word(p, "True"))
    return lamina_fail(p->context, LAMINA_UNSUPPORTED,
                       "%s: Fortran order is not read; save numpy.ascontiguousarray(array) instead", p->path);
  return take_word(p, "False") ? LAMINA_OK : fail(p, "fortran_order is neither True nor False");
}

static lamina_status read_dictionary(parser *p, lamina_npy *npy) {
  static const char *const keys[] = {"descr", "fortran_order", "shape"};
  unsigned seen = 0;
  if (!take(p, '{')) return fail(p, "no dictionary");
  for (bool comma = true; !take(p, '}'); comma = take(p, ',')) {
    char key[32];
    unsigned index = 0;
    if (!comma) return fail(p, "no comma between its keys");
    if (!take_string(p, key, sizeof key) || !take(p, ':')) return fail(p, "a key cannot be read");
    while (index < 3 && strcmp(key, keys[index])) index++;
    if (index == 3 || seen & 1u << index) return fail(p, "an unknown or repeated key");
    seen |= 1u << index;
    lamina_status status = index == 0 ? read_dtype(p, npy) : index == 1 ? read_order(p) : read_shape(p, npy);
    if (status != LAMINA_OK) return status;
  }
  if (seen != 7) return fail(p, "descr, fortran_order or shape is missing");
  skip_spaces(p);
  return p->at == p->end ? LAMINA_OK : fail(p, "something follows the dictionary");
}

lamina_status lamina_npy_header(const lamina_context *context, const char *path, const unsigned char *data,
                                size_t bytes, lamina_npy *npy) {
  static const unsigned char magic[6] = {0x93, 'N', 'U', 'M', 'P', 'Y'};
  if (bytes < 10 || memcmp(data, magic, sizeof magic))
    return lamina_fail(context, LAMINA_BAD_FILE, "%s: not a .npy file", path);
  const unsigned major = data[6], minor = data[7];
  if (major < 1 || major > 3 || minor != 0)
    return lamina_fail(context, LAMINA_UNSUPPORTED, "%s: .npy version %u.%u; 1.0 to 3.0 are read", path, major, minor);
  const size_t start = major == 1 ? 10 : 12;
  if (bytes < start) return lamina_fail(context, LAMINA_BAD_FILE, "%s: truncated", path);
  const size_t length = major == 1 ? lamina_little16(data + 8) : lamina_little32(data + 8);
  if (length > bytes - start) return lamina_fail(context, LAMINA_BAD_FILE, "%s: truncated within its header", path);
  parser p = {context, path, (const char *)data + start, (const char *)data + start + length};
  npy->header = start + length;
  return read_dictionary(&p, npy);
}
