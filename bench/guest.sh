#!/bin/bash
# The volume engine seen from inside a guest: the same tiny guest, with fio in it, on a disk that this engine serves over NBD (with the
# options that the product gives QEMU), on qcow2 with LUKS and on raw, both opened by QEMU itself.
#
#   bench/guest.sh [rounds=3] [MiB=256] [seconds=5] [cache=none|writeback]
#
# Prints CSV: round,disk,load,I/O per s,p50 µs,p99 µs,µs all,µs without CPU. I/O per s and latencies are the guest's (of write+flush: the
# flush's). "µs all" is the processor time per I/O of all processes that serve the guest (QEMU, and the server), nothing subtracted; the
# last column is that without the thread of QEMU that emulates the guest's processor, which is what serving the disk costs.
# Confounders: the guest is emulated, so its own processor dominates; guest, QEMU and server share the host's processors; "cache" is that
# of LUKS and raw (none: past the host's page cache, which needs a file system with O_DIRECT), while the engine's server always goes
# through the page cache and syncs when the guest flushes; the file system is that of BENCH_DIR (default: a new folder in /var/tmp).
# The order of the disks is reversed every other round. Medians are printed at the end.
set -euo pipefail
rounds=${1:-3} mib=${2:-256} seconds=${3:-5} cache=${4:-none}
root=$(cd "$(dirname "$0")/.." && pwd)
dir=$(mktemp -d "${BENCH_DIR:-/var/tmp}/nacre-bench.XXXXXX")
server= guest=
cleanup() {
    [ -z "$guest" ] || kill -9 "$guest" 2>/dev/null || true
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    wait
    rm -rf "$dir"
}
trap cleanup EXIT
dotnet build -c Release -v q "$root/bench/ServeVolume" >&2
serve="$root/artifacts/bin/ServeVolume/release/ServeVolume"
"$root/scripts/tiny-guest.sh" "$root/artifacts/tiny-guest/fio" "$root/bench/guest-init.sh" fio
direct=off
if [ "$cache" = none ]; then
    dd if=/dev/zero of="$dir/direct" bs=4096 count=1 oflag=direct status=none 2>/dev/null && direct=on || { echo "# no O_DIRECT here: cache=writeback" >&2; cache=writeback; }
fi
echo "# cache=$cache for luks and raw, on $(stat -f -c %T "$dir")"

# start DISK: the guest with a new disk of that kind
start() {
    local file="driver=file,filename=$dir/disk,cache.direct=$direct,discard=unmap" disk
    local options=(-object secret,id=k,data=bench)
    rm -rf "$dir/disk" "$dir/sock"
    case $1 in
        nacre)
            "$serve" "$dir/disk" "$dir/sock" "$mib" >"$dir/statistics" & server=$!
            for _ in $(seq 100); do [ -S "$dir/sock" ] && break; read -rt 0.1 <> <(:) || true; done
            # As Qemu.DiskArguments.
            disk="driver=nbd,node-name=disk,server.type=unix,server.path=$dir/sock,export=disk,reconnect-delay=60,discard=unmap,detect-zeroes=unmap" ;;
        raw)
            truncate -s "${mib}M" "$dir/disk"
            options+=(-blockdev "node-name=file,$file")
            disk="driver=raw,node-name=disk,file=file,cache.direct=$direct,discard=unmap,detect-zeroes=unmap" ;;
        luks)
            # It measures the processor first, which fails at times on a busy one.
            for _ in $(seq 20); do
                qemu-img create -q --object secret,id=k,data=bench -f qcow2 -o encrypt.format=luks,encrypt.key-secret=k,encrypt.iter-time=10 \
                    "$dir/disk" "${mib}M" 2>"$dir/words" && break || rm -f "$dir/disk"
            done
            [ -f "$dir/disk" ] || { cat "$dir/words" >&2; exit 1; }
            options+=(-blockdev "node-name=file,$file")
            disk="driver=qcow2,node-name=disk,file=file,encrypt.format=luks,encrypt.key-secret=k,cache.direct=$direct,discard=unmap,detect-zeroes=unmap" ;;
    esac
    coproc GUEST {
        exec qemu-system-x86_64 -nodefaults -no-user-config -no-reboot -name guest,debug-threads=on -machine pc,usb=off -accel tcg,thread=multi -cpu qemu64 \
            -m 512 -display none -kernel "$root/artifacts/tiny-guest/fio/kernel" -initrd "$root/artifacts/tiny-guest/fio/initramfs" \
            -append "console=ttyS0 quiet loglevel=3 no_timer_check panic=-1" -chardev stdio,id=console,signal=off -serial chardev:console \
            -object iothread,id=disks "${options[@]}" -blockdev "$disk" \
            -device virtio-blk-pci,drive=disk,serial=disk,iothread=disks,werror=stop,rerror=stop
    }
    guest=$GUEST_PID
    exec {from}<&"${GUEST[0]}" {to}>&"${GUEST[1]}"
    expect READY
}
stop() {
    kill -9 "$guest"; wait "$guest" 2>/dev/null || true; guest=
    exec {from}<&- {to}>&-
    [ -z "$server" ] || { kill "$server"; wait "$server" 2>/dev/null || true; server=; }
}

# expect WORD: reads the guest's console up to a line of that word
expect() {
    local line
    while IFS= read -rt 300 line <&"$from"; do
        line=${line%$'\r'}
        [ "$line" != "$1" ] || return 0
        [ "$line" != FAIL ] || { timeout 5 cat <&"$from" >&2 || true; echo "fio failed in the guest" >&2; exit 1; }
        printf '%s\n' "$line"
    done
    echo "the guest did not say $1" >&2
    exit 1
}

# ticks: of all processes, and of the thread that is the guest's processor
ticks() {
    local pid thread all=0 cpu=0
    for pid in $guest $server; do all=$((all + $(awk '{ print $14 + $15 }' "/proc/$pid/stat"))); done
    for thread in /proc/"$guest"/task/*; do
        # The name may hold a blank and comes before the fields that are counted.
        [[ $(<"$thread/comm") != CPU* ]] || cpu=$((cpu + $(sed 's/.*) //' "$thread/stat" | awk '{ print $12 + $13 }')))
    done
    echo "$all $cpu"
}

# load NAME FIO-ARGUMENTS…: one line of CSV
load() {
    local name=$1 before after; shift
    before=$(ticks)
    echo "--name=$name --size=${mib}M --randrepeat=1 $*" >&"$to"
    expect DONE >/dev/null
    after=$(ticks)
    expect END >"$dir/fio.json"
    python3 - "$dir/fio.json" "$round,$disk,$name" "$(getconf CLK_TCK)" $before $after <<'P'
import json, sys
file, prefix, hz, all0, cpu0, all1, cpu1 = sys.argv[1:]
text = open(file).read()
job = json.loads(text[text.index("{"):])["jobs"][0]
assert job["error"] == 0
kinds = [job["read"], job["write"]]
ios, rate = sum(k["total_ios"] for k in kinds), sum(k["iops"] for k in kinds)
latency = job["sync"]["lat_ns"] if job["sync"]["total_ios"] else next(k["clat_ns"] for k in kinds if k["total_ios"])
p50, p99 = (latency["percentile"][p] / 1000 for p in ("50.000000", "99.000000"))
total, cpu = (int(all1) - int(all0)) / int(hz) * 1e6 / ios, (int(cpu1) - int(cpu0)) / int(hz) * 1e6 / ios
print(f"{prefix},{rate:.0f},{p50:.0f},{p99:.0f},{total:.1f},{total - cpu:.1f}")
P
}

disks=(nacre luks raw)
for round in $(seq "$rounds"); do
    order=("${disks[@]}")
    [ $((round % 2)) = 1 ] || order=(raw luks nacre)
    for disk in "${order[@]}"; do
        start "$disk"
        load seqwrite --rw=write --bs=256k --iodepth=4 --refill_buffers=1
        load randread --rw=randread --bs=4k --iodepth=16 --time_based --runtime="$seconds"
        load randwrite --rw=randwrite --bs=4k --iodepth=16 --time_based --runtime="$seconds"
        load writeflush --rw=randwrite --bs=4k --iodepth=1 --fsync=1 --time_based --runtime="$seconds"
        load seqread --rw=read --bs=256k --iodepth=4
        stop
    done
done | tee "$dir/all.csv"
echo "# medians: load,disk,I/O per s,p50 µs,p99 µs,µs all,µs without CPU"
python3 - "$dir/all.csv" <<'P'
import collections, csv, statistics, sys
rows = collections.defaultdict(list)
for r in csv.reader(open(sys.argv[1])):
    rows[r[2], r[1]].append([float(x) for x in r[3:]])
for (load, disk), v in sorted(rows.items()):
    print(",".join([load, disk] + [f"{statistics.median(x):.1f}".removesuffix(".0") for x in zip(*v)]))
P
