#pragma once
#include <stddef.h>

// Files that travel inside the `grape` binary, so that one file is the whole installation.
extern const unsigned char grape_sdk_python[];
extern const size_t grape_sdk_python_size;
