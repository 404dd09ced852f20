/* SPDX-License-Identifier: Apache-2.0 */
#include "attributes.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

int lamina_attr_count(const lamina_layer *layer) {
  int count = 0;
  while (layer->attrs && layer->attrs[count]) count++;
  return count;
}

int lamina_attr_index(const lamina_layer *layer, const char *name) {
  for (int i = 0; layer->attrs && layer->attrs[i]; i++)
    if (strcmp(layer->attrs[i]->name, name) == 0) return i;
  return -1;
}

size_t lamina_attr_storage(const lamina_layer *layer, const char *text) {
  size_t bytes = (text ? strlen(text) : 0) + 2;
  for (int i = 0; layer->attrs && layer->attrs[i]; i++)
    if (layer->attrs[i]->def) bytes += strlen(layer->attrs[i]->def) + 1;
  return bytes;
}

static bool in_range(const lamina_attr *attr, double value) {
  return (attr->min == 0 && attr->max == 0) || (value >= attr->min && value <= attr->max);
}

static lamina_status bad(const lamina_context *context, const lamina_attr *attr, const char *text,
                         const char *expected) {
  return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "attribute '%s': '%s' is not %s", attr->name, text, expected);
}

static lamina_status out_of_range(const lamina_context *context, const lamina_attr *attr, const char *text) {
  return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "attribute '%s': %s is outside %.10g to %.10g", attr->name, text,
                     attr->min, attr->max);
}

static lamina_status parse_ints(const lamina_context *context, const lamina_attr *attr, const char *text,
                                lamina_value *value) {
  const char *p = text;
  value->count = 0;
  for (;;) {
    char *end;
    errno = 0;
    long long number = strtoll(p, &end, 10);
    if (end == p || errno || isspace((unsigned char)*p))
      return bad(context, attr, text, "a list of integers such as 3,3");
    if (value->count == LAMINA_ATTR_MAX_INTS) return bad(context, attr, text, "a list of at most 8 integers");
    if (!in_range(attr, (double)number)) return out_of_range(context, attr, text);
    value->ints[value->count++] = number;
    if (!*end) break;
    if (*end != ',') return bad(context, attr, text, "a list of integers such as 3,3");
    p = end + 1;
  }
  if (attr->count == 0) return LAMINA_OK;
  if (value->count == 1)
    while (value->count < attr->count) value->ints[value->count++] = value->ints[0];
  if (value->count != attr->count)
    return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "attribute '%s': '%s' must be one or %d integers", attr->name,
                       text, attr->count);
  return LAMINA_OK;
}

static bool is_choice(const char *choices, const char *word) {
  size_t length = strlen(word);
  for (const char *p = choices; p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL)
    if (strncmp(p, word, length) == 0 && (p[length] == '|' || !p[length])) return true;
  return false;
}

static lamina_status parse_float(const lamina_context *context, const lamina_attr *attr, const char *text,
                                 lamina_value *value) {
  if (attr->allow_none && strcmp(text, "none") == 0) {
    value->f = NAN;
    return LAMINA_OK;
  }
  char *end;
  value->f = lamina_parse_double(context, text, &end);
  if (end == text || *end || !isfinite(value->f)) return bad(context, attr, text, "a number");
  return in_range(attr, value->f) ? LAMINA_OK : out_of_range(context, attr, text);
}

static lamina_status parse_value(const lamina_context *context, const lamina_attr *attr, const char *text,
                                 lamina_value *value) {
  char *end;
  switch (attr->type) {
  case LAMINA_ATTR_INT:
    errno = 0;
    value->i = strtoll(text, &end, 10);
    if (end == text || *end || errno) return bad(context, attr, text, "an integer");
    return in_range(attr, (double)value->i) ? LAMINA_OK : out_of_range(context, attr, text);
  case LAMINA_ATTR_INTS:
    return parse_ints(context, attr, text, value);
  case LAMINA_ATTR_FLOAT:
    return parse_float(context, attr, text, value);
  case LAMINA_ATTR_BOOL:
    value->i = strcmp(text, "true") == 0 || strcmp(text, "1") == 0;
    if (!value->i && strcmp(text, "false") != 0 && strcmp(text, "0") != 0)
      return bad(context, attr, text, "true or false");
    return LAMINA_OK;
  case LAMINA_ATTR_STRING:
    value->s = text;
    if (attr->choices && !is_choice(attr->choices, text)) return bad(context, attr, text, attr->choices);
    return LAMINA_OK;
  }
  return lamina_fail(context, LAMINA_PLUGIN_ERROR, "attribute '%s' has an unknown type", attr->name);
}

/* Copies the next word to `out`, without its single quotes; *text moves behind it. Returns false at the end. */
static bool next_word(const char **text, char *out, const char **error) {
  const char *p = *text;
  bool quoted = false;
  while (isspace((unsigned char)*p)) p++;
  if (!*p) return false;
  for (; *p && (quoted || !isspace((unsigned char)*p)); p++) {
    if (*p == '\'')
      quoted = !quoted;
    else
      *out++ = *p;
  }
  *out = '\0';
  if (quoted) *error = "a quote is not closed";
  *text = p;
  return true;
}

static lamina_status parse_pair(const lamina_context *context, const lamina_layer *layer, char *pair, uint64_t *given,
                                lamina_value *values, lamina_initializer_setter set_initializer, void *user) {
  char *equals = strchr(pair, '=');
  if (!equals || equals == pair)
    return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "attributes: '%s' is not of the form key=value", pair);
  *equals = '\0';
  if (strncmp(pair, "init.", 5) == 0 && set_initializer) return set_initializer(user, pair + 5, equals + 1);
  int index = lamina_attr_index(layer, pair);
  if (index < 0) {
    char known[256] = "";
    for (int i = 0; layer->attrs && layer->attrs[i]; i++)
      if (strlen(known) + strlen(layer->attrs[i]->name) + 2 < sizeof known)
        strcat(strcat(known, i ? " " : ""), layer->attrs[i]->name);
    return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "layer '%s' has no attribute '%s'; it has: %s", layer->name,
                       pair, *known ? known : "none");
  }
  if (*given >> index & 1) return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "attribute '%s' is given twice", pair);
  *given |= 1ull << index;
  return parse_value(context, layer->attrs[index], equals + 1, &values[index]);
}

lamina_status lamina_attr_parse(const lamina_context *context, const lamina_layer *layer, const char *text,
                                lamina_value *values, char *storage, lamina_initializer_setter set_initializer,
                                void *user) {
  uint64_t given = 0;
  const char *error = NULL;
  memset(values, 0, (size_t)lamina_attr_count(layer) * sizeof *values);
  while (text && next_word(&text, storage, &error)) {
    if (error) return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "attributes: %s", error);
    char *pair = storage;
    storage += strlen(pair) + 1;
    lamina_status status = parse_pair(context, layer, pair, &given, values, set_initializer, user);
    if (status) return status;
  }
  for (int i = 0; layer->attrs && layer->attrs[i]; i++) {
    if (given >> i & 1) continue;
    const lamina_attr *attr = layer->attrs[i];
    if (!attr->def)
      return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "layer '%s' needs the attribute '%s' (%s)", layer->name,
                         attr->name, attr->doc ? attr->doc : "");
    strcpy(storage, attr->def);
    lamina_status status = parse_value(context, attr, storage, &values[i]);
    if (status) return status;
    storage += strlen(storage) + 1;
  }
  return LAMINA_OK;
}
