"""The bank of test_bank.py on two nodes, one of which is killed and stopped again and again, with workers of both."""

import json
import os
import signal
import unittest

from cluster import PATIENCE, ClusterCase, print_measured
from test_bank import ACCOUNTS, BRANCH, CLEARING, DEPOSIT, PARTITIONS, PROFILE, REGIONS, RULES, SAVINGS, balance
from test_bank import Auditor as BankAuditor

EMITS = {
    "savings": {"credit": []}, "clearing": {"take": ["savings@credit"]},
    "branch": {"open": [], "swap": [], "send": ["clearing@take"]},
}


class BankOnNodes(ClusterCase):
    def test_money_is_neither_lost_nor_made_while_nodes_and_workers_are_killed(self):
        chance = self.random
        n1, n2 = nodes = self.start_nodes(2)
        for name, code in (("savings", SAVINGS), ("clearing", CLEARING), ("branch", BRANCH)):
            n1.deploy(self.python_app(name, code, EMITS[name], profile=PROFILE, partitions=PARTITIONS))
            self.wait_spread(app=name, partitions=PARTITIONS)

        def account(region, number):
            return f"{region.decode()}/{number}"

        def execute(orders):
            """Sends events and waits until all of them are in the log, once each."""
            with n1.client(timeout=PATIENCE) as client:
                ids = [client.send_exec(f"branch@{slot}", json.dumps(order).encode(), key=key) for slot, key, order in orders]
                for id in ids:
                    answer = client.answer(id)
                    self.assertTrue(hasattr(answer, "offset"), f"seed {self.seed}: {answer}")

        execute(
            ("open", region, {"account": account(region, number), "amount": DEPOSIT})
            for region in REGIONS for number in range(ACCOUNTS))
        auditors = [BankAuditor(node) for node in nodes]
        for auditor in auditors:
            auditor.start()
        sent = swapped = 0
        for _ in range(int(os.environ.get("GRAPE_BANK_ROUNDS", 8))):
            orders = []
            for _ in range(chance.randint(200, 1000)):
                region, other = chance.choice(REGIONS), chance.choice(REGIONS)
                amount = chance.randint(1, 50)
                source = account(region, chance.randrange(ACCOUNTS))
                if chance.random() < 0.5:
                    target = account(region, chance.randrange(ACCOUNTS))
                    orders.append(("swap", region, {"from": source, "to": target, "amount": amount}))
                    swapped += 1
                else:
                    target = account(other, chance.randrange(ACCOUNTS))
                    orders.append(("send", region, {"from": source, "to": target, "region": other.decode(), "amount": amount}))
                    sent += amount
            execute(orders)
            for pid in (pid for node in nodes if node.process.poll() is None for pid in node.worker_pids()):
                if chance.random() < 0.3:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
            if n2.process.poll() is not None:
                n2.start()
            elif chance.random() < 0.5:
                n2.kill()
            elif chance.random() < 0.5:
                self.assertEqual(n2.terminate(timeout=30), 0, f"seed {self.seed}: {n2.tail()}")
        self.nodes = [node for node in nodes if node.process.poll() is None]
        for app in RULES:
            self.wait_spread(app=app, partitions=PARTITIONS)
        self.wait_all_idle()
        for auditor in auditors:
            auditor.enough.set()
            auditor.join(30)
        message = f"seed {self.seed}"
        self.assertEqual([wrong for auditor in auditors for wrong in auditor.wrong][:3], [], message)
        totals, money = {app: {} for app in RULES}, 0
        for app, rule in RULES.items():
            for partition in range(PARTITIONS):
                accounts, ledger = balance(
                    self.owner(partition, app).state(app, partition=partition, consistency="linearizable"))
                self.assertTrue(rule(accounts, ledger), f"{message}: {app}/{partition}: {accounts}, {ledger}")
                money += accounts
                for name, value in ledger.items():
                    totals[app][name] = totals[app].get(name, 0) + value
            self.assertEqual(n1.records(f"{app}.dead"), [], message)
        self.assertEqual(totals["branch"]["opened"], len(REGIONS) * ACCOUNTS * DEPOSIT, message)
        self.assertEqual((totals["branch"]["swaps"], totals["branch"]["out"]), (swapped, sent), message)
        self.assertEqual((totals["clearing"]["taken"], totals["savings"]["in"]), (sent, sent), message)
        self.assertEqual(money, len(REGIONS) * ACCOUNTS * DEPOSIT, message)
        print_measured("bank on two nodes", seed=self.seed, looks=sum(auditor.looks for auditor in auditors))


if __name__ == "__main__":
    unittest.main()
