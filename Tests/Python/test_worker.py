"""Promises of the Python SDK, checked against a real worker process through a node made for tests (fake_node.py)."""

import os
import random
import signal
import struct
import subprocess
import sys
import time
import unittest

import fake_node
from fake_node import EXPIRED, FAILED, REJECTED, RETRY, FakeNode, event

HEAD = """
import sys, threading, time, asyncio, logging
from grape import Application, Event, Context, Reject, Retry
app = Application()
"""
TAIL = """
if __name__ == "__main__":
    app.run()
"""
FUTURE = 4_000_000_000_000
REPLIES = "_grape.replies.n7"


def correlation(number):
    return struct.pack(">QQ", 99, number)


def wanted(name, value=b"", number=1, partition=3, **arguments):
    return event(name, value, reply=(correlation(number), partition, REPLIES), **arguments)


def node(program, slots=("raw",), **arguments):
    return FakeNode(HEAD + program + TAIL, slots, **arguments)


def until(condition, what):
    """Waits for something that only polling can see. Fails after a deadline."""
    limit = time.monotonic() + fake_node.PATIENCE
    while not condition():
        if time.monotonic() > limit:
            raise AssertionError(f"not within {fake_node.PATIENCE} s: {what}")
        os.sched_yield()


class Opening(unittest.TestCase):
    def test_hello_says_what_the_protocol_asks(self):
        with node("@app.on('raw', 'parsed')\ndef h(event, ctx): pass", ["raw"]) as n:
            hello = n.accept()
            self.assertEqual(hello["role"], "worker")
            self.assertEqual(hello["protocol"], [1])
            self.assertEqual(hello["token"], "secret")
            self.assertEqual(hello["pid"], n.process.pid)
            self.assertEqual(hello["slots"], ["raw", "parsed"])
            self.assertEqual(hello["compression"][0], "none")
            self.assertTrue(hello["agent"].startswith("grape-python/"))

    def test_nothing_follows_hello_before_welcome(self):
        with node("@app.on('raw')\ndef h(event, ctx): pass", heartbeatMs=20) as n:
            n.accept()
            self.assertEqual(n.order, [fake_node.HELLO])
            n.send_json(fake_node.WELCOME, n.welcome)
            n.next(fake_node.HEARTBEAT)
            self.assertEqual(n.order[:2], [fake_node.HELLO, fake_node.HEARTBEAT])

    def test_an_error_instead_of_welcome_is_told_and_ends_the_worker(self):
        with node("@app.on('raw')\ndef h(event, ctx): pass") as n:
            n.accept()
            n.send_json(fake_node.ERROR, {"status": 10, "name": "bad-token", "message": "the token is used up"})
            self.assertEqual(n.wait(), 76)
            self.assertIn("bad-token: the token is used up", n.errors())

    def test_an_error_with_the_connection_closed_behind_it_is_still_told(self):
        with node("@app.on('raw')\ndef h(event, ctx): pass") as n:
            n.start()
            n.run([event("raw")])
            n.send_json(fake_node.ERROR, {"status": 9, "name": "bad-request", "message": "what was that"})
            n.outgoing.put(None)  # closes the connection
            self.assertEqual(n.wait(), 76)
            self.assertIn("what was that", n.errors())

    def test_another_protocol_version_is_refused(self):
        with node("@app.on('raw')\ndef h(event, ctx): pass", protocol=2) as n:
            n.start()
            self.assertEqual(n.wait(), 76)
            self.assertIn("protocol 2", n.errors())

    def test_a_welcome_that_lacks_a_member_is_refused_with_its_name(self):
        with node("@app.on('raw')\ndef h(event, ctx): pass") as n:
            del n.welcome["heartbeatMs"]
            n.start()
            self.assertEqual(n.wait(), 76)
            self.assertIn("heartbeatMs", n.errors())

    def test_emitted_events_are_packed_as_the_node_says_where_zstd_is_to_be_had(self):
        program = """
import subprocess, types
import grape

def compress(data, level):
    return subprocess.run(["zstd", "-q", f"-{level}"], input=data, stdout=subprocess.PIPE, check=True).stdout

def decompress(data):
    return subprocess.run(["zstd", "-qd"], input=data, stdout=subprocess.PIPE, check=True).stdout

grape._zstd = types.SimpleNamespace(compress=compress, decompress=decompress)
@app.on('raw')
def h(event, ctx): ctx.emit("parsed", b"alike " * 1000)
"""
        with node(program, compression="zstd:3") as n:
            n.start()
            [(_, _, batch)] = n.run([event("raw")]).batches
            self.assertEqual(batch[22] & 7, 4, "the codec is zstd")
            self.assertEqual(struct.unpack_from(">i", batch, 8), (len(batch) - 12,))
            self.assertLess(len(batch), 300)
            records = subprocess.run(["zstd", "-qd"], input=batch[61:], stdout=subprocess.PIPE, check=True).stdout
            self.assertIn(b"alike " * 1000, records)

    @unittest.skipIf(sys.version_info >= (3, 14), "this Python has zstd")
    def test_a_worker_without_zstd_that_is_told_to_pack_ends_with_the_reason(self):
        with node("@app.on('raw')\ndef h(event, ctx): pass", compression="zstd:3") as n:
            n.start()
            self.assertEqual(n.wait(), 76)
            self.assertIn("Python 3.14", n.errors())

    def test_an_unknown_frame_ends_the_worker(self):
        with node("@app.on('raw')\ndef h(event, ctx): pass") as n:
            n.start()
            n.send(0x7E, 0, b"")
            self.assertEqual(n.wait(), 76)
            self.assertIn("0x7e", n.errors())

    def test_a_frame_that_is_too_long_ends_the_worker(self):
        with node("@app.on('raw')\ndef h(event, ctx): pass", maxFrame=100_000) as n:
            n.start()
            n.send_raw(struct.pack(">IBBHQ", 100_001, fake_node.DELIVER, 0, 0, 1))
            self.assertEqual(n.wait(), 76)
            self.assertIn("100001", n.errors())

    def test_start_hooks_run_before_the_first_event_and_see_the_configuration(self):
        program = """
seen = []
@app.on_start
def first(ctx): seen.append(f"{ctx.app} {ctx.worker} {ctx.version} {ctx.config['limit']} {sorted(ctx.routes)}")
@app.on_start
async def second(): seen.append("second")
@app.on('raw')
def h(event, ctx): return seen
"""
        with node(program) as n:
            n.start()
            ((_, _, _, _, _, value),) = n.run([wanted("raw")]).replies()[correlation(1)]
            self.assertEqual(
                value, b"""["flights flights-3 4be1 7 ['both', 'counted', 'nobody', 'parsed']","second"]"""
            )

    def test_a_start_hook_that_fails_ends_the_worker_with_1(self):
        with node("@app.on_start\ndef s(): raise OSError('no model')\n@app.on('raw')\ndef h(event, ctx): pass") as n:
            n.start()
            self.assertEqual(n.wait(), 1)
            self.assertIn("no model", n.errors())


class Results(unittest.TestCase):
    def test_a_plain_result_byte_for_byte(self):
        with node("@app.on('raw')\ndef h(event, ctx): ctx.emit('counted', event.value.upper(), key=event.key)") as n:
            n.start()
            identifier = n.deliver([event("raw", b"a", b"k"), event("raw", b"b", b"k")], base=40)
            got, body, flags = n.next(fake_node.RESULT)
            self.assertEqual((got, flags), (identifier, 1))
            partition = fake_node.murmur2_partition(b"k", 4)
            (nanoseconds,) = struct.unpack_from(">Q", body, 24)
            self.assertGreater(nanoseconds, 0)
            (now,) = struct.unpack_from(">q", body, 32 + 4 + 2 + 12 + 8 + 27)
            self.assertLess(abs(now - time.time() * 1000), 60_000)
            headers = [(b"g.e", b"flight"), (b"g.h", b"\x01")]
            batch = fake_node.encode_batch(
                [fake_node.Record(b"k", b"A", headers), fake_node.Record(b"k", b"B", headers)], base_time=now
            )
            expected = struct.pack(">qIHHIIQI", 42, 0, 1, 0, 2, 0, nanoseconds, 1)
            expected += struct.pack(">H", 12) + b"stats.events" + struct.pack(">iI", partition, len(batch)) + batch
            self.assertEqual(body, expected)

    def test_an_event_shows_all_that_its_record_holds(self):
        program = """
@app.on('raw')
def h(event, ctx):
    return [event.name, event.key and event.key.decode(), event.text,
            dict(event.headers)["color"].decode(), event.partition, event.offset, event.timestamp, event.deadline,
            event.attempt, event.wanted, "g.e" in event.headers, len(event.headers)]
"""
        with node(program) as n:
            n.start()
            records = [
                event("raw", b"x"),
                wanted(
                    "raw",
                    "grün".encode(),
                    key=b"k",
                    deadline=FUTURE,
                    headers=[(b"color", b"red"), (b"n", None)],
                    age=70,
                ),
                event("raw", b"x"),
            ]
            result = n.run(records, base=9, partition=2, attempt=5, first=10, end=11)
            (reply,) = result.replies()[correlation(1)]
            expected = f'["raw","k","grün","red",2,10,1700000000070,{FUTURE},5,true,false,2]'
            self.assertEqual(reply[5].decode(), expected)

    def test_first_end_and_skipped_offsets_are_kept_out(self):
        with node("@app.on('raw')\ndef h(event, ctx): ctx.emit('counted', str(event.offset))") as n:
            n.start()
            records = [event("raw", b"x") for _ in range(100)]
            batches = fake_node.encode_batch(records[:50], 1000) + fake_node.encode_batch(records[50:], 1050)
            result = n.run(records, batches=batches, first=1007, end=1090, skips=(1008, 1049, 1050, 1089))
            ran = [int(record.value) for _, _, record in result.records()]
            self.assertEqual(ran, [o for o in range(1007, 1090) if o not in (1008, 1049, 1050, 1089)])
            self.assertEqual(result.processed, 1090)
            self.assertEqual(result.counts(), {0: (79, 0)})

    def test_batches_with_gaps_keep_their_offsets(self):
        with node("@app.on('raw')\ndef h(event, ctx): ctx.emit('counted', str(event.offset))") as n:
            n.start()
            deltas = [0, 5, 63, 64, 70, 8191, 8192, 100_000]
            batch = fake_node.encode_batch([event("raw", b"x" * 70, age=i * 40) for i in range(8)], 500, deltas=deltas)
            result = n.run([], batches=batch, first=501, end=100_501)
            self.assertEqual([int(r.value) for _, _, r in result.records()], [500 + d for d in deltas[1:]])

    def test_one_batch_may_hold_many_thousand_records(self):
        with node(
            "last = -1\n@app.on('raw')\ndef h(event, ctx):\n  global last\n  assert event.offset == last + 1\n  last += 1"
        ) as n:
            n.start()
            result = n.run([event("raw", b"", age=i) for i in range(20_000)])
            self.assertEqual((result.processed, result.verdicts, result.counts()), (20_000, [], {0: (20_000, 0)}))

    def test_large_and_empty_and_null_fields(self):
        program = """
@app.on('raw')
def h(event, ctx): ctx.emit('counted', event.value, key=event.key, headers=event.headers)
"""
        cases = [
            (None, b""), (b"", b""), (b"k", None), (b"k" * 63, b"v" * 63), (b"k" * 64, b"v" * 64),
            (b"k" * 8191, b"v" * 8191),
            (b"k" * 8192, b"v" * 8192), (b"k" * 70_000, b"v" * 3_000_000), (None, b"v" * 127), (b"x", b"v" * 1_048_576),
        ]  # fmt: skip
        with node(program) as n:
            n.start()
            records = [
                event("raw", v, k, age=[0, 63, 64, -1, 8192][i % 5], headers=[(b"h", v)])
                for i, (k, v) in enumerate(cases)
            ]
            result = n.run(records)
            self.assertEqual(result.verdicts, [])
            got = sorted((r.key or b"", r.key is None, r.value, r.header(b"h")) for _, _, r in result.records())
            self.assertEqual(got, sorted((k or b"", k is None, v or b"", v) for k, v in cases))
            for _, partition, record in result.records():
                if record.key is not None:
                    self.assertEqual(partition, fake_node.murmur2_partition(record.key, 4))

    def test_a_signal_is_copied_to_all_its_slots_and_to_nobody_if_nothing_is_connected(self):
        program = (
            "@app.on('raw')\ndef h(event, ctx):\n  ctx.emit('both', event.value, key='k')\n  ctx.emit('nobody', 'x')"
        )
        with node(program) as n:
            n.start()
            result = n.run([event("raw", b"1"), event("raw", b"2", hops=3)])
            found = [(t, r.event, r.value, r.header(b"g.h")[0]) for t, _, r in result.records()]
            self.assertEqual(
                sorted(found),
                [("audit.events", "seen", b"1", 1), ("audit.events", "seen", b"2", 4),
                 ("stats.events", "flight", b"1", 1), ("stats.events", "flight", b"2", 4)],
            )  # fmt: skip

    def test_emitted_values_may_be_text_or_json_and_headers_may_be_text(self):
        program = """
@app.on('raw')
def h(event, ctx):
    ctx.emit('counted', 'grün', headers={'a': 'ä', 'b': b'\\x00', 'c': None})
    ctx.emit('counted', {'a': [1, 'ü', None]})
    ctx.emit('counted', bytearray(b'x'))
    ctx.emit('counted')
"""
        with node(program) as n:
            n.start()
            records = [r for _, _, r in n.run([event("raw")]).records()]
            self.assertEqual([r.value for r in records], ["grün".encode(), '{"a":[1,"ü",null]}'.encode(), b"x", b""])
            self.assertEqual(
                records[0].headers,
                [(b"g.e", b"flight"), (b"g.h", b"\x01"), (b"a", "ä".encode()), (b"b", b"\0"), (b"c", None)],
            )

    def test_events_without_key_are_spread_over_deliveries(self):
        with node("@app.on('raw')\ndef h(event, ctx): ctx.emit('counted', event.value)") as n:
            n.start()
            seen = []
            for _ in range(8):
                partitions = {p for _, p, _ in n.run([event("raw", b"x")] * 5).records()}
                self.assertEqual(len(partitions), 1)
                seen.append(partitions.pop())
            self.assertEqual(sorted(seen), [0, 0, 1, 1, 2, 2, 3, 3])

    def test_output_batches_are_not_larger_than_a_mebibyte_unless_one_record_is(self):
        program = """
@app.on('raw')
def h(event, ctx):
    for i in range(int(event.value)):
        ctx.emit('counted', bytes([i & 255]) * (i % 3000), key='same')
    ctx.emit('counted', bytes(1_500_000), key='same')
    ctx.emit('counted', 'end', key='same')
"""
        with node(program) as n:
            n.start()
            result = n.run([event("raw", b"6000")])
            sizes = [len(data) for _, _, data in result.batches]
            large = [size for size in sizes if size > (1 << 20) + 100]
            self.assertEqual(len(large), 1)
            self.assertLess(large[0], 1_500_200)
            self.assertLess(len(sizes), 15)
            values = [r.value for _, _, r in result.records()]
            self.assertEqual(values[:-2], [bytes([i & 255]) * (i % 3000) for i in range(6000)])
            self.assertEqual(values[-1], b"end")

    def test_many_tiny_records_are_split_too(self):
        with node(
            "@app.on('raw')\ndef h(event, ctx):\n  for i in range(20000): ctx.emit('counted', str(i), key=b'k')"
        ) as n:
            n.start()
            result = n.run([event("raw")])
            self.assertEqual([int(r.value) for _, _, r in result.records()], list(range(20000)))

    def test_a_delivery_whose_outputs_grow_too_large_is_answered_in_part(self):
        program = "@app.on('raw')\ndef h(event, ctx): ctx.emit('counted', bytes(3000), key=event.value)"
        with node(program, maxFrame=4 << 20) as n:
            n.start()
            records = [event("raw", b"%d" % i) for i in range(3000)]
            offset = 0
            seen = []
            rounds = 0
            while offset < 3000:
                result = n.run(records, first=offset, end=3000)
                self.assertEqual(result.verdicts, [])
                self.assertGreater(result.processed, offset)
                # Not only what a frame holds: the outputs in memory are bounded as well.
                self.assertLess(sum(len(data) for _, _, data in result.batches), 2 << 20)
                seen += [int(r.key) for _, _, r in result.records()]
                offset = result.processed
                rounds += 1
            self.assertEqual(sorted(seen), list(range(3000)))
            self.assertGreater(rounds, 2)

    def test_one_event_whose_outputs_exceed_a_frame_is_rejected_and_the_rest_goes_on(self):
        program = """
@app.on('raw')
def h(event, ctx):
    for _ in range(int(event.value)): ctx.emit('counted', bytes(100_000), key='k')
"""
        with node(program, maxFrame=1 << 20) as n:
            n.start()
            records = [event("raw", b"2"), wanted("raw", b"20"), event("raw", b"3")]
            first = n.run(records)
            self.assertEqual((first.processed, len(first.records())), (1, 2))
            second = n.run(records, first=1, end=3)
            self.assertEqual(second.processed, 2)
            self.assertEqual([v[:3] for v in second.verdicts], [(1, REJECTED, 6)])
            self.assertEqual(second.replies()[correlation(1)][0][:3], (6, 1, 1))
            third = n.run(records, first=2, end=3)
            self.assertEqual((third.processed, len(third.records())), (3, 3))

    def test_tallies_are_told_per_slot(self):
        program = """
@app.on('raw')
def raw(event, ctx): time.sleep(0.002)
@app.on('other')
def other(event, ctx): raise Reject(1, 'no')
"""
        with node(program, ["other", "raw"]) as n:
            n.start()
            result = n.run([event("raw"), event("other"), event("raw"), event("raw"), event("other")])
            self.assertEqual(result.counts(), {1: (3, 0), 0: (0, 2)})
            self.assertGreaterEqual(dict((t[0], t[3]) for t in result.tallies)[1], 6_000_000)


class Verdicts(unittest.TestCase):
    program = """
@app.on('raw')
def h(event, ctx):
    ctx.emit('counted', event.value, key='k')
    ctx.emit('both', event.value)
    what = event.text
    if what == 'reject': raise Reject(-7, 'bad row')
    if what == 'retry': raise Retry(1.5, 'later')
    if what == 'retry now': raise Retry()
    if what == 'fail': raise KeyError('x')
    if what == 'exit': sys.exit(3)
    if what == 'deep': 1 / 0
"""

    def test_rejected_goes_on_and_drops_what_was_emitted(self):
        with node(self.program) as n:
            n.start()
            result = n.run([event("raw", b"1"), event("raw", b"reject"), event("raw", b"2")], base=10)
            self.assertEqual(result.processed, 13)
            self.assertEqual(result.verdicts, [(11, REJECTED, -7, 0, "bad row")])
            self.assertEqual([r.value for _, _, r in result.records("audit.events")], [b"1", b"2"])
            self.assertEqual(sorted(r.value for _, _, r in result.records("stats.events")), [b"1", b"1", b"2", b"2"])
            self.assertEqual(result.counts(), {0: (2, 1)})

    def test_failed_stops_the_delivery_there(self):
        with node(self.program) as n:
            n.start()
            result = n.run(
                [event("raw", b"1"), event("raw", b"reject"), event("raw", b"fail"), event("raw", b"2")], base=10
            )
            self.assertEqual(result.processed, 12)
            self.assertEqual(result.verdicts, [(11, REJECTED, -7, 0, "bad row"), (12, FAILED, 0, 0, "KeyError: 'x'")])
            self.assertEqual([r.value for _, _, r in result.records("audit.events")], [b"1"])
            self.assertEqual(result.counts(), {0: (1, 2)})
            self.assertIn("KeyError: 'x'", n.errors())
            self.assertIn("handlers.py", n.errors())
            self.assertNotIn("grape.py", n.errors())

    def test_retry_stops_the_delivery_there_and_tells_the_delay(self):
        with node(self.program) as n:
            n.start()
            result = n.run([event("raw", b"1"), event("raw", b"retry"), event("raw", b"2")])
            self.assertEqual((result.processed, result.verdicts), (1, [(1, RETRY, 0, 1500, "later")]))
            result = n.run([event("raw", b"retry now"), event("raw", b"2")])
            self.assertEqual((result.processed, result.verdicts), (0, [(0, RETRY, 0, 0, "")]))
            self.assertEqual(result.batches, [])

    def test_exit_in_a_handler_is_a_failure_of_the_event_not_of_the_worker(self):
        with node(self.program) as n:
            n.start()
            self.assertEqual(n.run([event("raw", b"exit")]).verdicts, [(0, FAILED, 0, 0, "SystemExit: 3")])
            self.assertEqual(n.run([event("raw", b"1")]).verdicts, [])

    def test_expired_events_are_not_run(self):
        with node(self.program) as n:
            n.start()
            records = [
                event("raw", b"1", deadline=1),
                wanted("raw", b"2", deadline=1),
                event("raw", b"3", deadline=FUTURE),
            ]
            result = n.run(records)
            self.assertEqual(result.processed, 3)
            self.assertEqual([v[:4] for v in result.verdicts], [(0, EXPIRED, 0, 0), (1, EXPIRED, 0, 0)])
            ((status, ran, flags, _, _, value),) = result.replies()[correlation(1)]
            self.assertEqual((status, ran, flags, value), (5, 0, 1, None))
            self.assertEqual(result.counts(), {0: (1, 0)})

    def test_an_event_without_handler_is_rejected(self):
        with node("@app.on('raw')\ndef h(event, ctx): pass") as n:
            n.start()
            result = n.run([event("what"), event("raw"), wanted("what")])
            self.assertEqual([v[:2] for v in result.verdicts], [(0, REJECTED), (2, REJECTED)])
            self.assertIn("'what'", result.verdicts[0][4])
            self.assertEqual(result.replies()[correlation(1)][0][:3], (3, 0, 1))
            self.assertEqual(result.processed, 3)

    def test_emitting_an_unlisted_name_fails_and_names_those_that_are(self):
        with node("@app.on('raw')\ndef h(event, ctx): ctx.emit('cuonted', b'x')") as n:
            n.start()
            ((_, verdict, _, _, message),) = n.run([event("raw")]).verdicts
            self.assertEqual(verdict, FAILED)
            self.assertIn("'cuonted'", message)
            self.assertIn("both, counted, nobody, parsed", message)

    def test_wrong_arguments_of_emit_fail_clearly(self):
        program = """
@app.on('raw')
def h(event, ctx):
    eval(event.text)
"""
        cases = {
            "ctx.emit('counted', b'x', key=7)": "TypeError: a key is bytes, str or None, not int",
            "ctx.emit('counted', b'x', headers={'g.x': 'y'})": "ValueError: emit: header 'g.x'",
            "ctx.emit('counted', b'x', headers={'a': 5})": "TypeError: emit: header 'a'",
            "ctx.emit('counted', object())": "TypeError:",
            "ctx.emit('counted', float('nan'))": "ValueError:",
            "ctx.emit('counted', bytes(1001), key='k')": "TooLarge: emit 'counted'",
            "ctx.emit('counted', bytes(900), key='k'*90)": "TooLarge: emit 'counted'",
            "ctx.emit('both', bytes(900), key='k'*90)": "TooLarge: emit 'both'",
            "ctx.emit('counted', b'', headers={'a': bytes(1000)})": "TooLarge: emit 'counted'",
        }
        with node(program, maxEvent=1000) as n:
            n.start()
            for text, expected in cases.items():
                for _ in range(2):
                    ((_, verdict, _, _, message),) = n.run([event("raw", text.encode())]).verdicts
                    self.assertEqual((verdict, message[: len(expected)]), (FAILED, expected))
            self.assertEqual(n.run([event("raw", b"ctx.emit('both', bytes(900), key='k')")]).verdicts, [])

    def test_the_hop_limit_is_a_rejection_with_status_17(self):
        with node("@app.on('raw')\ndef h(event, ctx): ctx.emit('counted', event.value)", maxHops=5) as n:
            n.start()
            result = n.run([event("raw", hops=4), event("raw", hops=5), wanted("raw", hops=5), event("raw")])
            self.assertEqual([v[:3] for v in result.verdicts], [(1, REJECTED, 17), (2, REJECTED, 17)])
            self.assertEqual([r.header(b"g.h") for _, _, r in result.records("stats.events")], [b"\5", b"\1"])
            ((status, ran, flags, code, message, _),) = result.replies()[correlation(1)]
            self.assertEqual((status, ran, flags, code), (17, 1, 1, 17))
            self.assertIn("loop", message)

    def test_messages_are_cut_at_whole_characters(self):
        with node("@app.on('raw')\ndef h(event, ctx): raise Reject(1, 'ü' * 100_000)") as n:
            n.start()
            ((_, _, _, _, message),) = n.run([event("raw")]).verdicts
            self.assertEqual(message, "ü" * 4000)


class Replies(unittest.TestCase):
    def replies(self, program, records, **arguments):
        with node(program, ["raw"]) as n:
            n.start()
            return n.run(records, **arguments)

    def test_returned_data_answers_the_caller(self):
        for expression, data in (
            ("b'x'", b"x"),
            ("'ü'", "ü".encode()),
            ("{'a': 1}", b'{"a":1}'),
            ("b''", b""),
            ("0", b"0"),
        ):
            result = self.replies(
                f"@app.on('raw')\ndef h(event, ctx): return {expression}", [event("raw"), wanted("raw")]
            )
            self.assertEqual(result.replies(), {correlation(1): [(0, 1, 1, 0, "", data)]})
            ((topic, partition, _),) = result.batches
            self.assertEqual((topic, partition), (REPLIES, 3))

    def test_a_handler_that_ends_well_without_reply_gets_an_empty_one(self):
        result = self.replies("@app.on('raw')\ndef h(event, ctx): pass", [wanted("raw", number=i) for i in range(3)])
        self.assertEqual(result.replies(), {correlation(i): [(0, 1, 1, 0, "", None)] for i in range(3)})

    def test_the_origin_travels_with_what_is_emitted(self):
        program = "@app.on('raw')\ndef h(event, ctx): ctx.emit('both', event.value, key='k', headers={'a': 'b'})"
        trace = (b"traceparent", b"00-aa-bb-01")
        result = self.replies(program, [wanted("raw", b"x", deadline=FUTURE, hops=2, headers=[(b"mine", b"1"), trace])])
        self.assertEqual(result.replies(), {})
        for (_, _, record), name in zip(result.records(), (b"flight", b"seen")):
            self.assertEqual(
                record.headers,
                [(b"g.e", name), (b"g.h", b"\3"), (b"g.d", struct.pack(">q", FUTURE)),
                 (b"g.r", fake_node.address(correlation(1), 3, REPLIES)), trace, (b"a", b"b")],
            )  # fmt: skip

    def test_a_detached_event_takes_neither_origin_nor_deadline_along_but_the_trace(self):
        program = "@app.on('raw')\ndef h(event, ctx): ctx.emit('counted', event.value, detached=True)"
        trace = (b"traceparent", b"00-aa-bb-01")
        result = self.replies(program, [wanted("raw", b"x", deadline=FUTURE, headers=[trace])])
        self.assertEqual(result.replies(), {correlation(1): [(0, 1, 1, 0, "", None)]})
        ((_, _, record),) = result.records("stats.events")
        self.assertEqual(record.headers, [(b"g.e", b"flight"), (b"g.h", b"\1"), trace])

    def test_emitting_to_a_signal_without_slots_does_not_count_as_passing_the_origin_on(self):
        result = self.replies("@app.on('raw')\ndef h(event, ctx): ctx.emit('nobody', b'x')", [wanted("raw")])
        self.assertEqual(result.replies(), {correlation(1): [(0, 1, 1, 0, "", None)]})

    def test_a_deadline_travels_without_a_caller_too(self):
        result = self.replies(
            "@app.on('raw')\ndef h(event, ctx): ctx.emit('counted', b'x')", [event("raw", deadline=FUTURE)]
        )
        self.assertEqual(result.records()[0][2].header(b"g.d"), struct.pack(">q", FUTURE))

    def test_progressive_replies(self):
        program = """
@app.on('raw')
def h(event, ctx):
    assert ctx.reply('one', final=False) is event.wanted
    ctx.reply('two', final=False)
    if event.value == b'return': return 'three'
    if event.value == b'reply': ctx.reply('three')
    if event.value == b'pass': ctx.emit('counted', b'')
"""
        values = [b"return", b"reply", b"nothing", b"pass"]
        result = self.replies(program, [event("raw")] + [wanted("raw", v, number=i) for i, v in enumerate(values)])
        self.assertEqual(result.verdicts, [])
        start = [(0, 1, 0, 0, "", b"one"), (0, 1, 0, 0, "", b"two")]
        self.assertEqual(
            result.replies(),
            {
                correlation(0): start + [(0, 1, 1, 0, "", b"three")],
                correlation(1): start + [(0, 1, 1, 0, "", b"three")],
                correlation(2): start + [(0, 1, 1, 0, "", None)],
                correlation(3): start,
            },
        )

    def test_failures_answer_the_caller_and_the_delivery_goes_on(self):
        program = """
@app.on('raw')
def h(event, ctx):
    ctx.emit('counted', b'dropped')
    if event.value == b'reject': raise Reject(42, 'no')
    if event.value == b'fail': raise ValueError('boo')
    if event.value == b'retry': raise Retry(3, 'soon')
    if event.value == b'replied': ctx.reply('part', final=False); ctx.reply('all'); raise ValueError('late')
"""
        values = [b"reject", b"fail", b"retry", b"replied"]
        result = self.replies(
            program, [wanted("raw", v, number=i) for i, v in enumerate(values)] + [event("raw", b"ok")]
        )
        self.assertEqual(result.processed, 5)
        self.assertEqual(
            result.verdicts,
            [(0, REJECTED, 42, 0, "no"), (1, FAILED, 0, 0, "ValueError: boo"), (2, FAILED, 0, 0, "soon"),
             (3, FAILED, 0, 0, "ValueError: late")],
        )  # fmt: skip
        self.assertEqual(
            result.replies(),
            {
                correlation(0): [(1, 1, 1, 42, "no", None)],
                correlation(1): [(1, 1, 1, 0, "ValueError: boo", None)],
                correlation(2): [(1, 1, 1, 0, "soon", None)],
                correlation(3): [(0, 1, 0, 0, "", b"part"), (1, 1, 1, 0, "ValueError: late", None)],
            },
        )
        self.assertEqual([r.value for _, _, r in result.records("stats.events")], [b"dropped"])

    def test_a_second_final_reply_is_an_error(self):
        result = self.replies("@app.on('raw')\ndef h(event, ctx):\n  ctx.reply(1)\n  return 2", [wanted("raw")])
        ((status, _, _, _, message, _),) = result.replies()[correlation(1)]
        self.assertEqual(status, 1)
        self.assertIn("already", message)


class Asynchronous(unittest.TestCase):
    def test_partitions_overlap(self):
        # The handlers for partition 0 end only when one of partition 1 has run.
        program = """
gate = None
@app.on_start
async def s():
    global gate
    gate = asyncio.Event()
@app.on('raw')
async def h(event, ctx):
    if event.partition == 0: await gate.wait()
    else: gate.set()
    ctx.emit('counted', event.value)
    return event.value
"""
        with node(program) as n:
            n.start()
            waiting = n.deliver([event("raw", b"0"), wanted("raw", b"1")], partition=0)
            first = n.result(n.deliver([event("raw", b"2")], partition=1))
            self.assertEqual([r.value for _, _, r in first.records()], [b"2"])
            second = n.result(waiting)
            self.assertEqual([r.value for _, _, r in second.records("stats.events")], [b"0", b"1"])
            self.assertEqual(second.replies()[correlation(1)][0][5], b"1")

    def test_within_a_partition_events_and_deliveries_are_in_order(self):
        program = """
import random
running = {}
order = {}
@app.on('raw')
async def h(event, ctx):
    assert not running.get(event.partition), 'two events of one partition at a time'
    running[event.partition] = True
    for _ in range(random.randrange(4)): await asyncio.sleep(0)
    order.setdefault(event.partition, []).append(event.offset)
    running[event.partition] = False
@app.on('sync')
def s(event, ctx):
    assert not running.get(event.partition)
    order.setdefault(event.partition, []).append(event.offset)
@app.on('tell')
async def t(event, ctx): return order
"""
        with node(program, ["raw", "sync", "tell"]) as n:
            n.start()
            ids = []
            for base in range(0, 40, 10):
                for partition in range(3):
                    records = [event(("raw", "sync")[(base + i) % 3 == 0]) for i in range(10)]
                    ids.append(n.deliver(records, base=base, partition=partition))
            got = {}
            for _ in ids:
                identifier, body, _ = n.next(fake_node.RESULT)
                got[identifier] = fake_node.Result(body)
            for partition in range(3):
                mine = [identifier for identifier in got if (identifier - 1) % 3 == partition]
                self.assertEqual(mine, sorted(mine))
            self.assertTrue(all(result.verdicts == [] for result in got.values()))
            ((*_, value),) = n.run([wanted("tell")]).replies()[correlation(1)]
            self.assertEqual(
                value,
                b"{" + b",".join(b'"%d":[%s]' % (p, b",".join(b"%d" % i for i in range(40))) for p in range(3)) + b"}",
            )

    def test_failures_of_asynchronous_handlers(self):
        program = """
@app.on('raw')
async def h(event, ctx):
    ctx.emit('counted', event.value)
    await asyncio.sleep(0)
    if event.value == b'cancel': raise asyncio.CancelledError()
    if event.value == b'fail': raise ValueError('boo')
    if event.value == b'reject': raise Reject(1, 'no')
    if event.value == b'left': asyncio.get_running_loop().call_soon(ctx.emit, 'counted', b'late')
"""
        with node(program) as n:
            n.start()
            records = [event("raw", v) for v in (b"1", b"reject", b"left", b"2", b"3", b"fail", b"4")]
            result = n.run(records)
            self.assertEqual(result.processed, 5)
            self.assertEqual([v[:2] for v in result.verdicts], [(1, REJECTED), (5, FAILED)])
            self.assertEqual([r.value for _, _, r in result.records()], [b"1", b"left", b"2", b"3"])
            self.assertEqual(n.run([event("raw", b"cancel")]).verdicts[0][:2], (0, FAILED))
            self.assertEqual(n.run([event("raw", b"5")]).verdicts, [])
            # asyncio logs what a callback raises, and that goes to the application's log.
            line = fake_node.json.loads(n.next(fake_node.LOG)[1])
            self.assertIn("the handler that this context belongs to has ended", line["fields"]["traceback"])

    def test_a_plain_function_may_give_back_something_to_await(self):
        program = "async def work(): return 'done'\n@app.on('raw')\ndef h(event, ctx): return work()"
        with node(program) as n:
            n.start()
            self.assertEqual(n.run([wanted("raw")]).replies()[correlation(1)][0][5], b"done")

    def test_a_drain_waits_for_handlers_that_are_under_way(self):
        program = """
release = None
@app.on_start
async def s():
    global release
    release = asyncio.Event()
@app.on('raw')
async def h(event, ctx):
    ctx.log.info('started')
    await release.wait()
@app.on('go')
async def g(event, ctx): release.set()
@app.on_stop
async def stop(): print('stopped', flush=True)
"""
        with node(program, ["raw", "go"]) as n:
            n.start()
            first = n.deliver([event("raw")] * 3, partition=0)
            n.next(fake_node.LOG)
            second = n.deliver([event("go")], partition=1)
            n.send(fake_node.DRAIN, 0, b"")
            self.assertEqual({n.next(fake_node.RESULT)[0], n.next(fake_node.RESULT)[0]}, {first, second})
            self.assertEqual(n.next(fake_node.GOODBYE)[1], b'{"reason":"drained"}')
            self.assertEqual(n.wait(), 0)
            self.assertEqual(n.output(), "stopped\n")


class Life(unittest.TestCase):
    busy = """
@app.on('raw')
def h(event, ctx):
    print('in the handler')
    while event.value == b'wait': pass
@app.on('sleep')
def s(event, ctx):
    ctx.log.info('asleep')
    time.sleep(float(event.value))
"""

    def test_heartbeats_go_on_while_a_handler_is_busy_and_tell_the_progress(self):
        with node(self.busy, heartbeatMs=20) as n:
            n.start()
            identifier, body, _ = n.next(fake_node.HEARTBEAT)
            self.assertEqual((identifier, struct.unpack(">QII", body)), (0, (0, 0, 0)))
            identifier = n.deliver([event("raw"), event("raw"), event("raw", b"wait")], base=70)
            seen = set()
            for _ in range(500):
                seen.add(struct.unpack(">QII", n.next(fake_node.HEARTBEAT)[1]))
                if (identifier, 2, 0) in seen:
                    break
            self.assertIn((identifier, 2, 0), seen)
            self.assertTrue(all(beat[0] in (0, identifier) for beat in seen))

    def test_progress_leaves_skipped_events_out(self):
        with node(self.busy, heartbeatMs=20) as n:
            n.start()
            records = [event("raw")] * 9 + [event("raw", b"wait")]
            identifier = n.deliver(records, base=70, first=71, skips=(73, 75, 76))
            until(lambda: struct.unpack(">QII", n.next(fake_node.HEARTBEAT)[1]) == (identifier, 5, 0), "5 done")

    def test_of_overlapping_deliveries_the_one_that_stands_still_is_reported(self):
        program = """
@app.on('raw')
async def h(event, ctx): await asyncio.sleep(0.001)
@app.on('stuck')
async def s(event, ctx): await asyncio.Event().wait()
"""
        with node(program, ["raw", "stuck"], heartbeatMs=20) as n:
            n.start()
            stuck = n.deliver([event("raw"), event("stuck")], partition=0)
            for partition in (1, 2):
                n.deliver([event("raw")] * 50_000, partition=partition)
            recent = []

            def steady():
                recent.append(struct.unpack(">QII", n.next(fake_node.HEARTBEAT)[1]))
                return recent[-20:] == [(stuck, 1, 0)] * 20

            until(steady, "twenty heartbeats about the stuck delivery")

    def test_a_node_that_closes_the_connection_ends_a_busy_worker(self):
        with node(self.busy) as n:
            n.start()
            n.deliver([event("raw", b"wait")])
            until(lambda: "in the handler" in n.output(), "the handler runs")
            n.peer.shutdown(2)
            self.assertEqual(n.wait(), 70)
            self.assertIn("the connection to the node ended", n.errors())

    def test_a_node_that_closes_the_connection_ends_an_idle_worker(self):
        for asynchronous in ("", "async "):
            with node(f"@app.on('raw')\n{asynchronous}def h(event, ctx): pass") as n:
                n.start()
                n.run([event("raw")])
                n.peer.shutdown(2)
                self.assertEqual(n.wait(), 70)

    def test_a_silent_node_ends_the_worker_busy_or_idle(self):
        for busy in (False, True):
            with node(self.busy, heartbeatMs=60, answer_heartbeats=False) as n:
                n.start()
                if busy:
                    n.deliver([event("raw", b"wait")])
                self.assertEqual(n.wait(), 70)
                self.assertIn("silent", n.errors())
                # How many there are in that time depends on the machine.
                self.assertIn(fake_node.HEARTBEAT, n.order)

    def test_a_node_that_answers_is_not_silent(self):
        with node(self.busy, ["raw", "sleep"], heartbeatMs=50) as n:
            n.start()
            self.assertEqual(n.run([event("sleep", b"1.0")]).processed, 1)
            self.assertIsNone(n.process.poll())

    def test_drain_answers_everything_that_came_before_it(self):
        with node("@app.on('raw')\ndef h(event, ctx): pass\n@app.on_stop\ndef s(ctx): ctx.log.info('stop hook')") as n:
            n.start()
            ids = [n.deliver([event("raw")] * 100, base=i * 100) for i in range(4)]
            n.send(fake_node.DRAIN, 0, b"")
            for identifier in ids:
                n.result(identifier)
            self.assertIn(b"stop hook", n.next(fake_node.LOG)[1])
            self.assertEqual(n.next(fake_node.GOODBYE)[1], b'{"reason":"drained"}')
            self.assertEqual(n.wait(), 0)

    def test_sigterm_finishes_what_has_arrived_and_exits_with_0(self):
        for asynchronous in ("", "@app.on('other')\nasync def o(event, ctx): pass\n"):
            with node(self.busy + asynchronous, ["raw", "sleep"]) as n:
                n.start()
                identifier = n.deliver([event("sleep", b"0.3"), event("raw"), event("raw")])
                n.next(fake_node.LOG)
                n.process.send_signal(signal.SIGTERM)
                self.assertEqual(n.result(identifier).processed, 3)
                n.next(fake_node.GOODBYE)
                self.assertEqual(n.wait(), 0)

    def test_sigterm_ends_an_idle_worker(self):
        for asynchronous in ("", "async "):
            with node(f"@app.on('raw')\n{asynchronous}def h(event, ctx): pass") as n:
                n.start()
                n.run([event("raw")])
                n.process.send_signal(signal.SIGTERM)
                n.next(fake_node.GOODBYE)
                self.assertEqual(n.wait(), 0)

    def test_sigint_is_left_to_the_node(self):
        with node("@app.on('raw')\ndef h(event, ctx): pass") as n:
            n.start()
            n.run([event("raw")])
            n.process.send_signal(signal.SIGINT)
            self.assertEqual(n.run([event("raw")]).processed, 1)

    def test_printing_reaches_standard_output_line_by_line(self):
        with node("@app.on('raw')\ndef h(event, ctx): print(event.text)") as n:
            n.start()
            n.run([event("raw", b"hello")])
            self.assertEqual(n.output(), "hello\n")

    def test_log_frames(self):
        program = """
@app.on('raw')
def h(event, ctx):
    ctx.log.warning('slow', rows=3, what={'a': b'x'})
    logging.getLogger('mine').error('by %s', 'logging')
    try: 1 / 0
    except ZeroDivisionError: ctx.log.exception('oops')
    threading.Thread(target=lambda: ctx.log.debug('from a thread')).start()
    app.log.info('y' * 100_000)
"""
        with node(program) as n:
            n.start()
            n.run([event("raw")])
            lines = [fake_node.json.loads(n.next(fake_node.LOG)[1]) for _ in range(5)]
            self.assertEqual(
                lines[0], {"level": "warning", "message": "slow", "fields": {"rows": 3, "what": {"a": "b'x'"}}}
            )
            self.assertEqual(lines[1], {"level": "error", "message": "by logging", "fields": {"logger": "mine"}})
            self.assertEqual((lines[2]["level"], lines[2]["message"]), ("error", "oops"))
            self.assertIn("ZeroDivisionError", lines[2]["fields"]["traceback"])
            self.assertIn({"level": "debug", "message": "from a thread", "fields": {}}, lines)
            self.assertTrue(any(line["message"].startswith("y" * 10_000) for line in lines))

    def test_deliveries_of_many_megabytes_in_small_pieces(self):
        program = "@app.on('raw')\ndef h(event, ctx): return len(event.value)"
        # An answer to a heartbeat must not come between the pieces of a frame.
        with node(program, answer_heartbeats=False, heartbeatMs=60_000) as n:
            n.start()
            data = fake_node.encode_batch([wanted("raw", bytes(5_000_000))])
            body = struct.pack(">iIqqI", 0, 1, 0, 1, 0) + data
            frame = struct.pack(">IBBHQ", 12 + len(body), fake_node.DELIVER, 0, 0, 5) + body
            n.send_raw(frame[:3])
            n.send_raw(frame[3:17])
            n.send_raw(frame[17:100_000])
            n.send_raw(frame[100_000:] + frame)
            for _ in range(2):
                self.assertEqual(n.result(5).replies()[correlation(1)][0][5], b"5000000")

    def test_outside_of_a_node_it_says_what_to_do_and_exits_with_64(self):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("GRAPE_")}
        program = HEAD + TAIL
        done = fake_node.subprocess.run(
            [fake_node.sys.executable, "-c", program], env=dict(environment, PYTHONPATH=fake_node.SDK),
            capture_output=True, text=True, timeout=fake_node.PATIENCE, check=False,
        )  # fmt: skip
        self.assertEqual(done.returncode, 64)
        self.assertIn("grape deploy", done.stderr)

    def test_a_socket_that_is_not_there_is_told(self):
        environment = dict(os.environ, GRAPE_SOCKET="/nonexistent/w.sock", PYTHONPATH=fake_node.SDK)
        done = fake_node.subprocess.run(
            [fake_node.sys.executable, "-c", HEAD + TAIL], env=environment,
            capture_output=True, text=True, timeout=fake_node.PATIENCE, check=False,
        )  # fmt: skip
        self.assertEqual(done.returncode, 70)
        self.assertIn("/nonexistent/w.sock", done.stderr)


class RandomDeliveries(unittest.TestCase):
    """Random batches, first, end, skips, failures: what comes out must be what a plain model says."""

    program = """
import json
@app.on('raw')
def h(event, ctx):
    return act(event, ctx)
@app.on('parsed')
async def p(event, ctx):
    if event.offset % 3 == 0: await asyncio.sleep(0)
    return act(event, ctx)
def act(event, ctx):
    kind = event.value[:1]
    for _ in range(event.value[1] % 4):
        ctx.emit(('counted', 'both', 'parsed', 'nobody')[event.value[1] // 4 % 4], event.value, key=event.key,
            detached=event.value[1] > 200)
    if kind == b'r': raise Reject(5, 'r')
    if kind == b'f': raise ValueError('f')
    if kind == b't': raise Retry(0.25, 't')
    if kind == b'a': return event.value
"""

    def test_random_deliveries_agree_with_a_model(self):
        seed = int(os.environ.get("GRAPE_TEST_SEED", random.randrange(1 << 32)))
        print(f"\nrandom deliveries: GRAPE_TEST_SEED={seed}")
        rng = random.Random(seed)
        with node(self.program, ["raw", "parsed"]) as n:
            n.start()
            for turn in range(150):
                with self.subTest(seed=seed, turn=turn):
                    self.one(n, rng)

    def one(self, n, rng):
        base = rng.choice([0, 1, 1 << 20, (1 << 40) + 17]) + rng.randrange(100)
        records = []
        batches = b""
        at = base
        for _ in range(rng.randrange(1, 4)):
            some = [self.record(rng) for _ in range(rng.choice([1, 2, 70, 200]))]
            batches += fake_node.encode_batch(some, at)
            for i, record in enumerate(some):
                records.append((at + i, record))
            at += len(some)
        first = rng.choice([base, rng.randrange(base, at)])
        end = rng.choice([at, rng.randrange(first, at) + 1])
        skips = sorted({rng.randrange(first, end) for _ in range(rng.choice([0, 0, 3]))})
        result = n.run([], batches=batches, first=first, end=end, skips=skips, partition=rng.randrange(3))

        expected, replies, verdicts, processed = [], {}, [], end
        for offset, record in records:
            if offset < first or offset >= end or offset in skips:
                continue
            kind, number = record.value[:1], record.value[1]
            address = record.header(b"g.r")
            deadline = record.header(b"g.d")
            if deadline is not None and struct.unpack(">q", deadline)[0] < FUTURE:
                verdicts.append((offset, EXPIRED))
                if address:
                    replies[address[:16]] = [(5, 0, 1, None)]
                continue
            if kind in b"rft":
                verdict = {b"r": REJECTED, b"f": FAILED, b"t": FAILED if address else RETRY}[kind]
                verdicts.append((offset, verdict))
                if address:
                    replies[address[:16]] = [(1, 1, 1, None)]
                elif verdict != REJECTED:
                    processed = offset
                    break
                continue
            name = ("counted", "both", "parsed", "nobody")[number // 4 % 4]
            hops = (record.header(b"g.h") or b"\0")[0] + 1
            headers = [(b"g.h", bytes([hops]))]
            if number <= 200:
                headers += [(k, v) for k, v in record.headers if k in (b"g.d", b"g.r")]
            headers += [(k, v) for k, v in record.headers if k == b"traceparent"]
            passed = False
            for _ in range(number % 4):
                for route in fake_node.ROUTES[name]:
                    own = [(b"g.e", route["event"].encode())] + headers
                    expected.append((route["topic"], record.key, record.value, own))
                    passed = passed or number <= 200
            if address and kind == b"a":
                replies[address[:16]] = [(0, 1, 1, record.value)]
            elif address and not passed:
                replies[address[:16]] = [(0, 1, 1, None)]

        self.assertEqual(result.processed, processed)
        self.assertEqual([v[:2] for v in result.verdicts], verdicts)
        found = [(t, p, r) for t, p, r in result.records() if not t.startswith("_grape")]
        self.assertEqual(len(found), len(expected))
        places = {}
        for topic, partition, record in found:
            if record.key is not None:
                count = {"stats.events": 4, "flights.events": 4, "audit.events": 1}[topic]
                self.assertEqual(partition, fake_node.murmur2_partition(record.key, count))
            places.setdefault((topic, record.key), []).append((record.value, record.headers))
        model = {}
        for topic, key, value, headers in expected:
            model.setdefault((topic, key), []).append((value, headers))
        self.assertEqual(places, model)
        self.assertEqual({k: [(s, r, f, v) for s, r, f, _, _, v in g] for k, g in result.replies().items()}, replies)

    def record(self, rng):
        value = rng.choice([b"n"] * 40 + [b"a"] * 20 + [b"r", b"f", b"t"]) + bytes([rng.randrange(256)])
        value += rng.randbytes(rng.choice([0, 1, 61, 62, 100, 9000])) if hasattr(rng, "randbytes") else b"x" * 80
        key = rng.choice([None, b"", b"k%d" % rng.randrange(5), b"long" * rng.randrange(100)])
        return event(
            rng.choice(["raw", "raw", "parsed"]), value, key,
            hops=rng.choice([None, None, 1, 7]),
            deadline=rng.choice([None] * 6 + [FUTURE, 1]),
            reply=rng.choice([None, None, None, (rng.getrandbits(128).to_bytes(16, "big"), 2, REPLIES)]),
            headers=rng.choice([[], [], [(b"a", b"b")], [(b"traceparent", b"00-1-2-3"), (b"z", None)]]),
            age=rng.choice([0, 0, 5, -3, 64, 100_000, 1 << 40]),
        )  # fmt: skip


if __name__ == "__main__":
    unittest.main()
