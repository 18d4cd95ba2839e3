#pragma once
#include <stddef.h>

// Files that travel inside the `grape` binary, so that one file is the whole installation.

// The Python SDK, grape.py.
const unsigned char *grape_sdk_python_bytes(void);
extern const size_t grape_sdk_python_size;

// A file of the Swift SDK: its path inside the package that an application gets, and its content.
struct grape_resource {
  const char *path;
  const unsigned char *bytes;
  size_t size;
};

// The Swift SDK, as a package of its own.
const struct grape_resource *grape_sdk_swift_files(void);
extern const size_t grape_sdk_swift_count;
