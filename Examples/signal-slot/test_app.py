"""The chain, run in this process without a node. The module `grape` must be on PYTHONPATH (see README.md)."""

import unittest

from grape import TestRun

from app import app


class Chain(unittest.TestCase):
    def test_the_data_passes_every_slot_and_the_last_one_answers(self):
        with TestRun(app) as run:
            outcome = run.send("start-event", "hello", key="k")
            for expected in ("event0", "event1", "event2", "finish"):
                self.assertIsNone(outcome.reply, "only the last slot answers")
                [event] = outcome.emitted
                self.assertEqual((event.name, event.key), (expected, b"k"))
                outcome = run.send(event.name, event.value, key=event.key)
            self.assertEqual(outcome.reply, b"hello -> start-event -> event0 -> event1 -> event2 -> finish")
            self.assertEqual(outcome.emitted, [])


if __name__ == "__main__":
    unittest.main()
