// Builds record batches as docs/protocol.md describes them: 8-byte keys, 100-byte values, the header g.e.
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { BATCH_HEADER = 61, KEY_BYTES = 8, VALUE_BYTES = 100, KEYS = 10000 };

static inline void put16(uint8_t *at, uint16_t value) {
  at[0] = (uint8_t)(value >> 8);
  at[1] = (uint8_t)value;
}

static inline void put32(uint8_t *at, uint32_t value) {
  put16(at, (uint16_t)(value >> 16));
  put16(at + 2, (uint16_t)value);
}

static inline void put64(uint8_t *at, uint64_t value) {
  put32(at, (uint32_t)(value >> 32));
  put32(at + 4, (uint32_t)value);
}

// Zigzag varint; returns the byte after it.
static inline uint8_t *put_varint(uint8_t *at, int64_t value) {
  uint64_t rest = ((uint64_t)value << 1) ^ (uint64_t)(value >> 63);
  while (rest >= 0x80) {
    *at++ = (uint8_t)(rest | 0x80);
    rest >>= 7;
  }
  *at++ = (uint8_t)rest;
  return at;
}

static inline uint32_t crc32c(const uint8_t *bytes, size_t size) {
  static uint32_t table[256];
  if (!table[1]) {
    for (uint32_t index = 0; index < 256; index++) {
      uint32_t crc = index;
      for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78u : 0);
      table[index] = crc;
    }
  }
  uint32_t crc = 0xffffffffu;
  for (size_t index = 0; index < size; index++) crc = (crc >> 8) ^ table[(crc ^ bytes[index]) & 0xff];
  return ~crc;
}

struct batch {
  size_t bytes;
  uint32_t records;
};

// Fills `buffer` with as many records as fit `limit` bytes; `number` is the first record's, and its keys and values follow from it.
static inline struct batch build_batch(uint8_t *buffer, size_t limit, uint64_t number, int64_t time_ms) {
  uint8_t *at = buffer + BATCH_HEADER;
  uint32_t count = 0;
  for (;; count++) {
    char key[32], value[VALUE_BYTES + 32];
    uint64_t n = number + count;
    snprintf(key, sizeof key, "%08u", (unsigned)(n * 2654435761u % KEYS));
    int used = snprintf(value, sizeof value, "{\"n\":%llu,\"sensor\":\"s-%llu\",\"temperature\":%llu.%llu,\"note\":\"",
                        (unsigned long long)n, (unsigned long long)(n * 31 % 997), (unsigned long long)(n * 7 % 40),
                        (unsigned long long)(n * 13 % 10));
    memset(value + used, 'a' + (int)(n % 26), VALUE_BYTES - (size_t)used);
    memcpy(value + VALUE_BYTES - 2, "\"}", 2);

    uint8_t body[KEY_BYTES + VALUE_BYTES + 64], *end = body;
    *end++ = 0;
    end = put_varint(end, 0);
    end = put_varint(end, count);
    end = put_varint(end, KEY_BYTES);
    memcpy(end, key, KEY_BYTES);
    end = put_varint(end + KEY_BYTES, VALUE_BYTES);
    memcpy(end, value, VALUE_BYTES);
    end = put_varint(end + VALUE_BYTES, 1);
    end = put_varint(end, 3);
    memcpy(end, "g.e", 3);
    end = put_varint(end + 3, 9);
    memcpy(end, "uppercase", 9);
    end += 9;

    size_t size = (size_t)(end - body);
    if ((size_t)(at - buffer) + size + 10 > limit) break;
    at = put_varint(at, (int64_t)size);
    memcpy(at, body, size);
    at += size;
  }
  size_t bytes = (size_t)(at - buffer);
  put64(buffer, 0);
  put32(buffer + 8, (uint32_t)(bytes - 12));
  put32(buffer + 12, UINT32_MAX);
  buffer[16] = 2;
  put16(buffer + 21, 0);
  put32(buffer + 23, count - 1);
  put64(buffer + 27, (uint64_t)time_ms);
  put64(buffer + 35, (uint64_t)time_ms);
  put64(buffer + 43, UINT64_MAX);
  put16(buffer + 51, UINT16_MAX);
  put32(buffer + 53, UINT32_MAX);
  put32(buffer + 57, count);
  put32(buffer + 17, crc32c(buffer + 21, bytes - 21));
  return (struct batch){bytes, count};
}
