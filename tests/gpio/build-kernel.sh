#!/bin/bash
# Build a user-mode Linux kernel with gpio-sim and i2c-stub: build-kernel.sh FOLDER makes FOLDER/linux (about 2 minutes, 6 MB).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:?FOLDER}
source=linux-source-6.1
if ! dpkg -s $source flex bison bc libelf-dev busybox-static >/dev/null 2>&1; then
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends $source flex bison bc libelf-dev busybox-static >/dev/null
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -xJf /usr/src/$source.tar.xz -C "$work"
cd "$work/$source"
# UML has 64 interrupts, all taken; gpio edge events need spare ones
sed -i 's/^#ifdef CONFIG_PCI_MSI$/#if 1/; s/(UM_LAST_SIGNAL_IRQ + 64)/(UM_LAST_SIGNAL_IRQ + 256)/' arch/um/include/asm/irq.h
# a test driver that may only be a module; this kernel has none
sed -i '/^config I2C_STUB$/,/^config /s/^\tdepends on m$//' drivers/i2c/Kconfig
make -s ARCH=um O="$work/build" tinyconfig
ARCH=um scripts/kconfig/merge_config.sh -m -O "$work/build" "$work/build/.config" "$here/uml.config" >/dev/null
make -s ARCH=um O="$work/build" olddefconfig
make -s ARCH=um O="$work/build" -j"$(nproc)" linux
mkdir -p "$folder"
strip -o "$folder/linux.new" "$work/build/linux"
mv "$folder/linux.new" "$folder/linux"
