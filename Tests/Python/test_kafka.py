"""Record batches that workers make, read by an independent implementation of the format: kafka-python.

Skipped where that package cannot be imported: `pip install kafka-python` (and run with that interpreter).
"""

import random
import struct
import sys
import unittest

import fake_node

sys.path.insert(0, fake_node.SDK)

import grape  # noqa: E402

try:
    from kafka.record import MemoryRecords
    from kafka.record.default_records import DefaultRecordBatchBuilder
    from kafka.record.util import calc_crc32c
except ImportError as error:
    MISSING = f"kafka-python cannot be imported ({error}): pip install kafka-python"
else:
    MISSING = None


class Runs:
    """Runs deliveries in this process."""

    def __init__(self, handler):
        app = grape.Application()
        app.on("raw")(handler)
        self.worker = grape._Worker(app)
        self.runner = grape._Runner(app._callables(), {"slots": ["raw"], "routes": fake_node.ROUTES}, grape.Log())

    def run(self, batch, count):
        body = struct.pack(">iIqqI", 0, 1, 0, count, 0) + batch
        return fake_node.Result(b"".join(self.worker._drive(self.runner.run(grape._Delivery(1, body)))))


def with_crc(batch):
    """The batch as the node makes it: with its CRC."""
    return batch[:17] + struct.pack(">I", calc_crc32c(batch[21:])) + batch[21:]


@unittest.skipIf(MISSING, MISSING)
class KafkaReadsWhatWeWrite(unittest.TestCase):
    def test_random_batches_both_ways(self):
        seed = random.randrange(1 << 32)
        print(f"\nbatches of kafka-python: seed {seed}")
        rng = random.Random(seed)

        def text(limit):
            return bytes(rng.getrandbits(8) for _ in range(rng.randrange(limit)))

        for turn in range(60):
            with self.subTest(seed=seed, turn=turn):
                count = rng.choice([1, 2, 63, 64, 65, 300])
                sent = []
                builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 30)
                for index in range(count):
                    key = rng.choice([None, b"", text(100)])
                    value = text(rng.choice([3, 70, 200, 9000]))
                    headers = [("h%d" % i, text(80)) for i in range(rng.choice([0, 0, 1, 3]))]
                    time = 1_700_000_000_000 + rng.choice([0, index, index * 1000, -index])
                    builder.append(index, time, key, value, [("g.e", b"raw")] + headers)
                    sent.append((key, value, headers, time))
                seen = []

                def handler(event, ctx):
                    seen.append((event.key, event.value, list(event.headers.items()), event.timestamp))
                    ctx.emit("counted", event.value, key=event.key, headers=event.headers)

                result = Runs(handler).run(bytes(builder.build()), count)
                self.assertEqual(result.verdicts, [])
                self.assertEqual(seen, sent)
                read = []
                for _, _, data in result.batches:
                    records = MemoryRecords(with_crc(data))
                    batch = records.next_batch()
                    self.assertTrue(batch.validate_crc())
                    for index, record in enumerate(batch):
                        self.assertEqual(record.offset, index)
                        head = [("g.e", b"flight"), ("g.h", b"\x01")]
                        self.assertEqual(list(record.headers)[:2], head)
                        read.append((record.key, record.value, list(record.headers)[2:]))
                self.assertEqual(sorted(map(repr, read)), sorted(repr(item[:3]) for item in sent))


if __name__ == "__main__":
    unittest.main()
