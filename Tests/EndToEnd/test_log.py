"""The log from outside: topics, dump, verify, and statistics over it."""

import json
import unittest

from node import DAMAGED, ECHO, ECHO_SLOTS, NOT_FOUND, ON_KAFKA, EndToEnd, embedded_only


class Log(EndToEnd):
    def setUp(self):
        super().setUp()
        self.node = self.running_node()
        self.node.deploy(self.python_app("echo", ECHO, ECHO_SLOTS))
        with self.node.client() as client:
            for number in range(300):
                client.exec("echo@echo", b"payload-%03d" % number, key=b"key-%d" % (number % 7))
        self.node.wait_idle()

    def test_topics_are_listed_with_their_ends(self):
        topics = {topic["name"]: topic["partitions"] for topic in self.node.grape("log", "topics", "--json").json["topics"]}
        self.assertTrue({"echo.events", "echo.dead", "_grape.registry"} <= topics.keys(), topics)
        ends = [partition["end"] for partition in topics["echo.events"]]
        self.assertEqual(ends, self.node.ends("echo.events"))
        if not ON_KAFKA:
            self.assertEqual(sum(ends), 300)

    @embedded_only("it reads the log's files")
    def test_a_dump_holds_every_record(self):
        lines = self.node.grape("log", "dump", "echo.events", "--json").text.splitlines()
        values = [json.loads(line)["value"] for line in lines]
        self.assertEqual(sorted(values), [f"payload-{number:03}" for number in range(300)])
        self.node.grape("log", "dump", "no.such.topic", expect=NOT_FOUND)

    @embedded_only("it reads the log's files")
    def test_a_sound_log_is_found_sound(self):
        self.assertEqual(self.node.terminate(), 0)
        self.node.grape("log", "verify", "--data", self.node.data)

    @embedded_only("it damages the log's files")
    def test_every_flipped_byte_of_a_record_is_found(self):
        self.assertEqual(self.node.terminate(), 0)
        segment = next(
            file for file in sorted(self.node.data.rglob("*"))
            if file.is_file() and b"payload-100" in file.read_bytes()
        )
        sound = segment.read_bytes()
        place = sound.index(b"payload-100")
        for offset in (0, 5, -30):
            with self.subTest(offset=offset):
                damaged = bytearray(sound)
                damaged[place + offset] ^= 0x10
                segment.write_bytes(damaged)
                result = self.node.grape("log", "verify", "--data", self.node.data, expect=DAMAGED)
                self.assertIn(segment.name, result.text + result.err.decode())
        segment.write_bytes(sound)
        self.node.grape("log", "verify", "--data", self.node.data)

    def test_statistics_add_up(self):
        stats = self.node.app_stats("echo")
        slot = next(slot for slot in stats["slots"] if slot["name"] == "echo")
        self.assertEqual((slot["processed"], slot["failed"], slot["lag"]), (300, 0, 0))
        self.assertEqual(sum(partition["lag"] for partition in stats["partitions"]), 0)
        if not ON_KAFKA:
            self.assertEqual(sum(partition["committed"] for partition in stats["partitions"]), 300)
        self.assertLessEqual(slot["latencyMs"]["p50"], slot["latencyMs"]["p99"])
        self.assertGreater(slot["latencyMs"]["max"], 0)
        text = self.node.grape("stats").text
        self.assertIn("echo", text)


if __name__ == "__main__":
    unittest.main()
