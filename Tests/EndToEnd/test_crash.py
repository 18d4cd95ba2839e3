"""kill -9 and SIGTERM while events flow: what was acknowledged stays, in order, and is processed."""

import os
import random
import signal
import threading
import time
import unittest

import wire
from node import CONFLICT, RELAY, RELAY_SLOTS, UNAVAILABLE, EndToEnd, embedded_only
from wire import Record


class Sender(threading.Thread):
    """Sends numbered events, many in flight, until the connection breaks; notes which were acknowledged where."""

    def __init__(self, node, app="relay", keys=8):
        super().__init__(daemon=True)
        self.client = node.client(timeout=60)
        self.app, self.keys = app, keys
        self.sent: list[tuple[bytes, bytes]] = []
        self.acknowledged: dict[bytes, tuple[int, int]] = {}
        self.enough = threading.Event()
        self.reached = threading.Condition()
        self.refusals: list = []

    def run(self):
        waiting = []
        try:
            while not self.enough.is_set():
                number = len(self.sent)
                key, value = b"k%d" % (number % self.keys), b"%d" % number
                self.sent.append((key, value))
                waiting.append((value, self.client.send_exec(f"{self.app}@in", value, key=key)))
                if len(waiting) >= 64:
                    self.settle(*waiting.pop(0))
            while waiting:
                self.settle(*waiting.pop(0))
        except OSError:
            pass
        finally:
            with self.reached:
                self.enough.set()
                self.reached.notify_all()
            self.client.close()

    def settle(self, value, id):
        answer = self.client.answer(id)
        if not hasattr(answer, "offset"):
            self.refusals.append(answer)
            self.enough.set()
            return
        with self.reached:
            self.acknowledged[value] = (answer.partition, answer.offset)
            self.reached.notify_all()

    def wait_for(self, count, timeout=60):
        with self.reached:
            self.reached.wait_for(lambda: len(self.acknowledged) >= count or self.enough.is_set(), timeout)
            return len(self.acknowledged) >= count

    def finish(self, timeout=60):
        self.enough.set()
        self.join(timeout)
        return not self.is_alive()


class Crash(EndToEnd):
    def setUp(self):
        super().setUp()
        self.seed = int(os.environ.get("GRAPE_SEED", random.randrange(1 << 30)))
        self.random = random.Random(self.seed)
        self.node = self.running_node()
        self.app = self.python_app("relay", RELAY, RELAY_SLOTS, profile={"retry": {"attempts": 20, "backoff": "10ms"}})
        self.node.deploy(self.app)

    def check(self, senders):
        """Acknowledged events are in the log where they were said to be, each key in order, and all were processed."""
        message = f"seed {self.seed}"
        stored = {}
        for partition in range(4):
            with self.node.client() as client:
                records = client.read_all("relay.events", partition)
            self.assert_offsets([record.offset for record in records], message)
            for record in records:
                if record.header("g.e") == b"in":
                    stored[partition, record.offset] = record.value
        for sender in senders:
            for value, place in sender.acknowledged.items():
                self.assertEqual(stored.get(place), value, f"{message}: acknowledged at {place}")
        outcome: dict[bytes, list[int]] = {}
        for record in self.node.records("relay.events", "out"):
            outcome.setdefault(record.key, []).append(int(record.value))
        inputs: dict[bytes, list[int]] = {}
        for record in self.node.records("relay.events", "in"):
            inputs.setdefault(record.key, []).append(int(record.value))
        # Offsets and outputs are committed together: exactly once, in order, for each key.
        self.assertEqual(outcome, inputs, message)

    def test_kill_9_of_the_node_loses_nothing_acknowledged(self):
        senders = []
        for _ in range(4):
            sender = Sender(self.node)
            senders.append(sender)
            sender.start()
            self.assertTrue(sender.wait_for(self.random.randint(100, 2000)), self.node.tail())
            self.node.kill()
            sender.join(30)
            self.assertFalse(sender.is_alive())
            self.node.start()
            self.node.wait_idle("60s")
            self.check(senders)

    def test_kill_9_of_workers_loses_nothing(self):
        sender = Sender(self.node)
        sender.start()
        killed: set[int] = set()
        for round in range(5):
            self.assertTrue(sender.wait_for(len(sender.acknowledged) + self.random.randint(50, 500)), self.node.tail())
            self.kill_ready_workers("relay", killed)
        self.assertTrue(sender.finish())
        self.assertEqual(sender.refusals, [])
        self.assertEqual(len(sender.acknowledged), len(sender.sent))
        self.node.wait_idle("60s")
        self.check([sender])
        self.assertEqual(self.node.records("relay.dead"), [])

    def test_sigterm_ends_the_node_in_time_and_loses_nothing(self):
        sender = Sender(self.node)
        sender.start()
        self.assertTrue(sender.wait_for(500), self.node.tail())
        workers = self.node.worker_pids()
        self.assertEqual(self.node.terminate(timeout=10), 0, self.node.tail())
        sender.join(30)
        self.assertFalse(sender.is_alive())
        for answer in sender.refusals:
            self.assertEqual((answer.status, answer.ran), (8, 0))
        # On a machine that is busy the node may not have had the time to see the last of them end.
        self.eventually(
            lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers), "the workers have ended", timeout=10
        )
        self.assertFalse(os.path.exists(self.node.socket), "the socket's file is gone")
        self.node.start()
        self.node.wait_idle("60s")
        self.check([sender])

    def test_workers_end_when_their_node_is_killed(self):
        self.node.grape("exec", "relay@in", "--data", "0", "--block", "--timeout", "10s")
        workers = self.node.worker_pids()
        self.assertTrue(workers)
        self.node.kill()
        self.eventually(
            lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers), "the workers have ended", timeout=10
        )

    def test_ctrl_c_stops_a_node_too(self):
        self.node.process.send_signal(signal.SIGINT)
        self.assertEqual(self.node.process.wait(10), 0)

    def test_a_second_node_on_the_same_data_is_refused(self):
        second = self.make_node()
        second.start(wait=False)
        self.assertIn(second.process.wait(10), (CONFLICT, UNAVAILABLE), second.tail())
        self.assertIn("in use", second.tail())
        self.assertEqual(self.node.grape("exec", "relay@in", "--data", "0", "--block", "--timeout", "10s").code, 0)

    @embedded_only("it damages the log's files")
    def test_a_torn_end_of_the_log_is_cut_and_the_rest_stays(self):
        with self.node.client() as client:
            for number in range(200):
                client.exec("relay@in", b"%d" % number, key=b"k%d" % (number % 8))
        self.node.wait_idle()
        before = self.node.ends("relay.events")
        self.node.kill()
        # What a crash in the middle of a write may leave behind the last commit.
        newest = max((file for file in self.node.data.rglob("*") if file.is_file()), key=self.last_data)
        with open(newest, "r+b") as file:
            file.seek(self.last_data(newest))
            file.write(self.random.randbytes(self.random.randint(1, 5000)))
        self.node.start()
        self.assertEqual(self.node.ends("relay.events"), before, f"seed {self.seed}")
        self.assertEqual(self.node.grape("exec", "relay@in", "--data", "0", "--block", "--timeout", "10s").code, 0)

    @staticmethod
    def last_data(file):
        """Where the trailing zeros of a preallocated file begin, counted for the largest file with data."""
        return len(file.read_bytes().rstrip(b"\0"))


if __name__ == "__main__":
    unittest.main()
