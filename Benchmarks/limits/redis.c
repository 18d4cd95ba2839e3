// A Redis server over its Unix socket, one request in flight: a durable append (XADD), and a call through two lists
// (request pushed, popped and answered by another process, reply popped), as durable as the server's appendfsync makes
// it. Usage: redis SOCKET [ROUNDS]. bench.py starts the server; the program is left out where there is none.
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "measure.h"

struct connection {
  int socket;
  size_t have;
  char buffer[8192];
};

static struct connection *open_connection(const char *path) {
  struct connection *connection = allocate(sizeof *connection);
  connection->have = 0;
  connection->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connection->socket < 0) fail("socket");
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    fail("%s", path);
  }
  strcpy(address.sun_path, path);
  if (connect(connection->socket, (struct sockaddr *)&address, sizeof address)) fail("%s", path);
  return connection;
}

// The length of the complete reply at `at`, or 0 if more bytes are needed.
static size_t reply_length(const char *at, size_t size) {
  const char *newline = memchr(at, '\n', size);
  if (!newline) return 0;
  size_t line = (size_t)(newline - at) + 1;
  long number = strtol(at + 1, NULL, 10);
  switch (at[0]) {
    case '+':
    case ':':
      return line;
    case '$': {
      size_t whole = number < 0 ? line : line + (size_t)number + 2;
      return whole <= size ? whole : 0;
    }
    case '*': {
      size_t whole = line;
      for (long index = 0; index < number; index++) {
        size_t part = whole < size ? reply_length(at + whole, size - whole) : 0;
        if (part == 0) return 0;
        whole += part;
      }
      return whole;
    }
    default:
      fprintf(stderr, "redis answered: %.*s\n", (int)line, at);
      exit(1);
  }
}

static void read_reply(struct connection *connection) {
  for (;;) {
    size_t length = connection->have ? reply_length(connection->buffer, connection->have) : 0;
    if (length > 0) {
      memmove(connection->buffer, connection->buffer + length, connection->have - length);
      connection->have -= length;
      return;
    }
    ssize_t got = read(connection->socket, connection->buffer + connection->have,
                       sizeof connection->buffer - connection->have);
    if (got < 0 && errno == EINTR) continue;
    if (got == 0) errno = EPIPE;
    if (got <= 0) fail("read");
    connection->have += (size_t)got;
  }
}

static size_t command(char *out, size_t size, int count, const char *const *words) {
  size_t used = (size_t)snprintf(out, size, "*%d\r\n", count);
  for (int index = 0; index < count; index++) {
    used += (size_t)snprintf(out + used, size - used, "$%zu\r\n%s\r\n", strlen(words[index]), words[index]);
  }
  return used;
}

int main(int count, char **arguments) {
  if (count < 2) {
    fprintf(stderr, "usage: redis SOCKET [ROUNDS]\n");
    return 64;
  }
  size_t rounds = count > 2 ? strtoul(arguments[2], NULL, 10) : 3000;
  uint64_t *samples = allocate(rounds * sizeof *samples);
  char value[101], append[512], push[512], pop[256], answer[512], take[256];
  memset(value, 'v', 100);
  value[100] = 0;
  size_t append_size = command(append, sizeof append, 5, (const char *[]){"XADD", "stream", "*", "v", value});
  size_t push_size = command(push, sizeof push, 3, (const char *[]){"LPUSH", "requests", value});
  size_t pop_size = command(pop, sizeof pop, 3, (const char *[]){"BRPOP", "replies", "30"});
  size_t take_size = command(take, sizeof take, 3, (const char *[]){"BRPOP", "requests", "30"});
  size_t answer_size = command(answer, sizeof answer, 3, (const char *[]){"LPUSH", "replies", value});

  printf("{\"program\":\"redis\",\"append\":");
  struct connection *client = open_connection(arguments[1]);
  for (size_t index = 0; index < rounds; index++) {
    uint64_t begin = now_ns();
    write_all(client->socket, append, append_size);
    read_reply(client);
    samples[index] = now_ns() - begin;
  }
  print_percentiles(samples, rounds);

  fflush(stdout);
  pid_t worker = fork();
  if (worker < 0) fail("fork");
  if (worker == 0) {
    struct connection *server = open_connection(arguments[1]);
    for (size_t index = 0; index < rounds; index++) {
      write_all(server->socket, take, take_size);
      read_reply(server);
      write_all(server->socket, answer, answer_size);
      read_reply(server);
    }
    _exit(0);
  }
  for (size_t index = 0; index < rounds; index++) {
    uint64_t begin = now_ns();
    write_all(client->socket, push, push_size);
    read_reply(client);
    write_all(client->socket, pop, pop_size);
    read_reply(client);
    samples[index] = now_ns() - begin;
  }
  int status;
  if (waitpid(worker, &status, 0) != worker || status != 0) fail("the answering process failed");
  printf(",\"call\":");
  print_percentiles(samples, rounds);
  printf("}\n");
  return 0;
}
