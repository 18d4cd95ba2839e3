#include "grape_resources.h"

// #embed is C23; clang takes it in every mode and tracks the file as a dependency.
#pragma clang diagnostic ignored "-Wc23-extensions"

static const unsigned char grape_sdk_python[] = {
#embed "sdk/python/grape.py"
};
const unsigned char *grape_sdk_python_bytes(void) { return grape_sdk_python; }
const size_t grape_sdk_python_size = sizeof grape_sdk_python;
