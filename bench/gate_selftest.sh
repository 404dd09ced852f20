#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Whether the gate can be believed on this machine: a library against itself must never fail, and one whose GEMM tile does
# 7% more work must always be found. Prints two tables; exit status 1 when either promise is broken.
#
#   gate_selftest.sh SOURCE_ROOT BUILD_ROOT [SAME_RUNS [SLOW_RUNS [PERCENT [GATE_OPTIONS...]]]]     (20, 10, 7)
#
# Both libraries are built in a temporary folder from the files that git knows in SOURCE_ROOT. The slowed tile first runs
# over PERCENT of its steps in depth and then clears the accumulators: its results stay what they were, its
# registers are used in the same way, and no build of the product knows anything of it. How much slower that makes a
# product of matrices is measured first, with many rounds.
set -eu
source=$(cd "$1" && pwd)
gate=$(cd "$2" && pwd)/bench/lamina-gate
same_runs=${3:-20} slow_runs=${4:-10} percent=${5:-7}
shift "$(($# < 5 ? $# : 5))"
LAMINA_MODEL_PATH=$source/models
export LAMINA_MODEL_PATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP

# build NAME: the library of $work/NAME
build() {
  meson setup "$work/build-$1" "$work/$1" --buildtype=release >"$work/log" 2>&1 &&
    meson compile -C "$work/build-$1" lamina:shared_library >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
  cp -L "$work/build-$1/lib/liblamina.so" "$work/$1.so"
}

for tree in base slow; do
  mkdir "$work/$tree"
  (cd "$source" && git ls-files -z | tar -c --null -T - 2>/dev/null) | tar -x -C "$work/$tree"
done
awk -v percent="$percent" '
  /for \(int64_t i = 0; i < t->batch; i\+\+\) {/ {
    print "  for (int real = 0; real < 2; real++) {"
    print "#pragma GCC unroll 16"
    print "    for (int m = 0; m < TILE_ROWS; m++)"
    print "#pragma GCC unroll 16"
    print "      for (int v = 0; v < TILE_VECTORS; v++) acc[m][v] = vf_zero();"
    opened = 1
  }
  opened && /int64_t p = now->k; p > 0; p--/ {
    sub(/now->k/, "(real ? now->k : (now->k * " percent " + 50) / 100)")
    slowed = 1
  }
  { print }
  slowed && /^  }$/ { print "  }"; slowed = 0; closed = 1 }
  END { exit !closed }' "$source/kernels/shared/gemm_tile.h" >"$work/slow/kernels/shared/gemm_tile.h" ||
  { echo "gemm_tile.h has changed: this script no longer knows where its depth loop is"; exit 1; }
build base
build slow

# value KEY: of the result as JSON, one key a line
value() { sed -n "s/^ *\"$1\": \"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}$/\1/p" "$work/result.json"; }

echo "What $percent% more steps in the tile's depth cost (60 rounds; a 1x1 convolution is one product of matrices):"
"$gate" "$work/base.so" "$work/slow.so" "$@" --suite gate --filter forward/gate/256x14x14_512k1 --rounds 60 \
  --json "$work/result.json" >"$work/out" || [ $? -ne 2 ] || exit 1
echo "  $(head -1 "$work/out"): ratio $(value ratio), 95% interval $(value low) to $(value high)"

# table TITLE BASE CANDIDATE RUNS WANTED: a line for each run; adds to `broken` what is not WANTED
broken=0
table() {
  title=$1 base=$2 candidate=$3 runs=$4 wanted=$5
  echo
  echo "$title"
  echo
  echo "| run | seed | exit | verdict | cases | regressions | geometric mean | lowest | highest | seconds |"
  echo "|---|---|---|---|---|---|---|---|---|---|"
  shift 5
  run=1
  while [ $run -le "$runs" ]; do
    start=$(date +%s)
    status=0
    "$gate" "$base" "$candidate" --seed $((1000 * wanted + run)) --json "$work/result.json" "$@" >"$work/out" || status=$?
    [ $status -ne 2 ] || { cat "$work/out"; exit 1; }
    [ $status -eq "$wanted" ] || broken=$((broken + 1))
    [ $status -eq "$wanted" ] || sed 's/^/    /' "$work/out" >&2
    echo "| $run | $(value seed) | $status | $(value verdict) | $(value ratio | wc -l) |" \
      "$(grep -c REGRESSION "$work/result.json" || true) | $(value geomean) | $(value ratio | sort -g | head -1) |" \
      "$(value ratio | sort -g | tail -1) | $(($(date +%s) - start)) |"
    run=$((run + 1))
  done
}

table "The same library twice:" "$work/base.so" "$work/base.so" "$same_runs" 0 "$@"
table "The slowed library:" "$work/base.so" "$work/slow.so" "$slow_runs" 1 "$@"
echo
echo "$broken of $((same_runs + slow_runs)) runs did not end as they should"
[ $broken -eq 0 ]
