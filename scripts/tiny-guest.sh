#!/usr/bin/env bash
# A guest that boots in seconds, for tests and benches of disks: Debian's cloud kernel, and an initramfs that holds busybox, an init script,
# and in /bin the programs named with their libraries, and files. Modules that few need (virtio_console, evdev, button) lie in /modules.
#   scripts/tiny-guest.sh FOLDER INIT [PROGRAM|FILE…]     makes FOLDER/kernel and FOLDER/initramfs
# The kernel's package is downloaded, never installed, and kept under artifacts/.
set -euo pipefail
# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
folder=$1 init=$2
shift 2
modules=(virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk)
more_modules=(virtio_console evdev button)

cache="$root/artifacts/tiny-guest/kernel"
if [ ! -f "$cache/button.ko" ]; then
  mkdir -p "$root/artifacts/tiny-guest"
  download=$(mktemp -d "$root/artifacts/tiny-guest/download.XXXXXX")
  trap 'rm -rf "$download"' EXIT
  fetch() {
    local package
    package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends: linux-image-/ { print $2; exit }')
    [ -n "$package" ] && (cd "$download" && apt-get download -q "$package" >&2)
  }
  say "downloading the tiny guest's kernel"
  missing=linux-image-cloud-amd64
  fetch || { as_root apt-get update -q >&2; fetch; } || die "the kernel's package cannot be downloaded"
  dpkg-deb -x "$download"/*.deb "$download/package"
  mkdir "$download/kernel"
  mv "$download"/package/boot/vmlinuz-* "$download/kernel/vmlinuz"
  find "$download/package/lib/modules" \( -name 'virtio*.ko' -o -name evdev.ko -o -name button.ko \) -exec mv -t "$download/kernel" {} +
  rm -rf "$cache"
  mv "$download/kernel" "$cache"
fi

tree=$(mktemp -d)
trap 'rm -rf "${download:-}" "$tree"' EXIT
mkdir -p "$tree"/{bin,dev,proc,sys,tmp,mnt,modules} "$folder"
add() {
  local library
  cp -L "$1" "$tree/bin/"
  # Where the dynamic linker looks, with the linker itself at the place that programs name.
  for library in $(ldd "$1" 2>/dev/null | grep -o '/[^ )]*'); do
    [ -e "$tree$library" ] || install -D "$(readlink -f "$library")" "$tree$library"
  done
}
for program in busybox "$@"; do
  path=$program
  [ -f "$path" ] || path=$(command -v "$program") || die "'$program' is not installed"
  add "$path"
done
for module in "${modules[@]}" "${more_modules[@]}"; do
  cp "$cache/$module.ko" "$tree/modules/"
done
{
  cat <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs devtmpfs /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /tmp
exec </dev/ttyS0 >/dev/ttyS0 2>&1
stty -echo
INIT
  printf 'insmod /modules/%s.ko\n' "${modules[@]}"
  cat "$init"
} >"$tree/init"
chmod 755 "$tree/init"
cp "$cache/vmlinuz" "$folder/kernel.new"
mv "$folder/kernel.new" "$folder/kernel"
(cd "$tree" && find . | busybox cpio -o -H newc) >"$folder/initramfs.new" 2>/dev/null
mv "$folder/initramfs.new" "$folder/initramfs"
