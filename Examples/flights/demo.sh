#!/bin/sh
# Runs the flights example from an empty node to a checked result.
#
#   GRAPE=path/to/grape Examples/flights/demo.sh          January: 27,004 flights, nothing to download
#   FULL=1 GRAPE=... Examples/flights/demo.sh             the year: 336,776 flights, fetched once
#
# `make demo` builds grape and calls this. The node and its data live in a temporary folder and are gone afterwards.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
grape=${GRAPE:-$root/.build/release/grape}
node_pid=

fail() {
  echo "demo: $*" >&2
  exit 1
}

step() {
  printf '\n== %s\n' "$*"
}

[ -x "$grape" ] || fail "no grape at $grape; build it (make build) or set GRAPE"
grape=$(cd "$(dirname "$grape")" && pwd)/$(basename "$grape")
for tool in python3 zstd; do
  command -v "$tool" >/dev/null || fail "$tool is not installed (Debian package $tool)"
done

work=$(mktemp -d)
GRAPE_NODE="$work/data"
export GRAPE_NODE

finish() {
  code=$?
  trap - EXIT INT TERM
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

step "A node"
"$grape" serve --data "$GRAPE_NODE" >"$work/node.log" 2>&1 &
node_pid=$!
"$grape" node wait --timeout 10s

step "Two applications: stats (Swift) and flights (Python), which emits to it"
"$grape" deploy "$here/stats"
"$grape" deploy "$here/flights"
"$grape" topology

step "Every row of $(basename "$flights") becomes an event"
"$grape" ingest flights@raw "$flights" --key-field carrier

step "Until all of them have gone through"
"$grape" stats --wait-idle --timeout 300s

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
