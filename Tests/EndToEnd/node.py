"""Real nodes and the real command line, for the tests in this folder.

GRAPE names the binary (otherwise .build/release/grape, then .build/debug/grape). GRAPE_LOG=kafka runs every node on Kafka
(broker.py says on which cluster). Everything a test starts lives in a temporary folder of its own, or in a namespace of its own
on the cluster, and is ended and removed when the test is over, whatever happened.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import textwrap
import time
import unittest
from typing import Any, Callable, Iterable, Optional, Union

import broker
from protocol_client import Client

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent

# A background job of a script ignores SIGINT, and so would all that it starts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

#: What the command line's exit codes mean.
OK, FAILURE, USAGE, BAD_INPUT, NO_INPUT, UNREACHABLE, INTERNAL = 0, 1, 64, 65, 66, 69, 70
HANDLER_ERROR, NO_SUCH_APP, NO_SUCH_SLOT, QUEUE_FULL, DEADLINE, TOO_LARGE = 10, 11, 12, 13, 14, 15
GAVE_UP, UNAVAILABLE, DAMAGED, CONFLICT, UNAUTHORIZED, NOT_FOUND = 16, 17, 18, 19, 20, 21
NO_ENTRY, REFUSED = 22, 23

#: Whether nodes run on Kafka.
ON_KAFKA = os.environ.get("GRAPE_LOG") == "kafka"


def embedded_only(why: str) -> Callable:
    """For a test that has no meaning on Kafka."""
    return unittest.skipIf(ON_KAFKA, f"not on Kafka: {why}")


def find_grape() -> pathlib.Path:
    candidates = [pathlib.Path(os.environ["GRAPE"])] if "GRAPE" in os.environ else [
        ROOT / ".build" / build / "grape" for build in ("release", "debug")
    ]
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    raise unittest.SkipTest(f"no grape binary at {' or '.join(map(str, candidates))}: build it or set GRAPE")


@dataclasses.dataclass
class Result:
    """What a command did."""

    code: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def __str__(self) -> str:
        return f"exit code {self.code}\nstdout: {self.out!r}\nstderr: {self.err.decode(errors='replace')}"


@dataclasses.dataclass
class StateEntry:
    """An entry of an application's state."""

    partition: int
    key: bytes
    value: Optional[bytes]
    tags: list[str]
    expires_ms: Optional[int]
    size: int


class Node:
    """A node with a data folder; may be killed and started again on it."""

    def __init__(
        self, folder: pathlib.Path, name: Optional[str] = None, cluster: Optional[broker.Cluster] = None, namespace: str = "",
    ) -> None:
        """On the embedded log unless there is a cluster."""
        self.grape_path = find_grape()
        self.folder = folder
        self.data = folder / (name or "data")
        self.log = folder / f"{name or 'node'}.log"
        self.name = name
        self.cluster, self.namespace = cluster, namespace
        self.process: Optional[subprocess.Popen] = None
        #: Where the cluster is for this node, if it goes a way of its own.
        self.address: Optional[str] = None
        #: Words before the command that serves, for a node that runs somewhere else.
        self.within: tuple[str, ...] = ()

    # The process

    def start(self, *options: str, wait: bool = True) -> "Node":
        words = [*self.within, self.grape_path, "serve", "--data", self.data, *self.log_options(), *options]
        # Topics that are not Grape's are those of one test, too, as long as it does not say otherwise.
        environment = {"GRAPE_SERVE_KAFKA_EXTERNAL_NAMESPACE": self.namespace, **os.environ} if self.namespace else None
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, env=environment
            )
        if wait:
            self.wait_until_up()
        return self

    def wait_until_up(self) -> None:
        waiting = self.start_grape(
            "node", "wait", "--timeout", "10s" if self.cluster is None else "60s", stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        while waiting.poll() is None and self.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                waiting.wait(0.05)
        if self.process.poll() is not None:
            waiting.kill()
        _, said = waiting.communicate()
        if waiting.returncode != 0:
            raise AssertionError(f"the node did not start: {said.decode(errors='replace')}\n{self.tail()}")

    def log_options(self) -> list[str]:
        options = [] if self.name is None else ["--name", self.name]
        if self.cluster is not None:
            options += ["--log", f"kafka://{self.address or self.cluster.address}/{self.namespace}"]
            for setting in self.cluster.settings.items():
                options += ["--kafka-setting", "=".join(setting)]
        return options

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait(10)

    def terminate(self, timeout: float = 10) -> int:
        """SIGTERM; the exit code. Fails if the node is not gone in time."""
        self.process.terminate()
        return self.process.wait(timeout)

    def stop_for_good(self) -> None:
        """For cleaning up: ends the node and, should it leave any, its workers."""
        if self.process is None:
            return
        workers = self.worker_pids()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
        for pid in workers:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def worker_pids(self) -> list[int]:
        """Processes that descend from the node now."""
        parents: dict[int, list[int]] = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    stat = pathlib.Path("/proc", entry, "stat").read_text()
                except OSError:
                    continue
                fields = stat.rpartition(")")[2].split()
                if fields[0] != "Z":
                    parents.setdefault(int(fields[1]), []).append(int(entry))
        found, open_ends = [], [self.process.pid]
        while open_ends:
            children = parents.get(open_ends.pop(), [])
            found += children
            open_ends += children
        return found

    # Ways in

    def grape(
        self, *words: Union[str, os.PathLike], input: Union[bytes, str, None] = None, expect: Optional[int] = OK,
        timeout: float = 60, cwd: Optional[pathlib.Path] = None,
    ) -> Result:
        """Runs the command line against this node. Any other exit code than `expect` fails the test; None takes all."""
        done = subprocess.run(
            [self.grape_path, *map(os.fspath, words)], input=input.encode() if isinstance(input, str) else input or b"",
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout, cwd=cwd or self.folder, env=self.environment(),
        )
        result = Result(done.returncode, done.stdout, done.stderr)
        if expect is not None and result.code != expect:
            raise AssertionError(f"grape {' '.join(map(str, words))}: expected exit code {expect}\n{result}\n{self.tail()}")
        return result

    def start_grape(self, *words: Union[str, os.PathLike], **options: Any) -> subprocess.Popen:
        """Starts a command that the test will end."""
        return subprocess.Popen([self.grape_path, *map(os.fspath, words)], cwd=self.folder, env=self.environment(), **options)

    def environment(self) -> dict[str, str]:
        return {**os.environ, "GRAPE_NODE": os.fspath(self.data)}

    @property
    def socket(self) -> str:
        return os.fspath(self.data / "node.sock")

    def client(self, **options: Any) -> Client:
        return Client(self.socket, **options)

    def tail(self) -> str:
        return "node: " + (self.log.read_text(errors="replace")[-4000:] if self.log.exists() else "never started")

    # What tests often do

    def deploy(self, folder: pathlib.Path) -> dict:
        return self.grape("deploy", folder, "--json").json

    def wait_idle(self, timeout: str = "60s") -> None:
        self.grape("stats", "--wait-idle", "--timeout", timeout, timeout=120)

    def app_stats(self, app: str) -> dict:
        with self.client() as client:
            return next(found for found in client.request("stats")["apps"] if found["name"] == app)

    def records(self, topic: str, event: Optional[str] = None) -> list:
        """All records of a topic, partition by partition; only those of one event if it is named."""
        with self.client() as client:
            topics = {found["name"]: found["partitions"] for found in client.request("log.topics")["topics"]}
            found = []
            for partition in topics.get(topic, []):
                found += client.read_all(topic, partition["partition"])
        wanted = None if event is None else event.encode()
        return [record for record in found if wanted is None or record.header("g.e") == wanted]

    def state(self, app: str, **members: Any) -> list[StateEntry]:
        """The entries of an application's state, all partitions unless one is named."""
        found, next = [], {}
        with self.client() as client:
            while True:
                answer, blob = client.request_with_blob("state.read", app=app, **members, **next)
                at = 0
                for entry in answer["entries"]:
                    value = None if members.get("keysOnly") else blob[at : at + entry["size"]]
                    at += entry["size"]
                    found.append(
                        StateEntry(
                            entry["partition"], bytes.fromhex(entry["keyHex"]), value, entry.get("tags", []),
                            entry.get("expiresMs"), entry["size"],
                        )
                    )
                if answer["next"] is None:
                    return found
                next = {"next": answer["next"]}

    def ends(self, topic: str) -> list[int]:
        """Where each partition of a topic ends. On Kafka that is not how many records there are: transactions take offsets too."""
        with self.client() as client:
            for found in client.request("log.topics")["topics"]:
                if found["name"] == topic:
                    return [partition["end"] for partition in found["partitions"]]
        return []


class EndToEnd(unittest.TestCase):
    """Base of the tests: temporary folders, nodes, small applications."""

    maxDiff = 4000

    def setUp(self) -> None:
        # Short, because the path of a Unix socket has at most 107 bytes.
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="grape-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.namespaces: set[str] = set()

    #: A cluster of this test's own.
    cluster: Optional[broker.Cluster] = None

    def make_node(self, name: Optional[str] = None) -> Node:
        """On Kafka, all nodes in one folder share a namespace of the cluster, and restarts keep it."""
        cluster, namespace = None, ""
        if ON_KAFKA:
            cluster, namespace = self.cluster or broker.shared(), f"{self.folder.name}."
            if namespace not in self.namespaces:
                self.namespaces.add(namespace)
                self.addCleanup(cluster.delete_topics, namespace)
        node = Node(self.folder, name, cluster, namespace)
        self.addCleanup(node.stop_for_good)
        return node

    def running_node(self, *options: str) -> Node:
        return self.make_node().start(*options)

    def python_app(
        self, name: str, code: str, slots: Union[dict[str, list[str]], Iterable[str]], signals: Optional[dict] = None,
        profile: Optional[dict] = None, partitions: int = 4, folder: Optional[str] = None,
    ) -> pathlib.Path:
        """Writes an application. `slots` maps names to what they emit. JSON is YAML too, hence the form of the manifest."""
        where = self.folder / (folder or name)
        where.mkdir(exist_ok=True)
        emits = slots if isinstance(slots, dict) else {slot: [] for slot in slots}
        manifest = {
            "grape": 1, "name": name, "runtime": "python", "entry": "app.py", "partitions": partitions,
            "slots": {slot: {"emits": names} for slot, names in emits.items()}, "signals": signals or {},
            "profile": profile or {},
        }
        (where / "grape.yaml").write_text(json.dumps(manifest, indent=2) + "\n")
        (where / "app.py").write_text(
            "from grape import Application, Reject, Retry\n\napp = Application()\n\n" + textwrap.dedent(code).strip()
            + '\n\nif __name__ == "__main__":\n    app.run()\n'
        )
        return where

    def assert_offsets(self, offsets: list[int], message: Optional[str] = None) -> None:
        """Those of a partition's records, from its first on. Kafka's transactions take offsets too, for their markers."""
        expected = list(range(len(offsets))) if not ON_KAFKA else sorted(set(offsets))
        self.assertEqual(offsets, expected, message)

    def eventually(self, true: Callable[[], Any], what: str, timeout: float = 20) -> Any:
        """Asks again and again until the answer is true; for states that nothing announces."""
        deadline = time.monotonic() + timeout
        while True:
            answer = true()
            if answer:
                return answer
            if time.monotonic() > deadline:
                self.fail(f"not within {timeout} s: {what}")
            time.sleep(0.02)

    def kill_ready_workers(self, app: str, killed: set[int]) -> None:
        """kill -9 of all workers of the only application, once all are ready; `killed` has those of earlier rounds.

        Workers killed again and again while they start would rightly count as not able to start.
        """
        def ready() -> list[int]:
            pids = self.node.worker_pids()
            return pids if killed.isdisjoint(pids) and self.node.app_stats(app)["workers"]["live"] == len(pids) else []

        for pid in self.eventually(ready, f"workers of {app} are up"):
            killed.add(pid)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


#: Slots that many tests use.
ECHO = """
    import os, time

    @app.on("echo")
    def echo(event, context):
        return event.value

    @app.on("who")
    def who(event, context):
        return str(os.getpid())

    @app.on("fail")
    def fail(event, context):
        raise Reject(42, "no grapes today")

    @app.on("crash")
    def crash(event, context):
        raise ValueError("an ordinary fault")

    @app.on("wait")
    def wait(event, context):
        time.sleep(float(event.text))
        return "waited"
"""
ECHO_SLOTS = ("echo", "who", "fail", "crash", "wait")

#: `in` emits `out` with the same key and value: what came through can be read from the log.
RELAY = """
    @app.on("in")
    def receive(event, context):
        context.emit("out", event.value, key=event.key)

    @app.on("out")
    def done(event, context):
        pass
"""
RELAY_SLOTS = {"in": ["out"], "out": []}
