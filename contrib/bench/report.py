"""Makes a table in Markdown and a picture in SVG out of what bench.py measured."""

import math
import platform
import re
import statistics
import subprocess
from html import escape

from servers import CORES

ORDER = ["Winglet", "Winglet with state_directory", "nginx", "lighttpd", "Caddy", "copy, as Wings"]
# Light and dark backgrounds: every colour is told apart on both. What draws outside a browser may
# know nothing of style sheets, so that the light ones are attributes.
ROOT = 'font-family="system-ui, sans-serif" font-size="13" fill="#24292f"'
PAINT = {
    "title": 'class="title" font-weight="600" font-size="14"',
    "number": 'class="number" fill="#57606a" font-size="12"',
    "note": 'class="note" fill="#57606a" font-size="12"',
    "spread": 'class="spread" stroke="#24292f" stroke-width="1.5"',
    "ours": 'class="ours" fill="#1f6feb"',
    "other": 'class="other" fill="#a5b1bd"',
    "grid": 'class="grid" stroke="#d0d7de" stroke-width="1"',
}
STYLE = """
    @media (prefers-color-scheme: dark) {
        text { fill: #e6edf3 } .number, .note { fill: #9aa4af }
        .spread { stroke: #e6edf3 } .ours { fill: #58a6ff } .other { fill: #57626d } .grid { stroke: #30363d }
    }
"""


def figure(value):
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(values):
    """Median, and between which values all rounds lie."""
    text = figure(statistics.median(values))
    return text if len(values) < 2 else f"{text} ({figure(min(values))}–{figure(max(values))})"


def rows(measure):
    return [name for name in ORDER if name in measure]


def ratios(measure, key):
    """Winglet's value divided by each other's of the same round, as medians."""
    ours = measure.get("Winglet", {}).get(key, [])
    return {
        name: statistics.median([a / b for a, b in zip(ours, values[key]) if b])
        for name, values in measure.items()
        # Another way to run Winglet is measured on its own, and has no neighbours.
        if not name.startswith("Winglet") and ours and any(values.get(key, []))
    }


def table(measure, columns, compare):
    """One row for a server; `columns` are keys with headings."""
    lines = ["| | " + " | ".join(columns.values()) + " | " + compare[1] + " |"]
    lines.append("| --- |" + " ---: |" * (len(columns) + 1))
    by = ratios(measure, compare[0])
    for name in rows(measure):
        cells = [spread(measure[name][key]) if key in measure[name] else "" for key in columns]
        ratio = f"{by[name]:.2f}" if name in by else ""
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {ratio} |")
    return "\n".join(lines)


def machine():
    model, memory = platform.machine(), 0
    with open("/proc/cpuinfo") as cpuinfo:
        for line in cpuinfo:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
    with open("/proc/meminfo") as meminfo:
        memory = int(meminfo.readline().split()[1]) / 2**20
    kernel = ".".join(platform.release().split("-")[0].split(".")[:2])
    return f"{CORES} cores ({model}), {memory:.0f} GiB of memory, Linux {kernel}"


def versions(bench):
    found = []
    for kind in bench.kinds[1:] + bench.copies:
        found.append(kind.version().replace("/", " "))
    for tool in ("curl", "wrk"):
        output = subprocess.run([tool, "--version"], capture_output=True, text=True)
        number = re.search(r"\d+\.\d+(\.\d+)?", output.stdout + output.stderr)
        found.append(f"{tool} {number.group()}")
    return ", ".join(found)


DOWNLOADS = {
    "wall": "seconds", "rate": "MiB/s", "cpu": "CPU s per GiB", "peak": "peak RSS, MiB",
    "sockets": "kernel's sockets, MiB",
}
MANY = DOWNLOADS | {"fairness": "fastest to slowest"}
REQUESTS = {
    "rate": "requests/s", "cpu": "CPU µs a request", "p50": "p50, ms", "p99": "p99, ms",
    "peak": "peak RSS, MiB",
}
STARTS = {
    "first": "first byte, ms", "rss": "idle RSS, MiB", "pss": "idle PSS, MiB",
    "own": "private and dirty, MiB", "binary": "binary, MiB",
}
WALL, RATE = ("wall", "Winglet's time by its"), ("rate", "Winglet's rate by its")


def markdown(bench, load):
    results = bench.results
    one = f"One download of {bench.large / 2**30:g} GiB"
    many = f"32 downloads at once, of 32 files of {bench.large // len(bench.parts) >> 20} MiB"
    sections = [
        ("one", one, DOWNLOADS, WALL),
        ("one cold", f"{one}, from the disk", DOWNLOADS, WALL),
        ("one TLS", f"{one}, TLS", DOWNLOADS, WALL),
        ("one TLS cold", f"{one}, TLS, from the disk", DOWNLOADS, WALL),
        ("many32", many, MANY, WALL),
        ("many32 cold", f"{many}, from the disk", MANY, WALL),
        ("many32 TLS", f"{many}, TLS", MANY, WALL),
        ("many32 TLS cold", f"{many}, TLS, from the disk", MANY, WALL),
        ("many64", "64 downloads at once, of one file of 64 MiB", MANY, WALL),
        ("new", "Files of 4 KiB, a new connection each", REQUESTS, RATE),
        ("kept", "Files of 4 KiB, kept-alive connections", REQUESTS, RATE),
        ("kept TLS", "Files of 4 KiB, kept-alive TLS connections", REQUESTS, RATE),
        ("start", "Start and idle", STARTS, ("first", "Winglet's first byte by its")),
        ("start TLS", "Start and idle, TLS", STARTS, ("first", "Winglet's first byte by its")),
    ]
    parts = [
        "# Results\n",
        f"Measured by `make bench` on {machine()}; {versions(bench)}. Clients and servers share the"
        f" cores. The load average before was {load:.1f}. Medians of rounds, in parentheses the least and"
        " the most; the last column compares neighbouring runs of each round and is the figure to go by"
        " on a machine whose speed changes. Winglet verifies and spends a token for each request; the"
        " others check nothing.\n",
        "![Time, rate and memory beside nginx, lighttpd and Caddy](results.svg)\n",
    ]
    if bench.skipped:
        parts.append(f"Skipped: {', '.join(bench.skipped)}.\n")
    parts.append(neighbour(bench))
    for key, title, columns, compare in sections:
        if key in results:
            parts.append(f"## {title}\n\n{table(results[key], columns, compare)}\n")
    parts += [archives(bench), growth(results), claims(results), shared(results)]
    return "\n".join(part for part in parts if part)


def growth(results):
    if "growth" not in results:
        return ""
    lines = [
        "## Growth with downloads and idle connections\n",
        "| idle connections | downloads of 64 MiB | MiB/s | peak RSS, MiB | requests/s beside, new connections |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for key, values in results["growth"].items():
        idle, count = key.split("/")
        small = spread(values["small_rate"]) if "small_rate" in values else ""
        lines.append(f"| {int(idle):,} | {count} | {spread(values['rate'])} | {spread(values['peak'])} | {small} |")
    return "\n".join(lines) + "\n"


def neighbour(bench):
    """What a game server notices, and what it keeps in memory."""
    if "neighbour" not in bench.results:
        return ""
    lines = [
        "## Beside a game server\n",
        f"A game reads blocks of 4 KiB of its world of 400 MiB, four fifths of them in a fifth of it,"
        f" while {bench.large / 2**30:g} GiB are downloaded over and over at full speed. Memory for both:"
        f" {bench.cgroup}.\n",
        "![A game's reads and what it keeps in memory beside a download](neighbour.svg)\n",
        "| downloads from | p50, µs | p99, µs | p99.9, µs | world in memory, % | download, MiB/s |",
        "| --- |" + " ---: |" * 5,
    ]
    for name, values in bench.results["neighbour"].items():
        values = values | {"resident": [100 * share for share in values["resident"]]}
        keys = ("p50", "p99", "p99.9", "resident", "rate")
        cells = [spread(values[key]) if key in values else "" for key in keys]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [
        "\nA game works for 30 ms on one core 20 times per second, beside 32 downloads with TLS.\n",
        "| downloads from | ticks more than 10 ms late, % | downloads, MiB/s |", "| --- | ---: | ---: |",
    ]
    for name, values in bench.results["ticks"].items():
        late = spread([100 * share for share in values["late"]])
        rate = spread(values["rate"]) if "rate" in values else ""
        lines.append(f"| {name} | {late} | {rate} |")
    return "\n".join(lines) + "\n"


def archives(bench):
    """Folders, by what sends them."""
    results, part = bench.results, 10 if bench.quick else 1
    titles = [
        ("small-files", f"A folder of {100_000 // part:,} files of 4 KiB"),
        ("world", f"A folder of {64 // part} files of 8 MiB"),
    ]
    parts = []
    for folder, title in titles:
        rows = results.get(f"archive {folder}")
        if not rows:
            continue
        parts += [
            f"## {title} as an archive\n",
            "| made by | first byte, ms | from a cold cache, ms | MiB/s | CPU s per GiB | memory, MiB | larger than the files, % |",
            "| --- |" + " ---: |" * 6,
        ]
        for name, values in rows.items():
            keys = ("first", "cold", "rate", "cpu", "memory", "overhead")
            cells = [spread(values[key]) if key in values else "" for key in keys]
            parts.append(f"| {name} | " + " | ".join(cells) + " |")
        parts.append("")
    return "\n".join(parts)


def claims(results):
    if "claims" not in results:
        return ""
    lines = [
        "## Growth with remembered links\n",
        "| links remembered before | claims/s, kept-alive | CPU µs a claim | p99, ms | RSS after, MiB |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for tracked, values in results["claims"].items():
        cells = [spread(values[key]) for key in ("rate", "cpu", "p99", "rss")]
        lines.append(f"| {int(tracked):,} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def shared(results):
    if "shared" not in results:
        return ""
    lines = [
        "## Files of 4 KiB, kept-alive connections, one of several front ends\n",
        "| | requests/s | CPU µs a request | p50, ms | p99, ms |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, values in results["shared"].items():
        cells = [spread(values[key]) for key in ("rate", "cpu", "p50", "p99")]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


# What is shown of which part; {large} is the large file's size. All of these are better small, but
# for rates.
PANELS = [
    ("one", "wall", "One download of {large}: seconds"),
    ("one cold", "wall", "The same from the disk: seconds"),
    ("many32", "wall", "32 downloads at once: seconds"),
    ("one TLS", "wall", "One download of {large}, TLS: seconds"),
    ("new", "rate", "4 KiB, new connections: requests/s"),
    ("kept", "rate", "4 KiB, kept alive: requests/s"),
    ("start", "own", "Idle: private and dirty MiB"),
    ("start", "rss", "Idle: resident MiB"),
]
WIDTH, BAR, LEFT = 430, 22, 104


def height(count):
    """Of a panel with so many bars."""
    return 26 + count * (BAR + 6) + 16


class Linear:
    """From 0 to the most."""

    def __init__(self, values, width):
        self.scale = width / (max(values) or 1)

    def place(self, value):
        return value * self.scale

    def lines(self):
        return []


class Logarithmic:
    """From one power of ten to another, for what differs by a thousand."""

    def __init__(self, values, width):
        self.low = math.floor(math.log10(min(values)))
        # A bar that ends where the axis begins could not be seen.
        self.low -= min(values) < 1.5 * 10**self.low
        self.high = math.ceil(math.log10(max(values)))
        self.scale = width / (self.high - self.low)

    def place(self, value):
        return (math.log10(value) - self.low) * self.scale

    def lines(self):
        return [10**power for power in range(self.low, self.high + 1)]


def panel(values, title, left=LEFT, axis=Linear):
    """One bar for each name in `values`, which holds the rounds of each."""
    axis = axis([one for rounds in values.values() for one in rounds], WIDTH - LEFT - 90)
    bottom = 26 + len(values) * (BAR + 6)
    lines = [f'<text {PAINT["title"]} x="0" y="14">{escape(title)}</text>']
    for value in axis.lines():
        x = left + axis.place(value)
        lines += [
            f'<line {PAINT["grid"]} x1="{x:.1f}" x2="{x:.1f}" y1="22" y2="{bottom}"/>',
            f'<text {PAINT["number"]} x="{x:.1f}" y="{bottom + 12}" text-anchor="middle">{value:,g}</text>',
        ]
    for number, (name, rounds) in enumerate(values.items()):
        y = 26 + number * (BAR + 6)
        median = statistics.median(rounds)
        kind = "ours" if name == "Winglet" else "other"
        middle = y + BAR / 2
        low, high = left + axis.place(min(rounds)), left + axis.place(max(rounds))
        lines += [
            f'<text x="{left - 8}" y="{middle + 4.5}" text-anchor="end">{escape(name)}</text>',
            f'<rect {PAINT[kind]} x="{left}" y="{y}" width="{axis.place(median):.1f}" height="{BAR}" rx="2"/>',
            f'<line {PAINT["spread"]} x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>',
            f'<text {PAINT["number"]} x="{high + 8:.1f}" y="{middle + 4}">{figure(median)}</text>',
        ]
    return lines


def neighbour_svg(results):
    """The game beside downloads: how long its reads take, and what it keeps."""
    measure, left = results["neighbour"], 190
    panels = [
        ("p99", 1, "Reads of a game beside a download: p99, µs (logarithmic)", Logarithmic),
        ("resident", 100, "Of its world in memory afterwards: %", Linear),
    ]
    size = f"{2 * (WIDTH + left - LEFT) + 60} {height(len(measure)) + 24}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" {ROOT} role="img"'
        ' aria-label="A game server beside a download">',
        f"<style>{STYLE}</style>",
    ]
    for number, (key, factor, title, axis) in enumerate(panels):
        values = {name: [factor * one for one in of[key]] for name, of in measure.items()}
        lines.append(f'<g transform="translate({20 + number * (WIDTH + left - LEFT + 20)} 12)">')
        lines += panel(values, title, left, axis)
        lines.append("</g>")
    return "\n".join(lines) + "\n</svg>\n"


def svg(bench):
    large = f"{bench.large / 2**30:g} GiB"
    found = [(bench.results[m], key, title) for m, key, title in PANELS if m in bench.results]
    shown = [[name for name in rows(measure) if "with" not in name] for measure, _, _ in found]
    step = height(max(map(len, shown), default=0))
    size = f"{2 * WIDTH + 60} {(len(found) + 1) // 2 * step + 40}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" {ROOT} role="img"'
        ' aria-label="Winglet beside nginx, lighttpd and Caddy">',
        f"<style>{STYLE}</style>",
    ]
    for number, ((measure, key, title), names) in enumerate(zip(found, shown)):
        x, y = 20 + number % 2 * (WIDTH + 20), 12 + number // 2 * step
        lines.append(f'<g transform="translate({x} {y})">')
        lines += panel({name: measure[name][key] for name in names}, title.format(large=large))
        lines.append("</g>")
    note = "Medians; lines from the least to the most of all rounds. Only Winglet checks a token for each request."
    y = (len(found) + 1) // 2 * step + 28
    lines.append(f'<text {PAINT["note"]} x="20" y="{y}">{escape(note)}</text>')
    lines.append("</svg>\n")
    return "\n".join(lines)


def write(bench, load):
    """The files of results by name."""
    files = {"RESULTS.md": markdown(bench, load), "results.svg": svg(bench)}
    if "neighbour" in bench.results:
        files["neighbour.svg"] = neighbour_svg(bench.results)
    return files
