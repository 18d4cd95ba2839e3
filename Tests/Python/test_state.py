"""Promises of the Python SDK's state: what handlers read and write, in memory maps and by asking."""

import datetime
import os
import time
import unittest

from fake_node import FAILED, REJECTED, RETRY
from lmdb_writer import entry, full_key, take_apart
from state_rig import Rig, both, fail, put, quiet, see, writes

import grape


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
            get = ctx.state.get_json
            seen.append((get("a"), get("b"), get("b", []), ctx.state.get("a")))
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
        for n in range(60):
            tags = [tag for tag, number in (("two", 2), ("three", 3)) if n % number == 0]
            rig.write([(full_key("", b"%03d" % n), entry(b"%d" % n, None, tags))])
        rig.write([(full_key("other", b"000"), entry(b"", None, ["two"]))])
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
            "30d": 30 * 86_400_000, "12h": 43_200_000, "15m": 900_000, "10s": 10_000, "250ms": 250, "1.5s": 1500,
            90: 90_000, 0.25: 250, datetime.timedelta(minutes=2): 120_000, "2 h": 7_200_000,
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


if __name__ == "__main__":
    unittest.main()
