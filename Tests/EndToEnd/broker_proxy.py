#!/usr/bin/env python3
"""Stands between nodes and a Kafka broker of the tests; broker.py starts it.

  broker_proxy.py HOST PORT BROKER_PORT        listens on PORT, prints a line when it does; the broker is on the same host

It says in answers that the broker is where it itself is, so that clients stay with it, and sets right what noida-db 0.2.3 gets wrong:
with what was fetched, that broker lists every transaction of the partition that was ever rolled back, also those that ended before
the offset asked for. A client never sees the end of those, and takes all that their producer writes later for rolled back, too. Since
the records of such transactions are not sent in the first place, the list is left out. And that broker waits for members of a
consumer group for ever: one that has not been heard of for its session's time is taken out of the group here, by a LeaveGroup. Offsets
that such a member, or one of an earlier generation, has in a transaction are refused, as Apache Kafka refuses them. A transaction that is open
for longer than its producer said is never rolled back by that broker; here its transactional id is taken over then, which rolls it back. And
that broker answers a fetch at once also when there is nothing, so that who waits for records asks thousands of times a second: such an answer is kept
here until something is written, for as long as the fetch may wait, and for LONGEST_WAIT at most, since others may write on another way.

Lines on the standard input: "cut" (from now on nothing gets through, in either direction, and connections that are opened stay
silent), "down" (all connections are reset, and new ones at once: so a broker looks that was killed), "heal" (it goes on). At its
end the proxy ends, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import struct
import sys
import time
from typing import Awaitable, Optional, Union

from broker import pack_text

PRODUCE, INIT_PRODUCER, ADD_PARTITIONS, ADD_OFFSETS, END_TRANSACTION = 0, 22, 24, 25, 26
FETCH, METADATA, FIND_COORDINATOR, JOIN_GROUP, HEARTBEAT, LEAVE_GROUP, SYNC_GROUP = 1, 3, 10, 11, 12, 13, 14
TXN_OFFSET_COMMIT = 28
ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID, MEMBER_ID_REQUIRED = 22, 25, 79

#: Seconds.
LONGEST_WAIT = 0.05


class Proxy:
    def __init__(self, host: str, port: int, broker: int) -> None:
        self.host, self.port, self.broker = host, port, broker
        #: Not set while it is cut.
        self.open = asyncio.Event()
        self.open.set()
        self.is_down = False
        self.clients: set[asyncio.StreamWriter] = set()
        self.theirs, self.ours = (host.encode() + struct.pack(">i", number) for number in (broker, port))

        self.members = Members()
        self.transactions = Transactions()
        #: Set, and replaced, whenever something was written.
        self.written = asyncio.Event()

    async def expire(self) -> None:
        """Takes members out of their groups, and rolls transactions back, when their time is over. The way may be cut: this is done beside it."""
        while True:
            await asyncio.sleep(0.2)
            for group, member in self.members.silent():
                if await self.tell(LEAVE_GROUP, b"".join(map(pack_text, (group, member)))):
                    self.members.forget(group, member)
            for name in self.transactions.late():
                if await self.tell(INIT_PRODUCER, pack_text(name) + struct.pack(">i", 60_000)):
                    self.transactions.ended(name)

    async def tell(self, api: int, body: bytes) -> bool:
        """Sends a request of its own, version 0. False if there is no broker."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            broker, to_broker = await asyncio.open_connection(self.host, self.broker)
            frame = struct.pack(">hhi", api, 0, 1) + pack_text("tests") + body
            to_broker.write(struct.pack(">i", len(frame)) + frame)
            [size] = struct.unpack(">i", await broker.readexactly(4))
            await broker.readexactly(size)
            to_broker.close()
            return True
        return False

    async def serve(self) -> None:
        server = await asyncio.start_server(self.connected, self.host, self.port, limit=1 << 20)
        expiring = asyncio.create_task(self.expire())
        print("listening", flush=True)
        commands = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        async with server:
            while line := await commands.readline():
                command = line.strip()
                self.open.clear() if command == b"cut" else self.open.set()
                self.is_down = command == b"down"
                if self.is_down:
                    for client in self.clients:
                        client.transport.abort()
                print("done", flush=True)
        expiring.cancel()

    async def connected(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        to_broker = None
        ways: list[asyncio.Task] = []
        #: What an answer is to, and what of the question is needed then.
        asked: dict[int, tuple[int, tuple]] = {}
        if self.is_down:
            return to_client.transport.abort()
        self.clients.add(to_client)
        try:
            await self.open.wait()
            broker, to_broker = await asyncio.open_connection(self.host, self.broker, limit=1 << 20)
            ways = [
                asyncio.create_task(self.carry(client, to_broker, lambda frame: self.request(frame, asked, to_client))),
                asyncio.create_task(self.carry(broker, to_client, lambda frame: self.answer(frame, asked))),
            ]
            # A connection that one side has closed is closed on the other.
            ended, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ended:
                way.result()
        except OSError:
            pass  # there is no broker
        finally:
            self.clients.discard(to_client)
            for api, about in asked.values():
                if api == JOIN_GROUP:
                    self.members.gone(*about)
            for way in ways:
                way.cancel()
            for writer in (to_client, to_broker):
                if writer is not None:
                    writer.close()

    async def carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, change) -> None:
        try:
            while True:
                [size] = struct.unpack(">i", await source.readexactly(4))
                frame = change(await source.readexactly(size))
                if inspect.isawaitable(frame):
                    frame = await frame
                await self.open.wait()
                if frame is None:
                    continue
                target.write(struct.pack(">i", len(frame)))
                target.write(frame)
                await target.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass

    def request(self, frame: bytes, asked: dict, to_client: asyncio.StreamWriter) -> Optional[bytes]:
        """What is to be sent on; None if it was answered here."""
        api, version, correlation = struct.unpack_from(">hhi", frame)
        if api == FETCH:
            # What is written from now on it may not see.
            asked[correlation] = api, (version, longest_wait(frame), self.written)
        elif api in (METADATA, FIND_COORDINATOR, PRODUCE):
            asked[correlation] = api, (version,)
        elif api == JOIN_GROUP and version <= 5:
            asked[correlation] = api, (version, *self.members.joining(frame))
        elif api in (INIT_PRODUCER, ADD_PARTITIONS, ADD_OFFSETS, END_TRANSACTION):
            name = self.transactions.request(api, version, frame)
            if api == END_TRANSACTION:
                asked[correlation] = api, (name,)
        elif api in (HEARTBEAT, SYNC_GROUP) and version <= 3:
            self.members.heard(frame)
        elif api == LEAVE_GROUP and version <= 2:
            self.members.leaving(frame)
        elif api == TXN_OFFSET_COMMIT and version == 3:
            answer = self.members.refusal(frame)
            if answer is not None:
                to_client.write(struct.pack(">i", len(answer)) + answer)
                return None
        return frame

    def answer(self, frame: bytes, asked: dict) -> Union[bytes, Awaitable[bytes]]:
        api, about = asked.pop(struct.unpack_from(">i", frame)[0], (None, ()))
        if api in (PRODUCE, END_TRANSACTION):
            self.written.set()
            self.written = asyncio.Event()
            if api == END_TRANSACTION:
                self.transactions.ended(*about)
            return frame
        if api == JOIN_GROUP:
            self.members.joined(frame, *about)
        elif api == FETCH:
            version, wait, written = about
            if not 4 <= version <= 11:
                return frame
            frame, is_empty = without_rolled_back(frame, version)
            return self.kept(frame, written, min(wait, LONGEST_WAIT)) if is_empty and wait > 0 else frame
        return frame if api is None else frame.replace(self.theirs, self.ours)

    async def kept(self, frame: bytes, written: asyncio.Event, wait: float) -> bytes:
        """The frame, when something was written, or after so many seconds."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(written.wait(), wait)
        return frame


class Transactions:
    """Transactions that are open, by the transactional ids of producers that go this way."""

    def __init__(self) -> None:
        #: How long each may be open, seconds.
        self.limits: dict[str, float] = {}
        self.begun: dict[str, float] = {}

    def request(self, api: int, version: int, frame: bytes) -> str:
        """Gives the transactional id that is in the request."""
        fields = Fields(frame)
        fields.header()
        if api == INIT_PRODUCER and version >= 2:
            fields.tags()
            name = fields.short_text()
        elif version >= 3:
            fields.tags()
            name = fields.short_text()
        else:
            name = fields.text()
        if name and api == INIT_PRODUCER:
            self.limits[name] = fields.number(">i") / 1000
            self.ended(name)
        elif name and api != END_TRANSACTION:
            self.begun.setdefault(name, time.monotonic())
        return name

    def ended(self, name: str) -> None:
        self.begun.pop(name, None)

    def late(self) -> list[str]:
        now = time.monotonic()
        return [name for name, begun in self.begun.items() if begun + self.limits.get(name, 60.0) < now]


class Members:
    """Members of groups that go this way, and when they were heard of."""

    def __init__(self) -> None:
        #: By group and member: the session's seconds, and the last sign of life; None: it waits for an answer to JoinGroup.
        self.known: dict[tuple[str, str], tuple[float, Optional[float]]] = {}
        #: Of each group, that of the last answer to a JoinGroup.
        self.generations: dict[str, int] = {}

    def joining(self, frame: bytes) -> tuple[str, str, float]:
        """A JoinGroup: gives its group, its member and the session's seconds."""
        fields = Fields(frame)
        fields.header()
        group, session = fields.text(), fields.number(">i") / 1000
        fields.number(">i")  # how long a rebalance may take
        member = fields.text()
        if (group, member) in self.known:
            self.known[group, member] = session, None
        return group, member, session

    def joined(self, frame: bytes, version: int, group: str, _: str, session: float) -> None:
        fields = Fields(frame, 4 if version < 2 else 8)
        error = fields.number(">h")
        generation = fields.number(">i")
        fields.text(), fields.text()  # protocol, leader
        member = fields.text()
        if member and error in (0, MEMBER_ID_REQUIRED):
            self.known[group, member] = session, time.monotonic()
        if error == 0:
            self.generations[group] = generation

    def refusal(self, frame: bytes) -> Optional[bytes]:
        """The answer to a TxnOffsetCommit, version 3, that is not to be done; None: it is to be."""
        fields = Fields(frame)
        fields.header()
        fields.tags()
        fields.short_text()  # transaction
        group = fields.short_text()
        fields.number(">q"), fields.number(">h")  # producer
        generation, member = fields.number(">i"), fields.short_text()
        fields.short_text()  # static name of the member
        if not member or ((group, member) in self.known and generation == self.generations.get(group)):
            return None
        error = ILLEGAL_GENERATION if (group, member) in self.known else UNKNOWN_MEMBER_ID
        topics = fields.size()
        answer = [frame[4:8], bytes(5), pack_size(topics)]
        for _ in range(topics - 1):
            begin = fields.at
            fields.short_text()
            partitions = fields.size()
            answer.append(frame[begin : fields.at])
            for _ in range(partitions - 1):
                answer.append(struct.pack(">ihB", fields.number(">i"), error, 0))
                fields.number(">q"), fields.number(">i"), fields.short_text(), fields.tags()
            fields.tags()
            answer.append(bytes(1))
        return b"".join((*answer, bytes(1)))

    def gone(self, version: int, group: str, member: str, session: float) -> None:
        """The connection has ended on which an answer to JoinGroup was to come."""
        if (group, member) in self.known:
            self.known[group, member] = session, time.monotonic()

    def heard(self, frame: bytes) -> None:
        """A Heartbeat or SyncGroup."""
        fields = Fields(frame)
        fields.header()
        group, _, member = fields.text(), fields.number(">i"), fields.text()
        if (group, member) in self.known:
            self.known[group, member] = self.known[group, member][0], time.monotonic()

    def leaving(self, frame: bytes) -> None:
        """A LeaveGroup."""
        fields = Fields(frame)
        fields.header()
        self.forget(fields.text(), fields.text())

    def forget(self, group: str, member: str) -> None:
        self.known.pop((group, member), None)

    def silent(self) -> list[tuple[str, str]]:
        """Those whose session is over."""
        now = time.monotonic()
        return [who for who, (session, heard) in self.known.items() if heard is not None and heard + session < now]


class Fields:
    """Reads a frame of Kafka's protocol, one field after the other."""

    def __init__(self, frame: bytes, at: int = 0) -> None:
        self.frame, self.at = frame, at

    def number(self, kind: str) -> int:
        [value] = struct.unpack_from(kind, self.frame, self.at)
        self.at += struct.calcsize(kind)
        return value

    def text(self) -> str:
        size = max(0, self.number(">h"))
        self.at += size
        return self.frame[self.at - size : self.at].decode()

    def size(self) -> int:
        """A number of variable length: of what follows, plus one; 0: there is none."""
        value = shift = 0
        while True:
            byte = self.number(">B")
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def short_text(self) -> str:
        """In the form of later versions."""
        size = max(0, self.size() - 1)
        self.at += size
        return self.frame[self.at - size : self.at].decode()

    def tags(self) -> None:
        for _ in range(self.size()):
            self.size()
            size = self.size()
            self.at += size

    def header(self) -> None:
        """What precedes each request."""
        self.at += 8
        self.text()


def pack_size(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes((*found, value))


def longest_wait(frame: bytes) -> float:
    """How long a Fetch may wait for records, seconds."""
    fields = Fields(frame)
    fields.header()
    fields.number(">i")  # replica
    return fields.number(">i") / 1000


def without_rolled_back(frame: bytes, version: int) -> tuple[bytes, bool]:
    """An answer to Fetch, versions 4 to 11, with empty lists of transactions that were rolled back; and whether there is nothing in it that
    a client would do something about."""
    at = 8 if version < 7 else 14
    parts, copied = [], 0
    is_empty = version < 7 or not any(frame[8:10])

    def number() -> int:
        nonlocal at
        at += 4
        return struct.unpack_from(">i", frame, at - 4)[0]

    for _ in range(number()):
        at += 2 + struct.unpack_from(">h", frame, at)[0]
        for _ in range(number()):
            is_empty = is_empty and not any(frame[at + 4 : at + 6])
            at += 22 if version == 4 else 30
            count = number()
            if count > 0:
                parts += [frame[copied : at - 4], bytes(4)]
                at += 16 * count
                copied = at
            if version >= 11:
                at += 4
            size = number()
            at += max(0, size)
            is_empty = is_empty and size <= 0
    return b"".join((*parts, frame[copied:])) if parts else frame, is_empty


if __name__ == "__main__":
    asyncio.run(Proxy(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])).serve())
