#!/usr/bin/env python3
"""Writes Sources/CGrapeResources/swift_sdk.c: the list of the files of the Swift SDK that travel inside `grape`.

  embed_sdk.py            writes it
  embed_sdk.py --check    exit code 1 if it is not what would be written

To be run when a file of the SDK's targets comes, goes or gets another name; `make format` does, `make lint` checks. What the
files contain is read when the program is built.
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESOURCES = ROOT / "Sources" / "CGrapeResources"
OUTPUT = RESOURCES / "swift_sdk.c"
TARGETS = ("CGrapeLinux", "CLMDB", "CZstd", "Grape", "GrapeCore", "GrapeState", "GrapeWire")
SUFFIXES = (".swift", ".c", ".h", ".modulemap")


def files():
    """Path inside the package that an application gets, and where it is here, seen from OUTPUT."""
    found = [
        ("LICENSE", "../../LICENSE"), ("Package.swift", "sdk/swift/Package.swift.txt"), ("README.md", "sdk/swift/README.md"),
    ]
    for target in TARGETS:
        for path in sorted((ROOT / "Sources" / target).rglob("*")):
            if path.is_file() and path.suffix in SUFFIXES:
                inside = path.relative_to(ROOT / "Sources").as_posix()
                found.append((f"Sources/{inside}", f"../{inside}"))
    return found


def text():
    lines = [
        "// Written by scripts/embed_sdk.py: the Swift SDK, file by file.", '#include "grape_resources.h"', "",
        '#pragma clang diagnostic ignored "-Wc23-extensions"', "",
    ]
    for number, (_, source) in enumerate(files()):
        lines += [f"static const unsigned char file{number}[] = {{", f'#embed "{source}"', "};"]
    lines += ["", "static const struct grape_resource files[] = {"]
    lines += [f'  {{"{name}", file{number}, sizeof file{number}}},' for number, (name, _) in enumerate(files())]
    lines += [
        "};", "const struct grape_resource *grape_sdk_swift_files(void) { return files; }",
        "const size_t grape_sdk_swift_count = sizeof files / sizeof *files;",
    ]
    return "\n".join(lines) + "\n"


def main():
    if sys.argv[1:] == ["--check"]:
        if OUTPUT.read_text() != text():
            sys.exit(f"{OUTPUT.relative_to(ROOT)} is out of date: run scripts/embed_sdk.py")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    elif not OUTPUT.exists() or OUTPUT.read_text() != text():
        OUTPUT.write_text(text())


main()
