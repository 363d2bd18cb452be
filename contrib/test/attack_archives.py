"""Attacks by those who own a volume, for attack.py: trees that are made to be walked, zips whose end wants
everything read, and listings that fill the memory. The server of the strangers is another one."""

import contextlib
import ctypes
import multiprocessing
import os
import re
import signal
import socket
import threading
import time

from attacked import MIB, PATIENCE, SERVER, Node, address, connect, fetch, read_head, report, step_aside, watch

# Of the attackers; a walk at a time is for each.
SERVERS = [f"00000000-0000-4000-8000-{number:012x}" for number in range(8)]
# What strangers fetch, and the pause between two of a kind.
KINDS = {"small": 0.02, "16 MiB": 0.25, "archive": 0.02}


class Archives(Node):
    """A node where strangers have files and a folder of ten, and attackers volumes of their own."""

    def __init__(self, options, **more):
        super().__init__(options, **more)
        volume = f"{self.path}/volumes/{SERVER}"
        with open(f"{volume}/16 MiB", "wb") as file:
            file.truncate(16 * MIB)
        os.mkdir(f"{volume}/ten")
        for number in range(10):
            with open(f"{volume}/ten/{number}", "wb") as file:
                file.write(self.content[:1000])
        # Links that are not one-time: a walk of theirs is never used again.
        self.targets = {"small": self.link("small", "--no-unique-id"), "16 MiB": self.link("16 MiB", "--no-unique-id"),
                        "archive": self.link("ten", "--no-unique-id", kind="directory")}

    def volume(self, number):
        path = f"{self.path}/volumes/{SERVERS[number]}"
        os.makedirs(path, exist_ok=True)
        return path

    def processor(self):
        """Seconds of processor time that the server has used."""
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def read(self):
        """Bytes that the server has read, of files and sockets."""
        with open(f"/proc/{self.process.pid}/io") as file:
            return int(re.search(r"rchar: (\d+)", file.read())[1])

    def peak(self):
        """The most memory that it had, in MiB."""
        with open(f"/proc/{self.process.pid}/status") as file:
            return int(re.search(r"VmHWM:\s*(\d+) kB", file.read())[1]) / 1024


class Visits:
    """Strangers who fetch one thing after the other, before, during and after an attack. `kinds`: what they do,
    each a function of their address that says how long it took. `address` makes these of two numbers."""

    def __init__(self, node, kinds=None, address=address):
        def fetches(kind):
            return lambda source: fetch(source, node.plain, node.targets[kind])[0]
        self.kinds = kinds or {kind: fetches(kind) for kind in KINDS}
        self.address, self.times, self.errors = address, {}, {}

    def phase(self, name, seconds):
        self.times[name] = {kind: [] for kind in self.kinds}
        self.errors[name] = {kind: 0 for kind in self.kinds}
        threads = [threading.Thread(target=self.come, args=(name, kind, net, seconds))
                   for net, kind in enumerate(self.kinds, 12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def come(self, name, kind, net, seconds):
        until, number = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            number += 1
            try:
                self.times[name][kind].append(self.kinds[kind](self.address(net, number % 200)) * 1000)
            except OSError:
                self.errors[name][kind] += 1
            time.sleep(KINDS.get(kind, 0.02))

    def report(self, attack, most=0, factor=3):
        """During the attack a p99 may be so many times that before it, or `most` milliseconds."""
        for kind in self.kinds:
            p99, text = {}, []
            for name, times in self.times.items():
                ordered = sorted(times[kind]) or [0]
                p50, p99[name] = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
                refused = self.errors[name][kind]
                text.append(f"{name} {p50:.1f} and {p99[name]:.1f}" + (f" ({refused} refused)" if refused else ""))
            good = p99["during"] <= max(factor * max(p99["before"], 1), most) and not self.errors["during"][kind]
            report(attack, kind, f"p50 and p99 in ms: {', '.join(text)}", good)


def ask(to, source, method, targets, fields, hold, seconds, counts):
    """One attacker: asks for its targets in turn, reads heads only, and keeps the last `hold` connections."""
    step_aside()
    until, held, number = time.monotonic() + seconds, [], 0
    while time.monotonic() < until:
        request = f"{method} {targets[number % len(targets)]} HTTP/1.1\r\nHost: node\r\n{fields}\r\n"
        number += 1
        try:
            client = connect(source, to, 4096)
            client.settimeout(max(1, until - time.monotonic()))
            counts[0] += len(request)
            client.sendall(request.encode())
            status, _, _ = read_head(client)
            counts[1 if status < 300 else 2] += 1
            held.append(client)
            if status >= 500:
                time.sleep(0.05)
        except OSError:
            counts[3] += 1
        while len(held) > hold:
            held.pop(0).close()


def attack_with(options, attack, node, attackers, factor=3):
    """Runs `attackers`, each the arguments of `ask` from the source to the connections held; strangers come
    before, meanwhile and afterwards."""
    visits, seconds = Visits(node), options.seconds
    visits.phase("before", seconds / 2)
    counts = multiprocessing.Array(ctypes.c_uint64, 4, lock=False)
    used, read, began = node.processor(), node.read(), time.monotonic()
    processes = [multiprocessing.Process(target=ask, daemon=True, args=(node.plain, *attacker, seconds, counts))
                 for attacker in attackers]
    for process in processes:
        process.start()
    visits.phase("during", seconds - 1)
    took = time.monotonic() - began
    used, read = node.processor() - used, (node.read() - read) / took / MIB
    for process in processes:
        process.join(PATIENCE)
        process.kill()
    visits.phase("after", seconds / 2)
    sent, good, refused, broken = counts
    report(attack, "attack", f"{len(processes)} attackers sent {sent / took:.0f} bytes a second: {good} answered, {refused} "
           f"refused, {broken} broken off; the server used {100 * used / took:.0f} % of a processor and read {read:.0f} MiB/s")
    visits.report(attack, factor=factor)
    return read


def chains(path, count, levels):
    """`count` chains of `levels` directories, and beside each of these another one."""
    home = os.getcwd()
    for number in range(count):
        os.mkdir(f"{path}/{number}")
        os.chdir(f"{path}/{number}")
        for _ in range(levels):
            os.mkdir("b")
            os.mkdir("a")
            os.chdir("a")
        os.chdir(home)


def names(path, count, length):
    """`count` names of one empty file."""
    os.makedirs(path)
    with open(f"{path}/{0:0{length}}", "w"):
        pass
    for number in range(1, count):
        os.link(f"{path}/{0:0{length}}", f"{path}/{number:0{length}}")


def remove(node):
    # rm: the trees are deeper than what Python goes.
    os.system(f"rm -rf '{node.path}/volumes'")


def walks(options):
    """Two HEADs of one link kept archives from everybody for 44 s; HEADs of fresh links to a flat tree made a
    stranger's archive take 9 s."""
    for tree in ("deep", "flat"):
        attack = f"walks-{tree}"
        with contextlib.closing(Archives(options)) as node, contextlib.ExitStack() as stack:
            stack.callback(remove, node)
            for number in range(2):
                if tree == "deep":
                    chains(node.volume(number), 48, 2000)
                else:
                    names(f"{node.volume(number)}/flat", 150_000, 12)
            links = node.links("/", 16 * 4, kind="directory", servers=SERVERS[:2])
            fresh = node.links("/", 16, kind="directory", servers=SERVERS[:2])
            attackers = [(address(70, number), "HEAD", links[number::16], "", 0) for number in range(16)]
            attack_with(options, attack, node, attackers)
            watch(node, attack)
            stop(attack, node, fresh)


def stop(attack, node, links):
    """Ends the server while trees are walked, and others wait for that."""
    clients = []
    for number, link in enumerate(links):
        clients.append(connect(address(73, number), node.plain))
        clients[-1].sendall(f"HEAD {link} HTTP/1.1\r\nHost: node\r\n\r\n".encode())
    time.sleep(0.3)
    began = time.monotonic()
    node.process.send_signal(signal.SIGTERM)
    node.process.wait()
    took = time.monotonic() - began
    report(attack, "SIGTERM", f"ended {took:.2f} s after it, while {len(links)} asked for trees", took < 1)
    for client in clients:
        client.close()


def crcs(options):
    """150 bytes at the end of a zip had a core read for 13 hours, and no limit of a rate held it."""
    for what in ("holes", "data"):
        attack = f"crcs-{what}"
        with contextlib.closing(Archives(options)) as node:
            path = f"{node.volume(0)}/{what}"
            os.mkdir(path)
            with open(f"{path}/file", "wb") as file:
                file.truncate(1 << 43 if what == "holes" else options.gigabytes << 30)
                # Data that takes a sixty-fourth of its length, without a hole that is worth passing over.
                for position in range(0, options.gigabytes << 30 if what == "data" else 0, 250 * 1024):
                    os.pwrite(file.fileno(), b"x", position)
            links = node.links(what, 16, kind="directory", servers=SERVERS[:1])
            fields = "Range: bytes=-150\r\n"
            began = time.monotonic()
            with connect(address(71, 99), node.plain) as client:
                client.settimeout(options.seconds)
                client.sendall(f"GET {links[0]} HTTP/1.1\r\nHost: node\r\nRange: bytes=-150\r\n\r\n".encode())
                with contextlib.suppress(socket.timeout):
                    read_head(client)
            if what == "holes":
                took = time.monotonic() - began
                report(attack, "one range", f"{took * 1000:.1f} ms for 150 bytes after 8 TiB", took < 1)
            attackers = [(address(71, number), "GET", [links[number]], fields, 1) for number in range(16)]
            limit = re.search(r"bandwidth: *(\d+)", " ".join(options.set))
            # A stranger has a seventeenth of it, more or less.
            read = attack_with(options, attack, node, attackers, 20 if limit else 3)
            if limit:
                most = int(limit[1])
                report(attack, "reading", f"{read:.0f} MiB/s, content included, with bandwidth: {most}", read < 1.3 * most + 1)
            watch(node, attack)


def listings(options):
    """Four links to trees of long names took 94 MiB, links from eight addresses 123."""
    for addresses in (1, 8):
        attack = f"listings-{addresses}"
        with contextlib.closing(Archives(options)) as node, contextlib.ExitStack() as stack:
            stack.callback(remove, node)
            servers = SERVERS[:1] if addresses == 1 else SERVERS
            links = []
            for number in range(len(servers)):
                for tree in range(4 if addresses == 1 else 1):
                    names(f"{node.volume(number)}/{tree}", 190_000, 150)
                    links.append(node.links(str(tree), 1, kind="directory", servers=[servers[number]])[0])
            tar = [f"{link}&archive_format=tar" for link in links]
            attackers = [(address(72, number), "GET", links if addresses == 1 else [links[number], tar[number]], "", 8)
                         for number in range(addresses)]
            attack_with(options, attack, node, attackers)
            peak = node.peak()
            report(attack, "memory", f"{node.before[0]:.1f} MiB before, {peak:.1f} at most", peak < node.before[0] + 80)
            watch(node, attack)
