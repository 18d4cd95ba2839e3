"""How fast the Python SDK is: events per second through one worker, without a node.

A small node in this process sends deliveries of 256 KiB (100-byte values, 8-byte keys) over a Unix socket to a real
worker process, keeps as many under way as a node would, and counts. The rate includes everything a worker does:
receive, decode, dispatch, handler, encode, frame, send.

    python3 Benchmarks/python_sdk.py [--seconds 3] [--case NAME] [--profile]

--profile runs the cases in this process under cProfile instead.
"""

import argparse
import cProfile
import os
import pstats
import struct
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "Tests", "Python"))
sys.path.insert(0, os.path.join(HERE, "..", "Sources", "CGrapeResources", "sdk", "python"))

import fake_node  # noqa: E402

CASES = {
    "emit": (
        "@app.on('raw')\ndef raw(event, ctx):\n    ctx.emit('counted', event.value.upper(), key=event.key)\n",
        {},
    ),
    "count": (
        "counts = {}\n@app.on('raw')\ndef raw(event, ctx):\n    counts[event.key] = counts.get(event.key, 0) + 1\n",
        {},
    ),
    "nothing": ("@app.on('raw')\ndef raw(event, ctx):\n    pass\n", {}),
    "many keys": (
        "@app.on('raw')\ndef raw(event, ctx):\n    ctx.emit('counted', event.value.upper(), key=event.key)\n",
        {"keys": 1_000_000},
    ),
    "fan-out": (
        "@app.on('raw')\ndef raw(event, ctx):\n    ctx.emit('both', event.value, key=event.key)\n",
        {},
    ),
    "json": (
        "@app.on('raw')\ndef raw(event, ctx):\n    ctx.emit('counted', {'n': len(event.value)}, key=event.key)\n",
        {},
    ),
    "async": (
        "@app.on('raw')\nasync def raw(event, ctx):\n    ctx.emit('counted', event.value.upper(), key=event.key)\n",
        {},
    ),
    "reply": (
        "@app.on('raw')\ndef raw(event, ctx):\n    return event.value\n",
        {"reply": True},
    ),
}
HEAD = "from grape import Application\napp = Application()\n"
TAIL = "if __name__ == '__main__':\n    app.run()\n"


def build(start, keys=1000, reply=False, size=256 << 10):
    """A delivery body of about `size` bytes: (body, events)."""
    records = []
    total = 0
    while total < size:
        number = start + len(records)
        address = (struct.pack(">QQ", 7, number), 0, "_grape.replies.n1") if reply else None
        key = b"%08d" % (number * 7919 % keys)
        records.append(fake_node.event("raw", b"v" * 92 + key, key, reply=address, age=number % 50))
        total += 126 + (45 if reply else 0)
    head = struct.pack(">iIqqI", 0, 1, start, start + len(records), 0)
    return head + fake_node.encode_batch(records, start), len(records)


def measure(name, seconds, window=4):
    program, options = CASES[name]
    start = 0
    bodies = []
    for _ in range(32):
        body, count = build(start, **options)
        bodies.append((body, count))
        start += count
    with fake_node.FakeNode(HEAD + program + TAIL, ["raw"]) as node:
        node.start()
        credits = threading.Semaphore(window)
        stop = threading.Event()

        def feed():
            number = 0
            while not stop.is_set():
                if credits.acquire(timeout=1):
                    number += 1
                    node.send(fake_node.DELIVER, number, bodies[(number - 1) % len(bodies)][0])

        feeder = threading.Thread(target=feed, daemon=True)
        feeder.start()

        def finish_one():
            identifier, _, _ = node.next(fake_node.RESULT)
            credits.release()
            return bodies[(identifier - 1) % len(bodies)][1]

        for _ in range(8):  # warm up
            finish_one()
        events = 0
        cpu = process_time(node.process.pid)
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds:
            events += finish_one()
        took = time.perf_counter() - begin
        cpu = process_time(node.process.pid) - cpu
        stop.set()
        feeder.join()
    print(
        f"{name:10} {events / took:10,.0f} events/s   {events / cpu:10,.0f} per CPU second   "
        f"{cpu / events * 1e6:6.2f} µs CPU each",
        flush=True,
    )


def process_time(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def in_process(name, profiled):
    """The runner alone, in this process: no socket, optionally under cProfile."""
    import grape

    program, options = CASES[name]
    scope = {}
    exec(HEAD + program, scope)
    welcome = {"slots": ["raw"], "routes": fake_node.ROUTES}
    worker = grape._Worker(scope["app"])
    runner = grape._Runner(scope["app"]._callables(), welcome, grape.Log())
    body, count = build(0, **options)
    rounds = 20

    def go():
        for number in range(rounds):
            b"".join(worker._drive(runner.run(grape._Delivery(number + 1, body))))

    go()
    if profiled:
        profile = cProfile.Profile()
        profile.runcall(go)
        pstats.Stats(profile).sort_stats("tottime").print_stats(12)
    took = float("inf")
    for _ in range(9):
        begin = time.perf_counter()
        go()
        took = min(took, time.perf_counter() - begin)
    print(f"{name:10} {rounds * count / took:10,.0f} events/s in process, {took / rounds / count * 1e9:.0f} ns each")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--case", choices=sorted(CASES), action="append")
    parser.add_argument("--profile", action="store_true", help="profile the runner in this process")
    parser.add_argument("--in-process", action="store_true", help="time the runner in this process")
    arguments = parser.parse_args()
    for name in arguments.case or CASES:
        if arguments.profile or arguments.in_process:
            in_process(name, arguments.profile)
        else:
            measure(name, arguments.seconds)


if __name__ == "__main__":
    main()
