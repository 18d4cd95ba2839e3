// How fast can bytes become durable while another thread reads files as fast as the disk gives them? In turns, a second
// alone and a second beside the reader: what a disk gives changes from second to second. The writer's loop is pwrite and fdatasync
// on a preallocated file; the reader's that of `read`. The files should not be in the page cache.
// Usage: beside FOLDER WRITE_KIB FILE ...
#include <pthread.h>

#include "measure.h"

enum { READ_BYTES = 1 << 20, PAIRS = 5 };
static const uint64_t PHASE_NS = 1000000000;
static const size_t FILE_BYTES = 8ul << 30;

struct reader {
  char **paths;
  int left, file;
  char *buffer;
  uint64_t until, bytes;
};

// Reads on until the phase is over; bytes of 0 say that there was nothing left.
static void *read_on(void *argument) {
  struct reader *reader = argument;
  reader->bytes = 0;
  while (now_ns() < reader->until) {
    if (reader->file < 0) {
      if (reader->left == 0) break;
      reader->file = open(*reader->paths, O_RDONLY | O_CLOEXEC);
      if (reader->file < 0) fail("%s", *reader->paths);
      reader->paths++;
      reader->left--;
    }
    ssize_t got = read(reader->file, reader->buffer, READ_BYTES);
    if (got < 0) fail("read");
    if (got == 0) {
      close(reader->file);
      reader->file = -1;
    }
    reader->bytes += (uint64_t)got;
  }
  return NULL;
}

struct writer {
  int file;
  size_t at, write_bytes;
  char *buffer;
};

// Bytes per second; those read too.
static double phase(struct writer *writer, struct reader *reader, double *read) {
  pthread_t thread;
  uint64_t begin = now_ns(), bytes = 0;
  if (reader) {
    reader->until = begin + PHASE_NS;
    if (pthread_create(&thread, NULL, read_on, reader)) fail("pthread_create");
  }
  while (now_ns() < begin + PHASE_NS) {
    if (writer->at + writer->write_bytes > FILE_BYTES) {
      errno = EFBIG;
      fail("the disk is faster than this program expects");
    }
    if (pwrite(writer->file, writer->buffer, writer->write_bytes, (off_t)writer->at) != (ssize_t)writer->write_bytes)
      fail("pwrite");
    if (fdatasync(writer->file)) fail("fdatasync");
    writer->at += writer->write_bytes;
    bytes += writer->write_bytes;
  }
  double seconds = (double)(now_ns() - begin) / 1e9;
  if (reader) {
    pthread_join(thread, NULL);
    *read = (double)reader->bytes / seconds;
  }
  return (double)bytes / seconds;
}

static int compare(const void *left, const void *right) {
  double a = *(const double *)left, b = *(const double *)right;
  return a < b ? -1 : a > b;
}

static double median(double *values, int count) {
  qsort(values, (size_t)count, sizeof *values, compare);
  return values[count / 2];
}

int main(int count, char **arguments) {
  if (count < 4) {
    fprintf(stderr, "usage: beside FOLDER WRITE_KIB FILE ...\n");
    return 1;
  }
  struct writer writer = {.write_bytes = strtoul(arguments[2], NULL, 10) << 10};
  writer.file = open_scratch(arguments[1], ALLOCATED, FILE_BYTES);
  writer.buffer = allocate(writer.write_bytes);
  memset(writer.buffer, 'x', writer.write_bytes);
  struct reader reader = {.paths = arguments + 3, .left = count - 3, .file = -1, .buffer = allocate(READ_BYTES)};
  memset(reader.buffer, 0, READ_BYTES);

  double alone[PAIRS + 1], beside[PAIRS], reads[PAIRS], ratios[PAIRS], read;
  int pairs = 0;
  alone[0] = phase(&writer, NULL, NULL);
  for (; pairs < PAIRS; pairs++) {
    beside[pairs] = phase(&writer, &reader, &read);
    // Beside a reader that came to the end there was none for part of the time.
    if (reader.left == 0) break;
    reads[pairs] = read;
    alone[pairs + 1] = phase(&writer, NULL, NULL);
    ratios[pairs] = 2 * beside[pairs] / (alone[pairs] + alone[pairs + 1]);
  }
  if (pairs == 0) {
    errno = ENODATA;
    fail("the files were read at once");
  }
  printf("{\"program\":\"beside\",\"pairs\":%d,\"ratio\":%.3f", pairs, median(ratios, pairs));
  printf(",\"aloneBytesPerSecond\":%.0f,\"besideBytesPerSecond\":%.0f,\"readBytesPerSecond\":%.0f}\n",
         median(alone, pairs + 1), median(beside, pairs), median(reads, pairs));
  return 0;
}
