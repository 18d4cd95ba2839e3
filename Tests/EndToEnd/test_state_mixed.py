"""Handlers and clients change the same entries at the same time: nothing is lost, nothing is done twice."""

import os
import random
import signal
import threading
import unittest

from node import EndToEnd

BOTH = """
    @app.on("in")
    def count(event, ctx):
        total = int(ctx.state.get(event.key, b"0")) + 1
        ctx.state.put(event.key, str(total))
        ctx.state.append(b"list:" + event.key, b"h")

    @app.on("fails")
    def fails(event, ctx):
        ctx.state.put(event.key, b"0")
        ctx.state.remove(b"list:" + event.key)
        raise ValueError("not this time")
"""
KEYS = [b"k%d" % number for number in range(6)]


class Client(threading.Thread):
    """Adds to totals from outside: by compare-and-set, or with an append that cannot fail."""

    def __init__(self, node, rounds, seed):
        super().__init__(daemon=True)
        self.node, self.rounds, self.random = node, rounds, random.Random(seed)
        self.added = {key: 0 for key in KEYS}
        self.appended = {key: 0 for key in KEYS}
        self.failure = None

    def run(self):
        try:
            with self.node.client(timeout=60) as client:
                for _ in range(self.rounds):
                    key = self.random.choice(KEYS)
                    if self.random.random() < 0.5:
                        self.append(client, key)
                    else:
                        self.add(client, key)
        except Exception as error:  # told by the test, in its own thread
            self.failure = error

    def append(self, client, key):
        write = {"op": "append", "key": "list:" + key.decode(), "size": 1}
        answer = client.request("state.write", b"c", app="both", eventKey=key.decode(), writes=[write])
        assert answer["results"][0]["result"] == "done", answer
        self.appended[key] += 1

    def add(self, client, key):
        where = {"app": "both", "eventKey": key.decode()}
        while True:
            found, value = client.request_with_blob("state.read", key=key.decode(), **where)
            new = b"%d" % (int(value or b"0") + 1)
            write = {"op": "cas", "key": key.decode(), "size": len(new)}
            if found["entries"]:
                write["expectedSize"] = len(value)
            answer = client.request("state.write", new + value, writes=[write], **where)
            if answer["results"][0]["result"] == "done":
                break
        self.added[key] += 1


class Mixed(EndToEnd):
    def setUp(self):
        super().setUp()
        self.seed = int(os.environ.get("GRAPE_SEED", random.randrange(1 << 30)))
        self.random = random.Random(self.seed)
        self.node = self.running_node()

    def run_both(self, code, kills=0, clients=3, events=1500):
        profile = {"retry": {"attempts": 20, "backoff": "5ms"}, "workers": {"min": 0, "max": 2}}
        self.node.deploy(self.python_app("both", code, ["in", "fails"], profile=profile, partitions=2))
        threads = [Client(self.node, 150, self.seed + number) for number in range(clients)]
        for thread in threads:
            thread.start()
        counted = {key: 0 for key in KEYS}
        with self.node.client(timeout=60) as client:
            for number in range(events):
                key = self.random.choice(KEYS)
                if self.random.random() < 0.01:
                    # Somebody waits: the failure is the answer, and the event is not tried again.
                    self.assertEqual(client.exec("both@fails", b"", key=key, block=True, timeout_ms=30_000).status, 1)
                    continue
                client.exec("both@in", b"", key=key)
                counted[key] += 1
                if kills and number % (events // kills) == 0:
                    for pid in self.node.worker_pids():
                        try:
                            os.kill(pid, signal.SIGKILL)
                        except ProcessLookupError:
                            pass
        for thread in threads:
            thread.join(120)
            self.assertFalse(thread.is_alive(), f"seed {self.seed}")
            self.assertIsNone(thread.failure, f"seed {self.seed}")
        self.node.wait_idle()
        self.check(threads, counted)
        self.node.kill()
        self.node.start()
        self.check(threads, counted)

    def check(self, threads, counted):
        entries = {entry.key: entry.value for entry in self.node.state("both")}
        for key in KEYS:
            added = sum(thread.added[key] for thread in threads)
            self.assertEqual(int(entries.get(key, b"0")), counted[key] + added, f"seed {self.seed}, {key}")
            letters = entries.get(b"list:" + key, b"")
            self.assertEqual(letters.count(b"h"), counted[key], f"seed {self.seed}, {key}")
            self.assertEqual(letters.count(b"c"), sum(thread.appended[key] for thread in threads), f"seed {self.seed}")

    def test_totals_of_handlers_and_clients_are_exact(self):
        self.run_both(BOTH)

    def test_totals_of_handlers_that_ask_and_clients_are_exact(self):
        self.run_both('\n    import sys\n    sys.modules["ctypes"] = None\n' + BOTH)

    def test_totals_are_exact_while_workers_are_killed(self):
        self.run_both(BOTH, kills=5)


if __name__ == "__main__":
    unittest.main()
