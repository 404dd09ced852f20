#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The binary interface of liblamina against the recorded one, tests/abi/liblamina_SOVERSION.abi: programs and plugins that
# were compiled before go on working. New functions, constants at the end of an enum and fields at the end of a struct that
# begins with its size are growth; anything else is a break, and fails. The comparison is itself tested, on recordings that
# are changed on purpose.
# Usage: test_abi.sh SOURCE_ROOT BUILD_ROOT           compare
#        test_abi.sh SOURCE_ROOT BUILD_ROOT --renew   record what is there now (docs/plugins.md says when)
set -u
source=$1 build=$2 renew=${3:-}
number=$(sed -n 's/^#define LAMINA_SOVERSION *//p' "$source/include/lamina/version.h")
recorded=$source/tests/abi/liblamina_$number.abi
library=$build/tests/liblamina-abi.so
for tool in abidw abidiff; do
  command -v $tool >/dev/null || { echo "skipped: $tool is not installed (Debian: abigail-tools)"; exit 77; }
done
[ "$(uname -m)" = x86_64 ] || { echo "skipped: the interface is recorded for x86-64"; exit 77; }
[ -f "$library" ] || { echo "skipped: the build was configured before abigail-tools came; meson setup --reconfigure"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
complain() {
  echo "FAILED: $*"
  failed=1
}

# What is public: exported functions, and the types that they reach and a public header defines; no paths, no lines, and
# type numbers that do not depend on the order of declarations.
record() {
  abidw --exported-interfaces-only --headers-dir "$source/include" --drop-private-types --no-corpus-path \
    --no-comp-dir-path --no-show-locs --no-elf-needed --no-parameter-names --type-id-style hash "$1" |
    sed "s/^\( *<abi-instr [^>]*path='\)[^']*\/\(lib\/[^']*'\)/\1\2/"
}

# compare OLD NEW: the changes that are no growth, on standard output; fails if there is one.
compare() {
  abidiff --no-added-syms --leaf-changes-only --no-show-locs "$1" "$2" >"$work/changes"
  status=$?
  [ $((status & 3)) -eq 0 ] || { cat "$work/changes"; return 1; } # abidiff itself failed
  [ $((status & 8)) -eq 0 ] || { cat "$work/changes"; return 1; } # something was taken away
  awk '
    function flush() { if (bad) { printf "%s", block; breaks = 1 } block = ""; bad = 0 }
    /^$/ || /^Leaf changes summary|^Changed leaf types summary|^Removed\/Changed\/Added/ { next }
    /^[^ ]/ { flush(); size = 0; grows = /^.struct lamina_/ && !/lamina_(tensor|value|metadata)/; bad = !grows }
    { block = block $0 "\n" }
    /^[^ ]/ { next }
    /^  type size changed from [0-9]+ to [0-9]+ \(in bits\)$/ && $7 > $5 { size = $5; next }
    /^  [0-9]+ data member insertions?:$/ { next }
    match($0, /^    .*, at offset [0-9]+ \(in bits\)$/) && $(NF - 2) + 0 >= size && size { next }
    { bad = 1 }
    END { flush(); exit breaks }' "$work/changes"
}

record "$library" >"$work/now.abi"
grep -q '<abi-corpus ' "$work/now.abi" || { echo "FAILED: abidw read nothing from $library"; exit 1; }
if [ "$renew" = --renew ]; then
  [ ! -f "$recorded" ] || compare "$recorded" "$work/now.abi" || echo "these are breaks: they need another LAMINA_SOVERSION"
  cp "$work/now.abi" "$recorded"
  exit
fi

# The library that was recorded is compiled again, without optimisation and with types; it is the one that is shipped.
for file in "$library" "$build/lib/liblamina.so.$number"; do
  nm -D --defined-only "$file" | awk '{ print $NF }' | sort >"$work/$(basename "$file").names"
done
cmp -s "$work/liblamina-abi.so.names" "$work/liblamina.so.$number.names" || complain "liblamina.so exports other symbols than liblamina-abi.so"
compare "$recorded" "$work/now.abi" || complain "programs that were compiled before would break: see above"

# mutant WANTED NAME SED-SCRIPT: the comparison with a changed recording.
mutant() {
  sed "$3" "$recorded" >"$work/mutant.abi"
  if cmp -s "$recorded" "$work/mutant.abi"; then complain "$2: the recording was not changed"; return; fi
  compare "$work/mutant.abi" "$work/now.abi" >"$work/said" && got=pass || got=break
  [ $got = "$1" ] || complain "$2: the comparison says $got: $(cat "$work/said" "$work/changes")"
}
symbol="<elf-symbol name='lamina_version'"
field="/<class-decl name='lamina_context_options'/,/<\/class-decl>/"
mutant break 'a function that is gone' "s/^\( *\)$symbol\(.*\)/&\n\1<elf-symbol name='lamina_gone'\2/
  s/^\( *\)<function-decl name='lamina_version' mangled-name='lamina_version'\(.*\)elf-symbol-id='lamina_version@@/\1<function-decl name='lamina_gone' mangled-name='lamina_gone'\2elf-symbol-id='lamina_gone@@/"
mutant break 'a field that has moved' "$field s/layout-offset-in-bits='160'/layout-offset-in-bits='128'/"
mutant break 'a field of another type' "$field { /name='threads'/ s/type-id='[^']*'/type-id='$(
  sed -n "s/.*<type-decl name='double'.* id='\([^']*\)'.*/\1/p" "$recorded")'/; }"
mutant break 'a field that is gone' "$field s/^\( *\)<data-member access='public' layout-offset-in-bits='768'>/\1<data-member access='public' layout-offset-in-bits='832'>\n\1  <var-decl name='gone' type-id='$(
  sed -n "s/.*<type-decl name='int'.* id='\([^']*\)'.*/\1/p" "$recorded")' visibility='default'\/>\n\1<\/data-member>\n&/"
mutant break 'a constant of another value' "s/<enumerator name='LAMINA_BUSY' value='9'/<enumerator name='LAMINA_BUSY' value='19'/"
mutant break 'a struct that must not grow' "/<class-decl name='lamina_metadata'/,/<\/class-decl>/ {
  s/size-in-bits='128'/size-in-bits='64'/; /layout-offset-in-bits='64'/,/<\/data-member>/d; }"
mutant pass 'a new field at the end' "$field { s/size-in-bits='832'/size-in-bits='768'/
  /layout-offset-in-bits='768'/,/<\/data-member>/d; }"
mutant break 'a new field at the end and one of another type' "$field { s/size-in-bits='832'/size-in-bits='768'/
  /layout-offset-in-bits='768'/,/<\/data-member>/d; /name='threads'/ s/type-id='[^']*'/type-id='$(
  sed -n "s/.*<type-decl name='double'.* id='\([^']*\)'.*/\1/p" "$recorded")'/; }"
mutant pass 'a new function' "/$symbol/d; /<function-decl name='lamina_version'/,/<\/function-decl>/d"
[ $failed -eq 0 ] && echo "$(grep -c '<elf-symbol ' "$recorded") functions as recorded; 7 breaks seen, 2 growths let through"
exit $failed
