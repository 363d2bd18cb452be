"""Packs trees with Python's zipfile and tarfile, by the rules of Winglet's archives (DESIGN section 9) but
without its code, and compares what comes out with what unzip and tar make of Winglet's.

usage: oracle.py DIRECTORY SEED; each directory in it is a volume: the tree `world`, Winglet's zip and tar of
it, and what links out of the tree lead to."""

import calendar
import hashlib
import io
import os
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import time
import unicodedata
import zipfile

HOME = [b"home", b"container"]
BASE = [*HOME, b"world"]
NOTES = b".winglet-skipped.txt"
LONGEST = 255
# From here on unzip is a day late: it takes 2100 for a leap year.
YEAR_2100 = 4102444800 * 10**9


def walk(root, path=b""):
    """Every path below `root` after its directory's, names by their bytes, with its lstat."""
    for name in sorted(os.listdir(os.path.join(root, path))):
        member = os.path.join(path, name)
        status = os.lstat(os.path.join(root, member))
        yield member, status
        if stat.S_ISDIR(status.st_mode):
            yield from walk(root, member)


# Names of a zip.


def escaped(name):
    """Control characters, what some take for a separator or a drive, and what is no text, as %XX."""

    def sign(char):
        if ord(char) < 32 or char in "\x7f\\:" or "\udc80" <= char <= "\udcff":
            return f"%{os.fsencode(char)[0]:02X}"
        return char

    return "".join(map(sign, os.fsdecode(name)))


def spelt(name, number):
    """The name in a zip of the file `name`, with the number that tells it apart (0: none)."""
    text = escaped(name)
    dot = text.rfind(".")
    if dot < 1 or len(text[dot:].encode()) > 32:
        dot = len(text)
    stem, end = text[:dot], (f" ({number})" if number else "") + text[dot:]
    if len((stem + end).encode()) > LONGEST:
        mark = "~" + hashlib.sha256(name).hexdigest()[:8]
        room = LONGEST - len((mark + end).encode())
        stem = stem.encode()[:room].decode("utf-8", "ignore") + mark
    return stem + end


def folded(text):
    return "".join(part.lower() for char in text for part in unicodedata.normalize("NFD", char))


def zip_names(names):
    """By each of one directory's names, the one that it has in a zip."""
    plain = {name: spelt(name, 0) for name in names}
    taken = {folded(text) for text in plain.values()}
    groups = {}
    for name in names:
        groups.setdefault(folded(plain[name]), []).append(name)
    for group in groups.values():
        kept = {plain[name]: name for name in reversed(group)}
        kept.update({plain[name]: name for name in group if os.fsencode(plain[name]) == name})
        number = 1
        for name in group:
            if kept[plain[name]] != name:
                while True:
                    number += 1
                    text = spelt(name, number)
                    if folded(text) not in taken:
                        break
                taken.add(folded(text))
                plain[name] = text
    return plain


def zip_paths(members):
    """By each path, the one that it has in a zip."""
    below = {}
    for path, _ in members:
        below.setdefault(os.path.dirname(path), []).append(os.path.basename(path))
    names = {above: zip_names(all_names) for above, all_names in below.items()}
    paths = {b"": ""}
    for path, _ in members:
        above, name = os.path.split(path)
        paths[path] = "/".join(filter(None, (paths[above], names[above][name])))
    return paths


def led(root, path):
    """Where in the volume the link `path` leads, unless that is in circles or out."""
    volume, at, left, links = os.path.dirname(root), [], [b"world", *path.split(b"/")], 0
    while left:
        name = left.pop(0)
        if name == b"..":
            if not at:
                return None
            at.pop()
        elif name not in (b"", b"."):
            at.append(name)
        if not os.path.islink(os.path.join(volume, *at)):
            continue
        target = os.readlink(os.path.join(volume, *at)).split(b"/")
        at.pop()
        if target[0] == b"":
            if target[1:3] != HOME:
                return None
            at, target = [], target[3:]
        left = target + left
        links += 1
        if links > 40:
            return None
    return os.path.join(volume, *at)


def pack_zip(root, members, out):
    """Writes the zip. Returns true if there is something to be noted about it."""
    paths, is_noted = zip_paths(members), not members
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, status in members:
            file = os.path.join(root, path)
            if stat.S_ISLNK(status.st_mode):
                file = led(root, path)
                if file is None or not os.path.isfile(file):
                    is_noted = True
                    continue
                status = os.lstat(file)
            is_noted |= paths[path].encode() != path
            is_directory = stat.S_ISDIR(status.st_mode)
            seconds = int(status.st_mtime_ns // 10**9)
            date = time.gmtime(min(max(seconds, 315532800), 4354819199))[:6]
            info = zipfile.ZipInfo(paths[path] + "/" * is_directory, date)
            info.create_system = 3
            mode = status.st_mode & (0o171777 if is_directory else 0o170777)
            info.external_attr = mode << 16 | 16 * is_directory
            if seconds < 1 << 31:
                info.extra = struct.pack("<HHBi", 0x5455, 5, 1, max(seconds, 0))
            content = b"" if is_directory else read(root, file)
            archive.writestr(info, content)
    return is_noted


def unpack_zip(archive, out):
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            opened.extract(info, out)
        for info in reversed(opened.infolist()):
            path = os.path.join(out, info.filename)
            seconds = calendar.timegm((*info.date_time, 0, 0, 0))
            if info.extra:
                seconds = struct.unpack("<HHBi", info.extra)[3]
            os.chmod(path, info.external_attr >> 16 & 0o7777)
            os.utime(path, (seconds, seconds))


# Links of a tar.


def target(path, text, links):
    """What the link at `path` says in a tar, or None if it is left out."""
    above = path.split(b"/")[:-1]
    parts = [part for part in text.split(b"/") if part not in (b"", b".")]
    if text.startswith(b"/"):
        if parts[: len(BASE)] != BASE or b".." in parts:
            return None
        return os.path.relpath(b"/" + b"/".join(parts[len(BASE) :]), b"/" + b"/".join(above))
    at = list(above)
    for part in parts:
        if part != b"..":
            at.append(part)
        elif not at or b"/".join(at) in links:
            return None
        else:
            at.pop()
    return text


def pack_tar(root, members, out):
    """Writes the tar. Returns true if there is something to be noted about it."""
    is_noted = False
    links = {path for path, status in members if stat.S_ISLNK(status.st_mode)}
    with tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as archive:
        for path, status in members:
            info = tarfile.TarInfo(os.fsdecode(path))
            content = b""
            if path in links:
                text = target(path, os.readlink(os.path.join(root, path)), links)
                if text is None or led(root, path) is None:
                    is_noted = True
                    continue
                info.type, info.linkname = tarfile.SYMTYPE, os.fsdecode(text)
            elif stat.S_ISDIR(status.st_mode):
                info.type, info.mode = tarfile.DIRTYPE, status.st_mode & 0o1777
            else:
                content = read(root, path)
                info.size, info.mode = len(content), status.st_mode & 0o777
            # As its own text, since a float is not exact.
            seconds, nanoseconds = divmod(status.st_mtime_ns, 10**9)
            nanoseconds = 0 if seconds < 0 else nanoseconds
            info.pax_headers = {"mtime": f"{seconds}.{nanoseconds:09}"}
            archive.addfile(info, io.BytesIO(content))
    return is_noted


def unpack_tar(archive, out):
    with tarfile.open(archive) as opened:
        opened.extractall(out)
        for member in reversed(opened.getmembers()):
            path = os.path.join(out, member.name)
            seconds, _, nanoseconds = member.pax_headers["mtime"].partition(".")
            if not member.issym():
                os.utime(path, ns=(0, int(seconds) * 10**9 + int(nanoseconds)))


# Both.


def read(root, path):
    with open(os.path.join(root, path), "rb") as file:
        return file.read()


def facts(root):
    """What there is below `root`: kind, mode, time, and content or target."""
    found = {}
    for path, status in walk(root):
        if path == NOTES:
            continue
        if stat.S_ISLNK(status.st_mode):
            found[path] = ("link", os.readlink(os.path.join(root, path)))
        else:
            content = None if stat.S_ISDIR(status.st_mode) else hashlib.sha256(read(root, path)).digest()
            found[path] = (oct(status.st_mode), min(status.st_mtime_ns, YEAR_2100), content)
    return found


def careful(archive, out):
    """Python's own filter for archives of strangers lets every member pass, with all links in place."""
    # Python before 3.11.4 has none.
    let_pass = getattr(tarfile, "data_filter", lambda member, path: member)
    with tarfile.open(archive) as opened:
        for member in opened:
            let_pass(member, out)


def check(place):
    root = os.path.join(place, b"world")
    members = list(walk(root))
    # bsdtar would compose letters and accents, and so make one file of two.
    formats = (
        (b"zip", pack_zip, unpack_zip, ["unzip", "-qqK", "ARCHIVE", "-d", "OUT"]),
        (b"tar", pack_tar, unpack_tar, ["tar", "--warning=none", "-xpf", "ARCHIVE", "-C", "OUT"]),
    )
    for name, pack, unpack, command in formats:
        packed, ours, theirs = (os.path.join(place, part) for part in (b"oracle", b"ours", b"theirs"))
        os.mkdir(ours)
        os.mkdir(theirs)
        is_noted = pack(root, members, os.fsdecode(packed))
        unpack(os.fsdecode(packed), os.fsdecode(theirs))
        archive = os.path.join(place, name)
        subprocess.run([{"ARCHIVE": archive, "OUT": ours}.get(word, word) for word in command], check=True)
        found, expected = facts(ours), facts(theirs)
        paths = sorted(path for path in found.keys() | expected.keys() if found.get(path) != expected.get(path))
        differences = [f"{path}: {found.get(path)}, not {expected.get(path)}" for path in paths]
        if is_noted and not os.path.exists(os.path.join(ours, NOTES)):
            differences.append("nothing is noted")
        if differences:
            sys.exit("\n".join([f"{sys.argv[2]}: {os.fsdecode(archive)}", *differences]))
        if name == b"tar":
            careful(archive, os.fsdecode(ours))
        shutil.rmtree(ours)
        shutil.rmtree(theirs)


# What is compared are the archives, and not what Python makes of strangers' ones.
tarfile.TarFile.extraction_filter = staticmethod(lambda member, path: member)
os.environ.update(TZ="UTC", LC_ALL="C.UTF-8")
time.tzset()
for number in os.listdir(os.fsencode(sys.argv[1])):
    check(os.path.join(os.fsencode(sys.argv[1]), number))
