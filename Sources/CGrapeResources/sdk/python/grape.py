"""Grape SDK for Python: write the handlers of a Grape application.

    from grape import Application, Context, Event

    app = Application()

    @app.on("parsed")
    def on_parsed(event: Event, ctx: Context):
        ctx.emit("counted", event.value.upper(), key=event.key)

    if __name__ == "__main__":
        app.run()

A node starts this file as a worker process, gives it events in batches and commits what it emitted together
with its progress. The module is one file, needs Python 3.9 or newer and nothing else; with liblmdb (0.9)
on the machine reading state takes no round trip to the node.

How it is laid out, from top to bottom: errors a handler raises; bytes (varints, murmur2, record batches); Event;
the outputs of a delivery; state (what is written, where it is read from, what handlers use); Context; the runner,
which turns one delivery into one result and does no I/O but for reading state; logging; the worker, which speaks to
the node; Application; TestRun, which runs handlers without a node.

Exit statuses of a worker: 0 drained, 1 a start or stop hook failed, 64 not started by a node, 70 the connection to
the node was lost, 76 the node refused the worker or broke the protocol.
"""

from __future__ import annotations

import asyncio
import bisect
import collections
import datetime
import errno
import fcntl
import functools
import gc
import inspect
import json
import logging
import os
import random
import re
import select
import signal
import socket
import struct
import sys
import termios
import threading
import time
import traceback
from types import MappingProxyType
from typing import Any, Callable, Deque, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

try:  # in the standard library from 3.14 on
    from compression import zstd as _zstd
except ImportError:
    _zstd = None

__all__ = [
    "Application",
    "Context",
    "Emitted",
    "Event",
    "HopLimitExceeded",
    "Log",
    "LogHandler",
    "PartitionView",
    "Reject",
    "Retry",
    "RouteError",
    "StateError",
    "StateUnavailable",
    "Store",
    "TestOutcome",
    "TestRun",
    "TooLarge",
]
__version__ = "0.1.0"

Key = Union[bytes, str, None]
Headers = Union[Mapping[str, Union[bytes, str, None]], Iterable[Tuple[str, Union[bytes, str, None]]]]
Handler = Callable[["Event", "Context"], Any]

# MARK: Errors a handler may raise

# Status codes of the protocol that the SDK itself needs.
_STATUS_OK = 0
_STATUS_HANDLER_ERROR = 1
_STATUS_NO_SUCH_SLOT = 3
_STATUS_DEADLINE = 5
_STATUS_TOO_LARGE = 6
_STATUS_BAD_REQUEST = 9
_STATUS_HOP_LIMIT = 17

# Verdicts of a result.
_REJECTED = 1
_RETRY = 2
_EXPIRED = 3
_FAILED = 4
_VERDICT_NAMES = {_REJECTED: "rejected", _RETRY: "retry", _EXPIRED: "expired", _FAILED: "failed"}

# Whether a handler ran, as a reply tells it.
_NEVER_RAN = 0
_RAN = 1


class Reject(Exception):
    """Refuses an event for good: it becomes a dead letter, or the caller's error if somebody waits for it.

    `code` is the application's own, a signed 32-bit number; `message` is for people.
    """

    def __init__(self, code: int, message: str = "") -> None:
        if isinstance(code, bool) or not isinstance(code, int) or not -(1 << 31) <= code < 1 << 31:
            raise ValueError(f"Reject: code is a signed 32-bit integer, not {code!r}")
        super().__init__(code, message)
        self.code = code
        self.message = str(message)

    def __str__(self) -> str:
        return self.message


class Retry(Exception):
    """Asks to be run again with the same event, not before `delay` seconds (0: the profile's own backoff).

    Events behind it in the same partition wait for it. A caller that waits for the event does not: it gets the
    message as an error.
    """

    def __init__(self, delay: float = 0.0, message: str = "") -> None:
        if not 0 <= delay < 4294967.295:
            raise ValueError(f"Retry: delay is 0 seconds or more and below 49 days, not {delay!r}")
        super().__init__(delay, message)
        self.delay = float(delay)
        self.message = str(message)

    def __str__(self) -> str:
        return self.message


class RouteError(ValueError):
    """The name emitted to is not among those that the manifest lists for this application."""


class TooLarge(ValueError):
    """An event or reply is larger than the node takes."""


class StateError(ValueError):
    """A key, value, ttl, tag, range, store or partition that state does not take. The message says what it takes."""


class StateUnavailable(Exception):
    """State could not be read. A handler that lets it through has failed: its event is tried again as the profile
    says."""


class HopLimitExceeded(Reject):
    """The event has passed through as many handlers as the node allows: most likely a loop."""

    def __init__(self, message: str) -> None:
        super().__init__(_STATUS_HOP_LIMIT, message)


class _ProtocolError(Exception):
    """The node sent what the protocol does not allow, or refused this worker."""


class _ConnectionLost(Exception):
    """The connection to the node ended."""


# MARK: Bytes

_DELIVER = struct.Struct(">iIqqI")
_RESULT = struct.Struct(">qI")
_VERDICT = struct.Struct(">qBBHiIH")
_TALLY = struct.Struct(">HIIQ")
_OUTPUT = struct.Struct(">iI")
_BATCH = struct.Struct(">qiibIhiqqqhii")
_BATCH_SIZE = 61
_FRAME = struct.Struct(">IBBHQ")
_BEAT = struct.Struct(">QII")
_REPLY_STATE = struct.Struct(">HBBi")

# A record batch is closed before it grows over this, unless a single record is larger. Batches of this size are
# cheap to move and still compress well.
_BATCH_LIMIT = 1 << 20
# Also the size of the tables below: every offset delta within a batch has its bytes ready.
_BATCH_RECORDS = 8192

# The outputs of one delivery may grow to this before the rest of the delivery is handed back unprocessed.
_OUTPUT_LIMIT = 16 << 20
# Larger values take the careful way through `emit`, so the fast one can bound memory by counting.
_SMALL_VALUE = 4096
# How many events are run between two looks at the size of the outputs.
_STRIDE = 512

_KEYS_CACHED = 1 << 15
_LONGEST_KEY_CACHED = 256
_HEADERS_CACHED = 1024
_LONGEST_HEADERS_CACHED = 512


def _varint(number: int) -> bytes:
    """The zigzag varint of a signed number."""
    rest = (number << 1) ^ (number >> 63)
    out = bytearray()
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    out.append(rest)
    return bytes(out)


_VARINTS = [_varint(n) for n in range(_BATCH_RECORDS)]
# What stands between a record's length and its key: attributes, timestamp delta 0, offset delta.
_RECORD_HEADS = [b"\0\0" + v for v in _VARINTS]
_NULL = _varint(-1)
# What stands before a value of the state that has neither expiry nor tags, by the value's size.
_PLAIN_HEADS = [_varint(n + 1) + b"\0" for n in range(63)]


def _length(number: int) -> bytes:
    """The varint of a length, from the table where it reaches."""
    return _VARINTS[number] if number < _BATCH_RECORDS else _varint(number)


def _read_varint(data: bytes, at: int) -> Tuple[int, int]:
    """The unsigned varint at `at`, zigzag not undone, and the position behind it."""
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
        if shift > 63:
            raise _ProtocolError("a varint of a record is longer than ten bytes")


def _read_bytes(data: bytes, at: int) -> Tuple[Optional[bytes], int]:
    """A length and that many bytes; None for a length of -1."""
    size, at = _read_varint(data, at)
    if size & 1:
        return None, at
    end = at + (size >> 1)
    if end > len(data):
        raise _ProtocolError("a field of a record reaches beyond its batch")
    return data[at:end], end


_WORDS = [struct.Struct(f"<{words}I") for words in range(33)]


def _murmur2(data: bytes) -> int:
    """Kafka's murmur2: 32 bits, seed 0x9747b28c."""
    size = len(data)
    words = size >> 2
    h = 0x9747B28C ^ size
    for k in _WORDS[words].unpack_from(data) if words < 33 else struct.unpack_from(f"<{words}I", data):
        k = k * 0x5BD1E995 & 0xFFFFFFFF
        h = (h * 0x5BD1E995 & 0xFFFFFFFF) ^ ((k ^ k >> 24) * 0x5BD1E995 & 0xFFFFFFFF)
    rest = size & 3
    if rest:
        h = (h ^ int.from_bytes(data[words << 2 :], "little")) * 0x5BD1E995 & 0xFFFFFFFF
    h = (h ^ h >> 13) * 0x5BD1E995 & 0xFFFFFFFF
    return h ^ h >> 15


def _partition_of(key: bytes, partitions: int) -> int:
    return (_murmur2(key) & 0x7FFFFFFF) % partitions


def _header(name: bytes, value: Optional[bytes]) -> bytes:
    """One header as it stands in a record."""
    return _length(len(name)) + name + (_NULL if value is None else _length(len(value)) + value)


def _record(index: int, key: Optional[bytes], value: Optional[bytes], headers: Sequence[bytes], age: int = 0) -> bytes:
    """One whole record. `age` is its timestamp delta. For replies and tests; events are packed by `_pack`."""
    body = b"".join(
        (
            b"\0" + _varint(age) + _length(index),
            _NULL if key is None else _length(len(key)) + key,
            _NULL if value is None else _length(len(value)) + value,
            _length(len(headers)),
            *headers,
        )
    )
    return _length(len(body)) + body


def _batch(records: bytes, count: int, now: int, base: int = 0, newest: Optional[int] = None) -> bytes:
    """A record batch around packed records. The CRC is left 0: the node fills it in."""
    head = _BATCH.pack(
        base, len(records) + 49, -1, 2, 0, 0, count - 1, now, now if newest is None else newest, -1, -1, -1, count
    )
    return head + records


def _pack(items: List[tuple], now: int) -> List[bytes]:
    """Packs the events emitted to one partition into record batches."""
    batches = []
    parts: List[bytes] = []
    index = size = 0
    lengths = _VARINTS
    heads = _RECORD_HEADS
    for (_, key, headers, fixed), value, _ in items:
        span = len(value)
        head = heads[index]
        body = fixed + span + len(head)
        if span < 64:
            body += 1
            prefix = lengths[span] if value is not _TOMBSTONE else _NULL
        elif span < 8192:
            body += 2
            prefix = lengths[span]
        else:
            prefix = _varint(span)
            body += len(prefix)
        size += body
        # Two more bytes per record are more than enough for the lengths of small records, which `body` leaves out.
        if (size + 2 * index > _BATCH_LIMIT or index == _BATCH_RECORDS - 1) and index:
            batches.append(_batch(b"".join(parts), index, now))
            parts = []
            body -= len(head)
            head = heads[0]
            body += len(head)
            index = 0
            size = body
        parts += (lengths[body] if body < 8192 else _varint(body), head, key, prefix, value, headers)
        index += 1
    batches.append(_batch(b"".join(parts), index, now))
    return batches


def _compression_level(text: str) -> int:
    """zstd's level of `none`, `zstd` or `zstd:LEVEL` (1 to 19, -1 to -7); 0, which is no LEVEL, for none."""
    codec, _, level = text.partition(":")
    if codec == "none":
        return 0
    if codec != "zstd":
        raise ValueError(f"compression {text!r} is not known")
    if _zstd is None:
        raise ValueError("compression by zstd needs Python 3.14 or later")
    return int(level or 1)


def _compressed(batch: bytes, level: int) -> bytes:
    """The batch with its records compressed, unless that makes it larger."""
    records = _zstd.compress(batch[_BATCH_SIZE:], level=level)
    if len(records) + _BATCH_SIZE >= len(batch):
        return batch
    base, _, epoch, magic, crc, _, *rest = _BATCH.unpack_from(batch)
    return _BATCH.pack(base, len(records) + 49, epoch, magic, crc, 4, *rest) + records


def _text_to_str16(text: str) -> bytes:
    """UTF-8 of at most 8,000 bytes, whole characters only."""
    data = text.encode("utf-8", "replace")
    if len(data) > 8000:
        data = data[:8000].decode("utf-8", "ignore").encode("utf-8")
    return data


_encode_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def _to_bytes(value: Any) -> bytes:
    """The bytes of a value that a handler emits or returns."""
    if isinstance(value, bytes):
        return bytes(value)
    if isinstance(value, str):
        return value.encode("utf-8")
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if value is None:
        return b""
    return _encode_json(value).encode("utf-8")


class _Tombstone(bytes):
    """A null value on its way out. Empty, and told from other empty ones by being the one there is."""

    __slots__ = ()


_TOMBSTONE = _Tombstone()


def _key_to_bytes(key: Any) -> Optional[bytes]:
    if key is None:
        return None
    if isinstance(key, str):
        return key.encode("utf-8")
    if isinstance(key, (bytes, bytearray, memoryview)):
        return bytes(key)
    raise TypeError(f"a key is bytes, str or None, not {type(key).__name__}")


def _now() -> int:
    return time.time_ns() // 1_000_000


# MARK: Event


class _Info:
    """What a record's headers say. One object serves all events with the same headers."""

    __slots__ = (
        "name",
        "hops",
        "deadline",
        "deadline_header",
        "reply",
        "reply_header",
        "trace_header",
        "own",
        "plain",
        "handler",
        "slot",
        "_headers",
    )

    name: str
    hops: int
    deadline: Optional[int]
    deadline_header: Optional[bytes]
    reply: Optional[Tuple[bytes, int, str]]  # correlation id, partition, topic
    reply_header: Optional[bytes]
    trace_header: Optional[bytes]
    own: Tuple[Tuple[str, Optional[bytes]], ...]
    plain: bool  # nobody waits, no deadline, no trace: nothing travels on but the hop count
    handler: Optional[Handler]
    slot: int

    def __init__(self, raw: bytes) -> None:
        name = reply = deadline = None
        self.hops = 0
        self.deadline = self.deadline_header = None
        self.reply = self.reply_header = None
        self.trace_header = None
        self.handler = None
        self.slot = -1
        self._headers: Optional[Mapping[str, Optional[bytes]]] = None
        own = []
        count, at = _read_varint(raw, 0)
        for _ in range(count >> 1):
            start = at
            key, at = _read_bytes(raw, at)
            value, at = _read_bytes(raw, at)
            if key is None:
                raise _ProtocolError("a header of a record has no name")
            if not key.startswith(b"g."):
                if key == b"traceparent":
                    self.trace_header = raw[start:at]
                own.append((key.decode("utf-8", "replace"), value))
            elif value is None:
                raise _ProtocolError(f"the header {key!r} of a record has no value")
            elif key == b"g.e":
                name = value
            elif key == b"g.h":
                self.hops = value[0]
            elif key == b"g.d":
                deadline = value
                self.deadline_header = raw[start:at]
            elif key == b"g.r":
                reply = value
                self.reply_header = raw[start:at]
        if at != len(raw):
            raise _ProtocolError("the headers of a record end before or behind its end")
        if name is None:
            raise _ProtocolError("a record has no header g.e")
        self.name = name.decode("utf-8")
        if deadline is not None:
            (self.deadline,) = struct.unpack(">q", deadline)
        if reply is not None:
            (partition,) = struct.unpack_from(">i", reply, 16)
            self.reply = (reply[:16], partition, reply[20:].decode("utf-8"))
        self.own = tuple(own)
        self.plain = deadline is None and reply is None and self.trace_header is None

    @property
    def headers(self) -> Mapping[str, Optional[bytes]]:
        if self._headers is None:
            self._headers = MappingProxyType(dict(self.own))
        return self._headers


class _BatchInfo:
    """What the events of one batch have in common."""

    __slots__ = ("partition", "attempt", "time")

    def __init__(self, partition: int, attempt: int, base_time: int) -> None:
        self.partition = partition
        self.attempt = attempt
        self.time = base_time


class Event:
    """One event. It may be kept after its handler has ended; nothing in it changes.

    `key` is bytes or None, `value` bytes, `offset` the event's place in its partition of the application's topic.
    """

    __slots__ = ("key", "value", "offset", "_age", "_info", "_batch", "_null")

    key: Optional[bytes]
    value: bytes
    offset: int
    _age: int
    _info: _Info
    _batch: _BatchInfo

    @property
    def name(self) -> str:
        """The event's name: the slot that it came to."""
        return self._info.name

    @property
    def headers(self) -> Mapping[str, Optional[bytes]]:
        """The event's own headers, read-only, without those of Grape. Of several of one name the last counts."""
        return self._info.headers

    @property
    def tombstone(self) -> bool:
        """Whether the event has no value at all, which in a topic of the log says that what has this key is gone. `value`
        is empty then, as it is for an event whose value is empty."""
        try:
            return self._null
        except AttributeError:
            return False  # set where it is true, so that other events do not pay for it

    @property
    def partition(self) -> int:
        """The partition of the application's topic that it came from."""
        return self._batch.partition

    @property
    def timestamp(self) -> int:
        """When the event was emitted, in milliseconds since 1970-01-01 UTC."""
        age = self._age
        return self._batch.time + ((age >> 1) ^ -(age & 1))

    @property
    def deadline(self) -> Optional[int]:
        """When it stops being worth doing, in milliseconds since 1970-01-01 UTC; None: never."""
        return self._info.deadline

    @property
    def attempt(self) -> int:
        """1 when the event is delivered for the first time, then counting."""
        return self._batch.attempt

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for a reply."""
        return self._info.reply is not None

    @property
    def text(self) -> str:
        """The value as UTF-8 text. Raises UnicodeDecodeError if it is not."""
        return self.value.decode("utf-8")

    def json(self) -> Any:
        """The value read as JSON. Raises ValueError if it is not."""
        return json.loads(self.value)

    def __repr__(self) -> str:
        return f"<Event {self.name} key={self.key!r} {len(self.value)} bytes at {self.partition}:{self.offset}>"


# MARK: Outputs of a delivery


class _Route:
    """One destination of a name that the application may emit."""

    __slots__ = ("topic", "event", "partitions", "event_header", "external")

    def __init__(self, topic: str, event: str, partitions: int, external: bool = False) -> None:
        self.topic = topic
        self.event = event
        self.partitions = partitions
        # The topic is not Grape's: what it gets are plain records, without Grape's headers.
        self.external = external
        self.event_header = b"" if external else _header(b"g.e", event.encode("utf-8"))


class _Reply:
    """A reply that waits to be packed."""

    __slots__ = ("offset", "topic", "partition", "record_key", "value", "state", "final")

    def __init__(self, offset: int, address: Any, value: Optional[bytes], state: bytes, final: bool) -> None:
        self.offset = offset
        self.record_key, self.partition, self.topic = address
        self.value = value
        self.state = state
        self.final = final


class _Keys(dict):
    """The destinations of one name at one hop count: key, as the handler gave it, to a destination.

    A destination is `(append, key, headers, fixed)`: what takes an item (see `_Outputs`), the key and the headers
    as they stand in a record, and how much they add to the record's size. Missing ones are made on the fly. A name
    with several destinations has an `append` that hands each of them its own item.
    """

    __slots__ = ("name", "outs", "max_event", "routes")

    def __init__(self, name: str, hops: int, routes: Tuple["_Route", ...], outs: "_Outputs", max_event: int) -> None:
        super().__init__()
        self.name = name
        self.outs = outs
        self.max_event = max_event
        hop_header = _header(b"g.h", bytes((hops + 1,)))
        # Per route: topic, number of partitions, whether it is somebody else's, the headers every event has, the same
        # with their count in front, and the lists of the partitions used so far.
        self.routes: List[Tuple[str, int, bool, bytes, bytes, Dict[int, List[tuple]]]] = [
            (
                route.topic,
                route.partitions,
                route.external,
                b"" if route.external else route.event_header + hop_header,
                b"\0" if route.external else b"\4" + route.event_header + hop_header,
                {},
            )
            for route in routes
        ]

    def __missing__(self, key: Key) -> tuple:
        record_key = _key_to_bytes(key)
        found, beside = self.destinations(record_key, (), ())
        if len(found) == 1:
            destination = found[0]
        else:

            def fan(item: tuple) -> None:
                _, value, offset = item
                for one in found:
                    one[0]((one, value, offset))

            destination = (fan, b"", b"", 0)
        if beside + _SMALL_VALUE > self.max_event:
            # The table is for small values, but here even one of those may be too large.
            def check_first(item: tuple) -> None:
                self.check(beside + len(item[1]))
                for one in found:
                    one[0]((one, item[1], item[2]))

            destination = (check_first, b"", b"", 0)
        if record_key is None or len(record_key) <= _LONGEST_KEY_CACHED:
            if len(self) >= _KEYS_CACHED:
                self.clear()
            self[key] = destination
        return destination

    def destinations(
        self, key: Optional[bytes], travelling: Sequence[bytes], own: Sequence[bytes]
    ) -> Tuple[List[tuple], int]:
        """One destination per route, and the largest size of key and headers. `own` are the headers that leave Grape,
        too; `travelling` go before them to applications."""
        if key is None:
            key_field = _NULL
            place = self.outs.turn
        else:
            size = len(key)
            key_field = (_VARINTS[size] if size < _BATCH_RECORDS else _varint(size)) + key
            place = _murmur2(key) & 0x7FFFFFFF
        beside = 0
        found = []
        for topic, partitions, external, always, fields, lists in self.routes:
            if external:
                if own:
                    fields = b"".join((_length(len(own)), *own))
            elif travelling or own:
                fields = b"".join((_length(2 + len(travelling) + len(own)), always, *travelling, *own))
            partition = place % partitions
            items = lists.get(partition)
            if items is None:
                items = lists[partition] = self.outs.items(topic, partition)
            fixed = len(key_field) + len(fields)
            found.append((items.append, key_field, fields, fixed))
            if fixed > beside:
                beside = fixed
        return found, beside

    def check(self, size: int) -> None:
        if size > self.max_event:
            raise TooLarge(
                f"emit {self.name!r}: key, value and headers are {size:,} bytes; the limit is {self.max_event:,}"
            )


class _Outputs:
    """What the handlers of one delivery emit and reply, gathered per topic and partition.

    An emitted event is an item `(destination, value, offset)`: `offset` is that of the event whose handler emitted
    it, so that the items of a handler that fails can be taken back from the ends of the lists. Destinations are kept
    per hop count, name and key, so the common `emit` is two look-ups and an append. The object outlives its
    delivery; `clear` makes it ready for the next.
    """

    __slots__ = ("lists", "fast", "replies", "turn", "large", "level", "limit", "use", "stride", "measured")

    def __init__(self, level: int = 0, limit: int = _OUTPUT_LIMIT) -> None:
        self.level = level  # zstd's, for the batches of emitted events; 0: not compressed
        self.limit = limit  # how large they may grow before the rest of the delivery is handed back
        self.use: Optional[_Use] = None  # the state, once a handler of the delivery has used it
        self.stride: Iterator[int] = iter(())  # the events that are run before the next look at the size
        self.lists: Dict[Tuple[str, int], List[tuple]] = {}
        self.fast: Dict[int, Dict[str, _Keys]] = {}
        self.replies: List[_Reply] = []
        # Events without key go to one partition per delivery: few large batches, and still spread.
        self.turn = random.randrange(1 << 16)
        self.large = 0
        self.measured = (0, 0, 0)  # bytes held, and how many values and bytes of large ones there were then

    def begin(self) -> None:
        self.turn += 1
        for names in self.fast.values():
            for keys in names.values():
                keys.pop(None, None)

    def clear(self) -> None:
        for items in self.lists.values():
            items.clear()
        self.replies = []
        self.large = 0
        self.measured = (0, 0, 0)
        self.stride = iter(())
        use = self.use
        if use is not None:
            self.use = None
            use.end()

    def grow(self, size: int) -> None:
        """A large value is among them."""
        self.large += size
        if self.large > self.limit:
            self.interrupt()

    def interrupt(self) -> None:
        """Has the size looked at when the event at hand is done."""
        for _ in self.stride:
            pass

    def items(self, topic: str, partition: int) -> List[tuple]:
        items = self.lists.get((topic, partition))
        if items is None:
            items = self.lists[(topic, partition)] = []
        return items

    def keys_for(self, hops: int, name: str, routes: Tuple[_Route, ...], max_event: int) -> _Keys:
        names = self.fast.setdefault(hops, {})
        keys = names.get(name)
        if keys is None:
            keys = names[name] = _Keys(name, hops, routes, self, max_event)
        return keys

    def take_back(self, offset: int) -> None:
        """Drops what the handler of the event at `offset` emitted, and its final reply."""
        for items in self.lists.values():
            while items and items[-1][2] == offset:
                items.pop()
        self.replies = [reply for reply in self.replies if reply.offset != offset or not reply.final]
        if self.use is not None:
            self.use.take_back(offset)

    def cut(self, offset: int) -> None:
        """Drops everything from the event at `offset` on."""
        for items in self.lists.values():
            while items and items[-1][2] >= offset:
                items.pop()
        self.replies = [reply for reply in self.replies if reply.offset < offset]
        if self.use is not None:
            self.use.cut(offset)

    def exceeds(self) -> bool:
        """Whether the values held are larger than the limit in total."""
        count = sum(map(len, self.lists.values())) + len(self.replies)
        large = self.large
        use = self.use
        if use is not None:
            count += len(use.log)
            large += use.large
        # What was measured last, and for what came since the most that it can be: so a look at everything is rare.
        bytes_then, count_then, large_then = self.measured
        if bytes_then + (large - large_then) + (count - count_then) * _SMALL_VALUE <= self.limit:
            return False
        held = sum(self.sizes().values())
        if use is not None:
            held = max(held, use.held_bytes())
        self.measured = (held, count, large)
        return held > self.limit

    def sizes(self) -> Dict[int, int]:
        """Bytes per event handled, by its offset. A little more than what packing will make of them."""
        sizes: Dict[int, int] = {}
        for items in self.lists.values():
            for (_, _, _, fixed), value, offset in items:
                sizes[offset] = sizes.get(offset, 0) + fixed + len(value) + 16
        for reply in self.replies:
            size = len(reply.value or b"") + len(reply.state) + 256
            sizes[reply.offset] = sizes.get(reply.offset, 0) + size
        if self.use is not None:
            self.use.sizes(sizes)
        return sizes

    def pack(self, now: int) -> Tuple[int, List[bytes]]:
        """The number of output batches and the bytes of all outputs of a result."""
        count = 0
        parts: List[bytes] = []

        def add(topic: str, partition: int, batch: bytes) -> None:
            name = topic.encode("utf-8")
            parts.append(len(name).to_bytes(2, "big") + name + _OUTPUT.pack(partition, len(batch)))
            parts.append(batch)

        for (topic, partition), items in self.lists.items():
            if items:
                for batch in _pack(items, now):
                    add(topic, partition, _compressed(batch, self.level) if self.level else batch)
                    count += 1
        replies: Dict[Tuple[str, int], List[_Reply]] = {}
        for reply in self.replies:
            replies.setdefault((reply.topic, reply.partition), []).append(reply)
        for (topic, partition), waiting in replies.items():
            records: List[bytes] = []
            size = 0
            for reply in waiting:
                state = _header(b"g.s", reply.state)
                room = len(reply.value or b"") + len(state) + 64
                if records and (size + room > _BATCH_LIMIT or len(records) == _BATCH_RECORDS):
                    add(topic, partition, _batch(b"".join(records), len(records), now))
                    count += 1
                    records, size = [], 0
                records.append(_record(len(records), reply.record_key, reply.value, (state,)))
                size += room
            add(topic, partition, _batch(b"".join(records), len(records), now))
            count += 1
        use = self.use
        if use is not None and use.part is not None:
            for batch in use.pack(now):
                add(use.states.topic, use.part.number, batch)
                count += 1
        return count, parts


_NOTHING: Dict[str, _Keys] = {}


# MARK: State: what is written and not applied yet

# A number of an entry's flags.
_HAS_EXPIRY = 1
_HAS_TAGS = 2
_MOST_TAGS = 16
_LONGEST_TAG = 63
_LONGEST_HEAD = 1 + 8 + 1 + _MOST_TAGS * (_LONGEST_TAG + 1)
_LATEST_EXPIRY = 1 << 61
_STORE_NAME = re.compile(r"[a-z][a-z0-9-]{0,29}")
_PERIOD = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(ms|s|m|h|d)")
_PERIOD_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

# An item of the overlay: offset of the event that wrote it, value (None: removed), expiry or None, tags in order.
_Item = Tuple[int, Optional[bytes], Optional[int], Tuple[bytes, ...]]


def _entry(value: bytes, expiry: Optional[int], tags: Tuple[bytes, ...]) -> bytes:
    """An entry as the changelog and LMDB hold it."""
    return _entry_head(expiry, tags) + value


def _entry_head(expiry: Optional[int], tags: Tuple[bytes, ...]) -> bytes:
    """What stands before the value."""
    if not tags:
        return b"\0" if expiry is None else b"\1" + _I64.pack(expiry)
    field = _tag_fields.get(tags)
    if field is None:
        field = bytes((len(tags),)) + b"".join(bytes((len(tag),)) + tag for tag in tags)
        if len(_tag_fields) >= _TAGS_CACHED:
            _tag_fields.clear()
        _tag_fields[tags] = field
    return b"\2" + field if expiry is None else b"\3" + _I64.pack(expiry) + field


_I64 = struct.Struct(">q")
# Handlers write the same few sets of tags again and again: as they stand in an entry, and by what a handler gives.
_TAGS_CACHED = 1024
_tag_fields: Dict[Tuple[bytes, ...], bytes] = {}
_known_tags: Dict[Tuple[Any, ...], Tuple[bytes, ...]] = {}
# Milliseconds by the text of a period.
_known_periods: Dict[str, int] = {}


def _value_at(entry: bytes) -> int:
    """Of an entry, or its first _LONGEST_HEAD bytes: where the value begins."""
    try:
        flags = entry[0]
        at = 9 if flags & _HAS_EXPIRY else 1
        if flags & _HAS_TAGS:
            count = entry[at]
            at += 1
            for _ in range(count):
                at += 1 + entry[at]
        if flags > 3 or at > len(entry):
            raise IndexError
    except IndexError:
        raise _damaged() from None
    return at


def _damaged() -> StateUnavailable:
    return StateUnavailable("state: an entry is not as the protocol has it: the store is damaged")


def _read_head(entry: bytes) -> Tuple[int, Optional[int], Tuple[bytes, ...]]:
    """Of an entry, or its first _LONGEST_HEAD bytes: where the value begins, expiry and tags."""
    try:
        flags = entry[0]
        at = 1
        expiry = None
        tags = []
        if flags & _HAS_EXPIRY:
            (expiry,) = struct.unpack_from(">q", entry, at)
            at += 8
        if flags & _HAS_TAGS:
            count = entry[at]
            at += 1
            for _ in range(count):
                end = at + 1 + entry[at]
                tags.append(entry[at + 1 : end])
                at = end
        if flags > 3 or at > len(entry):
            raise IndexError
    except (IndexError, struct.error):
        raise _damaged() from None
    return at, expiry, tuple(tags)


def _value_of(entry: bytes) -> bytes:
    return entry[1:] if entry[:1] == b"\0" else entry[_value_at(entry) :]


def _behind(prefix: bytes) -> Optional[bytes]:
    """The least key that is greater than all that begin with `prefix`; None: there is none."""
    prefix = prefix.rstrip(b"\xff")
    return prefix[:-1] + bytes((prefix[-1] + 1,)) if prefix else None


class _Overlay:
    """What was written to one store of one partition and is not in the base: the newest item per key.

    `order` has the keys in order once a scan has wanted them, then `fresh` those that came since. Both may hold keys
    that are no longer in `items`.
    """

    __slots__ = ("name", "prefix", "items", "order", "fresh", "_key_heads")

    def __init__(self, name: str) -> None:
        self.name = name
        self.prefix = _store_prefix(name)
        self._key_heads: List[bytes] = []
        self.items: Dict[bytes, _Item] = {}
        self.order: Optional[List[bytes]] = None
        self.fresh: List[bytes] = []

    def clear(self) -> None:
        self.items.clear()
        self.order = None

    @property
    def key_heads(self) -> List[bytes]:
        """What stands before a key in a record, by the key's size, for those whose length has one byte."""
        if not self._key_heads:
            beside = len(self.prefix)
            self._key_heads = [_length(beside + size) + self.prefix for size in range(64 - beside)]
        return self._key_heads

    def between(self, low: bytes, high: Optional[bytes]) -> List[Tuple[bytes, _Item]]:
        """The items with low <= key < high in order of key: a view that later writes do not change."""
        items = self.items
        if not items:
            return []
        order = self.order
        fresh = self.fresh
        if order is None or len(fresh) > 8:
            # Timsort joins the sorted part and the rest in about one pass.
            order = self.order = sorted(items)
            fresh.clear()
        while fresh:
            bisect.insort(order, fresh.pop())
        begin = bisect.bisect_left(order, low)
        end = len(order) if high is None else bisect.bisect_left(order, high)
        found = []
        last = None
        for key in order[begin:end]:
            item = items.get(key)
            # A key that was taken back and written again stands in `order` twice.
            if item is not None and key != last:
                found.append((key, item))
                last = key
        return found


class _Segment:
    """What one RESULT wrote: the last item per key. `processed` is the RESULT's own."""

    __slots__ = ("processed", "writes")

    def __init__(self, writes: Dict[_Overlay, Dict[bytes, _Item]]) -> None:
        self.processed = -1
        self.writes = writes


class _Part:
    """A partition's state at this worker: its base, and what this worker's RESULTs wrote beyond it.

    `base` is `mapped`, or what is asked instead: for good if there is no `mapped`, else until it is tried again.
    """

    __slots__ = ("number", "base", "mapped", "retry_at", "failures", "overlays", "segments")

    def __init__(self, number: int, base: "_Base", mapped: Optional["_Mapped"] = None) -> None:
        self.number = number
        self.base = base
        self.mapped = mapped
        self.retry_at = 0.0
        self.failures = 0
        self.overlays: Dict[str, _Overlay] = {}
        self.segments: Deque[_Segment] = collections.deque()

    def overlay(self, name: str) -> _Overlay:
        overlay = self.overlays.get(name)
        if overlay is None:
            overlay = self.overlays[name] = _Overlay(name)
        return overlay

    def rewind(self, first: int, skips: Any) -> None:
        """A delivery begins with the event `first`. A RESULT that dealt with it before cannot have been committed:
        what it wrote is forgotten."""
        segments = self.segments
        if not segments or segments[-1].processed <= first:
            return
        kept = [
            segment
            for segment in segments
            if segment.processed <= first
            or all(
                item[0] < first or item[0] in skips for writes in segment.writes.values() for item in writes.values()
            )
        ]
        if len(kept) == len(segments):
            return
        segments.clear()
        segments.extend(kept)
        for overlay in self.overlays.values():
            overlay.clear()
        for segment in kept:
            for overlay, writes in segment.writes.items():
                overlay.items.update(writes)

    def catch_up(self, processed: int) -> None:
        """The base has the writes of all RESULTs up to `processed`: they are read from there now."""
        segments = self.segments
        while segments and segments[0].processed <= processed:
            segment = segments.popleft()
            if not segments:
                for overlay in self.overlays.values():
                    overlay.clear()
                return
            for overlay, writes in segment.writes.items():
                items = overlay.items
                for key, item in writes.items():
                    if items.get(key) is item:
                        del items[key]
                # Keys that are gone are passed over, but must not pile up.
                overlay.order = None


class _Use:
    """What one delivery uses of the state: the bases it reads, and what its events wrote. A hook has one, too,
    without a partition of its own.

    `log` has one tuple per event and key written: offset, overlay, key, and the item that was there before. So the
    writes of the last events can be taken back from its end.
    """

    __slots__ = ("states", "part", "outs", "log", "append", "large", "held", "bound", "segment")

    def __init__(self, states: "_States", outs: Optional[_Outputs], delivery: Optional["_Delivery"]) -> None:
        self.states = states
        self.part: Optional[_Part] = None
        self.outs = outs
        self.log: List[Tuple[int, _Overlay, bytes, Optional[_Item]]] = []
        self.append = self.log.append
        self.large = 0
        self.held: Dict[int, "_Base"] = {}
        self.bound: Dict[Tuple[str, Optional[int]], tuple] = {}
        self.segment: Optional[_Segment] = None
        if delivery is not None:
            part = states.part(delivery.partition)
            processed = states.begin(part, True, bool(part.segments))
            self.held[part.number] = part.base
            part.catch_up(processed)
            self.part = part

    def base(self, number: int) -> "_Base":
        """The base of a partition, held until the delivery ends."""
        base = self.held.get(number)
        if base is None:
            part = self.states.part(number)
            self.states.begin(part, False, False)
            base = self.held[number] = part.base
        return base

    def bind(self, name: str, number: Optional[int]) -> tuple:
        """What a store of a partition reads from and writes to: overlay, key prefix, a look into the overlay, base, a
        look into the base. The number is None for a hook, which has no partition."""
        bound = self.bound.get((name, number))
        if bound is None:
            part = self.part
            overlay = part.overlay(name) if part is not None and part.number == number else _Overlay(name)
            if number is None:
                bound = (overlay, overlay.prefix, _OF_A_HOOK.entry, _OF_A_HOOK, _OF_A_HOOK.entry)
            else:
                base = self.base(number)
                bound = (overlay, overlay.prefix, overlay.items.get, base, base.getter(overlay.prefix))
            self.bound[(name, number)] = bound
        return bound

    def end(self) -> None:
        """Lets go of everything. What was not committed is taken back."""
        self.cut(-1)
        for base in self.held.values():
            base.end()
        self.held.clear()

    def grow(self, size: int) -> None:
        """A large value was written. Each counts, also one that is overwritten: it is kept to be taken back to."""
        self.large += size
        if self.outs is not None and self.large > self.outs.limit:
            self.outs.interrupt()

    def take_back(self, offset: int) -> None:
        log = self.log
        while log and log[-1][0] == offset:
            self._undo(*log.pop())

    def cut(self, offset: int) -> None:
        log = self.log
        while log and log[-1][0] >= offset:
            self._undo(*log.pop())

    @staticmethod
    def _undo(_: int, overlay: _Overlay, key: bytes, before: Optional[_Item]) -> None:
        if before is None:
            del overlay.items[key]
        else:
            overlay.items[key] = before

    def held_bytes(self) -> int:
        """What is kept for the delivery: what was written and what was overwritten."""
        total = self.large + 64 * len(self.log)
        for _, overlay, key, before in self.log:
            item = overlay.items[key]
            for one in (item, before):
                if one is not None and one[1] is not None and len(one[1]) <= _SMALL_VALUE:
                    total += len(one[1])
        return total

    def sizes(self, sizes: Dict[int, int]) -> None:
        """Adds the bytes that the records will have to those of the events that wrote them."""
        for overlay, writes in self._writes().items():
            beside = len(overlay.prefix) + 32
            for key, (offset, value, _, tags) in writes.items():
                size = beside + len(key) + len(value or b"") + sum(map(len, tags)) + len(tags)
                sizes[offset] = sizes.get(offset, 0) + size

    def _writes(self) -> Dict[_Overlay, Dict[bytes, _Item]]:
        found: Dict[_Overlay, Dict[bytes, _Item]] = {}
        last = None
        writes: Dict[bytes, _Item] = {}
        items: Dict[bytes, _Item] = {}
        for _, overlay, key, _ in self.log:
            if overlay is not last:
                last = overlay
                items = overlay.items
                writes = found.setdefault(overlay, {})
            writes[key] = items[key]
        return found

    def pack(self, now: int) -> List[bytes]:
        """Record batches with the last write per key."""
        self.segment = None
        if not self.log:
            return []
        found = self._writes()
        self.segment = _Segment(found)
        batches = []
        parts: List[bytes] = []
        index = size = 0
        lengths = _VARINTS
        heads = _RECORD_HEADS
        for overlay, writes in found.items():
            prefix = overlay.prefix
            beside = len(prefix)
            key_heads = overlay.key_heads
            narrow = 64 - beside
            for key, (_, value, expiry, tags) in writes.items():
                # A record: its length; attributes, timestamp delta and offset delta; key; value; no headers.
                width = len(key)
                span = 0 if value is None else len(value)
                if index and (index == _BATCH_RECORDS - 1 or size + span > _BATCH_LIMIT):
                    batches.append(_batch(b"".join(parts), index, now))
                    parts = []
                    index = size = 0
                head = heads[index]
                if width < narrow and span < 63 and value is not None and expiry is None and not tags:
                    # The lengths of key and value have one byte each.
                    body = len(head) + beside + width + span + 4
                    parts += (lengths[body], head, key_heads[width], key, _PLAIN_HEADS[span], value, b"\0")
                else:
                    key_field = _length(beside + width) + prefix
                    if value is None:
                        value_field, value = _NULL, b""
                    else:
                        value_field = _entry_head(expiry, tags)
                        value_field = _length(len(value_field) + span) + value_field
                    body = len(head) + len(key_field) + width + len(value_field) + span + 1
                    parts += (_length(body), head, key_field, key, value_field, value, b"\0")
                index += 1
                size += body + 4
        batches.append(_batch(b"".join(parts), index, now))
        return batches

    def commit(self, processed: int) -> None:
        """The RESULT is made: what it wrote is kept until the base has it."""
        segment = self.segment
        if segment is not None and self.part is not None:
            segment.processed = processed
            self.part.segments.append(segment)
        self.log.clear()


def _store_prefix(name: str) -> bytes:
    return bytes((len(name),)) + name.encode("ascii")


# MARK: State: where it is read from


class _CannotMap(Exception):
    """The partition's LMDB environment cannot be read by this process."""


_Found = Tuple[List[Tuple[bytes, bytes]], bool]  # entries by full key, and whether there may be more


class _Base:
    """A partition's state as the node has applied it. Keys and bounds here are full keys, values whole entries."""

    def begin(self, own: bool, wanted: bool) -> int:
        """Takes a view and says its `processed` (only if `wanted`; -1: nothing). `own`: by the partition's delivery,
        which must see the newest; others share a view that is being held."""
        raise NotImplementedError

    def end(self) -> None:
        """Ends the holding that `begin` began."""

    def getter(self, prefix: bytes) -> Callable[[bytes], Optional[bytes]]:
        """A function from a key of the store to its value."""
        raise NotImplementedError

    def entry(self, full: bytes) -> Optional[bytes]:
        raise NotImplementedError

    def entries(self, keys: Sequence[bytes]) -> List[Optional[bytes]]:
        return [self.entry(full) for full in keys]

    def head(self, full: bytes) -> Optional[Tuple[int, Optional[int], Tuple[bytes, ...]]]:
        """The value's size, expiry and tags."""
        entry = self.entry(full)
        if entry is None:
            return None
        at, expiry, tags = _read_head(entry)
        return len(entry) - at, expiry, tags

    def piece(self, full: bytes, offset: int, size: int) -> Optional[bytes]:
        """Part of the value."""
        entry = self.entry(full)
        if entry is None:
            return None
        at = _value_at(entry)
        return entry[at + offset : at + offset + size]

    def scan(self, low: bytes, high: bytes, reverse: bool, count: int, values: bool) -> _Found:
        """About `count` entries, at least one if there is any, with low <= full key < high."""
        raise NotImplementedError

    def find(self, prefix: bytes, tags: Sequence[bytes], low: bytes, high: bytes, count: int) -> _Found:
        """Likewise, those with all of the tags, ascending."""
        raise NotImplementedError


class _Memory(_Base):
    """For tests: a dictionary."""

    def __init__(self, max_key: int) -> None:
        self.content: Dict[bytes, bytes] = {}
        self.processed = -1
        self.max_key = max_key

    def begin(self, own: bool, wanted: bool) -> int:
        return self.processed

    def apply(self, full: bytes, entry: Optional[bytes]) -> None:
        if entry is None:
            self.content.pop(full, None)
        else:
            self.content[full] = entry

    def expire(self, now: int) -> int:
        gone = []
        for full, entry in self.content.items():
            expiry = _read_head(entry)[1]
            if expiry is not None and expiry <= now:
                gone.append(full)
        for full in gone:
            del self.content[full]
        return len(gone)

    def getter(self, prefix: bytes) -> Callable[[bytes], Optional[bytes]]:
        def fetch(key: bytes) -> Optional[bytes]:
            _check_key(key, self.max_key)
            entry = self.content.get(prefix + key)
            return None if entry is None else _value_of(entry)

        return fetch

    def entry(self, full: bytes) -> Optional[bytes]:
        return self.content.get(full)

    def scan(self, low: bytes, high: bytes, reverse: bool, count: int, values: bool) -> _Found:
        keys = sorted((key for key in self.content if low <= key < high), reverse=reverse)
        return [(key, self.content[key]) for key in keys[:count]], len(keys) > count

    def find(self, prefix: bytes, tags: Sequence[bytes], low: bytes, high: bytes, count: int) -> _Found:
        wanted = set(tags)
        found = [
            (key, entry)
            for key, entry in sorted(self.content.items())
            if low <= key < high and wanted.issubset(_read_head(entry)[2])
        ]
        return found[:count], len(found) > count


_STATE_QUESTION = struct.Struct(">BBHiII")
_STATE_ANSWER = struct.Struct(">qBBHI")


class _Asking(_Base):
    """Asks the node, for workers that cannot map its files."""

    def __init__(self, number: int, ask: Callable[[Sequence[bytes]], List[bytes]], max_key: int) -> None:
        self.number = number
        self.ask = ask
        self.max_key = max_key

    def _question(
        self, operation: int, low: bytes, high: Optional[bytes], reverse: bool, count: int, tags: Sequence[bytes] = ()
    ) -> bytes:
        return b"".join(
            (
                _STATE_QUESTION.pack(operation, 1 if reverse else 0, 0, self.number, count, 0),
                struct.pack(">i", len(low)),
                low,
                struct.pack(">i", -1 if high is None else len(high)),
                high or b"",
                bytes((len(tags),)),
                *(bytes((len(tag),)) + tag for tag in tags),
            )
        )

    @staticmethod
    def _answer(body: bytes) -> Tuple[int, bool, List[Tuple[bytes, bytes]]]:
        try:
            processed, more, _, _, count = _STATE_ANSWER.unpack_from(body)
            at = _STATE_ANSWER.size
            found = []
            for _ in range(count):
                fields = []
                for _ in range(2):
                    (size,) = struct.unpack_from(">i", body, at)
                    at += 4
                    if size < 0 or at + size > len(body):
                        raise IndexError
                    fields.append(body[at : at + size])
                    at += size
                found.append((fields[0], fields[1]))
        except (IndexError, struct.error):
            raise StateUnavailable("state: the node's answer is not what the protocol says it is") from None
        return processed, more == 1, found

    def begin(self, own: bool, wanted: bool) -> int:
        if not wanted:
            return -1
        # Any key will do: the answer bears the number.
        return self._answer(self.ask([self._question(1, b"\0\0", None, False, 0)])[0])[0]

    def entries(self, keys: Sequence[bytes]) -> List[Optional[bytes]]:
        bodies = self.ask([self._question(1, full, None, False, 0) for full in keys])
        answers = [self._answer(body)[2] for body in bodies]
        return [found[0][1] if found else None for found in answers]

    def entry(self, full: bytes) -> Optional[bytes]:
        return self.entries((full,))[0]

    def getter(self, prefix: bytes) -> Callable[[bytes], Optional[bytes]]:
        def fetch(key: bytes) -> Optional[bytes]:
            _check_key(key, self.max_key)
            entry = self.entry(prefix + key)
            return None if entry is None else _value_of(entry)

        return fetch

    def scan(self, low: bytes, high: bytes, reverse: bool, count: int, values: bool) -> _Found:
        return self._range(self._question(2, low, high, reverse, count))

    def find(self, prefix: bytes, tags: Sequence[bytes], low: bytes, high: bytes, count: int) -> _Found:
        return self._range(self._question(3, low, high, False, count, tags))

    def _range(self, question: bytes) -> _Found:
        _, more, found = self._answer(self.ask([question])[0])
        if more and not found:
            raise StateUnavailable("state: the node says that there is more, but gives nothing")
        return found, more


class _Lmdb:
    """The functions of liblmdb that reading needs, and numbers from its header."""

    NOT_FOUND = -30798
    MAP_RESIZED = -30785
    READ_ONLY = 0x20000
    NO_TLS = 0x200000
    FIRST, GET_BOTH_RANGE, LAST, NEXT, NEXT_DUP, PREV, SET_KEY, SET_RANGE = 0, 3, 6, 8, 9, 12, 16, 17

    def __init__(self) -> None:
        try:
            import ctypes
        except ImportError as error:
            raise _CannotMap(f"this Python has no ctypes: {error}") from None
        if ctypes.sizeof(ctypes.c_void_p) < 8:
            raise _CannotMap("this Python is a 32-bit one")
        self.ctypes = ctypes
        name = None
        for known in ("liblmdb.so.0", "liblmdb.so", "liblmdb.dylib"):
            try:
                ctypes.CDLL(known)
                name = known
                break
            except OSError:
                pass
        if name is None:
            import ctypes.util

            name = ctypes.util.find_library("lmdb")
        if name is None:
            raise _CannotMap("the library liblmdb (0.9) is not installed")
        # Without a look at the lock that Python's threads share: a call lasts less than handing it over would.
        quick = ctypes.PyDLL(name)
        slow = ctypes.CDLL(name)
        try:
            self.env_create = slow.mdb_env_create
            self.env_set_maxdbs = slow.mdb_env_set_maxdbs
            self.env_set_mapsize = slow.mdb_env_set_mapsize
            self.env_open = slow.mdb_env_open
            self.env_close = slow.mdb_env_close
            self.txn_begin = slow.mdb_txn_begin
            self.txn_commit = slow.mdb_txn_commit
            self.txn_abort = slow.mdb_txn_abort
            self.dbi_open = slow.mdb_dbi_open
            self.txn_reset = quick.mdb_txn_reset
            self.txn_renew = quick.mdb_txn_renew
            self.get = quick.mdb_get
            self.cursor_open = quick.mdb_cursor_open
            self.cursor_renew = quick.mdb_cursor_renew
            self.cursor_close = quick.mdb_cursor_close
            self.cursor_get = quick.mdb_cursor_get
            self.cursor_count = quick.mdb_cursor_count
            self.strerror = slow.mdb_strerror
        except AttributeError as error:
            raise _CannotMap(f"{name} is not liblmdb: {error}") from None
        for function in (self.env_close, self.txn_abort, self.txn_reset, self.cursor_close):
            function.restype = None
        self.strerror.restype = ctypes.c_char_p
        # All memory as one array. A slice of it makes bytes in one step, in a third of string_at's time.
        self.memory = (ctypes.c_char * sys.maxsize).from_address(0)

    def reason(self, code: int) -> str:
        return self.strerror(code).decode("utf-8", "replace")


class _Slot:
    """An MDB_val with a buffer of its own to put a key into. LMDB may make it point elsewhere."""

    __slots__ = ("words", "reference", "_value", "_buffer", "_area", "_address")

    def __init__(self, ctypes: Any, capacity: int) -> None:
        self._value = (ctypes.c_size_t * 2)()
        self.words = memoryview(self._value).cast("B").cast("N")
        self.reference = ctypes.byref(self._value)
        self._buffer = ctypes.create_string_buffer(capacity + 1)
        self._address = ctypes.addressof(self._buffer)

    def set(self, data: bytes) -> None:
        self._buffer.value = data
        self.words[0] = len(data)
        self.words[1] = self._address


class _Environment:
    """An open LMDB environment and its one read transaction, which is reset and renewed but never ends."""

    LONGEST = 1024  # more than the longest bound of a range

    def __init__(self, lmdb: _Lmdb, path: str) -> None:
        ctypes = lmdb.ctypes
        self.lmdb = lmdb
        self.path = path
        self.file = os.path.join(path, "data.mdb")
        self.identity = self._identity()
        self.active = False
        self.generation = 0
        self.cursors: Dict[int, List[Any]] = {}
        self.closers: List[Callable[[], None]] = []
        self.key = _Slot(ctypes, self.LONGEST)
        self.data = _Slot(ctypes, self.LONGEST)
        handle = ctypes.c_void_p()
        self._check(lmdb.env_create(ctypes.byref(handle)), "mdb_env_create")
        self.handle = handle
        try:
            lmdb.env_set_maxdbs(handle, 8)
            code = lmdb.env_open(handle, os.fsencode(path), lmdb.READ_ONLY | lmdb.NO_TLS, 0o600)
            if code == errno.ENOENT:
                raise _NotYet
            self._check(code, "mdb_env_open")
            # Handles of databases outlive the transaction that opened them only if that commits.
            txn = self._begin()
            try:
                self.meta = self._database(txn, b"meta")
                self.entries = self._database(txn, b"entries")
                self.tags = self._database(txn, b"tags")
            finally:
                lmdb.txn_commit(txn)
            self.txn = self._begin()
        except BaseException:
            lmdb.env_close(handle)
            raise
        self.txn_argument = ctypes.c_void_p.from_param(self.txn.value)
        lmdb.txn_reset(self.txn)
        self.position = _Slot(ctypes, 8)
        self.position.set(b"position")

    @classmethod
    def open(cls, lmdb: _Lmdb, path: str) -> Optional["_Environment"]:
        """None: there is none yet."""
        if not os.path.exists(os.path.join(path, "data.mdb")):
            return None
        # Where the lock file cannot be written LMDB would read without being seen by the writer, which would then
        # use pages again under the reader.
        lock = os.path.join(path, "lock.mdb")
        if not os.access(lock, os.R_OK | os.W_OK):
            raise _CannotMap(f"{lock} cannot be written by this process")
        try:
            return cls(lmdb, path)
        except (FileNotFoundError, _NotYet):
            return None

    def close(self) -> None:
        lmdb = self.lmdb
        for cursor, _ in self.cursors.values():
            lmdb.cursor_close(cursor)
        self.cursors.clear()
        lmdb.txn_abort(self.txn)
        lmdb.env_close(self.handle)

    def is_current(self) -> bool:
        """Whether the file is still the one that was opened: the node may have made it anew."""
        try:
            return self._identity() == self.identity
        except OSError:
            return False

    def _identity(self) -> Tuple[int, int]:
        found = os.stat(self.file)
        return found.st_dev, found.st_ino

    def _check(self, code: int, what: str) -> None:
        if code:
            raise _CannotMap(f"{what}, {self.path}: {self.lmdb.reason(code)}")

    def _begin(self) -> Any:
        lmdb = self.lmdb
        txn = lmdb.ctypes.c_void_p()
        self._resized(
            lambda: lmdb.txn_begin(self.handle, None, lmdb.READ_ONLY, lmdb.ctypes.byref(txn)), "mdb_txn_begin"
        )
        return txn

    def _resized(self, call: Callable[[], int], what: str) -> None:
        """Calls what takes a view, following the file where it has outgrown the map. No view may be held."""
        lmdb = self.lmdb
        code = call()
        for _ in range(16):
            if code != lmdb.MAP_RESIZED:
                break
            self._check(lmdb.env_set_mapsize(self.handle, lmdb.ctypes.c_size_t(0)), "mdb_env_set_mapsize")
            code = call()
        self._check(code, what)

    def _database(self, txn: Any, name: bytes) -> int:
        number = self.lmdb.ctypes.c_uint()
        code = self.lmdb.dbi_open(txn, name, 0, self.lmdb.ctypes.byref(number))
        if code == self.lmdb.NOT_FOUND:
            raise _NotYet
        self._check(code, f"mdb_dbi_open of {name.decode()}")
        return number.value

    def renew(self) -> int:
        """Takes the newest view and gives its `processed`."""
        lmdb = self.lmdb
        txn = self.txn_argument
        self.reset()
        if lmdb.txn_renew(txn):
            self._resized(lambda: lmdb.txn_renew(txn), "mdb_txn_renew")
        self.active = True
        self.generation += 1
        if lmdb.get(txn, self.meta, self.position.reference, self.data.reference):
            raise _CannotMap(f"{self.path} has no position")
        record = self.bytes(self.data)
        if len(record) < 16 or record[:2] != b"\0\1":
            raise _CannotMap(f"{self.path} is of format {int.from_bytes(record[:2], 'big')}; this SDK reads 1")
        return int.from_bytes(record[8:16], "big", signed=True)

    def reset(self) -> None:
        if self.active:
            self.active = False
            self.lmdb.txn_reset(self.txn_argument)

    def bytes(self, slot: _Slot, skip: int = 0) -> bytes:
        """What a slot points to."""
        size, at = slot.words
        return self.lmdb.memory[at + skip : at + size]

    def locate(self, full: bytes) -> Optional[Tuple[int, int]]:
        """Address and size of an entry."""
        self.key.set(full)
        lmdb = self.lmdb
        code = lmdb.get(self.txn_argument, self.entries, self.key.reference, self.data.reference)
        if code == lmdb.NOT_FOUND:
            return None
        self.check_read(code)
        size, at = self.data.words
        return at + 4, size - 4

    def check_read(self, code: int) -> None:
        if code:
            raise StateUnavailable(f"state: reading {self.path}: {self.lmdb.reason(code)}")

    def cursor(self, database: int) -> Callable[[int], int]:
        """Moves a cursor over the present view: takes an operation, gives a code; `key` and `data` tell the place."""
        lmdb = self.lmdb
        known = self.cursors.get(database)
        if known is None:
            handle = lmdb.ctypes.c_void_p()
            self.check_read(lmdb.cursor_open(self.txn_argument, database, lmdb.ctypes.byref(handle)))
            known = self.cursors[database] = [handle, self.generation]
        elif known[1] != self.generation:
            self.check_read(lmdb.cursor_renew(self.txn_argument, known[0]))
            known[1] = self.generation
        return functools.partial(
            _move, lmdb.cursor_get, lmdb.ctypes.c_void_p.from_param(known[0].value), self.key.reference,
            self.data.reference,
        )  # fmt: skip

    def scan(self, low: bytes, high: bytes, reverse: bool, count: int, values: bool) -> _Found:
        lmdb = self.lmdb
        memory = lmdb.memory
        move = self.cursor(self.entries)
        key_words = self.key.words
        data_words = self.data.words
        found: List[Tuple[bytes, bytes]] = []
        room = _SCAN_BYTES
        if reverse:
            self.key.set(high)
            code = move(lmdb.PREV if move(lmdb.SET_RANGE) == 0 else lmdb.LAST)
            step = lmdb.PREV
        else:
            self.key.set(low)
            code = move(lmdb.SET_RANGE)
            step = lmdb.NEXT
        while code == 0:
            at = key_words[1]
            full = memory[at : at + key_words[0]]
            if full < low if reverse else full >= high:
                return found, False
            if len(found) == count or room <= 0:
                return found, True
            if values:
                at = data_words[1]
                size = data_words[0]
                found.append((full, memory[at + 4 : at + size]))
                room -= size
            else:
                found.append((full, b"\0"))
            code = move(step)
        if code != lmdb.NOT_FOUND:
            self.check_read(code)
        return found, False

    def find(self, prefix: bytes, tags: Sequence[bytes], low: bytes, high: bytes, count: int) -> _Found:
        lmdb = self.lmdb
        move = self.cursor(self.tags)
        # The tag that the fewest have leads; the entries say whether they have the others.
        leader, fewest = b"", -1
        number = lmdb.ctypes.c_size_t()
        for tag in tags:
            self.key.set(prefix + tag)
            code = move(lmdb.SET_KEY)
            if code == lmdb.NOT_FOUND:
                return [], False
            self.check_read(code)
            self.check_read(lmdb.cursor_count(self.cursors[self.tags][0], lmdb.ctypes.byref(number)))
            if fewest < 0 or number.value < fewest:
                leader, fewest = tag, number.value
        wanted = set(tags)
        found: List[Tuple[bytes, bytes]] = []
        room = _SCAN_BYTES
        width = len(prefix)
        last = None
        while True:
            # The look at the entry uses the same slots, so the place is set again each time.
            self.key.set(prefix + leader)
            if last is None and len(low) == width:
                code = move(lmdb.SET_KEY)
            elif last is None:
                self.data.set(low[width:])
                code = move(lmdb.GET_BOTH_RANGE)
            else:
                code = move(lmdb.NEXT_DUP)
            if code == lmdb.NOT_FOUND:
                return found, False
            self.check_read(code)
            last = prefix + self.bytes(self.data)
            if last >= high:
                return found, False
            place = self.locate(last)
            if place is None:
                continue
            at, size = place
            if not wanted.issubset(_read_head(lmdb.memory[at : at + min(size, _LONGEST_HEAD)])[2]):
                continue
            if len(found) == count or room <= 0:
                return found, True
            found.append((last, lmdb.memory[at : at + size]))
            room -= size


def _move(cursor_get: Any, cursor: Any, key: Any, data: Any, operation: int) -> int:
    return cursor_get(cursor, key, data, operation)


class _NotYet(Exception):
    """The environment is there, but its databases are not."""


# A page of a scan ends behind this many bytes.
_SCAN_BYTES = 1 << 20


class _Mapped(_Base):
    """Reads the node's LMDB environment in this process's memory.

    One view per partition: the partition's delivery takes the newest when it begins; whoever else reads the partition
    shares it. When nobody holds it, it is let go, so that the node can use old pages again.
    """

    def __init__(self, lmdb: _Lmdb, path: str, max_key: int, thread: int) -> None:
        self.lmdb = lmdb
        self.path = path
        self.max_key = max_key
        self.thread = thread
        self.environment: Optional[_Environment] = None
        self.holders = 0
        self.retired: List[_Environment] = []
        self.getters: Dict[bytes, Callable[[bytes], Optional[bytes]]] = {}

    def begin(self, own: bool, wanted: bool) -> int:
        environment = self.environment
        processed = -1
        if own or not self.holders:
            if environment is not None and not environment.is_current():
                self.environment = None
                self.getters.clear()
                if self.holders:
                    self.retired.append(environment)
                else:
                    environment.close()
            if self.environment is None:
                self.environment = _Environment.open(self.lmdb, self.path)
                if self.environment is not None:
                    self.getters.clear()
            if self.environment is not None:
                processed = self.environment.renew()
        self.holders += 1
        return processed

    def end(self) -> None:
        self.holders -= 1
        if self.holders == 0:
            if self.environment is not None:
                self.environment.reset()
            while self.retired:
                self.retired.pop().close()

    def getter(self, prefix: bytes) -> Callable[[bytes], Optional[bytes]]:
        fetch = self.getters.get(prefix)
        if fetch is None:
            fetch = self.getters[prefix] = self._getter(prefix)
        return fetch

    def _getter(self, prefix: bytes) -> Callable[[bytes], Optional[bytes]]:
        environment = self.environment
        max_key = self.max_key
        if environment is None:

            def missing(key: bytes) -> Optional[bytes]:
                _check_key(key, max_key)
                return None

            return missing

        # Everything that the call needs is made once: a read allocates nothing but the value.
        lmdb = self.lmdb
        ctypes = lmdb.ctypes
        get = lmdb.get
        memory = lmdb.memory
        txn = environment.txn_argument
        entries = environment.entries
        width = len(prefix)
        slot = _Slot(ctypes, environment.LONGEST)
        slot.set(prefix)
        area = (ctypes.c_char * max_key).from_address(slot.words[1] + width)
        words = slot.words
        reference = slot.reference
        out = _Slot(ctypes, 0)
        out_words = out.words
        out_reference = out.reference
        thread = self.thread
        this_thread = threading.get_ident
        not_found = lmdb.NOT_FOUND
        last = -1

        def fetch(key: bytes) -> Optional[bytes]:
            nonlocal last
            if this_thread() != thread:
                _wrong_thread()
            try:
                area.value = key
            except ValueError:
                _check_key(key, max_key)
            size = len(key)
            if size != last:
                words[0] = width + size
                last = size
            code = get(txn, entries, reference, out_reference)
            if code:
                _check_key(key, max_key)
                if code == not_found:
                    return None
                environment.check_read(code)
            at = out_words[1]
            if memory[at + 4] == b"\0":
                return memory[at + 5 : at + out_words[0]]
            end = at + out_words[0]
            return memory[at + 4 + _value_at(memory[at + 4 : min(end, at + 4 + _LONGEST_HEAD)]) : end]

        fetch.slots = (slot, out)  # type: ignore[attr-defined]  # their memory must last as long
        return fetch

    def _view(self) -> Optional[_Environment]:
        if threading.get_ident() != self.thread:
            _wrong_thread()
        return self.environment

    def entry(self, full: bytes) -> Optional[bytes]:
        environment = self._view()
        place = None if environment is None else environment.locate(full)
        return None if place is None else self.lmdb.memory[place[0] : place[0] + place[1]]

    def head(self, full: bytes) -> Optional[Tuple[int, Optional[int], Tuple[bytes, ...]]]:
        environment = self._view()
        place = None if environment is None else environment.locate(full)
        if place is None:
            return None
        at, size = place
        begin, expiry, tags = _read_head(self.lmdb.memory[at : at + min(size, _LONGEST_HEAD)])
        return size - begin, expiry, tags

    def piece(self, full: bytes, offset: int, size: int) -> Optional[bytes]:
        environment = self._view()
        place = None if environment is None else environment.locate(full)
        if place is None:
            return None
        at, whole = place
        begin = _value_at(self.lmdb.memory[at : at + min(whole, _LONGEST_HEAD)])
        first = at + min(begin + offset, whole)
        return self.lmdb.memory[first : min(first + size, at + whole)]

    def scan(self, low: bytes, high: bytes, reverse: bool, count: int, values: bool) -> _Found:
        environment = self._view()
        return ([], False) if environment is None else environment.scan(low, high, reverse, count, values)

    def find(self, prefix: bytes, tags: Sequence[bytes], low: bytes, high: bytes, count: int) -> _Found:
        environment = self._view()
        return ([], False) if environment is None else environment.find(prefix, tags, low, high, count)


def _wrong_thread() -> None:
    raise RuntimeError("state: it can be used in the thread that runs the handlers alone, not in another")


# Seconds between two attempts to map a partition, at most.
_LONGEST_PAUSE = 60.0


class _States:
    """The application's state at this worker: where it is, and its partitions as far as they have been used."""

    def __init__(self, told: Optional[Mapping[str, Any]], log: "Log") -> None:
        self.kept = told is not None
        told = told or {}
        self.log = log
        self.topic = str(told["topic"]) if self.kept else ""
        self.partitions = int(told.get("partitions", 0))
        self.path = str(told.get("path") or "")
        self.map = told.get("access") == "map" and bool(self.path)
        self.max_key = int(told.get("maxKey", 480))
        self.max_value = int(told.get("maxValue", 64 << 20))
        self.parts: Dict[int, _Part] = {}
        # Asks the node; set by the worker.
        self.ask: Callable[[Sequence[bytes]], List[bytes]] = self._cannot_ask
        self.memory = False  # TestRun: no node
        self.thread = threading.get_ident()
        self._lmdb: Optional[_Lmdb] = None

    def part(self, number: int) -> _Part:
        part = self.parts.get(number)
        if part is None:
            if not self.kept:
                raise StateUnavailable("state: this node keeps no state for applications; update it")
            if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < self.partitions:
                raise StateError(f"state: there is no partition {number!r}; they are 0 to {self.partitions - 1}")
            part = self.parts[number] = self._make(number)
        return part

    def _make(self, number: int) -> _Part:
        if self.memory:
            return _Part(number, _Memory(self.max_key))
        asking = _Asking(number, self.ask, self.max_key)
        if self.map and self._lmdb is None:
            try:
                self._lmdb = _Lmdb()
            except _CannotMap as error:
                self.map = False
                self._tell(error)
        if not self.map or self._lmdb is None:
            return _Part(number, asking)
        mapped = _Mapped(self._lmdb, os.path.join(self.path, str(number)), self.max_key, self.thread)
        return _Part(number, asking, mapped)

    def begin(self, part: _Part, own: bool, wanted: bool) -> int:
        """Takes a view of the partition's base, and sees to it that there is one."""
        if threading.get_ident() != self.thread and not self.memory:
            _wrong_thread()
        mapped = part.mapped
        if mapped is not None and (part.base is mapped or time.monotonic() >= part.retry_at):
            try:
                processed = mapped.begin(own, wanted)
                part.base = mapped
                part.failures = 0
                return processed
            except _CannotMap as error:
                # It may pass: the node may be making the file, or the table of readers be full.
                if part.failures == 0:
                    self._tell(error)
                part.failures += 1
                part.retry_at = time.monotonic() + min(2.0**part.failures, _LONGEST_PAUSE)
                part.base = _Asking(part.number, self.ask, self.max_key)
        return part.base.begin(own, wanted)

    def _tell(self, error: _CannotMap) -> None:
        self.log.warning("state cannot be read in memory and is asked of the node, which is slower", reason=str(error))

    @staticmethod
    def _cannot_ask(_: Sequence[bytes]) -> List[bytes]:
        raise StateUnavailable("state: there is no node to ask")


# MARK: State: what handlers use


def _check_key(key: Any, max_key: int) -> None:
    if type(key) is not bytes:
        raise StateError(f"state: a key is bytes or str, not {type(key).__name__}")
    if not key:
        raise StateError(f"state: the key is empty; it has 1 to {max_key} bytes")
    if len(key) > max_key:
        raise StateError(f"state: key {key[:32]!r}… has {len(key)} bytes; it may have {max_key}")


def _state_bytes(data: Any, what: str) -> bytes:
    if isinstance(data, str):
        return data.encode("utf-8")
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    hint = "; put_json takes what JSON can express" if what == "value" else ""
    raise StateError(f"state: a {what} is bytes or str, not {type(data).__name__}{hint}")


def _expiry(ttl: Any) -> int:
    """The time of day, in milliseconds, at which something written now expires."""
    period = _known_periods.get(ttl) if type(ttl) is str else None
    if period is None:
        period = _period(ttl)
        if type(ttl) is str:
            if len(_known_periods) >= _TAGS_CACHED:
                _known_periods.clear()
            _known_periods[ttl] = period
    return min(_now() + period, _LATEST_EXPIRY)


def _period(ttl: Any) -> int:
    """Milliseconds."""
    milliseconds: float
    if isinstance(ttl, datetime.timedelta):
        milliseconds = ttl / datetime.timedelta(milliseconds=1)
    elif isinstance(ttl, (int, float)) and not isinstance(ttl, bool):
        milliseconds = ttl * 1000
    else:
        found = _PERIOD.fullmatch(ttl) if isinstance(ttl, str) else None
        if found is None:
            raise StateError(
                f'state: ttl {ttl!r} is no period; write seconds, a timedelta, or text like "250ms", "10s", "15m", '
                '"12h" or "30d"'
            )
        milliseconds = float(found[1]) * _PERIOD_UNITS[found[2]]
    if not 0 < milliseconds < _LATEST_EXPIRY:
        raise StateError(f"state: ttl {ttl!r} is not more than 0, or too far away; None keeps the entry for good")
    return max(1, round(milliseconds))


def _tags(tags: Any) -> Tuple[bytes, ...]:
    """Tags as an entry has them."""
    given = tuple(tags) if type(tags) is list else tags
    if type(given) is tuple:
        try:
            return _known_tags[given]
        except (KeyError, TypeError):
            pass
    if isinstance(tags, (str, bytes, bytearray)):
        raise StateError(f"state: tags is a list of tags; write tags=[{tags!r}]")
    try:
        found = sorted(_tag(tag) for tag in tags)
    except TypeError:
        raise StateError(f"state: tags is a list of tags, not {type(tags).__name__}") from None
    if len(found) > _MOST_TAGS:
        raise StateError(f"state: {len(found)} tags; an entry may have {_MOST_TAGS}")
    for one, other in zip(found, found[1:]):
        if one == other:
            raise StateError(f"state: tag {one.decode()!r} is given twice")
    if type(given) is tuple and all(type(tag) is str for tag in given):
        if len(_known_tags) >= _TAGS_CACHED:
            _known_tags.clear()
        _known_tags[given] = tuple(found)
    return tuple(found)


def _tag(tag: Any) -> bytes:
    data = _state_bytes(tag, "tag")
    if not 1 <= len(data) <= _LONGEST_TAG:
        raise StateError(f"state: tag {tag!r} has {len(data)} bytes; a tag has 1 to {_LONGEST_TAG}")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        raise StateError(f"state: tag {tag!r} is not UTF-8") from None
    return data


class _Reading:
    """What `Store` and `PartitionView` have in common: reading."""

    __slots__ = ("_use", "_name", "_prefix", "_overlay", "_find", "_base", "_fetch", "_append", "_max_key", "_context")

    def __init__(self, context: "Context", use: _Use, name: str, number: Optional[int]) -> None:
        """`number`: the partition; None: of a hook, which has none."""
        self._context = context
        self._use = use
        self._name = name
        self._max_key = use.states.max_key
        self._overlay: _Overlay
        self._prefix: bytes
        self._find: Callable[[bytes], Optional[_Item]]
        self._base: _Base
        self._fetch: Callable[[bytes], Optional[bytes]]
        self._overlay, self._prefix, self._find, self._base, self._fetch = use.bind(name, number)
        self._append = use.append

    def _close(self, closed: "_Closed") -> None:
        """From now on every use is refused."""
        self._find = self._fetch = closed.entry
        self._base = closed

    # Point reads

    def get(self, key: Union[bytes, str], default: Any = None) -> Any:
        """The value of a key, bytes; `default` if there is none."""
        if type(key) is not bytes:
            key = _state_bytes(key, "key")
        item = self._find(key)
        value = self._fetch(key) if item is None else item[1]
        return default if value is None else value

    def get_json(self, key: Union[bytes, str], default: Any = None) -> Any:
        """The value of a key read as JSON; `default` if there is none. Raises ValueError if it is not JSON."""
        value = self.get(key)
        return default if value is None else json.loads(value)

    def get_many(self, keys: Iterable[Union[bytes, str]]) -> Dict[bytes, bytes]:
        """The values of those of the keys that there are."""
        found: Dict[bytes, bytes] = {}
        missing: List[bytes] = []
        for key in keys:
            key = self._key(key)
            item = self._find(key)
            if item is None:
                missing.append(key)
            elif item[1] is not None:
                found[key] = item[1]
        if missing:
            prefix = self._prefix
            for key, entry in zip(missing, self._base.entries([prefix + key for key in missing])):
                if entry is not None:
                    found[key] = _value_of(entry)
        return found

    def read(self, key: Union[bytes, str], offset: int = 0, size: Optional[int] = None) -> bytes:
        """Up to `size` bytes of a value from `offset` on (None: to its end), without a copy of the rest. Empty if
        there is no such entry, or it ends before."""
        key = self._key(key)
        if not isinstance(offset, int) or offset < 0:
            raise StateError(f"read: offset is 0 or more, not {offset!r}")
        if size is not None and (not isinstance(size, int) or size < 0):
            raise StateError(f"read: size is 0 or more, or None, not {size!r}")
        count = self._use.states.max_value if size is None else min(size, self._use.states.max_value)
        item = self._find(key)
        if item is not None:
            return (item[1] or b"")[offset : offset + count]
        return self._base.piece(self._prefix + key, min(offset, self._use.states.max_value), count) or b""

    def size(self, key: Union[bytes, str]) -> Optional[int]:
        """The size of a value in bytes; None if there is no such entry."""
        head = self._head(self._key(key))
        return None if head is None else head[0]

    def contains(self, key: Union[bytes, str]) -> bool:
        """Whether there is an entry with this key; also `key in store`."""
        return self._head(self._key(key)) is not None

    __contains__ = contains

    def tags(self, key: Union[bytes, str]) -> Tuple[str, ...]:
        """The tags of an entry, in order; none if there is no such entry."""
        head = self._head(self._key(key))
        return () if head is None else tuple(tag.decode("utf-8", "replace") for tag in head[2])

    def expires(self, key: Union[bytes, str]) -> Optional[int]:
        """When the entry expires, in milliseconds since 1970-01-01 UTC; None: never, or there is no such entry."""
        head = self._head(self._key(key))
        return None if head is None else head[1]

    # Ranges

    def scan(
        self,
        prefix: Union[bytes, str] = b"",
        start: Union[bytes, str, None] = None,
        end: Union[bytes, str, None] = None,
        reverse: bool = False,
        limit: Optional[int] = None,
    ) -> Iterator[Tuple[bytes, bytes]]:
        """Keys and values in order of key: those that begin with `prefix`, with start <= key < end, the last first if
        `reverse`, at most `limit`.

        What it goes over is the state at the moment of the call, whatever is written meanwhile.
        """
        return self._scan(prefix, start, end, reverse, limit, True)

    def keys(
        self,
        prefix: Union[bytes, str] = b"",
        start: Union[bytes, str, None] = None,
        end: Union[bytes, str, None] = None,
        reverse: bool = False,
        limit: Optional[int] = None,
    ) -> Iterator[bytes]:
        """As `scan`, the keys alone."""
        return (key for key, _ in self._scan(prefix, start, end, reverse, limit, False))

    def find(
        self, *tags: str, prefix: Union[bytes, str] = b"", limit: Optional[int] = None
    ) -> Iterator[Tuple[bytes, bytes]]:
        """Keys and values of the entries that have all of the tags, in order of key; a view as that of `scan`."""
        wanted = _tags(tags)
        if not wanted:
            raise StateError("find: name a tag at least")
        low, high = self._range(prefix, None, None)
        limit = _limit(limit)

        def page(low: bytes, high: bytes, count: int) -> _Found:
            return self._base.find(self._prefix, wanted, low, high, count)

        asked = set(wanted)
        written = [
            (key, item if item[1] is not None and asked.issubset(item[3]) else _GONE)
            for key, item in self._overlay.between(low, high)
        ]
        return self._merged(written, low, high, False, limit, page)

    def _scan(self, prefix: Any, start: Any, end: Any, reverse: bool, limit: Any, values: bool) -> Iterator[Any]:
        low, high = self._range(prefix, start, end)
        limit = _limit(limit)

        def page(low: bytes, high: bytes, count: int) -> _Found:
            return self._base.scan(low, high, reverse, count, values)

        written = self._overlay.between(low, high)
        if reverse:
            written.reverse()
        return self._merged(written, low, high, reverse, limit, page)

    def _range(self, prefix: Any, start: Any, end: Any) -> Tuple[bytes, Optional[bytes]]:
        """The bounds within the store; None: its end."""
        self._find(b"")  # refuses a store that is closed
        low = _state_bytes(prefix, "prefix")
        high = _behind(low)
        if start is not None:
            low = max(low, _state_bytes(start, "start"))
        if end is not None:
            end = _state_bytes(end, "end")
            high = end if high is None else min(high, end)
        # No key is longer, so for a longer bound the place is the same behind what a key may have of it.
        most = self._max_key
        if len(low) > most:
            low = low[:most] + b"\0"
        if high is not None and len(high) > most:
            high = high[:most] + b"\0"
        return low, high

    def _merged(
        self,
        written: List[Tuple[bytes, _Item]],
        low: bytes,
        high: Optional[bytes],
        reverse: bool,
        limit: Optional[int],
        page: Callable[[bytes, bytes, int], _Found],
    ) -> Iterator[Tuple[bytes, bytes]]:
        """The base with what was written over it."""
        prefix = self._prefix
        full_low = prefix + (low or b"\0")
        # The store's end if there is no other: behind its name, or behind the length 0 of the default store's.
        full_high = _behind(prefix) if high is None else prefix + high
        assert full_high is not None
        left = sys.maxsize if limit is None else limit
        if left == 0 or full_low >= full_high:
            return
        width = len(prefix)
        count = min(left + 1, 32)
        at = 0
        more = True
        while more:
            found, more = page(full_low, full_high, count)
            count = min(4 * count, 1024)
            for full, entry in found:
                key = full[width:]
                newer = False
                while at < len(written) and (written[at][0] >= key if reverse else written[at][0] <= key):
                    other, item = written[at]
                    at += 1
                    newer = other == key
                    if item[1] is not None:
                        yield other, item[1]
                        left -= 1
                        if left == 0:
                            return
                if not newer:
                    yield key, _value_of(entry)
                    left -= 1
                    if left == 0:
                        return
            if more:
                if reverse:
                    full_high = found[-1][0]
                else:
                    full_low = found[-1][0] + b"\0"
        for key, item in written[at:]:
            if item[1] is not None:
                yield key, item[1]
                left -= 1
                if left == 0:
                    return

    def _key(self, key: Any) -> bytes:
        if type(key) is not bytes:
            key = _state_bytes(key, "key")
        _check_key(key, self._max_key)
        return key

    def _head(self, key: bytes) -> Optional[Tuple[int, Optional[int], Tuple[bytes, ...]]]:
        """Size, expiry and tags of an entry."""
        item = self._find(key)
        if item is None:
            return self._base.head(self._prefix + key)
        return None if item[1] is None else (len(item[1]), item[2], item[3])

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name or '(default)'!r}>"


_GONE: _Item = (-1, None, None, ())


def _limit(limit: Any) -> Optional[int]:
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
        raise StateError(f"state: limit is 0 or more, or None, not {limit!r}")
    return limit


class _Closed(_Base):
    """What a store reads from when it may not be used any more."""

    def __init__(self, refuse: Callable[..., Any]) -> None:
        self.entry = self.entries = self.head = self.piece = self.scan = self.find = refuse  # type: ignore


def _has_ended(*_: Any) -> Any:
    raise RuntimeError("state: the handler that this context belongs to has ended")


def _of_a_hook(*_: Any) -> Any:
    raise RuntimeError(
        "state: only the handler of an event has a partition's state to read and write; a start or stop hook can read "
        "that of ctx.state.partition(n)"
    )


_ENDED = _Closed(_has_ended)
_OF_A_HOOK = _Closed(_of_a_hook)


class PartitionView(_Reading):
    """A store as another partition has it, to read alone. It may be behind: what that partition's events wrote a
    moment ago need not be there yet, and what was read may have been overwritten since. Got by `Store.partition` and
    `Store.of`; good until the handler ends.

    Of the partition of the event at hand it shows what the store itself does.
    """

    __slots__ = ()


class Store(_Reading):
    """A store of the application's state: entries with a key, as the partition of the event at hand has them.

    `ctx.state` is the default store, `ctx.store("sessions")` one with a name. Keys and values are bytes or str, which
    stands for its UTF-8; reading gives bytes. Keys are ordered bytewise.

    A handler sees what it wrote itself and what the events before it in the partition wrote. Its own writes become
    lasting together with the rest of its result, or not at all if it fails. A store belongs to one event; used later
    it raises RuntimeError.

    `ttl` is how long an entry lives: seconds, a timedelta, or text such as "30d", "12h", "15m", "10s", "250ms". It is
    removed soon after. `tags` are up to 16 words to find entries by. Both belong to the one write: `put` without
    them writes an entry that has none.

    StateError says what is wrong with a key, value, ttl or tag; StateUnavailable that the state could not be read.
    """

    __slots__ = ()

    def put(self, key: Union[bytes, str], value: Union[bytes, str], ttl: Any = None, tags: Iterable[str] = ()) -> None:
        """Writes an entry. What there was under the key is gone, its ttl and tags, too."""
        if type(key) is not bytes:
            key = _state_bytes(key, "key")
        if type(value) is not bytes:
            value = _state_bytes(value, "value")
        expiry = None if ttl is None else _expiry(ttl)
        words = _tags(tags) if tags else ()
        if len(value) > _SMALL_VALUE or not 0 < len(key) <= self._max_key:
            return self._write(key, value, expiry, words)
        offset = self._context._offset
        before = self._find(key)
        overlay = self._overlay
        overlay.items[key] = (offset, value, expiry, words)
        if before is None:
            self._append((offset, overlay, key, None))
            if overlay.order is not None:
                overlay.fresh.append(key)
        elif before[0] != offset:
            self._append((offset, overlay, key, before))

    def put_json(self, key: Union[bytes, str], value: Any, ttl: Any = None, tags: Iterable[str] = ()) -> None:
        """Writes a value as JSON. Raises TypeError or ValueError for what JSON cannot express."""
        self.put(key, _encode_json(value).encode("utf-8"), ttl, tags)

    def put_many(
        self,
        items: Union[Mapping[Any, Union[bytes, str]], Iterable[Tuple[Any, Union[bytes, str]]]],
        ttl: Any = None,
        tags: Iterable[str] = (),
    ) -> None:
        """Writes the entries of a mapping, or pairs of key and value."""
        words = _tags(tags)
        expiry = None if ttl is None else _expiry(ttl)
        for key, value in items.items() if isinstance(items, Mapping) else items:
            self._write(self._key(key), value if type(value) is bytes else _state_bytes(value, "value"), expiry, words)

    def remove(self, key: Union[bytes, str]) -> None:
        """Removes an entry, if there is one."""
        self._write(self._key(key), None, None, ())

    def remove_many(self, keys: Iterable[Union[bytes, str]]) -> None:
        """Removes entries, as far as they exist."""
        for key in keys:
            self._write(self._key(key), None, None, ())

    def cas(
        self,
        key: Union[bytes, str],
        expected: Union[bytes, str, None],
        new: Union[bytes, str, None],
        ttl: Any = None,
        tags: Iterable[str] = (),
    ) -> bool:
        """Writes `new` if the value is `expected`, and says whether it was. Of `expected` None means that there is no
        entry, of `new` that it is to be removed."""
        key = self._key(key)
        if expected is not None:
            expected = _state_bytes(expected, "value")
        if new is not None:
            new = _state_bytes(new, "value")
        expiry = None if ttl is None else _expiry(ttl)
        words = _tags(tags)
        if self.get(key) != expected:
            return False
        if new is not None or expected is not None:
            self._write(key, new, expiry, words)
        return True

    def append(self, key: Union[bytes, str], data: Union[bytes, str]) -> int:
        """Puts `data` behind the value and gives the new size. An entry that there was not begins with it; one that
        there was keeps its ttl and tags. The whole value is written anew."""
        key = self._key(key)
        data = _state_bytes(data, "value")
        head = self._head(key)
        if head is None:
            self._write(key, data, None, ())
            return len(data)
        size, expiry, words = head
        self._check_size(key, size + len(data))
        self._write(key, (self.get(key) or b"") + data, expiry, words)
        return size + len(data)

    def partition(self, number: int) -> PartitionView:
        """The same store in another partition: to be read, and possibly stale."""
        return self._context._view(self._name, number)

    def of(self, key: Union[bytes, str]) -> PartitionView:
        """The same store in the partition that events with this key go to: to be read, and possibly stale unless it
        is the partition of the event at hand."""
        return self.partition(_partition_of(_state_bytes(key, "key"), max(1, self._use.states.partitions)))

    def _check_size(self, key: bytes, size: int) -> None:
        most = self._use.states.max_value
        if size > most:
            raise StateError(f"state: the value of {key[:64]!r} has {size:,} bytes; it may have {most:,}")

    def _write(self, key: bytes, value: Optional[bytes], expiry: Optional[int], tags: Tuple[bytes, ...]) -> None:
        """The careful way of writing, with values that are bytes."""
        _check_key(key, self._max_key)
        before = self._find(key)
        if value is not None and len(value) > _SMALL_VALUE:
            self._check_size(key, len(value))
            self._use.grow(len(value))
        overlay = self._overlay
        offset = self._context._offset
        overlay.items[key] = (offset, value, expiry, tags)
        if before is None:
            self._append((offset, overlay, key, None))
            if overlay.order is not None:
                overlay.fresh.append(key)
        elif before[0] != offset:
            self._append((offset, overlay, key, before))


# MARK: Context


class Context:
    """What a handler can do. It belongs to the event at hand and must not be used after its handler has ended."""

    __slots__ = (
        "_runner",
        "_outs",
        "_fast",
        "_offset",
        "_info",
        "_answered",
        "_passed",
        "_open",
        "_delivery",
        "_use",
        "_stores",
        "_ended",
        "state",
    )

    state: Store  # the default store

    def __init__(self, runner: "_Runner", outs: Optional[_Outputs], delivery: Optional["_Delivery"] = None) -> None:
        self._runner = runner
        self._outs: _Outputs = outs  # type: ignore[assignment]  # checked by `_open` before use
        self._fast = _NOTHING
        self._offset = 0 if delivery is None else delivery.first
        self._delivery = delivery
        self._use: Optional[_Use] = None
        self._stores: Optional[Dict[Any, Any]] = None
        self._ended = False
        self._info: Optional[_Info] = None
        self._answered = False  # a final reply was given
        self._passed = False  # the reply address went on with an emitted event
        self._open = outs is not None

    def emit(
        self, name: str, value: Any = b"", key: Key = None, headers: Optional[Headers] = None, detached: bool = False
    ) -> None:
        """Emits an event under a name that the manifest lists: a signal of this application or a slot, `app@event`.

        `value` is bytes, str (sent as UTF-8), None (no value at all: a tombstone) or anything that JSON can express.
        Events of one key stay in order; an
        event without key goes to any partition. `headers` are the event's own; names that begin with `g.` are
        Grape's. A caller's reply address and deadline go along, so that a later stage can answer, unless
        `detached` is true.

        The event is committed with the result of the event being handled, or not at all if its handler fails.

        Raises RouteError (the name is not listed), TooLarge (key, value and headers exceed the node's limit),
        TypeError or ValueError (a key, value or header of the wrong kind) and HopLimitExceeded.
        """
        if type(value) is not bytes:
            value = _TOMBSTONE if value is None else _to_bytes(value)
        if headers is None and len(value) <= _SMALL_VALUE:
            try:
                destination = self._fast[name][key]
            except (KeyError, TypeError):
                pass
            else:
                destination[0]((destination, value, self._offset))
                return
        self._emit(name, value, key, headers, detached)

    def _emit(self, name: str, value: bytes, key: Key, headers: Optional[Headers], detached: bool) -> None:
        """The careful way: whatever has not been seen before, is large, or takes something along."""
        runner = self._runner
        info = self._info
        outs = self._outs
        if info is None:
            raise RuntimeError("emit: only the handler of an event can emit, a start or stop hook cannot")
        if not self._open:
            raise RuntimeError("emit: the handler that this context belongs to has ended")
        routes = runner.routes_to(name)
        if info.hops >= runner.max_hops:
            raise HopLimitExceeded(
                f"emit {name!r}: the event has passed through {info.hops} handlers, as many as are allowed: "
                "most likely a loop"
            )
        keys = outs.keys_for(info.hops, name, routes, runner.max_event)
        if headers is None and info.plain and len(value) <= _SMALL_VALUE:
            destination = keys[key]
            destination[0]((destination, value, self._offset))
            return

        travelling: List[bytes] = []
        carries = False
        if not detached:
            if info.deadline_header is not None:
                travelling.append(info.deadline_header)
            if info.reply_header is not None:
                travelling.append(info.reply_header)
                carries = True
        given = _own_headers(headers)
        own: List[bytes] = []
        if info.trace_header is not None and not any(text == "traceparent" for text, _ in given):
            own.append(info.trace_header)
        own.extend(_header(text.encode("utf-8"), field) for text, field in given)
        destinations, beside = keys.destinations(_key_to_bytes(key), travelling, own)
        keys.check(beside + len(value))
        for destination in destinations:
            destination[0]((destination, value, self._offset))
            if len(value) > _SMALL_VALUE:
                outs.grow(len(value))
        if carries and not all(route.external for route in routes):
            self._passed = True

    def reply(self, data: Any = None, final: bool = True) -> bool:
        """Answers the caller that waits for this event. Says whether there is one; without one it does nothing.

        With `final=False` it is one part of the answer: more may follow, from this handler or, once the event has
        been passed on, from a later one. A handler that ends without a final reply and without having passed the
        event on is answered for, with an empty one. All replies leave with the handler's result.

        Raises RuntimeError after a final reply, TooLarge, and TypeError or ValueError for data that JSON cannot
        express.
        """
        if self._info is None:
            raise RuntimeError("reply: only the handler of an event can reply, a start or stop hook cannot")
        if not self._open:
            raise RuntimeError("reply: the handler that this context belongs to has ended")
        if self._info.reply is None:
            return False
        if self._answered:
            raise RuntimeError("reply: the caller has already got its final reply")
        value = None if data is None else _to_bytes(data)
        if value is not None and len(value) + 128 > self._runner.max_event:
            raise TooLarge(f"reply: {len(value):,} bytes; the limit is {self._runner.max_event - 128:,}")
        self._answer(self._info, value, _STATUS_OK, _RAN, final, 0, "")
        self._answered = final
        return True

    def _answer(
        self, info: _Info, value: Optional[bytes], status: int, ran: int, final: bool, code: int, message: str
    ) -> None:
        state = _REPLY_STATE.pack(status, ran, 1 if final else 0, code) + _text_to_str16(message)
        self._outs.replies.append(_Reply(self._offset, info.reply, value, state, final))
        if value is not None and len(value) > _SMALL_VALUE:
            self._outs.grow(len(value))

    def _fork(self) -> "Context":
        """A context of its own for one asynchronous handler, so that a task it leaves behind cannot emit for others."""
        other = Context(self._runner, self._outs, self._delivery)
        other._offset = self._offset
        other._fast = self._fast
        other._info = self._info
        return other

    def _close(self) -> None:
        self._open = False
        self._ended = True
        self._fast = _NOTHING
        if self._stores is not None:
            for store in self._stores.values():
                store._close(_ENDED)
            self._stores = None
            try:
                del self.state
            except AttributeError:
                pass  # named stores alone were used
        if self._outs is None and self._use is not None:
            self._use.end()  # a hook's own; that of a delivery ends with it
        self._use = None

    def __getattr__(self, name: str) -> Any:
        # The slot is filled when it is first wanted: handlers without state do not pay for it.
        if name == "state":
            store = self.store("")
            self.state = store
            return store
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def store(self, name: str) -> Store:
        """A store of the application's state by its name: lower-case letters, digits and "-", at most 30 characters,
        a letter first. The empty name is that of the default store, `ctx.state`."""
        stores = self._stores
        found = stores.get(name) if stores is not None else None
        if found is None:
            if name != "" and not (isinstance(name, str) and _STORE_NAME.fullmatch(name)):
                raise StateError(
                    f"store: {name!r} is not the name of a store: a-z, 0-9 and -, at most 30 characters, a letter first"
                )
            use = self._used()
            found = Store(self, use, name, None if use.part is None else use.part.number)
            self._keep(name, found)
        return found

    def _view(self, name: str, number: int) -> PartitionView:
        """A store of another partition."""
        stores = self._stores
        found = stores.get((name, number)) if stores is not None else None
        if found is None:
            found = PartitionView(self, self._used(), name, number)
            self._keep((name, number), found)
        return found

    def _keep(self, place: Any, store: Any) -> None:
        if self._stores is None:
            self._stores = {}
        self._stores[place] = store

    def _used(self) -> _Use:
        use = self._use
        if use is None:
            if self._ended:
                _has_ended()
            outs = self._outs
            if outs is None:
                use = _Use(self._runner.states, None, None)
            else:
                use = outs.use
                if use is None:
                    use = outs.use = _Use(self._runner.states, outs, self._delivery)
            self._use = use
        return use

    @property
    def log(self) -> "Log":
        """The application's log."""
        return self._runner.log

    @property
    def app(self) -> str:
        """The application's name."""
        return self._runner.app

    @property
    def worker(self) -> str:
        """This worker's name, for instance `flights-3`."""
        return self._runner.worker

    @property
    def version(self) -> str:
        """The version of the package: a content hash."""
        return self._runner.version

    @property
    def config(self) -> Mapping[str, Any]:
        """The configuration that the profile gives this application."""
        return self._runner.config

    @property
    def routes(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """The names this application may emit, and where each goes at present: topic, event, partitions."""
        return self._runner.routes


def _own_headers(headers: Optional[Headers]) -> List[Tuple[str, Optional[bytes]]]:
    if headers is None:
        return []
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    own = []
    for name, value in pairs:
        if not isinstance(name, str) or not name:
            raise TypeError(f"emit: a header's name is a str that is not empty, not {name!r}")
        if name.startswith("g."):
            raise ValueError(f"emit: header {name!r}: names that begin with 'g.' belong to Grape")
        if isinstance(value, str):
            value = value.encode("utf-8")
        elif value is not None:
            if not isinstance(value, (bytes, bytearray, memoryview)):
                raise TypeError(f"emit: header {name!r} is bytes, str or None, not {type(value).__name__}")
            value = bytes(value)
        own.append((name, value))
    return own


# MARK: Runner: one delivery in, one result out


class _Delivery:
    """A delivery and how far it has got. The heartbeat thread reads `context._offset` and `first`."""

    __slots__ = ("id", "body", "partition", "attempt", "first", "end", "skips", "at", "context", "seen", "since")

    def __init__(self, identifier: int, body: bytes) -> None:
        self.id = identifier
        self.body = body
        self.partition, self.attempt, self.first, self.end, skips = _DELIVER.unpack_from(body)
        self.at = _DELIVER.size + 8 * skips
        self.skips = frozenset(struct.unpack_from(f">{skips}q", body, _DELIVER.size)) if skips else ()
        self.context: Optional[Context] = None
        # For the heartbeat thread alone: the last progress it saw, and when.
        self.seen = -1
        self.since = 0.0

    def done(self) -> int:
        """How many of its events are done. Exact as long as the log has no gaps; never decreasing in any case."""
        context = self.context
        if context is None:
            return 0
        offset = context._offset
        done = offset - self.first
        if self.skips:
            done -= sum(1 for skipped in self.skips if self.first <= skipped < offset)
        return max(0, done)


class _Runner:
    """Runs the handlers for deliveries and makes results of what they do. No I/O but the traceback of a failure."""

    def __init__(self, handlers: Mapping[str, Handler], welcome: Mapping[str, Any], log: "Log") -> None:
        self.log = log
        self.app = str(welcome.get("app", ""))
        self.worker = str(welcome.get("worker", ""))
        self.version = str(welcome.get("version", ""))
        self.config = MappingProxyType(dict(welcome.get("config") or {}))
        self.routes = MappingProxyType({name: tuple(found) for name, found in (welcome.get("routes") or {}).items()})
        self.max_event = int(welcome.get("maxEvent", 8 << 20))
        self.max_hops = int(welcome.get("maxHops", 64))
        self.max_frame = int(welcome.get("maxFrame", (64 << 20) + (64 << 10)))
        self.level = _compression_level(welcome.get("compression") or "none")
        self.output_limit = min(_OUTPUT_LIMIT, self.max_frame // 4)
        self.states = _States(welcome.get("state"), log)
        self.slots = {name: index for index, name in enumerate(welcome["slots"])}
        self.handlers = handlers
        self._routes = {
            name: tuple(
                _Route(to["topic"], to.get("event", ""), to["partitions"], bool(to.get("external"))) for to in found
            )
            for name, found in self.routes.items()
        }
        self._infos: Dict[bytes, _Info] = {}
        self._idle: List[_Outputs] = []

    def routes_to(self, name: str) -> Tuple[_Route, ...]:
        routes = self._routes.get(name)
        if routes is None:
            known = ", ".join(sorted(self._routes)) or "none"
            raise RouteError(f"emit {name!r}: not a name that this application may emit; the manifest lists: {known}")
        return routes

    def _info(self, raw: bytes) -> _Info:
        """What the headers say, and the handler for them."""
        info = _Info(raw)
        info.handler = self.handlers.get(info.name)
        info.slot = self.slots.get(info.name, -1)
        if info.slot < 0:
            info.handler = None
        if info.plain and len(raw) <= _LONGEST_HEADERS_CACHED:
            if len(self._infos) >= _HEADERS_CACHED:
                self._infos.clear()
            self._infos[raw] = info
        return info

    def run(self, delivery: _Delivery):
        """A generator that runs a delivery. It yields what has to be awaited, and returns the parts of the RESULT."""
        outs = self._idle.pop() if self._idle else _Outputs(self.level, self.output_limit)
        outs.begin()
        part = self.states.parts.get(delivery.partition)
        if part is not None:
            part.rewind(delivery.first, delivery.skips)
        context = delivery.context = Context(self, outs, delivery)
        try:
            parts = yield from self._run(delivery, outs, context)
            return parts
        except (IndexError, UnicodeDecodeError, struct.error) as error:
            # Not a handler's: those are caught where it is called.
            raise _ProtocolError(f"delivery {delivery.id} holds a broken record batch: {error}") from error
        finally:
            context._close()
            outs.clear()
            self._idle.append(outs)

    def _run(self, delivery: _Delivery, outs: _Outputs, context: Context):
        # The hot loop of every worker. Records are decoded in place with the short forms of varints inlined, and
        # everything that can differ only per batch or per set of headers is kept out of it.
        body = delivery.body
        at = delivery.at
        first = delivery.first
        end = delivery.end
        skips = delivery.skips
        infos = self._infos
        clock = time.perf_counter_ns
        verdicts: List[bytes] = []
        refused: List[int] = []
        origins: Dict[int, _Info] = {}
        tally: Dict[int, List[int]] = {}
        processed = end
        stopped = False

        last = None
        info: Any = None
        handler: Any = None
        special = wanted = False
        slot = -1
        succeeded = failed = 0
        started = clock()
        event_type = Event

        while at < len(body) and not stopped:
            head = _BATCH.unpack_from(body, at)
            base, size, _, magic, _, attributes, last_delta, base_time, _, _, _, _, count = head
            limit = at + 12 + size
            if magic != 2 or limit > len(body):
                raise _ProtocolError(f"delivery {delivery.id}: no whole record batch of version 2 at byte {at}")
            codec = attributes & 7
            if codec == 0:
                data = body
                pos = at + _BATCH_SIZE
            elif codec == 4 and _zstd is not None:
                data = _zstd.decompress(body[at + _BATCH_SIZE : limit])
                pos = 0
            else:
                raise _ProtocolError(f"delivery {delivery.id}: codec {codec} of a batch was not offered")
            at = limit
            limit = limit if codec == 0 else len(data)
            batch = _BatchInfo(delivery.partition, delivery.attempt, base_time)
            check = base < first or base + last_delta >= end or bool(skips)
            dense = last_delta == count - 1

            index = 0
            while index < count and not stopped:
                # `width`: the bytes of attributes, timestamp delta (if it is short) and offset delta, and one for a
                # short key length. In a batch without gaps the offset deltas count up, so their sizes are known.
                if not dense:
                    delta, width = _peek_offset(data, pos)
                    run = range(base + delta, base + delta + 1)
                    index += 1
                else:
                    if index < 64:
                        stop, width = 64, 4
                    elif index < 8192:
                        stop, width = 8192, 5
                    elif index < 1 << 20:
                        stop, width = 1 << 20, 6
                    else:
                        stop, width = 1 << 27, 7
                    stop = min(stop, count, index + _STRIDE)
                    run = range(base + index, base + stop)
                    index = stop

                run = outs.stride = iter(run)
                for offset in run:
                    byte = data[pos]
                    if byte < 128:
                        stop = pos + 1 + (byte >> 1)
                        pos += 1
                    else:
                        byte_2 = data[pos + 1]
                        if byte_2 < 128:
                            stop = pos + 2 + ((byte & 127 | byte_2 << 7) >> 1)
                            pos += 2
                        else:
                            byte, pos = _read_varint(data, pos)
                            stop = pos + (byte >> 1)
                    if check and (offset < first or offset >= end or offset in skips):
                        pos = stop
                        continue
                    event = event_type()
                    age = data[pos + 1]
                    if age > 127:
                        age, pos_2 = _read_varint(data, pos + 1)
                        pos = pos_2 - 2
                    event._age = age

                    pos += width
                    byte = data[pos - 1]
                    if byte < 128:
                        if byte == 1:
                            event.key = None
                        else:
                            byte = pos + (byte >> 1)
                            event.key = data[pos:byte]
                            pos = byte
                    else:
                        byte, pos = _read_varint(data, pos - 1)
                        byte = pos + (byte >> 1)
                        event.key = data[pos:byte]
                        pos = byte

                    byte = data[pos]
                    if byte < 128:
                        pos += 1
                        # -1, null, is 1 here: an empty value
                        if byte == 1:
                            event._null = True
                        byte = pos + (byte >> 1)
                    else:
                        byte_2 = data[pos + 1]
                        if byte_2 < 128:
                            pos += 2
                            byte = pos + ((byte & 127 | byte_2 << 7) >> 1)
                        else:
                            byte, pos = _read_varint(data, pos)
                            byte = pos + (byte >> 1)
                    event.value = data[pos:byte]
                    raw = data[byte:stop]
                    pos = stop

                    context._offset = event.offset = offset
                    if raw != last:
                        last = raw
                        info = infos.get(raw) or self._info(raw)
                        context._info = info
                        handler = info.handler
                        wanted = info.reply is not None
                        special = wanted or info.deadline is not None or handler is None
                        context._fast = _NOTHING
                        if info.plain:
                            context._fast = outs.fast.setdefault(info.hops, {})
                        if info.slot != slot:
                            now = clock()
                            if succeeded or failed:
                                _add(tally, slot, succeeded, failed, now - started)
                                succeeded = failed = 0
                            started = now
                            slot = info.slot
                    event._info = info
                    event._batch = batch

                    if special:
                        context._answered = context._passed = False
                        if wanted:
                            origins[offset] = info
                        if handler is None:
                            message = f"this worker has no handler for the event {info.name!r}"
                            verdicts.append(_verdict(offset, _REJECTED, _STATUS_NO_SUCH_SLOT, 0, message))
                            refused.append(offset)
                            if wanted:
                                context._answer(info, None, _STATUS_NO_SUCH_SLOT, _NEVER_RAN, True, 0, message)
                            continue
                        if info.deadline is not None and _now() > info.deadline:
                            verdicts.append(_verdict(offset, _EXPIRED, 0, 0, "the deadline had passed"))
                            refused.append(offset)
                            if wanted:
                                context._answer(
                                    info, None, _STATUS_DEADLINE, _NEVER_RAN, True, 0, "the deadline had passed"
                                )
                            continue

                    try:
                        result = handler(event, context)
                        if result is not None or wanted:
                            if type(result) is not bytes and hasattr(result, "__await__"):
                                result = yield result
                            if wanted:
                                if result is not None:
                                    context.reply(result)
                                elif not context._answered and not context._passed:
                                    context._answer(info, None, _STATUS_OK, _RAN, True, 0, "")
                        succeeded += 1
                    except GeneratorExit:
                        raise
                    except BaseException as error:
                        failed += 1
                        outs.take_back(offset)
                        verdict, code, delay, message, status = _judge(error, event)
                        if wanted:
                            context._answer(info, None, status, _RAN, True, code, message)
                            if verdict == _RETRY:
                                # The caller is told at once; it may well call again.
                                verdict, delay = _FAILED, 0
                        verdicts.append(_verdict(offset, verdict, code, delay, message))
                        refused.append(offset)
                        if not wanted and verdict != _REJECTED:
                            processed = offset
                            stopped = True
                            break

                if dense:
                    index = offset - base + 1  # a large value may have ended the stride before its time
                if not stopped and outs.exceeds() and offset + 1 < end:
                    processed = max(offset + 1, first)
                    stopped = True
            if not stopped and pos != limit:
                raise _ProtocolError(f"delivery {delivery.id}: the batch at offset {base} is not filled by its records")

        if succeeded or failed:
            _add(tally, slot, succeeded, failed, clock() - started)
        return self._result(processed, verdicts, refused, tally, outs, context, origins)

    def _result(
        self,
        processed: int,
        verdicts: List[bytes],
        refused: List[int],
        tally: Dict[int, List[int]],
        outs: _Outputs,
        context: Context,
        origins: Dict[int, _Info],
    ) -> List[bytes]:
        """The parts of the RESULT body."""
        while True:
            count, outputs = outs.pack(_now())
            parts = [_RESULT.pack(processed, len(verdicts)), *verdicts, len(tally).to_bytes(2, "big")]
            parts += [_TALLY.pack(slot, *numbers) for slot, numbers in tally.items()]
            parts.append(count.to_bytes(4, "big"))
            parts += outputs
            total = sum(map(len, parts)) + 12
            if total <= self.max_frame:
                if outs.use is not None:
                    outs.use.commit(processed)
                return parts

            # More than a frame holds. Keep what fits and hand the rest of the delivery back; an event that is too much
            # alone is rejected, or it would never end.
            budget = self.max_frame - (total - 12 - sum(map(len, outputs))) - 65536
            sizes = outs.sizes()
            offsets = sorted(sizes)
            cut = offsets[-1]
            for offset in offsets:
                budget -= sizes[offset]
                if budget < 0:
                    cut = offset
                    break
            if cut == offsets[0] and len(offsets) > 1:
                cut = offsets[1]  # what the first alone comes to is seen when it is packed
            if cut == offsets[0]:
                outs.cut(cut + 1)
                outs.take_back(cut)
                outs.replies = [reply for reply in outs.replies if reply.offset != cut]
                kept = sum(1 for offset in refused if offset < cut)
                message = f"the handler's outputs are larger than a frame may be ({self.max_frame:,} bytes)"
                verdicts[kept:] = [_verdict(cut, _REJECTED, _STATUS_TOO_LARGE, 0, message)]
                refused[kept:] = [cut]
                processed = cut + 1
                if cut in origins:
                    context._offset = cut
                    context._answer(origins[cut], None, _STATUS_TOO_LARGE, _RAN, True, 0, message)
            else:
                outs.cut(cut)
                kept = sum(1 for offset in refused if offset < cut)
                del verdicts[kept:], refused[kept:]
                processed = cut


def _peek_offset(data: bytes, at: int) -> Tuple[int, int]:
    """For a batch with gaps: the offset delta of the record at `at`, and the `width` that the loop wants."""
    _, at = _read_varint(data, at)
    _, begin = _read_varint(data, at + 1)
    delta, behind = _read_varint(data, begin)
    return delta >> 1, behind - begin + 3


def _add(tally: Dict[int, List[int]], slot: int, succeeded: int, failed: int, nanoseconds: int) -> None:
    numbers = tally.setdefault(slot, [0, 0, 0])
    numbers[0] += succeeded
    numbers[1] += failed
    numbers[2] += nanoseconds


def _verdict(offset: int, verdict: int, code: int, delay: int, message: str) -> bytes:
    text = _text_to_str16(message)
    return _VERDICT.pack(offset, verdict, 0, 0, code, delay, len(text)) + text


def _judge(error: BaseException, event: Event) -> Tuple[int, int, int, str, int]:
    """Verdict, code, delay in milliseconds, message and reply status for what a handler raised."""
    if isinstance(error, HopLimitExceeded):
        return _REJECTED, error.code, 0, error.message, _STATUS_HOP_LIMIT
    if isinstance(error, Reject):
        return _REJECTED, error.code, 0, error.message, _STATUS_HANDLER_ERROR
    if isinstance(error, Retry):
        return _RETRY, 0, round(error.delay * 1000), error.message, _STATUS_HANDLER_ERROR
    own = error.__traceback__
    while own is not None and own.tb_next is not None and _of_sdk(own):
        own = own.tb_next
    report = "".join(traceback.format_exception(type(error), error, own))
    try:
        sys.stderr.write(f"handler of {event!r} failed\n{report}")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # nobody reads standard error any more; the verdict still says what happened
    text = str(error)
    name = type(error).__name__
    return _FAILED, 0, 0, f"{name}: {text}" if text else name, _STATUS_HANDLER_ERROR


def _of_sdk(step: Any) -> bool:
    """Whether a traceback's step is in this file or in asyncio: of no interest to a handler's author."""
    file = step.tb_frame.f_code.co_filename
    return file == __file__ or os.path.dirname(file) == _ASYNCIO


_ASYNCIO = os.path.dirname(asyncio.__file__)


# MARK: Logging


class Log:
    """The application's log: lines with a level and fields. They go to the node, or to standard error without one.

    ctx.log.info("parsed", rows=12, carrier="UA")
    """

    def __init__(self) -> None:
        self._send: Optional[Callable[[str, str, Mapping[str, Any]], bool]] = None

    def debug(self, message: str, **fields: Any) -> None:
        self.log("debug", message, fields)

    def info(self, message: str, **fields: Any) -> None:
        self.log("info", message, fields)

    def warning(self, message: str, **fields: Any) -> None:
        self.log("warning", message, fields)

    def error(self, message: str, **fields: Any) -> None:
        self.log("error", message, fields)

    def exception(self, message: str, **fields: Any) -> None:
        """An error with the traceback of the exception being handled."""
        fields.setdefault("traceback", traceback.format_exc())
        self.log("error", message, fields)

    def log(self, level: str, message: str, fields: Mapping[str, Any]) -> None:
        """`level` is debug, info, warning or error. Fields that JSON cannot express are written as str() has them."""
        send = self._send
        if send is None or not send(level, message, fields):
            rest = "".join(f" {name}={value!r}" for name, value in fields.items())
            sys.stderr.write(f"{level}: {message}{rest}\n")


class LogHandler(logging.Handler):
    """Sends what is logged with Python's `logging` to the application's log.

    `Application.run` installs one on the root logger unless that has a handler already.
    """

    def __init__(self, log: Log, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if record.levelno >= logging.ERROR:
                level = "error"
            elif record.levelno >= logging.WARNING:
                level = "warning"
            elif record.levelno >= logging.INFO:
                level = "info"
            else:
                level = "debug"
            fields: Dict[str, Any] = {"logger": record.name}
            if record.exc_info:
                fields["traceback"] = "".join(traceback.format_exception(*record.exc_info))
            self._log.log(level, record.getMessage(), fields)
        except Exception:
            self.handleError(record)


# MARK: Worker

_HELLO = 0x01
_WELCOME = 0x02
_ERROR = 0x03
_HEARTBEAT = 0x04
_GOODBYE = 0x05
_DELIVER_FRAME = 0x30
_RESULT_FRAME = 0x31
_LOG = 0x32
_DRAIN = 0x33
_STATE = 0x34
_STATED = 0x35

_EXIT_HOOK = 1
_EXIT_USAGE = 64
_EXIT_LOST = 70
_EXIT_PROTOCOL = 76

_FIRST_FRAME_LIMIT = 65536
_BUFFER = 1 << 20
_HANDSHAKE_SECONDS = 30.0
# How long an answer about state is waited for, and how many questions may be open.
_ANSWER_SECONDS = 30.0
_OPEN_QUESTIONS = 16
# Frames that may come while an answer is waited for. A node sends as many deliveries as it gives credits.
_FRAMES_HELD = 4096
_POLLRDHUP = getattr(select, "POLLRDHUP", 0)


class _Connection:
    """The socket to the node: frames in (one thread), frames out (any thread)."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.max_frame = _FIRST_FRAME_LIMIT
        self.received = 0
        # Frames that came while an answer was waited for.
        self.held: Deque[Tuple[int, int, bytes]] = collections.deque()
        self._buffer = bytearray(_BUFFER)
        self._start = 0
        self._fill = 0
        self._lock = threading.Lock()
        self._owner = 0

    def send(self, kind: int, identifier: int, flags: int, body: Sequence[bytes], patience: float = -1) -> bool:
        """Sends one frame. False: the lock was not to be had within `patience` seconds, or this thread is sending
        already (a signal handler or destructor logs in the middle of a send)."""
        if self._owner == threading.get_ident() or not self._lock.acquire(timeout=patience):
            return False
        self._owner = threading.get_ident()
        try:
            size = sum(map(len, body)) + 12
            self.sock.sendall(b"".join((_FRAME.pack(size, kind, flags, 0, identifier), *body)))
            return True
        except OSError as error:
            raise _ConnectionLost(f"sending to the node: {error}") from error
        finally:
            self._owner = 0
            self._lock.release()

    def send_json(self, kind: int, value: Mapping[str, Any], patience: float = -1) -> bool:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
        return self.send(kind, 0, 0, (text.encode("utf-8", "replace"),), patience)

    def take(self) -> Optional[Tuple[int, int, bytes]]:
        """The next whole frame of what has been received: type, id, body."""
        return self.held.popleft() if self.held else self.cut()

    def cut(self) -> Optional[Tuple[int, int, bytes]]:
        """The same, behind those that are held."""
        have = self._fill - self._start
        if have < 16:
            return None
        size, kind, _, _, identifier = _FRAME.unpack_from(self._buffer, self._start)
        if not 12 <= size <= self.max_frame:
            raise _ProtocolError(f"a frame of {size} bytes; allowed are 12 to {self.max_frame}")
        if have < 4 + size:
            return None
        begin = self._start + 16
        end = self._start + 4 + size
        with memoryview(self._buffer) as view:
            body = bytes(view[begin:end])
        self._start = end
        if self._start == self._fill:
            self._start = self._fill = 0
            if len(self._buffer) > 4 * _BUFFER:
                self._buffer = bytearray(_BUFFER)
        return kind, identifier, body

    def receive(self) -> bool:
        """Reads what is there without waiting. False: nothing is. Raises _ConnectionLost at the end."""
        have = self._fill - self._start
        need = 16
        if have >= 4:
            need = max(16, 4 + int.from_bytes(self._buffer[self._start : self._start + 4], "big"))
        if self._start + need > len(self._buffer) or self._fill == len(self._buffer):
            if need > len(self._buffer):
                larger = bytearray(need)
                larger[:have] = self._buffer[self._start : self._fill]
                self._buffer = larger
            else:
                self._buffer[:have] = self._buffer[self._start : self._fill]
            self._start, self._fill = 0, have
        try:
            with memoryview(self._buffer) as view:
                count = self.sock.recv_into(view[self._fill :], 0, socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            raise _ConnectionLost(f"receiving from the node: {error}") from error
        if count == 0:
            raise _ConnectionLost("the node closed the connection")
        self._fill += count
        self.received += count
        return True

    def pending(self) -> int:
        """Bytes that wait in the socket."""
        answer = fcntl.ioctl(self.sock.fileno(), termios.FIONREAD, b"\0\0\0\0")
        return struct.unpack("i", answer)[0]


class _Worker:
    """The life of a worker process: handshake, deliveries, heartbeats, drain."""

    def __init__(self, application: "Application") -> None:
        self.application = application
        self.connection: _Connection
        self.runner: _Runner
        self.interval = 2.0
        self.active: Dict[int, _Delivery] = {}
        self.over = False  # the end is decided: the heartbeat thread must not end the process any more
        self.draining = False
        self.terminated = False
        self.fault: Optional[Exception] = None  # what became of the connection while a handler waited for an answer
        self._questions = 0  # id of the last question about state
        self._answered = 0  # id of the last that was answered, whether somebody still waited or not
        self._poller: Any = None
        # Told that there are frames which the socket will not tell of.
        self._on_held: Optional[Callable[[], None]] = None
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._wake: socket.socket

    def run(self) -> int:
        """Runs to the end and gives the exit status."""
        try:
            self._greet()
            self._prepare_process()
            threading.Thread(target=self._beat, name="grape-heartbeat", daemon=True).start()
            if self.application._asynchronous():
                return asyncio.run(self._serve_overlapping())
            return self._serve()
        except _ProtocolError as error:
            return self._end(_EXIT_PROTOCOL, f"grape: {error}")
        except _ConnectionLost as error:
            return self._end(_EXIT_LOST, f"grape: {error}")

    def _end(self, status: int, message: str) -> int:
        self.over = True
        _complain(message)
        return status

    # Opening

    def _greet(self) -> None:
        path = os.environ["GRAPE_SOCKET"]
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(path)
        except OSError as error:
            raise _ConnectionLost(f"cannot connect to the node's socket {path}: {error}") from error
        connection = self.connection = _Connection(sock)
        connection.send_json(
            _HELLO,
            {
                "role": "worker",
                "protocol": [1],
                "agent": "grape-python/" + __version__,
                "token": os.environ.get("GRAPE_TOKEN", ""),
                "pid": os.getpid(),
                "slots": list(self.application._handlers),
                "compression": ["none"] if _zstd is None else ["none", "zstd"],
            },
        )
        until = time.monotonic() + _HANDSHAKE_SECONDS
        while True:
            frame = connection.take()
            if frame is not None:
                break
            if connection.receive():
                continue
            left = until - time.monotonic()
            if left <= 0 or not select.select([sock], [], [], left)[0]:
                raise _ConnectionLost(f"the node did not answer HELLO within {_HANDSHAKE_SECONDS:.0f} s")
        kind, _, body = frame
        if kind != _WELCOME:
            self._unexpected(kind, body)
        welcome = _parse_json(body, "WELCOME")
        if welcome.get("protocol") != 1:
            raise _ProtocolError(f"the node chose protocol {welcome.get('protocol')!r}; this SDK speaks 1")
        try:
            self.interval = max(1, int(welcome["heartbeatMs"])) / 1000
            self.runner = _Runner(self.application._callables(), welcome, self.application.log)
        except (KeyError, TypeError, ValueError) as error:
            raise _ProtocolError(f"WELCOME lacks or misstates a member: {error!r}") from error
        connection.max_frame = self.runner.max_frame
        self.runner.states.ask = self._ask

    def _unexpected(self, kind: int, body: bytes) -> None:
        if kind == _ERROR:
            error = _parse_json(body, "ERROR")
            raise _ProtocolError(f"the node refused this worker: {error.get('name')}: {error.get('message')}")
        raise _ProtocolError(f"the node sent a frame of type 0x{kind:02x}, which is not expected here")

    def _prepare_process(self) -> None:
        log = self.application.log
        log._send = self._log
        root = logging.getLogger()
        if not root.handlers:
            root.addHandler(LogHandler(log))
            if root.level == logging.WARNING:
                root.setLevel(logging.INFO)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        # What exists now lives as long as the process; the collector need not look at it again and again.
        gc.collect()
        gc.freeze()

    def _log(self, level: str, message: str, fields: Mapping[str, Any]) -> bool:
        if self.over:
            return False
        try:
            text = str(message)
            if len(text) > 16384:
                text = text[:16384] + " …"
            line = {"level": level, "message": text, "fields": dict(fields)}
            encoded = json.dumps(line, ensure_ascii=False, separators=(",", ":"), default=str)
            if len(encoded) > 262144:
                line["fields"] = {"omitted": f"{len(encoded)} characters of fields"}
            return self.connection.send_json(_LOG, line)
        except _ConnectionLost:
            return False

    # Heartbeat

    def _beat(self) -> None:
        """Runs in a thread of its own, so that a handler that keeps the main thread busy is not taken for dead."""
        connection = self.connection
        interval = self.interval
        poller = select.poll()
        poller.register(connection.sock, _POLLRDHUP)
        heard: Tuple[int, int] = (-1, -1)
        heard_at = due = time.monotonic()
        while not self.over:
            now = time.monotonic()
            if now >= due:
                try:
                    connection.send(_HEARTBEAT, 0, 0, (self._progress(now),), interval)
                except _ConnectionLost:
                    self._vanish("the connection to the node ended")
                    return
                due = max(due + interval, time.monotonic() + interval / 2)
            if poller.poll(max(0.0, due - time.monotonic()) * 1000):
                self._vanish("the connection to the node ended")
                return
            try:
                state = (connection.received, connection.pending())
            except (OSError, ValueError):
                self._vanish("the connection to the node ended")
                return
            now = time.monotonic()
            # While the main thread is busy nothing is read. A node that has filled the socket cannot say more.
            if state != heard or state[1] > 32768:
                heard, heard_at = state, now
            elif now - heard_at > 3 * interval + 0.1:
                self._vanish(f"the node has been silent for {now - heard_at:.1f} s")
                return

    def _progress(self, now: float) -> bytes:
        """The body of a heartbeat. Of several deliveries it is about the one that has stood still longest."""
        oldest: Optional[_Delivery] = None
        for delivery in list(self.active.values()):
            done = delivery.done()
            if done != delivery.seen:
                delivery.seen, delivery.since = done, now
            if oldest is None or delivery.since < oldest.since:
                oldest = delivery
        if oldest is None:
            return _BEAT.pack(0, 0, 0)
        return _BEAT.pack(oldest.id, min(oldest.seen, 0xFFFFFFFF), 0)

    def _vanish(self, reason: str) -> None:
        """Ends the process, whatever it is doing: nothing it does can be committed any more."""
        if self.over:
            return
        # An idle main thread sees the same and knows more, for instance an ERROR frame before the end.
        threading.Event().wait(0.25)
        if not self.over:
            _complain(f"grape: {reason}")
            os._exit(_EXIT_LOST)

    # Serving

    def _on_sigterm(self, *_: Any) -> None:
        self.terminated = True

    def _control(self, kind: int, identifier: int, body: bytes) -> Optional[_Delivery]:
        """Deals with a frame; a delivery is given back to be run."""
        if kind == _DELIVER_FRAME:
            try:
                return _Delivery(identifier, body)
            except struct.error as error:
                raise _ProtocolError(f"delivery {identifier} is too short for its head") from error
        if kind == _DRAIN:
            self.draining = True
        elif kind == _GOODBYE:
            raise _ConnectionLost("the node said goodbye")
        elif kind != _HEARTBEAT and not self._is_late(kind, identifier):
            self._unexpected(kind, body)
        return None

    # Asking for state

    def _is_late(self, kind: int, identifier: int) -> bool:
        """Whether it answers a question that is no longer waited for."""
        if kind not in (_STATED, _ERROR) or not 0 < identifier <= self._questions:
            return False
        self._answered = max(self._answered, identifier)
        return True

    def _ask(self, questions: Sequence[bytes]) -> List[bytes]:
        """Puts questions about state to the node and gives the bodies of the answers, in the same order. Other frames
        that come meanwhile are held for the loop that serves."""
        if threading.get_ident() != self.runner.states.thread:
            _wrong_thread()
        try:
            if self.fault is not None:
                raise self.fault
            return self._exchange(questions)
        except (_ConnectionLost, _ProtocolError) as error:
            # The handler fails; the worker ends as soon as it is back in the loop.
            self.fault = error
            raise StateUnavailable(f"state: {error}") from None
        finally:
            if self._on_held is not None and self.connection.held:
                self._on_held()

    def _exchange(self, questions: Sequence[bytes]) -> List[bytes]:
        connection = self.connection
        if self._poller is None:
            self._poller = select.poll()
            self._poller.register(connection.sock, select.POLLIN)
        first = self._questions + 1
        answers: List[bytes] = []
        sent = 0
        until = time.monotonic() + _ANSWER_SECONDS
        while len(answers) < len(questions):
            while sent < len(questions) and self._questions - self._answered < _OPEN_QUESTIONS:
                self._questions += 1
                connection.send(_STATE, self._questions, 0, (questions[sent],))
                sent += 1
            frame = connection.cut()
            if frame is None:
                if connection.receive():
                    continue
                left = until - time.monotonic()
                if left <= 0:
                    raise StateUnavailable(f"state: the node did not answer within {_ANSWER_SECONDS:.0f} s")
                self._poller.poll(left * 1000)
                continue
            kind, identifier, body = frame
            if identifier >= first and kind == _STATED:
                if identifier != first + len(answers):
                    raise _ProtocolError(f"the node answered question {identifier} out of turn")
                answers.append(body)
                self._answered = identifier
                until = time.monotonic() + _ANSWER_SECONDS
            elif identifier >= first and kind == _ERROR:
                self._answered = identifier
                error = _parse_json(body, "ERROR")
                text = f"state: {error.get('name')}: {error.get('message')}"
                raise (StateError if error.get("status") == _STATUS_BAD_REQUEST else StateUnavailable)(text)
            elif kind == _ERROR and identifier == 0:
                self._unexpected(kind, body)
            elif kind != _HEARTBEAT and not self._is_late(kind, identifier):
                if len(connection.held) == _FRAMES_HELD:
                    raise _ProtocolError(f"the node sent {_FRAMES_HELD} frames instead of an answer")
                connection.held.append(frame)
        # What came with the answers: the socket will not tell of it again.
        frame = connection.cut()
        while frame is not None:
            connection.held.append(frame)
            frame = connection.cut()
        return answers

    def _serve(self) -> int:
        """Without asynchronous handlers: one delivery after the other, no event loop."""
        connection = self.connection
        poller = select.poll()
        poller.register(connection.sock, select.POLLIN)
        if threading.current_thread() is threading.main_thread():
            wake, alarm = socket.socketpair()
            wake.setblocking(False)
            alarm.setblocking(False)
            self._wake = wake
            poller.register(wake, select.POLLIN)
            signal.set_wakeup_fd(alarm.fileno(), warn_on_full_buffer=False)
            signal.signal(signal.SIGTERM, self._on_sigterm)
        if not self._hooks_now(self.application._start_hooks):
            return self._end(_EXIT_HOOK, "grape: a start hook failed")
        while True:
            frame = connection.take()
            if frame is None:
                if self.draining:
                    break
                if connection.receive():
                    continue
                if self.terminated:
                    break
                for descriptor, _ in poller.poll():
                    if descriptor != connection.sock.fileno():
                        self._wake.recv(4096)
                continue
            delivery = self._control(*frame)
            if delivery is not None:
                self.active[delivery.id] = delivery
                self._answer(delivery, self._drive(self.runner.run(delivery)))
        stopped = self._hooks_now(self.application._stop_hooks)
        return self._leave(stopped)

    def _answer(self, delivery: _Delivery, parts: List[bytes]) -> None:
        if self.fault is not None:
            raise self.fault
        self.connection.send(_RESULT_FRAME, delivery.id, 1, parts)
        del self.active[delivery.id]

    def _drive(self, steps: Any) -> List[bytes]:
        """Runs a delivery to its end in this thread."""
        try:
            waiting = next(steps)
            while True:
                try:
                    result = self._complete(waiting)
                except BaseException as error:
                    waiting = steps.throw(error)
                else:
                    waiting = steps.send(result)
        except StopIteration as stop:
            return stop.value

    def _complete(self, waiting: Any) -> Any:
        """For a handler that did not look asynchronous but gave back something to await."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop.run_until_complete(_await(waiting))

    def _hooks_now(self, hooks: Sequence[Callable[..., Any]]) -> bool:
        for hook in hooks:
            try:
                result = _call_hook(hook, self.runner)
                if hasattr(result, "__await__"):
                    self._complete(result)
            except Exception:
                traceback.print_exc()
                return False
        return True

    async def _serve_overlapping(self) -> int:
        """With asynchronous handlers: one lane per partition, all on one event loop."""
        loop = asyncio.get_running_loop()
        connection = self.connection
        finished: asyncio.Future = loop.create_future()
        lanes: Dict[int, List[_Delivery]] = {}
        tasks = set()

        def fail(error: BaseException) -> None:
            if not finished.done():
                finished.set_exception(error)

        def settle() -> None:
            if (self.draining or self.terminated) and not lanes and not connection.held and not finished.done():
                finished.set_result(None)

        async def run_lane(partition: int) -> None:
            lane = lanes[partition]
            try:
                while lane:
                    delivery = lane.pop(0)
                    self.active[delivery.id] = delivery
                    self._answer(delivery, await self._run(self.runner.run(delivery)))
            except BaseException as error:
                fail(error)
            finally:
                del lanes[partition]
                settle()

        def on_readable() -> None:
            try:
                while True:
                    frame = connection.take()
                    if frame is None:
                        if connection.receive():
                            continue
                        break
                    delivery = self._control(*frame)
                    if delivery is None:
                        continue
                    lane = lanes.get(delivery.partition)
                    if lane is not None:
                        lane.append(delivery)
                        continue
                    lanes[delivery.partition] = [delivery]
                    task = loop.create_task(run_lane(delivery.partition))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
            except Exception as error:
                fail(error)
            settle()

        def on_sigterm() -> None:
            # Take what has arrived already, then finish.
            self.terminated = True
            on_readable()
            loop.remove_reader(connection.sock)

        self._on_held = functools.partial(loop.call_soon, on_readable)
        if threading.current_thread() is threading.main_thread():
            loop.add_signal_handler(signal.SIGTERM, on_sigterm)
        if not await self._hooks(self.application._start_hooks):
            return self._end(_EXIT_HOOK, "grape: a start hook failed")
        if not self.terminated:
            loop.add_reader(connection.sock, on_readable)
            on_readable()
        try:
            await finished
        finally:
            loop.remove_reader(connection.sock)
        stopped = await self._hooks(self.application._stop_hooks)
        return self._leave(stopped)

    async def _run(self, steps: Any) -> List[bytes]:
        """Runs a delivery to its end on the event loop."""
        try:
            waiting = next(steps)
            while True:
                try:
                    result = await waiting
                except BaseException as error:
                    waiting = steps.throw(error)
                else:
                    waiting = steps.send(result)
        except StopIteration as stop:
            return stop.value

    async def _hooks(self, hooks: Sequence[Callable[..., Any]]) -> bool:
        for hook in hooks:
            try:
                result = _call_hook(hook, self.runner)
                if hasattr(result, "__await__"):
                    await result
            except Exception:
                traceback.print_exc()
                return False
        return True

    def _leave(self, stopped: bool) -> int:
        """Says goodbye. Everything has been answered."""
        self.over = True
        sys.stdout.flush()
        reason = "drained" if self.draining else "terminated"
        self.connection.send_json(_GOODBYE, {"reason": reason})
        return 0 if stopped else _EXIT_HOOK


async def _await(waiting: Any) -> Any:
    return await waiting


def _call_hook(hook: Callable[..., Any], runner: _Runner) -> Any:
    """Calls a hook. What it gives back may have to be awaited."""
    if not _takes_argument(hook):
        return hook()
    context = Context(runner, None)
    result = None
    try:
        result = hook(context)
        if hasattr(result, "__await__"):
            result = _close_behind(result, context)
            context = None
        return result
    finally:
        if context is not None:
            context._close()


async def _close_behind(waiting: Any, context: Context) -> Any:
    try:
        return await waiting
    finally:
        context._close()


def _takes_argument(function: Callable[..., Any]) -> bool:
    one = inspect.Parameter
    kinds = (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD, one.VAR_POSITIONAL)
    return any(parameter.kind in kinds for parameter in inspect.signature(function).parameters.values())


def _parse_json(body: bytes, what: str) -> Dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError as error:
        raise _ProtocolError(f"{what} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise _ProtocolError(f"{what} is not a JSON object")
    return value


def _complain(message: str) -> None:
    try:
        sys.stderr.write(message + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # standard error may have gone with the node


# MARK: Application


def _is_asynchronous(handler: Callable[..., Any]) -> bool:
    while isinstance(handler, functools.partial):
        handler = handler.func
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))


def _with_own_context(handler: Handler) -> Handler:
    """An asynchronous handler gets a context of its own, which is closed when it ends."""

    async def call(event: Event, context: Context) -> Any:
        own = context._fork()
        try:
            return await handler(event, own)
        finally:
            context._answered = own._answered
            context._passed = own._passed
            own._close()

    return call


class Application:
    """The handlers of an application. Make one, register handlers with `on`, and call `run`."""

    def __init__(self) -> None:
        self.log = Log()
        self._handlers: Dict[str, Handler] = {}
        self._start_hooks: List[Callable[..., Any]] = []
        self._stop_hooks: List[Callable[..., Any]] = []

    def on(self, *names: str) -> Callable[[Handler], Handler]:
        """Registers a handler for events of these names: `def handler(event, ctx)` or `async def`.

        Synchronous handlers run on the main thread, one after the other. Asynchronous ones run on one event loop:
        events of different partitions overlap, those of one partition follow each other. What a handler returns is
        the reply to a caller that waits (bytes, str, or anything that JSON can express); None is no reply.
        """
        for name in names:
            if not isinstance(name, str) or not name:
                raise TypeError(f'on: the name of an event is a str, not empty, not {name!r}; write @app.on("name")')
            if "@" in name:
                raise ValueError(f"on: {name!r}: an application handles its own events; write the name without 'app@'")
            if name in self._handlers:
                raise ValueError(f"on: there is a handler for {name!r} already")
        if not names:
            raise TypeError('on: the name of the event is missing; write @app.on("name")')

        def register(handler: Handler) -> Handler:
            try:
                inspect.signature(handler).bind(None, None)
            except TypeError as error:
                raise TypeError(f"on: a handler takes two arguments, the event and the context: {error}") from None
            except ValueError:
                pass  # a callable that does not tell its signature
            for name in names:
                self._handlers[name] = handler
            return handler

        return register

    def on_start(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        """Registers a function, plain or async, to run once before the first event. It may take a Context, for its
        `config` and `log`. If it raises, the worker ends with status 1."""
        self._start_hooks.append(hook)
        return hook

    def on_stop(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        """Registers a function, plain or async, to run after the last event of an orderly stop. It may take a
        Context, for its `config` and `log`."""
        self._stop_hooks.append(hook)
        return hook

    def run(self) -> None:
        """Runs the worker until the node ends it, and exits the process. Only a node can start it."""
        if not os.environ.get("GRAPE_SOCKET"):
            _complain(
                "This is a worker of a Grape application: a node starts it, it cannot run on its own "
                "(GRAPE_SOCKET is not set).\n"
                "  run the application:     grape deploy FOLDER\n"
                "  send it an event:        grape exec APP@EVENT --data '...'\n"
                '  test handlers directly:  grape.TestRun(app).send("event", b"value")'
            )
            sys.exit(_EXIT_USAGE)
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(line_buffering=True)
        sys.exit(_Worker(self).run())

    def _asynchronous(self) -> bool:
        return any(map(_is_asynchronous, self._handlers.values()))

    def _callables(self) -> Dict[str, Handler]:
        return {
            name: _with_own_context(handler) if _is_asynchronous(handler) else handler
            for name, handler in self._handlers.items()
        }


# MARK: Testing handlers without a node


class Emitted:
    """An event that a handler emitted during a test. One for a topic that is not Grape's has no name."""

    __slots__ = ("name", "topic", "partition", "key", "value", "tombstone", "headers", "detached")

    def __init__(
        self, topic: str, partition: int, key: Optional[bytes], value: Optional[bytes], info: _Info, detached: bool
    ) -> None:
        self.name = info.name
        self.topic = topic
        self.partition = partition
        self.key = key
        self.value = value or b""
        self.tombstone = value is None
        self.headers = info.headers
        self.detached = detached

    @property
    def text(self) -> str:
        return self.value.decode("utf-8")

    def json(self) -> Any:
        return json.loads(self.value)

    def __repr__(self) -> str:
        return f"<Emitted {self.name} key={self.key!r} value={self.value!r}>"


class TestOutcome:
    """What became of an event sent with `TestRun.send`.

    `emitted`: the events it emitted. `replies`: the values the caller got, in order (None: an empty reply);
    `reply`: the last of them. `verdict`: "ok", "rejected", "retry", "expired" or "failed"; `error`: the message if
    it is not "ok", else None; `code`: that of Reject; `delay`: that of Retry, in seconds. `written`: what it wrote
    to the state: value, or None for a removal, by store and key.
    """

    __test__ = False  # not a test case, whatever a collector makes of the name

    def __init__(self) -> None:
        self.emitted: List[Emitted] = []
        self.replies: List[Optional[bytes]] = []
        self.written: Dict[Tuple[str, bytes], Optional[bytes]] = {}
        self.verdict = "ok"
        self.error: Optional[str] = None
        self.code = 0
        self.delay = 0.0

    @property
    def reply(self) -> Optional[bytes]:
        return self.replies[-1] if self.replies else None

    def __repr__(self) -> str:
        return f"<TestOutcome {self.verdict} {self.error or ''} emitted={self.emitted!r} replies={self.replies!r}>"


class _AnyRoute(dict):
    """Lets a test emit any name: each is an event of a topic of one partition."""

    def get(self, name: str, default: Any = None) -> Any:
        if name not in self:
            self[name] = (_Route("test.events", name, 1),)
        return self[name]


class _TestStore(Store):
    """Writes to the base itself."""

    __slots__ = ("_memory",)

    def __init__(self, memory: _Memory, context: Context, states: _States, name: str) -> None:
        self._memory = memory
        super().__init__(context, _Use(states, None, None), name, 0)

    def put(self, key: Union[bytes, str], value: Union[bytes, str], ttl: Any = None, tags: Iterable[str] = ()) -> None:
        expiry = None if ttl is None else _expiry(ttl)
        self._write(self._key(key), _state_bytes(value, "value"), expiry, _tags(tags))

    def _write(self, key: bytes, value: Optional[bytes], expiry: Optional[int], tags: Tuple[bytes, ...]) -> None:
        if value is not None:
            self._check_size(key, len(value))
        self._memory.apply(self._prefix + key, None if value is None else _entry(value, expiry, tags))


class TestRun:
    """Runs an application's handlers in this process, for unit tests:

        run = TestRun(app, routes=["counted"])
        outcome = run.send("parsed", b"value", key="k")
        assert outcome.emitted[0].name == "counted"

    Events go through the same code as in a worker. `routes` lists the names that may be emitted (any, if it is
    None), or maps names to destinations as WELCOME of the protocol does. Start hooks run when the first event is
    sent, stop hooks in `close`, which a `with` statement calls. State works, in memory and in one partition; `state`
    shows it.
    """

    __test__ = False

    def __init__(
        self,
        app: Application,
        routes: Union[None, Iterable[str], Mapping[str, Sequence[Mapping[str, Any]]]] = None,
        config: Optional[Mapping[str, Any]] = None,
        name: str = "test",
        max_event: int = 8 << 20,
        max_hops: int = 64,
    ) -> None:
        table: Mapping[str, Any] = {}
        if isinstance(routes, Mapping):
            table = routes
        elif routes is not None:
            table = {signal: [{"topic": "test.events", "event": signal, "partitions": 1}] for signal in routes}
        welcome = {
            "app": name,
            "worker": name + "-1",
            "version": "test",
            "slots": list(app._handlers),
            "config": dict(config or {}),
            "routes": table,
            "maxEvent": max_event,
            "maxHops": max_hops,
            "state": {"topic": name + ".state", "partitions": 1},
        }
        self._app = app
        self._worker = _Worker(app)
        self._runner = self._worker.runner = _Runner(app._callables(), welcome, app.log)
        if routes is None:
            self._runner._routes = _AnyRoute()
        self._runner.states.memory = True
        self._offset = 0
        self._started = False

    def __enter__(self) -> "TestRun":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Runs the stop hooks."""
        if self._started:
            self._started = False
            self._hooks(self._app._stop_hooks)
        if self._worker._loop is not None:
            self._worker._loop.close()
            self._worker._loop = None

    def send(
        self,
        name: str,
        value: Any = b"",
        key: Key = None,
        headers: Optional[Headers] = None,
        wanted: bool = True,
        deadline: Optional[int] = None,
        attempt: int = 1,
        hops: int = 0,
    ) -> TestOutcome:
        """Handles one event and tells what it did. `wanted`: whether a caller waits for a reply."""
        if name not in self._app._handlers:
            known = ", ".join(sorted(self._app._handlers)) or "none"
            raise ValueError(f"send {name!r}: the application has no handler for it; it has: {known}")
        if not self._started:
            self._started = True
            self._hooks(self._app._start_hooks)
        fields = [_header(b"g.e", name.encode("utf-8"))]
        if hops:
            fields.append(_header(b"g.h", bytes((hops,))))
        if deadline is not None:
            fields.append(_header(b"g.d", struct.pack(">q", deadline)))
        if wanted:
            fields.append(_header(b"g.r", bytes(16) + struct.pack(">i", 0) + b"_grape.replies.test"))
        fields.extend(_header(text.encode("utf-8"), field) for text, field in _own_headers(headers))
        offset = self._offset
        self._offset += 1
        data = None if value is None else _to_bytes(value)
        batch = _batch(_record(0, _key_to_bytes(key), data, fields), 1, _now(), offset)
        delivery = _Delivery(1, _DELIVER.pack(0, attempt, offset, offset + 1, 0) + batch)
        return self._outcome(b"".join(self._worker._drive(self._runner.run(delivery))), wanted)

    def state(self, store: str = "") -> Store:
        """A store of the application's state as it is between events: to look at, and to preset. It has all that
        `ctx.store(store)` has."""
        if store != "" and not _STORE_NAME.fullmatch(store):
            raise StateError(f"state: {store!r} is not the name of a store")
        return _TestStore(self._memory(0), Context(self._runner, None), self._runner.states, store)

    def expire(self, after: Any) -> int:
        """Removes what will have expired when a time has passed, given as a ttl is; says how many entries. In a
        node's application this happens on its own."""
        return self._memory(0).expire(_expiry(after))

    def _memory(self, partition: int) -> _Memory:
        base = self._runner.states.part(partition).base
        assert isinstance(base, _Memory)
        return base

    def _hooks(self, hooks: Sequence[Callable[..., Any]]) -> None:
        for hook in hooks:
            result = _call_hook(hook, self._runner)
            if hasattr(result, "__await__"):
                self._worker._complete(result)

    def _outcome(self, body: bytes, wanted: bool) -> TestOutcome:
        outcome = TestOutcome()
        processed, count = _RESULT.unpack_from(body)
        at = _RESULT.size
        for _ in range(count):
            _, verdict, _, _, code, delay, size = _VERDICT.unpack_from(body, at)
            at += _VERDICT.size
            outcome.verdict = _VERDICT_NAMES[verdict]
            outcome.code = code
            outcome.delay = delay / 1000
            outcome.error = body[at : at + size].decode("utf-8")
            at += size
        at += 2 + _TALLY.size * int.from_bytes(body[at : at + 2], "big")
        outputs = int.from_bytes(body[at : at + 4], "big")
        at += 4
        for _ in range(outputs):
            size = int.from_bytes(body[at : at + 2], "big")
            topic = body[at + 2 : at + 2 + size].decode("utf-8")
            at += 2 + size
            partition, size = _OUTPUT.unpack_from(body, at)
            at += _OUTPUT.size
            for key, value, raw in _records(body[at : at + size]):
                if topic == "_grape.replies.test":
                    outcome.replies.append(value)
                elif topic == self._runner.states.topic:
                    assert key is not None
                    self._memory(partition).apply(key, value)
                    place = (key[1 : 1 + key[0]].decode("ascii"), key[1 + key[0] :])
                    outcome.written[place] = None if value is None else _value_of(value)
                else:
                    # A plain record has no event's name of its own: here it has an empty one.
                    count, rest = _read_varint(raw, 0)
                    is_plain = b"g.e" not in [_read_bytes(raw, rest)[0]] if count else True
                    info = _Info(_length((count >> 1) + 1) + _header(b"g.e", b"") + raw[rest:] if is_plain else raw)
                    detached = wanted and info.reply is None
                    outcome.emitted.append(Emitted(topic, partition, key, value, info, detached))
            at += size
        self._memory(0).processed = processed
        return outcome


def _records(batch: bytes) -> Iterable[Tuple[Optional[bytes], Optional[bytes], bytes]]:
    """Key, value and raw headers of the records of a batch that is not compressed."""
    (count,) = struct.unpack_from(">i", batch, 57)
    at = _BATCH_SIZE
    for _ in range(count):
        size, at = _read_varint(batch, at)
        end = at + (size >> 1)
        _, at = _read_varint(batch, at + 1)
        _, at = _read_varint(batch, at)
        key, at = _read_bytes(batch, at)
        value, at = _read_bytes(batch, at)
        yield key, value, batch[at:end]
        at = end
