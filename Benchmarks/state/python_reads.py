"""How fast a Python handler reads its state, beside raw calls of liblmdb through ctypes in the same run.

An LMDB environment is built as docs/data-format.md says (a million entries of 100 bytes, unless told otherwise), and a
Runner of the SDK gets deliveries whose handler reads at random keys, as in a worker. "raw" calls mdb_get in a bare loop
and takes no value; "raw and copy" copies the value by string_at. The rounds of all of them are interleaved, and the
best of each counts.

    python3 Benchmarks/state/python_reads.py [--entries 1000000] [--rounds 5] [--count]

--count measures keyed counting instead: a get and a put per event over 10,000 keys, 100-byte events, decoding and
packing included, with a base that catches up as a node's does; without the socket.
"""

import argparse
import ctypes
import os
import random
import struct
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "Tests", "Python"))
sys.path.insert(0, os.path.join(HERE, "..", "..", "Sources", "CGrapeResources", "sdk", "python"))

import fake_node  # noqa: E402
import grape  # noqa: E402
import lmdb_writer  # noqa: E402

READS = 100_000


def fill(writer, entries):
    """Entries in order of key, at LMDB's end: faster than one by one where they belong."""
    value = os.urandom(100)
    for begin in range(0, entries, 100_000):
        writer.begin()
        for number in range(begin, min(entries, begin + 100_000)):
            full = lmdb_writer.full_key("", b"count:%08d" % number)
            entry = lmdb_writer.entry(value)
            data = struct.pack(">I", lmdb_writer.crc32c(full + entry)) + entry
            writer.put("entries", full, data, lmdb_writer.APPEND)
        writer.commit()


def runner(handlers, folder, partitions=1):
    app = grape.Application()
    for name, handler in handlers.items():
        app.on(name)(handler)
    state = {"topic": "bench.state", "partitions": partitions, "access": "map", "path": folder}
    welcome = {"app": "bench", "slots": list(handlers), "routes": {}, "state": state}
    return grape._Worker(app), grape._Runner(app._callables(), welcome, app.log)


def deliver(worker, run, body):
    return b"".join(worker._drive(run.run(grape._Delivery(1, body))))


def body_of(events, first=0):
    head = struct.pack(">iIqqI", 0, 1, first, first + len(events), 0)
    return head + fake_node.encode_batch(events, first)


class Raw:
    """mdb_get by ctypes, as bare as it gets."""

    def __init__(self, folder):
        lmdb = self.lmdb = lmdb_writer.library()
        self.env = ctypes.c_void_p()
        check = self.check
        check(lmdb.mdb_env_create(ctypes.byref(self.env)))
        check(lmdb.mdb_env_set_maxdbs(self.env, 4))
        flags = lmdb_writer.READ_ONLY | lmdb_writer.NO_TLS
        check(lmdb.mdb_env_open(self.env, os.fsencode(folder), flags, 0o600))
        self.txn = ctypes.c_void_p()
        check(lmdb.mdb_txn_begin(self.env, None, lmdb_writer.READ_ONLY, ctypes.byref(self.txn)))
        self.entries = ctypes.c_uint()
        check(lmdb.mdb_dbi_open(self.txn, b"entries", 0, ctypes.byref(self.entries)))
        self.key = lmdb_writer.Value(0, None)
        self.data = lmdb_writer.Value(0, None)

    @staticmethod
    def check(code):
        if code:
            raise OSError(code)

    def read(self, keys, copy):
        """`keys`: full keys with their addresses."""
        get = self.lmdb.mdb_get
        txn, entries = self.txn, self.entries
        key, data = self.key, self.data
        key_reference, data_reference = ctypes.byref(key), ctypes.byref(data)
        string_at = ctypes.string_at
        for size, address in keys:
            key.size = size
            key.data = address
            if get(txn, entries, key_reference, data_reference):
                raise KeyError
            if copy:
                string_at(data.data + 5, data.size - 5)


def reads(arguments, folder):
    path = os.path.join(folder, "0")
    began = time.perf_counter()
    with lmdb_writer.Writer(path, 1 << 30) as writer:
        fill(writer, arguments.entries)
    print(f"{arguments.entries:,} entries written in {time.perf_counter() - began:.1f} s", flush=True)
    pick = random.Random(4)
    keys = [b"count:%08d" % pick.randrange(arguments.entries) for _ in range(READS)]
    buffers = [ctypes.create_string_buffer(b"\0" + key, 1 + len(key)) for key in keys]
    places = [(len(buffer), ctypes.addressof(buffer)) for buffer in buffers]

    def loop(event, ctx):
        get = ctx.state.get
        for key in keys:
            if get(key) is None:
                raise KeyError(key)

    def one(event, ctx):
        if ctx.state.get(event.key) is None:
            raise KeyError(event.key)

    worker, run = runner({"loop": loop, "one": one}, folder)
    looping = body_of([fake_node.event("loop")])
    events = [fake_node.event("one", b"", key) for key in keys]
    bodies = [body_of(events[at : at + 2000]) for at in range(0, READS, 2000)]

    def through(deliveries):
        for body in deliveries:
            result = fake_node.Result(deliver(worker, run, body))
            if result.verdicts:
                raise AssertionError(result.verdicts[0])

    raw = Raw(path)
    cases = {
        "raw": lambda: raw.read(places, False),
        "raw and copy": lambda: raw.read(places, True),
        "state.get": lambda: through([looping]),
        "a get per event": lambda: through(bodies),
    }
    best = measure(cases, arguments.rounds)
    for name, took in best.items():
        ratio = best["raw"] / took
        print(f"{name:16} {READS / took:10,.0f} reads/s  {took / READS * 1e9:5.0f} ns   {ratio:.2f} of raw")


def measure(cases, rounds):
    best = dict.fromkeys(cases, float("inf"))
    for _ in range(rounds):
        for name, case in cases.items():
            began = time.perf_counter()
            case()
            best[name] = min(best[name], time.perf_counter() - began)
    return best


def counting(arguments, folder):
    pick = random.Random(5)
    keys = [b"key-%06d" % number for number in range(10_000)]
    per_delivery = 2000
    deliveries = 60

    def count(event, ctx):
        state = ctx.state
        state.put(event.key, b"%d" % (int(state.get(event.key, b"0")) + 1))

    def nothing(event, ctx):
        pass

    worker, run = runner({"count": count, "nothing": nothing}, folder)
    bodies = {}
    for name in ("count", "nothing"):
        bodies[name] = [
            body_of([fake_node.event(name, b"v" * 92, pick.choice(keys)) for _ in range(per_delivery)])
            for _ in range(deliveries)
        ]
    best = {name: (float("inf"), float("inf")) for name in ("count", "nothing")}
    base = 0
    with lmdb_writer.Writer(os.path.join(folder, "0"), 1 << 28) as writer:
        for _ in range(arguments.rounds):
            for name in best:
                took = cpu = 0.0
                late = []
                for body in bodies[name]:
                    # The same events again, behind the last.
                    shifted = struct.pack(">iIqqI", 0, 1, base, base + per_delivery, 0) + struct.pack(">q", base)
                    shifted += body[36:]
                    base += per_delivery
                    delivery = grape._Delivery(1, shifted)
                    began, began_cpu = time.perf_counter(), time.thread_time()
                    parts = b"".join(worker._drive(run.run(delivery)))
                    took += time.perf_counter() - began
                    cpu += time.thread_time() - began_cpu
                    result = fake_node.Result(parts)
                    if result.verdicts:
                        raise AssertionError(result.verdicts[0])
                    # The base is two results behind.
                    late.append((result.processed, result.records()))
                    if len(late) > 2:
                        processed, records = late.pop(0)
                        writer.apply([(record.key, record.value) for _, _, record in records], processed)
                best[name] = min(best[name][0], took), min(best[name][1], cpu)
                for processed, records in late:
                    writer.apply([(record.key, record.value) for _, _, record in records], processed)
    total = per_delivery * deliveries
    for name, (took, cpu) in best.items():
        each = took / total * 1e9
        print(f"{name:16} {total / took:10,.0f} events/s  {each:5.0f} ns   {total / cpu:10,.0f} per CPU second")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", action="store_true", help="measure keyed counting")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="grape-state-") as folder:
        (counting if arguments.count else reads)(arguments, folder)


if __name__ == "__main__":
    main()
