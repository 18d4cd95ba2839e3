// How fast does memory copy? 256 MiB from one place to another. Usage: memcpy [TIMES]
#include "measure.h"

enum { BLOCK_BYTES = 256 << 20 };

int main(int count, char **arguments) {
  size_t times = count > 1 ? strtoul(arguments[1], NULL, 10) : 10;
  char *source = allocate(BLOCK_BYTES), *target = allocate(BLOCK_BYTES);
  memset(source, 1, BLOCK_BYTES);
  memset(target, 2, BLOCK_BYTES);
  uint64_t best = UINT64_MAX, begin = now_ns();
  for (size_t index = 0; index < times; index++) {
    uint64_t start = now_ns();
    memcpy(target, source, BLOCK_BYTES);
    __asm__ volatile("" : : "r"(target) : "memory");
    uint64_t taken = now_ns() - start;
    if (taken < best) best = taken;
  }
  double seconds = (double)(now_ns() - begin) / 1e9;
  printf("{\"program\":\"memcpy\",\"blockBytes\":%d,\"bytesPerSecond\":%.0f,\"bestBytesPerSecond\":%.0f}\n", BLOCK_BYTES,
         (double)BLOCK_BYTES * (double)times / seconds, (double)BLOCK_BYTES / ((double)best / 1e9));
  return 0;
}
