"""Checkpoints of state, and readers that hold an old view while it grows."""

import os
import random
import unittest

from node import EndToEnd
from wire import partition_of

KEEP = """
    import time

    @app.on("keep")
    def keep(event, ctx):
        ctx.state.put(event.key, event.value)

    @app.on("look")
    def look(event, ctx):
        # The first looks at the other partition, and the view is the whole delivery's.
        ctx.state.partition(int(event.text)).get("k")
        time.sleep(3)
"""
MEGABYTE = 1 << 20


class Checkpoints(EndToEnd):
    def setUp(self):
        super().setUp()
        self.seed = int(os.environ.get("GRAPE_SEED", random.randrange(1 << 30)))
        self.random = random.Random(self.seed)
        self.node = self.running_node()

    def deploy(self, partitions=2, **profile):
        self.node.deploy(self.python_app("keeper", KEEP, ["keep", "look"], partitions=partitions, profile=profile))

    def keep(self, numbers, key="k", size=MEGABYTE // 2):
        with self.node.client(timeout=60) as client:
            for number in numbers:
                client.answer(client.send_exec("keeper@keep", self.random.randbytes(size), key=b"%s%d" % (key.encode(), number)))
        self.node.wait_idle()

    def lose_power(self):
        """What a loss of power leaves, as far as the node can tell: maps that were open in another boot."""
        self.node.kill()
        for owner in self.node.data.glob("state/keeper/*/owner"):
            lines = owner.read_text().splitlines()
            owner.write_text(f"{lines[0]}\nanother boot\n{lines[2]}\n")
        self.node.start()
        # On Kafka partitions come a moment after the start.
        self.eventually(lambda: self.node.app_stats("keeper")["partitions"], "the application has its partitions")

    def test_after_a_loss_of_power_state_is_made_of_its_checkpoint(self):
        self.deploy(partitions=1)
        self.keep(range(140))
        checkpoint = self.node.data / "state/keeper/0.checkpoint"
        self.eventually(checkpoint.exists, "a checkpoint is made")
        self.keep(range(135, 145))
        expected = {entry.key: entry.value for entry in self.node.state("keeper")}
        self.assertEqual(len(expected), 145)
        for text in ("state is made of its checkpoint", "the checkpoint cannot be used"):
            self.lose_power()
            logs = self.node.grape("app", "logs", "keeper").text
            self.assertIn("machine went down", logs)
            if text == "the checkpoint cannot be used":
                self.assertIn("a checkpoint cannot be used", logs)
            else:
                self.assertIn(text, logs)
            self.assertEqual({entry.key: entry.value for entry in self.node.state("keeper")}, expected, f"seed {self.seed}")
            self.assertIn("sound", self.node.grape("state", "verify", "keeper").text)
            with open(checkpoint, "r+b") as file:
                for _ in range(100):
                    file.seek(self.random.randrange(8192, checkpoint.stat().st_size))
                    file.write(b"damage")

    def test_a_worker_that_holds_an_old_view_while_the_file_grows_is_ended(self):
        self.deploy(workers={"min": 2, "max": 2}, **{"request-timeout": "30s"})
        looker = next(n for n in range(100) if partition_of(b"l%d" % n, 2) == 0)
        writers = [n for n in range(200) if partition_of(b"w%d" % n, 2) == 1][:4]
        self.keep(writers, key="w", size=100)
        with self.node.client(timeout=60) as client:
            for _ in range(16):
                client.answer(client.send_exec("keeper@look", b"1", key=b"l%d" % looker))
            file = self.node.data / "state/keeper/1/data.mdb"

            def logs():
                return self.node.grape("app", "logs", "keeper", "--lines", "1000").text

            def wrote_and_ended():
                for number in writers:
                    client.answer(client.send_exec("keeper@keep", self.random.randbytes(MEGABYTE), key=b"w%d" % number))
                return "it looked at the state of partition 1 as it was" in logs()

            self.eventually(wrote_and_ended, "the worker is ended", timeout=50)
            size = file.stat().st_size
            for _ in range(10):
                for number in writers:
                    client.answer(client.send_exec("keeper@keep", self.random.randbytes(MEGABYTE), key=b"w%d" % number))
            self.eventually(lambda: self.node.app_stats("keeper")["partitions"][1]["lag"] == 0, "all of it is processed")
            self.assertLess(file.stat().st_size, size + 20 * MEGABYTE)


if __name__ == "__main__":
    unittest.main()
