"""Frames and record batches, written from docs/protocol.md alone: nothing of Grape's own code is used here.

Only uncompressed batches are written; zstd ones are read through the program `zstd`.
"""

from __future__ import annotations

import dataclasses
import struct
import subprocess
from typing import Iterator, Optional, Union

HELLO, WELCOME, ERROR, HEARTBEAT, GOODBYE = 0x01, 0x02, 0x03, 0x04, 0x05
EXEC, ACK, REPLY, APPEND, APPENDED, FETCH, FETCHED, CANCEL = range(0x10, 0x18)
REQUEST, RESPONSE = 0x20, 0x21
DELIVER, RESULT, LOG, DRAIN = 0x30, 0x31, 0x32, 0x33

STATUS = {
    "ok": 0, "handler-error": 1, "no-such-app": 2, "no-such-slot": 3, "queue-full": 4, "deadline-exceeded": 5,
    "too-large": 6, "gave-up": 7, "unavailable": 8, "bad-request": 9, "unauthorized": 10, "internal": 11,
    "conflict": 12, "unsupported-version": 13, "missing-slot": 14, "not-found": 15, "offset-out-of-range": 16,
    "hop-limit": 17, "fenced": 18,
}


class Malformed(Exception):
    """The peer sent what the protocol does not allow."""


@dataclasses.dataclass
class Frame:
    type: int
    flags: int
    id: int
    body: bytes


def pack_frame(type: int, id: int, body: bytes = b"", flags: int = 0) -> bytes:
    return struct.pack(">IBBHQ", 12 + len(body), type, flags, 0, id) + body


class FrameSplitter:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self.pending = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        self.pending += data
        while len(self.pending) >= 4:
            [length] = struct.unpack_from(">I", self.pending)
            if length < 12:
                raise Malformed(f"frame length {length}")
            if len(self.pending) < 4 + length:
                return
            type, flags, reserved, id = struct.unpack_from(">BBHQ", self.pending, 4)
            if reserved != 0:
                raise Malformed(f"reserved field {reserved}")
            body = bytes(self.pending[16 : 4 + length])
            del self.pending[: 4 + length]
            yield Frame(type, flags, id, body)


def str16(text: Union[str, bytes]) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack(">H", len(data)) + data


def bytes32(data: Optional[bytes]) -> bytes:
    return struct.pack(">i", -1) if data is None else struct.pack(">i", len(data)) + data


class Reader:
    """Takes a body apart from its beginning."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, format: str) -> tuple:
        size = struct.calcsize(">" + format)
        return struct.unpack(">" + format, self.raw(size))

    def raw(self, size: int) -> bytes:
        if size < 0 or self.at + size > len(self.data):
            raise Malformed(f"{size} bytes wanted at {self.at} of {len(self.data)}")
        self.at += size
        return self.data[self.at - size : self.at]

    def str16(self) -> str:
        [size] = self.take("H")
        return self.raw(size).decode()

    def bytes32(self) -> Optional[bytes]:
        [size] = self.take("i")
        return None if size == -1 else self.raw(size)

    def rest(self) -> bytes:
        return self.raw(len(self.data) - self.at)

    def varint(self) -> int:
        result = shift = 0
        while True:
            [byte] = self.raw(1)
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return (result >> 1) ^ -(result & 1)
            shift += 7
            if shift > 63:
                raise Malformed("varint of more than ten bytes")

    def varbytes(self) -> Optional[bytes]:
        size = self.varint()
        return None if size == -1 else self.raw(size)


def varint(value: int) -> bytes:
    rest = (value << 1) ^ (value >> 63)
    out = bytearray()
    while rest >= 0x80:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def varbytes(data: Optional[bytes]) -> bytes:
    return varint(-1) if data is None else varint(len(data)) + data


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_CRC = _crc_table()


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _CRC[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


@dataclasses.dataclass
class Record:
    value: Optional[bytes]
    key: Optional[bytes] = None
    headers: list[tuple[str, Optional[bytes]]] = dataclasses.field(default_factory=list)
    timestamp: int = 0
    offset: int = -1

    def header(self, name: str) -> Optional[bytes]:
        return next((value for found, value in self.headers if found == name), None)


def pack_batch(records: list[Record]) -> bytes:
    """A batch fit to enter a node."""
    base = records[0].timestamp
    packed = bytearray()
    for delta, record in enumerate(records):
        body = bytearray(b"\0")
        body += varint(record.timestamp - base) + varint(delta) + varbytes(record.key) + varbytes(record.value)
        body += varint(len(record.headers))
        for name, value in record.headers:
            body += varbytes(name.encode()) + varbytes(value)
        packed += varint(len(body)) + body
    covered = struct.pack(
        ">hiqqqhii", 0, len(records) - 1, base, max(record.timestamp for record in records), -1, -1, -1, len(records)
    ) + packed
    return struct.pack(">qiibI", 0, 9 + len(covered), -1, 2, crc32c(covered)) + covered


def unpack_batches(data: bytes, check_crc: bool = True) -> list[Record]:
    """The records of batches that stand one after the other."""
    records = []
    reader = Reader(data)
    while reader.at < len(data):
        base_offset, length = reader.take("qi")
        batch = Reader(reader.raw(length))
        _, magic, crc = batch.take("ibI")
        if magic != 2:
            raise Malformed(f"magic {magic}")
        if check_crc and crc != crc32c(batch.data[batch.at :]):
            raise Malformed("wrong CRC")
        attributes, last_delta, base_time, _, _, _, _, count = batch.take("hiqqqhii")
        if last_delta != count - 1:
            raise Malformed(f"last offset delta {last_delta} of {count} records")
        payload = batch.rest()
        if attributes & 7 == 4:
            payload = subprocess.run(["zstd", "-dc"], input=payload, stdout=subprocess.PIPE, check=True).stdout
        elif attributes & 7 != 0:
            raise Malformed(f"codec {attributes & 7}")
        inner = Reader(payload)
        for number in range(count):
            record = Reader(inner.raw(inner.varint()))
            record.raw(1)
            time_delta, offset_delta = record.varint(), record.varint()
            if offset_delta != number:
                raise Malformed(f"offset delta {offset_delta} of record {number}")
            key, value = record.varbytes(), record.varbytes()
            headers = [((record.varbytes() or b"").decode(), record.varbytes()) for _ in range(record.varint())]
            records.append(Record(value, key, headers, base_time + time_delta, base_offset + offset_delta))
            if record.at != len(record.data):
                raise Malformed("bytes left in a record")
        if inner.at != len(payload):
            raise Malformed("bytes left in a batch")
    return records


def murmur2(data: bytes) -> int:
    """As in Kafka's default partitioner, unsigned."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ len(data)
    whole = len(data) // 4 * 4
    for [k] in struct.iter_unpack("<I", data[:whole]):
        k = k * m & mask
        k = (k ^ k >> 24) * m & mask
        h = h * m & mask ^ k
    tail = data[whole:]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


def partition_of(key: bytes, partitions: int) -> int:
    return (murmur2(key) & 0x7FFFFFFF) % partitions
