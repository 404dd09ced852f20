#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Under a umask of 002 everything that is built is writable by its group: plugins load where the group is the user's alone,
# and nowhere else. Users and groups are those of files that are mounted over /etc/passwd and /etc/group, for this test alone.
# Usage: test_umask.sh SOURCE_ROOT BUILD_ROOT
set -eu
source=$(cd "$1" && pwd) build=$(cd "$2" && pwd)
if [ "${LAMINA_TEST_INSIDE:-}" != yes ]; then
  unshare -m true 2>/dev/null || { echo 'skipped: needs root, to mount over /etc/passwd'; exit 77; }
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  LAMINA_TEST_INSIDE=yes LAMINA_TEST_FOLDER=$work unshare -m sh "$0" "$source" "$build"
  exit
fi
umask 002
work=$LAMINA_TEST_FOLDER
cp /etc/passwd "$work/passwd"
cp /etc/group "$work/group"
mount --bind "$work/passwd" /etc/passwd
mount --bind "$work/group" /etc/group
mkdir "$work/checkout"
cp "$build/examples/softsign.so" "$work/checkout"
chmod 775 "$work/checkout" "$work/checkout/softsign.so"

# accounts USERS GROUPS: what the two files say now
accounts() {
  printf "$1" >"$work/passwd"
  printf "$2" >"$work/group"
}
load() { "$build/tools/lamina" layers softsign --plugin "$work/checkout/softsign.so" >"$work/out" 2>&1; }
refused() { # refused WHY
  if load; then echo "FAILED: it is loaded although $1"; exit 1; fi
  grep -q "not trusted: .*'$work/checkout' is writable by group 0" "$work/out" || { cat "$work/out"; exit 1; }
  grep -q 'chmod g-w' "$work/out" || { echo 'FAILED: it does not say what to do'; exit 1; }
}
me='dev:x:0:0::/:/bin/sh\n'
accounts "$me" 'dev:x:0:\n'
load || { cat "$work/out"; exit 1; }
accounts "$me" 'dev:x:0:dev\n'
load || { cat "$work/out"; exit 1; }
accounts "$me" 'staff:x:0:\n'
refused 'the group has another name'
accounts "$me" 'dev:x:0:dev,eve\n'
refused 'the group has another member'
accounts "${me}eve:x:1001:0::/:/bin/sh\n" 'dev:x:0:\n'
refused 'it is the group of another account too'
accounts "$me" 'dev:x:0:\nbuilders:x:0:eve\n'
refused 'the group has a second name, with another member'
accounts 'other:x:1000:1000::/:/bin/sh\n' 'dev:x:0:\n'
refused 'the user is not among the accounts'
accounts 'dev:x:0:7::/:/bin/sh\n' 'dev:x:0:\n'
refused "it is not the user's own group"
accounts "$me" 'dev:x:0:\n'
chmod 777 "$work/checkout"
! load && grep -q 'writable by others' "$work/out" || { echo 'FAILED: everybody may write'; exit 1; }
echo 'loaded where the group is private, refused in 7 other cases'
