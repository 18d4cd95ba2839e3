#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

// Hands one message to a producer; the variadic call is out of Swift's reach. The value is copied if `flags` say so
// (RD_KAFKA_MSG_F_COPY), else it must stay until the delivery report; the key is copied. The headers, if any, belong to the message
// once this succeeds.
static inline rd_kafka_resp_err_t grape_kafka_produce(
    rd_kafka_t *client, rd_kafka_topic_t *topic, int32_t partition, const void *value, size_t value_size,
    const void *key, size_t key_size, rd_kafka_headers_t *headers, int64_t timestamp, int flags, void *opaque) {
  if (headers)
    return rd_kafka_producev(
        client, RD_KAFKA_V_RKT(topic), RD_KAFKA_V_PARTITION(partition), RD_KAFKA_V_VALUE((void *)value, value_size),
        RD_KAFKA_V_KEY(key, key_size), RD_KAFKA_V_TIMESTAMP(timestamp), RD_KAFKA_V_OPAQUE(opaque),
        RD_KAFKA_V_MSGFLAGS(flags), RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_END);
  return rd_kafka_producev(
      client, RD_KAFKA_V_RKT(topic), RD_KAFKA_V_PARTITION(partition), RD_KAFKA_V_VALUE((void *)value, value_size),
      RD_KAFKA_V_KEY(key, key_size), RD_KAFKA_V_TIMESTAMP(timestamp), RD_KAFKA_V_OPAQUE(opaque),
      RD_KAFKA_V_MSGFLAGS(flags), RD_KAFKA_V_END);
}

// What a producer calls for each message as soon as its broker has answered, or its time is over, on the thread that has learned of it.
typedef void grape_kafka_acknowledged(const rd_kafka_message_t *message, void *opaque);

struct grape_kafka_acknowledger {
  grape_kafka_acknowledged *call;
  void *opaque;
};

static inline rd_kafka_resp_err_t grape_kafka_on_acknowledgement(rd_kafka_t *client, rd_kafka_message_t *message, void *opaque) {
  (void)client;
  struct grape_kafka_acknowledger *to = (struct grape_kafka_acknowledger *)opaque;
  to->call(message, to->opaque);
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static inline rd_kafka_resp_err_t grape_kafka_on_new(
    rd_kafka_t *client, const rd_kafka_conf_t *conf, void *opaque, char *reason, size_t reason_size) {
  (void)conf, (void)reason, (void)reason_size;
  return rd_kafka_interceptor_add_on_acknowledgement(client, "grape", grape_kafka_on_acknowledgement, opaque);
}

// `to` must stay until the client is destroyed.
static inline rd_kafka_resp_err_t grape_kafka_acknowledge(rd_kafka_conf_t *conf, struct grape_kafka_acknowledger *to) {
  return rd_kafka_conf_interceptor_add_on_new(conf, "grape", grape_kafka_on_new, to);
}
