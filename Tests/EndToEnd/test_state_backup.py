"""grape state backup, verify, restore: consistent while events are processed, complete or not there, checked."""

import collections
import json
import os
import random
import shutil
import subprocess
import unittest

from node import BAD_INPUT, CONFLICT, DAMAGED, NO_SUCH_APP, NOT_FOUND, OK, UNAVAILABLE, USAGE, EndToEnd, Node
from test_crash import Sender
from test_state_crash import COUNTER, SLOTS

PROFILE = {"retry": {"attempts": 20, "backoff": "10ms"}, "workers": {"min": 0, "max": 3}}
#: Each event of `in` is counted in its own partition, and, as an event of another key, in another.
TWICE = """
    @app.on("in", emits=["again"])
    def count(event, ctx):
        ctx.state.put(event.key, str(int(ctx.state.get(event.key, b"0")) + 1))
        ctx.emit("again", event.value, key=b"again-" + event.key)

    @app.on("again")
    def again(event, ctx):
        ctx.state.put(event.key, str(int(ctx.state.get(event.key, b"0")) + 1), tags=["again"], ttl=3600)
"""


class Backup(EndToEnd):
    def setUp(self):
        super().setUp()
        self.seed = int(os.environ.get("GRAPE_SEED", random.randrange(1 << 30)))
        self.random = random.Random(self.seed)
        self.node = self.running_node()
        self.target = self.folder / "backup"

    def deploy(self, node=None, name="counter", partitions=4, code=COUNTER):
        (node or self.node).deploy(self.python_app(name, code, SLOTS, profile=PROFILE, partitions=partitions))

    def send(self, count, app="counter", keys=50, node=None):
        with (node or self.node).client(timeout=60) as client:
            ids = [
                client.send_exec(f"{app}@in", b"%d" % number, key=b"k%d" % (number % keys)) for number in range(count)
            ]
            for id in ids:
                client.answer(id)
        (node or self.node).wait_idle()

    def other_node(self):
        folder = self.folder / "other"
        folder.mkdir()
        node = Node(folder)
        self.addCleanup(node.stop_for_good)
        return node.start()

    def state(self, node, app="counter"):
        return sorted(
            (entry.partition, entry.key, entry.value) for store in ("", "last") for entry in node.state(app, store=store)
        )

    def manifest(self, directory=None):
        return json.loads(((directory or self.target) / "manifest.json").read_text())

    def restored(self, directory=None):
        """The state of a backup, by a node of its own."""
        node = self.other_node()
        self.deploy(node)
        node.grape("app", "stop", "counter")
        node.grape("state", "restore", "counter", directory or self.target)
        return node

    def wait_for_progress(self, count):
        """Until so many more events were processed."""
        def processed():
            return sum(slot["processed"] for slot in self.node.app_stats("counter")["slots"])

        wanted = processed() + count
        self.eventually(lambda: processed() >= wanted, f"{wanted} events are processed", timeout=60)

    # Backups

    def test_a_backup_of_a_running_application_is_what_the_events_up_to_its_offsets_make(self):
        self.deploy()
        sender = Sender(self.node, app="counter", keys=40)
        sender.start()
        for number in range(3):
            self.wait_for_progress(500)
            self.node.grape("state", "backup", "counter", self.folder / f"backup-{number}")
        self.assertTrue(sender.finish())
        self.node.wait_idle()
        for number in range(3):
            target = self.folder / f"backup-{number}"
            self.assertIn("sound", self.node.grape("state", "verify", "--backup", target).text)
            node = Node(self.folder / f"other-{number}")
            node.folder.mkdir()
            self.addCleanup(node.stop_for_good)
            node.start()
            self.deploy(node)
            node.grape("app", "stop", "counter")
            node.grape("state", "restore", "counter", target)
            self.check_against_log(node, self.manifest(target))
            node.stop_for_good()

    def check_against_log(self, node, manifest):
        expected = []
        with self.node.client() as client:
            for file in manifest["files"]:
                counts, last = collections.Counter(), {}
                for record in client.read_all("counter.events", file["partition"]):
                    if record.offset < file["processed"] and record.header("g.e") == b"in":
                        counts[record.key] += 1
                        last[record.key] = record.value
                expected += [(file["partition"], key, b"%d" % count) for key, count in counts.items()]
                expected += [(file["partition"], key, value) for key, value in last.items()]
        self.assertEqual(self.state(node), sorted(expected), f"seed {self.seed}")
        self.assertGreater(len(expected), 0)

    def test_all_partitions_are_of_one_moment(self):
        folder = self.python_app("counter", TWICE.replace(', emits=["again"]', ""), {"in": ["again"], "again": []}, profile=PROFILE)
        self.node.deploy(folder)
        sender = Sender(self.node, app="counter", keys=10)
        sender.start()
        for number in range(4):
            self.wait_for_progress(300)
            self.node.grape("state", "backup", "counter", self.folder / f"backup-{number}")
        self.assertTrue(sender.finish())
        node = self.other_node()
        node.deploy(folder)
        node.grape("app", "stop", "counter")
        for number in range(4):
            node.grape("state", "restore", "counter", self.folder / f"backup-{number}")
            counts = {entry.key: int(entry.value) for entry in node.state("counter")}
            for key, count in counts.items():
                if key.startswith(b"again-"):
                    # What came of an event is never there without the event itself.
                    self.assertLessEqual(count, counts.get(key[len(b"again-"):], 0), f"{key}, seed {self.seed}")
            self.assertIn("sound", node.grape("state", "verify", "counter").text)

    def test_a_backup_says_what_is_in_it(self):
        self.deploy()
        self.send(100)
        answer = self.node.grape("state", "backup", "counter", self.target, "--json").json
        manifest = self.manifest()
        self.assertEqual((manifest["grapeStateBackup"], manifest["app"], manifest["partitions"]), (1, "counter", 4))
        self.assertEqual(answer["entries"], 100)
        self.assertEqual(sum(file["entries"] for file in manifest["files"]), 100)
        for file in manifest["files"]:
            self.assertEqual((self.target / file["file"]).stat().st_size, file["bytes"])
        self.assertEqual(sorted(path.name for path in self.target.iterdir()), sorted(["manifest.json"] + [f"{n}.mdb" for n in range(4)]))
        self.assertFalse(self.target.with_name("backup.partial").exists())

    def test_a_backup_of_a_stopped_application_and_of_one_without_state(self):
        self.deploy()
        self.node.grape("state", "backup", "counter", self.folder / "empty")
        self.assertEqual([file["file"] for file in self.manifest(self.folder / "empty")["files"]], [None] * 4)
        self.send(100)
        self.node.grape("app", "stop", "counter")
        self.node.grape("state", "backup", "counter", self.target)
        node = self.restored()
        self.assertEqual(self.state(node), self.state(self.node))
        text = node.grape("state", "restore", "counter", self.folder / "empty").text
        self.assertIn("0 written, 100 removed", text)
        self.assertEqual(self.state(node), [])

    def test_what_is_there_is_not_overwritten(self):
        self.deploy()
        self.target.mkdir()
        result = self.node.grape("state", "backup", "counter", self.target, expect=CONFLICT)
        self.assertIn("is there already", result.err.decode())
        self.assertEqual(list(self.target.iterdir()), [])
        self.node.grape("state", "backup", "nobody", self.folder / "x", expect=NO_SUCH_APP)
        self.node.grape("state", "backup", "counter", self.folder / "no" / "such" / "folder", expect=UNAVAILABLE)

    def test_a_backup_that_was_killed_leaves_nothing_that_looks_like_one(self):
        self.deploy()
        self.send(100)
        draft = self.folder / "backup.partial"
        draft.mkdir()
        (draft / "0.mdb").write_bytes(b"half")
        (draft / "manifest.json").write_bytes(b"{")
        self.node.grape("state", "verify", "--backup", self.target, expect=NOT_FOUND)
        self.node.grape("state", "backup", "counter", self.target)
        self.assertIn("sound", self.node.grape("state", "verify", "--backup", self.target).text)
        self.assertFalse(draft.exists())
        # Somebody else's files are left alone.
        draft = self.folder / "other.partial"
        draft.mkdir()
        (draft / "precious").write_bytes(b"!")
        self.node.grape("state", "backup", "counter", self.folder / "other", expect=UNAVAILABLE)
        self.assertEqual((draft / "precious").read_bytes(), b"!")

    @unittest.skipUnless(os.geteuid() == 0 and shutil.which("mount"), "a small file system takes root")
    def test_a_full_disk_leaves_nothing(self):
        small = self.folder / "small"
        small.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", small], capture_output=True)
        if mounted.returncode != 0:
            self.skipTest("a small file system cannot be mounted here")
        self.addCleanup(subprocess.run, ["umount", small], check=True)
        self.deploy()
        with self.node.client(timeout=60) as client:
            for number in range(8):
                client.answer(client.send_exec("counter@in", bytes(100_000), key=b"k%d" % number))
        self.node.wait_idle()
        self.node.grape("state", "backup", "counter", small / "backup", expect=UNAVAILABLE)
        self.assertEqual(list(small.iterdir()), [])

    # Verification

    def test_verification_finds_a_flipped_byte_in_a_store(self):
        self.deploy()
        self.send(400, keys=300)
        self.assertEqual(self.node.grape("state", "verify", "counter", "--json").json["sound"], True)
        file = self.random.choice(sorted(self.node.data.glob("state/counter/*/data.mdb")))
        content = file.read_bytes()
        # A value of store `last`, on a page that is in use or not any more: all of its places.
        place = content.index(b"\x04lastk")
        with open(file, "r+b") as opened:
            while place >= 0:
                opened.seek(place + 5)
                opened.write(bytes([content[place + 5] ^ 0x11]))
                place = content.find(b"\x04lastk", place + 1)
        result = self.node.grape("state", "verify", "counter", "--json", expect=DAMAGED).json
        self.assertEqual(result["sound"], False, f"seed {self.seed}")
        self.assertEqual({problem["partition"] for problem in result["problems"]}, {int(file.parent.name)})
        self.assertIn("problems", self.node.grape("state", "verify", "counter", expect=DAMAGED).text)

    def test_verification_of_a_damaged_file_never_ends_the_node(self):
        self.deploy()
        self.send(400, keys=300)
        files = sorted(self.node.data.glob("state/counter/*/data.mdb"))
        self.node.grape("app", "stop", "counter")
        for _ in range(6):
            file = self.random.choice(files)
            with open(file, "r+b") as opened:
                # The two first pages say where all begins; LMDB itself reads them at any time.
                opened.seek(self.random.randrange(8192, file.stat().st_size))
                opened.write(self.random.randbytes(self.random.randint(1, 300)))
            result = self.node.grape("state", "verify", "counter", "--json", expect=None)
            self.assertIn(result.code, (OK, DAMAGED), f"{result} seed {self.seed}")
        self.assertIsNone(self.node.process.poll())
        self.assertEqual(list((self.node.data / "scratch").iterdir()), [])

    def test_verification_while_events_are_processed_and_what_a_killed_one_left(self):
        self.deploy()
        sender = Sender(self.node, app="counter", keys=40)
        sender.start()
        for _ in range(4):
            self.wait_for_progress(300)
            self.assertIn("sound", self.node.grape("state", "verify", "counter").text)
        self.assertTrue(sender.finish())
        self.node.kill()
        (self.node.data / "scratch" / "verify-0.mdb").write_bytes(b"left")
        self.node.start()
        self.assertEqual(list((self.node.data / "scratch").iterdir()), [])
        # On Kafka partitions come a moment after the start.
        self.eventually(lambda: self.node.app_stats("counter")["partitions"], "the application has its partitions")
        self.assertIn("sound", self.node.grape("state", "verify", "counter").text)

    def test_verification_of_a_backup_finds_any_change(self):
        self.deploy()
        self.send(200, keys=150)
        self.node.grape("state", "backup", "counter", self.target)
        self.node.terminate()
        # No node is needed.
        self.assertTrue(self.node.grape("state", "verify", "--backup", self.target, "--json").json["sound"])
        file = self.target / "2.mdb"
        content = file.read_bytes()
        for _ in range(10):
            place = self.random.randrange(len(content))
            file.write_bytes(content[:place] + bytes([content[place] ^ 1 << self.random.randrange(8)]) + content[place + 1 :])
            result = self.node.grape("state", "verify", "--backup", self.target, "--json", expect=DAMAGED).json
            self.assertEqual({problem["partition"] for problem in result["problems"]}, {2}, f"seed {self.seed}")
        file.write_bytes(content[: self.random.randrange(len(content))])
        self.node.grape("state", "verify", "--backup", self.target, expect=DAMAGED)
        file.unlink()
        self.node.grape("state", "verify", "--backup", self.target, expect=DAMAGED)
        shutil.copy(self.target / "1.mdb", file)
        self.node.grape("state", "verify", "--backup", self.target, expect=DAMAGED)
        file.write_bytes(content)
        self.node.grape("state", "verify", "--backup", self.target)
        (self.target / "manifest.json").write_text("{}")
        self.node.grape("state", "verify", "--backup", self.target, expect=BAD_INPUT)
        self.node.grape("state", "verify", expect=USAGE)
        self.node.grape("state", "verify", "counter", "--backup", self.target, expect=USAGE)

    # Restoring

    def test_restore_brings_the_state_back_and_writes_only_what_differs(self):
        self.deploy()
        self.send(300, keys=100)
        before = self.state(self.node)
        self.node.grape("state", "backup", "counter", self.target)
        self.send(40, keys=20)
        for number in range(5):
            self.node.grape("state", "put", "counter", f"new-{number}", "x", "--ttl", "1h", "--tag", "t")
            self.node.grape("state", "remove", "counter", f"k{50 + number}")
        result = self.node.grape("state", "restore", "counter", self.target, expect=CONFLICT)
        self.assertIn("grape app stop counter", result.err.decode())
        self.node.grape("app", "stop", "counter")
        answer = self.node.grape("state", "restore", "counter", self.target, "--json").json
        # Twenty counts and twenty last values are others, five entries are new, five are missing.
        self.assertEqual((answer["written"], answer["removed"]), (45, 5))
        self.assertEqual(self.state(self.node), before)
        again = self.node.grape("state", "restore", "counter", self.target, "--json").json
        self.assertEqual((again["written"], again["removed"]), (0, 0))
        self.assertIn("sound", self.node.grape("state", "verify", "counter").text)
        # The log is the truth: what was restored is there again after the maps are lost.
        self.node.terminate()
        shutil.rmtree(self.node.data / "state")
        self.node.start()
        self.assertEqual(self.state(self.node), before)
        self.node.grape("app", "start", "counter")
        self.node.grape("exec", "counter@in", "--key", "k1", "--data", "1")
        self.node.wait_idle()
        self.assertEqual(self.node.grape("state", "get", "counter", "k1").out, b"4")

    def test_restore_into_a_new_data_directory_goes_on_from_there(self):
        self.deploy()
        self.send(300, keys=100)
        self.node.grape("state", "put", "counter", "tagged", "x", "--ttl", "1h", "--tag", "t")
        self.node.grape("state", "backup", "counter", self.target)
        node = self.restored()
        self.assertEqual(self.state(node), self.state(self.node))
        [tagged] = node.state("counter", tags=["t"])
        [original] = self.node.state("counter", tags=["t"])
        self.assertEqual((tagged.key, tagged.expires_ms), (b"tagged", original.expires_ms))
        self.assertIn("sound", node.grape("state", "verify", "counter").text)
        node.grape("app", "start", "counter")
        self.send(100, keys=100, node=node)
        self.assertEqual(node.grape("state", "get", "counter", "k7").out, b"4")

    def test_a_restore_that_was_killed_is_completed_by_running_it_again(self):
        self.deploy()
        with self.node.client(timeout=60) as client:
            for number in range(60):
                client.answer(client.send_exec("counter@in", bytes(500_000), key=b"k%d" % number))
        self.node.wait_idle()
        self.node.grape("state", "backup", "counter", self.target)
        node = self.other_node()
        self.deploy(node)
        node.grape("app", "stop", "counter")
        restoring = node.start_grape("state", "restore", "counter", self.target, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.eventually(lambda: sum(node.ends("counter.state")) > 4, "it has begun to write")
        node.kill()
        self.assertNotEqual(restoring.wait(30), OK)
        node.start()
        self.assertEqual(node.app_stats("counter")["state"], "stopped")
        node.grape("state", "restore", "counter", self.target)
        self.assertEqual(self.state(node), self.state(self.node))
        self.assertIn("sound", node.grape("state", "verify", "counter").text)

    def test_a_backup_that_does_not_fit_is_refused(self):
        self.deploy()
        self.send(50)
        self.node.grape("state", "backup", "counter", self.target)
        self.deploy(name="wider", partitions=8)
        self.deploy(name="other")
        for name in ("wider", "other"):
            self.node.grape("app", "stop", name)
        result = self.node.grape("state", "restore", "other", self.target, expect=CONFLICT)
        self.assertIn("backup of counter, not of other", result.err.decode())
        result = self.node.grape("state", "restore", "wider", self.target, "--force", expect=CONFLICT)
        self.assertIn("4 partitions", result.err.decode())
        self.node.grape("state", "restore", "other", self.target, "--force")
        self.assertEqual(self.state(self.node, "other"), self.state(self.node))
        self.node.grape("state", "restore", "other", self.folder / "nothing", expect=NOT_FOUND)
        with open(self.target / "0.mdb", "r+b") as file:
            file.seek(9000)
            file.write(b"damage")
        result = self.node.grape("state", "restore", "other", self.target, "--force", expect=BAD_INPUT)
        self.assertIn("nothing was changed", result.err.decode())


if __name__ == "__main__":
    unittest.main()
