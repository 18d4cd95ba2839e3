"""The tests' own codec, checked against the golden batches, so that a fault in it is not taken for one of Grape."""

import json
import pathlib
import unittest

import wire

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "GrapeWireTests" / "Golden"


def unhex(text):
    return None if text is None else bytes.fromhex(text)


class Wire(unittest.TestCase):
    def cases(self):
        for case in json.loads((GOLDEN / "golden.json").read_text())["cases"]:
            records = [
                wire.Record(
                    unhex(item["value"]), unhex(item["key"]), [(name, unhex(value)) for name, value in item["headers"]],
                    item["timestamp"], item["offset"],
                )
                for item in case["records"]
            ]
            yield case, records

    def test_batches_are_read_as_they_were_made(self):
        for case, records in self.cases():
            for file in case["files"]:
                with self.subTest(file=file["file"]):
                    self.assertEqual(wire.unpack_batches((GOLDEN / file["file"]).read_bytes()), records)

    def test_batches_are_written_byte_for_byte(self):
        for case, records in self.cases():
            if case["baseOffset"] == 0:
                with self.subTest(case=case["name"]):
                    golden = (GOLDEN / f"{case['name']}.none.bin").read_bytes()
                    self.assertEqual(wire.pack_batch(records), golden)

    def test_murmur2_gives_what_kafka_gives(self):
        # Known values of Kafka's default partitioner, signed.
        known = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536, b"abc": 479470107}
        for key, expected in known.items():
            self.assertEqual(wire.murmur2(key), expected & 0xFFFFFFFF, key)


if __name__ == "__main__":
    unittest.main()
