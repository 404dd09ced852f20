# SPDX-License-Identifier: Apache-2.0
# Sourced by quickstart.sh and test.sh: puts packages on a Debian system, and a release build in build/.
# Packages that are there already cost nothing: apt-get runs only when one is missing, so that a second run needs no network.

build_packages='gcc libc6-dev meson ninja-build pkg-config libhwloc-dev libjansson-dev zlib1g-dev check'
test_packages='clang g++ binutils make abigail-tools'
bench_packages='libbenchmark-dev libdnnl-dev cmake gnuplot-nox'
cross_packages='gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user'

say() { printf '\n== %s\n' "$*"; }

# Runs a command as root: directly, or through sudo.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null 2>&1; then
    sudo "$@"
  else
    echo "not root and no sudo: cannot run $*" >&2
    return 1
  fi
}

missing_packages() {
  for package in "$@"; do
    status=$(dpkg-query -W -f '${db:Status-Abbrev}\n' "$package" 2>/dev/null | grep -c '^.i') || :
    [ "$status" -gt 0 ] || printf '%s ' "$package"
  done
}

# Installs those of the named packages that are missing. Without apt-get (another system) it trusts that they are there.
install_packages() {
  command -v apt-get >/dev/null 2>&1 || { echo "no apt-get here: install the equivalents of $*" >&2; return 0; }
  missing=$(missing_packages "$@")
  [ -n "$missing" ] || return 0
  say "installing $missing"
  as_root apt-get -qq -o DPkg::Lock::Timeout=300 update || echo "apt-get update failed; trying with the lists at hand" >&2
  # shellcheck disable=SC2086 # a list of words
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=300 \
    -o Dpkg::Use-Pty=0 install $missing </dev/null
}

# configure DIR [meson options]: a first time, and again when packages have come since.
configure() {
  folder=$1
  shift
  if [ ! -f "$folder/build.ninja" ]; then
    meson setup "$folder" "$@"
  elif [ /var/lib/dpkg/status -nt "$folder/build.ninja" ]; then
    meson setup --wipe "$folder" "$@" # a mere reconfiguration remembers which headers were not there
  fi
}
