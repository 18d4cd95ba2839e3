#!/usr/bin/env python3
"""Stands between nodes and a Kafka broker of the tests; broker.py starts it.

  broker_proxy.py HOST PORT BROKER_PORT        listens on PORT, prints a line when it does; the broker is on the same host

It says in answers that the broker is where it itself is, so that clients stay with it, and sets right what noida-db 0.2.3 gets wrong:
with what was fetched, that broker lists every transaction of the partition that was ever rolled back, also those that ended before
the offset asked for. A client never sees the end of those, and takes all that their producer writes later for rolled back, too. Since
the records of such transactions are not sent in the first place, the list is left out.

Lines on the standard input: "cut" (from now on nothing gets through, in either direction, and connections that are opened stay
silent), "down" (all connections are reset, and new ones at once: so a broker looks that was killed), "heal" (it goes on). At its
end the proxy ends, too.
"""

from __future__ import annotations

import asyncio
import struct
import sys

FETCH, METADATA, FIND_COORDINATOR = 1, 3, 10


class Proxy:
    def __init__(self, host: str, port: int, broker: int) -> None:
        self.host, self.port, self.broker = host, port, broker
        #: Not set while it is cut.
        self.open = asyncio.Event()
        self.open.set()
        self.is_down = False
        self.clients: set[asyncio.StreamWriter] = set()
        self.theirs, self.ours = (host.encode() + struct.pack(">i", number) for number in (broker, port))

    async def serve(self) -> None:
        server = await asyncio.start_server(self.connected, self.host, self.port, limit=1 << 20)
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

    async def connected(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        to_broker = None
        ways: list[asyncio.Task] = []
        if self.is_down:
            return to_client.transport.abort()
        self.clients.add(to_client)
        try:
            await self.open.wait()
            broker, to_broker = await asyncio.open_connection(self.host, self.broker, limit=1 << 20)
            asked: dict[int, tuple[int, int]] = {}
            ways = [
                asyncio.create_task(self.carry(client, to_broker, lambda frame: self.request(frame, asked))),
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
                await self.open.wait()
                target.write(struct.pack(">i", len(frame)))
                target.write(frame)
                await target.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass

    def request(self, frame: bytes, asked: dict) -> bytes:
        api, version, correlation = struct.unpack_from(">hhi", frame)
        if api in (FETCH, METADATA, FIND_COORDINATOR):
            asked[correlation] = api, version
        return frame

    def answer(self, frame: bytes, asked: dict) -> bytes:
        api, version = asked.pop(struct.unpack_from(">i", frame)[0], (None, 0))
        if api == FETCH:
            return without_rolled_back(frame, version) if 4 <= version <= 11 else frame
        return frame if api is None else frame.replace(self.theirs, self.ours)


def without_rolled_back(frame: bytes, version: int) -> bytes:
    """An answer to Fetch, versions 4 to 11, with empty lists of transactions that were rolled back."""
    at = 8 if version < 7 else 14
    parts, copied = [], 0

    def number() -> int:
        nonlocal at
        at += 4
        return struct.unpack_from(">i", frame, at - 4)[0]

    for _ in range(number()):
        at += 2 + struct.unpack_from(">h", frame, at)[0]
        for _ in range(number()):
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
    return b"".join((*parts, frame[copied:])) if parts else frame


if __name__ == "__main__":
    asyncio.run(Proxy(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])).serve())
