"""Money moves between accounts by chains of events over three applications, while handlers fail and workers and the node are killed:
no read ever shows a sum that is not right, and in the end nothing is lost and nothing is there twice."""

import json
import os
import random
import signal
import threading
import unittest

from node import EndToEnd
from protocol_client import Failure

FAULTS = """
    import json, os, random

    FAULTS = random.Random()

    def perhaps_fail():
        chance = FAULTS.random()
        if chance < 0.005:
            os._exit(9)
        if chance < 0.02:
            raise RuntimeError("the handler fails after it has written")
        if chance < 0.03:
            raise Retry(0.005)

    def add(store, key, amount):
        store.put(key, str(int(store.get(key, b"0")) + amount))
"""

#: Accounts of customers. What leaves is noted in the same commit, so accounts + out = opened, at any time.
BRANCH = FAULTS + """
    @app.on("open")
    def open_account(event, ctx):
        order = json.loads(event.value)
        ctx.state.put("acc/" + order["account"], str(order["amount"]))
        add(ctx.state, "opened", order["amount"])

    @app.on("swap")
    def swap(event, ctx):
        order = json.loads(event.value)
        add(ctx.state, "acc/" + order["from"], -order["amount"])
        add(ctx.state, "acc/" + order["to"], order["amount"])
        add(ctx.state, "swaps", 1)
        perhaps_fail()

    @app.on("send")
    def send(event, ctx):
        order = json.loads(event.value)
        add(ctx.state, "acc/" + order["from"], -order["amount"])
        add(ctx.state, "out", order["amount"])
        ctx.emit("clearing@take", event.value, key=order["region"])
        perhaps_fail()
"""

#: Passes on what it takes: taken = passed, at any time.
CLEARING = FAULTS + """
    @app.on("take")
    def take(event, ctx):
        order = json.loads(event.value)
        add(ctx.state, "taken", order["amount"])
        ctx.emit("savings@credit", event.value, key=order["region"])
        perhaps_fail()
        add(ctx.state, "passed", order["amount"])
"""

#: accounts = in, at any time.
SAVINGS = FAULTS + """
    @app.on("credit")
    def credit(event, ctx):
        order = json.loads(event.value)
        add(ctx.state, "in", order["amount"])
        perhaps_fail()
        add(ctx.state, "acc/" + order["to"], order["amount"])
        add(ctx.state, "credits", 1)
"""

PROFILE = {"retry": {"attempts": 1000, "backoff": "2ms", "max-backoff": "20ms"}, "workers": {"min": 1, "max": 2}}
PARTITIONS = 2
REGIONS = [b"r%d" % number for number in range(6)]
ACCOUNTS = 5
DEPOSIT = 1000


def balance(entries):
    """The accounts' sum, and the ledger beside them."""
    ledger = {entry.key.decode(): int(entry.value) for entry in entries if not entry.key.startswith(b"acc/")}
    return sum(int(entry.value) for entry in entries if entry.key.startswith(b"acc/")), ledger


#: What must hold in each partition of each application, whenever it is looked at.
RULES = {
    "branch": lambda accounts, ledger: accounts + ledger.get("out", 0) == ledger.get("opened", 0),
    "clearing": lambda accounts, ledger: ledger.get("taken", 0) == ledger.get("passed", 0),
    "savings": lambda accounts, ledger: accounts == ledger.get("in", 0),
}


class Auditor(threading.Thread):
    """Looks at every partition, again and again."""

    def __init__(self, node):
        super().__init__(daemon=True)
        self.node, self.enough = node, threading.Event()
        self.looks, self.wrong = 0, []

    def run(self):
        while not self.enough.is_set():
            for app, rule in RULES.items():
                for partition in range(PARTITIONS):
                    try:
                        accounts, ledger = balance(self.node.state(app, partition=partition))
                    except (OSError, AssertionError, RuntimeError, Failure):
                        continue  # the node is down, or restores, or another has the partition
                    self.looks += 1
                    if not rule(accounts, ledger):
                        self.wrong.append((app, partition, accounts, ledger))


class Bank(EndToEnd):
    def test_money_is_neither_lost_nor_made_while_everything_is_killed(self):
        seed = int(os.environ.get("GRAPE_SEED", random.randrange(1 << 30)))
        chance = random.Random(seed)
        node = self.running_node()
        emits = {"branch": {"open": [], "swap": [], "send": ["clearing@take"]}, "clearing": {"take": ["savings@credit"]},
                 "savings": {"credit": []}}
        for name, code in (("savings", SAVINGS), ("clearing", CLEARING), ("branch", BRANCH)):
            node.deploy(self.python_app(name, code, emits[name], profile=PROFILE, partitions=PARTITIONS))

        def account(region, number):
            return f"{region.decode()}/{number}"

        def execute(orders):
            """Sends events and waits until all of them are in the log, once each."""
            with node.client(timeout=60) as client:
                ids = [client.send_exec(f"branch@{slot}", json.dumps(order).encode(), key=key) for slot, key, order in orders]
                for id in ids:
                    self.assertTrue(hasattr(client.answer(id), "offset"))

        execute(
            ("open", region, {"account": account(region, number), "amount": DEPOSIT})
            for region in REGIONS for number in range(ACCOUNTS))
        auditor = Auditor(node)
        auditor.start()
        sent = swapped = 0
        rounds = int(os.environ.get("GRAPE_BANK_ROUNDS", 8))
        for number in range(rounds):
            orders = []
            for _ in range(chance.randint(200, 1500)):
                region = chance.choice(REGIONS)
                amount = chance.randint(1, 50)
                source = account(region, chance.randrange(ACCOUNTS))
                if chance.random() < 0.5:
                    orders.append(("swap", region, {"from": source, "to": account(region, chance.randrange(ACCOUNTS)), "amount": amount}))
                    swapped += 1
                else:
                    other = chance.choice(REGIONS)
                    orders.append(("send", region, {
                        "from": source, "to": account(other, chance.randrange(ACCOUNTS)), "region": other.decode(), "amount": amount}))
                    sent += amount
            execute(orders)
            for pid in node.worker_pids():
                if chance.random() < 0.5:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
            if chance.random() < 0.6:
                node.kill()
                node.start()
        node.wait_idle("120s")
        auditor.enough.set()
        auditor.join(30)
        message = f"seed {seed}: {node.tail()}"
        self.assertEqual(auditor.wrong[:3], [], message)
        self.assertGreater(auditor.looks, rounds, message)
        books = {app: balance(node.state(app, consistency="linearizable")) for app in RULES}
        totals = {app: {} for app in RULES}
        for app in RULES:
            for partition in range(PARTITIONS):
                for name, value in balance(node.state(app, partition=partition))[1].items():
                    totals[app][name] = totals[app].get(name, 0) + value
        self.assertEqual(totals["branch"]["opened"], len(REGIONS) * ACCOUNTS * DEPOSIT, message)
        self.assertEqual(totals["branch"]["swaps"], swapped, message)
        self.assertEqual(totals["branch"]["out"], sent, message)
        self.assertEqual((totals["clearing"]["taken"], totals["clearing"]["passed"]), (sent, sent), message)
        self.assertEqual(totals["savings"]["in"], sent, message)
        self.assertEqual(books["branch"][0] + books["savings"][0], len(REGIONS) * ACCOUNTS * DEPOSIT, message)
        for app in RULES:
            self.assertEqual(node.records(f"{app}.dead"), [], message)


if __name__ == "__main__":
    unittest.main()
