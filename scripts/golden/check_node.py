#!/usr/bin/env python3
"""Sends events through a node and reads the batches of its log with kafka-python: the check of what a node writes.

Single events, rows that are ingested, compressed and not, and what a Python worker emits are compared, key and value,
with what was sent.
GRAPE names the binary. Needs kafka-python and zstandard, as make_golden.py. Exit code 1 if a batch is damaged or differs.
"""

import collections
import os
import pathlib
import random
import struct
import sys
import unittest

sys.path.insert(0, os.fspath(pathlib.Path(__file__).resolve().parents[2] / "Tests" / "EndToEnd"))

import wire  # noqa: E402
from node import RELAY, RELAY_SLOTS, EndToEnd  # noqa: E402
from read_batches import read  # noqa: E402


def raw_batches(client, topic, partition):
    """The bytes of a partition, from its first batch to its present end."""
    offset, found = -2, b""
    while True:
        id = client.fresh_id()
        client.send(wire.FETCH, id, wire.str16(topic) + struct.pack(">iqII", partition, offset, 1 << 20, 0))
        reader = wire.Reader(client.receive(wire.FETCHED, id).body)
        _, end, following = reader.take("qqq")
        found += reader.rest()
        if following >= end:
            return found
        offset = following


class WhatANodeWrites(EndToEnd):
    def runTest(self):
        seed = int(os.environ.get("GRAPE_SEED", random.randrange(1 << 32)))
        print(f"seed {seed} (GRAPE_SEED repeats it)")
        rng = random.Random(seed)
        node = self.running_node()
        node.deploy(self.python_app("relay", RELAY, RELAY_SLOTS))

        sent = collections.Counter()
        with node.client() as client:
            for _ in range(200):
                key = rng.choice([None, b"", rng.randbytes(rng.choice([1, 63, 64, 300]))])
                value = rng.randbytes(rng.choice([0, 1, 63, 64, 8191, 8192, 100_000]))
                client.exec("relay@in", value, key=key)
                sent[key, value] += 1
        for options in ([], ["--compress"]):
            lines = [f"line {number} {rng.random()}" for number in range(5000)]
            node.grape("ingest", "relay@in", "-", *options, input="".join(line + "\n" for line in lines))
            sent.update((None, line.encode()) for line in lines)
        node.wait_idle()

        with node.client() as client:
            ends = node.ends("relay.events")
            batches = [batch for partition in range(len(ends)) for batch in read(raw_batches(client, "relay.events", partition))]
        names = {"in": collections.Counter(), "out": collections.Counter()}
        for batch in batches:
            for record in batch["records"]:
                headers = dict(record["headers"])
                key, value = (None if data is None else bytes.fromhex(data) for data in (record["key"], record["value"]))
                names[bytes.fromhex(headers["g.e"]).decode()][key, value] += 1
        self.assertEqual(names["in"], sent, "events that were sent")
        self.assertEqual(names["out"], sent, "events that the worker emitted")
        codecs = collections.Counter(batch["codec"] for batch in batches)
        self.assertEqual(codecs.keys(), {"none", "zstd"}, "codecs that were used")
        print(f"{sum(ends)} records in {len(batches)} batches agree; codecs: {dict(codecs)}")


if __name__ == "__main__":
    unittest.main()
