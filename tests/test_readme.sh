#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# README.md keeps its word: the quick start is one block of two commands, each C excerpt stands in an example, each link
# leads to a file, and every block marked `sh` runs, in order, in a copy of the tree.
# Usage: test_readme.sh SOURCE_ROOT BUILD_ROOT
set -eu
source=$1 build=$2
readme=$source/README.md
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
  echo "README.md: $*"
  exit 1
}

# One file for each fenced block, in order: NUMBER.LANGUAGE, and `plain` for those of the quick start.
awk -v out="$work" '
  /^## / { section = substr($0, 4) }
  /^```/ && !inside { inside = 1; name = substr($0, 4); n++
                      if (section == "Quick start") name = "quick"
                      file = sprintf("%s/%02d.%s", out, n, name == "" ? "plain" : name); printf "" > file; next }
  /^```/ { inside = 0; close(file); next }
  inside { print > file }' "$readme"

[ "$(find "$work" -name '*.quick' | wc -l)" -eq 1 ] || fail "the quick start is not exactly one block"
quick=$(find "$work" -name '*.quick')
[ "$(wc -l <"$quick")" -eq 2 ] || fail "the quick start has not exactly two commands"
while read -r shell script; do
  [ "$shell" = sh ] && sh -n "$source/$script" || fail "'$shell $script' cannot be run"
done <"$quick"
grep -qF "$(sed -n 2p "$quick")" "$source/.ci/run" || fail ".ci/run does not call the second command"

grep -o ']([^)#:]*)' "$readme" | sed 's/^](//; s/)$//' | while read -r target; do
  [ -e "$source/$target" ] || fail "links to $target, which is not there"
done

for block in "$work"/*.c; do
  [ -e "$block" ] || continue
  python3 - "$block" "$source"/examples/*.c <<'END' || fail "a C excerpt stands in no example"
import sys
excerpt = open(sys.argv[1]).read()
sys.exit(not any(excerpt in open(name).read() for name in sys.argv[2:]))
END
done

copy=$work/copy
mkdir "$copy"
(cd "$source" && tar -cf - --exclude='./build*' --exclude=./.git .) | tar -xf - -C "$copy"
export PATH="$build/tools:$PATH" LAMINA_MODEL_PATH="$copy/models" # the build folder may lie anywhere
export LAMINA_WISDOM="$work/wisdom.json" # nothing is left in the user's cache
ran=0
for block in "$work"/*.sh; do
  [ -e "$block" ] || continue
  echo "+ $(cat "$block")"
  (cd "$copy" && sh -eu "$block") || fail "this block fails: $(cat "$block")"
  ran=$((ran + 1))
done
[ "$ran" -gt 0 ] || fail "no block marked sh"
echo "$ran blocks ran"
