"""The application of test_history.py: its handlers do what an event's value tells them. Deployed as app.py.

A value is `{"id": …, "do": [step, …]}`; `history_programs.py` says what steps there are. Each run marks its event in the
state when it begins and when it ends, and emits to `trace` what it saw, all as part of its result.
"""

import asyncio
import json
import os
import signal
import sys

if os.environ.get("HISTORY_SDK"):
    sys.path.insert(0, os.environ["HISTORY_SDK"])
if os.environ.get("HISTORY_ACCESS") == "ask":
    sys.modules["ctypes"] = None  # state is asked of the node then, not mapped

from grape import Application, Reject, Retry

app = Application()


def pack(value):
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def text(value):
    return None if value is None else value.decode()


def killed_before(ctx, id):
    """How often this event has killed its worker, this time included: memory does not outlive that, a file does."""
    path = os.path.join(os.environ["HISTORY_KILLS"], f"{ctx.app} {id}")
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(file, b"x")
    return os.fstat(file).st_size


def perform(event, ctx):
    """Runs a program, and yields before each step."""
    program = json.loads(event.value)
    me = program["id"]
    key = text(event.key) or "-"
    saw = []
    answer = None
    children = 0
    ctx.state.append(f"~begun:{key}", me + ";")
    ctx.state.put("~count", str(int(ctx.state.get("~count", b"0")) + 1))
    for what, *rest in program["do"]:
        yield
        if what == "emit":
            name, to, detached, headers, steps = rest
            children += 1
            value = pack({"id": f"{me}.{ctx.app[0]}{children}", "do": steps})
            ctx.emit(name, value, key=to, headers=headers, detached=detached)
        elif what == "bounce":
            ctx.emit(rest[0], pack({"id": me + "'", "do": [["bounce", rest[1], rest[0]]]}), key=event.key)
        elif what == "reply":
            saw.append(ctx.reply(rest[0], final=rest[1]))
        elif what == "return":
            answer = rest[0]
        elif what == "fail":
            if event.wanted or rest[0] is None or event.attempt <= rest[0]:
                raise RuntimeError("as it was told")
        elif what == "retry":
            if event.wanted or rest[0] is None or event.attempt <= rest[0]:
                raise Retry(0.001, "not now")
        elif what == "reject":
            raise Reject(rest[0], "not this one")
        elif what == "kill":
            if rest[0] is None or killed_before(ctx, me) <= rest[0]:
                os.kill(os.getpid(), signal.SIGKILL)
        elif what == "peek":
            saw.append(["peek", rest[0], int(ctx.state.partition(rest[0]).get("~count", b"0"))])
        else:
            saw.append(use_state(ctx.store(rest[0]), what, *rest[1:]))
    ctx.state.append(f"~log:{key}", me + ";")
    ctx.emit(
        "trace", pack({"id": f"{ctx.app}/{me}", "at": [event.partition, event.offset], "saw": saw}), key=event.key,
        detached=True,
    )
    return answer


def use_state(store, what, *rest):
    """One step on one store; gives what it saw."""
    if what == "get":
        return text(store.get(rest[0]))
    if what == "put":
        key, value, ttl, tags = rest
        return store.put(key, value, ttl=ttl, tags=tags)
    if what == "add":
        total = int(store.get(rest[0], b"0")) + rest[1]
        store.put(rest[0], str(total))
        return total
    if what == "append":
        return store.append(rest[0], rest[1])
    if what == "remove":
        return store.remove(rest[0])
    if what == "cas":
        key, expected, new = rest
        return store.cas(key, store.get(key) if expected == "=" else expected, new)
    if what == "scan":
        prefix, reverse, limit = rest
        return [[text(key), text(value)] for key, value in store.scan(prefix, reverse=reverse, limit=limit)]
    if what == "sum":
        total = sum(int(value) for _, value in store.scan(rest[0]))
        store.put("total", str(total))
        return total
    if what == "clear":
        keys = list(store.keys(rest[0]))
        store.remove_many(keys)
        return [text(key) for key in keys]
    if what == "find":
        return [text(key) for key, _ in store.find(rest[0])]
    if what == "about":
        return [rest[0] in store, store.size(rest[0]), list(store.tags(rest[0])), store.expires(rest[0]) is not None]
    if what == "blob":
        store.put(rest[0], rest[1] * rest[2])
        return None
    raise ValueError(f"no such step: {what}")


def run(event, ctx):
    steps = perform(event, ctx)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


async def run_slowly(event, ctx):
    """Events of other partitions get their turn between the steps."""
    steps = perform(event, ctx)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
        await asyncio.sleep(0)


def seen(event, ctx):
    """Of the application `witness`."""
    ctx.state.append(f"seen:{text(event.key) or '-'}", json.loads(event.value)["id"] + ";")
    ctx.state.put("count", str(int(ctx.state.get("count", b"0")) + 1))


app.on("run", "more")(run_slowly if os.environ.get("HISTORY_ASYNC") else run)
app.on("seen")(seen)

if __name__ == "__main__":
    app.run()
