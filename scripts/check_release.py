#!/usr/bin/env python3
"""A short end-to-end check of a binary: what was acknowledged before a kill -9 is there afterwards, processed, once.

  check_release.py GRAPE

Starts a node, deploys Examples/signal-slot, asks it, kills the node with SIGKILL while acknowledged events are on their
way through the five slots, starts it again and compares. Then stops it with SIGTERM and verifies its log.
Exit code 1 and a message if something is not as it must be.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from typing import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[1]
CHAIN = " -> start-event -> event0 -> event1 -> event2 -> finish"
SENDERS = 3


class Wrong(Exception):
    """Something is not as it must be."""


class Node:
    def __init__(self, grape: pathlib.Path, folder: pathlib.Path) -> None:
        self.grape, self.data, self.log = grape, folder / "data", folder / "node.log"
        self.environment = {**os.environ, "GRAPE_NODE": os.fspath(self.data)}

    @contextlib.contextmanager
    def running(self) -> Iterator[subprocess.Popen]:
        with open(self.log, "ab") as log:
            process = subprocess.Popen(
                [self.grape, "serve", "--data", self.data], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            self.run("node", "wait", "--timeout", "20s")
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(20)

    def run(self, *words: object) -> str:
        done = self.try_to_run(*words)
        if done.returncode != 0:
            raise Wrong(f"grape {' '.join(map(str, words))}: exit code {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def try_to_run(self, *words: object) -> subprocess.CompletedProcess:
        return subprocess.run(
            [self.grape, *map(str, words)], env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, timeout=120,
        )


class Sending(threading.Thread):
    """Sends events one by one until the node is gone, and remembers which of them were acknowledged."""

    def __init__(self, node: Node, name: str, progress: threading.Semaphore) -> None:
        super().__init__()
        self.node, self.sender, self.progress = node, name, progress
        self.acknowledged: list[str] = []
        self.last_answer = ""

    def run(self) -> None:
        for number in range(10_000):
            data = f"{self.sender}-{number}"
            done = self.node.try_to_run("exec", "signal-slot@start-event", "--key", data, "--data", data)
            if done.returncode != 0:
                self.last_answer = done.stderr.strip()
                return
            self.acknowledged.append(data)
            self.progress.release()


def expect(what: str, expected: object, found: object) -> None:
    if expected != found:
        raise Wrong(f"{what}: expected {expected!r}, found {found!r}")


def check(grape: pathlib.Path, folder: pathlib.Path) -> None:
    node = Node(grape, folder)
    progress = threading.Semaphore(0)
    before_the_kill = random.randrange(20, 60)
    print(f"grape {node.run('--version').strip()}: kill -9 after {before_the_kill} acknowledgements")

    with node.running() as process:
        node.run("deploy", ROOT / "Examples" / "signal-slot")
        reply = node.run("exec", "signal-slot@start-event", "--data", "first", "--block", "--timeout", "20s")
        expect("the reply", "first" + CHAIN, reply.rstrip("\n"))
        senders = [Sending(node, f"s{number}", progress) for number in range(SENDERS)]
        for sender in senders:
            sender.start()
        in_time = all(progress.acquire(timeout=60) for _ in range(before_the_kill))
        process.kill()
        process.wait(20)
        for sender in senders:
            sender.join()
    if not in_time:
        answers = {sender.last_answer for sender in senders}
        raise Wrong(f"fewer than {before_the_kill} events were acknowledged within a minute; the last answers: {answers}")
    acknowledged = [data for sender in senders for data in sender.acknowledged]

    with node.running() as process:
        node.run("stats", "--wait-idle", "--timeout", "60s")
        reply = node.run("exec", "signal-slot@start-event", "--data", "again", "--block", "--timeout", "20s")
        expect("the reply after the restart", "again" + CHAIN, reply.rstrip("\n"))
        records = [json.loads(line) for line in node.run("log", "dump", "signal-slot.events", "--json").splitlines()]
        process.terminate()
        expect("exit code of the node after SIGTERM", 0, process.wait(20))
    # What `finish` was given has passed through every other slot.
    finished = collections.Counter(record["value"].partition(" ->")[0] for record in records if record["event"] == "finish")
    lost = [data for data in acknowledged if data not in finished]
    twice = [data for data, count in finished.items() if count > 1]
    expect("acknowledged events that did not come through", [], lost)
    expect("events that came through more than once", [], twice)
    node.run("log", "verify", "--data", node.data)
    print(f"{len(acknowledged)} events were acknowledged, all of them came through, each once; the log is sound")


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: check_release.py GRAPE", file=sys.stderr)
        return 64
    folder = pathlib.Path(tempfile.mkdtemp(prefix="grape-"))
    try:
        check(pathlib.Path(sys.argv[1]).resolve(), folder)
    except (Wrong, subprocess.TimeoutExpired) as error:
        print(f"check_release.py: {error}", file=sys.stderr)
        with contextlib.suppress(OSError):
            print("the node's last words:", (folder / "node.log").read_text(errors="replace")[-3000:], sep="\n", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    # An orderly end, which ends the node too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
