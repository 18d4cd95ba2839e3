#include "grape_linux.h"

#include <pthread.h>
#include <string.h>

#define POLYNOMIAL 0x82f63b78u // CRC-32C, reflected

static uint32_t tables[8][256];
// Operators that advance a CRC over LONG or SHORT zero bytes: crc(A || B) = shift(crc(A), |B|) ^ crc(B).
#define LONG 4096
#define SHORT 256
static uint32_t long_shift[4][256];
static uint32_t short_shift[4][256];
static bool hardware;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void build_shift(uint32_t shift[4][256], size_t zeros) {
  // The CRC register is linear over GF(2): push each single bit through `zeros` zero bytes, then combine.
  uint32_t basis[32];
  for (int bit = 0; bit < 32; bit++) {
    uint32_t crc = 1u << bit;
    for (size_t i = 0; i < zeros; i++) crc = tables[0][crc & 0xff] ^ (crc >> 8);
    basis[bit] = crc;
  }
  for (int byte = 0; byte < 4; byte++) {
    for (int value = 0; value < 256; value++) {
      uint32_t crc = 0;
      for (int bit = 0; bit < 8; bit++) {
        if (value & (1 << bit)) crc ^= basis[byte * 8 + bit];
      }
      shift[byte][value] = crc;
    }
  }
}

static void prepare(void) {
  for (uint32_t n = 0; n < 256; n++) {
    uint32_t crc = n;
    for (int k = 0; k < 8; k++) crc = crc & 1 ? (crc >> 1) ^ POLYNOMIAL : crc >> 1;
    tables[0][n] = crc;
  }
  for (uint32_t n = 0; n < 256; n++) {
    for (int k = 1; k < 8; k++) tables[k][n] = tables[0][tables[k - 1][n] & 0xff] ^ (tables[k - 1][n] >> 8);
  }
  build_shift(long_shift, LONG);
  build_shift(short_shift, SHORT);
#if defined(__x86_64__)
  hardware = __builtin_cpu_supports("sse4.2");
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
  hardware = true;
#endif
}

static inline uint64_t load64(const unsigned char *p) {
  uint64_t value;
  memcpy(&value, p, 8);
  return value;
}

static uint32_t table_update(uint32_t crc, const unsigned char *p, size_t size) {
  while (size && ((uintptr_t)p & 7)) {
    crc = tables[0][(crc ^ *p++) & 0xff] ^ (crc >> 8);
    size--;
  }
  while (size >= 8) {
    uint64_t word = load64(p) ^ crc; // little-endian machines only, as all that Swift on Linux runs on
    crc = tables[7][word & 0xff] ^ tables[6][(word >> 8) & 0xff] ^ tables[5][(word >> 16) & 0xff] ^
          tables[4][(word >> 24) & 0xff] ^ tables[3][(word >> 32) & 0xff] ^ tables[2][(word >> 40) & 0xff] ^
          tables[1][(word >> 48) & 0xff] ^ tables[0][word >> 56];
    p += 8;
    size -= 8;
  }
  while (size--) crc = tables[0][(crc ^ *p++) & 0xff] ^ (crc >> 8);
  return crc;
}

#if defined(__x86_64__)
#define HARDWARE_TARGET __attribute__((target("sse4.2")))
#define CRC8(crc, value) __builtin_ia32_crc32qi((uint32_t)(crc), (value))
#define CRC64(crc, value) __builtin_ia32_crc32di((crc), (value))
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#define HARDWARE_TARGET
#define CRC8(crc, value) __crc32cb((uint32_t)(crc), (value))
#define CRC64(crc, value) __crc32cd((uint32_t)(crc), (value))
#endif

#ifdef HARDWARE_TARGET
static inline uint32_t apply(uint32_t shift[4][256], uint32_t crc) {
  return shift[0][crc & 0xff] ^ shift[1][(crc >> 8) & 0xff] ^ shift[2][(crc >> 16) & 0xff] ^ shift[3][crc >> 24];
}

// Three chains hide the instruction's latency of three cycles; the shift tables splice them together.
#define THREE_CHAINS(BLOCK, SHIFT)                                                                                     \
  while (size >= 3 * BLOCK) {                                                                                          \
    uint64_t second = 0, third = 0;                                                                                    \
    const unsigned char *end = p + BLOCK;                                                                              \
    do {                                                                                                               \
      state = CRC64(state, load64(p));                                                                                 \
      second = CRC64(second, load64(p + BLOCK));                                                                       \
      third = CRC64(third, load64(p + 2 * BLOCK));                                                                     \
      p += 8;                                                                                                          \
    } while (p < end);                                                                                                 \
    state = apply(SHIFT, (uint32_t)state) ^ second;                                                                    \
    state = apply(SHIFT, (uint32_t)state) ^ third;                                                                     \
    p += 2 * BLOCK;                                                                                                    \
    size -= 3 * BLOCK;                                                                                                 \
  }

HARDWARE_TARGET static uint32_t hardware_update(uint32_t crc, const unsigned char *p, size_t size) {
  uint64_t state = crc;
  while (size && ((uintptr_t)p & 7)) {
    state = CRC8(state, *p++);
    size--;
  }
  THREE_CHAINS(LONG, long_shift)
  THREE_CHAINS(SHORT, short_shift)
  while (size >= 8) {
    state = CRC64(state, load64(p));
    p += 8;
    size -= 8;
  }
  while (size--) state = CRC8(state, *p++);
  return (uint32_t)state;
}
#endif

uint32_t grape_crc32c_portable(uint32_t crc, const void *bytes, size_t size) {
  pthread_once(&once, prepare);
  return ~table_update(~crc, bytes, size);
}

uint32_t grape_crc32c(uint32_t crc, const void *bytes, size_t size) {
  pthread_once(&once, prepare);
#ifdef HARDWARE_TARGET
  if (hardware) return ~hardware_update(~crc, bytes, size);
#endif
  return ~table_update(~crc, bytes, size);
}
