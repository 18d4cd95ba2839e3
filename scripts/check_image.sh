#!/bin/sh
# What building the image does (Docker/Dockerfile), without containers: the packages, the release binary as it is put
# into the image, and the tests of Docker/ with that binary.
#
#   scripts/check_image.sh [FOLDER]   builds into FOLDER, .build/image by default
set -eu
cd "$(dirname "$0")/.."
folder=${1:-.build/image}

scripts/setup.sh --build --check
scripts/setup.sh --runtime --check
rm -rf "$folder"
scripts/build_release.sh --output "$folder"
# The binary of an image has no debug information, and no Swift beside it.
if readelf -S "$folder/bin/grape" | grep -q '\.debug_info'; then
  echo "check_image: $folder/bin/grape has debug information" >&2
  exit 1
fi
if readelf -d "$folder/bin/grape" | grep NEEDED | grep -q 'libswift'; then
  echo "check_image: $folder/bin/grape needs Swift's libraries" >&2
  exit 1
fi
ls -l "$folder/bin/grape"
GRAPE="$folder/bin/grape" python3 -B -m unittest discover -s Tests/EndToEnd -p test_image.py
