// What the limit programs share: a clock, percentiles, errors that end the program, files to write to.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static inline uint64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

__attribute__((noreturn, format(printf, 1, 2))) static inline void fail(const char *format, ...) {
  int error = errno;
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fprintf(stderr, ": %s\n", strerror(error));
  exit(1);
}

static inline void *allocate(size_t size) {
  void *memory = malloc(size);
  if (!memory) fail("allocating %zu bytes", size);
  return memory;
}

static inline int compare_u64(const void *left, const void *right) {
  uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
  return a < b ? -1 : a > b;
}

// Sorts `samples` and prints their p50 and p99 as members of a JSON object, in microseconds.
__attribute__((unused)) static void print_percentiles(uint64_t *samples, size_t count) {
  qsort(samples, count, sizeof *samples, compare_u64);
  printf("{\"p50Micros\":%.1f,\"p99Micros\":%.1f,\"samples\":%zu}", (double)samples[count / 2] / 1e3,
         (double)samples[count * 99 / 100] / 1e3, count);
}

// How the blocks of a file came to be before the measured writes.
enum blocks {
  GROWS,      // the file is empty: every write extends it
  ALLOCATED,  // fallocate: the size is final, the blocks are reserved but hold no data yet
  OVERWRITES, // every block has been written before
  BLOCK_KINDS
};

static const char *const block_names[BLOCK_KINDS] = {"grows", "allocated", "overwrites"};

// A new file in `folder`, already unlinked: it vanishes with the process.
__attribute__((unused)) static int open_scratch(const char *folder, enum blocks blocks, size_t size) {
  char path[4096];
  if (snprintf(path, sizeof path, "%s/limit-XXXXXX", folder) >= (int)sizeof path) {
    errno = ENAMETOOLONG;
    fail("%s", folder);
  }
  int file = mkstemp(path);
  if (file < 0) fail("%s", path);
  if (unlink(path)) fail("%s", path);
  if (blocks == ALLOCATED && fallocate(file, 0, 0, (off_t)size)) fail("fallocate in %s", folder);
  if (blocks == OVERWRITES) {
    size_t chunk = 1 << 20;
    char *zeros = calloc(1, chunk);
    if (!zeros) fail("allocating");
    for (size_t at = 0; at < size; at += chunk) {
      if (pwrite(file, zeros, chunk, (off_t)at) != (ssize_t)chunk) fail("pwrite in %s", folder);
    }
    free(zeros);
  }
  if (fsync(file)) fail("fsync in %s", folder);
  return file;
}

// Ends the program unless all of `size` bytes are written.
__attribute__((unused)) static void write_all(int file, const void *bytes, size_t size) {
  const char *at = bytes;
  while (size > 0) {
    ssize_t written = write(file, at, size);
    if (written < 0) {
      if (errno == EINTR) continue;
      fail("write");
    }
    at += written;
    size -= (size_t)written;
  }
}

// Ends the program unless `size` bytes are read.
__attribute__((unused)) static void read_all(int file, void *bytes, size_t size) {
  char *at = bytes;
  while (size > 0) {
    ssize_t got = read(file, at, size);
    if (got < 0 && errno == EINTR) continue;
    if (got == 0) errno = EPIPE;
    if (got <= 0) fail("read");
    at += got;
    size -= (size_t)got;
  }
}
