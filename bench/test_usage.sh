#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What lamina-bench cannot do it says, with exit status 2; what it can write can be read.
# Usage: test_usage.sh LAMINA_BENCH
set -u
bench=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failed=0

# refuses TEXT ARGUMENT...: exit status 2 and TEXT in the message
refuses() {
  text=$1
  shift
  "$bench" "$@" >"$folder/out" 2>"$folder/err"
  status=$?
  if [ $status -ne 2 ] || ! grep -q -e "$text" "$folder/err"; then
    echo "$*: status $status, message: $(cat "$folder/err")"
    failed=1
  fi
}

refuses "unknown suite 'nope'" --compare --suite nope
refuses "unknown pass 'nope'" --compare --pass nope
refuses "unknown mode 'nope'" --compare --mode nope
refuses "nope" --compare --isa nope
refuses "may use" --compare --threads 4096
refuses "'many' is not an integer" --compare --threads many
refuses "'0' is not an integer" --compare --batch 0
refuses "'-1' is not a number" --compare --time -1
refuses "needs a value" --compare --suite
refuses "unknown option '--nope'" --nope
refuses "belong to --compare" --json "$folder/x.json"
refuses "no case fits" --compare --suite vgg16 --pass net_inference
case " $("$bench" --compare --isa nope 2>&1) " in
*" avx512 "*) ;;
*) refuses "avx512" --compare --isa avx512 ;; # a machine without it
esac

# A comparison of one small case: a line, JSON and a page.
"$bench" --compare --suite mynet --pass softmax --time 0.01 --json "$folder/x.json" --report "$folder/x.html" \
  >"$folder/out" || { cat "$folder/out"; failed=1; }
for word in '"shapes"' '"summary"' '"geomean"' '"weighted"' '"worst"' '"below_one"' '"peak_gflops"'; do
  grep -q -e "$word" "$folder/x.json" || { echo "JSON without $word"; failed=1; }
done
grep -q 'viewport' "$folder/x.html" || { echo "the page is not one"; failed=1; }
grep -qE "(src|href)=['\"]?[^#'\"]" "$folder/x.html" && { echo "the page needs other files"; failed=1; }

# Google Benchmark's own flags and JSON.
"$bench" --suite mynet --pass softmax --benchmark_format=json --benchmark_min_time=0.01 >"$folder/out" 2>"$folder/err"
grep -q '"softmax/mynet/10/b1/t1/lamina-default' "$folder/out" || { cat "$folder/out" "$folder/err"; failed=1; }
"$bench" --compare --suite mynet --pass softmax --time 0.01 --json "$folder/none/x.json" >"$folder/out" 2>"$folder/err"
[ $? -eq 1 ] && grep -q "cannot write" "$folder/err" || { echo "an unwritable file: $(cat "$folder/err")"; failed=1; }

[ $failed -eq 0 ] && echo "usage as promised"
exit $failed
