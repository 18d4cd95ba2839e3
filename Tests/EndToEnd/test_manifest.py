"""What deploying refuses, and how it says so."""

import json
import unittest

from node import BAD_INPUT, CONFLICT, NO_INPUT, EndToEnd

GOOD = """\
grape: 1
name: good
runtime: python
entry: app.py
slots:
  a: {emits: [b]}
  b: {}
profile:
  workers: {max: 2}
"""


class Manifest(EndToEnd):
    def setUp(self):
        super().setUp()
        self.node = self.running_node()
        self.app = self.folder / "good"
        self.app.mkdir()
        (self.app / "app.py").write_text("")

    def refuse(self, manifest, *parts):
        (self.app / "grape.yaml").write_text(manifest)
        message = self.node.grape("deploy", self.app, expect=BAD_INPUT).err.decode()
        for part in ("grape.yaml", *parts):
            self.assertIn(part, message)
        self.assertEqual(self.node.grape("app", "list", "--json").json["apps"], [])

    def test_faults_are_named_by_file_line_field_and_remedy(self):
        for old, new, *parts in (
            ("name: good\n", "", "name"),
            ("name: good", "name: Good One", ":2:", "Good One"),
            ("runtime: python", "runtime: pyhton", ":3:", "runtime", "python"),
            ("entry: app.py", "entry: missing.py", "missing.py"),
            ("entry: app.py", "entri: app.py", ":4:", "entry"),
            ("grape: 1", "grape: 99", ":1:", "99"),
            ("b: {}", "b: {emit: [a]}", ":7:", "emits"),
            ("b: {}", "B b: {}", ":7:"),
            ("b: {}", "a: {}", ":7:", "a"),
            ("{max: 2}", "{max: many}", ":9:", "max"),
            ("{max: 2}", "{max: 0}", ":9:", "max"),
            ("{max: 2}", "{min: 3, max: 2}", ":9:"),
            ("  workers: {max: 2}", "  request-timeout: 5 parsecs", ":9:", "request-timeout"),
            ("  workers: {max: 2}", "  durability: paper", ":9:", "disk"),
            ("slots:", "slots: [", ":"),
            (GOOD, "", "grape: 1"),
            (GOOD, "[1, 2]"),
            (GOOD, "\t- x"),
        ):
            with self.subTest(new=new):
                self.refuse(GOOD.replace(old, new), *parts)

    def test_all_faults_are_told_at_once(self):
        self.refuse(GOOD.replace("name: good", "name: 9").replace("python", "cobol"), ":2:", ":3:")

    def test_hostile_yaml_ends_quickly(self):
        bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
            f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(8)
        )
        for manifest in (bomb, "[" * 100_000, "a: " * 50_000, "x" * (5 << 20)):
            with self.subTest(manifest[:20]):
                self.refuse(manifest)

    def test_binary_noise_is_refused(self):
        (self.app / "grape.yaml").write_bytes(bytes(range(256)) * 4)
        self.node.grape("deploy", self.app, expect=BAD_INPUT)

    def test_what_is_not_there_is_told_apart_from_what_is_wrong(self):
        self.node.grape("deploy", self.folder / "nowhere", expect=NO_INPUT)
        result = self.node.grape("deploy", self.app, expect=None)
        self.assertIn(result.code, (NO_INPUT, BAD_INPUT))
        self.assertIn("grape.yaml", result.err.decode())
        archive = self.folder / "noise.tar.gz"
        archive.write_bytes(b"this is no archive" * 100)
        self.node.grape("deploy", archive, expect=BAD_INPUT)

    def test_an_emit_to_a_slot_that_does_not_exist_is_refused_unless_optional(self):
        for emits in ("nothing", "good@nothing", "nobody@in"):
            with self.subTest(emits):
                (self.app / "grape.yaml").write_text(GOOD.replace("emits: [b]", f"emits: [b, {emits}]"))
                result = self.node.grape("deploy", self.app, expect=None)
                self.assertIn(result.code, (BAD_INPUT, CONFLICT))
                self.assertIn(emits.split("@")[-1], result.err.decode())
        (self.app / "grape.yaml").write_text(GOOD.replace("emits: [b]", "emits: [b], optional: [nobody@in]"))
        self.node.deploy(self.app)

    def test_a_new_version_may_not_take_away_a_slot_that_others_emit_to(self):
        target = self.python_app("target", '@app.on("in")\ndef f(event, context):\n    pass', ["in"])
        self.node.deploy(target)
        source = '@app.on("go")\ndef go(event, context):\n    context.emit("target@in", "x")'
        self.node.deploy(self.python_app("source", source, {"go": ["target@in"]}))
        without = self.python_app("target", '@app.on("other")\ndef f(event, context):\n    pass', ["other"])
        result = self.node.grape("deploy", without, expect=None)
        self.assertIn(result.code, (BAD_INPUT, CONFLICT))
        self.assertIn("source", result.err.decode())

    def test_cycles_are_shown(self):
        (self.app / "grape.yaml").write_text(GOOD.replace("b: {}", "b: {emits: [a]}"))
        deployed = self.node.deploy(self.app)
        self.assertEqual(len(deployed["cycles"]), 1)
        self.assertEqual({name.split("@")[-1] for name in deployed["cycles"][0]}, {"a", "b"})

    def test_the_topology_is_drawn_in_three_forms(self):
        self.node.deploy(self.python_app("target", '@app.on("in")\ndef f(event, context):\n    pass', ["in"]))
        source = '@app.on("go")\ndef go(event, context):\n    context.emit("news", "x")'
        self.node.deploy(self.python_app("source", source, {"go": ["news"]}, signals={"news": ["target@in"]}))
        text = self.node.grape("topology").text
        mermaid = self.node.grape("topology", "--format", "mermaid").text
        dot = self.node.grape("topology", "--format", "dot").text
        for drawing in (text, mermaid, dot):
            for name in ("source", "target", "go", "in"):
                self.assertIn(name, drawing)
        self.assertRegex(mermaid, r"^(flowchart|graph) ")
        self.assertRegex(dot, r"^(strict )?digraph ")
        edges = self.node.grape("topology", "--json").json["edges"]
        self.assertIn(("source@go", "target@in"), [(edge["from"], edge["to"]) for edge in edges])


if __name__ == "__main__":
    unittest.main()
