#!/bin/sh
# Searches for inputs that a decoder does not bear: libFuzzer, with the address sanitizer.
#
#   scripts/fuzz.sh                     names the decoders
#   scripts/fuzz.sh DECODER [SECONDS]   tries one (60 seconds unless told otherwise)
#   scripts/fuzz.sh all [SECONDS]       tries each so long
#
# Starts from the seeds that the decoder's file gives, from Tests/Fuzz/Corpus/DECODER and from what earlier runs found
# (.build-fuzz/corpus). An input that fails is left in Tests/Fuzz/Corpus/DECODER: fix the decoder, keep the file, and
# `make test` replays it from then on. Exit code: 0 if nothing failed.
set -eu
cd "$(dirname "$0")/.."
build=.build-fuzz
decoders=$(sed -n 's/.*= FuzzTarget("\([a-z-]*\)").*/\1/p' Tests/Fuzz/Decoders/*.swift)

if [ $# -eq 0 ]; then
  echo "$decoders"
  exit 0
fi
case "$1" in
  all) chosen=$decoders ;;
  *) chosen=$1 ;;
esac
seconds=${2:-60}

# Coverage is asked of every target, dependencies included; -enable-testing lets internal decoders be tried.
GRAPE_FUZZ=1 ${SWIFT:-swift} build -c release --product GrapeFuzz --scratch-path $build \
  -Xswiftc -sanitize=fuzzer,address -Xswiftc -enable-testing -Xswiftc -parse-as-library \
  -Xcc -fsanitize=fuzzer-no-link,address

status=0
for decoder in $chosen; do
  found=$build/corpus/$decoder
  kept=Tests/Fuzz/Corpus/$decoder
  mkdir -p "$found" "$kept"
  echo "== $decoder"
  SWIFT_BACKTRACE=enable=no GRAPE_FUZZ_TARGET=$decoder GRAPE_FUZZ_SEEDS=$found \
    $build/release/GrapeFuzz "$found" "$kept" -max_total_time="$seconds" -artifact_prefix="$kept/" \
    -max_len=8192 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 || status=1
  rmdir "$kept" 2>/dev/null || true
done
exit $status
