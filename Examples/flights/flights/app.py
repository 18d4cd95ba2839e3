"""The slots of the application `flights`: raw rows in, enriched flights out."""

import pathlib

from grape import Application, Context, Event, Reject

from rules import enrich, parse, read_airlines

app = Application()
airlines = read_airlines(pathlib.Path(__file__).with_name("airlines.csv"))


@app.on("raw")
def raw(event: Event, context: Context):
    """A row of the file. What cannot be parsed is rejected: it becomes a dead letter, the rest go on."""
    try:
        flight = parse(event.json())
    except ValueError as error:
        raise Reject(1, str(error)) from error
    context.emit("parsed", flight, key=flight["carrier"])


@app.on("parsed")
def parsed(event: Event, context: Context):
    """A checked flight: enriched, then counted by carrier and class (a signal) and by route (a key of its own)."""
    flight = enrich(event.json(), airlines)
    context.emit("enriched", flight, key=flight["carrier"])
    context.emit("stats@by-route", flight, key=f"{flight['origin']}-{flight['dest']}")


if __name__ == "__main__":
    app.run()
