"""Topics that are not Grape's, read by several nodes: their partitions are spread, and no record is lost or comes twice."""

import json
import unittest

import wire
from cluster import PATIENCE, PROFILE, ClusterCase

PARTITIONS = 6
RELAY = """
    @app.on("order")
    def order(event, context):
        context.emit("shipped", event.value, key=event.key)
"""


class ClusterExternal(ClusterCase):
    def setUp(self):
        super().setUp()
        self.start_nodes(2)
        self.sent = 0
        with self.nodes[0].client() as client:
            client.request("log.create", topic="orders", partitions=PARTITIONS)
            client.request("log.create", topic="shipments", partitions=3)
        folder = self.python_app(
            "shop", RELAY, {"order": ["shipped"]}, {"shipped": {"slots": [], "topics": ["shipments"]}}, PROFILE, 4)
        manifest = json.loads((folder / "grape.yaml").read_text())
        manifest["sources"] = {"orders": "order"}
        (folder / "grape.yaml").write_text(json.dumps(manifest))
        self.nodes[0].deploy(folder)

    def put(self, node, count):
        with node.client(timeout=60) as client:
            for _ in range(count // 100):
                batch = [wire.Record(b"%d" % n, b"k%d" % (n % 50), [], 1) for n in range(self.sent, self.sent + 100)]
                client.request("log.append", wire.pack_batch(batch), topic="orders", partition=-1)
                self.sent += 100

    def sources(self, node):
        """The partitions of `orders` that a node reads."""
        stats = self.stats(node, "shop")
        return set() if stats is None else {place["partition"] for source in stats["sources"] for place in source["partitions"]}

    def wait_sources_spread(self, nodes):
        def spread():
            found = [self.sources(node) for node in nodes]
            return all(found) and sorted(number for some in found for number in some) == list(range(PARTITIONS))
        self.eventually(spread, "the partitions of orders are spread", 2 * PATIENCE)

    def check(self, node):
        """Everything comes, once, and in order by key."""
        def all_there():
            return len(node.records("shipments")) >= self.sent
        self.eventually(all_there, "everything is shipped", 2 * PATIENCE)
        self.wait_all_idle([found for found in self.nodes if found.process.poll() is None])
        shipped = node.records("shipments")
        self.assertEqual(sorted(int(record.value) for record in shipped), list(range(self.sent)), f"seed {self.seed}")
        by_key = {}
        for record in shipped:
            by_key.setdefault(record.key, []).append(int(record.value))
        for key, numbers in by_key.items():
            self.assertEqual(numbers, sorted(numbers), f"{key}, seed {self.seed}")

    def test_partitions_are_spread_and_go_to_those_who_stay(self):
        n1, n2 = self.nodes
        self.wait_sources_spread([n1, n2])
        self.put(n1, 1000)
        self.assertEqual(n2.terminate(30), 0)
        self.put(n1, 500)
        self.wait_sources_spread([n1])
        self.check(n1)

    def test_a_node_that_is_killed_while_it_copies_loses_and_doubles_nothing(self):
        n1, n2 = self.nodes
        self.wait_sources_spread([n1, n2])
        for victim, other in ((n2, n1), (n1, n2)):
            self.put(other, 1000)
            victim.kill()
            self.put(other, 500)
            self.wait_sources_spread([other])
            victim.start()
            self.wait_sources_spread([n1, n2])
        self.check(n1)


if __name__ == "__main__":
    unittest.main()
