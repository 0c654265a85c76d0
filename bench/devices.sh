#!/bin/sh
# Simulated devices against one server process, by mutual TLS: lease renewals (each with policy and trust metadata), the contacts between them, processor time and bytes
# for a device and day, and an order to devices that are connected. On SQLite, or with NACRE_POSTGRES (an empty database) on PostgreSQL.
# usage: bench/devices.sh [DEVICES [CONNECTED [CONTACTS [WORKERS]]]]     default: 20000 5000 40000 16
set -eu
cd "$(dirname "$0")/.."
if [ -z "${NACRE_BENCH_ALONE:-}" ]; then
    dotnet build bench/Devices -c Release -v quiet --nologo
    dotnet build src/Nacre.Cli -c Release -v quiet --nologo

    # A loopback interface of its own, whose bytes are counted.
    export NACRE_BENCH_ALONE=1
    exec unshare --user --map-root-user --net sh -c 'ip link set lo up && exec "$0" "$@"' "$PWD/bench/devices.sh" "$@"
fi

ulimit -n "$(ulimit -H -n)" # a connection for each device, at both ends
work="$(mktemp -d)"
port="${PORT:-18420}"
artifacts/bin/Nacre.Cli/release/nacre server --data "$work/server" --listen "https://127.0.0.1:$port" > "$work/log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
for _ in $(seq 100); do
    [ -f "$work/server/admin-token" ] && curl -sf --cacert "$work/server/ca.pem" "https://127.0.0.1:$port/healthz" > /dev/null && break
    sleep 0.2
done
echo "database: ${NACRE_POSTGRES:+PostgreSQL}${NACRE_POSTGRES:-SQLite}" | sed 's/PostgreSQL.*/PostgreSQL/'
artifacts/bin/Devices/release/Devices "https://127.0.0.1:$port" "$work/server/admin-token" "$server" "${1:-20000}" "${2:-5000}" "${3:-40000}" "${4:-16}" "$work/server/ca.pem"
awk '/VmHWM/ { print "memory: " $2 / 1024 " MiB at most" }' "/proc/$server/status"
