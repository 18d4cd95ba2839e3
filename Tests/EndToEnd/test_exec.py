"""Single events: acknowledgement, replies, errors, deadlines, keys."""

import concurrent.futures
import time
import unittest

import wire
from node import (
    BAD_INPUT, DEADLINE, ECHO, ECHO_SLOTS, HANDLER_ERROR, NO_INPUT, NO_SUCH_APP, NO_SUCH_SLOT, TOO_LARGE, USAGE, EndToEnd,
)


class Exec(EndToEnd):
    def setUp(self):
        super().setUp()
        self.node = self.running_node()
        self.node.deploy(self.python_app("echo", ECHO, ECHO_SLOTS))

    def test_a_non_blocking_event_is_acknowledged_with_its_place(self):
        ack = self.node.grape("exec", "echo@echo", "--key", "k", "--data", "hello", "--json").json
        self.assertEqual(ack["topic"], "echo.events")
        self.assertEqual(ack["durability"], "disk")
        self.assertEqual(ack["partition"], wire.partition_of(b"k", 4))
        self.assertEqual(ack["offset"], 0)
        [record] = self.node.records("echo.events")
        self.assertEqual((record.key, record.value, record.header("g.e")), (b"k", b"hello", b"echo"))

    def test_the_text_form_names_topic_partition_offset_and_durability(self):
        text = self.node.grape("exec", "echo@echo", "--key", "k", "--data", "hello").text
        for part in ("echo.events", "disk", str(wire.partition_of(b"k", 4))):
            self.assertIn(part, text)

    def test_a_blocking_event_prints_the_replys_bytes_and_nothing_else(self):
        data = bytes(range(256)) * 10
        (self.folder / "data.bin").write_bytes(data)
        result = self.node.grape("exec", "echo@echo", "--data", "@data.bin", "--block", "--timeout", "10s")
        self.assertEqual(result.out, data)

    def test_the_reply_as_json(self):
        reply = self.node.grape("exec", "echo@echo", "--data", "hi", "--block", "--timeout", "10s", "--json").json
        self.assertEqual((reply["status"], reply["statusCode"], reply["code"], reply["value"]), ("ok", 0, 0, "hi"))
        (self.folder / "data.bin").write_bytes(b"\xff\xfe")
        reply = self.node.grape("exec", "echo@echo", "--data", "@data.bin", "--block", "--timeout", "10s", "--json").json
        self.assertEqual(reply["valueBase64"], "//4=")

    def test_a_missing_data_file_is_an_error_of_its_own(self):
        self.node.grape("exec", "echo@echo", "--data", "@nowhere.bin", expect=NO_INPUT)

    def test_a_handlers_code_and_message_arrive(self):
        result = self.node.grape("exec", "echo@fail", "--block", "--timeout", "10s", expect=HANDLER_ERROR)
        self.assertIn("42", result.err.decode())
        self.assertIn("no grapes today", result.err.decode())
        self.assertEqual(result.out, b"")
        error = self.node.grape(
            "exec", "echo@fail", "--block", "--timeout", "10s", "--json", expect=HANDLER_ERROR
        ).json["error"]
        self.assertEqual((error["status"], error["statusCode"], error["code"]), ("handler-error", 1, 42))
        self.assertEqual((error["message"], error["ran"]), ("no grapes today", "yes"))

    def test_an_unexpected_exception_is_a_handler_error_with_its_message(self):
        result = self.node.grape("exec", "echo@crash", "--block", "--timeout", "10s", expect=HANDLER_ERROR)
        self.assertIn("an ordinary fault", result.err.decode())

    def test_unknown_and_malformed_names_are_refused_and_nothing_is_appended(self):
        before = self.node.ends("echo.events")
        for target, code in (
            ("nobody@echo", NO_SUCH_APP), ("echo@nothing", NO_SUCH_SLOT), ("echo", None), ("@echo", None), ("echo@", None),
            ("Echo@echo", None), ("echo@@echo", None), ("echo@ec ho", None), ("e" * 64 + "@echo", None),
            ("echo@" + "e" * 128, None), ("écho@echo", None),
        ):
            for extra in ((), ("--block", "--timeout", "5s")):
                with self.subTest(target=target, extra=extra):
                    result = self.node.grape("exec", target, "--data", "x", *extra, expect=code)
                    self.assertIn(result.code, (code,) if code else (USAGE, BAD_INPUT))
                    self.assertTrue(result.err.strip())
        with self.node.client() as client:
            for target in ("nobody@echo", "echo@nothing", "echo", "", "@", "Echo@echo", "echo@" + "e" * 200):
                with self.subTest(raw=target):
                    try:
                        answer = client.exec(target, b"x")
                        self.assertIn(answer.status, (2, 3, 9))
                        self.assertEqual(answer.ran, 0)
                    except Exception as error:
                        self.assertEqual(getattr(error, "status", None), 9, error)
        self.assertEqual(self.node.ends("echo.events"), before)

    def test_a_callers_time_runs_out(self):
        begin = time.monotonic()
        self.node.grape("exec", "echo@wait", "--data", "5", "--block", "--timeout", "300ms", expect=DEADLINE)
        self.assertLess(time.monotonic() - begin, 4)

    def test_an_expired_event_never_starts(self):
        self.node.grape("app", "stop", "echo")
        with self.node.client() as client:
            reply = client.exec("echo@echo", b"late", block=True, timeout_ms=100)
            self.assertEqual(reply.status, 5)
            self.assertNotEqual(reply.ran, 1)
        self.node.grape("app", "start", "echo")
        self.node.wait_idle("20s")
        stats = self.node.app_stats("echo")
        slot = next(slot for slot in stats["slots"] if slot["name"] == "echo")
        self.assertEqual(slot["processed"], 0, stats)

    def test_events_of_a_key_share_a_partition_and_those_without_are_spread(self):
        keys = [b"", b"a", b"carrier", b"\xff\x00", b"k" * 1000] + [b"key-%d" % number for number in range(50)]
        with self.node.client() as client:
            for key in keys:
                self.assertEqual(client.exec("echo@echo", b"", key=key).partition, wire.partition_of(key, 4), key)
            spread = {client.exec("echo@echo", b"").partition for _ in range(64)}
        self.assertEqual(spread, {0, 1, 2, 3})

    def test_an_event_larger_than_allowed_is_refused(self):
        with self.node.client() as client:
            limit = client.welcome["maxEvent"]
            reply = client.exec("echo@echo", b"x" * (limit + 1))
            self.assertEqual((reply.status, reply.ran), (6, 0))
            fits = client.exec("echo@echo", b"x" * (limit - 1000), block=True, timeout_ms=20000)
            self.assertEqual((fits.status, len(fits.value)), (0, limit - 1000))
        (self.folder / "big").write_bytes(b"x" * (limit + 1))
        self.node.grape("exec", "echo@echo", "--data", "@big", expect=TOO_LARGE)

    def test_headers_of_the_user_travel_and_those_of_grape_are_refused(self):
        with self.node.client() as client:
            client.exec("echo@echo", b"", headers=(("tenant", b"t1"), ("traceparent", b"00-aa-bb-01"), ("none", None)))
            [record] = self.node.records("echo.events")
            self.assertEqual(record.header("tenant"), b"t1")
            self.assertIn(("none", None), record.headers)
            reply = client.exec("echo@echo", b"", headers=(("g.e", b"other"),))
            self.assertEqual(reply.status, 9)

    def test_every_durability_is_kept_or_bettered(self):
        with self.node.client() as client:
            for durability in (1, 2, 3):
                self.assertGreaterEqual(client.exec("echo@echo", b"", durability=durability).durability, durability)

    def test_sixty_four_clients_block_at_once_and_each_gets_its_own_answer(self):
        def ask(number):
            with self.node.client(timeout=30) as client:
                for turn in range(20):
                    data = b"%d-%d" % (number, turn)
                    reply = client.exec("echo@echo", data, key=data, block=True, timeout_ms=20000)
                    if (reply.status, reply.value) != (0, data):
                        return f"{data!r}: {reply}"

        with concurrent.futures.ThreadPoolExecutor(64) as pool:
            self.assertEqual([fault for fault in pool.map(ask, range(64)) if fault], [])

    def test_many_calls_in_flight_on_one_connection(self):
        with self.node.client() as client:
            ids = [client.send_exec("echo@echo", b"%d" % n, block=True, timeout_ms=20000) for n in range(500)]
            for number, id in enumerate(ids):
                self.assertEqual(client.answer(id).value, b"%d" % number)


if __name__ == "__main__":
    unittest.main()
