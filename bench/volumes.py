"""Measures volume servers over NBD; started by volumes.sh.

Figures: I/O per second, and µs of the serving process's processor time (user and system, all threads) per I/O; p50 and p99 of a request's
time as the client sees it; bytes written per byte (of this engine by its own count, checkpoints and copies included; of the others what
they hand to the kernel); fdatasyncs per flush; managed bytes allocated per I/O; bytes stored per live byte. Confounders: client and server share the processors; everything is in the page cache; nobody else should use the
machine. A virtual machine's memory costs several µs a page where it is touched for the first time, which no server is to blame for: all
free memory is touched once before anything is measured.
"""
import argparse, json, mmap, os, shutil, signal, statistics, subprocess, sys, tempfile, time

SECRET = "secret,id=k,data=bench"
TICK = os.sysconf("SC_CLK_TCK")


def touch_memory():
    free = [int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemAvailable")][0] * 1024
    pages = mmap.mmap(-1, int(free * 0.9) >> 20 << 20)
    block = b"\1" * (1 << 20)
    for at in range(0, len(pages), len(block)):
        pages[at:at + len(block)] = block
    pages.close()


class Server:
    """One serving process, its socket, and its files in a folder of its own."""

    def __init__(self, kind, mib, program=None, folder=None):
        self.kind, self.mib, self.program = kind, mib, program
        self.folder = folder or tempfile.mkdtemp(prefix="nacre-bench.", dir=os.environ.get("BENCH_DIR", "/var/tmp"))
        self.process = None
        if folder is None and kind in ("raw", "nbdkit"):
            with open(self.path("disk"), "w") as disk:
                disk.truncate(mib << 20)
        if folder is None and kind == "luks":
            # iter-time only sets how long opening takes; qemu-img measures the processor for it, and gives up on a busy machine.
            options = "encrypt.format=luks,encrypt.key-secret=k,encrypt.iter-time=100"
            create = ("qemu-img", "create", "-q", "--object", SECRET, "-f", "qcow2", "-o", options, self.path("disk"), f"{mib}M")
            for _ in range(20):
                if subprocess.run(create, capture_output=True).returncode == 0:
                    break
            else:
                run(*create)
        self.start()

    def path(self, name):
        return os.path.join(self.folder, name)

    def start(self):
        socket, disk = self.path("s"), self.path("disk")
        if os.path.exists(socket):
            os.remove(socket)
        export = "disk" if self.kind == "nacre" else ""
        command = {
            "nacre": [self.program, disk, socket, str(self.mib)],
            "raw": ["qemu-nbd", "-t", "-e", "8", "-f", "raw", "-k", socket, "--cache=writeback", "--discard=unmap", disk],
            "luks": ["qemu-nbd", "-t", "-e", "8", "--object", SECRET, "--image-opts", "-k", socket, "--cache=writeback",
                     f"driver=qcow2,encrypt.key-secret=k,file.driver=file,file.filename={disk}"],
            "nbdkit": ["nbdkit", "-f", "-U", socket, "file", disk],
            "memory": ["nbdkit", "-f", "-U", socket, "memory", f"{self.mib}M"],
        }[self.kind]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.uri = f"nbd+unix:///{export}?socket={socket}"
        self.opened = json.loads(self.process.stdout.readline()) if self.kind == "nacre" else {}
        for _ in range(200):
            if os.path.exists(socket) and subprocess.run(["nbdinfo", "--size", self.uri], capture_output=True).returncode == 0:
                return
            time.sleep(0.05)
        sys.exit(f"{self.kind} did not start")

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        return json.loads(self.process.stdout.readline())

    def processor_seconds(self):
        fields = open(f"/proc/{self.process.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def resident_mib(self):
        return [int(line.split()[1]) for line in open(f"/proc/{self.process.pid}/status") if line.startswith("VmRSS")][0] / 1024

    def written_bytes(self):
        return [int(line.split()[1]) for line in open(f"/proc/{self.process.pid}/io") if line.startswith("wchar")][0]

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait()

    def remove(self):
        self.end()
        shutil.rmtree(self.folder)

    def load(self, name, *options, size=None):
        """One fio job; its figures as a dictionary."""
        allocates = self.kind == "nacre"
        before = self.ask("stat") if allocates else None
        processor, written = self.processor_seconds(), self.written_bytes()
        output = self.path("fio.json")
        run("fio", f"--name={name}", "--ioengine=nbd", f"--uri={self.uri}", f"--size={size or self.mib}M", "--output-format=json",
            f"--output={output}", "--randrepeat=0", "--norandommap", "--percentile_list=50:99", *options)
        processor, written = self.processor_seconds() - processor, self.written_bytes() - written
        text = open(output).read()
        job = json.loads(text[text.index("{"):])["jobs"][0]
        if job["error"] != 0:
            sys.exit(f"fio failed on {self.kind}: {job['error']}")
        ios = job["read"]["total_ios"] + job["write"]["total_ios"]
        side = job["write"] if job["write"]["total_ios"] else job["read"]
        percentiles = side["clat_ns"]["percentile"]
        result = {
            "rate": job["read"]["iops"] + job["write"]["iops"], "cpu": processor * 1e6 / ios,
            "p50": percentiles["50.000000"] / 1000, "p99": percentiles["99.000000"] / 1000, "rss": self.resident_mib(),
            "wrote": written / job["write"]["io_bytes"] if job["write"]["io_bytes"] else 0,
        }
        if allocates:
            after = self.ask("stat")
            result["allocated"] = (after["AllocatedBytes"] - before["AllocatedBytes"]) / ios
            flushes = after["Statistics"]["Flushes"] - before["Statistics"]["Flushes"]
            result["syncs"] = (after["Statistics"]["DataSyncs"] - before["Statistics"]["DataSyncs"]) / flushes if flushes else 0
            grown = {name: after["Statistics"][name] - before["Statistics"][name] for name in ("AppendedBytes", "CheckpointBytes", "WrittenBytes")}
            result["wrote"] = (grown["AppendedBytes"] + grown["CheckpointBytes"]) / grown["WrittenBytes"] if grown["WrittenBytes"] else 0
            result["stored"] = after["Statistics"]["StoredBytes"] / max(1, after["Statistics"]["LiveBlocks"] * 4096)
        return result


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: {done.stdout}{done.stderr}")


class Table:
    """Results by load and server, printed as medians."""

    def __init__(self, csv):
        self.rows, self.csv = {}, csv

    def add(self, load, server, figures):
        for name, value in figures.items():
            self.rows.setdefault((load, server), {}).setdefault(name, []).append(value)
        if self.csv:
            self.csv.write(f"{load},{server}," + ",".join(f"{k}={v:.4g}" for k, v in figures.items()) + "\n")
            self.csv.flush()

    def median(self, load, server, figure):
        return statistics.median(self.rows[load, server][figure])

    def print(self, title, figures):
        print(f"\n{title}\n| load | server | " + " | ".join(figures) + " |\n|" + "---|" * (len(figures) + 2))
        for (load, server), row in self.rows.items():
            print(f"| {load} | {server} | " + " | ".join(f"{statistics.median(row[f]):.4g}" if f in row else "" for f in figures) + " |")
        sys.stdout.flush()


def alternate(kinds, rounds):
    for number in range(rounds):
        for kind in kinds if number % 2 == 0 else reversed(kinds):
            yield kind


def goal(text, value, bound, at_most):
    met = value <= bound if at_most else value >= bound
    print(f"| {text} | {'≤' if at_most else '≥'} {bound:g} | {value:.2f} | {'reached' if met else 'MISSED'} |")


TIMED = ("--time_based",)


def speed(options, csv):
    """All servers under the same loads."""
    table = Table(csv)
    seconds = f"--runtime={options.seconds}"
    loads = {
        "seqwrite": ("--rw=write", "--bs=256k", "--iodepth=4", "--refill_buffers"),
        "randread": ("--rw=randread", "--bs=4k", "--iodepth=16", *TIMED, seconds),
        "seqread": ("--rw=read", "--bs=256k", "--iodepth=4", "--io_size=1G"),
        "randwrite": ("--rw=randwrite", "--bs=4k", "--iodepth=16", *TIMED, seconds),
        "writeflush": ("--rw=randwrite", "--bs=4k", "--iodepth=1", "--fsync=1", *TIMED, seconds),
    }
    fresh = ("writeflush", "seqwrite")
    for kind in alternate(["nacre", "nbdkit", "luks", "lukscold", "raw", "memory"], options.rounds):
        server = Server("luks" if kind == "lukscold" else kind, options.mib, options.program)
        if kind == "lukscold":
            table.add("writeflush", "luks fresh", server.load("writeflush", *loads["writeflush"]))
        else:
            # What a server does once (compiling itself, above all) is not what is compared.
            for arguments in loads.values():
                server.load("warm", *arguments, "--time_based", "--runtime=0.3", size=64)
            for name, arguments in loads.items():
                table.add("fill" if name == "seqwrite" else name, kind, server.load(name, *arguments))
            table.add("seqwrite", kind, server.load("seqwrite", *loads["seqwrite"], "--io_size=1G"))
        server.remove()
    table.print("Servers (rate per s, µs)", ["rate", "cpu", "p50", "p99", "rss", "wrote", "syncs", "allocated", "stored"])
    cpu = lambda load, kind: table.median(load, kind, "cpu")
    rate = lambda load, kind: table.median(load, kind, "rate")
    print("\n| goal | bound | measured | |\n|---|---|---|---|")
    goal("random read, CPU ÷ nbdkit file", cpu("randread", "nacre") / cpu("randread", "nbdkit"), 0.8, True)
    goal("random read, CPU ÷ LUKS", cpu("randread", "nacre") / cpu("randread", "luks"), 0.2, True)
    goal("random read, I/O per s ÷ LUKS", rate("randread", "nacre") / rate("randread", "luks"), 4, False)
    goal("random write, CPU ÷ nbdkit file", cpu("randwrite", "nacre") / cpu("randwrite", "nbdkit"), 0.6, True)
    goal("random write, CPU ÷ LUKS", cpu("randwrite", "nacre") / cpu("randwrite", "luks"), 0.2, True)
    goal("write and flush, per s ÷ raw", rate("writeflush", "nacre") / rate("writeflush", "raw"), 1, False)
    goal("write and flush, per s ÷ fresh LUKS", rate("writeflush", "nacre") / rate("writeflush", "luks fresh"), 3, False)
    for load in ("seqread", "fill", "seqwrite"):
        goal(f"{load} 256 KiB, CPU ÷ LUKS", cpu(load, "nacre") / cpu(load, "luks"), 0.3, True)


def clean(options, csv):
    """Uniform random overwrites without an end: what cleaning costs, and the space it keeps to."""
    table = Table(csv)
    for share in (50, 80, 100):
        part = options.mib * share // 100
        for kind in alternate(["nacre", "nbdkit", "luks"], max(1, options.rounds // 3)):
            server = Server(kind, options.mib, options.program)
            server.load("fill", "--rw=write", "--bs=256k", "--iodepth=4", "--refill_buffers", size=part)
            rewrite = ("--rw=randwrite", "--bs=4k", "--iodepth=16", f"--io_size={3 * part}M")
            if kind == "nacre":
                server.load("age", *rewrite, size=part)
            table.add(f"{share} % full", kind, server.load("overwrite", *rewrite, size=part))
            server.remove()
    table.print("Overwriting at random three times over, after as much before", ["rate", "cpu", "p99", "wrote", "stored", "allocated"])


def large(options, csv):
    """Snapshots, the map's memory, and opening after a crash, by size."""
    print("\n| volume | figure | value |\n|---|---|---|")
    for gib, steps in ((1, 1), (64, 2)):
        server = Server("nacre", gib << 10, options.program)
        heap = server.ask("stat collect")["HeapBytes"]
        for step in range(steps):
            write = 512 if gib == 1 else 10 << 10
            server.load("random", "--rw=randwrite", "--bs=4k", "--iodepth=16", f"--io_size={write}M")
            server.end(signal.SIGKILL)
            server.start()
            print(f"| {gib} GiB, {write * (step + 1)} MiB written at random | opened after SIGKILL | {server.opened['OpenedMs']:.0f} ms, "
                  f"{server.opened['ReplayedSlots'] * 4128 / 2**20:.0f} MiB replayed |")
        print(f"| | the managed heap grew by | {(server.ask('stat collect')['HeapBytes'] - heap) / 2**20:.1f} MiB |")
        for what in ("snapshot", "rollback"):
            times = []
            for number in range(9):
                server.load("few", "--rw=randwrite", "--bs=4k", "--iodepth=16", "--io_size=1M")
                times.append(server.ask(f"{what} s{number}")["Ms"])
            print(f"| | {what}, median and longest of 9 | {statistics.median(times):.2f} ms, {max(times):.2f} ms |")
            sys.stdout.flush()
        server.remove()
    disk = tempfile.mkdtemp(prefix="nacre-bench.", dir=os.environ.get("BENCH_DIR", "/var/tmp"))
    image = os.path.join(disk, "q")
    run("qemu-img", "create", "-q", "-f", "qcow2", image, "1G")
    run("qemu-io", "-f", "qcow2", "-c", "write 0 512M", image)
    for what, flag in (("snapshot", "-c"), ("rollback", "-a")):
        times = []
        for number in range(9):
            run("qemu-io", "-f", "qcow2", "-c", f"write {number}M 1M", image)
            start = time.monotonic()
            run("qemu-img", "snapshot", flag, f"s{number}", image)
            times.append((time.monotonic() - start) * 1000)
        print(f"| qcow2, 1 GiB | qemu-img snapshot {flag}, median of 9 | {statistics.median(times):.0f} ms |")
    shutil.rmtree(disk)


def switch(options, csv):
    """This engine beside itself with the cipher only: no authentication (built with -p:EncryptionOnly=true)."""
    table = Table(csv)
    for kind in alternate(["nacre", "encryption only"], options.rounds):
        server = Server("nacre", 4 * options.mib, options.program if kind == "nacre" else options.unauthenticated)
        server.load("fill", "--rw=write", "--bs=256k", "--iodepth=4", "--refill_buffers", size=options.mib)
        for name, arguments in {"randread": ("--rw=randread", "--bs=4k"), "randwrite": ("--rw=randwrite", "--bs=4k"), "seqread": ("--rw=read", "--bs=256k")}.items():
            table.add(name, kind, server.load(name, *arguments, "--iodepth=16", *TIMED, f"--runtime={options.seconds}", size=options.mib))
        server.remove()
    table.print("With authentication, and without", ["rate", "cpu"])
    print("\n| goal | bound | measured | |\n|---|---|---|---|")
    for load in ("randread", "randwrite", "seqread"):
        goal(f"{load}, I/O per s with ÷ without", table.median(load, "nacre", "rate") / table.median(load, "encryption only", "rate"), 0.97, False)


def main():
    sections = {"speed": speed, "clean": clean, "large": large, "switch": switch}
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("unauthenticated")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--only", default=",".join(sections))
    parser.add_argument("--csv", help="every single result")
    options = parser.parse_args()
    wanted = options.only.split(",")
    if unknown := [name for name in wanted if name not in sections]:
        parser.error(f"unknown section {unknown[0]}; there are {', '.join(sections)}")
    print(f"{options.rounds} rounds, {options.mib} MiB, {options.seconds:g} s; load average {os.getloadavg()[0]:.2f}; {os.cpu_count()} processors")
    touch_memory()
    with open(options.csv or os.devnull, "w") as csv:
        for name in wanted:
            sections[name](options, csv)


main()
