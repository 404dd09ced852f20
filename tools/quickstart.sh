#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Sets everything up on Debian 12, builds Lamina into build/ and trains mynet on digits that it draws itself.
set -eu
cd "$(dirname "$0")/.."
. tools/setup.sh

# shellcheck disable=SC2086 # lists of words
install_packages $build_packages
say "building into build/"
configure build --buildtype=release
ninja -C build tools/lamina examples/train

say "training models/mynet.json on drawn digits"
exec build/tools/lamina train mynet --epochs 2 --batch 64 --lr 0.05 --momentum 0.9 --seed 1 "$@"
