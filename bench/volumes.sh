#!/bin/bash
# The volume engine over NBD beside qemu-nbd (raw, qcow2 with LUKS) and nbdkit file, by fio's nbd engine on one unix socket each.
#
#   bench/volumes.sh [rounds=3] [MiB=512] [seconds=3]
#
# Prints CSV: round,server,load,I/O per s,µs of the server's processor time per I/O. Confounders: fio and the server share the
# processors; everything is in the page cache; the file system is that of BENCH_DIR (default: a new folder in /var/tmp); nobody else
# should use the machine. The order of the servers is reversed every other round. Medians are printed at the end.
set -euo pipefail
rounds=${1:-3} mib=${2:-512} seconds=${3:-3}
root=$(cd "$(dirname "$0")/.." && pwd)
dir=$(mktemp -d "${BENCH_DIR:-/var/tmp}/nacre-bench.XXXXXX")
pid=
trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null; rm -rf "$dir"' EXIT
dotnet build -c Release -v q "$root/bench/ServeVolume" >&2
serve="$root/artifacts/bin/ServeVolume/release/ServeVolume"
secret="secret,id=k,data=bench"

start() {
    sock="$dir/$1.sock" uri="nbd+unix:///?socket=$dir/$1.sock"
    case $1 in
        nacre) rm -rf "$dir/v"; "$serve" "$dir/v" "$sock" "$mib" >"$dir/stat" & uri="nbd+unix:///disk?socket=$sock" ;;
        raw) rm -f "$dir/raw"; truncate -s "${mib}M" "$dir/raw"; qemu-nbd -t -e 8 -f raw -k "$sock" --cache=writeback --discard=unmap "$dir/raw" & ;;
        luks) rm -f "$dir/q"; qemu-img create -q --object "$secret" -f qcow2 -o encrypt.format=luks,encrypt.key-secret=k,encrypt.iter-time=10 "$dir/q" "${mib}M"
            qemu-nbd -t -e 8 --object "$secret" --image-opts -k "$sock" --cache=writeback "driver=qcow2,encrypt.key-secret=k,file.driver=file,file.filename=$dir/q" & ;;
        nbdkit) rm -f "$dir/f"; truncate -s "${mib}M" "$dir/f"; nbdkit -f -U "$sock" file "$dir/f" & ;;
    esac
    pid=$!
    for _ in $(seq 100); do [ -S "$sock" ] && nbdinfo --size "$uri" >/dev/null 2>&1 && return; read -rt 0.1 <> <(:) || true; done
    echo "$1 did not start" >&2; exit 1
}
stop() { kill "$pid"; wait "$pid" 2>/dev/null || true; pid=; rm -f "$sock"; }
ticks() { awk '{print $14 + $15}' "/proc/$pid/stat"; }

# load NAME FIO-ARGUMENTS…: one line of CSV
load() {
    local name=$1 before after; shift
    before=$(ticks)
    fio --name="$name" --ioengine=nbd --uri="$uri" --size="${mib}M" --output-format=json --output="$dir/fio.json" --randrepeat=1 "$@" >/dev/null
    after=$(ticks)
    python3 - "$dir/fio.json" "$round" "$server" "$name" "$((after - before))" "$(getconf CLK_TCK)" <<'P'
import json, sys
f, rnd, server, name, ticks, hz = sys.argv[1:]
text = open(f).read()
job = json.loads(text[text.index("{"):])["jobs"][0]
assert job["error"] == 0
ios = job["read"]["total_ios"] + job["write"]["total_ios"]
rate = job["read"]["iops"] + job["write"]["iops"]
print(f"{rnd},{server},{name},{rate:.0f},{int(ticks) / int(hz) * 1e6 / ios:.2f}")
P
}

servers=(nacre raw luks nbdkit)
for round in $(seq "$rounds"); do
    order=("${servers[@]}")
    [ $((round % 2)) = 1 ] || order=(nbdkit luks raw nacre)
    for server in "${order[@]}"; do
        start "$server"
        load fill --rw=write --bs=256k --iodepth=4 --refill_buffers=1
        load randread --rw=randread --bs=4k --iodepth=16 --time_based --runtime="$seconds"
        load randwrite --rw=randwrite --bs=4k --iodepth=16 --time_based --runtime="$seconds"
        load writeflush --rw=randwrite --bs=4k --iodepth=1 --fsync=1 --time_based --runtime="$seconds"
        load seqread --rw=read --bs=256k --iodepth=4
        stop
    done
done | tee "$dir/all.csv"
echo "# medians: server,load,I/O per s,µs per I/O"
python3 - "$dir/all.csv" <<'P'
import collections, csv, statistics, sys
rows = collections.defaultdict(list)
for r in csv.reader(open(sys.argv[1])):
    rows[r[2], r[1]].append((float(r[3]), float(r[4])))
for (load, server), v in sorted(rows.items()):
    print(f"{server},{load},{statistics.median(x for x, _ in v):.0f},{statistics.median(y for _, y in v):.2f}")
P
