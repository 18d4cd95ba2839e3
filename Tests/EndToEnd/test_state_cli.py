"""grape state: every command, its exit codes, its messages, large values, export and import."""

import base64
import json
import os
import random
import subprocess
import threading
import unittest

from node import (
    BAD_INPUT, CONFLICT, NO_ENTRY, NO_INPUT, NO_SUCH_APP, OK, REFUSED, TOO_LARGE, UNAVAILABLE, USAGE, EndToEnd,
)
from wire import partition_of

NOTHING = """
    @app.on("nothing")
    def nothing(event, ctx):
        return ctx.state.get(event.key, b"")
"""


class StateCLI(EndToEnd):
    def setUp(self):
        super().setUp()
        self.node = self.running_node()
        self.deploy("app")

    def deploy(self, name, partitions=4):
        self.node.deploy(self.python_app(name, NOTHING, ["nothing"], partitions=partitions))

    def state(self, command, *words, **options):
        return self.node.grape("state", command, *words, **options)

    def lines(self, command, *words):
        return [json.loads(line) for line in self.state(command, *words, "--json").out.splitlines()]

    # One entry

    def test_get_prints_the_bytes_of_the_value_and_nothing_else(self):
        for value in (b"text", b"", b"line\n", bytes(range(256)), "süß".encode()):
            self.state("put", "app", "k", "-", input=value)
            self.assertEqual(self.state("get", "app", "k").out, value)
            [entry] = self.lines("get", "app", "k")
            self.assertEqual(entry["size"], len(value))
            found = base64.b64decode(entry["valueBase64"]) if "valueBase64" in entry else entry["value"].encode()
            self.assertEqual(found, value)

    def test_an_entry_that_is_not_there_has_an_exit_code_of_its_own(self):
        for words in (
            ["get", "app", "k"], ["get", "app", "k", "--json"], ["get", "app", "k", "--partition", "1"],
            ["get", "app", "k", "--for", "e", "--store", "box"], ["remove", "app", "k"],
        ):
            result = self.state(*words, expect=NO_ENTRY)
            self.assertIn("no entry `k`", result.err.decode())
        self.state("put", "app", "k", "v", "--store", "box")
        self.state("get", "app", "k", expect=NO_ENTRY)
        self.assertEqual(self.state("get", "app", "k", "--store", "box").out, b"v")
        codes = {line["exitCode"]: line["name"] for line in json.loads(self.node.grape("exit-codes", "--json").out)}
        self.assertEqual((codes[NO_ENTRY], codes[REFUSED]), ("no-entry", "refused"))

    def test_values_come_from_arguments_files_and_standard_input(self):
        file = self.folder / "value"
        file.write_bytes(b"\0from a file\xff")
        for words, input, value in (
            (["given"], b"", b"given"), (["-"], b"piped", b"piped"), (["--file", file], b"", b"\0from a file\xff"),
            (["--file", "-"], b"piped too", b"piped too"), ([""], b"", b""), (["--", "--file"], b"", b"--file"),
        ):
            self.state("put", "app", "k", *words, input=input)
            self.assertEqual(self.state("get", "app", "k").out, value)

    def test_writes_without_a_partition_go_to_where_the_entry_is(self):
        own = partition_of(b"k", 4)
        other = (own + 1) % 4
        self.assertEqual(self.lines("put", "app", "k", "1"), [{"partition": own, "key": "k", "size": 1}])
        self.state("remove", "app", "k", "--timeout", "5m")
        self.state("put", "app", "k", "1", "--partition", str(other))
        self.assertEqual(self.lines("put", "app", "k", "2"), [{"partition": other, "key": "k", "size": 1}])
        self.assertEqual(self.lines("append", "app", "k", "3"), [{"partition": other, "key": "k", "size": 2}])
        [cas] = self.lines("cas", "app", "k", "4", "--expect", "23")
        self.assertEqual(cas["partition"], other)
        self.assertEqual(self.lines("remove", "app", "k"), [{"partition": other, "key": "k", "size": None}])
        self.assertEqual(self.node.state("app"), [])

    def test_an_entry_in_several_partitions_is_listed_not_guessed(self):
        self.state("put", "app", "k", "one", "--partition", "0")
        self.state("put", "app", "k", "two", "--partition", "3")
        result = self.state("get", "app", "k", expect=CONFLICT)
        self.assertEqual(result.out, b"")
        for text in ("0\tk\tone", "3\tk\ttwo", "--partition"):
            self.assertIn(text, result.err.decode())
        self.assertEqual([entry["value"] for entry in self.lines("get", "app", "k")], ["one", "two"])
        for words in (["put", "app", "k", "x"], ["remove", "app", "k"], ["append", "app", "k", "x"]):
            self.assertIn("partitions 0, 3", self.state(*words, expect=CONFLICT).err.decode())
        self.assertEqual(self.state("get", "app", "k", "--partition", "3").out, b"two")
        event_key = next(f"e{n}" for n in range(99) if partition_of(b"e%d" % n, 4) == 0)
        self.assertEqual(self.state("get", "app", "k", "--for", event_key).out, b"one")
        self.state("remove", "app", "k", "--for", event_key)
        self.assertEqual(self.state("get", "app", "k").out, b"two")

    def test_cas_says_what_is_there(self):
        self.state("cas", "app", "k", "1", "--expect-none")
        self.assertIn("1 byte", self.state("cas", "app", "k", "2", "--expect-none", expect=REFUSED).err.decode())
        self.state("cas", "app", "k", "22", "--expect", "2", expect=REFUSED)
        file = self.folder / "expected"
        file.write_bytes(b"1")
        self.state("cas", "app", "k", "22", "--expect-file", file)
        self.state("cas", "app", "k", "--remove", "--expect", "1", expect=REFUSED)
        self.state("cas", "app", "k", "--remove", "--expect", "22")
        self.assertIn("no entry", self.state("cas", "app", "k", "2", "--expect", "22", expect=REFUSED).err.decode())
        result = self.state("cas", "app", "k", "2", "--expect", "22", "--json", expect=REFUSED)
        self.assertEqual(result.json["error"]["exitCode"], REFUSED)

    def test_of_several_cas_at_once_exactly_one_wins(self):
        for round in range(10):
            start, results = threading.Barrier(4), []

            def run(number):
                with self.node.client() as client:
                    start.wait()
                    write = {"op": "cas", "key": "leader", "size": 1, "expectedSize": 1}
                    if round == 0:
                        del write["expectedSize"]
                    expected = b"" if round == 0 else before
                    answer = client.request("state.write", b"%d" % number + expected, app="app", writes=[write])
                    results.append((answer["results"][0]["result"], b"%d" % number))

            if round:
                before = self.state("get", "app", "leader").out
            threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
            won = [value for result, value in results if result == "done"]
            # A winner that set the very value that was expected lets a second one win.
            self.assertGreaterEqual(len(won), 1)
            if round == 0 or before not in won:
                self.assertEqual(len(won), 1, results)
            self.assertIn(self.state("get", "app", "leader").out, won)

    def test_of_several_commands_that_expect_nothing_one_wins(self):
        commands = [
            self.node.start_grape(
                "state", "cas", "app", "leader", f"node-{number}", "--expect-none", stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for number in range(6)
        ]
        codes = [command.wait(30) for command in commands]
        self.assertEqual(sorted(codes), [OK] + [REFUSED] * 5)
        self.assertEqual(self.state("get", "app", "leader").text, f"node-{codes.index(OK)}")

    def test_append_keeps_tags_and_expiry(self):
        self.state("append", "app", "k", "a", "--tag", "t", "--ttl", "1h")
        [before] = self.lines("get", "app", "k")
        self.state("append", "app", "k", "b", "--tag", "u", "--ttl", "2h")
        [after] = self.lines("get", "app", "k")
        self.assertEqual(after, {**before, "value": "ab", "size": 2})

    def test_keys_may_be_any_bytes(self):
        key = "00ff0a"
        self.state("put", "app", key, "v", "--hex")
        self.assertEqual(self.state("get", "app", key, "--hex").out, b"v")
        [entry] = self.lines("scan", "app", "--prefix", "00FF", "--hex")
        self.assertEqual(base64.b64decode(entry["keyBase64"]), b"\x00\xff\n")
        self.assertIn("0x00ff0a", self.state("scan", "app").text)
        self.state("put", "app", "k" * 480, "v")
        self.assertEqual(self.state("get", "app", "k" * 480).out, b"v")

    def test_the_largest_values_work(self):
        largest = 64 << 20
        value = random.Random(1).randbytes(largest)
        file = self.folder / "large"
        file.write_bytes(value)
        self.state("put", "app", "k", "--file", file, "--timeout", "5m", timeout=300)
        self.assertEqual(self.state("get", "app", "k", "--timeout", "5m", timeout=300).out == value, True)
        self.assertEqual(self.state("get", "app", "k", "--partition", str(partition_of(b"k", 4))).out == value, True)
        result = self.state("append", "app", "k", "x", "--timeout", "5m", expect=TOO_LARGE, timeout=300)
        self.assertIn("67,108,864", result.err.decode())
        with open(file, "ab") as opened:
            opened.write(b"x")
        self.assertIn("67,108,864", self.state("put", "app", "k", "--file", file, expect=TOO_LARGE).err.decode())
        self.node.kill()
        self.node.start()
        self.assertEqual(self.state("get", "app", "k", "--timeout", "5m", timeout=300).out == value, True)
        exported = self.state("export", "app", "--timeout", "5m", timeout=300).out
        self.state("remove", "app", "k", "--timeout", "5m")
        self.state("import", "app", "-", "--timeout", "5m", input=exported, timeout=300)
        self.assertEqual(self.state("get", "app", "k", "--timeout", "5m", timeout=300).out == value, True)

    # What is mistyped

    def test_what_is_mistyped_is_said_clearly(self):
        for words, text in (
            (["get", "app"], "key"), (["get", "App", "k"], "App"), (["get", "app", ""], "1 to 480"),
            (["get", "app", "k" * 481], "481"), (["get", "app", "k", "--store", "Box"], "Box"),
            (["get", "app", "k", "--partition", "-1"], "partition"), (["get", "app", "k", "--partition", "x"], "x"),
            (["get", "app", "k", "--partition", "1", "--for", "e"], "--for"),
            (["get", "app", "k", "--consistency", "strong"], "linearizable"), (["get", "app", "abc", "--hex"], "even"),
            (["get", "app", "xx", "--hex"], "hexadecimal"), (["get", "app", "k", "--timeout", "1h"], "10m"),
            (["put", "app", "k"], "value is missing"), (["put", "app", "k", "v", "--file", "f"], "twice"),
            (["put", "app", "k", "v", "--ttl", "soon"], "5s"), (["put", "app", "k", "v", "--ttl", "0"], "ttl"),
            (["put", "app", "k", "v", "--tag", ""], "tag"), (["put", "app", "k", "v", "--tag", "t" * 64], "64"),
            (["put", "app", "k", "v", "--tag", "t", "--tag", "t"], "twice"),
            (["put", "app", "k", "v", *[word for n in range(17) for word in ("--tag", f"t{n}")]], "17"),
            (["put", "app", "k", "v", "--trigger", "No"], "No"),
            (["cas", "app", "k", "v"], "--expect"), (["cas", "app", "k", "--expect", "v"], "--remove"),
            (["cas", "app", "k", "v", "--expect", "a", "--expect-none"], "one of them"),
            (["cas", "app", "k", "--remove", "--expect", "a", "--ttl", "1s"], "--ttl"),
            (["cas", "app", "k", "-", "--expect-file", "-"], "standard input"),
            (["scan", "app", "--limit", "0"], "1 or more"), (["scan", "app", "--prefix", "k" * 481], "481"),
            (["find", "app"], "--tag"), (["import", "app"], "file"),
            (["import", "app", "f", "--by-key", "--partition", "1"], "--by-key"),
        ):
            with self.subTest(words=words):
                result = self.state(*words, expect=USAGE)
                self.assertIn(text, result.err.decode())
                self.assertEqual(result.out, b"")

    def test_what_the_node_knows_better_is_said_clearly(self):
        for words, code, text in (
            (["get", "nobody", "k"], NO_SUCH_APP, "nobody"), (["get", "app", "k", "--partition", "4"], BAD_INPUT, "0 to 3"),
            (["put", "app", "k", "v", "--partition", "4"], BAD_INPUT, "0 to 3"),
            (["put", "app", "k", "--file", "missing"], NO_INPUT, "missing"),
            (["put", "app", "k", "--file", "."], NO_INPUT, "folder"),
            (["scan", "app", "--start", "b", "--end", "a"], BAD_INPUT, "range"),
            (["import", "app", "missing"], NO_INPUT, "missing"),
        ):
            with self.subTest(words=words):
                self.assertIn(text, self.state(*words, expect=code).err.decode())

    def test_state_of_a_stopped_application_is_read_but_not_written(self):
        self.state("put", "app", "k", "v")
        self.node.grape("app", "stop", "app")
        self.assertEqual(self.state("get", "app", "k", "--consistency", "linearizable").out, b"v")
        self.assertIn("stopped", self.state("put", "app", "k", "w", expect=UNAVAILABLE).err.decode())
        self.node.grape("app", "start", "app")
        self.state("put", "app", "k", "w")

    # Ranges

    def test_ranges_that_have_nothing_in_them_are_empty(self):
        self.state("put", "app", "b", "v")
        for words in (
            ["--prefix", "a", "--start", "c"], ["--prefix", "c", "--end", "cz"], ["--start", "b", "--end", "b"],
            ["--start", "c"], ["--end", "b"], ["--prefix", "b", "--start", "bb"], ["--store", "other"],
        ):
            self.assertEqual(self.lines("scan", "app", *words), [], words)
        self.assertEqual(len(self.lines("scan", "app", "--prefix", "b", "--start", "a", "--end", "c")), 1)

    def test_scans_are_right_over_as_many_answers_as_it_takes(self):
        seed = random.randrange(1 << 30)
        chance = random.Random(seed)
        entries = {}
        lines = []
        for number in range(6000):
            key, partition = "%05d" % chance.randrange(20000), chance.randrange(4)
            value = "v" * chance.choice([0, 10, 100, 3000])
            entries[partition, key] = value
            lines.append(json.dumps({"key": key, "partition": partition, "value": value}))
        self.state("import", "app", "-", input="\n".join(lines))
        ordered = sorted(entries)

        def scan(*words):
            return [(entry["partition"], entry["key"]) for entry in self.lines("scan", "app", *words)]

        everything = self.lines("scan", "app")
        self.assertEqual([(entry["partition"], entry["key"]) for entry in everything], ordered, f"seed {seed}")
        self.assertEqual({(entry["partition"], entry["key"]): entry["value"] for entry in everything}, entries)
        self.assertEqual(scan("--keys-only"), ordered)
        self.assertEqual(scan("--limit", "2500"), ordered[:2500])
        backwards = sorted(entries, key=lambda place: (place[0], [-ord(digit) for digit in place[1]]))
        self.assertEqual(scan("--descending"), backwards)
        self.assertEqual(scan("--descending", "--limit", "1777", "--keys-only"), backwards[:1777])
        low, high = sorted(("%05d" % chance.randrange(20000), "%05d" % chance.randrange(20000)))
        inside = [place for place in ordered if low <= place[1] < high]
        self.assertEqual(scan("--start", low, "--end", high), inside, f"seed {seed}")
        self.assertEqual(scan("--prefix", "1", "--partition", "2"), [p for p in ordered if p[0] == 2 and p[1][0] == "1"])
        self.assertEqual([entry.key.decode() for entry in self.node.state("app", limit=7)], [key for _, key in ordered])

    # Export and import

    def fill(self):
        chance = random.Random(7)
        writes = []
        for number in range(1500):
            key = chance.choice([b"k%d" % number, bytes([255, number & 255, number >> 8])])
            value = chance.choice([b"", b"text", chance.randbytes(50), b"\xff" * 20000])
            line = {"store": chance.choice(["", "box", "a-long-name"]), "partition": number % 4}
            line["keyBase64"] = base64.b64encode(key).decode()
            line["valueBase64"] = base64.b64encode(value).decode()
            if chance.random() < 0.3:
                line["tags"] = ["one", "two ü"]
            if chance.random() < 0.3:
                line["expiresMs"] = 4_000_000_000_000 + number
            writes.append(json.dumps(line))
        result = self.state("import", "app", "-", "--json", input="\n".join(writes)).json
        self.assertEqual((result["entries"], result["expired"]), (1500, 0))

    def test_what_is_exported_and_imported_is_the_same_again(self):
        self.fill()
        exported = self.state("export", "app").out
        lines = [json.loads(line) for line in exported.splitlines()]
        self.assertEqual(len(lines), 1500)
        self.assertEqual({line["store"] for line in lines}, {"", "box", "a-long-name"})
        self.deploy("copy")
        self.state("import", "copy", "-", input=exported)
        again = [json.loads(line) for line in self.state("export", "copy").out.splitlines()]
        # What is left of the time is counted anew: expiries may differ by what the import took.
        for one, other in zip(lines, again):
            self.assertAlmostEqual(one.pop("expiresMs", 0), other.pop("expiresMs", 0), delta=60_000)
        self.assertEqual(lines, again)
        box = self.state("export", "app", "--store", "box").out.splitlines()
        self.assertEqual(len(box), sum(line["store"] == "box" for line in lines))
        default = self.state("export", "app", "--store", "").out.splitlines()
        self.assertEqual(len(default), sum(line["store"] == "" for line in lines))
        one = self.state("export", "app", "--partition", "2").out.splitlines()
        self.assertEqual(len(one), sum(line["partition"] == 2 for line in lines))

    def test_an_import_can_go_elsewhere(self):
        self.state("put", "app", "a", "1", "--partition", "1")
        self.state("put", "app", "b", "2", "--partition", "2", "--store", "box")
        exported = self.state("export", "app").out
        self.deploy("two", partitions=2)
        refused = self.state("import", "two", "-", "--store", "x", input=exported, expect=BAD_INPUT).err.decode()
        self.assertIn("lines 2 to 2: ", refused)
        self.assertIn("0 to 1", refused)
        self.state("import", "two", "-", "--by-key", input=exported)
        self.assertEqual(
            {(entry.partition, entry.key) for entry in self.node.state("two")}, {(partition_of(b"a", 2), b"a")}
        )
        self.state("import", "two", "-", "--partition", "0", "--store", "all", input=exported)
        self.assertEqual([(entry.partition, entry.key) for entry in self.node.state("two", store="all")], [(0, b"a"), (0, b"b")])

    def test_a_wrong_line_is_named_and_those_before_it_are_stored(self):
        good = [json.dumps({"key": f"k{number}", "value": "v"}) for number in range(2500)]
        for bad, text in (
            ("{", "JSON"), ("[]", "object"), ('{"value": "v"}', "`key` is missing"), ('{"key": "k"}', "`value` is missing"),
            ('{"key": "", "value": "v"}', "0 bytes"), ('{"key": 1, "value": "v"}', "`key` is text"),
            ('{"key": "k", "value": "v", "valueBase64": ""}', "both"), ('{"key": "k", "valueBase64": "a"}', "base64"),
            ('{"key": "k", "valueBase64": "YQ=a"}', "base64"), ('{"key": "k", "value": "v", "ttl": 1}', "`ttl`"),
            ('{"key": "k", "value": "v", "store": "Box"}', "`store`"), ('{"key": "k", "value": "v", "partition": -1}', "`partition`"),
            ('{"key": "k", "value": "v", "tags": "t"}', "`tags`"), ('{"key": "k", "value": "v", "tags": [""]}', "`tags`"),
            ('{"key": "k", "value": "v", "expiresMs": "soon"}', "`expiresMs`"), ('{"key": "k", "value": "v", "size": 2}', "`size`"),
            ('{"key": "k", "key": "k", "value": "v"}', "twice"),
        ):
            with self.subTest(bad=bad):
                file = self.folder / "lines.ndjson"
                file.write_text("\n".join(good + [bad, '{"key": "after", "value": "v"}']))
                result = self.state("import", "app", file, expect=BAD_INPUT)
                self.assertIn(f"{file}:2501: ", result.err.decode())
                self.assertIn(text, result.err.decode())
                self.assertIn("2,500 entries were stored before", result.err.decode())
        self.assertEqual(len(self.node.state("app", keysOnly=True)), 2500)

    def test_expired_entries_are_left_out_of_an_import(self):
        lines = [{"key": "old", "value": "v", "expiresMs": 1}, {"key": "new", "value": "v"}]
        result = self.state("import", "app", "-", "--json", input="\n".join(map(json.dumps, lines))).json
        self.assertEqual((result["entries"], result["expired"]), (1, 1))
        self.assertEqual([entry.key for entry in self.node.state("app")], [b"new"])

    def test_an_import_takes_what_comes_slowly_as_it_comes(self):
        read, write = os.pipe()
        command = self.node.start_grape("state", "import", "app", "-", stdin=read, stdout=subprocess.DEVNULL)
        os.close(read)
        with os.fdopen(write, "wb", buffering=0) as pipe:
            pipe.write(b'{"key": "first", "value": "v"}\n{"key": "sec')
            self.eventually(lambda: self.node.state("app", key="first"), "the first entry is stored")
            pipe.write(b'ond", "value": "v"}\n')
            self.eventually(lambda: self.node.state("app", key="second"), "the second entry is stored")
        self.assertEqual(command.wait(20), OK)

    def test_export_into_a_pipe_that_closes_ends_quietly(self):
        self.fill()
        command = f"{self.node.grape_path} state export app | head -n 1"
        done = subprocess.run(command, shell=True, capture_output=True, env=self.node.environment(), timeout=60)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.assertEqual(len(done.stdout.splitlines()), 1)


if __name__ == "__main__":
    unittest.main()
