"""Promises of worker processes that use state, through a node made for tests."""

import os
import tempfile
import unittest

import fake_node
from fake_node import FAILED
from lmdb_writer import Writer, entry
from state_rig import TOPIC, question, stated, writes

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
            cases = ((9, "bad-request", b"StateError "), (8, "unavailable", b"StateUnavailable "))
            for status, name, expected in cases:
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

    def test_questions_that_nobody_waits_for_any_more_still_count_as_open(self):
        program = """
@app.on("raw")
def raw(event, ctx):
    grape._ANSWER_SECONDS = float(event.value)
    return len(ctx.state.get_many([str(number) for number in range(20)]))
"""
        with node(program) as n:
            n.start()
            for _ in range(2):
                self.assertIn("did not answer", n.result(n.deliver([wanted(b"0.05")])).verdicts[0][4])
            for _ in range(16):
                n.send(fake_node.STATED, n.next(fake_node.STATE)[0], stated(0, []))
            self.assertTrue(n.frames[fake_node.STATE].empty(), "a seventeenth was not asked")
            n.answer_state = lambda body: stated(0, [])
            self.assertEqual(replies(n.run([wanted(b"20")])), [b"0"])

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
                self.assertEqual(replies(result), [expected])
                self.assertEqual(writes(result, partition), [(b"\0p", entry(expected))])

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
            broken = [b"", good[:-1], good[:20], good[:16] + b"\xff" * 8]
            broken += [stated(0, [(b"\0k", data)]) for data in (b"", b"\x07", b"\2\1\5tag")]
            for body in broken:
                n.answer_state = lambda _, body=body: body
                result = n.result(n.deliver([wanted()]))
                self.assertIn("StateUnavailable", result.verdicts[0][4])
            n.answer_state = lambda _: good
            self.assertEqual(replies(n.run([wanted()])), [b"2"])


if __name__ == "__main__":
    unittest.main()
