"""The node that attack.py attacks, and who uses it meanwhile: strangers who come and go, and a bystander
who downloads the whole time. Everything is on addresses of the loopback interface."""

import contextlib
import ctypes
import functools
import multiprocessing
import os
import random
import re
import resource
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

SERVER = "8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d40"
KIB, MIB = 1024, 1 << 20
SMALL, MEDIUM, LARGE = 4 * KIB, 64 * KIB, 1 << 40
PATIENCE = 10
IP_BIND_ADDRESS_NO_PORT = 24
IPV6_FREEBIND = 78
# Closing sends a reset: nothing stays behind in TIME_WAIT.
RESET = struct.pack("ii", 1, 0)
LIMITS = resource.getrlimit(resource.RLIMIT_NOFILE)
failures = 0


def report(attack, what, text, good=None):
    """One line: a measurement, and whether it is within its bound if it has one."""
    global failures
    failures += good is False
    verdict = {None: "  ", True: "ok", False: "NO"}[good]
    print(f"{attack:16} {verdict} {what:10} {text}", flush=True)


def raise_limit():
    """As many descriptors as this process may have: more than its limit, if it is root."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 17, 1 << 17))
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMITS[1], LIMITS[1]))


def step_aside():
    """Called by a process that attacks: a real attacker has processors of his own, and this one is not to take
    those of the server, which runs with a low priority."""
    os.nice(19)


def address(net, number):
    """The address of a client: 127.NET.x.y, with 250 to an x."""
    return f"127.{net}.{number // 250}.{number % 250 + 1}"


def connect(source, to, receive_buffer=None, blocking=True):
    """A connection, or one that is being made, from `source` to `to`."""
    client = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET)
    try:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        if ":" in source:
            client.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.bind((source, 0))
        if blocking:
            client.settimeout(PATIENCE)
            client.connect(to)
        else:
            client.setblocking(False)
            client.connect_ex(to)
        return client
    except BaseException:
        client.close()
        raise


def head(target):
    return f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def read_head(client):
    """The status, the length, and what came of the body."""
    came = b""
    while b"\r\n\r\n" not in came:
        more = client.recv(4096)
        if not more:
            raise ConnectionError("closed before an answer")
        came += more
    lines, body = came.split(b"\r\n\r\n", 1)
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", lines)
    return int(lines.split(b" ", 2)[1]), int(length[1]) if length else 0, body


def read_whole(client, target):
    """Asks for `target`, and reads all of the body."""
    client.sendall(head(target))
    status, length, body = read_head(client)
    body = bytearray(body)
    while len(body) < length:
        more = client.recv(65536)
        if not more:
            raise ConnectionError("cut in the body")
        body += more
    if status != 200:
        raise ConnectionError(f"status {status}")
    return body


def fetch(source, to, target, pause=0.0, tls=None):
    """One request on a connection of its own: seconds from connecting to the last byte, and the body. `tls`: the
    context of a client that speaks TLS."""
    began = time.perf_counter()
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(connect(source, to))
        if tls:
            client = stack.enter_context(tls.wrap_socket(client))
        time.sleep(pause)
        body = read_whole(client, target)
    return time.perf_counter() - began - pause, body


class Node:
    """A node with four files, and the server on it."""

    def __init__(self, options, tls_key=None, host="127.0.0.1", lines=()):
        self.binary = os.path.realpath(options.binary)
        # A hole in a tmpfs is read without filling the page cache.
        self.scratch = tempfile.TemporaryDirectory(prefix="winglet-attack-", dir=options.directory)
        path = self.path = self.scratch.name
        volume = f"{path}/volumes/{SERVER}"
        os.makedirs(volume)
        os.mkdir(f"{path}/backups")
        self.content = random.Random(1).randbytes(4 * MIB)
        for name, length in (("small", SMALL), ("medium", MEDIUM), ("readers", options.bytes)):
            with open(f"{volume}/{name}", "wb") as file:
                file.write(self.content[:length])
        with open(f"{volume}/large", "wb") as file:
            file.truncate(LARGE)
        listen = f'["{host}:0", "tls:{host}:0"]' if tls_key else f'["{host}:0"]'
        self.listens = 2 if tls_key else 1
        with open(f"{path}/config.yml", "w") as file:
            file.write("token: attack-key-0123456789abcdef\n")
            if tls_key:
                self.certificate(tls_key)
                file.write("api: {ssl: {enabled: true, cert: cert.pem, key: key.pem}}\n")
            file.write("system: {data: volumes, backup_directory: backups}\n")
            file.write(f"winglet:\n  listen: {listen}\n")
            file.writelines(f"  {line}\n" for line in [*lines, *options.set])
        self.start()

    def start(self):
        """Starts the server, for the first time or again."""
        self.log = open(f"{self.path}/log", "w+b")
        # With the limits that this script was started with, whatever it has raised for itself.
        limit = functools.partial(resource.setrlimit, resource.RLIMIT_NOFILE, LIMITS)
        self.process = subprocess.Popen([self.binary, "serve", "--config", "config.yml"], cwd=self.path,
                                        stdin=subprocess.DEVNULL, stderr=self.log, preexec_fn=limit)
        try:
            self.plain, *rest = self.listeners(self.listens)
            self.tls = rest[0] if rest else None
            self.before = self.memory()
        except BaseException:
            self.close()
            raise

    def certificate(self, key):
        subprocess.run(["openssl", "req", "-x509", "-newkey", *key, "-nodes", "-days", "2", "-subj", "/CN=node",
                        "-keyout", f"{self.path}/key.pem", "-out", f"{self.path}/cert.pem"],
                       check=True, capture_output=True)

    def listeners(self, count):
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and self.process.poll() is None:
            with open(f"{self.path}/log") as log:
                found = re.findall(r"listening on https?://(\[[0-9a-f:]+\]|[0-9.]+):(\d+)", log.read())
            if len(found) == count:
                return [(host.strip("[]"), int(port)) for host, port in found]
            time.sleep(0.02)
        with open(f"{self.path}/log") as log:
            sys.exit("the server does not start:\n" + log.read())

    def link(self, name, *options, kind="file", server=SERVER):
        done = subprocess.run([self.binary, "sign", kind, "--server", server, "--path", name, "--expires", "1h",
                               "--base-url", "http://n", *options, "--config", "config.yml"],
                              cwd=self.path, check=True, capture_output=True, text=True)
        return done.stdout.strip().removeprefix("http://n")

    def links(self, name, count, kind="file", servers=(SERVER,)):
        def one(number):
            return self.link(name, kind=kind, server=servers[number % len(servers)])
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(one, range(count)))

    def memory(self):
        """Resident memory in MiB, and the server's threads and descriptors."""
        with open(f"/proc/{self.process.pid}/smaps_rollup") as file:
            resident = int(re.search(r"Rss: *(\d+) kB", file.read())[1]) / 1024
        return resident, len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def lines(self):
        with open(f"{self.path}/log", "rb") as log:
            return log.read().count(b"\n")

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.log.close()

    def close(self):
        self.kill()
        self.scratch.cleanup()


class Bystander:
    """One client that downloads at full speed the whole time, in a process of its own."""

    def __init__(self, node):
        self.count = multiprocessing.Value(ctypes.c_uint64, 0, lock=False)
        self.failures = multiprocessing.Value(ctypes.c_uint64, 0, lock=False)
        target = node.link("large", "--no-unique-id")
        self.process = multiprocessing.Process(target=self.run, args=(node.plain, target), daemon=True)
        self.process.start()
        time.sleep(0.5)
        self.alone = self.speed(3)

    def run(self, to, target):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        buffer = bytearray(MIB)
        while True:
            try:
                with connect("127.8.0.1", to) as client:
                    while True:
                        client.sendall(head(target))
                        status, length, body = read_head(client)
                        if status != 200:
                            raise ConnectionError
                        left = length - len(body)
                        while left > 0:
                            count = client.recv_into(buffer, min(left, MIB))
                            if count == 0:
                                raise ConnectionError
                            left -= count
                            self.count.value += count
            except OSError:
                self.failures.value += 1
                time.sleep(0.1)

    def begin(self):
        """Begins to measure; what it returns says the speed since then, in MB/s."""
        before, began = self.count.value, time.perf_counter()
        return lambda: (self.count.value - before) / (time.perf_counter() - began) / 1e6

    def speed(self, seconds):
        speed = self.begin()
        time.sleep(seconds)
        return speed()

    def report(self, attack, during):
        """After the attack: other programs share the machine, so alone is before and after."""
        time.sleep(1)
        self.alone = (self.alone + self.speed(3)) / 2
        self.process.kill()
        self.process.join()
        kept = during / self.alone
        report(attack, "bystander", f"{self.alone:.0f} MB/s alone, {during:.0f} during ({100 * kept:.0f} %), "
               f"interrupted {self.failures.value} times", kept > 0.8)


class Strangers:
    """Clients that come one after another for as long as the attack lasts."""

    def __init__(self, node, count, seconds, pause=0.0, health=True):
        self.node, self.pause = node, pause
        self.targets = {"download": node.links("small", count)}
        if health:
            self.targets["health"] = ["/health"] * count
        self.times = {what: [] for what in self.targets}
        self.errors = {what: [] for what in self.targets}
        self.threads = [threading.Thread(target=self.come, args=(what, net, seconds))
                        for net, what in enumerate(self.targets, 9)]
        for thread in self.threads:
            thread.start()

    def come(self, what, net, seconds):
        began, targets = time.monotonic(), self.targets[what]
        with ThreadPoolExecutor(len(targets)) as pool:
            for number, target in enumerate(targets):
                time.sleep(max(0, began + seconds * number / len(targets) - time.monotonic()))
                pool.submit(self.one, what, address(net, number), target)

    def one(self, what, source, target):
        try:
            seconds, body = fetch(source, self.node.plain, target, self.pause)
            if what == "download" and body != self.node.content[:SMALL]:
                raise ConnectionError("other bytes")
            self.times[what].append(seconds * 1000)
        except OSError as error:
            self.errors[what].append(str(error) or type(error).__name__)

    def report(self, attack, least, slowest=None, median=None):
        """`least` of each kind must be served, within so many milliseconds."""
        for thread in self.threads:
            thread.join()
        for what, times in self.times.items():
            count = len(self.targets[what])
            middle, most = (statistics.median(times), max(times)) if times else (0, 0)
            good = len(times) >= least and most < (slowest or 1e9) and middle < (median or 1e9)
            text = f"{len(times)} of {count} served, p50 {middle:.1f} ms, slowest {most:.1f} ms"
            reasons = ", ".join(sorted(set(self.errors[what])))
            report(attack, what, text + (f"; else: {reasons}" if reasons else ""), good)


def watch(node, attack, bound=None):
    """Ends with what the attack cost the server."""
    if node.process.poll() is not None:
        return report(attack, "server", f"it ended with status {node.process.returncode}", False)
    resident, descriptors = node.memory()
    report(attack, "server", f"{node.before[0]:.1f} MiB before, {resident:.1f} during; {descriptors} descriptors; "
           f"{node.lines()} lines of log", resident < bound if bound else None)
