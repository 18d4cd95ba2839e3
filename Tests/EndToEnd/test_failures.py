"""Handlers that fail, hang or take their worker with them."""

import json
import time
import unittest

import wire
from node import GAVE_UP, HANDLER_ERROR, EndToEnd

QUICK_RETRY = {"attempts": 3, "backoff": "50ms", "max-backoff": "200ms"}


class Failures(EndToEnd):
    def deploy(self, code, slots, **profile):
        self.node = self.running_node()
        profile.setdefault("retry", QUICK_RETRY)
        self.node.deploy(self.python_app("trouble", code, slots, profile=profile))

    def dead(self):
        """Value and g.x of each dead letter."""
        return [(record.value, json.loads(record.header("g.x"))) for record in self.node.records("trouble.dead")]

    def test_an_event_that_kills_its_worker_is_set_aside_and_the_others_go_on(self):
        code = """
            import os

            @app.on("in")
            def receive(event, context):
                if event.text == "poison":
                    os._exit(9)
                context.emit("out", event.value, key=event.key)

            @app.on("out")
            def done(event, context):
                pass
        """
        self.deploy(code, {"in": ["out"], "out": []}, workers={"min": 0, "max": 1})
        values = [b"%d" % number for number in range(200)]
        values[100] = b"poison"
        with self.node.client() as client:
            for value in values:
                client.exec("trouble@in", value, key=b"one key, one partition")
        self.node.wait_idle("60s")
        through = [record.value for record in self.node.records("trouble.events", "out")]
        self.assertEqual(through, [value for value in values if value != b"poison"])
        [(value, why)] = self.dead()
        self.assertEqual(value, b"poison")
        self.assertTrue(why)
        self.assertEqual(self.node.app_stats("trouble")["deadLetters"], 1)

    def test_events_of_other_partitions_do_not_pay_for_one_that_kills_the_worker(self):
        code = """
            import os

            @app.on("in")
            def receive(event, context):
                if event.text == "poison":
                    os._exit(9)
        """
        self.deploy(code, ["in"], workers={"min": 1, "max": 1})
        keys = {wire.partition_of(b"k%d" % number, 4): b"k%d" % number for number in range(100)}
        self.node.grape("app", "stop", "trouble")  # so that all of them are delivered at once
        with self.node.client() as client:
            client.exec("trouble@in", b"poison", key=keys[0])
            for partition in (1, 2, 3):
                client.exec("trouble@in", b"innocent", key=keys[partition])
        self.node.grape("app", "start", "trouble")
        self.node.wait_idle("60s")
        self.assertEqual([value for value, _ in self.dead()], [b"poison"])

    def test_a_failing_event_is_tried_as_often_as_the_profile_says_and_then_a_dead_letter(self):
        code = """
            @app.on("in")
            def receive(event, context):
                print("trying", event.text, flush=True)
                if event.text == "bad":
                    raise ValueError("cannot be")
        """
        self.deploy(code, ["in"])
        with self.node.client() as client:
            for value in (b"first", b"bad", b"last"):
                client.exec("trouble@in", value, key=b"k")
        self.node.wait_idle("30s")
        [(value, why)] = self.dead()
        self.assertEqual(value, b"bad")
        self.assertIn("cannot be", json.dumps(why))
        self.eventually(lambda: "trying last" in self.logs(), "the log has all lines")
        self.assertEqual(self.logs().count("trying bad"), 3)
        self.assertEqual(self.logs().count("trying last"), 1)

    def test_a_rejected_event_is_not_tried_again(self):
        code = """
            @app.on("in")
            def receive(event, context):
                print("trying", event.text, flush=True)
                raise Reject(7, "never")
        """
        self.deploy(code, ["in"])
        with self.node.client() as client:
            client.exec("trouble@in", b"x")
            self.node.wait_idle("30s")
            [(value, why)] = self.dead()
            self.assertEqual(value, b"x")
            self.assertIn("never", json.dumps(why))
            self.assertEqual(self.logs().count("trying x"), 1)
            reply = client.exec("trouble@in", b"y", block=True, timeout_ms=10_000)
            self.assertEqual((reply.status, reply.code, reply.message), (1, 7, "never"))
        self.assertEqual(len(self.dead()), 1, "who waits gets the answer; there is no dead letter then")

    def test_a_handler_may_ask_to_be_run_again_later(self):
        code = """
            import time
            seen = []

            @app.on("in")
            def receive(event, context):
                seen.append(time.monotonic())
                if len(seen) < 3:
                    raise Retry(0.2)
                context.emit("out", str(min(b - a for a, b in zip(seen, seen[1:]))))

            @app.on("out")
            def done(event, context):
                pass
        """
        self.deploy(code, {"in": ["out"], "out": []}, workers={"min": 1, "max": 1}, retry={**QUICK_RETRY, "attempts": 10})
        with self.node.client() as client:
            client.exec("trouble@in", b"x")
        self.node.wait_idle("30s")
        [record] = self.node.records("trouble.events", "out")
        self.assertGreaterEqual(float(record.value), 0.19)
        self.assertEqual(self.dead(), [])

    def test_what_a_failing_handler_emitted_is_not_sent(self):
        code = """
            @app.on("in")
            def receive(event, context):
                context.emit("out", event.value)
                raise Reject(1, "after all, no")

            @app.on("out")
            def done(event, context):
                pass
        """
        self.deploy(code, {"in": ["out"], "out": []})
        with self.node.client() as client:
            client.exec("trouble@in", b"x")
        self.node.wait_idle("30s")
        self.assertEqual(self.node.records("trouble.events", "out"), [])

    def test_a_stuck_worker_is_killed_and_the_others_go_on(self):
        code = """
            import time

            @app.on("in")
            def receive(event, context):
                if event.text == "stuck":
                    time.sleep(3600)
                return event.value
        """
        self.deploy(
            code, ["in"], **{"request-timeout": "1s", "heartbeat": "200ms"}, workers={"min": 0, "max": 1},
            retry={"attempts": 1},
        )
        with self.node.client(timeout=40) as client:
            client.exec("trouble@in", b"stuck", key=b"k")
            begin = time.monotonic()
            reply = client.exec("trouble@in", b"next", key=b"k", block=True, timeout_ms=30_000)
            self.assertEqual((reply.status, reply.value), (0, b"next"))
            self.assertLess(time.monotonic() - begin, 20)
        self.assertEqual([value for value, _ in self.dead()], [b"stuck"])

    def test_a_handler_that_computes_for_long_is_not_taken_for_dead(self):
        # Silence is three heartbeats. On a busy machine a thread may have to wait for a second until it runs, so they are not short.
        code = """
            import time

            @app.on("in")
            def receive(event, context):
                end = time.monotonic() + 8
                while time.monotonic() < end:
                    pass
                return "done"
        """
        self.deploy(code, ["in"], heartbeat="1s")
        self.assertEqual(self.node.grape("exec", "trouble@in", "--block", "--timeout", "60s").text, "done")
        self.assertEqual(self.node.app_stats("trouble")["workers"]["restarts"], 0,
                         self.node.grape("app", "logs", "trouble").text)

    def test_a_caller_whose_event_kills_the_worker_gets_an_answer(self):
        code = """
            import os

            @app.on("in")
            def receive(event, context):
                os._exit(9)
        """
        self.deploy(code, ["in"], retry={"attempts": 1})
        result = self.node.grape("exec", "trouble@in", "--block", "--timeout", "30s", expect=None)
        self.assertIn(result.code, (GAVE_UP, HANDLER_ERROR), result)

    def test_an_emit_that_the_manifest_does_not_know_fails(self):
        code = """
            @app.on("in")
            def receive(event, context):
                context.emit("nowhere", "x")
        """
        self.deploy(code, ["in"])
        result = self.node.grape("exec", "trouble@in", "--block", "--timeout", "10s", expect=HANDLER_ERROR)
        self.assertIn("nowhere", result.err.decode())

    def test_a_loop_ends_at_the_hop_limit(self):
        code = """
            @app.on("again")
            def again(event, context):
                context.emit("again", event.value)
        """
        self.deploy(code, {"again": ["again"]})
        with self.node.client() as client:
            client.exec("trouble@again", b"round and round")
        self.node.wait_idle("30s")
        self.assertEqual(len(self.dead()), 1)
        self.assertLess(len(self.node.records("trouble.events")), 300)

    def logs(self):
        return self.node.grape("app", "logs", "trouble").text


if __name__ == "__main__":
    unittest.main()
