"""Small files over kept connections with a Redis that several front ends share, and without."""

import shutil
import socket
import subprocess
import time

from servers import free_port


class Redis:
    """A Redis of its own, in memory only."""

    def __init__(self, directory):
        self.port = free_port()
        self.process = subprocess.Popen(
            ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--save", ""],
            cwd=directory, stdout=subprocess.DEVNULL, start_new_session=True,
        )

    def ask(self, command):
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as client:
            client.sendall(command.encode() + b"\r\n")
            return client.recv(4096)

    def __enter__(self):
        for _ in range(200):
            try:
                # As if it had not been emptied: nobody waits for other front ends.
                self.ask("SET winglet:since 1")
                return self
            except OSError:
                time.sleep(0.02)
        raise RuntimeError("redis-server does not start")

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def measure(bench):
    if not shutil.which("redis-server"):
        bench.skipped.append("shared (redis-server is not installed)")
        return
    for number in range(1 if bench.quick else 5):
        with Redis(bench.directory) as redis:
            more = f"  shared_state: redis://127.0.0.1:{redis.port}/0\n  node: bench\n"
            runs = [("alone", ""), ("with shared_state", more)]
            for name, lines in runs if number % 2 == 0 else reversed(runs):
                with bench.winglet.start(more=lines) as running:
                    values = bench.requests(bench.winglet, running, False, False, 2)
                bench.note("shared", name, **values)
