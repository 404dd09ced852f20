/* SPDX-License-Identifier: Apache-2.0 */
/* The files that `lamina plugin new` writes, as lines, NULL-ended: tools/template/, and the layer ABI. @NAME@ stands for the
   layer's name, @VENDOR@ for its author's. */
#ifndef TOOL_PLUGIN_TEMPLATE_H
#define TOOL_PLUGIN_TEMPLATE_H

#include <stddef.h>

extern const char *const plugin_template_layer[], *const plugin_template_model[], *const plugin_template_makefile[],
    *const plugin_template_meson[], *const plugin_template_header[];

#endif
