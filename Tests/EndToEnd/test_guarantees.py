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

REPLIES = """
    @app.on("parts")
    def parts(event, context):
        for number in range(3):
            context.reply(b"%d" % number, final=False)
        context.reply(event.value)

    @app.on("first")
    def first(event, context):
        context.reply(b"on its way", final=False)
        context.emit("second", event.value, key=event.key)

    @app.on("second")
    def second(event, context):
        context.reply(event.value)
"""
REPLY_SLOTS = {"parts": [], "first": ["second"], "second": []}


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

    def all_done(self):
        """Not `wait_idle`: that waits until it is told, too."""
        def done():
            app = self.node.app_stats("count")
            # On Kafka partitions come a moment after the start.
            return len(app["partitions"]) == 2 and app["lag"] == 0
        self.eventually(done, "all is done")

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
        self.all_done()
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
        self.all_done()
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

    def replies(self, client, target, value):
        id = client.send_exec(target, value, b"key", block=True, timeout_ms=20_000)
        told = []
        while not told or not told[-1].final:
            told.append(client.answer(id))
            self.assertEqual(told[-1].status, 0, told)
        return [reply.value for reply in told]

    def test_every_reply_is_told_once_and_in_order_and_is_in_the_log(self):
        for interval in ("60s", "0s"):
            with self.subTest(interval):
                name = "calls" + interval
                profile = {"guarantee": "at-least-once", "commit-interval": interval}
                self.node.deploy(self.python_app(name, REPLIES, REPLY_SLOTS, profile=profile, partitions=2))
                with self.node.client() as client:
                    topics = [found["name"] for found in client.request("log.topics")["topics"]]
                    topic = next(name for name in topics if name.startswith("_grape.replies."))
                    before = len(self.node.records(topic))
                    for number in range(50):
                        value = b"%d" % number
                        # One end with the result of the call's own event, which tells them at once; the other with that of an event behind it.
                        self.assertEqual(self.replies(client, name + "@parts", value), [b"0", b"1", b"2", value])
                        self.assertEqual(self.replies(client, name + "@first", value), [b"on its way", value])
                self.node.grape("app", "stop", name)
                self.assertEqual(len(self.node.records(topic)) - before, 50 * 6)

    def test_replies_to_many_at_once_are_told_to_those_who_asked(self):
        self.node.deploy(
            self.python_app("calls", REPLIES, REPLY_SLOTS, profile={"guarantee": "at-least-once"}, partitions=2))
        with self.node.client() as client:
            asked = {}
            for number in range(300):
                asked[client.send_exec("calls@parts", b"%d" % number, b"%d" % number, block=True, timeout_ms=20_000)] = number
            for id, number in asked.items():
                told = [client.answer(id) for _ in range(4)]
                self.assertEqual([reply.value for reply in told], [b"0", b"1", b"2", b"%d" % number])
                self.assertEqual([reply.final for reply in told], [False, False, False, True])
            self.assertEqual(client.frames, [])

    def test_another_guarantee_is_refused(self):
        folder = self.python_app("wrong", COUNT, COUNT_SLOTS, profile={"guarantee": "at-most-once"})
        said = self.node.grape("deploy", folder, expect=BAD_INPUT).err.decode()
        self.assertIn("exactly-once or at-least-once", said)


if __name__ == "__main__":
    unittest.main()
