"""Promises of the Python SDK about state, with LMDB environments written by lmdb_writer.py, by asking, and in memory."""

import contextlib
import ctypes
import datetime
import io
import os
import random
import shutil
import sys
import tempfile
import threading
import time
import unittest

import fake_node
from fake_node import FAILED, REJECTED, RETRY
from lmdb_writer import Writer, entry, full_key, take_apart
from state_rig import TOPIC, Rig, question, see, stated, writes

import grape

SEED = int(os.environ.get("GRAPE_TEST_SEED", random.SystemRandom().randrange(1 << 32)))


def both(test):
    """Runs a test with a base in memory maps, and with one that is asked."""

    def run(self):
        for access in ("map", "ask"):
            with self.subTest(access=access), Rig(access) as rig:
                test(self, rig)

    run.__name__ = test.__name__
    return run


def put(key, value=b"", **arguments):
    return lambda event, ctx: ctx.state.put(key, value, **arguments)


def fail(event, ctx):
    raise ValueError("as a handler does")


@contextlib.contextmanager
def quiet():
    """Hides the tracebacks of handlers that fail on purpose."""
    with contextlib.redirect_stderr(io.StringIO()) as report:
        yield report


class Points(unittest.TestCase):
    @both
    def test_a_handler_reads_the_base(self, rig):
        rig.preset({"a": b"1", "empty": b"", "long": b"x" * 10_000})
        rig.preset({"a": b"of sessions"}, store="sessions")
        rig.preset({"a": b"of the other partition"}, partition=1)
        seen = []
        rig.run(
            see(seen, lambda s: (s.get(b"a"), s.get("a"), s.get(b"b"), s.get("b", 7), s.get("empty"))),
            see(seen, lambda s: (len(s.get("long")), s.read("long", 9_998), s.read("a", 1), s.read("b"))),
            see(seen, lambda s: ("a" in s, b"b" in s, s.contains("empty"), s.size("long"), s.size("b"))),
            see(seen, lambda s: s._context.store("sessions").get("a")),
        )
        self.assertEqual(seen[0], (b"1", b"1", None, 7, b""))
        self.assertEqual(seen[1], (10_000, b"xx", b"", b""))
        self.assertEqual(seen[2], (True, False, True, 10_000, None))
        self.assertEqual(seen[3], b"of sessions")

    @both
    def test_a_handler_sees_its_writes_and_those_of_the_events_before_it_at_once(self, rig):
        rig.preset({"a": b"1"})
        seen = []

        def first(event, ctx):
            ctx.state.put("a", "2")
            seen.append(ctx.state.get("a"))

        rig.run(first, see(seen, lambda s: s.get("a")))
        rig.run(see(seen, lambda s: s.get("a")))  # the base has not got it yet
        self.assertEqual(seen, [b"2", b"2", b"2"])

    @both
    def test_a_removed_entry_is_gone_at_once(self, rig):
        rig.preset({"a": b"1", "b": b"2"})
        seen = []
        result = rig.run(
            lambda event, ctx: ctx.state.remove("a"),
            see(seen, lambda s: (s.get("a"), "a" in s, s.size("a"), s.read("a"), list(s.scan()))),
        )
        self.assertEqual(seen, [(None, False, None, b"", [(b"b", b"2")])])
        self.assertEqual(writes(result), [(b"\0a", None)])

    @both
    def test_compare_and_set(self, rig):
        rig.preset({"a": b"1"})
        seen = []

        def step(event, ctx):
            cas = ctx.state.cas
            seen.append([
                cas("a", "0", "2"), cas("a", None, "2"), cas("a", b"1", "2"), cas("a", "2", None), cas("a", None, "3"),
                cas("b", None, None), cas("b", "1", "2"),
            ])  # fmt: skip

        result = rig.run(step)
        self.assertEqual(seen, [[False, False, True, True, True, True, False]])
        self.assertEqual(writes(result), [(b"\0a", entry(b"3"))])

    @both
    def test_append_keeps_ttl_and_tags(self, rig):
        rig.write([(b"\0a", entry(b"1", 4_000_000_000_000, ["x"]))])
        seen = []
        result = rig.run(
            see(seen, lambda s: (s.append("a", "23"), s.append("new", b"4"), s.append("new", b""))),
            see(seen, lambda s: (s.get("a"), s.tags("a"), s.expires("a"), s.tags("new"), s.expires("none"))),
        )
        self.assertEqual(seen, [(3, 1, 1), (b"123", ("x",), 4_000_000_000_000, (), None)])
        self.assertEqual(writes(result), [(b"\0a", entry(b"123", 4_000_000_000_000, ["x"])), (b"\0new", entry(b"4"))])

    @both
    def test_many_at_once(self, rig):
        rig.preset({f"k{number}": b"%d" % number for number in range(50)})
        seen = []

        def step(event, ctx):
            s = ctx.state
            s.put_many({"k1": "one", b"new": b"n"}, tags=["t"])
            s.put_many([("x", "1"), ("y", "2")])
            s.remove_many(["k2", "x", "nothing"])
            seen.append(s.get_many([b"k0", "k1", "k2", "k3", "x", "y", "none"] + [f"k{n}" for n in range(40, 50)]))

        rig.run(step)
        expected = {b"k0": b"0", b"k1": b"one", b"k3": b"3", b"y": b"2"}
        expected.update({b"k%d" % number: b"%d" % number for number in range(40, 50)})
        self.assertEqual(seen, [expected])

    @both
    def test_json(self, rig):
        seen = []

        def step(event, ctx):
            ctx.state.put_json("a", {"n": [1, "ü"]}, tags=["t"])
            seen.append((ctx.state.get_json("a"), ctx.state.get_json("b"), ctx.state.get_json("b", []), ctx.state.get("a")))
            with self.assertRaises(ValueError):
                ctx.state.put_json("a", float("nan"))

        rig.run(step)
        self.assertEqual(seen, [({"n": [1, "ü"]}, None, [], '{"n":[1,"ü"]}'.encode())])

    @both
    def test_keys_and_values_of_any_bytes(self, rig):
        keys = [bytes([byte]) for byte in range(256)] + [b"\0" * 480, b"\xff" * 480, b"a\0b", b"\0\0"]
        rig.write([(full_key("", key), entry(key[::-1])) for key in keys[::2]])
        seen = []

        def step(event, ctx):
            for key in keys[1::2]:
                ctx.state.put(key, key[::-1])
            seen.extend(ctx.state.get(key) for key in keys)
            seen.append(list(ctx.state.keys()))

        rig.run(step)
        self.assertEqual(seen, [key[::-1] for key in keys] + [sorted(keys)])


class Ranges(unittest.TestCase):
    BASE = {"a": b"1", "b:1": b"2", "b:2": b"3", "b:3": b"4", "c": b"5"}

    @both
    def test_scans_put_the_writes_over_the_base(self, rig):
        rig.preset(self.BASE)
        rig.preset({"b:9": b"of another store"}, store="b")
        seen = []

        def step(event, ctx):
            s = ctx.state
            s.put("b:0", "new")
            s.put("b:2", "over")
            s.remove("b:3")
            s.put("z", "last")
            s.put("gone", "x")
            s.remove("gone")
            seen.append((
                list(s.keys()), list(s.keys(reverse=True)), list(s.scan("b:")), list(s.keys("b:", reverse=True)),
                list(s.keys(start="b:1", end="c")), list(s.keys(start="b:1", end="c", reverse=True)),
                list(s.keys("b:", limit=2)), list(s.keys(limit=0)), list(s.keys(limit=1, reverse=True)),
                list(s.keys(start="x", end="b")), list(s.keys("b:", start="b:2")), list(s.keys(end="\xff" * 300)),
            ))  # fmt: skip

        rig.run(step)
        every = [b"a", b"b:0", b"b:1", b"b:2", b"c", b"z"]
        self.assertEqual(
            seen[0],
            (
                every, every[::-1], [(b"b:0", b"new"), (b"b:1", b"2"), (b"b:2", b"over")], [b"b:2", b"b:1", b"b:0"],
                [b"b:1", b"b:2"], [b"b:2", b"b:1"], [b"b:0", b"b:1"], [], [b"z"], [], [b"b:2"], every,
            ),
        )  # fmt: skip

    @both
    def test_a_scan_goes_over_what_there_was_when_it_was_called(self, rig):
        names = [f"{number:04}" for number in range(0, 3000, 2)]
        rig.preset({name: b"base" for name in names})
        seen = []

        def step(event, ctx):
            s = ctx.state
            s.put("0001", "mine")
            scan = s.scan()
            s.put("0000", "later")
            s.put("0003", "later")
            s.remove("0002")
            for key, value in scan:
                seen.append((key, value))
                s.put(key, "later")
                s.put(key + b"x", "later")
                s.remove(b"%04d" % (int(key) + 2))

        rig.run(step)
        expected = {name.encode(): b"base" for name in names}
        expected[b"0001"] = b"mine"
        self.assertEqual(seen, sorted(expected.items()))

    @both
    def test_entries_are_found_by_tags(self, rig):
        rig.write(
            [(full_key("", b"%03d" % n), entry(b"%d" % n, None, [t for t in ("two", "three") if n % {"two": 2, "three": 3}[t] == 0]))
             for n in range(60)] + [(full_key("other", b"000"), entry(b"", None, ["two"]))]
        )  # fmt: skip
        seen = []

        def step(event, ctx):
            s = ctx.state
            s.put("006", "over, without tags")
            s.put("007", "7", tags=["two", "three"])
            s.remove("012")
            s.put("0125", "new", tags=["three", "two", "more"])
            seen.append([key for key, _ in s.find("two", "three")])
            seen.append([key for key, _ in s.find("three", "two", prefix="01", limit=2)])
            seen.append([key for key, _ in s.find("three", "two", "more")])
            seen.append([key for key, _ in s.find("nothing")])
            seen.append([value for _, value in s.find("two", limit=3)])
            seen.append([key for key, _ in ctx.store("other").find("two")])

        rig.run(step)
        sixes = [b"000", b"007", b"0125"] + [b"%03d" % n for n in range(18, 60, 6)]
        self.assertEqual(seen, [sixes, [b"0125", b"018"], [b"0125"], [], [b"0", b"2", b"4"], [b"000"]])

    @both
    def test_long_scans_go_on_page_after_page(self, rig):
        count = 5000
        rig.preset({f"{number:05}": b"v" * 300 for number in range(count)})
        seen = []
        rig.run(
            see(seen, lambda s: sum(1 for _ in s.scan())),
            see(seen, lambda s: list(s.keys(reverse=True)) == [b"%05d" % n for n in range(count)][::-1]),
            see(seen, lambda s: list(s.keys(limit=100)) == [b"%05d" % n for n in range(100)]),
        )
        self.assertEqual(seen, [count, True, True])


class Writing(unittest.TestCase):
    def test_the_records_of_a_result_byte_for_byte(self):
        with Rig() as rig:

            def step(event, ctx):
                s = ctx.state
                s.put("a", "1")
                s.put("a", "2")
                s.put("t", b"v", tags=["b", "a", "ü"])
                s.put("e", b"", ttl=datetime.timedelta(days=1), tags=[])
                ctx.store("sessions").put("long" * 30, "w" * 5000)
                ctx.store("sessions").remove("x")

            before = int(time.time() * 1000)
            found = writes(rig.run(step, partition=1), 1)
            expiry = take_apart(found[2][1])[1]
            self.assertEqual(
                found,
                [
                    (b"\0a", b"\0" + b"2"),
                    (b"\0t", b"\x02\x03\x01a\x01b\x02\xc3\xbcv"),
                    (b"\0e", b"\x01" + expiry.to_bytes(8, "big")),
                    (b"\x08sessions" + b"long" * 30, b"\0" + b"w" * 5000),
                    (b"\x08sessionsx", None),
                ],
            )
            self.assertLess(abs(expiry - before - 86_400_000), 60_000)

    def test_the_last_write_per_key_and_delivery_is_sent(self):
        with Rig() as rig:
            result = rig.run(*[put("k", str(number)) for number in range(700)], put("other", "x"))
            self.assertEqual(writes(result), [(b"\0k", entry(b"699")), (b"\0other", entry(b"x"))])

    def test_many_writes_are_several_batches(self):
        with Rig() as rig:
            values = {f"k{number}": os.urandom(number % 3000) for number in range(9000)}

            def step(event, ctx):
                ctx.state.put_many(values)

            result = rig.run(step)
            self.assertGreater(len(result.batches), 10)
            self.assertTrue(all(len(batch) <= (1 << 20) + 4096 for _, _, batch in result.batches))
            self.assertEqual(writes(result), [(b"\0" + k.encode(), entry(v)) for k, v in values.items()])

    def test_periods(self):
        run = grape.TestRun(grape.Application())
        state = run.state()
        units = {
            "30d": 30 * 86_400_000, "12h": 43_200_000, "15m": 900_000, "10s": 10_000, "250ms": 250, "1.5s": 1500, 90: 90_000,
            0.25: 250, datetime.timedelta(minutes=2): 120_000, "2 h": 7_200_000,
        }  # fmt: skip
        for ttl, expected in units.items():
            state.put("k", "v", ttl=ttl)
            self.assertLess(abs(state.expires("k") - time.time() * 1000 - expected), 20_000, ttl)
        for ttl in (0, -1, "", "x", "10", "1w", "-5s", True, float("nan"), float("inf"), 1e30, b"10s", "0s",
                    datetime.timedelta(0), [], "9" * 400 + "d"):  # fmt: skip
            with self.assertRaises(grape.StateError, msg=repr(ttl)):
                state.put("k", "v", ttl=ttl)

    def test_mistakes_are_told(self):
        app = grape.Application()
        seen = []
        mistakes = [
            (lambda s, c: s.put("", "v"), "the key is empty; it has 1 to 480 bytes"),
            (lambda s, c: s.get(""), "the key is empty"),
            (lambda s, c: s.get(b"k" * 481), "has 481 bytes; it may have 480"),
            (lambda s, c: s.put("ü" * 241, "v"), "has 482 bytes; it may have 480"),
            (lambda s, c: s.remove("x" * 500), "it may have 480"),
            (lambda s, c: s.get(7), "a key is bytes or str, not int"),
            (lambda s, c: s.get(None), "a key is bytes or str, not NoneType"),
            (lambda s, c: [] in s, "a key is bytes or str, not list"),
            (lambda s, c: s.put("k", None), "a value is bytes or str, not NoneType; put_json"),
            (lambda s, c: s.put("k", {}), "a value is bytes or str, not dict; put_json"),
            (lambda s, c: s.put("k", b"v" * ((64 << 20) + 1)), "67,108,865 bytes; it may have 67,108,864"),
            (lambda s, c: s.put("k", "v", tags="carrier"), "write tags=\\['carrier'\\]"),
            (lambda s, c: s.put("k", "v", tags=7), "a list of tags, not int"),
            (lambda s, c: s.put("k", "v", tags=["a", "a"]), "'a' is given twice"),
            (lambda s, c: s.put("k", "v", tags=[""]), "a tag has 1 to 63"),
            (lambda s, c: s.put("k", "v", tags=["t" * 64]), "has 64 bytes"),
            (lambda s, c: s.put("k", "v", tags=[b"\xff"]), "not UTF-8"),
            (lambda s, c: s.put("k", "v", tags=map(str, range(17))), "17 tags; an entry may have 16"),
            (lambda s, c: s.put("k", "v", ttl="1 week"), 'text like "250ms"'),
            (lambda s, c: s.find(), "name a tag"),
            (lambda s, c: s.scan(limit=-1), "limit is 0 or more"),
            (lambda s, c: s.scan(prefix=7), "a prefix is bytes or str"),
            (lambda s, c: s.read("k", -1), "offset is 0 or more"),
            (lambda s, c: s.read("k", 0, -1), "size is 0 or more"),
            (lambda s, c: s.partition(1), "no partition 1; they are 0 to 0"),
            (lambda s, c: s.partition("0"), "no partition '0'"),
            (lambda s, c: c.store("Upper"), "'Upper' is not the name of a store"),
            (lambda s, c: c.store("a" * 31), "at most 30"),
            (lambda s, c: c.store(None), "None is not the name"),
        ]

        @app.on("raw")
        def raw(event, ctx):
            for mistake, message in mistakes:
                with self.assertRaisesRegex(grape.StateError, message):
                    mistake(ctx.state, ctx)
                seen.append(message)

        self.assertEqual(grape.TestRun(app).send("raw").error, None)
        self.assertEqual(len(seen), len(mistakes))
        self.assertTrue(issubclass(grape.StateError, ValueError))

    @both
    def test_mistakes_are_told_with_every_base(self, rig):
        rig.preset({"a": b"1"})

        def step(event, ctx):
            for key in ("", b"x" * 481, 7, None, bytearray(), ["k"]):
                for use in (ctx.state.get, ctx.state.size, ctx.state.contains, ctx.state.remove, ctx.state.read):
                    with self.assertRaises(grape.StateError, msg=repr(key)):
                        use(key)
            self.assertEqual(ctx.state.get(bytearray(b"a")), b"1")
            self.assertEqual(ctx.state.get(memoryview(b"a")), b"1")

        rig.run(step)


class Failing(unittest.TestCase):
    @both
    def test_what_a_failing_event_wrote_is_taken_back(self, rig):
        rig.preset({"a": b"base", "b": b"base"})
        for error, verdict in (
            (grape.Reject(5), REJECTED), (grape.Retry(), RETRY), (ValueError("x"), FAILED), (SystemExit(), FAILED),
        ):  # fmt: skip
            with self.subTest(error=repr(error)):
                seen = []

                def step(event, ctx, error=error):
                    s = ctx.state
                    s.put("a", "bad")
                    s.put("a", "worse")
                    s.put("mine", "bad", tags=["t"])
                    s.remove("b")
                    ctx.store("other").put("x", "bad")
                    list(s.scan())
                    raise error

                with quiet():
                    result = rig.deliver(put("mine", "good"), step, put("z", "good"))
                self.assertEqual(result.verdicts[0][1], verdict)
                expected = [(b"\0mine", entry(b"good"))]
                if verdict == REJECTED:
                    expected.append((b"\0z", entry(b"good")))
                self.assertEqual(writes(result), expected)
                rig.run(
                    see(seen, lambda s: (s.get("a"), s.get("b"), s.get("mine"), s.tags("mine"))),
                    see(seen, lambda s: (list(s.keys()), list(s._context.store("other").scan()), list(s.find("t")))),
                )
                self.assertEqual(seen[0], (b"base", b"base", b"good", ()))
                self.assertEqual(seen[1], ([b"a", b"b", b"mine"] + [b"z"] * (verdict == REJECTED), [], []))
                rig.run(lambda event, ctx: ctx.state.remove_many(["mine", "z"]))

    @both
    def test_a_failing_event_that_somebody_waits_for_leaves_no_writes_either(self, rig):
        with quiet():
            result = rig.deliver(put("a", "1"), fail, put("b", "2"), wanted=True)
        self.assertEqual(writes(result), [(b"\0a", entry(b"1")), (b"\0b", entry(b"2"))])

        def write_and_fail(event, ctx):
            ctx.state.put("a", "bad")
            ctx.state.put("c", "bad")
            raise grape.Retry(3)

        result = rig.deliver(write_and_fail, put("d", "4"), wanted=True)
        self.assertEqual(writes(result), [(b"\0d", entry(b"4"))])

    @both
    def test_events_that_are_delivered_again_do_not_find_what_their_lost_result_wrote(self, rig):
        rig.preset({"n": b"0"})

        def count(event, ctx):
            ctx.state.put("n", str(int(ctx.state.get("n")) + 1))

        one = rig.run(count)
        rig.run(count, count)  # the node cannot commit this one
        again = rig.run(count, count, first=one.processed, attempt=2)
        self.assertEqual(writes(again), [(b"\0n", entry(b"3"))])
        # Nor does a later delivery, if the repeated one did not touch state.
        rig.run(count, first=again.processed)
        rig.run(lambda event, ctx: None, first=again.processed)
        self.assertEqual(writes(rig.run(count)), [(b"\0n", entry(b"4"))])


class Limits(unittest.TestCase):
    def test_large_writes_end_a_delivery_early(self):
        with Rig() as rig:
            result = rig.run(*[put("k", b"x" * (3 << 20)) for _ in range(100)])
            self.assertEqual(result.processed, 6, "16 MiB were reached with the sixth event")
            self.assertEqual([len(value) for _, value in writes(result)], [(3 << 20) + 1])

    def test_many_small_writes_end_a_delivery_early(self):
        with Rig() as rig:
            result = rig.run(*[put(f"k{number}", b"x" * 4000) for number in range(6000)])
            self.assertTrue(4000 < result.processed < 5200, result.processed)
            self.assertEqual(len(writes(result)), result.processed)

    def test_what_no_frame_holds_is_handed_back_event_by_event(self):
        def many(name, count):
            return lambda event, ctx: ctx.state.put_many({f"{name}{n:02}": b"s" * 4000 for n in range(count)})

        with Rig(maxFrame=300_000) as rig:
            seen = []
            result = rig.deliver(put("a", "1"), put("a", b"x" * 70_000), put("b", b"y" * 260_000), put("c", b"z"))
            self.assertEqual((result.processed, result.verdicts), (2, []))
            self.assertEqual(writes(result), [(b"\0a", entry(b"x" * 70_000))])
            rig.apply(result)
            result = rig.deliver(many("b", 65), many("c", 20), put("b00", ""))
            self.assertEqual((len(writes(result)), result.processed), (65, 3), "alone it fits")
            rig.apply(result)
            with quiet():
                result = rig.deliver(many("d", 80), put("d", "1"))
            self.assertEqual([(v[0], v[1], v[2]) for v in result.verdicts], [(3, REJECTED, 6)])
            self.assertEqual((result.processed, writes(result)), (4, []))
            rig.run(see(seen, lambda s: (len(s.get("a")), len(s.get("b00")), len(list(s.keys())))))
            self.assertEqual(seen, [(70_000, 4000, 66)])

    def test_the_largest_value_and_the_longest_key_fit_a_frame(self):
        with Rig() as rig:
            tags = [f"{number:02}" + "t" * 61 for number in range(16)]
            value = bytes(64 << 20)
            result = rig.run(put("k" * 480, value, tags=tags, ttl="1d"), put("x", "y"))
            ((key, written), *rest) = writes(result)
            self.assertEqual((key, len(written), result.processed), (b"\0" + b"k" * 480, len(value) + 10 + 16 * 64, 1))


class Bases(unittest.TestCase):
    @both
    def test_what_the_base_has_is_read_from_there(self, rig):
        rig.preset({"a": b"0"})
        seen = []
        results = [rig.run(put("a", str(number)), put(f"own{number}", "x")) for number in (1, 2, 3)]
        rig.apply(results[0])
        rig.run(see(seen, lambda s: (s.get("a"), list(s.keys()))))
        # The node removes an entry on its own account: what a result wrote there must not cover it.
        rig.apply(results[1])
        rig.write([(b"\0own1", None), (b"\0own2", entry(b"from outside"))])
        rig.run(see(seen, lambda s: (s.get("a"), s.get("own1"), s.get("own2"), list(s.keys()))))
        rig.apply(results[2])
        rig.write([(b"\0a", entry(b"outside"))])
        rig.run(see(seen, lambda s: (s.get("a"), list(s.keys()))))
        self.assertEqual(seen[0], (b"3", [b"a", b"own1", b"own2", b"own3"]))
        self.assertEqual(seen[1], (b"3", None, b"from outside", [b"a", b"own2", b"own3"]))
        self.assertEqual(seen[2], (b"outside", [b"a", b"own2", b"own3"]))
        self.assertEqual(rig.runner.states.parts[0].overlays[""].items, {}, "nothing is kept that the base has")

    @both
    def test_a_value_written_again_survives_the_base_in_between(self, rig):
        """The same value, then another, then the same object again: the base catching up must uncover none of them."""
        seen = []
        value = b"v"
        results = [rig.run(put("k", value)), rig.run(put("k", b"w")), rig.run(put("k", value))]
        for result in results:
            rig.apply(result)
            rig.run(see(seen, lambda s: s.get("k")))
        self.assertEqual(seen, [value] * 3)

    def test_the_view_of_a_delivery_stays_while_the_base_goes_on(self):
        with Rig() as rig:
            rig.preset({"a": b"1", "b": b"1"})
            seen = []

            def meanwhile(event, ctx):
                rig.preset({"a": b"2", "c": b"2"})
                seen.append((ctx.state.get("a"), list(ctx.state.keys())))

            rig.run(see(seen, lambda s: s.get("a")), meanwhile)
            rig.run(see(seen, lambda s: (s.get("a"), list(s.keys()))))
            self.assertEqual(seen, [b"1", (b"1", [b"a", b"b"]), (b"2", [b"a", b"b", b"c"])])

    def test_between_deliveries_no_view_is_held(self):
        with Rig() as rig:
            rig.preset({"a": b"1"})
            rig.preset({"a": b"1"}, partition=1)

            def step(event, ctx):
                ctx.state.get("a")
                ctx.state.partition(1).get("a")
                self.assertEqual([len(readers(rig, number)) for number in (0, 1)], [1, 1])

            rig.run(step)
            self.assertEqual([readers(rig, number) for number in (0, 1)], [["-"], ["-"]])
            with quiet():
                rig.deliver(lambda event, ctx: ctx.state.get("a") and fail(event, ctx))
            self.assertEqual(readers(rig, 0), ["-"])

    def test_an_environment_that_appears_later_is_found_with_the_next_delivery(self):
        with Rig() as rig:
            seen = []
            result = rig.run(see(seen, lambda s: (s.get("a"), list(s.scan()), list(s.find("t")), s.size("a"))), put("b", "own"))
            os.mkdir(rig.path())
            rig.run(see(seen, lambda s: (s.get("a"), s.get("b"))))
            rig.apply(result)
            rig.preset({"a": b"1"})
            rig.run(see(seen, lambda s: (s.get("a"), list(s.keys()))))
            self.assertEqual(seen, [(None, [], [], None), (None, b"own"), (b"1", [b"a", b"b"])])

    def test_an_environment_without_databases_is_empty(self):
        with Rig() as rig:
            rig.writer()
            seen = []
            rig.run(see(seen, lambda s: list(s.scan())))
            rig.preset({"a": b"1"})
            rig.run(see(seen, lambda s: list(s.scan())))
            self.assertEqual(seen, [[], [(b"a", b"1")]])

    def test_an_environment_that_was_made_anew_is_opened_again(self):
        with Rig() as rig:
            rig.preset({"a": b"old"})
            seen = []
            rig.run(see(seen, lambda s: s.get("a")))
            rig.writers.pop(0).close()
            shutil.rmtree(rig.path())
            rig.run(see(seen, lambda s: s.get("a")))
            rig.preset({"a": b"new"})
            rig.run(see(seen, lambda s: s.get("a")))
            self.assertEqual(seen, [b"old", None, b"new"])

    def test_a_map_that_has_grown_is_followed(self):
        with Rig() as rig:
            rig.writer(map_size=1 << 18)
            rig.preset({"a": b"1"})
            seen = []
            rig.run(see(seen, lambda s: s.get("a")), see(seen, lambda s: s.get("a")))
            rig.writer().grow(64 << 20)
            rig.preset({f"k{number}": os.urandom(60_000) for number in range(300)})
            rig.run(see(seen, lambda s: (s.get("a"), len(s.get("k299")), sum(len(v) for _, v in s.scan("k")))))
            self.assertEqual(seen, [b"1", b"1", (b"1", 60_000, 300 * 60_000)])

    def test_another_process_writes(self):
        """The reader's lock is seen by a writer elsewhere: pages of the view are not used again."""
        with Rig() as rig:
            rig.preset({f"k{number:03}": b"first" * 100 for number in range(500)})
            rig.writers.pop(0).close()
            program = f"""
import sys
sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r})
from lmdb_writer import *
with Writer({rig.path()!r}) as writer:
    for round in range(30):
        writer.apply([(b"\\0k%03d" % n, entry(b"%05d" % round * 100)) for n in range(500)], 0)
"""
            seen = []

            def step(event, ctx):
                seen.append(ctx.state.get("k000"))
                fake_node.subprocess.run([sys.executable, "-c", program], check=True, timeout=fake_node.PATIENCE)
                seen.append({value for _, value in ctx.state.scan()})

            rig.run(step)
            rig.run(see(seen, lambda s: {value for _, value in s.scan()}))
            self.assertEqual(seen, [b"first" * 100, {b"first" * 100}, {b"00029" * 100}])

    def test_what_cannot_be_mapped_is_asked_for_and_the_log_says_so(self):
        def unwritable(rig):
            os.rename(os.path.join(rig.path(), "lock.mdb"), os.path.join(rig.path(), "elsewhere"))

        def newer(rig):
            writer = rig.writer()
            writer.begin()
            writer.put("meta", b"position", b"\0\2" + bytes(38))
            writer.check(writer.lmdb.mdb_txn_commit(writer.txn))

        def broken(rig):
            rig.writers.pop(0).close()
            with open(os.path.join(rig.path(), "data.mdb"), "r+b") as file:
                file.write(os.urandom(16384))

        for spoil, reason in ((unwritable, "lock.mdb"), (newer, "format 2"), (broken, "mdb_env_open")):
            with self.subTest(spoil=spoil.__name__), Rig() as rig:
                rig.preset({"a": b"1"})
                spoil(rig)
                seen = []
                with quiet() as report:
                    rig.run(see(seen, lambda s: (s.get("a"), list(s.scan()))), partition=0)
                    rig.run(see(seen, lambda s: s.get("a")), partition=1)
                self.assertEqual(seen, [(b"1", [(b"a", b"1")]), None])
                self.assertIn(reason, report.getvalue())
                self.assertEqual(report.getvalue().count("slower"), 1)

    def test_a_worker_without_the_library_asks(self):
        with Rig() as rig:
            rig.preset({"a": b"1"})
            loader = grape._Lmdb
            seen = []

            def missing():
                raise grape._CannotMap("liblmdb is not installed")

            grape._Lmdb = missing
            try:
                with quiet() as report:
                    rig.run(see(seen, lambda s: s.get("a")))
            finally:
                grape._Lmdb = loader
            self.assertEqual(seen, [b"1"])
            self.assertIn("not installed", report.getvalue())

    def test_a_node_without_state_is_told_of(self):
        app = grape.Application()
        app.on("raw")(lambda event, ctx: ctx.state.get("a"))
        runner = grape._Runner(app._callables(), {"slots": ["raw"], "routes": {}}, app.log)
        body = fake_node.struct.pack(">iIqqI", 0, 1, 0, 1, 0) + fake_node.encode_batch([fake_node.event("raw")])
        with quiet():
            result = fake_node.Result(b"".join(grape._Worker(app)._drive(runner.run(grape._Delivery(1, body)))))
        self.assertIn("keeps no state", result.verdicts[0][4])

    def test_asking_costs_a_question_per_read_and_one_for_what_is_known(self):
        with Rig("ask") as rig:
            rig.preset({"a": b"1"})
            result = rig.run(lambda event, ctx: ctx.state.get("a"))
            self.assertEqual([asked[:6] for asked in rig.asked], [(1, False, 0, 0, 0, b"\0a")])
            rig.asked.clear()
            result = rig.run(put("a", "2"))
            self.assertEqual(rig.asked, [], "nothing was read")
            rig.run(lambda event, ctx: [ctx.state.get("a") for _ in range(5)])
            self.assertEqual(len(rig.asked), 1, "how far the base is")
            rig.apply(result)


class Elsewhere(unittest.TestCase):
    @both
    def test_another_partition_can_be_read_but_not_written(self, rig):
        rig.preset({"a": b"here"})
        rig.preset({"a": b"there", "b": b"x"}, partition=1)
        rig.preset({"s": b"session"}, partition=1, store="sessions")
        seen = []

        def step(event, ctx):
            view = ctx.state.partition(1)
            ctx.state.put("a", "mine")
            seen.append((
                view.get("a"), view.size("b"), "c" in view, list(view.scan()), view.get_many(["a", "c"]), view.read("a", 1, 2),
                ctx.store("sessions").partition(1).get("s"), ctx.state.partition(0).get("a"), hasattr(view, "put"),
            ))  # fmt: skip
            for number in range(20):
                key = str(number)
                owner = fake_node.murmur2_partition(key.encode(), 2)
                self.assertEqual(ctx.state.of(key).get("a"), b"there" if owner else b"mine")

        rig.run(step)
        self.assertEqual(
            seen,
            [(b"there", 1, False, [(b"a", b"there"), (b"b", b"x")], {b"a": b"there"}, b"he", b"session", b"mine", False)],
        )

    def test_another_partition_is_read_while_its_own_delivery_goes_on(self):
        """Asynchronous handlers of two partitions take turns; each sees its own view, the base of one grows meanwhile."""
        with Rig() as rig:
            rig.writer(1, map_size=1 << 18)
            rig.preset({"a": b"0"})
            rig.preset({"a": b"1"}, partition=1)
            seen = []
            foreign, own = [self.generator(rig, number) for number in (0, 1)]
            rig.steps = [lambda event, ctx: None]
            context_0, context_1 = foreign.context, own.context
            scan = context_0.state.partition(1).scan()
            seen.append(context_0.state.partition(1).get("a"))
            rig.writer(1).grow(64 << 20)
            rig.preset({"a": b"2", **{f"k{number:03}": os.urandom(50_000) for number in range(100)}}, partition=1)
            seen.append(context_1.state.get("a"))
            context_1.state.put("a", "3")
            seen += [context_0.state.partition(1).get("a"), context_1.state.get("a"), context_0.state.get("a")]
            seen.append(len(list(scan)))
            own.close()
            seen.append(context_0.state.partition(1).get("a"))
            foreign.close()
            self.assertEqual(seen, [b"1", b"2", b"2", b"3", b"0", 101, b"2"])
            self.assertEqual([readers(rig, number) for number in (0, 1)], [["-"], ["-"]])

    @staticmethod
    def generator(rig, partition):
        """A delivery that stands in the middle of its event."""

        class Standing:
            async def wait(self):
                pass

        waiting = Standing().wait()
        rig.steps = [lambda event, ctx: waiting]
        body = fake_node.struct.pack(">iIqqI", partition, 1, 0, 1, 0)
        delivery = grape._Delivery(1, body + fake_node.encode_batch([fake_node.event("do", b"0")]))
        steps = rig.runner.run(delivery)
        standing = Standing()
        next(steps)
        standing.context = delivery.context
        standing.close = lambda: (steps.close(), waiting.close())
        return standing

    def test_a_hook_reads_partitions_but_has_none(self):
        with Rig() as rig:
            rig.preset({"a": b"1"}, partition=1)
            seen = []

            def hook(ctx):
                seen.append((ctx.state.partition(1).get("a"), list(ctx.store("x").partition(0).scan()), ctx))
                for use in (
                    lambda: ctx.state.put("a", "1"), lambda: ctx.state.get("a"), lambda: ctx.state.remove("a"),
                    lambda: ctx.state.put_many({"a": "b"}), lambda: ctx.state.cas("a", None, "b"), lambda: "a" in ctx.state,
                    lambda: ctx.state.append("a", "b"), lambda: ctx.state.scan(), lambda: ctx.store("x").put("a", "b"),
                ):  # fmt: skip
                    with self.assertRaisesRegex(RuntimeError, "hook"):
                        use()

            grape._call_hook(hook, rig.runner)
            self.assertEqual(seen[0][:2], (b"1", []))
            self.assertEqual(readers(rig, 1), ["-"])
            with self.assertRaisesRegex(RuntimeError, "has ended"):
                seen[0][2].state.partition(1)

            async def later(ctx):
                seen.append(ctx.state.partition(1).get("a"))

            rig.worker._complete(grape._call_hook(later, rig.runner))
            rig.worker._loop.close()
            self.assertEqual(seen[1], b"1")
            self.assertEqual(readers(rig, 1), ["-"])

    @both
    def test_a_store_that_is_kept_is_of_no_use(self, rig):
        rig.preset({"a": b"1", "b": b"2"})
        kept = []

        def keep(event, ctx):
            scan = ctx.state.scan(limit=1000)
            kept.append((ctx.state, ctx.store("x"), ctx.state.partition(1), scan, ctx, ctx.state.get))

        rig.run(keep)
        store, named, view, scan, context, get = kept[0]

        def later(event, ctx):
            for use in (
                lambda: store.get("a"), lambda: store.put("a", "b"), lambda: named.put("a", "b"), lambda: view.get("a"),
                lambda: list(scan), lambda: store.scan(), lambda: store.find("t"), lambda: store.remove("a"),
                lambda: context.state, lambda: context.store("x"), lambda: get("a"), lambda: store.get_many(["a"]),
                lambda: store.partition(1), lambda: store.of("a"), lambda: store.size("a"), lambda: store.read("a"),
            ):  # fmt: skip
                with self.assertRaisesRegex(RuntimeError, "has ended"):
                    use()

        result = rig.run(later)
        self.assertEqual(writes(result), [])

    @both
    def test_another_thread_is_refused(self, rig):
        rig.preset({"a": b"1"})
        rig.runner.states.ask = rig.worker._ask
        rig.worker.runner = rig.runner
        caught = []

        def step(event, ctx):
            state = ctx.state

            def elsewhere():
                for use in (lambda: state.get("a"), lambda: list(state.scan()), lambda: state.size("a")):
                    try:
                        use()
                    except RuntimeError as error:
                        caught.append(str(error))

            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()

        rig.run(step)
        self.assertEqual(len(caught), 3, caught)
        self.assertIn("thread that runs the handlers", caught[0])


HEAD = "import asyncio, grape\nfrom grape import Application, StateError, StateUnavailable\napp = Application()\n"
TAIL = "\nif __name__ == '__main__':\n    app.run()\n"
ASK = {"topic": TOPIC, "partitions": 4, "access": "ask", "path": "/nowhere", "maxKey": 480, "maxValue": 64 << 20}
COUNT = """
@app.on("raw")
def raw(event, ctx):
    ctx.state.put(event.key, str(int(ctx.state.get(event.key, 0)) + 1))
    return ctx.state.get(event.key)
"""


def node(program, state=None, **arguments):
    return fake_node.FakeNode(HEAD + program + TAIL, ["raw"], state=state or ASK, **arguments)


def wanted(value=b"", key=b"k"):
    return fake_node.event("raw", value, key, reply=(bytes(16), 0, "_grape.replies.n1"))


def replies(result):
    return [reply[5] or reply[4] for found in result.replies().values() for reply in found]


class Worker(unittest.TestCase):
    """Promises of a whole worker process."""

    def test_a_worker_reads_the_map_and_writes_to_the_changelog(self):
        with tempfile.TemporaryDirectory() as folder:
            with Writer(os.path.join(folder, "2")) as writer:
                writer.apply([(b"\0k", entry(b"41"))], 0)
                with node(COUNT, dict(ASK, access="map", path=folder)) as n:
                    n.start()
                    result = n.run([wanted()], partition=2)
                    self.assertEqual(replies(result), [b"42"])
                    self.assertEqual(writes(result, 2), [(b"\0k", entry(b"42"))])
                    writer.apply(writes(result, 2), result.processed)
                    self.assertEqual(replies(n.run([wanted(), wanted()], base=1, partition=2)), [b"43", b"44"])

    def test_deliveries_that_come_while_a_question_is_open_are_run_after_it(self):
        for kind in ("def", "async def"):
            with self.subTest(kind=kind), node(COUNT.replace("def", kind)) as n:
                n.start()
                first = n.deliver([wanted()], partition=1)
                identifier, body, _ = n.next(fake_node.STATE)
                self.assertEqual(question(body), (1, False, 1, 0, 0, b"\0k", None, []))
                n.send(fake_node.HEARTBEAT, 0, bytes(16))
                second = n.deliver([wanted(), wanted()], partition=3)
                n.send(fake_node.STATED, identifier, stated(0, [(b"\0k", entry(b"4"))]))
                self.assertEqual(replies(n.result(first)), [b"5"])
                identifier, body, _ = n.next(fake_node.STATE)
                self.assertEqual(question(body)[2], 3)
                n.send_json(fake_node.DRAIN, {})
                n.send(fake_node.STATED, identifier, stated(0, []))
                self.assertEqual(replies(n.result(second)), [b"1", b"2"])
                n.next(fake_node.GOODBYE)
                self.assertEqual(n.wait(), 0)

    def test_frames_that_come_together_with_the_answer_are_not_forgotten(self):
        for kind in ("def", "async def"):
            with self.subTest(kind=kind), node(COUNT.replace("def", kind)) as n:
                n.start()
                n.deliver([wanted()], partition=1)
                identifier, _, _ = n.next(fake_node.STATE)
                answer = stated(0, [])
                events = fake_node.encode_batch([wanted()])
                delivery = fake_node.struct.pack(">iIqqI", 1, 1, 1, 2, 0) + fake_node.encode_batch([wanted()], 1)
                n.send_raw(b"".join(
                    fake_node.struct.pack(">IBBHQ", 12 + len(body), kind, 0, 0, number) + body
                    for kind, number, body in ((fake_node.STATED, identifier, answer), (fake_node.DELIVER, 8, delivery))
                ))  # fmt: skip
                self.assertEqual(replies(n.result()), [b"1"])
                # What the first wrote is known, how far the base is must be asked.
                identifier, _, _ = n.next(fake_node.STATE)
                n.send(fake_node.STATED, identifier, stated(1, []))
                identifier, _, _ = n.next(fake_node.STATE)
                n.send(fake_node.STATED, identifier, stated(1, [(b"\0k", entry(b"1"))]))
                self.assertEqual(replies(n.result(8)), [b"2"])

    def test_many_reads_ask_sixteen_questions_at_a_time(self):
        program = """
@app.on("raw")
def raw(event, ctx):
    found = ctx.state.get_many([str(number) for number in range(100)])
    return [len(found), found[b"99"].decode()]
"""
        with node(program) as n:
            n.start()
            identifier = n.deliver([wanted()])
            waiting = []
            for number in range(100):
                if len(waiting) < 16:
                    while len(waiting) < min(16, 100 - number):
                        waiting.append(n.next(fake_node.STATE))
                self.assertTrue(n.frames[fake_node.STATE].empty())
                asked, body, _ = waiting.pop(0)
                key = question(body)[5]
                n.send(fake_node.STATED, asked, stated(0, [(key, entry(key[1:]))]))
            self.assertEqual(replies(n.result(identifier)), [b'[100,"99"]'])

    def test_an_error_in_answer_to_a_question_is_the_handlers(self):
        program = """
@app.on("raw")
def raw(event, ctx):
    try:
        ctx.state.get("k")
    except (StateError, StateUnavailable) as error:
        return f"{type(error).__name__} {error}"
"""
        with node(program) as n:
            n.start()
            for status, name, expected in ((9, "bad-request", b"StateError "), (8, "unavailable", b"StateUnavailable ")):
                identifier = n.deliver([wanted()])
                asked, _, _ = n.next(fake_node.STATE)
                error = {"status": status, "name": name, "message": "no such luck"}
                n.send(fake_node.ERROR, asked, fake_node.json.dumps(error).encode())
                self.assertEqual(replies(n.result(identifier)), [expected + f"state: {name}: no such luck".encode()])

    def test_an_answer_that_comes_too_late_is_passed_over(self):
        program = "grape._ANSWER_SECONDS = 0.05" + COUNT
        with node(program) as n:
            n.start()
            result = n.result(n.deliver([wanted()]))
            self.assertIn("did not answer", result.verdicts[0][4])
            asked, _, _ = n.next(fake_node.STATE)
            n.send(fake_node.STATED, asked, stated(0, []))
            n.deliver([fake_node.event("raw", b"", b"k")])
            self.assertEqual(n.result().verdicts[0][1], FAILED)
            n.send_json(fake_node.DRAIN, {})
            self.assertEqual(n.wait(), 0)

    def test_a_refusal_of_the_connection_while_a_question_is_open_ends_the_worker_with_its_reason(self):
        for kind in ("def", "async def"):
            with self.subTest(kind=kind), node(COUNT.replace("def", kind)) as n:
                n.start()
                n.deliver([wanted()])
                n.next(fake_node.STATE)
                n.send_json(fake_node.ERROR, {"status": 9, "name": "bad-request", "message": "what was that"})
                self.assertEqual(n.wait(), 76)
                self.assertIn("what was that", n.errors())

    def test_a_connection_that_ends_while_a_question_is_open_ends_the_worker(self):
        with node(COUNT) as n:
            n.start()
            n.deliver([wanted()])
            n.next(fake_node.STATE)
            n.outgoing.put(None)
            self.assertEqual(n.wait(), 70)

    def test_an_answer_out_of_turn_ends_the_worker(self):
        program = """
@app.on("raw")
def raw(event, ctx):
    ctx.state.get_many(["a", "b"])
"""
        with node(program) as n:
            n.start()
            n.deliver([wanted()])
            n.next(fake_node.STATE)
            asked, _, _ = n.next(fake_node.STATE)
            n.send(fake_node.STATED, asked, stated(0, []))
            self.assertEqual(n.wait(), 76)
            self.assertIn("out of turn", n.errors())

    def test_asynchronous_handlers_of_several_partitions_keep_their_state_apart(self):
        program = """
waiting = []
@app.on("raw")
async def raw(event, ctx):
    ctx.state.put("p", str(event.partition))
    mine = asyncio.get_running_loop().create_future()
    waiting.append(mine)
    if len(waiting) == 3:
        for one in waiting:
            one.set_result(None)
    await mine
    ctx.state.append("p", f" {event.partition}")
    return ctx.state.get("p")
"""
        with tempfile.TemporaryDirectory() as folder, node(program, dict(ASK, access="map", path=folder)) as n:
            n.start()
            for partition in range(3):
                n.deliver([wanted()], partition=partition)
            for _ in range(3):
                result = n.result()
                [(topic, partition, _)] = [batch for batch in result.batches if batch[0] == TOPIC]
                expected = b"%d %d" % (partition, partition)
                self.assertEqual((replies(result), writes(result, partition)), ([expected], [(b"\0p", entry(expected))]))

    def test_a_start_hook_reads_by_asking_before_the_first_event(self):
        program = """
seen = []
@app.on_start
def start(ctx): seen.append(ctx.state.partition(2).get("k", b"none").decode())
@app.on("raw")
def raw(event, ctx): return seen
"""
        with node(program) as n:
            n.answer_state = lambda body: stated(0, [(b"\0k", entry(b"of %d" % question(body)[2]))])
            n.start()
            self.assertEqual(replies(n.run([wanted()])), [b'["of 2"]'])

    def test_a_broken_answer_fails_the_event_alone(self):
        good = stated(0, [(b"\0k", entry(b"1"))])
        with node(COUNT) as n:
            n.start()
            for body in (b"", good[:-1], good[:20], good[:16] + b"\xff" * 8, stated(0, [(b"\0k", b"\x07")]), stated(0, [(b"\0k", b"")])):
                n.answer_state = lambda _, body=body: body
                result = n.result(n.deliver([wanted()]))
                self.assertIn("StateUnavailable", result.verdicts[0][4])
            n.answer_state = lambda _: good
            self.assertEqual(replies(n.run([wanted()])), [b"2"])


def readers(rig, partition):
    """The transactions that hold a view of a partition, as LMDB's table of readers has them; "-": none at present."""
    lmdb = rig.writer(partition).lmdb
    lines = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
    def collect(line, _):
        lines.append(line.decode())
        return 0

    lmdb.mdb_reader_list(rig.writer(partition).env, collect, None)
    return [line.split()[2] for line in lines[1:]]


class Model(unittest.TestCase):
    """Random histories beside a dictionary."""

    KEYS = [f"{letter}{number}" for letter in "abc" for number in range(8)] + ["a", "b:", "zz"]
    TAGS = ["t1", "t2", "t3"]

    def test_random_histories_agree_with_a_dictionary(self):
        print(f"state histories: GRAPE_TEST_SEED={SEED}", file=sys.stderr)
        for number in range(40):
            for access in ("map", "ask"):
                with self.subTest(access=access, number=number), Rig(access) as rig:
                    self.history(rig, random.Random(f"{SEED} {number}"))

    def history(self, rig, pick):
        rig.firsts = {}  # per partition: where the last delivery began
        committed = [{}, {}]  # per partition: (store, key) to (value, tags), as committed RESULTs left it
        late = [[], []]  # per partition: results that the base does not have yet
        for _ in range(pick.randrange(5, 25)):
            partition = pick.randrange(2)
            model = dict(committed[partition])
            final = {}  # what the events that succeeded have left
            steps = []
            stops = []
            for number in range(pick.randrange(1, 6)):
                outcome = pick.choice(["ok"] * 6 + ["reject", "retry"])
                steps.append(self.step(pick, model, final, stops, number, outcome, rig, partition))
            final.clear()
            final.update(model)
            with quiet():
                result = rig.deliver(*steps, partition=partition)
            if stops and stops[0][0] == "error":
                raise stops[0][1]
            if pick.random() < 0.15:
                # The commit fails: the events come again, later.
                rig.offsets[partition] = rig.firsts[partition]
                continue
            committed[partition] = dict(final)
            late[partition].append(result)
            while late[partition] and pick.random() < 0.5:
                rig.apply(late[partition].pop(0), partition)
            if pick.random() < 0.2:
                self.meddle(rig, pick, committed, late, partition)
        for partition in (0, 1):
            for result in late[partition]:
                rig.apply(result, partition)
            content = {
                (full[1 : 1 + full[0]].decode(), full[1 + full[0] :]): take_apart(data)[::2]
                for full, data in rig.contents[partition].items()
            }
            self.assertEqual(content, committed[partition])

    def meddle(self, rig, pick, committed, late, partition):
        """The node writes on its own account, after it has applied everything."""
        for result in late[partition]:
            rig.apply(result, partition)
        late[partition].clear()
        key = (pick.choice(["", "s"]), pick.choice(self.KEYS).encode())
        if pick.random() < 0.5:
            committed[partition].pop(key, None)
            rig.write([(full_key(*key), None)], partition)
        else:
            committed[partition][key] = (b"outside", ["t1"])
            rig.write([(full_key(*key), entry(b"outside", None, ["t1"]))], partition)

    def step(self, pick, model, final, stops, number, outcome, rig, partition):
        """A handler that does random things to the state and to the model, and compares."""
        seed = pick.random()

        def run(event, ctx):
            own = random.Random(seed)
            if number == 0:
                rig.firsts[partition] = event.offset
            before = dict(model)
            try:
                for _ in range(own.randrange(12)):
                    self.act(own, ctx, model)
            except AssertionError as error:
                stops.append(("error", error))
                raise
            if outcome != "ok":
                model.clear()
                model.update(before)
            final.clear()
            final.update(model)
            if outcome == "reject":
                raise grape.Reject(1)
            if outcome == "retry":
                raise grape.Retry()

        return run

    def act(self, pick, ctx, model):
        name = pick.choice(["", "", "s"])
        store = ctx.store(name)
        key = pick.choice(self.KEYS)
        place = (name, key.encode())
        value, tags = model.get(place, (None, []))
        what = pick.randrange(12)
        if what < 3:
            tags = sorted(pick.sample(self.TAGS, pick.choice([0, 0, 1, 2])))
            data = pick.randbytes(pick.choice([0, 1, 8, 70, 9000])) if hasattr(pick, "randbytes") else b"x" * 9
            store.put(key, data, tags=tags)
            model[place] = (data, tags)
        elif what == 3:
            store.remove(key)
            model.pop(place, None)
        elif what == 4:
            self.assertEqual(store.append(key, b"+"), len(value or b"") + 1)
            model[place] = ((value or b"") + b"+", tags)
        elif what == 5:
            expected = pick.choice([value, value, None, b"other"])
            self.assertEqual(store.cas(key, expected, b"new"), value == expected)
            if value == expected:
                model[place] = (b"new", [])
        elif what < 8:
            self.assertEqual((store.get(key), key in store, store.size(key)), (value, value is not None, None if value is None else len(value)))
            self.assertEqual((store.tags(key), store.read(key, 3, 4)), (tuple(tags), (value or b"")[3:7]))
        elif what < 11:
            prefix = pick.choice(["", "", "a", "b", "b:", "zz", "\x7f"])
            low = pick.choice([None, None] + self.KEYS)
            high = pick.choice([None, None] + self.KEYS)
            reverse = pick.random() < 0.5
            limit = pick.choice([None, None, 0, 1, 3, 10])
            expected = sorted(
                (
                    (found, content[0])
                    for (where, found), content in model.items()
                    if where == name and found.startswith(prefix.encode())
                    and (low is None or found >= low.encode()) and (high is None or found < high.encode())
                ),
                reverse=reverse,
            )[:limit]  # fmt: skip
            self.assertEqual(list(store.scan(prefix, low, high, reverse, limit)), expected)
            self.assertEqual(list(store.keys(prefix, low, high, reverse, limit)), [found for found, _ in expected])
        else:
            wanted = pick.sample(self.TAGS, pick.choice([1, 2]))
            prefix = pick.choice(["", "a", "b"])
            limit = pick.choice([None, 1, 4])
            expected = sorted(
                (found, content[0])
                for (where, found), content in model.items()
                if where == name and found.startswith(prefix.encode()) and set(wanted) <= set(content[1])
            )[:limit]
            self.assertEqual(list(store.find(*wanted, prefix=prefix, limit=limit)), expected)
            self.assertEqual(store.get_many(self.KEYS), {k: v for (where, k), (v, _) in model.items() if where == name})


if __name__ == "__main__":
    unittest.main()
