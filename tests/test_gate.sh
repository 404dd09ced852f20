#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# lamina-gate from outside: exit statuses and messages about bad input, the result as JSON, the history and its page. No
# timing is asserted: a library against itself may be called the same or too noisy, nothing else.
# Usage: test_gate.sh SOURCE_ROOT BUILD_ROOT
set -u
source=$(cd "$1" && pwd)
build=$(cd "$2" && pwd)
gate=$build/bench/lamina-gate
library=$build/lib/liblamina.so
if [ ! -x "$gate" ]; then
  echo "skipped: lamina-gate was not built (Google Benchmark is not there)"
  exit 77
fi
LAMINA_MODEL_PATH=$source/models
export LAMINA_MODEL_PATH
unset LAMINA_ISA
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP
cd "$work" || exit 1
checks=0 failed=0

bad() {
  failed=$((failed + 1))
  echo "FAILED: $*"
  for stream in out err; do
    [ ! -f $stream ] || tail -n 5 $stream | cut -c 1-300 | sed "s/^/    $stream: /"
  done
}

# expect STATUSES TEXT COMMAND...: one of the exit statuses, and TEXT (fixed; "" for any) somewhere in what was printed
expect() {
  wanted=$1 text=$2
  shift 2
  checks=$((checks + 1))
  "$@" >out 2>err
  status=$?
  case " $wanted " in *" $status "*) ;; *) bad "$* : exit status $status, not $wanted"; return 1 ;; esac
  if [ -n "$text" ] && ! cat out err | grep -qF -e "$text"; then bad "$* : does not say '$text'"; return 1; fi
  if [ $status -eq 2 ] && ! grep -q '^lamina-gate: ' err; then bad "$* : no message on standard error"; return 1; fi
  return 0
}

# Usage
expect 0 'Usage: lamina-gate' "$gate" --help
expect 0 'ABI 0' "$gate" --version
expect 0 'net_training/gate/mynet' "$gate" --list
expect 0 'forward/vgg16/' "$gate" --list --suite vgg16 --pass forward
expect 2 'two builds of liblamina' "$gate"
expect 2 'two builds of liblamina' "$gate" "$library"
expect 2 "unknown option '--what'" "$gate" "$library" "$library" --what
expect 2 '--suite needs a value' "$gate" "$library" "$library" --suite
expect 2 "no suite 'resnet51'; there are gate" "$gate" "$library" "$library" --suite resnet51
expect 2 "no pass 'sideways'; there are forward" "$gate" "$library" "$library" --pass sideways
expect 2 'no such case' "$gate" "$library" "$library" --filter nothing-has-this-name
for threshold in 0 -5% five 200% 5%%; do
  expect 2 'is not a share' "$gate" "$library" "$library" --threshold "$threshold"
done
expect 2 '--floor must be below' "$gate" "$library" "$library" --threshold 5% --floor 6%
expect 2 'is not an integer' "$gate" "$library" "$library" --rounds 1
expect 2 'is not an integer' "$gate" "$library" "$library" --seed 1.5
expect 2 "unknown mode 'loose'" "$gate" "$library" "$library" --mode loose
expect 2 'may use' "$gate" "$library" "$library" --threads 1000
expect 2 'may not run on core 65535' "$gate" "$library" "$library" --cpu 65535
expect 2 '--plot draws a history' "$gate" "$library" "$library" --plot page.html
expect 2 'cannot be written' "$gate" "$library" "$library" --json missing/folder/result.json
expect 2 'batches of its own' "$gate" "$library" "$library" --batch 2
expect 2 "instruction set 'sse9'" "$gate" "$library" "$library" --isa sse9
expect 2 "there is no model 'mynet'" "$gate" "$library" "$library" --filter mynet --models "$work"

# Files that are no liblamina, or another one
expect 2 'absent.so: No such file' "$gate" absent.so "$library"
expect 2 'is not a file' "$gate" "$work" "$library"
echo 'not a library' >text.so
expect 2 'text.so is not liblamina: it is no ELF file' "$gate" text.so "$library"
expect 2 'absent.so: No such file' "$gate" "$library" absent.so
expect 2 "its soname is ''" "$gate" "$gate" "$library"
head -c 3000 "$library" >cut.so
expect 2 'cut.so is not liblamina: it is a damaged ELF file' "$gate" "$library" cut.so
other=$(ldd "$gate" | awk '/libjansson/ { print $3 }')
expect 2 "is not liblamina: its soname is 'libjansson" "$gate" "$other" "$library"
# The same length, so that the file stays well-formed.
LC_ALL=C sed 's/liblamina\.so\.0/liblamina.so.9/g' "$library" >abi9.so
expect 2 'abi9.so has another ABI (liblamina.so.9); this gate drives liblamina.so.0' "$gate" "$library" abi9.so
LC_ALL=C sed 's/lamina_exec_forward/lamina_exec_fxrward/g' "$library" >renamed.so
expect 2 'it has no function lamina_exec_forward' "$gate" "$library" renamed.so

# A library against itself
tiny="--filter softmax --rounds 5"
# shellcheck disable=SC2086 # a list of words
expect '0 3' '95% interval' "$gate" "$library" "$library" $tiny --seed 7 --json result.json --append history.jsonl
for key in lamina_gate time suite verdict threshold seed geomean machine cpu isa kernel base candidate build_id shapes; do
  grep -q "\"$key\":" result.json || bad "the JSON has no '$key'"
done
[ "$(wc -l <history.jsonl)" -eq 1 ] || bad 'the history has not one line'
# shellcheck disable=SC2086
expect '0 3' '' "$gate" "$library" "$library" $tiny --append history.jsonl --isa generic --mode strict
[ "$(wc -l <history.jsonl)" -eq 2 ] || bad 'the history has not two lines'

# The history
if command -v gnuplot >gnuplot.path; then
  expect 0 '' "$gate" --append history.jsonl --plot page.html
  grep -q '<svg' page.html || bad 'the page has no plot'
  ! grep -qE 'src=|href="http|@import' page.html || bad 'the page is not self-contained'
else
  echo "not checked: gnuplot is not installed"
fi
expect 2 'there is no history to draw' "$gate" --append empty.jsonl --plot page.html
damage() { # damage TEXT SED-SCRIPT: the message that a damaged second line gives
  sed "2$2" history.jsonl >damaged.jsonl
  # shellcheck disable=SC2086
  expect 2 "damaged.jsonl:2: $1" "$gate" "$library" "$library" $tiny --append damaged.jsonl
}
damage 'not JSON' 's/}$//'
damage 'not JSON' 's/.*//'
damage 'not a JSON object' 's/.*/[1]/'
damage "'machine' is missing" 's/"machine"/"engine"/'
damage "'cpu' is not a string" 's/"cpu":"[^"]*"/"cpu":1/'
damage "'ratio' is not above 0" 's/"ratio":[0-9.]*/"ratio":-1.0/'
damage 'written by another version' 's/"lamina_gate":1/"lamina_gate":2/'
head -c -1 history.jsonl >damaged.jsonl
# shellcheck disable=SC2086
expect 2 'damaged.jsonl:2: the line is cut off' "$gate" "$library" "$library" $tiny --append damaged.jsonl

# Results of `lamina plugin bench`: rounds of which the n-th of either file belong together. Times are made up here.
# rounds FILE FACTOR NUMBER [SPREAD]: NUMBER rounds, the times of the first object times FACTOR, give or take SPREAD
rounds() {
  awk -v factor="$2" -v number="$3" -v spread="${4:-0.001}" '{
    for (i = 1; i <= number; i++) {
      rest = $0
      line = ""
      while (match(rest, /"lamina_seconds":[0-9.e-]+/)) {
        value = substr(rest, RSTART + 17, RLENGTH - 17) * factor * (1 + spread * ((i * 7919) % 11 - 5) / 5)
        line = line substr(rest, 1, RSTART - 1) sprintf("\"lamina_seconds\":%.9g", value)
        rest = substr(rest, RSTART + RLENGTH)
      }
      print line rest
    } }' measured.json >"$1"
}
lamina=$build/tools/lamina
expect 0 '' "$lamina" plugin bench "$build/examples/softsign.so" --shape 64,256 --time 0.01 --threads 1 --json
cp out measured.json
rounds base.jsonl 1 9
rounds same.jsonl 1.01 9
rounds slow.jsonl 1.1 9
rounds fast.jsonl 0.8 9
rounds noisy.jsonl 1 9 0.4
expect 0 '0 slower by more than 5%' "$gate" base.jsonl same.jsonl --json result.json --append results.jsonl
grep -q '"suite": "results"' result.json || bad 'the result is not that of results'
expect 0 'faster' "$gate" base.jsonl fast.jsonl
expect 1 'forward/plugin/softsign_256/b64/t1/generic/default' "$gate" base.jsonl slow.jsonl
expect 1 'REGRESSION' "$gate" base.jsonl slow.jsonl --filter backward
expect 0 'threshold 20%' "$gate" base.jsonl slow.jsonl --threshold 20%
expect 3 'too noisy' "$gate" base.jsonl noisy.jsonl
rounds few.jsonl 1 4
expect 2 '4 rounds; 5 are needed' "$gate" few.jsonl few.jsonl
expect 2 'must take turns' "$gate" base.jsonl few.jsonl
expect 2 'no such case' "$gate" base.jsonl same.jsonl --filter nothing-has-this-name
expect 2 'or both results' "$gate" base.jsonl "$library"
sed '3s/"cpu":"[^"]*"/"cpu":"another"/' same.jsonl >bad.jsonl
expect 2 'different machines' "$gate" base.jsonl bad.jsonl
sed '4s/"forward\/plugin/"forwards\/plugin/' same.jsonl >bad.jsonl
expect 2 'bad.jsonl: not every round has the case forward/plugin/' "$gate" base.jsonl bad.jsonl
sed '2s/"lamina_seconds":[0-9.e-]*/"lamina_seconds":0/' same.jsonl >bad.jsonl
expect 2 'bad.jsonl: object 2: ' "$gate" base.jsonl bad.jsonl
sed '2s/"machine"/"engine"/' same.jsonl >bad.jsonl
expect 2 "bad.jsonl: object 2: 'machine' is missing" "$gate" base.jsonl bad.jsonl
head -c -20 same.jsonl >bad.jsonl
expect 2 'bad.jsonl: object 9: not JSON' "$gate" base.jsonl bad.jsonl
# lamina-bench writes the same form, over several lines.
if [ -x "$build/bench/lamina-bench" ]; then
  for round in 1 2 3 4 5; do
    "$build/bench/lamina-bench" --compare --suite resnet50 --pass softmax --time 0.005 --json one.json >out 2>err ||
      bad "lamina-bench: round $round"
    cat one.json >>bench.jsonl
  done
  expect 0 'softmax/resnet50' "$gate" bench.jsonl bench.jsonl
fi

echo "$checks checks, $failed failed"
[ $failed -eq 0 ]
