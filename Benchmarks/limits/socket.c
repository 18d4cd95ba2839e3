// A Unix stream socket between two processes: bytes per second one way in writes of 64 KiB, and the time of a round
// trip of 64 bytes. Usage: socket [GIBIBYTES] [ROUND TRIPS]
#include <sys/socket.h>
#include <sys/wait.h>

#include "measure.h"

enum { WRITE_BYTES = 64 << 10, PING_BYTES = 64 };

static pid_t start(int ends[2]) {
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)) fail("socketpair");
  fflush(stdout);
  pid_t child = fork();
  if (child < 0) fail("fork");
  close(child == 0 ? ends[0] : ends[1]);
  return child;
}

static void finish(pid_t child, int end) {
  close(end);
  int status;
  if (waitpid(child, &status, 0) != child) fail("waitpid");
  if (status != 0) {
    fprintf(stderr, "the other process failed with status %d\n", status);
    exit(1);
  }
}

static void one_way(size_t total) {
  int ends[2];
  pid_t child = start(ends);
  char *data = allocate(WRITE_BYTES);
  memset(data, 'x', WRITE_BYTES);
  if (child == 0) {
    for (size_t left = total; left > 0; left -= WRITE_BYTES) read_all(ends[1], data, WRITE_BYTES);
    write_all(ends[1], data, 1);
    _exit(0);
  }
  uint64_t begin = now_ns();
  for (size_t left = total; left > 0; left -= WRITE_BYTES) write_all(ends[0], data, WRITE_BYTES);
  read_all(ends[0], data, 1);
  double seconds = (double)(now_ns() - begin) / 1e9;
  finish(child, ends[0]);
  free(data);
  printf(",\"oneWay\":{\"bytesPerSecond\":%.0f,\"seconds\":%.3f}", (double)total / seconds, seconds);
}

static void ping_pong(size_t count) {
  int ends[2];
  pid_t child = start(ends);
  char data[PING_BYTES] = {0};
  if (child == 0) {
    for (size_t index = 0; index < count; index++) {
      read_all(ends[1], data, sizeof data);
      write_all(ends[1], data, sizeof data);
    }
    _exit(0);
  }
  uint64_t *samples = allocate(count * sizeof *samples);
  for (size_t index = 0; index < count; index++) {
    uint64_t begin = now_ns();
    write_all(ends[0], data, sizeof data);
    read_all(ends[0], data, sizeof data);
    samples[index] = now_ns() - begin;
  }
  finish(child, ends[0]);
  printf(",\"pingPong\":");
  print_percentiles(samples, count);
  free(samples);
}

int main(int count, char **arguments) {
  size_t gibibytes = count > 1 ? strtoul(arguments[1], NULL, 10) : 4;
  size_t rounds = count > 2 ? strtoul(arguments[2], NULL, 10) : 50000;
  printf("{\"program\":\"socket\",\"writeBytes\":%d,\"pingBytes\":%d", WRITE_BYTES, PING_BYTES);
  one_way(gibibytes << 30);
  ping_pong(rounds);
  printf("}\n");
  return 0;
}
