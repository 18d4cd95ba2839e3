"""The examples do what their READMEs say."""

import json
import os
import subprocess
import sys
import unittest

from node import ROOT, EndToEnd, find_grape

EXAMPLES = ROOT / "Examples"


class Examples(EndToEnd):
    def test_signal_slot_answers_the_caller_of_the_first_slot_from_the_last(self):
        node = self.running_node()
        node.deploy(EXAMPLES / "signal-slot")
        reply = node.grape("exec", "signal-slot@start-event", "--data", "hello", "--block", "--timeout", "10s").text
        self.assertEqual(reply, "hello -> start-event -> event0 -> event1 -> event2 -> finish")
        with node.client() as client:
            ids = [
                client.send_exec("signal-slot@start-event", b"%d" % n, key=b"%d" % n, block=True, timeout_ms=20_000)
                for n in range(200)
            ]
            for number, id in enumerate(ids):
                self.assertTrue(client.answer(id).value.startswith(b"%d -> start-event" % number))
            client.exec("signal-slot@start-event", b"nobody waits")
        node.wait_idle()
        self.assertEqual(len(node.records("signal-slot.events", "finish")), 202)

    def test_the_flights_demo_ends_with_matching_totals(self):
        environment = {**os.environ, "GRAPE": os.fspath(find_grape())}
        done = subprocess.run(
            [EXAMPLES / "flights" / "demo.sh"], env=environment, cwd=self.folder, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=900,
        )
        text = done.stdout.decode()
        self.assertEqual(done.returncode, 0, text)
        self.assertIn("totals match: 27,004 flights (606 without arrival delay), 16 carriers", text)

    def test_unit_tests_of_the_python_examples_pass(self):
        sdk = ROOT / "Sources" / "CGrapeResources" / "sdk" / "python"
        for example in ("signal-slot", "flights/flights"):
            with self.subTest(example):
                done = subprocess.run(
                    [sys.executable, "-B", "-m", "unittest"], cwd=EXAMPLES / example, stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": os.fspath(sdk)}, timeout=60,
                )
                self.assertEqual(done.returncode, 0, done.stdout.decode())

    def test_other_data_gives_other_and_still_right_totals(self):
        node = self.running_node()
        node.grape("deploy", EXAMPLES / "flights" / "stats", timeout=900)
        node.deploy(EXAMPLES / "flights" / "flights")
        path = self.folder / "few.csv"
        path.write_text(
            "carrier,origin,dest,arr_delay\nUA,EWR,IAH,10\nUA,EWR,IAH,NA\nAA,JFK,LAX,-5\nAA,JFK,LAX,-4\nXX,LGA,ORD,NA\n"
        )
        broken = self.folder / "broken.csv"
        broken.write_text("carrier,origin,dest,arr_delay\nUA,EWR,IAH,soon\nUA,EWR,IAH,\n")
        for file in (path, broken):
            node.grape("ingest", "flights@raw", file, "--key-field", "carrier")
        node.wait_idle()
        totals = node.grape("exec", "stats@totals", "--block", "--timeout", "10s").text
        (self.folder / "totals.json").write_text(totals)
        subprocess.run(
            [sys.executable, EXAMPLES / "flights" / "check.py", path, "--totals", self.folder / "totals.json"], check=True,
            stdout=subprocess.DEVNULL,
        )
        self.assertEqual(len(node.records("flights.dead")), 2, "rows that make no sense are set aside")
        question = json.dumps({"by": "mean", "format": "json"})
        ranking = node.grape("exec", "stats@ranking", "--data", question, "--block", "--timeout", "10s").json
        self.assertEqual([place["group"] for place in ranking["places"]], ["AA", "UA"])
        node.grape("exec", "stats@ranking", "--data", '{"by": "luck"}', "--block", "--timeout", "10s", expect=10)


if __name__ == "__main__":
    unittest.main()
