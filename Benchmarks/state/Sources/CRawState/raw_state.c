#define _XOPEN_SOURCE 700
#define _DEFAULT_SOURCE
#include "raw_state.h"

#include <endian.h>
#include <ftw.h>
#include <lmdb.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const size_t map_size = (size_t)1 << 30;

void raw_key(uint32_t number, char *out) {
  memcpy(out, "key-", 4);
  for (int place = 11; place > 3; place--) {
    out[place] = (char)('0' + number % 10);
    number /= 10;
  }
}

// CRC-32C, bit by bit.
static uint32_t checksum(const unsigned char *bytes, size_t count) {
  uint32_t crc = ~0u;
  while (count--) {
    crc ^= *bytes++;
    for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
  }
  return ~crc;
}

static int put_position(MDB_txn *transaction, MDB_dbi meta, int64_t processed) {
  unsigned char position[40] = {0, 1};
  uint64_t big = htobe64((uint64_t)processed);
  memcpy(position + 8, &big, 8);
  big = htobe64((uint64_t)-1);
  memcpy(position + 24, &big, 8);
  uint32_t crc = htobe32(checksum(position + 8, 32));
  memcpy(position + 4, &crc, 4);
  MDB_val key = {8, "position"}, value = {sizeof position, position};
  return mdb_put(transaction, meta, &key, &value, 0);
}

int raw_fill(const char *path, uint32_t count, const char *value) {
  MDB_env *environment = NULL;
  MDB_txn *transaction = NULL;
  MDB_dbi entries, other;
  int error = mdb_env_create(&environment);
  if (!error) error = mdb_env_set_maxdbs(environment, 4);
  if (!error) error = mdb_env_set_mapsize(environment, map_size);
  if (!error) error = mdb_env_open(environment, path, MDB_NOSYNC | MDB_NOTLS, 0600);
  if (!error) error = mdb_txn_begin(environment, NULL, 0, &transaction);
  if (!error) error = mdb_dbi_open(transaction, "entries", MDB_CREATE, &entries);
  if (!error) error = mdb_dbi_open(transaction, "expiry", MDB_CREATE | MDB_DUPSORT, &other);
  if (!error) error = mdb_dbi_open(transaction, "tags", MDB_CREATE | MDB_DUPSORT, &other);
  if (!error) error = mdb_dbi_open(transaction, "meta", MDB_CREATE, &other);
  if (!error) error = put_position(transaction, other, 0);
  size_t size = strlen(value);
  unsigned char hashed[256] = {0}, stored[256];
  for (uint32_t number = 0; !error && number < count; number++) {
    raw_key(number, (char *)hashed + 1);
    memcpy(hashed + 2 + RAW_KEY_SIZE, value, size);
    uint32_t crc = htobe32(checksum(hashed, 2 + RAW_KEY_SIZE + size));
    memcpy(stored, &crc, 4);
    stored[4] = 0;
    memcpy(stored + 5, value, size);
    MDB_val key = {1 + RAW_KEY_SIZE, hashed}, entry = {5 + size, stored};
    error = mdb_put(transaction, entries, &key, &entry, MDB_APPEND);
  }
  if (!error) {
    error = mdb_txn_commit(transaction);
  } else if (transaction) {
    mdb_txn_abort(transaction);
  }
  if (environment) mdb_env_close(environment);
  return error;
}

int raw_set_processed(const char *path, int64_t processed) {
  // LMDB takes a file once per process: the last one stays open.
  static char opened[512];
  static MDB_env *environment;
  static MDB_dbi meta;
  MDB_txn *transaction = NULL;
  int error = 0;
  if (!environment || strcmp(opened, path)) {
    if (environment) mdb_env_close(environment);
    environment = NULL;
    snprintf(opened, sizeof opened, "%s", path);
    error = mdb_env_create(&environment);
    if (!error) error = mdb_env_set_maxdbs(environment, 4);
    if (!error) error = mdb_env_set_mapsize(environment, map_size);
    if (!error) error = mdb_env_open(environment, path, MDB_NOSYNC | MDB_NOTLS, 0600);
    if (!error) error = mdb_txn_begin(environment, NULL, 0, &transaction);
    if (!error) error = mdb_dbi_open(transaction, "meta", 0, &meta);
  } else {
    error = mdb_txn_begin(environment, NULL, 0, &transaction);
  }
  if (!error) error = put_position(transaction, meta, processed);
  if (!error) return mdb_txn_commit(transaction);
  if (transaction) mdb_txn_abort(transaction);
  return error;
}

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

int64_t raw_gets(const char *path, const char *keys, uint32_t count, uint64_t *sum) {
  MDB_env *environment = NULL;
  MDB_txn *transaction = NULL;
  MDB_dbi entries;
  int64_t taken = -1;
  int error = mdb_env_create(&environment);
  if (!error) error = mdb_env_set_maxdbs(environment, 4);
  if (!error) error = mdb_env_open(environment, path, MDB_RDONLY | MDB_NOTLS, 0600);
  if (!error) error = mdb_txn_begin(environment, NULL, MDB_RDONLY, &transaction);
  if (!error) error = mdb_dbi_open(transaction, "entries", 0, &entries);
  if (!error) {
    int64_t begin = now();
    *sum = 0;
    for (uint32_t index = 0; !error && index < count; index++) {
      MDB_val key = {1 + RAW_KEY_SIZE, (void *)(keys + (size_t)index * (1 + RAW_KEY_SIZE))}, value;
      error = mdb_get(transaction, entries, &key, &value);
      if (!error) *sum += ((const unsigned char *)value.mv_data)[value.mv_size - 1];
    }
    if (!error) taken = now() - begin;
  }
  if (transaction) mdb_txn_abort(transaction);
  if (environment) mdb_env_close(environment);
  return taken;
}

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *place) {
  (void)status, (void)kind, (void)place;
  return remove(path);
}

void raw_remove(const char *path) { nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS); }
