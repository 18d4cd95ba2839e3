#!/usr/bin/env python3
"""A worker written from docs/protocol.md alone, for the runtime `executable`.

Its slots: `first` emits `second` with the value in capitals, `second` answers the caller with what it got,
`refuse` rejects with code 42, `emit-many` emits `second` as often as the value says.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import threading
import time

import wire
from wire import Reader, Record, str16

REJECTED, RETRY, EXPIRED, FAILED = 1, 2, 3, 4


class Rejected(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class Worker:
    SLOTS = ("first", "second", "refuse", "emit-many")

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(os.environ["GRAPE_SOCKET"])
        self.sending = threading.Lock()
        self.splitter = wire.FrameSplitter()
        self.working_on = (0, 0)
        self.spread = 0
        hello = {
            "role": "worker", "protocol": [1], "agent": "raw/1", "token": os.environ["GRAPE_TOKEN"],
            "pid": os.getpid(), "slots": list(self.SLOTS), "compression": ["none"],
        }
        self.send(wire.HELLO, 0, json.dumps(hello).encode())

    def send(self, type: int, id: int, body: bytes, flags: int = 0) -> None:
        with self.sending:
            self.socket.sendall(wire.pack_frame(type, id, body, flags))

    def run(self) -> int:
        while True:
            data = self.socket.recv(1 << 20)
            if not data:
                return 0
            for frame in self.splitter.feed(data):
                if frame.type == wire.WELCOME:
                    self.welcome = json.loads(frame.body)
                    threading.Thread(target=self.beat, daemon=True).start()
                elif frame.type == wire.DELIVER:
                    self.deliver(frame)
                elif frame.type == wire.DRAIN:
                    self.send(wire.GOODBYE, 0, json.dumps({"reason": "drained"}).encode())
                    return 0
                elif frame.type == wire.ERROR:
                    print("the node says:", frame.body.decode(), file=sys.stderr)
                    return 1

    def beat(self) -> None:
        while True:
            delivery, done = self.working_on
            self.send(wire.HEARTBEAT, 0, struct.pack(">QII", delivery, done, 0))
            time.sleep(self.welcome["heartbeatMs"] / 1000)

    def deliver(self, frame: wire.Frame) -> None:
        reader = Reader(frame.body)
        _, _, first, end, skipped = reader.take("iIqqI")
        skip = {reader.take("q")[0] for _ in range(skipped)}
        records = [
            record for record in wire.unpack_batches(reader.rest())
            if first <= record.offset < end and record.offset not in skip
        ]
        outputs: list[tuple[str, int, Record]] = []
        verdicts: list[bytes] = []
        tallies: dict[int, list[int]] = {}
        for done, record in enumerate(records):
            self.working_on = (frame.id, done)
            slot = (record.header("g.e") or b"").decode()
            tally = tallies.setdefault(self.welcome["slots"].index(slot), [0, 0, 0])
            begin = time.monotonic_ns()
            deadline = record.header("g.d")
            if deadline is not None and struct.unpack(">q", deadline)[0] < time.time() * 1000:
                verdicts.append(self.verdict(record, EXPIRED, 0, "expired"))
                outputs.extend(self.reply(record, 5, 0, 0, "expired", None))
                tally[1] += 1
                continue
            try:
                made = self.handle(slot, record)
                outputs.extend(made or self.reply(record, 0, 1, 0, "", None))
                tally[0] += 1
            except Rejected as error:
                verdicts.append(self.verdict(record, REJECTED, error.code, error.message))
                outputs.extend(self.reply(record, 1, 1, error.code, error.message, None))
                tally[1] += 1
            tally[2] += time.monotonic_ns() - begin
        self.working_on = (0, 0)
        body = struct.pack(">qI", end, len(verdicts)) + b"".join(verdicts)
        body += struct.pack(">H", len(tallies))
        for index, (well, badly, spent) in tallies.items():
            body += struct.pack(">HIIQ", index, well, badly, spent)
        body += self.pack_outputs(outputs)
        self.send(wire.RESULT, frame.id, body)

    def handle(self, slot: str, record: Record) -> list[tuple[str, int, Record]]:
        if slot == "first":
            return self.emit("second", record, (record.value or b"").upper())
        if slot == "second":
            return self.reply(record, 0, 1, 0, "", record.value)
        if slot == "emit-many":
            made = []
            for number in range(int(record.value or b"0")):
                made.extend(self.emit("second", record, b"%d" % number))
            return made
        raise Rejected(42, "this slot refuses everything")

    def emit(self, name: str, cause: Record, value: bytes) -> list[tuple[str, int, Record]]:
        hops = (cause.header("g.h") or b"\0")[0] + 1
        if hops > self.welcome["maxHops"]:
            raise Rejected(17, "too many hops")
        made = []
        for route in self.welcome["routes"][name]:
            headers = [("g.e", route["event"].encode()), ("g.h", bytes([hops]))]
            headers += [(carried, cause.header(carried)) for carried in ("g.d", "g.r", "traceparent") if cause.header(carried)]
            if cause.key is None:
                self.spread += 1
                partition = self.spread % route["partitions"]
            else:
                partition = wire.partition_of(cause.key, route["partitions"])
            made.append((route["topic"], partition, Record(value, cause.key, headers, int(time.time() * 1000))))
        return made

    def reply(self, record: Record, status: int, ran: int, code: int, message: str, value):
        address = record.header("g.r")
        if address is None:
            return []
        correlation, [partition], topic = address[:16], struct.unpack(">i", address[16:20]), address[20:].decode()
        outcome = struct.pack(">HBBi", status, ran, 1, code) + message.encode()
        return [(topic, partition, Record(value, correlation, [("g.s", outcome)], int(time.time() * 1000)))]

    @staticmethod
    def verdict(record: Record, kind: int, code: int, message: str) -> bytes:
        return struct.pack(">qBBHiI", record.offset, kind, 0, 0, code, 0) + str16(message)

    @staticmethod
    def pack_outputs(outputs: list[tuple[str, int, Record]]) -> bytes:
        grouped: dict[tuple[str, int], list[Record]] = {}
        for topic, partition, record in outputs:
            grouped.setdefault((topic, partition), []).append(record)
        body = struct.pack(">I", len(grouped))
        for (topic, partition), records in grouped.items():
            batch = wire.pack_batch(records)
            body += str16(topic) + struct.pack(">iI", partition, len(batch)) + batch
        return body


if __name__ == "__main__":
    sys.exit(Worker().run())
