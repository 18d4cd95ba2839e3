// How long does one small durable write take? 256 bytes and fdatasync, one after the other. Usage: sync FOLDER [WRITES]
#include "measure.h"

enum { WRITE_BYTES = 256 };

static void measure(const char *folder, enum blocks blocks, size_t count) {
  int file = open_scratch(folder, blocks, count * WRITE_BYTES);
  uint64_t *samples = allocate(count * sizeof *samples);
  char data[WRITE_BYTES];
  memset(data, 'x', sizeof data);
  for (size_t index = 0; index < count; index++) {
    uint64_t begin = now_ns();
    if (pwrite(file, data, sizeof data, (off_t)(index * WRITE_BYTES)) != WRITE_BYTES) fail("pwrite");
    if (fdatasync(file)) fail("fdatasync");
    samples[index] = now_ns() - begin;
  }
  close(file);
  printf(",\"%s\":", block_names[blocks]);
  print_percentiles(samples, count);
  free(samples);
}

int main(int count, char **arguments) {
  const char *folder = count > 1 ? arguments[1] : ".";
  size_t writes = count > 2 ? strtoul(arguments[2], NULL, 10) : 5000;
  printf("{\"program\":\"sync\",\"writeBytes\":%d", WRITE_BYTES);
  for (int blocks = 0; blocks < BLOCK_KINDS; blocks++) measure(folder, (enum blocks)blocks, writes);
  printf("}\n");
  return 0;
}
