"""What `grape stats` says is so."""

import re
import time
import unittest

import wire
from node import DEADLINE, ON_KAFKA, RELAY, RELAY_SLOTS, USAGE, EndToEnd

TWO = """
    @app.on("a")
    def first(event, context):
        pass

    @app.on("b")
    def second(event, context):
        if event.text == "later":
            raise Retry(delay=3600)
"""

#: A sample of Prometheus' text format: name, labels, value.
SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\]|\\.)*",?)+)\})? (-?[0-9.]+(?:e-?[0-9]+)?)')


class Statistics(EndToEnd):
    def setUp(self):
        super().setUp()
        self.node = self.running_node()

    def slots(self, app="two"):
        stats = self.node.app_stats(app)
        return stats, {slot["name"]: slot for slot in stats["slots"]}

    def lags(self):
        return {name: slot["lag"] for name, slot in self.slots()[1].items()}

    def record(self, event, age, value=b"x", key=None):
        return wire.Record(value, key, [("g.e", event)], int((time.time() - age) * 1000))

    def assert_age(self, milliseconds, seconds):
        self.assertGreaterEqual(milliseconds, seconds * 1000 - 1)
        self.assertLess(milliseconds, seconds * 1000 + 30_000)

    def test_the_figures_come_in_the_text_format_of_prometheus(self):
        self.node.deploy(self.python_app("two", TWO, ["a", "b"]))
        with self.node.client() as client:
            for number in range(7):
                client.exec("two@a", b"%d" % number)
            client.exec("two@b", b"later")
        self.eventually(lambda: self.slots()[1]["a"]["processed"] == 7, "all ran")
        text = self.node.grape("stats", "--prometheus").text
        types, samples = {}, {}
        for line in text.splitlines(keepends=True):
            self.assertTrue(line.endswith("\n"))
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split()
                self.assertNotIn(name, types, "each family is in one piece")
                types[name] = kind
            elif not line.startswith("# HELP "):
                name, labels, value = SAMPLE.fullmatch(line.strip()).groups()
                self.assertEqual(list(types)[-1], name, "samples follow their type")
                self.assertNotIn((name, labels), samples)
                samples[name, labels] = float(value)
        self.assertEqual({kind for kind in types.values()}, {"counter", "gauge", "summary"})
        for name, kind in types.items():
            self.assertEqual(name.endswith("_total"), kind == "counter", name)
        self.assertEqual(samples["grape_slot_events_processed_total", 'app="two",slot="a"'], 7)
        self.assertEqual(samples["grape_slot_lag_events", 'app="two",slot="b"'], 1)
        self.assertIn(("grape_app_retries_total", 'app="two"'), samples)
        self.assertEqual(samples["grape_app_running", 'app="two"'], 1)
        self.assertGreater(samples["grape_slot_latency_seconds", 'app="two",slot="a",quantile="0.5"'], 0)
        self.assertGreater(samples["grape_kafka_commits_total" if ON_KAFKA else "grape_log_commits_total", None], 0)
        self.assertIn("--prometheus", self.node.grape("stats", "--prometheus", "--watch", expect=USAGE).err.decode())

    def test_lag_and_age_are_those_of_each_slot_and_survive_the_node(self):
        self.node.deploy(self.python_app("two", TWO, ["a", "b"]))
        self.node.grape("app", "stop", "two")
        with self.node.client() as client:
            # Split by the node, with events of both slots in one batch.
            records = [self.record(b"a" if number % 3 else b"b", 600, key=b"%d" % number) for number in range(300)]
            client.append("two", records)
            client.append("two", [self.record(b"a", 7200, key=b"old")])
            for _ in range(5):
                client.exec("two@b", b"new")
        for again in (False, True):
            with self.subTest(restarted=again):
                if again:
                    self.node.kill()
                    self.node.start()
                    self.eventually(lambda: not self.slots()[0]["counting"], "the backlog is counted")
                stats, slots = self.slots()
                if ON_KAFKA:
                    # Markers of transactions count, too: there were six.
                    self.assertIn(stats["lag"], range(306, 306 + 4 * 6 + 1))
                else:
                    self.assertEqual(stats["lag"], 306)
                self.assertFalse(stats["idle"])
                self.assertEqual((slots["a"]["lag"], slots["b"]["lag"]), (201, 105))
                # Ages are those of record batches, which are others when they are read from Kafka.
                old = 600 if ON_KAFKA and again else 7200
                self.assert_age(slots["a"]["oldestMs"], old)
                self.assert_age(slots["b"]["oldestMs"], 600)
                self.assert_age(stats["oldestMs"], old)
        table = self.node.grape("stats").text
        self.assertIn("105", table)
        self.node.grape("app", "start", "two")
        self.node.wait_idle()
        stats, slots = self.slots()
        self.assertEqual((stats["lag"], stats["oldestMs"], stats["idle"]), (0, 0, True))
        self.assertEqual([(slot["lag"], slot["oldestMs"]) for slot in slots.values()], [(0, 0), (0, 0)])

    def test_lag_by_slot_is_exact_while_a_retry_waits_within_a_batch(self):
        self.node.deploy(self.python_app("two", TWO, ["a", "b"], partitions=1))
        with self.node.client() as client:
            events = [b"a", b"b", b"a", b"a", b"b", b"a", b"b", b"b"]
            records = [
                self.record(event, 60, b"later" if number == 4 else b"x") for number, event in enumerate(events)
            ]
            client.append("two", records, partition=0)
            self.eventually(lambda: self.slots()[0]["lag"] == 4, "what stands before the event that is to run again is done")
            self.assertEqual(self.lags(), {"a": 1, "b": 3})
            client.append("two", [self.record(b"a", 1)] * 3, partition=0)
            self.assertEqual(self.lags(), {"a": 4, "b": 3})
            self.node.grape("app", "restart", "two")
            self.assertEqual(self.lags(), {"a": 4, "b": 3})

    def test_timestamps_of_any_value_do_no_harm(self):
        self.node.deploy(self.python_app("two", TWO, ["a", "b"], partitions=1))
        self.node.grape("app", "stop", "two")
        with self.node.client() as client:
            for timestamp in (-(1 << 61), -1, 0, 1 << 61):
                client.append("two", [wire.Record(b"x", None, [("g.e", b"a")], timestamp)], partition=0)
            self.assertEqual(self.lags(), {"a": 4, "b": 0})
        self.node.grape("app", "start", "two")
        self.node.wait_idle()
        self.assertEqual(self.slots()[1]["a"]["processed"], 4)

    def test_draining_is_measured_until_all_is_done(self):
        self.node.deploy(self.python_app("relay", RELAY, RELAY_SLOTS, partitions=2))
        self.node.grape("app", "stop", "relay")
        self.node.grape("bench", "ingest", "relay@in", "--events", "2000")
        self.node.grape("bench", "drain", "relay", "--timeout", "1ms", expect=DEADLINE)
        result = self.node.grape("bench", "drain", "--app", "relay", "--json").json
        self.assertGreater(result["seconds"], 0)
        stats, slots = self.slots("relay")
        self.assertTrue(stats["idle"])
        self.assertEqual([slot["processed"] for slot in slots.values()], [2000, 2000])
        self.node.grape("app", "stop", "relay")
        self.node.grape("bench", "ingest", "relay@in", "--events", "1000")
        self.assertEqual(self.node.grape("bench", "drain", "relay", "--json").json["events"], 2000)

    def test_idle_means_that_all_of_a_chain_is_in_the_log(self):
        self.node.deploy(self.python_app("relay", RELAY, RELAY_SLOTS, partitions=2))
        with self.node.client() as client:
            for round in range(1, 31):
                client.append("relay", [self.record(b"in", 0, key=b"%d" % number) for number in range(50)])
                while not client.request("stats")["apps"][0]["idle"]:
                    pass
                self.assertEqual(len(self.node.records("relay.events")), round * 100)


if __name__ == "__main__":
    unittest.main()
