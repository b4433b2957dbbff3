#!/usr/bin/env bash
# Usage: sudo bench/arm64_root.sh FOLDER
# Makes a folder (500 MB, a minute) with what `make pi-budget PI_ROOT=FOLDER` runs under QEMU: Debian 12's Python for
# arm64, its headers, and the wheels that the engine needs. Nothing of it is run here, so no binfmt_misc is needed.
set -euo pipefail
test $# -eq 1 || { sed -n '2,4s/^# //p' "$0" >&2; exit 1; }
root=$1
for tool in debootstrap dpkg-deb; do
    command -v "$tool" >/dev/null || { echo "arm64_root: $tool is missing: apt install debootstrap" >&2; exit 1; }
done
debootstrap --foreign --arch=arm64 --variant=minbase --include=python3,libpython3-dev bookworm "$root"
for package in "$root"/var/cache/apt/archives/*.deb; do
    dpkg-deb --extract "$package" "$root"
    rm "$package"
done
version=$(readlink "$root/usr/bin/python3" | sed 's/python//')
"$(dirname "$0")/../.venv/bin/python" -m pip install --quiet --target "$root/opt/site" --only-binary :all: \
    --platform manylinux_2_28_aarch64 --platform manylinux2014_aarch64 --python-version "$version" pyzmq msgspec
