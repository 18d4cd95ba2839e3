"""One round of test_history.py: applications on a node, clients, and what happens to all of them meanwhile."""

import dataclasses
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import time

from history_clients import Auditor, Caller, Progress, Sender
from history_model import Entry, Observed, names_of, read_entry
from history_programs import APPS, BRIEF, SLOTS, WITNESS, Programs, Setting
from node import HERE, ON_KAFKA, EndToEnd

ALL = (*APPS, WITNESS)


class Round:
    """One history on a node of its own."""

    def __init__(self, test: EndToEnd, seed: int, changes: dict) -> None:
        self.test = test
        self.chance = random.Random(seed)
        self.setting = dataclasses.replace(Setting.draw(seed, self.chance), **changes)
        self.node = test.make_node()
        self.folder = test.folder
        (self.folder / "kills").mkdir()
        self.progress = Progress(Programs(self.setting, random.Random(f"{seed} programs")))
        self.worker_kills = dict(self.setting.worker_kills)
        self.versions = {app: 0 for app in ALL}
        self.faults: list[str] = []
        self.began = time.monotonic()

    # The applications

    def package(self, app: str) -> pathlib.Path:
        """A new version each time."""
        self.versions[app] += 1
        where = self.folder / app
        where.mkdir(exist_ok=True)
        setting = self.setting
        others = [other for other in APPS if other != app]
        emits = [f"{app}@{slot}" for slot in SLOTS] + ["fan", "trace"]
        optional = [f"{other}@{slot}" for other in others for slot in SLOTS]
        environment = {"HISTORY_KILLS": os.fspath(self.folder / "kills")}
        if setting.asynchronous[app]:
            environment["HISTORY_ASYNC"] = "1"
        if setting.asking[app]:
            environment["HISTORY_ACCESS"] = "ask"
        if "GRAPE_HISTORY_SDK" in os.environ:
            environment["HISTORY_SDK"] = os.environ["GRAPE_HISTORY_SDK"]
        manifest = {
            "grape": 1, "name": app, "runtime": "python", "entry": "app.py", "partitions": setting.partitions[app],
            "config": {"version": self.versions[app]},
            "slots": {"seen": {}} if app == WITNESS else {
                slot: {"emits": emits, "optional": optional} for slot in SLOTS
            },
            "signals": {} if app == WITNESS else {
                "fan": {
                    "slots": [target for target in ("left@run", "right@more") if target.startswith(app)],
                    "optional": [target for target in ("left@run", "right@more") if not target.startswith(app)],
                },
                "trace": [f"{WITNESS}@seen"],
            },
            "profile": {
                "workers": {"min": 1, "max": 2}, "grow-threshold": 5, "environment": environment,
                "retry": {"attempts": setting.attempts, "backoff": "1ms", "max-backoff": "5ms"},
                "durability": setting.durability[app],
                # Only what the round does itself may end a worker, however busy the machine is.
                "startup-timeout": "60s", "request-timeout": "60s", "heartbeat": "20s", "termination-timeout": "30s",
            },
        }
        (where / "grape.yaml").write_text(json.dumps(manifest))
        shutil.copy(HERE / "history_handlers.py", where / "app.py")
        return where

    # What happens to them

    def note(self, what: str) -> None:
        self.faults.append(f"{time.monotonic() - self.began:.2f} s, {self.progress.settled} settled: {what}")

    def workers(self, app: str) -> list[int]:
        found = []
        for pid in self.node.worker_pids():
            try:
                environment = pathlib.Path("/proc", str(pid), "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"GRAPE_APP={app}".encode() in environment:
                found.append(pid)
        return found

    def kill_worker(self) -> None:
        app = self.chance.choice(ALL)
        workers = self.workers(app)
        if workers and self.worker_kills[app]:
            self.worker_kills[app] -= 1
            pid = self.chance.choice(workers)
            self.note(f"kill -9 of worker {pid} of {app}")
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def kill_workers(self) -> None:
        for _ in range(self.chance.randint(1, 4)):
            self.kill_worker()

    def kill_node(self) -> None:
        self.note("kill -9 of the node")
        self.node.kill()
        self.meanwhile()
        self.start()

    def kill_both(self) -> None:
        self.kill_workers()
        self.kill_node()

    def stop_node(self) -> None:
        self.note("the node is stopped")
        code = self.node.terminate(timeout=40)
        if code != 0:
            raise AssertionError(f"the node stopped with exit code {code}")
        self.meanwhile()
        self.start()

    def start(self) -> None:
        self.node.start()
        self.note("the node is up")
        self.progress.node_is_up()

    def meanwhile(self) -> None:
        """The node is down: something may become of its state's files."""
        state = self.node.data / "state"
        older = self.folder / "older"
        pick = self.chance.random()
        if pick < 0.2:
            folders = sorted(state.glob("*/*"))
            if folders:
                folder = self.chance.choice(folders)
                self.note(f"state of {folder.relative_to(state)} is deleted")
                shutil.rmtree(folder)
        elif pick < 0.3:
            self.note("all state is deleted")
            shutil.rmtree(state, ignore_errors=True)
        elif pick < 0.4 and older.exists():
            self.note("older files of state are put back")
            shutil.rmtree(state, ignore_errors=True)
            shutil.copytree(older, state)
        elif pick < 0.6 and state.exists():
            shutil.rmtree(older, ignore_errors=True)
            shutil.copytree(state, older)

    def deploy(self) -> None:
        app = self.chance.choice(ALL)
        self.note(f"another version of {app}")
        self.node.deploy(self.package(app))

    def deploy_and_kill(self) -> None:
        """The node dies while it deploys, or shortly after."""
        app = self.chance.choice(ALL)
        self.note(f"another version of {app}, and kill -9")
        settled = self.progress.settled
        deploying = self.node.start_grape(
            "deploy", self.package(app), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.wait_until(settled + self.chance.randint(0, 20))
        self.kill_node()
        deploying.wait(60)

    def restart_app(self) -> None:
        app = self.chance.choice(ALL)
        self.note(f"{app} is restarted")
        self.node.grape("app", "restart", app)

    def pause_app(self) -> None:
        """Events wait meanwhile; there may be none for the others to do."""
        app = self.chance.choice(ALL)
        self.note(f"{app} is stopped")
        self.node.grape("app", "stop", app)
        fault = self.chance.choice((None, self.kill_node, self.stop_node, self.kill_workers))
        if fault:
            fault()
        self.note(f"{app} is started")
        self.node.grape("app", "start", app)

    FAULTS = (
        (kill_worker, 4), (kill_workers, 4), (kill_node, 5), (kill_both, 4), (stop_node, 2), (deploy, 2), (deploy_and_kill, 1),
        (restart_app, 1), (pause_app, 1),
    )

    def wait_for_progress(self) -> None:
        """Until the clients, or the applications, have come a random step further."""
        self.progress.release()
        if self.chance.random() < 0.6:
            # The callers' part of the portion takes longest.
            step = self.progress.quota // self.progress.portions
            return self.wait_until(self.progress.settled + self.chance.randint(0, step))
        wanted = self.processed() + self.chance.choice((1, 10, 50, 100, 200))
        self.test.eventually(lambda: self.processed(idle=wanted) >= wanted, f"{wanted} events are processed", timeout=90)

    def processed(self, idle: int = 0) -> int:
        """How many events are dealt with; `idle` if there are no others."""
        with self.node.client() as client:
            apps = client.request("stats")["apps"]
        if all(app["idle"] for app in apps) and self.progress.settled >= self.released():
            return idle
        return sum(partition["committed"] for app in apps for partition in app["partitions"])

    def wait_until(self, settled: int) -> None:
        """As many of the clients' events are settled."""
        self.progress.wait_for(
            lambda: self.progress.settled >= min(settled, self.released()), f"{settled} events are settled"
        )

    def released(self) -> int:
        return self.progress.quota * self.progress.released // self.progress.portions

    # The round

    def play(self) -> Observed:
        began = int(time.time() * 1000)
        # Small segments, so that there are many.
        self.options = ("--segment-size", "1048576") if self.chance.random() < 0.3 else ()
        self.node.start()
        for app in (WITNESS, *APPS):
            self.node.deploy(self.package(app))
        part = self.setting.programs // 3
        clients = [
            kind(self.node, self.progress, f"{self.setting.seed} {number}", part)
            for number, kind in enumerate((Sender, Sender, Caller))
        ]
        auditor = Auditor(self.node, self.progress)
        for thread in (*clients, auditor):
            thread.start()
        try:
            for _ in range(self.setting.faults):
                self.wait_for_progress()
                [fault] = self.chance.choices([fault for fault, _ in self.FAULTS], [weight for _, weight in self.FAULTS])
                fault(self)
            self.progress.release()
            for client in clients:
                self.progress.wait_for(client.is_done, "all clients are done")
                client.join(60)
            if self.progress.failure:
                raise AssertionError("a client failed") from self.progress.failure
            self.node.wait_idle("120s")
        finally:
            auditor.enough.set()
            auditor.join(30)
        if auditor.wrong:
            raise AssertionError("\n".join(auditor.wrong[:5]))
        observed = self.observe(began)
        return observed

    def rebuilt(self) -> dict:
        """State once more, after the log was found sound and all files of state were made anew from it."""
        self.node.terminate(timeout=40)
        if not ON_KAFKA:
            self.node.grape("log", "verify", "--data", self.node.data)
        shutil.rmtree(self.node.data / "state", ignore_errors=True)
        self.node.start()
        self.node.wait_idle("120s")
        return self.read_state()

    def observe(self, began: int) -> Observed:
        records = {}
        replies = []
        with self.node.client(timeout=60) as client:
            for found in client.request("log.topics")["topics"]:
                app, _, kind = found["name"].rpartition(".")
                if app in ALL and kind in ("events", "dead", "writes", "state"):
                    for partition in found["partitions"]:
                        number = partition["partition"]
                        records[found["name"], number] = client.read_all(found["name"], number)
                elif found["name"].startswith("_grape.replies.") or app in ALL and kind == "requests":
                    # Markers of requests with an idempotency key have no status.
                    written = client.read_all(found["name"], 0)
                    replies += [record for record in written if record.header("g.s") is not None]
            offsets = {app["name"]: app["partitions"] for app in client.request("stats")["apps"]}
        self.test.eventually(
            lambda: not any(self.node.state(app, store=BRIEF) for app in APPS), "what was to expire is gone"
        )
        state = self.read_state()
        changelog = {}
        for app in ALL:
            for number in range(self.setting.partitions[app]):
                entries: dict = {}
                for record in records.pop((f"{app}.state", number)):
                    if record.value is None:
                        entries.pop(names_of(record.key), None)
                    else:
                        entries[names_of(record.key)] = read_entry(record.value)
                changelog[app, number] = {name: entry for name, entry in entries.items() if name[0] != BRIEF}
        return Observed(
            self.setting, self.progress.sent, records, state, changelog, offsets, replies, began, int(time.time() * 1000),
            gaps=ON_KAFKA,
        )

    def read_state(self) -> dict:
        found: dict = {(app, number): {} for app in ALL for number in range(self.setting.partitions[app])}
        with self.node.client(timeout=60) as client:
            for app in ALL:
                following: dict = {}
                while True:
                    answer, blob = client.request_with_blob(
                        "state.read", app=app, allStores=True, consistency="linearizable", **following
                    )
                    at = 0
                    for entry in answer["entries"]:
                        value = blob[at : at + entry["size"]]
                        at += entry["size"]
                        name = (entry.get("store", ""), bytes.fromhex(entry["keyHex"]).decode())
                        found[app, entry["partition"]][name] = Entry(value, entry.get("expiresMs"), entry.get("tags", []))
                    if answer["next"] is None:
                        break
                    following = {"next": answer["next"]}
        return found
