#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

// Hands one message to a producer; the variadic call is out of Swift's reach. The value is not copied and must stay until
// the delivery report; the key is copied. The headers, if any, belong to the message once this succeeds.
static inline rd_kafka_resp_err_t grape_kafka_produce(
    rd_kafka_t *client, rd_kafka_topic_t *topic, int32_t partition, const void *value, size_t value_size,
    const void *key, size_t key_size, rd_kafka_headers_t *headers, int64_t timestamp, void *opaque) {
  if (headers)
    return rd_kafka_producev(
        client, RD_KAFKA_V_RKT(topic), RD_KAFKA_V_PARTITION(partition), RD_KAFKA_V_VALUE((void *)value, value_size),
        RD_KAFKA_V_KEY(key, key_size), RD_KAFKA_V_TIMESTAMP(timestamp), RD_KAFKA_V_OPAQUE(opaque),
        RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_END);
  return rd_kafka_producev(
      client, RD_KAFKA_V_RKT(topic), RD_KAFKA_V_PARTITION(partition), RD_KAFKA_V_VALUE((void *)value, value_size),
      RD_KAFKA_V_KEY(key, key_size), RD_KAFKA_V_TIMESTAMP(timestamp), RD_KAFKA_V_OPAQUE(opaque), RD_KAFKA_V_END);
}
