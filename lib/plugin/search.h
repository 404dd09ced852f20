/* SPDX-License-Identifier: Apache-2.0 */
/* Where plugins are looked for. Nothing here runs code of a plugin. */
#ifndef LAMINA_PLUGIN_SEARCH_H
#define LAMINA_PLUGIN_SEARCH_H

#include "core.h"

/* The path that stands for `plugin`: itself if it has a slash, else the first NAME.so in the folders. */
lamina_status lamina_plugin_resolve(const lamina_context *context, const char *plugin, char **path);
/* Fails for a layer that is not there, with the plugin that has it or the folders that were searched. */
lamina_status lamina_plugin_suggest(lamina_context *context, const char *node, const char *layer);

#endif
