"""at-least-once by choice: what a kill of the node repeats, and what it does not."""

import unittest

from node import BAD_INPUT, ON_KAFKA, EndToEnd, embedded_only

COUNT = """
    @app.on("add")
    def add(event, context):
        context.state.put(event.key, str(int(context.state.get(event.key) or b"0") + 1).encode())
        context.emit("added", event.value, key=event.key)

    @app.on("added")
    def added(event, context):
        pass

    @app.on("fail")
    def fail(event, context):
        raise ValueError("no luck")
"""
COUNT_SLOTS = {"add": ["added"], "added": [], "fail": []}


class Guarantees(EndToEnd):
    def setUp(self):
        super().setUp()
        self.node = self.running_node()

    def deploy(self, **profile):
        self.node.deploy(self.python_app("count", COUNT, COUNT_SLOTS, profile=profile, partitions=2))

    def add(self, keys, calls=1):
        with self.node.client() as client:
            for key in keys:
                for _ in range(calls):
                    client.exec("count@add", b"", key)

    def counts(self):
        return {entry.key: int(entry.value) for entry in self.node.state("count")}

    def worked(self, events):
        def done():
            slots = self.node.app_stats("count")["slots"]
            return sum(slot["processed"] for slot in slots) >= events
        self.eventually(done, f"{events} events are done")

    def test_after_a_kill_events_since_the_last_commit_are_run_again_and_none_is_lost(self):
        self.deploy(guarantee="at-least-once", **{"commit-interval": "60s"})
        keys = [b"k%d" % number for number in range(10)]
        # What these lead to is told: it is the first progress.
        self.add(keys)
        self.worked(20)
        self.add(keys, calls=4)
        # Each has led to another event, which is done, too.
        self.worked(100)
        before = self.counts()
        self.assertEqual(before, {key: 5 for key in keys})
        self.node.kill()
        self.node.start()
        # What the first commits told is not run again; the rest is, and reads its own writes.
        self.eventually(lambda: self.node.app_stats("count")["lag"] == 0, "all is done")
        after = self.counts()
        self.assertTrue(all(after[key] >= 5 for key in keys), after)
        self.assertGreater(sum(after.values()), 50)
        self.assertLessEqual(sum(after.values()), 100)

    def test_a_stop_in_order_repeats_nothing(self):
        self.deploy(guarantee="at-least-once", **{"commit-interval": "60s"})
        keys = [b"k%d" % number for number in range(10)]
        self.add(keys, calls=5)
        self.worked(100)
        self.assertEqual(self.node.terminate(), 0)
        self.node.start()
        self.assertEqual(self.node.app_stats("count")["lag"], 0)
        self.assertEqual(self.counts(), {key: 5 for key in keys})
        self.node.grape("app", "restart", "count")
        self.add(keys)
        self.worked(20)
        self.node.grape("app", "stop", "count")
        self.node.kill()
        self.node.start()
        self.assertEqual(self.node.app_stats("count")["lag"], 0)
        self.assertEqual(self.counts(), {key: 6 for key in keys})

    def test_progress_is_committed_within_the_interval(self):
        self.deploy(guarantee="at-least-once", **{"commit-interval": "50ms"})
        self.add([b"a", b"b"], calls=20)
        self.node.wait_idle()
        for partition in self.node.app_stats("count")["partitions"]:
            # On Kafka there may be a marker behind the last event.
            self.assertIn(partition["end"] - partition["committed"], (0, 1) if ON_KAFKA else (0,))
        self.node.kill()
        self.node.start()
        self.node.wait_idle()
        self.assertEqual(self.counts(), {b"a": 20, b"b": 20})

    def test_attempts_are_counted_durably_all_the_same(self):
        self.deploy(
            guarantee="at-least-once", retry={"attempts": 2, "backoff": "10ms"}, **{"commit-interval": "60s"}
        )
        with self.node.client() as client:
            client.exec("count@fail", b"", b"k")
        self.eventually(lambda: self.node.records("count.dead"), "the event is set aside")
        self.node.kill()
        self.node.start()
        self.eventually(lambda: self.node.app_stats("count")["lag"] == 0, "all is done")
        self.assertEqual(len(self.node.records("count.dead")), 1)

    @embedded_only("its statistics count the bytes of commits")
    def test_the_log_is_told_of_progress_less_often(self):
        def bytes(**profile):
            self.deploy(**profile)
            with self.node.client() as client:
                before = client.request("stats")["log"]["bytes"]
                for _ in range(200):
                    client.exec("count@added", b"", b"k", block=True)
                return client.request("stats")["log"]["bytes"] - before

        self.assertLess(bytes(guarantee="at-least-once", **{"commit-interval": "60s"}), bytes() - 200 * 20)

    def test_another_guarantee_is_refused(self):
        folder = self.python_app("wrong", COUNT, COUNT_SLOTS, profile={"guarantee": "at-most-once"})
        said = self.node.grape("deploy", folder, expect=BAD_INPUT).err.decode()
        self.assertIn("exactly-once or at-least-once", said)


if __name__ == "__main__":
    unittest.main()
