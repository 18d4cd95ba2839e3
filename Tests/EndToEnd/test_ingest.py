"""Files and streams become events, and topics become text again."""

import contextlib
import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
import unittest

import wire
from node import BAD_INPUT, CONFLICT, NO_INPUT, NO_SUCH_APP, NO_SUCH_SLOT, ROOT, USAGE, EndToEnd

SINK = '@app.on("row")\ndef row(event, context):\n    pass\n\n@app.on("other")\ndef other(event, context):\n    pass\n'


class Ingest(EndToEnd):
    def setUp(self):
        super().setUp()
        self.node = self.running_node()
        self.node.deploy(self.python_app("sink", SINK, ["row", "other"]))

    def write(self, name, content):
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def values(self, event="row"):
        return [record.value for record in self.node.records("sink.events", event)]

    def test_every_line_is_an_event(self):
        path = self.write("lines.txt", "one\ntwo\n\nthree, and \"four\"\r\nlast without end")
        self.node.grape("ingest", "sink@row", path)
        self.assertEqual(
            sorted(self.values()), sorted([b"one", b"two", b"three, and \"four\"", b"last without end"])
        )

    def test_lines_come_from_a_pipe_too(self):
        self.node.grape("ingest", "sink@row", "-", input="a\nb\nc\n")
        self.assertEqual(sorted(self.values()), [b"a", b"b", b"c"])

    def test_csv_rows_are_json_objects_of_strings(self):
        rows = [
            {"carrier": "UA", "text": "plain", "n": "1"},
            {"carrier": "AA", "text": 'with "quotes", commas', "n": ""},
            {"carrier": "UA", "text": "two\nlines", "n": "01"},
            {"carrier": "B6", "text": "grüße 🍇", "n": "NA"},
        ]
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, ["carrier", "text", "n"])
        writer.writeheader()
        writer.writerows(rows)
        self.node.grape("ingest", "sink@row", self.write("rows.csv", out.getvalue()), "--key-field", "carrier")
        records = self.node.records("sink.events", "row")
        order = lambda row: json.dumps(row, sort_keys=True)
        self.assertEqual(sorted((json.loads(record.value) for record in records), key=order), sorted(rows, key=order))
        for record in records:
            self.assertEqual(record.key.decode(), json.loads(record.value)["carrier"])
        by_key = [json.loads(record.value)["n"] for record in records if record.key == b"UA"]
        self.assertEqual(by_key, ["1", "01"], "rows of a key keep their order")

    def test_ndjson_values_stay_as_they_are_and_fields_give_key_and_event(self):
        lines = ['{"id": 7, "kind": "row",  "x": [1, 2]}', '{"id":"seven","kind":"other"}']
        path = self.write("events.ndjson", "\n".join(lines) + "\n")
        self.node.grape("ingest", "sink@row", path, "--key-field", "id", "--event-field", "kind")
        [row] = self.node.records("sink.events", "row")
        [other] = self.node.records("sink.events", "other")
        self.assertEqual((row.value.decode(), row.key), (lines[0], b"7"))
        self.assertEqual((other.value.decode(), other.key), (lines[1], b"seven"))

    def test_broken_input_is_named_by_line_and_what_came_before_is_kept(self):
        for name, content, line in (
            ("broken.ndjson", '{"a": 1}\n{"a": 2}\n{"a": \n', "3"),
            ("ragged.csv", "a,b\n1,2\n3\n", "3"),
            ("open.csv", 'a,b\n1,"2\n', "2"),
        ):
            with self.subTest(name):
                result = self.node.grape("ingest", "sink@row", self.write(name, content), expect=BAD_INPUT)
                message = result.err.decode()
                self.assertIn(name, message)
                self.assertIn(line, message)
        self.assertIn(b'{"a": 1}', self.values())

    def test_a_key_field_that_is_missing_is_an_error(self):
        path = self.write("rows.csv", "a,b\n1,2\n")
        result = self.node.grape("ingest", "sink@row", path, "--key-field", "carrier", expect=None)
        self.assertIn(result.code, (BAD_INPUT, USAGE))
        self.assertIn("carrier", result.err.decode())

    def test_what_does_not_exist_is_refused_before_anything_is_sent(self):
        path = self.write("lines.txt", "one\n")
        self.node.grape("ingest", "sink@row", self.folder / "nowhere.csv", expect=NO_INPUT)
        self.node.grape("ingest", "nobody@row", path, expect=NO_SUCH_APP)
        self.node.grape("ingest", "sink@nothing", path, expect=NO_SUCH_SLOT)
        self.assertEqual(self.values(), [])

    def test_an_empty_file_is_no_error(self):
        for name in ("empty.txt", "empty.csv", "empty.ndjson"):
            with self.subTest(name):
                self.node.grape("ingest", "sink@row", self.write(name, ""))
        self.assertEqual(self.values(), [])

    def test_large_lines_pass_and_too_large_ones_are_named(self):
        self.node.grape("ingest", "sink@row", self.write("large.txt", b"x" * (4 << 20) + b"\nsmall\n"))
        self.assertEqual(sorted(map(len, self.values())), [5, 4 << 20])
        result = self.node.grape("ingest", "sink@row", self.write("huge.txt", b"x" * (9 << 20) + b"\n"), expect=None)
        self.assertNotEqual(result.code, 0)
        self.assertIn("1", result.err.decode())

    def test_the_result_as_json_counts_events(self):
        result = self.node.grape("ingest", "sink@row", self.write("lines.txt", "a\nb\nc\n"), "--json").json
        self.assertEqual(result["events"], 3)

    def test_events_are_packed_as_the_command_says(self):
        path = self.write("lines.txt", "".join(f"{number}: the same words again and again\n" for number in range(5000)))
        sizes = {}
        for codec in ("none", "zstd", "zstd:1", "zstd:19", "zstd:-7"):
            result = self.node.grape("ingest", "sink@row", path, "--compression", codec, "--json").json
            sizes[codec] = result["bytes"]
        self.assertEqual(sizes["zstd"], sizes["zstd:1"])
        self.assertLess(sizes["zstd:1"] * 2, sizes["none"])
        self.assertLess(sizes["zstd:19"], sizes["zstd:1"])
        self.assertLess(sizes["zstd:1"], sizes["zstd:-7"])
        self.assertLess(sizes["zstd:-7"], sizes["none"])
        self.node.wait_idle()
        self.assertEqual(len(self.values()), 25_000)
        for wrong in ("zstd:0", "zstd:20", "gzip", "zstd:-8"):
            self.node.grape("ingest", "sink@row", path, "--compression", wrong, expect=USAGE)
        self.node.grape("ingest", "sink@row", path, "--compression", "none", "--compress", expect=USAGE)

    @unittest.skipIf(sys.version_info >= (3, 14), "this Python has zstd")
    def test_an_application_that_cannot_pack_as_its_profile_says_fails_with_the_reason(self):
        self.node.deploy(self.python_app("packed", SINK, ["row", "other"], profile={"compression": "zstd"}))
        self.node.grape("exec", "packed@row", "--data", "x")
        problem = self.eventually(
            lambda: self.node.grape("app", "info", "packed", "--json").json.get("problem"), "it has a problem")
        self.assertIn("zstd:1", problem)
        self.assertIn("3.14", problem)

    def test_an_ingest_that_was_killed_goes_on_where_it_stopped(self):
        total = 400_000
        path = self.folder / "many.csv"
        with open(path, "w") as file:
            file.write("n,carrier\n")
            file.writelines(f"{number},c{number % 50}\n" for number in range(total))
        command = ("ingest", "sink@row", path, "--key-field", "carrier", "--resume")
        for threshold in (1, total // 4):
            process = self.node.start_grape(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.eventually(
                lambda: sum(self.node.ends("sink.events")) >= threshold or process.poll() is not None, "events have arrived", 60
            )
            process.send_signal(signal.SIGKILL)
            process.wait(10)
        self.assertLess(sum(self.node.ends("sink.events")), total, "it was to be killed before its end")
        self.node.grape(*command, timeout=120)
        numbers = [int(json.loads(value)["n"]) for value in self.values()]
        self.assertEqual(len(numbers), total)
        self.assertEqual(sorted(numbers), list(range(total)), "each row exactly once")
        ends = self.node.ends("sink.events")
        again = self.node.grape(*command, timeout=120)
        self.assertEqual(self.node.ends("sink.events"), ends, again)

    def test_killed_at_random_moments_it_sends_every_row_exactly_once(self):
        seed = int.from_bytes(os.urandom(4), "big")
        generator = random.Random(seed)
        total = 150_000
        path = self.folder / "many.txt"
        path.write_text("".join(f"{number} {'x' * (number % 97)}\n" for number in range(total)))
        command = ("ingest", "sink@row", path, "--resume")
        kills = 0
        for _ in range(15):
            process = self.node.start_grape(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(generator.uniform(0.01, 0.25))
            kills += process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.wait(10)
        self.node.grape(*command, timeout=120)
        numbers = sorted(int(value.split()[0]) for value in self.values())
        self.assertEqual(numbers, list(range(total)), f"{kills} kills, seed {seed}")
        self.assertEqual(sorted(file.name for file in self.folder.glob("many.txt*")), ["many.txt", "many.txt.grape-ingest"])

    def test_what_a_killed_run_left_in_its_socket_never_comes_after_the_next_one_has_looked(self):
        path = self.folder / "rows.txt"
        path.write_text("".join(f"{number} {'x' * 400}\n" for number in range(50_000)))
        first = self.node.start_grape("ingest", "sink@row", path, "--resume", stdout=subprocess.DEVNULL)
        self.eventually(lambda: sum(self.node.ends("sink.events")) > 0, "events arrive")
        # The node stands still; its socket fills; the client dies; the next one stands in the queue at once.
        self.node.process.send_signal(signal.SIGSTOP)
        with contextlib.suppress(subprocess.TimeoutExpired):
            first.wait(0.2)
        first.kill()
        first.wait(10)
        second = self.node.start_grape("ingest", "sink@row", path, "--resume", stdout=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            second.wait(0.2)
        self.node.process.send_signal(signal.SIGCONT)
        self.assertEqual(second.wait(60), 0)
        numbers = sorted(int(value.split()[0]) for value in self.values())
        self.assertEqual(numbers, list(range(50_000)))

    def test_two_ingests_with_one_state_are_kept_apart(self):
        path = self.write("lines.txt", "one\n")
        state = self.folder / "state"
        first = self.node.start_grape(
            "ingest", "sink@row", "-", "--state", state, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        try:
            self.eventually(state.exists, "the first has a state")
            refused = self.node.grape("ingest", "sink@row", path, "--state", state, expect=CONFLICT)
            self.assertIn("another ingest", refused.err.decode())
        finally:
            first.stdin.close()
            self.assertEqual(first.wait(20), 0)

    def test_an_ingest_ends_with_an_error_when_its_node_goes_away(self):
        process = self.node.start_grape("ingest", "sink@row", "-", stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        process.stdin.write(b"one\n" * 1000)
        process.stdin.flush()
        self.node.kill()
        process.stdin.close()
        self.assertNotEqual(process.wait(20), 0)
        self.assertTrue(process.stderr.read().strip())
        process.stderr.close()


class Tail(EndToEnd):
    def setUp(self):
        super().setUp()
        self.node = self.running_node()
        self.node.deploy(self.python_app("sink", SINK, ["row", "other"]))

    def test_from_the_beginning_an_offset_and_a_time(self):
        middle = time.time() - 5
        with self.node.client() as client:
            for name, event, count, moment in (("early", b"row", 10, middle - 5), ("late", b"other", 5, middle + 5)):
                for number in range(count):
                    value = f"{name}-{number}".encode()
                    client.append("sink", [wire.Record(value, b"k", [("g.e", event)], int(moment * 1000))])
        partition = wire.partition_of(b"k", 4)

        def tail(*options):
            lines = self.node.grape("tail", "sink", "--no-follow", "--json", *options).text.splitlines()
            return [json.loads(line)["value"] for line in lines]

        everything = [f"early-{n}" for n in range(10)] + [f"late-{n}" for n in range(5)]
        self.assertEqual(tail("--from", "beginning"), everything)
        self.assertEqual(tail("--from", "beginning", "--event", "other"), everything[10:])
        self.assertEqual(tail("--from", "12", "--partition", str(partition)), everything[12:])
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(middle)) + f".{int(middle % 1 * 1000):03}Z"
        self.assertEqual(tail("--from", moment), everything[10:])

    def test_new_events_are_shown_as_they_come_and_sigint_ends_it(self):
        process = self.node.start_grape("tail", "sink", "--from", "beginning", "--json", stdout=subprocess.PIPE)
        try:
            with self.node.client() as client:
                for number in range(3):
                    client.exec("sink@row", b"event-%d" % number, key=b"k")
                    self.assertEqual(json.loads(process.stdout.readline())["value"], f"event-{number}")
            process.send_signal(signal.SIGINT)
            self.assertIn(process.wait(10), (0, 130, -signal.SIGINT))
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


if __name__ == "__main__":
    unittest.main()
