#!/usr/bin/env python3
"""Unpacks nasty trees with the programs that people have, and compares.

usage: readers.py [BINARY] [--seed N] [--keep]

A node of its own has a folder for each tree below. Each is downloaded as a zip and as a tar, each reader
below unpacks it, and what comes out must be what is in the archive, whole, nowhere else, without an error
and without a bit above 0777 (1777 for folders). What is in the archive must be what is on the server.

The last lines are a table. A reader that is not installed is named; with WINGLET_STRICT=1 it is a failure."""

import argparse
import contextlib
import hashlib
import os
import random
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import unicodedata
import urllib.request
import zipfile

SERVER = "1f1d6f0a-3a5c-4bfb-9a9c-2a5c9d1f0001"
NOTES = b".winglet-skipped.txt"
STRANGER = 988
OUTSIDE = b"a file of the same server"

PYTHON = """
import sys, tarfile, zipfile
# With Python's own care for strangers' archives; before 3.11.4 it has none.
tarfile.TarFile.extraction_filter = staticmethod(getattr(tarfile, "data_filter", None))
name, out = sys.argv[1:]
archive = zipfile.ZipFile(name) if name.endswith("zip") else tarfile.open(name)
archive.extractall(out)
"""

PHP = """
$zip = new ZipArchive;
$code = $zip->open($argv[1], ZipArchive::RDONLY | ZipArchive::CHECKCONS);
if ($code !== true) exit("open: $code\\n");
if (!$zip->extractTo($argv[2])) exit("extract: " . $zip->getStatusString() . "\\n");
echo "done";
"""

YAUZL = """
const fs = require("fs"), path = require("path"), yauzl = require("yauzl");
const [archive, out] = process.argv.slice(1);
yauzl.open(archive, { lazyEntries: true, strictFileNames: true }, (error, zip) => {
  if (error) throw error;
  zip.on("error", (error) => { throw error; });
  zip.on("entry", (entry) => {
    const to = path.join(out, entry.fileName);
    if (entry.fileName.endsWith("/")) { fs.mkdirSync(to, { recursive: true }); return zip.readEntry(); }
    fs.mkdirSync(path.dirname(to), { recursive: true });
    zip.openReadStream(entry, (error, stream) => {
      if (error) throw error;
      stream.pipe(fs.createWriteStream(to)).on("close", () => zip.readEntry());
    });
  });
  zip.readEntry();
});
"""

# The readers: a name, the Debian package, the archives that it reads, its command, and what says whether
# it is installed. A, the archive, and O, the folder to unpack into, are replaced; it runs in that folder.
READERS = (
    ("unzip", "unzip", "zip", ["unzip", "-qqK", "A", "-d", "O"], ["unzip", "-v"]),
    ("7z", "p7zip-full", "zip tar", ["7z", "x", "-bd", "-y", "-oO", "A"], ["7z"]),
    ("bsdtar", "libarchive-tools", "zip tar", ["bsdtar", "-xpf", "A", "-C", "O"], ["bsdtar", "--version"]),
    ("Python", "python3", "zip tar", [sys.executable, "-c", PYTHON, "A", "O"], [sys.executable, "--version"]),
    ("Java", "default-jdk-headless", "zip", ["jar", "-xf", "A"], ["jar", "--version"]),
    ("PHP (libzip)", "php-cli php-zip", "zip", ["php", "-r", PHP, "A", "O"], ["php", "-r", "new ZipArchive;"]),
    ("yauzl", "node-yauzl", "zip", ["node", "-e", YAUZL, "A", "O"], ["node", "-e", 'require("yauzl")']),
    ("GNU tar", "tar", "tar", ["tar", "--warning=no-timestamp", "-xpf", "A", "-C", "O"], ["tar", "--version"]),
)
COMPOSED = "letters and their accents are composed"

# What a reader does of its own accord, whatever is in the archive: how it shows, and what it means.
KNOWN = (
    ("7z", r"Dangerous link|: file, not link", "7z refuses links with `..` or `.`, also within the folder, and nothing else"),
    ("bsdtar", COMPOSED, "bsdtar composes letters and accents, and so makes one file of two twins"),
)


# The trees: a function each, which is given an empty folder and fills it.


class Tree:
    def __init__(self, root):
        self.root = os.fsencode(root)
        # What a zip cannot hold, and what else it does.
        self.too_long = set()
        self.linked = set()
        os.mkdir(root)

    def at(self, path):
        path = os.path.join(self.root, os.fsencode(path))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def file(self, path, content=None):
        with open(self.at(path), "wb") as file:
            file.write(os.fsencode(path) if content is None else content)

    def files(self, *paths):
        for path in paths:
            self.file(path)

    def folder(self, path):
        os.makedirs(self.at(path), exist_ok=True)

    def link(self, path, target):
        os.symlink(target, self.at(path))

    def mode(self, path, mode):
        if os.geteuid() == 0:
            os.chown(self.at(path), STRANGER, STRANGER)
        os.chmod(self.at(path), mode)

    def time(self, path, seconds):
        os.utime(self.at(path), (seconds, seconds))


def modes(tree):
    """Bits that make a file run as whoever owns it."""
    for mode in (0o4755, 0o2755, 0o6777, 0o4711, 0o1644, 0o400, 0o777):
        tree.file(f"file {mode:o}")
        tree.mode(f"file {mode:o}", mode)
    for mode in (0o2775, 0o1777, 0o3777, 0o7755, 0o555):
        tree.file(f"folder {mode:o}/file")
        tree.mode(f"folder {mode:o}", mode)


def controls(tree):
    """One control character in a name."""
    for code in [*range(1, 32), 127]:
        tree.files(f"{chr(code)} {code}", f"folder {code}{chr(code)}/file")


def bytes_(tree):
    """Names that are no text."""
    tree.files(b"caf\xe9.txt", b"\xff\xfe", b"\xed\xa0\x80", b"folder \xe9/\xe9", b"half \xe6\x97", b"\xe9" * 85)
    tree.files(b"\xe9" * 86, b"\xe9" * 86 + b".jar", b"\xe9" * 87 + b".jar", b"\xc0" * 255, b"after")


def equals(tree):
    """Names that come out as one in a zip."""
    tree.files(b"caf\xe9", b"caf%E9", b"caf%E9 (2)", b"a\x01.txt", b"a%01.txt", b"d\xe9/x", b"d%E9/y", b"\xe9" * 86)


def signs(tree):
    """Signs that some systems take for a root, a drive or a pattern."""
    tree.files("a\\b", "..\\..\\run.exe", "\\root", "c:foo", "c:\\x", "12:00.log", ":", "\\", "folder:/a\\b", "\\\\host\\x")
    tree.files('<>"|?*', "*", "[a-z]", "-rf", "--help", "$(id)", "`id`", "quote's", "&;#!", "~", "~root", "@list", "%41")


def scripts(tree):
    """Names of all peoples, in both directions."""
    tree.files("日本語/ファイル.txt", "Ω ä ß ñ", "🎮/🏴‍☠️", "عربي.txt", "gpj.\u202eexe", "\u2066x", "\ufeffbom", "next\u0085line")


def links(tree):
    """Links within the folder, out of it, and to nowhere."""
    tree.file("lib/real.txt", b"content of the real file")
    tree.file("d/file", b"in d")
    for path, target in (
        ("here", "lib/real.txt"), ("d/up", "../lib/real.txt"), ("folder", "lib"), ("top", "."), ("d/top", ".."),
        ("absolute", "/home/container/links/lib/real.txt"), ("d/absolute", "/home/container/links/d/file"),
        ("elsewhere", "/home/container/outside/file"), ("passwd", "/etc/passwd"), ("out", "../outside/file"),
        ("d/out", "../../../../etc/passwd"), ("nowhere", "not there"), ("loop", "loop"), ("a", "b"), ("b", "a"),
        ("chain", "here"), ("through", "folder/real.txt"), ("back", "d/top/.."), ("turn", "d/../lib/real.txt"),
        ("proc", "/proc/self/environ"), ("caf\udce9", "lib/real.txt"), ("long", "./" * 200 + "lib/real.txt"),
    ):
        tree.link(path, target)
    tree.file("zz after", b"what comes after all links")
    tree.linked.add(OUTSIDE)


def only_link(tree):
    """A folder with nothing but a link to a file of the same server."""
    tree.link("unix_args.txt", "../outside/file")
    tree.linked.add(OUTSIDE)


def empty(tree):
    """Nothing at all."""


def folders(tree):
    """Folders with nothing in them."""
    for path in ("a", "b/c/d", "b/e", "\u202e"):
        tree.folder(path)


def twins(tree):
    """Names that some disks take for one, and names that Windows keeps for itself."""
    tree.files("World/level.dat", "world/level.dat", "CAFÉ", "café", "cafe\u0301 decomposed", "x/A", "x/a")
    tree.files("caf\u00e9 twin", "cafe\u0301 twin")
    tree.files("con", "aux.txt", "COM1", "nul.tar.gz", "end.", "end ", "three...", " lead", "...", ". .")


def times(tree):
    """Times that a format cannot say, or a reader cannot set."""
    for seconds in (-(2**31), -1, 0, 1, 315532799, 315532800, 2**31 - 1, 2**31, 4354819198, 4354819200, 2**33, 15032385535):
        tree.file(f"{seconds}")
        tree.time(f"{seconds}", seconds)
        tree.file(f"folder {seconds}/file")
        tree.time(f"folder {seconds}", seconds)


def sizes(tree):
    """Sizes at the ends of blocks."""
    for size in (0, 1, 511, 512, 513, 65534, 65535, 65536, 131070, 131071, 1 << 20):
        tree.file(f"{size}", hashlib.shake_128(b"%d" % size).digest(size))


def lengths(tree):
    """Long names and deep folders."""
    tree.files("n" * 255, "é" * 127, "日" * 85, "l" * 200 + ".tar.gz", "/".join(["deep"] * 150) + "/end")
    tree.files("/".join(["f" * 99] * 3) + "/x", "p" * 100, "p" * 101, "/".join(["q" * 155, "r" * 100]), "/".join(["q" * 156, "s" * 100]))


def too_long(tree):
    """Folders of names that are no text, whose paths get too long."""
    tree.files("/".join(["\udce9" * 100] * 35) + "/end", "after")
    tree.too_long.add(os.fsencode("/".join(["\udce9" * 100] * 35) + "/end"))


ALPHABET = [*"abAB%._ ~'", "%E9", "%01", "%5C", "\udce9", "\udcff", "\x01", "\n", "\x7f", "\\", ":", "é", "日", "🎮", " (2)", ".txt"]


def chance(tree):
    """Names at random from all of this, but for twins."""

    def name():
        return "".join(random.choices(ALPHABET, k=random.randint(1, 5))).strip(".") or "x"

    for _ in range(200):
        path = "/".join(name() for _ in range(random.randint(1, 3)))
        with contextlib.suppress(FileExistsError, NotADirectoryError, IsADirectoryError):
            tree.file(path)


TREES = (modes, controls, bytes_, equals, signs, scripts, links, only_link, empty, folders, twins, times, sizes, lengths,
         too_long, chance)


def content(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def below(root):
    """Every path below `root`, and what is there: (kind, mode bits, content or target)."""
    for folder, names, files in os.walk(root):
        for name in sorted(names + files):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            mode = stat.S_IMODE(status.st_mode)
            relative = os.path.relpath(path, root)
            if stat.S_ISLNK(status.st_mode):
                yield relative, ("link", mode, os.readlink(path))
            elif stat.S_ISDIR(status.st_mode):
                yield relative, ("folder", mode, None)
            else:
                yield relative, ("file", mode, content(path))


def held(archive):
    """What is in an archive, by Python's modules: (kind, content or target) by path; and what is wrong."""
    found, wrong = {}, []

    def add(name, *what):
        path = os.fsencode(name).strip(b"/").removeprefix(b"./")
        if path in found:
            wrong.append(f"{path} is there twice")
        found[path] = what

    if archive.endswith(".zip"):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                if info.is_dir():
                    add(info.filename, "folder", None)
                else:
                    add(info.filename, "file", hashlib.sha256(opened.read(info)).hexdigest())
    else:
        with tarfile.open(archive) as opened:
            for info in opened:
                if info.isdir():
                    add(info.name, "folder", None)
                elif info.issym():
                    add(info.name, "link", os.fsencode(info.linkname))
                else:
                    add(info.name, "file", hashlib.sha256(opened.extractfile(info).read()).hexdigest())
    return found, wrong


def compare(expected, found):
    """What is wrong with what was unpacked; nothing if all is well."""
    wrong = []
    for path in sorted(expected.keys() | found.keys()):
        kind, mode, what = found.get(path, (None, 0, None))
        if (kind, what) != expected.get(path, (None, None)):
            wrong.append(f"{path}: {kind or 'nothing'}, not {expected.get(path, ('nothing',))[0]}")
        elif kind != "link" and mode & ~(0o1777 if kind == "folder" else 0o777):
            wrong.append(f"{path}: mode {mode:o}")
    return wrong


def composed(found):
    """The same under names whose letters and accents are one sign."""

    def compose(path):
        with contextlib.suppress(UnicodeDecodeError):
            return unicodedata.normalize("NFC", path.decode()).encode()
        return path

    return {compose(path): what for path, what in found.items()}


# The node.


class Node:
    def __init__(self, binary, work):
        self.binary, self.config, self.log = binary, os.path.join(work, "config.yml"), os.path.join(work, "log")
        self.volume = os.path.join(work, "volumes", SERVER)
        os.makedirs(self.volume)
        os.mkdir(os.path.join(work, "backups"))
        with open(self.config, "w") as file:
            file.write(f"""token: "test-key-0123456789"
system:
  data: {work}/volumes
  backup_directory: {work}/backups
winglet:
  listen: ["127.0.0.1:0"]
  state_directory: {work}/state
""")

    def __enter__(self):
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([self.binary, "serve", "--config", self.config], stdout=log, stderr=log)
        tail = subprocess.Popen(["tail", f"--pid={self.process.pid}", "-n", "+1", "-f", self.log], stdout=subprocess.PIPE, text=True)
        with tail:
            for line in tail.stdout:
                if found := re.search(r"listening on (http:\S+)", line):
                    self.base = found[1]
                    break
            tail.kill()
        if not hasattr(self, "base"):
            sys.exit(f"not ok - the node does not start:\n{open(self.log).read()}")
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def fetch(self, path, kind, to):
        sign = [self.binary, "sign", "directory", "--server", SERVER, "--path", path, "--format", kind,
                "--base-url", self.base, "--config", self.config]
        link = subprocess.run(sign, check=True, capture_output=True, text=True).stdout.strip()
        with urllib.request.urlopen(link) as answer, open(to, "wb") as file:
            shutil.copyfileobj(answer, file)


# The run.


def unpack(reader, archive, expected, place):
    """What is wrong with what `reader` makes of `archive`; nothing if all is well."""
    name, _, _, command, _ = reader
    out = os.path.join(place, "out")
    os.makedirs(out)
    words = [word.replace("-oO", f"-o{out}") for word in command]
    words = [{"A": archive, "O": out}.get(word, word) for word in words]
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC", "NODE_PATH": "/usr/share/nodejs"}
    done = subprocess.run(words, cwd=out, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=300)
    said = (done.stdout + done.stderr).decode(errors="replace").strip()
    wrong = []
    if done.returncode != 0 or name.startswith("PHP") and said != "done":
        wrong.append(f"status {done.returncode}: {said[-500:]}")
    found = dict(below(os.fsencode(out)))
    differences = compare(expected, found)
    if differences and name == "bsdtar" and not compare(composed(expected), composed(found)):
        differences = [COMPOSED]
    wrong += differences
    outside = sorted(set(os.listdir(place)) - {"out"})
    return wrong + [f"outside of its folder: {outside}"] * bool(outside)


def excuse(reader, wrong):
    """The sentence about what is wrong, if all of it is known."""
    for name, pattern, sentence in KNOWN:
        if name == reader and wrong and all(re.search(pattern, line) for line in wrong):
            return sentence
    return None


def is_installed(reader):
    environment = {**os.environ, "NODE_PATH": "/usr/share/nodejs"}
    with contextlib.suppress(FileNotFoundError):
        return subprocess.run(reader[4], env=environment, capture_output=True, stdin=subprocess.DEVNULL).returncode == 0
    return False


def missing(archive, expected, tree):
    """Files that are on the server, can be packed, and are not in the archive."""
    contents = {what for _, what in expected.values()}
    lost = [path for path, (kind, _, what) in below(tree.root) if kind == "file" and what not in contents]
    if archive.endswith(".zip"):
        lost = [path for path in lost if path not in tree.too_long]
        lost += [content for content in tree.linked if hashlib.sha256(content).hexdigest() not in contents]
    return [f"not in the archive: {path}" for path in lost]


def check(node, tree, name, readers, work, report):
    for kind in ("zip", "tar"):
        archive = os.path.join(work, f"{name}.{kind}")
        node.fetch(name, kind, archive)
        expected, wrong = held(archive)
        report(("in it", kind), name, wrong + missing(archive, expected, tree))
        for reader in readers:
            if kind in reader[2].split():
                place = os.path.join(work, "place")
                report((reader[0], kind), name, unpack(reader, archive, expected, place))
                subprocess.run(["chmod", "-R", "u+rwX", place], check=True)
                shutil.rmtree(place)


def table(results):
    """A row for each reader and format, a column for each tree."""
    names = [tree.__name__.strip("_") for tree in TREES]
    rows = sorted(dict.fromkeys(row for row, _ in results), key=lambda row: row[1] != "zip")
    width = max(len(" ".join(row)) for row in rows) + 2
    print("\n" + " " * width + " ".join(names))
    for row in rows:
        cells = [results.get((row, name), "").center(len(name)) for name in names]
        print(" ".join(row).ljust(width) + " ".join(cells))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", nargs="?", default="target/release/winglet")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="of the random tree")
    parser.add_argument("--keep", action="store_true", help="leave the archives, and say where")
    options = parser.parse_args()
    random.seed(options.seed)
    print(f"seed {options.seed}")
    absent = [reader for reader in READERS if not is_installed(reader)]
    for name, package, *_ in absent:
        print(f"skip - {name} is not installed (Debian: {package})")
    is_strict = os.environ.get("WINGLET_STRICT", "0") != "0"
    readers = [reader for reader in READERS if reader not in absent]
    results, remarks, failures = {}, [], 0

    def report(row, name, wrong):
        nonlocal failures
        if sentence := excuse(row[0], wrong):
            remarks.extend([sentence] * (sentence not in remarks))
            results[row, name] = f"({remarks.index(sentence) + 1})"
            return
        results[row, name] = "NO" if wrong else "ok"
        failures += bool(wrong)
        if wrong:
            print(f"not ok - {' '.join(row)} of {name}:", *wrong[:8], sep="\n    ", flush=True)

    work = tempfile.mkdtemp(prefix="winglet-readers-")
    try:
        with Node(os.path.abspath(options.binary), work) as node:
            outside = Tree(os.path.join(node.volume, "outside"))
            outside.file("file", OUTSIDE)
            for make in TREES:
                name = make.__name__.strip("_")
                tree = Tree(os.path.join(node.volume, name))
                make(tree)
                check(node, tree, name, readers, work, report)
    finally:
        if options.keep:
            print(f"kept in {work}")
        else:
            subprocess.run(["rm", "-rf", work], check=True)
    table(results)
    for number, sentence in enumerate(remarks, 1):
        print(f"({number}) {sentence}")
    print(f"{'not ok' if failures else 'ok'} - {len(readers)} readers, {len(TREES)} trees, {failures} failures")
    sys.exit(failures > 0 or is_strict and bool(absent))


if __name__ == "__main__":
    main()
