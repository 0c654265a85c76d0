#!/usr/bin/env bash
# How long a first start takes over a network, and what it fetches, with and without a boot pack, beside a first start with everything local.
#   bench/streaming.sh IMAGE… [--links "1000:0:0 50:20:0 10:80:1"] [--rounds 1] [--memory 1024] [--dir FOLDER]
# IMAGE is a folder that 'nacre image build' made. A link is Mbit/s : round trip in ms : loss in % of each direction. Server and device are in network
# namespaces of their own; the rate is 'tc tbf' on both ends; without delay and loss a veth pair joins them, else bench/link.py (netem is not in
# every kernel). Every start is that of a new device with new, blank user layers; the local one has the whole release in its cache and no more. The first start
# over each link has no pack; what the first of all read is trusted ('nacre image boot-set --trust') and makes the pack of the others.
# Prints CSV: image,link,start,round,seconds to the agent's first answer,bytes fetched,% of the image,requests. Needs root, iproute2, python3, QEMU.
# Confounders: the guest is emulated where there is no KVM, and then its processor decides more than the link; everything shares this computer's processors.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/setup.sh
. "$here/../scripts/setup.sh"
links="1000:0:0 50:20:0 10:80:1" rounds=1 memory=1024 dir= images=()
while [ $# -gt 0 ]; do
  case "$1" in
  --links) links=${2:?}; shift ;;
  --rounds) rounds=${2:?}; shift ;;
  --memory) memory=${2:?}; shift ;;
  --dir) dir=${2:?}; shift ;;
  -h|--help) sed -n '2,10p' "$0" | cut -c3-; exit 0 ;;
  -*) die "unknown option '$1'" "bench/streaming.sh --help" ;;
  *) images+=("$(realpath "$1")") ;;
  esac
  shift
done
[ ${#images[@]} -gt 0 ] || die "no image was named" "bench/streaming.sh --help"
[ "$(id -u)" = 0 ] || die "network namespaces need root" "sudo bench/streaming.sh"
need_packages iproute2 python3-minimal qemu-system-x86
build_nacre
work=$(mktemp -d "${dir:-/var/tmp}/nacre-streaming.XXXXXX")
# A copy: a build beside the run does not change what runs.
cp -r "$(dirname "$nacre_program")" "$work/program"
nacre=$work/program/nacre office="nacre-bench-s$$" home="nacre-bench-d$$"
export NACRE_ADMIN_HOME="$work/admin" XDG_RUNTIME_DIR="$work/run" TPM2TOOLS_TCTI=none
mkdir -p "$work/run"
server= link=

cut_link() {
  [ -z "$link" ] || { kill "$link" 2>/dev/null || true; wait "$link" 2>/dev/null || true; link=; }
  ip -n "$home" link del link0 2>/dev/null || true
}
cleanup() {
  NACRE_HOME="$work/device" ip netns exec "$home" "$nacre" livepc stop office >/dev/null 2>&1 || true
  [ -z "$server" ] || { kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; }
  cut_link
  ip netns del "$office" 2>/dev/null || true
  ip netns del "$home" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
ip netns add "$office"
ip netns add "$home"
for ns in "$office" "$home"; do ip -n "$ns" link set lo up; done

# join RATE:RTT:LOSS
join() {
  cut_link
  IFS=: read -r rate trip loss <<<"$1"
  if [ "$trip" = 0 ] && [ "$loss" = 0 ]; then
    ip -n "$home" link add link0 type veth peer name link0 netns "$office"
    ip -n "$home" addr add 10.73.0.2/24 dev link0
    ip -n "$office" addr add 10.73.0.1/24 dev link0
    for ns in "$office" "$home"; do ip -n "$ns" link set link0 up; done
  else
    exec {words}< <(exec python3 "$here/link.py" "$office" 10.73.0.1/24 "$home" 10.73.0.2/24 "$trip" "$loss")
    link=$!
    read -r _ <&"$words"
  fi
  for ns in "$office" "$home"; do tc -n "$ns" qdisc add dev link0 root tbf rate "${rate}mbit" burst 64k latency 100ms; done
}
admin() { ip netns exec "$office" "$nacre" "$@"; }
device() { NACRE_HOME="$work/device" NACRE_PASSWORD="a password of the bench" ip netns exec "$home" "$nacre" "$@"; }

# start IMAGE LINK KIND ROUND [--no-fetch]: a new device starts the LivePC, and its figures are printed
start() {
  local name=$1 via=$2 kind=$3 round=$4; shift 4
  mkdir -p "$work/device"
  device device enrol "http://10.73.0.1:8400" "$(admin device code alice)" --name bench >/dev/null
  device livepc start office --memory "$memory" --json "$@" >"$work/started" || die "the start failed" "$(tail -n 3 "$work/started")"
  python3 - "$name,$via,$kind,$round" "$work/started" <<'PY'
import json, sys
s = json.load(open(sys.argv[2]))
print(f"{sys.argv[1]},{s['secondsToAgent']:.1f},{s['bytesToAgent']},{100 * s['bytesToAgent'] / s['imageBytes']:.2f},{s['fetchRequests']}", flush=True)
PY
}
end() { device livepc stop office >/dev/null 2>&1; rm -rf "$work/device" "$work/run"; mkdir -p "$work/run"; }

echo "image,link,start,round,seconds,bytes,% of the image,requests"
for image in "${images[@]}"; do
  name=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["name"])' "$image/image.json")
  rm -rf "$work/server" "$work/admin" "$work/kept"
  ip netns exec "$office" "$nacre" server --listen http://10.73.0.1:8400 --data "$work/server" >"$work/server.log" 2>&1 & server=$!
  first=${links%% *}
  join "$first"
  for _ in $(seq 300); do ip netns exec "$office" "$nacre" login http://10.73.0.1:8400 --token-file "$work/server/admin-token" >/dev/null 2>&1 && break; sleep 0.2; done
  admin image publish "$image" --channel stable >/dev/null
  admin user add alice >/dev/null
  admin policy set organisation maxDevicesPerUser=100 >/dev/null 2>&1
  admin livepc create office --image "$name" >/dev/null
  admin livepc entitle office alice >/dev/null

  # Without a pack; the first one is recorded and completed, for the local start and the pack.
  recorder=
  for round in $(seq "$rounds"); do
    for via in $links; do
      join "$via"
      if [ -z "$recorder" ]; then
        start "$name" "$via" "without a pack" "$round"
        for _ in $(seq 600); do recorder=$(admin image boot-set "$name" 1 --json | python3 -c 'import json, sys; print("".join(r["device"] for r in json.load(sys.stdin)["recordings"]))'); [ -z "$recorder" ] || break; sleep 1; done
        until device livepc status office | grep -q '^complete'; do sleep 1; done
        mkdir "$work/kept"
        cp -r --reflink=auto "$work/device/segments" "$work/device/indexes" "$work/kept/"
        echo '{"telemetry.level":"off"}' >"$work/policy.json"
        admin policy set livepc:office --file "$work/policy.json" >/dev/null
      else
        start "$name" "$via" "without a pack" "$round" --no-fetch
      fi
      end
    done
  done
  admin image boot-set "$name" 1 --trust "$recorder" | sed -n 's/^boot pack/# &/p'
  for round in $(seq "$rounds"); do
    for via in $links; do
      join "$via"
      start "$name" "$via" "with the pack" "$round" --no-fetch
      end
    done
    mkdir -p "$work/device"
    cp -r --reflink=auto "$work/kept/segments" "$work/kept/indexes" "$work/device/"
    join "$first"
    start "$name" "$first" "local" "$round" --no-fetch
    end
  done
  kill "$server"; wait "$server" || true; server=
done
