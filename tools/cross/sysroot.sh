#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Unpacks the arm64 libraries that the cross build links into build-sysroot-arm64/, through a private apt state:
# nothing is installed, so that no foreign architecture is added to this system, and no root is needed. Then:
#   meson setup build-aarch64 --cross-file build-sysroot-arm64/sysroot.ini --cross-file tools/cross/aarch64.ini
set -eu
cd "$(dirname "$0")/../.."
sysroot=$PWD/build-sysroot-arm64
packages='libhwloc-dev libhwloc15 libudev1 libjansson-dev libjansson4 zlib1g-dev zlib1g check libsubunit-dev libsubunit0'

[ -f "$sysroot/complete" ] && [ "$(cat "$sysroot/complete")" = "$packages" ] && exit 0

state=$(mktemp -d)
trap 'rm -rf "$state"' EXIT
mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$state/packages"
: >"$state/status"
cat >"$state/apt.conf" <<END
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Sandbox::User "";
Dir::State "$state";
Dir::State::status "$state/status";
Dir::Cache "$state/cache";
Debug::NoLocking "1";
END
export APT_CONFIG="$state/apt.conf"
apt-get -qq update || echo "apt-get update failed for some sources" >&2
cd "$state/packages"
# shellcheck disable=SC2086 # a list of words
apt-get -qq download $packages
rm -rf "$sysroot"
mkdir -p "$sysroot"
for package in *.deb; do dpkg-deb -x "$package" "$sysroot"; done
printf "[constants]\nsysroot = '%s'\n" "$sysroot" >"$sysroot/sysroot.ini"
echo "$packages" >"$sysroot/complete"
