// LMDB without anything over it: what reads of state are measured against, and the environments that they read.
#ifndef RAW_STATE_H
#define RAW_STATE_H

#include <stddef.h>
#include <stdint.h>

// Bytes of a key: "key-" and eight digits.
#define RAW_KEY_SIZE 12

// Writes key number `number` to `out`.
void raw_key(uint32_t number, char *out);

// Makes an environment as docs/data-format.md describes it in the empty folder `path`, with `count` entries whose values are `value`.
// 0, or LMDB's error.
int raw_fill(const char *path, uint32_t count, const char *value);

// Sets the position's `processed`. 0, or LMDB's error.
int raw_set_processed(const char *path, int64_t processed);

// Gets the entries of `count` full keys of the default store, each `1 + RAW_KEY_SIZE` bytes, in one read transaction. Nanoseconds, or -1.
// `sum`: of the values' last bytes, so that they are read.
int64_t raw_gets(const char *path, const char *keys, uint32_t count, uint64_t *sum);

// Removes a folder with all that is in it.
void raw_remove(const char *path);

#endif
