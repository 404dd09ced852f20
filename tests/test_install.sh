#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# An installed Lamina is found by pkg-config alone: a C program trains, a C++ program links, and so does a layer that is
# compiled against plugin.h with nothing to link.
# Usage: test_install.sh SOURCE_ROOT BUILD_ROOT
set -eu
source=$1 build=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A build of its own would be slow: the one at hand is installed below a folder, and pkg-config is told of that folder.
DESTDIR=$work/root meson install -C "$build" --no-rebuild --quiet
pc=$(find "$work/root" -name lamina.pc)
[ -n "$pc" ] || { echo "lamina.pc was not installed"; exit 1; }
export PKG_CONFIG_PATH="$(dirname "$pc")" PKG_CONFIG_SYSROOT_DIR="$work/root"
library=$(dirname "$(find "$work/root" -name 'liblamina.so' -o -name 'liblamina.so.?' | head -1)")
export LD_LIBRARY_PATH="$library${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
for file in include/lamina/lamina.h include/lamina/plugin.h include/lamina/version.h share/lamina/models/mynet.json \
  bin/lamina; do
  [ -n "$(find "$work/root" -path "*/$file")" ] || { echo "$file was not installed"; exit 1; }
done

cd "$work"
wanted=$(sed -n 's/^#define LAMINA_VERSION "\(.*\)"/\1/p' "$source/include/lamina/version.h")
[ "$(pkg-config --modversion lamina)" = "$wanted" ] || { echo "lamina.pc names another version"; exit 1; }

# shellcheck disable=SC2046 # words
gcc -std=c11 -Wall -Wextra -Wpedantic -Werror "$source/examples/train.c" -o train $(pkg-config --cflags --libs lamina)
./train | tee train.out
accuracy=$(sed -n 's/^accuracy on .*: //p' train.out)
awk -v a="${accuracy:-0}" 'BEGIN { exit !(a > 0.9 && a <= 1) }' || { echo "the example's accuracy is '$accuracy'"; exit 1; }
[ "$(wc -l <"$source/examples/train.c")" -lt 80 ] || { echo "examples/train.c has 80 lines or more"; exit 1; }

cat >version.cc <<'END'
#include <lamina/lamina.h>
#include <cstring>
int main() {
  lamina_context *context = nullptr;
  if (lamina_context_create(nullptr, &context) != LAMINA_OK) return 1;
  lamina_context_destroy(context);
  return std::strcmp(lamina_version(), LAMINA_VERSION) ? 2 : 0;
}
END
if command -v g++ >/dev/null 2>&1; then
  # shellcheck disable=SC2046 # words
  g++ -Wall -Wextra -Werror version.cc -o version $(pkg-config --cflags --libs lamina)
  ./version
else
  echo "no g++: the C++ program was not built"
fi

# A layer includes one header and links nothing; the installed command loads it and knows the installed models.
# shellcheck disable=SC2046 # words
gcc -std=c11 -Wall -Wextra -Wpedantic -Werror -shared -fPIC -Wl,--no-undefined "$source/examples/softsign.c" -o softsign.so \
  $(pkg-config --cflags lamina)
lamina=$(find "$work/root" -path '*/bin/lamina')
"$lamina" layers softsign --plugin ./softsign.so
"$lamina" explain lenet5

# One that was compiled for another ABI is refused before any of its code runs.
sed 's/^#include <lamina.plugin.h>/&\n#undef LAMINA_PLUGIN_ABI_MAJOR\n#define LAMINA_PLUGIN_ABI_MAJOR 99/' "$source/examples/softsign.c" >other.c
# shellcheck disable=SC2046 # words
gcc -std=c11 -shared -fPIC other.c -o other.so $(pkg-config --cflags lamina)
if "$lamina" layers softsign --plugin ./other.so 2>err || ! grep -q "layer ABI" err; then
  echo "a plugin of another ABI was loaded"
  exit 1
fi

# What `lamina plugin new` writes builds with its own header alone, trains, and fuses into what is before it.
"$lamina" plugin new prelu
make -s -C prelu CFLAGS='-O2 -Wall -Wextra -Wpedantic -Wno-unused-parameter -Werror'
"$lamina" plugin lint ./prelu/prelu.so
[ "$(wc -l <prelu/prelu.c)" -lt 100 ] || { echo "the template has 100 lines or more"; exit 1; }
"$lamina" explain prelu/prelu.json --plugin ./prelu/prelu.so | grep '<- norm prelu'
"$lamina" train prelu/prelu.json --plugin ./prelu/prelu.so --epochs 1 --save prelu.safetensors
sed 's/"type": "relu"/"type": "prelu"/' "$source/models/mynet.json" >mynet.json
"$lamina" explain ./mynet.json --plugin ./prelu/prelu.so | grep '^conv1 .*<- bn1 relu1'
if "$lamina" plugin new prelu 2>err; then echo "a folder was overwritten"; exit 1; fi
echo "installed, linked and run"
