"""The slots of the application `flights`: raw rows in, enriched flights out."""

import json
import pathlib

from grape import Application, Reject

from rules import InvalidRow, enrich, parse, read_airlines

app = Application()
airlines = read_airlines(pathlib.Path(__file__).with_name("airlines.csv"))


def encode(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


@app.on("raw")
def raw(event, context):
    """A row of the file. What cannot be parsed is rejected: it becomes a dead letter, the rest go on."""
    try:
        flight = parse(event.json())
    except InvalidRow as error:
        raise Reject(1, str(error))
    context.emit("parsed", encode(flight), key=flight["carrier"])


@app.on("parsed")
def parsed(event, context):
    """A checked flight: enriched, then counted by carrier and class (a signal) and by route (a key of its own)."""
    flight = enrich(event.json(), airlines)
    value = encode(flight)
    context.emit("enriched", value, key=flight["carrier"])
    context.emit("stats@by-route", value, key=f"{flight['origin']}-{flight['dest']}")


if __name__ == "__main__":
    app.run()
