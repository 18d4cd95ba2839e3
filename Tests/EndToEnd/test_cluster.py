"""Several nodes share applications: what one is told holds for all, partitions are spread, and go from node to node without loss or doubling."""

import signal
import time
import unittest

from cluster import COUNT, PARTITIONS, PATIENCE, PROFILE, SESSION, Callers, ClusterCase, Load, key_of, print_measured
from protocol_client import Failure


class Cluster(ClusterCase):
    def test_an_application_deployed_at_one_node_runs_at_all_and_events_from_any_are_handled_once(self):
        n1, n2 = self.start_nodes(2)
        self.deploy_counter(n1)
        self.wait_spread()
        loads = [Load([node], node.name) for node in self.nodes]
        for load in loads:
            load.start()
        for load in loads:
            load.wait_for(1000)
            load.finish()
        self.wait_all_idle()
        self.assertEqual(self.check_counts(loads), sum(len(load.acknowledged) for load in loads))
        done = [
            sum(slot["processed"] for slot in self.stats(node, "count")["slots"] if slot["name"] == "in") for node in self.nodes
        ]
        self.assertTrue(all(done), f"both have worked: {done}")
        self.assertEqual(sum(done), sum(len(load.acknowledged) for load in loads))

    def test_a_blocking_call_at_any_node_is_answered_whichever_node_has_the_partition(self):
        self.start_nodes(2)
        self.deploy_counter(self.nodes[1])
        self.wait_spread()
        for partition in range(PARTITIONS):
            owner = self.owner(partition)
            for node in self.nodes:
                with self.subTest(partition=partition, owner=owner.name, asked=node.name), node.client() as client:
                    answer = client.exec("count@ask", b"%d" % partition, key=key_of(partition), block=True, timeout_ms=20_000)
                    self.assertEqual((answer.status, answer.value), (0, b"%d %d" % (partition, owner.process.pid)))

    def test_an_idempotency_key_holds_at_all_nodes(self):
        n1, n2 = self.start_nodes(2)
        self.deploy_counter(n1)
        self.wait_spread()
        for partition in range(PARTITIONS):
            key = (("idempotency-key", b"one of %d" % partition),)
            answers = []
            for node in (n1, n2, n1):
                with node.client() as client:
                    answers.append(client.exec(
                        "count@ask", b"%d" % partition, key=key_of(partition), block=True, timeout_ms=20_000, headers=key))
            self.assertEqual((answers[0].status, answers[1:]), (0, [answers[0]] * 2), f"partition {partition}")
        self.wait_all_idle()
        asked = [record for record in n1.records("count.events", "ask")]
        self.assertEqual(len(asked), PARTITIONS, "none was run twice")

    def test_an_idempotency_key_holds_when_its_requests_come_to_several_nodes_at_once(self):
        nodes = self.start_nodes(2)
        self.deploy_counter(nodes[0])
        self.wait_spread()
        count, rounds = 40, 5
        answers: dict[tuple[int, bool], list] = {}
        # All connections send the same, as fast as they can: non-blocking and blocking ones, each with a key of its own.
        clients = [self.enterContext(node.client(timeout=60)) for node in nodes for _ in range(2)]
        for client in clients:
            warm = lambda: client.exec("count@ask", b"warm", headers=(("idempotency-key", b"warm"),), block=True).status
            self.eventually(lambda: warm() == 0, "what is remembered of requests was read")
        for round in range(rounds):
            sent = []
            for number in range(round * count, (round + 1) * count):
                for blocking, event in ((True, "ask"), (False, "in")):
                    headers = (("idempotency-key", b"%d" % number),)
                    for client in clients:
                        id = client.send_exec(
                            f"count@{event}", b"%d" % number, b"k%d" % number, block=blocking, timeout_ms=60_000 * blocking,
                            headers=headers)
                        sent.append((client, id, number, blocking))
            for client, id, number, blocking in sent:
                answers.setdefault((number, blocking), []).append(client.answer(id))
        for (number, blocking), found in answers.items():
            self.assertEqual(found, found[:1] * len(clients), f"request {number}, blocking {blocking}")
            if blocking:
                self.assertEqual((found[0].status, found[0].value.split()[0]), (0, b"%d" % number))
        self.wait_all_idle()
        for event in ("ask", "in"):
            ran = sorted(int(record.value) for record in nodes[0].records("count.events", event) if record.value != b"warm")
            self.assertEqual(ran, list(range(count * rounds)), f"{event}: each ran once")

    def test_a_node_with_an_empty_disk_joins_and_serves(self):
        n1, n2 = self.start_nodes(2)
        self.deploy_counter(n1)
        self.wait_spread()
        load = Load([n1, n2], "load")
        load.start()
        load.wait_for(500)
        [n3] = self.start_nodes(1)
        self.wait_spread()
        with n3.client() as client:
            self.assertEqual([app["name"] for app in client.request("app.list")["apps"]], ["count"])
            for partition in range(PARTITIONS):
                answer = client.exec("count@ask", b"%d" % partition, key=key_of(partition), block=True, timeout_ms=20_000)
                self.assertEqual(answer.status, 0, f"partition {partition}: {answer}")
        self.eventually(
            lambda: any(slot["processed"] for slot in self.stats(n3, "count")["slots"] if slot["name"] == "in"), "n3 works", PATIENCE)
        load.finish()
        self.wait_all_idle()
        self.check_counts([load], node=n3)

    def test_a_node_that_is_stopped_hands_over_at_once(self):
        n1, n2, n3 = self.start_nodes(3)
        self.deploy_counter(n1)
        self.wait_spread()
        callers = Callers(n1)
        load = Load([n1], "load")
        load.start()
        load.wait_for(500)
        for node in (n3, n2):
            had = self.assigned(node)
            before = [callers.answers(partition) for partition in range(PARTITIONS)]
            began = time.monotonic()
            self.assertEqual(node.terminate(timeout=30), 0, node.tail())
            stopped = time.monotonic() - began
            self.eventually(
                lambda: all(callers.answers(partition) > before[partition] + 3 for partition in range(PARTITIONS)),
                "all partitions go on", PATIENCE)
            gap = callers.longest_gap(began)
            print_measured("node stopped in order", partitions=len(had), stop_s=round(stopped, 2), longest_gap_s=round(gap, 2))
            # Under a second on a machine that does nothing else; less than the session, in any case: it has said good-bye.
            self.assertLess(gap, SESSION - 1)
        callers.finish()
        load.finish()
        self.nodes = [n1]
        self.wait_spread()
        self.wait_all_idle()
        self.check_counts([load])

    def test_a_handler_that_takes_longer_than_the_session_keeps_its_partition(self):
        code = COUNT.replace("import os", "import os, time") + """
    @app.on("slow")
    def slow(event, context):
        context.state.put(event.key, str(int(context.state.get(event.key, b"0")) + 1))
        time.sleep(float(event.text))
        return "slept"
"""
        n1, n2 = self.start_nodes(2)
        slots = {"in": ["out"], "out": [], "ask": [], "slow": []}
        n1.deploy(self.python_app("count", code, slots, profile=PROFILE, partitions=PARTITIONS))
        self.wait_spread()
        before = [self.assigned(node) for node in self.nodes]
        for node, partitions in zip(self.nodes, before):
            partition = min(partitions)
            with n1.client(timeout=60) as client:
                answer = client.exec(
                    "count@slow", b"%f" % (SESSION * 1.7), key=key_of(partition), block=True, timeout_ms=60_000)
            self.assertEqual((answer.status, answer.value), (0, b"slept"))
            self.assertEqual([self.assigned(node) for node in self.nodes], before, "nobody was put out")
            [entry] = node.state("count", partition=partition, consistency="linearizable")
            self.assertEqual(entry.value, b"1", "it ran once")

    def test_state_is_read_and_written_through_any_node(self):
        n1, n2 = self.start_nodes(2)
        self.deploy_counter(n1)
        self.wait_spread()
        large = self.random.randbytes(3 << 20)
        written = {b"%d-%d" % (partition, number): b"%d" % number for partition in range(PARTITIONS) for number in range(20)}
        with n1.client(timeout=60) as client:
            for key, value in written.items():
                write = {"op": "put", "key": key.decode(), "size": len(value), "tags": ["even"] if int(value) % 2 == 0 else []}
                client.request("state.write", value, app="count", partition=int(key.split(b"-")[0]), writes=[write])
            write = {"op": "put", "key": "large", "size": len(large)}
            client.request("state.write", large, app="count", partition=next(iter(self.assigned(n2))), writes=[write])
        for node in self.nodes:
            with self.subTest(node.name):
                found = {entry.key: entry.value for entry in node.state("count")}
                self.assertEqual(found, {**written, b"large": large})
                self.assertEqual(
                    [entry.key for entry in node.state("count", prefix="3-", descending=True, limit=3, keysOnly=True)],
                    sorted((key for key in written if key.startswith(b"3-")), reverse=True))
                self.assertEqual(
                    {entry.key for entry in node.state("count", tags=["even"], partition=2)},
                    {key for key, value in written.items() if key.startswith(b"2-") and int(value) % 2 == 0})
                for partition in range(PARTITIONS):
                    shown = node.grape("state", "get", "count", f"{partition}-7", "--partition", str(partition)).text
                    self.assertEqual(shown.strip(), "7")
                self.assertEqual(node.state("count", key="nobody", partition=1), [])
        # Whoever was told that it is written, the other node sees it.
        clients = [node.client(timeout=60) for node in self.nodes]
        try:
            for number in range(60):
                writer, reader = self.random.sample(clients, 2)
                partition, value = self.random.randrange(PARTITIONS), b"new %d" % number
                write = {"op": "put", "key": "turn", "size": len(value)}
                writer.request("state.write", value, app="count", partition=partition, writes=[write])
                members = {"app": "count", "partition": partition, "key": "turn", "consistency": "linearizable"}
                self.assertEqual(reader.request_with_blob("state.read", **members)[1], value, f"seed {self.seed}, {number}")
        finally:
            for client in clients:
                client.close()
        # What nobody can answer is told in time, and why.
        with n1.client(timeout=60) as client:
            elsewhere = next(iter(self.assigned(n2)))
            n2.process.send_signal(signal.SIGSTOP)
            try:
                with self.assertRaises(Failure) as refused:
                    client.request_once("state.read", app="count", partition=elsewhere, key="turn", timeoutMs=300)
            finally:
                n2.process.send_signal(signal.SIGCONT)
            self.assertIn("has not answered within", refused.exception.message)
            n1.grape("app", "stop", "count")
            self.eventually(lambda: self.app(n1)["state"] == "stopped", "the application is stopped", PATIENCE)
            with self.assertRaises(Failure) as refused:
                client.request_once("state.read", app="count", partition=elsewhere, key="turn")
            self.assertIn("while it is stopped", refused.exception.message)

    def test_what_one_node_is_told_takes_effect_at_all(self):
        n1, n2 = self.start_nodes(2)
        self.deploy_counter(n1)
        self.wait_spread()
        first = self.app(n2)["version"]

        # Another version, deployed at the other node.
        self.deploy_counter(n2, code=COUNT.replace('{event.text} {os.getppid()}', 'new {event.text}'))
        self.eventually(lambda: self.app(n1)["version"] == self.app(n2)["version"] != first, "both have the new version", PATIENCE)
        self.wait_spread()
        for partition in range(PARTITIONS):
            self.eventually(lambda: self.ask(n1, partition) == b"new %d" % partition, f"partition {partition} runs it", PATIENCE)

        n1.grape("app", "stop", "count")
        self.eventually(lambda: self.app(n2)["state"] == "stopped", "it has stopped at the other node", PATIENCE)
        load = Load([n2], "load")
        load.start()
        load.wait_for(100)
        load.finish()
        n2.grape("app", "start", "count")
        self.eventually(lambda: self.app(n1)["state"] == "running", "it has started at the other node", PATIENCE)
        self.wait_all_idle()
        self.check_counts([load])

        n2.grape("app", "remove", "count")
        self.eventually(lambda: self.app(n1) is None, "it is gone at the other node", PATIENCE)
        self.assertNotEqual(n1.grape("exec", "count@in", "--data", "x", expect=None).code, 0)

    def test_every_node_shows_all_of_them_and_who_has_which_partitions(self):
        n1, n2, n3 = self.start_nodes(3)
        self.deploy_counter(n1)
        self.wait_spread()

        def shown(node):
            return {found["node"]: found for found in node.grape("cluster", "--json").json["nodes"]}

        def partitions(found):
            return {
                name: {partition["partition"] for app in node.get("apps", []) for partition in app["partitions"]}
                for name, node in found.items() if node["condition"] == "up"
            }

        for node in self.nodes:
            self.eventually(
                lambda: partitions(shown(node)) == {other.name: self.assigned(other) for other in self.nodes},
                f"{node.name} shows who has what", PATIENCE)
        self.assertIn("n3", n1.grape("cluster").text)
        n2.terminate(timeout=30)
        n3.kill()
        self.nodes = [n1]
        conditions = {"n1": "up", "n2": "left", "n3": "silent"}
        self.eventually(
            lambda: {name: found["condition"] for name, found in shown(n1).items()} == conditions, "who is gone is shown", PATIENCE)
        self.wait_spread()
        self.eventually(lambda: partitions(shown(n1)) == {"n1": set(range(PARTITIONS))}, "all is with the one that is left", PATIENCE)

    def app(self, node):
        with node.client() as client:
            return next((app for app in client.request("app.list")["apps"] if app["name"] == "count"), None)

    def ask(self, node, partition):
        with node.client() as client:
            answer = client.exec("count@ask", b"%d" % partition, key=key_of(partition), block=True, timeout_ms=20_000)
            return answer.value


if __name__ == "__main__":
    unittest.main()
