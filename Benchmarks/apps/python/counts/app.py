"""Counts events by key, in memory."""

from collections import defaultdict

from grape import Application

app = Application()
counts = defaultdict(int)


@app.on("word")
def word(event, context):
    counts[event.key] += 1


@app.on("total")
def total(event, context):
    return str(sum(counts.values()))


if __name__ == "__main__":
    app.run()
