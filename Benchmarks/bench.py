#!/usr/bin/env python3
"""Measures Grape beside the machine's limits, in the same run, and writes docs/benchmarks.md.

  bench.py [--grape PATH] [--only NAME ...] [--repeat N] [--quick] [--output FILE]

Absolute figures depend on the machine and on what else it does; the ratios to a limit measured a moment before are
what counts. Every measurement is therefore repeated in rounds (limits, Grape, limits, Grape ...) and its median
taken. Needs gcc, make, python3, and for the Swift applications the Swift toolchain; Redis is measured too if
redis-server is installed. Exit code 0: measured; 1: something could not be measured; 2: a target was missed (--gate).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, Iterator, Optional

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
OUT = HERE / "out"
APPS = HERE / "apps"


class Unmeasured(Exception):
    """A measurement could not be made; the message says why."""


@dataclasses.dataclass
class Options:
    grape: pathlib.Path
    repeat: int
    quick: bool

    def scaled(self, count: int) -> int:
        return max(1, count // 20) if self.quick else count


@dataclasses.dataclass
class Row:
    """One line of the report. `target` bounds the ratio from below, or from above if `at_most`."""

    what: str
    figure: str
    limit: str = ""
    ratio: Optional[float] = None
    target: Optional[float] = None
    at_most: bool = False

    @property
    def reached(self) -> Optional[bool]:
        if self.ratio is None or self.target is None:
            return None
        return self.ratio <= self.target if self.at_most else self.ratio >= self.target


# Running things


def run(command: list, **options: Any) -> str:
    """A program's output; Unmeasured, with what it said, if it fails."""
    done = subprocess.run(
        [word if isinstance(word, (str, os.PathLike)) else str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )
    if done.returncode != 0:
        words = " ".join(str(word) for word in command)
        raise Unmeasured(f"{words}: exit code {done.returncode}: {(done.stderr or done.stdout).strip()[-800:]}")
    return done.stdout


class Node:
    """A node on a fresh data folder beside the files of the limit programs."""

    def __init__(self, options: Options) -> None:
        self.grape_path = options.grape
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="node-", dir=OUT))
        self.data = self.folder / "data"
        self.process: Optional[subprocess.Popen] = None

    def __enter__(self) -> "Node":
        self.start()
        return self

    def start(self) -> None:
        with open(self.folder / "node.log", "ab") as log:
            self.process = subprocess.Popen(
                [self.grape_path, "serve", "--data", self.data], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.grape("node", "wait", "--timeout", "10s")

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def __exit__(self, *_: Any) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def grape(self, *words: Any, timeout: float = 600) -> str:
        environment = {**os.environ, "GRAPE_NODE": os.fspath(self.data)}
        return run([self.grape_path, *words], env=environment, timeout=timeout)

    def json(self, *words: Any) -> dict:
        return json.loads(self.grape(*words, "--json"))

    def deploy(self, language: str, *names: str) -> None:
        for name in names:
            self.grape("deploy", package(language, name))

    def cpu_seconds(self) -> float:
        fields = pathlib.Path("/proc", str(self.process.pid), "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        status = pathlib.Path("/proc", str(self.process.pid), "status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024


_built: set[str] = set()


def package(language: str, name: str) -> pathlib.Path:
    """The folder to deploy. Swift products are built first, and laid beside their manifest."""
    if language == "python":
        return APPS / "python" / name
    source = APPS / "swift"
    build = ["swift", "build", "-c", "release", "--package-path", source]
    if "swift" not in _built:
        run(build, timeout=1800)
        _built.add("swift")
    binaries = pathlib.Path(run([*build, "--show-bin-path"]).strip())
    folder = OUT / "apps" / name
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    shutil.copy(source / "manifests" / name / "grape.yaml", folder)
    shutil.copy(binaries / name, folder / "bin" / name)
    return folder


# The limits


class Limits:
    """What the machine can do at most, measured anew in every round."""

    def __init__(self, options: Options) -> None:
        run(["make", "-s", "-C", HERE / "limits", f"OUT={OUT / 'limits'}"])
        self.options = options
        self.rounds: list[dict[str, dict]] = []

    def measure(self, names: set[str]) -> None:
        commands = {
            "append": ["append", OUT, self.options.scaled(256)],
            "sync": ["sync", OUT, self.options.scaled(5000)],
            "socket": ["socket", 1 if self.options.quick else 4, self.options.scaled(50_000)],
            "memcpy": ["memcpy"],
        }
        self.rounds.append({
            name: json.loads(run([OUT / "limits" / words[0], *map(str, words[1:])]))
            for name, words in commands.items() if name in names
        })

    def median(self, program: str, *path: str) -> float:
        values = []
        for round in self.rounds:
            value: Any = round[program]
            for name in path:
                value = value[name]
            values.append(value)
        return statistics.median(values)

    # The rows of the report that are about the machine alone.

    def rows(self) -> Iterator[Row]:
        have = self.rounds[0].keys()
        if "append" in have:
            for blocks, name in (("grows", "file grows"), ("allocated", "blocks allocated"), ("overwrites", "blocks overwritten")):
                bytes_per_second = self.median("append", blocks, "bytesPerSecond")
                records = self.median("append", blocks, "recordsPerSecond")
                yield Row(f"append: pwritev of 256 KiB + fdatasync, {name}", f"{rate(records)} records/s, {size(bytes_per_second)}/s")
        if "sync" in have:
            for blocks, name in (("grows", "file grows"), ("allocated", "blocks allocated"), ("overwrites", "blocks overwritten")):
                yield Row(
                    f"sync: write of 256 bytes + fdatasync, {name}",
                    f"p50 {self.median('sync', blocks, 'p50Micros'):.0f} µs, p99 {self.median('sync', blocks, 'p99Micros'):.0f} µs",
                )
        if "socket" in have:
            yield Row("Unix socket, one way, writes of 64 KiB", f"{size(self.median('socket', 'oneWay', 'bytesPerSecond'))}/s")
            yield Row(
                "Unix socket, ping-pong of 64 bytes",
                f"p50 {self.median('socket', 'pingPong', 'p50Micros'):.1f} µs, p99 {self.median('socket', 'pingPong', 'p99Micros'):.1f} µs",
            )
        if "memcpy" in have:
            yield Row("memcpy of 256 MiB", f"{size(self.median('memcpy', 'bytesPerSecond'))}/s")


# The measurements


class Measurement:
    """One subject. `measure` is called once per round, `rows` at the end."""

    name = ""
    limits: tuple[str, ...] = ()

    def __init__(self, options: Options) -> None:
        self.options = options
        self.results: list[dict] = []

    def measure(self) -> None:
        self.results.append(self.once())

    def once(self) -> dict:
        raise NotImplementedError

    def rows(self, limits: Limits) -> Iterator[Row]:
        raise NotImplementedError

    def median(self, name: str) -> float:
        return statistics.median(result[name] for result in self.results)


class Ingest(Measurement):
    """Durable appends of 100-byte values with 8-byte keys, client and node as separate processes."""

    name = "ingest"
    limits = ("append",)

    def once(self) -> dict:
        records = self.options.scaled(2_000_000)
        with Node(self.options) as node:
            node.deploy("python", "counts")
            node.grape("app", "stop", "counts")
            return node.json("bench", "ingest", "counts@word", "--records", records, "--value-bytes", 100)

    def rows(self, limits: Limits) -> Iterator[Row]:
        mine, raw = self.median("bytesPerSecond"), limits.median("append", "allocated", "bytesPerSecond")
        yield Row(
            "durable ingest, 100-byte values",
            f"{rate(self.median('recordsPerSecond'))} records/s, {size(mine)}/s", f"raw append {size(raw)}/s", mine / raw, 0.5,
        )


class Pipeline(Measurement):
    """Two stages (capitals, count by key) from a full input topic; nothing may be lost."""

    language = ""
    records = 0
    target = 0.0
    peer = ("", 0.0)

    def once(self) -> dict:
        records = self.options.scaled(self.records)
        with Node(self.options) as node:
            node.deploy(self.language, "counts", "uppercase")
            result = node.json("bench", "pipeline", "uppercase@word", "--last", "counts@word", "--records", records)
            total = int(node.grape("exec", "counts@total", "--block", "--timeout", "30s"))
            if total != records:
                raise Unmeasured(f"{records} records went in, {total} were counted")
            return result

    def rows(self, limits: Limits) -> Iterator[Row]:
        mine = self.median("recordsPerSecond")
        name, peer = self.peer
        yield Row(
            f"two stages in {self.language.capitalize()} workers", f"{rate(mine)} records/s", f"{name} {rate(peer)} records/s",
            mine / peer, self.target,
        )


class SwiftPipeline(Pipeline):
    name, language, records = "pipeline-swift", "swift", 2_000_000
    # Both peers as measured earlier on a machine of the same kind, see the report.
    peer, target = ("bare librdkafka loop", 900_000), 800 / 900


class PythonPipeline(Pipeline):
    name, language, records = "pipeline-python", "python", 1_000_000
    peer, target = ("Bytewax", 112_000), 200 / 112


class Counting(Measurement):
    """Keyed counting in state (10,000 keys, 100-byte events) from a full input topic, exactly once and durable; and the same events taken and
    forgotten. What is counted must be what was sent."""

    language = ""
    records = 0
    target = 0.0
    peer = ("", 0.0)

    def once(self) -> dict:
        records = self.options.scaled(self.records)
        with Node(self.options) as node:
            node.deploy(self.language, "tally")
            results = {}
            for slot in ("pass", "word"):
                before = node.json("stats")["log"]["bytes"]
                result = node.json(
                    "bench", "pipeline", f"tally@{slot}", "--records", records, "--keys", 10_000, "--value-bytes", 100)
                node.grape("stats", "--wait-idle", "--timeout", "60s")
                results[slot] = (result["recordsPerSecond"], node.json("stats")["log"]["bytes"] - before)
            total = int(node.grape("exec", "tally@total", "--block", "--timeout", "30s"))
            if total != records:
                raise Unmeasured(f"{records} records went in, {total} were counted")
            return {"perSecond": results["word"][0], "cost": results["word"][1] / results["pass"][1]}

    def rows(self, limits: Limits) -> Iterator[Row]:
        mine = self.median("perSecond")
        name, peer = self.peer
        language = self.language.capitalize()
        yield Row(
            f"keyed counting in state, {language} workers", f"{rate(mine)} records/s", f"{name} {rate(peer)} records/s",
            mine / peer, self.target,
        )
        yield Row(
            f"bytes of log per event of that, {language}", f"{self.median('cost'):.3f}", "the same events without state", self.median("cost"),
            1.15, at_most=True,
        )


class SwiftCounting(Counting):
    name, language, records = "counting-swift", "swift", 2_000_000
    peer, target = ("Kafka Streams, exactly_once_v2", 191_000), 500 / 191


class PythonCounting(Counting):
    name, language, records = "counting-python", "python", 500_000
    peer, target = ("Bytewax", 87_600), 130 / 87.6


class Restore(Measurement):
    """A store of a million entries made anew from its changelog, against the start that finds it."""

    name = "restore"

    def once(self) -> dict:
        entries = self.options.scaled(1_000_000)
        with Node(self.options) as node:
            node.deploy("swift", "tally")
            node.json(
                "bench", "pipeline", "tally@word", "--records", entries, "--keys", entries, "--value-bytes", 100)
            node.grape("stats", "--wait-idle", "--timeout", "60s")
            node.grape("app", "stop", "tally")
            seconds = {}
            for how in ("found", "made"):
                node.stop()
                if how == "made":
                    shutil.rmtree(node.data / "state")
                started = time.monotonic()
                node.start()
                seconds[how] = time.monotonic() - started
            node.grape("app", "start", "tally")
            total = int(node.grape("exec", "tally@total", "--block", "--timeout", "30s"))
            if total != entries:
                raise Unmeasured(f"{entries} entries were written, {total} are there")
            return {"perSecond": entries / seconds["made"], "found": seconds["found"]}

    def rows(self, limits: Limits) -> Iterator[Row]:
        mine = self.median("perSecond")
        yield Row(
            "state of a million entries made anew, start of the node included", f"{rate(mine)} entries/s", "target 500,000 entries/s",
            mine / 500_000, 1.0,
        )


class Call(Measurement):
    """Blocking events with a Swift handler; request and reply are durable."""

    name = "call"
    limits = ("sync", "socket")

    def once(self) -> dict:
        with Node(self.options) as node:
            node.deploy("swift", "counts", "uppercase")
            node.grape("exec", "uppercase@echo", "--block", "--timeout", "20s")
            call = ("bench", "call", "uppercase@echo")
            one = node.json(*call, "--in-flight", 1, "--calls", self.options.scaled(5_000))
            many = node.json(*call, "--in-flight", 64, "--calls", self.options.scaled(200_000))
            return {"p50": one["p50Micros"], "p99": one["p99Micros"], "perSecond": many["callsPerSecond"]}

    def rows(self, limits: Limits) -> Iterator[Row]:
        sync, ping = limits.median("sync", "allocated", "p50Micros"), limits.median("socket", "pingPong", "p50Micros")
        raw = 2 * sync + 2 * ping
        yield Row(
            "blocking call, one in flight", f"p50 {self.median('p50'):.0f} µs, p99 {self.median('p99'):.0f} µs",
            f"two syncs and two ping-pongs {raw:.0f} µs", self.median("p50") / raw, 1.3, at_most=True,
        )
        yield Row(
            "blocking calls, 64 in flight", f"{rate(self.median('perSecond'))} calls/s", "target 40,000 calls/s",
            self.median("perSecond") / 40_000, 1.0,
        )


class Start(Measurement):
    """From starting a node to its first processed event, with a Swift worker; then what an idle node costs."""

    name = "start"

    def once(self) -> dict:
        with Node(self.options) as node:
            node.deploy("swift", "counts")
            node.grape("exec", "counts@total", "--block", "--timeout", "20s")
            node.stop()
            begin = time.monotonic()
            node.start()
            node.grape("exec", "counts@total", "--block", "--timeout", "20s")
            taken = time.monotonic() - begin
            before, begin = node.cpu_seconds(), time.monotonic()
            # The interval over which idleness is measured.
            time.sleep(2 if self.options.quick else 10)
            idle = (node.cpu_seconds() - before) / (time.monotonic() - begin)
            return {"seconds": taken, "idle": idle, "resident": node.resident_bytes()}

    def rows(self, limits: Limits) -> Iterator[Row]:
        taken, idle, resident = self.median("seconds"), self.median("idle"), self.median("resident")
        yield Row(
            "start of a node to its first processed event", f"{taken * 1000:.0f} ms (two command lines included)", "target 500 ms",
            taken / 0.5, 1.0, at_most=True,
        )
        yield Row("idle node, processor", f"{idle * 100:.2f} % of a core", "target below 0.5 %", idle / 0.005, 1.0, at_most=True)
        yield Row("idle node, memory", size(resident), "target 40 MB", resident / 40e6, 1.0, at_most=True)


class Redis(Measurement):
    """Redis with appendfsync always, for comparison. Left out where redis-server is not installed."""

    name = "redis"

    def once(self) -> dict:
        if not shutil.which("redis-server"):
            raise Unmeasured("redis-server is not installed")
        folder = pathlib.Path(tempfile.mkdtemp(prefix="redis-", dir=OUT))
        socket = folder / "socket"
        server = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", socket, "--dir", folder, "--appendonly", "yes", "--appendfsync", "always",
             "--save", "", "--daemonize", "no"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        try:
            said = []
            for line in server.stdout:
                said.append(line)
                if "ready to accept connections" in line.lower():
                    break
            else:
                raise Unmeasured(f"redis-server ended: {''.join(said)[-500:]}")
            result = json.loads(run([OUT / "limits" / "redis", socket, str(self.options.scaled(3000))]))
        finally:
            server.terminate()
            server.wait(20)
            server.stdout.close()
            shutil.rmtree(folder, ignore_errors=True)
        return {
            "append": result["append"]["p50Micros"], "append99": result["append"]["p99Micros"],
            "call": result["call"]["p50Micros"], "call99": result["call"]["p99Micros"],
        }

    def rows(self, limits: Limits) -> Iterator[Row]:
        for name, what in (("append", "one durable append (XADD)"), ("call", "blocking call through two lists")):
            yield Row(
                f"Redis, appendfsync always: {what}", f"p50 {self.median(name):.0f} µs, p99 {self.median(name + '99'):.0f} µs"
            )


#: In the order of the report. A new measurement needs a class above and its place here.
# Calls first, right behind the limits: bulk writes leave the disk busy for a while.
MEASUREMENTS: list[type[Measurement]] = [
    Call, Ingest, SwiftPipeline, PythonPipeline, SwiftCounting, PythonCounting, Restore, Start, Redis,
]


# The report


def rate(value: float) -> str:
    return f"{value:,.0f}"


def size(value: float) -> str:
    for unit, bytes in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= bytes:
            return f"{value / bytes:.{1 if value < 100 * bytes else 0}f} {unit}"
    return f"{value:.0f} B"


def machine() -> str:
    model = "unknown processor"
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    system = run(["stat", "-f", "-c", "%T", OUT]).strip()
    return f"{os.cpu_count()} × {model}, {memory / 2**30:.0f} GiB, Linux {platform.release()}, file system {system}"


def table(rows: list[Row]) -> list[str]:
    lines = ["| what | figure | compared with | ratio | target | |", "|---|---|---|---|---|---|"]
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        target = "" if row.target is None else f"{'≤' if row.at_most else '≥'} {row.target:.2f}"
        mark = {True: "reached", False: "**missed**", None: ""}[row.reached]
        lines.append(f"| {row.what} | {row.figure} | {row.limit} | {ratio} | {target} | {mark} |")
    return lines


def report(limits: Limits, rows: list[Row], missing: list[str], options: Options) -> str:
    version = run([options.grape, "--version"]).strip()
    lines = [
        "# Benchmarks", "",
        "Written by `make bench` (`Benchmarks/bench.py`). Absolute figures belong to the machine and the moment; the ratios to limits",
        "measured in the same run are what can be compared.", "",
        f"* Machine: {machine()}", f"* Grape: {version}",
        f"* {time.strftime('%Y-%m-%d', time.gmtime())}, medians of {options.repeat} rounds"
        + (", quick run: figures are rough" if options.quick else ""),
        "", "## Grape", "", *table(rows), "",
        "Compared with *bare librdkafka loop* and *Bytewax*: figures taken earlier on a machine of the same kind (two cores, virtual",
        "disk): librdkafka 2.0.2 and Kafka 3.8.0, two threads in one process, at least once, commit each 100 ms; Bytewax 0.21.1 on Kafka,",
        "two processes. They acknowledge from the page cache; Grape from the disk.", "",
        "## The machine's limits in the same run", "",
        "| what | figure |", "|---|---|", *(f"| {row.what} | {row.figure} |" for row in limits.rows()), "",
    ]
    if missing:
        lines += ["## Not measured", "", *(f"* {line}" for line in missing), ""]
    return "\n".join(lines)


#: Between these lines of docs/benchmarks.md stands what log_bench.py and kafka_bench.py found; what is behind the log's section was
#: written by hand, or by kafka_bench.py. Each program leaves the others' parts alone.
LOG_SECTION = ("<!-- log_bench.py: begin -->", "<!-- log_bench.py: end -->")
KAFKA_SECTION = ("<!-- kafka_bench.py: begin -->", "<!-- kafka_bench.py: end -->")


def split_report(text: str, lines: tuple[str, str] = LOG_SECTION) -> tuple[str, str, str]:
    """A report up to a section, that section, and what is behind it; the latter two are empty if there is none."""
    begin, end = lines
    before, found, rest = text.partition(begin)
    section, ended, after = rest.partition(end)
    return (before, found + section + ended, after) if found and ended else (text, "", "")


def replace_section(path: pathlib.Path, section: str, lines: tuple[str, str] = LOG_SECTION) -> None:
    """Puts a section in the place of the old one, or at the end of the report."""
    before, _, after = split_report(path.read_text(), lines) if path.exists() else ("# Benchmarks\n", "", "")
    path.write_text(before.rstrip("\n") + "\n\n" + section.rstrip("\n") + (after or "\n"))


def replace_report(path: pathlib.Path, text: str) -> None:
    """Puts a new report before the sections of the others."""
    old = path.read_text() if path.exists() else ""
    kept = max((section + after for _, section, after in (split_report(old), split_report(old, KAFKA_SECTION))), key=len)
    path.write_text(text.rstrip("\n") + "\n" + ("\n" + kept if kept else ""))


def show(rows: list[Row]) -> None:
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:8.2f}"
        mark = {True: "reached", False: "MISSED", None: ""}[row.reached]
        print(f"{row.what:52} {row.figure:46} {row.limit:40} {ratio:8} {mark}", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("GRAPE", ROOT / ".build" / "release" / "grape")
    parser.add_argument("--grape", type=pathlib.Path, default=pathlib.Path(default), help="the binary (release build)")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[found.name for found in MEASUREMENTS] + ["limits"])
    parser.add_argument("--repeat", type=int, default=3, help="rounds (3)")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the work: to see that everything runs")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "docs" / "benchmarks.md")
    parser.add_argument("--gate", action="store_true", help="exit with 2 if a target is missed")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    options = Options(given.grape.resolve(), max(1, given.repeat), given.quick)
    OUT.mkdir(exist_ok=True)
    chosen = [found(options) for found in MEASUREMENTS if given.only is None or found.name in given.only]
    if any(not isinstance(found, Redis) for found in chosen) and not options.grape.is_file():
        print(f"bench.py: no grape at {options.grape}: build it (swift build -c release) or give --grape", file=sys.stderr)
        return 1

    limits = Limits(options)
    everything = {"append", "sync", "socket", "memcpy"}
    needed = everything if given.only is None or "limits" in given.only else {name for found in chosen for name in found.limits}
    failed: dict[str, str] = {}
    for number in range(options.repeat):
        print(f"round {number + 1} of {options.repeat}", file=sys.stderr)
        limits.measure(needed)
        for found in chosen:
            if found.name in failed:
                continue
            print(f"  {found.name}", file=sys.stderr)
            try:
                found.measure()
            except (Unmeasured, subprocess.TimeoutExpired, KeyError, ValueError) as error:
                failed[found.name] = f"{found.name}: {type(error).__name__}: {error}"
                print(f"  {failed[found.name]}", file=sys.stderr)

    rows = [row for found in chosen if found.name not in failed for row in found.rows(limits)]
    show(list(limits.rows()) + rows)
    results = {"limits": limits.rounds, "results": {found.name: found.results for found in chosen}, "failed": failed}
    (OUT / "bench.json").write_text(json.dumps(results, indent=2) + "\n")
    if given.only is None:
        replace_report(given.output, report(limits, rows, list(failed.values()), options))
        print(f"written: {given.output}", file=sys.stderr)
    if any(name != Redis.name for name in failed):
        return 1
    return 2 if given.gate and any(row.reached is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
