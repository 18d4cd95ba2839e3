"""What Docker/ holds, without containers: the files, commands and options that it names are there, and a node runs as the image and
compose.yaml would run it."""

import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import unittest
from typing import Optional

import yaml

import broker
from node import OK, ROOT, USAGE, EndToEnd, Result, find_grape

DOCKER = ROOT / "Docker"
#: The user that the image runs as.
USER = 10001


def dockerfile() -> list[tuple[str, str]]:
    """Its instructions with what follows them, of all stages."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (DOCKER / "Dockerfile").read_text())
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def instruction(name: str) -> str:
    return next(rest for word, rest in reversed(dockerfile()) if word == name)


def image_environment() -> dict[str, str]:
    return dict(word.split("=", 1) for name, rest in dockerfile() if name == "ENV" for word in shlex.split(rest))


def compose() -> dict:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


class Image(EndToEnd):
    def test_what_is_copied_is_there_and_not_kept_out_of_the_build(self):
        ignored = (ROOT / ".dockerignore").read_text().splitlines()
        for name, rest in dockerfile():
            if name != "COPY" or rest.startswith("--from"):
                continue
            for source in rest.split()[:-1]:
                self.assertTrue((ROOT / source).exists(), source)
                self.assertIn(f"!{source.split('/')[0]}", ignored)

    def test_targets_of_the_package_lie_in_what_is_copied(self):
        copied = {source for name, rest in dockerfile() if name == "COPY" and not rest.startswith("--from") for source in rest.split()[:-1]}
        paths = re.findall(r'path: "([^"/]+)', (ROOT / "Package.swift").read_text())
        self.assertEqual(set(paths) - copied, set())

    def test_scripts_that_are_run_take_the_options_that_they_are_given(self):
        runs = [rest for name, rest in dockerfile() if name == "RUN"]
        self.assertTrue(any("scripts/setup.sh --build" in run for run in runs), runs)
        self.assertTrue(any("setup.sh --runtime" in run for run in runs), runs)
        self.assertTrue(any("scripts/build_release.sh --output /out" in run for run in runs), runs)
        for option in ("--build", "--runtime"):
            self.script("setup.sh", option, "--check", expect=0)
        self.script("setup.sh", "--no-such-option", expect=USAGE)
        self.assertIn("--output", self.script("build_release.sh", "--no-such-option", expect=USAGE))

    def script(self, name: str, *words: str, expect: int) -> str:
        done = subprocess.run([ROOT / "scripts" / name, *words], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, expect, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def test_libraries_that_the_binary_needs_are_installed_with_it(self):
        needed = re.findall(r"^\s*(\S+?\.so\S*)", subprocess.check_output(["ldd", find_grape()], text=True), re.MULTILINE)
        # In every image of Debian, or in the binary itself when it is built for release.
        base = r"lib(c|m|pthread|dl|rt|gcc_s)\.so|/lib64/ld|linux-vdso|lib(swift|_?Foundation|dispatch|BlocksRuntime|_Internationalization)"
        setup = (ROOT / "scripts" / "setup.sh").read_text()
        named = set(re.findall(r"has_library (\S+) \|\|", setup))
        wanted = {library for library in needed if not re.match(base, library)}
        self.assertEqual({library for library in wanted if library not in named and library in direct(find_grape())}, set())
        self.assertIn("librdkafka.so.1", named)

    def test_a_node_runs_as_the_image_runs_it_without_rights_and_stops_in_order(self):
        """The image's entry point, command, environment, health check, user and signal to stop."""
        run = Container(self, "node", image_environment())
        entry = json.loads(instruction("ENTRYPOINT")) + json.loads(instruction("CMD"))
        run.start(entry)
        run.wait_until_healthy()
        info = run.grape("node", "info", "--json").json
        self.assertEqual(info["dataDirectory"], os.path.realpath(run.place("/var/lib/grape")))
        run.grape(*(run.place(word) for word in compose()["services"]["deploy"]["command"]))
        answer = run.grape("exec", "signal-slot@start-event", "--data", "hello", "--block")
        self.assertEqual(answer.text.strip(), "hello -> start-event -> event0 -> event1 -> event2 -> finish")
        run.process.send_signal(getattr(signal, instruction("STOPSIGNAL")))
        self.assertEqual(run.process.wait(20), 0)
        # With log-format json, as the image has it.
        self.assertTrue(all(json.loads(line) for line in run.log.read_text().splitlines()), run.log.read_text())

    def test_the_service_of_systemd_names_what_is_there(self):
        unit = (DOCKER / "grape.service").read_text()
        words = shlex.split(re.search(r"(?m)^ExecStart=(.*)", unit).group(1))
        self.assertEqual(words[:2], ["/usr/local/bin/grape", "serve"])
        help = subprocess.check_output([find_grape(), "serve", "--help"], text=True)
        for option in (word for word in words if word.startswith("--")):
            self.assertIn(f"{option} <", help)
        variables = dict(re.findall(r"(?m)^Environment=(\w+)=(.*)", unit))
        path = self.folder / "empty.yaml"
        path.write_text("")
        checked = subprocess.run(
            [find_grape(), "config", "check", path, "--json"], env={**os.environ, **variables}, capture_output=True, text=True
        )
        self.assertEqual(checked.returncode, OK, checked.stderr)
        self.assertEqual(re.search(r"(?m)^StateDirectory=(.*)", unit).group(1), "grape")
        self.assertIn("/var/lib/grape", variables.values())


class Compose(EndToEnd):
    def test_what_it_names_is_there(self):
        description = compose()
        services, volumes = description["services"], description["volumes"]
        for name, service in services.items():
            with self.subTest(service=name):
                for other, condition in service.get("depends_on", {}).items():
                    self.assertIn(other, services)
                    if condition["condition"] == "service_healthy":
                        self.assertTrue("healthcheck" in services[other] or services[other]["image"] == "grape")
                for volume in service.get("volumes", []):
                    source = volume.split(":")[0]
                    self.assertTrue((DOCKER / source).exists() if source.startswith(".") else source in volumes, volume)
                if "build" in service:
                    context = (DOCKER / service["build"]["context"]).resolve()
                    self.assertEqual(context, ROOT)
                    self.assertTrue((context / service["build"]["dockerfile"]).is_file())
        used = {volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])}
        self.assertEqual(set(volumes) - used, set())
        self.assertEqual(sum(service["image"] == "grape" and service["command"][0] == "serve" for service in services.values()), 2)

    def test_its_nodes_have_names_folders_and_a_good_configuration(self):
        nodes = {name: service for name, service in compose()["services"].items() if service.get("command", [""])[0] == "serve"}
        names = set()
        for name, service in nodes.items():
            with self.subTest(node=name):
                options = service["command"][1:]
                self.assertEqual(options[::2], ["--config"])
                mounts = dict(reversed(volume.split(":")[:2]) for volume in service["volumes"])
                environment = {**image_environment(), **service["environment"]}
                checked = subprocess.run(
                    [find_grape(), "config", "check", DOCKER / mounts[options[1]], "--json"], env={**os.environ, **environment},
                    capture_output=True, text=True,
                )
                self.assertEqual(checked.returncode, OK, checked.stdout + checked.stderr)
                told = json.loads(checked.stdout)
                self.assertEqual(told["warnings"], [])
                settings = {setting["name"]: setting["value"] for setting in told["settings"]}
                names.add(settings["name"])
                # What must outlive the container lies in a volume.
                self.assertIn(settings["data"], mounts)
                self.assertIn(os.path.dirname(settings["socket"]), mounts)
        self.assertEqual(len(names), len(nodes))

    def test_its_nodes_work_together_on_a_cluster(self):
        """Both nodes and what deploys the example, each as compose.yaml has it but for where the cluster is."""
        cluster = broker.shared()
        namespace = f"{self.folder.name}."
        self.addCleanup(cluster.delete_topics, namespace)
        services = compose()["services"]
        nodes = []
        for name in ("node-1", "node-2"):
            node = Container(self, name, {**image_environment(), **services[name]["environment"]})
            settings = yaml.safe_load((DOCKER / "node.yaml").read_text())
            settings["log"] = f"kafka://{cluster.address}"
            settings["kafka"]["namespace"] = namespace
            own = dict(cluster.settings)
            own.pop("session.timeout.ms", None)
            settings["kafka"]["settings"] = own
            pathlib.Path(node.place("/etc/grape/node.yaml")).write_text(yaml.safe_dump(settings))
            node.start(["grape", *map(node.place, services[name]["command"])])
            nodes.append(node)
        for node in nodes:
            node.wait_until_healthy()
        first, second = nodes
        first.grape(*map(first.place, services["deploy"]["command"]))
        self.eventually(lambda: "signal-slot" in second.grape("app", "list").text, "the other node has the application", 30)
        for node in nodes:
            answer = node.grape("exec", "signal-slot@start-event", "--data", "hello", "--block", "--timeout", "30s")
            self.assertIn("hello -> start-event -> event0", answer.text)


class Container:
    """What a container would be: folders in place of the image's, its environment, and a user without rights if there can be one."""

    #: Places in the image that are its own.
    PLACES = ("/var/lib/grape", "/run/grape", "/etc/grape", "/examples")

    def __init__(self, test: EndToEnd, name: str, environment: dict[str, str]) -> None:
        self.test, self.folder = test, test.folder / name
        for place in self.PLACES[:3]:
            (self.folder / place[1:]).mkdir(parents=True)
        self.binary = test.folder / "grape"
        if not self.binary.exists():
            shutil.copy(find_grape(), self.binary)
        self.user: Optional[int] = USER if os.geteuid() == 0 else None
        if self.user is not None:
            test.folder.chmod(0o755)
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, self.user, self.user)
        own = {name: value for name, value in os.environ.items() if not name.startswith("GRAPE_") and name != "XDG_DATA_HOME"}
        self.environment = {**own, "HOME": self.place("/var/lib/grape"), **{key: self.place(value) for key, value in environment.items()}}
        self.log = self.folder / "output"
        self.process: Optional[subprocess.Popen] = None

    def place(self, path: str) -> str:
        """Where that path of the image is here."""
        if path.startswith("/examples"):
            return os.fspath(ROOT / "Examples") + path.removeprefix("/examples")
        return os.fspath(self.folder) + path if path.startswith(self.PLACES) else path

    def start(self, words: list[str]) -> None:
        self.test.assertEqual(words[0], "grape")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [self.binary, *words[1:]], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment, user=self.user,
                group=self.user, extra_groups=None if self.user is None else [], cwd=self.place(instruction("WORKDIR")),
            )
        self.test.addCleanup(self.end)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)

    def run(self, words: list[str]) -> Result:
        done = subprocess.run(
            [self.binary, *words[1:]], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, env=self.environment, user=self.user,
            group=self.user, extra_groups=None if self.user is None else [],
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def grape(self, *words: str) -> Result:
        result = self.run(["grape", *words])
        self.test.assertEqual(result.code, OK, f"{words}\n{result}\n{self.log.read_text(errors='replace')[-4000:]}")
        return result

    def wait_until_healthy(self) -> None:
        """By the image's own health check."""
        check = instruction("HEALTHCHECK")
        words = json.loads(check[check.index("["):])

        def is_healthy() -> bool:
            self.test.assertIsNone(self.process.poll(), self.log.read_text(errors="replace")[-4000:])
            return self.run(words).code == OK

        self.test.eventually(is_healthy, "the health check succeeds", 60)


def direct(binary: pathlib.Path) -> set[str]:
    """Libraries that the binary itself asks for, not those that they bring along."""
    text = subprocess.check_output(["readelf", "-d", binary], text=True)
    return set(re.findall(r"NEEDED.*\[(.*)\]", text))


if __name__ == "__main__":
    unittest.main()
