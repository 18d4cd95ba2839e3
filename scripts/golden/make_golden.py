#!/usr/bin/env python3
"""Writes the golden record batches of Tests/GrapeWireTests/Golden, with kafka-python as the independent implementation.

  python3 -m venv /tmp/golden && /tmp/golden/bin/pip install kafka-python==3.0.12 zstandard==0.25.0
  /tmp/golden/bin/python scripts/golden/make_golden.py

The output depends on nothing but this file and the versions of the two packages.
"""

import json
import pathlib
import random
import struct

import kafka
import zstandard
from kafka.record.default_records import DefaultRecordBatchBuilder

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "Tests" / "GrapeWireTests" / "Golden"
CODECS = {"none": 0, "zstd": 4}
NOW = 1_700_000_000_000


def record(value=b"value", key=b"key", timestamp=NOW, headers=()):
    return {"timestamp": timestamp, "key": key, "value": value, "headers": list(headers)}


def cases():
    """(name, base offset, records) of every golden file."""
    yield "one", 0, [record()]
    yield "empty-key-and-value", 0, [record(key=b"", value=b""), record(key=b"", value=b"v"), record(key=b"k", value=b"")]
    yield "null-key", 0, [record(key=None), record(key=None, value=b"")]
    yield "null-value", 0, [record(value=None), record(key=None, value=None)]
    yield "event-header", 0, [record(headers=[("g.e", b"parsed")])]
    yield "many-headers", 0, [
        record(headers=[(f"header-{number:03}", b"x" * number) for number in range(200)]),
        record(headers=[]),
        record(headers=[("twice", b"1"), ("twice", b"2")]),
    ]
    yield "header-values", 0, [
        record(headers=[("null", None), ("empty", b""), ("", b"empty name"), ("binary", bytes(range(256)))])
    ]
    yield "unicode", 0, [
        record(key="clé-ключ-鍵".encode(), value="naïve 🍇 ぶどう".encode(), headers=[("köpfchen-🍇", "świeży".encode())])
    ]
    yield "not-utf8", 0, [record(key=b"\xff\xfe\x00", value=bytes(range(256)))]
    yield "timestamps", 0, [
        record(timestamp=NOW + delta)
        for delta in (
            0, 1, -1, 63, -64, 64, -65, 8191, -8192, 8192, -8193, 1_048_575, -1_048_576, 1_048_576, -1_048_577,
            2**31 - 1, -(2**31), 2**31, 2**34, -(2**34) - 1, 2**40,
        )
    ]
    yield "timestamp-before-1970", 0, [record(timestamp=-1_000), record(timestamp=-2_000), record(timestamp=0)]
    yield "timestamp-zero", 0, [record(timestamp=0)]
    # A length n is written zigzag-encoded, so the number of its bytes changes between 63 and 64, 8191 and 8192, ...
    yield "value-lengths", 0, [
        record(key=None, value=b"v" * length)
        for length in (0, 1, 62, 63, 64, 65, 127, 128, 129, 8190, 8191, 8192, 8193)
    ]
    yield "key-lengths", 0, [
        record(key=b"k" * length, value=None) for length in (0, 1, 62, 63, 64, 65, 127, 128, 129, 8191, 8192)
    ]
    # The record's own length crosses the same bounds a little earlier.
    yield "record-lengths", 0, [record(key=None, value=b"r" * length) for length in (*range(50, 64), *range(8182, 8187))]
    yield "header-lengths", 0, [
        record(headers=[("n" * length, b"v" * length)]) for length in (1, 63, 64, 127, 128, 8191, 8192)
    ]
    yield "base-offset", 1_234_567_890_123, [record(value=b"%d" % number) for number in range(3)]
    yield "five-hundred", 0, list(five_hundred())
    yield "big-value", 0, [record(value=words(100 * 1024)), record(value=b"after the big one")]


def five_hundred():
    """Records as they look in use: keys repeat, values are JSON, timestamps nearly in order."""
    source = random.Random(20130101)
    for number in range(500):
        value = {"n": number, "carrier": source.choice(("UA", "AA", "B6", "DL")), "delay": source.randint(-60, 600)}
        yield record(
            key=b"%08d" % source.randrange(100),
            value=json.dumps(value).encode(),
            timestamp=NOW + number * 7 + source.randint(-20, 20),
            headers=[("g.e", b"raw")],
        )


def words(size):
    source = random.Random(42)
    text = b" ".join(source.choice((b"grape", b"vine", b"must", b"cask", b"leaf")) for _ in range(size // 4))
    return text[:size]


def build(records, base_offset, codec):
    """The batch's bytes; None if the codec gains nothing (the builder then leaves the records uncompressed)."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=CODECS[codec], is_transactional=False,
        producer_id=-1, producer_epoch=-1, base_sequence=-1, batch_size=1 << 30,
    )
    for delta, item in enumerate(records):
        builder.append(delta, item["timestamp"], item["key"], item["value"], item["headers"])
    batch = bytearray(builder.build())
    # Both fields are set by whoever stores the batch, and the CRC covers neither. kafka-python leaves 0 in the leader
    # epoch; Kafka's own producer, and the rules of docs/protocol.md, have -1.
    struct.pack_into(">q", batch, 0, base_offset)
    struct.pack_into(">i", batch, 12, -1)
    attributes = struct.unpack_from(">h", batch, 21)[0]
    return bytes(batch) if attributes & 7 == CODECS[codec] else None


def text(value):
    return None if value is None else value.hex()


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.glob("*.bin"):
        old.unlink()
    described = []
    for name, base_offset, records in cases():
        files = []
        for codec in CODECS:
            batch = build(records, base_offset, codec)
            if batch is not None:
                file = f"{name}.{codec}.bin"
                (FOLDER / file).write_bytes(batch)
                files.append({"file": file, "codec": codec})
        timestamps = [item["timestamp"] for item in records]
        described.append({
            "name": name,
            "files": files,
            "baseOffset": base_offset,
            "baseTimestamp": timestamps[0],
            "maxTimestamp": max(timestamps),
            "records": [
                {
                    "offset": base_offset + delta,
                    "timestamp": item["timestamp"],
                    "key": text(item["key"]),
                    "value": text(item["value"]),
                    "headers": [[header, text(value)] for header, value in item["headers"]],
                }
                for delta, item in enumerate(records)
            ],
        })
    versions = {"kafka-python": kafka.__version__, "zstandard": zstandard.__version__}
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in described)
    (FOLDER / "golden.json").write_text(f'{{"madeWith":{json.dumps(versions)},"cases":[\n{lines}\n]}}\n')
    print(f"{sum(len(case['files']) for case in described)} files of {len(described)} cases in {FOLDER}")


if __name__ == "__main__":
    main()
