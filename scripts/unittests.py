#!/usr/bin/env python3
"""Runs the unittest tests of a folder and writes what came of them to a file, for test.py.

  unittests.py COUNTS FOLDER PATTERN...   COUNTS: "passed failed skipped"; a test with failed subtests counts once
"""

import pathlib
import sys
import unittest


class Counted(unittest.TextTestResult):
    """Knows which tests failed, however often each of them did."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.failed = set()

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self.failed.add(test.id())

    def addError(self, test, error):
        super().addError(test, error)
        self.failed.add(test.id())

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error is not None:
            self.failed.add(test.id())

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.failed.add(test.id())


def main():
    counts, folder, *patterns = sys.argv[1:]
    tests = unittest.TestSuite(unittest.defaultTestLoader.discover(folder, pattern=pattern) for pattern in patterns)
    result = unittest.TextTestRunner(resultclass=Counted, verbosity=2, stream=sys.stdout).run(tests)
    failed, skipped = len(result.failed), len(result.skipped)
    if result.testsRun == 0 and failed == 0:
        print(f"no tests in {folder} match {' or '.join(patterns)}")
        failed = 1
    passed = max(0, result.testsRun - failed - skipped)
    pathlib.Path(counts).write_text(f"{passed} {failed} {skipped}\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
