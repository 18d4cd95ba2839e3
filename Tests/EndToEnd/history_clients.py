"""The clients of test_history.py: they send random programs, whatever becomes of the node, and note what they were told."""

from __future__ import annotations

import dataclasses
import json
import random
import struct
import threading
import time
from typing import Any, Callable, Optional

import wire
from history_model import Reply, Sent
from history_programs import APPS, KEYS, OUTSIDE, SLOTS, Programs, pack
from protocol_client import Client, Failure
from wire import Reader, Record

PATIENCE = 90.0
NAMES = {status: name for name, status in wire.STATUS.items()}


class Progress:
    """What all threads of a round share: what was sent, how much was acknowledged, and whether the node is up."""

    def __init__(self, programs: Programs) -> None:
        self.changed = threading.Condition()
        self.programs = programs
        #: The clients' events come in portions, one before each fault and one behind the last.
        self.portions = programs.setting.faults + 1
        self.released = 0
        self.quota = 0
        self.sent: list[Sent] = []
        self.settled = 0
        self.frames = 0
        #: Grows with every start of the node.
        self.generation = 1
        self.failure: Optional[BaseException] = None

    def note(self, count: int = 1) -> None:
        with self.changed:
            self.settled += count
            self.changed.notify_all()

    def wait_for(self, true: Callable[[], Any], what: str) -> None:
        with self.changed:
            if not self.changed.wait_for(lambda: self.failure is not None or true(), PATIENCE):
                raise AssertionError(f"not within {PATIENCE} s: {what} ({self.settled} of {self.quota} settled)")
        if self.failure is not None:
            raise AssertionError(f"a client failed: {self.failure!r}") from self.failure

    def pause(self) -> None:
        """Before something is tried again."""
        with self.changed:
            self.changed.wait(0.05)

    def release(self) -> None:
        with self.changed:
            self.released += 1
            self.changed.notify_all()

    def node_is_up(self) -> None:
        with self.changed:
            self.generation += 1
            self.changed.notify_all()


class Connected(threading.Thread):
    """Works over a connection until its part is done; a new one when the node is there again."""

    def __init__(self, node, progress: Progress, seed: str, part: int) -> None:
        super().__init__(daemon=True)
        self.node, self.progress, self.part, self.left = node, progress, part, part
        progress.quota += part
        self.chance = random.Random(seed)
        #: What waits for its answer, in the order in which it was sent: how to take that, and what it is about.
        self.waiting: list[tuple[Callable[[Client], None], list[Sent]]] = []
        #: What is to be sent again: it bears an idempotency key.
        self.again: list[Sent] = []

    def run(self) -> None:
        try:
            while self.left > 0 or self.again:
                generation = self.progress.generation
                try:
                    with self.node.client(timeout=PATIENCE) as client:
                        self.work(client)
                except Failure as failure:
                    # By a node that is stopping, or about an application that is; the connection shows which.
                    if failure.name != "unavailable":
                        raise
                    self.give_up_waiting()
                    self.progress.pause()
                except OSError:
                    self.give_up_waiting()
                    if self.left > 0 or self.again:
                        self.progress.wait_for(lambda: self.progress.generation > generation, "the node is there again")
        except BaseException as error:  # told by the test, in its own thread
            with self.progress.changed:
                self.progress.failure = self.progress.failure or error
                self.progress.changed.notify_all()

    def is_done(self) -> bool:
        return self.left <= 0 and not self.waiting and not self.again

    def give_up_waiting(self) -> None:
        """What was under way may have come through or not."""
        lost = [sent for _, some in self.waiting for sent in some]
        self.waiting.clear()
        self.again += [sent for sent in lost if sent.idempotent and sent not in self.again]
        self.progress.note(len(lost))

    def work(self, client: Client) -> None:
        while self.left > 0 or self.waiting or self.again:
            if self.again and len(self.waiting) < self.window:
                self.repeat(client, self.again[0])
                self.again.pop(0)
            elif self.may_send() and len(self.waiting) < self.window:
                self.left -= self.send(client)
            elif not self.waiting:
                self.progress.wait_for(self.may_send, "the next portion is released")
            else:
                settle, sent = self.waiting[0]
                settle(client)
                self.waiting.pop(0)
                self.progress.note(len(sent))
                self.again += [one for one in sent if one.idempotent and self.chance.random() < 0.1]

    def refused(self, sent: Sent, answer: Any) -> None:
        """The node stops: this connection is of no more use."""
        sent.refused = answer.ran == 0
        raise Failure({"status": answer.status, "name": NAMES[answer.status], "message": answer.message})

    def may_send(self) -> bool:
        return self.left > 0 and (self.part - self.left) * self.progress.portions < self.part * self.progress.released

    def under_way(self, sent: list[Sent], send: Callable[[], Any], settle: Callable[[Client, Any], None]) -> int:
        """Notes what is sent before it is: it may be in the log from then on."""
        with self.progress.changed:
            self.progress.sent += [one for one in sent if not one.noted]
        for one in sent:
            one.noted = True
        self.waiting.append((lambda client: None, sent))
        id = send()
        self.waiting[-1] = (lambda client: settle(client, id), sent)
        return len(sent)

    def repeat(self, client: Client, sent: Sent) -> None:
        sent.refused = False
        self.exec(client, sent) if sent.kind == "exec" else self.call(client, sent)

    def perhaps_idempotent(self, sent: Sent) -> Sent:
        if self.chance.random() < 0.4:
            sent.idempotent = True
            sent.headers = [("idempotency-key", f"key of {sent.id}".encode())]
        return sent

    def draw(self, kind: str, **members: Any) -> Sent:
        app = self.chance.choice(APPS)
        with self.progress.changed:
            program = self.progress.programs.program(app, waited=kind == "call")
        key = self.chance.choice((*KEYS, None)) if kind != "write" else self.chance.choice(KEYS)
        return Sent(
            kind, app, self.chance.choice(SLOTS) if kind != "write" else "run", program["id"],
            None if key is None else key.encode(), pack(program), durability=self.chance.choices((3, 2, 1), (8, 1, 1))[0],
            **members,
        )


class Sender(Connected):
    """Single events, frames with several, and writes of state that trigger an event."""

    window = 24

    def send(self, client: Client) -> int:
        pick = self.chance.random()
        if pick < 0.55:
            return self.exec(client, self.perhaps_idempotent(self.draw("exec")))
        return self.append(client) if pick < 0.8 else self.write(client)

    def exec(self, client: Client, sent: Sent) -> int:
        if not sent.noted and self.chance.random() < 0.2:
            sent.headers.append(("own", b"of the client"))

        def settle(client: Client, id: int) -> None:
            answer = client.answer(id)
            if hasattr(answer, "offset"):
                sent.acknowledged = True
                sent.places.append((answer.partition, answer.offset))
            else:
                self.refused(sent, answer)

        return self.under_way(
            [sent],
            lambda: client.send_exec(
                f"{sent.app}@{sent.slot}", sent.value, key=sent.key, durability=sent.durability, headers=sent.headers
            ),
            settle,
        )

    def append(self, client: Client) -> int:
        app = self.chance.choice(APPS)
        with self.progress.changed:
            self.progress.frames += 1
            frame = self.progress.frames
        durability = self.chance.choices((3, 2, 1), (8, 1, 1))[0]
        batches = []
        sent = []
        for _ in range(self.chance.choice((1, 1, 1, 2, 3))):
            records = []
            for _ in range(self.chance.choice((1, 2, 4, 8))):
                event = self.draw("append", frame=frame)
                # A program is drawn for an application: what kills may not run elsewhere.
                event = dataclasses.replace(event, durability=durability)
                if event.app != app:
                    event.app = app
                headers = [("g.e", event.slot.encode())]
                if self.chance.random() < 0.05:
                    headers.append(("g.d", struct.pack(">q", 1)))  # not to be started: its time is long over
                records.append(Record(event.value, event.key, headers, timestamp=int(time.time() * 1000)))
                sent.append(event)
            partition = -1
            if self.chance.random() < 0.3:
                partition = self.chance.randrange(self.progress.programs.setting.partitions[app])
            batches.append((partition, wire.pack_batch(records)))

        def settle(client: Client, id: int) -> None:
            client.appended(id)
            for event in sent:
                event.acknowledged = True

        return self.under_way(sent, lambda: client.send_append(app, batches, durability=durability), settle)

    def write(self, client: Client) -> int:
        sent = self.draw("write")
        sent.headers = [("state-store", OUTSIDE.encode()), ("state-operation", b"put")]
        sent.durability = 3
        write = {"op": "put", "key": sent.key.decode(), "size": len(sent.value), "trigger": "run"}
        text = json.dumps({
            "op": "state.write", "app": sent.app, "store": OUTSIDE, "eventKey": sent.key.decode(), "timeoutMs": 600_000,
            "writes": [write],
        }).encode()

        def send() -> int:
            id = client.fresh_id()
            client.send(wire.REQUEST, id, struct.pack(">I", len(text)) + text + sent.value)
            return id

        def settle(client: Client, id: int) -> None:
            reader = Reader(client.receive(wire.RESPONSE, id).body)
            [size] = reader.take("I")
            [result] = json.loads(reader.raw(size))["results"]
            if result["result"] != "done":
                raise AssertionError(f"write {sent.id}: {result}")
            sent.acknowledged = True

        return self.under_way([sent], send, settle)


class Caller(Connected):
    """Blocking events; some look at once for what the answer promises."""

    window = 6

    def send(self, client: Client) -> int:
        return self.call(client, self.perhaps_idempotent(self.draw("call")))

    def call(self, client: Client, sent: Sent) -> int:
        told: list[Reply] = []
        look = self.chance.random() < 0.3

        def settle(client: Client, id: int) -> None:
            while True:
                answer = client.answer(id)
                if answer.status == wire.STATUS["unavailable"]:
                    # The node's own word: it stops, and the answer will be in the log.
                    return self.refused(sent, answer)
                if not told:
                    sent.told.append(told)
                told.append(
                    Reply(answer.status, answer.ran, answer.code, answer.message, answer.value or None, answer.final)
                )
                if answer.final:
                    break
            sent.acknowledged = True
            if look:
                self.look(client, sent, told[-1])

        return self.under_way(
            [sent],
            lambda: client.send_exec(
                f"{sent.app}@{sent.slot}", sent.value, key=sent.key, block=True, durability=sent.durability,
                timeout_ms=600_000, headers=sent.headers,
            ),
            settle,
        )

    def look(self, client: Client, sent: Sent, answer: Reply) -> None:
        """Who has the answer finds in the state what came of the event: it ended well if the answer says so itself."""
        passed = any(step[0] == "emit" and not step[3] for step in json.loads(sent.value)["do"])
        if answer.status != 0 or sent.key is None or passed:
            return
        found, blob = client.request_with_blob(
            "state.read", app=sent.app, key=f"~log:{sent.key.decode()}", eventKey=sent.key.decode(),
            consistency="linearizable", timeoutMs=60_000,
        )
        if f";{sent.id};".encode() not in b";" + blob:
            raise AssertionError(f"call {sent.id} was answered, and a linearizable read does not see it: {found} {blob!r}")


class Auditor(threading.Thread):
    """Looks at the marks of handlers from outside, again and again: a result is there as a whole, and is never taken back."""

    def __init__(self, node, progress: Progress) -> None:
        super().__init__(daemon=True)
        self.node, self.setting = node, progress.programs.setting
        self.enough = threading.Event()
        self.looks = 0
        self.wrong: list[str] = []
        self.counts: dict[tuple[str, int], int] = {}

    def run(self) -> None:
        while not self.enough.wait(0.01):
            for app in APPS:
                for partition in range(self.setting.partitions[app]):
                    try:
                        entries = self.node.state(app, partition=partition, prefix="~")
                    except (OSError, AssertionError, RuntimeError, Failure):
                        continue  # the node is down, or restores, or does not know the application yet
                    self.looks += 1
                    self.look(app, partition, {entry.key.decode(): entry.value for entry in entries})

    def look(self, app: str, partition: int, found: dict[str, bytes]) -> None:
        ended = sum(value.count(b";") for key, value in found.items() if key.startswith("~log:"))
        begun = sum(value.count(b";") for key, value in found.items() if key.startswith("~begun:"))
        count = int(found.get("~count", b"0"))
        what = f"partition {partition} of {app}, seen from outside"
        if not begun == ended == count:
            self.wrong.append(f"{what}: {begun} begun, {ended} ended, {count} counted")
        # What is in memory alone may be lost with the node.
        if self.setting.durability[app] != "memory" and count < self.counts.get((app, partition), 0):
            self.wrong.append(f"{what}: {count} counted after {self.counts[app, partition]}")
        self.counts[app, partition] = count
