"""Keeps events in state, and says at which node."""

import os

from grape import Application

app = Application()


@app.on("keep")
def keep(event, context):
    context.state.put(event.key, event.value)


@app.on("ask")
def ask(event, context):
    """The number of the node's process."""
    return str(os.getppid())


if __name__ == "__main__":
    app.run()
