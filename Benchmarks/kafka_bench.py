#!/usr/bin/env python3
"""Measures nodes on Kafka beside bare loops of librdkafka in C, on the same broker and in turns.

  kafka_bench.py [--grape PATH] [--only NAME ...] [--repeat N] [--quick] [--write]
                 [--partitions N] [--state-mib MIB]

The report goes to Benchmarks/out/kafka.md, with --write also to its section of docs/benchmarks.md. Ratios are medians of the rounds'
ratios: what changes from round to round cancels out.

The broker is the one of the end-to-end tests (Tests/EndToEnd/broker.py): noida-db, or with GRAPE_KAFKA=host:port,... (and
GRAPE_KAFKA_SETTINGS) a cluster. noida-db answers a fetch with all that a partition has, so topics stay small on it, and at once, so
limits/fetch_wait.c stands between. Topics that were made are
deleted in the end. Needs gcc, make, librdkafka, python3 and the Swift toolchain.
Exit code 0: measured; 1: something could not be measured; 2: a target was missed (--gate).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, Iterator, Optional

import bench
from bench import OUT, ROOT, Row, Unmeasured, rate, size

sys.path.insert(0, os.fspath(ROOT / "Tests" / "EndToEnd"))

import broker
import wire
from protocol_client import Client, Failure

#: For whatever the nodes agree on among themselves, seconds.
PATIENCE = 60.0
#: How often a node is asked for its figures, seconds. Nothing announces them.
PAUSE = 0.005
#: Of the bench commands' events.
VALUE_BYTES, KEY_BYTES, KEYS = 100, 8, 10_000


def eventually(true: Callable[[], Any], what: str, timeout: float = PATIENCE) -> Any:
    """Asks until the answer is true."""
    deadline = time.monotonic() + timeout
    while not (answer := true()):
        if time.monotonic() > deadline:
            raise Unmeasured(f"not within {timeout:.0f} s: {what}")
        time.sleep(PAUSE)
    return answer


class Node:
    """A node on the cluster, with a data folder of its own."""

    def __init__(self, setup: "Setup", name: str, namespace: str) -> None:
        self.setup, self.name, self.namespace = setup, name, namespace
        self.data = setup.folder / f"{namespace}{name}"
        self.log = setup.folder / f"{namespace}{name}.log"
        self.process: Optional[subprocess.Popen] = None
        self.connection: Optional[Client] = None

    def start(self) -> None:
        words = [self.setup.grape, "serve", "--data", self.data, "--name", self.name]
        words += ["--log", f"kafka://{self.setup.address}/{self.namespace}"]
        for setting in self.setup.settings.items():
            words += ["--kafka-setting", "=".join(setting)]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.grape("node", "wait", "--timeout", f"{PATIENCE:.0f}s")

    def stop(self) -> None:
        """As an operator does. Comes back when the node is gone."""
        self.disconnect()
        self.grape("node", "stop")
        self.process.wait(PATIENCE)

    def end(self) -> None:
        """For cleaning up."""
        self.disconnect()
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def grape(self, *words: Any) -> str:
        environment = {**os.environ, "GRAPE_NODE": os.fspath(self.data)}
        try:
            return bench.run([self.setup.grape, *words], env=environment, timeout=self.setup.seconds_left())
        except Unmeasured as error:
            tail = self.log.read_text(errors="replace")[-600:] if self.log.exists() else "never started"
            raise Unmeasured(f"{error}; the log of {self.name} ends: {tail}") from None

    def json(self, *words: Any) -> dict:
        return json.loads(self.grape(*words, "--json"))

    def client(self, timeout: float = PATIENCE) -> Client:
        return Client(os.fspath(self.data / "node.sock"), timeout=timeout)

    def disconnect(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def request(self, op: str, **members: Any) -> dict:
        if self.connection is None:
            self.connection = self.client()
        return self.connection.request(op, **members)

    # What it says

    def app(self, name: str) -> Optional[dict]:
        return next((app for app in self.request("stats")["apps"] if app["name"] == name), None)

    def processed(self, app: str, slot: str) -> int:
        found = self.app(app)
        if found is None or found["state"] == "failed":
            raise Unmeasured(f"{app} does not run: {found and found['problem']}; see its log")
        return next(one["processed"] for one in found["slots"] if one["name"] == slot)

    def assigned(self, name: str) -> set[int]:
        """The partitions that it has."""
        found = self.app(name)
        return set() if found is None else {partition["partition"] for partition in found["partitions"]}

    def ends(self, topic: str) -> list[int]:
        for found in self.request("log.topics")["topics"]:
            if found["name"] == topic:
                return [partition["end"] for partition in found["partitions"]]
        raise Unmeasured(f"there is no topic {topic}")

    def wait_idle(self, app: str) -> None:
        self.grape("stats", "--wait-idle", "--app", app, "--timeout", "5m")

    def cpu_seconds(self) -> float:
        """Of the node and its workers, so far."""
        total = 0
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    fields = pathlib.Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
                    if int(entry) == self.process.pid or int(fields[1]) == self.process.pid:
                        total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")


class Setup:
    """The broker, and what is started for the measurements."""

    def __init__(self, given: argparse.Namespace, stack: contextlib.ExitStack) -> None:
        self.given, self.stack = given, stack
        self.grape = given.grape.resolve()
        self.deadline = time.monotonic() + given.minutes * 60
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="grape-kafka-bench-"))
        stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        bench.run(["make", "-s", "-C", bench.HERE / "limits", "for-kafka", f"OUT={OUT / 'limits'}"])
        self.cluster = broker.shared()
        self.settings = dict(self.cluster.settings)
        self.address = self.cluster.address
        if isinstance(self.cluster, broker.OwnBroker):
            # Not through the tests' proxy: it would be what is measured. What it sets right (transactions that are rolled back, members that
            # say nothing any more) does not happen here.
            self.address = self.waiting_way(self.cluster)
            # All that a topic has may come in one answer.
            self.settings["receive.message.max.bytes"] = "1500000000"
        self.prefix = f"kbench{os.getpid()}"
        stack.callback(self.cluster.delete_topics, self.prefix)
        self.topics = self.groups = 0

    def waiting_way(self, own: broker.OwnBroker) -> str:
        """That broker answers fetches at once, also when there is nothing, so that a node with nothing to do takes a processor, and half of
        the broker. Behind this it does not."""
        port = broker.free_port(own.host)
        way = subprocess.Popen(
            [OUT / "limits" / "fetch_wait", own.host, str(port), str(own.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.stack.callback(way.wait, 10)
        self.stack.callback(way.stdin.close)
        if not way.stdout.readline():
            raise Unmeasured("fetch_wait does not start")
        return f"{own.host}:{port}"

    @property
    def what_broker(self) -> str:
        if isinstance(self.cluster, broker.OwnBroker):
            version = bench.run([self.cluster.program, "--version"]).strip().splitlines()
            return (version[0] if version else "noida-db") + " on the same machine, behind Benchmarks/limits/fetch_wait.c"
        return "a cluster (GRAPE_KAFKA)"

    def seconds_left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise Unmeasured("the time is over (--minutes)")
        return left

    def scaled(self, count: int) -> int:
        return max(1, count // 10) if self.given.quick else count

    def lasting_group(self) -> "Group":
        """One that stays for all rounds of a measurement."""
        return self.stack.enter_context(Group(self))

    def bare(self, command: str, *words: Any, headers: bool = False) -> dict:
        """One of the loops in C, on a topic of its own; with the headers that events of Grape have, or without any."""
        self.topics += 1
        topic = f"{self.prefix}-bare-{self.topics}"
        options = [word for setting in self.settings.items() for word in ("-X", "=".join(setting))]
        if headers:
            options.append("-H")
        program = [OUT / "limits" / "kafka", *options, self.address, command, topic, *words]
        try:
            return json.loads(bench.run(program, timeout=self.seconds_left()))[command]
        finally:
            self.cluster.delete_topics(topic)

    def app(self, language: str, origin: str, name: str, partitions: int, profile: str = "") -> pathlib.Path:
        """The folder of one of the applications in apps, under another name, with other partitions, and with a line more in its profile."""
        folder = self.folder / name
        if folder.exists():
            return folder
        shutil.copytree(bench.package(language, origin), folder)
        manifest = folder / "grape.yaml"
        text = manifest.read_text().replace(f"name: {origin}\n", f"name: {name}\n").replace("partitions: 4\n", f"partitions: {partitions}\n")
        manifest.write_text(text.replace("profile:\n", f"profile:\n  {profile}\n") if profile else text)
        return folder


class Group:
    """Nodes that share their applications, and topics of their own, which are deleted with them."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        setup.groups += 1
        self.namespace = f"{setup.prefix}.{setup.groups}."
        self.nodes: list[Node] = []

    def __enter__(self) -> "Group":
        return self

    def __exit__(self, *_: Any) -> None:
        for node in self.nodes:
            node.end()
            shutil.rmtree(node.data, ignore_errors=True)
        self.setup.cluster.delete_topics(self.namespace)

    def start_node(self) -> Node:
        node = Node(self.setup, f"n{len(self.nodes) + 1}", self.namespace)
        self.nodes.append(node)
        node.start()
        return node


# The measurements


class Measurement:
    """One subject. `prepare` is called first, `once` once per round, `rows` in the end."""

    name = ""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.results: list[dict[str, float]] = []

    def prepare(self) -> None:
        pass

    def once(self) -> dict[str, float]:
        raise NotImplementedError

    def rows(self) -> Iterator[Row]:
        raise NotImplementedError

    def median(self, name: str) -> float:
        return statistics.median(result[name] for result in self.results)

    def range(self, name: str, format: Callable[[float], str]) -> str:
        found = [result[name] for result in self.results]
        return f"{format(statistics.median(found))} ({format(min(found))} to {format(max(found))})"

    def row(
        self, what: str, mine: str, bare: str, bare_name: str, unit: str, target: Optional[float], at_most: bool = False,
        format: Callable[[float], str] = rate,
    ) -> Row:
        ratios = [result[mine] / result[bare] for result in self.results]
        spread = f"; ratios {min(ratios):.2f} to {max(ratios):.2f}" if len(ratios) > 1 else ""
        return Row(
            what, f"{self.range(mine, format)} {unit}", f"{bare_name} {self.range(bare, format)}{spread}", statistics.median(ratios), target,
            at_most,
        )


class Ingest(Measurement):
    """Events of 100 bytes through the node into Kafka, client and node as processes of their own; to one partition and to four."""

    name = "ingest"
    places = (("single", 1), ("counts", 4))

    def once(self) -> dict[str, float]:
        records = self.setup.scaled(500_000)
        found = {}
        with Group(self.setup) as group:
            node = group.start_node()
            for app, partitions in self.places:
                node.grape("deploy", self.setup.app("swift", "counts", app, partitions))
                # Only what is measured runs.
                node.grape("app", "stop", app)
                load = ("--records", records, "--value-bytes", VALUE_BYTES, "--keys", KEYS)
                found[f"grape{partitions}"] = node.json("bench", "ingest", f"{app}@word", *load)["recordsPerSecond"]
                for name, headers in (("same", True), ("bare", False)):
                    found[f"{name}{partitions}"] = self.setup.bare("produce", partitions, records, headers=headers)["recordsPerSecond"]
        return found

    def rows(self) -> Iterator[Row]:
        for _, partitions in self.places:
            what = "one partition" if partitions == 1 else f"{partitions} partitions"
            yield self.row(
                f"events of 100 bytes through a node, acks=all, {what}", f"grape{partitions}", f"same{partitions}",
                "bare producer of the same records", "events/s", 0.8)
            yield self.row(
                f"the same, {what}, without headers in C", f"grape{partitions}", f"bare{partitions}", "bare producer", "events/s", None)


class Process(Measurement):
    """From topic to topic through a Swift handler, exactly once: 4 partitions, one worker. The application that it leads to stands still.
    Clocks run between commits, from the first that is seen to the last: what comes before is the start of an application."""

    name = "process"

    def once(self) -> dict[str, float]:
        with Group(self.setup) as group:
            return self.compare(group.start_node(), self.setup.scaled(400_000))

    def compare(self, node: Node, events: int) -> dict[str, float]:
        for app in ("counts", "uppercase"):
            node.grape("deploy", self.setup.app("swift", app, app, 4))
            node.grape("app", "stop", app)
        ends = sum(node.ends("counts.events"))
        node.json("bench", "ingest", "uppercase@word", "--records", events, "--value-bytes", VALUE_BYTES, "--keys", KEYS)
        node.grape("app", "start", "uppercase")
        first = eventually(lambda: node.processed("uppercase", "word"), "the first event is processed")
        begin, worked = time.monotonic(), node.cpu_seconds()
        if first >= events * 3 / 4:
            raise Unmeasured(f"{first} of {events} events were processed when the first were seen: too few for this machine")
        eventually(lambda: node.processed("uppercase", "word") >= events, "all events are processed", self.setup.seconds_left())
        seconds, worked = time.monotonic() - begin, node.cpu_seconds() - worked
        node.wait_idle("uppercase")
        markers = sum(node.ends("counts.events")) - ends - events
        if markers < 0:
            raise Unmeasured(f"{events} events went in, {events + markers} came out")
        # A transaction leaves a marker in each partition that it wrote to. If some did not write to all of them there were more; then the
        # loop in C gets larger ones than Grape's, which is to its advantage.
        per_transaction = min(events // 4, max(1, events * 4 // max(1, markers)))
        same, bare = (
            self.setup.bare("process", 4, events, per_transaction, headers=headers)["recordsPerSecond"] for headers in (True, False))
        return {
            "grape": (events - first) / seconds, "same": same, "bare": bare, "perTransaction": per_transaction,
            "processorNanoseconds": worked * 1e9 / (events - first),
        }

    def rows(self) -> Iterator[Row]:
        yield self.row(
            "consume, Swift handler, emit, commit, exactly once", "grape", "same",
            f"the same records in C, {rate(self.median('perTransaction'))} a transaction:", "events/s", 0.8)
        yield self.row("the same, without headers in C", "grape", "bare", "in C", "events/s", None)


class Call(Measurement):
    """Blocking events with a Swift handler, one in flight, at-least-once; at the node that has the only partition, where the handler's reply is told before
    it is in the log, and through another node, where it comes by the reply topic."""

    name = "call"

    def prepare(self) -> None:
        group = self.setup.lasting_group()
        first, second = group.start_node(), group.start_node()
        first.grape("deploy", self.setup.app("swift", "counts", "counts", 4))
        first.grape("app", "stop", "counts")
        first.grape("deploy", self.setup.app("swift", "uppercase", "echo", 1, "guarantee: at-least-once"))
        nodes = (first, second)
        eventually(lambda: all((node.app("echo") or {}).get("state") == "running" for node in nodes), "both nodes run echo")
        self.at = eventually(lambda: next((node for node in nodes if node.assigned("echo")), None), "somebody has the partition of echo")
        self.other = nodes[nodes[0] is self.at]
        for node in nodes:
            node.grape("exec", "echo@echo", "--block", "--timeout", f"{PATIENCE:.0f}s", "--data", "x")

    def once(self) -> dict[str, float]:
        calls = self.setup.scaled(500)
        found = {}
        # The loop in C between the two: both are compared with what was measured right before or after.
        for name, node in (("at", self.at), ("bare", None), ("other", self.other)):
            if node is None:
                measured = self.setup.bare("roundtrip", calls)
            else:
                measured = node.json("bench", "call", "echo@echo", "--in-flight", 1, "--calls", calls, "--warm-up", 50, "--value-bytes", VALUE_BYTES)
            found[name], found[name + "99"] = measured["p50Micros"], measured["p99Micros"]
        return found

    def rows(self) -> Iterator[Row]:
        for name, where in (("at", "at the node that has the partition: the reply is told before it is in the log"), ("other", "through another node")):
            yield self.row(
                f"blocking call, one in flight, at-least-once, {where}", name, "bare", "one record written and read:",
                f"µs p50, p99 {rate(self.median(name + '99'))} µs", 2.0, at_most=True)


class HandOver(Measurement):
    """State goes from one node to another: from `grape node stop` until the last of its partitions answers at the other node, which had these
    partitions before and has them on its disk, but for a few changes. Partitions are called all the time."""

    name = "handover"

    def prepare(self) -> None:
        given = self.setup.given
        self.partitions = given.partitions
        mib = self.setup.scaled(given.state_mib)
        self.entries = max(self.partitions, mib * 1_048_576 // 1_000)
        keys = (b"%08d" % number for number in range(100_000))
        self.keys: dict[int, bytes] = {}
        for key in keys:
            self.keys.setdefault(wire.partition_of(key, self.partitions), key)
        group = self.setup.lasting_group()
        self.first = group.start_node()
        self.first.grape("deploy", self.setup.app("python", "holder", "holder", self.partitions))
        self.fill(self.entries)
        self.second = group.start_node()
        self.wait_spread()
        # The first time the other node has nothing on its disk.
        self.cold = self.hand_over()
        self.first.start()

    def fill(self, records: int) -> None:
        load = ("--records", records, "--keys", self.entries, "--value-bytes", 1_000 - KEY_BYTES)
        self.first.grape("bench", "ingest", "holder@keep", *load)
        self.first.wait_idle("holder")

    def wait_spread(self) -> None:
        def spread() -> bool:
            found = [node.assigned("holder") for node in (self.first, self.second)]
            return all(found) and sorted(number for some in found for number in some) == list(range(self.partitions))

        eventually(spread, "partitions are spread over both nodes")

    def hand_over(self) -> float:
        """Seconds; the first node is stopped."""
        gone = self.first.assigned("holder")
        answers = Answers(self.second, {partition: self.keys[partition] for partition in gone})
        try:
            answers.until_all(lambda pid, _: pid == self.first.process.pid, "its partitions answer at the first node")
            began = time.monotonic()
            stopping = subprocess.Popen([self.setup.grape, "node", "stop", "--node", self.first.data], stdout=subprocess.DEVNULL)
            try:
                answers.until_all(lambda pid, _: pid == self.second.process.pid, "its partitions answer at the second node")
                taken = time.monotonic() - began
            finally:
                stopping.wait(PATIENCE)
            self.first.disconnect()
            self.first.process.wait(PATIENCE)
            return taken
        finally:
            answers.close()

    def once(self) -> dict[str, float]:
        if self.first.process.poll() is not None:
            self.first.start()
        self.wait_spread()
        # What the other node has on its disk lacks these.
        self.fill(min(self.entries, self.partitions * 100))
        return {"seconds": self.hand_over()}

    def rows(self) -> Iterator[Row]:
        bytes = self.entries * 1_000
        yield Row(
            f"{self.partitions} partitions with {size(bytes)} of state, half of them handed over by a node that is stopped",
            f"{self.range('seconds', lambda value: f'{value:.2f}')} s until the last works again", "target 3 s", self.median("seconds") / 3, 1.0,
            at_most=True)
        yield Row("the same to a node without any of that state", f"{self.cold:.2f} s")


class Answers:
    """Calls to some partitions through one node, one at a time for each, a hundred a second at most."""

    def __init__(self, node: Node, keys: dict[int, bytes]) -> None:
        self.client = node.client()
        self.keys = keys
        self.waiting: dict[int, int] = {}
        self.due = {partition: 0.0 for partition in keys}

    def until_all(self, true: Callable[[int, int], bool], what: str) -> None:
        """Until each partition has given an answer, to a call from now on or before, for which (process of the node, partition) is true."""
        left, deadline = set(self.keys), time.monotonic() + PATIENCE
        while left:
            now = time.monotonic()
            if now > deadline:
                raise Unmeasured(f"not within {PATIENCE:.0f} s: {what}: not {sorted(left)}")
            for partition in [partition for partition, due in self.due.items() if due <= now]:
                del self.due[partition]
                id = self.client.send_exec("holder@ask", key=self.keys[partition], block=True, timeout_ms=int(PATIENCE * 1000))
                self.waiting[id] = partition
            self.client.timeout = max(0.001, min(self.due.values(), default=now + 0.1) - now)
            try:
                frame = self.client.any_frame()
            except TimeoutError:
                continue
            if frame is None:
                raise Unmeasured("the node that takes over has closed the connection")
            self.client.frames.insert(0, frame)
            self.client.timeout = PATIENCE
            answer = self.client.answer(frame.id)
            partition = self.waiting.pop(frame.id)
            if getattr(answer, "status", None) != 0:
                raise Unmeasured(f"partition {partition}: {answer}")
            if true(int(answer.value), partition):
                left.discard(partition)
            self.due[partition] = time.monotonic() + 0.01

    def close(self) -> None:
        self.client.close()


#: In the order of the report.
MEASUREMENTS: list[type[Measurement]] = [Process, Ingest, Call, HandOver]


# The report


def report(setup: Setup, rows: list[Row], missing: list[str]) -> str:
    given = setup.given
    words = ["python3 Benchmarks/kafka_bench.py --write"] + [
        f"--{name.replace('_', '-')} {getattr(given, name)}" for name in ("repeat", "partitions", "state_mib")]
    lines = [
        bench.KAFKA_SECTION[0], "## On Kafka", "",
        f"Written by `{' '.join(words)}`. Nodes and loops of librdkafka in C (`Benchmarks/limits/kafka.c`) on the same broker, in turns;",
        "figures are medians (and ranges) of the rounds, ratios medians of the rounds' ratios.", "",
        f"* Machine: {bench.machine()}", f"* Broker: {setup.what_broker}", f"* Grape: {bench.run([setup.grape, '--version']).strip()}",
        f"* {time.strftime('%Y-%m-%d', time.gmtime())}, {given.repeat} rounds" + (", quick run: figures are rough" if given.quick else ""),
        "", *bench.table(rows), "",
    ]
    if missing:
        lines += ["Not measured:", "", *(f"* {line}" for line in missing), ""]
    return "\n".join([*lines, bench.KAFKA_SECTION[1]]) + "\n"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("GRAPE", ROOT / ".build" / "release" / "grape")
    parser.add_argument("--grape", type=pathlib.Path, default=pathlib.Path(default), help="the binary (release build)")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[found.name for found in MEASUREMENTS])
    parser.add_argument("--repeat", type=int, default=3, help="rounds (3)")
    parser.add_argument("--partitions", type=int, default=16, help="whose state is handed over (16)")
    parser.add_argument("--state-mib", type=int, default=64, help="state of all of them, MiB (64)")
    parser.add_argument("--minutes", type=float, default=10, help="stop after so long (10)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work: to see that everything runs")
    parser.add_argument("--write", action="store_true", help="put the report into docs/benchmarks.md, too")
    parser.add_argument("--gate", action="store_true", help="exit with 2 if a target is missed")
    given = parser.parse_args()
    if given.repeat < 1 or not 2 <= given.partitions <= 1024 or given.state_mib < 1:
        parser.error("--repeat and --state-mib take at least 1, --partitions 2 to 1024")
    return given


def main() -> int:
    given = arguments()
    # Nodes are ended and topics deleted also when somebody has had enough.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    OUT.mkdir(exist_ok=True)
    if not given.grape.is_file():
        print(f"kafka_bench.py: no grape at {given.grape}: build it (swift build -c release) or give --grape", file=sys.stderr)
        return 1
    failed: dict[str, str] = {}

    def attempt(found: Measurement, what: Callable[[], Any]) -> None:
        if found.name in failed:
            return
        began = time.monotonic()
        try:
            what()
        except (Unmeasured, Failure, OSError, subprocess.SubprocessError, KeyError, ValueError, StopIteration) as error:
            failed[found.name] = f"{found.name}: {type(error).__name__}: {error}"
        print(f"  {found.name}: {failed.get(found.name, f'{time.monotonic() - began:.1f} s')}", file=sys.stderr, flush=True)

    with contextlib.ExitStack() as stack:
        setup = Setup(given, stack)
        chosen = [found(setup) for found in MEASUREMENTS if given.only is None or found.name in given.only]
        # All rounds of one, then the next: what the one before has started disturbs least if it only waits.
        for found in chosen:
            print(f"{found.name}, {given.repeat} rounds", file=sys.stderr)
            with contextlib.ExitStack() as setup.stack:
                attempt(found, found.prepare)
                for _ in range(given.repeat):
                    attempt(found, lambda: found.results.append(found.once()))
        rows = [row for found in chosen if found.name not in failed for row in found.rows()]
        text = report(setup, rows, list(failed.values()))
    bench.show(rows)
    results = {"results": {found.name: found.results for found in chosen}, "failed": failed}
    (OUT / "kafka.json").write_text(json.dumps(results, indent=2) + "\n")
    (OUT / "kafka.md").write_text(text)
    if given.write:
        if given.only or failed:
            print("not written to docs/benchmarks.md: not everything was measured", file=sys.stderr)
        else:
            bench.replace_section(ROOT / "docs" / "benchmarks.md", text, bench.KAFKA_SECTION)
    if failed:
        return 1
    return 2 if given.gate and any(row.reached is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
