"""Compares what a round of test_history.py has left with what the model makes of the events in the log."""

from __future__ import annotations

import collections
import itertools
import json
import struct
from typing import Iterator, Optional

from history_model import RAN, Dead, Emitted, Entry, Observed, Partition, Reply, reply_of, write_of
from history_programs import APPS, BRIEF, WITNESS
from wire import Record, partition_of


def differences(observed: Observed) -> Iterator[str]:
    """What is not as the model has it, one sentence each."""
    return Comparison(observed).all()


class Comparison:
    def __init__(self, observed: Observed) -> None:
        self.observed = observed
        self.setting = observed.setting
        self.partitions = {
            (app, number): Partition(app, number, observed.setting)
            for app in (*APPS, WITNESS) for number in range(observed.setting.partitions[app])
        }
        self.replies: dict[bytes, list[Reply]] = collections.defaultdict(list)

    def all(self) -> Iterator[str]:
        for (app, number), partition in self.partitions.items():
            try:
                partition.run(self.observed.records[f"{app}.events", number])
            except (KeyError, ValueError, TypeError) as error:
                yield f"{app}.events/{number} holds an event that the model cannot run: {error!r}"
                return
            for correlation, reply in partition.replies:
                self.replies[correlation].append(reply)
        yield from self.offsets()
        yield from self.sent()
        yield from self.emitted()
        yield from self.written_from_outside()
        yield from self.dead_letters()
        yield from self.state(self.observed.state, "state")
        yield from self.state(self.observed.changelog, "changelog")
        yield from self.answers()

    def offsets(self) -> Iterator[str]:
        for (topic, number), records in self.observed.records.items():
            offsets = [record.offset for record in records]
            # Kafka's transactions take offsets too, for their markers.
            if offsets != (sorted(set(offsets)) if self.observed.gaps else list(range(len(records)))):
                yield f"{topic}/{number}: offsets {offsets[:50]}… are not {'in order' if self.observed.gaps else '0, 1, 2, …'}"
        for app, partitions in self.observed.offsets.items():
            for found in partitions:
                records = self.observed.records[f"{app}.events", found["partition"]]
                end = records[-1].offset + 1 if records else 0
                # On Kafka there may be markers behind the last event.
                exact = (end, end) == (found["end"], found["committed"])
                if not (self.observed.gaps and end <= found["committed"] <= found["end"] or exact) or found["lag"]:
                    yield f"{app}.events has {len(records)} events, up to {end}; the statistics say {found}"

    # What clients sent

    def find_all(self, topic: str) -> dict[str, list[tuple[int, Record]]]:
        """By id: partition and record."""
        found: dict[str, list[tuple[int, Record]]] = collections.defaultdict(list)
        for (name, number), records in self.observed.records.items():
            if name == topic:
                for record in records:
                    found[json.loads(record.value)["id"]].append((number, record))
        return found

    def sent(self) -> Iterator[str]:
        self.inputs = {app: self.find_all(f"{app}.events") for app in (*APPS, WITNESS)}
        self.from_outside: set[tuple[str, str]] = set()
        frames: dict[int, list[bool]] = collections.defaultdict(list)
        for sent in self.observed.sent:
            self.from_outside.add((sent.app, sent.id))
            found = self.inputs[sent.app].get(sent.id, [])
            what = f"event {sent.id} sent to {sent.app}@{sent.slot} ({sent.kind})"
            if len(found) > 1:
                yield f"{what} is in the log {len(found)} times"
            if sent.acknowledged and not found and sent.durability > 1:
                yield f"{what} was acknowledged with durability {sent.durability} and is not in the log"
            if sent.refused and found:
                yield f"{what} was refused for good, and is in the log"
            if sent.kind == "append":
                frames[sent.frame].append(bool(found))
            for number, record in found[:1]:
                if sent.durability > 1 and {*sent.places} - {(number, record.offset)}:
                    yield f"{what} was acknowledged at {sent.places} and is at {(number, record.offset)}"
                if (record.key, record.value, record.header("g.e")) != (sent.key, sent.value, sent.slot.encode()):
                    yield f"{what} is not in the log as it was sent: {record}"
                own = [header for header in record.headers if header[0] not in ("g.e", "g.r", "g.d")]
                if own != sent.headers or (record.header("g.r") is not None) != (sent.kind == "call"):
                    yield f"{what} has other headers: {record.headers}"
        for frame, there in frames.items():
            if any(there) != all(there):
                yield f"of the {len(there)} events of frame {frame} {sum(there)} are in the log"

    # What handlers emitted

    def emitted(self) -> Iterator[str]:
        expected: dict[tuple[str, str], Emitted] = {}
        orders: dict[tuple, list[str]] = collections.defaultdict(list)
        for partition in self.partitions.values():
            for event in partition.emitted:
                app = event.topic.partition(".")[0]
                if (app, event.id) in expected:
                    yield f"the model has {app} event {event.id} twice: events with its cause are in the log twice"
                expected[app, event.id] = event
                orders[event.source[:2], app].append(event.id)
        for app in (*APPS, WITNESS):
            for id, found in self.inputs[app].items():
                if (app, id) in self.from_outside:
                    continue
                event = expected.get((app, id))
                if event is None:
                    yield f"{app}.events has {id}, which nobody should have sent: {found[0][1]}"
                    continue
                if len(found) > 1:
                    places = [(number, record.offset) for number, record in found]
                    yield f"{app}.events has {id}, emitted by {event.source}, {len(found)} times, at {places}"
                number, record = found[0]
                yield from self.compare_emitted(app, number, record, event)
        for (app, id), event in expected.items():
            if id not in self.inputs[app]:
                yield f"{app}.events lacks {id}, which the event at {event.source} emitted"
        # From one partition to another: in the order in which they were emitted.
        for (source, app), ids in orders.items():
            wanted = {id: place for place, id in enumerate(ids)}
            for number in range(self.setting.partitions[app]):
                order = [
                    wanted[id] for record in self.observed.records[f"{app}.events", number]
                    if (id := json.loads(record.value)["id"]) in wanted
                ]
                for one, other in itertools.pairwise(order):
                    if one > other:
                        yield f"{app}.events/{number} has {ids[one]} before {ids[other]}, emitted by {source} later"

    def compare_emitted(self, app: str, number: int, record: Record, event: Emitted) -> Iterator[str]:
        what = f"{app}.events/{number} at {record.offset}, emitted by {event.source}"
        if event.key is not None and number != partition_of(event.key, self.setting.partitions[app]):
            yield f"{what}, is in the wrong partition for its key {event.key!r}"
        found = (record.key, record.header("g.e"), record.header("g.h"), record.header("g.d"), record.header("g.r"))
        if found != (event.key, event.slot.encode(), bytes((event.hops,)), event.deadline, event.reply):
            yield f"{what}, is not as it was emitted: {record} instead of {event}"
        if {name: value.decode() for name, value in record.headers if not name.startswith("g.")} != event.own:
            yield f"{what}, has other headers: {record.headers}"
        if app == WITNESS:
            yield from self.compare_trace(what, json.loads(record.value), json.loads(event.value), event.source)
        elif record.value != event.value:
            yield f"{what}, has the value {record.value!r} instead of {event.value!r}"

    def compare_trace(self, what: str, found: dict, expected: dict, source: tuple[str, int, int]) -> Iterator[str]:
        """What a handler saw. A look at another partition may be stale: then the number is one that there has been."""
        if found["at"] != expected["at"] or len(found["saw"]) != len(expected["saw"]):
            yield f"{what}: {found} instead of {expected}"
            return
        for one, other in zip(found["saw"], expected["saw"]):
            if isinstance(other, list) and other[:1] == ["peek"] and other[2] is None:
                most = int(self.partitions[source[0], other[1]].get("", "~count") or b"0")
                if not (isinstance(one, list) and one[:2] == other[:2] and 0 <= one[2] <= most):
                    yield f"{what}: saw {one} of a partition that counts to {most}"
            elif one != other:
                yield f"{what}: event {expected['id']} saw {one!r} instead of {other!r}, in {found['saw']}"

    # What was written from outside

    def written_from_outside(self) -> Iterator[str]:
        for app in APPS:
            triggered: collections.Counter = collections.Counter()
            for number in range(self.setting.partitions[app]):
                ids = []
                for record in self.observed.records[f"{app}.writes", number]:
                    operation, trigger, store, key, value = write_of(record)
                    partition = self.partitions[app, number]
                    if operation == 1:
                        partition.put(store, key, value)
                        size = len(value)
                    else:
                        size = partition.append(store, key, value.decode())
                    if trigger:
                        ids.append(json.loads(value)["id"])
                    if record.header("g.r") is not None:
                        answer = struct.pack(">Bq", 1, size)
                        self.replies[record.header("g.r")[:16]].append(Reply(0, RAN, 0, "", answer, True))
                events = [
                    json.loads(record.value)["id"] for record in self.observed.records[f"{app}.events", number]
                    if record.header("state-store") is not None
                ]
                if ids != events:
                    yield f"{app}, partition {number}: the writes {ids} have triggered {events}"
                triggered.update(ids)
            for sent in self.observed.sent:
                if sent.app == app and sent.kind == "write":
                    if triggered[sent.id] > 1 or triggered[sent.id] < sent.acknowledged:
                        yield f"write {sent.id} (acknowledged: {sent.acknowledged}) is in {app}.writes {triggered[sent.id]} times"

    # What became of failures

    def dead_letters(self) -> Iterator[str]:
        for app in (*APPS, WITNESS):
            expected: dict[int, list[Dead]] = collections.defaultdict(list)
            for (name, number), partition in self.partitions.items():
                if name == app:
                    expected[number] = partition.dead
            found: dict[int, list[tuple[dict, Record]]] = collections.defaultdict(list)
            for record in self.observed.records[f"{app}.dead", 0]:
                why = json.loads(record.header("g.x"))
                found[why["partition"]].append((why, record))
            for number in sorted({*expected, *found}):
                should = [dead.source[2] for dead in expected[number]]
                have = [why["offset"] for why, _ in found[number]]
                if should != have:
                    reasons = {why["offset"]: why for why, _ in found[number]}
                    yield (
                        f"dead letters of {app}.events/{number} are those at {have} instead of {should}: "
                        f"{[reasons[offset] for offset in have if offset not in should]}"
                    )
                    continue
                for dead, (why, record) in zip(expected[number], found[number]):
                    if (why["reason"], why["code"], why["attempts"], why["topic"]) != (
                        dead.reason, dead.code, dead.attempts, f"{app}.events"
                    ) or why["message"] not in dead.messages:
                        yield f"dead letter of {dead.source}: {why} instead of {dead}"
                    kept = [header for header in record.headers if header[0] != "g.x"]
                    original = [header for header in dead.event.headers if header[0] != "g.r"]
                    if (record.key, record.value, kept) != (dead.event.key, dead.event.value, original):
                        yield f"dead letter of {dead.source} is not the event: {record} instead of {dead.event}"

    # State

    def state(self, observed: dict, where: str) -> Iterator[str]:
        for (app, number), partition in self.partitions.items():
            expected = {name: entry for name, entry in partition.state.items() if name[0] != BRIEF}
            found = observed[app, number]
            for name in sorted({*expected, *found}):
                should, have = expected.get(name), found.get(name)
                what = f"{where} of {app}, partition {number}, store {name[0]!r}, key {name[1]!r}"
                if should is None or have is None:
                    yield f"{what}: {show(have)} instead of {show(should)}"
                elif have.value != should.value or sorted(have.tags) != sorted(should.tags):
                    yield f"{what}: {show(have)} instead of {show(should)}{where_they_part(have.value, should.value)}"
                elif (have.ttl is None) != (should.ttl is None) or have.ttl is not None and not (
                    self.observed.began <= have.ttl - should.ttl * 1000 <= self.observed.ended
                ):
                    yield f"{what} expires at {have.ttl}, ttl {should.ttl}"

    # Replies

    def answers(self) -> Iterator[str]:
        found: dict[bytes, list[Reply]] = collections.defaultdict(list)
        for record in self.observed.replies:
            found[record.key].append(reply_of(record))
        for correlation in {*found, *self.replies}:
            should, have = self.replies.get(correlation, []), found.get(correlation, [])
            # Stages of different partitions come in the order of their commits; the model has them by partition.
            if sorted(map(repr, should)) != sorted(map(repr, have)):
                yield f"replies to {correlation.hex()}: {have} instead of {should}"
            elif [reply.final for reply in have] != [False] * (len(have) - 1) + [True]:
                yield f"replies to {correlation.hex()} are not ended by one that is final: {have}"
        for sent in self.observed.sent:
            for told in sent.told:
                at = self.inputs[sent.app].get(sent.id)
                if at:
                    have = found.get(at[0][1].header("g.r")[:16], [])
                    if have[: len(told)] != told:
                        yield f"call {sent.id} of {sent.app} got {told}; the log has {have}"
                elif told and sent.durability > 1:
                    # What was in memory alone may be lost with it.
                    yield f"call {sent.id} of {sent.app} got {told} and is not in the log"


def show(entry: Optional[Entry]) -> str:
    if entry is None:
        return "nothing"
    value = entry.value if len(entry.value) < 400 else entry.value[:100] + b"..." + entry.value[-200:]
    return f"{value!r}" + (f" tags {entry.tags}" if entry.tags else "")


def where_they_part(one: bytes, other: bytes) -> str:
    """For lists of ids: the first that differs."""
    for place, (have, should) in enumerate(itertools.zip_longest(one.split(b";"), other.split(b";"))):
        if have != should:
            return f"; the first difference is number {place}: {have!r} instead of {should!r}"
    return ""
