// How fast can record batches become durable? The batches are built beforehand; the loop is pwritev of 256 KiB
// and fdatasync, nothing else. Usage: append FOLDER [MEGABYTES] [FILE]: with FILE the batches are also written there, for checking.
#include <sys/uio.h>

#include "batch.h"
#include "measure.h"

enum { WRITE_BYTES = 256 << 10, BATCHES_PER_WRITE = 4, WRITES_PREPARED = 32 };

struct prepared {
  struct iovec parts[BATCHES_PER_WRITE];
  size_t bytes;
  uint64_t records;
};

static void prepare(struct prepared *writes) {
  uint64_t number = 0;
  for (int index = 0; index < WRITES_PREPARED; index++) {
    writes[index].bytes = 0;
    writes[index].records = 0;
    for (int part = 0; part < BATCHES_PER_WRITE; part++) {
      size_t limit = WRITE_BYTES / BATCHES_PER_WRITE;
      uint8_t *buffer = allocate(limit);
      struct batch batch = build_batch(buffer, limit, number, 1700000000000);
      writes[index].parts[part] = (struct iovec){buffer, batch.bytes};
      writes[index].bytes += batch.bytes;
      writes[index].records += batch.records;
      number += batch.records;
    }
  }
}

static void measure(const char *folder, enum blocks blocks, const struct prepared *writes, size_t total) {
  int file = open_scratch(folder, blocks, total + WRITE_BYTES);
  size_t bytes = 0;
  uint64_t records = 0, begin = now_ns();
  for (int next = 0; bytes < total; next = (next + 1) % WRITES_PREPARED) {
    const struct prepared *one = &writes[next];
    ssize_t written = pwritev(file, one->parts, BATCHES_PER_WRITE, (off_t)bytes);
    if (written != (ssize_t)one->bytes) fail("pwritev");
    if (fdatasync(file)) fail("fdatasync");
    bytes += one->bytes;
    records += one->records;
  }
  double seconds = (double)(now_ns() - begin) / 1e9;
  close(file);
  printf(",\"%s\":{\"bytesPerSecond\":%.0f,\"recordsPerSecond\":%.0f,\"valueBytesPerSecond\":%.0f,\"seconds\":%.3f}",
         block_names[blocks], (double)bytes / seconds, (double)records / seconds,
         (double)(records * VALUE_BYTES) / seconds, seconds);
}

int main(int count, char **arguments) {
  const char *folder = count > 1 ? arguments[1] : ".";
  size_t total = (count > 2 ? strtoul(arguments[2], NULL, 10) : 256) << 20;
  struct prepared *writes = allocate(WRITES_PREPARED * sizeof *writes);
  prepare(writes);
  if (count > 3) {
    int file = open(arguments[3], O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (file < 0) fail("%s", arguments[3]);
    for (int index = 0; index < WRITES_PREPARED; index++) {
      if (writev(file, writes[index].parts, BATCHES_PER_WRITE) != (ssize_t)writes[index].bytes) fail("writev");
    }
    close(file);
  }
  printf("{\"program\":\"append\",\"writeBytes\":%zu,\"recordsPerWrite\":%llu,\"totalBytes\":%zu", writes[0].bytes,
         (unsigned long long)writes[0].records, total);
  for (int blocks = 0; blocks < BLOCK_KINDS; blocks++) measure(folder, (enum blocks)blocks, writes, total);
  printf("}\n");
  return 0;
}
