"""Promises of TestRun, with which an application's author tests handlers, and of the application object."""

import asyncio
import contextlib
import io
import os
import sys
import unittest

import fake_node

sys.path.insert(0, fake_node.SDK)

import grape  # noqa: E402


def application():
    app = grape.Application()

    @app.on("raw")
    def raw(event, ctx):
        if not event.value:
            raise grape.Reject(22, "empty line")
        ctx.emit("parsed", {"line": event.text}, key=event.key, headers={"by": "raw"})

    @app.on("ask")
    async def ask(event, ctx):
        await asyncio.sleep(0)
        ctx.reply("part", final=False)
        return event.json()["q"] + ctx.config.get("suffix", "")

    @app.on("later")
    def later(event, ctx):
        raise grape.Retry(2.5, "not yet")

    @app.on("broken")
    def broken(event, ctx):
        ctx.emit("parsed", b"never seen")
        raise ValueError("boo")

    return app


class TestingHandlers(unittest.TestCase):
    def test_what_a_handler_emits_can_be_looked_at(self):
        outcome = grape.TestRun(application()).send("raw", "a,b", key="k")
        self.assertEqual((outcome.verdict, outcome.error), ("ok", None))
        (emitted,) = outcome.emitted
        self.assertEqual((emitted.name, emitted.key, emitted.json()), ("parsed", b"k", {"line": "a,b"}))
        self.assertEqual(dict(emitted.headers), {"by": b"raw"})
        self.assertFalse(emitted.detached)
        self.assertEqual(outcome.replies, [])

    def test_replies_of_asynchronous_handlers(self):
        with grape.TestRun(application(), config={"suffix": "!"}) as run:
            outcome = run.send("ask", {"q": "why"})
            self.assertEqual(outcome.replies, [b"part", b"why!"])
            self.assertEqual(outcome.reply, b"why!")
            self.assertEqual(run.send("ask", {"q": "why"}, wanted=False).replies, [])

    def test_errors(self):
        run = grape.TestRun(application())
        rejected = run.send("raw", b"")
        self.assertEqual((rejected.verdict, rejected.code, rejected.error), ("rejected", 22, "empty line"))
        later = run.send("later", wanted=False)
        self.assertEqual((later.verdict, later.delay, later.error), ("retry", 2.5, "not yet"))
        report = io.StringIO()
        with contextlib.redirect_stderr(report):
            broken = run.send("broken")
        self.assertEqual((broken.verdict, broken.error, broken.emitted), ("failed", "ValueError: boo", []))
        self.assertIn("boo", report.getvalue())
        self.assertEqual(run.send("raw", b"x", deadline=1).verdict, "expired")

    def test_routes_can_be_restricted_to_those_of_the_manifest(self):
        with contextlib.redirect_stderr(io.StringIO()):
            outcome = grape.TestRun(application(), routes=["persed"]).send("raw", b"x")
        self.assertEqual(outcome.verdict, "failed")
        self.assertIn("'parsed'", outcome.error)
        self.assertIn("persed", outcome.error)

    def test_destinations_can_be_given(self):
        outcome = grape.TestRun(application(), routes={"parsed": fake_node.ROUTES["both"]}).send("raw", b"x", key="k")
        self.assertEqual([e.topic for e in outcome.emitted], ["stats.events", "audit.events"])
        self.assertEqual(outcome.emitted[0].partition, fake_node.murmur2_partition(b"k", 4))

    def test_what_goes_to_a_topic_that_is_not_grapes_is_a_plain_record(self):
        app = grape.Application()

        @app.on("order")
        def order(event, ctx):
            ctx.emit("shipped", None if event.tombstone else event.value, key=event.key, headers=event.headers or None)

        shipments = {"topic": "shipments", "partitions": 7, "external": True}
        with grape.TestRun(app, routes={"shipped": [shipments]}) as run:
            outcome = run.send("order", b"tea", key="k", headers=[("a", b"1"), ("traceparent", b"00-1"), ("n", None)])
            (record,) = outcome.emitted
            self.assertEqual((record.name, record.topic, record.value, record.tombstone), ("", "shipments", b"tea", False))
            self.assertEqual(record.partition, fake_node.murmur2_partition(b"k", 7))
            self.assertEqual(dict(record.headers), {"a": b"1", "traceparent": b"00-1", "n": None})
            # Nobody behind the topic can answer: the end of the handler does.
            self.assertEqual(outcome.replies, [None])
            for wanted in (True, False, False):
                (gone,) = run.send("order", None, key="k", wanted=wanted).emitted
                self.assertEqual((gone.value, gone.tombstone, dict(gone.headers)), (b"", True, {}))
            (empty,) = run.send("order", b"", key="k", wanted=False).emitted
            self.assertEqual((empty.value, empty.tombstone), (b"", False))
        both = grape.TestRun(app, routes={"shipped": [shipments, {"topic": "stats.events", "event": "flight", "partitions": 1}]})
        outcome = both.send("order", b"tea", key="k", headers={"a": b"1"})
        self.assertEqual([(e.name, e.topic) for e in outcome.emitted], [("", "shipments"), ("flight", "stats.events")])
        self.assertEqual([dict(e.headers) for e in outcome.emitted], [{"a": b"1"}, {"a": b"1"}])
        self.assertEqual((outcome.emitted[1].detached, outcome.replies), (False, []))

    def test_a_null_value_differs_from_an_empty_one(self):
        app = grape.Application()
        seen = []
        app.on("in")(lambda event, ctx: seen.append((event.value, event.tombstone)))
        with grape.TestRun(app) as run:
            for value in (None, b"", b"x", None):
                run.send("in", value)
        self.assertEqual(seen, [(b"", True), (b"", False), (b"x", False), (b"", True)])

    def test_sending_an_event_without_handler_names_those_there_are(self):
        with self.assertRaisesRegex(ValueError, "ask, broken, later, raw"):
            grape.TestRun(application()).send("rwa")

    def test_hooks_run_once(self):
        app = application()
        calls = []
        app.on_start(lambda ctx: calls.append(("start", ctx.app)))

        @app.on_stop
        async def stop():
            calls.append("stop")

        with grape.TestRun(app) as run:
            run.send("raw", b"x")
            run.send("raw", b"x")
        self.assertEqual(calls, [("start", "test"), "stop"])

    def test_events_can_be_kept(self):
        app = grape.Application()
        kept = []
        app.on("raw")(lambda event, ctx: kept.append(event))
        run = grape.TestRun(app)
        for number in range(3):
            run.send("raw", str(number), headers={"n": str(number)})
        self.assertEqual(
            [(e.text, e.offset, e.headers["n"]) for e in kept], [("0", 0, b"0"), ("1", 1, b"1"), ("2", 2, b"2")]
        )

    def test_a_context_that_is_kept_is_of_no_use(self):
        app = grape.Application()
        kept = []
        app.on("raw")(lambda event, ctx: kept.append(ctx))
        grape.TestRun(app).send("raw")
        with self.assertRaisesRegex(RuntimeError, "has ended"):
            kept[0].emit("parsed", b"x")
        with self.assertRaisesRegex(RuntimeError, "has ended"):
            kept[0].reply(b"x")

    def test_a_hook_cannot_emit(self):
        app = application()
        app.on_start(lambda ctx: ctx.emit("parsed"))
        with self.assertRaisesRegex(RuntimeError, "hook cannot"):
            grape.TestRun(app).send("raw", b"x")


class State(unittest.TestCase):
    @staticmethod
    def counting():
        app = grape.Application()

        @app.on("count")
        def count(event, ctx):
            number = int(ctx.state.get(event.key, 0)) + 1
            ctx.state.put(event.key, str(number), ttl="30d", tags=["seen"])
            ctx.store("sums").append("all", event.value)
            if event.value == b"bad":
                raise grape.Reject(3)
            return number

        @app.on("forget")
        async def forget(event, ctx):
            ctx.state.remove(event.key)
            await asyncio.sleep(0)
            return [key.decode() for key in ctx.state.keys()] + [len(list(ctx.state.partition(0).find("seen")))]

        return app

    def test_it_lasts_from_event_to_event_and_can_be_looked_at(self):
        run = grape.TestRun(self.counting())
        self.addCleanup(run.close)
        self.assertEqual([run.send("count", "x", key="a").reply for _ in range(3)], [b"1", b"2", b"3"])
        outcome = run.send("count", "y", key="b")
        self.assertEqual(outcome.written, {("", b"b"): b"1", ("sums", b"all"): b"xxxy"})
        self.assertEqual(outcome.emitted, [])
        state = run.state()
        self.assertEqual(list(state.scan()), [(b"a", b"3"), (b"b", b"1")])
        self.assertEqual(state.tags("a"), ("seen",))
        self.assertEqual([key for key, _ in state.find("seen")], [b"a", b"b"])
        self.assertEqual(run.state("sums").get("all"), b"xxxy")
        self.assertEqual(run.send("forget", key="a").reply, b'["b",1]')
        self.assertEqual(run.send("forget", key="a").written, {("", b"a"): None})

    def test_it_can_be_preset(self):
        run = grape.TestRun(self.counting())
        run.state().put("a", "41")
        run.state("sums").append("all", b"before ")
        self.assertEqual(run.send("count", "x", key="a").reply, b"42")
        self.assertEqual(run.state("sums").get("all"), b"before x")
        self.assertTrue(run.state().cas("a", "42", None))
        run.state().put_many({"a": "1", "b": "2"})
        run.state().remove("b")
        self.assertEqual(run.state().get_many(["a", "b"]), {b"a": b"1"})
        with self.assertRaisesRegex(grape.StateError, "not the name"):
            run.state("No")
        with self.assertRaisesRegex(grape.StateError, "67,108,865"):
            run.state().put("x", bytes((64 << 20) + 1))

    def test_what_a_failing_event_wrote_is_gone(self):
        run = grape.TestRun(self.counting())
        run.send("count", "x", key="a")
        outcome = run.send("count", "bad", key="a")
        self.assertEqual((outcome.verdict, outcome.written), ("rejected", {}))
        self.assertEqual((run.state().get("a"), run.state("sums").get("all")), (b"1", b"x"))

    def test_time_can_be_made_to_pass(self):
        run = grape.TestRun(self.counting())
        run.send("count", "x", key="a")
        run.state().put("b", "for good")
        self.assertEqual((run.expire("29d"), run.expire("31d"), run.expire("31d")), (0, 1, 0))
        self.assertEqual(list(run.state().keys()), [b"b"])

    def test_a_hook_has_no_state_of_its_own(self):
        app = self.counting()
        seen = []
        app.on_start(lambda ctx: seen.append(ctx.state.partition(0).get("a")))
        app.on_stop(lambda ctx: ctx.state.put("a", "1"))
        run = grape.TestRun(app)
        run.state().put("a", "preset")
        run.send("count", key="b")
        self.assertEqual(seen, [b"preset"])
        with self.assertRaisesRegex(RuntimeError, "hook"):
            run.close()


class Registering(unittest.TestCase):
    def test_mistakes_are_told_when_the_handler_is_registered(self):
        app = grape.Application()
        with self.assertRaisesRegex(TypeError, 'write @app.on\\("name"\\)'):
            app.on(lambda event, ctx: None)
        with self.assertRaisesRegex(TypeError, "missing"):
            app.on()
        with self.assertRaisesRegex(ValueError, "without 'app@'"):
            app.on("flights@raw")
        with self.assertRaisesRegex(TypeError, "two arguments"):
            app.on("raw")(lambda event: None)
        app.on("raw")(lambda event, ctx: None)
        with self.assertRaisesRegex(ValueError, "already"):
            app.on("raw")

    def test_reject_and_retry_check_their_arguments(self):
        for code in (1 << 31, -(1 << 31) - 1, "x", True):
            with self.assertRaises(ValueError):
                grape.Reject(code)
        for delay in (-1, 5_000_000, float("nan")):
            with self.assertRaises(ValueError):
                grape.Retry(delay)


class Bytes(unittest.TestCase):
    def test_murmur2_is_that_of_kafka(self):
        # Pairs that Kafka's own test of the function holds.
        known = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536,
                 b"a-little-bit-longer-string": -1486304829, b"abc": 479470107}  # fmt: skip
        for key, expected in known.items():
            self.assertEqual(grape._murmur2(key), expected & 0xFFFFFFFF)
        for size in range(300):
            key = os.urandom(size)
            self.assertEqual(grape._partition_of(key, 1009), fake_node.murmur2_partition(key, 1009))

    def test_varints(self):
        numbers = [0, 1, -1, 63, 64, -64, -65, 8191, 8192, 1 << 20, (1 << 31) - 1, -(1 << 31), (1 << 62), -(1 << 62)]
        for number in numbers:
            encoded = grape._varint(number)
            self.assertEqual(encoded, fake_node.varint(number))
            raw, at = grape._read_varint(encoded + b"x", 0)
            self.assertEqual(((raw >> 1) ^ -(raw & 1), at), (number, len(encoded)))

    def test_broken_batches_are_refused(self):
        """Whatever a delivery's bytes are, the answer is a result or a clear error, never a hang."""
        app = grape.Application()
        app.on("raw")(lambda event, ctx: None)
        runner = grape._Runner(app._callables(), {"slots": ["raw"], "routes": {}}, grape.Log())
        worker = grape._Worker(app)
        good = fake_node.encode_batch([fake_node.event("raw", b"v" * 70, b"k", headers=[(b"a", b"b")])] * 3)
        for at in range(len(good)):
            for byte in (0, 1, 127, 128, 255):
                bad = good[:at] + bytes([byte]) + good[at + 1 :]
                body = fake_node.struct.pack(">iIqqI", 0, 1, 0, 3, 0) + bad
                with contextlib.suppress(grape._ProtocolError):
                    worker._drive(runner.run(grape._Delivery(1, body)))
        for size in range(len(good)):
            body = fake_node.struct.pack(">iIqqI", 0, 1, 0, 3, 0) + good[:size]
            if size:
                with self.assertRaises(grape._ProtocolError):
                    worker._drive(runner.run(grape._Delivery(1, body)))


if __name__ == "__main__":
    unittest.main()
