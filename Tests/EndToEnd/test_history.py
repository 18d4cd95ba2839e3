"""Histories: applications that do what random events tell them, while workers and node are killed, stopped and renewed. What is
left must be what a sequential model makes of the events in the log.

Each round has a node of its own. GRAPE_HISTORY_ROUNDS says how many there are, GRAPE_SEED is the first one's seed; those
of the rounds after it count on. GRAPE_TEST_KEEP keeps the folder of a round that fails, its data and what the clients were told.
"""

import copy
import dataclasses
import os
import pathlib
import random
import shutil
import tempfile
import unittest

from history_comparison import differences
from history_round import Round
from history_tampering import Tamperings
from node import EndToEnd, embedded_only


class Histories(EndToEnd):
    def play(self, seed, **changes):
        """A round, and what is not as it should be. `changes`: of what was drawn for it."""
        failed = True
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="grape-"))
        self.round = round = Round(self, seed, changes)
        try:
            observed = round.play()
            wrong = list(differences(observed))
            if not wrong and round.chance.random() < 0.3:
                again = round.rebuilt()
                wrong = [f"after all was made anew: {text}" for text in differences(dataclasses.replace(observed, state=again))]
            failed = bool(wrong)
            return observed, wrong
        except BaseException as error:
            failed = True
            error.add_note(self.story(round))
            raise
        finally:
            round.node.stop_for_good()
            if failed and "GRAPE_TEST_KEEP" in os.environ:
                (self.folder / "sent.txt").write_text("\n".join(map(repr, round.progress.sent)) + "\n")
                (self.folder / "faults.txt").write_text(self.story(round) + "\n")
            else:
                shutil.rmtree(self.folder, ignore_errors=True)

    def story(self, round):
        kept = f"kept in {self.folder}" if "GRAPE_TEST_KEEP" in os.environ else "GRAPE_TEST_KEEP=1 keeps the data"
        lines = [
            f"GRAPE_SEED={round.setting.seed} GRAPE_HISTORY_ROUNDS=1 repeats the round; {kept}", str(round.setting),
            *round.faults, round.node.tail(),
        ]
        return "\n".join(lines)

    def test_random_histories_under_random_kills_come_to_what_a_sequential_model_says(self):
        seed = int(os.environ.get("GRAPE_SEED", random.randrange(1 << 30)))
        events = 0
        for number in range(int(os.environ.get("GRAPE_HISTORY_ROUNDS", 6))):
            with self.subTest(seed=seed + number):
                observed, wrong = self.play(seed + number)
                if wrong:
                    self.fail("\n".join([f"{len(wrong)} differences, the first:", *wrong[:5], self.story(self.round)]))
                events += sum(len(records) for (topic, _), records in observed.records.items() if topic.endswith(".events"))
        print(f"histories from seed {seed}: {events} events", flush=True)

    @embedded_only("it tests the comparison, whatever the log")
    def test_the_comparison_sees_whatever_is_wrong_with_a_history(self):
        seed = int(os.environ.get("GRAPE_SEED", random.randrange(1 << 30)))
        observed, wrong = self.play(seed, faults=0, poison=0, programs=210)
        self.assertEqual(wrong, [], f"seed {seed}")
        chance = random.Random(seed)
        for tampering in Tamperings.all():
            with self.subTest(tampering.__name__, seed=seed):
                copied = copy.deepcopy(observed)
                tampering(Tamperings(copied, chance))
                self.assertNotEqual(list(differences(copied)), [])


if __name__ == "__main__":
    unittest.main()
