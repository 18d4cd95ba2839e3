"""The first minutes with Grape, as the README tells them."""

import io
import os
import re
import shutil
import tarfile
import unittest

from node import CONFLICT, ECHO, ECHO_SLOTS, NO_INPUT, NO_SUCH_APP, OK, ROOT, UNREACHABLE, USAGE, EndToEnd


class QuickStart(EndToEnd):
    def test_an_application_from_init_deploys_and_answers(self):
        node = self.running_node()
        node.grape("init", "my-app", "--runtime", "python")
        self.assertTrue({"grape.yaml", "README.md"} <= set(os.listdir(self.folder / "my-app")))
        deployed = node.deploy(self.folder / "my-app")
        self.assertEqual(deployed["app"], "my-app")
        self.assertTrue(re.fullmatch(r"[0-9a-f]{12,64}", deployed["version"]), deployed)
        slots = next(app for app in node.grape("app", "list", "--json").json["apps"] if app["name"] == "my-app")["slots"]
        node.grape("exec", f"my-app@{slots[0]}", "--data", "hello", "--block", "--timeout", "10s")

    @unittest.skipUnless(shutil.which("swift"), "no Swift here")
    def test_a_swift_application_is_built_with_the_program_and_swift_alone(self):
        node = self.make_node()
        # Away from the sources: nothing beside the program may be needed.
        (self.folder / "bin").mkdir()
        node.grape_path = shutil.copy(node.grape_path, self.folder / "bin" / "grape")
        node.start()
        node.grape("init", "my-app", "--runtime", "swift")
        for path in (self.folder / "my-app").rglob("*"):
            if path.is_file():
                self.assertNotIn(str(ROOT), path.read_text())
        node.grape("deploy", "my-app", timeout=900)
        self.assertEqual(node.grape("exec", "my-app@received", "--data", "Ada", "--block").text, "Hello, Ada!")
        files = node.grape("app", "info", "my-app", "--json").json["files"]
        self.assertEqual(sorted(files), ["bin/my-app", "grape.yaml"])

    def test_the_sdk_for_swift_comes_from_where_the_user_says(self):
        node = self.make_node()
        node.grape("init", "one", "--runtime", "swift", "--sdk", ROOT)
        self.assertIn(f'path: "{ROOT}"', (self.folder / "one" / "Package.swift").read_text())
        self.assertFalse((self.folder / "one" / "vendor").exists())
        node.grape("init", "two", "--runtime", "swift", "--sdk", "https://example.org/grape.git#1.2.3")
        self.assertIn('.package(url: "https://example.org/grape.git", exact: "1.2.3")',
                      (self.folder / "two" / "Package.swift").read_text())
        for place, code, hint in (
            ("https://example.org/grape.git", USAGE, "#1.2.0"), (self.folder, NO_INPUT, "leave --sdk out"),
        ):
            self.assertIn(hint, node.grape("init", "three", "--runtime", "swift", "--sdk", place, expect=code).err.decode())
            self.assertFalse((self.folder / "three").exists())
        node.grape("sdk", "swift", "vendor/grape", expect=None)
        written = node.grape("sdk", "swift", "grape", "--json").json["files"]
        self.assertIn("Sources/Grape/Event.swift", written)
        for name in written:
            if name.startswith("Sources/"):
                self.assertEqual((self.folder / "grape" / name).read_bytes(), (ROOT / name).read_bytes())
        node.grape("sdk", "swift", "grape", expect=CONFLICT)

    def test_init_does_not_overwrite_what_is_there(self):
        node = self.make_node()
        node.grape("init", "my-app", "--runtime", "python")
        manifest = self.folder / "my-app" / "grape.yaml"
        manifest.write_text("mine")
        self.assertNotEqual(node.grape("init", "my-app", "--runtime", "python", expect=None).code, OK)
        self.assertEqual(manifest.read_text(), "mine")

    def test_the_same_content_is_the_same_version_from_folder_and_tarball(self):
        node = self.running_node()
        app = self.python_app("echo", ECHO, ECHO_SLOTS)
        first = node.deploy(app)
        again = node.deploy(app)
        self.assertEqual((again["version"], again["changed"]), (first["version"], False))
        for suffix, mode in ((".tar", "w"), (".tar.gz", "w:gz")):
            archive = self.folder / f"echo{suffix}"
            with tarfile.open(archive, mode) as tar:
                tar.add(app, arcname=".")
            self.assertEqual(node.deploy(archive)["version"], first["version"], suffix)
        with open(app / "app.py", "a") as file:
            file.write("# changed\n")
        changed = node.deploy(app)
        self.assertNotEqual(changed["version"], first["version"])
        self.assertEqual(changed["previous"], first["version"])

    def test_a_new_version_answers_after_deploying(self):
        node = self.running_node()
        slot = '@app.on("ask")\ndef ask(event, context):\n    return "{}"\n'
        for answer in ("one", "two", "three"):
            app = self.python_app("versions", slot.format(answer), ["ask"])
            node.deploy(app)
            self.assertEqual(node.grape("exec", "versions@ask", "--block", "--timeout", "10s").text, answer)

    def test_without_a_node_a_command_says_so(self):
        node = self.make_node()
        result = node.grape("app", "list", expect=UNREACHABLE)
        self.assertIn(os.fspath(node.data), result.err.decode())

    def test_wrong_usage_is_told_apart_and_help_has_examples(self):
        node = self.make_node()
        node.grape("frobnicate", expect=USAGE)
        node.grape("exec", expect=USAGE)
        node.grape("exec", "a@b", "--timeout", "soon", "--block", expect=USAGE)
        for command in ("serve", "init", "deploy", "exec", "ingest", "tail", "topology", "stats"):
            text = node.grape(command, "--help").text
            self.assertIn(f"grape {command}", text)

    def test_start_stop_restart_remove(self):
        node = self.running_node()
        node.deploy(self.python_app("echo", ECHO, ECHO_SLOTS))
        ask = ("exec", "echo@echo", "--data", "x", "--block", "--timeout", "10s")
        self.assertEqual(node.grape(*ask).text, "x")
        pid = node.grape("exec", "echo@who", "--block", "--timeout", "10s").text

        node.grape("app", "stop", "echo")
        self.assertNotIn(int(pid), node.worker_pids())
        self.assertEqual(node.grape("app", "info", "echo", "--json").json["state"], "stopped")
        queued = node.grape("exec", "echo@echo", "--data", "later", "--json").json
        self.assertEqual(node.app_stats("echo")["lag"], 1, queued)
        node.grape("app", "start", "echo")
        node.wait_idle("20s")
        self.assertEqual(node.app_stats("echo")["lag"], 0)

        node.grape("app", "restart", "echo")
        self.assertNotEqual(node.grape("exec", "echo@who", "--block", "--timeout", "10s").text, pid)

        node.grape("app", "remove", "echo")
        node.grape(*ask, expect=NO_SUCH_APP)
        self.assertEqual(node.grape("app", "list", "--json").json["apps"], [])
        node.grape("app", "stop", "echo", expect=NO_SUCH_APP)

    def test_an_application_that_others_emit_to_is_not_removed_unless_forced(self):
        node = self.running_node()
        node.deploy(self.python_app("target", '@app.on("in")\ndef f(event, context):\n    pass', ["in"]))
        source = '@app.on("go")\ndef go(event, context):\n    context.emit("target@in", "x")'
        node.deploy(self.python_app("source", source, {"go": ["target@in"]}))
        self.assertIn("source", node.grape("app", "remove", "target", expect=CONFLICT).err.decode())
        node.grape("app", "remove", "target", "--force")

    def test_what_a_worker_writes_is_in_the_logs(self):
        node = self.running_node()
        code = """
            import sys

            @app.on("speak")
            def speak(event, context):
                print("to standard output", flush=True)
                print("to standard error", file=sys.stderr, flush=True)
                return "said"
        """
        node.deploy(self.python_app("speaker", code, ["speak"]))
        node.grape("exec", "speaker@speak", "--block", "--timeout", "10s")

        def lines():
            found = node.grape("app", "logs", "speaker", "--json").text
            return "to standard output" in found and "to standard error" in found

        self.eventually(lines, "both lines are in the log")

    def test_deployed_applications_survive_a_restart(self):
        node = self.running_node()
        version = node.deploy(self.python_app("echo", ECHO, ECHO_SLOTS))["version"]
        self.assertEqual(node.terminate(), 0)
        node.start()
        self.assertEqual(node.grape("app", "info", "echo", "--json").json["version"], version)
        self.assertEqual(node.grape("exec", "echo@echo", "--data", "x", "--block", "--timeout", "10s").text, "x")

    def test_an_archive_cannot_write_outside_its_folder(self):
        node = self.running_node()
        manifest = b"grape: 1\nname: evil\nruntime: python\nentry: app.py\nslots: {a: {}}\n"

        def member(name, data=b"", **fields):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in fields.items():
                setattr(info, field, value)
            return info, data

        evil = {
            "parent": member("../evil.txt", b"x"),
            "parent inside": member("a/../../evil.txt", b"x"),
            "absolute": member("/tmp/grape-evil.txt", b"x"),
            "link out": member("link", type=tarfile.SYMTYPE, linkname="../../etc/passwd"),
            "absolute link": member("link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
            "hard link out": member("link", type=tarfile.LNKTYPE, linkname="../evil"),
            "device": member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
            "pipe": member("pipe", type=tarfile.FIFOTYPE),
        }
        for name, (info, data) in evil.items():
            with self.subTest(name):
                archive = self.folder / "evil.tar"
                with tarfile.open(archive, "w") as tar:
                    for good, content in (("grape.yaml", manifest), ("app.py", b"")):
                        entry, _ = member(good, content)
                        tar.addfile(entry, io.BytesIO(content))
                    tar.addfile(info, io.BytesIO(data))
                result = node.grape("deploy", archive, expect=65)
                self.assertIn(info.name.split("/")[-1], result.err.decode())
        self.assertEqual(node.grape("app", "list", "--json").json["apps"], [])


if __name__ == "__main__":
    unittest.main()
