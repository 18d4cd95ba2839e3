// How fast can files be read, one after the other, 1 MiB at a time, as `dd bs=1M` does? Usage: read FILE ...
#include "measure.h"

enum { READ_BYTES = 1 << 20 };

int main(int count, char **arguments) {
  if (count < 2) {
    fprintf(stderr, "usage: read FILE ...\n");
    return 1;
  }
  char *buffer = allocate(READ_BYTES);
  memset(buffer, 0, READ_BYTES);
  uint64_t bytes = 0, begin = now_ns();
  for (int index = 1; index < count; index++) {
    int file = open(arguments[index], O_RDONLY | O_CLOEXEC);
    if (file < 0) fail("%s", arguments[index]);
    for (;;) {
      ssize_t got = read(file, buffer, READ_BYTES);
      if (got < 0) fail("read %s", arguments[index]);
      if (got == 0) break;
      bytes += (uint64_t)got;
    }
    close(file);
  }
  double seconds = (double)(now_ns() - begin) / 1e9;
  printf("{\"program\":\"read\",\"bytes\":%llu,\"seconds\":%.4f,\"bytesPerSecond\":%.0f}\n", (unsigned long long)bytes,
         seconds, (double)bytes / seconds);
  return 0;
}
