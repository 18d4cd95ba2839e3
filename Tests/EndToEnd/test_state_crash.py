"""kill -9 of node and workers under load, and damage to the maps of state: totals stay exact."""

import collections
import os
import random
import shutil
import signal
import subprocess
import unittest

from node import NO_SUCH_APP, EndToEnd
from test_crash import Sender

COUNTER = """
    @app.on("in")
    def count(event, ctx):
        total = int(ctx.state.get(event.key, b"0")) + 1
        ctx.state.put(event.key, str(total))
        ctx.store("last").put(event.key, event.value)

    @app.on("total")
    def total(event, ctx):
        return ctx.state.get(event.key, b"0")
"""
#: The same, in a worker that asks the node for state instead of mapping it.
ASKING = """
    import sys
    sys.modules["ctypes"] = None
""" + COUNTER
SLOTS = ["in", "total"]
PROFILE = {"retry": {"attempts": 20, "backoff": "10ms"}, "workers": {"min": 0, "max": 3}}


class Counting(EndToEnd):
    def setUp(self):
        super().setUp()
        self.seed = int(os.environ.get("GRAPE_SEED", random.randrange(1 << 30)))
        self.random = random.Random(self.seed)
        self.node = self.running_node()

    def deploy(self, code=COUNTER, name="counter", **profile):
        self.node.deploy(self.python_app(name, code, SLOTS, profile={**PROFILE, **profile}))

    def check(self, sender=None, app="counter"):
        """Each key's total is the number of its events in the log, and the last value that of the last event."""
        message = f"seed {self.seed}"
        events = [record for record in self.node.records(f"{app}.events", "in")]
        totals = collections.Counter(record.key for record in events)
        last = {record.key: record.value for record in events}
        counted = {entry.key: int(entry.value) for entry in self.node.state(app, consistency="linearizable")}
        self.assertEqual(counted, dict(totals), message)
        self.assertEqual({entry.key: entry.value for entry in self.node.state(app, store="last")}, last, message)
        if sender is not None:
            stored = {record.value for record in events}
            self.assertEqual(set(sender.acknowledged) - stored, set(), message)
        self.assertEqual(self.node.records(f"{app}.dead"), [], message)

    def send(self, count, app="counter", keys=20):
        with self.node.client(timeout=60) as client:
            ids = [
                client.send_exec(f"{app}@in", b"%d" % number, key=b"k%d" % (number % keys)) for number in range(count)
            ]
            for id in ids:
                client.answer(id)
        self.node.wait_idle()


class Crash(Counting):
    def test_kill_9_of_the_node_under_load_leaves_totals_exact(self):
        self.deploy()
        for _ in range(4):
            sender = Sender(self.node, app="counter", keys=20)
            sender.start()
            self.assertTrue(sender.wait_for(self.random.randint(100, 2000)), self.node.tail())
            self.node.kill()
            sender.join(30)
            self.assertFalse(sender.is_alive())
            self.node.start()
            self.node.wait_idle("60s")
            self.check(sender)

    def kill_workers(self):
        sender = Sender(self.node, app="counter", keys=20)
        sender.start()
        killed: set[int] = set()
        for _ in range(6):
            self.assertTrue(sender.wait_for(len(sender.acknowledged) + self.random.randint(50, 500)), self.node.tail())
            self.kill_ready_workers("counter", killed)
        self.assertTrue(sender.finish())
        self.assertEqual(sender.refusals, [])
        self.node.wait_idle("60s")
        self.check(sender)

    def test_kill_9_of_workers_under_load_leaves_totals_exact(self):
        self.deploy()
        self.kill_workers()

    def test_kill_9_of_workers_that_ask_leaves_totals_exact(self):
        self.deploy(ASKING)
        self.kill_workers()
        logs = self.node.grape("app", "logs", "counter", "--lines", "1000").text
        self.assertIn("asked of the node", logs)

    def test_a_put_survives_kill_9_of_the_node(self):
        self.deploy()
        for number in range(5):
            value = b"%d" % self.random.randrange(1 << 30)
            self.node.grape("state", "put", "counter", f"k{number}", value.decode())
            self.node.kill()
            self.node.start()
            self.assertEqual(self.node.grape("state", "get", "counter", f"k{number}").out, value)

    def test_restarts_in_order_leave_totals_exact(self):
        self.deploy()
        sender = Sender(self.node, app="counter", keys=20)
        sender.start()
        self.assertTrue(sender.wait_for(500), self.node.tail())
        self.assertEqual(self.node.terminate(), 0)
        sender.join(30)
        self.node.start()
        self.node.wait_idle()
        self.check(sender)

    def test_state_is_kept_when_an_application_is_removed_and_deployed_again(self):
        self.deploy()
        self.send(400)
        self.check()
        for kill in (False, True):
            self.node.grape("app", "remove", "counter")
            if kill:
                self.node.kill()
                self.node.start()
            self.deploy()
            self.send(400)
            self.check()

    def test_a_deployment_waits_for_the_removal_before_it(self):
        slow = COUNTER.replace("    total = int", "    print('begun', flush=True)\n        __import__('time').sleep(1.5)\n        total = int")
        self.deploy(slow, workers={"min": 1, "max": 1})
        self.node.grape("exec", "counter@in", "--key", "k", "--data", "1")
        self.eventually(lambda: "begun" in self.node.grape("app", "logs", "counter").text, "the event is at a worker")
        removal = self.node.start_grape("app", "remove", "counter", stdout=subprocess.DEVNULL)
        self.eventually(
            lambda: self.node.grape("app", "info", "counter", expect=None).code == NO_SUCH_APP, "its removal has begun"
        )
        self.deploy(slow, workers={"min": 1, "max": 1})
        self.assertEqual(removal.wait(30), 0)
        self.node.wait_idle()
        self.check()
        self.assertNotIn("begun", self.node.grape("app", "logs", "counter").text, "the event was not run again")

    def test_a_new_version_goes_on_with_the_state(self):
        self.deploy()
        self.send(400)
        self.deploy(COUNTER + "\n    # another version\n")
        self.send(400)
        self.deploy(ASKING)
        self.send(400)
        self.check()


class Damage(Counting):
    """What becomes of the maps while the node is down does not matter: the changelog has everything."""

    def file(self, app="counter", partition=None):
        """A map with something in it, in a random partition."""
        found = sorted(self.node.data.glob(f"state/{app}/{'*' if partition is None else partition}/data.mdb"))
        self.assertTrue(found, "there are maps")
        return self.random.choice(found)

    def damages(self):
        def delete():
            self.file().unlink()

        def delete_folder():
            shutil.rmtree(self.file().parent)

        def delete_all():
            shutil.rmtree(self.node.data / "state")

        def truncate():
            file = self.file()
            os.truncate(file, self.random.randrange(file.stat().st_size))

        def empty():
            os.truncate(self.file(), 0)

        def random_bytes():
            file = self.file()
            with open(file, "r+b") as opened:
                for _ in range(self.random.randint(1, 40)):
                    opened.seek(self.random.randrange(file.stat().st_size))
                    opened.write(self.random.randbytes(self.random.randint(1, 300)))

        def one_byte():
            file = self.file()
            with open(file, "r+b") as opened:
                opened.seek(self.random.randrange(file.stat().st_size))
                opened.write(self.random.randbytes(1))

        def zeros():
            file = self.file()
            with open(file, "r+b") as opened:
                opened.seek(self.random.randrange(file.stat().st_size // 4096) * 4096)
                opened.write(bytes(4096))

        def swapped_pages():
            file = self.file()
            content = bytearray(file.read_bytes())
            one, other = (self.random.randrange(len(content) // 4096) * 4096 for _ in range(2))
            content[one : one + 4096], content[other : other + 4096] = (
                content[other : other + 4096], content[one : one + 4096],
            )
            file.write_bytes(content)

        def another_partition():
            shutil.copy(self.file(partition=1), self.file(partition=2))

        def another_application():
            shutil.copy(self.file("other", partition=1), self.file(partition=1))

        def another_application_with_its_folder():
            shutil.rmtree(self.file(partition=1).parent)
            shutil.copytree(self.file("other", partition=1).parent, self.node.data / "state/counter/1")

        def an_older_one():
            # A file of an hour ago has a position; it follows the changelog from there.
            shutil.copy(self.folder / "older.mdb", self.node.data / "state/counter/1/data.mdb")

        def no_owner():
            (self.file().parent / "owner").unlink()

        def garbled_owner():
            (self.file().parent / "owner").write_bytes(self.random.randbytes(100))

        return [
            delete, delete_folder, delete_all, truncate, empty, random_bytes, one_byte, zeros, swapped_pages,
            another_partition, another_application, another_application_with_its_folder, an_older_one, no_owner,
            garbled_owner,
        ]

    def test_state_is_right_after_whatever_happened_to_its_maps(self):
        self.deploy()
        self.deploy(name="other")
        self.send(100, keys=50)
        self.send(300, app="other", keys=50)
        self.node.terminate()
        shutil.copy(self.node.data / "state/counter/1/data.mdb", self.folder / "older.mdb")
        self.node.start()
        self.send(100, keys=500)
        damages = self.damages()
        self.random.shuffle(damages)
        for damage in damages * 2:
            with self.subTest(damage.__name__, seed=self.seed):
                if self.random.random() < 0.5:
                    self.node.terminate()
                else:
                    self.node.kill()
                damage()
                self.node.start()
                self.check()
                self.send(50, keys=50)
                self.check()


if __name__ == "__main__":
    unittest.main()
