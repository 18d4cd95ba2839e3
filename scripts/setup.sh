#!/bin/sh
# Installs what building, testing and the demo need and is not there yet. Does nothing if all is there.
#
#   scripts/setup.sh            installs (Debian, Ubuntu and their kin; asks sudo unless run as root)
#   scripts/setup.sh --build    only what building needs
#   scripts/setup.sh --runtime  only what the binary needs where it runs
#   … --check                   only says what is missing; exit code 1 if something is
#
# Swift is not installed by this script: it has an installer of its own.
set -eu

swift_major=6
swift_minor=3
check_only=false
purpose=everything
for option in "$@"; do
  case "$option" in
    --check) check_only=true ;;
    --build) purpose=building ;;
    --runtime) purpose=running ;;
    *)
      echo "usage: scripts/setup.sh [--build | --runtime] [--check]" >&2
      exit 64
      ;;
  esac
done

fail() {
  echo "setup: $*" >&2
  exit 1
}

has() {
  command -v "$1" >/dev/null 2>&1
}

# The Debian packages that are missing, one after the other. Each is judged by what it is needed for, not by name: a
# python3 or zstd from elsewhere is as good.
missing_packages() {
  case $purpose in
    running) missing_to_run ;;
    building) missing_to_build ;;
    *)
      missing_to_build
      missing_to_test
      ;;
  esac
}

missing_to_run() {
  has_library libzstd.so.1 || echo libzstd1
  has_library liblmdb.so.0 || echo liblmdb0
  has_library libz.so.1 || echo zlib1g
  has_library librdkafka.so.1 || echo librdkafka1
  has_library libstdc++.so.6 || echo libstdc++6
  python3 -c 'import ctypes, json' 2>/dev/null || echo python3 # workers in Python
  [ -e /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates # clusters with TLS
}

has_library() {
  PATH=$PATH:/sbin:/usr/sbin ldconfig -p | grep -q "^[[:space:]]*$1 "
}

missing_to_build() {
  has git || echo git # the package manager fetches the dependencies with it
  if has pkg-config; then
    pkg-config --exists libzstd || echo libzstd-dev # compression of record batches and packages
    pkg-config --exists lmdb || echo liblmdb-dev    # state
    pkg-config --exists zlib || echo zlib1g-dev     # packages that come as .tar.gz
    pkg-config --exists rdkafka || echo librdkafka-dev # the log on Kafka
  else
    echo pkg-config libzstd-dev liblmdb-dev zlib1g-dev librdkafka-dev
  fi
}

missing_to_test() {
  has zstd || echo zstd # unpacks the data of the flights example
  if has python3; then
    # Tests that compare with other implementations have them in a virtual environment.
    python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
    python3 -c 'import yaml' 2>/dev/null || echo python3-yaml # tests of what Docker/ holds
    # The flights of the whole year (make demo FULL=1) are fetched with pip.
    [ "${FULL:-0}" != 1 ] || python3 -m pip --version >/dev/null 2>&1 || echo python3-pip
  else
    echo python3 python3-venv python3-yaml
  fi
}

check_linux() {
  [ "$(uname -s)" = Linux ] || fail "Grape runs on Linux (this is $(uname -s))"
}

check_swift() {
  has swift || fail "Swift $swift_major.$swift_minor or newer is needed and 'swift' is not on the PATH.
  Install it as https://www.swift.org/install/linux describes, then run this again."
  version=$(swift --version 2>&1 | sed -n 's/.*Swift version \([0-9][0-9]*\.[0-9][0-9]*\).*/\1/p' | head -n 1)
  [ -n "$version" ] || fail "'swift --version' does not tell a version; is $(command -v swift) a whole installation?"
  major=${version%%.*}
  minor=${version#*.}
  if [ "$major" -lt "$swift_major" ] || { [ "$major" -eq "$swift_major" ] && [ "$minor" -lt "$swift_minor" ]; }; then
    fail "Swift $swift_major.$swift_minor or newer is needed; $(command -v swift) is $version.
  Newer ones: https://www.swift.org/install/linux"
  fi
}

check_python() {
  has python3 || return 0
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' ||
    fail "Python 3.9 or newer is needed; $(command -v python3) is $(python3 -V 2>&1)"
}

run_as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif [ "${CI:-}" = true ]; then
    sudo -n "$@"
  else
    sudo "$@"
  fi
}

install_packages() {
  has apt-get || fail "missing: $*
  These are names of Debian packages, and there is no apt-get here. Install what your system calls them: git, pkg-config,
  the headers of libzstd, of LMDB and of zlib, the zstd command, Python 3.9 or newer with venv."
  [ "$(id -u)" -eq 0 ] || has sudo || fail "missing: $*
  Run as root: apt-get install $*"
  echo "setup: installing $*"
  run_as_root apt-get update -q -q || fail "apt-get update failed; is there a network?"
  run_as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -q -y --no-install-recommends "$@" ||
    fail "apt-get could not install $*"
}

check_linux
missing=$(missing_packages | tr '\n' ' ')
missing=${missing% }
if [ -n "$missing" ]; then
  if $check_only; then
    fail "missing: $missing"
  fi
  # shellcheck disable=SC2086 # one word each
  install_packages $missing
  missing=$(missing_packages | tr '\n' ' ')
  [ -z "$missing" ] || fail "still missing after the installation: $missing
  Perhaps another python3 or pkg-config comes first on the PATH than the system's: $(command -v python3 pkg-config | tr '\n' ' ')"
fi
case $purpose in
  running) check_python ;;
  building) check_swift ;;
  *)
    check_python
    check_swift
    ;;
esac
