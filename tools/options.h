/* SPDX-License-Identifier: Apache-2.0 */
/* One parser for the command lines of all commands: a command is a row of data, its options are a table. */
#ifndef TOOL_OPTIONS_H
#define TOOL_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { EXIT_OK = 0, EXIT_ERROR = 1, EXIT_USAGE = 2 };

typedef enum option_type {
  OPTION_FLAG,   /* int, set to 1; takes no value */
  OPTION_INT,    /* int64_t within [min, max] */
  OPTION_SEED,   /* uint64_t, any */
  OPTION_REAL,   /* double within [min, max]; min of DBL_MIN stands for "above 0" */
  OPTION_TEXT,   /* const char * */
  OPTION_CHOICE, /* const char *, one of `choices` */
  OPTION_LIST    /* text_list: the option may be given several times */
} option_type;

typedef struct option {
  const char *name, *argument; /* "epochs", "N" */
  option_type type;
  size_t offset; /* of the field in the command's settings */
  double min, max;
  const char *choices; /* separated by '|' */
  const char *doc;
} option;

enum { TEXT_LIST_MAX = 16 };

typedef struct text_list {
  int count;
  const char *item[TEXT_LIST_MAX];
} text_list;

/* The options that every command takes; the first member of each command's settings. */
typedef struct common_settings {
  int json;
  int64_t threads; /* 0: not given */
  const char *isa, *math;
  uint64_t seed;
  text_list plugins;
} common_settings;

typedef struct command command;
struct command {
  const char *name;
  const char *arguments; /* "MODEL", "[NAME]", or "" */
  int min_arguments, max_arguments;
  const char *summary;   /* one line for `lamina help` */
  const char *text;      /* what `--help` says above the options */
  const char *examples;  /* and below them */
  const option *options; /* ended by a NULL name */
  int (*run)(const command *self, int argc, char **argv);
};

enum { MAX_ARGUMENTS = 2 };

/* A parsed command line. Strings point into argv. */
typedef struct parsed {
  const command *of;
  uint64_t given; /* bit i: the i-th option, the command's own first, then the common ones */
  int count;
  const char *argument[MAX_ARGUMENTS];
} parsed;

/* What options_parse returns beside exit statuses. */
enum { OPTIONS_RUN = -1 };

/* Fills `settings` (defaults are in it already) from argv. Returns OPTIONS_RUN, or the status to exit with: after
   --help, or after a message about wrong usage. */
int options_parse(const command *of, int argc, char **argv, void *settings, parsed *result);
bool option_given(const parsed *result, const char *name);
void options_print_help(const command *of);
/* "lamina: CMD: ..." with a pointer to --help; returns EXIT_USAGE. */
int usage_error(const command *of, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The candidate nearest to `word`, or NULL if none is near: for "did you mean". */
const char *nearest_name(const char *word, const char *const *candidates, int count);

#endif
