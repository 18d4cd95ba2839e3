"""Several nodes on one Kafka cluster, for test_cluster*.py: starting them, waiting for what they agree on, load, and what must be left."""

from __future__ import annotations

import json
import os
import random
import threading
import time
import unittest
from typing import Iterable, Optional

import broker
import wire
from node import ON_KAFKA, EndToEnd, Node
from protocol_client import Failure

PARTITIONS = 6
#: Of the consumers' sessions (broker.QUICK_SESSIONS), seconds.
SESSION = int(broker.QUICK_SESSIONS["session.timeout.ms"]) / 1000
#: For whatever the nodes agree on, on a busy machine.
PATIENCE = 60.0

#: `in` counts its key's events and leads to `out`, in one commit. `ask` says who answers.
COUNT = """
    import os

    @app.on("in")
    def receive(event, context):
        context.state.put(event.key, str(int(context.state.get(event.key, b"0")) + 1))
        context.emit("out", event.value, key=event.key)

    @app.on("out")
    def done(event, context):
        pass

    @app.on("ask")
    def ask(event, context):
        return f"{event.text} {os.getppid()}"
"""
COUNT_SLOTS = {"in": ["out"], "out": [], "ask": []}
PROFILE = {"retry": {"attempts": 100, "backoff": "10ms", "max-backoff": "100ms"}, "workers": {"min": 1, "max": 1}}


def key_of(partition: int, partitions: int = PARTITIONS) -> bytes:
    """A key whose events go there."""
    return next(key for number in range(10_000) if wire.partition_of(key := b"k%d" % number, partitions) == partition)


@unittest.skipUnless(ON_KAFKA, "several nodes need Kafka: GRAPE_LOG=kafka")
class ClusterCase(EndToEnd):
    def setUp(self) -> None:
        super().setUp()
        self.seed = int(os.environ.get("GRAPE_SEED", random.randrange(1 << 30)))
        self.random = random.Random(self.seed)
        self.nodes: list[Node] = []

    def start_nodes(self, count: int, *options: str) -> list[Node]:
        """n1, n2, and so on, each with a data folder of its own."""
        new = [self.make_node(f"n{len(self.nodes) + number + 1}") for number in range(count)]
        for node in new:
            node.start(*options, wait=False)
        self.nodes += new
        for node in new:
            node.wait_until_up()
        return new

    def deploy_counter(self, node: Node, name: str = "count", code: str = COUNT, **profile) -> None:
        node.deploy(self.python_app(name, code, COUNT_SLOTS, profile={**PROFILE, **profile}, partitions=PARTITIONS))

    # What nodes say

    def stats(self, node: Node, app: str) -> Optional[dict]:
        """nil if the node does not run, or does not know the application."""
        try:
            with node.client(timeout=10) as client:
                return next((found for found in client.request("stats")["apps"] if found["name"] == app), None)
        except (OSError, Failure):
            return None

    def assigned(self, node: Node, app: str = "count") -> set[int]:
        """The partitions that a node has."""
        stats = self.stats(node, app)
        return set() if stats is None else {found["partition"] for found in stats["partitions"]}

    def owner(self, partition: int, app: str = "count") -> Node:
        return self.eventually(
            lambda: next((node for node in self.nodes if partition in self.assigned(node, app)), None),
            f"somebody has partition {partition} of {app}", PATIENCE)

    def are_spread(self, nodes: Iterable[Node], app: str, partitions: int) -> bool:
        """Each node has some, each partition is at one node."""
        found = [self.assigned(node, app) for node in nodes]
        return all(found) and sorted(number for some in found for number in some) == list(range(partitions))

    def wait_spread(self, nodes: Optional[list[Node]] = None, app: str = "count", partitions: int = PARTITIONS) -> None:
        nodes = self.nodes if nodes is None else nodes
        try:
            self.eventually(lambda: self.are_spread(nodes, app, partitions), "partitions are spread", PATIENCE)
        except AssertionError as error:
            error.add_note(f"{app}: {[(node.name, sorted(self.assigned(node, app))) for node in nodes]}")
            for node in nodes:
                if node.process.poll() is not None:
                    error.add_note(f"{node.name} has ended: {node.log.read_text(errors='replace')[-2000:]}")
            raise

    def wait_all_idle(self, nodes: Optional[list[Node]] = None, timeout: float = 2 * PATIENCE) -> None:
        """All that is in the log has been dealt with, whichever node has it."""
        nodes = self.nodes if nodes is None else nodes
        self.told: object = None
        try:
            self.eventually(lambda: self.all_idle(nodes), "all that is in the log is dealt with", timeout)
        except AssertionError as error:
            error.add_note(str(self.told))
            raise

    def all_idle(self, nodes: list[Node]) -> bool:
        try:
            ends = self.input_ends(nodes[0])
            known: dict[tuple[str, int], int] = {}
            self.told = []
            for node in nodes:
                with node.client(timeout=10) as client:
                    apps = client.request("stats")["apps"]
                self.told.append((node.name, [
                    (app["name"], app["idle"], app["problem"],
                     [(found["partition"], found["committed"], found["end"], found["lag"]) for found in app["partitions"]])
                    for app in apps]))
                for app in apps:
                    if not app["idle"]:
                        return False
                    known.update({(app["name"], found["partition"]): found["end"] for found in app["partitions"]})
            self.told.append(ends)
            return known == ends and ends == self.input_ends(nodes[0])
        except (OSError, Failure):
            return False

    def input_ends(self, node: Node) -> dict[tuple[str, int], int]:
        with node.client(timeout=10) as client:
            topics = client.request("log.topics")["topics"]
            apps = {app["name"] for app in client.request("app.list")["apps"]}
        return {
            (topic["name"].removesuffix(".events"), partition["partition"]): partition["end"]
            for topic in topics if topic["name"].removesuffix(".events") in apps and topic["name"].endswith(".events")
            for partition in topic["partitions"]
        }

    def state_of(self, app: str, partitions: int = PARTITIONS) -> dict[bytes, bytes]:
        """Of all partitions, each asked of the node that has it."""
        found = {}
        for partition in range(partitions):
            for entry in self.owner(partition, app).state(app, partition=partition):
                found[entry.key] = entry.value
        return found

    # What must be left

    def check_counts(self, senders: Iterable["Load"], app: str = "count", node: Optional[Node] = None) -> int:
        """What was acknowledged is in the log where it was said to be; each event led to one, in order, and was counted once. Gives how many."""
        node = node or self.nodes[0]
        message = f"seed {self.seed}"
        stored: dict[tuple[int, int], bytes] = {}
        inputs: dict[bytes, list[bytes]] = {}
        outputs: dict[bytes, list[bytes]] = {}
        with node.client(timeout=60) as client:
            for partition in range(PARTITIONS):
                for record in client.read_all(f"{app}.events", partition):
                    name = record.header("g.e")
                    if name == b"in":
                        stored[partition, record.offset] = record.value
                        inputs.setdefault(record.key, []).append(record.value)
                    elif name == b"out":
                        outputs.setdefault(record.key, []).append(record.value)
        values = [value for some in inputs.values() for value in some]
        self.assertEqual(len(values), len(set(values)), f"{message}: each event is in the log once")
        for sender in senders:
            self.assertIsNone(sender.failure, message)
            for value, place in sender.acknowledged.items():
                if stored.get(place) != value:
                    where = [found for found, other in stored.items() if other == value]
                    self.fail(f"{message}: {value} was acknowledged at {place}, where {stored.get(place)} is; it is at {where or 'no place'}")
        for key in inputs.keys() | outputs.keys():
            self.assertEqual(outputs.get(key), inputs.get(key), f"{message}: what came of the events of {key}")
        counted = {key: int(value) for key, value in self.state_of(app).items()}
        self.assertEqual(counted, {key: len(some) for key, some in inputs.items()}, message)
        self.assertEqual(node.records(f"{app}.dead"), [], message)
        return len(values)


class Load(threading.Thread):
    """Sends numbered events to `in`, many in flight, to one of some nodes; to another when that one ends or refuses. What was not
    acknowledged is not sent again."""

    def __init__(self, nodes: list[Node], name: str, app: str = "count", keys: int = 24, window: int = 32) -> None:
        super().__init__(daemon=True)
        self.nodes, self.label, self.app, self.keys, self.window = nodes, name, app, keys, window
        self.acknowledged: dict[bytes, tuple[int, int]] = {}
        self.sent = 0
        self.enough = threading.Event()
        self.changed = threading.Condition()
        self.failure: Optional[BaseException] = None

    def run(self) -> None:
        turn = 0
        try:
            while not self.enough.is_set():
                try:
                    self.work(self.nodes[turn % len(self.nodes)])
                except (OSError, Failure) as error:
                    # A node that stops refuses the connection itself, too.
                    if isinstance(error, Failure) and error.status != wire.STATUS["unavailable"]:
                        raise
                    turn += 1
                    self.enough.wait(0.05)
        except BaseException as error:  # told by the test, in its own thread
            self.failure = error
        finally:
            with self.changed:
                self.enough.set()
                self.changed.notify_all()

    def work(self, node: Node) -> None:
        waiting: list[tuple[bytes, int]] = []
        with node.client(timeout=PATIENCE) as client:
            while waiting or not self.enough.is_set():
                if len(waiting) < self.window and not self.enough.is_set():
                    value = b"%s-%d" % (self.label.encode(), self.sent)
                    key = b"k%d" % (self.sent % self.keys)
                    self.sent += 1
                    waiting.append((value, client.send_exec(f"{self.app}@in", value, key=key)))
                    continue
                value, id = waiting.pop(0)
                answer = client.answer(id)
                if not hasattr(answer, "offset"):
                    # It stops, or cannot write; nothing else may be the matter.
                    if answer.status not in (wire.STATUS["unavailable"], wire.STATUS["queue-full"]):
                        raise AssertionError(f"{value!r} at {node.name}: {answer}")
                    raise ConnectionError(answer.message)
                with self.changed:
                    self.acknowledged[value] = (answer.partition, answer.offset)
                    self.changed.notify_all()

    def wait_for(self, more: int, timeout: float = PATIENCE) -> None:
        """Until so many more are acknowledged."""
        with self.changed:
            wanted = len(self.acknowledged) + more
            self.changed.wait_for(lambda: len(self.acknowledged) >= wanted or self.enough.is_set(), timeout)
            if len(self.acknowledged) < wanted:
                raise AssertionError(f"{self.label}: no {more} more events in {timeout} s") from self.failure

    def finish(self) -> None:
        self.enough.set()
        self.join(PATIENCE)
        if self.is_alive():
            raise AssertionError(f"{self.label} does not end")


class Callers:
    """One caller for each partition, at one node: when was each answered?"""

    def __init__(self, node: Node, app: str = "count") -> None:
        self.node, self.app = node, app
        self.enough = threading.Event()
        self.times: list[list[float]] = [[time.monotonic()] for _ in range(PARTITIONS)]
        self.failure: Optional[BaseException] = None
        self.threads = [threading.Thread(target=self.call, args=(number,), daemon=True) for number in range(PARTITIONS)]
        for thread in self.threads:
            thread.start()

    def call(self, partition: int) -> None:
        key = key_of(partition)
        try:
            with self.node.client(timeout=2 * PATIENCE) as client:
                while not self.enough.is_set():
                    answer = client.exec(f"{self.app}@ask", b"%d" % partition, key=key, block=True, timeout_ms=100_000)
                    if answer.status != 0 or not answer.value.startswith(b"%d " % partition):
                        raise AssertionError(f"partition {partition}: {answer}")
                    self.times[partition].append(time.monotonic())
        except BaseException as error:  # told by the test, in its own thread
            self.failure = self.failure or error

    def answers(self, partition: int) -> int:
        return len(self.times[partition])

    def finish(self) -> None:
        self.enough.set()
        for thread in self.threads:
            thread.join(2 * PATIENCE)
        if self.failure is not None:
            raise AssertionError("a call failed") from self.failure

    def longest_gap(self, since: float) -> float:
        """Seconds for which a partition had no answer, of all partitions, from then on."""
        longest = 0.0
        for times in self.times:
            later = [since, *(at for at in times if at > since)]
            longest = max(longest, *(after - before for before, after in zip(later, later[1:]))) if len(later) > 1 else float("inf")
        return longest


def print_measured(what: str, **figures: object) -> None:
    """A line that a reader of the tests' output finds."""
    print(json.dumps({"measured": what, **figures}), flush=True)
