"""The slots, run in this process without a node. The module `grape` must be on PYTHONPATH (see README.md)."""

import json
import unittest

from grape import TestRun

from app import app

ROW = {"carrier": "UA", "origin": "EWR", "dest": "IAH", "arr_delay": "11", "tailnum": "N14228"}


class Slots(unittest.TestCase):
    def setUp(self):
        self.run_ = TestRun(app)
        self.addCleanup(self.run_.close)

    def test_a_row_is_passed_on_under_its_carrier(self):
        [parsed] = self.run_.send("raw", json.dumps(ROW), wanted=False).emitted
        self.assertEqual((parsed.name, parsed.key), ("parsed", b"UA"))
        self.assertEqual(parsed.json(), {"carrier": "UA", "origin": "EWR", "dest": "IAH", "delay": 11})

    def test_a_flight_goes_out_by_carrier_and_by_route(self):
        [parsed] = self.run_.send("raw", json.dumps(ROW), wanted=False).emitted
        emitted = self.run_.send("parsed", parsed.value, wanted=False).emitted
        self.assertEqual({(event.name, event.key) for event in emitted}, {("enriched", b"UA"), ("stats@by-route", b"EWR-IAH")})
        for event in emitted:
            self.assertEqual(event.json()["airline"], "United Air Lines Inc.")
            self.assertEqual(event.json()["class"], "on time")

    def test_what_is_no_row_is_rejected_with_the_reason(self):
        for value, reason in ((json.dumps({**ROW, "arr_delay": "soon"}), "arr_delay"), ("[]", "object"), ("{", "")):
            outcome = self.run_.send("raw", value, wanted=False)
            self.assertEqual((outcome.verdict, outcome.code), ("rejected", 1))
            self.assertIn(reason, outcome.error)
            self.assertEqual(outcome.emitted, [])


if __name__ == "__main__":
    unittest.main()
