/* SPDX-License-Identifier: Apache-2.0 */
/* Counter-based random numbers (Philox 4x32-10; Salmon et al. 2011): the n-th number of a stream is a pure function of
   (seed, n), so that results depend neither on threads nor on the order of calls. */
#ifndef LAMINA_RANDOM_H
#define LAMINA_RANDOM_H

#include <stdint.h>

/* The generator itself: ten rounds on a 128-bit counter with a 64-bit key, least significant word first. */
void lamina_random_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);
/* Four 32-bit words at `counter` of stream `seed`. */
void lamina_random_block(uint64_t seed, uint64_t counter, uint32_t out[4]);
/* n floats in [0, 1): numbers offset .. offset + n - 1 of the stream. */
void lamina_random_uniform(uint64_t seed, uint64_t offset, int64_t n, float *out);
/* n standard normal floats (Box-Muller on pairs of uniforms, computed in double). */
void lamina_random_normal(uint64_t seed, uint64_t offset, int64_t n, float *out);
/* A stream of its own for (seed, key): mixes both. */
uint64_t lamina_random_stream(uint64_t seed, uint64_t key);
uint64_t lamina_random_key(const char *text);

#endif
