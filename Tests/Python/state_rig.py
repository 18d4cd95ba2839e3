"""Runs steps as handlers of the SDK in this process, against bases that the tests write themselves."""

import contextlib
import ctypes
import io
import os
import shutil
import struct
import sys
import tempfile

import fake_node
import lmdb_writer

sys.path.insert(0, fake_node.SDK)

import grape  # noqa: E402

TOPIC = "flights.state"


def stated(processed, entries, more=False):
    """A STATED body."""
    body = struct.pack(">qBBHI", processed, 1 if more else 0, 0, 0, len(entries))
    for full, entry in entries:
        body += struct.pack(">i", len(full)) + full + struct.pack(">i", len(entry)) + entry
    return body


def question(body):
    """A STATE body, taken apart: (operation, descending, partition, limit, max bytes, key, end, tags)."""
    reader = fake_node.Reader(body)
    operation, flags, zero, partition, limit, room = reader.unpack("BBHiII")
    fields = []
    for _ in range(2):
        (size,) = reader.unpack("i")
        fields.append(None if size == -1 else reader.take(size))
    (count,) = reader.unpack("B")
    tags = []
    for _ in range(count):
        (size,) = reader.unpack("B")
        tags.append(reader.take(size).decode())
    if zero or flags > 1 or not reader.finished:
        raise ValueError(f"a STATE body with reserved bits or bytes behind: {body.hex()}")
    return operation, flags == 1, partition, limit, room, fields[0], fields[1], tags


def answer(body, contents, processed):
    """What a node answers. `contents`: per partition, full key to entry; `processed`: per partition. A few entries at
    a time, so that the asking side has to go on."""
    operation, descending, partition, limit, _, key, end, tags = question(body)
    content = contents[partition]
    number = processed[partition]
    if operation == 1:
        assert end is None and not tags and 2 <= len(key)
        return stated(number, [(key, content[key])] if key in content else [])
    assert key is not None and end is not None and (operation == 3) == bool(tags)
    found = [
        (full, content[full])
        for full in sorted(content, reverse=descending)
        if key <= full < end and set(tags) <= set(lmdb_writer.take_apart(content[full])[2])
    ]
    page = max(3, len(content) // 20)
    most = min(page, limit or page)
    return stated(number, found[:most], len(found) > most)


class Rig:
    """One worker's runner. A step is a function (event, ctx); each becomes an event of its own.

    `access`: "map" with LMDB environments written here, "ask" with answers from the same contents.
    """

    def __init__(self, access="map", partitions=2, fail_quietly=True, **state):
        self.folder = tempfile.mkdtemp(prefix="grape-state-")
        self.access = access
        self.writers = {}
        self.asked = []
        self.contents = {number: {} for number in range(partitions)}
        self.processed = dict.fromkeys(range(partitions), -1)
        self.offsets = dict.fromkeys(range(partitions), 0)
        self.steps = []
        self.app = grape.Application()
        self.app.on("do")(self._handle)
        welcome = {
            "app": "flights", "slots": ["do"], "routes": fake_node.ROUTES, "maxFrame": state.pop("maxFrame", 67174400),
            "state": {"topic": TOPIC, "partitions": partitions, "access": access, "path": self.folder, "maxKey": 480,
                      "maxValue": 64 << 20, **state},
        }  # fmt: skip
        self.worker = grape._Worker(self.app)
        self.runner = grape._Runner(self.app._callables(), welcome, self.app.log)
        self.runner.states.ask = self._answer

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for part in self.runner.states.parts.values():
            if isinstance(part.base, grape._Mapped) and part.base.environment is not None:
                part.base.environment.close()
        for writer in self.writers.values():
            writer.close()
        shutil.rmtree(self.folder)

    def _handle(self, event, ctx):
        return self.steps[int(event.value)](event, ctx)

    def _answer(self, bodies):
        self.asked += map(question, bodies)
        return [answer(body, self.contents, self.processed) for body in bodies]

    def path(self, partition=0):
        return os.path.join(self.folder, str(partition))

    def writer(self, partition=0, **arguments):
        """The node's side of a partition, once there is one."""
        if partition not in self.writers:
            self.writers[partition] = lmdb_writer.Writer(self.path(partition), **arguments)
        return self.writers[partition]

    def write(self, writes, partition=0, processed=None):
        """Has the node apply writes. `writes`: pairs of full key and entry or None."""
        writes = list(writes)
        for full, entry in writes:
            if entry is None:
                self.contents[partition].pop(full, None)
            else:
                self.contents[partition][full] = entry
        if processed is not None:
            self.processed[partition] = processed
        if self.access == "map":
            self.writer(partition).apply(writes, processed)

    def preset(self, entries, partition=0, store=""):
        """Entries of plain values, str to bytes."""
        self.write(
            [(lmdb_writer.full_key(store, key.encode()), lmdb_writer.entry(value)) for key, value in entries.items()],
            partition, max(self.processed[partition], 0),
        )  # fmt: skip

    def deliver(self, *steps, partition=0, first=None, wanted=False, attempt=1):
        """Runs the steps as one delivery and gives the RESULT, taken apart. Nothing is applied."""
        self.steps = list(steps)
        first = self.offsets[partition] if first is None else first
        reply = (bytes(16), 0, "_grape.replies.n1") if wanted else None
        events = [fake_node.event("do", str(number).encode(), reply=reply) for number in range(len(steps))]
        head = struct.pack(">iIqqI", partition, attempt, first, first + len(steps), 0)
        delivery = grape._Delivery(7, head + fake_node.encode_batch(events, first))
        result = fake_node.Result(b"".join(self.worker._drive(self.runner.run(delivery))))
        self.offsets[partition] = result.processed
        return result

    def run(self, *steps, **arguments):
        """The same; every step must succeed."""
        result = self.deliver(*steps, **arguments)
        if result.verdicts:
            raise AssertionError(result.verdicts)
        return result

    def apply(self, result, partition=0):
        """Has the node apply what a RESULT wrote."""
        self.write(writes(result, partition), partition, result.processed)


def writes(result, partition=0):
    """The records of the changelog in a RESULT, as pairs of full key and entry or None."""
    found = []
    for topic, number, record in result.records():
        if topic == TOPIC:
            if number != partition or record.headers or record.key is None:
                raise AssertionError(f"{record!r} in partition {number}")
            found.append((record.key, record.value))
    return found


def see(into, read):
    """A step that keeps what `read(ctx.state)` gives."""

    def step(event, ctx):
        into.append(read(ctx.state))

    return step


def both(test):
    """Runs a test with a base in memory maps, and with one that is asked."""

    def run(self):
        for access in ("map", "ask"):
            with self.subTest(access=access), Rig(access) as rig:
                test(self, rig)

    run.__name__ = test.__name__
    return run


def put(key, value=b"", **arguments):
    return lambda event, ctx: ctx.state.put(key, value, **arguments)


def fail(event, ctx):
    raise ValueError("as a handler does")


@contextlib.contextmanager
def quiet():
    """Hides the tracebacks of handlers that fail on purpose."""
    with contextlib.redirect_stderr(io.StringIO()) as report:
        yield report


def readers(rig, partition):
    """The transactions that hold a view of a partition, as LMDB's table of readers has them; "-": none at present."""
    lmdb = rig.writer(partition).lmdb
    lines = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
    def collect(line, _):
        lines.append(line.decode())
        return 0

    lmdb.mdb_reader_list(rig.writer(partition).env, collect, None)
    return [line.split()[2] for line in lines[1:]]
