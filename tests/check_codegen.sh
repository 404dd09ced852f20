#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Disassembles the tiles of the GEMM and of convolutions and fails when a depth loop moves accumulators through memory: that halves the speed, and
# nothing else would tell. Prints for every tile the FMAs of its loop and the vector moves from or to the stack in it.
#
#   check_codegen.sh SOURCE_ROOT BUILD_ROOT [BUILD_ROOT ...]     (a cross build's root may follow)
#
# A depth loop is what lies between a backward branch and its target and holds FMAs, with no such loop inside; one
# has all of the tile's, those of a convolution that leave out rows have fewer.
# A tile is named gemm_tile_ROWSxVECTORS_HALF: with half a vector more, or none; that for short sums gemm_short_ROWSxVECTORS. The depth loop is what lies between a backward branch and its target and holds the tile's FMAs, with no such loop inside.
set -eu
shift
status=0 seen=0

# stdin: a disassembly. Arguments: ISA, the pattern of FMAs, the pattern of vector moves that touch the stack.
check_tiles() {
  awk -v isa="$1" -v fma="$2" -v spill="$3" '
    function finish(   i, j, from, f, s, best, best_spills, want, part) {
      if (name == "") return
      best = 0; best_spills = 0
      for (i = 1; i <= lines; i++) {
        if (!(i in target) || !(target[i] in at) || at[target[i]] > i) continue
        from = at[target[i]]; f = 0; s = 0
        for (j = from; j <= i; j++) {
          if (j < i && (j in target) && (target[j] in at) && at[target[j]] >= from && at[target[j]] <= j) { f = 0; break }
          if (text[j] ~ fma) f++
          if (text[j] ~ spill || (frame && text[j] ~ /%[xyz]mm/ && text[j] ~ /\(%rbp/)) s++
        }
        if (f > best) best = f
        if (f > 0 && s > best_spills) best_spills = s
      }
      split(name, part, "[_x]"); want = part[3] * (part[4] + part[5])
      verdict = best < want ? "NO LOOP WITH ALL FMAS" : best_spills > 0 ? "SPILLS" : "ok"
      if (verdict != "ok") bad = 1
      printf "%-7s %-16s %3d FMAs %3d spills  %s\n", isa, name, best, best_spills, verdict
      tiles++
      name = ""
    }
    /^[0-9a-f]+ <.*>:$/ {
      finish(); split("", at); split("", text); split("", target); lines = 0; frame = 0
      if (match($2, /(gemm_tile_[0-9]+x[0-9]+_[01]|gemm_short_[0-9]+x[0-9]+|conv_tile_[0-9]+x[0-9]+)/)) name = substr($2, RSTART, RLENGTH)
      next
    }
    name != "" && /^ *[0-9a-f]+:/ {
      lines++; address = $1; sub(":", "", address); at[address] = lines; text[lines] = $0
      if (/mov +%rsp,%rbp/) frame = 1 # else rbp is a pointer like any other
      if ($2 ~ /^(j|b\.|b$|cbn?z|tbn?z)/ && $2 != "jmpq") {
        for (i = 3; i <= NF; i++) if ($i ~ /^[0-9a-f]+,?$/ && $(i + 1) ~ /^</) target[lines] = $i
      }
    }
    END { finish(); if (!tiles) { print isa ": no tiles found"; bad = 1 } exit bad }'
}

check_library() { # ISA, library, objdump
  "$3" -d --no-show-raw-insn "$2" > "$dump"
  if "$3" -t "$2" | grep -qE '__(asan|tsan|ubsan)_'; then
    echo "$1: skipped, a sanitizer's code is in the way"
    return
  fi
  case $1 in
  neon) check_tiles neon 'fmla' '(ldr|str|ldp|stp|ldur|stur|ld1|st1)[ \t]+[{]?[qdsv][0-9].*\[sp' < "$dump" ;;
  *) check_tiles "$1" 'vfn?madd[0-9]*ps' '[xyz]mm.*\(%rsp|\(%rsp.*[xyz]mm' < "$dump" ;;
  esac || status=1
  seen=$((seen + 1))
}

dump=$(mktemp)
trap 'rm -f "$dump"' EXIT
for build in "$@"; do
  for isa in avx2 avx512 neon; do
    library=$build/kernels/liblamina-kernels-$isa.a
    [ -f "$library" ] || continue
    objdump=objdump
    if [ $isa = neon ] && [ "$(uname -m)" != aarch64 ]; then objdump=aarch64-linux-gnu-objdump; fi
    if ! command -v $objdump > /dev/null; then
      echo "$isa: skipped, no $objdump"
      continue
    fi
    check_library $isa "$library" $objdump
  done
done
if [ $seen -eq 0 ]; then
  echo "skipped: no kernels to disassemble in $*"
  exit 77
fi
exit $status
