#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Writes files as C arrays of lines, NULL-ended, so that the command carries them along. Usage: embed.sh NAME FILE ...
set -eu
echo '/* SPDX-License-Identifier: Apache-2.0 */'
echo '#include "plugin_template.h"'
while [ $# -gt 0 ]; do
  echo "const char *const $1[] = {"
  sed 's/\\/\\\\/g; s/"/\\"/g; s/^/  "/; s/$/\\n",/' "$2"
  echo '  NULL};'
  shift 2
done
