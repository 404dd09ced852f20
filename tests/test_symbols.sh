#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The library exports what lamina.h declares and nothing else, versioned; it needs neither a C++ nor an OpenMP runtime,
# carries its ABI number in the soname, and stays small.
# Usage: test_symbols.sh SOURCE_ROOT BUILD_ROOT
set -u
source=$1 build=$2
failed=0
complain() {
  echo "$*"
  failed=1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
library=$(find "$build/lib" -maxdepth 1 -name 'liblamina.so*' -type f | grep -v '\.symbols$\|\.p$' | head -1)
[ -n "$library" ] || { echo "no liblamina.so in $build/lib"; exit 1; }

# Declarations begin at LAMINA_API; the name is what stands before the first parenthesis.
tr '\n' ' ' <"$source/include/lamina/lamina.h" | sed 's/LAMINA_API/\n&/g' |
  sed -n 's/^LAMINA_API [^(;]*[ *]\(lamina_[a-z0-9_]*\)(.*/\1/p' | sort >"$work/declared"
nm -D --defined-only "$library" | awk '$2 != "A" { print $3 }' >"$work/exported"
sed -n 's/@@LAMINA_[0-9]*$//p' "$work/exported" | sort >"$work/versioned"

[ "$(wc -l <"$work/declared")" -gt 40 ] || complain "found only $(wc -l <"$work/declared") declarations in lamina.h"
grep -v '@@LAMINA_' "$work/exported" >"$work/plain" && complain "exported without a version: $(cat "$work/plain")"
extra=$(comm -13 "$work/declared" "$work/versioned")
[ -z "$extra" ] || complain "exported, but not declared in lamina.h: $extra"
missing=$(comm -23 "$work/declared" "$work/versioned")
[ -z "$missing" ] || complain "declared in lamina.h, but not exported: $missing"

nm -D --undefined-only "$library" | awk '{ print $NF }' >"$work/undefined"
runtime=$(grep -E '^(_Z|__cxa_[^f]|__gxx|GOMP_|omp_|__kmpc_)' "$work/undefined")
[ -z "$runtime" ] || complain "needs a C++ or OpenMP runtime: $runtime"
stops=$(grep -E '^(abort|exit|_exit|printf|puts|putchar|perror|__assert_fail|__printf_chk)(@|$)' "$work/undefined")
[ -z "$stops" ] || complain "the library aborts, exits or prints: $stops"

readelf -d "$library" >"$work/dynamic"
number=$(sed -n 's/^#define LAMINA_SOVERSION *//p' "$source/include/lamina/version.h")
grep -q "SONAME.*\[liblamina.so.$number\]" "$work/dynamic" || complain "the soname is not liblamina.so.$number"
grep -qE 'NEEDED.*(libstdc\+\+|libgomp|libomp|libc\+\+)' "$work/dynamic" && complain "links a C++ or OpenMP runtime"
strip -o "$work/stripped" "$library"
size=$(wc -c <"$work/stripped")
[ "$size" -lt 2000000 ] || complain "stripped, the library has $size bytes: more than 2 MB"
[ $failed -eq 0 ] && echo "$(wc -l <"$work/versioned") functions exported, $size bytes stripped"
exit $failed
