/* SPDX-License-Identifier: Apache-2.0 */
/* `lamina plugin NAME ...`: a command of commands. */
#include "plugin.h"

#include "commands.h"
#include "session.h"

#include <string.h>

/* Ended by NULL. A row is a command like those of main.c, whose name is "plugin NAME". */
static const command *const commands[] = {&command_plugin_new, &command_plugin_lint, &command_plugin_check, &command_plugin_bench, NULL};

enum { COMMAND_COUNT = (int)(sizeof commands / sizeof *commands) - 1, PREFIX = 7 /* "plugin " */ };

static int print_help(FILE *out, int status) {
  fprintf(out, "Usage: lamina plugin COMMAND ...\n\n");
  for (int i = 0; i < COMMAND_COUNT; i++) {
    char left[40];
    snprintf(left, sizeof left, "%s %s", commands[i]->name + PREFIX, commands[i]->arguments);
    fprintf(out, "  %-20s %s\n", left, commands[i]->summary);
  }
  fprintf(out, "\n'lamina plugin COMMAND --help' shows a command's options with examples.\n");
  return status;
}

static int run_command(const command *self, int argc, char **argv) {
  const char *names[COMMAND_COUNT + 1] = {NULL};
  (void)self;
  if (argc < 1) return print_help(stderr, EXIT_USAGE);
  if (!strcmp(argv[0], "help") || !strcmp(argv[0], "--help") || !strcmp(argv[0], "-h"))
    return print_help(stdout, EXIT_OK);
  for (int i = 0; i < COMMAND_COUNT; i++) {
    names[i] = commands[i]->name + PREFIX;
    if (!strcmp(names[i], argv[0])) return commands[i]->run(commands[i], argc - 1, argv + 1);
  }
  const char *near = nearest_name(argv[0], names, COMMAND_COUNT);
  fail("there is no command 'plugin %s'", argv[0]);
  if (near)
    hint("did you mean 'lamina plugin %s'?", near);
  else
    hint("'lamina plugin help' lists the commands");
  return EXIT_USAGE;
}

const command command_plugin = {
    .name = "plugin", .arguments = "COMMAND", .summary = "tools for authors of layers", .run = run_command};
