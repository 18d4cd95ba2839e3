#!/bin/sh
# Runs the flights example from an empty node to a checked result.
#
#   GRAPE=path/to/grape Examples/flights/demo.sh          January: 27,004 flights, nothing to download
#   FULL=1 GRAPE=... Examples/flights/demo.sh             the year: 336,776 flights, fetched once
#   CHAOS=1 GRAPE=... Examples/flights/demo.sh            workers and the node are killed all the while; the totals stay right
#
# `make demo` builds grape and calls this. The node and its data live in a temporary folder and are gone afterwards.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
grape=${GRAPE:-$root/.build/release/grape}
node_pid=
chaos_pid=

fail() {
  echo "demo: $*" >&2
  exit 1
}

step() {
  printf '\n== %s\n' "$*"
}

[ -x "$grape" ] || fail "no grape at $grape; build it (make build) or set GRAPE"
grape=$(cd "$(dirname "$grape")" && pwd)/$(basename "$grape")
for tool in python3 zstd pgrep shuf; do
  command -v "$tool" >/dev/null || fail "$tool is not installed (Debian packages: python3, zstd, procps, coreutils)"
done

work=$(mktemp -d)
GRAPE_NODE="$work/data"
export GRAPE_NODE

finish() {
  code=$?
  trap - EXIT INT TERM
  if [ -n "$chaos_pid" ]; then kill "$chaos_pid" 2>/dev/null || true; fi
  if [ -n "$node_pid" ] && kill -0 "$node_pid" 2>/dev/null; then
    kill -TERM "$node_pid" 2>/dev/null || true
    wait "$node_pid" 2>/dev/null || true
  fi
  if [ "$code" -ne 0 ] && [ -s "$work/node.log" ]; then
    echo "-- the node's last words:" >&2
    tail -n 20 "$work/node.log" >&2
  fi
  rm -rf "$work"
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ "${FULL:-0}" = 1 ]; then
  "$here/data/fetch_full_year.sh"
  flights="$here/data/flights.csv"
else
  flights="$work/flights-2013-01.csv"
  zstd -d -q "$here/data/flights-2013-01.csv.zst" -o "$flights"
fi

start_node() {
  "$grape" serve --data "$GRAPE_NODE" >>"$work/node.log" 2>&1 &
  node_pid=$!
  "$grape" node wait --timeout 30s
}

# Kills workers, again and again: whatever they were at is run again by others.
kill_workers() {
  while sleep 0.3; do
    node=$(pgrep -o -f "serve --data $GRAPE_NODE") || continue
    worker=$(pgrep -P "$node" | shuf -n 1)
    if [ -n "$worker" ] && kill -KILL "$worker" 2>/dev/null; then echo "killed $worker" >>"$work/chaos.log"; fi
  done
}

# Runs a command that talks to the node; if the node was killed meanwhile, starts it and the command again.
through_chaos() {
  for attempt in 1 2 3 4 5 6 7 8 9 10; do
    if "$@"; then return 0; fi
    [ "${CHAOS:-0}" = 1 ] || return 1
    if ! "$grape" node wait --timeout 1s >/dev/null 2>&1; then
      wait "$node_pid" 2>/dev/null || true
      echo "the node was killed; it is started again"
      start_node
    fi
  done
  return 1
}

step "A node"
start_node

step "Two applications: stats (Swift) and flights (Python), which emits to it"
"$grape" deploy "$here/stats"
"$grape" deploy "$here/flights"
"$grape" topology

if [ "${CHAOS:-0}" = 1 ]; then
  step "Chaos: workers are killed all the while, the node a few times"
  kill_workers &
  chaos_pid=$!
  (
    for pause in 1 2 3; do
      sleep "$pause"
      pkill -KILL -f "serve --data $GRAPE_NODE" || true
    done
  ) &
fi

step "Every row of $(basename "$flights") becomes an event"
through_chaos "$grape" ingest flights@raw "$flights" --key-field carrier --resume --state "$work/ingest.state"

step "Until all of them have gone through"
through_chaos "$grape" stats --wait-idle --timeout 300s

if [ -n "$chaos_pid" ]; then
  kill "$chaos_pid" 2>/dev/null || true
  chaos_pid=
  echo "killed: $(grep -c '^killed' "$work/chaos.log" || true) workers, the node $(($(grep -c 'node ready' "$work/node.log") - 1)) times"
  through_chaos "$grape" stats --wait-idle --timeout 60s
fi

step "Carriers by median arrival delay"
"$grape" exec stats@ranking --block --timeout 10s
step "The ten routes with the smallest mean arrival delay"
"$grape" exec stats@ranking --data '{"of": "route", "by": "mean", "top": 10}' --block --timeout 10s

step "Compared with what the file itself says"
"$grape" exec stats@totals --block --timeout 10s >"$work/totals.json"
python3 "$here/check.py" "$flights" --totals "$work/totals.json"

step "The node stops"
kill -TERM "$node_pid"
wait "$node_pid" || fail "the node ended with exit code $?"
node_pid=
echo "done"
