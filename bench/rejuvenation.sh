#!/usr/bin/env bash
# How long putting layers back takes, by depth and by how much is written to the layers (a quarter each to applications and settings, half to data). What is written is really
# written, so the largest size needs that much room, and a little more.
#   bench/rejuvenation.sh [--gib "1 10 50"] [--rounds 5] [--dir FOLDER]
# Each figure is the player's own work: the moment before, the layers put back, all of it durable; a lease, opening the layers and the guest's start are not in it.
# The pause of a writing guest is a figure of the test MomentsTests (./test.sh --only EndToEnd, the lines that begin with "figure: a moment of a writing guest").
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/setup.sh
. "$here/../scripts/setup.sh"
sizes="1 10 50" rounds=5 dir=
while [ $# -gt 0 ]; do
  case "$1" in
  --gib) sizes=${2:?}; shift ;;
  --rounds) rounds=${2:?}; shift ;;
  --dir) dir=${2:?}; shift ;;
  -h|--help) sed -n '2,7p' "$0" | cut -c3-; exit 0 ;;
  *) die "unknown option '$1'" "bench/rejuvenation.sh --help" ;;
  esac
  shift
done
need_sdk
dotnet build "$root/bench/Rejuvenate" -c Release -v quiet --nologo >&2
work=$(mktemp -d "${dir:-${TMPDIR:-/tmp}}/nacre-rejuvenation.XXXXXX")
trap 'rm -rf "$work"' EXIT
for size in $sizes; do
  rm -rf "$work/home"
  XDG_RUNTIME_DIR="$work" NACRE_HOME="$work/home" "$root/artifacts/bin/Rejuvenate/release/Rejuvenate" "$size" "$rounds"
done
