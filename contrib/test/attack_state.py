"""Attacks on what a server remembers, and on those who run it, for attack.py: kills that are aimed at the moment
after an answer, a state directory that is replaced, and a control listener full of unread pipelines."""

import contextlib
import multiprocessing
import os
import re
import shutil
import socket
import statistics
import struct
import time

from attacked import PATIENCE, Node, address, connect, read_head, read_whole, report, watch

# Its links are remembered.
STATE = "state_directory: state"
# Who is not the server's user.
NOBODY = 65534


def probe(node, source, link):
    """The status of a HEAD, which is refused as a GET is and spends nothing."""
    with connect(source, node.plain) as client:
        client.sendall(f"HEAD {link} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n".encode())
        return read_head(client)[0]


def spend(node, source, link):
    """Uses a link up, and ends as clients do, since a reset is no delivery. Returns with the first answer that
    says that it was used."""
    with connect(source, node.plain) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
        read_whole(client, link)
    until = time.monotonic() + PATIENCE
    while probe(node, source, link) != 401:
        if time.monotonic() > until:
            raise TimeoutError("a link that was used is not used up")


def again(node, links):
    """Restarts a server that was killed. Returns how many of `links` it serves, by source and target."""
    node.start()
    return sum(probe(node, source, link) != 401 for source, link in links)


def kills(options):
    """Killed within 5 ms of "already used", 23 of 23 links worked again."""
    attack, revived, began = "kills", 0, time.monotonic()
    with contextlib.closing(Node(options, lines=[STATE])) as node:
        links = [(address(74, number), link) for number, link in enumerate(node.links("small", options.rounds))]
        waits = []
        for source, link in links:
            spend(node, source, link)
            refused = time.perf_counter()
            node.process.kill()
            waits.append((time.perf_counter() - refused) * 1000)
            node.kill()
            revived += again(node, [(source, link)])
        report(attack, "attack", f"{len(links)} links used up, and the server killed {statistics.median(waits):.2f} ms "
               f"(at most {max(waits):.2f}) after it said so; {time.monotonic() - began:.0f} s in all")
        report(attack, "links", f"{revived} of {len(links)} work again after the restart", revived == 0)
        node.kill()
        revived = again(node, links)
        report(attack, "links", f"{revived} of all work again after the last restart", revived == 0)


def files_removed(state, copy):
    for name in ("journal", "lock"):
        os.remove(f"{state}/{name}")


def files_restored(state, copy):
    for name in ("journal", "lock"):
        os.rename(f"{copy}/{name}", f"{state}/{name}")


def directory_removed(state, copy):
    shutil.rmtree(state)


def directory_restored(state, copy):
    shutil.rmtree(state)
    os.rename(copy, state)


def replaced(options):
    """With other files, or none, in the place of its own, 20 of 20 links worked again."""
    for replace in (files_removed, files_restored, directory_removed, directory_restored):
        # The sandbox keeps the server out of another directory: all that it can do there is to say so.
        for sandbox in (True, False) if "directory" in replace.__name__ else (True,):
            replace_one(options, replace, sandbox)


def replace_one(options, replace, sandbox):
    """One kind of it: half of the links are used up before, half afterwards."""
    attack, lines = replace.__name__.replace("_", "-"), [STATE, f"sandbox: {str(sandbox).lower()}"]
    with contextlib.closing(Node(options, lines=lines)) as node:
        targets = node.links("small", options.links)
        links = [(address(75, number), link) for number, link in enumerate(targets)]
        state, copy, middle = f"{node.path}/state", f"{node.path}/copy", len(links) // 2
        os.mkdir(copy)
        for name in ("journal", "lock"):
            shutil.copy(f"{state}/{name}", copy)
        for link in links[:middle]:
            spend(node, *link)
        replace(state, copy)
        # It looks once a second.
        time.sleep(3)
        for link in links[middle:]:
            spend(node, *link)
        with open(f"{node.path}/log") as log:
            said = [line[20:].strip() for line in log if re.search(r" (WARN|ERROR) .*state_directory: .*(journal|directory)", line)]
        node.kill()
        report(attack, "said", said[-1] if said else "nothing", bool(said))
        revived = again(node, links)
        is_out = "directory" in replace.__name__ and sandbox
        report(attack, "links", f"{revived} of {len(links)} work again after kill -9{', with the sandbox' if is_out else ''}",
               None if is_out else revived == 0)


class Pipelines:
    """Connections that ask on and on, and read nothing. One that is closed is opened again, 200 a second at most."""

    REQUESTS = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100

    def __init__(self, open_one, count):
        self.open_one, self.clients = open_one, [None] * count

    def hold(self, seconds, user, sent):
        if user is not None:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            budget = 10
            for index, client in enumerate(self.clients):
                try:
                    if client is None and budget > 0:
                        budget -= 1
                        client = self.clients[index] = self.open_one()
                    if client is not None:
                        sent.value += client.send(self.REQUESTS)
                except BlockingIOError:
                    pass
                except OSError:
                    if client is not None:
                        client.close()
                    self.clients[index] = None
            time.sleep(0.05)


def connect_file(path, blocking=True):
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE if blocking else 0)
    client.connect(path)
    return client


def ask(client):
    """Seconds until a status has come whole."""
    began = time.perf_counter()
    with client:
        read_whole(client, "/status")
    return time.perf_counter() - began


def ask_meanwhile(attack, what, open_operator, seconds):
    """Lets an operator ask every 50 ms, and reports what came of it."""
    times, errors, until = [], [], time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            times.append(ask(open_operator()) * 1000)
        except OSError as error:
            errors.append(str(error) or type(error).__name__)
        time.sleep(0.05)
    ordered = sorted(times) or [0]
    text = (f"{len(times)} of {len(times) + len(errors)} answered, p50 {ordered[len(ordered) // 2]:.1f} ms, "
            f"p99 {ordered[len(ordered) * 99 // 100]:.1f}, slowest {ordered[-1]:.1f}")
    told = ", ".join(sorted(set(errors)))
    report(attack, what, text + (f"; else: {told}" if told else ""), None if what == "before" else not errors and bool(times))


def control(options):
    """Pipelines that nobody reads kept the operator from the control listener."""
    for place in ("port", "socket"):
        attack, line = f"control-{place}", "127.0.0.1:0" if place == "port" else "unix:control.sock"
        with contextlib.closing(Node(options, lines=[f"control: {line}"])) as node:
            if place == "port":
                with open(f"{node.path}/log") as log:
                    to = ("127.0.0.1", int(re.search(r"control on http://127\.0\.0\.1:(\d+)", log.read())[1]))
                user = None
                open_one, operator = (lambda: connect("127.76.0.1", to, blocking=False)), (lambda: connect("127.0.0.1", to))
            elif os.geteuid() != 0:
                report(attack, "skipped", "it takes root to be another user at the socket")
                continue
            else:
                # Opened to everybody: with the server's own permissions nobody else gets as far as this.
                path, user = f"{node.path}/control.sock", NOBODY
                os.chmod(path, 0o666)
                os.chmod(node.path, 0o711)
                open_one, operator = (lambda: connect_file(path, blocking=False)), (lambda: connect_file(path))
            ask_meanwhile(attack, "before", operator, options.seconds / 4)
            sent = multiprocessing.Value("Q", 0, lock=False)
            crowd = Pipelines(open_one, options.connections)
            process = multiprocessing.Process(target=crowd.hold, args=(options.seconds, user, sent), daemon=True)
            process.start()
            time.sleep(1)
            ask_meanwhile(attack, "operator", operator, options.seconds - 2)
            process.join()
            report(attack, "attack", f"{options.connections} connections sent {sent.value / options.seconds / 1024:.0f} KiB "
                   "a second and read nothing")
            watch(node, attack)
