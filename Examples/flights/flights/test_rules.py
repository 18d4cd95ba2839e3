"""Run with: python3 -m unittest (in this folder). Needs no node."""

import pathlib
import unittest

from rules import InvalidRow, delay_class, enrich, parse, read_airlines

ROW = {"carrier": "UA", "origin": "EWR", "dest": "IAH", "arr_delay": "11", "tailnum": "N14228"}


class Rules(unittest.TestCase):
    def test_a_row_becomes_a_flight(self):
        self.assertEqual(parse(ROW), {"carrier": "UA", "origin": "EWR", "dest": "IAH", "delay": 11})

    def test_a_flight_without_arrival_stays_a_flight(self):
        self.assertIsNone(parse({**ROW, "arr_delay": "NA"})["delay"])

    def test_a_row_that_makes_no_sense_is_refused_with_the_column_named(self):
        for broken, column in [
            ({**ROW, "arr_delay": "soon"}, "arr_delay"),
            ({**ROW, "arr_delay": ""}, "arr_delay"),
            ({**ROW, "carrier": ""}, "carrier"),
            ({"carrier": "UA", "arr_delay": "1"}, "origin"),
        ]:
            with self.subTest(broken=broken), self.assertRaisesRegex(InvalidRow, column):
                parse(broken)
        with self.assertRaises(InvalidRow):
            parse(["UA"])

    def test_delay_classes_meet_at_their_bounds(self):
        expected = {
            None: "missing", -1: "early", 0: "on time", 15: "on time", 16: "late", 60: "late", 61: "very late",
        }
        self.assertEqual({minutes: delay_class(minutes) for minutes in expected}, expected)

    def test_the_airline_is_named(self):
        airlines = read_airlines(pathlib.Path(__file__).with_name("airlines.csv"))
        self.assertEqual(enrich(parse(ROW), airlines)["airline"], "United Air Lines Inc.")
        self.assertEqual(enrich(parse({**ROW, "carrier": "ZZ"}), airlines)["airline"], "ZZ")


if __name__ == "__main__":
    unittest.main()
