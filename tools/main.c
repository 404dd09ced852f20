/* SPDX-License-Identifier: Apache-2.0 */
/* The `lamina` command. Exit status: 0 good, 1 an error, 2 wrong usage, 128 + signal when training was interrupted. */
#include "commands.h"
#include "session.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const command *const commands[] = {&command_info, &command_layers, &command_train,   &command_eval,
                                          &command_run,  &command_time,   &command_explain, &command_plugin};

enum { COMMAND_COUNT = (int)(sizeof commands / sizeof *commands) };

static const command *find_command(const char *name) {
  for (int i = 0; i < COMMAND_COUNT; i++)
    if (!strcmp(commands[i]->name, name)) return commands[i];
  return NULL;
}

static void print_help(FILE *out) {
  fprintf(out, "lamina " LAMINA_VERSION ": neural networks trained and run on CPUs\n\nUsage: lamina COMMAND ...\n\n");
  for (int i = 0; i < COMMAND_COUNT; i++) {
    char left[40];
    snprintf(left, sizeof left, "%s %s", commands[i]->name, commands[i]->arguments);
    fprintf(out, "  %-16s %s\n", left, commands[i]->summary);
  }
  fprintf(out, "  %-16s %s\n", "help [COMMAND]", "this text, or a command's options with examples");
  fprintf(out, "\nA first run, on digits that lamina draws itself:\n\n"
               "  lamina train lenet5 --epochs 1 --save digits.safetensors\n"
               "  lamina eval lenet5 --weights digits.safetensors\n\n"
               "Exit status: 0 success, 1 an error, 2 wrong usage. Errors go to standard error.\n"
               "Environment: LAMINA_ISA (instruction set), LAMINA_MODEL_PATH (folders with models),\n"
               "LAMINA_PLUGIN_PATH (folders with plugins).\n");
}

static int unknown_command(const char *name) {
  const char *names[COMMAND_COUNT];
  for (int i = 0; i < COMMAND_COUNT; i++) names[i] = commands[i]->name;
  const char *near = nearest_name(name, names, COMMAND_COUNT);
  fail("there is no command '%s'", name);
  if (near)
    hint("did you mean 'lamina %s'?", near);
  else
    hint("'lamina help' lists the commands");
  return EXIT_USAGE;
}

static int help(int argc, char **argv) {
  if (argc == 0) {
    print_help(stdout);
    return EXIT_OK;
  }
  const command *c = find_command(argv[0]);
  if (!c) return unknown_command(argv[0]);
  char *line[] = {argc > 1 ? argv[1] : "--help", "--help"}; /* `help plugin NAME` */
  return c->run(c, argc > 1 ? 2 : 1, line);
}

static int dispatch(int argc, char **argv) {
  if (argc < 2) {
    print_help(stderr);
    return EXIT_USAGE;
  }
  const char *name = argv[1];
  if (!strcmp(name, "help") || !strcmp(name, "--help") || !strcmp(name, "-h")) return help(argc - 2, argv + 2);
  if (!strcmp(name, "--version") || !strcmp(name, "version")) {
    printf("lamina %s\n", lamina_version());
    return EXIT_OK;
  }
  const command *c = find_command(name);
  return c ? c->run(c, argc - 2, argv + 2) : unknown_command(name);
}

int main(int argc, char **argv) {
  int status = dispatch(argc, argv);
  errno = 0;
  if ((fflush(stdout) || ferror(stdout)) && status == EXIT_OK)
    status =
        errno ? fail("cannot write to standard output: %s", strerror(errno)) : fail("cannot write to standard output");
  return status;
}
