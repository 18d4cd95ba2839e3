"""Each slot adds its name to the data and emits the next event; `finish` answers whoever sent `start-event`.

The caller's address travels with the events, so no slot needs to know who asked.
"""

from grape import Application, Context, Event

app = Application()


def visited(event: Event) -> str:
    """The event's data with the name of the slot behind it."""
    return f"{event.text} -> {event.name}" if event.text else event.name


@app.on("start-event")
def start_event(event: Event, context: Context):
    context.emit("event0", visited(event), key=event.key)


@app.on("event0")
def event0(event: Event, context: Context):
    context.emit("event1", visited(event), key=event.key)


@app.on("event1")
def event1(event: Event, context: Context):
    context.emit("event2", visited(event), key=event.key)


@app.on("event2")
def event2(event: Event, context: Context):
    context.emit("finish", visited(event), key=event.key)


@app.on("finish")
def finish(event: Event, context: Context):
    return visited(event)


if __name__ == "__main__":
    app.run()
