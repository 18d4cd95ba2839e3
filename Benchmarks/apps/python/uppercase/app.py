"""Capitals: one event in, one event out, the key kept."""

from grape import Application

app = Application()


@app.on("word")
def word(event, context):
    context.emit("counts@word", event.value.upper(), key=event.key)


@app.on("echo")
def echo(event, context):
    return event.value


if __name__ == "__main__":
    app.run()
