// Stands between clients and a Kafka broker that answers every fetch at once, whether there is something or not, as noida-db does: an empty answer is kept
// until something was written, or for as long as the fetch said. Everything else goes through as it is, but that the broker is said to be here.
//
//   fetch_wait HOST PORT BROKER_PORT        listens on PORT, prints a line when it does, and ends with its standard input
//
// Two threads for each connection, one for each direction.
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/socket.h>

#include "measure.h"

enum { FETCH = 1, METADATA = 3, FIND_COORDINATOR = 10, PRODUCE = 0, END_TRANSACTION = 26, CHUNK = 1 << 20, MOST_ASKED = 4096, SMALL = 1 << 16 };

struct asked {
  int32_t api, wait_ms;
  uint64_t written;
};

struct pair {
  int client, broker;
  pthread_mutex_t lock;
  // Requests that are not answered, in their order: brokers answer in it.
  struct asked asked[MOST_ASKED];
  size_t first, count;
  int users;
};

static struct sockaddr_in here, there;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t something_written;
static uint64_t written;

static bool receive(int from, void *bytes, size_t size) {
  for (size_t at = 0; at < size;) {
    ssize_t got = recv(from, (char *)bytes + at, size - at, MSG_WAITALL);
    if (got == 0 || (got < 0 && errno != EINTR)) return false;
    if (got > 0) at += (size_t)got;
  }
  return true;
}

static bool deliver(int to, const void *bytes, size_t size) {
  for (size_t at = 0; at < size;) {
    ssize_t sent = send(to, (const char *)bytes + at, size - at, MSG_NOSIGNAL);
    if (sent < 0 && errno != EINTR) return false;
    if (sent > 0) at += (size_t)sent;
  }
  return true;
}

static bool pass(int from, int to, char *chunk, size_t size) {
  while (size > 0) {
    size_t now = size < CHUNK ? size : CHUNK;
    // What has come goes on: no waiting for a whole chunk.
    ssize_t got = recv(from, chunk, now, 0);
    if (got <= 0 || !deliver(to, chunk, (size_t)got)) return false;
    size -= (size_t)got;
  }
  return true;
}

static int32_t number32(const char *at) {
  uint32_t value;
  memcpy(&value, at, 4);
  return (int32_t)ntohl(value);
}

static int16_t number16(const char *at) {
  uint16_t value;
  memcpy(&value, at, 2);
  return (int16_t)ntohs(value);
}

static void finish(struct pair *pair) {
  shutdown(pair->client, SHUT_RDWR);
  shutdown(pair->broker, SHUT_RDWR);
  pthread_mutex_lock(&pair->lock);
  int left = --pair->users;
  pthread_mutex_unlock(&pair->lock);
  if (left > 0) return;
  close(pair->client);
  close(pair->broker);
  pthread_mutex_destroy(&pair->lock);
  free(pair);
}

static void *requests(void *argument) {
  struct pair *pair = argument;
  char *chunk = allocate(CHUNK);
  // Size, kind, version, number, client's name (short), replica, longest wait.
  char head[512];
  while (receive(pair->client, head, 14)) {
    size_t size = (size_t)number32(head) + 4, have = 14;
    struct asked asked = {.api = number16(head + 4)};
    if (asked.api == FETCH) {
      size_t name = (size_t)(number16(head + 12) < 0 ? 0 : number16(head + 12));
      if (name + 22 > sizeof head || name + 22 > size || !receive(pair->client, head + 14, name + 8)) break;
      have = name + 22;
      asked.wait_ms = number32(head + have - 4);
      pthread_mutex_lock(&lock);
      asked.written = written;
      pthread_mutex_unlock(&lock);
    }
    // Requests for which nothing is answered are not made with the settings that are measured.
    pthread_mutex_lock(&pair->lock);
    bool fits = pair->count < MOST_ASKED;
    if (fits) pair->asked[(pair->first + pair->count++) % MOST_ASKED] = asked;
    pthread_mutex_unlock(&pair->lock);
    if (!fits || !deliver(pair->broker, head, have) || !pass(pair->client, pair->broker, chunk, size - have)) break;
  }
  free(chunk);
  finish(pair);
  return NULL;
}

// Versions 7 to 11, which librdkafka 2 asks for: no records, and no errors.
static bool is_empty(const char *answer, size_t size) {
  size_t at = 14;
  if (size < at + 4 || number16(answer + 8)) return false;
  int32_t topics = number32(answer + at);
  at += 4;
  for (int32_t topic = 0; topic < topics; topic++) {
    if (at + 2 > size) return false;
    at += 2 + (size_t)number16(answer + at);
    if (at + 4 > size) return false;
    int32_t partitions = number32(answer + at);
    at += 4;
    for (int32_t partition = 0; partition < partitions; partition++) {
      if (at + 34 > size || number16(answer + at + 4)) return false;
      at += 30;
      int32_t aborted = number32(answer + at);
      at += 4 + 16 * (size_t)(aborted < 0 ? 0 : aborted) + 4;
      if (at + 4 > size || number32(answer + at) > 0) return false;
      at += 4;
    }
  }
  return true;
}

static void wait_for_more(const struct asked *asked) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += asked->wait_ms / 1000;
  until.tv_nsec += (long)(asked->wait_ms % 1000) * 1000000;
  if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
  pthread_mutex_lock(&lock);
  while (written == asked->written && pthread_cond_timedwait(&something_written, &lock, &until) != ETIMEDOUT) continue;
  pthread_mutex_unlock(&lock);
}

static void say_here(char *answer, size_t size) {
  char name[INET_ADDRSTRLEN], from[INET_ADDRSTRLEN + 4], to[sizeof from];
  inet_ntop(AF_INET, &there.sin_addr, name, sizeof name);
  size_t length = strlen(name);
  memcpy(from, name, length);
  memcpy(to, name, length);
  uint32_t port = htonl(ntohs(there.sin_port));
  memcpy(from + length, &port, 4);
  port = htonl(ntohs(here.sin_port));
  memcpy(to + length, &port, 4);
  length += 4;
  for (char *at = answer; (at = memmem(at, size - (size_t)(at - answer), from, length)); at += length) memcpy(at, to, length);
}

static void *answers(void *argument) {
  struct pair *pair = argument;
  char *chunk = allocate(CHUNK), head[4];
  while (receive(pair->broker, head, 4)) {
    size_t size = (size_t)number32(head);
    pthread_mutex_lock(&pair->lock);
    struct asked asked = {.api = -1};
    if (pair->count > 0) {
      asked = pair->asked[pair->first];
      pair->first = (pair->first + 1) % MOST_ASKED;
      pair->count--;
    }
    pthread_mutex_unlock(&pair->lock);
    bool is_seen = asked.api == METADATA || asked.api == FIND_COORDINATOR || (asked.api == FETCH && size <= SMALL);
    if (is_seen && size <= CHUNK) {
      if (!receive(pair->broker, chunk, size)) break;
      if (asked.api != FETCH) say_here(chunk, size);
      else if (asked.wait_ms > 0 && is_empty(chunk, size)) wait_for_more(&asked);
      if (!deliver(pair->client, head, 4) || !deliver(pair->client, chunk, size)) break;
    } else if (!deliver(pair->client, head, 4) || !pass(pair->broker, pair->client, chunk, size)) {
      break;
    }
    if (asked.api == PRODUCE || asked.api == END_TRANSACTION) {
      pthread_mutex_lock(&lock);
      written++;
      pthread_cond_broadcast(&something_written);
      pthread_mutex_unlock(&lock);
    }
  }
  free(chunk);
  finish(pair);
  return NULL;
}

static void run(void *(*body)(void *), void *argument) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, body, argument)) fail("pthread_create");
  pthread_detach(thread);
}

static void connected(int client) {
  struct pair *pair = allocate(sizeof *pair);
  *pair = (struct pair){.client = client, .broker = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), .users = 2};
  pthread_mutex_init(&pair->lock, NULL);
  int on = 1;
  setsockopt(pair->client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(pair->broker, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (connect(pair->broker, (struct sockaddr *)&there, sizeof there)) shutdown(client, SHUT_RDWR);
  run(requests, pair);
  run(answers, pair);
}

int main(int count, char **words) {
  if (count != 4) {
    fprintf(stderr, "usage: fetch_wait HOST PORT BROKER_PORT\n");
    return 64;
  }
  here.sin_family = there.sin_family = AF_INET;
  if (inet_pton(AF_INET, words[1], &here.sin_addr) != 1) fail("%s", words[1]);
  there.sin_addr = here.sin_addr;
  here.sin_port = htons((uint16_t)atoi(words[2]));
  there.sin_port = htons((uint16_t)atoi(words[3]));
  pthread_condattr_t monotonic;
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_cond_init(&something_written, &monotonic);
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 256)) fail("port %s", words[2]);
  printf("listening\n");
  fflush(stdout);
  while (true) {
    struct pollfd ready[] = {{.fd = listener, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
    if (poll(ready, 2, -1) < 0 && errno != EINTR) fail("poll");
    char byte;
    if (ready[1].revents && read(0, &byte, 1) <= 0) return 0;
    if (!ready[0].revents) continue;
    int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (client >= 0) connected(client);
  }
}
