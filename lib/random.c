/* SPDX-License-Identifier: Apache-2.0 */
#include "random.h"

#include <math.h>
#include <string.h>

static const uint32_t philox_multiplier[2] = {0xD2511F53u, 0xCD9E8D57u};
static const uint32_t philox_weyl[2] = {0x9E3779B9u, 0xBB67AE85u}; /* added to the key in each round */

void lamina_random_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
  uint32_t x[4] = {counter[0], counter[1], counter[2], counter[3]};
  uint32_t k0 = key[0], k1 = key[1];
  for (int round = 0; round < 10; round++) {
    uint64_t a = (uint64_t)philox_multiplier[0] * x[0];
    uint64_t b = (uint64_t)philox_multiplier[1] * x[2];
    x[0] = (uint32_t)(b >> 32) ^ x[1] ^ k0;
    x[1] = (uint32_t)b;
    x[2] = (uint32_t)(a >> 32) ^ x[3] ^ k1;
    x[3] = (uint32_t)a;
    k0 += philox_weyl[0];
    k1 += philox_weyl[1];
  }
  memcpy(out, x, sizeof x);
}

void lamina_random_block(uint64_t seed, uint64_t counter, uint32_t out[4]) {
  const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
  const uint32_t words[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), 0, 0};
  lamina_random_philox(words, key, out);
}

void lamina_random_uniform(uint64_t seed, uint64_t offset, int64_t n, float *out) {
  uint32_t block[4];
  for (int64_t i = 0; i < n; i++) {
    uint64_t number = offset + (uint64_t)i;
    if (i == 0 || number % 4 == 0) lamina_random_block(seed, number / 4, block);
    out[i] = (float)(block[number % 4] >> 8) * 0x1p-24f; /* 24 bits: exact in a float, and never 1 */
  }
}

/* Numbers 2p and 2p + 1 of the normal stream come from uniforms 2p and 2p + 1 (here with 32 bits each). */
static void normal_pair(uint64_t seed, uint64_t pair, double out[2]) {
  uint32_t block[4];
  lamina_random_block(seed, pair / 2, block);
  const uint32_t *word = block + pair % 2 * 2;
  double u = ((double)word[0] + 1.0) * 0x1p-32; /* in (0, 1]: the logarithm is finite */
  double angle = 6.283185307179586476925 * ((double)word[1] * 0x1p-32);
  double radius = sqrt(-2.0 * log(u));
  out[0] = radius * cos(angle);
  out[1] = radius * sin(angle);
}

void lamina_random_normal(uint64_t seed, uint64_t offset, int64_t n, float *out) {
  double pair[2];
  for (int64_t i = 0; i < n; i++) {
    uint64_t number = offset + (uint64_t)i;
    if (i == 0 || number % 2 == 0) normal_pair(seed, number / 2, pair);
    out[i] = (float)pair[number % 2];
  }
}

uint64_t lamina_random_stream(uint64_t seed, uint64_t key) {
  /* The upper counter words are zero in every stream of numbers, so this block belongs to none of them. */
  const uint32_t words[4] = {(uint32_t)key, (uint32_t)(key >> 32), 0x73747265u, 0x616du};
  const uint32_t philox_key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
  uint32_t out[4];
  lamina_random_philox(words, philox_key, out);
  return (uint64_t)out[1] << 32 | out[0];
}

uint64_t lamina_random_key(const char *text) {
  uint64_t hash = 0xCBF29CE484222325u; /* FNV-1a */
  for (; *text; text++) hash = (hash ^ (unsigned char)*text) * 0x100000001B3u;
  return hash;
}
