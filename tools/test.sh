#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds Lamina in every way that is supported and runs all tests; what this machine cannot run is a skip that is named.
# The last line sums the tests of all builds; the exit status is 0 only if none failed.
set -eu
cd "$(dirname "$0")/.."
. tools/setup.sh

passed=0 failed=0 skipped=0 summary=
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
jobs=$(nproc)

note() { summary="$summary$(printf '%-28s %s' "$1" "$2")
"; }
skip() {
  skipped=$((skipped + 1))
  note "$1" "skipped: $2"
}

# build DIR [meson options]: counts as one failure when it does not compile.
build() {
  say "building $1"
  if configure "$@" && ninja -C "$1" -j "$jobs" --quiet; then return 0; fi
  failed=$((failed + 1))
  note "$1" "DOES NOT BUILD"
  return 1
}

count() { awk -v key="$1:" 'index($0, key) == 1 { n = $NF } END { print n + 0 }' "$logs/output"; }

# run DIR [meson test arguments]: runs tests of a folder that is built, and adds up what became of them.
run() {
  folder=$1
  shift
  say "testing $folder"
  { meson test -C "$folder" --no-rebuild --print-errorlogs --num-processes "$jobs" "$@" 2>&1 || echo "meson test: $?"; } |
    tee "$logs/output"
  ok=$(count Ok)
  bad=$(($(count Fail) + $(count Timeout) + $(count 'Unexpected Pass')))
  none=$(count Skipped)
  # Meson itself may stop before its summary.
  if [ $((ok + bad + none)) -eq 0 ]; then bad=1; fi
  passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + none))
  note "$folder" "$ok passed, $bad failed, $none skipped"
}

# codegen DIR: reads the disassembly of a build whose own tests leave that out.
codegen() {
  if sh tests/check_codegen.sh . "$1" >"$logs/codegen"; then
    passed=$((passed + 1))
    note "$1" 'GEMM tiles keep their accumulators in registers'
  else
    cat "$logs/codegen"
    failed=$((failed + 1))
    note "$1" 'GEMM TILES GO THROUGH MEMORY'
  fi
}

# shellcheck disable=SC2086 # lists of words
install_packages $build_packages $test_packages
# shellcheck disable=SC2086 # lists of words
install_packages $bench_packages || skip 'the benchmark' 'Google Benchmark and oneDNN cannot be had here'

if build build-gcc --buildtype=release -Dwerror=true; then
  note build-gcc 'no warning'
  run build-gcc
fi
export CC=clang
if build build-clang --buildtype=release -Dwerror=true; then
  note build-clang 'no warning'
  run build-clang --suite kernels --suite golden --suite threads
  codegen build-clang
fi
unset CC

# Sanitizers and emulation are slow; check has limits of its own.
export CK_TIMEOUT_MULTIPLIER=10
export ASAN_OPTIONS=abort_on_error=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 TSAN_OPTIONS=halt_on_error=1
if build build-asan --buildtype=debugoptimized -Db_sanitize=address,undefined; then
  run build-asan --timeout-multiplier 5 --suite fast --suite kernels --suite fuzz --suite golden
fi

# Some kernels place memory where ThreadSanitizer does not expect it, unless addresses are not randomised.
echo 'int main(void) { return 0; }' >"$logs/thread.c"
wrapper=none
if gcc -fsanitize=thread "$logs/thread.c" -o "$logs/thread"; then
  for try in env 'setarch -R'; do
    if $try "$logs/thread" 2>/dev/null; then wrapper=$try && break; fi
  done
fi
if [ "$wrapper" = none ]; then
  skip build-tsan 'programs with ThreadSanitizer do not run here'
elif build build-tsan --buildtype=debugoptimized -Db_sanitize=thread; then
  run build-tsan --timeout-multiplier 5 --suite threads --wrapper "$wrapper"
fi

# shellcheck disable=SC2086 # lists of words
if [ "$(uname -m)" != x86_64 ]; then
  skip build-aarch64 'the cross build is for x86-64 hosts'
elif ! install_packages $cross_packages || ! sh tools/cross/sysroot.sh; then
  skip build-aarch64 'the cross compiler, qemu-user or the arm64 libraries cannot be had here'
elif build build-aarch64 --buildtype=release -Dwerror=true --cross-file build-sysroot-arm64/sysroot.ini \
  --cross-file tools/cross/aarch64.ini; then
  run build-aarch64 --timeout-multiplier 10 --suite kernels --suite golden
  codegen build-aarch64
fi

say summary
printf '%s\n%s passed, %s failed, %s skipped\n' "$summary" "$passed" "$failed" "$skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
