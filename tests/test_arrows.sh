#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The include arrows run one way (docs/architecture.md), and what must live in one file does.
# Usage: test_arrows.sh SOURCE_ROOT
set -u
cd "$1" || exit 1
failed=0
complain() {
  echo "$*"
  failed=1
}

# "FILE HEADER" for every #include of the folder's C and C++ files, in quotes or angle brackets.
includes() {
  find "$1" \( -name '*.[ch]' -o -name '*.cc' \) | sort | while read -r file; do
    sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*["<]\([^">]*\)[">].*/\1/p' "$file" | sed "s|^|$file |"
  done
}

libc='assert.h ctype.h errno.h fenv.h float.h inttypes.h limits.h math.h stdalign.h stdarg.h stdatomic.h stdbool.h stddef.h stdint.h
  stdio.h stdlib.h string.h'
posix='dirent.h dlfcn.h elf.h fcntl.h fnmatch.h grp.h langinfo.h locale.h malloc.h poll.h pthread.h pwd.h sched.h signal.h strings.h sys/auxv.h sys/ioctl.h
  sys/mman.h sys/resource.h sys/stat.h sys/time.h sys/types.h sys/utsname.h sys/wait.h sys/xattr.h termios.h time.h
  unistd.h'

# arrows FOLDER HEADER...: the folder includes nothing but its own headers, the C library's and those named.
arrows() {
  folder=$1
  shift
  allowed=" $(echo $libc "$@" | tr '\n' ' ') "
  [ -d "$folder" ] || return 0
  includes "$folder" >"$list"
  while read -r file header; do
    case "$allowed" in *" $header "*) continue ;; esac
    case "$folder/$header" in bench/*.*) ;; bench/*) continue ;; esac # C++'s own headers have no dot
    case "$(realpath -e -q --relative-to=. "$(dirname "$file")/$header")" in "$folder"/*) continue ;; esac
    [ -z "$(find "$folder" -path "$folder/$header" -o -path "$folder/*/$header" | head -1)" ] || continue
    complain "$file includes $header, which $folder/ must not know"
  done <"$list"
}

# only_in FILE PATTERN FOLDER...: what matches the pattern stands in that one file alone.
only_in() {
  home=$1 pattern=$2
  shift 2
  for file in $(grep -rlE --include='*.[ch]' "$pattern" "$@"); do
    [ "$file" = "$home" ] || complain "$file has '$pattern', which belongs in $home alone"
  done
  grep -qE "$pattern" "$home" || complain "$home has no '$pattern': this test looks in the wrong place"
}

list=$(mktemp)
trap 'rm -f "$list"' EXIT

arrows include
arrows kernels kernels.h immintrin.h arm_neon.h
arrows plugins lamina/plugin.h kernels.h
# Three outside libraries, the public headers, the kernels' contract and the list of built-in layers.
arrows lib $posix hwloc.h jansson.h zlib.h lamina/lamina.h lamina/plugin.h lamina/version.h kernels.h ../plugins/builtin.h \
  cpuid.h
arrows tools $posix jansson.h lamina/lamina.h
arrows examples lamina/lamina.h lamina/plugin.h
arrows bench $posix lamina/lamina.h benchmark/benchmark.h dnnl.h dnnl.hpp jansson.h immintrin.h arm_neon.h

only_in lib/cpu.c '__get_cpuid|__cpuid|cpuid\.h|xgetbv|getauxval|__builtin_cpu' lib kernels plugins tools examples
only_in lib/dispatch.c 'lamina_kernels_(avx2|avx512|neon)\b' lib plugins tools examples
only_in lib/registry.c 'plugins/builtin\.h' lib
only_in lib/topology.c 'hwloc\.h' lib tools

# Vector intrinsics stay in the kernels.
for file in $(grep -rlE --include='*.[ch]' 'immintrin\.h|arm_neon\.h' lib plugins tools examples); do
  complain "$file uses vector intrinsics outside kernels/"
done

# A file that people read in one piece stays readable, and says its licence.
for file in $(find include lib kernels plugins tools examples tests -name '*.[ch]'); do
  lines=$(wc -l <"$file")
  case "$file" in tests/*) most=600 ;; *) most=450 ;; esac
  [ "$lines" -le $most ] || complain "$file has $lines lines: split it"
  head -1 "$file" | grep -q 'SPDX-License-Identifier: Apache-2.0' || complain "$file does not begin with its SPDX line"
done
[ $failed -eq 0 ] && echo "the arrows hold"
exit $failed
