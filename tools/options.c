/* SPDX-License-Identifier: Apache-2.0 */
#include "options.h"

#include <ctype.h>
#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const option common_options[] = {
    {"threads", "N", OPTION_INT, offsetof(common_settings, threads), 1, 1024, NULL,
     "threads to use (default: one for each core this process may use)"},
    {"isa", "NAME", OPTION_TEXT, offsetof(common_settings, isa), 0, 0, NULL,
     "instruction set: generic, avx2, avx512, neon (default: LAMINA_ISA, else the best here)"},
    {"math", "MODE", OPTION_CHOICE, offsetof(common_settings, math), 0, 0, "default|strict|fast",
     "default, strict (direct algorithms only) or fast"},
    {"seed", "N", OPTION_SEED, offsetof(common_settings, seed), 0, 0, NULL, "seed of everything random (default 0)"},
    {"plugin", "FILE", OPTION_LIST, offsetof(common_settings, plugins), 0, 0, NULL,
     "load a plugin first, a path or a name in LAMINA_PLUGIN_PATH; its code runs in this process. May be repeated"},
    {"json", NULL, OPTION_FLAG, offsetof(common_settings, json), 0, 0, NULL,
     "print one JSON object as the last line of standard output"},
    {NULL, NULL, OPTION_FLAG, 0, 0, 0, NULL, NULL}};

int usage_error(const command *of, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fprintf(stderr, "lamina: %s: ", of->name);
  vfprintf(stderr, format, arguments);
  fprintf(stderr, "\nlamina: 'lamina %s --help' shows how it is used\n", of->name);
  va_end(arguments);
  return EXIT_USAGE;
}

/* Levenshtein distance, for words of up to 31 letters. */
static int distance(const char *a, const char *b) {
  int row[32];
  const int n = (int)strlen(b);
  if (n > 31) return n;
  for (int j = 0; j <= n; j++) row[j] = j;
  for (int i = 1; a[i - 1]; i++) {
    int diagonal = row[0];
    row[0] = i;
    for (int j = 1; j <= n; j++) {
      const int above = row[j];
      int best = diagonal + (a[i - 1] != b[j - 1]);
      if (above + 1 < best) best = above + 1;
      if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
      diagonal = above;
      row[j] = best;
    }
  }
  return row[n];
}

const char *nearest_name(const char *word, const char *const *candidates, int count) {
  const char *best = NULL;
  int least = 3;
  for (int i = 0; i < count; i++) {
    const int d = distance(word, candidates[i]);
    if (d < least && d < (int)strlen(word)) {
      least = d;
      best = candidates[i];
    }
  }
  return best;
}

/* The index-th option of the command and then of the common table, or NULL past the end. */
static const option *option_at(const command *of, int index) {
  int own = 0;
  for (const option *o = of->options; o && o->name; o++, own++)
    if (own == index) return o;
  const int common = index - own;
  return common < (int)(sizeof common_options / sizeof *common_options) - 1 ? &common_options[common] : NULL;
}

static const option *find_option(const command *of, const char *name, size_t length, int *index) {
  const option *o;
  for (*index = 0; (o = option_at(of, *index)); ++*index)
    if (strlen(o->name) == length && !strncmp(o->name, name, length)) return o;
  return NULL;
}

bool option_given(const parsed *result, const char *name) {
  int index;
  return find_option(result->of, name, strlen(name), &index) && (result->given >> index & 1);
}

static int unknown_option(const command *of, const char *text, size_t length) {
  const char *names[64];
  char word[64];
  int count = 0;
  for (const option *o; count < 64 && (o = option_at(of, count)); count++) names[count] = o->name;
  snprintf(word, sizeof word, "%.*s", (int)(length < 63 ? length : 63), text);
  const char *near = nearest_name(word, names, count);
  if (near) return usage_error(of, "there is no option --%s; did you mean --%s?", word, near);
  return usage_error(of, "there is no option --%s", word);
}

static bool is_number_start(const char *text) { return *text && !isspace((unsigned char)*text); }

static int set_int(const command *of, const option *o, const char *text, int64_t *field) {
  char *end;
  errno = 0;
  const long long value = strtoll(text, &end, 10);
  if (!is_number_start(text) || *end || errno || (double)value < o->min || (double)value > o->max)
    return usage_error(of, "--%s must be a whole number from %.0f to %.0f, not '%s'", o->name, o->min, o->max, text);
  *field = value;
  return OPTIONS_RUN;
}

static int set_seed(const command *of, const option *o, const char *text, uint64_t *field) {
  char *end;
  errno = 0;
  const unsigned long long value = strtoull(text, &end, 10);
  if (!isdigit((unsigned char)*text) || *end || errno || value > INT64_MAX) /* JSON integers end there */
    return usage_error(of, "--%s must be a whole number from 0 to %lld, not '%s'", o->name, (long long)INT64_MAX, text);
  *field = value;
  return OPTIONS_RUN;
}

static int set_real(const command *of, const option *o, const char *text, double *field) {
  char *end;
  errno = 0;
  const double value = strtod(text, &end);
  const bool range_error = errno == ERANGE && fabs(value) > 1; /* an underflow is caught by `min` */
  if (!is_number_start(text) || *end || range_error || !isfinite(value) || value < o->min || value > o->max) {
    if (o->min == DBL_MIN)
      return usage_error(of, "--%s must be a number above 0 and up to %g, not '%s'", o->name, o->max, text);
    return usage_error(of, "--%s must be a number from %g to %g, not '%s'", o->name, o->min, o->max, text);
  }
  *field = value;
  return OPTIONS_RUN;
}

static int set_choice(const command *of, const option *o, const char *text, const char **field) {
  const size_t length = strlen(text);
  for (const char *word = o->choices; word; word = strchr(word, '|') ? strchr(word, '|') + 1 : NULL)
    if (strcspn(word, "|") == length && length && !strncmp(word, text, length)) {
      *field = text;
      return OPTIONS_RUN;
    }
  return usage_error(of, "--%s must be one of %s, not '%s'", o->name, o->choices, text);
}

static int set_option(const command *of, const option *o, const char *text, void *settings) {
  void *field = (char *)settings + o->offset;
  switch (o->type) {
  case OPTION_FLAG:
    *(int *)field = 1;
    return OPTIONS_RUN;
  case OPTION_INT:
    return set_int(of, o, text, field);
  case OPTION_SEED:
    return set_seed(of, o, text, field);
  case OPTION_REAL:
    return set_real(of, o, text, field);
  case OPTION_CHOICE:
    return set_choice(of, o, text, field);
  case OPTION_TEXT:
    if (!*text) return usage_error(of, "--%s must not be empty", o->name);
    *(const char **)field = text;
    return OPTIONS_RUN;
  case OPTION_LIST: {
    text_list *list = field;
    if (list->count == TEXT_LIST_MAX) return usage_error(of, "--%s: at most %d times", o->name, TEXT_LIST_MAX);
    list->item[list->count++] = text;
    return OPTIONS_RUN;
  }
  }
  return EXIT_USAGE;
}

/* One word that begins with "--"; `*i` moves over its value. */
static int parse_option(const command *of, int argc, char **argv, int *i, void *settings, parsed *result) {
  const char *text = argv[*i] + 2;
  const size_t length = strcspn(text, "=");
  int index;
  const option *o = find_option(of, text, length, &index);
  if (!o) return unknown_option(of, text, length);
  const char *value = text[length] ? text + length + 1 : NULL;
  if (o->type == OPTION_FLAG && value) return usage_error(of, "--%s takes no value", o->name);
  if (o->type != OPTION_FLAG && !value) {
    if (*i + 1 >= argc || !strncmp(argv[*i + 1], "--", 2))
      return usage_error(of, "--%s needs a value: --%s %s", o->name, o->name, o->argument);
    value = argv[++*i];
  }
  result->given |= UINT64_C(1) << index;
  return set_option(of, o, value, settings);
}

static int check_arguments(const parsed *result) {
  const command *of = result->of;
  if (result->count < of->min_arguments) return usage_error(of, "%s is missing", of->arguments);
  return OPTIONS_RUN;
}

int options_parse(const command *of, int argc, char **argv, void *settings, parsed *result) {
  bool only_arguments = false;
  memset(result, 0, sizeof *result);
  result->of = of;
  for (int i = 0; i < argc; i++) {
    const char *word = argv[i];
    if (!only_arguments && (!strcmp(word, "--help") || !strcmp(word, "-h"))) {
      options_print_help(of);
      return EXIT_OK;
    }
    if (!only_arguments && !strcmp(word, "--")) {
      only_arguments = true;
    } else if (!only_arguments && !strncmp(word, "--", 2)) {
      const int status = parse_option(of, argc, argv, &i, settings, result);
      if (status != OPTIONS_RUN) return status;
    } else if (!only_arguments && word[0] == '-' && word[1]) {
      return usage_error(of, "there is no option %s; options begin with two dashes", word);
    } else if (result->count == of->max_arguments) {
      return usage_error(of, "'%s' is one argument too many", word);
    } else {
      result->argument[result->count++] = word;
    }
  }
  return check_arguments(result);
}

static void print_option(const option *o) {
  char left[40];
  snprintf(left, sizeof left, "--%s%s%s", o->name, o->argument ? " " : "", o->argument ? o->argument : "");
  printf("  %-20s %s\n", left, o->doc);
}

void options_print_help(const command *of) {
  printf("Usage: lamina %s%s%s [options]\n\n%s\n\nOptions:\n", of->name, *of->arguments ? " " : "", of->arguments,
         of->text);
  for (const option *o = of->options; o && o->name; o++) print_option(o);
  for (const option *o = common_options; o->name; o++) print_option(o);
  printf("  %-20s %s\n\nExamples:\n%s\n", "--help", "this text", of->examples);
}
