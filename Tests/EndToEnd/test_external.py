"""Topics that are not Grape's: what stands there comes to slots, and what handlers write there are plain records."""

import json
import random
import unittest

import wire
from node import BAD_INPUT, EndToEnd
from protocol_client import Failure

#: What comes from `orders` goes to `shipments` as it came.
SHOP = """
    @app.on("order")
    def order(event, context):
        headers = [(name, value) for name, value in event.headers.items() if name != "grape-source"]
        context.emit("shipped", None if event.tombstone else event.value, key=event.key, headers=headers)

    @app.on("note")
    def note(event, context):
        pass
"""


def murmur2(data):
    """As Kafka's clients have it, written down once more: what the node and the SDKs say is held against it."""
    mask = 0xFFFFFFFF
    hashed = 0x9747B28C ^ len(data)
    for at in range(0, len(data) - 3, 4):
        word = int.from_bytes(data[at : at + 4], "little") * 0x5BD1E995 & mask
        hashed = (hashed * 0x5BD1E995 & mask) ^ ((word ^ word >> 24) * 0x5BD1E995 & mask)
    rest = data[len(data) & ~3 :]
    if rest:
        hashed = (hashed ^ int.from_bytes(rest, "little")) * 0x5BD1E995 & mask
    hashed = (hashed ^ hashed >> 13) * 0x5BD1E995 & mask
    return (hashed ^ hashed >> 15) & 0x7FFFFFFF


class External(EndToEnd):
    def setUp(self):
        super().setUp()
        self.node = self.running_node()

    def app(self, name="shop", code=SHOP, slots=None, sources=None, signals=None, **members):
        folder = self.python_app(name, code, slots or {"order": ["shipped"], "note": []}, signals, **members)
        manifest = json.loads((folder / "grape.yaml").read_text())
        if sources:
            manifest["sources"] = sources
        (folder / "grape.yaml").write_text(json.dumps(manifest, indent=2) + "\n")
        return folder

    def shop(self, **source):
        return self.app(
            sources={"orders": {"slot": "order", **source}}, signals={"shipped": {"slots": [], "topics": ["shipments"]}}
        )

    def create(self, topic, partitions=3):
        with self.node.client() as client:
            client.request("log.create", topic=topic, partitions=partitions)

    def put(self, topic, records, partition=-1):
        with self.node.client() as client:
            return client.request("log.append", wire.pack_batch(records), topic=topic, partition=partition)

    def positions(self, app="shop"):
        return {
            (source["topic"], place["partition"]): place["position"]
            for source in self.node.app_stats(app)["sources"] for place in source["partitions"]
        }

    def copied(self, count, app="shop"):
        """Waits until so many records have been dealt with and everything is idle."""
        def done():
            stats = self.node.app_stats(app)
            # Ends of partitions count marks of transactions, too, where the log is Kafka's.
            return (stats["idle"] and sum(self.node.ends(app + ".events")) >= count
                    and len(self.node.records(app + ".events")) >= count)
        self.eventually(done, f"{count} records have come", 150)

    def random_record(self, number, random):
        key = random.choice([None, b"", b"k%d" % random.randrange(8), bytes([random.randrange(256) for _ in range(20)])])
        value = random.choice([None, b"", b"%d" % number, bytes(random.randrange(1, 400))])
        headers = [
            (random.choice(["a", "traceparent", "ce_id", "content-type", "Ünï", "idempotency-key"]),
             random.choice([None, b"", b"x", b"\xff\x00"]))
            for _ in range(random.randrange(4))
        ]
        # Python's handlers see the last of several headers of one name.
        headers = list(dict(headers).items())
        return wire.Record(value, key, [("number", b"%d" % number), *headers], 1_700_000_000_000 + number)

    # What comes and what goes

    def test_any_record_comes_as_it_is_and_leaves_as_it_came(self):
        seed = random.randrange(1 << 32)
        rng = random.Random(seed)
        self.create("orders", 3)
        self.create("shipments", 5)
        self.node.deploy(self.shop())
        sent = [self.random_record(number, rng) for number in range(600)]
        for start in range(0, 600, 50):
            self.put("orders", sent[start : start + 50])
        self.copied(600)
        events = self.node.records("shop.events", "order")
        self.assertEqual(len(events), 600, f"seed {seed}")
        places = {event.header("grape-source") for event in events}
        with self.node.client() as client:
            stood = {b"orders/%d:%d" % (partition, record.offset) for partition in range(3)
                     for record in client.read_all("orders", partition)}
        self.assertEqual(places, stood)
        left = {}
        for partition, end in enumerate(self.node.ends("shipments")):
            with self.node.client() as client:
                for record in client.read_all("shipments", partition):
                    self.assertFalse([name for name, _ in record.headers if name.startswith("g.")], f"seed {seed}")
                    if record.key is not None:
                        self.assertEqual(murmur2(record.key) % 5, partition, f"seed {seed}, key {record.key}")
                    left[int(record.header("number"))] = record
        self.assertEqual(len(left), 600)
        for number, record in enumerate(sent):
            found = left[number]
            self.assertEqual((found.key, found.value), (record.key, record.value), f"seed {seed}, record {number}")
            self.assertEqual(sorted(found.headers, key=str), sorted(record.headers, key=str), f"seed {seed}, {number}")
        self.assertEqual(self.node.app_stats("shop")["deadLetters"], 0)

    def test_cloud_events_of_both_modes_come_in_one_form(self):
        self.create("orders", 1)
        self.create("shipments", 1)
        self.node.deploy(self.shop())
        attributes = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "order.placed", "retries": 3}
        envelope = {**attributes, "datacontenttype": "application/json", "data": {"big": 12345678901234567890, "x": 1.50}}
        text = json.dumps(envelope).replace("1.5}", "1.50}").encode()
        self.put("orders", [
            wire.Record(text, b"k", [("content-type", b"application/cloudevents+json; charset=UTF-8")], 1),
            wire.Record(b'{"big": 12345678901234567890, "x": 1.50}', b"k", [
                *[("ce_" + name, str(value).encode()) for name, value in attributes.items()],
                ("content-type", b"application/json")], 1),
            wire.Record(b'{"specversion": "1.0"}', b"bad", [("Content-Type", b"application/cloudevents+json")], 1),
            wire.Record(None, b"gone", [("content-type", b"application/cloudevents+json")], 1),
        ])
        self.copied(3)
        one, other, gone = self.eventually(
            lambda: len(found := self.node.records("shipments")) == 3 and found, "three shipments")
        self.assertEqual((one.key, one.value), (other.key, other.value))
        self.assertEqual(sorted(one.headers), sorted(other.headers))
        self.assertEqual((gone.key, gone.value), (b"gone", None))
        [letter] = self.node.records("shop.dead")
        why = json.loads(letter.header("g.x"))
        self.assertEqual((why["reason"], why["topic"], why["partition"], why["offset"]), ("unusable", "orders", 0, 2))
        self.assertIn("lacks id, source, type", why["message"])
        self.assertEqual((letter.key, letter.value), (b"bad", b'{"specversion": "1.0"}'))
        [source] = self.node.app_stats("shop")["sources"]
        self.assertEqual((source["state"], source["events"], source["unusable"]), ("running", 3, 1))

    def test_a_key_can_come_from_a_header(self):
        self.create("orders", 1)
        self.create("shipments", 1)
        self.node.deploy(self.shop(key="header:customer"))
        self.put("orders", [wire.Record(b"1", b"own", [("customer", b"c7")], 1), wire.Record(b"2", b"own", [], 1)])
        self.copied(2)
        self.assertEqual({(event.key, event.value) for event in self.node.records("shop.events")},
                         {(b"c7", b"1"), (b"own", b"2")})

    def test_a_caller_is_answered_though_its_event_went_to_a_topic_alone(self):
        self.create("orders", 1)
        self.create("shipments", 1)
        self.node.deploy(self.shop())
        with self.node.client() as client:
            reply = client.exec("shop@order", b"x", b"k", block=True)
        self.assertEqual((reply.status, reply.value), (0, None))
        [record] = self.node.records("shipments")
        self.assertEqual((record.key, record.value, record.headers), (b"k", b"x", []))

    # Where reading begins and goes on

    def test_each_start_begins_where_it_says(self):
        self.create("orders", 1)
        self.create("shipments", 1)
        self.put("orders", [wire.Record(b"%d" % n, b"k", [], 1_700_000_000_000 + n * 1000) for n in range(10)])
        code = '@app.on("order")\ndef order(event, context):\n    pass\n'
        for name, start in ("a", "earliest"), ("b", "latest"), ("c", "2023-11-14T22:13:27Z"):
            self.node.deploy(self.app(name, code, ["order"], {"orders": {"slot": "order", "start": start}}))
            self.eventually(lambda: self.positions(name).get(("orders", 0)) is not None, "it has begun")
        self.put("orders", [wire.Record(b"%d" % n, b"k", [], 1_800_000_000_000 + n * 1000) for n in (10, 11)])
        for name, expected in (("a", range(12)), ("b", range(10, 12)), ("c", range(7, 12))):
            self.copied(len(expected), name)
            self.assertEqual([int(event.value) for event in self.node.records(name + ".events")], list(expected), name)

    def test_what_comes_while_the_application_is_stopped_or_the_node_is_down_waits(self):
        self.create("orders", 2)
        self.create("shipments", 1)
        self.node.deploy(self.shop(start="latest"))
        self.eventually(lambda: len(self.positions()) == 2, "it has begun")
        self.node.grape("app", "stop", "shop")
        self.put("orders", [wire.Record(b"1", b"a", [], 1), wire.Record(b"2", b"b", [], 1)])
        self.assertEqual(sum(self.node.ends("shop.events")), 0)
        self.node.kill()
        self.node.start()
        self.assertEqual(sum(self.node.ends("shop.events")), 0)
        self.node.grape("app", "start", "shop")
        self.copied(2)
        self.node.deploy(self.app(
            sources={"orders": "note"}, signals={"shipped": {"slots": [], "topics": ["shipments"]}}))
        self.put("orders", [wire.Record(b"3", b"a", [], 1)])
        self.copied(3)
        self.assertEqual([(event.header("g.e"), event.value) for event in
                          sorted(self.node.records("shop.events"), key=lambda event: event.value)],
                         [(b"order", b"1"), (b"order", b"2"), (b"note", b"3")])

    def test_killed_again_and_again_a_node_brings_each_record_once(self):
        seed = random.randrange(1 << 32)
        rng = random.Random(seed)
        self.create("orders", 4)
        self.create("shipments", 3)
        self.node.deploy(self.shop())
        total = 0
        for round in range(4):
            records = [self.random_record(total + n, rng) for n in range(3000)]
            total += len(records)
            for start in range(0, 3000, 500):
                self.put("orders", records[start : start + 500])
            # Somewhere in the middle of copying and shipping.
            goal = rng.randrange(min(total - 1, sum(self.node.ends("shop.events"))), total)
            self.eventually(lambda: sum(self.node.ends("shop.events")) >= goal, "some have come", 150)
            self.node.kill()
            self.node.start()
        self.copied(total)
        # On Kafka a node that has no partitions yet has nothing to do, and says so.
        self.eventually(lambda: len(self.node.records("shipments")) >= total, "all are shipped", 150)
        self.copied(total)
        # What came in first: if that is doubled, so is what goes out.
        events = self.node.records("shop.events")
        self.assertEqual(len({event.header("grape-source") for event in events}), total, f"seed {seed}")
        self.assertEqual(len(events), total, f"seed {seed}")
        numbers = sorted(int(record.header("number")) for record in self.node.records("shipments"))
        self.assertEqual(len(numbers), total, f"seed {seed}")
        self.assertEqual(numbers, list(range(total)), f"seed {seed}")

    def test_records_of_a_key_stay_in_order(self):
        self.create("orders", 3)
        self.create("shipments", 2)
        self.node.deploy(self.shop())
        for start in range(0, 1000, 100):
            self.put("orders", [wire.Record(b"%d" % n, b"k%d" % (n % 7), [], 1) for n in range(start, start + 100)])
        self.copied(1000)
        order = {}
        for record in self.node.records("shipments"):
            order.setdefault(record.key, []).append(int(record.value))
        self.assertEqual(sum(map(len, order.values())), 1000)
        for key, numbers in order.items():
            self.assertEqual(numbers, sorted(numbers), key)

    # Topics that are not there, or not for this

    def test_a_missing_topic_is_an_error_at_deploy_and_an_optional_one_is_waited_for(self):
        self.create("shipments", 1)
        refused = self.node.grape("deploy", self.shop(), expect=None)
        self.assertEqual(refused.code, 19, refused)
        self.assertIn("sources.orders: there is no topic orders: create it first", refused.err.decode())
        self.node.deploy(self.shop(optional=True))
        [source] = self.node.app_stats("shop")["sources"]
        self.assertEqual((source["state"], source["partitions"]), ("waiting", []))
        self.create("orders", 2)
        self.put("orders", [wire.Record(b"1", b"k", [], 1)])
        self.copied(1)

    def test_topics_of_grape_are_refused(self):
        self.create("orders", 1)
        self.create("shipments", 1)
        self.node.deploy(self.shop())
        for topic in ("shop.events", "shop.dead", "_grape.registry"):
            with self.subTest(topic=topic):
                with self.assertRaises(Failure) as caught:
                    self.put(topic, [wire.Record(b"1", b"k", [], 1)])
                self.assertEqual(caught.exception.name, "conflict")
                for members in ({"sources": {topic: "order"}}, {"signals": {"shipped": {"topics": [topic]}}}):
                    folder = self.app("other", **{"signals": {"shipped": []}, **members})
                    self.assertIn(self.node.grape("deploy", folder, expect=None).code, (19, BAD_INPUT))
        with self.assertRaises(Failure) as caught:
            self.put("orders", [wire.Record(b"1", b"k", [("g.e", b"order")], 1)])
        self.assertEqual(caught.exception.name, "bad-request")

    def test_the_command_line_makes_fills_and_shows_topics(self):
        self.node.grape("log", "create-topic", "orders", "--partitions", "2")
        self.node.grape("log", "create-topic", "orders", "--partitions", "2")
        self.assertEqual(self.node.grape("log", "create-topic", "orders", expect=None).code, 19)
        self.node.grape("log", "create-topic", "shipments", "--retention-age", "7d", "--retention-size", "1GiB")
        self.node.grape("log", "create-topic", "customers", "--compact")
        self.node.deploy(self.shop())
        self.node.grape("log", "produce", "orders", "--key", "a", "--value", "1", "--header", "from=cli")
        self.node.grape("log", "produce", "orders", "--key", "a", "--tombstone")
        self.node.grape("log", "produce", "orders", "--key-separator", "::", input=b"b::2::x\nc::3\n")
        said = self.node.grape("log", "produce", "orders", "--ndjson", "--json", input=json.dumps(
            {"key": None, "valueBase64": "/w==", "headers": {"h": None}}).encode() + b"\n")
        self.assertEqual(said.json["records"], 1)
        wrong = self.node.grape("log", "produce", "orders", "--ndjson", input=b'{"keys": 1}\n', expect=None)
        self.assertEqual(wrong.code, BAD_INPUT)
        self.assertIn("line 1: there is no member `keys`", wrong.err.decode())
        self.copied(5)
        self.assertEqual(
            sorted(((record.key, record.value) for record in self.node.records("shipments")), key=str),
            sorted([(b"a", b"1"), (b"a", None), (b"b", b"2::x"), (b"c", b"3"), (None, b"\xff")], key=str))
        self.assertIn("orders  shop@order  running", self.node.grape("stats").text)
        drawn = self.node.grape("topology", "--ascii").text
        self.assertRegex(drawn, r"topic orders\n`- shop@order( +[0-9.]+/s)?\n   `- topic shipments \[shipped\]\n")
        for form in ("dot", "mermaid"):
            self.assertIn("shipments", self.node.grape("topology", "--format", form).text)


if __name__ == "__main__":
    unittest.main()
