"""A client of a node, written from docs/protocol.md alone."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import socket
import struct
import time
from typing import Any, Optional

import wire
from wire import Frame, Reader, Record, bytes32, str16


class Failure(Exception):
    """The node answered with an ERROR frame."""

    def __init__(self, error: dict) -> None:
        super().__init__(f"{error.get('name')}: {error.get('message')}")
        self.status, self.name, self.message = error["status"], error["name"], error["message"]


@dataclasses.dataclass
class Ack:
    durability: int
    partition: int
    offset: int
    topic: str


@dataclasses.dataclass
class Reply:
    status: int
    ran: int
    code: int
    message: str
    value: Optional[bytes]
    final: bool


class Client:
    """One connection. Every wait has a deadline."""

    def __init__(self, path: str, timeout: float = 20.0, hello: bool = True) -> None:
        self.timeout = timeout
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.splitter = wire.FrameSplitter()
        self.frames: list[Frame] = []
        self.next_id = 1
        self.welcome: dict = {}
        try:
            self.socket.connect(path)
            if hello:
                self.hello()
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def hello(self, **members: Any) -> dict:
        body = {"role": "client", "protocol": [1], "agent": "end-to-end/1", **members}
        self.send(wire.HELLO, 0, json.dumps(body).encode())
        frame = self.receive(wire.WELCOME, 0)
        self.welcome = json.loads(frame.body)
        return self.welcome

    def send(self, type: int, id: int, body: bytes = b"", flags: int = 0) -> None:
        self.socket.sendall(wire.pack_frame(type, id, body, flags))

    def fresh_id(self) -> int:
        self.next_id += 1
        return self.next_id - 1

    def any_frame(self) -> Optional[Frame]:
        """The next frame; None when the node has closed the connection."""
        deadline = time.monotonic() + self.timeout
        while not self.frames:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no frame within {self.timeout} s")
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(1 << 20)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self.frames.extend(self.splitter.feed(data))
        return self.frames.pop(0)

    def receive(self, type: int, id: int) -> Frame:
        """The next frame that answers `id`. Others are kept for those who wait for them."""
        others: list[Frame] = []
        try:
            while True:
                frame = self.any_frame()
                if frame is None:
                    raise ConnectionError("the node closed the connection")
                if frame.type == wire.ERROR and frame.id in (0, id):
                    raise Failure(json.loads(frame.body))
                if frame.id == id and (frame.type == type or frame.type == wire.REPLY):
                    return frame
                others.append(frame)
        finally:
            self.frames[:0] = others

    # Events

    def send_exec(
        self, target: str, value: bytes = b"", key: Optional[bytes] = None, block: bool = False,
        durability: int = 0, timeout_ms: int = 0, headers: tuple = (),
    ) -> int:
        id = self.fresh_id()
        body = struct.pack(">BBHI", durability, int(block), 0, timeout_ms) + str16(target) + bytes32(key) + bytes32(value)
        body += struct.pack(">H", len(headers)) + b"".join(str16(name) + bytes32(data) for name, data in headers)
        self.send(wire.EXEC, id, body)
        return id

    def exec(self, target: str, value: bytes = b"", key: Optional[bytes] = None, **options: Any) -> Ack | Reply:
        return self.answer(self.send_exec(target, value, key, **options))

    def answer(self, id: int) -> Ack | Reply:
        frame = self.receive(wire.ACK, id)
        reader = Reader(frame.body)
        if frame.type == wire.ACK:
            durability, _, _, partition, offset = reader.take("BBHiq")
            return Ack(durability, partition, offset, reader.str16())
        status, ran, _, code = reader.take("HBBi")
        return Reply(status, ran, code, reader.str16(), reader.bytes32(), bool(frame.flags & 1))

    def send_append(self, app: str, batches: list[tuple[int, bytes]], durability: int = 0) -> int:
        id = self.fresh_id()
        body = struct.pack(">BBH", durability, 0, len(batches)) + str16(app)
        for partition, batch in batches:
            body += struct.pack(">iI", partition, len(batch)) + batch
        self.send(wire.APPEND, id, body)
        return id

    def appended(self, id: int) -> tuple[str, list[tuple[int, int]]]:
        """The topic, and partition and base offset of every batch."""
        reader = Reader(self.receive(wire.APPENDED, id).body)
        _, _, count = reader.take("BBH")
        topic = reader.str16()
        return topic, [reader.take("iq") for _ in range(count)]

    def append(self, app: str, records: list[Record], partition: int = -1, durability: int = 0):
        return self.appended(self.send_append(app, [(partition, wire.pack_batch(records))], durability))

    # Reading

    def fetch(self, topic: str, partition: int, offset: int, max_bytes: int = 1 << 20, wait_ms: int = 0):
        """Log start, end, where to continue, and the records from `offset` on."""
        id = self.fresh_id()
        self.send(wire.FETCH, id, str16(topic) + struct.pack(">iqII", partition, offset, max_bytes, wait_ms))
        reader = Reader(self.receive(wire.FETCHED, id).body)
        start, end, following = reader.take("qqq")
        records = wire.unpack_batches(reader.rest())
        return start, end, following, [record for record in records if record.offset >= offset]

    def read_all(self, topic: str, partition: int) -> list[Record]:
        """Every record from the first to the present end."""
        found: list[Record] = []
        offset = -2
        while True:
            _, end, following, records = self.fetch(topic, partition, offset)
            found.extend(records)
            if following >= end:
                return found
            if following <= offset:
                raise wire.Malformed(f"next offset {following} after {offset}")
            offset = following

    # Administration

    def request(self, op: str, blob: bytes = b"", **members: Any) -> dict:
        return self.request_with_blob(op, blob, **members)[0]

    def request_with_blob(self, op: str, blob: bytes = b"", **members: Any) -> tuple[dict, bytes]:
        """The answer's JSON and its blob. On Kafka a partition comes to its node by and by: state is asked for until it is there."""
        deadline = time.monotonic() + 30
        while True:
            try:
                return self.request_once(op, blob, **members)
            except Failure as error:
                if op != "state.read" or "not worked on by this node" not in error.message or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def request_once(self, op: str, blob: bytes = b"", **members: Any) -> tuple[dict, bytes]:
        """The same, whatever the answer is."""
        id = self.fresh_id()
        text = json.dumps({"op": op, **members}).encode()
        self.send(wire.REQUEST, id, struct.pack(">I", len(text)) + text + blob)
        reader = Reader(self.receive(wire.RESPONSE, id).body)
        [size] = reader.take("I")
        return json.loads(reader.raw(size)), reader.rest()

    def deploy(self, archive: bytes, chunk: int = 1 << 20) -> dict:
        """Uploads a package (tar, tar.gz or tar.zst) and deploys it."""
        upload = self.request("deploy.begin", bytes=len(archive), sha256=hashlib.sha256(archive).hexdigest())["upload"]
        for offset in range(0, len(archive), chunk):
            self.request("deploy.chunk", archive[offset : offset + chunk], upload=upload, offset=offset)
        return self.request("deploy.finish", upload=upload)
