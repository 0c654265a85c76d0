#!/usr/bin/env bash
# A whole disk that boots by UEFI, for tests of guests that Nacre knows nothing of: GPT, a system partition with a unified kernel image
# (Debian's cloud kernel, systemd's stub), and a root file system of busybox and a few programs.
#   scripts/uefi-guest.sh FILE.qcow2 ISSUE [agent]     ISSUE: what its /etc/issue says; agent: with qemu-guest-agent
# Nothing is mounted and nobody has to be root, but for what is not installed yet.
set -euo pipefail
# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
file=$1 issue=$2 agent=${3:-}
need_packages qemu-utils busybox-static e2fsprogs fdisk mtools dosfstools systemd-boot-efi binutils

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
guest="$root/testdata/uefi-guest"
mkdir "$work/root" "$work/boot"
programs=(mkfs.ext4 sfdisk)
if [ "$agent" = agent ]; then
  cache="$root/artifacts/uefi-guest/agent"
  if [ ! -x "$cache/qemu-ga" ]; then
    need_packages libglib2.0-0 liburing2 libnuma1
    mkdir -p "$cache" "$work/download"
    fetch() { (cd "$work/download" && apt-get download -q qemu-guest-agent >&2); }
    fetch || { as_root apt-get update -q >&2; fetch; } || die "qemu-guest-agent's package cannot be downloaded"
    dpkg-deb -x "$work"/download/*.deb "$work/agent"
    cp "$work/agent/usr/sbin/qemu-ga" "$cache/qemu-ga"
  fi
  programs+=("$cache/qemu-ga")
fi
echo "$issue" >"$work/issue"

"$root/scripts/tiny-guest.sh" "$work/root" "$guest/init.sh" "${programs[@]}"
"$root/scripts/tiny-guest.sh" "$work/boot" "$guest/boot.sh"
mkdir "$work/tree"
(cd "$work/tree" && busybox cpio -idm <"$work/root/initramfs") 2>/dev/null
mkdir "$work/tree/etc"
cp "$work/issue" "$work/tree/etc/issue"

# The same inputs give much the same bytes, so that the second release finds its blocks in the first.
export SOURCE_DATE_EPOCH=1700000000
truncate -s 48M "$work/root.ext4"
mke2fs -q -t ext4 -L root -U 6e616372-652d-7565-6669-2d6775657374 -E hash_seed=6e616372-652d-7565-6669-2d6775657374,root_owner=0:0 \
  -d "$work/tree" "$work/root.ext4"

printf 'console=ttyS0 quiet loglevel=3 no_timer_check panic=-1' >"$work/cmdline"
printf 'NAME=uefi-guest\n' >"$work/os-release"
objcopy \
  --add-section .osrel="$work/os-release" --change-section-vma .osrel=0x20000 \
  --add-section .cmdline="$work/cmdline" --change-section-vma .cmdline=0x30000 \
  --add-section .linux="$work/boot/kernel" --change-section-vma .linux=0x2000000 \
  --add-section .initrd="$work/boot/initramfs" --change-section-vma .initrd=0x4000000 \
  /usr/lib/systemd/boot/efi/linuxx64.efi.stub "$work/uki.efi"
truncate -s 40M "$work/esp.fat"
mkfs.vfat -F 32 -i 4e414352 "$work/esp.fat" >/dev/null
mmd -i "$work/esp.fat" ::EFI ::EFI/BOOT
mcopy -i "$work/esp.fat" "$work/uki.efi" ::EFI/BOOT/BOOTX64.EFI

truncate -s 92M "$work/disk.raw"
printf 'label: gpt\nlabel-id: 6E616372-652D-7565-6669-2D6775657374\nstart=2048, size=81920, type=U\nstart=83968, size=98304, type=L\n' |
  sfdisk -q "$work/disk.raw" >/dev/null
dd if="$work/esp.fat" of="$work/disk.raw" bs=1M seek=1 conv=notrunc,sparse status=none
dd if="$work/root.ext4" of="$work/disk.raw" bs=1M seek=41 conv=notrunc,sparse status=none
mkdir -p "$(dirname "$file")"
qemu-img convert -f raw -O qcow2 "$work/disk.raw" "$file.new"
mv "$file.new" "$file"
