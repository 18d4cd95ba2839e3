"""How a node is set up: the configuration file, variables, options, secrets; topics on a cluster, and the plan of them."""

import json
import os
import pathlib
import stat
import subprocess
import unittest
from typing import Optional

import broker
from node import BAD_INPUT, CONFLICT, ECHO, ECHO_SLOTS, NO_INPUT, OK, UNAVAILABLE, USAGE, EndToEnd, Node, Result, find_grape

#: What nobody may ever see.
SECRET = "hunter2-correct-horse"


class Configured(EndToEnd):
    def write(self, text: str, name: str = "node.yaml") -> pathlib.Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def environment(self, **variables: str) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("GRAPE_")}
        # No other node, whatever runs on the machine.
        return {**own, "GRAPE_NODE": os.fspath(self.folder / "nowhere"), **variables}

    def grape(self, *words, expect: int = OK, **variables: str) -> Result:
        done = subprocess.run(
            [find_grape(), *map(os.fspath, words)], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, cwd=self.folder,
            env=self.environment(**variables),
        )
        result = Result(done.returncode, done.stdout, done.stderr)
        self.assertEqual(result.code, expect, f"grape {' '.join(map(str, words))}\n{result}")
        return result

    def serve(self, *options, data: str = "data", socket: Optional[pathlib.Path] = None, **variables: str) -> Node:
        """A node that is set up by nothing but these options and variables, and keeps its data in that folder."""
        node = Node(self.folder)
        node.data = self.folder / data
        self.addCleanup(node.stop_for_good)
        with open(node.log, "ab") as log:
            node.process = subprocess.Popen(
                [node.grape_path, "serve", *map(os.fspath, options)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=self.folder, env=self.environment(**variables),
            )
        node.grape("node", "wait", "--timeout", "20s", "--node", socket or node.data)
        return node


class ConfigurationFile(Configured):
    def test_a_node_is_as_its_file_says(self):
        (self.folder / "etc").mkdir()
        path = self.write(
            "data: ../var\nsocket: ../run.sock\nname: filed\nlog: embedded\nlog-level: debug\nlog-format: json\n"
            "segment-size: 2MiB\nlow-space: 1MiB\n",
            "etc/node.yaml",
        )
        node = self.serve("--config", path, data="var", socket=self.folder / "run.sock")
        info = self.grape("node", "info", "--json", "--node", self.folder / "run.sock").json
        self.assertEqual((info["node"], info["log"]), ("filed", "embedded"))
        self.assertEqual(os.path.realpath(info["dataDirectory"]), os.path.realpath(self.folder / "var"))
        self.assertTrue(all(json.loads(line) for line in node.log.read_text().splitlines()))
        segments = [file for file in (self.folder / "var" / "log").iterdir() if file.name.endswith(".log")]
        self.assertEqual({file.stat().st_size for file in segments}, {2 << 20})

    def test_options_are_stronger_than_variables_and_variables_than_the_file(self):
        path = self.write("data: data\nname: file\nlog-level: trace\nsegment-size: 1MiB\n")
        variables = {"GRAPE_SERVE_CONFIG": os.fspath(path), "GRAPE_SERVE_NAME": "variable", "GRAPE_SERVE_LOG_LEVEL": "error"}
        node = self.serve("--log-level", "info", **variables)
        self.assertEqual(node.grape("node", "info", "--json").json["node"], "variable")
        text = node.log.read_text()
        self.assertIn("node ready", text)
        self.assertNotIn(" debug: ", text)
        shown = self.grape("config", "check", "--json", **variables).json
        found = {setting["name"]: (setting["value"], setting["from"]) for setting in shown["settings"]}
        self.assertEqual(found["name"], ("variable", "GRAPE_SERVE_NAME"))
        self.assertEqual(found["log-level"], ("error", "GRAPE_SERVE_LOG_LEVEL"))
        self.assertEqual(found["segment-size"], ("1MiB", f"{path}:4:15"))
        self.assertEqual(found["log-format"], ("text", "default"))

    def test_every_mistake_is_told_with_file_line_and_what_would_be_right(self):
        path = self.write("sockett: x\nname: Big\nkafka:\n  replicas: 3\n  settings: {acks: 1}\n")
        lines = self.grape("config", "check", "node.yaml", expect=BAD_INPUT).text.splitlines()
        self.assertEqual([line.split(" ")[0] for line in lines], ["node.yaml:1:1:", "node.yaml:2:7:", "node.yaml:4:3:", "node.yaml:5:14:"])
        self.assertIn('did you mean "socket"?', lines[0])
        told = self.grape("config", "check", path, "--json", expect=BAD_INPUT).json
        self.assertEqual((told["good"], [problem["line"] for problem in told["problems"]]), (False, [1, 2, 4, 5]))
        self.assertIn("node.yaml:2:7: name: ", self.grape("serve", "--config", "node.yaml", expect=BAD_INPUT).err.decode())
        self.grape("serve", "--config", "missing.yaml", expect=NO_INPUT)
        self.grape("config", "check", "missing.yaml", expect=NO_INPUT)
        self.grape("config", "check", expect=USAGE)
        self.assertIn("GRAPE_SERVE_DATA?", self.grape("serve", expect=USAGE, GRAPE_SERVE_DATTA="x").err.decode())

    def test_settings_of_a_cluster_need_a_cluster(self):
        self.assertIn("--log kafka://", self.grape("serve", "--kafka-setting", "client.rack=a", expect=USAGE).err.decode())
        path = self.write("kafka: {replication: 3}\n")
        self.assertIn("none is named", self.grape("serve", "--config", path, expect=USAGE).err.decode())

    def test_a_good_file_is_shown_with_where_each_value_comes_from(self):
        path = self.write("log: kafka://k:9092/shop.\nkafka: {topic-settings: {min.insync.replicas: 2}}\n")
        text = self.grape("config", "check", path).text
        self.assertRegex(text, r"kafka\.namespace +shop\. +\S+node\.yaml:1:6")
        self.assertRegex(text, r"min\.insync\.replicas +2 +\S+node\.yaml:2:26")
        self.assertRegex(text, r"kafka\.commit-timeout +1m +default")


class Secrets(Configured):
    """Their values are seen nowhere: not in outputs, logs, errors or arguments."""

    def settings(self) -> str:
        self.write(SECRET + "\n", "password").chmod(0o600)
        return (
            "log: kafka://127.0.0.1:1/x.\ndata: data\nlog-level: trace\nkafka:\n  request-timeout: 1s\n"
            "  settings: {security.protocol: sasl_plaintext, sasl.mechanisms: PLAIN, sasl.username: grape, debug: all, "
            f"ssl.key.password: {SECRET}}}\n"
            "  secrets:\n    sasl.password: {file: password}\n    ssl.keystore.password: {env: STORE}\n"
        )

    def test_checking_shows_them_as_secret(self):
        path = self.write(self.settings())
        for words in ([], ["--json"]):
            result = self.grape("config", "check", path, *words, STORE=SECRET)
            self.assertNotIn(SECRET, f"{result}")
            self.assertEqual(result.text.count("(secret)"), 3)
        self.assertIn("stands here openly", self.grape("config", "check", path, STORE=SECRET).text)

    def test_checking_finds_those_that_cannot_be_read(self):
        path = self.write(self.settings())
        (self.folder / "password").unlink()
        text = self.grape("config", "check", path, expect=BAD_INPUT).text
        self.assertRegex(text, r"node\.yaml:8:5: secret sasl\.password: \S+password cannot be read: No such file")
        self.assertRegex(text, r"node\.yaml:9:5: secret ssl\.keystore\.password: .*STORE is not set")

    def test_a_node_that_cannot_reach_its_cluster_does_not_tell_them_however_much_it_logs(self):
        path = self.write(self.settings())
        result = self.grape("serve", "--config", path, expect=UNAVAILABLE, STORE=SECRET)
        self.assertNotIn(SECRET, f"{result}")
        self.assertIn("librdkafka", result.err.decode())

    def test_wrong_options_do_not_quote_them(self):
        for words in (
            ["--kafka-secret", f"sasl.password={SECRET}"],
            ["--kafka-secret", SECRET],
            ["--kafka-setting", SECRET],
            ["--kafka-secret", f"sasl.pasword=@{self.folder}"],
            ["--log", f"kafka://grape:{SECRET}@host"],
        ):
            with self.subTest(words=words[0]):
                result = self.grape("serve", "--log", "kafka://127.0.0.1:1", *words, expect=USAGE)
                self.assertNotIn(SECRET, f"{result}")

    def test_help_warns_of_the_command_line(self):
        self.assertRegex(self.grape("serve", "--help").text, r"(?s)--kafka-setting.*seen by every\s+user.*\(ps\)")


class Plan(Configured):
    """grape log topics --plan, without a node."""

    def plan(self, *words) -> list[dict]:
        return self.grape("log", "topics", "--plan", "--json", *words).json["topics"]

    def app(self, partitions: int = 4) -> pathlib.Path:
        return self.python_app("echo", ECHO, ECHO_SLOTS, partitions=partitions, profile={"retention-age": "7d"})

    def test_a_plan_names_all_topics_of_nodes_and_applications(self):
        path = self.write("log: kafka://k:9092\nkafka: {namespace: shop., replication: 3, topic-settings: {min.insync.replicas: 2}}\n")
        topics = {topic["name"]: topic for topic in self.plan("--config", path, "--name", "n1", "--name", "n2", "--app", self.app())}
        self.assertEqual(
            set(topics),
            {f"shop.{name}" for name in (
                "_grape.registry", "_grape.nodes", "_grape.replies.n1", "_grape.replies.n2", "echo.events", "echo.dead",
                "echo.state", "echo.writes", "echo.requests",
            )},
        )
        events = topics["shop.echo.events"]
        self.assertEqual((events["replication"], events["configuration"]["partitions"]), (3, 4))
        self.assertEqual(events["settings"]["retention.ms"], "604800000")
        self.assertEqual(events["settings"]["min.insync.replicas"], "2")
        self.assertEqual(topics["shop.echo.state"]["settings"]["cleanup.policy"], "compact")

    def test_the_commands_are_a_script_that_runs_kafkas_own_tools(self):
        path = self.write("log: kafka://k:9092/shop.\n")
        words = ["--config", path, "--name", "n1", "--app", self.app()]
        script = self.write(self.grape("log", "topics", "--plan", *words, "--format", "commands").text, "create.sh")
        tool = self.write('#!/bin/sh\nfor word; do printf "%s\\t" "$word"; done; echo\n', "kafka-topics.sh")
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
        done = subprocess.run(
            ["/bin/sh", script, "--command-config", "a b"], capture_output=True, text=True, timeout=20, check=True,
            env={"PATH": f"{self.folder}:{os.environ['PATH']}"},
        )
        calls = [line.rstrip("\t").split("\t") for line in done.stdout.splitlines()]
        plan = self.plan(*words)
        self.assertEqual([call[call.index("--topic") + 1] for call in calls], [topic["name"] for topic in plan])
        for call, topic in zip(calls, plan):
            settings = dict(word.split("=", 1) for option, word in zip(call, call[1:]) if option == "--config")
            self.assertEqual(settings, topic["settings"])
            self.assertEqual(call[call.index("--partitions") + 1], str(topic["configuration"]["partitions"]))
            self.assertEqual(call[-2:], ["--command-config", "a b"])

    def test_what_makes_no_sense_is_refused(self):
        self.grape("log", "topics", "--app", self.app(), expect=USAGE)
        self.grape("log", "topics", "--plan", "--data", self.folder, expect=USAGE)
        self.assertIn("--log kafka", self.grape("log", "topics", "--plan", "--format", "commands", expect=USAGE).err.decode())
        self.grape("log", "topics", "--plan", "--app", self.folder / "missing", expect=NO_INPUT)

    def test_a_running_node_tells_what_is_missing_and_what_differs(self):
        node = self.serve("--data", self.folder / "data", "--name", "n1")
        node.deploy(self.app())
        states = lambda *words: {
            topic["topic"]: topic["state"] for topic in node.grape("log", "topics", "--plan", "--json", *words).json["topics"]
        }
        self.assertEqual(set(states().values()), {"there"})
        self.assertEqual(len(states()), 7)
        other = self.python_app("other", ECHO, ECHO_SLOTS)
        found = states("--app", other, "--name", "n2")
        self.assertEqual({found["other.events"], found["other.state"], found["_grape.replies.n2"]}, {"missing"})
        text = node.grape("log", "topics", "--plan", "--app", self.app(partitions=8)).text
        self.assertRegex(text, r"echo\.events .*differs: it has 4 partitions instead of 8")
        self.assertRegex(text, r"echo\.dead .*there")

    def test_an_application_with_another_number_of_partitions_is_refused_with_a_reason(self):
        node = self.serve("--data", self.folder / "data")
        node.deploy(self.app())
        node.grape("app", "remove", "echo")
        result = node.grape("deploy", self.app(partitions=8), expect=CONFLICT)
        self.assertIn("echo.events has 4 partitions instead of 8", result.err.decode())
        self.assertIn("partitions: in grape.yaml", result.err.decode())


class OnKafka(Configured):
    def setUp(self):
        super().setUp()
        self.cluster = broker.shared()
        self.namespace = f"{self.folder.name}."
        self.addCleanup(self.cluster.delete_topics, self.namespace)

    def config(self, name: str, secrets: dict = {}) -> pathlib.Path:
        # JSON is YAML too.
        settings = {
            "data": name, "name": name, "log": f"kafka://{self.cluster.address}",
            "kafka": {
                "namespace": self.namespace, "replication": 1, "commit-interval": "1ms", "settings": self.cluster.settings,
                "secrets": secrets,
            },
        }
        return self.write(json.dumps(settings, indent=1), f"{name}.yaml")

    def test_a_file_is_enough_to_run_a_node_on_a_cluster_and_looking_on_works_as_on_the_embedded_log(self):
        node = self.serve("--config", self.config("n1"), data="n1")
        info = node.grape("node", "info", "--json").json
        self.assertEqual((info["node"], info["log"], info["namespace"]), ("n1", "kafka", self.namespace))
        node.deploy(self.python_app("echo", ECHO, ECHO_SLOTS))
        self.assertEqual(node.grape("exec", "echo@echo", "--data", "hello", "--block").text.strip(), "hello")
        node.wait_idle()
        self.assertIn("echo", node.grape("stats").text)
        self.assertIn("hello", node.grape("tail", "echo", "--from", "beginning", "--no-follow").text)
        topics = {topic["name"] for topic in node.grape("log", "topics", "--json").json["topics"]}
        self.assertTrue({"_grape.registry", "_grape.replies.n1", "echo.events", "echo.state"} <= topics, topics)
        self.assertEqual(
            {topic["state"] for topic in node.grape("log", "topics", "--plan", "--json").json["topics"]}, {"there"}
        )
        missing = node.grape("log", "topics", "--plan", "--name", "n9", "--format", "commands").text.splitlines()
        self.assertEqual(sum(line.startswith("kafka-topics.sh") for line in missing), 1, missing)
        self.assertIn(f"--topic {self.namespace}_grape.replies.n9 ", "\n".join(missing))

    def test_topics_that_are_not_as_new_ones_would_be_are_told_and_left_alone(self):
        node = self.serve("--config", self.config("n1"), data="n1")
        self.assertEqual(node.terminate(), 0)
        path = self.config("n1")
        settings = json.loads(path.read_text())
        settings["kafka"]["topic-settings"] = {"max.message.bytes": "1000000"}
        path.write_text(json.dumps(settings))
        node = self.serve("--config", path, data="n1")
        self.assertRegex(node.log.read_text(), r"not as the configuration wants.*_grape\.registry")
        self.assertRegex(node.log.read_text(), r"kafka-configs\.sh .*--add-config max\.message\.bytes=1000000")
        found = node.grape("log", "topics", "--plan", "--json").json["topics"]
        self.assertEqual({topic["state"] for topic in found}, {"differs"})
        self.assertEqual(found[0]["differences"], ["has max.message.bytes=68157440 instead of 1000000"])

    def test_an_application_with_wrong_topics_keeps_no_other_from_running_and_goes_on_when_they_are_mended(self):
        if "security.protocol" in self.cluster.settings:
            self.skipTest("topics are made by hand, which is done without TLS and passwords")
        node = self.serve("--config", self.config("n1"), data="n1")
        node.deploy(self.python_app("sick", ECHO, ECHO_SLOTS))
        node.deploy(self.python_app("well", ECHO + """
    @app.on("pass-on")
    def pass_on(event, context):
        context.emit("sick@echo", event.value)
        return b"passed on"
        """, {**dict.fromkeys(ECHO_SLOTS, []), "pass-on": ["sick@echo"]}))
        self.assertEqual(node.grape("exec", "sick@echo", "--data", "before", "--block").text.strip(), "before")
        self.assertEqual(node.terminate(), 0)
        # Somebody makes one of its topics anew, wrong.
        self.cluster.delete_topics(f"{self.namespace}sick.dead")
        with broker.Peer(self.cluster.address) as peer:
            peer.create_topic(f"{self.namespace}sick.dead", 7)

        node = self.serve("--config", self.config("n1"), data="n1")
        states = {app["name"]: app["state"] for app in node.grape("app", "list", "--json").json["apps"]}
        self.assertEqual(states, {"sick": "failed", "well": "running"})
        self.assertEqual(node.grape("exec", "well@echo", "--data", "on", "--block").text.strip(), "on")
        result = node.grape("exec", "sick@echo", "--data", "x", expect=UNAVAILABLE)
        self.assertIn("sick.dead has 7 partitions instead of 1", result.err.decode())
        self.assertIn("sick.dead has 7 partitions", node.grape("app", "start", "sick", expect=CONFLICT).err.decode())
        self.assertIn("sick.dead has 7 partitions", node.grape("stats").text)
        self.assertIn("unavailable", node.grape("state", "get", "sick", "x", expect=UNAVAILABLE).err.decode())
        # What others do goes on around it, and what they emit to it waits.
        self.assertEqual(node.grape("exec", "well@pass-on", "--data", "waiting", "--block").text.strip(), "passed on")
        node.deploy(self.python_app("third", ECHO, ECHO_SLOTS))
        node.grape("app", "restart", "well")
        node.grape("app", "stop", "sick")
        self.assertEqual(node.terminate(), 0)

        node = self.serve("--config", self.config("n1"), data="n1")
        self.cluster.delete_topics(f"{self.namespace}sick.dead")
        self.assertEqual(node.grape("app", "start", "sick", "--json").json["state"], "running")
        self.assertEqual(node.grape("exec", "sick@echo", "--data", "after", "--block").text.strip(), "after")
        node.wait_idle()
        self.assertIn("waiting", node.grape("tail", "sick", "--from", "beginning", "--no-follow").text)

    def test_commands_on_the_logs_files_say_that_there_are_none(self):
        node = self.serve("--config", self.config("n1"), data="n1")
        for words in (["verify"], ["dump"], ["verify", "--data", node.data], ["topics", "--data", node.data]):
            self.assertIn("works on Kafka", node.grape("log", *words, expect=CONFLICT).err.decode())
        self.assertEqual(node.terminate(), 0)
        self.assertIn("works on Kafka", self.grape("log", "repair", "--data", node.data, expect=CONFLICT).err.decode())

    def test_a_data_directory_stays_with_its_log(self):
        node = self.serve("--config", self.config("n1"), data="n1")
        self.assertEqual(node.terminate(), 0)
        result = self.grape("serve", "--data", node.data, "--name", "n1", expect=UNAVAILABLE)
        self.assertIn("is of a node on Kafka", result.err.decode())
        result = self.grape("serve", "--config", self.config("n1"), expect=UNAVAILABLE, GRAPE_SERVE_KAFKA_NAMESPACE="other.")
        self.assertIn(f'in the namespace "{self.namespace}"', result.err.decode())
        embedded = self.serve("--data", self.folder / "e", data="e")
        self.assertEqual(embedded.terminate(), 0)
        result = self.grape("serve", "--config", self.config("n1"), "--data", embedded.data, expect=UNAVAILABLE)
        self.assertIn("of a node with the embedded log", result.err.decode())
        # With its own log it starts again.
        self.serve("--config", self.config("n1"), data="n1")

    def test_workers_do_not_get_the_variables_of_secrets_whatever_their_profile_asks_for(self):
        path = self.config("n1", {"ssl.key.password": {"env": "KEY_PASSWORD"}})
        node = self.serve("--config", path, data="n1", KEY_PASSWORD=SECRET, OTHER="shown")
        code = """
            import os

            @app.on("env")
            def env(event, context):
                return repr(sorted(os.environ.items()))
        """
        node.deploy(self.python_app("env", code, ["env"], profile={"inherit-environment": ["KEY_PASSWORD", "OTHER", "PATH"]}))
        text = node.grape("exec", "env@env", "--block").text
        self.assertIn("shown", text)
        self.assertNotIn(SECRET, text)
        self.assertNotIn(SECRET, node.log.read_text())
        self.assertNotIn(SECRET, pathlib.Path(f"/proc/{node.process.pid}/cmdline").read_text())


if __name__ == "__main__":
    unittest.main()
