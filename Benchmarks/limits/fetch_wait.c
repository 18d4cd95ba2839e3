// Stands between clients and a Kafka broker that answers every fetch at once, whether there is something or not, as noida-db does: an empty answer is kept
// until something was written to one of its topics, or for as long as the fetch said. Everything else goes through as it is, but that the broker is said to be
// here.
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

enum {
  PRODUCE = 0, FETCH = 1, METADATA = 3, FIND_COORDINATOR = 10, END_TRANSACTION = 26,
  CHUNK = 1 << 20, MOST_ASKED = 4096, SMALL = 1 << 16, MOST_TOPICS = 16, TOPICS = 4096, ANY = 0
};

struct asked {
  int32_t api, wait_ms;
  uint64_t written;
  // Of a fetch: what it is about. Of a produce: what it writes to. A number for each topic, which another may have, too; ANY: perhaps all.
  uint32_t topics[MOST_TOPICS], topic_count;
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
static pthread_condattr_t monotonic;
// How often something was written, and what that number was when it was last written to a topic.
static uint64_t written, written_to[TOPICS];

// A fetch whose answer is kept.
struct kept {
  const struct asked *asked;
  pthread_cond_t written;
  struct kept *next;
};
static struct kept *kept;

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

// What is in a message, read in order; anything that does not fit makes it bad.
struct cursor {
  const char *at, *end;
  bool bad;
};

static const char *skip(struct cursor *in, int64_t size) {
  if (in->bad || size < 0 || size > in->end - in->at) {
    in->bad = true;
    return NULL;
  }
  in->at += size;
  return in->at - size;
}

static int32_t take32(struct cursor *in) {
  const char *at = skip(in, 4);
  return at ? number32(at) : -1;
}

static int16_t take16(struct cursor *in) {
  const char *at = skip(in, 2);
  return at ? number16(at) : -1;
}

static void skip_text(struct cursor *in) {
  int16_t size = take16(in);
  if (size > 0) skip(in, size);
}

static uint32_t take_topic(struct cursor *in) {
  int16_t size = take16(in);
  const char *name = skip(in, size);
  uint32_t hash = 2166136261;
  for (int16_t at = 0; name && at < size; at++) hash = (hash ^ (uint8_t)name[at]) * 16777619;
  return 1 + hash % (TOPICS - 1);
}

static void about(struct asked *asked, uint32_t topic) {
  if (asked->topic_count == MOST_TOPICS) topic = asked->topics[0] = ANY;
  else asked->topics[asked->topic_count++] = topic;
}

// Versions 7 to 11 of fetches and 3 to 8 of produces, which librdkafka 2 sends.
static struct asked look_at(const char *request, size_t size) {
  struct cursor in = {request, request + size, false};
  struct asked asked = {.api = take16(&in)};
  int16_t version = take16(&in);
  skip(&in, 4);
  skip_text(&in);
  if (asked.api == FETCH) {
    skip(&in, 4);
    asked.wait_ms = take32(&in);
    skip(&in, 4 + 4 + 1 + 4 + 4);
    for (int32_t topics = take32(&in); topics > 0 && !in.bad; topics--) {
      about(&asked, take_topic(&in));
      skip(&in, (int64_t)take32(&in) * (version >= 9 ? 28 : 24));
    }
  } else if (asked.api == PRODUCE) {
    skip_text(&in);
    skip(&in, 2 + 4);
    // Where it writes to more than one it is not looked for the others.
    bool is_one = take32(&in) == 1;
    about(&asked, is_one ? take_topic(&in) : ANY);
  } else if (asked.api == END_TRANSACTION) {
    about(&asked, ANY);
  }
  if (in.bad) {
    asked.topic_count = 0;
    about(&asked, ANY);
  }
  return asked;
}

static void *requests(void *argument) {
  struct pair *pair = argument;
  char *chunk = allocate(CHUNK);
  while (receive(pair->client, chunk, 4)) {
    size_t size = (size_t)number32(chunk), have = size < SMALL ? size : SMALL;
    if (!receive(pair->client, chunk + 4, have)) break;
    struct asked asked = look_at(chunk + 4, have);
    if (asked.api == FETCH) {
      pthread_mutex_lock(&lock);
      asked.written = written;
      pthread_mutex_unlock(&lock);
    }
    // Requests for which nothing is answered are not made with the settings that are measured.
    pthread_mutex_lock(&pair->lock);
    bool fits = pair->count < MOST_ASKED;
    if (fits) pair->asked[(pair->first + pair->count++) % MOST_ASKED] = asked;
    pthread_mutex_unlock(&pair->lock);
    if (!fits || !deliver(pair->broker, chunk, 4 + have) || !pass(pair->client, pair->broker, chunk, size - have)) break;
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

static bool is_written(const struct asked *asked) {
  bool found = written_to[ANY] > asked->written;
  for (uint32_t place = 0; place < asked->topic_count && !found; place++) {
    uint32_t topic = asked->topics[place];
    found = (topic == ANY ? written : written_to[topic]) > asked->written;
  }
  return found;
}

static void wait_for_more(const struct asked *asked) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += asked->wait_ms / 1000;
  until.tv_nsec += (long)(asked->wait_ms % 1000) * 1000000;
  if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
  struct kept mine = {.asked = asked};
  pthread_cond_init(&mine.written, &monotonic);
  pthread_mutex_lock(&lock);
  mine.next = kept;
  kept = &mine;
  while (!is_written(asked) && pthread_cond_timedwait(&mine.written, &lock, &until) != ETIMEDOUT) continue;
  struct kept **place = &kept;
  while (*place != &mine) place = &(*place)->next;
  *place = mine.next;
  pthread_mutex_unlock(&lock);
  pthread_cond_destroy(&mine.written);
}

static void note_written(const struct asked *asked) {
  pthread_mutex_lock(&lock);
  written++;
  for (uint32_t place = 0; place < asked->topic_count; place++) written_to[asked->topics[place]] = written;
  for (struct kept *one = kept; one; one = one->next)
    if (is_written(one->asked)) pthread_cond_signal(&one->written);
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
  char *chunk = allocate(4 + CHUNK);
  while (receive(pair->broker, chunk, 4)) {
    size_t size = (size_t)number32(chunk);
    char *answer = chunk + 4;
    pthread_mutex_lock(&pair->lock);
    struct asked asked = {.api = -1};
    if (pair->count > 0) {
      asked = pair->asked[pair->first];
      pair->first = (pair->first + 1) % MOST_ASKED;
      pair->count--;
    }
    pthread_mutex_unlock(&pair->lock);
    size_t whole = asked.api == METADATA || asked.api == FIND_COORDINATOR ? CHUNK : SMALL;
    if (size <= whole) {
      if (!receive(pair->broker, answer, size)) break;
      if (asked.api == METADATA || asked.api == FIND_COORDINATOR) say_here(answer, size);
      else if (asked.api == FETCH && asked.wait_ms > 0 && is_empty(answer, size)) wait_for_more(&asked);
      if (!deliver(pair->client, chunk, 4 + size)) break;
    } else if (!deliver(pair->client, chunk, 4) || !pass(pair->broker, pair->client, chunk, size)) {
      break;
    }
    if (asked.api == PRODUCE || asked.api == END_TRANSACTION) note_written(&asked);
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
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
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
