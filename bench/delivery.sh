#!/usr/bin/env bash
# How many bytes an update moves, and how long publishing and applying it take, beside casync, restic, borg and zstd --patch-from: the desktop's recipe, built from Debian 12 as
# released, and with its updates. Needs about 15 GB and half an hour; builds are kept in the folder and used again.
#   bench/delivery.sh --dir FOLDER [--rounds 3] [--mirror URL]
# The server, and a device without a guest, are the real ones, on loopback. Times are of a machine that may do other things: user and system time is given too.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/setup.sh
. "$here/../scripts/setup.sh"
dir= rounds=3 mirror=http://deb.debian.org
while [ $# -gt 0 ]; do
  case "$1" in
  --dir) dir=${2:?}; shift ;;
  --rounds) rounds=${2:?}; shift ;;
  --mirror) mirror=${2:?}; shift ;;
  -h|--help) sed -n '2,6p' "$0" | cut -c3-; exit 0 ;;
  *) die "unknown option '$1'" "bench/delivery.sh --help" ;;
  esac
  shift
done
[ -n "$dir" ] || die "--dir is missing" "bench/delivery.sh --help"
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
need_packages mmdebstrap erofs-utils uidmap zstd time curl casync restic borgbackup
need_sdk
build_nacre
nacre() { "$nacre_program" "$@"; }

# recipe FILE SUITE…: the desktop's recipe with these suites as its only sources.
recipe() {
  local file=$1 keyring='[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]' line
  shift
  {
    sed '/^  suite: bookworm$/q' "$root/recipes/debian-desktop.yaml"
    printf '  sources:\n'
    for line in "$@"; do printf '    - deb %s %s/%s main\n' "$keyring" "$mirror" "$line"; done
    sed '1,/^  suite: bookworm$/d' "$root/recipes/debian-desktop.yaml"
  } >"$file"
}
recipe "$dir/old.yaml" 'debian bookworm'
recipe "$dir/new.yaml" 'debian bookworm' 'debian bookworm-updates' 'debian-security bookworm-security'
for one in old new; do
  [ -d "$dir/$one" ] || nacre image build "$dir/$one.yaml" --output "$dir/$one"
done
old=$dir/old/system.erofs new=$dir/new/system.erofs

work=$dir/work server=
clean() {
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  rm -rf "$work"
}
trap clean EXIT
timed() { # timed WHAT COMMAND…: its wall, user and system seconds
  local what=$1
  shift
  /usr/bin/time -o "$work/time" -f '%e s (user %U, system %S)' "$@" >"$work/out" 2>"$work/err" || { cat "$work/err" >&2; die "$what failed"; }
  printf '%-46s %s\n' "$what" "$(cat "$work/time")"
}
bytes() { printf '%-46s %s MB\n' "$1" "$(awk -v b="$2" 'BEGIN { printf "%.1f", b / 1e6 }')"; }
size() { du -sb "$1" | cut -f1; }

fresh() { # a new organisation; its server listens
  clean
  mkdir -p "$work"
  export NACRE_ADMIN_HOME=$work/admin NACRE_HOME=$work/device XDG_RUNTIME_DIR=$work
  local port=${NACRE_BENCH_PORT:-8437}
  "$nacre_program" server --listen "http://127.0.0.1:$port" --data "$work/server" >"$work/server.log" 2>&1 &
  server=$!
  until curl -fs "http://127.0.0.1:$port/healthz" >/dev/null; do sleep 0.2; done
  nacre login "http://127.0.0.1:$port" --token-file "$work/server/admin-token" >/dev/null
  nacre user add alice --display-name Alice >/dev/null
}
device() {
  nacre livepc create office --image debian-desktop >/dev/null
  nacre livepc entitle office alice >/dev/null
  nacre device enrol "http://127.0.0.1:${NACRE_BENCH_PORT:-8437}" "$(nacre device code alice 2>/dev/null)" >/dev/null
  nacre livepc update office >/dev/null 2>&1
}

for round in $(seq "$rounds"); do
  say "== round $round of $rounds"
  for way in '' --no-delta; do
    fresh
    timed "publish the first release" "$nacre_program" image publish "$dir/old" --channel stable
    before=$(size "$work/server/segments")
    device
    # shellcheck disable=SC2086
    timed "publish the update ${way:-with a delta}" "$nacre_program" image publish "$dir/new" --channel stable $way
    bytes "  stored for it" $(($(size "$work/server/segments") - before))
    timed "update a device ${way:-with a delta}" "$nacre_program" livepc update office --json
    bytes "  downloaded" "$(sed -n 's/.*"bytes": *\([0-9]*\).*/\1/p' "$work/out" | head -n 1)"
  done

  rm -rf "$work/store"
  timed "casync make, first" casync make --store="$work/store" "$work/old.caibx" "$old"
  before=$(size "$work/store")
  timed "casync make, update" casync make --store="$work/store" "$work/new.caibx" "$new"
  bytes "  stored for it" $(($(size "$work/store") - before + $(size "$work/new.caibx")))
  rm -rf "$work/store"
done

export RESTIC_PASSWORD=bench BORG_PASSPHRASE=bench BORG_BASE_DIR=$work/borg-home
restic -q init --repo "$work/restic"
timed "restic backup, first" sh -c "restic -q --repo '$work/restic' backup --stdin <'$old'"
before=$(size "$work/restic")
timed "restic backup, update" sh -c "restic -q --repo '$work/restic' backup --stdin <'$new'"
bytes "  stored for it" $(($(size "$work/restic") - before))
rm -rf "$work/restic"
borg init -e repokey "$work/borg" 2>/dev/null
timed "borg create, first" sh -c "borg create -C zstd '$work/borg::old' - <'$old'"
before=$(size "$work/borg")
timed "borg create, update" sh -c "borg create -C zstd '$work/borg::new' - <'$new'"
bytes "  stored for it" $(($(size "$work/borg") - before))
rm -rf "$work/borg"
for level in 3 12; do
  # It loads the whole base, and takes none of 2 GB or more.
  [ "$(stat -c %s "$old")" -lt 2000000000 ] || { printf '%-46s %s\n' "zstd --patch-from, level $level" "can't: the image has more than 2 GB"; continue; }
  timed "zstd --patch-from, level $level" zstd -q -f -$level --long=31 --patch-from="$old" "$new" -o "$work/patch"
  bytes "  the patch (no random access, no seals)" "$(size "$work/patch")"
done
