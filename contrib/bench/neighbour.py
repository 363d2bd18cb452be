"""What a download does to a game server on the same machine: its memory, and its processor."""

import os
import re
import shutil
import subprocess
import time

from servers import Kind, Nginx

HERE = os.path.dirname(os.path.abspath(__file__))
WORLD, MEMORY = 400 * 2**20, 768 * 2**20
SECONDS, ROUNDS = 4, 2
# Starts a command in a cgroup, whose list of processes is the first word.
ENTER = ["sh", "-c", 'echo $$ > "$0" && exec "$@"']
# The clients are other machines in real life. For the game's ticks, what they take of this one's
# processors comes last, beside every server.
LAST = ["sh", "-c", 'echo 19 > /proc/self/autogroup; exec nice -n 19 "$0" "$@"']


class Copy(Kind):
    """The way of Wings: a copy through a buffer of 32 KiB."""

    name = "copy"

    def command(self, port, tls):
        return [self.path("neighbour"), "copy", str(port), self.path("www/large")]


class Cgroup:
    """A memory cgroup, if this machine lets us make one."""

    def __init__(self):
        self.path, self.kind = None, "none: this machine allows no memory cgroup"
        for kind, root, limit in (
            ("v1", "/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("v2", "/sys/fs/cgroup", "memory.max"),
        ):
            path = os.path.join(root, f"winglet-bench-{os.getpid()}")
            try:
                os.mkdir(path)
            except OSError:
                continue
            try:
                # Fails where the hierarchy has no memory controller.
                with open(os.path.join(path, limit), "r+") as file:
                    file.write(str(MEMORY))
                self.path, self.kind = path, f"{MEMORY >> 20} MiB, cgroup {kind}"
                return
            except OSError:
                os.rmdir(path)

    def enter(self):
        return [*ENTER, os.path.join(self.path, "cgroup.procs")] if self.path else []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for _ in range(50 if self.path else 0):
            try:
                return os.rmdir(self.path)
            except OSError:
                # The last process is on its way out.
                time.sleep(0.1)


def chill(path):
    """Takes a file from the page cache, whoever is charged for it."""
    file = os.open(path, os.O_RDONLY)
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)


def warm(path):
    """Has a file in the page cache."""
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 20):
            pass


def values(line):
    words = line.split()
    return {key: float(value) for key, value in zip(words[::2], words[1::2])}


class Game:
    """neighbour.c at work, in a session of its own like any service."""

    def __init__(self, before, *words):
        self.process = subprocess.Popen(
            [*before, *words], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self.process.stdout.readline() == "ready\n", "the game did not start"

    def runs(self):
        return self.process.poll() is None

    def result(self):
        return values(self.process.communicate(timeout=60)[0])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def fetch(bench, kind, running, count, seconds, tls=False, before=()):
    """`count` downloads of the large file at once for `seconds`. Bytes that came."""
    scheme = "https" if tls else "http"
    targets = [kind.target("large", bench.tokens) for _ in range(count)]
    lines = [f'url = "{scheme}://127.0.0.1:{running.port}{target}"\noutput = "/dev/null"\n' for target in targets]
    command = [
        *before, "curl", "--noproxy", "*", "--silent", "--insecure", "--no-progress-meter",
        "--max-time", str(seconds), "--write-out", "%{http_code} %{size_download}\\n", "--config", "-",
    ]
    if count > 1:
        command += ["--parallel", "--parallel-immediate", "--parallel-max", str(count)]
    output = subprocess.run(
        command, input="".join(lines), text=True, start_new_session=True, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ).stdout
    answers = re.findall(r"^(\d+) (\d+)$", output, re.M)
    if len(answers) != count or any(status != "200" for status, _ in answers):
        raise RuntimeError(f"{kind.name}: {output}")
    return sum(int(size) for _, size in answers)


def game_beside(bench, cgroup, kind, options):
    """The game's reads while the large file is downloaded, over and over."""
    world = bench.path("world")
    for path in (world, bench.path("www/large")):
        chill(path)
    before = cgroup.enter()
    with Game(before, bench.path("neighbour"), "world", world, str(SECONDS)) as game:
        began, came = time.monotonic(), 0
        if kind:
            with kind.start(before=before, **options) as running:
                while game.runs() and (left := began + SECONDS - time.monotonic()) > 0.1:
                    came += fetch(bench, kind, running, 1, left)
        seconds = time.monotonic() - began
        return game.result() | ({"rate": came / seconds / 2**20} if kind else {})


def ticks_beside(bench, kind, options):
    """The game's ticks beside 32 downloads with TLS."""
    with Game([], bench.path("neighbour"), "tick", str(SECONDS)) as game:
        if not kind:
            return game.result()
        with kind.start(True, **options) as running:
            came = fetch(bench, kind, running, 32, SECONDS, True, LAST)
        return game.result() | {"rate": came / SECONDS / 2**20}


def measure(bench):
    compiler = shutil.which("cc")
    if not compiler:
        bench.skipped.append("neighbour (no C compiler)")
        return
    source, program = os.path.join(HERE, "neighbour.c"), bench.path("neighbour")
    subprocess.run([compiler, "-O2", "-o", program, source], check=True)
    with open(bench.path("world"), "wb") as file:
        for _ in range(WORLD >> 20):
            file.write(os.urandom(2**20))
    winglet, copy, nginx = bench.winglet, Copy(bench.directory), shutil.which("nginx")
    games = [
        ("nobody", None, {}),
        ("Winglet", winglet, {}),
        ("Winglet, page_cache: keep", winglet, {"more": "  page_cache: keep\n"}),
        ("copy of 32 KiB, as Wings", copy, {}),
    ]
    ticks = [
        ("nobody", None, {}),
        ("Winglet", winglet, {}),
        ("Winglet, priority: normal", winglet, {"more": "  priority: normal\n"}),
    ]
    if nginx:
        kind = Nginx(bench.directory)
        games += [("nginx, sendfile", kind, {}), ("nginx, directio", kind, {"more": "directio 8m;"})]
        ticks.append(("nginx", kind, {}))
    with Cgroup() as cgroup:
        bench.cgroup = cgroup.kind
        for _ in range(1 if bench.quick else ROUNDS):
            for name, kind, options in games:
                bench.note("neighbour", name, **game_beside(bench, cgroup, kind, options))
            for name, kind, options in ticks:
                bench.note("ticks", name, **ticks_beside(bench, kind, options))
    copy.log.close()
