"""Promises of the Python SDK about where state is read from: bases that catch up, grow and go, other partitions."""

import os
import shutil
import sys
import threading
import unittest

import fake_node
from lmdb_writer import entry
from state_rig import Rig, both, fail, put, quiet, readers, see, writes

import grape


class Bases(unittest.TestCase):
    @both
    def test_what_the_base_has_is_read_from_there(self, rig):
        rig.preset({"a": b"0"})
        seen = []
        results = [rig.run(put("a", str(number)), put(f"own{number}", "x")) for number in (1, 2, 3)]
        rig.apply(results[0])
        rig.run(see(seen, lambda s: (s.get("a"), list(s.keys()))))
        # The node removes an entry on its own account: what a result wrote there must not cover it.
        rig.apply(results[1])
        rig.write([(b"\0own1", None), (b"\0own2", entry(b"from outside"))])
        rig.run(see(seen, lambda s: (s.get("a"), s.get("own1"), s.get("own2"), list(s.keys()))))
        rig.apply(results[2])
        rig.write([(b"\0a", entry(b"outside"))])
        rig.run(see(seen, lambda s: (s.get("a"), list(s.keys()))))
        self.assertEqual(seen[0], (b"3", [b"a", b"own1", b"own2", b"own3"]))
        self.assertEqual(seen[1], (b"3", None, b"from outside", [b"a", b"own2", b"own3"]))
        self.assertEqual(seen[2], (b"outside", [b"a", b"own2", b"own3"]))
        self.assertEqual(rig.runner.states.parts[0].overlays[""].items, {}, "nothing is kept that the base has")

    @both
    def test_a_value_written_again_survives_the_base_in_between(self, rig):
        """The same value, then another, then the same object again: the base catching up must uncover none of them."""
        seen = []
        value = b"v"
        results = [rig.run(put("k", value)), rig.run(put("k", b"w")), rig.run(put("k", value))]
        for result in results:
            rig.apply(result)
            rig.run(see(seen, lambda s: s.get("k")))
        self.assertEqual(seen, [value] * 3)

    def test_the_view_of_a_delivery_stays_while_the_base_goes_on(self):
        with Rig() as rig:
            rig.preset({"a": b"1", "b": b"1"})
            seen = []

            def meanwhile(event, ctx):
                rig.preset({"a": b"2", "c": b"2"})
                seen.append((ctx.state.get("a"), list(ctx.state.keys())))

            rig.run(see(seen, lambda s: s.get("a")), meanwhile)
            rig.run(see(seen, lambda s: (s.get("a"), list(s.keys()))))
            self.assertEqual(seen, [b"1", (b"1", [b"a", b"b"]), (b"2", [b"a", b"b", b"c"])])

    def test_between_deliveries_no_view_is_held(self):
        with Rig() as rig:
            rig.preset({"a": b"1"})
            rig.preset({"a": b"1"}, partition=1)

            def step(event, ctx):
                ctx.state.get("a")
                ctx.state.partition(1).get("a")
                self.assertEqual([len(readers(rig, number)) for number in (0, 1)], [1, 1])

            rig.run(step)
            self.assertEqual([readers(rig, number) for number in (0, 1)], [["-"], ["-"]])
            with quiet():
                rig.deliver(lambda event, ctx: ctx.state.get("a") and fail(event, ctx))
            self.assertEqual(readers(rig, 0), ["-"])

    def test_an_environment_that_appears_later_is_found_with_the_next_delivery(self):
        with Rig() as rig:
            seen = []
            look = see(seen, lambda s: (s.get("a"), list(s.scan()), list(s.find("t")), s.size("a")))
            result = rig.run(look, put("b", "own"))
            os.mkdir(rig.path())
            rig.run(see(seen, lambda s: (s.get("a"), s.get("b"))))
            rig.apply(result)
            rig.preset({"a": b"1"})
            rig.run(see(seen, lambda s: (s.get("a"), list(s.keys()))))
            self.assertEqual(seen, [(None, [], [], None), (None, b"own"), (b"1", [b"a", b"b"])])

    def test_an_environment_without_databases_is_empty(self):
        with Rig() as rig:
            rig.writer()
            seen = []
            rig.run(see(seen, lambda s: list(s.scan())))
            rig.preset({"a": b"1"})
            rig.run(see(seen, lambda s: list(s.scan())))
            self.assertEqual(seen, [[], [(b"a", b"1")]])

    def test_an_environment_that_was_made_anew_is_opened_again(self):
        with Rig() as rig:
            rig.preset({"a": b"old"})
            seen = []
            rig.run(see(seen, lambda s: s.get("a")))
            rig.writers.pop(0).close()
            shutil.rmtree(rig.path())
            rig.run(see(seen, lambda s: s.get("a")))
            rig.preset({"a": b"new"})
            rig.run(see(seen, lambda s: s.get("a")))
            self.assertEqual(seen, [b"old", None, b"new"])

    def test_a_map_that_has_grown_is_followed(self):
        with Rig() as rig:
            rig.writer(map_size=1 << 18)
            rig.preset({"a": b"1"})
            seen = []
            rig.run(see(seen, lambda s: s.get("a")), see(seen, lambda s: s.get("a")))
            rig.writer().grow(64 << 20)
            rig.preset({f"k{number}": os.urandom(60_000) for number in range(300)})
            rig.run(see(seen, lambda s: (s.get("a"), len(s.get("k299")), sum(len(v) for _, v in s.scan("k")))))
            self.assertEqual(seen, [b"1", b"1", (b"1", 60_000, 300 * 60_000)])

    def test_another_process_writes(self):
        """The reader's lock is seen by a writer elsewhere: pages of the view are not used again."""
        with Rig() as rig:
            rig.preset({f"k{number:03}": b"first" * 100 for number in range(500)})
            rig.writers.pop(0).close()
            program = f"""
import sys
sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r})
from lmdb_writer import *
with Writer({rig.path()!r}) as writer:
    for round in range(30):
        writer.apply([(b"\\0k%03d" % n, entry(b"%05d" % round * 100)) for n in range(500)], 0)
"""
            seen = []

            def step(event, ctx):
                seen.append(ctx.state.get("k000"))
                fake_node.subprocess.run([sys.executable, "-c", program], check=True, timeout=fake_node.PATIENCE)
                seen.append({value for _, value in ctx.state.scan()})

            rig.run(step)
            rig.run(see(seen, lambda s: {value for _, value in s.scan()}))
            self.assertEqual(seen, [b"first" * 100, {b"first" * 100}, {b"00029" * 100}])

    def test_what_cannot_be_mapped_is_asked_for_and_the_log_says_so(self):
        def unwritable(rig):
            os.rename(os.path.join(rig.path(), "lock.mdb"), os.path.join(rig.path(), "elsewhere"))

        def newer(rig):
            writer = rig.writer()
            writer.begin()
            writer.put("meta", b"position", b"\0\2" + bytes(38))
            writer.check(writer.lmdb.mdb_txn_commit(writer.txn))

        def broken(rig):
            rig.writers.pop(0).close()
            with open(os.path.join(rig.path(), "data.mdb"), "r+b") as file:
                file.write(os.urandom(16384))

        for spoil, reason in ((unwritable, "lock.mdb"), (newer, "format 2"), (broken, "mdb_env_open")):
            with self.subTest(spoil=spoil.__name__), Rig() as rig:
                rig.preset({"a": b"1"})
                spoil(rig)
                seen = []
                with quiet() as report:
                    rig.run(see(seen, lambda s: (s.get("a"), list(s.scan()))), partition=0)
                    rig.run(see(seen, lambda s: s.get("a")), partition=1)
                self.assertEqual(seen, [(b"1", [(b"a", b"1")]), None])
                self.assertIn(reason, report.getvalue())
                self.assertEqual(report.getvalue().count("slower"), 1)
                # It is tried again after a pause, which the test makes pass.
                rig.writers.pop(0, None)
                shutil.rmtree(rig.path())
                rig.preset({"a": b"2"})
                rig.run(see(seen, lambda s: s.get("a")))
                self.assertIsInstance(rig.runner.states.parts[0].base, grape._Asking)
                rig.runner.states.parts[0].retry_at = 0
                rig.run(see(seen, lambda s: s.get("a")))
                self.assertEqual(seen[2:], [b"2", b"2"])
                self.assertIsInstance(rig.runner.states.parts[0].base, grape._Mapped)

    def test_a_worker_without_the_library_asks(self):
        with Rig() as rig:
            rig.preset({"a": b"1"})
            loader = grape._Lmdb
            seen = []

            def missing():
                raise grape._CannotMap("liblmdb is not installed")

            grape._Lmdb = missing
            try:
                with quiet() as report:
                    rig.run(see(seen, lambda s: s.get("a")))
            finally:
                grape._Lmdb = loader
            self.assertEqual(seen, [b"1"])
            self.assertIn("not installed", report.getvalue())

    def test_a_node_without_state_is_told_of(self):
        app = grape.Application()
        app.on("raw")(lambda event, ctx: ctx.state.get("a"))
        runner = grape._Runner(app._callables(), {"slots": ["raw"], "routes": {}}, app.log)
        body = fake_node.struct.pack(">iIqqI", 0, 1, 0, 1, 0) + fake_node.encode_batch([fake_node.event("raw")])
        with quiet():
            result = fake_node.Result(b"".join(grape._Worker(app)._drive(runner.run(grape._Delivery(1, body)))))
        self.assertIn("keeps no state", result.verdicts[0][4])

    def test_asking_costs_a_question_per_read_and_one_for_what_is_known(self):
        with Rig("ask") as rig:
            rig.preset({"a": b"1"})
            result = rig.run(lambda event, ctx: ctx.state.get("a"))
            self.assertEqual([asked[:6] for asked in rig.asked], [(1, False, 0, 0, 0, b"\0a")])
            rig.asked.clear()
            result = rig.run(put("a", "2"))
            self.assertEqual(rig.asked, [], "nothing was read")
            rig.run(lambda event, ctx: [ctx.state.get("a") for _ in range(5)])
            self.assertEqual(len(rig.asked), 1, "how far the base is")
            rig.apply(result)


class Elsewhere(unittest.TestCase):
    @both
    def test_another_partition_can_be_read_but_not_written(self, rig):
        rig.preset({"a": b"here"})
        rig.preset({"a": b"there", "b": b"x"}, partition=1)
        rig.preset({"s": b"session"}, partition=1, store="sessions")
        seen = []

        def step(event, ctx):
            view = ctx.state.partition(1)
            ctx.state.put("a", "mine")
            seen.append((
                view.get("a"), view.size("b"), "c" in view, list(view.scan()), view.get_many(["a", "c"]),
                view.read("a", 1, 2), ctx.store("sessions").partition(1).get("s"), ctx.state.partition(0).get("a"),
                hasattr(view, "put"),
            ))  # fmt: skip
            for number in range(20):
                key = str(number)
                owner = fake_node.murmur2_partition(key.encode(), 2)
                self.assertEqual(ctx.state.of(key).get("a"), b"there" if owner else b"mine")

        rig.run(step)
        self.assertEqual(
            seen,
            [(
                b"there", 1, False, [(b"a", b"there"), (b"b", b"x")], {b"a": b"there"},
                b"he", b"session", b"mine", False,
            )],
        )  # fmt: skip

    def test_another_partition_is_read_while_its_own_delivery_goes_on(self):
        """Handlers of two partitions take turns; each sees its own view, and the base of one grows meanwhile."""
        with Rig() as rig:
            rig.writer(1, map_size=1 << 18)
            rig.preset({"a": b"0"})
            rig.preset({"a": b"1"}, partition=1)
            seen = []
            foreign, own = [self.generator(rig, number) for number in (0, 1)]
            rig.steps = [lambda event, ctx: None]
            context_0, context_1 = foreign.context, own.context
            scan = context_0.state.partition(1).scan()
            seen.append(context_0.state.partition(1).get("a"))
            rig.writer(1).grow(64 << 20)
            rig.preset({"a": b"2", **{f"k{number:03}": os.urandom(50_000) for number in range(100)}}, partition=1)
            seen.append(context_1.state.get("a"))
            context_1.state.put("a", "3")
            seen += [context_0.state.partition(1).get("a"), context_1.state.get("a"), context_0.state.get("a")]
            seen.append(len(list(scan)))
            own.close()
            seen.append(context_0.state.partition(1).get("a"))
            foreign.close()
            self.assertEqual(seen, [b"1", b"2", b"2", b"3", b"0", 101, b"2"])
            self.assertEqual([readers(rig, number) for number in (0, 1)], [["-"], ["-"]])

    @staticmethod
    def generator(rig, partition):
        """A delivery that stands in the middle of its event."""

        class Standing:
            async def wait(self):
                pass

        waiting = Standing().wait()
        rig.steps = [lambda event, ctx: waiting]
        body = fake_node.struct.pack(">iIqqI", partition, 1, 0, 1, 0)
        delivery = grape._Delivery(1, body + fake_node.encode_batch([fake_node.event("do", b"0")]))
        steps = rig.runner.run(delivery)
        standing = Standing()
        next(steps)
        standing.context = delivery.context
        standing.close = lambda: (steps.close(), waiting.close())
        return standing

    def test_a_hook_reads_partitions_but_has_none(self):
        with Rig() as rig:
            rig.preset({"a": b"1"}, partition=1)
            seen = []

            def hook(ctx):
                seen.append((ctx.state.partition(1).get("a"), list(ctx.store("x").partition(0).scan()), ctx))
                for use in (
                    lambda: ctx.state.put("a", "1"), lambda: ctx.state.get("a"), lambda: ctx.state.remove("a"),
                    lambda: ctx.state.put_many({"a": "b"}), lambda: ctx.state.cas("a", None, "b"),
                    lambda: "a" in ctx.state,
                    lambda: ctx.state.append("a", "b"), lambda: ctx.state.scan(), lambda: ctx.store("x").put("a", "b"),
                ):  # fmt: skip
                    with self.assertRaisesRegex(RuntimeError, "hook"):
                        use()

            grape._call_hook(hook, rig.runner)
            self.assertEqual(seen[0][:2], (b"1", []))
            self.assertEqual(readers(rig, 1), ["-"])
            with self.assertRaisesRegex(RuntimeError, "has ended"):
                seen[0][2].state.partition(1)

            async def later(ctx):
                seen.append(ctx.state.partition(1).get("a"))

            rig.worker._complete(grape._call_hook(later, rig.runner))
            rig.worker._loop.close()
            self.assertEqual(seen[1], b"1")
            self.assertEqual(readers(rig, 1), ["-"])

    @both
    def test_a_store_that_is_kept_is_of_no_use(self, rig):
        rig.preset({"a": b"1", "b": b"2"})
        kept = []

        def keep(event, ctx):
            scan = ctx.state.scan(limit=1000)
            kept.append((ctx.state, ctx.store("x"), ctx.state.partition(1), scan, ctx, ctx.state.get))

        rig.run(keep)
        store, named, view, scan, context, get = kept[0]

        def later(event, ctx):
            for use in (
                lambda: store.get("a"), lambda: store.put("a", "b"), lambda: named.put("a", "b"), lambda: view.get("a"),
                lambda: list(scan), lambda: store.scan(), lambda: store.find("t"), lambda: store.remove("a"),
                lambda: context.state, lambda: context.store("x"), lambda: get("a"), lambda: store.get_many(["a"]),
                lambda: store.partition(1), lambda: store.of("a"), lambda: store.size("a"), lambda: store.read("a"),
            ):  # fmt: skip
                with self.assertRaisesRegex(RuntimeError, "has ended"):
                    use()

        result = rig.run(later)
        self.assertEqual(writes(result), [])

    @both
    def test_another_thread_is_refused(self, rig):
        rig.preset({"a": b"1"})
        rig.runner.states.ask = rig.worker._ask
        rig.worker.runner = rig.runner
        caught = []

        def elsewhere(use):
            def call():
                try:
                    use()
                except RuntimeError as error:
                    caught.append(str(error))

            thread = threading.Thread(target=call)
            thread.start()
            thread.join()

        def step(event, ctx):
            elsewhere(lambda: ctx.state)
            state = ctx.state
            elsewhere(lambda: state.get("a"))
            elsewhere(lambda: list(state.scan()))
            elsewhere(lambda: state.size("a"))
            elsewhere(lambda: state.partition(1))

        rig.run(step)
        self.assertEqual(len(caught), 5, caught)
        self.assertIn("thread that runs the handlers", caught[0])


if __name__ == "__main__":
    unittest.main()
