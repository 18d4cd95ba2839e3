"""Requests with an idempotency key: run once, answered alike, also after a kill of the node."""

import contextlib
import threading
import unittest

from node import BAD_INPUT, CONFLICT, ON_KAFKA, EndToEnd

#: `pay` counts how often it ran, by the data; `slow` waits until a file is there; `chain` is answered by its last stage.
PAY = """
    import os, time

    def count(context, key):
        runs = int(context.state.get(key) or b"0") + 1
        context.state.put(key, str(runs).encode())
        return runs

    @app.on("pay")
    def pay(event, context):
        return f"{event.text} run {count(context, event.value)} at {os.getpid()}"

    @app.on("refuse")
    def refuse(event, context):
        count(context, event.value)
        raise Reject(42, f"no {event.text} at {os.getpid()}")

    @app.on("slow")
    def slow(event, context):
        while not os.path.exists(event.text):
            time.sleep(0.01)
        return f"done run {count(context, event.value)}"

    @app.on("parts")
    def parts(event, context):
        runs = count(context, event.value)
        for part in range(3):
            context.reply(f"part {part}".encode(), final=False)
        return f"end of run {runs}"

    @app.on("chain")
    def chain(event, context):
        context.emit("other@last", event.value, key=event.key)

    @app.on("quiet")
    def quiet(event, context):
        count(context, event.value)
"""
PAY_SLOTS = {"pay": [], "refuse": [], "slow": [], "parts": [], "chain": ["other@last"], "quiet": []}

OTHER = """
    @app.on("last")
    def last(event, context):
        runs = int(context.state.get("runs") or b"0") + 1
        context.state.put("runs", str(runs).encode())
        return f"answered by other, run {runs}"
"""


def key(name: str) -> tuple:
    return (("idempotency-key", name.encode()),)


class Idempotency(EndToEnd):
    def setUp(self):
        super().setUp()
        self.node = self.running_node()
        self.node.deploy(self.python_app("other", OTHER, ["last"]))
        self.deploy()

    def deploy(self, **profile):
        self.node.deploy(self.python_app("bank", PAY, PAY_SLOTS, profile=profile))

    def runs(self, data: bytes) -> int:
        # Linearizable: on Kafka a reply may reach its client before the node has put its own state right.
        found = self.node.state("bank", consistency="linearizable")
        return sum(int(entry.value) for entry in found if entry.key.endswith(data))

    def restart(self):
        self.node.kill()
        self.node.start()

    # Blocking

    def test_a_repeat_gets_the_first_reply_and_is_not_run(self):
        with self.node.client() as client:
            first = client.exec("bank@pay", b"bill 1", b"k", block=True, headers=key("one"))
            self.assertEqual((first.status, first.value.startswith(b"bill 1 run 1")), (0, True))
            for _ in range(3):
                self.assertEqual(client.exec("bank@pay", b"bill 1", b"k", block=True, headers=key("one")), first)
            other = client.exec("bank@pay", b"bill 1", b"k", block=True, headers=key("two"))
            self.assertIn(b"run 2", other.value)
        self.assertEqual(self.runs(b"bill 1"), 2)
        self.assertEqual(len(self.node.records("bank.events", "pay")), 2)

    def test_a_repeat_after_a_kill_of_the_node_gets_the_first_reply(self):
        with self.node.client() as client:
            first = client.exec("bank@pay", b"bill 2", b"k", block=True, headers=key("one"))
            refused = client.exec("bank@refuse", b"bill 3", b"k", block=True, headers=key("one"))
            chained = client.exec("bank@chain", b"", b"k", block=True, headers=key("one"))
        self.assertEqual(chained.value, b"answered by other, run 1")
        self.assertEqual((refused.status, refused.code), (1, 42))
        for _ in range(2):
            self.restart()
            with self.node.client() as client:
                self.assertEqual(client.exec("bank@pay", b"bill 2", b"k", block=True, headers=key("one")), first)
                self.assertEqual(client.exec("bank@refuse", b"bill 3", b"k", block=True, headers=key("one")), refused)
                self.assertEqual(client.exec("bank@chain", b"", b"k", block=True, headers=key("one")), chained)
        self.assertEqual(self.runs(b"bill 2"), 1)

    def test_a_repeat_waits_for_a_first_that_is_being_run(self):
        gate = self.folder / "gate"
        data = str(gate).encode()
        with self.node.client() as one, self.node.client() as two:
            first = one.send_exec("bank@slow", data, b"k", block=True, headers=key("one"))
            self.eventually(lambda: self.node.ends("bank.events") != [0, 0, 0, 0], "the event is in the log")
            second = two.send_exec("bank@slow", data, b"k", block=True, headers=key("one"))
            third = one.send_exec("bank@slow", data, b"k", block=True, headers=key("one"))
            gate.touch()
            answers = [one.answer(first), two.answer(second), one.answer(third)]
        self.assertEqual([answer.value for answer in answers], [b"done run 1"] * 3)

    def test_repeats_sent_at_once_run_once(self):
        with self.node.client() as client:
            ids = [client.send_exec("bank@pay", b"bill 4", b"k", block=True, headers=key("one")) for _ in range(200)]
            self.assertEqual(len({client.answer(id).value for id in ids}), 1)
        self.assertEqual(self.runs(b"bill 4"), 1)

    def test_a_reply_that_came_after_the_kill_of_the_node_reaches_a_repeat(self):
        gate = self.folder / "gate"
        data = str(gate).encode()
        with self.node.client() as client:
            client.send_exec("bank@slow", data, b"k", block=True, headers=key("one"))
            self.eventually(lambda: self.node.ends("bank.events") != [0, 0, 0, 0], "the event is in the log")
        self.restart()
        with self.node.client() as client:
            repeat = client.send_exec("bank@slow", data, b"k", block=True, headers=key("one"))
            gate.touch()
            self.assertEqual(client.answer(repeat).value, b"done run 1")
            self.assertEqual(client.exec("bank@slow", data, b"k", block=True, headers=key("one")).value, b"done run 1")

    def test_a_caller_that_gave_up_finds_the_reply_later(self):
        gate = self.folder / "gate"
        data = str(gate).encode()
        with self.node.client() as client:
            # A worker is there: the event is at it before the time is up.
            client.exec("bank@pay", b"first", b"k", block=True)
            late = client.send_exec("bank@slow", data, b"k", block=True, timeout_ms=1500, headers=key("one"))
            answer = client.answer(late)
            self.assertEqual((answer.status, answer.ran), (5, 2))
            gate.touch()
            self.assertEqual(client.exec("bank@slow", data, b"k", block=True, headers=key("one")).value, b"done run 1")

    def test_all_parts_of_a_reply_are_repeated(self):
        expected = [b"part 0", b"part 1", b"part 2", b"end of run 1"]

        def call(client):
            id = client.send_exec("bank@parts", b"bill 5", b"k", block=True, headers=key("one"))
            parts = []
            while True:
                answer = client.answer(id)
                parts.append(answer.value)
                if answer.final:
                    return parts

        with self.node.client() as client:
            self.assertEqual([call(client), call(client)], [expected, expected])
        self.restart()
        with self.node.client() as client:
            self.assertEqual(call(client), expected)

    def test_an_event_that_never_ran_is_run_when_it_comes_again(self):
        gate = self.folder / "gate"
        with self.node.client() as client:
            holder = client.send_exec("bank@slow", str(gate).encode(), b"k", block=True)
            expired = client.exec("bank@pay", b"bill 6", b"k", block=True, timeout_ms=200, headers=key("one"))
            self.assertEqual((expired.status, expired.ran), (5, 0))
            gate.touch()
            client.answer(holder)
            self.node.wait_idle()
            again = client.exec("bank@pay", b"bill 6", b"k", block=True, headers=key("one"))
            self.assertIn(b"run 1", again.value)
        self.restart()
        with self.node.client() as client:
            self.assertEqual(client.exec("bank@pay", b"bill 6", b"k", block=True, headers=key("one")), again)

    # Non-blocking

    def test_a_non_blocking_repeat_is_acknowledged_with_the_place_of_the_first(self):
        with self.node.client() as client:
            # Appended together: the node does not know their offsets beforehand.
            burst = [("bank@quiet", b"noise", b"k", ()), ("bank@quiet", b"bill 7", b"k", key("zero"))]
            burst += [("bank@pay", b"noise", b"k", key("one")), ("bank@quiet", b"bill 7", b"k", key("one"))]
            ids = [client.send_exec(*event[:3], headers=event[3]) for event in burst]
            first = [client.answer(id) for id in ids][-1]
            self.assertEqual(client.exec("bank@quiet", b"bill 7", b"k", headers=key("one")), first)
            ids = [client.send_exec("bank@quiet", b"bill 8", headers=key("two")) for _ in range(100)]
            self.assertEqual(len({(ack.partition, ack.offset) for ack in map(client.answer, ids)}), 1)
        self.restart()
        with self.node.client() as client:
            self.assertEqual(client.exec("bank@quiet", b"bill 7", b"k", headers=key("one")), first)
        self.node.wait_idle()
        self.assertEqual((self.runs(b"bill 7"), self.runs(b"bill 8")), (2, 1))

    def test_a_repeat_may_ask_for_more_durability_than_the_first(self):
        with self.node.client() as client:
            first = client.exec("bank@quiet", b"bill 9", b"k", durability=1, headers=key("one"))
            self.assertEqual(first.durability, 3 if ON_KAFKA else 1)
            again = client.exec("bank@quiet", b"bill 9", b"k", durability=3, headers=key("one"))
            self.assertEqual((again.durability, again.partition, again.offset), (3, first.partition, first.offset))

    def test_a_blocking_first_may_be_repeated_without_waiting(self):
        with self.node.client() as client:
            client.exec("bank@pay", b"bill 10", b"k", block=True, headers=key("one"))
            ack = client.exec("bank@pay", b"bill 10", b"k", headers=key("one"))
            self.assertEqual((ack.topic, ack.offset), ("bank.events", 0))
            self.assertEqual(self.runs(b"bill 10"), 1)

    # What is no repeat

    def test_other_data_under_the_same_key_is_refused(self):
        with self.node.client() as client:
            client.exec("bank@pay", b"bill 11", b"k", block=True, headers=key("one"))
            for data, partition_key in ((b"bill 12", b"k"), (b"bill 11", b"l"), (b"bill 11", None)):
                answer = client.exec("bank@pay", data, partition_key, block=True, headers=key("one"))
                self.assertEqual((answer.status, answer.ran), (12, 0))
                self.assertIn("idempotency key", answer.message)
        self.assertEqual(self.runs(b"bill 12"), 0)

    def test_a_key_is_one_events(self):
        with self.node.client() as client:
            client.exec("bank@pay", b"bill 13", b"k", block=True, headers=key("one"))
            client.exec("bank@quiet", b"bill 13", b"k", headers=key("one"))
        self.node.wait_idle()
        self.assertEqual(self.runs(b"bill 13"), 2)

    def test_a_blocking_repeat_of_a_non_blocking_first_is_refused(self):
        with self.node.client() as client:
            client.exec("bank@pay", b"bill 14", b"k", headers=key("one"))
            answer = client.exec("bank@pay", b"bill 14", b"k", block=True, headers=key("one"))
            self.assertEqual((answer.status, answer.ran), (12, 0))

    def test_keys_that_are_none_are_refused(self):
        with self.node.client() as client:
            for headers in (key(""), key("x" * 256), key("a") + key("a")):
                answer = client.exec("bank@pay", b"bill 15", b"k", block=True, headers=headers)
                self.assertEqual((answer.status, answer.ran), (9, 0))

    # The window

    def test_the_newest_keys_are_remembered(self):
        self.deploy(idempotency={"keys": 5})
        with self.node.client() as client:
            for number in range(8):
                client.exec("bank@quiet", b"bill %d." % number, b"k", headers=key(f"key {number}"))
        for _ in range(2):
            with self.node.client() as client:
                for number in range(3, 8):
                    client.exec("bank@quiet", b"bill %d." % number, b"k", headers=key(f"key {number}"))
            self.node.wait_idle()
            self.assertEqual([self.runs(b"bill %d." % number) for number in range(8)], [1] * 8)
            self.restart()
        with self.node.client() as client:
            client.exec("bank@quiet", b"bill 0.", b"k", headers=key("key 0"))
        self.node.wait_idle()
        self.assertEqual(self.runs(b"bill 0."), 2)

    def test_the_window_ends(self):
        self.deploy(idempotency={"window": "1s"})
        with self.node.client() as client:
            first = client.exec("bank@quiet", b"bill 16", b"k", headers=key("one"))
            self.eventually(
                lambda: client.exec("bank@quiet", b"bill 16", b"k", headers=key("one")).offset != first.offset,
                "the key is forgotten",
            )

    def test_an_application_that_comes_again_remembers(self):
        with self.node.client() as client:
            first = client.exec("bank@pay", b"bill 17", b"k", block=True, headers=key("one"))
        self.node.grape("app", "remove", "bank", "--force")
        self.deploy()
        with self.node.client() as client:
            self.assertEqual(client.exec("bank@pay", b"bill 17", b"k", block=True, headers=key("one")), first)

    def test_an_answer_for_an_application_that_was_removed_harms_nobody(self):
        gate = self.folder / "gate"
        self.node.deploy(
            self.python_app(
                "other",
                f"""
                import os, time

                @app.on("last")
                def last(event, context):
                    while not os.path.exists({str(gate)!r}):
                        time.sleep(0.01)
                    context.state.put("ran", b"1")
                    return b"late"
                """,
                ["last"],
            )
        )
        with self.node.client() as client:
            client.send_exec("bank@chain", b"", b"k", block=True, headers=key("one"))
            self.eventually(lambda: any(self.node.ends("other.events")), "the event is at its last stage")
            self.node.grape("app", "remove", "bank", "--force")
        gate.touch()
        self.node.wait_idle()
        self.assertEqual([entry.value for entry in self.node.state("other")], [b"1"])
        self.assertEqual(self.node.app_stats("other")["workers"]["restarts"], 0)

    # Under kills

    def test_clients_that_repeat_until_they_have_an_answer_pay_once(self):
        """Each of four clients pays 40 bills; the node is killed over and over; every bill is paid once, and each answer is the only one."""
        answers: dict[bytes, set] = {}

        def answer(bill: bytes):
            while True:
                # The node may be down at any time.
                with contextlib.suppress(OSError), self.node.client() as client:
                    answer = client.exec("bank@pay", bill, bill, block=True, timeout_ms=5000, headers=key(bill.decode()))
                    if answer.status == 0:
                        return answer.value

        def pay(name: int):
            for number in range(40):
                bill = b"bill %d-%d." % (name, number)
                answers.setdefault(bill, set()).add(answer(bill))

        threads = [threading.Thread(target=pay, args=(name,), daemon=True) for name in range(4)]
        for thread in threads:
            thread.start()

        def pays():
            return any(thread.is_alive() for thread in threads)

        while pays():
            before = len(answers)
            self.eventually(lambda: len(answers) >= before + 10 or not pays(), "bills are paid", 60)
            self.restart()
        self.assertEqual(len(answers), 160)
        self.node.wait_idle()
        for bill, values in answers.items():
            self.assertEqual((self.runs(bill), len(values)), (1, 1), bill)
            with self.node.client() as client:
                self.assertEqual({client.exec("bank@pay", bill, bill, block=True, headers=key(bill.decode())).value}, values)

    # The command line

    def test_the_command_line_gives_a_key(self):
        words = ["exec", "bank@pay", "--data", "bill 18", "--block", "--idempotency-key", "one"]
        first = self.node.grape(*words).out
        self.assertEqual(self.node.grape(*words).out, first)
        self.node.grape("exec", "bank@pay", "--data", "bill 19", "--block", "--idempotency-key", "one", expect=CONFLICT)
        words = ["exec", "bank@quiet", "--data", "bill 20", "--idempotency-key", "one", "--json"]
        self.assertEqual(self.node.grape(*words).json, self.node.grape(*words).json)

    def test_the_profile_says_what_is_wrong_with_a_window(self):
        folder = self.python_app("wrong", PAY, PAY_SLOTS, profile={"idempotency": {"window": "10ms"}})
        said = self.node.grape("deploy", folder, expect=BAD_INPUT).err.decode()
        self.assertIn("idempotency.window", said)
        self.assertIn("1s to 365d", said)


if __name__ == "__main__":
    unittest.main()
