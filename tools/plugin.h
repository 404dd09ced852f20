/* SPDX-License-Identifier: Apache-2.0 */
/* The commands of `lamina plugin`; plugin.c lists them. Each has a file of its own, plugin_NAME.c. */
#ifndef TOOL_PLUGIN_H
#define TOOL_PLUGIN_H

#include "options.h"

extern const command command_plugin_new, command_plugin_lint, command_plugin_check, command_plugin_bench;

#endif
