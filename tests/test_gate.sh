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

echo "$checks checks, $failed failed"
[ $failed -eq 0 ]
