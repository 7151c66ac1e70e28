#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Install what building and testing kdhpc needs on Debian 12 or Ubuntu, and say what that is.  Only missing packages are
# installed, so a second call does nothing; works as root and as a user with sudo.  On other systems it only says what
# to provide.
set -euo pipefail

packages=(build-essential cmake ninja-build pkg-config
    libopenmpi-dev openmpi-bin libhdf5-openmpi-dev hdf5-tools libopenblas-openmp-dev
    libsentencepiece-dev libjansson-dev libyaml-dev libpcre2-dev libutf8proc-dev libxxhash-dev libcmocka-dev
    python3)

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "install_packages: no apt here; please provide the equivalents of: ${packages[*]}" >&2
    exit 0
fi

missing=()
for package in "${packages[@]}"; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} = 0 ]; then
    echo "install_packages: all ${#packages[@]} packages are there"
    exit 0
fi

root=()
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "install_packages: error: not root and no sudo; ask an administrator to install: ${missing[*]}" >&2
        exit 1
    fi
    root=(sudo)
fi
echo "install_packages: installing ${missing[*]}"
"${root[@]}" apt-get update -q
"${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
