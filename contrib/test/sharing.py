#!/usr/bin/env python3
"""Measures what a download takes from others: bandwidth by the limits, and reads of the disk.

usage: sharing.py BINARY [link|server|disk]... [--seconds N] [--directory DIR]

  link    rate_limit: 10 with curl, aria2c -x8 and three links of one client
  server  bandwidth: 20 with 1 and 16 streams of two addresses, one that ends, and a reload to 40
  disk    bytes read from the disk for each byte sent: one fast client, 100 slow ones, 40 at once

It starts BINARY on a node in a temporary directory, on a free port of 127.0.0.1. All clients are
addresses of 127.0.0.0/8; counts and times are bounded. Each line is one measurement, with `ok` or
`NO`, and the exit status is 1 if any is `NO`. `disk` needs a directory on a disk and skips a tmpfs.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True  # leave nothing in this directory
import attacked  # noqa: E402
from attacked import MIB, SERVER, Node, connect, fetch, head, raise_limit, read_head, report  # noqa: E402

# The kernel's buffers take this much before the first limit is felt.
SETTLE = 2.0


class Stream(threading.Thread):
    """One connection that reads its target until it is told to stop, as fast as it may."""

    def __init__(self, node, source, target, fields=""):
        super().__init__(daemon=True)
        self.to, self.source, self.target, self.fields = node.plain, source, target, fields
        self.count, self.stop = 0, False
        self.start()

    def run(self):
        buffer = bytearray(256 * 1024)
        with connect(self.source, self.to, 1 << 17) as client:
            request = head(self.target)
            client.sendall(request[:-2] + self.fields.encode() + request[-2:])
            status, _, body = read_head(client)
            if status not in (200, 206):
                return report("stream", self.source, f"status {status}", False)
            self.count = len(body)
            while not self.stop:
                came = client.recv_into(buffer)
                if not came:
                    return
                self.count += came


def rates(groups, seconds):
    """MiB/s of each group of streams over the next `seconds`."""
    before, began = [sum(s.count for s in group) for group in groups], time.perf_counter()
    time.sleep(seconds)
    passed = time.perf_counter() - began
    return [(sum(s.count for s in group) - was) / passed / MIB for group, was in zip(groups, before)]


def end(streams):
    for stream in streams:
        stream.stop = True
    for stream in streams:
        stream.join()


def near(value, wanted, part=0.05):
    return abs(value - wanted) <= part * wanted


def link(options):
    options.set = ["rate_limit: 10"]
    node = Node(options)
    try:
        streams = [[Stream(node, "127.1.0.1", node.link("large"))] for _ in range(3)]
        time.sleep(SETTLE)
        for number, rate in enumerate(rates(streams, options.seconds)):
            report("link", f"of three {number + 1}", f"{rate:.2f} MiB/s", near(rate, 10))
        end(sum(streams, []))
        target, each = node.link("large"), 1 << 30
        part = [Stream(node, "127.1.0.2", target, f"Range: bytes={n * each}-{(n + 1) * each - 1}\r\n") for n in range(2)]
        time.sleep(SETTLE)
        each = rates([[stream] for stream in part], options.seconds)
        report("link", "two ranges", " and ".join(f"{rate:.2f}" for rate in each) + " MiB/s", near(sum(each), 10) and min(each) > 4)
        end(part)
        for name, command in (
            ("curl", ["curl", "-sS", "-o", f"{node.path}/got", "--max-time", "60"]),
            ("aria2c", ["aria2c", "-q", "-x8", "-s8", "-k1M", "-d", node.path, "-o", "got", "--file-allocation=none",
                        "--stop=60", "--allow-overwrite=true"]),
        ):
            url = f"http://{node.plain[0]}:{node.plain[1]}{node.link('large')}"
            client = subprocess.Popen([*command, url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(SETTLE)
            before, began = saved(node), time.perf_counter()
            time.sleep(options.seconds)
            rate = (saved(node) - before) / (time.perf_counter() - began) / MIB
            client.kill()
            client.wait()
            report("link", name, f"{rate:.2f} MiB/s", near(rate, 10))
            os.remove(f"{node.path}/got")
    finally:
        node.close()


def saved(node):
    """Bytes that the client has saved so far."""
    return os.stat(f"{node.path}/got").st_blocks * 512


def server(options):
    options.set = ["bandwidth: 20"]
    node = Node(options)
    try:
        link = node.link("large", "--no-unique-id")
        many = [Stream(node, "127.2.0.1", link) for _ in range(16)]
        one = [Stream(node, "127.2.0.2", link)]
        time.sleep(SETTLE)
        times, sampling = [], threading.Event()

        def health():
            while not sampling.is_set():
                times.append(fetch("127.3.0.1", node.plain, "/health")[0] * 1000)
                time.sleep(0.01)

        thread = threading.Thread(target=health)
        thread.start()
        of_many, of_one = rates([many, one], options.seconds)
        sampling.set()
        thread.join()
        both = of_many + of_one
        report("server", "in all", f"{both:.2f} MiB/s", near(both, 20))
        report("server", "shares", f"{100 * of_many / both:.1f} % to 16 streams, {100 * of_one / both:.1f} % to one",
               0.45 <= of_one / both <= 0.55)
        times.sort()
        report("server", "/health", f"p99 {times[len(times) * 99 // 100]:.2f} ms of {len(times)}",
               times[len(times) * 99 // 100] < 5)
        end(many)
        time.sleep(1)
        rate = rates([one], 3)[0]
        report("server", "other gone", f"{rate:.2f} MiB/s a second later", near(rate, 20))
        config = f"{node.path}/config.yml"
        with open(config) as file:
            text = file.read()
        with open(config, "w") as file:
            file.write(text.replace("bandwidth: 20", "bandwidth: 40"))
        node.process.send_signal(signal.SIGHUP)
        time.sleep(1)
        rate = rates([one], 3)[0]
        report("server", "reload", f"{rate:.2f} MiB/s a second after it", near(rate, 40))
        end(one)
    finally:
        node.close()


def read_from_disk(node):
    with open(f"/proc/{node.process.pid}/io") as file:
        return int(re.search(r"read_bytes: (\d+)", file.read())[1])


def chill(path):
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def disk(options):
    with tempfile.NamedTemporaryFile(dir=options.directory) as probe:
        kind = subprocess.run(["stat", "-f", "-c", "%T", probe.name], capture_output=True, text=True).stdout.strip()
    if kind == "tmpfs":
        return report("disk", "skipped", "the directory is a tmpfs")
    for cache in ("spare", "keep"):
        options.set = [f"page_cache: {cache}", "max_connections_per_address: 200"]
        node = Node(options)
        try:
            volume = f"{node.path}/volumes/{SERVER}"
            for name, size in (("fast", 1024 * MIB), ("shared", 200 * MIB)):
                with open(f"{volume}/{name}", "wb") as file:
                    for _ in range(size // len(node.content)):
                        file.write(node.content)
            measure(node, cache, volume, options)
        finally:
            node.close()


def measure(node, cache, volume, options):
    def one(what, name, streams, seconds, pace=None, apart=0):
        chill(f"{volume}/{name}")
        before = read_from_disk(node)
        link = node.link(name, "--no-unique-id")
        clients = [Paced(node, f"127.4.{n // 250}.{n % 250 + 1}", link, pace, seconds, n * apart, apart)
                   for n in range(streams)]
        for client in clients:
            client.join()
        came = sum(client.count for client in clients)
        ratio = (read_from_disk(node) - before) / came
        good = ratio <= 1.1 if cache == "spare" else None
        report("disk", what, f"page_cache: {cache}: {came / MIB:.0f} MiB sent, {ratio:.3f} read for each byte", good)

    one("one fast", "fast", 1, 60)
    one("100 slow", "fast", 100, options.seconds, 64 * 1024)
    # To the end of their parts: before it, the kernel's read-ahead (8 MiB on some machines) counts.
    one("100 apart", "fast", 100, 150, 256 * 1024, 10 * MIB)
    one("40 at once", "shared", 40, 60)


class Paced(threading.Thread):
    """Reads a target, or `length` bytes from `start`, for `seconds` at most, `pace` bytes a second if that is given."""

    def __init__(self, node, source, target, pace, seconds, start, length):
        super().__init__(daemon=True)
        self.args, self.pace, self.seconds, self.count = (source, node.plain), pace, seconds, 0
        part = f"{start + length - 1}" if length else ""
        self.request = head(target)[:-2] + f"Range: bytes={start}-{part}\r\n\r\n".encode()
        self.start()

    def run(self):
        buffer = bytearray(1 << 16 if self.pace is None else self.pace // 4)
        with connect(*self.args, None if self.pace is None else 16 * 1024) as client:
            client.sendall(self.request)
            _, length, body = read_head(client)
            self.count, until = len(body), time.monotonic() + self.seconds
            while self.count < length and time.monotonic() < until:
                self.count += client.recv_into(buffer)
                if self.pace is not None:
                    time.sleep(0.25)


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1], add_help=True)
    parser.add_argument("binary")
    parser.add_argument("what", nargs="*", choices=[[], "link", "server", "disk"])
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--directory", default=None)
    options = parser.parse_args()
    options.bytes = 4096
    raise_limit()
    for what in options.what or ["link", "server", "disk"]:
        {"link": link, "server": server, "disk": disk}[what](options)
    sys.exit(1 if attacked.failures else 0)


if __name__ == "__main__":
    main()
