"""The node as peers see it that were written from docs/protocol.md: good ones, broken ones and hostile ones."""

import json
import os
import pathlib
import shutil
import socket
import stat
import struct
import time
import unittest

import wire
from node import ECHO, ECHO_SLOTS, HERE, ON_KAFKA, EndToEnd
from protocol_client import Client, Failure
from wire import Record


def event(value, name=b"echo", key=None, headers=()):
    return Record(value, key, [("g.e", name), *headers], int(time.time() * 1000))


class Clients(EndToEnd):
    def setUp(self):
        super().setUp()
        self.node = self.running_node()
        self.node.deploy(self.python_app("echo", ECHO, ECHO_SLOTS))

    def test_the_socket_is_open_to_its_owner_only(self):
        mode = os.stat(self.node.socket).st_mode
        self.assertTrue(stat.S_ISSOCK(mode))
        self.assertEqual(stat.S_IMODE(mode) & 0o077, 0, oct(mode))

    def test_welcome_says_what_a_client_must_know(self):
        with self.node.client() as client:
            self.assertEqual(client.welcome["protocol"], 1)
            self.assertEqual(client.welcome["maxFrame"], 67_174_400)
            self.assertEqual(client.welcome["maxEvent"], 8_388_608)
            self.assertTrue(client.welcome["node"])

    def test_the_highest_common_version_is_taken_and_none_is_refused(self):
        with self.node.client(hello=False) as client:
            self.assertEqual(client.hello(protocol=[1, 7])["protocol"], 1)
        with self.node.client(hello=False) as client, self.assertRaises(Failure) as caught:
            client.hello(protocol=[7])
        self.assertEqual((caught.exception.name, caught.exception.status), ("unsupported-version", 13))
        self.assertIn("1", caught.exception.message)

    def test_a_request_before_hello_or_a_second_hello_ends_the_connection(self):
        with self.node.client(hello=False) as client:
            client.send(wire.FETCH, 1, b"")
            self.expect_goodbye(client)
        with self.node.client() as client:
            client.send(wire.HELLO, 0, b'{"role": "client", "protocol": [1]}')
            self.expect_goodbye(client)

    def test_frames_that_break_the_rules_get_an_error_and_the_connection_ends(self):
        hello = json.dumps({"role": "client", "protocol": [1], "agent": "broken"}).encode()
        broken = {
            "unknown type": wire.pack_frame(0x7F, 1),
            "a type only nodes send": wire.pack_frame(wire.ACK, 1, bytes(24)),
            "a type only workers send": wire.pack_frame(wire.RESULT, 1, bytes(30)),
            "length 0": struct.pack(">I", 0) + bytes(12),
            "length 11": struct.pack(">I", 11) + bytes(11),
            "length over maxFrame": struct.pack(">IBBHQ", 67_174_401, wire.EXEC, 0, 0, 1),
            "length of 4 GiB": struct.pack(">IBBHQ", 0xFFFFFFFF, wire.EXEC, 0, 0, 1),
            "reserved field set": struct.pack(">IBBHQ", 12, wire.CANCEL, 0, 1, 1),
            "empty EXEC": wire.pack_frame(wire.EXEC, 1),
            "EXEC cut short": wire.pack_frame(wire.EXEC, 1, bytes(8) + wire.str16("echo@echo")),
            "EXEC with a length beyond its body": wire.pack_frame(wire.EXEC, 1, bytes(8) + struct.pack(">H", 60000) + b"e"),
            "EXEC with a negative length": wire.pack_frame(
                wire.EXEC, 1, bytes(8) + wire.str16("echo@echo") + struct.pack(">ii", -2, 0) + bytes(2)
            ),
            "EXEC with bytes behind it": wire.pack_frame(
                wire.EXEC, 1, bytes(8) + wire.str16("echo@echo") + wire.bytes32(None) * 2 + bytes(2) + b"more"
            ),
            "EXEC with mode 9": wire.pack_frame(
                wire.EXEC, 1, struct.pack(">BBHI", 0, 9, 0, 0) + wire.str16("echo@echo") + wire.bytes32(None) * 2 + bytes(2)
            ),
            "REQUEST that is no JSON": wire.pack_frame(wire.REQUEST, 1, struct.pack(">I", 3) + b"{{{"),
            "REQUEST with a size beyond its body": wire.pack_frame(wire.REQUEST, 1, struct.pack(">I", 1 << 30) + b"{}"),
            "FETCH cut short": wire.pack_frame(wire.FETCH, 1, wire.str16("echo.events") + bytes(3)),
        }
        for name, data in broken.items():
            with self.subTest(name):
                with self.node.client(hello=False) as client:
                    client.send(wire.HELLO, 0, hello)
                    client.receive(wire.WELCOME, 0)
                    client.socket.sendall(data)
                    self.expect_goodbye(client)
        self.assert_alive()

    def test_before_welcome_even_the_opening_is_checked(self):
        for name, data in {
            "a length over 65,536": struct.pack(">IBBHQ", 65_537, wire.HELLO, 0, 0, 0),
            "no JSON": wire.pack_frame(wire.HELLO, 0, b"hello"),
            "JSON of the wrong kind": wire.pack_frame(wire.HELLO, 0, b"[]"),
            "no role": wire.pack_frame(wire.HELLO, 0, b'{"protocol": [1]}'),
            "an unknown role": wire.pack_frame(wire.HELLO, 0, b'{"role": "king", "protocol": [1]}'),
            "deep nesting": wire.pack_frame(wire.HELLO, 0, b"[" * 60_000),
            "another protocol": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "noise": bytes(range(256)) * 4,
        }.items():
            with self.subTest(name):
                with self.node.client(hello=False) as client:
                    client.socket.sendall(data)
                    self.expect_goodbye(client)
        self.assert_alive()

    def test_peers_that_vanish_at_any_byte_do_no_harm(self):
        data = wire.pack_frame(wire.HELLO, 0, b'{"role": "client", "protocol": [1]}')
        data += wire.pack_frame(wire.EXEC, 1, bytes(8) + wire.str16("echo@echo") + wire.bytes32(b"k") * 2 + bytes(2))
        for size in range(0, len(data), 3):
            with self.node.client(hello=False) as client:
                client.socket.sendall(data[:size])
        self.assert_alive()

    def test_batches_that_break_the_rules_are_refused_and_nothing_is_appended(self):
        good = wire.pack_batch([event(b"a"), event(b"b")])

        def changed(at, format, value, fix=True):
            data = bytearray(good)
            struct.pack_into(">" + format, data, at, value)
            if fix:
                struct.pack_into(">I", data, 17, wire.crc32c(bytes(data[21:])))
            return bytes(data)

        broken = {
            "wrong CRC": changed(17, "I", 1, fix=False),
            "a bit turned": good[:-1] + bytes([good[-1] ^ 1]),
            "magic 1": changed(16, "b", 1),
            "gzip": changed(21, "h", 1),
            "zstd that is none": changed(21, "h", 4),
            "control": changed(21, "h", 0x20),
            "transactional": changed(21, "h", 0x10),
            "log append time": changed(21, "h", 0x08),
            "no records": changed(57, "i", 0),
            "too many records": changed(57, "i", 3),
            "negative records": changed(57, "i", -1),
            "last offset delta": changed(23, "i", 5),
            "base offset": changed(0, "q", 7),
            "producer id": changed(43, "q", 9),
            "length too large": changed(8, "i", len(good)),
            "length too small": changed(8, "i", 10),
            "negative length": changed(8, "i", -1),
            "cut": good[:40],
            "empty": b"",
            "noise": bytes(range(200)),
            "no event name": wire.pack_batch([Record(b"x", None, [], 1)]),
            "unknown slot": wire.pack_batch([event(b"x", b"nothing")]),
            "foreign g. header": wire.pack_batch([event(b"x", headers=[("g.r", bytes(30))])]),
            "one good and one bad record": wire.pack_batch([event(b"x"), event(b"y", b"nothing")]),
        }
        with self.node.client() as client:
            for name, batch in broken.items():
                with self.subTest(name):
                    with self.assertRaises(Failure) as caught:
                        client.appended(client.send_append("echo", [(0, batch)]))
                    self.assertIn(caught.exception.status, (3, 9), caught.exception)
            with self.subTest("the good batch of a bad frame"), self.assertRaises(Failure):
                client.appended(client.send_append("echo", [(0, good), (0, broken["wrong CRC"])]))
            with self.subTest("no such partition"), self.assertRaises(Failure):
                client.appended(client.send_append("echo", [(99, good)]))
            self.assertEqual(self.node.ends("echo.events"), [0, 0, 0, 0])
            client.append("echo", [event(b"still well")])

    def test_append_keeps_the_order_and_tells_the_offsets(self):
        with self.node.client() as client:
            topic, [(partition, base)] = client.append("echo", [event(b"%d" % n) for n in range(100)], partition=2)
            self.assertEqual((topic, partition, base), ("echo.events", 2, 0))
            _, [(_, following)] = client.append("echo", [event(b"100")], partition=2)
            self.assertEqual(following, 100)
            records = client.read_all("echo.events", 2)
            self.assertEqual([record.value for record in records], [b"%d" % n for n in range(101)])
            self.assert_offsets([record.offset for record in records])

    def test_a_batch_is_split_by_key_where_the_node_is_asked_to(self):
        keys = [b"key-%d" % number for number in range(40)]
        with self.node.client() as client:
            _, entries = client.append("echo", [event(key, key=key) for key in keys])
            self.assertEqual({partition for partition, _ in entries}, {0, 1, 2, 3})
            for partition in range(4):
                expected = [key for key in keys if wire.partition_of(key, 4) == partition]
                self.assertEqual([record.key for record in client.read_all("echo.events", partition)], expected)

    def test_fetch_waits_for_what_comes_and_answers_empty_when_nothing_does(self):
        with self.node.client() as reader, self.node.client() as writer:
            begin = time.monotonic()
            start, end, following, records = reader.fetch("echo.events", 0, -1, wait_ms=200)
            self.assertEqual((start, end, following, records), (0, 0, 0, []))
            self.assertGreaterEqual(time.monotonic() - begin, 0.19)
            id = reader.fresh_id()
            reader.send(wire.FETCH, id, wire.str16("echo.events") + struct.pack(">iqII", 0, 0, 1 << 20, 10_000))
            begin = time.monotonic()
            writer.append("echo", [event(b"x")], partition=0)
            body = reader.receive(wire.FETCHED, id).body
            self.assertLess(time.monotonic() - begin, 5)
            self.assertEqual(wire.unpack_batches(body[24:])[0].value, b"x")

    def test_fetch_outside_the_log_is_an_error_of_the_request_alone(self):
        with self.node.client() as client:
            for topic, partition, offset, status in (
                ("echo.events", 0, 5, 16), ("echo.events", 9, 0, 15), ("nowhere", 0, 0, 15),
            ):
                with self.subTest(topic=topic, partition=partition, offset=offset):
                    with self.assertRaises(Failure) as caught:
                        client.fetch(topic, partition, offset)
                    self.assertEqual(caught.exception.status, status)
            client.fetch("echo.events", 0, 0)

    def test_one_batch_comes_however_few_bytes_are_asked_for(self):
        with self.node.client() as client:
            client.append("echo", [event(b"x" * 1000) for _ in range(10)], partition=0)
            _, _, following, records = client.fetch("echo.events", 0, 3, max_bytes=1)
            # A batch of the embedded log is the one that was appended; from Kafka it may be a part of that.
            self.assertEqual(following, 4 if ON_KAFKA else 10)
            self.assertEqual([record.offset for record in records], list(range(3, following)))

    def test_a_cancelled_call_leaves_the_connection_in_order(self):
        with self.node.client() as client:
            waiting = client.send_exec("echo@wait", b"0.5", block=True, timeout_ms=10_000)
            client.send(wire.CANCEL, waiting)
            client.send(wire.CANCEL, 4711)
            self.assertEqual(client.exec("echo@echo", b"after", block=True, timeout_ms=10_000).value, b"after")

    def test_unknown_operations_are_refused_by_name(self):
        with self.node.client() as client:
            for op in ("app.fly", "", "node"):
                with self.assertRaises(Failure) as caught:
                    client.request(op)
                self.assertEqual(caught.exception.status, 9)
            client.request("node.info")

    def expect_goodbye(self, client):
        frame = client.any_frame()
        self.assertIsNotNone(frame, "closed without an ERROR frame")
        self.assertEqual((frame.type, frame.id), (wire.ERROR, 0))
        error = json.loads(frame.body)
        self.assertEqual(wire.STATUS[error["name"]], error["status"])
        self.assertTrue(error["message"])
        self.assertIsNone(client.any_frame(), "the connection stays open after an error about it")

    def assert_alive(self):
        with self.node.client() as client:
            self.assertEqual(client.exec("echo@echo", b"well", block=True, timeout_ms=10_000).value, b"well")


class Workers(EndToEnd):
    """The runtime `executable` with a worker of our own."""

    def setUp(self):
        super().setUp()
        self.node = self.running_node()
        self.app = self.folder / "raw"
        self.app.mkdir()
        for file in ("raw_worker.py", "wire.py"):
            shutil.copy(HERE / file, self.app)
        os.chmod(self.app / "raw_worker.py", 0o755)
        self.write_manifest(["first", "second", "refuse", "emit-many"])

    def write_manifest(self, slots, command=("./raw_worker.py",)):
        emits = {"first": ["second"], "emit-many": ["second"]}
        manifest = {
            "grape": 1, "name": "raw", "runtime": "executable", "command": list(command),
            "slots": {slot: {"emits": emits.get(slot, [])} for slot in slots}, "profile": {"startup-timeout": "5s"},
        }
        (self.app / "grape.yaml").write_text(json.dumps(manifest, indent=2))

    def test_a_worker_written_from_the_documentation_works(self):
        self.node.deploy(self.app)
        with self.node.client() as client:
            reply = client.exec("raw@first", b"grape", key=b"k", block=True, timeout_ms=15_000)
            self.assertEqual((reply.status, reply.value), (0, b"GRAPE"))
            reply = client.exec("raw@refuse", b"", block=True, timeout_ms=15_000)
            self.assertEqual((reply.status, reply.code, reply.message), (1, 42, "this slot refuses everything"))
            client.exec("raw@emit-many", b"1000")
        self.node.wait_idle("30s")
        self.assertEqual(len(self.node.records("raw.events", "second")), 1001)

    def test_a_worker_that_lacks_a_slot_of_the_manifest_is_refused_with_a_reason(self):
        self.write_manifest(["first", "second", "refuse", "emit-many", "another"])
        self.node.deploy(self.app)
        self.node.grape("exec", "raw@another", "--data", "x", expect=None)
        self.eventually(
            lambda: "another" in (self.node.grape("app", "info", "raw", "--json").json.get("problem") or "")
            or "another" in self.node.grape("app", "logs", "raw").text,
            "the missing slot is named",
        )

    def test_a_wrong_token_is_refused(self):
        self.node.deploy(self.app)
        self.node.grape("exec", "raw@second", "--data", "x", "--block", "--timeout", "15s")
        [pid, *_] = self.node.worker_pids()
        environment = pathlib.Path("/proc", str(pid), "environ").read_bytes().split(b"\0")
        path = next(entry for entry in environment if entry.startswith(b"GRAPE_SOCKET=")).partition(b"=")[2].decode()
        used = next(entry for entry in environment if entry.startswith(b"GRAPE_TOKEN=")).partition(b"=")[2].decode()
        for token in ("", "wrong", used):
            with self.subTest(token="used" if token == used else token):
                with Client(path, hello=False) as worker:
                    with self.assertRaises(Failure) as caught:
                        worker.hello(role="worker", token=token, pid=1, slots=["first"])
                    self.assertEqual(caught.exception.status, 10)
                    self.assertIsNone(worker.any_frame())

    def test_a_program_that_is_no_worker_makes_the_application_fail_with_a_reason(self):
        script = self.app / "raw_worker.py"
        script.write_text("#!/bin/sh\necho 'I am no worker' >&2\nexit 3\n")
        self.node.deploy(self.app)
        self.node.grape("exec", "raw@first", "--data", "x")
        self.eventually(lambda: "I am no worker" in self.node.grape("app", "logs", "raw").text, "its last words are in the log")
        self.eventually(
            lambda: self.node.grape("app", "info", "raw", "--json").json.get("problem"), "the application has a problem", 60
        )


if __name__ == "__main__":
    unittest.main()
