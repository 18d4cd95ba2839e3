"""A Kafka broker for the tests that run nodes on Kafka.

GRAPE_KAFKA=host:port,... names a cluster; GRAPE_KAFKA_SETTINGS has settings of librdkafka that it needs, as "name=value name=value".
Otherwise noida-db is started once for all tests of a process (GRAPE_NOIDA, the PATH or .venv say where it is), in a temporary
folder, and ends with the process, whatever becomes of that. broker_proxy.py stands before it.

Tests that kill a broker have one of their own. Of a cluster that was named they are left out, unless GRAPE_KAFKA_KILL and
GRAPE_KAFKA_START are commands for a shell that kill and start a broker of it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest
from typing import Iterator, Optional

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent

#: A shell stays between, and starts the broker whenever it reads a line. When the tests end, however they end, its input closes, and
#: it ends the broker and takes the folder away.
KEEPER = """
    trap : TERM
    while read -r line; do
      "$1" start --only kafka --host "$2" --kafka-port "$3" --data-dir "$4" >>"$4/output" 2>&1 </dev/null &
    done
    kill -- -$$
    wait
    # What the broker started may still write.
    tries=0
    until rm -rf "$4" 2>/dev/null || [ $((tries += 1)) -gt 50 ]; do sleep 0.1; done
"""

#: Of the nodes' consumers. The second is for noida-db: with cooperative rebalancing its second member never gets partitions.
QUICK_SESSIONS = {"session.timeout.ms": "6000", "heartbeat.interval.ms": "500"}
EAGER = {"partition.assignment.strategy": "range"}


class Cluster:
    """A cluster that somebody else runs."""

    def __init__(self, address: str, settings: dict[str, str]) -> None:
        self.address, self.settings = address, {**QUICK_SESSIONS, **settings}

    #: False: the fault that a test is about cannot be made here.
    can_be_killed = "GRAPE_KAFKA_KILL" in os.environ and "GRAPE_KAFKA_START" in os.environ

    def kill(self) -> None:
        subprocess.run(os.environ["GRAPE_KAFKA_KILL"], shell=True, check=True, timeout=60)

    def start(self) -> None:
        subprocess.run(os.environ["GRAPE_KAFKA_START"], shell=True, check=True, timeout=60)

    def restart(self) -> None:
        self.kill()
        self.start()

    def end(self) -> None:
        pass

    def delete_topics(self, prefix: str) -> None:
        """Leaves nothing behind. Of clusters that want TLS or a password this cannot be done from here."""
        if "security.protocol" in self.settings:
            return
        with contextlib.suppress(OSError):
            with Peer(self.address) as peer:
                controller, topics = peer.metadata()
            mine = [topic for topic in topics if topic.startswith(prefix)]
            if mine:
                with Peer(controller) as peer:
                    peer.delete_topics(mine)


class Way:
    """A way to a broker of the tests, which can be cut, taken down and healed: broker_proxy.py."""

    def __init__(self, host: str, broker_port: int) -> None:
        self.address = f"{host}:{(port := free_port(host))}"
        self.process = subprocess.Popen(
            [sys.executable, "-B", HERE / "broker_proxy.py", host, str(port), str(broker_port)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, start_new_session=True,
        )
        self.process.stdout.readline()

    def cut(self) -> None:
        """Nothing gets through any more, in either direction, and nobody is told."""
        self.say(b"cut")

    def take_down(self) -> None:
        """Connections are reset, and refused from then on."""
        self.say(b"down")

    def heal(self) -> None:
        self.say(b"heal")

    def say(self, what: bytes) -> None:
        self.process.stdin.write(what + b"\n")
        self.process.stdin.flush()
        if not self.process.stdout.readline():
            raise AssertionError("the way to the broker has ended")

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.kill()
        self.process.wait(10)
        self.process.stdout.close()


class OwnBroker(Cluster):
    """noida-db on a free port: one broker, without replicas. Only what is behind a way of its own (broker_proxy.py) works."""

    can_be_killed = True

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.program = find_noida()
        self.host, self.port = host, free_port(host)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="grape-kafka-"))
        self.keeper = subprocess.Popen(
            ["/bin/sh", "-c", KEEPER, "sh", self.program, self.host, str(self.port), self.folder], stdin=subprocess.PIPE,
            start_new_session=True,
        )
        self.ways: list[Way] = []
        self.launch()
        super().__init__(self.way().address, EAGER)

    def way(self) -> Way:
        """Another way to the broker: who goes it can be cut off alone."""
        self.ways.append(Way(self.host, self.port))
        return self.ways[-1]

    def launch(self) -> None:
        self.keeper.stdin.write(b"start\n")
        self.keeper.stdin.flush()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), Peer(f"{self.host}:{self.port}") as peer:
                peer.metadata()
                return
            time.sleep(0.02)
        raise AssertionError(f"the broker does not answer: {(self.folder / 'output').read_text(errors='replace')[-2000:]}")

    def kill(self) -> None:
        """So it looks to clients. Its process goes on: this broker loses transactions that are open when it ends, and what it
        acknowledged shortly before kill -9."""
        for way in self.ways:
            way.take_down()

    def start(self) -> None:
        for way in self.ways:
            way.heal()

    def restart(self) -> None:
        """Ends the process and starts it again; nothing may be under way."""
        self.kill()
        deadline = time.monotonic() + 20
        while pids := self.processes():
            if time.monotonic() > deadline:
                raise AssertionError("the broker does not end")
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            time.sleep(0.02)
        self.launch()
        self.start()

    def processes(self) -> list[int]:
        """The broker's own: those in the keeper's group but itself."""
        found = []
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if entry.isdigit() and os.getpgid(int(entry)) == self.keeper.pid != int(entry):
                    fields = pathlib.Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
                    if fields[0] != "Z":
                        found.append(int(entry))
        return found

    def end(self) -> None:
        for way in self.ways:
            way.end()
        if self.keeper.poll() is None:
            self.keeper.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.keeper.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.keeper.pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


def free_port(host: str) -> int:
    with socket.socket() as free:
        free.bind((host, 0))
        return free.getsockname()[1]


def find_noida() -> str:
    if "GRAPE_NOIDA" in os.environ:
        return os.environ["GRAPE_NOIDA"]
    found = shutil.which("noida-db", path=os.pathsep.join((os.environ.get("PATH", ""), os.fspath(ROOT / ".venv" / "bin"))))
    if found is None:
        raise AssertionError("no broker: set GRAPE_KAFKA=host:port or GRAPE_NOIDA=path; `make test` installs noida-db")
    return found


def given() -> Optional[Cluster]:
    """The cluster that GRAPE_KAFKA names."""
    if not os.environ.get("GRAPE_KAFKA"):
        return None
    settings = dict(word.split("=", 1) for word in os.environ.get("GRAPE_KAFKA_SETTINGS", "").split())
    return Cluster(os.environ["GRAPE_KAFKA"], settings)


_shared: Optional[Cluster] = None


def shared() -> Cluster:
    """The cluster of this process."""
    global _shared
    if _shared is None:
        _shared = given() or OwnBroker()
        atexit.register(_shared.end)
    return _shared


def to_be_killed(test: unittest.TestCase) -> Cluster:
    """A cluster whose broker the test may kill and start."""
    cluster = given()
    if cluster is None:
        cluster = OwnBroker()
        test.addCleanup(cluster.end)
    elif not cluster.can_be_killed:
        test.skipTest("GRAPE_KAFKA_KILL and GRAPE_KAFKA_START do not say how a broker of this cluster is killed and started")
    return cluster


class Peer:
    """A connection to a broker, for the few requests of Kafka's protocol that the tests themselves need."""

    def __init__(self, addresses: str) -> None:
        for address in (all := addresses.split(",")):
            host, _, port = address.rpartition(":")
            try:
                self.socket = socket.create_connection((host, int(port)), timeout=10)
                return
            except OSError:
                if address == all[-1]:
                    raise

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_) -> None:
        self.socket.close()

    def ask(self, api: int, version: int, body: bytes) -> Iterator:
        """Sends a request; gives a reader of what its answer says, by the format characters of `struct` and "s" for texts."""
        message = struct.pack(">hhi", api, version, 1) + pack_text("tests") + body
        self.socket.sendall(struct.pack(">i", len(message)) + message)
        answer = self.exactly(struct.unpack(">i", self.exactly(4))[0])
        at = 4

        def take(kind: str):
            nonlocal at
            if kind != "s":
                size = struct.calcsize(">" + kind)
                at += size
                return struct.unpack(">" + kind, answer[at - size : at])[0]
            length = take("h")
            if length < 0:
                return None
            at += length
            return answer[at - length : at].decode()

        return take

    def exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            more = self.socket.recv(size - len(found))
            if not more:
                raise ConnectionError("the broker closed the connection")
            found += more
        return found

    def metadata(self) -> tuple[str, list[str]]:
        """Where the controller is, and the names of all topics."""
        take = self.ask(3, 1, struct.pack(">i", -1))
        brokers = {}
        for _ in range(take("i")):
            number, host, port, _ = take("i"), take("s"), take("i"), take("s")
            brokers[number] = f"{host}:{port}"
        controller = take("i")
        topics = []
        for _ in range(take("i")):
            _, name, _ = take("h"), take("s"), take("b")
            topics.append(name)
            for _ in range(take("i")):
                take("h"), take("i"), take("i")
                for _ in range(2):
                    for _ in range(take("i")):
                        take("i")
        if controller not in brokers:
            raise ConnectionError("the cluster has no controller yet")
        return brokers[controller], topics

    def create_topic(self, name: str, partitions: int) -> None:
        body = struct.pack(">i", 1) + pack_text(name) + struct.pack(">ihii", partitions, 1, 0, 0) + struct.pack(">ib", 30_000, 0)
        self.ask(19, 2, body)

    def delete_topics(self, names: list[str]) -> None:
        body = struct.pack(">i", len(names)) + b"".join(map(pack_text, names)) + struct.pack(">i", 30_000)
        self.ask(20, 1, body)


def pack_text(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()
