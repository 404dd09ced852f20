/* SPDX-License-Identifier: Apache-2.0 */
/* The commands; main.c lists them. */
#ifndef TOOL_COMMANDS_H
#define TOOL_COMMANDS_H

#include "options.h"

extern const command command_info, command_layers, command_train, command_eval, command_run, command_time,
    command_explain, command_plugin;

#endif
