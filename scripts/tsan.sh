#!/bin/sh
# Runs the tests of what has threads under the thread sanitizer.
#
#   scripts/tsan.sh                  the log, the engine with its reactor and workers, the client, the Swift SDK
#   scripts/tsan.sh tests FILTER     tests whose names match, as for swift test --filter
#   scripts/tsan.sh nodes [PATTERN]  whole nodes: the end-to-end tests in Tests/EndToEnd that match (test_protocol.py)
#
# scripts/tsan_mutex.c makes contended mutexes known to the sanitizer. What is not a race of ours would be listed, with the
# reason, in scripts/tsan.suppressions. Exit code: 0 if no race was reported and no test failed.
set -eu
cd "$(dirname "$0")/.."
build=$PWD/.build-tsan
reports=$build/reports

${SWIFT:-swift} build --build-tests --sanitize=thread --scratch-path "$build"
${CC:-clang} -shared -fPIC -O1 -Wall -o "$build/libtsan_mutex.so" scripts/tsan_mutex.c

options="suppressions=$PWD/scripts/tsan.suppressions exitcode=66 second_deadlock_stack=1"
case "${1:-tests}" in
  tests)
    TSAN_OPTIONS=$options LD_PRELOAD=$build/libtsan_mutex.so \
      ${SWIFT:-swift} test --skip-build --sanitize=thread --scratch-path "$build" --disable-xctest \
      --filter "${2:-GrapeLogTests|GrapeEngineTests|GrapeTests|GrapeClientTests}"
    ;;
  nodes)
    # The tests end nodes in many ways: reports are collected in files.
    rm -rf "$reports"
    mkdir -p "$reports"
    status=0
    GRAPE=$build/debug/grape TSAN_OPTIONS="$options log_path=$reports/report" LD_PRELOAD=$build/libtsan_mutex.so \
      python3 -B -m unittest discover -s Tests/EndToEnd -p "${2:-test_protocol.py}" || status=1
    for report in "$reports"/*; do
      [ -e "$report" ] || continue
      cat "$report"
      status=1
    done
    exit $status
    ;;
  *)
    sed -n '2,11s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
