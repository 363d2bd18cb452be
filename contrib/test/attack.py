#!/usr/bin/env python3
"""Attacks a winglet of its own and measures what strangers notice.

usage: attack.py BINARY ATTACK [--seconds N] [more]     ATTACK --help names what more there is

  unread     one address opens many connections for a small file and reads nothing
  streams    a few addresses, one link each, hold their downloads and read next to nothing
  readers    a thousand honest readers, each slow
  flood      a thousand addresses open idle connections, thousands a second
  hello      one address repeats a ClientHello that it never completes
  handshakes sixteen addresses complete handshakes, each with RSA-4096
  networks   one IPv6 /48 downloads on 256 connections; then sixteen say hello
  walks      two servers have trees that are made to be walked: deep, then flat
  crcs       a server has a zip whose end wants everything read: holes, then data
  listings   folders of long names fill the memory: from one address, then from eight
  kills      the server is killed right after it says that a link was already used
  replaced   its state directory is removed, emptied, or an older one, while it runs
  control    a local user fills the control listener with pipelines that he never reads
  all        each of them with its defaults

It starts BINARY on a node in a temporary directory, with default settings unless --set says
otherwise, on free ports of 127.0.0.1, and attacks nothing else. All sources are addresses of
127.0.0.0/8; counts and times are bounded. Each line is one measurement, with `ok` or `NO` if it
has a bound, and the exit status is 1 if any is `NO`. Python 3.9 and, for TLS, openssl.

`networks` has addresses of 2001:db8::/32, on the loopback interface of a network namespace that it
makes for itself. That takes unshare, ip, and root or a kernel that gives namespaces to users. The
half of `control` that is about a socket takes root, to be somebody else. Without, they say so.
"""

import argparse
import contextlib
import ctypes
import errno
import multiprocessing
import resource
import socket
import sys
import threading
import time
from collections import Counter, deque

sys.dont_write_bytecode = True  # leave nothing in this directory
import attack_archives  # noqa: E402
import attack_networks  # noqa: E402
import attack_state  # noqa: E402
import attacked  # noqa: E402
from attacked import (IP_BIND_ADDRESS_NO_PORT, MIB, PATIENCE, RESET, Bystander, Node, Strangers, address, connect, head,
                      raise_limit, report, watch)  # noqa: E402


# How often a second an attacker looks at its connections: seldom, since it shares the processors.
TURNS = 4


class Crowd:
    """Connections that ask for their target and read `rate` bytes a second, or nothing.

    One that ends is opened again, so many a second at most: an attacker does not go home.
    """

    def __init__(self, to, clients, rate, again=200):
        self.to, self.rate, self.again, self.clients = to, rate, again, clients
        self.sockets = [None] * len(clients)
        self.unsent, self.opened = set(range(len(clients))), 0

    def hold(self, seconds):
        until, budget = time.monotonic() + seconds, 0.0
        while time.monotonic() < until:
            budget = min(budget + self.again / TURNS, self.again)
            for index, (source, target) in enumerate(self.clients):
                if self.sockets[index] is None and (self.opened < len(self.clients) or budget >= 1):
                    budget -= self.opened >= len(self.clients)
                    self.opened += 1
                    self.sockets[index] = connect(source, self.to, 2048, blocking=False)
                    self.unsent.add(index)
                if self.sockets[index] and self.ended(index, target):
                    self.sockets[index].close()
                    self.sockets[index] = None
            time.sleep(1 / TURNS)

    def ended(self, index, target):
        try:
            if index in self.unsent:
                self.sockets[index].send(head(target))
                self.unsent.remove(index)
                return False
            # Without a rate the first bytes say that there is an answer, and stay there.
            count, flags = (self.rate // TURNS, 0) if self.rate else (16, socket.MSG_PEEK)
            came = self.sockets[index].recv(max(1, count), flags)
            return not came or came.startswith(b"HTTP/1.1 503")
        except BlockingIOError:
            return False
        except OSError as error:
            return error.errno != errno.ENOTCONN

    def alive(self):
        return sum(client is not None for client in self.sockets)

    def close(self):
        for client in filter(None, self.sockets):
            client.close()


def hold(attack, options, clients_of, rate):
    """An attack by holding connections; strangers come meanwhile."""
    with contextlib.closing(Node(options)) as node:
        bystander = Bystander(node)
        crowd = Crowd(node.plain, clients_of(node), rate)
        thread = threading.Thread(target=crowd.hold, args=(options.seconds,))
        thread.start()
        # It takes hold first.
        time.sleep(3)
        strangers = Strangers(node, 20, options.seconds - 5)
        during = bystander.speed(options.seconds - 5)
        report(attack, "attack", f"{len(crowd.clients)} connections, {crowd.alive()} open, "
               f"{crowd.opened} opened in {options.seconds} s")
        watch(node, attack)
        strangers.report(attack, 20, slowest=500)
        thread.join()
        crowd.close()
        bystander.report(attack, during)


def unread(options):
    def clients(node):
        links = node.links("medium", options.links)
        return [("127.66.0.1", link) for link in links for _ in range(16)]
    hold("unread", options, clients, 0)


def streams(options):
    def clients(node):
        links = node.links("large", options.addresses)
        return [(address(66, number), link) for number, link in enumerate(links) for _ in range(16)]
    hold("streams", options, clients, options.rate)


def readers(options):
    """Each takes `rate` bytes a second, a fifth of it at a time, and compares every byte."""
    attack, most, errors, complete = "readers", 0.0, Counter(), 0
    raise_limit()
    with contextlib.closing(Node(options)) as node:
        bystander = Bystander(node)
        links = node.links("readers", options.count)
        least = options.bytes / options.rate
        strangers = Strangers(node, 50, least * 0.8, health=False)
        began = time.monotonic()
        during, clients = 0.0, [Reader(address(67, number), node, link) for number, link in enumerate(links)]
        speed = bystander.begin()
        # Ten times as long as it has to take is a failure.
        while clients and time.monotonic() - began < 10 * least + PATIENCE:
            turn = time.monotonic()
            for reader in clients:
                try:
                    complete += reader.read(options.rate // 5, node.content[:options.bytes])
                except OSError as error:
                    errors[str(error)] += 1
                    reader.client.close()
            clients = [reader for reader in clients if reader.client.fileno() >= 0]
            most = max(most, node.memory()[0])
            if len(clients) > options.count * 0.9:
                during = speed()
            time.sleep(max(0, turn + 0.2 - time.monotonic()))
        told = "".join(f"; {count}: {text}" for text, count in errors.items())
        report(attack, "attack", f"{complete} of {options.count} have all bytes after "
               f"{time.monotonic() - began:.0f} s (at least {least:.0f}){told}", complete == options.count)
        report(attack, "server", f"{node.before[0]:.1f} MiB before, {most:.1f} at most", most < 16)
        strangers.report(attack, 50, median=50)
        bystander.report(attack, during)


class Reader:
    """A client that reads a step whenever it is told to."""

    def __init__(self, source, node, target):
        self.client = connect(source, node.plain, 8192)
        self.client.sendall(head(target))
        self.client.setblocking(False)
        self.head, self.offset = b"", None

    def read(self, step, wanted):
        """True with the last byte, and closed then."""
        try:
            more = self.client.recv(step)
        except BlockingIOError:
            return False
        if not more:
            raise ConnectionError("closed before the end")
        if self.offset is None:
            self.head += more
            if b"\r\n\r\n" not in self.head:
                return False
            lines, more = self.head.split(b"\r\n\r\n", 1)
            status = lines.split(b" ", 2)[1].decode()
            if status != "200":
                raise ConnectionError(f"status {status}")
            self.offset = 0
        if wanted[self.offset:self.offset + len(more)] != more:
            raise ConnectionError("other bytes")
        self.offset += len(more)
        if self.offset < len(wanted):
            return False
        self.client.close()
        return True


def pour(to, first, addresses, rate, seconds, opened, keep):
    """A process of the flood: idle connections, the oldest closed above `keep`."""
    raise_limit()
    sources = [address(68, first + number) for number in range(addresses)]
    until, began, held, number = time.monotonic() + seconds, time.monotonic(), deque(), 0
    while time.monotonic() < until:
        due = int((time.monotonic() - began) * rate)
        # What could not be opened in time is not made up for at once.
        number = max(number, due - rate // 10)
        while number < due:
            number += 1
            try:
                # As `connect` does it, with nothing that takes time.
                client = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                client.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
                client.bind((sources[number % addresses], 0))
                client.connect_ex(to)
            except OSError:
                continue
            held.append(client)
            if len(held) > keep:
                held.popleft().close()
            opened.value += 1
        time.sleep(0.002)


def flood(options):
    attack, processes = "flood", options.processes
    with contextlib.closing(Node(options)) as node:
        bystander = Bystander(node) if options.bystander else None
        raise_limit()
        keep = min(8000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 1000)
        share = options.addresses // processes
        counts = [multiprocessing.Value(ctypes.c_uint64, 0, lock=False) for _ in range(processes)]
        pouring = [multiprocessing.Process(target=pour, daemon=True, args=(
            node.plain, share * number, share, options.rate // processes, options.seconds, counts[number], keep))
            for number in range(processes)]
        for process in pouring:
            process.start()
        time.sleep(1)
        strangers = Strangers(node, 64, options.seconds - 2, pause=0.2, health=False)
        during = bystander and bystander.speed(options.seconds - 2)
        watch(node, attack)
        for process in pouring:
            process.join()
        rate = sum(count.value for count in counts) / options.seconds
        report(attack, "attack", f"{rate:.0f} connections a second of {options.rate} from {options.addresses} "
               "addresses" + ("" if rate > 0.9 * options.rate else "; this machine is too busy for more"))
        strangers.report(attack, 64 if options.addresses <= 20 else 60)
        if bystander:
            bystander.report(attack, during)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    attacks = parser.add_subparsers(dest="attack", required=True)

    def add(name, run, seconds, **more):
        attack = attacks.add_parser(name)
        attack.set_defaults(run=run)
        attack.add_argument("--seconds", type=int, default=seconds, choices=range(6, 601), metavar="N")
        attack.add_argument("--set", action="append", default=[], metavar="'KEY: VALUE'", help="in winglet:")
        attack.add_argument("--directory", default="/dev/shm", help="where the node is made (/dev/shm)")
        attack.add_argument("--bytes", type=int, default=more.pop("bytes", MIB // 2), help=argparse.SUPPRESS)
        for option, (value, most) in more.items():
            attack.add_argument(f"--{option}", type=int, default=value, choices=range(1, most + 1), metavar="N")
        return attack

    add("unread", unread, 60, links=(65, 200))
    add("streams", streams, 60, addresses=(8, 200), rate=(40, 100_000))
    add("readers", readers, 60, count=(1000, 10_000), rate=(20_000, 1_000_000))
    add("flood", flood, 10, addresses=(1000, 10_000), rate=(25_000, 50_000), processes=(2, 8)).add_argument(
        "--bystander", action="store_true", help="measured as well; takes a processor of its own")
    add("hello", attack_networks.hello, 12, connections=(48, 1000)).add_argument(
        "--key", choices=("rsa4096", "p256", "both"), default="both")
    add("handshakes", attack_networks.handshakes, 12)
    add("networks", attack_networks.networks, 12).add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    add("walks", attack_archives.walks, 20)
    add("crcs", attack_archives.crcs, 20, gigabytes=(64, 1024))
    add("listings", attack_archives.listings, 20)
    add("kills", attack_state.kills, 60, rounds=(200, 2000))
    add("replaced", attack_state.replaced, 60, links=(20, 200))
    add("control", attack_state.control, 12, connections=(100, 1000))
    add("all", None, 60)
    options = parser.parse_args()
    if options.attack == "all":
        for name in filter(lambda name: name != "all", attacks.choices):
            same = [word for line in options.set for word in ("--set", line)]
            again = parser.parse_args([options.binary, name, *same])
            again.run(again)
    else:
        options.run(options)
    sys.exit(attacked.failures > 0)


if __name__ == "__main__":
    main()
