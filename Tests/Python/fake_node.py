"""A node for tests of worker SDKs, written from docs/protocol.md alone: it shares no code with the SDK.

`FakeNode` listens on a Unix socket, starts a worker process and speaks to it. Every wait has a deadline. The codec
functions at the top are plain rather than fast, so that they can serve as the independent opinion.
"""

import json
import os
import queue
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SDK = os.path.normpath(os.path.join(HERE, "..", "..", "Sources", "CGrapeResources", "sdk", "python"))

HELLO, WELCOME, ERROR, HEARTBEAT, GOODBYE = 0x01, 0x02, 0x03, 0x04, 0x05
DELIVER, RESULT, LOG, DRAIN, STATE, STATED = 0x30, 0x31, 0x32, 0x33, 0x34, 0x35
REJECTED, RETRY, EXPIRED, FAILED = 1, 2, 3, 4

PATIENCE = 20.0  # seconds that any single wait may take before the test fails


# Codec


def varint(number):
    """Signed, zigzag."""
    number = number * 2 if number >= 0 else -number * 2 - 1
    out = []
    while True:
        low = number % 128
        number //= 128
        if number == 0:
            out.append(low)
            return bytes(out)
        out.append(low + 128)


class Reader:
    def __init__(self, data):
        self.data = data
        self.at = 0

    def take(self, count):
        if self.at + count > len(self.data):
            raise ValueError(f"{count} bytes wanted at {self.at} of {len(self.data)}")
        part = self.data[self.at : self.at + count]
        self.at += count
        return part

    def unpack(self, layout):
        return struct.unpack(">" + layout, self.take(struct.calcsize(">" + layout)))

    def varint(self):
        result = 0
        shift = 0
        while True:
            (byte,) = self.take(1)
            result += (byte % 128) * 2**shift
            shift += 7
            if byte < 128:
                break
        return result // 2 if result % 2 == 0 else -(result + 1) // 2

    def field(self):
        size = self.varint()
        return None if size == -1 else self.take(size)

    def str16(self):
        (size,) = self.unpack("H")
        return self.take(size).decode("utf-8")

    @property
    def finished(self):
        return self.at == len(self.data)


class Record:
    """One event. `headers` is a list of pairs of bytes."""

    def __init__(self, key=None, value=b"", headers=(), age=0):
        self.key, self.value, self.headers, self.age = key, value, list(headers), age
        self.offset = 0
        self.timestamp = 0

    def header(self, name):
        found = [value for key, value in self.headers if key == name]
        if len(found) > 1:
            raise ValueError(f"header {name} appears {len(found)} times")
        return found[0] if found else None

    @property
    def event(self):
        return self.header(b"g.e").decode("utf-8")

    def __repr__(self):
        return f"<Record {self.key!r} {self.value!r} {self.headers!r}>"


def event(name, value=b"", key=None, hops=None, deadline=None, reply=None, headers=(), age=0):
    """A record of an event as a node holds it. `reply` is (correlation id, partition, topic)."""
    fields = [(b"g.e", name.encode())]
    if hops is not None:
        fields.append((b"g.h", bytes([hops])))
    if deadline is not None:
        fields.append((b"g.d", struct.pack(">q", deadline)))
    if reply is not None:
        fields.append((b"g.r", address(*reply)))
    fields.extend(headers)
    return Record(key, value, fields, age)


def address(correlation, partition, topic):
    return correlation + struct.pack(">i", partition) + topic.encode()


def encode_batch(records, base=0, base_time=1_700_000_000_000, deltas=None):
    """A record batch, not compressed. `deltas`: offset deltas, if not 0, 1, 2, … The CRC is 0."""
    deltas = list(range(len(records))) if deltas is None else list(deltas)
    body = b""
    pieces = []
    for delta, record in zip(deltas, records):
        body = b"\0" + varint(record.age) + varint(delta)
        for field in (record.key, record.value):
            body += varint(-1) if field is None else varint(len(field)) + field
        body += varint(len(record.headers))
        for name, value in record.headers:
            body += varint(len(name)) + name
            body += varint(-1) if value is None else varint(len(value)) + value
        pieces.append(varint(len(body)) + body)
    payload = b"".join(pieces)
    newest = base_time + max(record.age for record in records)
    after_length = struct.pack(">ibIhiqqqhii", -1, 2, 0, 0, deltas[-1], base_time, newest, -1, -1, -1, len(records))
    return struct.pack(">qi", base, len(after_length) + len(payload)) + after_length + payload


def decode_batch(data):
    """The records of a batch, after checking every rule for batches that enter a node (but the CRC)."""
    reader = Reader(data)
    base, size, epoch, magic, crc, attributes, last, first_time, max_time, producer, producer_epoch, sequence, count = (
        reader.unpack("qiibIhiqqqhii")
    )
    expected = (0, len(data) - 12, -1, 2, 0, 0, count - 1, -1, -1, -1)
    if (base, size, epoch, magic, crc, attributes, last, producer, producer_epoch, sequence) != expected or count < 1:
        raise ValueError(f"bad batch header: {data[:61].hex()}")
    records = []
    for index in range(count):
        body = Reader(reader.take(reader.varint()))
        (zero,) = body.take(1)
        record = Record(age=body.varint())
        record.offset = body.varint()
        record.key = body.field()
        record.value = body.field()
        record.timestamp = first_time + record.age
        for _ in range(body.varint()):
            record.headers.append((body.field(), body.field()))
        if zero != 0 or record.offset != index or not body.finished:
            raise ValueError(f"bad record {index}")
        records.append(record)
    if not reader.finished:
        raise ValueError("bytes behind the last record")
    if max(record.timestamp for record in records) != max_time:
        raise ValueError("max timestamp is not that of the newest record")
    return records


def murmur2_partition(key, partitions):
    """Kafka's default partitioner, computed byte by byte with signed 32-bit arithmetic."""

    def u32(number):
        return number % 2**32

    h = u32(0x9747B28C ^ len(key))
    whole = len(key) - len(key) % 4
    for i in range(0, whole, 4):
        k = key[i] + key[i + 1] * 2**8 + key[i + 2] * 2**16 + key[i + 3] * 2**24
        k = u32(k * 0x5BD1E995)
        k ^= k // 2**24
        k = u32(k * 0x5BD1E995)
        h = u32(h * 0x5BD1E995) ^ k
    rest = key[whole:]
    if len(rest) == 3:
        h ^= rest[2] * 2**16
    if len(rest) >= 2:
        h ^= rest[1] * 2**8
    if len(rest) >= 1:
        h ^= rest[0]
        h = u32(h * 0x5BD1E995)
    h ^= h // 2**13
    h = u32(h * 0x5BD1E995)
    h ^= h // 2**15
    return (h % 2**31) % partitions


class Result:
    """A RESULT body, taken apart."""

    def __init__(self, body):
        reader = Reader(body)
        (self.processed, count) = reader.unpack("qI")
        self.verdicts = []
        for _ in range(count):
            offset, verdict, zero, zeros, code, delay = reader.unpack("qBBHiI")
            if zero or zeros:
                raise ValueError("reserved bytes of a verdict are not 0")
            self.verdicts.append((offset, verdict, code, delay, reader.str16()))
        (count,) = reader.unpack("H")
        self.tallies = [reader.unpack("HIIQ") for _ in range(count)]
        (count,) = reader.unpack("I")
        self.batches = []  # (topic, partition, bytes)
        for _ in range(count):
            topic = reader.str16()
            partition, size = reader.unpack("iI")
            self.batches.append((topic, partition, reader.take(size)))
        if not reader.finished:
            raise ValueError("bytes behind the last output")

    def records(self, topic=None):
        """(topic, partition, record) of all outputs, in order."""
        return [
            (name, partition, record)
            for name, partition, data in self.batches
            if topic is None or name == topic
            for record in decode_batch(data)
        ]

    def counts(self):
        """Slot index to (succeeded, failed)."""
        return {slot: (good, bad) for slot, good, bad, _ in self.tallies}

    def replies(self):
        """Correlation id to a list of (status, ran, flags, code, message, value)."""
        found = {}
        for topic, _, record in self.records():
            if not topic.startswith("_grape.replies."):
                continue
            state = record.header(b"g.s")
            if len(record.headers) != 1:
                raise ValueError(f"a reply has other headers than g.s: {record.headers}")
            status, ran, flags, code = struct.unpack_from(">HBBi", state)
            found.setdefault(record.key, []).append((status, ran, flags, code, state[8:].decode(), record.value))
        return found


# The node

ROUTES = {
    "counted": [{"topic": "stats.events", "event": "flight", "partitions": 4}],
    "parsed": [{"topic": "flights.events", "event": "parsed", "partitions": 4}],
    "both": [
        {"topic": "stats.events", "event": "flight", "partitions": 4},
        {"topic": "audit.events", "event": "seen", "partitions": 1},
    ],
    "nobody": [],
}


class FakeNode:
    """Starts a worker from the text of its program. Use as a context manager; kills the worker at the end."""

    def __init__(self, program, slots, routes=ROUTES, answer_heartbeats=True, python=None, **welcome):
        self.folder = tempfile.mkdtemp(prefix="grape-test-")
        self.path = os.path.join(self.folder, "w.sock")
        self.welcome = {
            "protocol": 1, "node": "n1", "app": "flights", "version": "4be1", "worker": "flights-3",
            "heartbeatMs": 2000, "maxFrame": 67174400, "maxEvent": 8388608, "maxHops": 64, "credits": 4,
            "slots": list(slots), "config": {"limit": 7}, "routes": routes,
        }  # fmt: skip
        self.welcome.update(welcome)
        self.answer_heartbeats = answer_heartbeats
        self.answer_state = None  # a function from a STATE body to a STATED one; None: the test takes the frames
        self.frames = {kind: queue.Queue() for kind in (HELLO, HEARTBEAT, GOODBYE, RESULT, LOG, STATE)}
        self.order = []  # kinds of all frames, in order of arrival
        self.ended = threading.Event()
        self.fault = None
        self.next_id = 1
        # Frames leave by a thread of their own: the one that reads must never wait for the worker to read.
        self.outgoing = queue.Queue()
        self.peer = None
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(1)
        self.listener.settimeout(PATIENCE)
        script = os.path.join(self.folder, "handlers.py")
        with open(script, "w", encoding="utf-8") as file:
            file.write(program)
        environment = dict(
            os.environ, GRAPE_SOCKET=self.path, GRAPE_TOKEN="secret", GRAPE_APP="flights", GRAPE_WORKER="flights-3",
            PYTHONPATH=SDK, PYTHONDONTWRITEBYTECODE="1",
        )  # fmt: skip
        self.stdout = open(os.path.join(self.folder, "stdout"), "w+b")
        self.stderr = open(os.path.join(self.folder, "stderr"), "w+b")
        self.process = subprocess.Popen(
            [python or sys.executable, script], env=environment, stdout=self.stdout, stderr=self.stderr, cwd=self.folder
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.process.kill()
        self.process.wait(PATIENCE)
        self.outgoing.put(None)
        if self.peer is not None:
            for thread in self.threads:
                thread.join(PATIENCE)
            self.peer.close()
        self.listener.close()
        self.stdout.close()
        self.stderr.close()
        shutil.rmtree(self.folder)

    def accept(self):
        """Takes the connection and returns the HELLO. No WELCOME yet."""
        self.peer, _ = self.listener.accept()
        self.threads = [threading.Thread(target=self._read), threading.Thread(target=self._write)]
        for thread in self.threads:
            thread.start()
        return json.loads(self.next(HELLO)[1])

    def start(self):
        """Handshake."""
        hello = self.accept()
        self.send_json(WELCOME, self.welcome)
        return hello

    def _read(self):
        try:
            with self.peer.makefile("rb") as stream:
                self._read_frames(stream)
        except (OSError, ValueError, KeyError) as error:
            self.fault = error
        self.ended.set()

    def _read_frames(self, stream):
        while True:
            head = stream.read(16)
            if len(head) < 16:
                return
            size, kind, flags, reserved, identifier = struct.unpack(">IBBHQ", head)
            if reserved != 0 or size < 12:
                raise ValueError(f"bad frame head {head.hex()}")
            body = stream.read(size - 12)
            self.order.append(kind)
            if kind == HEARTBEAT and self.answer_heartbeats:
                self.send(HEARTBEAT, identifier, body)
            if kind == STATE and self.answer_state is not None:
                self.send(STATED, identifier, self.answer_state(body))
            else:
                self.frames[kind].put((identifier, body, flags))

    def _write(self):
        try:
            while True:
                frame = self.outgoing.get()
                if frame is None:
                    self.peer.shutdown(socket.SHUT_RDWR)
                    return
                self.peer.sendall(frame)
        except OSError as error:
            self.fault = error

    def next(self, kind, patience=PATIENCE):
        """The next frame of this kind: id, body, flags."""
        until = time.monotonic() + patience
        while True:
            try:
                return self.frames[kind].get(timeout=0.05)
            except queue.Empty:
                if self.ended.is_set() and self.frames[kind].empty():
                    raise AssertionError(f"the worker is gone ({self.fault}): {self.errors()}") from None
                if time.monotonic() > until:
                    raise AssertionError(f"no frame 0x{kind:02x} within {patience} s: {self.errors()}") from None

    def send(self, kind, identifier, body):
        self.send_raw(struct.pack(">IBBHQ", 12 + len(body), kind, 0, 0, identifier) + body)

    def send_raw(self, data):
        self.outgoing.put(data)

    def send_json(self, kind, value):
        self.send(kind, 0, json.dumps(value).encode())

    def deliver(self, records, base=0, partition=0, attempt=1, first=None, end=None, skips=(), batches=None):
        """Sends a delivery of one batch of `records` (or of ready `batches`) and returns its id."""
        if batches is None:
            batches = encode_batch(records, base)
        first = base if first is None else first
        end = base + len(records) if end is None else end
        head = struct.pack(">iIqqI", partition, attempt, first, end, len(skips))
        head += b"".join(struct.pack(">q", skip) for skip in skips)
        identifier = self.next_id
        self.next_id += 1
        self.send(DELIVER, identifier, head + batches)
        return identifier

    def result(self, identifier=None):
        """The next RESULT; it must be for `identifier` if that is given."""
        got, body, flags = self.next(RESULT)
        if identifier is not None and got != identifier:
            raise AssertionError(f"result of {got}, not of {identifier}")
        if flags != 1:
            raise AssertionError(f"flags of a result are {flags}")
        return Result(body)

    def run(self, records, **arguments):
        """Delivers and waits for the result."""
        return self.result(self.deliver(records, **arguments))

    def wait(self):
        """The worker's exit status, once it has ended."""
        return self.process.wait(PATIENCE)

    def output(self):
        return self._text(self.stdout)

    def errors(self):
        return self._text(self.stderr)

    def _text(self, file):
        # Not by seeking: the worker shares the position.
        return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode()
