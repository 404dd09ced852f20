#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the README's two commands in a clean Debian 12: as root, and in another clean system as a user with sudo; each of
# them twice, since a second time must work too. Needs root, debootstrap, a mirror and some minutes; no part of CI.
# Usage: clean_debian.sh [MIRROR [root|user ...]]      default: http://deb.debian.org/debian root user
set -eu
cd "$(dirname "$0")/.."
mirror=${1:-http://deb.debian.org/debian}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- root user
work=$(mktemp -d)
root=$work/root

unmount() {
  for place in dev/pts dev sys proc; do
    if mountpoint -q "$root/$place"; then umount "$root/$place"; fi
  done
}
trap 'unmount; rm -rf --one-file-system "$work"' EXIT
trap 'exit 1' INT TERM

say() { printf '\n#### %s: %s\n' "$(date +%T)" "$*"; }

# A root as debootstrap leaves it, with this checkout (what is committed) in FOLDER and the test vectors beside it.
fresh_root() {
  unmount
  rm -rf --one-file-system "$root"
  mkdir "$root"
  if [ -f "$work/clean.tar" ]; then
    tar -C "$root" -xpf "$work/clean.tar"
  else
    debootstrap --variant=minbase bookworm "$root" "$mirror" >"$work/log" 2>&1 || { tail "$work/log"; exit 1; }
    tar -C "$root" -cpf "$work/clean.tar" .
  fi
  cp /etc/resolv.conf /etc/hosts "$root/etc/"
  mount -t proc proc "$root/proc"
  mount --bind /sys "$root/sys"
  mount --bind /dev "$root/dev"
  mount --bind /dev/pts "$root/dev/pts"
  mkdir -p "$root$1"
  git clone --quiet --no-hardlinks . "$root$1/lamina"
  if [ -d ../shared/golden ]; then mkdir "$root$1/shared" && cp -R ../shared/golden "$root$1/shared/"; fi
}

# The commands of README.md's quick start, run by a login of that user.
readme_commands() { awk '/^## Quick start/ { on = 1 } on && /^```/ { n++; next } on && n == 1' README.md; }

both_commands() {
  user=$1 home=$2
  for time in first second; do
    readme_commands | while read -r command; do
      say "as $user, the $time time: $command"
      start=$(date +%s)
      chroot "$root" su - "$user" -c "cd $home/lamina && $command" </dev/null || exit 1
      say "done after $(($(date +%s) - start)) s"
    done
  done
}

for who in "$@"; do
  case "$who" in
  root)
    say 'a clean root'
    fresh_root /root
    both_commands root /root
    ;;
  user)
    say 'a clean root with a user who may use sudo'
    fresh_root /home/dev
    chroot "$root" sh -ec 'apt-get -qq update && apt-get -qq -y --no-install-recommends install sudo >/dev/null
      useradd -d /home/dev -s /bin/sh dev && chown -R dev:dev /home/dev
      echo "dev ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/dev'
    both_commands dev /home/dev
    ;;
  *)
    echo "unknown: $who" >&2
    exit 2
    ;;
  esac
done
say 'both commands work in a clean Debian 12'
