"""Counts events by key, in state."""

from grape import Application

app = Application()


@app.on("word")
def word(event, context):
    state = context.state
    state.put(event.key, b"%d" % (int(state.get(event.key, b"0")) + 1))


@app.on("pass")
def passed(event, context):
    pass


@app.on("total")
def total(event, context):
    return str(sum(int(value) for n in range(4) for _, value in context.state.partition(n).scan()))


if __name__ == "__main__":
    app.run()
