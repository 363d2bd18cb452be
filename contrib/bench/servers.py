"""The servers that are compared, each serving the same files in its own way."""

import base64
import glob
import hashlib
import hmac
import json
import os
import shutil
import signal
import socket
import subprocess
import time

KEY = "bench-token-bench-token-bench-token-bench-token"
SERVER = "8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d40"
CORES = len(os.sched_getaffinity(0))
TICK = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Tokens:
    """Links as the Panel signs them, each with a unique_id of its own."""

    def __init__(self):
        encode = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=")
        self.encode, self.count = encode, 0
        self.header = encode(json.dumps({"typ": "JWT", "alg": "HS256", "jti": "a" * 64}).encode())
        self.run = os.urandom(4).hex()

    def target(self, path):
        self.count += 1
        now = int(time.time())
        claims = {
            "iss": "https://panel.example", "aud": ["https://node.example:8080"], "jti": "a" * 64,
            "iat": now, "nbf": now - 300, "exp": now + 3600, "server_uuid": SERVER,
            "user_uuid": "99999999-2222-4333-8444-555555555555", "file_path": path,
            "unique_id": f"{self.run}{self.count:08}", "scope": "file-download",
        }
        text = self.header + b"." + self.encode(json.dumps(claims).encode())
        tag = self.encode(hmac.new(KEY.encode(), text, hashlib.sha256).digest())
        return f"/download/file?token={(text + b'.' + tag).decode()}"


class Running:
    """A server's processes, from start to end."""

    def __init__(self, kind, command, port, log):
        self.port = port
        self.began = time.perf_counter()
        # What a server keeps for itself goes with the directory.
        home = os.path.dirname(log.name)
        environment = os.environ | {"HOME": home, "XDG_CONFIG_HOME": home, "XDG_DATA_HOME": home}
        self.process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self.wait(kind, log)
        except BaseException:
            self.stop()
            raise

    def wait(self, kind, log):
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port)) as probe:
                    del probe
                    break
            except ConnectionRefusedError:
                if self.process.poll() is not None:
                    with open(log.name, errors="replace") as said:
                        raise RuntimeError(f"{kind} ended:\n{said.read()[-2000:]}")
                if time.perf_counter() - self.began > 15:
                    raise RuntimeError(f"{kind} does not listen")
                # Part of the time to the first byte: keep it small.
                time.sleep(0.0002)

    def pids(self):
        """The server's process and all below it."""
        found, queue = [], [self.process.pid]
        while queue:
            pid = queue.pop()
            found.append(pid)
            try:
                for task in os.listdir(f"/proc/{pid}/task"):
                    with open(f"/proc/{pid}/task/{task}/children") as children:
                        queue += [int(child) for child in children.read().split()]
            except FileNotFoundError:
                pass
        return found

    def cpu(self):
        """Seconds of processor time so far, user and system, over all processes."""
        ticks = 0
        for pid in self.pids():
            with open(f"/proc/{pid}/stat") as stat:
                fields = stat.read().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / TICK

    def memory(self):
        """Memory in MiB, over all processes: resident, proportional, and private and dirty."""
        found = {"Rss:": 0, "Pss:": 0, "Private_Dirty:": 0}
        for pid in self.pids():
            with open(f"/proc/{pid}/smaps_rollup") as rollup:
                for words in map(str.split, rollup):
                    if words[0] in found:
                        found[words[0]] += int(words[1])
        return [kib / 1024 for kib in found.values()]

    def resident(self):
        """Resident memory in MiB; cheap enough to be asked often."""
        pages = 0
        for pid in self.pids():
            with open(f"/proc/{pid}/statm") as statm:
                pages += int(statm.read().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def stop(self):
        # Its session holds all of its processes, those too whose parent is gone.
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Kind:
    """One of the compared servers."""

    name = ""
    program = ""
    tokens = False

    def __init__(self, directory):
        self.directory = directory
        self.log = open(os.path.join(directory, f"{self.name}.log"), "ab")

    def path(self, name):
        return os.path.join(self.directory, name)

    def write(self, name, text):
        with open(self.path(name), "w") as file:
            file.write(text)
        return self.path(name)

    def start(self, tls=False, before=(), **options):
        """`before` are words that start the command, as `nice -n 5` does."""
        port = free_port()
        return Running(self.name, [*before, *self.command(port, tls, **options)], port, self.log)

    def target(self, name, tokens):
        return f"/{name}"

    def has_tls(self):
        return True

    def binary(self):
        return os.path.realpath(shutil.which(self.program))

    def version(self, *arguments):
        output = subprocess.run([self.binary(), *arguments], capture_output=True, text=True)
        return (output.stdout + output.stderr).strip().splitlines()[0]


class Winglet(Kind):
    name, tokens = "Winglet", True

    def __init__(self, directory, program):
        super().__init__(directory)
        self.program = program

    def command(self, port, tls, state=False, tracked=10_000_000, connections=1024, more=""):
        listen = f"{'tls:' if tls else ''}127.0.0.1:{port}"
        lines = f"  state_directory: {self.path('state')}\n" if state else ""
        if state:
            shutil.rmtree(self.path("state"), ignore_errors=True)
        config = self.write("config.yml", f"""
token: {KEY}
api: {{ssl: {{enabled: {str(tls).lower()}, cert: cert.pem, key: key.pem}}}}
system: {{data: volumes, backup_directory: backups}}
winglet:
  listen: ["{listen}"]
  max_connections: {connections}
  max_connections_per_address: 20000
  max_tracked_tokens: {tracked}
  timeouts: {{head: 600s, idle: 600s}}
{lines}{more}""")
        return [self.program, "serve", "--config", config]

    def target(self, name, tokens):
        return tokens.target(name)

    def binary(self):
        return os.path.realpath(self.program)


class Nginx(Kind):
    name = program = "nginx"

    def command(self, port, tls, more=""):
        ssl = "ssl" if tls else ""
        files = "ssl_certificate cert.pem; ssl_certificate_key key.pem;" if tls else ""
        config = self.write("nginx.conf", f"""
daemon off; pid {self.path('nginx.pid')}; error_log stderr crit;
worker_processes {CORES}; worker_rlimit_nofile 4096;
events {{ worker_connections 1024; }}
http {{
    access_log off; sendfile on; tcp_nopush on; default_type application/octet-stream;
    keepalive_requests 1000; {more} client_body_temp_path {self.path('nginx-tmp')};
    proxy_temp_path {self.path('nginx-tmp')}; fastcgi_temp_path {self.path('nginx-tmp')};
    uwsgi_temp_path {self.path('nginx-tmp')}; scgi_temp_path {self.path('nginx-tmp')};
    server {{ listen 127.0.0.1:{port} {ssl} backlog=4096; root {self.path('www')}; {files} }}
}}
""")
        # Run as root its worker would be nobody, who may not read the directory.
        user = ["-g", "user root;"] if os.geteuid() == 0 else []
        return [self.binary(), "-p", self.directory, "-c", config, *user]

    def version(self):
        return super().version("-v").removeprefix("nginx version: ")


class Lighttpd(Kind):
    name = program = "lighttpd"

    def has_tls(self):
        """mod_openssl is a package of its own."""
        places = ["/usr/lib*/lighttpd/mod_openssl.so", "/usr/lib/*/lighttpd/mod_openssl.so"]
        return any(glob.glob(place) for place in places)

    def command(self, port, tls):
        ssl = f"""
server.modules += ("mod_openssl")
ssl.engine = "enable"
ssl.pemfile = "{self.path('cert.pem')}"
ssl.privkey = "{self.path('key.pem')}"
""" if tls else ""
        config = self.write("lighttpd.conf", f"""
server.modules = ()
server.document-root = "{self.path('www')}"
server.bind = "127.0.0.1"
server.port = {port}
server.max-keep-alive-requests = 1000
server.max-fds = 4096
server.max-connections = 1024
mimetype.assign = ("" => "application/octet-stream")
{ssl}""")
        return [self.binary(), "-D", "-f", config]

    def version(self):
        return super().version("-v").split(" - ")[0]


class Wings(Kind):
    """The way of Wings, in its language: a copy through a buffer of 32 KiB (copy.go)."""

    name, program = "copy, as Wings", "go"

    def __init__(self, directory):
        super().__init__(directory)
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "copy.go")
        # The compiler's cache goes with the directory.
        environment = os.environ | {"GOCACHE": self.path("go-cache"), "GOFLAGS": "", "CGO_ENABLED": "0"}
        subprocess.run(
            [self.program, "build", "-o", self.path("copy"), source], cwd=directory, check=True, env=environment
        )

    def command(self, port, tls):
        files = [self.path("cert.pem"), self.path("key.pem")] if tls else []
        return [self.path("copy"), self.path("www"), f"127.0.0.1:{port}", *files]

    def version(self):
        return super().version("version").removeprefix("go version ").split()[0]


class Caddy(Kind):
    name, program = "Caddy", "caddy"

    def command(self, port, tls):
        address = f"https://127.0.0.1:{port}" if tls else f"http://127.0.0.1:{port}"
        files = f"tls {self.path('cert.pem')} {self.path('key.pem')}" if tls else ""
        config = self.write("Caddyfile", f"""
{{
    admin off
    auto_https off
    storage file_system {self.path('caddy')}
    servers {{
        protocols h1
    }}
    log {{
        level ERROR
    }}
}}
{address} {{
    bind 127.0.0.1
    root * {self.path('www')}
    file_server
    {files}
}}
""")
        return [self.binary(), "run", "--config", config, "--adapter", "caddyfile"]

    def version(self):
        return "Caddy " + super().version("version").split()[0]
