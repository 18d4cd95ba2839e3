"""What a valid row is, and what is added to it. Nothing here knows of Grape, so it can be tested alone."""

from __future__ import annotations

import csv
import pathlib
from typing import Optional

Row = dict[str, str]
Flight = dict[str, object]

#: How the table writes a value that is not known.
MISSING = "NA"


class InvalidRow(ValueError):
    """A row that no retry will make valid."""


def parse(row: Row) -> Flight:
    """Picks what the later stages need from a row and checks it.

    The arrival delay is None when the table has none: the flight was cancelled or diverted. Such a flight stays a
    flight; it is not dropped.
    """
    if not isinstance(row, dict):
        raise InvalidRow("expected a JSON object with one member per column")
    delay = field(row, "arr_delay")
    try:
        minutes = None if delay == MISSING else int(delay)
    except ValueError:
        raise InvalidRow(f"arr_delay is {delay!r}: expected whole minutes or {MISSING}") from None
    return {
        "carrier": field(row, "carrier"),
        "origin": field(row, "origin"),
        "dest": field(row, "dest"),
        "delay": minutes,
    }


def field(row: Row, name: str) -> str:
    """A column's value; never empty."""
    value = row.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidRow(f"column {name!r} is missing or empty")
    return value


def delay_class(minutes: Optional[int]) -> str:
    """How late an arrival is: the words of the report."""
    if minutes is None:
        return "missing"
    if minutes < 0:
        return "early"
    if minutes <= 15:
        return "on time"
    if minutes <= 60:
        return "late"
    return "very late"


def read_airlines(path: pathlib.Path) -> dict[str, str]:
    """Airline names by carrier code."""
    with open(path, newline="", encoding="utf-8") as file:
        return {row["carrier"]: row["name"] for row in csv.DictReader(file)}


def enrich(flight: Flight, airlines: dict[str, str]) -> Flight:
    """The flight with its airline's name and delay class. A carrier not in the table keeps its code as name."""
    return {
        **flight,
        "airline": airlines.get(flight["carrier"], flight["carrier"]),
        "class": delay_class(flight["delay"]),
    }
