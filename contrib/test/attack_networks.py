"""Attacks from many addresses at once, for attack.py: whole IPv6 networks, and handshakes that cost the server more
than the client."""

import contextlib
import ctypes
import multiprocessing
import os
import selectors
import ssl
import statistics
import subprocess
import sys
import threading
import time

from attack_archives import Archives, Visits
from attacked import MIB, Node, Strangers, address, connect, fetch, head, raise_limit, report, step_aside, watch

KEYS = {"rsa4096": ["rsa:4096"], "p256": ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]}
# Milliseconds that a stranger's p99 may take with handshakes of sixteen in front of it: 7 ms each, in two flights,
# on a machine that has other things to do.
BEHIND_SIXTEEN = 1000


def any_certificate():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def client_hello():
    """The first flight of a client, for anybody to repeat."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        any_certificate().wrap_bio(incoming, outgoing, server_hostname="node").do_handshake()
    return outgoing.read()


def repeat_hello(to, sources, seconds, answered):
    """One process: says hello from each source, and starts over at the first byte of an answer."""
    step_aside()
    raise_limit()
    hello, poll = client_hello(), selectors.DefaultSelector()

    def begin(source):
        with contextlib.suppress(OSError):
            poll.register(connect(source, to, blocking=False), selectors.EVENT_WRITE, source)

    for source in sources:
        begin(source)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for key, events in poll.select(0.1):
            client = key.fileobj
            try:
                if events & selectors.EVENT_WRITE:
                    client.send(hello)
                    poll.modify(client, selectors.EVENT_READ, key.data)
                    continue
                answered.value += bool(client.recv(16384))
            except OSError:
                pass
            poll.unregister(client)
            client.close()
            begin(key.data)


def hello(options):
    for name in KEYS if options.key == "both" else [options.key]:
        attack = f"hello-{name[:4]}".rstrip("4")
        with contextlib.closing(Node(options, KEYS[name])) as node:
            answered = multiprocessing.Value(ctypes.c_uint64, 0, lock=False)
            process = multiprocessing.Process(target=repeat_hello, daemon=True, args=(
                node.tls, ["127.69.0.1"] * options.connections, options.seconds, answered))
            process.start()
            time.sleep(1)
            strangers = Strangers(node, 100, options.seconds - 2)
            for thread in strangers.threads:
                thread.join()
            watch(node, attack)
            process.join()
            report(attack, "attack", f"{answered.value / options.seconds:.0f} answers a second, "
                   f"{options.connections} connections at a time, key {name}")
            for what, median in (("health", 5), ("download", 20)):
                one = strangers.times[what]
                middle = statistics.median(one) if one else 0
                report(attack, what, f"{len(one)} of 100 served, p50 {middle:.1f} ms, "
                       f"slowest {max(one, default=0):.1f} ms", len(one) == 100 and middle < median)


def complete(to, sources, seconds, answered):
    """One process: completes one handshake after the other, from each source one at a time."""
    step_aside()
    context, until = any_certificate(), time.monotonic() + seconds

    def repeat(source):
        while time.monotonic() < until:
            try:
                with connect(source, to) as client, context.wrap_socket(client):
                    answered.value += 1
            except OSError:
                time.sleep(0.05)

    threads = [threading.Thread(target=repeat, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def greet(options, attack, node, shake, shares, address=address):
    """Runs `shake` in a process for each share of the sources; strangers fetch a small file over TLS and plainly
    before, meanwhile and afterwards."""
    target, tls = node.link("small", "--no-unique-id"), any_certificate()
    kinds = {"TLS": lambda source: fetch(source, node.tls, target, tls=tls)[0],
             "plain": lambda source: fetch(source, node.plain, target)[0]}
    visits = Visits(node, kinds, address)
    visits.phase("before", options.seconds / 2)
    counts = [multiprocessing.Value(ctypes.c_uint64, 0, lock=False) for _ in shares]
    processes = [multiprocessing.Process(target=shake, daemon=True, args=(node.tls, share, options.seconds, count))
                 for share, count in zip(shares, counts)]
    for process in processes:
        process.start()
    time.sleep(1)
    visits.phase("during", options.seconds - 2)
    watch(node, attack)
    for process in processes:
        process.join()
    visits.phase("after", options.seconds / 2)
    rate = sum(count.value for count in counts) / options.seconds
    report(attack, "attack", f"{rate:.0f} handshakes a second from {sum(map(len, shares))} addresses")
    visits.report(attack, BEHIND_SIXTEEN)


def handshakes(options):
    """Sixteen addresses keep the one worker that may be at a handshake busy."""
    sources = [address(77, number) for number in range(16)]
    with contextlib.closing(Node(options, KEYS["rsa4096"])) as node:
        greet(options, "handshakes", node, complete, [sources[::2], sources[1::2]])


def six(network, subnet):
    """An address in the /48 `network`."""
    return f"2001:db8:{network:x}:{subnet:x}::1"


def namespace():
    """What runs a command in a network namespace of its own; None if this may not make one."""
    unshare = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
    with contextlib.suppress(OSError):
        if subprocess.run([*unshare, "ip", "link"], capture_output=True).returncode == 0:
            return unshare
    return None


def networks(options):
    """256 connections of one /48 weighed as much as 256 clients: 16 MiB of somebody else took 1.8 s for 12 ms, and
    handshakes from sixteen made a stranger wait for 3.9 s."""
    if not options.inside:
        unshare = namespace()
        if unshare is None:
            return report("networks", "skipped", "it takes unshare and ip, and root or a kernel that gives users namespaces")
        same = [word for line in options.set for word in ("--set", line)]
        done = subprocess.run([*unshare, sys.executable, sys.argv[0], options.binary, "networks", "--inside", "--directory",
                               options.directory, "--seconds", str(options.seconds), *same])
        return report("networks", "inside", "some of it failed", False) if done.returncode else None
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "-6", "route", "add", "local", "2001:db8::/32", "dev", "lo"], check=True)
    weigh(options)
    with contextlib.closing(Node(options, KEYS["rsa4096"], host="[::1]")) as node:
        sources = [six(0x200 + number % 16, number // 16) for number in range(16 * 60)]
        greet(options, "networks-hello", node, repeat_hello, [sources], six)


def weigh(options):
    """Downloads of one /48 beside those of others."""
    attack = "networks-48"
    with contextlib.closing(Archives(options, host="[::1]")) as node:
        visits = Visits(node, address=six)
        visits.phase("before", options.seconds / 2)
        taken = multiprocessing.Value(ctypes.c_uint64, 0, lock=False)
        process = multiprocessing.Process(target=gulp, daemon=True, args=(
            node.plain, [six(0x200, number) for number in range(256)], node.link("large", "--no-unique-id"),
            options.seconds, taken))
        process.start()
        time.sleep(2)
        visits.phase("during", options.seconds - 3)
        watch(node, attack)
        process.join()
        visits.phase("after", options.seconds / 2)
        report(attack, "attack", f"256 connections of one /48 take {taken.value / options.seconds / 1e6:.0f} MB/s")
        visits.report(attack)


def gulp(to, sources, target, seconds, taken):
    """One process: downloads from each source, as fast as it can read."""
    step_aside()
    raise_limit()
    poll, buffer = selectors.DefaultSelector(), bytearray(MIB // 4)

    def begin(source):
        client = connect(source, to, blocking=False)
        poll.register(client, selectors.EVENT_WRITE, source)

    for source in sources:
        begin(source)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for key, events in poll.select(0.1):
            client, came = key.fileobj, 0
            try:
                if events & selectors.EVENT_WRITE:
                    client.send(head(target))
                    poll.modify(client, selectors.EVENT_READ, key.data)
                    continue
                came = client.recv_into(buffer)
            except BlockingIOError:
                continue
            except OSError:
                pass
            taken.value += came
            if came == 0:
                poll.unregister(client)
                client.close()
                begin(key.data)
