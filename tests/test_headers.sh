#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every public header compiles alone, twice over and without a warning: as C11 and C++ by each compiler that is here.
# Usage: test_headers.sh SOURCE_ROOT
set -u
cd "$1" || exit 1
failed=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

compile() {
  compiler=$1 source=$2
  shift 2
  command -v "$compiler" >/dev/null 2>&1 || return 0
  ran=yes
  "$compiler" "$@" -pedantic-errors -Wall -Wextra -Wshadow -Wundef -Werror -Iinclude -fsyntax-only "$source" || {
    echo "$compiler $*: $header does not compile alone"
    failed=1
  }
}

for header in include/lamina/*.h; do
  name=lamina/$(basename "$header")
  ran=no
  printf '#include <%s>\n#include <%s>\nint lamina_header_test;\n' "$name" "$name" >"$work/header.c"
  cp "$work/header.c" "$work/header.cc"
  for compiler in gcc clang; do
    compile $compiler "$work/header.c" -std=c11
    compile $compiler "$work/header.c" -std=c17
  done
  for compiler in g++ clang++; do
    compile $compiler "$work/header.cc" -std=c++11
    compile $compiler "$work/header.cc" -std=c++20
  done
  [ $ran = yes ] || { echo "no compiler for $header"; failed=1; }
done
[ $failed -eq 0 ] && echo "every public header compiles alone"
exit $failed
