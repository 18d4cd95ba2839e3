"""State: handlers and those outside see each other's writes; what fails leaves nothing; triggers, expiry, tags."""

import json
import time
import unittest

from node import HANDLER_ERROR, NO_ENTRY, NO_SUCH_SLOT, EndToEnd
from wire import partition_of

NOTES = """
    @app.on("note")
    def note(event, ctx):
        ctx.state.put(event.key, event.value)
        return ctx.state.get(event.key)

    @app.on("recall")
    def recall(event, ctx):
        return ctx.state.get(event.key, b"nothing")

    @app.on("told")
    def told(event, ctx):
        store, operation = event.headers["state-store"], event.headers["state-operation"]
        seen = ctx.store(store.decode()).get(event.key)
        ctx.store("told").put(event.key, b"|".join([store, operation, event.value or b"", seen or b""]))

    @app.on("fail")
    def fail(event, ctx):
        ctx.state.put(event.key, b"must not stay")
        ctx.store("other").put(event.key, b"must not stay")
        if event.text == "reject":
            raise Reject(7, "no")
        if event.text == "retry":
            raise Retry(0.01, "later")
        raise ValueError("broken")
"""
SLOTS = ["note", "recall", "told", "fail"]
QUICK_RETRY = {"attempts": 3, "backoff": "10ms", "max-backoff": "20ms"}


class State(EndToEnd):
    def setUp(self):
        super().setUp()
        self.node = self.running_node()
        self.app = self.python_app("notes", NOTES, SLOTS, profile={"retry": QUICK_RETRY})
        self.node.deploy(self.app)

    def exec(self, slot, key, value=""):
        return self.node.grape("exec", f"notes@{slot}", "--key", key, "--data", value, "--block", "--timeout", "20s").out

    def entries(self, **members):
        return {(entry.partition, entry.key): entry.value for entry in self.node.state("notes", **members)}

    def test_what_a_handler_wrote_is_read_from_outside_at_once(self):
        with self.node.client() as client:
            for number in range(50):
                key, value = b"k%d" % number, b"v%d" % number
                reply = client.exec("notes@note", value, key=key, block=True, timeout_ms=20_000)
                self.assertEqual(reply.value, value)
                answer, blob = client.request_with_blob(
                    "state.read", app="notes", key=key.decode(), consistency="linearizable"
                )
                [entry] = answer["entries"]
                self.assertEqual((entry["partition"], blob), (partition_of(key, 4), value))

    def test_what_was_put_from_outside_is_read_by_the_next_event(self):
        with self.node.client() as client:
            for number in range(50):
                key, value = b"k%d" % number, b"v%d" % number
                write = {"op": "put", "key": key.decode(), "size": len(value)}
                answer = client.request("state.write", value, app="notes", writes=[write])
                self.assertEqual(
                    answer["results"], [{"result": "done", "size": len(value), "partition": partition_of(key, 4)}]
                )
                reply = client.exec("notes@recall", key=key, block=True, timeout_ms=20_000)
                self.assertEqual(reply.value, value)

    def test_a_write_can_trigger_a_slot_in_the_partition_of_the_entry(self):
        put = ("state", "put", "notes", "new", "--partition", "3", "--trigger", "told")
        self.node.grape(*put, "hello")
        self.node.wait_idle()
        self.assertEqual(self.entries(store="told"), {(3, b"new"): b"|put|hello|hello"})
        self.node.grape("state", "append", "notes", "new", " you", "--partition", "3", "--trigger", "told")
        self.node.wait_idle()
        self.assertEqual(self.entries(store="told"), {(3, b"new"): b"|append| you|hello you"})
        self.node.grape("state", "remove", "notes", "new", "--trigger", "told")
        self.node.wait_idle()
        self.assertEqual(self.entries(store="told"), {(3, b"new"): b"|remove||"})
        self.node.grape("state", "cas", "notes", "x", "1", "--expect-none", "--store", "box", "--trigger", "told")
        self.node.wait_idle()
        self.assertEqual(self.entries(store="told")[partition_of(b"x", 4), b"x"], b"box|cas|1|1")
        self.node.grape(
            "state", "cas", "notes", "x", "2", "--expect-none", "--store", "box", "--trigger", "told", expect=23
        )
        self.node.wait_idle()
        self.assertEqual(self.entries(store="told")[partition_of(b"x", 4), b"x"], b"box|cas|1|1", "refused: not told")

    def test_a_trigger_that_is_no_slot_is_refused_and_nothing_written(self):
        result = self.node.grape("state", "put", "notes", "k", "v", "--trigger", "nobody", expect=NO_SUCH_SLOT)
        self.assertIn("nobody", result.err.decode())
        self.node.grape("state", "get", "notes", "k", expect=NO_ENTRY)

    def test_an_event_that_no_node_takes_is_not_triggered_by_a_write(self):
        # The node's limit for events is 8 MiB, that of values 64 MiB.
        big = self.folder / "big"
        big.write_bytes(bytes(9 << 20))
        result = self.node.grape("state", "put", "notes", "k", "--file", big, "--trigger", "told", expect=15)
        self.assertIn("told", result.err.decode())
        self.node.grape("state", "get", "notes", "k", expect=NO_ENTRY)

    def test_what_fails_or_is_rejected_or_retried_leaves_no_writes(self):
        self.exec("note", "k", "before")
        for how in ("reject", "retry", "break"):
            result = self.node.grape(
                "exec", "notes@fail", "--key", "k", "--data", how, "--block", "--timeout", "20s", expect=HANDLER_ERROR
            )
            self.assertTrue(result.err)
            self.node.grape("exec", "notes@fail", "--key", "k", "--data", how)
        self.node.wait_idle()
        self.assertEqual(self.entries(), {(partition_of(b"k", 4), b"k"): b"before"})
        self.assertEqual(self.entries(store="other"), {})
        self.assertEqual(self.exec("recall", "k"), b"before")
        self.assertEqual(len(self.node.records("notes.dead")), 3)

    def test_writes_do_not_wait_for_an_event_that_is_to_be_tried_again_much_later(self):
        code = """
            @app.on("in")
            def receive(event, ctx):
                raise Retry(3600, "in an hour")
        """
        self.node.deploy(self.python_app("slow", code, ["in"], partitions=1))
        self.node.grape("exec", "slow@in")
        self.eventually(lambda: "in an hour" in self.node.grape("app", "logs", "slow").text, "the event has failed once")
        for value in ("1", "2", "3"):
            self.node.grape("state", "put", "slow", "k", value, "--timeout", "10s")
        self.assertEqual(self.node.grape("state", "get", "slow", "k", "--consistency", "linearizable").text, "3")

    def test_entries_go_when_their_time_is_over(self):
        self.node.grape("state", "put", "notes", "short", "1", "--ttl", "300ms")
        self.node.grape("state", "put", "notes", "long", "1", "--ttl", "1h")
        self.node.grape("state", "put", "notes", "renewed", "1", "--ttl", "300ms")
        self.node.grape("state", "put", "notes", "renewed", "2", "--ttl", "1h")
        self.node.grape("state", "put", "notes", "kept", "1", "--ttl", "300ms")
        self.node.grape("state", "put", "notes", "kept", "2")
        [entry] = self.node.state("notes", key="long")
        self.assertAlmostEqual(entry.expires_ms / 1000, time.time() + 3600, delta=60)
        self.eventually(lambda: self.node.state("notes", key="short") == [], "the entry has expired")
        self.assertEqual({entry.key for entry in self.node.state("notes")}, {b"long", b"renewed", b"kept"})
        self.assertEqual(self.exec("recall", "short"), b"nothing")
        # In the changelog, too: it does not come back.
        self.node.kill()
        self.node.start()
        self.assertEqual({entry.key for entry in self.node.state("notes")}, {b"long", b"renewed", b"kept"})

    def test_what_expires_while_the_node_is_down_goes_when_it_is_back(self):
        self.node.grape("state", "put", "notes", "short", "1", "--ttl", "1s")
        expires = self.node.state("notes", key="short")[0].expires_ms / 1000
        self.node.terminate()
        self.eventually(lambda: time.time() > expires, "its time is over")
        self.node.start()
        self.eventually(lambda: self.node.state("notes", key="short") == [], "the entry has expired")

    def test_thousands_of_entries_that_expire_together_all_go(self):
        lines = "".join(
            json.dumps({"key": f"k{number}", "value": "v", "expiresMs": int(time.time() * 1000) + 1500}) + "\n"
            for number in range(5000)
        )
        self.node.grape("state", "import", "notes", "-", input=lines)
        self.eventually(lambda: self.node.state("notes", keysOnly=True) == [], "all entries have expired")

    def test_entries_are_found_by_all_of_several_tags(self):
        for name, tags in {"a": "x", "b": "xy", "c": "xyz", "d": "yz", "e": ""}.items():
            options = [word for tag in tags for word in ("--tag", tag)]
            self.node.grape("state", "put", "notes", name, name, *options, "--partition", "1")

        def found(*tags, **members):
            return b"".join(entry.key for entry in self.node.state("notes", tags=list(tags), **members))

        self.assertEqual(found("x"), b"abc")
        self.assertEqual(found("x", "y"), b"bc")
        self.assertEqual(found("z", "y", "x"), b"c")
        self.assertEqual(found("none"), b"")
        self.assertEqual(found("y", descending=True), b"dcb")
        self.assertEqual(found("y", limit=1), b"bcd", "one at a time")
        self.assertEqual(found("y", limit=1, descending=True), b"dcb")
        self.assertEqual(found("y", start="c"), b"cd")
        self.node.grape("state", "put", "notes", "b", "b", "--tag", "z")
        self.node.grape("state", "remove", "notes", "c")
        self.assertEqual(found("x"), b"a")
        self.assertEqual(found("z"), b"bd")
        self.node.kill()
        self.node.start()
        self.assertEqual(found("z"), b"bd")

    def test_writes_of_one_request_are_done_together_in_each_partition(self):
        with self.node.client() as client:
            writes = [
                {"op": "put", "key": "a", "size": 1}, {"op": "append", "key": "a", "size": 2},
                {"op": "cas", "key": "a", "size": 1, "expectedSize": 3}, {"op": "cas", "key": "a", "size": 1},
                {"op": "put", "key": "b", "size": 0}, {"op": "remove", "key": "b"},
                {"op": "cas", "key": "a", "expectedSize": 1},
            ]
            answer = client.request("state.write", b"1" + b"23" + b"4123" + b"5" + b"" + b"4", app="notes", partition=2, writes=writes)
        self.assertEqual(
            [(result["result"], result["size"]) for result in answer["results"]],
            [("done", 1), ("done", 3), ("done", 1), ("refused", 1), ("done", 0), ("done", None), ("done", None)],
        )
        self.assertEqual(self.entries(), {})


if __name__ == "__main__":
    unittest.main()
