#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# `lamina plugin check` names the true cause of every fault of tests/plugins/broken.c, and nothing else; finds none where
# there is none; and holds the library's own layers and modules to the same.
# Usage: test_plugin_check.sh SOURCE_ROOT BUILD_ROOT
set -u
source=$1 build=$2
lamina=$build/tools/lamina
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset LAMINA_ISA
failed=0 count=0
complain() {
  echo "FAILED: $*"
  failed=1
}
# AddressSanitizer has a heap of its own, in which leaks cannot be counted.
sanitized=$(nm "$lamina" 2>/dev/null | grep -c __asan_init)
isas=$("$lamina" info --json | sed -n 's/.*"isas": *\[\([^]]*\)\].*/\1/p' | tr -d '"' | tr ',' ' ')
[ -n "$isas" ] || complain "info names no instruction sets"

while read -r fault cause; do
  case $sanitized,$fault in [1-9]*,leaks | [1-9]*,leaks_on_load) continue ;; esac
  case $fault,$isas in wrong_variant,*avx2* | wrong_variant,*neon* | wrong_tail,*avx2* | wrong_tail,*neon*) ;;
  wrong_variant,* | wrong_tail,*) continue ;; esac
  count=$((count + 1))
  "$lamina" plugin check "$build/tests/plugins/broken-$fault.so" --json --cases 16 --timeout 20 \
    $([ $fault != infinite_loop ] || echo --timeout 1) >"$work/out" 2>"$work/err"
  status=$?
  grep -o '"cause": *"[a-z-]*"' "$work/out" | sed 's/.*"\([a-z-]*\)"$/\1/' | sort -u >"$work/causes"
  if [ "$cause" = - ]; then
    [ $status -eq 0 ] && [ ! -s "$work/causes" ] || complain "$fault: exit status $status: $(cut -c 1-600 "$work/out")"
  else
    [ $status -eq 1 ] || complain "$fault: exit status $status"
    [ "$(cat "$work/causes")" = "$cause" ] || complain "$fault: not '$cause' alone, but: $(tr '\n' ' ' <"$work/causes") $(cut -c 1-900 "$work/out")"
  fi
done <"$source/tests/plugins/causes.txt"
[ $count -ge 25 ] || complain "only $count plugins were checked"

# The command that a failure prints repeats it.
again=$("$lamina" plugin check "$build/tests/plugins/broken-wrong_gradient.so" --cases 8 2>/dev/null | sed -n 's/^ *again: lamina //p' | head -1)
[ -n "$again" ] || complain "a failure does not say how to repeat it"
"$lamina" $again >"$work/out" 2>&1 && complain "$again: does not repeat the failure"
grep -q 'gradient of x is wrong' "$work/out" || complain "$again: $(cat "$work/out")"

"$lamina" plugin check "$build/examples/softsign.so" >"$work/out" 2>&1 || complain "softsign: $(cat "$work/out")"
for layer in $("$lamina" layers --json | grep -o '"name": *"[a-z0-9_]*", *"version"' | sed 's/"name": *"\([a-z0-9_]*\)".*/\1/'); do
  count=$((count + 1))
  "$lamina" plugin check --builtin "$layer" --cases 16 >"$work/out" 2>&1 || complain "$layer: $(cat "$work/out")"
done
for module in "$build"/plugins/modules/*.so; do
  count=$((count + 1))
  "$lamina" plugin check "$module" --cases 8 >"$work/out" 2>&1 || complain "$module: $(cat "$work/out")"
done
"$lamina" plugin check "$build/plugins/modules/embedding.so" --cases 2 --json 2>&1 |
  tr -d ' \n' | grep -q '"gradient_not_compared":\["embedding"\]' || complain "check does not say what it leaves out"
# bench: every instruction set, both passes, with what the layer declares of its cost.
"$lamina" plugin bench "$build/tests/plugins/broken-good.so" --shape 4,64 --time 0.01 --threads 1 --json >"$work/out" 2>"$work/err" ||
  complain "bench: $(cat "$work/err")"
for isa in $isas; do
  grep -q "\"pass\": *\"backward\", *\"isa\": *\"$isa\"" "$work/out" || complain "bench: no backward on $isa: $(cat "$work/out")"
done
grep -q '"flops": *1024.0' "$work/out" || complain "bench: not the FLOPs that the plan declares: $(cat "$work/out")"
"$lamina" plugin bench "$build/tests/plugins/broken-good.so" --shape 4,x >"$work/out" 2>&1 && complain "bench: takes a bad shape"

[ $failed -eq 0 ] && echo "$count plugins and layers: every cause named, and no other"
exit $failed
