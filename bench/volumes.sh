#!/usr/bin/env bash
# The volume engine beside qemu-nbd (raw; qcow2 with LUKS) and nbdkit (file, memory): the table "Goals on speed" of the design.
#   bench/volumes.sh [--rounds N] [--mib N] [--seconds N] [--only speed,clean,large,switch] [--csv FILE]
# All servers in one run, on one file system, through the same client (fio's NBD engine on a unix socket), their order reversed every
# other round; medians at the end. What it needs is installed first. See bench/volumes.py for what each figure is.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/setup.sh
. "$here/../scripts/setup.sh"
case "${1-}" in -h|--help) sed -n '2,5p' "$0" | cut -c3-; exit 0 ;; esac
need_sdk
need_packages qemu-utils libnbd-bin nbdkit fio python3
say "building"
dotnet build "$root/bench/ServeVolume" -c Release -v quiet --nologo >&2
dotnet build "$root/bench/ServeVolume" -c Release -v quiet --nologo -p:EncryptionOnly=true >&2
exec python3 "$here/volumes.py" "$root/artifacts/bin/ServeVolume/release/ServeVolume" "$root/artifacts/encryption-only/bin/ServeVolume/release/ServeVolume" "$@"
