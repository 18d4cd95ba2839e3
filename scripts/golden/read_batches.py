#!/usr/bin/env python3
"""Reads record batches with kafka-python and prints them as JSON: the check of what Grape writes.

  read_batches.py FILE                    FILE: record batches one after the other
  read_batches.py --golden FOLDER         reads FOLDER/*.bin and compares them with FOLDER/golden.json

Needs kafka-python and zstandard, as make_golden.py. Exit code 1 if a batch is damaged or differs.
"""

import argparse
import json
import pathlib
import struct
import sys

from kafka.record import MemoryRecords

CODECS = {0: "none", 1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}


class Damaged(Exception):
    """The bytes are not a sequence of sound record batches."""


def read(data):
    """The batches in `data` as JSON values."""
    covered = 0
    batches = []
    reader = MemoryRecords(data)
    while reader.has_next():
        batch = reader.next_batch()
        if batch.magic != 2:
            raise Damaged(f"batch at byte {covered}: magic {batch.magic}, expected 2")
        if not batch.validate_crc():
            raise Damaged(f"batch at byte {covered}: wrong CRC")
        covered += batch.size_in_bytes
        batches.append(describe(batch))
    if covered != len(data):
        raise Damaged(f"{len(data) - covered} bytes after the last whole batch")
    return batches


def describe(batch):
    fields = {
        "codec": CODECS[batch.compression_type],
        "size": batch.size_in_bytes,
        "baseOffset": batch.base_offset,
        "lastOffset": batch.last_offset,
        "leaderEpoch": batch.leader_epoch,
        "baseTimestamp": batch.first_timestamp,
        "maxTimestamp": batch.max_timestamp,
        "producerId": batch.producer_id,
        "producerEpoch": batch.producer_epoch,
        "baseSequence": batch.base_sequence,
    }
    fields["records"] = [
        {
            "offset": record.offset,
            "timestamp": record.timestamp,
            "key": text(record.key),
            "value": text(record.value),
            "headers": [[name, text(value)] for name, value in record.headers],
        }
        for record in batch
    ]
    return fields


def text(value):
    return None if value is None else bytes(value).hex()


def check_golden(folder):
    golden = json.loads((folder / "golden.json").read_text())
    checked = 0
    for case in golden["cases"]:
        for file in case["files"]:
            [batch] = read((folder / file["file"]).read_bytes())
            for field in ("baseOffset", "baseTimestamp", "maxTimestamp", "records"):
                if batch[field] != case[field]:
                    raise Damaged(f"{file['file']}: {field} differs from golden.json")
            if batch["codec"] != file["codec"]:
                raise Damaged(f"{file['file']}: codec {batch['codec']}, golden.json says {file['codec']}")
            checked += 1
            checked += check_filtered(folder / "filtered" / file["file"], case)
    print(f"{checked} files agree with golden.json")


def check_filtered(path, case):
    """Holds what compaction left of a golden batch against the case: every third record, from the second on, is gone."""
    if not path.exists():
        return 0
    [batch] = read(path.read_bytes())
    left = [record for number, record in enumerate(case["records"]) if number % 3 != 1]
    expected = {
        "baseOffset": case["baseOffset"],
        "lastOffset": case["records"][-1]["offset"],
        "baseTimestamp": case["baseTimestamp"],
        "maxTimestamp": max(record["timestamp"] for record in left),
        "codec": path.suffixes[-2][1:],
        "records": left,
    }
    for field, value in expected.items():
        if batch[field] != value:
            raise Damaged(f"filtered/{path.name}: {field} is {batch[field]!r:.200}, expected {value!r:.200}")
    return 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=pathlib.Path)
    parser.add_argument("--golden", type=pathlib.Path, metavar="FOLDER")
    arguments = parser.parse_args()
    if (arguments.file is None) == (arguments.golden is None):
        parser.error("give either a file or --golden FOLDER")
    try:
        if arguments.golden is not None:
            check_golden(arguments.golden)
        else:
            json.dump(read(arguments.file.read_bytes()), sys.stdout)
            print()
    except (Damaged, struct.error) as error:
        print(f"read_batches.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
