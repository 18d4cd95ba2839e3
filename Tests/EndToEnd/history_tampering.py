"""What test_history.py does to a history that is right, to see that the comparison notices."""

import copy
import dataclasses
import json
import random

from history_model import Entry, Observed
from history_programs import APPS, WITNESS

ALL = (*APPS, WITNESS)


class Tamperings:
    """Each does something to a history that must not happen."""

    def __init__(self, observed: Observed, chance: random.Random) -> None:
        self.observed, self.chance = observed, chance
        self.from_outside = {(sent.app, sent.id) for sent in observed.sent}

    @classmethod
    def all(cls):
        return [member for name, member in vars(cls).items() if name.startswith("an_") or name.startswith("a_")]

    # What there is to choose from

    def partition(self, kind: str, apps=ALL, least: int = 1) -> list:
        """The records of a random partition that has some."""
        found = [
            records for (topic, _), records in sorted(self.observed.records.items())
            if topic in [f"{app}.{kind}" for app in apps] and len(records) >= least
        ]
        return self.chance.choice(found)

    def emitted(self):
        """A partition, and the place of an emitted event in it."""
        found = [
            (records, place)
            for (topic, _), records in sorted(self.observed.records.items()) if topic.endswith(".events")
            for place, record in enumerate(records)
            if (topic.partition(".")[0], json.loads(record.value)["id"]) not in self.from_outside
        ]
        return self.chance.choice(found)

    def entries(self, where: dict) -> dict:
        return self.chance.choice([entries for entries in where.values() if entries])

    @staticmethod
    def number(records: list) -> None:
        for offset, record in enumerate(records):
            record.offset = offset

    # What is done

    def an_emitted_event_is_lost(self):
        records, place = self.emitted()
        del records[place]
        self.number(records)

    def an_emitted_event_is_doubled(self):
        records, place = self.emitted()
        records.append(copy.deepcopy(records[place]))
        self.number(records)

    def an_emitted_event_comes_from_nowhere(self):
        records = self.partition("events", APPS)
        records.append(dataclasses.replace(records[-1], value=b'{"do":[],"id":"nobody"}'))
        self.number(records)

    def an_emitted_events_hops_are_wrong(self):
        records, place = self.emitted()
        records[place].headers = [(name, b"\xff" if name == "g.h" else value) for name, value in records[place].headers]

    def an_event_is_in_the_wrong_place(self):
        records = self.partition("events", (WITNESS,), least=2)
        pairs = [
            (one, other) for one in range(len(records)) for other in range(one + 1, len(records))
            if records[one].key == records[other].key
        ]
        one, other = self.chance.choice(pairs)
        records[one], records[other] = records[other], records[one]
        self.number(records)

    def an_acknowledged_event_is_lost(self):
        sent = self.chance.choice([sent for sent in self.observed.sent if sent.acknowledged and sent.durability > 1])
        for (topic, _), records in self.observed.records.items():
            if topic == f"{sent.app}.events":
                records[:] = [record for record in records if json.loads(record.value)["id"] != sent.id]
                self.number(records)

    def an_acknowledgement_named_another_place(self):
        sent = self.chance.choice([sent for sent in self.observed.sent if sent.places and sent.durability > 1])
        sent.places[-1] = (sent.places[-1][0], sent.places[-1][1] + 1)

    def a_handler_saw_something_else(self):
        records = self.partition("events", (WITNESS,))
        record = self.chance.choice(records)
        trace = json.loads(record.value)
        trace["saw"] = [*trace["saw"], "something else"]
        record.value = json.dumps(trace).encode()

    def a_write_of_state_is_lost(self):
        entries = self.entries(self.observed.state)
        del entries[self.chance.choice(sorted(entries))]

    def a_write_of_state_is_doubled(self):
        entries = self.entries(self.observed.state)
        entry = entries[self.chance.choice(sorted(entries))]
        entry.value += entry.value[-4:]

    def an_entry_of_state_comes_from_nowhere(self):
        self.entries(self.observed.state)["", "t:q"] = Entry(b"")

    def an_entry_has_another_tag(self):
        entries = self.entries(self.observed.state)
        entries[self.chance.choice(sorted(entries))].tags = ["blue"]

    def an_entry_expires(self):
        entries = self.entries(self.observed.state)
        name = self.chance.choice([name for name in sorted(entries) if entries[name].ttl is None])
        entries[name].ttl = self.observed.ended

    def a_write_is_missing_in_the_changelog(self):
        entries = self.entries(self.observed.changelog)
        del entries[self.chance.choice(sorted(entries))]

    def a_reply_is_lost(self):
        del self.observed.replies[self.chance.randrange(len(self.observed.replies))]

    def a_reply_is_doubled(self):
        self.observed.replies.append(self.chance.choice(self.observed.replies))

    def a_caller_was_told_something_else(self):
        sent = self.chance.choice([sent for sent in self.observed.sent if sent.told])
        sent.told[-1][-1].value = b"something else"

    def a_dead_letter_is_lost(self):
        self.partition("dead").pop()

    def a_dead_letter_is_doubled(self):
        records = self.partition("dead")
        records.append(dataclasses.replace(records[-1], offset=len(records)))

    def a_write_from_outside_is_doubled(self):
        records = self.partition("writes")
        records.append(dataclasses.replace(records[-1], offset=len(records)))

    def an_offset_is_behind(self):
        partitions = self.observed.offsets[self.chance.choice(ALL)]
        self.chance.choice([found for found in partitions if found["committed"]])["committed"] -= 1
