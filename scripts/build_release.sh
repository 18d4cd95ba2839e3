#!/bin/sh
# Builds the release binary, which carries the Swift libraries with it: it starts faster, and runs where no Swift is
# installed.
#
#   scripts/build_release.sh                  builds .build/release/grape
#   scripts/build_release.sh --output FOLDER  also puts it, without debug information, at FOLDER/bin/grape
set -eu
cd "$(dirname "$0")/.."

output=
case "${1:-}" in
  '') ;;
  --output)
    output=${2:?a folder is expected behind --output}
    ;;
  *)
    echo "usage: scripts/build_release.sh [--output FOLDER]" >&2
    exit 64
    ;;
esac

"${SWIFT:-swift}" build -c release --product grape --static-swift-stdlib
[ -n "$output" ] || exit 0
install -d "$output/bin"
install -m 755 .build/release/grape "$output/bin/grape"
strip "$output/bin/grape"
