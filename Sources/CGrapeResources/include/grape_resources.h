#pragma once
#include <stddef.h>

// Files that travel inside the `grape` binary, so that one file is the whole installation.

// The Python SDK, grape.py.
const unsigned char *grape_sdk_python_bytes(void);
extern const size_t grape_sdk_python_size;
