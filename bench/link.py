#!/usr/bin/env python3
"""A link between two network namespaces with delay and loss, as the kernel's netem would make.

    link.py NAMESPACE ADDRESS NAMESPACE ADDRESS ROUND_TRIP_MS LOSS_PERCENT

Makes a tun device `link0` in each namespace and carries packets from one to the other: each half of the round trip later, in order, and dropped
with the given probability in each direction (seeded: the same run drops the same packets). The rate is not its work: `tc tbf` on the devices. Prints
"ready" and runs until it is ended; the devices go with it. Needs root.
"""
import collections, fcntl, os, random, select, struct, subprocess, sys, time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
MOST_WAITING = 4096  # packets in one direction; more are dropped, as a full router would


def make(namespace, address, name):
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    for words in (["link", "set", name, "netns", namespace], ["-n", namespace, "link", "set", name, "name", "link0"],
                  ["-n", namespace, "addr", "add", address, "dev", "link0"], ["-n", namespace, "link", "set", "link0", "up"]):
        subprocess.run(["ip", *words], check=True)
    return file


def main():
    left, left_address, right, right_address, round_trip, loss = sys.argv[1:]
    delay, loss = float(round_trip) / 2000, float(loss) / 100
    files = [make(left, left_address, f"nb{os.getpid()}a"), make(right, right_address, f"nb{os.getpid()}b")]
    other = {files[0]: files[1], files[1]: files[0]}
    waiting = {file: collections.deque() for file in files}
    chance = random.Random(1)
    print("ready", flush=True)
    while True:
        due = min((queue[0][0] for queue in waiting.values() if queue), default=None)
        ready, _, _ = select.select(files, [], [], None if due is None else max(0.0, due - time.monotonic()))
        for file in ready:
            for _ in range(64):
                try:
                    packet = os.read(file, 65536)
                except BlockingIOError:
                    break
                queue = waiting[other[file]]
                if chance.random() >= loss and len(queue) < MOST_WAITING:
                    queue.append((time.monotonic() + delay, packet))
        now = time.monotonic()
        for file, queue in waiting.items():
            while queue and queue[0][0] <= now:
                try:
                    os.write(file, queue.popleft()[1])
                except OSError:
                    pass  # a device that is down, or its queue is full: lost, as on a wire


main()
