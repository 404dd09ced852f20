#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The `lamina` command from outside: exit statuses, messages about bad input, JSON, checkpoints, Ctrl-C and --resume.
# Usage: test_command.sh SOURCE_ROOT BUILD_ROOT, or test_command.sh LAMINA
set -u
if [ $# -ge 2 ]; then
  lamina=$2/tools/lamina
  LAMINA_MODEL_PATH=$1/models
  export LAMINA_MODEL_PATH
  softsign=$2/examples/softsign.so
else
  lamina=$1 softsign=
fi
case $lamina in /*) ;; *) lamina=$PWD/$lamina ;; esac
work=$(mktemp -d)
mounted=
job=
finish() {
  [ -z "$job" ] || kill -KILL "$job" 2>/dev/null
  [ -z "$mounted" ] || umount "$mounted" 2>/dev/null
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM HUP
cd "$work" || exit 1
unset LAMINA_ISA
checks=0 failed=0

bad() {
  failed=$((failed + 1))
  echo "FAILED: $*"
  for stream in out err; do
    [ ! -f $stream ] || tail -n 5 $stream | cut -c 1-300 | sed "s/^/    $stream: /"
  done
}

# expect STATUS TEXT COMMAND...: the exit status, and TEXT (fixed; "" for any) somewhere in what was printed
expect() {
  want=$1 text=$2
  shift 2
  checks=$((checks + 1))
  "$@" >out 2>err
  got=$?
  if [ $got -ne "$want" ]; then bad "$* : exit status $got, not $want"; return 1; fi
  if [ -n "$text" ] && ! cat out err | grep -qF -e "$text"; then bad "$* : does not say '$text'"; return 1; fi
  # errors go to standard error, and say who speaks
  if [ "$want" -eq 1 ] && ! grep -q '^lamina: ' err; then bad "$* : no message on standard error"; return 1; fi
  return 0
}

# The last line of `out` must be one JSON object with these keys. The reader of model files judges it: a well-formed object
# that is no model is refused for its keys, anything else with the line and column of its syntax error.
json() {
  checks=$((checks + 1))
  tail -n 1 out >object.json
  case $(head -c 1 object.json) in '{') ;; *) bad "the last line is no object: $(head -c 80 object.json)"; return ;; esac
  "$lamina" explain ./object.json >out.json 2>err.json
  if grep -q 'object[.]json:[0-9]' err.json; then bad "not valid JSON: $(cat err.json)"; fi
  for key in "$@"; do
    grep -q "\"$key\":" object.json || bad "the JSON has no '$key'"
  done
}

# value KEY: a number or a list out of object.json
value() { sed -n "s/.*\"$1\":\(\[[^]]*\]\|[^,}]*\).*/\1/p" object.json; }

same() {
  checks=$((checks + 1))
  [ "$1" = "$2" ] || bad "$3: '$1' is not '$2'"
}

same_file() {
  checks=$((checks + 1))
  cmp -s "$1" "$2" || bad "$3: $1 and $2 differ"
}

be32() { printf "\\$(printf %03o $(($1 >> 24 & 255)))\\$(printf %03o $(($1 >> 16 & 255)))\\$(printf %03o $(($1 >> 8 & 255)))\\$(printf %03o $(($1 & 255)))"; }

# idx FOLDER TRAIN TEST LABEL: an IDX data set of random images, all with that label
idx() {
  mkdir -p "$1"
  for part in train t10k; do
    n=$2
    [ $part = train ] || n=$3
    { be32 2051; be32 "$n"; be32 28; be32 28; head -c $((n * 784)) /dev/urandom; } >"$1/$part-images-idx3-ubyte"
    { be32 2049; be32 "$n"; i=0; while [ $i -lt "$n" ]; do printf "\\$(printf %03o "$4")"; i=$((i + 1)); done; } \
      >"$1/$part-labels-idx1-ubyte"
  done
}

# npy FILE SHAPE BYTES: bytes (u1) of that shape
npy() {
  printf '\223NUMPY\001\000v\000' >"$1"
  printf '%-117s\n' "{'descr': '|u1', 'fortran_order': False, 'shape': $2, }" >>"$1"
  head -c "$3" /dev/urandom >>"$1"
}

# Batch norm has running statistics and dropout a random stream: a resumed run must find both again.
cat >tiny.json <<'EOF'
{"inputs": [{"name": "x", "shape": [28, 28, 1]}],
 "layers": [
  {"type": "flatten", "name": "flat", "inputs": ["x"]},
  {"type": "linear", "name": "fc1", "inputs": ["flat"], "attributes": {"out_features": 24}},
  {"type": "batch_norm", "name": "bn1", "inputs": ["fc1"]},
  {"type": "relu", "name": "relu1", "inputs": ["bn1"]},
  {"type": "dropout", "name": "drop1", "inputs": ["relu1"]},
  {"type": "linear", "name": "fc2", "inputs": ["drop1"], "attributes": {"out_features": 10}}]}
EOF
sed 's/"out_features": 24/"out_features": 20/' tiny.json >other.json
sed 's/28, 28, 1/28, 28, 3/' tiny.json >colour.json
cat >deep.json <<'EOF'
{"inputs": [{"name": "x", "shape": [28, 28, 1]}],
 "layers": [
  {"type": "flatten", "name": "flat"},
  {"type": "linear", "name": "first", "attributes": {"out_features": 16}},
  {"type": "linear", "name": "second", "attributes": {"out_features": 16}},
  {"type": "linear", "name": "third", "attributes": {"out_features": 10}}]}
EOF

echo "usage"
expect 2 "Usage" "$lamina"
expect 0 "lamina train" "$lamina" help
expect 0 "Examples" "$lamina" help train
expect 0 "lamina " "$lamina" --version
expect 2 "did you mean 'lamina train'" "$lamina" trian
for command in info layers train eval run time explain; do
  expect 0 "Usage: lamina $command" "$lamina" $command --help
  expect 2 "there is no option --nonsense" "$lamina" $command --nonsense
done
expect 2 "did you mean --epochs" "$lamina" train ./tiny.json --epoch 2
expect 2 "MODEL is missing" "$lamina" train
expect 2 "one argument too many" "$lamina" train ./tiny.json ./other.json
expect 2 "--epochs needs a value" "$lamina" train ./tiny.json --epochs
for number in 0 -1 x 1x "" " 1" 1.5 99999999999999999999; do
  expect 2 "--epochs must be a whole number" "$lamina" train ./tiny.json "--epochs=$number"
  expect 2 "--batch must be a whole number" "$lamina" train ./tiny.json --batch "$number"
  expect 2 "--batch must be a whole number" "$lamina" time ./tiny.json --batch "$number"
  expect 2 "--threads must be a whole number" "$lamina" info --threads "$number"
done
expect 2 "--threads must be a whole number" "$lamina" info --threads 1025 # what the library takes, and no more
for number in 0 -0.1 nan inf 1e999 0.1x ""; do
  expect 2 "--lr must be a number" "$lamina" train ./tiny.json --lr "$number"
done
expect 2 "--momentum must be a number" "$lamina" train ./tiny.json --momentum -1
expect 2 "--weight-decay must be a number" "$lamina" train ./tiny.json --weight-decay -1
expect 2 "--seed must be a whole number" "$lamina" train ./tiny.json --seed -1
expect 2 "--optimizer must be one of" "$lamina" train ./tiny.json --optimizer sg
expect 2 "--schedule must be one of" "$lamina" train ./tiny.json --schedule linear
expect 2 "belong to --optimizer sgd" "$lamina" train ./tiny.json --optimizer adam --momentum 0.5
expect 2 "--nesterov needs" "$lamina" train ./tiny.json --nesterov --momentum 0
expect 2 "--json takes no value" "$lamina" info --json=yes
expect 2 "--weights FILE is missing" "$lamina" eval ./tiny.json
expect 2 "--input X.npy is missing" "$lamina" run ./tiny.json --weights w

echo "info, layers, explain, time"
expect 0 "cpu" "$lamina" info
expect 0 "" "$lamina" info --json && json version cpu isa isas threads cores
expect 0 "generic" env LAMINA_ISA=generic "$lamina" info
expect 0 "generic" "$lamina" info --isa generic
expect 1 "mmx" "$lamina" info --isa mmx
expect 1 "mmx" env LAMINA_ISA=mmx "$lamina" info
expect 0 "64" "$lamina" info --threads 64
expect 0 "1024" "$lamina" info --threads 1024
expect 0 "conv2d" "$lamina" layers
expect 0 "" "$lamina" layers --json && json layers
expect 0 "out_channels" "$lamina" layers conv2d
expect 0 '"init.weight"' "$lamina" layers conv2d
expect 0 "" "$lamina" layers conv2d --json && json attributes ports kernels
expect 1 "did you mean 'linear'" "$lamina" layers liner
expect 1 "no_such.so" "$lamina" layers --plugin ./no_such.so
expect 0 "plugin new" "$lamina" help plugin new
expect 0 "lint" "$lamina" plugin --help
expect 2 "lint" "$lamina" plugin
expect 2 "did you mean 'lamina plugin lint'" "$lamina" plugin lnt
expect 1 "there is a layer 'relu' already" "$lamina" plugin new relu
expect 1 "begin with a small letter" "$lamina" plugin new ../up
expect 0 "mine/mine.c" "$lamina" plugin new mine --vendor acme
expect 1 "cannot make the folder 'mine'" "$lamina" plugin new mine
expect 1 "no such" "$lamina" plugin lint ./no_such.so
expect 0 "fc1" "$lamina" explain ./tiny.json
expect 0 "" "$lamina" explain ./tiny.json --train --batch 4 --json && json nodes arena_bytes unplanned_bytes
if [ -n "$softsign" ]; then
  expect 0 "<- softsign" "$lamina" explain "$LAMINA_MODEL_PATH/../examples/softsign.json" --plugin "$softsign"
  expect 0 "no problem" "$lamina" plugin lint "$softsign"
  expect 0 "" "$lamina" plugin lint "$softsign" --json && json path id version layers good problems
  expect 1 "is not loaded" env "LAMINA_PLUGIN_PATH=$(dirname "$softsign")" "$lamina" explain \
    "$LAMINA_MODEL_PATH/../examples/softsign.json"
  expect 0 "not loaded" env "LAMINA_PLUGIN_PATH=$(dirname "$softsign")" "$lamina" layers
  expect 0 " plain " env "LAMINA_PLUGIN_PATH=$(dirname "$softsign")" "$lamina" layers softsign --plugin softsign
  expect 0 " plain " "$lamina" explain "$LAMINA_MODEL_PATH/../examples/softsign.json" --no-fusion --plugin "$softsign"
fi
expect 0 "fc1" "$lamina" time ./tiny.json --runs 3
expect 0 "" "$lamina" time ./tiny.json --batch 4 --runs 3 --json && json median_ms min_ms nodes images_per_second
expect 0 "" "$lamina" time ./tiny.json --train --batch 8 --runs 3 --json && json median_ms backward_ms step_ms
expect 0 "" env LAMINA_WISDOM=./wisdom.json "$lamina" time ./tiny.json --tune --runs 3 --json && json timed remembered
echo damaged >wisdom.json
expect 0 "tuning: ./wisdom.json is not used" env LAMINA_WISDOM=./wisdom.json "$lamina" time ./tiny.json --tune --runs 3
if [ -w /dev/full ]; then
  checks=$((checks + 1))
  "$lamina" info >/dev/full 2>err && bad "a full standard output is not an error"
fi

echo "models"
expect 1 "there is no model 'tiny'" "$lamina" explain tiny # never the working directory
expect 1 "cannot read the model" "$lamina" explain ./missing.json
expect 0 "fc1" env "LAMINA_MODEL_PATH=/nowhere:$work" "$lamina" explain tiny
echo '{"inputs": [' >broken.json
expect 1 "broken.json:2" "$lamina" explain ./broken.json
# each row: what the first linear layer becomes, and what the message must name
while IFS='|' read -r from to text; do
  sed "s/$from/$to/" tiny.json >wrong.json
  expect 1 "$text" "$lamina" explain ./wrong.json
done <<'EOF'
"type": "relu"|"type": "frobnicate"|frobnicate
"out_features": 24|"out_featurs": 24|out_featurs
"out_features": 24|"out_features": 0|out_features
"out_features": 24|"out_features": -5|out_features
"out_features": 24|"out_features": 1073741825|outside 1 to 1073741824
"inputs": \["flat"\]|"inputs": ["nobody"]|nobody
"inputs": \["flat"\]|"inputs": ["relu1"]|cycle
28, 28, 1|28, 0, 1|x
28, 28, 1|28, -28, 1|x
"type": "relu"|"type": "conv2d"|relu1
EOF
sed 's/"out_features": 10}}/"out_features": 10}}, {"type": "relu", "name": "more", "inputs": ["fc1"]}/' tiny.json >two.json
expect 1 "this one has 2" "$lamina" train ./two.json
sed 's/{"name": "x", "shape": \[28, 28, 1\]}/&, {"name": "z", "shape": [4]}/; s/"inputs": \["drop1"\]/"inputs": ["drop1"]/' \
  tiny.json >inputs.json
expect 1 "" "$lamina" train ./inputs.json

echo "data"
idx small 40 20 3
idx labels 40 20 12
idx cut 40 20 3
idx huge 40 20 3
head -c 5000 small/train-images-idx3-ubyte >cut/train-images-idx3-ubyte
{ be32 2051; be32 2147483647; be32 2147483647; be32 2147483647; head -c 5000 /dev/zero; } >huge/train-images-idx3-ubyte
expect 1 "no_such_folder" "$lamina" train ./tiny.json --data no_such_folder
expect 1 "train-images-idx3-ubyte" "$lamina" train ./tiny.json --data cut --epochs 1
expect 1 "train-images-idx3-ubyte" "$lamina" train ./tiny.json --data huge --epochs 1
expect 1 "largest label is 12 (training image 0)" "$lamina" train ./tiny.json --data labels --epochs 1
expect 1 "--batch 41 is larger than the data, which has 40" "$lamina" train ./tiny.json --data small --batch 41
expect 0 "epoch 1/1" "$lamina" train ./tiny.json --data small --batch 40 --epochs 1
expect 0 "epoch 1/1" "$lamina" train ./colour.json --data small --batch 7 --epochs 1 # grey images feed three channels
sed 's/28, 28, 1/14, 14, 1/' tiny.json >size.json
expect 1 "28x28x1 do not fit" "$lamina" train ./size.json --data small --batch 8
expect 1 "" "$lamina" train ./tiny.json --data cut --epochs 1
! grep -q hint err || bad "advice on folders for a file that is cut"

echo "training"
expect 0 "" "$lamina" train ./tiny.json --epochs 2 --seed 3 --threads 1 --json --save one.safetensors &&
  json train_loss test_accuracy epochs seconds images_per_second isa threads epoch_losses arena_bytes unplanned_bytes
losses=$(value epoch_losses)
grep -q "epoch 2/2  loss " err || bad "no line for the second epoch on standard error"
expect 0 "" "$lamina" train ./tiny.json --epochs 2 --seed 3 --threads 2 --json --save two.safetensors && json
same "$(value epoch_losses)" "$losses" "losses with 2 threads"
same_file one.safetensors two.safetensors "weights with 2 threads"
expect 0 "" "$lamina" train ./tiny.json --epochs 2 --seed 3 --threads 9 --json && json
same "$(value epoch_losses)" "$losses" "losses with 9 threads"
for options in "--optimizer adam --schedule cosine" "--optimizer adamw --schedule step" "--nesterov --weight-decay 1e-4"; do
  expect 0 "epoch 1/1" "$lamina" train ./tiny.json --epochs 1 $options
done
expect 0 "confusion" "$lamina" eval ./tiny.json --weights one.safetensors
expect 0 "" "$lamina" eval ./tiny.json --weights one.safetensors.train --batch 300 --json && json test_accuracy confusion
expect 1 "another model" "$lamina" eval ./other.json --weights one.safetensors
head -c 3000 one.safetensors >short.safetensors
expect 1 "short.safetensors" "$lamina" eval ./tiny.json --weights short.safetensors
expect 1 "missing.safetensors" "$lamina" eval ./tiny.json --weights missing.safetensors
npy x.npy "(2, 28, 28, 1)" 1568
npy x1.npy "(28, 28, 1)" 784
npy x2.npy "(2, 14, 28, 1)" 784
expect 0 "sample 1:" "$lamina" run ./tiny.json --weights one.safetensors --input x.npy --output y.npy --top 3
same "$(wc -c <y.npy)" 208 "size of y.npy"
expect 0 "" "$lamina" run ./tiny.json --weights one.safetensors --input x1.npy --json && json samples
npy x3.npy "(2, 28, 28)" 1568 # grey images as NumPy often has them
npy x4.npy "(28, 28)" 784
tail -c 1568 x.npy >pixels
head -c 128 x3.npy | cat - pixels >x3b.npy
expect 0 "sample 1:" "$lamina" run ./tiny.json --weights one.safetensors --input x3b.npy --output y3.npy
same_file y3.npy y.npy "output for images without channels"
expect 0 "sample 0:" "$lamina" run ./tiny.json --weights one.safetensors --input x4.npy
expect 1 "2x14x28x1 does not fit" "$lamina" run ./tiny.json --weights one.safetensors --input x2.npy
expect 1 "cannot write" "$lamina" run ./tiny.json --weights one.safetensors --input x.npy --output no/where/y.npy

echo "a loss that is not finite"
expect 0 "" "$lamina" train ./deep.json --epochs 1 --lr 0.01 --save deep.safetensors
cp deep.safetensors deep.before
cp deep.safetensors.train deep.train.before
expect 1 "the first layer whose output is not finite is " "$lamina" train ./deep.json --epochs 3 --lr 1e6 \
  --resume deep.safetensors
grep -q 'lamina: step [0-9]* (epoch 2)' err || bad "the message does not say which step"
same_file deep.safetensors deep.before "weights after a loss that was not finite"
same_file deep.safetensors.train deep.train.before "checkpoint after a loss that was not finite"
# npy_nan FILE COUNT: COUNT images of floats that are not numbers
npy_nan() {
  printf '\223NUMPY\001\000v\000' >"$1"
  printf '%-117s\n' "{'descr': '<f4', 'fortran_order': False, 'shape': ($2, 28, 28), }" >>"$1"
  head -c $(($2 * 3136)) /dev/zero | tr '\000' '\377' >>"$1"
}
mkdir nan
for part in train test; do
  npy_nan nan/${part}_images.npy 8
  npy nan/${part}_labels.npy "(8,)" 0
  head -c 8 /dev/zero >>nan/${part}_labels.npy
done
expect 1 "the images of this step themselves" "$lamina" train ./deep.json --data nan --batch 8 --epochs 1
expect 0 "the outputs for 8 of these images are not finite" "$lamina" eval ./deep.json --data nan --weights deep.safetensors

echo "saving"
mkdir folder
expect 1 "it is a folder" "$lamina" train ./tiny.json --epochs 1 --save folder
expect 1 "cannot write 'no/where'" "$lamina" train ./tiny.json --epochs 1 --save no/where
expect 1 "not a regular file" "$lamina" train ./tiny.json --epochs 1 --save /dev/null
expect 2 "--save names the weights" "$lamina" train ./tiny.json --epochs 1 --save w.train
cp one.safetensors full.safetensors
cp one.safetensors.train full.safetensors.train
limited() { # writes of more than some kilobytes fail, as on a full disk
  (
    trap '' XFSZ
    ulimit -f 16
    "$@"
  )
}
expect 1 "full.safetensors" limited "$lamina" train ./tiny.json --epochs 4 --resume full.safetensors
same_file full.safetensors one.safetensors "weights after a failed save"
same_file full.safetensors.train one.safetensors.train "checkpoint after a failed save"
mkdir disk
if [ "$(id -u)" = 0 ] && mount -t tmpfs -o size=256k none disk 2>/dev/null; then
  mounted=$work/disk
  cp one.safetensors one.safetensors.train disk
  dd if=/dev/zero of=disk/ballast bs=1k 2>/dev/null
  expect 1 "No space left" "$lamina" train ./tiny.json --epochs 3 --resume disk/one.safetensors
  same_file disk/one.safetensors one.safetensors "weights on a full disk"
  same_file disk/one.safetensors.train one.safetensors.train "checkpoint on a full disk"
  same "$(ls -A disk | grep -v -e ballast -e "^one[.]safetensors")" "" "files left behind"
  umount disk && mounted=
else
  echo "  skipped: a full disk needs a tmpfs mount"
fi

echo "resuming"
expect 1 "a checkpoint of the model 'tiny', not of 'other'" "$lamina" train ./other.json --resume one.safetensors
expect 1 "made with --batch 64" "$lamina" train ./tiny.json --resume one.safetensors --batch 32 --epochs 3
expect 1 "made with --seed 3" "$lamina" train ./tiny.json --resume one.safetensors --seed 4 --epochs 3
expect 1 "holds the state of --optimizer sgd" "$lamina" train ./tiny.json --resume one.safetensors --optimizer adam
expect 1 "made with other data" "$lamina" train ./tiny.json --resume one.safetensors --data small --epochs 3
expect 1 "--epochs 1 is too few" "$lamina" train ./tiny.json --resume one.safetensors --epochs 1
expect 1 "cannot read the checkpoint" "$lamina" train ./tiny.json --resume nothing
cp one.safetensors alone.safetensors
expect 1 "holds weights alone" "$lamina" train ./tiny.json --resume alone.safetensors
cp one.safetensors plain.train
expect 1 "is not a checkpoint" "$lamina" train ./tiny.json --resume plain.train
head -c 2000 one.safetensors.train >short.train
expect 1 "short.train" "$lamina" train ./tiny.json --resume short.train

# interrupted SIGNAL STATUS EPOCHS: starts a run, stops it in the middle, goes on to the end, compares with a whole run
interrupted() {
  signal=$1 status=$2
  shift 2
  rm -f part.safetensors part.safetensors.train out err # the job creates its own: an old line must not be taken for its
  "$lamina" train ./tiny.json --epochs 12 --batch 16 --seed 5 "$@" --threads 1 --save part.safetensors --json >out 2>err &
  job=$!
  tries=0
  until grep -qs '^epoch 1/' err || [ $tries -ge 600 ]; do
    sleep 0.05
    tries=$((tries + 1))
  done
  kill -"$signal" $job
  wait $job
  got=$?
  job=
  same $got "$status" "exit status after $signal"
  json interrupted
  same "$(value interrupted)" true "interrupted"
  grep -q 'go on with: lamina train ./tiny.json --resume part.safetensors' err || bad "no word on how to go on"
  expect 0 "" "$lamina" eval ./tiny.json --weights part.safetensors
  expect 0 "resume  after epoch" "$lamina" train ./tiny.json --resume part.safetensors --threads 2 --json && json
  same "$(value epoch_losses)" "$whole" "losses of an interrupted run ($signal $*)"
  same_file part.safetensors whole.safetensors "weights of an interrupted run ($signal $*)"
}
for options in "--augment shift=2,crop=3,flip --normalise 0.13/0.31 --freeze fc1.*,bn1.* --batch-norm adapt" \
  "--accumulate 3 --clip-norm 0.5 --in-place" "--momentum 0.9 --schedule cosine" "--optimizer adam"; do
  expect 0 "" "$lamina" train ./tiny.json --epochs 12 --batch 16 --seed 5 $options --threads 2 --save whole.safetensors \
    --json && json
  whole=$(value epoch_losses)
  interrupted INT 130 $options
done
interrupted TERM 143 --optimizer adam
expect 0 "" "$lamina" train ./tiny.json --resume part.safetensors --json && json # a finished run: nothing is left to do
grep -q "nothing is left to train" err || bad "no word that nothing is left to train"
same "$(value epoch_losses)" "$whole" "losses of a finished run"

# What a run was made with stays; metadata of earlier versions has less.
expect 0 "" "$lamina" train ./tiny.json --epochs 1 --batch 40 --data small --freeze 'fc1.*' --augment flip \
  --normalise 0.1/0.3 --save kept.safetensors
expect 0 "normalised" "$lamina" train ./tiny.json --resume kept.safetensors --epochs 2 --augment flip
expect 1 "was made with --augment flip" "$lamina" train ./tiny.json --resume kept.safetensors --epochs 3 --augment shift=1
expect 1 "was made with --freeze fc1.*" "$lamina" train ./tiny.json --resume kept.safetensors --epochs 3 --freeze 'bn*'
expect 1 "was made with --normalise 0.1/0.3" "$lamina" train ./tiny.json --resume kept.safetensors --normalise 0/1
expect 1 "was made without --augment" "$lamina" train ./tiny.json --resume one.safetensors --augment flip --epochs 3

echo "memory in training"
memory="train ./tiny.json --epochs 1 --batch 8 --data small --seed 2 --json"
expect 0 "" "$lamina" $memory --save plain.safetensors && json
plain=$(value epoch_losses)
for options in "--in-place" "--recompute bn1,fc* --pack-late" "--in-place --pack-late --accumulate 1 --clip-norm 1e9"; do
  expect 0 "" "$lamina" $memory $options --save less.safetensors && json
  same "$(value epoch_losses)" "$plain" "losses with $options"
  same "$(cksum <less.safetensors)" "$(cksum <plain.safetensors)" "weights with $options"
done
expect 0 "" "$lamina" $memory --clip-norm 0.01 && json
[ "$(value epoch_losses)" != "$plain" ] || bad "--clip-norm 0.01 changes nothing"
expect 0 "2 batches of 8" "$lamina" train ./tiny.json --epochs 1 --batch 8 --data small --accumulate 2 --save acc.safetensors
expect 1 "made with --accumulate 2" "$lamina" train ./tiny.json --resume acc.safetensors --accumulate 3 --epochs 2
expect 1 "--accumulate 1000 times --batch 32 is larger" "$lamina" train ./tiny.json --batch 32 --accumulate 1000
expect 1 "recompute: no node matches 'conv*'" "$lamina" train ./tiny.json --recompute 'conv*'
expect 2 "belong to --train" "$lamina" time ./tiny.json --in-place
expect 0 "computed again for the backward pass" "$lamina" explain ./tiny.json --train --in-place --early-step --pack-late
grep -q "without what saves memory in training" out || bad "no word of the memory without"
expect 0 "" "$lamina" explain ./tiny.json --train --in-place --json && json
[ "$(value recomputed)" -gt 0 ] || bad "explain --json: nothing is computed again"
expect 0 "" "$lamina" time ./tiny.json --train --early-step --in-place --pack-late --recompute fc1 --runs 3 --json && json

echo "fine-tuning"
sed 's/"out_features": 10/"out_features": 12/' tiny.json >wide.json
for words in "--partial" "--init one.safetensors --resume one.safetensors" "--batch-norm adapt" "--batch-norm none" \
  "--augment shift" "--augment shift=x" "--augment turn" "--augment flip," "--augment shift=99999" "--normalise 1" \
  "--normalise 1/0" "--normalise 1,2/3" "--normalise x/1" "--normalise nan/1" "--normalise 1/2," "--freeze"; do
  expect 2 "" "$lamina" train ./tiny.json $words
done
expect 2 "--freeze belongs to --train" "$lamina" time ./tiny.json --freeze 'fc1.*'
expect 1 "--freeze * leaves nothing to train" "$lamina" train ./tiny.json --freeze '*'
expect 1 "no parameter matches 'conv*'" "$lamina" train ./tiny.json --freeze 'conv*'
expect 1 "take 0 to 27" "$lamina" train ./tiny.json --augment shift=28
expect 1 "no/file" "$lamina" train ./tiny.json --init no/file
expect 1 "fc2.weight is 10x24 F32 in the file, 12x24" "$lamina" train ./wide.json --init one.safetensors
grep -q "hint: --partial" err || bad "no word of --partial"
expect 0 "fc2.bias starts afresh: it is 10 F32 in the file" "$lamina" train ./wide.json --init one.safetensors --partial \
  --epochs 1 --freeze 'fc1.*' --freeze 'bn1.*' --save wide.safetensors
grep -q "300 of [0-9]* parameters are trained, 3 of 5 nodes need no backward pass; batch norm keeps" out ||
  bad "no word of what is frozen"
expect 0 "accuracy" "$lamina" eval ./wide.json --weights wide.safetensors
expect 1 "another model" "$lamina" train ./deep.json --init one.safetensors --partial
# part FILE TEXT: the tensors whose names hold TEXT, as bytes; the header of a safetensors file has their places
part() {
  python3 - "$1" "$2" <<'END'
import json, struct, sys
data = open(sys.argv[1], 'rb').read()
head = struct.unpack('<Q', data[:8])[0]
for name, tensor in sorted(json.loads(data[8:8 + head]).items()):
    if name != '__metadata__' and sys.argv[2] in name:
        begin, end = tensor['data_offsets']
        print(name, data[8 + head + begin:8 + head + end].hex())
END
}
same "$(part wide.safetensors fc1.)$(part wide.safetensors bn1.)" "$(part one.safetensors fc1.)$(part one.safetensors bn1.)" \
  "the frozen part, with its statistics"
expect 0 "adapts its statistics" "$lamina" train ./wide.json --init one.safetensors --partial --epochs 1 \
  --freeze 'fc1.*,bn1.*' --batch-norm adapt --save wide.safetensors
same "$(part wide.safetensors bn1.weight)$(part wide.safetensors fc1.)" "$(part one.safetensors bn1.weight)$(part one.safetensors fc1.)" \
  "the frozen part when statistics adapt"
[ "$(part wide.safetensors running)" != "$(part one.safetensors running)" ] || bad "statistics did not adapt"
expect 0 "images  normalised" "$lamina" train ./tiny.json --init kept.safetensors --epochs 1 --save later.safetensors
expect 0 "" "$lamina" run ./tiny.json --weights later.safetensors --input x.npy --output y1.npy
cmp -s y1.npy y.npy && bad "other weights give the same output"

rm -f out err
"$lamina" train ./tiny.json --epochs 100 >out 2>err &
job=$!
until grep -qs '^epoch 1/' out || ! kill -0 $job; do sleep 0.05; done
kill -INT $job
wait $job
same $? 130 "exit status after Ctrl-C without --save"
job=
grep -q "nothing was saved" out || bad "no word that nothing was saved"

# A progress line is for terminals alone; `script` makes one, where the system has pseudo-terminals.
if script -qec true /dev/null >/dev/null 2>&1 </dev/null; then
  expect 0 "step " script -qec "TERM=xterm '$lamina' train ./tiny.json --epochs 1 --batch 8" /dev/null
else
  echo "skipped: the progress line, since no pseudo-terminal can be had here"
fi

echo "$checks checks, $failed failed"
[ $failed -eq 0 ]
