// librdkafka alone, with the settings that Grape gives it: what a node on Kafka can reach at most. Topics are made, and are left to
// whoever named them. Every record has a key of 8 digits; with -H also the headers of an event of Grape: its name, and what is emitted says how far from
// the outside it is.
//
//   kafka [-H] [-X NAME=VALUE ...] SERVERS produce TOPIC PARTITIONS RECORDS
//   kafka [-H] [-X NAME=VALUE ...] SERVERS process TOPIC PARTITIONS RECORDS RECORDS-PER-TRANSACTION
//   kafka [-X NAME=VALUE ...] SERVERS roundtrip TOPIC COUNT
//
// produce: idempotent, acks=all. process: TOPIC is filled first; then its records go, in capitals, to TOPIC.out, exactly once; the
// clock runs from the first commit to the last, since what comes before is the client's start. roundtrip: one record at a time is written, linger 0, and read.
#include <librdkafka/rdkafka.h>

#include <stdbool.h>

#include "measure.h"

enum { VALUE_BYTES = 100, KEY_BYTES = 8, KEYS = 10000, BATCH = 1000, PATIENCE_MS = 60000, MOST_PARTITIONS = 1024 };

struct setting {
  const char *name, *value;
};

static struct setting given[64];
static size_t given_count;
static const char *servers;
static bool has_headers;

__attribute__((noreturn)) static void refused(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

static void check(const char *what, rd_kafka_resp_err_t code) {
  if (code) refused(what, rd_kafka_err2str(code));
}

static void check_error(const char *what, rd_kafka_error_t *error) {
  if (error) refused(what, rd_kafka_error_string(error));
}

static void set(rd_kafka_conf_t *conf, const char *name, const char *value) {
  char reason[512];
  if (rd_kafka_conf_set(conf, name, value, reason, sizeof reason)) refused(name, reason);
}

// A client with the settings that all have, those of the command line, and its own.
static rd_kafka_t *client(rd_kafka_type_t type, const struct setting *own, size_t count) {
  rd_kafka_conf_t *conf = rd_kafka_conf_new();
  set(conf, "bootstrap.servers", servers);
  set(conf, "log.connection.close", "false");
  // Settings of consumers are given to producers, too: no warnings of that.
  set(conf, "log_level", "3");
  for (size_t index = 0; index < given_count; index++) set(conf, given[index].name, given[index].value);
  for (size_t index = 0; index < count; index++) set(conf, own[index].name, own[index].value);
  char reason[512];
  rd_kafka_t *client = rd_kafka_new(type, conf, reason, sizeof reason);
  if (!client) refused("rd_kafka_new", reason);
  return client;
}

static rd_kafka_t *make_producer(const char *linger, const char *transactional_id) {
  struct setting own[] = {
      {"enable.idempotence", "true"},
      {"acks", "all"},
      {"batch.num.messages", "1000000"},
      {"queue.buffering.max.messages", "1000000"},
      {"linger.ms", linger},
      {"transactional.id", transactional_id},
  };
  rd_kafka_t *producer = client(RD_KAFKA_PRODUCER, own, transactional_id ? 6 : 5);
  if (transactional_id) check_error("rd_kafka_init_transactions", rd_kafka_init_transactions(producer, PATIENCE_MS));
  return producer;
}

// A consumer of all partitions from their beginning, and the queue that their records come to.
static rd_kafka_t *make_consumer(const char *topic, int partitions, int64_t from, rd_kafka_queue_t **queue) {
  const struct setting own[] = {
      {"group.id", topic},
      {"isolation.level", "read_committed"},
      {"enable.auto.commit", "false"},
      {"enable.auto.offset.store", "false"},
      {"auto.offset.reset", "error"},
      // When less fits, librdkafka waits for a second whenever that is full.
      {"queued.min.messages", "1000000"},
      {"queued.max.messages.kbytes", "1048576"},
  };
  rd_kafka_t *consumer = client(RD_KAFKA_CONSUMER, own, sizeof own / sizeof *own);
  check("rd_kafka_poll_set_consumer", rd_kafka_poll_set_consumer(consumer));
  rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(partitions);
  for (int partition = 0; partition < partitions; partition++) {
    rd_kafka_topic_partition_list_add(list, topic, partition)->offset = from;
  }
  check("rd_kafka_assign", rd_kafka_assign(consumer, list));
  rd_kafka_topic_partition_list_destroy(list);
  *queue = rd_kafka_queue_get_consumer(consumer);
  return consumer;
}

static void make_topic(rd_kafka_t *client, const char *name, int partitions) {
  char reason[512];
  rd_kafka_NewTopic_t *topic = rd_kafka_NewTopic_new(name, partitions, -1, reason, sizeof reason);
  if (!topic) refused(name, reason);
  rd_kafka_queue_t *queue = rd_kafka_queue_new(client);
  rd_kafka_CreateTopics(client, &topic, 1, NULL, queue);
  rd_kafka_event_t *event = rd_kafka_queue_poll(queue, PATIENCE_MS);
  if (!event) refused(name, "no answer to its creation");
  check(name, rd_kafka_event_error(event));
  size_t count;
  const rd_kafka_topic_result_t **results = rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &count);
  if (count != 1) refused(name, "no result of its creation");
  check(name, rd_kafka_topic_result_error(results[0]));
  rd_kafka_event_destroy(event);
  rd_kafka_queue_destroy(queue);
  rd_kafka_NewTopic_destroy(topic);
}

// Until the client knows all partitions' leaders: otherwise the first records wait for that.
static void know_topic(rd_kafka_t *client, rd_kafka_topic_t *topic, int partitions) {
  for (uint64_t deadline = now_ns() + (uint64_t)PATIENCE_MS * 1000000; now_ns() < deadline;) {
    const struct rd_kafka_metadata *metadata;
    check("rd_kafka_metadata", rd_kafka_metadata(client, 0, topic, &metadata, PATIENCE_MS));
    const struct rd_kafka_metadata_topic *found = &metadata->topics[0];
    int led = 0;
    for (int index = 0; index < found->partition_cnt; index++) led += found->partitions[index].leader >= 0;
    rd_kafka_metadata_destroy(metadata);
    if (led == partitions) return;
    // Paces the questions; nothing else can be asked for meanwhile.
    rd_kafka_poll(client, 20);
  }
  refused(rd_kafka_topic_name(topic), "not all partitions have a leader");
}

// Takes `headers` over.
static void send_record(rd_kafka_t *producer, rd_kafka_topic_t *topic, int partition, void *value, size_t size, const void *key,
                        size_t key_size, rd_kafka_headers_t *headers) {
  while (true) {
    rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR_NO_ERROR;
    if (headers) {
      code = rd_kafka_producev(producer, RD_KAFKA_V_RKT(topic), RD_KAFKA_V_PARTITION(partition), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
                               RD_KAFKA_V_VALUE(value, size), RD_KAFKA_V_KEY(key, key_size), RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_END);
    } else if (rd_kafka_produce(topic, partition, RD_KAFKA_MSG_F_COPY, value, size, key, key_size, NULL)) {
      code = rd_kafka_last_error();
    }
    if (!code) return;
    if (code != RD_KAFKA_RESP_ERR__QUEUE_FULL) check("producing", code);
    rd_kafka_poll(producer, 1);
  }
}

static rd_kafka_headers_t *event_headers(void) {
  if (!has_headers) return NULL;
  rd_kafka_headers_t *headers = rd_kafka_headers_new(2);
  rd_kafka_header_add(headers, "g.e", -1, "word", -1);
  return headers;
}

// Those of what is emitted, because of what was read.
static rd_kafka_headers_t *emitted_headers(const rd_kafka_message_t *message) {
  if (!has_headers) return NULL;
  rd_kafka_headers_t *given;
  check("rd_kafka_message_headers", rd_kafka_message_headers(message, &given));
  rd_kafka_headers_t *headers = rd_kafka_headers_copy(given);
  rd_kafka_header_add(headers, "g.h", -1, "\1", 1);
  return headers;
}

static int64_t end_of(rd_kafka_t *client, const char *topic, int partition) {
  int64_t low, high;
  check("rd_kafka_query_watermark_offsets", rd_kafka_query_watermark_offsets(client, topic, partition, &low, &high, PATIENCE_MS));
  return high;
}

// Writes the records to a new topic; seconds from the first to the last acknowledgement.
static double fill(const char *name, int partitions, size_t records) {
  rd_kafka_t *producer = make_producer("5", NULL);
  make_topic(producer, name, partitions);
  rd_kafka_topic_t *topic = rd_kafka_topic_new(producer, name, NULL);
  know_topic(producer, topic, partitions);
  char value[VALUE_BYTES], (*keys)[KEY_BYTES + 1] = allocate(KEYS * sizeof *keys);
  memset(value, 'x', sizeof value);
  for (unsigned key = 0; key < KEYS; key++) snprintf(keys[key], sizeof *keys, "%08u", key);
  uint64_t begin = now_ns();
  for (uint64_t number = 0; number < records; number++) {
    memcpy(value, &number, sizeof number);
    size_t key = number % KEYS;
    send_record(producer, topic, (int)(key % (size_t)partitions), value, sizeof value, keys[key], KEY_BYTES, event_headers());
  }
  check("rd_kafka_flush", rd_kafka_flush(producer, PATIENCE_MS));
  double seconds = (double)(now_ns() - begin) / 1e9;
  // Without reports on each record this says that none was refused.
  int64_t written = 0;
  for (int partition = 0; partition < partitions; partition++) written += end_of(producer, name, partition);
  if (written != (int64_t)records) refused(name, "not all records are there");
  free(keys);
  rd_kafka_topic_destroy(topic);
  rd_kafka_destroy(producer);
  return seconds;
}

static void produce(const char *topic, int partitions, size_t records) {
  double seconds = fill(topic, partitions, records);
  printf("{\"program\":\"kafka\",\"produce\":{\"recordsPerSecond\":%.0f,\"seconds\":%.3f}}\n", (double)records / seconds, seconds);
}

static void commit(rd_kafka_t *producer, rd_kafka_t *consumer, const char *topic, int partitions, const int64_t *next) {
  rd_kafka_topic_partition_list_t *offsets = rd_kafka_topic_partition_list_new(partitions);
  for (int partition = 0; partition < partitions; partition++) {
    if (next[partition] > 0) rd_kafka_topic_partition_list_add(offsets, topic, partition)->offset = next[partition];
  }
  rd_kafka_consumer_group_metadata_t *group = rd_kafka_consumer_group_metadata(consumer);
  check_error("rd_kafka_send_offsets_to_transaction", rd_kafka_send_offsets_to_transaction(producer, offsets, group, PATIENCE_MS));
  check_error("rd_kafka_commit_transaction", rd_kafka_commit_transaction(producer, PATIENCE_MS));
  rd_kafka_consumer_group_metadata_destroy(group);
  rd_kafka_topic_partition_list_destroy(offsets);
}

static void process(const char *name, int partitions, size_t records, size_t per_transaction) {
  fill(name, partitions, records);
  char out[512];
  if (snprintf(out, sizeof out, "%s.out", name) >= (int)sizeof out) refused(name, "too long");
  rd_kafka_t *producer = make_producer("5", name);
  make_topic(producer, out, partitions);
  rd_kafka_topic_t *target = rd_kafka_topic_new(producer, out, NULL);
  know_topic(producer, target, partitions);
  rd_kafka_queue_t *queue;
  rd_kafka_t *consumer = make_consumer(name, partitions, 0, &queue);

  static rd_kafka_message_t *messages[BATCH];
  static int64_t next[MOST_PARTITIONS];
  size_t done = 0, in_transaction = 0, first = 0, transactions = 0;
  uint64_t begin = 0, end = 0;
  check_error("rd_kafka_begin_transaction", rd_kafka_begin_transaction(producer));
  while (done < records) {
    // No more than there is: a batch that is not filled waits its time out.
    size_t left = per_transaction - in_transaction, wanted = records - done;
    if (wanted > left) wanted = left;
    if (wanted > BATCH) wanted = BATCH;
    ssize_t got = rd_kafka_consume_batch_queue(queue, 5, messages, wanted);
    if (got < 0) check("rd_kafka_consume_batch_queue", rd_kafka_last_error());
    for (ssize_t index = 0; index < got; index++) {
      rd_kafka_message_t *message = messages[index];
      check("reading", message->err);
      unsigned char *value = message->payload, capitals[VALUE_BYTES];
      if (message->len != VALUE_BYTES) refused("reading", "a record of another length");
      for (size_t at = 0; at < VALUE_BYTES; at++) {
        capitals[at] = (unsigned char)(value[at] - 'a') < 26 ? value[at] ^ 0x20 : value[at];
      }
      send_record(producer, target, message->partition, capitals, VALUE_BYTES, message->key, message->key_len, emitted_headers(message));
      next[message->partition] = message->offset + 1;
      rd_kafka_message_destroy(message);
    }
    done += (size_t)got;
    in_transaction += (size_t)got;
    if (in_transaction == per_transaction || done == records) {
      commit(producer, consumer, name, partitions, next);
      end = now_ns();
      if (transactions == 0) begin = end, first = done;
      transactions++;
      in_transaction = 0;
      if (done < records) check_error("rd_kafka_begin_transaction", rd_kafka_begin_transaction(producer));
    }
  }
  if (transactions < 2) refused(name, "one transaction took all: there is no time between the first and the last");
  double seconds = (double)(end - begin) / 1e9;
  printf("{\"program\":\"kafka\",\"process\":{\"recordsPerSecond\":%.0f,\"seconds\":%.3f,\"transactions\":%zu}}\n",
         (double)(records - first) / seconds, seconds, transactions);
  rd_kafka_queue_destroy(queue);
  rd_kafka_consumer_close(consumer);
  rd_kafka_destroy(consumer);
  rd_kafka_topic_destroy(target);
  rd_kafka_destroy(producer);
}

static void round_trip(const char *name, size_t count) {
  rd_kafka_t *producer = make_producer("0", NULL);
  make_topic(producer, name, 1);
  rd_kafka_topic_t *topic = rd_kafka_topic_new(producer, name, NULL);
  know_topic(producer, topic, 1);
  rd_kafka_queue_t *queue;
  rd_kafka_t *consumer = make_consumer(name, 1, 0, &queue);
  // The first ones show that everybody is there.
  enum { WARM_UP = 50 };
  uint64_t *samples = allocate(count * sizeof *samples);
  for (size_t number = 0; number < count + WARM_UP; number++) {
    char value[VALUE_BYTES] = {0};
    memcpy(value, &number, sizeof number);
    uint64_t begin = now_ns();
    send_record(producer, topic, 0, value, sizeof value, NULL, 0, NULL);
    rd_kafka_message_t *message = rd_kafka_consume_queue(queue, PATIENCE_MS);
    if (!message) refused("reading", "what was written does not come");
    check("reading", message->err);
    if (message->len != VALUE_BYTES || memcmp(message->payload, value, sizeof value)) refused("reading", "another record");
    rd_kafka_message_destroy(message);
    if (number >= WARM_UP) samples[number - WARM_UP] = now_ns() - begin;
  }
  check("rd_kafka_flush", rd_kafka_flush(producer, PATIENCE_MS));
  printf("{\"program\":\"kafka\",\"roundtrip\":");
  print_percentiles(samples, count);
  printf("}\n");
  free(samples);
  rd_kafka_queue_destroy(queue);
  rd_kafka_consumer_close(consumer);
  rd_kafka_destroy(consumer);
  rd_kafka_topic_destroy(topic);
  rd_kafka_destroy(producer);
}

static size_t number(const char *text, size_t most) {
  char *end;
  unsigned long value = strtoul(text, &end, 10);
  if (*end || value == 0 || value > most) refused(text, "not a number of what is wanted");
  return value;
}

int main(int count, char **arguments) {
  int option;
  while ((option = getopt(count, arguments, "+HX:")) == 'X' || option == 'H') {
    if (option == 'H') {
      has_headers = true;
      continue;
    }
    char *equals = strchr(optarg, '=');
    if (!equals || given_count == sizeof given / sizeof *given) refused(optarg, "no setting, or one too many");
    *equals = 0;
    given[given_count++] = (struct setting){optarg, equals + 1};
  }
  char **words = arguments + optind;
  count -= optind;
  enum { MOST = 100000000 };
  if (option == -1 && count >= 4) {
    servers = words[0];
    if (!strcmp(words[1], "produce") && count == 5) {
      produce(words[2], (int)number(words[3], MOST_PARTITIONS), number(words[4], MOST));
      return 0;
    }
    if (!strcmp(words[1], "process") && count == 6) {
      process(words[2], (int)number(words[3], MOST_PARTITIONS), number(words[4], MOST), number(words[5], MOST));
      return 0;
    }
    if (!strcmp(words[1], "roundtrip") && count == 4) {
      round_trip(words[2], number(words[3], MOST));
      return 0;
    }
  }
  fprintf(stderr, "usage: kafka [-H] [-X NAME=VALUE ...] SERVERS produce TOPIC PARTITIONS RECORDS\n"
                  "       kafka ... SERVERS process TOPIC PARTITIONS RECORDS RECORDS-PER-TRANSACTION\n"
                  "       kafka ... SERVERS roundtrip TOPIC COUNT\n");
  return 64;
}
