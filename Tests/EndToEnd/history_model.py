"""The sequential model of test_history.py: what must have become of the events that the log holds.

Each partition's events are run one after the other, once, over a dictionary. That says what state, emitted events, replies and
dead letters there must be; `history_comparison.py` compares.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from typing import Any, Optional

from history_programs import FAN, WITNESS, Setting, pack
from wire import Reader, Record

MAX_HOPS = 64
GAVE_UP, RAN, UNKNOWN = 7, 1, 2


@dataclasses.dataclass
class Sent:
    """What a client has sent, and what it was told. `kind`: exec, append, call, write."""

    kind: str
    app: str
    slot: str
    id: str
    key: Optional[bytes]
    value: bytes
    headers: list = dataclasses.field(default_factory=list)
    durability: int = 3
    #: The frame it was part of: all of it or nothing.
    frame: int = 0
    acknowledged: bool = False
    #: Where acknowledgements said that it is.
    places: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    #: The node has said that it never ran and never will.
    refused: bool = False
    #: What a caller got, each time that it asked.
    told: list[list] = dataclasses.field(default_factory=list)
    #: It bears a key, and is sent again if nobody knows what has become of it.
    idempotent: bool = False
    #: It is in the list of what was sent.
    noted: bool = False


@dataclasses.dataclass
class Entry:
    """Of state. `ttl` in seconds, or when it expires in milliseconds for what was observed."""

    value: bytes
    ttl: Optional[float] = None
    tags: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Observed:
    """What a round has left."""

    setting: Setting
    sent: list[Sent]
    #: By topic and partition.
    records: dict[tuple[str, int], list[Record]]
    #: By application and partition; by store and key. As the node reads it, and as the changelog has it.
    state: dict[tuple[str, int], dict[tuple[str, str], Entry]]
    changelog: dict[tuple[str, int], dict[tuple[str, str], Entry]]
    #: `partitions` of the statistics, by application.
    offsets: dict[str, list[dict]]
    replies: list[Record]
    #: Milliseconds since 1970.
    began: int = 0
    ended: int = 0
    #: Whether there are offsets without a record.
    gaps: bool = False


@dataclasses.dataclass
class Emitted:
    source: tuple[str, int, int]
    topic: str
    slot: str
    key: Optional[bytes]
    value: bytes
    hops: int
    deadline: Optional[bytes]
    reply: Optional[bytes]
    own: dict

    @property
    def id(self) -> str:
        return json.loads(self.value)["id"]


@dataclasses.dataclass
class Reply:
    status: int
    ran: int
    code: int
    message: str
    value: Optional[bytes]
    final: bool


@dataclasses.dataclass
class Dead:
    source: tuple[str, int, int]
    event: Record
    reason: str
    code: int
    messages: tuple
    attempts: int


class Failed(Exception):
    def __init__(self, reason: str, code: int, message: str) -> None:
        super().__init__(message)
        self.reason, self.code, self.message = reason, code, message


class Partition:
    """One partition of an application."""

    def __init__(self, app: str, number: int, setting: Setting) -> None:
        self.app, self.number, self.setting = app, number, setting
        self.state: dict[tuple[str, str], Entry] = {}
        self.emitted: list[Emitted] = []
        self.dead: list[Dead] = []
        self.replies: list[tuple[bytes, Reply]] = []

    def run(self, records: list[Record]) -> None:
        for record in records:
            deadline = record.header("g.d")
            # Those of the clients are long ago or far away.
            if deadline is not None and struct.unpack(">q", deadline)[0] < 1_000_000_000_000:
                continue
            self.run_event(record)

    def run_event(self, record: Record) -> None:
        self.source = (self.app, self.number, record.offset)
        before = dict(self.state)  # entries are never changed, but replaced
        kept = len(self.emitted)
        answer_to = record.header("g.r")
        self.given: list[Reply] = []
        self.passed = False
        try:
            if self.app == WITNESS:
                value = self.witness(record)
            else:
                value = self.perform(record, answer_to is not None)
            if answer_to is not None:
                if value is not None:
                    self.given.append(Reply(0, RAN, 0, "", value, True))
                elif not self.passed and not any(reply.final for reply in self.given):
                    self.given.append(Reply(0, RAN, 0, "", None, True))
        except Failed as failure:
            self.state = before
            del self.emitted[kept:]
            if answer_to is not None and failure.reason != "killed":
                self.given = [reply for reply in self.given if not reply.final]
                self.given.append(Reply(1, RAN, failure.code, failure.message, None, True))
            else:
                self.set_aside(record, failure, answer_to)
        if answer_to is not None:
            self.replies += [(answer_to[:16], reply) for reply in self.given]

    def set_aside(self, record: Record, failure: Failed, answer_to: Optional[bytes]) -> None:
        attempts = 1 if failure.reason == "rejected" else self.setting.attempts
        by_worker = "its handler ended the worker each time"
        # The last of its attempts may have been one that somebody else ended.
        messages = {"rejected": (failure.message,), "gave-up": (failure.message, by_worker), "killed": (by_worker,)}
        reason = "rejected" if failure.reason == "rejected" else "gave-up"
        self.dead.append(Dead(self.source, record, reason, failure.code, messages[failure.reason], attempts))
        if answer_to is not None:
            message = f"gave up after {attempts} attempts: {by_worker}"
            self.given = [Reply(GAVE_UP, UNKNOWN, 0, message, None, True)]

    # Handlers

    def get(self, store: str, key: str) -> Optional[bytes]:
        entry = self.state.get((store, key))
        return None if entry is None else entry.value

    def put(self, store: str, key: str, value: bytes, ttl: Optional[float] = None, tags: list = []) -> None:
        self.state[store, key] = Entry(value, ttl, list(tags))

    def append(self, store: str, key: str, data: str) -> int:
        entry = self.state.get((store, key), Entry(b""))
        self.state[store, key] = dataclasses.replace(entry, value=entry.value + data.encode())
        return len(entry.value) + len(data)

    def add(self, store: str, key: str, amount: int) -> int:
        total = int(self.get(store, key) or b"0") + amount
        self.put(store, key, b"%d" % total)
        return total

    def range(self, store: str, prefix: str) -> list[tuple[str, bytes]]:
        return sorted(
            (key, entry.value) for (name, key), entry in self.state.items() if name == store and key.startswith(prefix)
        )

    def witness(self, record: Record) -> None:
        key = "-" if record.key is None else record.key.decode()
        self.append("", f"seen:{key}", json.loads(record.value)["id"] + ";")
        self.add("", "count", 1)

    def emit(self, record: Record, name: str, key: Optional[bytes], value: dict, detached: bool, headers: Optional[dict]) -> None:
        hops = (record.header("g.h") or b"\0")[0]
        if hops >= MAX_HOPS:
            raise Failed(
                "rejected", 17,
                f"emit {name!r}: the event has passed through {hops} handlers, as many as are allowed: most likely a loop",
            )
        address = None if detached else record.header("g.r")
        self.passed = self.passed or address is not None
        for target in {"fan": FAN, "trace": (f"{WITNESS}@seen",)}.get(name, (name,)):
            app, slot = target.split("@")
            self.emitted.append(
                Emitted(
                    self.source, f"{app}.events", slot, key, pack(value), hops + 1,
                    None if detached else record.header("g.d"), address, headers or {},
                )
            )

    def perform(self, record: Record, awaited: bool) -> Optional[bytes]:
        program = json.loads(record.value)
        me = program["id"]
        key = "-" if record.key is None else record.key.decode()
        saw: list[Any] = []
        answer = None
        children = 0
        self.append("", f"~begun:{key}", me + ";")
        self.add("", "~count", 1)
        for what, *rest in program["do"]:
            if what == "emit":
                name, to, detached, headers, steps = rest
                children += 1
                value = {"id": f"{me}.{self.app[0]}{children}", "do": steps}
                self.emit(record, name, None if to is None else to.encode(), value, detached, headers)
            elif what == "bounce":
                self.emit(record, rest[0], record.key, {"id": me + "'", "do": [["bounce", rest[1], rest[0]]]}, False, None)
            elif what == "reply":
                saw.append(awaited)
                if awaited:
                    self.given.append(Reply(0, RAN, 0, "", rest[0].encode(), rest[1]))
            elif what == "return":
                answer = rest[0].encode()
            elif what == "fail":
                if awaited or rest[0] is None:
                    raise Failed("gave-up", 0, "RuntimeError: as it was told")
            elif what == "retry":
                if awaited or rest[0] is None:
                    raise Failed("gave-up", 0, "not now")
            elif what == "reject":
                raise Failed("rejected", rest[0], "not this one")
            elif what == "kill":
                if rest[0] is None:
                    raise Failed("killed", 0, "")
            elif what == "peek":
                own = int(self.get("", "~count") or b"0") if rest[0] == self.number else None
                saw.append(["peek", rest[0], own])
            else:
                saw.append(self.use_state(rest[0], what, *rest[1:]))
        self.append("", f"~log:{key}", me + ";")
        trace = {"id": f"{self.app}/{me}", "at": [self.number, record.offset], "saw": saw}
        self.emit(record, "trace", record.key, trace, True, None)
        return answer

    def use_state(self, store: str, what: str, *rest: Any) -> Any:
        if what == "get":
            value = self.get(store, rest[0])
            return None if value is None else value.decode()
        if what == "put":
            key, value, ttl, tags = rest
            return self.put(store, key, value.encode(), ttl, tags)
        if what == "add":
            return self.add(store, *rest)
        if what == "append":
            return self.append(store, *rest)
        if what == "remove":
            self.state.pop((store, rest[0]), None)
            return None
        if what == "cas":
            key, expected, new = rest
            found = self.get(store, key)
            if expected != "=" and found != (None if expected is None else expected.encode()):
                return False
            if new is None:
                self.state.pop((store, key), None)
            else:
                self.put(store, key, new.encode())
            return True
        if what == "scan":
            prefix, reverse, limit = rest
            found = self.range(store, prefix)
            return [[key, value.decode()] for key, value in (found[::-1] if reverse else found)[:limit]]
        if what == "sum":
            total = sum(int(value) for _, value in self.range(store, rest[0]))
            self.put(store, "total", b"%d" % total)
            return total
        if what == "clear":
            keys = [key for key, _ in self.range(store, rest[0])]
            for key in keys:
                del self.state[store, key]
            return keys
        if what == "find":
            return sorted(key for (name, key), entry in self.state.items() if name == store and rest[0] in entry.tags)
        if what == "about":
            entry = self.state.get((store, rest[0]))
            if entry is None:
                return [False, None, [], False]
            return [True, len(entry.value), sorted(entry.tags), entry.ttl is not None]
        if what == "blob":
            self.put(store, rest[0], (rest[1] * rest[2]).encode())
            return None
        raise AssertionError(what)


# What stands in the topics that the node writes itself


def write_of(record: Record) -> tuple[int, str, str, str, bytes]:
    """The one write of a record of APP.writes: operation, trigger, store, key and the entry's value."""
    reader = Reader(record.value)
    operation, _ = reader.take("BB")
    trigger = reader.str16()
    full, entry = reader.bytes32(), reader.bytes32()
    store, key = names_of(full)
    return operation, trigger, store, key, read_entry(entry).value


def names_of(full: bytes) -> tuple[str, str]:
    """Store and key of a full key."""
    return full[1 : 1 + full[0]].decode(), full[1 + full[0] :].decode()


def read_entry(data: bytes) -> Entry:
    reader = Reader(data)
    [flags] = reader.take("B")
    expiry = reader.take("q")[0] if flags & 1 else None
    tags = []
    if flags & 2:
        [count] = reader.take("B")
        for _ in range(count):
            [size] = reader.take("B")
            tags.append(reader.raw(size).decode())
    return Entry(reader.rest(), expiry, tags)


def reply_of(record: Record) -> Reply:
    status, ran, flags, code = struct.unpack_from(">HBBi", record.header("g.s"))
    return Reply(status, ran, code, record.header("g.s")[8:].decode(), record.value, bool(flags & 1))
