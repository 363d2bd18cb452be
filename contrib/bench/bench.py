"""Runs the comparison: see README.md. Usage: bench.py WINGLET [--quick] [--rounds N] [--only NAME]..."""

import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

import archive
import neighbour
import report
import shared
from servers import CORES, SERVER, Caddy, Lighttpd, Nginx, Tokens, Wings, Winglet

LIMIT = 1500
GIB = 2**30
TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
TLS.check_hostname, TLS.verify_mode = False, ssl.CERT_NONE


class Sampler(threading.Thread):
    """Looks at memory while something else runs: the server's, and the kernel's for sockets."""

    def __init__(self, running):
        super().__init__(daemon=True)
        self.running, self.peak, self.sockets, self.over = running, 0.0, 0.0, threading.Event()

    def run(self):
        while not self.over.wait(0.02):
            try:
                self.peak = max(self.peak, self.running.resident())
            except (FileNotFoundError, ProcessLookupError):
                return
            self.sockets = max(self.sockets, socket_memory())

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()


def socket_memory():
    """The kernel's memory for TCP buffers, client's side included, in MiB."""
    with open("/proc/net/sockstat") as stat:
        pages = int(re.search(r"TCP:.* mem (\d+)", stat.read()).group(1))
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Bench:
    def __init__(self, program, directory, quick, only, count):
        self.directory, self.quick, self.only, self.count = directory, quick, only, count
        self.tokens, self.results, self.skipped = Tokens(), {}, []
        self.end = time.monotonic() + LIMIT
        self.rates = {}
        self.winglet = Winglet(directory, program)
        self.kinds = [self.winglet]
        for kind in (Nginx, Lighttpd, Caddy):
            if shutil.which(kind.program):
                self.kinds.append(kind(directory))
            else:
                self.skipped.append(f"{kind.name} (not installed)")
        without = [kind.name for kind in self.kinds if not kind.has_tls()]
        self.skipped += [f"{name} with TLS (its module is not installed)" for name in without]
        # Downloads only: Wings does more for a request than this.
        self.copies = [Wings(directory)] if shutil.which(Wings.program) else []
        if not self.copies:
            self.skipped.append(f"{Wings.name} (Go is not installed)")

    def path(self, *names):
        return os.path.join(self.directory, *names)

    def prepare(self):
        """The same files for everybody: a volume for Winglet, links to it for the others."""
        os.umask(0o022)
        volume = self.path("volumes", SERVER)
        os.makedirs(volume)
        os.makedirs(self.path("backups"))
        os.makedirs(self.path("www"))
        large, part = (256 * 2**20, 8 * 2**20) if self.quick else (2 * GIB, 64 * 2**20)
        self.parts = [f"part-{number:02}" for number in range(32)]
        files = [("large", large), ("middle", 64 * 2**20), ("small", 4096)]
        for name, size in files + [(name, part) for name in self.parts]:
            block = os.urandom(min(size, 16 * 2**20))
            with open(os.path.join(volume, name), "wb") as file:
                for _ in range(size // len(block)):
                    file.write(block)
            os.link(os.path.join(volume, name), self.path("www", name))
        self.large = large
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=bench",
             "-addext", "subjectAltName=IP:127.0.0.1"],
            cwd=self.directory, check=True, capture_output=True,
        )

    def left(self):
        return self.end - time.monotonic()

    def note(self, measure, name, **values):
        for key, value in values.items():
            self.results.setdefault(measure, {}).setdefault(name, {}).setdefault(key, []).append(value)

    def rounds(self, count, tls=False, more=()):
        """Rounds over all servers, each beginning with another one, so that none is always first."""
        kinds = [kind for kind in [*self.kinds, *more] if kind.has_tls() or not tls]
        for number in range(self.count or (1 if self.quick else count)):
            shift = number % len(kinds)
            yield kinds[shift:] + kinds[:shift]

    def size(self, name):
        return os.path.getsize(self.path("www", name))

    def download(self, kind, running, names, tls):
        """Downloads at once by curl, which reads everything. Seconds each took."""
        scheme, count = "https" if tls else "http", len(names)
        urls = [f"{scheme}://127.0.0.1:{running.port}{kind.target(name, self.tokens)}" for name in names]
        lines = "".join(f'url = "{url}"\noutput = "/dev/null"\n' for url in urls)
        command = ["curl", "--noproxy", "*", "--silent", "--show-error", "--insecure", "--fail-early",
                   "--fail", "--http1.1", "--no-progress-meter", "--max-time", "120",
                   "--write-out", "%{http_code} %{time_total} %{size_download}\\n", "--config", "-"]
        if count > 1:
            command += ["--parallel", "--parallel-immediate", "--parallel-max", str(count)]
        output = subprocess.run(command, input=lines, capture_output=True, text=True)
        times = []
        for line in output.stdout.splitlines():
            status, seconds, size = line.split()
            if status == "200" and int(size) == self.size(names[0]):
                times.append(float(seconds))
        if len(times) != count:
            raise RuntimeError(f"{kind.name}: {len(times)} of {count} downloads whole\n{output.stderr}")
        return times

    def large_files(self, measure, names, tls, rounds, cold=False):
        """Downloads at once of files of one size, out of the page cache or, `cold`, from the disk."""
        size = self.size(names[0]) * len(names)
        for order in self.rounds(rounds, tls, self.copies):
            for kind in order:
                for name in set(names):
                    (neighbour.chill if cold else neighbour.warm)(self.path("www", name))
                with kind.start(tls) as running, Sampler(running) as sampler:
                    self.download(kind, running, ["small"], tls)
                    cpu, began = running.cpu(), time.perf_counter()
                    times = self.download(kind, running, names, tls)
                    wall = time.perf_counter() - began
                    cpu = running.cpu() - cpu
                if len(names) == 1:
                    wall = times[0]
                self.note(
                    measure, kind.name, wall=wall, rate=size / wall / 2**20, cpu=cpu * GIB / size,
                    fairness=min(times) / max(times), peak=sampler.peak, sockets=sampler.sockets,
                )

    def small_files(self, measure, close, tls, rounds, seconds=2, **options):
        for order in self.rounds(rounds, tls):
            for kind in order:
                if options and kind is not self.winglet:
                    continue
                name = kind.name + (" with state_directory" if options.get("state") else "")
                with kind.start(tls, **options) as running, Sampler(running) as sampler:
                    values = self.requests(kind, running, close, tls, seconds)
                self.note(measure, name, **values, peak=sampler.peak)

    def requests(self, kind, running, close, tls, seconds, connections=32):
        key = (kind.name, close, tls)
        wanted = int(self.rates.get(key, 30_000 if kind.tokens else 1000) * seconds * 1.6) + 4000
        if not kind.tokens:
            wanted = 1000
        list_file = self.path("targets")
        with open(list_file, "w") as file:
            for _ in range(wanted):
                file.write(kind.target("small", self.tokens) + "\n")
        threads = min(2, CORES)
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "paths.lua")
        url = f"{'https' if tls else 'http'}://127.0.0.1:{running.port}/"
        command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", script,
                   url, "--", list_file, str(threads), "close" if close else "keep"]
        cpu = running.cpu()
        output = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
        cpu = running.cpu() - cpu
        if "Non-2xx" in output:
            raise RuntimeError(f"{kind.name}: refusals\n{output}")
        count = int(re.search(r"(\d+) requests in", output).group(1))
        rate = float(re.search(r"Requests/sec:\s+([\d.]+)", output).group(1))
        self.rates[key] = max(rate, self.rates.get(key, 0))
        return {
            "rate": rate, "cpu": cpu / count * 1e6,
            "p50": latency(output, "50%"), "p99": latency(output, "99%"),
        }

    def idle_and_start(self):
        for tls in (False, True):
            for order in self.rounds(7, tls):
                for kind in order:
                    with kind.start(tls) as running:
                        first = first_byte(kind, running, self.tokens, tls)
                        time.sleep(0.1)
                        rss, pss, own = running.memory()
                    self.note(
                        f"start{' TLS' if tls else ''}", kind.name, first=first * 1000, rss=rss, pss=pss, own=own
                    )
        for kind in self.kinds:
            self.note("start", kind.name, binary=os.path.getsize(kind.binary()) / 2**20)

    def growth_by_connections(self):
        connections = [0, 1000] if self.quick else [0, 1000, 10_000]
        for _ in range(1 if self.quick else 2):
            for idle in connections:
                for count in (1, 8, 64):
                    with self.winglet.start(connections=11_000) as running:
                        held = hold(running.port, idle)
                        with Sampler(running) as sampler:
                            began = time.perf_counter()
                            self.download(self.winglet, running, ["middle"] * count, False)
                            wall = time.perf_counter() - began
                        values = self.requests(self.winglet, running, True, False, 1) if count == 1 else {}
                        # All are still there: none was closed for a newcomer.
                        gone = sum(is_closed(one) for one in held)
                        for one in held:
                            one.close()
                    if gone:
                        raise RuntimeError(f"{gone} of {idle} idle connections were closed")
                    more = {f"small_{key}": value for key, value in values.items()}
                    self.note("growth", f"{idle}/{count}", rate=count * 64 / wall, peak=sampler.peak, **more)

    def growth_by_tokens(self):
        for _ in range(1 if self.quick else 3):
            for tracked in (0, 10_000, 65_000):
                with self.winglet.start() as running:
                    self.track(running, tracked)
                    values = self.requests(self.winglet, running, False, False, 1)
                    memory = running.resident()
                self.note("claims", f"{tracked}", **values, rss=memory)

    def track(self, running, count):
        """Uses `count` links, over a few kept connections."""
        share, left = 500, count
        while left > 0:
            batch = min(share, left)
            left -= batch
            with socket.create_connection(("127.0.0.1", running.port), timeout=15) as client:
                reader = client.makefile("rb", buffering=1 << 16)
                for _ in range(batch):
                    target = self.tokens.target("small")
                    client.sendall(f"GET {target} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
                    head = b""
                    while not head.endswith(b"\r\n\r\n"):
                        head += reader.readline()
                    if not head.startswith(b"HTTP/1.1 200"):
                        raise RuntimeError(head.decode())
                    reader.read(4096)

    def run(self):
        steps = [
            ("neighbour", lambda: neighbour.measure(self)),
            ("start", self.idle_and_start),
            ("one", lambda: self.large_files("one", ["large"], False, 5)),
            ("one cold", lambda: self.large_files("one cold", ["large"], False, 3, cold=True)),
            ("many32", lambda: self.large_files("many32", self.parts, False, 3)),
            ("many32 cold", lambda: self.large_files("many32 cold", self.parts, False, 3, cold=True)),
            ("many64", lambda: self.large_files("many64", ["middle"] * 64, False, 3)),
            ("new", lambda: self.small_files("new", True, False, 5)),
            ("kept", lambda: self.small_files("kept", False, False, 5)),
            ("state", lambda: self.small_files("new", True, False, 3, state=True)),
            ("state kept", lambda: self.small_files("kept", False, False, 3, state=True)),
            ("one TLS", lambda: self.large_files("one TLS", ["large"], True, 3)),
            ("one TLS cold", lambda: self.large_files("one TLS cold", ["large"], True, 2, cold=True)),
            ("many32 TLS", lambda: self.large_files("many32 TLS", self.parts, True, 2)),
            ("many32 TLS cold", lambda: self.large_files("many32 TLS cold", self.parts, True, 2, cold=True)),
            ("kept TLS", lambda: self.small_files("kept TLS", False, True, 3)),
            ("claims", self.growth_by_tokens),
            ("growth", self.growth_by_connections),
            # Last: it takes as long as there is time.
            ("archive", lambda: archive.measure(self)),
            ("shared", lambda: shared.measure(self)),
        ]
        for name, step in steps:
            if self.only and name not in self.only:
                continue
            began = time.monotonic()
            # Leaves what is needed to write the report.
            if self.left() < 15:
                self.skipped.append(f"{name} (time was up)")
                continue
            step()
            print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)


def latency(output, part):
    value, unit = re.search(rf"{part}\s+([\d.]+)(us|ms|s)\b", output).groups()
    return float(value) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def first_byte(kind, running, tokens, tls):
    """Seconds from before the process exists to the first byte of an answer."""
    client = socket.create_connection(("127.0.0.1", running.port), timeout=15)
    if tls:
        client = TLS.wrap_socket(client)
    client.sendall(f"GET {kind.target('small', tokens)} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
    begin = client.recv(16)
    taken = time.perf_counter() - running.began
    client.close()
    if not begin.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"{kind.name}: {begin}")
    return taken


def hold(port, count):
    """Idle connections, from several addresses so that ports suffice."""
    held = []
    for number in range(count):
        client = socket.socket()
        client.bind((f"127.0.2.{1 + number // 2000}", 0))
        client.connect(("127.0.0.1", port))
        held.append(client)
    return held


def is_closed(client):
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def main():
    arguments = sys.argv[1:]
    program = os.path.abspath(arguments.pop(0))
    quick = "--quick" in arguments
    after = lambda option: [arguments[n + 1] for n, word in enumerate(arguments) if word == option]
    only, count = set(after("--only")), int((after("--rounds") or [0])[0])
    # An interrupted run cleans up as one that ends.
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(name, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="winglet-bench-") as directory:
        bench = Bench(program, directory, quick, only, count)
        bench.prepare()
        load = os.getloadavg()[0]
        bench.run()
        files = report.write(bench, load)
        for kind in bench.kinds + bench.copies:
            kind.log.close()
    if quick or only:
        # A look, not a result: the files stay as they are.
        print(files["RESULTS.md"])
        return
    here = os.path.dirname(os.path.abspath(__file__))
    for name, content in files.items():
        with open(os.path.join(here, name), "w") as file:
            file.write(content)
    print(f"written to {here}: {', '.join(files)}")


if __name__ == "__main__":
    main()
