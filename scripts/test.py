#!/usr/bin/env python3
"""Runs the tests and adds up their results; `make test` calls it.

  test.py [PART ...] [--verbose] [--grape PATH]

Parts, in the order in which they run (all of them unless some are named):

  unit       swift test: the Swift targets, but for the next
  kafka      swift test: the log on Kafka, with a broker of its own; GRAPE_KAFKA=host:port names another
  python     Tests/Python: the Python SDK, without a node
  golden     record batches of ours read by kafka-python, and the other way round
  e2e        Tests/EndToEnd: real nodes and the command line; --grape names the binary, else the debug build is used
  e2e-kafka  those of them that matter most, with nodes on Kafka: a broker as of "kafka"
  examples   the tests of the Swift package in Examples/flights

And one that runs only where it is named:

  e2e-kafka-all  all of Tests/EndToEnd with nodes on Kafka

Of a part that succeeds one line is shown; of one that fails what it said. Everything said is kept in .build/test-logs.
What failed is named once more at the end. The last line is "N passed, N failed", also in the file summary there. A part that cannot run, or does not end in time,
counts as one failure.
Exit code: 0 if nothing failed, 1 otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from typing import Callable, Optional, Sequence, Union

ROOT = pathlib.Path(__file__).resolve().parents[1]
LOGS = ROOT / ".build" / "test-logs"
VENV = ROOT / ".venv"
SDK = ROOT / "Sources" / "CGrapeResources" / "sdk" / "python"
GOLDEN = ROOT / "scripts" / "golden"

#: Other implementations of the record batch and of zstd, as scripts/golden/make_golden.py names them.
#: noida-db is a broker that speaks Kafka's protocol.
VENV_PACKAGES = ("kafka-python==3.0.12", "zstandard==0.25.0", "noida-db==0.2.3")

#: How long a step may take before it is ended, in seconds. Builds from nothing on two slow cores are the longest.
BUILD_LIMIT, TEST_LIMIT, ALL_ON_KAFKA_LIMIT = 30 * 60, 25 * 60, 90 * 60
#: While a step runs and says nothing to the terminal, a sign of life comes this often, in seconds.
SIGN_OF_LIFE = 60

#: The parts that start nodes.
END_TO_END = ("e2e", "e2e-kafka", "e2e-kafka-all")
#: What `make test` runs on Kafka, besides the embedded log.
KAFKA_FILES = (
    "test_exec.py", "test_crash.py", "test_state.py", "test_cluster.py", "test_cluster_faults.py", "test_cluster_external.py",
    "test_cluster_bank.py",
)

Word = Union[str, os.PathLike]


@dataclasses.dataclass
class Count:
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: "Count") -> "Count":
        return Count(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    def __str__(self) -> str:
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.passed} passed, {self.failed} failed{skipped}"


class Broken(Exception):
    """A step that the tests of a part depend on failed; what it said has been shown."""


class Step:
    """One command of a part: its output goes to a log, and to the terminal if it is wanted there."""

    def __init__(self, name: str, verbose: bool) -> None:
        self.log = LOGS / f"{name}.log"
        self.verbose = verbose
        self.code: Optional[int] = None

    def run(self, command: Sequence[Word], limit: float, environment: Optional[dict[str, str]] = None) -> "Step":
        words = [os.fspath(word) for word in command]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "wb") as log:
            # A session of its own, so that whatever the command started can be ended with it.
            process = subprocess.Popen(
                words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=None if self.verbose else log,
                stderr=None if self.verbose else subprocess.STDOUT, env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
            try:
                self.code = self.wait(process, limit)
            finally:
                end_session(process)
        return self

    def wait(self, process: subprocess.Popen, limit: float) -> int:
        started = time.monotonic()
        while True:
            left = started + limit - time.monotonic()
            try:
                return process.wait(max(0.0, min(left, SIGN_OF_LIFE)))
            except subprocess.TimeoutExpired:
                took = time.monotonic() - started
                if took >= limit:
                    with open(self.log, "ab") as log:
                        log.write(f"\nended after {limit:.0f} s: it took too long\n".encode())
                    return 124
                if not self.verbose:
                    print(f"   … {took:.0f} s: {self.last_line()}", flush=True)

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def last_line(self) -> str:
        lines = self.text.split("\n")
        return next((line.strip()[:100] for line in reversed(lines) if line.strip()), "nothing said yet")

    def show(self, interesting: Optional[re.Pattern[str]] = None, tail: int = 150) -> None:
        """What a reader needs to see of a failure: the lines that match, then the last ones."""
        if self.verbose:
            return
        lines = self.text.splitlines()
        if interesting is not None:
            for line in list(dict.fromkeys(line for line in lines[:-tail] if interesting.search(line)))[:200]:
                print("   |", line)
        for line in lines[-tail:]:
            print("   |", line)
        print(f"   | (all of it: {self.log.relative_to(ROOT)})", flush=True)


def end_session(process: subprocess.Popen) -> None:
    """Ends a command that still runs, politely first (test runners then end what they started), and what it left behind."""
    try:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # nothing is left
    process.wait(15)


class Tests:
    def __init__(self, verbose: bool, grape: Optional[pathlib.Path]) -> None:
        self.verbose = verbose
        self.given_grape = grape
        #: What failed, in the words of its log.
        self.failures: list[str] = []

    # What the parts need

    def build(self) -> None:
        """Everything in debug: the test targets, and the grape that the end-to-end tests use."""
        print("== build (debug)", flush=True)
        started = time.monotonic()
        step = Step("build", self.verbose).run(["swift", "build", "--build-tests"], BUILD_LIMIT)
        if step.code != 0:
            step.show(re.compile(r"^\S*: error:|^error:"), tail=40)
            raise Broken("the debug build failed")
        print(f"   built in {time.monotonic() - started:.0f} s", flush=True)

    def needs_build(self, part: str) -> bool:
        return part in ("unit", "kafka") or (part in ("golden", *END_TO_END) and self.given_grape is None)

    def grape(self) -> pathlib.Path:
        if self.given_grape is not None:
            if not self.given_grape.is_file():
                raise Broken(f"there is no grape at {self.given_grape}")
            return self.given_grape.resolve()
        return ROOT / ".build" / "debug" / "grape"

    def python_with_packages(self) -> pathlib.Path:
        """A virtual environment with the packages of VENV_PACKAGES; made once, and anew when they change."""
        python = VENV / "bin" / "python"
        stamp = VENV / "packages"
        wanted = " ".join((sys.version.split()[0], *VENV_PACKAGES))
        if python.exists() and stamp.exists() and stamp.read_text() == wanted:
            return python
        shutil.rmtree(VENV, ignore_errors=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", *VENV_PACKAGES]
        for name, command in (("venv", [sys.executable, "-m", "venv", VENV]), ("venv-packages", [python, *install])):
            step = Step(name, self.verbose).run(command, TEST_LIMIT)
            if step.code != 0:
                step.show(tail=30)
                raise Broken(f"the virtual environment {VENV.name} could not be made (it needs {', '.join(VENV_PACKAGES)})")
        stamp.write_text(wanted)
        return python

    # The parts

    def unit(self) -> Count:
        return self.swift_tests("unit", ["--skip-build", "--skip", "GrapeKafkaTests"])

    def kafka(self) -> Count:
        self.find_broker()
        return self.swift_tests("kafka", ["--skip-build", "--filter", "GrapeKafkaTests"])

    def find_broker(self) -> None:
        """The tests find one in the virtual environment, if they need it."""
        if not os.environ.get("GRAPE_KAFKA") and not os.environ.get("GRAPE_NOIDA"):
            self.python_with_packages()

    def examples(self) -> Count:
        return self.swift_tests("examples", ["--package-path", ROOT / "Examples" / "flights" / "stats"])

    def swift_tests(self, name: str, options: Sequence[Word]) -> Count:
        report = LOGS / f"{name}.xml"
        # Depending on the version, Swift Testing writes its report beside the one that is asked for.
        reports = [report, report.with_name(f"{name}-swift-testing.xml")]
        for path in reports:
            path.unlink(missing_ok=True)
        command = ["swift", "test", *options, "--disable-xctest", "--xunit-output", report]
        step = Step(name, self.verbose).run(command, BUILD_LIMIT + TEST_LIMIT)
        count = sum((count_xunit(path) for path in reports if path.exists()), Count())
        if step.code != 0:
            step.show(re.compile(r"✘|^\S*: error:|^error:"), tail=40)
            self.note(name, step, re.compile(r"✘.*(recorded an issue|exceeded)"))
            if count.failed == 0:
                print(f"   swift test ended with exit code {step.code}")
                count += Count(failed=1)
        elif count.passed == 0:
            raise Broken("swift test says that all is well, but ran no test")
        return count

    def python(self) -> Count:
        return self.unittests("python", [sys.executable], ROOT / "Tests" / "Python", {})

    def golden(self) -> Count:
        python = self.python_with_packages()
        count = self.unittests("golden-sdk", [python], ROOT / "Tests" / "Python", {}, ("test_kafka.py",), may_skip=False)
        count += self.checked("golden-files", [python, GOLDEN / "read_batches.py", "--golden", ROOT / "Tests/GrapeWireTests/Golden"])
        grape = {"GRAPE": os.fspath(self.grape())}
        count += self.checked("golden-node", [python, GOLDEN / "check_node.py"], grape)
        return count

    def e2e(self) -> Count:
        self.find_broker()  # some tests of configuration and of the image need one
        grape = {"GRAPE": os.fspath(self.grape())}
        return self.unittests("e2e", [sys.executable], ROOT / "Tests" / "EndToEnd", grape)

    def e2e_kafka(self) -> Count:
        return self.end_to_end_on_kafka("e2e-kafka", KAFKA_FILES, {"GRAPE_BANK_ROUNDS": "4"})

    def e2e_kafka_all(self) -> Count:
        return self.end_to_end_on_kafka("e2e-kafka-all", ("test_*.py",), {})

    def end_to_end_on_kafka(self, name: str, files: Sequence[str], fewer: dict[str, str]) -> Count:
        self.find_broker()
        environment = {"GRAPE": os.fspath(self.grape()), "GRAPE_LOG": "kafka"}
        environment.update((key, value) for key, value in fewer.items() if key not in os.environ)
        return self.unittests(name, [sys.executable], ROOT / "Tests" / "EndToEnd", environment, files)

    def checked(self, name: str, command: Sequence[Word], environment: Optional[dict[str, str]] = None) -> Count:
        """A program that is one test: exit code 0 means passed."""
        step = Step(name, self.verbose).run(command, TEST_LIMIT, environment)
        if step.code == 0:
            return Count(passed=1)
        step.show()
        self.failures.append(name)
        return Count(failed=1)

    def note(self, name: str, step: Step, interesting: re.Pattern[str]) -> None:
        if not self.verbose:
            self.failures += [f"{name}: {line.strip()[:300]}" for line in step.text.splitlines() if interesting.search(line)][:20]

    def unittests(
        self, name: str, python: Sequence[Word], folder: pathlib.Path, environment: dict[str, str],
        patterns: Sequence[str] = ("test_*.py",), may_skip: bool = True,
    ) -> Count:
        command = [*python, "-B", ROOT / "scripts" / "unittests.py", LOGS / f"{name}.counts", folder, *patterns]
        counts = LOGS / f"{name}.counts"
        counts.unlink(missing_ok=True)
        step = Step(name, self.verbose).run(command, ALL_ON_KAFKA_LIMIT if name == "e2e-kafka-all" else TEST_LIMIT, environment)
        count = Count(*map(int, counts.read_text().split())) if counts.exists() else Count(failed=1)
        if not may_skip and count.skipped:
            count = Count(count.passed, count.failed + count.skipped)
        if step.code != 0 or count.failed:
            step.show(re.compile(r"^(FAIL|ERROR): "))
            self.note(name, step, re.compile(r"^(FAIL|ERROR): |^\w*(Error|Exception)\b"))
            count.failed = max(count.failed, 1)
        return count


def count_xunit(path: pathlib.Path) -> Count:
    count = Count()
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            count.failed += 1
        elif case.find("skipped") is not None:
            count.skipped += 1
        else:
            count.passed += 1
    return count


PARTS: dict[str, tuple[str, Callable[[Tests], Count]]] = {
    "unit": ("Swift targets", Tests.unit),
    "kafka": ("log on Kafka", Tests.kafka),
    "python": ("Python SDK", Tests.python),
    "golden": ("record batches beside kafka-python", Tests.golden),
    "e2e": ("end to end", Tests.e2e),
    "e2e-kafka": ("end to end on Kafka", Tests.e2e_kafka),
    "e2e-kafka-all": ("all end to end on Kafka", Tests.e2e_kafka_all),
    "examples": ("Swift example", Tests.examples),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=" ".join(PARTS))
    parser.add_argument("--verbose", action="store_true", help="show what the tests say while they run")
    parser.add_argument("--grape", type=pathlib.Path, metavar="PATH", help="the binary for the end-to-end tests")
    arguments = parser.parse_args()
    unknown = [part for part in arguments.parts if part not in PARTS]
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)} (there are {', '.join(PARTS)})")

    tests = Tests(arguments.verbose, arguments.grape)
    total = Count()
    started = time.monotonic()
    chosen = [part for part in PARTS if part in (arguments.parts or PARTS.keys() - {"e2e-kafka-all"})]
    if any(tests.needs_build(part) for part in chosen):
        try:
            tests.build()
        except Broken as error:
            print(f"   {error}: {', '.join(part for part in chosen if tests.needs_build(part))} cannot run")
            total += Count(failed=1)
            chosen = [part for part in chosen if not tests.needs_build(part)]
    for name in chosen:
        what, run = PARTS[name]
        part_started = time.monotonic()
        try:
            count = run(tests)
        except Broken as error:
            print(f"   {error}")
            tests.failures.append(f"{name}: {error}")
            count = Count(failed=1)
        print(f"== {name} ({what}): {count} in {time.monotonic() - part_started:.0f} s", flush=True)
        total += count
    print(f"\n{time.monotonic() - started:.0f} s in all", flush=True)
    told = [f"failed: {failure}" for failure in tests.failures]
    for line in told:
        print(line, flush=True)
    summary = f"{total.passed} passed, {total.failed} failed"
    LOGS.mkdir(parents=True, exist_ok=True)
    (LOGS / "summary").write_text(summary + "\n")
    (LOGS / "failures").write_text("".join(f"{line}\n" for line in told))
    print(summary, flush=True)
    return 1 if total.failed else 0


if __name__ == "__main__":
    # An orderly end, which ends what was started too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
