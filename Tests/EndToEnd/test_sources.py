"""Connections of one source take over from each other, and what they take over is final."""

import json
import random
import signal
import unittest

import wire
from node import EndToEnd
from protocol_client import Client, Failure

SINK = '@app.on("row")\ndef row(event, context):\n    pass\n'


class Sources(EndToEnd):
    def setUp(self):
        super().setUp()
        self.node = self.running_node()
        self.node.deploy(self.python_app("sink", SINK, ["row"]))

    def connect(self, epoch, id="it"):
        client = Client(self.node.socket, hello=False)
        self.addCleanup(client.close)
        client.hello(source={"id": id, "epoch": epoch})
        return client

    def batch(self, value=b"x"):
        return [(0, wire.pack_batch([wire.Record(value, None, [("g.e", b"row")], 1)]))]

    def test_a_later_connection_ends_the_earlier_one(self):
        first = self.connect(1)
        self.assertEqual(first.welcome["epoch"], 1)
        first.appended(first.send_append("sink", self.batch()))
        second = self.connect(2)
        frame = first.any_frame()
        self.assertEqual((frame.type, frame.id), (wire.ERROR, 0))
        self.assertEqual(json.loads(frame.body)["name"], "fenced")
        self.assertIsNone(first.any_frame())
        second.appended(second.send_append("sink", self.batch()))
        other = self.connect(1, id="another")
        other.appended(other.send_append("sink", self.batch()))
        self.assertEqual(sum(self.node.ends("sink.events")), 3)

    def test_an_epoch_that_is_not_greater_is_refused_even_when_the_other_has_gone(self):
        self.connect(5).close()
        for epoch in (5, 4):
            with self.assertRaises(Failure) as caught:
                self.connect(epoch)
            self.assertEqual((caught.exception.status, caught.exception.name), (18, "fenced"))
        self.connect(6)

    def test_a_malformed_source_is_refused(self):
        for source in ({}, {"id": "a"}, {"id": "", "epoch": 1}, {"id": "a" * 65, "epoch": 1}, {"id": "a", "epoch": 0}, 7):
            with self.subTest(source=source), Client(self.node.socket, hello=False) as client:
                with self.assertRaises(Failure) as caught:
                    client.hello(source=source)
                self.assertEqual(caught.exception.status, 9)

    def test_after_welcome_nothing_of_the_earlier_connection_comes_any_more(self):
        seed = random.randrange(1 << 32)
        generator = random.Random(seed)
        for epoch in range(1, 80, 2):
            client = self.connect(epoch)
            before = sum(self.node.ends("sink.events"))
            # It sends and dies; in half of the rounds the node finds all of it, and the next connection, at once.
            stands = generator.random() < 0.5
            if stands:
                self.node.process.send_signal(signal.SIGSTOP)
            for _ in range(generator.randrange(1, 12)):
                client.send_append("sink", self.batch(b"x" * generator.randrange(1, 2000)))
            client.socket.close()
            following = Client(self.node.socket, hello=False)
            hello = {"role": "client", "protocol": [1], "source": {"id": "it", "epoch": epoch + 1}}
            following.send(wire.HELLO, 0, json.dumps(hello).encode())
            if stands:
                self.node.process.send_signal(signal.SIGCONT)
            following.receive(wire.WELCOME, 0)
            _, seen, _, _ = following.fetch("sink.events", 0, -1)
            # Whatever the node did after the welcome would be seen by now: it answers in order.
            following.appended(following.send_append("sink", self.batch()))
            later = [record.offset for record in following.read_all("sink.events", 0) if record.offset >= seen]
            self.assertEqual(len(later), 1, f"round {epoch}, seed {seed}: {later}")
            self.assertGreaterEqual(seen, before)
            following.close()

    def test_frames_behind_a_refusal_are_not_acted_on(self):
        client = Client(self.node.socket)
        self.addCleanup(client.close)
        append = wire.pack_frame(wire.APPEND, 7, b"\3\0\0\1" + wire.str16("sink") + b"\0\0\0\0" + len(
            self.batch()[0][1]).to_bytes(4, "big") + self.batch()[0][1])
        client.socket.sendall(wire.pack_frame(0x99, 1) + append)
        self.assertEqual(client.any_frame().type, wire.ERROR)
        self.assertIsNone(client.any_frame())
        self.assertEqual(sum(self.node.ends("sink.events")), 0)


if __name__ == "__main__":
    unittest.main()
