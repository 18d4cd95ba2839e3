"""Random programs for the handlers of test_history.py, and what a round is like: all of it drawn from a seed.

A program is a list of steps:

  get KEY | put KEY VALUE TTL TAGS | add KEY N | append KEY DATA | remove KEY | cas KEY EXPECTED NEW ("=": what is there)
  scan PREFIX REVERSE LIMIT | sum PREFIX | clear PREFIX | find TAG | about KEY | blob KEY TEXT TIMES
                                       on the store named first
  peek PARTITION                       another partition's count: possibly stale
  emit NAME KEY DETACHED HEADERS PROGRAM
  bounce TO BACK                       an event that goes to and fro, up to the hop limit
  reply TEXT FINAL | return TEXT
  fail N | retry N                     raises at the first N attempts, or always (null); always if somebody waits
  kill N                               kill -9 of its own worker, the first N times or always (null)
  reject CODE
"""

from __future__ import annotations

import dataclasses
import json
import random
from typing import Optional

APPS = ("left", "right")
WITNESS = "witness"
SLOTS = ("run", "more")
#: A signal of both: a copy goes to each of these.
FAN = ("left@run", "right@more")
KEYS = ("a", "b", "c", "d", "e", "f")
STORES = ("", "", "side")
TAGS = ("red", "green")
#: Seconds, far beyond a round's end. Short ones are put into a store that no handler reads.
LONG = 86_400
BRIEF = "brief"
#: Written from outside alone.
OUTSIDE = "outside"


def pack(value) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


@dataclasses.dataclass
class Setting:
    """What a round is like."""

    seed: int
    partitions: dict[str, int]
    #: Times an event is tried. More than the workers that can die while it is tried, and its own failures, so that no other
    #: event than those that always fail becomes a dead letter.
    attempts: int
    worker_kills: dict[str, int]
    handler_kills: int
    failures: int
    poison: int
    durability: dict[str, str]
    asynchronous: dict[str, bool]
    asking: dict[str, bool]
    programs: int
    faults: int

    @classmethod
    def draw(cls, seed: int, chance: random.Random) -> "Setting":
        poison = int(chance.random() < 0.15)
        apps = (*APPS, WITNESS)
        return cls(
            seed=seed,
            partitions={app: chance.randint(1, 4) for app in apps},
            attempts=4 if poison else 16,
            worker_kills={app: 1 if poison else 7 for app in apps},
            handler_kills=1 if poison else chance.randint(0, 5),
            failures=1 if poison else 3,
            poison=poison,
            durability={app: chance.choices(("disk", "os", "memory"), (8, 1, 1))[0] for app in apps},
            asynchronous={app: chance.random() < 0.3 for app in apps},
            asking={app: chance.random() < 0.2 for app in apps},
            programs=chance.choice((90, 210, 450)),
            faults=chance.randint(1, 6),
        )


class Programs:
    """Draws programs. One for all clients, under a lock of the caller's."""

    def __init__(self, setting: Setting, chance: random.Random) -> None:
        self.setting, self.chance = setting, chance
        self.kills, self.poison = setting.handler_kills, setting.poison
        self.bounces = 1
        self.drawn = 0

    def next_id(self) -> str:
        self.drawn += 1
        return str(self.drawn)

    def program(self, app: str, waited: bool = False) -> dict:
        return {"id": self.next_id(), "do": self.steps(app, waited, 0)}

    def steps(self, app: Optional[str], waited: bool, depth: int) -> list:
        """`app`: where it will run; None: in both."""
        chance = self.chance
        passing = waited and depth < 2 and chance.random() < 0.4
        steps = [self.step(app, depth) for _ in range(chance.choice((0, 1, 2, 3, 5, 8)))]

        def insert(step, last=False):
            steps.insert(len(steps) if last else chance.randint(0, len(steps)), step)

        if chance.random() < 0.12:
            count = chance.choice((1, 1, 2, self.setting.failures, None))
            insert([chance.choice(("fail", "fail", "retry")), count if count is None else min(count, self.setting.failures)])
        elif chance.random() < 0.04:
            insert(["reject", chance.randint(-5, 5)])
        if app and self.kills and chance.random() < 0.1:
            count = chance.randint(1, min(2, self.kills))
            self.kills -= count
            insert(["kill", count])
        elif app and self.poison and chance.random() < 0.05:
            self.poison -= 1
            insert(["kill", None])
        elif app and not waited and self.bounces and depth == 0 and chance.random() < 0.01:
            self.bounces -= 1
            other = APPS[APPS.index(app) ^ 1]
            insert(["bounce", f"{other}@run", f"{app}@run"])
        if waited:
            if chance.random() < 0.3:
                insert(["reply", "partly", False])
            if passing:
                # Exactly one event takes the caller's address along: exactly one final reply.
                name, to = self.target()
                insert(["emit", name, chance.choice(KEYS), False, self.headers(), self.steps(to, True, depth + 1)])
            elif chance.random() < 0.8:
                insert([chance.choice(("reply", "return")), f"answer {chance.randrange(1000)}"], last=True)
                if steps[-1][0] == "reply":
                    steps[-1].append(True)
        return steps

    def target(self) -> tuple[str, str]:
        app = self.chance.choice(APPS)
        return f"{app}@{self.chance.choice(SLOTS)}", app

    def headers(self) -> Optional[dict]:
        return {"own": str(self.chance.randrange(100))} if self.chance.random() < 0.2 else None

    def step(self, app: Optional[str], depth: int) -> list:
        chance = self.chance
        store = chance.choice(STORES)
        letter = chance.choice(KEYS)
        number, words = f"n:{letter}", f"t:{letter}"
        pick = chance.randrange(26)
        if pick < 5:
            return ["add", store, number, chance.randint(-9, 9)]
        if pick < 7:
            return ["append", store, words, chance.choice(("x", "yy", "z" * 50))]
        if pick < 9:
            ttl = LONG if chance.random() < 0.2 else None
            return ["put", store, words, str(chance.randrange(100)), ttl, sorted(chance.sample(TAGS, chance.randint(0, 2)))]
        if pick == 9:
            return ["put", BRIEF, words, "soon gone", chance.choice((0.001, 0.02, 0.2)), []]
        if pick == 10:
            return ["remove", store, chance.choice((number, words))]
        if pick < 13:
            return ["cas", store, number, chance.choice(("=", "=", None, "17")), chance.choice(("17", "18", None))]
        if pick < 15:
            return ["scan", store, chance.choice(("", "n:", "t:", "n:c")), chance.random() < 0.5, chance.choice((None, 1, 3))]
        if pick == 15:
            return ["sum", store, "n:"]
        if pick == 16:
            return ["clear", store, f"t:{letter}"]
        if pick == 17:
            return ["find", store, chance.choice(TAGS)]
        if pick == 18:
            return ["about", store, words]
        if pick == 19:
            return ["get", store, chance.choice((number, words, "total"))]
        if pick == 20:
            return ["peek", chance.randrange(min(self.setting.partitions[name] for name in APPS))]
        if pick == 21 and chance.random() < 0.1:
            return ["blob", "blobs", letter, letter, chance.choice((5000, 200_000))]
        if depth >= 2 or pick == 21:
            return ["get", store, words]
        key = chance.choice((*KEYS, *KEYS, None))
        if pick == 22:
            return ["emit", "fan", key, True, self.headers(), self.steps(None, False, depth + 1)]
        name, to = self.target()
        # With an address to take along it would answer, too.
        return ["emit", name, key, True, self.headers(), self.steps(to, False, depth + 1)]
