#!/usr/bin/env python3
"""Computes the figures of the flights example from the CSV alone, and compares them with what Grape answered.

  check.py FLIGHTS.csv                  prints the figures as JSON
  check.py FLIGHTS.csv --totals FILE    compares them with the answer of stats@totals; exit code 1 if they differ

It shares no code with the applications: whatever is wrong in one of them shows here.
"""

import argparse
import collections
import csv
import json
import pathlib
import statistics
import sys


def summary(delays):
    """Figures of a group of flights, from the list of their arrival delays (None where there is none)."""
    known = [delay for delay in delays if delay is not None]
    figures = {"flights": len(delays), "missing": len(delays) - len(known), "sum": sum(known)}
    if known:
        figures["mean"] = sum(known) / len(known)
        figures["median"] = statistics.median(known)
    return figures


def class_of(delay):
    if delay is None:
        return "missing"
    for bound, name in ((-1, "early"), (15, "on time"), (60, "late")):
        if delay <= bound:
            return name
    return "very late"


def compute(path):
    carriers, routes = collections.defaultdict(list), collections.defaultdict(list)
    classes = collections.Counter()
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            delay = None if row["arr_delay"] == "NA" else int(row["arr_delay"])
            carriers[row["carrier"]].append(delay)
            routes[row["origin"] + "-" + row["dest"]].append(delay)
            classes[class_of(delay)] += 1
    return {
        "carriers": {name: summary(delays) for name, delays in carriers.items()},
        "routes": {name: summary(delays) for name, delays in routes.items()},
        "classes": dict(classes),
    }


def differences(expected, actual, where=""):
    """Every place where two JSON values differ, as lines of text."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        for name in sorted(expected.keys() | actual.keys()):
            place = f"{where}.{name}" if where else name
            if name not in actual:
                yield f"{place}: missing from the answer"
            elif name not in expected:
                yield f"{place}: not in the file"
            else:
                yield from differences(expected[name], actual[name], place)
    elif expected != actual:
        yield f"{where}: the file gives {expected}, the answer was {actual}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("flights", type=pathlib.Path, help="the CSV file, uncompressed")
    parser.add_argument("--totals", type=pathlib.Path, help="the answer of stats@totals")
    arguments = parser.parse_args()

    expected = compute(arguments.flights)
    if arguments.totals is None:
        json.dump(expected, sys.stdout, indent=2)
        print()
        return 0

    actual = json.loads(arguments.totals.read_text(encoding="utf-8"))
    found = list(differences(expected, actual))
    for line in found[:20]:
        print(line, file=sys.stderr)
    if found:
        print(f"{len(found)} figures differ", file=sys.stderr)
        return 1
    flights = sum(group["flights"] for group in expected["carriers"].values())
    missing = sum(group["missing"] for group in expected["carriers"].values())
    print(
        f"totals match: {flights:,} flights ({missing:,} without arrival delay), "
        f"{len(expected['carriers'])} carriers, {len(expected['routes'])} routes"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
