"""Random histories of handlers that use state, beside a dictionary."""

import os
import random
import sys
import unittest

from lmdb_writer import entry, full_key, take_apart
from state_rig import Rig, quiet

import grape

SEED = int(os.environ.get("GRAPE_TEST_SEED", random.SystemRandom().randrange(1 << 32)))


class Model(unittest.TestCase):
    """Each history takes its events through deliveries, failures, lost results and a base that is late."""

    KEYS = [f"{letter}{number}" for letter in "abc" for number in range(8)] + ["a", "b:", "zz"]
    TAGS = ["t1", "t2", "t3"]

    def test_random_histories_agree_with_a_dictionary(self):
        print(f"state histories: GRAPE_TEST_SEED={SEED}", file=sys.stderr)
        for number in range(40):
            for access in ("map", "ask"):
                with self.subTest(access=access, number=number), Rig(access) as rig:
                    self.history(rig, random.Random(f"{SEED} {number}"))

    def history(self, rig, pick):
        rig.firsts = {}  # per partition: where the last delivery began
        committed = [{}, {}]  # per partition: (store, key) to (value, tags), as committed RESULTs left it
        late = [[], []]  # per partition: results that the base does not have yet
        for _ in range(pick.randrange(5, 25)):
            partition = pick.randrange(2)
            model = dict(committed[partition])
            final = {}  # what the events that succeeded have left
            steps = []
            stops = []
            for number in range(pick.randrange(1, 6)):
                outcome = pick.choice(["ok"] * 6 + ["reject", "retry"])
                steps.append(self.step(pick, model, final, stops, number, outcome, rig, partition))
            final.clear()
            final.update(model)
            with quiet():
                result = rig.deliver(*steps, partition=partition)
            if stops and stops[0][0] == "error":
                raise stops[0][1]
            if pick.random() < 0.15:
                # The commit fails: the events come again, later.
                rig.offsets[partition] = rig.firsts[partition]
                continue
            committed[partition] = dict(final)
            late[partition].append(result)
            while late[partition] and pick.random() < 0.5:
                rig.apply(late[partition].pop(0), partition)
            if pick.random() < 0.2:
                self.meddle(rig, pick, committed, late, partition)
        for partition in (0, 1):
            for result in late[partition]:
                rig.apply(result, partition)
            content = {
                (full[1 : 1 + full[0]].decode(), full[1 + full[0] :]): take_apart(data)[::2]
                for full, data in rig.contents[partition].items()
            }
            self.assertEqual(content, committed[partition])

    def meddle(self, rig, pick, committed, late, partition):
        """The node writes on its own account, after it has applied everything."""
        for result in late[partition]:
            rig.apply(result, partition)
        late[partition].clear()
        key = (pick.choice(["", "s"]), pick.choice(self.KEYS).encode())
        if pick.random() < 0.5:
            committed[partition].pop(key, None)
            rig.write([(full_key(*key), None)], partition)
        else:
            committed[partition][key] = (b"outside", ["t1"])
            rig.write([(full_key(*key), entry(b"outside", None, ["t1"]))], partition)

    def step(self, pick, model, final, stops, number, outcome, rig, partition):
        """A handler that does random things to the state and to the model, and compares."""
        seed = pick.random()

        def run(event, ctx):
            own = random.Random(seed)
            if number == 0:
                rig.firsts[partition] = event.offset
            before = dict(model)
            try:
                for _ in range(own.randrange(12)):
                    self.act(own, ctx, model)
            except AssertionError as error:
                stops.append(("error", error))
                raise
            if outcome != "ok":
                model.clear()
                model.update(before)
            final.clear()
            final.update(model)
            if outcome == "reject":
                raise grape.Reject(1)
            if outcome == "retry":
                raise grape.Retry()

        return run

    def act(self, pick, ctx, model):
        name = pick.choice(["", "", "s"])
        store = ctx.store(name)
        key = pick.choice(self.KEYS)
        place = (name, key.encode())
        value, tags = model.get(place, (None, []))
        what = pick.randrange(12)
        if what < 3:
            tags = sorted(pick.sample(self.TAGS, pick.choice([0, 0, 1, 2])))
            data = pick.randbytes(pick.choice([0, 1, 8, 70, 9000])) if hasattr(pick, "randbytes") else b"x" * 9
            store.put(key, data, tags=tags)
            model[place] = (data, tags)
        elif what == 3:
            store.remove(key)
            model.pop(place, None)
        elif what == 4:
            self.assertEqual(store.append(key, b"+"), len(value or b"") + 1)
            model[place] = ((value or b"") + b"+", tags)
        elif what == 5:
            expected = pick.choice([value, value, None, b"other"])
            self.assertEqual(store.cas(key, expected, b"new"), value == expected)
            if value == expected:
                model[place] = (b"new", [])
        elif what < 8:
            size = None if value is None else len(value)
            self.assertEqual((store.get(key), key in store, store.size(key)), (value, value is not None, size))
            self.assertEqual((store.tags(key), store.read(key, 3, 4)), (tuple(tags), (value or b"")[3:7]))
        elif what < 11:
            prefix = pick.choice(["", "", "a", "b", "b:", "zz", "\x7f"])
            low = pick.choice([None, None] + self.KEYS)
            high = pick.choice([None, None] + self.KEYS)
            reverse = pick.random() < 0.5
            limit = pick.choice([None, None, 0, 1, 3, 10])
            expected = sorted(
                (
                    (found, content[0])
                    for (where, found), content in model.items()
                    if where == name and found.startswith(prefix.encode())
                    and (low is None or found >= low.encode()) and (high is None or found < high.encode())
                ),
                reverse=reverse,
            )[:limit]  # fmt: skip
            self.assertEqual(list(store.scan(prefix, low, high, reverse, limit)), expected)
            self.assertEqual(list(store.keys(prefix, low, high, reverse, limit)), [found for found, _ in expected])
        else:
            wanted = pick.sample(self.TAGS, pick.choice([1, 2]))
            prefix = pick.choice(["", "a", "b"])
            limit = pick.choice([None, 1, 4])
            expected = sorted(
                (found, content[0])
                for (where, found), content in model.items()
                if where == name and found.startswith(prefix.encode()) and set(wanted) <= set(content[1])
            )[:limit]
            self.assertEqual(list(store.find(*wanted, prefix=prefix, limit=limit)), expected)
            self.assertEqual(store.get_many(self.KEYS), {k: v for (where, k), (v, _) in model.items() if where == name})


if __name__ == "__main__":
    unittest.main()
