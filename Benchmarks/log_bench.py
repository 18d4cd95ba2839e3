#!/usr/bin/env python3
"""Measures the embedded log beside the machine's limits, in the same run, and writes its part of docs/benchmarks.md.

  log_bench.py [--grape-bench PATH] [--only NAME ...] [--repeat N] [--quick] [--prefill GIB] [--calm PERCENT]
               [--markdown] [--output FILE]

Every limit is measured right before and after what it limits, in rounds; ratios are medians of the rounds' ratios. Data
goes to Benchmarks/out (--directory) and is removed in the end, also after an error or a signal. A run needs a quiet machine:
what other processes take of the processors is measured and stands in the report; --calm 15 waits for quiet and repeats
what was disturbed. Needs gcc, make, python3.
Exit code 0: measured; 1: something could not be measured; 2: a target was missed (--gate).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, Iterator, Optional

import bench
from bench import Row, Unmeasured, rate, size

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
OUT = HERE / "out"
MIB, GIB = 1 << 20, 1 << 30


@dataclasses.dataclass
class Setting:
    """What the measurements share."""

    program: pathlib.Path
    folder: pathlib.Path
    repeat: int
    quick: bool
    prefill: float
    deadline: float
    #: What others may take of the processors during a round that counts.
    calm: float

    def scaled(self, count: int, least: int = 1) -> int:
        return max(least, count // 16) if self.quick else count

    def seconds_left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise Unmeasured("the time is over (--minutes)")
        return min(left, 300)

    def run(self, *words: Any) -> dict:
        return json.loads(bench.run(list(words), timeout=self.seconds_left()))

    def limit(self, program: str, *words: Any) -> dict:
        return self.run(OUT / "limits" / program, *words)

    def log(self, command: str, directory: pathlib.Path, **options: Any) -> dict:
        words = [word for name, value in options.items() for word in ("--" + name.replace("_", "-"), value)]
        return self.run(self.program, command, directory, *words)

    @property
    def batches(self) -> pathlib.Path:
        """The record batches that the raw loop appends, for the log to append the same."""
        path = self.folder / "batches"
        if not path.exists():
            self.limit("append", self.folder, 1, path)
        return path

    def append(self, directory: pathlib.Path, mib: int, **options: Any) -> dict:
        return self.log("append", directory, batches=self.batches, mib=mib, **options)

    @contextlib.contextmanager
    def directory(self) -> Iterator[pathlib.Path]:
        path = pathlib.Path(tempfile.mkdtemp(prefix="log-", dir=self.folder))
        try:
            yield path
        finally:
            shutil.rmtree(path)

    def drop(self, directory: pathlib.Path) -> None:
        """Takes a log out of the page cache."""
        dropped = self.limit("drop", *sorted(path for path in (directory / "log").iterdir() if path.is_file()))
        if dropped["stillCachedBytes"] > dropped["bytes"] / 50:
            raise Unmeasured(f"{dropped['stillCachedBytes']} of {dropped['bytes']} bytes stayed in the page cache")

    def read(self, directory: pathlib.Path) -> float:
        """Bytes per second of reading the segment files as dd does."""
        return self.limit("read", *sorted((directory / "log").glob("*.log")))["bytesPerSecond"]


# The measurements


class Measurement:
    """One subject. `once` is called once per round, `rows` in the end."""

    name = ""

    def __init__(self, setting: Setting, stack: contextlib.ExitStack) -> None:
        self.setting = setting
        self.stack = stack
        self.results: list[dict[str, float]] = []

    def kept_directory(self) -> pathlib.Path:
        """For data that all rounds share."""
        return self.stack.enter_context(self.setting.directory())

    def once(self) -> dict[str, float]:
        raise NotImplementedError

    def rows(self) -> Iterator[Row]:
        raise NotImplementedError

    def median(self, name: str) -> float:
        return statistics.median(result[name] for result in self.results)

    def ratio(self, name: str, base: str) -> float:
        """Median of the rounds' ratios: what changes from round to round cancels out."""
        return statistics.median(result[name] / result[base] for result in self.results)

    def spread(self, name: str, base: str) -> str:
        found = [result[name] / result[base] for result in self.results]
        return f" (ratios {min(found):.2f} to {max(found):.2f})" if len(found) > 1 else ""


class Append(Measurement):
    """100-byte values with 8-byte keys in batches of 64 KiB, and packed JSON."""

    name = "append"
    #: zstd's level, producers, target.
    packings = ((1, 2, 1.0), (1, 1, None), (-3, 2, None), (-3, 1, None))
    batch_kib = 256

    def once(self) -> dict[str, float]:
        mib = self.setting.scaled(384, 64)
        before = self.setting.limit("append", self.setting.folder, mib)
        with self.setting.directory() as directory:
            # Four batches of 64 KiB and their headers: a group is what the raw loop writes at once.
            same = self.setting.append(directory, mib, group_kib=260)
        with self.setting.directory() as directory:
            usual = self.setting.append(directory, mib)
        packed = {}
        for level, producers, _ in self.packings:
            with self.setting.directory() as directory:
                packed[level, producers] = self.setting.log(
                    "compress", directory, mib=self.setting.scaled(512, 64), producers=producers, level=level, batch_kib=self.batch_kib
                )
        after = self.setting.limit("append", self.setting.folder, mib)

        def raw(blocks: str) -> float:
            return (before[blocks]["bytesPerSecond"] + after[blocks]["bytesPerSecond"]) / 2

        per_record = packed[1, 2]["unpackedBytesPerRecord"]
        result = {
            "allocated": raw("allocated"), "grows": raw("grows"), "overwrites": raw("overwrites"),
            "same": same["bytesPerSecond"], "records": same["recordsPerSecond"], "group": same["bytesPerGroup"],
            "processor": same["writerProcessorSeconds"] / same["seconds"],
            "usual": usual["bytesPerSecond"], "usualRecords": usual["recordsPerSecond"], "usualGroup": usual["bytesPerGroup"],
            "plainRecords": raw("allocated") / per_record, "plainGrowing": raw("grows") / per_record, "perRecord": per_record,
        }
        for (level, producers), found in packed.items():
            result[f"packed {level} {producers}"] = found["recordsPerSecond"]
            result[f"packing {level}"] = found["unpackedBytes"] / found["bytes"]
        return result

    def rows(self) -> Iterator[Row]:
        m = self.median
        yield Row(
            f"durable append, 100-byte values, groups of {m('group') / 1024:.0f} KiB",
            f"{rate(m('records'))} records/s, {size(m('same'))}/s",
            f"pwritev + fdatasync, preallocated: {size(m('allocated'))}/s{self.spread('same', 'allocated')}",
            self.ratio("same", "allocated"), 0.85,
        )
        yield Row("the same beside a file that grows", f"{size(m('same'))}/s", f"{size(m('grows'))}/s", self.ratio("same", "grows"))
        yield Row(
            "the same beside blocks that were written before", f"{size(m('same'))}/s", f"{size(m('overwrites'))}/s",
            self.ratio("same", "overwrites"),
        )
        yield Row(
            f"the same with default options, groups of {m('usualGroup') / 1024:.0f} KiB",
            f"{rate(m('usualRecords'))} records/s, {size(m('usual'))}/s", f"preallocated: {size(m('allocated'))}/s",
            self.ratio("usual", "allocated"),
        )
        yield Row("writer's thread, groups of 256 KiB", f"{m('processor') * 100:.0f} % of a core")
        for level, producers, target in self.packings:
            key = f"packed {level} {producers}"
            yield Row(
                f"JSON of {m('perRecord'):.0f} bytes in batches of {self.batch_kib} KiB, zstd level {level}, {producers} producer{'s' if producers > 1 else ''}",
                f"{rate(m(key))} records/s (packed to 1/{m(f'packing {level}'):.1f})",
                f"raw loop without zstd, preallocated: {rate(m('plainRecords'))} records/s; growing: {rate(m('plainGrowing'))}"
                + self.spread(key, "plainRecords"),
                self.ratio(key, "plainRecords"), target,
            )


class Latency(Measurement):
    """256 bytes at a time."""

    name = "latency"

    def once(self) -> dict[str, float]:
        count = self.setting.scaled(3_000, 300)
        before = self.setting.limit("sync", self.setting.folder, count)
        found = {}
        for name, options in (("assisted", {"assist": 1}), ("thread", {})):
            with self.setting.directory() as directory:
                found[name] = self.setting.log("latency", directory, count=count, **options)
        with self.setting.directory() as directory:
            many = self.setting.log("concurrent", directory, count=self.setting.scaled(200_000), in_flight=64)
        after = self.setting.limit("sync", self.setting.folder, count)
        result = {"many": many["appendsPerSecond"], "perGroup": many["bytesPerGroup"]}
        for blocks in ("allocated", "overwrites"):
            result[blocks] = (before[blocks]["p50Micros"] + after[blocks]["p50Micros"]) / 2
        for name, one in found.items():
            result[name], result[name + "99"] = one["appendP50Micros"], one["appendP99Micros"]
            result[name + "Rate"] = one["appendsPerSecond"]
        return result

    def rows(self) -> Iterator[Row]:
        m = self.median
        for name, what in (("assisted", "written by the thread that commits"), ("thread", "by the log's thread")):
            yield Row(
                f"one durable append of 256 bytes, {what}", f"p50 {m(name):.0f} µs, p99 {m(name + '99'):.0f} µs",
                f"write + fdatasync, preallocated: {m('allocated'):.0f} µs{self.spread(name, 'allocated')}",
                self.ratio(name, "allocated"), 1.3, at_most=True,
            )
            yield Row(
                "the same beside blocks that were written before", f"p50 {m(name):.0f} µs", f"{m('overwrites'):.0f} µs",
                self.ratio(name, "overwrites"),
            )
        for name, what in (("thread", "by the log's thread"), ("assisted", "by the thread that commits")):
            yield Row(
                "64 durable appends of 256 bytes in flight", f"{rate(m('many'))} appends/s",
                f"one in flight, {what}: {rate(m(name + 'Rate'))}/s", self.ratio("many", name + "Rate"), 20,
            )


class Replay(Measurement):
    """From the first record to the last, from the disk, from the page cache and from the log's memory."""

    name = "replay"
    parts = (("single", "the only partition of a log", 0.7), ("all", "all of 8 partitions", 0.7), ("eighth", "one of 8 partitions", None))

    def __init__(self, *words: Any) -> None:
        super().__init__(*words)
        self.directories: dict[int, pathlib.Path] = {}

    def filled(self, partitions: int) -> pathlib.Path:
        if partitions not in self.directories:
            directory = self.kept_directory()
            self.setting.append(directory, self.setting.scaled(1_024, 128), partitions=partitions)
            self.directories[partitions] = directory
        return self.directories[partitions]

    def once(self) -> dict[str, float]:
        result: dict[str, float] = {}
        for name, _, _ in self.parts:
            directory = self.filled(1 if name == "single" else 8)
            options = {"partition": 3} if name == "eighth" else {}
            for state in ("cold", "warm"):
                if state == "cold":
                    self.setting.drop(directory)
                result[f"{state} {name} limit"] = self.setting.read(directory)
                if state == "cold":
                    self.setting.drop(directory)
                found = self.setting.log("replay", directory, **options)
                if found["records"] != found["expectedRecords"]:
                    raise Unmeasured(f"{found['records']} of {found['expectedRecords']} records were read")
                result[f"{state} {name}"] = found["bytesPerSecond"]
        with self.setting.directory() as directory:
            memory = self.setting.log("memory", directory, batches=self.setting.batches, records=self.setting.scaled(40_000_000))
        result["decoded"] = memory["recordsPerSecond"]
        return result

    def rows(self) -> Iterator[Row]:
        for state in ("cold", "warm"):
            for name, what, target in self.parts:
                key = f"{state} {name}"
                yield Row(
                    f"replay of {what}, {'from the disk' if state == 'cold' else 'from the page cache'}",
                    f"{size(self.median(key))}/s",
                    f"all segment files, 1 MiB at a time: {size(self.median(key + ' limit'))}/s{self.spread(key, key + ' limit')}",
                    self.ratio(key, key + " limit"), target,
                )
        decoded = self.median("decoded")
        yield Row("replay from the log's memory, every record decoded", f"{rate(decoded)} records/s", "target 5,000,000 records/s", decoded / 5e6, 1.0)


class Partitions(Measurement):
    """The figures of `append` with more partitions."""

    name = "partitions"
    counts = (1_000, 10_000)

    def once(self) -> dict[str, float]:
        def measured(partitions: int) -> dict:
            with self.setting.directory() as directory:
                return self.setting.append(directory, self.setting.scaled(384, 64), partitions=partitions, group_kib=260)

        before = measured(1)
        found = {count: measured(count) for count in self.counts}
        after = measured(1)
        result = {"1": (before["bytesPerSecond"] + after["bytesPerSecond"]) / 2, "1 memory": before["residentPeakBytes"]}
        for count, one in found.items():
            result[str(count)], result[f"{count} memory"] = one["bytesPerSecond"], one["residentPeakBytes"]
        return result

    def rows(self) -> Iterator[Row]:
        for count in self.counts:
            yield Row(
                f"durable append to {count:,} partitions", f"{size(self.median(str(count)))}/s, memory {size(self.median(f'{count} memory'))}",
                f"to one: {size(self.median('1'))}/s, memory {size(self.median('1 memory'))}{self.spread(str(count), '1')}",
                self.ratio(str(count), "1"), 0.9,
            )


class Size(Measurement):
    """A log with much in it beside one with little."""

    name = "size"

    def __init__(self, *words: Any) -> None:
        super().__init__(*words)
        self.full: Optional[pathlib.Path] = None
        self.bytes = 0.0

    def fill(self) -> pathlib.Path:
        if self.full is None:
            directory = self.kept_directory()
            self.bytes = self.setting.append(directory, int(self.setting.prefill * 1024))["bytes"]
            self.full = directory
        return self.full

    def once(self) -> dict[str, float]:
        full = self.fill()
        mib, count = self.setting.scaled(256, 32), self.setting.scaled(2_000, 200)
        result: dict[str, float] = {}

        def measured(name: str, directory: pathlib.Path) -> None:
            append = self.setting.append(directory, mib, group_kib=260)
            # Into the page cache, as far as it goes: the disk's latency is not the log's.
            self.setting.read(directory)
            look = self.setting.log("lookups", directory, count=count)
            result[name] = append["bytesPerSecond"]
            result[name + " tail"], result[name + " anywhere"] = look["tailP50Micros"], look["anywhereP50Micros"]
            result[name + " memory"] = append["residentPeakBytes"]

        with self.setting.directory() as empty:
            measured("empty", empty)
        measured("full", full)
        self.setting.drop(full)
        result["clean open"] = self.setting.log("open", full)["openMilliseconds"]
        self.kill(full)
        self.setting.drop(full)
        opened = self.setting.log("open", full)
        result["killed open"], result["recovered"] = opened["openMilliseconds"], opened["recoveredBytes"]
        return result

    def kill(self, directory: pathlib.Path) -> None:
        """Lets a writer die in the middle of its work, somewhere in a segment."""
        wanted = random.randrange(70, 134) * MIB // (8 if self.setting.quick else 1)
        victim = subprocess.Popen(
            [self.setting.program, "victim", directory, "--batches", self.setting.batches, "--seconds", "60"],
            stdout=subprocess.PIPE, text=True,
        )
        try:
            for line in victim.stdout:
                if json.loads(line)["durableBytes"] >= wanted:
                    break
            else:
                raise Unmeasured("the writer ended before it was killed")
        finally:
            victim.kill()
            victim.wait()
            victim.stdout.close()

    def rows(self) -> Iterator[Row]:
        m, much = self.median, f"{self.bytes / GIB:.1f} GiB"
        yield Row(
            f"durable append to a log of {much}", f"{size(m('full'))}/s", f"to an empty one: {size(m('empty'))}/s{self.spread('full', 'empty')}",
            self.ratio("full", "empty"), 0.9,
        )
        yield Row(
            "memory of that process", size(m("full memory")), f"with an empty log: {size(m('empty memory'))}",
            self.ratio("full memory", "empty memory"), 1.1, at_most=True,
        )
        for name, what in (("tail", "read of what was just appended"), ("anywhere", "read of 64 KiB anywhere")):
            yield Row(
                f"{what}, log of {much}", f"p50 {m('full ' + name):.1f} µs", f"log with little in it: {m('empty ' + name):.1f} µs",
                self.ratio("full " + name, "empty " + name), 1.1 if name == "tail" else None, at_most=True,
            )
        for name, what, most in (("clean open", "after a clean stop", 1_000), ("killed open", "after kill -9", 5_000)):
            yield Row(
                f"opening the log of {much} {what}, nothing in the page cache", f"{m(name):.0f} ms", f"target {most:,} ms",
                m(name) / most, 1.0, at_most=True,
            )


class Beside(Measurement):
    """Appends beside somebody who reads a log from the disk as fast as it goes, second by second in turns with appends alone."""

    name = "beside"
    #: About the group that the log makes of what waits.
    write_kib = 1_536

    def once(self) -> dict[str, float]:
        result: dict[str, float] = {}

        def keep(name: str, found: dict) -> None:
            result.update({f"{name} {key}": value for key, value in found.items() if isinstance(value, (int, float))})

        with self.setting.directory() as directory:
            self.setting.append(directory, self.setting.scaled(3_072, 512))
            self.setting.drop(directory)
            keep("raw", self.setting.limit("beside", self.setting.folder, self.write_kib, *sorted((directory / "log").glob("*.log"))))
            self.setting.drop(directory)
            keep("lone", self.setting.log("follow", directory, in_flight=1))
            self.setting.drop(directory)
            keep("bulk", self.setting.log("follow", directory, batches=self.setting.batches))
        return result

    def rows(self) -> Iterator[Row]:
        m = self.median

        def spread(name: str) -> str:
            found = [result[f"{name} ratio"] for result in self.results]
            return f" (ratios {min(found):.2f} to {max(found):.2f})" if len(found) > 1 else ""

        for name, what in (("bulk", "durable append, 64 KiB at a time"), ("lone", "durable append of 256 bytes, one in flight,")):
            yield Row(
                f"{what} beside a replay from the disk at {size(m(name + ' replayBytesPerSecond'))}/s",
                f"{size(m(name + ' besideBytesPerSecond'))}/s" if name == "bulk" else f"{rate(m('lone besideAppendsPerSecond'))} appends/s",
                (f"alone: {size(m(name + ' aloneBytesPerSecond'))}/s" if name == "bulk" else f"alone: {rate(m('lone aloneAppendsPerSecond'))} appends/s") + spread(name),
                m(f"{name} ratio"), 0.85,
            )
        yield Row(
            f"the machine's own: pwrite + fdatasync beside dd at {size(m('raw readBytesPerSecond'))}/s", f"{size(m('raw besideBytesPerSecond'))}/s",
            f"alone: {size(m('raw aloneBytesPerSecond'))}/s{spread('raw')}", m("raw ratio"),
        )
        yield Row(
            "memory while a log is replayed beside appends", f"at most {size(m('bulk residentMostBytes'))}",
            f"before: {size(m('bulk residentBeforeBytes'))}", self.ratio("bulk residentMostBytes", "bulk residentBeforeBytes"),
        )


#: In the order of the report; short appends first, since bulk writes leave the disk busy for a while.
MEASUREMENTS: list[type[Measurement]] = [Latency, Append, Replay, Partitions, Beside, Size]


# The report

BEGIN, END = bench.LOG_SECTION

#: Rounds that were disturbed are repeated so often (--calm).
TRIES = 6


class Others:
    """What other processes take of the processors while a measurement runs: everything less what our children took.

    Processes of low priority (nice) do not count: they take what nobody else wants.
    """

    def __init__(self) -> None:
        self.used, self.all = self.processors()
        self.own = self.children()

    @staticmethod
    def processors() -> tuple[float, float]:
        fields = [int(word) for word in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        ticks = os.sysconf("SC_CLK_TCK")
        return (sum(fields) - fields[1] - fields[3] - fields[4]) / ticks, sum(fields) / ticks

    @staticmethod
    def children() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    def share(self) -> float:
        """Of all processors, since this object was made."""
        used, everything = self.processors()
        return max(0.0, (used - self.used - (self.children() - self.own)) / max(everything - self.all, 0.01))

    @staticmethod
    def wait_for_calm(setting: Setting) -> None:
        """Until others take little for three seconds; not beyond half of the time that is left."""
        until = time.monotonic() + (setting.deadline - time.monotonic()) / 2
        calm = 0
        while calm < 3 and time.monotonic() < until:
            others = Others()
            time.sleep(1)
            calm = calm + 1 if others.share() <= setting.calm else 0


def report(rows: list[Row], missing: list[str], setting: Setting, busy: float) -> str:
    lines = [
        BEGIN, "## The embedded log", "",
        "Written by `make bench-log` (`Benchmarks/log_bench.py`), in one process, without sockets. Every limit is measured before and after",
        "what it limits; ratios are medians of the rounds' ratios. `make bench-log BENCH='--only append latency --repeat 9'` measures a",
        "part; `BENCH=--markdown` prints this section instead of writing it; `BENCH='--prefill 50'` fills a log of 50 GiB first;",
        "`BENCH='--calm 20'` waits until other processes take less than a fifth of the processors and repeats rounds in which they took more.", "",
        f"* Machine: {bench.machine()}",
        f"* {time.strftime('%Y-%m-%d', time.gmtime())}, {setting.repeat} rounds" + (", quick run: figures are rough" if setting.quick else "")
        + f"; other processes and the kernel's own threads took at most {busy * 100:.0f} % of the processors meanwhile, not counting low priority",
        "", *bench.table(rows), "",
    ]
    if missing:
        lines += ["Not measured:", "", *(f"* {line}" for line in missing), ""]
    return "\n".join([*lines, END, ""])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    program = ROOT / ".build" / "release" / "GrapeCommitLogBench"
    parser.add_argument("--grape-bench", type=pathlib.Path, default=program, help="GrapeCommitLogBench (release build)")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[found.name for found in MEASUREMENTS])
    parser.add_argument("--repeat", type=int, default=5, help="rounds (5)")
    parser.add_argument("--quick", action="store_true", help="a sixteenth of the work: to see that everything runs")
    parser.add_argument("--prefill", type=float, default=4, help="GiB in the full log (4)")
    parser.add_argument("--directory", type=pathlib.Path, default=OUT, help="where the data goes: the file system that is measured")
    parser.add_argument("--minutes", type=float, default=30, help="end after that long (30)")
    parser.add_argument(
        "--calm", type=float, default=100, metavar="PERCENT",
        help="wait until other processes take no more of the processors, and repeat rounds in which they took more (100: take it as it is)",
    )
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "docs" / "benchmarks.md")
    parser.add_argument("--markdown", action="store_true", help="print the report's Markdown and write no file")
    parser.add_argument("--gate", action="store_true", help="exit with 2 if a target is missed")
    return parser.parse_args()


def check_space(given: argparse.Namespace) -> None:
    """Replaying beside appends writes as much again, or more; ends the program if there is no room for it."""
    needed = max(2 * given.prefill + 6, 18) * GIB
    free = shutil.disk_usage(given.directory).free
    if free < needed:
        sys.exit(f"log_bench.py: {size(free)} are free in {given.directory}, up to {size(needed)} are needed: give a smaller --prefill")


def measure(given: argparse.Namespace, setting: Setting, stack: contextlib.ExitStack) -> tuple[list[Row], list[str], float]:
    chosen = [found(setting, stack) for found in MEASUREMENTS if given.only is None or found.name in given.only]
    failed: dict[str, str] = {}
    most = 0.0

    def attempt(subject: Measurement) -> None:
        nonlocal most
        best: Optional[tuple[float, Any]] = None
        for _ in range(TRIES if setting.calm < 1 else 1):
            if setting.calm < 1:
                Others.wait_for_calm(setting)
            others = Others()
            try:
                result = subject.once()
            except (Unmeasured, subprocess.TimeoutExpired):
                # A disturbed round is better than none.
                if best is None:
                    raise
                break
            share = others.share()
            print(f"  {subject.name}: others took {share * 100:.0f} %", file=sys.stderr, flush=True)
            if best is None or share < best[0]:
                best = share, result
            if share <= setting.calm:
                break
        share, result = best
        most = max(most, share)
        subject.results.append(result)

    for number in range(setting.repeat):
        print(f"round {number + 1} of {setting.repeat}", file=sys.stderr)
        for subject in chosen:
            if subject.name in failed:
                continue
            try:
                attempt(subject)
            except (Unmeasured, subprocess.TimeoutExpired, KeyError, ValueError, OSError) as error:
                failed[subject.name] = f"{subject.name}: {type(error).__name__}: {error}"
                print(f"  {failed[subject.name]}", file=sys.stderr)
    results = {subject.name: subject.results for subject in chosen}
    (OUT / "log_bench.json").write_text(json.dumps({"others": most, "results": results, "failed": failed}, indent=2) + "\n")
    return [row for subject in chosen if subject.name not in failed for row in subject.rows()], list(failed.values()), most


def main() -> int:
    given = arguments()
    # So that data is removed and children are ended.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    program = given.grape_bench.resolve()
    if not program.is_file():
        print(f"log_bench.py: no program at {program}: swift build -c release --product GrapeCommitLogBench", file=sys.stderr)
        return 1
    OUT.mkdir(exist_ok=True)
    given.directory.mkdir(exist_ok=True)
    check_space(given)
    bench.run(["make", "-s", "-C", HERE / "limits", f"OUT={OUT / 'limits'}"])
    with tempfile.TemporaryDirectory(prefix="log-bench-", dir=given.directory) as folder, contextlib.ExitStack() as stack:
        prefill = given.prefill / 16 if given.quick else given.prefill
        setting = Setting(
            program, pathlib.Path(folder), max(1, given.repeat), given.quick, prefill, time.monotonic() + given.minutes * 60, given.calm / 100
        )
        rows, missing, busy = measure(given, setting, stack)
    if given.markdown:
        print(report(rows, missing, setting, busy), end="")
    else:
        bench.show(rows)
        if given.only is None and not given.quick:
            bench.replace_section(given.output, report(rows, missing, setting, busy))
            print(f"written: {given.output}", file=sys.stderr)
    if missing:
        return 1
    return 2 if given.gate and any(row.reached is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
