"""Folders as archives: Winglet's zip and tar beside `tar` into the socket, plain and compressed."""

import os
import socket
import subprocess
import sys
import time

from servers import SERVER, TICK, Kind

FILES, WORLD = 100_000, 64
GIB = 2**30


class Piped(Kind):
    """What others do: tar's output as it comes, without a length. This file, run as a server."""

    def __init__(self, directory, name, command):
        self.name, self.words = name, command
        super().__init__(directory)

    def command(self, port, tls):
        return [sys.executable, "-B", os.path.abspath(__file__), str(port), self.words]

    def request(self, bench, folder):
        return f"/{bench.path('volumes', SERVER, folder)}"


class Packed:
    """Winglet, in one format."""

    def __init__(self, winglet, format):
        self.winglet, self.format, self.name = winglet, format, f"Winglet, {format}"

    def start(self):
        return self.winglet.start()

    def request(self, bench, folder):
        target = bench.tokens.target(folder).replace("/download/file?", "/download/directory?")
        return f"{target}&archive_format={self.format}"


def plant(bench, quick):
    """A folder of very many small files, and one like a world. Bytes of each."""
    small, world = bench.path("volumes", SERVER, "small-files"), bench.path("volumes", SERVER, "world")
    block = os.urandom(4096)
    count = FILES // 10 if quick else FILES
    for number in range(count):
        if number % 1000 == 0:
            folder = os.path.join(small, f"{number // 1000:03}")
            os.makedirs(folder)
        with open(os.path.join(folder, f"file-{number:06}.dat"), "wb") as file:
            file.write(block)
    os.makedirs(world)
    region = os.urandom(8 * 2**20)
    regions = WORLD // 10 if quick else WORLD
    for number in range(regions):
        with open(os.path.join(world, f"r.{number}.mca"), "wb") as file:
            file.write(region)
    return {"small-files": count * len(block), "world": regions * len(region)}


def processor(running):
    """Seconds of processor time, that of children which have ended included."""
    ticks = 0
    for pid in running.pids():
        with open(f"/proc/{pid}/stat") as stat:
            ticks += sum(map(int, stat.read().rsplit(")", 1)[1].split()[11:15]))
    return ticks / TICK


def fetch(bench, kind, running, folder):
    """Seconds to the first byte of content, seconds in all, and bytes."""
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", running.port), timeout=120) as client:
        request = kind.request(bench, folder)
        client.sendall(f"GET {request} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head or head.endswith(b"\r\n\r\n"):
            piece = client.recv(65536)
            if not piece:
                raise RuntimeError(f"{kind.name}: {head!r}")
            head += piece
        first = time.perf_counter() - began
        status, _, rest = head.partition(b"\r\n\r\n")
        if not status.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{kind.name}: {status!r}")
        size, buffer = len(rest), bytearray(1 << 20)
        while count := client.recv_into(buffer):
            size += count
    return first, time.perf_counter() - began, size


def forget():
    """Empties the page cache and what the kernel knows of names. Whether that was allowed."""
    os.sync()
    try:
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write("3")
        return True
    except OSError:
        return False


def measure(bench):
    sizes = plant(bench, bench.quick)
    kinds = [Packed(bench.winglet, "zip"), Packed(bench.winglet, "tar")]
    kinds += [Piped(bench.directory, "tar", "tar -c"), Piped(bench.directory, "tar, gzip -1", "tar -c | gzip -1")]
    for number in range(1 if bench.quick else 3):
        for kind in kinds[number:] + kinds[:number]:
            for folder, size in sizes.items():
                with kind.start() as running:
                    cold = fetch(bench, kind, running, folder)[0] if forget() else None
                before, cpu = None, None
                with kind.start() as running:
                    # Warms the cache and the server.
                    fetch(bench, kind, running, "world" if folder == "small-files" else folder)
                    before, cpu = running.resident(), processor(running)
                    first, wall, came = fetch(bench, kind, running, folder)
                    values = {"first": first * 1000, "rate": size / wall / 2**20}
                    values["memory"] = running.resident() - before
                    values["cpu"] = (processor(running) - cpu) * GIB / size
                    values["overhead"] = 100 * (came / size - 1)
                if cold is not None:
                    values["cold"] = cold * 1000
                bench.note(f"archive {folder}", kind.name, **values)
    for kind in kinds[2:]:
        kind.log.close()


def serve(port, words):
    """Answers each request with the folder that it names."""
    listener = socket.create_server(("127.0.0.1", port))
    while True:
        client, _ = listener.accept()
        request = client.makefile("rb").readline().split()
        if len(request) == 3:
            client.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
            folder = os.path.normpath(request[1].decode())
            command = words.replace("tar -c", f"tar -c -C '{os.path.dirname(folder)}' '{os.path.basename(folder)}'")
            subprocess.run(["sh", "-c", command], stdout=client, check=False)
        client.close()


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2])
